"""Several mailboxes at once (B7.4): within the budget (B7.2), none in the way of another (B5.3,
B6.6), and whatever becomes of one, the others end as they would by themselves.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from types import FrameType
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from simulators.fusebill.server import SimulatedFusebill
from sync_worker import stopping
from sync_worker.batch import BEGIN_SECONDS, Batches
from sync_worker.calls import Purse
from sync_worker.converge import Ended
from sync_worker.domain import Change, Reason, Record
from sync_worker.fusebill.limits import RateLimits
from sync_worker.inbox.reserve import Exhausted, Priority
from sync_worker.store import StoreError
from sync_worker.together import Together
from tests.changes import ACCOUNT, CONTACT, GEOTAB, NOW, linked, named
from tests.mailboxes import claimed, expire_lease
from tests.worlds import OTHER, THIRD, N, World, numbered

SECONDS = 10


def boxes(*records: Record) -> list[str]:
    return [record.mailbox for record in records]


def due_now(world: World) -> set[str]:
    return set(world.client.zrangebyscore("sw:due", "-inf", world.store_ms()))


def held(world: World) -> list[str]:
    """What some worker has in its hands."""
    works = world.client.scan_iter("sw:work:*")
    leases = world.client.scan_iter("sw:lease:*")
    return [*leases, *(key for key in works if world.client.hget(key, "token"))]


def reserved(world: World) -> int:
    """The calls that count against the minute."""
    return int(world.client.zcard(f"sw:calls:{world.links.account}"))


def made(world: World) -> int:
    return len(world.control.calls())


def writes_of(world: World) -> Counter[int | None]:
    """How often each customer was written."""
    return Counter(call.customer_id for call in world.control.calls(method="POST"))


def spend(world: World, *, left: int) -> None:
    """Have all but so many calls of the minute used up by somebody else."""
    world.budget.reserve(world.budget.outlook(Priority.LIVE) - left, Priority.LIVE)
    assert world.budget.outlook(Priority.LIVE) == left


def earn(world: World) -> None:
    """A minute has passed, and no mailbox waits any more."""
    for key in world.client.scan_iter(f"sw:calls:{world.links.account}*"):
        world.client.delete(key)
    world.client.delete(f"sw:budget:{world.links.account}")
    for mailbox in world.waiting():
        world.client.zadd("sw:due", {mailbox: 1})


class Failing:
    """Has one step of the convergences of some mailboxes fail."""

    def __init__(self, step: Any, errors: dict[str, Exception]) -> None:
        self.step, self.errors = step, errors

    def __call__(self, gatherer: Any, *more: Any, **named: Any) -> Any:
        claim = getattr(gatherer, "claim", gatherer)
        if claim.mailbox in self.errors:
            raise self.errors.pop(claim.mailbox)
        return self.step(gatherer, *more, **named)


# --- mailboxes of the same customers


def test_b5_3_mailboxes_that_share_a_customer_do_not_wait_for_each_other(world):
    """They are worked on one after the other, so none finds the customer held."""
    shared = (CONTACT, ACCOUNT, GEOTAB)
    world.inbox.accept([linked(record) for record in shared])
    world.inbox.accept([linked(named(GEOTAB, "else"), str(OTHER))])
    worked = world.work_together(*shared, named(GEOTAB, "else"))
    assert (worked.again, worked.busy, worked.poor) == ([], [], [])
    assert [outcome for outcome, _ in world.outcomes()] == ["latched"] * 4
    customer = world.customer()
    assert (customer.hub_spot_id, customer.geotab_id) == (int(CONTACT.id), GEOTAB.id)
    assert customer.salesforce_id == ACCOUNT.id[:15]
    assert world.customer(OTHER).geotab_id == "else"


def test_b5_3_also_those_that_share_one_by_way_of_a_third(world):
    """One moves from N to OTHER, one from OTHER to THIRD, one comes to N: a chain."""
    one, two, three = (numbered(GEOTAB, n) for n in (1, 2, 3))
    for record, customer in ((one, N), (two, OTHER)):
        world.feed(linked(record, str(customer)))
    world.tell({THIRD: two, OTHER: one, N: three}, occurred_at=NOW + 1)
    worked = world.work_together(two, one, three)
    assert (worked.again, worked.busy, worked.poor) == ([], [], [])
    assert world.slots("geotab_id") == [three.id, one.id, two.id]
    assert world.letters() == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_b5_2_two_that_change_places_do_so_in_one_batch(world, order):
    """The first must join the second, which is in hand too; the second then joins the first."""
    pair = [numbered(GEOTAB, n) for n in (1, 2)]
    for record, customer in zip(pair, (N, OTHER), strict=True):
        world.feed(linked(record, str(customer)))
    world.control.clear_calls()
    world.tell({OTHER: pair[0], N: pair[1]}, occurred_at=NOW + 1)
    world.work_together(*(pair[at] for at in order))
    assert world.slots("geotab_id") == [pair[1].id, pair[0].id, None]
    assert len(world.writes()) == 3
    world.pass_time(*pair)
    world.work()
    assert len(world.writes()) == 3
    assert world.letters() == []


def test_b5_3_of_two_that_claim_one_slot_the_second_meets_the_first(world):
    """Not each the empty slot that both had read."""
    one, two = (numbered(GEOTAB, n) for n in (1, 2))
    world.tell({N: one})
    world.tell({N: two})
    worked = world.work_together(one, two)
    assert worked.busy == []
    assert world.customer().geotab_id == one.id
    assert world.letter().reason == Reason.CONFLICT
    assert len(world.writes()) == 1


def test_a_mailbox_that_is_named_twice_is_worked_on_once(world):
    world.tell({N: GEOTAB})
    world.work_together(GEOTAB, GEOTAB)
    assert len(world.writes()) == 1
    assert world.outcomes() == [("latched", f"customer {N}")]


def test_what_is_not_due_or_in_other_hands_is_left(world, client):
    crowd = world.crowd(GEOTAB, 3)
    early, taken, free = crowd.values()
    client.zadd("sw:due", {early.mailbox: world.store_ms() + 60_000})
    other = claimed(world.inbox, taken.mailbox)
    worked = world.work_together(early, taken, free, named(GEOTAB, "empty"))
    assert (worked.again, worked.busy, worked.poor) == ([], [], [])
    assert list(writes_of(world)) == [1003]
    assert client.hget(f"sw:work:{taken.mailbox}", "token") == other.token


def test_what_came_meanwhile_is_due_again(world):
    crowd = world.crowd(GEOTAB, 3)
    fault = world.control.add_fault(Fault(method="POST", customer_id=1002, hold="before", count=1))
    again: list[str] = []
    work = threading.Thread(target=lambda: again.extend(world.work_together(*crowd.values()).again))
    work.start()
    world.control.wait_held(fault)
    world.tell({1002: crowd[1002]}, occurred_at=NOW + 1)
    world.control.release_fault(fault)
    work.join(SECONDS)
    assert again == [crowd[1002].mailbox]
    assert due_now(world) == {crowd[1002].mailbox}


def test_a_customer_in_other_hands_holds_up_its_own_mailbox_only(world, client):
    crowd = world.crowd(GEOTAB, 3)
    client.set("sw:lease:1002", "another")
    worked = world.work_together(*crowd.values())
    assert worked.busy == [crowd[1002].mailbox]
    assert sorted(writes_of(world)) == [1001, 1003]
    assert 0 < world.waits_seconds(crowd[1002]) <= 0.5


# --- what must be worked on alone


def vanish(world: World, record: Record) -> None:
    """A worker had it, and is gone."""
    claimed(world.inbox, record.mailbox)
    expire_lease(world.client, record.mailbox)


def test_b6_6_what_may_have_killed_a_worker_is_not_worked_on_beside_others(world):
    crowd = world.crowd(GEOTAB, 5)
    vanish(world, crowd[1001])
    in_hand: list[list[str]] = []
    converge = world.converger.converge

    def alone(mailbox: str) -> Ended:
        in_hand.append(held(world))
        return converge(mailbox)

    object.__setattr__(world.batches, "_converger", _With(world.converger, converge=alone))
    worked = world.work_together(*crowd.values())
    assert (worked.again, worked.busy, worked.poor) == ([], [], [])
    assert in_hand == [[]], "the others had ended"
    posts = world.control.calls(method="POST")
    assert [call.customer_id for call in posts][-1] == 1001
    assert len(posts) == 5


class _With:
    """Something, but for what is named."""

    def __init__(self, like: Any, **others: Any) -> None:
        self._like = like
        self.__dict__ |= others

    def __getattr__(self, name: str) -> Any:
        return getattr(self._like, name)


def test_b6_6_of_several_each_has_its_turn(world):
    crowd = world.crowd(GEOTAB, 4)
    for n in (1001, 1003):
        vanish(world, crowd[n])
    world.work_together(*crowd.values())
    assert len(world.writes()) == 4
    assert not world.client.exists("sw:alone")


def test_b6_6_while_another_worker_has_the_turn_it_waits_and_the_others_do_not(world, client):
    crowd = world.crowd(GEOTAB, 3)
    vanish(world, crowd[1001])
    client.set("sw:alone", "another")
    world.work_together(*crowd.values())
    assert sorted(writes_of(world)) == [1002, 1003]
    assert crowd[1001].mailbox in due_now(world)


def test_b6_6_what_kills_is_no_longer_touched_in_a_batch_either(world, client):
    crowd = world.crowd(GEOTAB, 2)
    for _ in range(4):
        vanish(world, crowd[1001])
        client.delete("sw:alone")
    world.work_together(*crowd.values())
    assert list(writes_of(world)) == [1002]
    assert world.letter().reason == Reason.WORKER_CRASHED


# --- the budget


@pytest.mark.parametrize("left", [0, 1, 7, 10])
def test_b7_2_no_more_mailboxes_are_claimed_than_there_is_budget_for(world, left):
    crowd = world.crowd(CONTACT, 20)
    spend(world, left=left)
    worked = world.work_together(*crowd.values())
    poor = set(worked.poor)
    assert len(poor) == 20 - left // 2
    assert worked.seconds > 0
    assert poor <= due_now(world), "due as before"
    woken, _ = world.inbox.wake(100)
    assert poor <= set(woken), "and beat names them"
    assert made(world) <= left
    assert len(world.writes()) == left // 2, "what was begun was ended"
    assert held(world) == []


def test_b7_2_what_there_was_no_budget_for_goes_on_when_there_is(world):
    crowd = world.crowd(CONTACT, 5)
    spend(world, left=4)
    worked = world.work_together(*crowd.values())
    earn(world)
    again = world.batches.work_through(worked.poor)
    assert again.poor == []
    assert len(writes_of(world)) == 5
    assert set(writes_of(world).values()) == {1}


def test_b7_2_one_that_must_be_worked_on_alone_needs_budget_too(world):
    crowd = world.crowd(GEOTAB, 1)
    vanish(world, crowd[1001])
    spend(world, left=1)
    worked = world.work_together(crowd[1001])
    assert worked.poor == boxes(crowd[1001])
    assert made(world) == 0
    assert not world.client.exists("sw:alone")


def test_b7_2_a_budget_that_ends_under_way_puts_off_and_uses_up_no_attempt(world):
    """Two calls were reserved; it takes a third: the record it must make room for."""
    world.feed(linked(GEOTAB))
    world.tell({OTHER: GEOTAB}, occurred_at=NOW + 1)
    spend(world, left=2)
    worked = world.work_together(GEOTAB)
    assert worked.poor == []
    assert world.waits_seconds(GEOTAB) > 0
    assert world.client.hget(f"sw:work:{GEOTAB.mailbox}", "failures") == "0"


def test_b6_2_after_a_429_nothing_goes_that_was_reserved_before(world):
    crowd = world.crowd(GEOTAB, 2)
    claims = world.converger.claim(boxes(*crowd.values()), calls=2)
    purse = Purse(world.budget, claims.calls)
    world.budget.ended(0, refused=True)
    for claim in claims.taken:
        assert world.converger.work_on(claim, purse) is Ended.POSTPONED
    purse.give_back()
    assert made(world) == 0
    assert held(world) == []
    assert all(world.waits_seconds(record) > 0 for record in crowd.values())


def test_b6_2_who_met_the_end_of_the_day_asks_again_within_a_minute(world):
    """Somebody may raise the limit."""
    record = world.crowd(GEOTAB, 1)[1001]
    claims = world.converger.claim(boxes(record))
    day_over = RateLimits(day_limit=1000, day_left=0, day_reset=world.store_ms() / 1000 + 3000)
    world.budget.ended(0, day_over, refused=True)
    with pytest.raises(Exhausted) as refusal:
        world.budget.reserve(1, Priority.LIVE)
    assert refusal.value.seconds > 600
    world.converger.work_on(claims.taken[0], Purse(world.budget))
    assert 50 < world.waits_seconds(record) <= 60


@pytest.mark.parametrize("left", [2, 3, 4])
def test_b7_2_a_move_is_not_half_done_for_want_of_budget(world, left):
    """It takes two readings and two writes, and one more reading if the first write takes long."""
    world.feed(linked(GEOTAB))
    world.tell({OTHER: GEOTAB}, occurred_at=NOW + 1)
    spend(world, left=left)
    world.control.clear_calls()
    world.work_together(GEOTAB)
    assert world.writes() == []
    assert world.slots("geotab_id") == [GEOTAB.id, None, None]
    earn(world)
    world.work_together(GEOTAB)
    assert world.slots("geotab_id") == [None, GEOTAB.id, None]
    assert len(world.writes()) == 2


@pytest.mark.parametrize("left", range(1, 8))
def test_b7_2_nor_is_one_of_hub_spot_whose_customers_must_be_read_again(world, left):
    """What a sweep saw is read again for the write (B5.4): for both writes before the first."""
    world.feed(linked(CONTACT))
    world.tell({OTHER: CONTACT}, occurred_at=NOW + 1)
    world.sweep_all()
    spend(world, left=left)
    world.control.clear_calls()
    world.work_together(CONTACT)
    assert len(world.writes()) in (0, 2)
    assert made(world) <= left
    earn(world)
    world.work_together(CONTACT)
    assert world.contacts() == [None, int(CONTACT.id), None]
    assert len(world.writes()) == 2


def test_b7_2_nor_is_one_whose_first_write_took_long(world):
    """The second customer must be looked at again, and there is a call for that."""
    world.feed(linked(CONTACT))
    world.tell({OTHER: CONTACT}, occurred_at=NOW + 1)
    spend(world, left=5)
    world.control.clear_calls()
    issue = world.http.unlatch_hubspot

    def slow(customer_id: int) -> Any:
        answer = issue(customer_id)
        world.now += 6
        return answer

    world.http.unlatch_hubspot = slow
    world.work_together(CONTACT)
    assert world.contacts() == [None, int(CONTACT.id), None]
    assert made(world) == 5


def test_b7_2_what_is_put_back_takes_no_call_that_it_does_not_make(world):
    """The second write of a move is refused for good: the first is undone, and all calls end."""
    world.feed(linked(GEOTAB))
    world.refuse(OTHER)
    world.tell({OTHER: GEOTAB}, occurred_at=NOW + 1)
    world.work_together(GEOTAB)
    assert world.slots("geotab_id") == [GEOTAB.id, None, None]
    assert world.letter().reason == Reason.REJECTED
    assert reserved(world) == made(world)


def test_b7_1_nor_does_what_could_not_be_put_back_in_time(world, monkeypatch):
    """The store takes so long over the leases that the reading is too old by then."""
    world.feed(linked(GEOTAB))
    world.refuse(OTHER)
    world.tell({OTHER: GEOTAB}, occurred_at=NOW + 1)
    hold, intents = world.inbox.hold, []

    def slow(*args: Any, **named: Any) -> Any:
        intents.append(named.get("to_write"))
        taken = hold(*args, **named)
        if len([one for one in intents if one]) == 3:
            world.now += 40
        return taken

    monkeypatch.setattr(world.inbox, "hold", slow)
    world.work_together(GEOTAB)
    assert "Could not put back" in world.letter().message
    assert reserved(world) == made(world)


def test_b5_2_a_move_begins_only_if_both_customers_are_as_it_takes_them_to_be(world):
    """Since the sweep a person has filled the slot that the contact is to move to."""
    world.feed(linked(CONTACT))
    world.tell({OTHER: CONTACT}, occurred_at=NOW + 1)
    world.sweep_all()
    world.control.edit_customer(OTHER, hub_spot_id=99)
    world.control.clear_calls()
    world.work_together(CONTACT)
    assert world.letter().reason == Reason.CONFLICT
    assert world.writes() == []
    assert world.contacts() == [int(CONTACT.id), 99, None]


def test_b7_1_what_was_reserved_and_not_needed_is_given_back(world):
    """The same changes again: each needs its reading and no write."""
    crowd = world.crowd(CONTACT, 10)
    world.work_together(*crowd.values())
    world.tell(crowd)
    world.work_together(*crowd.values())
    assert reserved(world) == made(world)


def test_b7_1_also_for_mailboxes_that_were_not_to_be_had(world):
    crowd = world.crowd(CONTACT, 3)
    last = crowd.pop(1003)
    for record in crowd.values():
        claimed(world.inbox, record.mailbox)
    world.work_together(last, *crowd.values())
    assert reserved(world) == made(world) == 2


def test_b7_1_also_when_a_convergence_fails_in_a_way_that_nobody_foresaw(world, monkeypatch):
    crowd = world.crowd(GEOTAB, 5)
    errors: dict[str, Exception] = {crowd[1002].mailbox: ZeroDivisionError()}
    decide = type(world.converger)._work
    monkeypatch.setattr(
        type(world.converger),
        "_work",
        lambda self, gatherer: Failing(partial(decide, self), errors)(gatherer),
    )
    worked = world.work_together(*crowd.values())
    assert (worked.busy, worked.poor) == ([], [])
    assert sorted(writes_of(world)) == [1001, 1003, 1004, 1005], "the others are not held up"
    assert due_now(world) == {crowd[1002].mailbox}
    assert "vanished" not in world.client.hgetall(f"sw:work:{crowd[1002].mailbox}")
    assert held(world) == []
    assert reserved(world) == made(world)


def test_b7_1_also_when_the_store_breaks_under_way(world, monkeypatch):
    crowd = world.crowd(GEOTAB, 5)
    errors: dict[str, Exception] = {crowd[1002].mailbox: StoreError("away")}
    monkeypatch.setattr(world.inbox, "settle", Failing(world.inbox.settle, errors))
    with pytest.raises(StoreError):
        world.work_together(*crowd.values())
    assert len(world.writes()) == 5, "what was under way was ended"
    assert due_now(world) == {crowd[1002].mailbox}
    assert held(world) == [], "the store is back: no worker has vanished"
    assert reserved(world) == made(world)
    world.forget_suspicion()
    world.client.delete("sw:suspect:1002")
    world.work_together(crowd[1002])
    assert world.outcomes_of(crowd[1002]) == ["unchanged"]


def test_b7_1_also_when_what_prepares_the_batch_meets_a_broken_store(world, monkeypatch):
    crowd = world.crowd(GEOTAB, 3)
    with monkeypatch.context() as broken:
        broken.setattr(world.inbox, "hold_each", _raising(StoreError("away")))
        world.client.set(world.together._set_key, "yes")
        with pytest.raises(StoreError):
            world.work_together(*crowd.values())
    assert held(world) == []
    assert reserved(world) == made(world) == 0
    world.work_together(*crowd.values())
    assert len(world.writes()) == 3


def _raising(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# --- each convergence by itself


def test_each_dead_letter_shows_its_own_calls(world):
    """Those of the mailboxes beside it are made at the same time."""
    crowd = world.crowd(CONTACT, 10)
    for n in crowd:
        world.refuse(n, f"Not {n}.")
    world.work_together(*crowd.values())
    letters = world.letters()
    assert len(letters) == 10
    for letter in letters:
        (customer,) = letter.customer_ids
        calls = [attempt.call for attempt in letter.attempts]
        assert 1 <= len(calls) <= 2  # a read that served several is in no letter
        assert all(str(customer) in call for call in calls)
        assert f"Not {customer}." in letter.message


def test_b6_5_what_is_refused_for_one_is_no_matter_of_the_others(world):
    crowd = world.crowd(GEOTAB, 5)
    world.refuse(1002)
    world.control.add_fault(Fault(method="POST", customer_id=1003, status=500, count=1))
    world.work_together(*crowd.values())
    assert list(world.letter().customer_ids) == [1002]
    held_ids = world.slots("geotab_id", crowd)
    wanted = [crowd[n].id if n not in (1002, 1003) else None for n in crowd]
    assert held_ids == wanted
    assert world.waiting() == {crowd[1003].mailbox}


# --- the worker ends


def test_b6_7_a_worker_that_ends_begins_none_and_hands_all_back(world, monkeypatch):
    crowd = world.crowd(GEOTAB, 5)
    vanish(world, crowd[1001])
    with monkeypatch.context() as ends:
        ends.setattr(stopping, "_requested", True)
        worked = world.work_together(*crowd.values())
    assert sorted(worked.again) == sorted(boxes(*crowd.values()))
    assert world.writes() == []
    assert held(world) == []
    assert due_now(world) == set(worked.again)
    assert "vanished" not in world.client.hgetall(f"sw:work:{crowd[1002].mailbox}")


class Interrupted(Exception):
    """What a signal raises in the main thread."""


@pytest.fixture
def signalled() -> Iterator[None]:
    """SIGUSR1 raises in the main thread."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, on_signal)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("ends", [True, False], ids=["the worker ends", "it took too long"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_b6_7_an_interruption_hands_back_what_is_in_hand_at_once(
    world, signalled, monkeypatch, method, ends
):
    """Calls that do not return are left to their threads, which do nothing more after them. What
    hung though nobody asked the worker to end is next worked on alone (B6.6).
    """
    crowd = world.crowd(CONTACT, 4)
    fault = world.control.add_fault(Fault(method=method, hold="after", count=4))

    def interrupt() -> None:
        world.control.wait_held(fault, 4)
        monkeypatch.setattr(stopping, "_requested", ends)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(Interrupted):
        world.work_together(*crowd.values())
    sender.join(SECONDS)
    assert held(world) == []
    assert due_now(world) == set(boxes(*crowd.values()))
    works = [world.client.hgetall(f"sw:work:{record.mailbox}") for record in crowd.values()]
    assert ["vanished" in work for work in works] == [not ends] * 4

    threads = [one for one in threading.enumerate() if "_labour" in one.name]
    world.control.release_fault(fault)
    for one in threads:
        one.join(SECONDS)
    monkeypatch.undo()
    suspects = list(world.client.scan_iter("sw:suspect:*"))
    assert len(suspects) == (4 if method == "POST" else 0)
    for key in suspects:
        world.client.delete(key)  # as if LATE_WRITE_SECONDS had passed
    world.work_together(*crowd.values())
    assert set(writes_of(world).values()) == {1}
    assert world.waiting() == set()
    assert world.slots("hub_spot_id", crowd) == [int(record.id) for record in crowd.values()]


# --- two workers


def test_b5_3_two_workers_with_the_same_mailboxes_write_each_once(world, client, fusebill):
    crowd = world.crowd(GEOTAB, 20)
    accounts = {n: numbered(ACCOUNT, n) for n in crowd}
    world.tell(accounts)
    other = World(client, fusebill)
    start = threading.Barrier(2)

    def work(one: World, mailboxes: Sequence[str]) -> None:
        start.wait(SECONDS)
        for at in (0, 20):
            one.batches.work_through(mailboxes[at : at + 20])

    every = boxes(*crowd.values(), *accounts.values())
    threads = [
        threading.Thread(target=work, args=[one, mailboxes])
        for one, mailboxes in ((world, every), (other, every[::-1]))
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(3 * SECONDS)
    for _ in range(3):  # what was busy or poor
        for mailbox in world.waiting():
            client.zadd("sw:due", {mailbox: 1})
        world.batches.work_through(sorted(world.waiting()))
    assert world.waiting() == set()
    assert set(writes_of(world).values()) == {2}
    assert Counter(outcome for outcome, _ in world.outcomes()) == {"latched": 40}
    assert world.slots("geotab_id", crowd) == [record.id for record in crowd.values()]
    other.close()


# --- any partition, any failures: the same slots

CUSTOMERS = range(1, 7)
RECORDS = [numbered(like, n) for like in (GEOTAB, ACCOUNT, CONTACT) for n in range(1, 5)]

steps = st.lists(
    st.tuples(st.sampled_from(RECORDS), st.sampled_from(CUSTOMERS)),
    min_size=1,
    max_size=12,
    unique_by=(lambda step: step[0].mailbox, lambda step: (step[0].slot, step[1])),
)
"""No two records claim the same slot: which of them would come first is nobody's promise."""


class Outcome:
    """What a run left behind."""

    def __init__(self, world: World) -> None:
        fields = ("geotab_id", "salesforce_id", "hub_spot_id", "hub_spot_company_id")
        self.slots = {name: world.slots(name, CUSTOMERS) for name in fields}
        self.waiting = world.waiting()

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return str(vars(self))


def live_through(
    client: redis.Redis,
    fusebill: SimulatedFusebill,
    parts: Sequence[Sequence[tuple[Record, int]]],
    begun: Sequence[tuple[Record, int]],
    refused: set[int],
    lost: set[int],
    *,
    has_set: bool,
) -> Outcome:
    """Latch what was before, then work through the parts, each as a batch or by itself."""
    client.flushall()
    fusebill.control.reset()
    fusebill.control.set_options(id_queryable=has_set, salesforce_unlatch_path="/v1/Sf/Unlatch")
    fusebill.control.put_customers(*(Customer(id=n) for n in CUSTOMERS))
    world = World(client, fusebill, fusebill_salesforce_unlatch_path="/v1/Sf/Unlatch")
    try:
        for record, customer in begun:
            world.feed(linked(record, str(customer)))
        # What failed while it was begun is not what this is about.
        world.client.flushdb()
        world.sweep_all()
        for customer in sorted(refused):
            world.refuse(customer)
        for customer in sorted(lost):
            fusebill.control.add_fault(
                Fault(method="POST", customer_id=customer, lose_answer=True, count=1)
            )
        changes: list[Change] = [
            linked(record, str(customer), occurred_at=NOW + 1)
            for part in parts
            for record, customer in part
        ]
        world.inbox.accept(changes)
        world.pass_a_moment()
        for _ in range(8):
            for part in parts:
                world.batches.work_through(boxes(*(record for record, _ in part)))
            if not world.waiting():
                break
            world.sweep()
            for mailbox in world.waiting():
                client.zadd("sw:due", {mailbox: 1})
            for key in client.scan_iter("sw:suspect:*"):
                client.delete(key)
        return Outcome(world)
    finally:
        world.close()


@given(data=st.data(), begun=steps, told=steps)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_b7_4_any_partition_into_batches_ends_as_one_by_one(client, fusebill, data, begun, told):
    """Whichever customers refuse, and whichever answers are lost."""
    refused = data.draw(st.sets(st.sampled_from(CUSTOMERS), max_size=2), label="refused")
    lost = data.draw(st.sets(st.sampled_from(CUSTOMERS), max_size=2), label="lost")
    cuts = data.draw(st.lists(st.booleans(), min_size=len(told), max_size=len(told)), label="cuts")
    parts: list[list[tuple[Record, int]]] = [[]]
    for step, cut in zip(told, cuts, strict=True):
        if cut and parts[-1]:
            parts.append([])
        parts[-1].append(step)
    singly = [[step] for step in told]
    has_set = data.draw(st.booleans(), label="has_set")
    given_all = (begun, refused, lost - refused)
    together = live_through(client, fusebill, parts, *given_all, has_set=has_set)
    one_by_one = live_through(client, fusebill, singly, *given_all, has_set=has_set)
    assert together == one_by_one


def test_b6_7_what_was_claimed_though_the_answer_was_lost_is_handed_back(world, monkeypatch):
    crowd = world.crowd(GEOTAB, 4)
    claim = world.inbox._claim

    def cut(*, args: list[Any]) -> Any:
        claim(args=args)
        raise StoreError("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(world.inbox, "_claim", cut)
        with pytest.raises(StoreError):
            world.work_together(*crowd.values())
    assert due_now(world) == set()
    world.converger.hand_back()
    assert held(world) == []
    assert due_now(world) == set(boxes(*crowd.values()))
    works = [world.client.hgetall(f"sw:work:{record.mailbox}") for record in crowd.values()]
    assert not any("vanished" in work for work in works)
    world.work_together(*crowd.values())
    assert world.slots("geotab_id", crowd) == [record.id for record in crowd.values()]


def test_b5_3_what_is_not_begun_long_before_its_lease_ends_is_given_back(world, monkeypatch):
    """Of mailboxes that concern the same customer, worked on one after the other."""
    clock = iter([0.0, 1.0, BEGIN_SECONDS + 1, BEGIN_SECONDS + 1])
    batches = Batches(world.converger, world.together, monotonic=lambda: next(clock))
    world.control.put_customers(Customer(id=1001))
    records = [numbered(like, 1001) for like in (GEOTAB, ACCOUNT, CONTACT)]
    world.inbox.accept([linked(record, "1001") for record in records])
    world.pass_a_moment()
    worked = batches.work_through(boxes(*records))
    batches.close()
    assert len(worked.again) == 2
    assert due_now(world) == set(worked.again)
    assert held(world) == []
    world.work_together(*records)
    assert due_now(world) == set()


def test_b6_12_a_bug_in_reading_together_costs_nothing_but_single_reads(world, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    crowd = world.crowd(GEOTAB, 4)
    monkeypatch.setattr(Together, "_read", broken)
    world.work_together(*crowd.values())
    assert world.slots("geotab_id", crowd) == [record.id for record in crowd.values()]
