"""The calls to Fusebill that workers make: what is reserved, written down and told on (B7.1)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from sync_worker import calls, gates, links
from sync_worker.calls import Account, Calls, Purse, Recorder
from sync_worker.crm import errors as crm
from sync_worker.domain import Attempt
from sync_worker.fusebill import errors
from sync_worker.fusebill.customer import CustomerPage
from sync_worker.fusebill.limits import RateLimits
from sync_worker.gates import Verdict
from sync_worker.inbox.reserve import Exhausted, Priority
from tests.changes import CONTACT, customer

SECONDS = 10


class Budget:
    """Has so many calls, and notes what becomes of them."""

    packed = ("account", 900, 150_000, 0.25, 125_000)

    def __init__(self, left: int = 100) -> None:
        self.left = left
        self.last = 0
        self.given_back: list[int] = []
        self.asked: list[Priority] = []

    def reserve(self, n: int, priority: Priority) -> int:
        self.asked.append(priority)
        if n > self.left:
            raise Exhausted(1.5)
        self.left -= n
        self.last += n
        return self.last - n + 1

    def give_back(self, unmade: Iterable[int]) -> None:
        self.given_back += unmade


def purse(*in_it: int, budget: Any = None) -> Purse:
    return Purse(budget or Budget(), in_it)


# --- the purse


def test_what_is_taken_is_in_the_purse_no_more():
    held = purse(1, 2, 3)
    assert held.take(2) == [1, 2]
    assert held.take(2) == [3]
    assert held.take(1) == []


def test_what_is_put_back_is_there_for_the_next():
    held = purse(1, 2)
    held.put(held.take(2))
    held.put([])
    assert held.take(9) == [1, 2]


def test_taking_nothing_leaves_all():
    held = purse(1)
    assert held.take(0) == []
    assert held.take(1) == [1]


def test_what_is_left_is_given_back_once():
    budget = Budget()
    held = purse(1, 2, 3, budget=budget)
    held.take(1)
    held.give_back()
    held.give_back()
    assert budget.given_back == [2, 3]


def test_b7_1_no_call_is_taken_by_two_threads():
    held = purse(*range(1000))
    taken: list[list[int]] = [[] for _ in range(4)]
    start = threading.Barrier(len(taken))

    def take(mine: list[int]) -> None:
        start.wait(SECONDS)
        for _ in range(500):
            one = held.take(2)
            held.put(one[1:])
            mine += one[:1]

    threads = [threading.Thread(target=take, args=[mine]) for mine in taken]
    for one in threads:
        one.start()
    for one in threads:
        one.join(SECONDS)
    made = [call for mine in taken for call in mine]
    assert len(set(made)) == len(made)
    assert set(made) | set(held.take(1000)) == set(range(1000))


def test_what_was_reserved_long_ago_is_to_be_renewed(monkeypatch):
    held = purse(1)
    assert not held.is_old
    monkeypatch.setattr(calls, "RENEWED_SECONDS", -1)
    assert held.is_old


# --- the recorder


def attempt(call: str = "GET /v1/customers/1", status: int | None = 200) -> Attempt:
    return Attempt(1, call, status)


def test_what_nobody_asked_for_is_not_written_down():
    recorder = Recorder()
    recorder(attempt())
    assert recorder.attempts is None


def test_each_thread_writes_down_its_own_calls():
    """Convergences of one batch share the client, and each dead letter shows its own calls."""
    recorder = Recorder()
    written: dict[int, list[Attempt]] = {n: [] for n in range(4)}
    turn = threading.Barrier(len(written))

    def converge(n: int) -> None:
        recorder.attempts = written[n]
        for step in range(50):
            turn.wait(SECONDS)
            recorder(attempt(f"{n}: {step}"))

    threads = [threading.Thread(target=converge, args=[n]) for n in written]
    for one in threads:
        one.start()
    for one in threads:
        one.join(SECONDS)
    for n, mine in written.items():
        assert [one.call for one in mine] == [f"{n}: {step}" for step in range(50)]
    assert recorder.attempts is None


# --- calls


class Told:
    """What the store was told after each call, and what it answers."""

    def __init__(self) -> None:
        self.steps: list[list[Any]] = []
        self.shut = 0

    def __call__(self, *, args: Sequence[Any]) -> int:
        self.steps.append(msgspec.msgpack.decode(args[0]))
        return self.shut


class Index:
    account = "account"

    def __init__(self) -> None:
        self.observed: list[tuple[list[int], int]] = []

    def observe(self, *shown: Any, sent_at: int) -> None:
        self.observed.append(([one.id for one in shown], sent_at))


class Gate:
    """Has its gate shut if it is told to, and keeps what it was told."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, Verdict, str, str]] = []
        self.shut = False

    def packed(self, gate: str, verdict: Verdict, *, whom: str, why: str) -> list[object]:
        return [gate, verdict, whom, why]

    def report(self, gate: str, verdict: Verdict, *, whom: str, why: str) -> bool:
        self.reports.append((gate, verdict, whom, why))
        return self.shut


class World:
    """The calls of one convergence, and all that hears of them."""

    def __init__(self, *in_purse: int) -> None:
        self.budget, self.told, self.index, self.gate = Budget(), Told(), Index(), Gate()
        client: Any = SimpleNamespace(limits=RateLimits(minute_limit=1000, minute_left=7))
        parts: list[Any] = [client, self.index, self.gate, self.budget, self.told]
        self.account = Account(*parts)
        self.calls = Calls(self.account, Priority.REPLAY, purse(*in_purse, budget=self.budget))

    def make(self, answer: Any, **more: Any) -> Any:
        def what() -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return self.calls.make(what, **{"call": 5, **more})

    @property
    def last(self) -> dict[str, Any]:
        names = ("budget", "call", "told", "report", "account", "shown")
        return dict(zip(names, self.told.steps[-1], strict=True))


def test_b7_2_what_is_in_the_purse_is_used_before_more_is_reserved():
    world = World(41)
    assert world.calls.reserve() == 41
    assert world.budget.asked == []
    assert world.calls.reserve() == 1
    assert world.budget.asked == [Priority.REPLAY]


def test_b7_2_what_cannot_be_reserved_is_not_called():
    world = World()
    world.budget.left = 0
    with pytest.raises(Exhausted):
        world.calls.reserve()


def test_after_a_call_one_step_tells_its_end_the_remote_systems_state_and_what_it_showed():
    world = World()
    shown = customer(7, geotab_customer="0070441")
    assert world.make(shown, whom=7, sent_at=99, written=True) is shown
    assert len(world.told.steps) == 1
    assert world.last["call"] == 5
    assert world.last["told"][:2] == [1000, 7]
    assert world.last["report"] == [gates.FUSEBILL, Verdict.SOUND, "7", ""]
    ((id_, sent_at, written, slots),) = world.last["shown"]
    assert (id_, sent_at, written) == ("7", 99, True)
    assert dict(zip(slots[::2], slots[1::2], strict=True))["geotab_customer"] == "0070441"


def test_b7_4_a_long_page_is_remembered_a_part_at_a_time():
    """One step of the store must not hold up all others."""
    world = World()
    rows = tuple(customer(n + 1) for n in range(2 * links.AT_A_TIME))
    world.make(CustomerPage(rows, len(rows), 0), sent_at=99)
    assert len(world.last["shown"]) == links.AT_A_TIME
    assert world.index.observed == [([one.id for one in rows[links.AT_A_TIME :]], 99)]


def test_b7_1_a_call_that_failed_has_ended_too_and_shows_nobody():
    world = World()
    error = errors.Transient("no answer", attempt(), answer_lost=True, outage=True)
    with pytest.raises(errors.Transient):
        world.make(error, whom=7)
    assert world.last["call"] == 5
    assert world.last["report"] == [gates.FUSEBILL, Verdict.FAILED, "7", "no answer"]
    assert world.last["shown"] == []
    assert list(world.account.seen) == []


def test_b6_2_a_429_is_told_as_one():
    world = World()
    with pytest.raises(errors.RateLimited):
        world.make(errors.RateLimited("429", attempt(status=429), reset_at=None))
    assert world.last["told"][-1] == 1


def test_whether_the_gate_is_shut_is_known_from_the_last_call():
    world = World()
    world.told.shut = 1
    world.make(customer())
    assert world.calls.shut
    world.told.shut = 0
    world.make(customer())
    assert not world.calls.shut


def test_what_a_crm_answered_is_told_to_its_own_gate():
    world = World()
    world.gate.shut = True
    world.calls.heard_crm(CONTACT, crm.Unavailable("away", attempt(), outage=True))
    assert world.gate.reports == [("hubspot", Verdict.FAILED, CONTACT.mailbox, "away")]
    assert world.calls.shut
    world.gate.shut = False
    world.calls.heard_crm(CONTACT, None)
    assert world.gate.reports[-1] == ("hubspot", Verdict.SOUND, CONTACT.mailbox, "")
    assert not world.calls.shut


@pytest.mark.parametrize("again", [1, 2, 5])
def test_b7_4_the_probe_takes_two_different_customers_that_were_seen(again):
    """Most convergences read a customer and write it: that is one customer, seen twice."""
    world = World()
    for id_ in [8, *[9] * again]:
        world.make(customer(id_))
    assert sorted(world.account.seen) == [8, 9]


def test_b7_4_of_the_customers_that_were_seen_the_newest_are_kept():
    world = World()
    page = CustomerPage(tuple(customer(n) for n in (1, 2, 3)), 3, 0)
    world.make(page)
    assert sorted(world.account.seen) == [1, 2]
    world.make(customer(4))
    assert sorted(world.account.seen) == [2, 4]
