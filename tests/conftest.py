"""What tests share: a real Redis, emptied for each test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from sync_worker import store
from sync_worker.embedded_redis import EmbeddedRedis


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
