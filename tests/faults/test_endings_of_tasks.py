"""The seven ways in which a Celery task ends otherwise than well, each with the real worker.

Whatever becomes of the message, the change is settled in the end, its write is made exactly once,
and the worker serves on (B6.6, B6.7). That list is Celery's, not ours: which of its hooks fires in
which of these cases differs from release to release, so the product relies on none.
"""

from __future__ import annotations

import json
import os
import re
import signal
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from sync_worker.celery import KEY_PREFIX, LIVE_QUEUE
from tests.faults.orders import BRISK, BRISK_SETTINGS, Orders
from tests.processes import gone, until
from tests.stack import Stack

SEAM = Path(__file__).parent / "celery_seam"

N, M = 8714402, 8714403
GEOTAB, OTHER = "0070441", "0070442"

QUEUE = KEY_PREFIX + LIVE_QUEUE

SOFT, HARD = 1, 2
"""Seconds; shorter than a call may take (FUSEBILL_READ_TIMEOUT_SECONDS)."""

CONSTANTS = {
    **BRISK,
    "sync_worker.celery": {
        **BRISK["sync_worker.celery"],
        "SOFT_LIMIT_SECONDS": SOFT,
        "HARD_LIMIT_SECONDS": HARD,
    },
}


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Orders:
    return Orders(tmp_path_factory.mktemp("orders"), CONSTANTS, traced=False)


@pytest.fixture(scope="module")
def one_stack(tmp_path_factory: pytest.TempPathFactory, orders: Orders) -> Iterator[Stack]:
    def environment(process: str) -> dict[str, str]:
        return {**orders.environment(process), "PYTHONPATH": str(SEAM)}

    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, environment=environment, **BRISK_SETTINGS) as stack:
        yield stack
        print(stack.log("worker").read_text(errors="replace")[-8000:])


@pytest.fixture
def stack(one_stack: Stack) -> Stack:
    one_stack.wait_drained()
    one_stack.client.flushall()
    one_stack.control.reset()
    one_stack.control.put_customers(Customer(id=N), Customer(id=M))
    until(one_stack.pool)
    return one_stack


def change(stack: Stack) -> None:
    stack.send("geotab.linked", record_id=GEOTAB, customer_id=str(N))


def assert_settled_once_and_serving(stack: Stack) -> None:
    """It came to its end, by one write, and the next change does too."""
    (event,) = stack.wait_settled(1)
    assert event.outcome in ("latched", "unchanged")
    assert stack.control.customer(N).geotab_id == GEOTAB
    serves(stack)
    assert len(stack.control.calls(method="POST")) == 2
    assert stack.letters() == []


def serves(stack: Stack) -> None:
    """The next change is settled too."""
    before = len(stack.events())
    stack.send("geotab.linked", record_id=OTHER, customer_id=str(M))
    assert stack.wait_settled(before + 1)[-1].outcome == "latched"
    stack.wait_drained()
    assert stack.control.customer(M).geotab_id == OTHER


def test_an_exception_in_the_task(stack: Stack, orders: Orders):
    said = told_from_now_on(stack)
    (orders.folder / "raise").touch()
    change(stack)
    assert_settled_once_and_serving(stack)
    assert "a fault of the task itself" in said()


def in_a_call(stack: Stack) -> int:
    """Send a change, and return when Fusebill holds its write, which has already taken effect."""
    fault = stack.control.add_fault(Fault(method="POST", hold="after", count=1))
    change(stack)
    stack.control.wait_held(fault, timeout=30)
    return fault


def test_the_soft_time_limit(stack: Stack):
    said = told_from_now_on(stack)
    in_a_call(stack)
    assert_settled_once_and_serving(stack)
    assert f"Soft time limit ({SOFT}s) exceeded" in said()


def test_the_hard_time_limit(stack: Stack, orders: Orders):
    said = told_from_now_on(stack)
    before = stack.pool()
    (orders.folder / "stubborn").touch()
    in_a_call(stack)
    assert_settled_once_and_serving(stack)
    assert f"Hard time limit ({HARD}s) exceeded" in said()
    assert set(before) - set(stack.pool())


def test_a_child_that_is_killed(stack: Stack):
    """As the system does when memory runs out."""
    in_a_call(stack)
    for child in stack.pool():
        os.kill(child, signal.SIGKILL)
    assert_settled_once_and_serving(stack)


def test_a_worker_that_is_killed(stack: Stack):
    in_a_call(stack)
    (celery,) = {parent_of(child) for child in stack.pool()}
    os.kill(celery, signal.SIGKILL)
    assert_settled_once_and_serving(stack)
    assert gone(celery)


def parent_of(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def name_a_task_of_another_version(message: dict[str, Any]) -> None:
    message["headers"]["task"] = "sync_worker.of_another_version"


def leave_out_the_headers(message: dict[str, Any]) -> None:
    message["headers"] = {}


def spoil_the_body(message: dict[str, Any]) -> None:
    message["body"] = b64encode(b"not json{").decode()


def pickle_the_body(message: dict[str, Any]) -> None:
    message["content-type"] = "application/x-python-serialize"


def test_messages_that_cannot_be_used(stack: Stack):
    """Each is the wake-up of a change, so nobody but beat knows of that one."""
    spoil = (
        name_a_task_of_another_version,
        leave_out_the_headers,
        spoil_the_body,
        pickle_the_body,
    )
    stack.control.put_customers(*(Customer(id=100 + n) for n, _ in enumerate(spoil)))
    said = told_from_now_on(stack)
    stack.kill("worker")
    for n, _ in enumerate(spoil):
        stack.send("geotab.linked", record_id=f"{n:07}", customer_id=str(100 + n))
    until(lambda: stack.client.llen(QUEUE) == len(spoil))
    waiting = [json.loads(message) for message in stack.client.lrange(QUEUE, 0, -1)]
    for change, message in zip(spoil, waiting, strict=True):
        change(message)
    with stack.client.pipeline() as pipe:
        pipe.delete(QUEUE).lpush(QUEUE, *map(json.dumps, waiting)).execute()
    stack.start("worker")
    assert {event.outcome for event in stack.wait_settled(len(spoil))} == {"latched"}
    stack.wait_drained()
    assert len(stack.control.calls(method="POST")) == len(spoil)
    assert "for the task 'sync_worker.of_another_version', which this version" in said()
    assert said().count("a message in a queue of ours could not be used") == 3
    assert not re.search("Did you remember|full contents|Traceback", said())
    celery = set(map(parent_of, stack.pool()))
    serves(stack)
    assert celery == set(map(parent_of, stack.pool()))


GARBAGE = [b"\xff\x00 not json{"]
if os.environ.get("FAULTS") == "long":
    GARBAGE += [b"[1]", b""]


def test_garbage_on_the_list(stack: Stack):
    """It ends Celery, the wake-up is lost with it, and both come back."""
    said = told_from_now_on(stack)
    stack.kill("worker")
    change(stack)
    until(lambda: stack.client.llen(QUEUE))
    with stack.client.pipeline() as pipe:
        pipe.delete(QUEUE).lpush(QUEUE, *GARBAGE).execute()
    stack.start("worker")
    assert_settled_once_and_serving(stack)
    told = said().count("what lay in a queue of ours is no message at all, which ends Celery")
    assert told == len(GARBAGE)
    assert "Traceback" not in said()


def told_from_now_on(stack: Stack) -> Callable[[], str]:
    begin = stack.log("worker").stat().st_size
    return lambda: stack.log("worker").read_bytes()[begin:].decode(errors="replace")
