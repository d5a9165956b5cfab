"""What only a replay put back comes after what is live (B7.3), in its wake-ups and its calls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from sync_worker import drain, gates, replay
from sync_worker.converge import Ended
from sync_worker.crew import AT_ONCE
from sync_worker.domain import Outcome, Reason, Record
from sync_worker.drain import MOST_WAITING_MESSAGES
from sync_worker.fusebill.limits import RateLimits
from sync_worker.inbox import Claim, Inbox
from sync_worker.inbox.reserve import Priority
from sync_worker.links import LinkIndex
from tests.changes import COMPANY, CONTACT, GEOTAB, NOW, associated, customer, linked
from tests.mailboxes import BOX, buried, claimed, expire_lease, letters, settled
from tests.worlds import OTHER, N, World, numbered

LIVE, REPLAYED = "sw:wake", "sw:wake:replay"

GEOTABS = [numbered(GEOTAB, n) for n in range(1, 7)]


@pytest.fixture
def inbox(client: redis.Redis) -> Inbox:
    return Inbox(client, dedupe_hours=72, audit_days=30, lease_seconds=90)


def put_back(client: redis.Redis) -> None:
    """Replay every open dead letter."""
    replay.run(client, replay.plan(letters(client)), wake=lambda _: None, sleep=lambda _: None)


def replayed(inbox: Inbox, client: redis.Redis, *records: Record) -> None:
    """These hold nothing but what a replay put back."""
    for record in records:
        inbox.accept([linked(record)])
        buried(inbox, claimed(inbox, record.mailbox))
    put_back(client)


def lanes(client: redis.Redis, mailbox: str = BOX) -> list[str]:
    """Where the mailbox waits to be woken."""
    return [lane for lane in (LIVE, REPLAYED) if client.zscore(lane, mailbox) is not None]


def be_overdue(client: redis.Redis, *mailboxes: str) -> None:
    """Nobody has woken these, the first for longest."""
    for at, mailbox in enumerate(mailboxes, start=1):
        for lane in lanes(client, mailbox):
            client.zadd(lane, {mailbox: at})


# --- into the lane, and out of it


def test_b7_3_what_only_a_replay_put_back_waits_in_the_lane_of_replays(inbox, client):
    replayed(inbox, client, CONTACT)
    assert lanes(client) == [REPLAYED]
    assert client.zscore("sw:due", BOX) is not None
    assert claimed(inbox).priority is Priority.REPLAY


def test_b7_3_so_does_what_a_dry_run_kept(world, client):
    world.use(dry_run=True)
    world.feed(linked(GEOTAB))
    world.use()
    world.apply_dry_run()
    assert lanes(client, GEOTAB.mailbox) == [REPLAYED]
    assert world.converge(GEOTAB) is Ended.SETTLED
    assert world.customer().geotab_id == GEOTAB.id
    assert lanes(client, GEOTAB.mailbox) == []


def test_b7_3_what_is_put_back_beside_a_live_change_is_live(inbox, client):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    inbox.accept([associated()])
    put_back(client)
    assert lanes(client) == [LIVE]
    assert claimed(inbox).priority is Priority.LIVE


@pytest.mark.parametrize("change", [linked, associated], ids=["urgent", "not urgent"])
def test_b7_3_a_live_change_makes_its_mailbox_live_and_wakes_it(inbox, client, change):
    replayed(inbox, client, CONTACT)
    accepted = inbox.accept([change(record=CONTACT, occurred_at=NOW + 1)])
    assert accepted.wake == [BOX], "the wake-up of the replay is in the queue behind all others"
    assert lanes(client) == [LIVE]
    assert claimed(inbox).priority is Priority.LIVE


@pytest.mark.parametrize("change", [linked, associated], ids=["urgent", "not urgent"])
def test_b7_3_also_one_that_is_in_back_off(inbox, client, change):
    replayed(inbox, client, CONTACT)
    inbox.postpone(claimed(inbox), seconds=600, failures=3)
    assert lanes(client) == [REPLAYED], "its schedule is that of a replay still"
    accepted = inbox.accept([change(record=CONTACT, occurred_at=NOW + 1)])
    is_urgent = change is linked
    assert accepted.wake == ([BOX] if is_urgent else [])
    assert lanes(client) == [LIVE]
    client.zadd("sw:due", {BOX: 1})
    claim = claimed(inbox)
    assert claim.priority is Priority.LIVE
    assert claim.failures == (0 if is_urgent else 3)


def test_b7_3_also_one_that_is_in_work(inbox, client):
    replayed(inbox, client, CONTACT)
    claim = claimed(inbox)
    assert lanes(client) == [REPLAYED]
    inbox.accept([linked(occurred_at=NOW + 1)])
    assert lanes(client) == [LIVE]
    assert settled(inbox, claim) == 1
    assert lanes(client) == [LIVE]
    assert claimed(inbox).priority is Priority.LIVE


def test_b6_7_one_that_goes_live_while_its_worker_vanishes_is_woken_all_the_same(inbox, client):
    replayed(inbox, client, CONTACT)
    claimed(inbox)
    inbox.accept([linked(occurred_at=NOW + 1)])
    expire_lease(client, BOX)
    assert inbox.wake(10) == ([BOX], [])


def test_what_is_settled_leaves_no_lane_behind(inbox, client):
    replayed(inbox, client, CONTACT)
    assert settled(inbox, claimed(inbox)) == 0
    assert lanes(client) == []
    assert not client.exists(f"sw:work:{BOX}")
    inbox.accept([linked(occurred_at=NOW + 1)])
    assert lanes(client) == [LIVE]


def test_what_is_buried_again_leaves_no_lane_behind(inbox, client):
    replayed(inbox, client, CONTACT)
    buried(inbox, claimed(inbox), Reason.REJECTED)
    assert lanes(client) == []
    assert not client.exists(f"sw:work:{BOX}")


def test_a_second_replay_of_the_same_record_stays_in_the_lane(inbox, client):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    inbox.accept([associated()])
    buried(inbox, claimed(inbox))
    put_back(client)
    assert lanes(client) == [REPLAYED]
    assert len(claimed(inbox).pending) == 2


def test_what_comes_free_again_is_live(inbox, client):
    """No operator asked for it: a change of the customer did."""
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    links = LinkIndex(client, base_url="https://fusebill.example")
    links.observe(customer(8714402, hubspot_contact="99"), sent_at=1)
    links.observe(customer(8714402), sent_at=2)
    assert lanes(client) == [LIVE]


# --- held beside another


@pytest.fixture
def beside(inbox: Inbox, client: redis.Redis) -> Claim:
    """A convergence that holds the contact's mailbox beside its own."""
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    inbox.accept([linked(COMPANY)])
    claim = claimed(inbox, COMPANY.mailbox)
    assert inbox.join(claim, [BOX])
    return claim


def test_what_is_put_back_while_it_is_held_beside_another_waits_in_one_lane(inbox, client, beside):
    put_back(client)
    assert lanes(client) == [REPLAYED]
    inbox.postpone(beside, seconds=0, failures=0)
    assert lanes(client) == [REPLAYED]
    assert settled(inbox, claimed(inbox)) == 0
    assert lanes(client) == []


def test_b6_7_and_is_woken_if_the_other_vanishes(inbox, client, beside):
    put_back(client)
    expire_lease(client, COMPANY.mailbox)
    client.hset(f"sw:work:{BOX}", "until", 1)
    client.zadd("sw:due", {BOX: 1})
    be_overdue(client, BOX)
    assert inbox.wake(10) == ([COMPANY.mailbox], [BOX])


def test_one_that_is_held_beside_another_goes_back_to_its_lane(inbox, client):
    replayed(inbox, client, CONTACT)
    inbox.accept([linked(COMPANY)])
    claim = claimed(inbox, COMPANY.mailbox)
    inbox.join(claim, [BOX])
    assert lanes(client) == [REPLAYED]
    inbox.postpone(claim, seconds=0, failures=0)
    assert lanes(client) == [REPLAYED]
    assert lanes(client, COMPANY.mailbox) == [LIVE]


# --- woken in their order


@pytest.fixture
def mixed(inbox: Inbox, client: redis.Redis) -> tuple[list[str], list[str]]:
    """Three mailboxes that a replay put back long ago, and three with live changes since."""
    back, live = GEOTABS[:3], GEOTABS[3:]
    replayed(inbox, client, *back)
    inbox.accept([linked(record) for record in live])
    names = [record.mailbox for record in back], [record.mailbox for record in live]
    be_overdue(client, *names[0], *names[1])
    return names


@pytest.mark.parametrize(
    ("limit", "replays", "live", "back"),
    [
        (10, None, 3, 3),
        (10, 2, 3, 2),
        (10, 0, 3, 0),
        (4, None, 3, 1),
        (2, None, 2, 0),
        (0, 9, 0, 0),
    ],
)
def test_b7_3_replays_are_named_after_all_that_is_live(inbox, mixed, limit, replays, live, back):
    assert inbox.wake(limit, replays=replays) == (mixed[1][:live], mixed[0][:back])


def test_b6_7_what_was_named_is_not_named_again_and_at_once_if_it_was_not_sent(inbox, mixed):
    back, live = mixed
    assert inbox.wake(10) == (live, back)
    assert inbox.wake(10) == ([], [])
    inbox.leave([back[0], live[0]])
    assert inbox.wake(10) == ([live[0]], [back[0]])


def test_b6_7_a_replay_whose_worker_vanishes_is_woken_again(inbox, client):
    replayed(inbox, client, CONTACT)
    claimed(inbox)
    client.hset(f"sw:work:{BOX}", "until", 1)
    client.zadd("sw:due", {BOX: 1})
    be_overdue(client, BOX)
    assert inbox.wake(10) == ([], [BOX])
    assert claimed(inbox).priority is Priority.REPLAY


def test_b6_3_what_waited_at_a_gate_goes_on_in_its_lane(world, client):
    world.inbox.accept([linked(GEOTABS[0]), linked(GEOTABS[1])])
    buried(world.inbox, claimed(world.inbox, GEOTABS[0].mailbox))
    put_back(client)
    world.gates.pause("")
    for record in GEOTABS[:2]:
        assert world.converge(record) is Ended.NOT_DUE
        assert lanes(client, record.mailbox) == []
    assert world.inbox.wake(10, gates.ALL) == ([], [])
    world.gates.resume()
    assert world.inbox.wake(10, gates.ALL) == ([GEOTABS[1].mailbox], [GEOTABS[0].mailbox])


def test_b7_3_what_came_live_while_it_waited_at_a_gate_is_woken_as_such(world, client):
    replayed(world.inbox, client, GEOTAB)
    world.gates.pause("")
    world.converge(GEOTAB)
    world.inbox.accept([linked(GEOTAB, occurred_at=NOW + 1)])
    world.gates.resume()
    be_overdue(client, GEOTAB.mailbox)
    assert world.inbox.wake(10, gates.ALL) == ([GEOTAB.mailbox], [])


# --- the budget


def make_calls(world: World, n: int) -> None:
    """Have so many live calls made, of which the last tells that nobody else makes any."""
    first = world.budget.reserve(n, Priority.LIVE)
    for call in range(first, first + n):
        told = RateLimits(minute_limit=1000, minute_left=1000 - n, minute_reset=time.time() + 30)
        world.budget.ended(call, told if call == first + n - 1 else None)


def calls_of(world: World) -> list[int | None]:
    return [call.customer_id for call in world.control.calls()]


def test_b7_3_of_a_batch_the_replay_waits_and_the_live_change_does_not(world, client):
    """A replay keeps to its pace, and others that were before it push it back."""
    replayed(world.inbox, client, GEOTABS[0])
    world.inbox.accept([linked(GEOTABS[1], str(OTHER))])
    world.use(fusebill_calls_per_minute=30)
    make_calls(world, 4)
    worked = world.work_together(GEOTABS[0], GEOTABS[1])
    assert worked.poor == [GEOTABS[0].mailbox]
    assert worked.seconds > 0
    assert set(calls_of(world)) == {OTHER}
    assert lanes(client, GEOTABS[0].mailbox) == [REPLAYED]
    assert world.inbox.wake(10) == ([], [GEOTABS[0].mailbox])


def test_b7_3_where_live_changes_find_no_budget_no_replay_takes_it(world, client):
    """Not even those that come before them in the same batch."""
    replayed(world.inbox, client, GEOTABS[0])
    world.inbox.accept([linked(GEOTABS[1], str(OTHER))])
    world.use(fusebill_calls_per_minute=3)
    world.budget.reserve(2, Priority.LIVE)
    worked = world.work_together(GEOTABS[1], GEOTABS[0])
    assert worked.poor == [GEOTABS[1].mailbox, GEOTABS[0].mailbox]
    assert world.control.calls() == []


def test_b7_3_all_calls_of_a_replay_are_asked_for_as_such(world, client, monkeypatch):
    replayed(world.inbox, client, GEOTABS[0])
    asked: list[Priority] = []
    hold = world.inbox.hold

    def watched(claim: Claim, customers: Any, **more: Any) -> Any:
        if more.get("reserve"):
            asked.append(more["reserve"].priority)
        return hold(claim, customers, **more)

    monkeypatch.setattr(world.inbox, "hold", watched)
    world.work_together(GEOTABS[0])
    assert set(asked) == {Priority.REPLAY}
    assert world.customer().geotab_id == GEOTABS[0].id


def test_b7_3_with_a_live_change_beside_it_it_is_none(world, client, monkeypatch):
    replayed(world.inbox, client, GEOTAB)
    world.inbox.accept([linked(GEOTAB, str(OTHER), occurred_at=NOW + 1)])
    world.use(fusebill_calls_per_minute=30)
    make_calls(world, 4)
    worked = world.work_together(GEOTAB)
    assert worked.poor == []
    assert world.customer(OTHER).geotab_id == GEOTAB.id
    assert Outcome.SUPERSEDED in world.outcomes_of(GEOTAB)
    assert world.customer(N).geotab_id is None


# --- beat


class Beat:
    """A tick of beat."""

    def __init__(self, world: World, **outlook: int) -> None:
        self.world = world
        self.sent: list[tuple[str, list[str]]] = []
        self.takes = True
        self.seconds: list[float] = []
        left = {Priority.LIVE: outlook.get("live", 900), Priority.REPLAY: outlook.get("back", 900)}

        def foresee(priority: Priority, within: float) -> int:
            self.seconds.append(within)
            return left[priority]

        budget = SimpleNamespace(outlook=foresee)
        self.runtime: Any = SimpleNamespace(redis=world.client, inbox=world.inbox, budget=budget)

    def publish(self, mailboxes: Sequence[str], queue: str) -> bool:
        self.sent.append((queue, list(mailboxes)))
        return self.takes

    def tick(self) -> int:
        return drain.wake_due(self.runtime, self.publish, seconds=5)


@pytest.fixture
def waiting(world: World, client: redis.Redis) -> tuple[list[str], list[str]]:
    """Live and replayed mailboxes that nobody has woken."""
    back, live = GEOTABS[:3], GEOTABS[3:]
    replayed(world.inbox, client, *back)
    world.inbox.accept([linked(record) for record in live])
    names = [record.mailbox for record in live], [record.mailbox for record in back]
    be_overdue(client, *names[0], *names[1])
    return names


def test_b7_3_beat_sends_replays_to_a_queue_of_their_own(world, waiting):
    beat = Beat(world)
    assert beat.tick() == 6
    assert beat.sent == [("live", waiting[0]), ("replay", waiting[1])]
    assert beat.seconds == [5, 5]
    assert beat.tick() == 0
    assert len(beat.sent) == 2, "an empty message wakes nobody"


@pytest.mark.parametrize(
    ("outlook", "live", "back"),
    [({"live": 2}, 2, 0), ({"live": 4}, 3, 1), ({"back": 2}, 3, 2), ({"live": 0}, 0, 0)],
)
def test_b7_2_beat_wakes_no_more_than_there_will_be_budget_for(world, waiting, outlook, live, back):
    beat = Beat(world, **outlook)
    assert beat.tick() == live + back
    assert sum(len(names) for queue, names in beat.sent if queue == "live") == live
    assert sum(len(names) for queue, names in beat.sent if queue == "replay") == back


def test_b6_7_what_could_not_be_sent_is_sent_by_the_next_tick(world, waiting):
    beat = Beat(world)
    beat.takes = False
    beat.tick()
    beat.takes = True
    assert beat.tick() == 6
    assert beat.sent[:2] == beat.sent[2:]


@pytest.mark.parametrize("queue", ["sw:celery:live", "sw:celery:replay"])
def test_while_workers_are_behind_beat_adds_one_message_of_what_is_overdue(
    world, client, waiting, queue
):
    client.rpush(queue, *["message"] * (MOST_WAITING_MESSAGES + 1))
    more = [numbered(GEOTAB, n) for n in range(100, 100 + 2 * AT_ONCE)]
    world.inbox.accept([linked(record) for record in more])
    be_overdue(client, *waiting[0], *(record.mailbox for record in more))
    beat = Beat(world)
    assert beat.tick() == AT_ONCE
    ((name, names),) = beat.sent
    assert name == "live"
    assert names[:3] == waiting[0]


def test_b6_7_beat_and_a_batch_bring_all_to_an_end(world, waiting):
    beat = Beat(world)
    while beat.tick():
        for _, names in beat.sent:
            drain.drain(names, world.batches, seconds=60, sleep=lambda _: None)
        beat.sent.clear()
    assert world.waiting() == set()
    assert {outcome for outcome, _ in world.outcomes()} >= {"latched"}
    assert world.client.zcard(LIVE) == world.client.zcard(REPLAYED) == 0
