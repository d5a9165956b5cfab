"""What several integration tests share: a world of simulated systems, one server each a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from simulators.fusebill.customer import Customer
from simulators.fusebill.server import SimulatedFusebill
from tests.worlds import OTHER, THIRD, Crms, N, World


@pytest.fixture(scope="module")
def fusebill() -> Iterator[SimulatedFusebill]:
    with SimulatedFusebill() as server:
        yield server


@pytest.fixture(scope="module")
def crms() -> Iterator[Crms]:
    with Crms() as running:
        yield running


@pytest.fixture
def world(client: redis.Redis, fusebill: SimulatedFusebill, crms: Crms) -> Iterator[World]:
    """Three customers who hold nothing, empty CRMs, and no read access to them."""
    fusebill.control.reset()
    fusebill.control.put_customers(*(Customer(id=one) for one in (N, OTHER, THIRD)))
    crms.reset()
    made = World(client, fusebill, crms)
    yield made
    made.close()
