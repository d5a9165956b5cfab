"""The worker comes back by itself, within 30 s, whatever took its Redis away (B6.7).

FAULTS=long has Redis end 40 times; the durations are printed (`pytest -rP`).
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import pytest

from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from sync_worker.watchdog import DEAF_SECONDS, EXIT_CODE
from tests.faults.orders import Orders
from tests.processes import children, command_line, gone, until
from tests.stack import Stack

SEAM = Path(__file__).parent / "celery_seam"

BACK_SECONDS = 30
"""What B6.7 promises."""

LONG = os.environ.get("FAULTS") == "long"
KILLS, STOPS = (30, 10) if LONG else (3, 2)

LOAD = 10
"""Changes that are under way when Redis ends."""

WATCH_SECONDS = DEAF_SECONDS if LONG else 4.0

BUSY_SECONDS = 2 * (WATCH_SECONDS + 1)

SETTINGS = {
    "FUSEBILL_READ_TIMEOUT_SECONDS": f"{BUSY_SECONDS + 4:g}",
    "LEASE_SECONDS": f"{BUSY_SECONDS + 5:g}",
}
"""A call may take as long as a worker is kept busy here."""

numbers = count(1)


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Orders:
    constants: dict[str, dict[str, Any]] = {
        "sync_worker.watchdog": {"DEAF_SECONDS": WATCH_SECONDS},
        "sync_worker.settings": {"CONNECT_TIMEOUT_SECONDS": 0.5, "LEASE_MARGIN_SECONDS": 0.5},
    }
    if not LONG:
        constants["sync_worker.inbox.inbox"] = {"WAKE_GRACE_MS": 3_000}
    return Orders(tmp_path_factory.mktemp("orders"), constants, traced=False)


@pytest.fixture(scope="module")
def one_stack(tmp_path_factory: pytest.TempPathFactory, orders: Orders) -> Iterator[Stack]:
    def environment(process: str) -> dict[str, str]:
        return {**orders.environment(process), "PYTHONPATH": str(SEAM)}

    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, environment=environment, **SETTINGS) as stack:
        until(stack.pool)
        yield stack
        print(stack.log("worker").read_text(errors="replace")[-8000:])


@pytest.fixture
def stack(one_stack: Stack) -> Stack:
    one_stack.wait_drained()
    one_stack.client.flushall()
    one_stack.control.reset()
    until(lambda: len(one_stack.pool()) == 2)
    return one_stack


def send(stack: Stack) -> str:
    """Send a change of a fresh record and customer, which may take a while to be accepted."""
    n = next(numbers)
    stack.control.put_customers(Customer(id=10_000 + n))
    made = stack.sample("geotab.linked", record_id=f"{n:07}", customer_id=str(10_000 + n))
    until(lambda: stack.post(made).ok, BACK_SECONDS)
    return f"geotab:{stack.settings.geotab_account}:customer:{n:07}"


def settle_one(stack: Stack) -> float:
    """Send a change; gives the seconds until it is settled, 30 at most."""
    begin = time.monotonic()
    sent = send(stack)
    until(lambda: [one for one in stack.events() if one.record == sent], BACK_SECONDS)
    return time.monotonic() - begin


def report(what: str, durations: list[float]) -> None:
    print(
        f"{what}: {len(durations)} times, settled again after {median(durations):.1f} s "
        f"(median), {max(durations):.1f} s (longest): {[round(one, 1) for one in durations]}"
    )


def told_from_now_on(stack: Stack) -> Callable[[], str]:
    begin = stack.log("worker").stat().st_size
    return lambda: stack.log("worker").read_bytes()[begin:].decode(errors="replace")


def celery_of(stack: Stack) -> int:
    """Celery's main process."""
    kept = children(stack.processes["worker"].pid)
    (pid,) = (one for one in kept if "celery" in command_line(one))
    return pid


@pytest.mark.timeout(60 + 45 * (KILLS + STOPS))
@pytest.mark.parametrize(
    ("killed", "times"), [(True, KILLS), (False, STOPS)], ids=["killed", "stopped"]
)
def test_after_a_restart_of_redis(stack: Stack, killed: bool, times: int):
    """While it works: then it has most to restore, and may trip over that."""
    said, durations = told_from_now_on(stack), []
    for _ in range(times):
        for _ in range(LOAD):
            send(stack)
        stack.redis.restart(kill=killed)
        durations.append(settle_one(stack))
    stack.wait_settled((LOAD + 1) * times)
    stack.wait_drained()
    assert {event.outcome for event in stack.events()} <= {"latched", "unchanged"}
    assert len(stack.events()) == (LOAD + 1) * times
    assert "Celery took no message" not in said()
    assert not list(stack.client.scan_iter("sw:celery:*unacked*"))  # nothing that could be owed
    report("Redis killed" if killed else "Redis stopped", durations)
    assert max(durations) <= BACK_SECONDS


def test_after_redis_was_away_for_longer_than_a_worker_may_be_deaf(stack: Stack):
    """Celery waits ever longer between its tries to connect, and nobody takes it for deaf."""
    said = told_from_now_on(stack)
    settle_one(stack)
    stack.redis.kill()
    until(lambda: said().count("Cannot connect to redis") >= 4)
    time.sleep(WATCH_SECONDS)  # nothing happens meanwhile: that is the point
    stack.redis.start()
    report("Redis away", [settle_one(stack)])
    assert "Celery took no message" not in said()


def test_after_its_connections_were_cut(stack: Stack):
    settle_one(stack)
    stack.client.client_kill_filter(_type="normal", skipme=True)
    report("connections cut", [settle_one(stack)])


def test_after_its_own_unexpected_exit(stack: Stack):
    celery = celery_of(stack)
    os.kill(celery, signal.SIGKILL)
    report("Celery killed", [settle_one(stack)])
    assert gone(celery)


def test_a_worker_that_went_deaf_ends_itself(stack: Stack, orders: Orders):
    """It lives, is connected, and takes nothing: what Celery does after some reconnects."""
    settle_one(stack)
    celery, said = celery_of(stack), told_from_now_on(stack)
    (orders.folder / "deafen").touch()
    until(lambda: not (orders.folder / "deafen").exists())
    report("deaf", [settle_one(stack)])
    until(lambda: gone(celery))
    told = said()
    assert (
        told.count(f"CRITICAL sync_worker.watchdog Celery took no message for {WATCH_SECONDS:g} s")
        == 1
    )
    assert f'how="exit code {EXIT_CODE}"' in told


def test_a_worker_that_is_merely_busy_is_left_alone(stack: Stack):
    """Also when its connection is cut meanwhile, and Celery has forgotten what its children do."""
    stack.control.put_customers(*(Customer(id=100 + n) for n in range(8)))
    held = stack.control.add_fault(Fault(method="POST", hold="before"))
    celery, said = celery_of(stack), told_from_now_on(stack)
    for n in range(8):
        stack.send("geotab.linked", record_id=f"9{n:06}", customer_id=str(100 + n))
    until(lambda: len(stack.control.calls(method="GET")) >= 2)
    stack.control.wait_held(held, timeout=30)
    time.sleep(BUSY_SECONDS / 2)  # nothing happens meanwhile: that is the point
    stack.client.client_kill_filter(_type="normal", skipme=True)
    time.sleep(BUSY_SECONDS / 2)
    assert "Celery took no message" not in said()
    stack.control.remove_fault(held)
    stack.wait_settled(8)
    stack.wait_drained()
    assert not gone(celery)


class Wire:
    """A way to Redis that can be cut off without a word: what was connected is never answered
    again, and never told so. New connections are let through.
    """

    def __init__(self, url: str) -> None:
        self._port = urlsplit(url).port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = url.replace(f":{self._port}", f":{self._door.getsockname()[1]}")
        self._cut = threading.Event()
        self._ends: list[socket.socket] = [self._door]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing more pass on the connections there are."""
        self._cut.set()
        self._cut = threading.Event()

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port or 0))
            self._ends += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(
                    target=self._carry, args=(one, other, self._cut), daemon=True
                ).start()

    def _carry(self, one: socket.socket, other: socket.socket, cut: threading.Event) -> None:
        try:
            while data := one.recv(65536):
                if not cut.is_set():
                    other.sendall(data)
            if not cut.is_set():
                other.shutdown(socket.SHUT_WR)
        except OSError:
            return


@pytest.mark.skipif(not LONG, reason="takes 17 s: in the long form")
def test_after_its_connections_fell_silent(stack: Stack, orders: Orders):
    """No end, no reset: a firewall forgot them. Celery notices, or the watchdog does."""
    wire = Wire(stack.redis.url)
    whole, stack._environment = (
        stack._environment,
        lambda process: {**whole(process), "REDIS_URL": wire.url},
    )
    try:
        stack.kill("worker")
        stack.start("worker")
        until(lambda: len(stack.pool()) == 2)
        settle_one(stack)
        wire.cut()
        report("connections silent", [settle_one(stack)])
    finally:
        stack._environment = whole
        stack.kill("worker")
        stack.start("worker")
        wire.close()
