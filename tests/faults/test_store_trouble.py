"""A store that is full, takes no writes, keeps no log, or loses its end (B2.10, B6.12, B10.1).

What was answered 2xx is there after the cure, or `status` says what may be missing and who owes a
reconciliation. FAULTS=long repeats what depends on the moment.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis
import requests

from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from sync_worker.celery import KEY_PREFIX, LIVE_QUEUE
from sync_worker.domain import Source
from sync_worker.durability import RUN_KEY
from sync_worker.inbox.inbox import WAKE_GRACE_MS
from sync_worker.status import read_status
from tests.faults.scene import LONG_RUN
from tests.faults.trouble import PROBE_SECONDS, command, quick
from tests.processes import until, within
from tests.stack import Stack, running
from webhooks import samples

ROUNDS = 20 if LONG_RUN else 1
"""How often the power is cut."""

FIRST_CUSTOMER = 200_000

BATCH = 20

NOTE = "x" * 12_000
"""Makes events heavy, so that few of them fill a store; all of it goes once they are settled."""

ROOM_BYTES = 60_000_000 if LONG_RUN else 6_000_000

CONNECTIONS_BYTES = 200_000
"""What connections may give back of what they hold, and so make room for a message of Celery's."""

SOON_SECONDS = 3 * WAKE_GRACE_MS / 1000
"""How long a few hundred changes take at most: wake-ups that cannot be sent hold up nobody."""

READ_ONLY = "Redis is a read-only replica: point REDIS_URL at the primary"

READ_ONLY_SECONDS = 60 if LONG_RUN else 5
"""Long enough that beat, the worker and Celery itself have met it."""

DRAIN_SECONDS = 240 if LONG_RUN else 120


# --- the stack


@pytest.fixture(scope="module")
def stack_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """As docker-compose.yml ships Redis."""
    folder = tmp_path_factory.mktemp("store")
    yield from running(
        folder,
        environment=quick,
        appendfsync="always",
        RETRY_SCHEDULE_SECONDS="1,1",
        NOT_FOUND_RETRIES="2",
        SWEEP_SECONDS="1",
    )


@pytest.fixture
def stack(stack_of_module: Stack) -> Iterator[Stack]:
    """Emptied, all processes running, with a worker that has just shown that it works."""
    stack = stack_of_module
    stack.control.reset()
    stack.control.set_options(minute_limit=None, day_limit=None)
    stack.client.flushall()
    for name in ("web", "worker", "beat"):
        if name not in stack.processes:
            stack.start(name)
    until(stack._ready, 60)
    link(stack, 0)
    stack.wait_settled(1)
    until(lambda: stack.client.exists(RUN_KEY))
    stack.control.clear_calls()
    try:
        yield stack
    finally:
        stack.redis.start()
        stack.client.config_set("maxmemory", 0)
        stack.client.replicaof("NO", "ONE")
        stack.client.config_set("appendonly", "yes")
        stack.client.config_set("appendfsync", "always")


def link(stack: Stack, *numbers: int) -> None:
    """Have Geotab link each of these records to its customer."""
    stack.control.put_customers(*(Customer(id=FIRST_CUSTOMER + n) for n in numbers))
    for number in numbers:
        answer = stack.post(told(stack, number))
        assert answer.status_code == 202, answer.text


def told(stack: Stack, number: int, event: str = "geotab.linked") -> samples.SampleRequest:
    """The delivery that says so."""
    customer_id = str(FIRST_CUSTOMER + number)
    return stack.sample(event, record_id=f"{number:07}", customer_id=customer_id)


def heavy(stack: Stack, *numbers: int, event: str = "geotab.linked") -> int:
    """The same of several in one heavy delivery; gives what it is answered."""
    stack.control.put_customers(*(Customer(id=FIRST_CUSTOMER + n) for n in numbers))
    made = []
    for number in numbers:
        (one,) = msgspec.json.decode(told(stack, number, event).body)["events"]
        made.append(one | {"note": NOTE})
    body = msgspec.json.encode({"events": made})
    whole = samples._sign_geotab(stack.settings, "application/json", body, time.time(), None)
    return stack.post(whole).status_code


def linked(stack: Stack) -> set[int]:
    """The numbers whose customers hold their records."""
    found = {one.id - FIRST_CUSTOMER: one.geotab_id for one in stack.control.customers()}
    return {number for number, id_ in found.items() if id_ == f"{number:07}"}


def status_code(stack: Stack, number: int, event: str = "geotab.linked") -> int:
    try:
        return stack.post(told(stack, number, event)).status_code
    except requests.RequestException:
        return 0


def said_since(stack: Stack, name: str, at: int) -> str:
    """What a process has written to its log since that place."""
    return stack.log(name).read_text(encoding="utf-8", errors="replace")[at:]


def place(stack: Stack, name: str) -> int:
    return len(stack.log(name).read_text(encoding="utf-8", errors="replace"))


# --- full


def share(client: redis.Redis) -> float:
    memory = client.info("memory")
    return memory["used_memory"] / memory["maxmemory"]


def send_until_refused(stack: Stack, event: str = "geotab.linked") -> tuple[range, float, float]:
    """Send heavy deliveries until the store is nearly at its limit, then light ones on top of ever
    more ballast; gives the numbers that it took, its share before the last one that it took, and
    before the one that it did not.
    """
    number, code, taken, before = 1, 202, 0.0, 0.0
    while share(stack.client) < 0.84:
        assert heavy(stack, *range(number, number + BATCH), event=event) == 202
        number += BATCH
    while code == 202:
        taken, before = before, share(stack.client)
        code = status_code(stack, number, event)
        number += code == 202
        stack.client.set(f"ballast:{before}", "x" * (ROOM_BYTES // 500))
    assert code == 503
    stack.control.put_customers(*(Customer(id=FIRST_CUSTOMER + n) for n in range(1, number)))
    return range(1, number), taken, before


def fill(stack: Stack) -> float:
    """Fill the store up to its last byte, with nobody about to make room, nor any left by what
    connections hold now and not later; gives its share.
    """
    until(lambda: not stack.client.llen(KEY_PREFIX + LIVE_QUEUE))
    for size in (100_000, 1_000, 10):
        for n in range(100_000):
            try:
                stack.client.set(f"ballast:{size}:{n}", "x" * size)
            except redis.exceptions.OutOfMemoryError:
                break
    limit = stack.client.info("memory")["maxmemory"]
    stack.client.config_set("maxmemory", limit - CONNECTIONS_BYTES)
    return share(stack.client)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("circuit", ["closed", "open"])
def test_b6_12_a_full_store_refuses_from_90_percent_and_drains_by_itself(stack, circuit, figures):
    """While it is full Celery can send nothing. If the circuit of Fusebill is open in addition, the
    probe that closes it needs another way too.
    """
    if circuit == "open":
        fault = stack.control.add_fault(Fault(status=503))
    else:
        command(stack, "pause")
    log_from = place(stack, "worker")  # it may begin as soon as the store is full enough
    stack.client.config_set("maxmemory", stack.client.info("memory")["used_memory"] + ROOM_BYTES)
    numbers, taken, refused = send_until_refused(stack)
    if circuit == "open":
        until(lambda: read_status(stack.client).breaker["fusebill"] == "open")
    full = fill(stack)
    answer = stack.post(told(stack, 9999))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert requests.get(f"{stack.url}/readyz", timeout=5).status_code == 503
    if circuit == "open":
        seq = stack.control.last_seq()
        probes = stack.control.wait_for_calls(2, since=seq, timeout=3 * PROBE_SECONDS + 30)
        assert {call.path for call in probes} == {"/v1/customers/"}
        stack.control.remove_fault(fault)
    assert read_status(stack.client).backlog == len(numbers)
    if circuit == "closed":
        command(stack, "resume")
    begun = time.monotonic()
    stack.wait_drained(DRAIN_SECONDS)
    drained = time.monotonic() - begun
    left = share(stack.client)
    stack.client.delete(*stack.client.keys("ballast:*"))
    begun = time.monotonic()
    link(stack, 9999)  # taken again, and Celery wakes somebody for it
    until(lambda: 9999 in linked(stack), 40)
    figures(
        ("refused", f"at {refused:.1%} of maxmemory, taken at {taken:.1%}"),
        ("drained", f"{len(numbers)} changes, {full:.1%} to {left:.1%}, in {drained:.1f} s"),
        ("the next change", f"{time.monotonic() - begun:.1f} s"),
    )
    assert 0.88 < taken < 0.92
    assert 0.88 < refused < 0.92  # what others use comes and goes
    assert abs(refused - 0.9) < 0.01  # measured before the request, which takes some itself
    assert full > 0.99
    assert drained < SOON_SECONDS or LONG_RUN
    assert "draining it without Celery" in said_since(stack, "worker", log_from)
    assert linked(stack) == {0, *numbers, 9999}
    assert stack.letters() == []


@pytest.mark.timeout(600)
def test_b6_12_a_full_store_drains_also_what_waits_for_a_sweep(stack, figures):
    """Unlinks of records that nobody is known to hold: only a sweep settles them (B4.5)."""
    command(stack, "pause")
    stack.client.config_set("maxmemory", stack.client.info("memory")["used_memory"] + ROOM_BYTES)
    numbers, *_ = send_until_refused(stack, "geotab.deactivated")
    fill(stack)
    command(stack, "resume")
    begun = time.monotonic()
    drained = within(lambda: not read_status(stack.client).backlog, DRAIN_SECONDS / 2)
    figures(
        ("changes", len(numbers)),
        ("backlog", read_status(stack.client).backlog),
        ("after", f"{time.monotonic() - begun:.1f} s"),
    )
    assert drained
    assert stack.letters() == []


# --- read-only


@pytest.mark.timeout(600)
def test_b2_10_a_read_only_store_says_so_and_loses_nothing(stack, figures):
    """As after a failover to which REDIS_URL was not adapted."""
    stack.control.add_fault(Fault(status=500))
    link(stack, *range(1, 6))
    at = {name: place(stack, name) for name in ("web", "worker")}
    stack.client.replicaof("127.0.0.1", "1")
    answer = stack.post(told(stack, 6))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Content-Type"] == "application/problem+json"
    ready = requests.get(f"{stack.url}/readyz", timeout=5)
    assert (ready.status_code, ready.text.strip()) == (503, READ_ONLY)
    assert command(stack, "pause", code=1).strip() == f"sync-worker: {READ_ONLY}"
    stack.control.clear_faults()
    time.sleep(READ_ONLY_SECONDS)
    assert status_code(stack, 6) == 503
    assert linked(stack) == {0}
    shown = command(stack, "status")
    stack.client.replicaof("NO", "ONE")
    mended = time.monotonic()
    stack.control.put_customers(Customer(id=FIRST_CUSTOMER + 6))
    until(lambda: status_code(stack, 6) == 202)
    taken = time.monotonic() - mended
    until(lambda: linked(stack) == set(range(7)), 60)
    figures(
        ("taken again", f"{taken:.1f} s after the cure"),
        ("all settled", f"{time.monotonic() - mended:.1f} s after it"),
    )
    assert READ_ONLY in said_since(stack, "web", at["web"])
    if LONG_RUN:  # in a short time Celery alone may have met it
        assert READ_ONLY in said_since(stack, "worker", at["worker"])
    assert "read-only replica" in shown
    stack.wait_drained()
    assert stack.letters() == []


# --- no log of its own


def test_b10_1_without_aof_nothing_starts_and_status_warns(stack, figures):
    stack.client.config_set("appendonly", "no")
    unsafe = stack.command("status", "--json")
    assert ["AOF is off" in one for one in unsafe["unsafe"]] == [True]
    assert "appendonly is off" in unsafe["may_lose"]
    assert "AOF is off" in command(stack, "status")
    for name in ("web", "worker", "beat"):
        said = command(stack, name, code=1).strip()
        assert "set appendonly yes" in said
        assert "Traceback" not in said
        assert len(said.splitlines()) == 1
    link(stack, 1)  # those that run go on
    until(lambda: linked(stack) == {0, 1})
    stack.client.config_set("appendonly", "yes")
    until(lambda: not stack.client.info("persistence")["aof_rewrite_in_progress"])
    stack.kill("worker")
    stack.start("worker")
    link(stack, 2)
    until(lambda: linked(stack) == {0, 1, 2}, 40)
    figures(("said", said))
    safe = stack.command("status", "--json")
    assert (safe["unsafe"], safe["may_lose"], safe["reconcile_owed"]) == ([], "", [])


def test_b10_1_what_a_restart_without_aof_took_along_is_owed(stack):
    """It comes back as it was when AOF was switched off. The worker has seen it since."""
    stack.client.config_set("appendonly", "no")
    until(lambda: "appendonly is off" in (stack.client.get(RUN_KEY) or ""))
    command(stack, "pause")
    link(stack, 1)
    stack.redis.restart(kill=True)  # with AOF again, as its command line says
    assert not stack.client.exists("sw:box:geotab:ACCT01:customer:0000001")
    until(lambda: read_status(stack.client).reconcile_owed, 40)
    assert_all_owe(stack)


# --- the power is cut


def log_file(stack: Stack) -> Path:
    """What Redis appends to now."""
    (found,) = (stack.redis.directory / "appendonlydir").glob("*.incr.aof")
    return found


def cut_power(stack: Stack, size: int) -> None:
    """Take back what of the log was not on the disk, and start again."""
    stack.redis.kill()
    with log_file(stack).open("r+b") as log:
        log.truncate(size)
    stack.redis.start()


def in_boxes(stack: Stack) -> set[int]:
    """The numbers of the records whose changes wait."""
    return {int(key[-7:]) for key in stack.client.scan_iter("sw:box:*")}


def assert_all_owe(stack: Stack) -> None:
    owed = stack.command("status", "--json")["reconcile_owed"]
    assert {one["source"] for one in owed} == set(Source)
    assert all("Redis restarted" in one["why"] for one in owed)


@pytest.mark.timeout(600)
def test_b10_1_after_a_power_cut_under_always_every_change_is_there(stack, figures):
    """Cut at the very byte that was on the disk when a change was answered, whichever it is."""
    stack.kill("worker")
    stack.kill("beat")
    kept = 0
    for _ in range(ROUNDS):
        sizes = {}
        for number in range(kept + 1, kept + 21):
            link(stack, number)
            sizes[number] = log_file(stack).stat().st_size
        kept += 13
        cut_power(stack, sizes[kept])
        assert in_boxes(stack) == set(range(1, kept + 1))
    figures(("power cuts", ROUNDS), ("changes there", f"{len(in_boxes(stack))} of {kept}"))
    stack.start("worker")
    stack.start("beat")
    until(lambda: linked(stack) == set(range(kept + 1)), 60)
    stack.wait_drained()
    until(lambda: stack.client.info("server")["run_id"] in (stack.client.get(RUN_KEY) or ""))
    told_status = stack.command("status", "--json")
    assert (told_status["may_lose"], told_status["reconcile_owed"]) == ("", [])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("_", range(ROUNDS))
def test_b10_1_what_a_power_cut_may_take_is_told_before_and_after(stack, figures, _):
    """Under everysec: what came since the last sync is gone, and all sources owe a look at it."""
    stack.client.config_set("appendfsync", "everysec")
    until(lambda: "everysec" in (stack.client.get(RUN_KEY) or ""))
    before = stack.command("status", "--json")
    assert before["may_lose"] == "up to a second of changes, on power loss (appendfsync everysec)"
    assert before["reconcile_owed"] == []
    stack.kill("worker")
    stack.kill("beat")
    link(stack, *range(1, 11))
    on_disk = synced_size(stack)
    begun, number = time.monotonic(), 10
    while time.monotonic() < begun + 0.7:
        number += 1
        link(stack, number)
    cut_power(stack, on_disk)
    kept = in_boxes(stack)
    figures(("kept", len(kept)), ("lost of the last second", number - len(kept)))
    assert kept == set(range(1, 11))
    stack.start("worker")
    stack.start("beat")
    until(lambda: read_status(stack.client).reconcile_owed, 40)
    assert_all_owe(stack)
    until(lambda: linked(stack) == set(range(11)), 40)


def synced_size(stack: Stack) -> int:
    """The length of the log once it has not grown for longer than the second between two syncs."""
    size, since = -1, time.monotonic()
    while time.monotonic() < since + 1.3:
        now = log_file(stack).stat().st_size
        if now != size:
            size, since = now, time.monotonic()
        time.sleep(0.02)
    return size
