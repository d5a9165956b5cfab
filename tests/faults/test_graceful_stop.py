"""SIGTERM: what is under way is finished or handed back, and nothing more is begun (B6.7)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator

import pytest

from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from sync_worker import lifeline
from sync_worker.celery import KEY_PREFIX, LIVE_QUEUE
from sync_worker.crew import AT_ONCE
from sync_worker.stopping import INTERRUPT_SECONDS
from sync_worker.supervise import GRACE_SECONDS
from tests.faults.orders import BRISK, Orders
from tests.processes import descendants, gone, until
from tests.stack import Stack

LONG = os.environ.get("FAULTS") == "long"

INTERRUPT = INTERRUPT_SECONDS if LONG else 2.0

QUEUE = KEY_PREFIX + LIVE_QUEUE

MAILBOXES = [f"{n:07}" for n in range(AT_ONCE + 8)]
"""More than one child works on at a time."""

CONSTANTS = {
    **BRISK,
    "sync_worker.celery": {"WAKE_PERIOD_SECONDS": 0.5, "BATCH": len(MAILBOXES)},
    "sync_worker.stopping": {"INTERRUPT_SECONDS": INTERRUPT},
}

SETTINGS = {"FUSEBILL_READ_TIMEOUT_SECONDS": "60", "LEASE_SECONDS": "120"}
"""A call takes longer than the worker has to end, and a lease longer than this test has patience:
what another worker takes up in time was handed back.
"""


@pytest.fixture(scope="module")
def one_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    orders = Orders(tmp_path_factory.mktemp("orders"), CONSTANTS, traced=False)
    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, environment=orders.environment, **SETTINGS) as stack:
        yield stack
        print(stack.log("worker").read_text(errors="replace")[-8000:])


@pytest.fixture
def stack(one_stack: Stack) -> Stack:
    """With one customer for each mailbox."""
    for name in ("web", "worker", "beat"):
        if name not in one_stack.processes:
            one_stack.start(name)
    one_stack.client.flushall()
    one_stack.control.reset()
    one_stack.control.put_customers(*(Customer(id=int(name) + 1) for name in MAILBOXES))
    until(lambda: len(one_stack.pool()) == 2)
    until(one_stack._ready)
    return one_stack


def send(stack: Stack, name: str) -> None:
    stack.send("geotab.linked", record_id=name, customer_id=str(int(name) + 1))


def ends(stack: Stack, name: str) -> int:
    """Wait for a process that was asked to end: its exit code. All it started is gone."""
    process = stack.processes.pop(name)
    started = descendants(process.pid)
    try:
        code = process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        lifeline.kill(process)
        raise
    lifeline.reaped(process)
    until(lambda: all(gone(pid) for pid in started))
    return code


def told_from_now_on(stack: Stack, name: str = "worker") -> Callable[[], str]:
    begin = stack.log(name).stat().st_size
    return lambda: stack.log(name).read_bytes()[begin:].decode(errors="replace")


def failures(told: str) -> list[str]:
    return [line for line in told.splitlines() if " ERROR " in line or " CRITICAL " in line]


def in_one_batch(stack: Stack) -> int:
    """Have one child work through all mailboxes, and return when its first call is held."""
    held = stack.control.add_fault(Fault(method="POST", hold="before"))
    stack.kill("worker")
    for name in MAILBOXES:
        send(stack, name)
    until(lambda: sum(map(len, map(named, stack.client.lrange(QUEUE, 0, -1)))) == len(MAILBOXES))
    stack.client.delete(QUEUE)
    due = stack.client.zrange("sw:due", 0, -1)
    stack.client.zadd("sw:wake", dict.fromkeys(due, 1))  # so that beat names all in one message
    stack.start("worker")
    stack.control.wait_held(held, timeout=30)
    until(lambda: len(stack.pool()) == 2)
    return held


def test_the_mailboxes_under_way_are_finished_and_the_rest_given_back(stack: Stack):
    held = in_one_batch(stack)
    stack.kill("beat")
    stack.client.delete(QUEUE)
    said = told_from_now_on(stack)
    stack.processes["worker"].terminate()
    until(lambda: "Warm shutdown" in said())
    stack.control.remove_fault(held)
    assert ends(stack, "worker") == 0
    settled = {event.record for event in stack.events()}
    assert len(settled) == AT_ONCE
    (given_back,) = stack.client.lrange(QUEUE, 0, -1)  # at once, without beat
    assert len(named(given_back)) == len(MAILBOXES) - AT_ONCE
    assert settled.isdisjoint(named(given_back))
    stack.start("worker")
    assert {event.outcome for event in stack.wait_settled(len(MAILBOXES))} == {"latched"}
    assert len(stack.control.calls(method="POST")) == len(MAILBOXES)
    assert failures(said()) == []


def named(message: str) -> list[str]:
    """The mailboxes that a wake-up names."""
    return json.loads(b64decode(json.loads(message)["body"]))[0][0]


@pytest.mark.parametrize("moment", ["before", "after"] if LONG else ["after"])
def test_a_call_that_takes_too_long_is_interrupted_and_its_mailbox_handed_back(
    stack: Stack, moment: str
):
    """The other child has nothing to do, and comes to no harm by it."""
    held = stack.control.add_fault(Fault(method="POST", hold=moment))
    send(stack, MAILBOXES[0])
    stack.control.wait_held(held, timeout=30)
    said = told_from_now_on(stack)
    begin = time.monotonic()
    stack.processes["worker"].terminate()
    assert ends(stack, "worker") == 0
    took = time.monotonic() - begin
    print(f"ended {took:.1f} s after SIGTERM, interrupted after {INTERRUPT:g} s")
    assert took >= INTERRUPT
    (work,) = stack.client.scan_iter("sw:work:*")
    assert "token" not in stack.client.hgetall(work)
    assert stack.client.hget(work, "failures") == "0"
    assert failures(said()) == []
    stack.control.remove_fault(held)
    stack.start("worker")
    (event,) = stack.wait_settled(1)
    assert event.outcome in ("latched", "unchanged")
    assert stack.control.customer(1).geotab_id == MAILBOXES[0]
    if moment == "after":
        assert len(stack.control.calls(method="POST")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT] if LONG else [signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(stack: Stack, number: signal.Signals):
    held = stack.control.add_fault(Fault(method="POST", hold="before"))
    send(stack, MAILBOXES[0])
    stack.control.wait_held(held, timeout=30)
    said = told_from_now_on(stack)
    stack.processes["worker"].send_signal(number)
    until(lambda: "Warm shutdown" in said())
    stack.processes["worker"].send_signal(number)
    assert ends(stack, "worker") == 0
    assert "child did not end, killing it" in said()


def test_with_nothing_to_do_all_end_cleanly(stack: Stack):
    names = ("web", "worker", "beat")
    said = {name: told_from_now_on(stack, name) for name in names}
    for name in names:
        stack.processes[name].terminate()
    assert {name: ends(stack, name) for name in names} == dict.fromkeys(names, 0)
    for name in names:
        assert failures(said[name]()) == []
        assert "Traceback" not in said[name]()
