"""Processes that are really killed, and what must be true afterwards (B2.2, B5.3, B6.6, B6.7)."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
import redis
import requests

from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from tests.processes import descendants, gone, until
from tests.stack import Stack

N = 8714402
GEOTAB = "0070441"


def answers(stack: Stack, made) -> int:
    try:
        return stack.post(made).status_code
    except requests.RequestException:
        return 0


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_without_redis_nothing_is_taken_and_the_senders_retry_is_applied(stack, killed):
    """B2.10 and the issue's own words: 503, and after the restart the retry is accepted."""
    made = stack.sample("geotab.linked", record_id=GEOTAB, customer_id=str(N))
    (stack.redis.kill if killed else stack.redis.stop)()
    answer = stack.post(made)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    stack.redis.start()
    until(lambda: answers(stack, made) == 202)
    assert stack.wait_settled(1)[0].outcome == "latched"
    assert stack.control.customer(N).geotab_id == GEOTAB
    stack.wait_drained()


def test_what_was_accepted_survives_a_kill_of_redis(stack):
    """With appendfsync always, as docker-compose.yml ships it (B10.1)."""
    stack.client.config_set("appendfsync", "always")
    stack.kill("worker")
    stack.send("geotab.linked", record_id=GEOTAB, customer_id=str(N))
    stack.redis.restart(kill=True)
    stack.start("worker")
    assert stack.wait_settled(1)[0].outcome == "latched"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_while_calling_leaves_the_change_to_the_next(stack, moment):
    """The call had no effect yet, or had it and was never answered: both end latched."""
    fault = stack.control.add_fault(Fault(method="POST", hold=moment))
    stack.send("geotab.linked", record_id=GEOTAB, customer_id=str(N))
    stack.control.wait_held(fault, timeout=30)
    stack.kill("worker")
    stack.control.remove_fault(fault)
    stack.start("worker")
    (event,) = stack.wait_settled(1)
    assert event.outcome in ("latched", "unchanged")
    assert stack.control.customer(N).geotab_id == GEOTAB
    assert stack.letters() == []
    if moment == "after":
        assert event.outcome == "unchanged"
        assert len(stack.control.calls(method="POST")) == 1


def celery_processes(stack: Stack) -> list[int]:
    """The Celery processes that the command `worker` keeps, its pool included."""
    listing = {pid: _command_line(pid) for pid in descendants(stack.processes["worker"].pid)}
    return [pid for pid, line in listing.items() if "celery" in line]


def _command_line(pid: int) -> str:
    shown = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout


def test_b6_7_a_worker_that_is_killed_comes_back_by_itself(stack):
    """Only Celery dies; the command that keeps it does not."""
    until(lambda: celery_processes(stack))
    killed = celery_processes(stack)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(gone(pid) for pid in killed))
    stack.send("geotab.linked", record_id=GEOTAB, customer_id=str(N))
    assert stack.wait_settled(1)[0].outcome == "latched"
    assert not set(celery_processes(stack)) & set(killed)


def test_b6_12_a_full_store_takes_nothing_and_drains_by_itself(stack):
    """At 100 % Celery cannot send a single wake-up; the worker makes room without it."""
    stack.kill("worker")
    for n in range(40):
        stack.control.put_customers(Customer(id=100 + n))
        stack.send("geotab.linked", record_id=f"{n:07}", customer_id=str(100 + n))
    limit = stack.client.info("memory")["used_memory"] + 4_000_000
    stack.client.config_set("maxmemory", limit)
    try:
        fill(stack.client)
        made = stack.sample("geotab.linked", record_id=GEOTAB, customer_id=str(N))
        assert stack.post(made).status_code == 503
        stack.start("worker")
        assert {event.outcome for event in stack.wait_settled(40)} == {"latched"}
        stack.wait_drained()
    finally:
        stack.client.config_set("maxmemory", 0)
    assert stack.post(made).status_code == 202
    stack.wait_settled(41)


def fill(client: redis.Redis) -> None:
    """Fill the store up to its last byte."""
    for size in (100_000, 1_000, 10):
        for n in range(100_000):
            try:
                client.set(f"ballast:{size}:{n}", "x" * size)
            except redis.exceptions.OutOfMemoryError:
                break


def test_without_beat_what_was_woken_is_still_worked_on_and_with_it_the_rest(stack):
    stack.kill("beat")
    stack.control.add_fault(Fault(status=500, count=1))
    stack.send("geotab.linked", record_id=GEOTAB, customer_id=str(N))
    until(lambda: stack.control.calls(status=500))
    stack.start("beat")
    assert stack.wait_settled(1)[0].outcome == "latched"
