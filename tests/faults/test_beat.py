"""Beat: clocks that are wrong do not matter (B7.6), nor does a second one (B6.7)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from sync_worker import lifeline
from sync_worker.celery import BEAT_QUEUE, KEY_PREFIX, LIVE_QUEUE
from tests.faults.orders import BRISK, BRISK_SETTINGS, Orders, convergences
from tests.processes import until
from tests.stack import Stack

N = 8714402
GEOTAB = "0070441"

MAILBOXES = 30


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Orders:
    return Orders(tmp_path_factory.mktemp("orders"), BRISK)


@pytest.fixture(scope="module")
def one_stack(tmp_path_factory: pytest.TempPathFactory, orders: Orders) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    settings = {**BRISK_SETTINGS, "RETRY_SCHEDULE_SECONDS": "1,1,1,1,1,1,1,1,1"}
    with Stack(folder, environment=orders.environment, **settings) as stack:
        yield stack
        for name in ("worker", "beat"):
            print(f"--- {name}\n{stack.log(name).read_text(errors='replace')[-4000:]}")


@pytest.fixture
def stack(one_stack: Stack) -> Stack:
    one_stack.wait_drained()
    one_stack.client.flushall()
    one_stack.control.reset()
    one_stack.control.put_customers(Customer(id=N))
    return one_stack


def wakes(stack: Stack) -> None:
    """What is put off is woken by nobody but beat."""
    stack.control.add_fault(Fault(status=500, count=1))
    stack.send("geotab.linked", record_id=GEOTAB, customer_id=str(N))
    (event,) = stack.wait_settled(1, 30)
    assert event.outcome == "latched"
    assert stack.control.calls(status=500)


@pytest.mark.parametrize("seconds", [-60, 60, -3600])
@pytest.mark.parametrize("process", ["beat", "worker"])
def test_b7_6_a_clock_that_is_wrong_keeps_nobody_asleep(
    stack: Stack, orders: Orders, process: str, seconds: float
):
    """It becomes wrong while the process runs, as when somebody sets it."""
    orders.set_clock(process, seconds)
    try:
        wakes(stack)
    finally:
        orders.set_clock(process, 0)


def test_two_beats_wake_everything_once(stack: Stack, orders: Orders):
    second = lifeline.spawn(
        [sys.executable, "-m", "sync_worker", "beat"], env=stack._environ("beat")
    )
    try:
        stack.kill("worker")
        stack.control.put_customers(*(Customer(id=n + 1) for n in range(MAILBOXES)))
        for n in range(MAILBOXES):
            stack.send("geotab.linked", record_id=f"{n:07}", customer_id=str(n + 1))
        until(lambda: stack.client.llen(KEY_PREFIX + BEAT_QUEUE))
        before = len(orders.trace())
        stack.client.delete(KEY_PREFIX + LIVE_QUEUE)  # all wake-ups are lost
        assert stack.client.llen(KEY_PREFIX + BEAT_QUEUE) <= 2
        stack.start("worker")
        stack.wait_settled(MAILBOXES)
        stack.wait_drained()
        worked = Counter(one.mailbox for one in convergences(orders.trace()[before:]))
        assert len(worked) == MAILBOXES
        assert set(worked.values()) == {1}
        assert len(stack.control.calls(method="POST")) == MAILBOXES
        stack.kill("beat")
        stack.send("geotab.linked", record_id=GEOTAB, customer_id=str(N))
        stack.wait_settled(MAILBOXES + 1)
    finally:
        lifeline.kill(second)
        second.wait()
        lifeline.reaped(second)
        if "beat" not in stack.processes:
            stack.start("beat")
