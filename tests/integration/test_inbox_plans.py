"""What plans of several records and customers need of the store, on a real Redis: mailboxes held
together, merges, the brake, dry runs, and what is known of writes (B3.12, B5.2, B5.9, B5.10).
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import redis

from sync_worker import events, history, releases, replay
from sync_worker.domain import Aspect, Outcome, Reason, Slot, SlotState
from sync_worker.inbox import (
    Burial,
    Claim,
    Inbox,
    LeaseLost,
    Settlement,
    Suspect,
    Verdict,
    scripts,
)
from sync_worker.inbox.inbox import ALIAS_MS, Braking
from sync_worker.links import LinkIndex
from sync_worker.status import read_counters, read_status
from tests import changes
from tests.changes import (
    COMPANY,
    CONTACT,
    GEOTAB,
    NOW,
    deleted,
    linked,
    merged,
    named,
    touched,
    unlinked,
)
from tests.mailboxes import BOX, claimed, expire_lease, letters, settled, write

OTHER = COMPANY.mailbox
THIRD = GEOTAB.mailbox


@pytest.fixture
def inbox(client: redis.Redis) -> Inbox:
    return Inbox(client, dedupe_hours=72, audit_days=30, lease_seconds=90)


@pytest.fixture
def links(client: redis.Redis) -> LinkIndex:
    return LinkIndex(client, base_url="https://fusebill.example")


def due(client: redis.Redis, mailbox: str) -> float | None:
    return client.zscore("sw:due", mailbox)


def work(client: redis.Redis, mailbox: str) -> dict[str, str]:
    return client.hgetall(f"sw:work:{mailbox}")


# --- mailboxes held together (B5.3)


@pytest.fixture
def pair(inbox: Inbox) -> Claim:
    """BOX, and OTHER joined to it."""
    inbox.accept([linked(), linked(COMPANY)])
    claim = claimed(inbox)
    assert inbox.join(claim, [OTHER])
    return claim


def test_a_joined_mailbox_is_held_and_read(inbox, pair):
    assert pair.mailboxes == [BOX, OTHER]
    assert [one.change for one in pair.joined[OTHER].pending] == [linked(COMPANY)]
    assert inbox.claim(OTHER) is None


def test_joining_what_is_held_already_changes_nothing(inbox, pair):
    before = dict(pair.joined)
    assert inbox.join(pair, [BOX, OTHER])
    assert pair.joined == before


def test_b5_3_mailboxes_are_joined_all_or_none(inbox, client):
    inbox.accept([linked(), linked(COMPANY), linked(GEOTAB)])
    first, second = claimed(inbox), claimed(inbox, THIRD)
    was_due = due(client, OTHER)
    assert not inbox.join(first, [OTHER, THIRD])
    assert first.joined == {}
    assert due(client, OTHER) == was_due
    assert claimed(inbox, OTHER)
    assert settled(inbox, second) == 0


def test_a_mailbox_in_back_off_is_joined_and_its_due_time_given_back(inbox, client):
    inbox.accept([linked(), linked(COMPANY)])
    inbox.postpone(claimed(inbox, OTHER), seconds=3600, failures=3)
    was_due = due(client, OTHER)
    claim = claimed(inbox)
    assert inbox.join(claim, [OTHER])
    assert due(client, OTHER) < was_due
    settled(inbox, claim)
    assert due(client, OTHER) == was_due
    assert work(client, OTHER)["failures"] == "3"


@pytest.mark.parametrize("ending", ["settled", "postponed"])
def test_an_empty_mailbox_that_was_joined_leaves_nothing_behind(inbox, client, ending):
    inbox.accept([linked()])
    claim = claimed(inbox)
    assert inbox.join(claim, [OTHER])
    assert claim.joined[OTHER].pending == []
    assert due(client, OTHER) is not None  # what comes meanwhile waits for its end
    if ending == "settled":
        settled(inbox, claim)
    else:
        inbox.postpone(claim, seconds=5, failures=1)
    assert not [key for key in client.keys("sw:*") if OTHER in key]
    assert due(client, OTHER) is None


@pytest.mark.parametrize("ending", ["settled", "postponed"])
def test_what_came_to_a_joined_mailbox_meanwhile_is_due_at_once(inbox, ending):
    inbox.accept([linked()])
    claim = claimed(inbox)
    inbox.join(claim, [OTHER])
    inbox.accept([linked(COMPANY)])
    if ending == "settled":
        settled(inbox, claim)
    else:
        inbox.postpone(claim, seconds=3600, failures=1)
    assert len(claimed(inbox, OTHER).pending) == 1


def test_changes_of_joined_mailboxes_are_settled_with_the_claimed_one(inbox, client, pair):
    both = [*pair.pending, *pair.joined[OTHER].pending]
    inbox.settle(pair, Settlement([Verdict(one, Outcome.MOVED) for one in both]))
    assert client.zcard("sw:due") == 0
    assert {event.record for _, event in events.settled(client)} == {BOX, OTHER}


def test_a_joined_mailbox_that_is_not_settled_keeps_its_changes(inbox, client, pair):
    settled(inbox, pair)
    assert due(client, BOX) is None
    assert len(claimed(inbox, OTHER).pending) == 1


def test_b6_5_a_letter_of_merged_records_takes_the_changes_of_each_mailbox(inbox, client, pair):
    both = (*pair.pending, *pair.joined[OTHER].pending)
    burial = Burial(Aspect.LINK, Reason.CONFLICT, "why", "do this", both, mailbox=BOX)
    inbox.settle(pair, Settlement(burials=[burial]))
    (letter,) = letters(client)
    assert letter.mailbox == BOX
    assert [one.change.record for one in letter.changes] == [CONTACT, COMPANY]
    assert client.zcard("sw:due") == 0


def test_a_worker_that_vanishes_gives_all_its_mailboxes_back(inbox, client, pair):
    for mailbox in (BOX, OTHER):
        expire_lease(client, mailbox)
    assert sorted(inbox.wake(10)[0]) == sorted([BOX, OTHER])
    other = claimed(inbox, OTHER)
    for step in (
        lambda: inbox.hold(pair, {1}),
        lambda: settled(inbox, pair),
    ):
        with pytest.raises(LeaseLost):
            step()
    inbox.postpone(other, seconds=0, failures=0)  # each is worked on alone now (B6.6)
    assert claimed(inbox).pending == pair.pending


def test_a_joined_mailbox_that_another_took_over_is_left_to_it(inbox, client, pair):
    """The claimed one is let go; the other is not touched."""
    expire_lease(client, OTHER)
    other = claimed(inbox, OTHER)
    inbox.postpone(pair, seconds=0, failures=0)
    assert work(client, OTHER)["token"] == other.token
    assert claimed(inbox)


def test_nobody_joins_after_losing_the_lease(inbox, client):
    inbox.accept([linked()])
    claim = claimed(inbox)
    expire_lease(client, BOX)
    claimed(inbox)
    with pytest.raises(LeaseLost):
        inbox.join(claim, [OTHER])
    assert due(client, OTHER) is None


def test_holding_renews_the_leases_of_all(inbox, client, pair):
    client.hset(f"sw:work:{OTHER}", "until", 2)
    inbox.hold(pair, {1})
    assert inbox.claim(OTHER) is None
    assert float(work(client, OTHER)["until"]) > 2


# --- merges (B3.12)


A, B, C, D = (named(CONTACT, id_) for id_ in ("1", "2", "3", "4"))


def group(inbox: Inbox, record: changes.Record) -> tuple[str, set[str]]:
    """What is left of a record, and all that was merged into that."""
    inbox.accept([touched(record)])
    claim = claimed(inbox, record.mailbox)
    found = claim.survivor, set(claim.merged)
    inbox.postpone(claim, seconds=0, failures=0)
    return found


def boxes(*records: changes.Record) -> set[str]:
    return {record.mailbox for record in records}


def test_a_merge_is_noted_when_it_is_accepted(inbox, client):
    inbox.accept([merged(C, "1", "2")])
    for record in (A, B, C):
        assert group(inbox, record) == (C.mailbox, boxes(A, B))
    assert ALIAS_MS - 60_000 < client.pttl(f"sw:alias:{A.mailbox}") <= ALIAS_MS
    assert ALIAS_MS - 60_000 < client.pttl(f"sw:merged:{C.mailbox}") <= ALIAS_MS


def test_a_merge_is_noted_with_dedupe_on_and_told_twice(inbox):
    for _ in range(2):
        inbox.accept([merged(B, "1", identity="m")])
    assert group(inbox, A) == (B.mailbox, boxes(A))


def test_what_is_left_of_a_record_is_followed_over_several_merges(inbox):
    inbox.note_merge(A, B)
    inbox.note_merge(B, C)
    inbox.note_merge(D, C)
    for record in (A, B, C, D):
        assert group(inbox, record) == (C.mailbox, boxes(A, B, D))


def test_a_merge_that_goes_in_a_circle_is_not_noted(inbox):
    inbox.note_merge(A, B)
    inbox.note_merge(B, C)
    inbox.note_merge(C, A)
    for record in (A, B, C):
        assert group(inbox, record) == (C.mailbox, boxes(A, B))
    inbox.note_merge(C, C)
    assert group(inbox, C) == (C.mailbox, boxes(A, B))


def test_joined_mailboxes_know_their_merges_too(inbox):
    inbox.note_merge(A, B)
    inbox.accept([linked()])
    claim = claimed(inbox)
    inbox.join(claim, [A.mailbox])
    joined = claim.joined[A.mailbox]
    assert (joined.survivor, joined.merged) == (B.mailbox, (A.mailbox,))


# --- the brake (B5.10)


def brake(inbox: Inbox, record: changes.Record, *customers: int, limit: int = 2) -> bool:
    """Ask for the releases of a new change of that record; the claim is given back."""
    inbox.accept([unlinked(record)])
    claim = claimed(inbox, record.mailbox)
    allowed = inbox.brake(claim, [(one, record.id) for one in customers], limit=limit)
    if allowed:
        settled(inbox, claim, Outcome.UNLATCHED)
    else:
        inbox.postpone(claim, seconds=3600, failures=0)
    return allowed


def test_b5_10_releases_of_an_hour_are_counted_and_the_next_is_held(inbox, client):
    assert brake(inbox, A, 1)
    assert brake(inbox, B, 2)
    assert not brake(inbox, C, 3)
    (held,) = releases.held(client)
    assert (held.record, held.customer_id, held.slot) == (C.mailbox, 3, "hubspot_contact")
    assert held.since > 0
    assert read_status(client).releases_held == 1
    assert read_counters(client)["releases_held"] == 1
    assert not inbox.claim(C.mailbox)


def test_b5_10_a_plan_is_held_whole(inbox, client):
    assert brake(inbox, A, 1)
    assert not brake(inbox, B, 2, 3)
    assert client.zcard("sw:releases") == 1


def test_b5_10_a_plan_that_is_made_again_is_counted_once(inbox, client):
    inbox.accept([unlinked(A)])
    for _ in range(3):
        claim = claimed(inbox, A.mailbox)
        assert inbox.brake(claim, [(1, "1")], limit=1)
        inbox.postpone(claim, seconds=0, failures=0)
    assert client.zcard("sw:releases") == 1


def test_b5_10_releases_are_forgotten_after_an_hour(inbox, client):
    assert brake(inbox, A, 1, limit=1)
    assert not brake(inbox, B, 2, limit=1)
    (release,) = client.zrange("sw:releases", 0, -1)
    client.zincrby("sw:releases", -3_600_001, release)
    assert brake(inbox, C, 3, limit=1)


def test_b5_10_what_is_held_stays_held_until_somebody_rules(inbox, client):
    """Also when the hour has passed: the alert asks for a person."""
    assert not brake(inbox, A, 1, limit=0)
    first = releases.held(client)
    client.zadd("sw:due", {A.mailbox: 1})
    claim = claimed(inbox, A.mailbox)
    assert not inbox.brake(claim, [(1, "1")], limit=100)
    assert releases.held(client) == first  # the same one, since the same time
    assert read_counters(client)["releases_held"] == 1


@pytest.mark.parametrize("ruling", ["approved", "discarded"])
def test_b5_10_a_ruling_makes_the_mailbox_due_and_is_told_its_worker(inbox, client, ruling):
    brake(inbox, A, 1, limit=0)
    (held,) = releases.held(client)
    assert releases.rule(client, held, ruling)
    claim = claimed(inbox, A.mailbox)
    assert releases.held(client) == []
    told = {"approved": Braking.FREE, "discarded": Braking.DISCARDED}[ruling]
    assert inbox.brake(claim, [(1, "1")], limit=0) is told
    settled(inbox, claim, Outcome.UNLATCHED)
    assert not brake(inbox, A, 1, limit=0)  # a ruling is for what it was given


def test_b5_10_a_ruling_is_about_the_releases_that_were_seen(inbox, client):
    brake(inbox, A, 1, limit=0)
    (seen,) = releases.held(client)
    client.zadd("sw:due", {A.mailbox: 1})
    claim = claimed(inbox, A.mailbox)
    assert not inbox.brake(claim, [(2, "1")], limit=0)  # it would be another customer's now
    (other,) = releases.held(client)
    assert other.id != seen.id
    assert not releases.rule(client, seen, "approved")
    assert releases.rule(client, other, "approved")
    assert inbox.brake(claim, [(1, "1")], limit=0) is Braking.HELD


def test_b5_10_what_was_discarded_while_it_was_worked_on_is_not_made(inbox, client):
    brake(inbox, A, 1, limit=0)
    client.zadd("sw:due", {A.mailbox: 1})
    claim = claimed(inbox, A.mailbox)
    (held,) = releases.held(client)
    assert releases.rule(client, held, "discarded")
    assert inbox.brake(claim, [(1, A.id)], limit=100) is Braking.DISCARDED


def test_b5_10_a_release_is_ruled_on_once(inbox, client):
    brake(inbox, A, 1, limit=0)
    (held,) = releases.held(client)
    assert releases.rule(client, held, "approved")
    assert not releases.rule(client, held, "discarded")
    assert inbox.brake(claimed(inbox, A.mailbox), [(1, "1")], limit=0) is Braking.FREE


def test_b5_10_a_ruling_during_the_work_is_not_lost(inbox, client):
    """A new change woke the mailbox: who works on it has asked before the ruling."""
    brake(inbox, A, 1, limit=0)
    (held,) = releases.held(client)
    inbox.accept([unlinked(A, occurred_at=NOW + 1)])
    claim = claimed(inbox, A.mailbox)
    assert not inbox.brake(claim, [(1, "1")], limit=0)
    assert releases.rule(client, held, "approved")
    inbox.postpone(claim, seconds=3600, failures=0)
    assert inbox.brake(claimed(inbox, A.mailbox), [(1, "1")], limit=0) is Braking.FREE


def test_b5_10_what_was_settled_otherwise_is_held_no_more(inbox, client):
    brake(inbox, A, 1, limit=0)
    inbox.accept([linked(A, occurred_at=NOW + 1)])
    settled(inbox, claimed(inbox, A.mailbox))
    assert releases.held(client) == []
    assert read_status(client).releases_held == 0


@pytest.mark.parametrize("ending", ["settled", "postponed"])
def test_b5_10_a_held_mailbox_that_another_plan_joined_stays_held(inbox, client, ending):
    brake(inbox, A, 1, limit=0)
    before = releases.held(client)
    inbox.accept([linked()])
    claim = claimed(inbox)
    inbox.join(claim, [A.mailbox])
    if ending == "settled":
        settled(inbox, claim)
    else:
        inbox.postpone(claim, seconds=0, failures=0)
    assert releases.held(client) == before
    assert releases.rule(client, before[0], "approved")
    assert inbox.brake(claimed(inbox, A.mailbox), [(1, "1")], limit=0) is Braking.FREE


def test_b5_10_nobody_is_braked_without_a_lease(inbox, client):
    inbox.accept([unlinked(A)])
    claim = claimed(inbox, A.mailbox)
    expire_lease(client, A.mailbox)
    claimed(inbox, A.mailbox)
    with pytest.raises(LeaseLost):
        inbox.brake(claim, [(1, "1")], limit=0)
    assert releases.held(client) == []


# --- what a dry run keeps (B5.9)


def test_b5_9_a_dry_run_keeps_its_changes_and_a_replay_puts_them_back_once(inbox, client):
    inbox.accept([linked(identity="a"), touched()])
    claim = claimed(inbox)
    verdicts = [
        Verdict(claim.pending[0], Outcome.WOULD_LATCH, "", (5,)),
        Verdict(claim.pending[1], Outcome.IGNORED),
    ]
    inbox.settle(claim, Settlement(verdicts, dry_run=True))
    assert due(client, BOX) is None
    assert read_status(client).would == 2  # the other goes along
    planned = replay.plan_dry_run(client, replay.KeptFilter())
    assert planned.by_outcome == {"would_latch": 1}
    for replayed in (2, 0):
        done = replay.run(client, planned, wake=lambda _: None, sleep=lambda _: None)
        assert done.replayed == replayed
    assert read_status(client).would == 0
    again, _ = claimed(inbox).pending
    first = claim.pending[0]
    assert (again.seq, again.received_at) == (first.seq, first.received_at)
    assert again.change == msgspec.structs.replace(first.change, replay_id=again.change.replay_id)
    assert again.change.replay_id is not None


KEPT_BESIDE = {
    "newer and so": (linked(occurred_at=NOW + 1), Outcome.UNCHANGED, True, 2),
    "newer and a dead letter": (linked(occurred_at=NOW + 1), Outcome.DEAD_LETTER, True, 2),
    "newer and ignored": (unlinked(occurred_at=NOW + 1), Outcome.IGNORED, True, 2),
    "another aspect": (deleted(occurred_at=NOW + 1), Outcome.UNCHANGED, True, 2),
    "stale": (linked(occurred_at=NOW + 1), Outcome.STALE, True, 1),
    "another record": (linked(COMPANY, occurred_at=NOW + 1), Outcome.UNCHANGED, True, 1),
    "in earnest": (linked(occurred_at=NOW + 1), Outcome.UNCHANGED, False, 1),
}


@pytest.mark.parametrize(
    ("change", "outcome", "dry_run", "kept"), KEPT_BESIDE.values(), ids=KEPT_BESIDE
)
def test_b5_9_what_comes_of_a_record_after_a_write_it_would_make_is_kept_with_it(
    inbox, client, change, outcome, dry_run, kept
):
    """It would have been judged otherwise, had the write been made: they are applied as one."""
    inbox.accept([linked()])
    claim = claimed(inbox)
    would = [Verdict(one, Outcome.WOULD_LATCH) for one in claim.pending]
    inbox.settle(claim, Settlement(would, dry_run=True))
    inbox.accept([change])
    claim = claimed(inbox, change.record.mailbox)
    told = [Verdict(one, outcome) for one in claim.pending]
    inbox.settle(claim, Settlement(told, dry_run=dry_run))
    assert read_status(client).would == kept
    wanted = replay.KeptFilter(outcomes=frozenset({"would_latch"}))
    planned = replay.plan_dry_run(client, wanted)
    assert [len(box) for box in planned.boxes] == [kept]
    replay.run(client, planned, wake=lambda _: None, sleep=lambda _: None)
    assert len(claimed(inbox).pending) == kept


def test_b5_9_what_a_dry_run_only_finds_to_be_so_is_not_kept(inbox, client):
    inbox.accept([linked()])
    claim = claimed(inbox)
    told = [Verdict(one, Outcome.UNCHANGED) for one in claim.pending]
    inbox.settle(claim, Settlement(told, dry_run=True))
    assert read_status(client).would == 0


# --- writes: what they let go of, and what the history says (B5.2, B5.3)


def observe(links: LinkIndex, *, at: int, written: bool = False, **slots: Any) -> None:
    links.observe(changes.customer(5, **slots), sent_at=at, written=written)


def turns(client: redis.Redis, links: LinkIndex) -> list[tuple[str | None, str | None, str]]:
    found = history.of_customer(client, links.account, 5)
    return [(one.before, one.after, one.by) for one in found]


def test_what_a_plan_lets_go_of_is_known_to_the_next_worker(inbox, client):
    inbox.accept([linked()])
    claim = claimed(inbox)
    inbox.hold(claim, {5}, to_write=write(undo='[["let go"]]'))
    expire_lease(client, BOX)
    client.delete("sw:lease:5", "sw:suspect:5")
    again = claimed(inbox)
    assert again.undo == '[["let go"]]'
    settled(inbox, again)
    inbox.accept([linked(customer="2")])
    assert claimed(inbox).undo == ""


def test_a_later_write_says_anew_what_is_let_go_of(inbox, client):
    inbox.accept([linked()])
    claim = claimed(inbox)
    inbox.hold(claim, {5}, to_write=write(undo="x"))
    inbox.hold(claim, {5}, to_write=write())
    inbox.postpone(claim, seconds=0, failures=0)
    assert claimed(inbox).undo == ""


def test_the_history_tells_our_writes_from_those_of_another_hand(inbox, client, links):
    observe(links, at=1, geotab_customer="1")
    inbox.accept([linked(GEOTAB)])
    claim = claimed(inbox, THIRD)
    inbox.hold(claim, {5}, to_write=write(slots={"geotab_customer": "2"}))
    observe(links, at=2, written=True, geotab_customer="2")
    observe(links, at=10**17, geotab_customer="3")
    assert turns(client, links) == [
        (None, "1", "first_seen"),
        ("1", "2", "us"),
        ("2", "3", "another_hand"),
    ]
    (_, ours, _) = history.of_customer(client, links.account, 5)
    assert (ours.record, ours.change) == (BOX, "1")


def test_a_write_whose_answer_was_lost_is_ours_when_it_is_seen(inbox, client, links):
    """And once it was seen, the same again is another hand's."""
    observe(links, at=1)
    inbox.accept([linked(GEOTAB)])
    claim = claimed(inbox, THIRD)
    inbox.hold(claim, {5}, to_write=write(slots={"geotab_customer": "2"}))
    inbox.postpone(claim, seconds=0, failures=1, answer_lost=True)
    observe(links, at=2)  # not there yet
    observe(links, at=3, geotab_customer="2")
    observe(links, at=4)
    observe(links, at=5, geotab_customer="2")
    assert turns(client, links) == [
        (None, "2", "us"),
        ("2", None, "another_hand"),
        (None, "2", "another_hand"),
    ]


def test_a_lost_release_that_is_seen_later_was_ours_too(inbox, client, links):
    """So that nobody need sweep for where the record went (B4.5)."""
    observe(links, at=1, geotab_customer="2")
    inbox.accept([unlinked(GEOTAB)])
    claim = claimed(inbox, THIRD)
    inbox.hold(claim, {5}, to_write=write(slots={"geotab_customer": ""}))
    observe(links, at=2)
    assert links.known(Slot.GEOTAB_CUSTOMER, ["2"]) == {5: "released"}
    assert turns(client, links)[-1] == ("2", None, "us")


def test_an_answer_that_is_older_than_the_last_one_changes_nothing(inbox, client, links):
    observe(links, at=5, geotab_customer="2")
    observe(links, at=4, geotab_customer="1")
    assert links.known(Slot.GEOTAB_CUSTOMER, ["1", "2"]) == {5: "holds"}
    assert turns(client, links) == [(None, "2", "first_seen")]


def test_a_slot_that_an_answer_leaves_out_stays_as_it_was_known(inbox, client, links):
    observe(links, at=1, geotab_customer="2")
    observe(links, at=2, geotab_customer=SlotState.UNKNOWN)
    assert links.known(Slot.GEOTAB_CUSTOMER, ["2"]) == {5: "holds"}
    assert len(turns(client, links)) == 1


def test_only_links_that_hold_are_counted(inbox, client, links):
    observe(links, at=1, geotab_customer="2", hubspot_contact="7")
    assert links.count() == 2
    observe(links, at=2, geotab_customer="3", hubspot_contact="7")
    assert links.count() == 2
    observe(links, at=3)
    assert links.count() == 0


def test_b5_5_a_displacement_is_remembered_and_a_latch_is_none(inbox, client, links):
    observe(links, at=1, geotab_customer="1")
    inbox.accept([linked(GEOTAB)])
    claim = claimed(inbox, THIRD)
    slots = {"geotab_customer": "2"}
    assert links.replaced_at(5, Slot.GEOTAB_CUSTOMER) is None
    inbox.hold(claim, {5}, to_write=write(slots=slots, replaces=frozenset(slots)))
    observe(links, at=2, written=True, geotab_customer="2")
    assert links.replaced_at(5, Slot.GEOTAB_CUSTOMER) == pytest.approx(claim.now, abs=60_000)


# --- conflicts that are judged again


def blocked(inbox: Inbox, claim: Claim, *customers: int) -> None:
    """Bury what a claim holds as a conflict with those customers."""
    burial = Burial(Aspect.LINK, Reason.CONFLICT, "why", "do this", tuple(claim.pending), customers)
    inbox.settle(claim, Settlement(burials=[burial]))


@pytest.fixture
def conflict(inbox: Inbox, client: redis.Redis, links: LinkIndex) -> None:
    """GEOTAB waits for customer 5, where 1 is."""
    observe(links, at=1, geotab_customer="1")
    inbox.accept([linked(GEOTAB)])
    blocked(inbox, claimed(inbox, THIRD), 5)
    assert client.zcard("sw:due") == 0


def test_a_conflict_is_put_back_when_its_slot_is_seen_to_be_free(inbox, client, links, conflict):
    observe(links, at=2)
    (again,) = claimed(inbox, THIRD).pending
    assert again.change == linked(GEOTAB)  # as it was: this is no replay of a person's
    assert [letter.state for letter in letters(client)] == ["replaying"]
    assert not client.keys("sw:blocked:*")


@pytest.mark.parametrize(
    "slots",
    [{"geotab_customer": "2"}, {"geotab_customer": SlotState.UNKNOWN}, {"geotab_customer": "1"}],
    ids=["another record", "not told", "as before"],
)
def test_a_conflict_stays_while_its_slot_is_not_free(inbox, client, links, conflict, slots):
    observe(links, at=2, **slots)
    assert client.zcard("sw:due") == 0
    assert [letter.state for letter in letters(client)] == ["open"]


def test_another_slot_or_customer_puts_nothing_back(inbox, client, links, conflict):
    observe(links, at=2, geotab_customer="1", hubspot_contact="7")
    observe(links, at=3, geotab_customer="1")
    links.observe(changes.customer(6, geotab_customer="8"), sent_at=1)
    links.observe(changes.customer(6), sent_at=2)
    assert client.zcard("sw:due") == 0


def test_what_is_put_back_while_its_mailbox_is_worked_on_is_due_after_it(
    inbox, client, links, conflict
):
    inbox.accept([touched(GEOTAB)])
    claim = claimed(inbox, THIRD)
    observe(links, at=2)
    assert settled(inbox, claim, Outcome.IGNORED) == 1
    assert [letter.state for letter in letters(client)] == ["replaying"]
    settled(inbox, claimed(inbox, THIRD))
    assert [letter.state for letter in letters(client, "resolved")] == ["resolved"]


# --- what is left for later, and Salesforce's definitions


def test_what_is_left_for_later_is_due_then(inbox, client):
    """A deletion that a merge may explain (B3.12)."""
    inbox.accept([linked(), touched()])
    claim = claimed(inbox)
    assert (
        inbox.settle(claim, Settlement([Verdict(claim.pending[0], Outcome.LATCHED)], later=30)) == 1
    )
    assert inbox.claim(BOX) is None
    now = int(client.time()[0]) * 1000
    assert 25_000 < due(client, BOX) - now <= 31_000
    assert "failures" not in work(client, BOX)
    assert inbox.wake(10)[0] == []


def test_what_came_meanwhile_does_not_wait_for_later(inbox):
    inbox.accept([linked(), touched()])
    claim = claimed(inbox)
    inbox.accept([linked(customer="2")])
    inbox.settle(claim, Settlement([Verdict(claim.pending[0], Outcome.LATCHED)], later=30))
    assert len(claimed(inbox).pending) == 2


def test_b6_8_an_urgent_change_ends_that_wait(inbox):
    inbox.accept([touched()])
    inbox.settle(claimed(inbox), Settlement(later=30))
    assert inbox.claim(BOX) is None
    inbox.accept([linked()])
    assert len(claimed(inbox).pending) == 2


def test_b3_2_definitions_that_carry_the_field_are_remembered(inbox):
    inbox.accept([linked(definition="04k1")])
    inbox.accept([unlinked(COMPANY, definition="04k2", left_out=True, evidence=None)])
    assert claimed(inbox).definitions == {"04k1"}


def test_notes_are_kept_over_a_wait_and_removed_by_an_empty_one(inbox):
    inbox.accept([linked()])
    inbox.postpone(claimed(inbox), seconds=0, failures=0, notes={"refused_at": "7"})
    again = claimed(inbox)
    assert again.refused_at == 7
    inbox.postpone(again, seconds=0, failures=0, notes={"refused_at": ""})
    assert claimed(inbox).refused_at == 0


def test_b5_3_nothing_joined_is_settled_while_an_unanswered_write_may_land(inbox, client, pair):
    inbox.hold(pair, {5}, to_write=write())
    inbox.postpone(pair, seconds=0, failures=1, answer_lost=True)
    again = claimed(inbox)
    inbox.join(again, [OTHER])
    inbox.hold(again, {5})
    with pytest.raises(Suspect):
        settled(inbox, again)
    assert len(again.pending) == len(again.joined[OTHER].pending) == 1


def test_a_step_that_is_asked_for_twice_says_the_same_twice(inbox, client):
    """redis-py asks again when the answer was lost."""
    brake(inbox, A, 1, limit=0)
    script = scripts.load(client, "rule")
    (held,) = releases.held(client)
    assert script(args=[A.mailbox, held.id, "approved", 0]) == 1
    assert work(client, A.mailbox)["brake"].startswith("approved ")
    inbox.accept([linked()])
    claim = claimed(inbox)
    join = scripts.load(client, "join")
    asked = [BOX, claim.token, 90_000, OTHER]
    assert join(args=asked)[0] == join(args=asked)[0] == "joined"
