"""What tests share: a real Redis, and the whole product as processes, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from simulators.fusebill.customer import Customer
from sync_worker import store
from sync_worker.embedded_redis import EmbeddedRedis
from tests.stack import Stack, running


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """One server for all tests that do not stop it."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def client(shared_redis: EmbeddedRedis) -> Iterator[redis.Redis]:
    """A connection to an empty store."""
    connection = store.connect(shared_redis.url)
    connection.flushall()
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def module_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All processes, for the tests of one module."""
    yield from running(tmp_path_factory.mktemp("stack"))


@pytest.fixture
def stack(module_stack: Stack) -> Stack:
    """All processes, an empty store, and one customer."""
    module_stack.wait_drained()
    module_stack.client.flushall()
    module_stack.control.reset()
    module_stack.control.put_customers(Customer(id=8714402))
    return module_stack
