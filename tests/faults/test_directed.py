"""One scene for each promise that is easily broken and seldom missed (B5.3, B6.6 to B6.8).

They all play on one stack at once, which is itself a part of it: what goes wrong with one mailbox
is no concern of the others. `tests/faults/sabotage.py` breaks the promises one by one, and these
tests have to notice.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from simulators.fusebill.faults import Fault
from sync_worker import events
from sync_worker.celery import BEAT_QUEUE, KEY_PREFIX, LIVE_QUEUE
from sync_worker.domain import Reason, RecordType
from sync_worker.events import Event
from tests.faults.orders import Convergence, Orders, Plan, convergences
from tests.faults.scene import SABOTAGE, SEED, staged
from tests.faults.sender import Sender
from tests.faults.verify import differences, settled_at, table
from tests.faults.world import Census, Member, News, expected, held
from tests.processes import until, within
from tests.stack import Stack

PATIENCE_SECONDS = 45
"""For what takes a few leases of 4 s."""

SLOW_MS = 2_300
"""An answer in time; two of them take longer than a lease."""

SETTLE = "script settle"

A, B, C = 0, 1, 2
"""A record's own customers."""


@dataclass
class Stage:
    """One stack, and who plays on it."""

    stack: Stack
    orders: Orders
    sender: Sender
    dice: random.Random = field(default_factory=lambda: random.Random(SEED))
    told: list[News] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.census = Census(self.stack.settings)
        self._begun = int(time.time() * 1000) - 3_600_000

    def player(self, kind: RecordType | None = None) -> Member:
        """A new record with customers of its own."""
        kind = kind or self.dice.choice(list(RecordType))
        made = self.census.member(kind, self.census.take_customers(), soap=False)
        self.stack.control.put_customers(*self.census.people())
        return made

    def news(self, member: Member, place: int | None, *, at: int | None = None) -> News:
        """A change of it; `at` is when it occurred, else now, as time goes here."""
        number = len(self.told) + 1
        customer = None if place is None else member.customers[place]
        made = News(number, member, customer, self._begun + 1000 * number if at is None else at)
        self.told.append(made)
        return made

    def tell(self, *news: News) -> None:
        """Have it delivered, and answered 2xx."""
        self.sender.tell(*news)

    def settled(self, *members: Member) -> dict[tuple[str, int], tuple[int, Event]]:
        """What was settled of these records, and when."""
        names = {member.mailbox for member in members}
        return {
            (event.record, event.occurred_at): (settled_at(place), event)
            for place, event in events.settled(self.stack.client)
            if event.record in names
        }

    def wait_settled(self, *news: News) -> list[Event]:
        """The ends of these changes, once they are settled."""
        members = [one.member for one in news]
        until(lambda: {one.key for one in news} <= self.settled(*members).keys(), PATIENCE_SECONDS)
        found = self.settled(*members)
        return [found[one.key][1] for one in news]

    def wrong(self, *members: Member) -> list[str]:
        """Where the customers of these records are not as the model has them."""
        model = expected(one for one in self.told if one.member in members)
        theirs = {customer for member in members for customer in member.customers}
        found = held(one for one in self.stack.control.customers() if one.id in theirs)
        return differences(model, found)

    def convergences(self, member: Member) -> list[Convergence]:
        """Those that got hold of its mailbox."""
        found = convergences(self.orders.trace())
        return [one for one in found if one.mailbox == member.mailbox and one.ended != "not_due"]


@dataclass
class Scenes:
    """All that was begun; each test waits for the end of its own scene."""

    stage: Stage
    forgotten: list[News]
    poison: News
    slow: News
    dropped: list[News]
    overtaken: list[Overtaken]
    stalled: News
    stall: Plan


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Iterator[Scenes]:
    folder = tmp_path_factory.mktemp("directed")
    with (
        staged(folder, concurrency=6) as (stack, orders),
        Sender(stack.url, stack.settings) as sender,
    ):
        yield begin(Stage(stack, orders, sender))
        if SABOTAGE:
            assert orders.sabotaged, "nothing was broken"


def begin(stage: Stage) -> Scenes:
    """Set every scene, and let all of them go."""
    mover = stage.player(RecordType.CUSTOMER)
    movers = [stage.player(kind) for kind in RecordType for _ in range(2)]
    latched = [stage.news(one, A) for one in (mover, *movers)]
    stage.tell(*latched)
    stage.wait_settled(*latched)
    overtaken = overtake(stage, movers)
    forgotten = forget(stage)
    poison = poisoned(stage)
    slow = stage.news(mover, B)
    for customer in mover.customers:
        fault = Fault(customer_id=customer, answer_latency_ms=SLOW_MS)
        stage.stack.control.add_fault(fault)
    dropped = drop(stage)
    stalled = stage.news(stage.player(), A)
    stall = Plan("stall", (stalled.member.mailbox,), "stall", when="before", what=SETTLE)
    stage.orders.plan(stall)
    stage.tell(poison, slow, stalled, *dropped)
    return Scenes(stage, forgotten, poison, slow, dropped, overtaken, stalled, stall)


def forget(stage: Stage) -> list[News]:
    """Have the wake-ups of some changes deleted before anybody took them; no more will come."""
    stack = stage.stack
    stack.kill("worker")
    news = [stage.news(stage.player(kind), A) for kind in RecordType]
    stage.tell(*news)
    until(lambda: stack.client.llen(KEY_PREFIX + LIVE_QUEUE) >= len(news))
    stack.client.delete(KEY_PREFIX + LIVE_QUEUE, KEY_PREFIX + BEAT_QUEUE)
    stack.start("worker")
    return news


def poisoned(stage: Stage) -> News:
    """A change that kills its worker at its first call, every time."""
    news = stage.news(stage.player(), A)
    plan = Plan("poison", (news.member.mailbox,), "kill", when="before", what="call", every=True)
    stage.orders.plan(plan)
    return news


def drop(stage: Stage) -> list[News]:
    """Writes that are lost on their way there, and so never answered."""
    news = [stage.news(stage.player(kind), A) for kind in RecordType]
    for one in news:
        fault = Fault(method="POST", customer_id=one.customer, drop=True, count=1)
        stage.stack.control.add_fault(fault)
    return news


@dataclass(frozen=True)
class Overtaken:
    """A move, and the newer one that comes before the first is settled."""

    first: News
    newest: News


def overtake(stage: Stage, movers: Sequence[Member]) -> list[Overtaken]:
    """Moves that are done at Fusebill, and known to nobody: the worker dies before it settles, or
    the answer to its last call is lost. A newer change comes at once.
    """
    control = stage.stack.control
    first = [stage.news(one, B) for one in movers]
    unanswered, unsettled = first[::2], first[1::2]
    for news in unanswered:
        control.add_fault(
            Fault(method="POST", customer_id=news.customer, lose_answer=True, count=1)
        )
    plans = [
        Plan(f"overtaken-{one.number}", (one.member.mailbox,), "kill", when="before", what=SETTLE)
        for one in unsettled
    ]
    stage.orders.plan(*plans)
    stage.tell(*first)
    for news in unanswered:
        control.wait_for_calls(
            method="POST", customer_id=news.customer, applied=True, timeout=PATIENCE_SECONDS
        )
    until(lambda: all(stage.orders.happened(plan) for plan in plans), PATIENCE_SECONDS)
    newest = [stage.news(one, C) for one in movers]
    stage.tell(*newest)
    return [Overtaken(*both) for both in zip(first, newest, strict=True)]


def test_b6_7_what_nobody_woke_is_woken_though_nothing_more_comes(scenes):
    """The broker's queues were deleted with all wake-ups in them."""
    ended = scenes.stage.wait_settled(*scenes.forgotten)
    assert {event.outcome for event in ended} == {"latched"}
    assert scenes.stage.wrong(*(one.member for one in scenes.forgotten)) == []


def test_b5_3_a_plan_slower_than_its_lease_is_worked_by_one_worker(scenes):
    """Each call renews what is held."""
    stage, mover = scenes.stage, scenes.slow.member
    (moved,) = stage.wait_settled(scenes.slow)
    assert moved.outcome == "moved"
    assert stage.wrong(mover) == []
    working = [one for one in stage.convergences(mover) if calls(one)]
    _, moving = working
    assert len(calls(moving)) >= 2  # what was read with others is not read again
    assert moving.steps[-1].at - moving.steps[0].at > 2 * SLOW_MS / 1000


def calls(one: Convergence) -> list[str]:
    """The remote calls that a convergence made."""
    return [
        step.what for step in one.steps if step.when == "before" and step.what.startswith("call")
    ]


def test_b5_3_a_write_that_was_lost_on_its_way_is_made_after_all(scenes):
    """No answer says nothing: the customer is read again before anything is taken for done."""
    stage = scenes.stage
    ended = stage.wait_settled(*scenes.dropped)
    # Once that write can no longer arrive, the customer is read once more, and is as it should be.
    assert {event.outcome for event in ended} <= {"latched", "unchanged"}
    assert stage.wrong(*(one.member for one in scenes.dropped)) == []
    for one in scenes.dropped:
        writes = stage.stack.control.calls(method="POST", customer_id=one.customer)
        assert [call.applied for call in writes] == [False, True]


def test_b5_5_a_move_that_is_overtaken_before_it_was_settled_is_still_a_move(scenes):
    """The customer that holds the record got it by a change of its own, settled or not."""
    stage = scenes.stage
    stage.wait_settled(*(one.newest for one in scenes.overtaken))
    assert stage.wrong(*(one.newest.member for one in scenes.overtaken)) == []
    ended = stage.wait_settled(*(one.first for one in scenes.overtaken))
    assert "superseded" in {event.outcome for event in ended}, "none was overtaken"


def test_b6_8_a_worker_that_stalled_settles_nothing_of_its_successors(scenes):
    """It has made its call and is about to settle when its lease runs out. Another one takes over,
    with newer changes; what the first one knew is old by then.
    """
    stage, first = scenes.stage, scenes.stalled
    until(lambda: stage.orders.happened(scenes.stall), PATIENCE_SECONDS)
    late = stage.news(first.member, A, at=first.occurred_at + 100)
    newest = stage.news(first.member, B, at=first.occurred_at + 200)
    stage.tell(newest)
    stage.wait_settled(first, newest)
    stage.orders.free(scenes.stall)
    until(lambda: woken(stage, first.member), PATIENCE_SECONDS)
    stage.tell(late)
    (ended,) = stage.wait_settled(late)
    assert (ended.outcome, stage.wrong(first.member)) == ("stale", [])


def woken(stage: Stage, member: Member) -> bool:
    """Whether the one that stalled has come to an end."""
    return any(
        one.ended and any(step.when == "goes on" for step in one.steps)
        for one in stage.convergences(member)
    )


def test_b6_6_what_kills_its_workers_ends_as_a_dead_letter_and_the_others_flow(scenes, capsys):
    """After MAX_CRASHES deaths while it was worked on alone."""
    stage, poison = scenes.stage, scenes.poison
    others: list[News] = []

    def buried() -> bool:
        return any(one.mailbox == poison.member.mailbox for one in stage.stack.letters())

    deadline = time.monotonic() + PATIENCE_SECONDS
    while not within(buried, 1) and time.monotonic() < deadline:
        others += [stage.news(stage.player(), A) for _ in range(3)]
        stage.tell(*others[-3:])
    letters = [one for one in stage.stack.letters() if one.mailbox == poison.member.mailbox]
    assert [one.reason for one in letters] == [Reason.WORKER_CRASHED]
    stage.wait_settled(*others)
    found = stage.settled(*(one.member for one in others))
    waits = [(at - event.received_at) / 1000 for at, event in found.values()]
    deaths = [step for step in stage.orders.trace() if (step.when, step.what) == ("dies", "poison")]
    rows = [
        ("workers it killed", len(deaths)),
        ("others settled", len(others)),
        ("longest of them", f"{max(waits, default=0):.1f} s from receipt to settlement"),
    ]
    with capsys.disabled():
        print(table(f"poison, FAULT_SEED={SEED}", rows))
    assert stage.wrong(*(one.member for one in others)) == []
