"""The steps on mailboxes, on a real Redis (B2.3, B3.8, B5.3, B6.7, B6.8, B6.12, B7.6)."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import msgspec
import pytest
import redis

from sync_worker import dead_letters, events, replay, store
from sync_worker.dead_letters import Filter
from sync_worker.domain import Aspect, Attempt, Marks, Outcome, Pending, Reason, Source
from sync_worker.embedded_redis import EmbeddedRedis
from sync_worker.inbox import (
    Burial,
    Claim,
    Inbox,
    LeaseLost,
    Settlement,
    Suspect,
    Undecoded,
    Verdict,
    scripts,
)
from sync_worker.status import read_counters, read_status
from tests.changes import COMPANY, CONTACT, NOW, deleted, hinted, linked, touched, unlinked
from tests.mailboxes import (
    BOX,
    buried,
    claimed,
    expire_lease,
    letters,
    moved_marks,
    settled,
    write,
)


@pytest.fixture
def inbox(client: redis.Redis) -> Inbox:
    return Inbox(client, dedupe_hours=72, audit_days=30, lease_seconds=90)


def test_accept_stores_marks_and_makes_due_in_one_step(inbox, client):
    accepted = inbox.accept([linked(identity="a"), linked(COMPANY, identity="b")])
    assert (accepted.accepted, accepted.duplicates) == (2, 0)
    assert accepted.wake == [BOX, COMPANY.mailbox]
    assert client.zcard("sw:due") == 2
    (one,) = claimed(inbox).pending
    assert one.change == linked(identity="a")
    assert abs(one.received_at - int(client.time()[0]) * 1000) < 60_000  # the store's own clock


def test_b2_11_a_change_that_was_stored_is_a_duplicate(inbox):
    inbox.accept([linked(identity="a")])
    again = inbox.accept([linked(identity="a"), linked(identity="b"), linked(identity="b")])
    assert (again.accepted, again.duplicates) == (1, 2)


def test_b2_3_a_body_of_thousands_is_one_step_like_any_other(inbox, client):
    """More than a command takes arguments, in mailboxes of one change and of many."""
    records = [msgspec.structs.replace(CONTACT, id=str(n % 4_000 + 1)) for n in range(9_000)]
    changes = [linked(one, identity=f"{n % 8_500}") for n, one in enumerate(records)]
    accepted = inbox.accept(changes)
    assert (accepted.accepted, accepted.duplicates) == (8_500, 500)
    assert accepted.wake == [one.mailbox for one in records[:4_000]]
    assert client.zcard("sw:due") == client.zcard("sw:wake") == 4_000
    seqs = [pending.seq for pending in claimed(inbox, records[0].mailbox).pending]
    assert seqs == [1, 4_001, 8_001]
    again = inbox.accept(changes)
    assert (again.accepted, again.duplicates, again.wake) == (0, 9_000, [])


def test_b6_11_a_live_change_brings_what_a_replay_put_back_to_the_front(inbox, client):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    replay.run(client, replay.plan(letters(client)), wake=lambda _: None, sleep=lambda _: None)
    assert client.zrange("sw:wake:replay", 0, -1) == [BOX]
    assert inbox.accept([touched()]).wake == [BOX]
    assert client.zrange("sw:wake:replay", 0, -1) == []
    assert client.zrange("sw:wake", 0, -1) == [BOX]


def test_accepting_goes_on_over_a_restart_of_the_store_that_forgets_scripts(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        connection = store.connect(server.url)
        inbox = Inbox(connection, dedupe_hours=72, audit_days=30, lease_seconds=90)
        assert inbox.accept([linked(identity="a")]).accepted == 1
        connection.script_flush()
        assert inbox.accept([linked(identity="b")]).accepted == 1
        server.restart()
        assert inbox.accept([linked(identity="b"), linked(identity="c")]).accepted == 1
        server.stop()
        with pytest.raises(store.StoreError, match="cannot be reached"):
            inbox.accept([linked(identity="d")])
        server.start()
        assert inbox.accept([linked(identity="d")]).accepted == 1
        connection.close()


def test_b2_11_without_an_identity_nothing_is_a_duplicate(inbox):
    inbox.accept([linked()])
    assert inbox.accept([linked()]).accepted == 1


def test_b2_11_dedupe_can_be_switched_off(client):
    inbox = Inbox(client, dedupe_hours=0, audit_days=30, lease_seconds=90)
    inbox.accept([linked(identity="a")])
    assert inbox.accept([linked(identity="a")]).accepted == 1
    assert not client.keys("sw:seen:*")


def test_b2_11_identities_are_remembered_for_the_whole_window_and_then_forgotten(client):
    """They lie in sets by thirds of the window; moving a set back is as good as waiting."""
    inbox = Inbox(client, dedupe_hours=72, audit_days=30, lease_seconds=90)
    inbox.accept([linked(identity="a")])
    (key,) = client.keys("sw:seen:*")
    period = int(key.rpartition(":")[2])
    assert client.pttl(key) > 72 * 3600 * 1000
    client.rename(key, f"sw:seen:{period - 3}")
    assert inbox.accept([linked(identity="a")]).duplicates == 1
    client.rename(f"sw:seen:{period - 3}", f"sw:seen:{period - 4}")
    assert inbox.accept([linked(identity="a")]).accepted == 1


def test_b5_3_one_worker_at_a_time(inbox):
    inbox.accept([linked()])
    claimed(inbox)
    assert inbox.claim(BOX) is None


def test_many_threads_one_claim(inbox):
    inbox.accept([linked()])
    claims: list[Claim | None] = []
    threads = [threading.Thread(target=lambda: claims.append(inbox.claim(BOX))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([claim for claim in claims if claim]) == 1


def test_a_mailbox_that_is_not_there_is_not_claimed(inbox, client):
    assert inbox.claim(BOX) is None
    assert not client.keys("sw:*")


def test_b5_3_customers_are_leased_all_or_none(inbox, client):
    inbox.accept([linked(), linked(COMPANY)])
    first, second = claimed(inbox), claimed(inbox, COMPANY.mailbox)
    assert inbox.hold(first, {1, 2})
    assert inbox.hold(second, {2, 3}) is None
    assert not client.exists("sw:lease:3")
    assert inbox.hold(first, {1, 2})  # its own are renewed
    settled(inbox, first)
    assert inbox.hold(second, {2, 3})


def test_a_vanished_worker_gives_the_mailbox_back_by_itself(inbox, client):
    inbox.accept([linked()])
    first = claimed(inbox)
    expire_lease(client, BOX)
    assert inbox.wake(10)[0] == [BOX]
    second = claimed(inbox)
    for step in (
        lambda: inbox.hold(first, {1}),
        lambda: settled(inbox, first),
        lambda: inbox.postpone(first, seconds=1, failures=1),
    ):
        with pytest.raises(LeaseLost):
            step()
    assert settled(inbox, second) == 0


def test_b6_8_settling_removes_exactly_what_was_claimed(inbox, client):
    inbox.accept([linked(customer="1")])
    claim = claimed(inbox)
    inbox.accept([linked(customer="2")])
    assert settled(inbox, claim) == 1
    (left,) = claimed(inbox).pending
    assert left.change.customer_id == "2"


def test_an_emptied_mailbox_leaves_only_its_watermark(inbox, client):
    inbox.accept([linked(identity="a")])
    settled(inbox, claimed(inbox))
    left = {key for key in client.keys("sw:*") if BOX in key}
    assert left == {f"sw:mark:{BOX}"}
    assert client.zcard("sw:due") == client.zcard("sw:wake") == 0


def test_b6_8_a_postponed_mailbox_waits_and_keeps_its_changes(inbox, client):
    inbox.accept([linked()])
    claim = claimed(inbox)
    inbox.hold(claim, {5})
    claim.attempts.append(Attempt(at=NOW, call="GET /v1/customers/5", status=500))
    inbox.postpone(claim, seconds=30, failures=3)
    assert inbox.claim(BOX) is None
    assert not client.exists("sw:lease:5")
    client.zadd("sw:due", {BOX: 1})
    again = claimed(inbox)
    assert again.failures == 3
    assert again.attempts == claim.attempts
    assert again.pending == claim.pending


@pytest.mark.parametrize("change", [linked(customer="9"), touched()], ids=["link", "existence"])
def test_b6_8_an_urgent_change_ends_the_back_off_and_restarts_the_schedule(inbox, change):
    inbox.accept([linked()])
    inbox.postpone(claimed(inbox), seconds=3600, failures=5)
    assert inbox.accept([change]).wake == [BOX]
    claim = claimed(inbox)
    assert claim.failures == 0
    assert len(claim.pending) == 2


def test_b6_8_an_urgent_change_restarts_the_schedule_of_a_mailbox_that_is_due_too(inbox, client):
    inbox.accept([linked()])
    inbox.postpone(claimed(inbox), seconds=0, failures=5)
    inbox.accept([linked(customer="9")])
    assert claimed(inbox).failures == 0


def test_b6_8_other_changes_leave_the_back_off(inbox):
    inbox.accept([linked()])
    inbox.postpone(claimed(inbox), seconds=3600, failures=5)
    assert inbox.accept([hinted(reference="R")]).wake == []
    assert inbox.claim(BOX) is None


def test_b6_8_an_urgent_change_that_came_during_the_work_ends_the_back_off_too(inbox):
    inbox.accept([linked()])
    claim = claimed(inbox)
    assert inbox.accept([linked(customer="9")]).wake == []  # its worker will see to it
    inbox.postpone(claim, seconds=3600, failures=5)
    again = claimed(inbox)
    assert (again.failures, len(again.pending)) == (0, 2)


def test_b6_7_what_nobody_woke_is_woken_once(inbox, client):
    inbox.accept([linked(), linked(COMPANY)])
    assert inbox.wake(10)[0] == []  # the receiver's own wake-up is under way
    client.zadd("sw:wake", {BOX: 1, COMPANY.mailbox: 1})
    assert sorted(inbox.wake(10)[0]) == sorted([BOX, COMPANY.mailbox])
    assert inbox.wake(10)[0] == []


def test_b6_7_beat_takes_no_more_than_asked(inbox, client):
    inbox.accept([linked(), linked(COMPANY)])
    client.zadd("sw:wake", {BOX: 1, COMPANY.mailbox: 1})
    assert len(inbox.wake(1)[0]) == 1
    assert len(inbox.wake(1)[0]) == 1


def test_b3_8_the_watermark_keeps_the_newest_decided_time(inbox, client):
    inbox.accept([linked(occurred_at=NOW), unlinked(occurred_at=NOW - 5)])
    claim = claimed(inbox)
    verdicts = [
        Verdict(claim.pending[0], Outcome.LATCHED),
        Verdict(claim.pending[1], Outcome.SUPERSEDED),
    ]
    inbox.settle(claim, Settlement(verdicts, marks=moved_marks(claim, *verdicts)))
    inbox.accept([linked()])
    again = claimed(inbox)
    assert again.marks.watermarks == {Aspect.LINK: NOW}
    assert again.marks.ended_at is None


def test_a_deletion_is_remembered_apart_from_what_else_happened_to_the_record(inbox):
    inbox.accept([deleted()])
    settled(inbox, claimed(inbox), Outcome.DEAD_LETTER)
    inbox.accept([touched(occurred_at=NOW + 1)])
    assert claimed(inbox).marks.ended_at == NOW


@pytest.mark.parametrize("outcome", [Outcome.IGNORED, Outcome.STALE, Outcome.SUPERSEDED])
def test_b3_8_what_decided_nothing_moves_no_watermark(inbox, client, outcome):
    inbox.accept([touched()])
    settled(inbox, claimed(inbox), outcome)
    assert not client.exists(f"sw:mark:{BOX}")


def test_b3_8_dead_letters_move_the_watermark(inbox):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    inbox.accept([linked()])
    assert claimed(inbox).marks.watermarks == {Aspect.LINK: NOW}


EVERY_MARK = Marks(
    watermarks={Aspect.LINK: NOW, Aspect.COMPANY: NOW - 1},
    done={Aspect.LINK: frozenset({"a", "b"})},
    claim="8714402",
    shown=True,
    home="8714403",
    ended_at=NOW - 2,
    ended_on=8714404,
    company="330222354907",
    brought=("330222354907", 8714402),
)


def remembered(inbox: Inbox, marks: Marks) -> Marks:
    """Those marks, given to the next settlement and read by the next claim."""
    inbox.accept([touched()])
    claim = claimed(inbox)
    verdicts = [Verdict(pending, Outcome.IGNORED) for pending in claim.pending]
    inbox.settle(claim, Settlement(verdicts, marks={BOX: marks}))
    inbox.accept([touched()])
    again = claimed(inbox)
    inbox.postpone(again, seconds=0, failures=0)
    return again.marks


def test_what_is_remembered_of_a_record_reads_back_as_it_was(inbox):
    assert remembered(inbox, EVERY_MARK) == EVERY_MARK


@pytest.mark.parametrize("name", [field.name for field in msgspec.structs.fields(Marks)])
def test_each_mark_is_forgotten_by_itself(inbox, name):
    remembered(inbox, EVERY_MARK)
    less = msgspec.structs.replace(EVERY_MARK, **{name: getattr(Marks(), name)})
    assert remembered(inbox, less) == less


@pytest.mark.parametrize("name", ["claim", "home", "company"])
def test_an_empty_field_is_not_an_unknown_one(inbox, name):
    """After an unlink `claim` is "", before the first word of the record None."""
    emptied = Marks(**{name: ""})
    assert remembered(inbox, emptied) == emptied


def test_marks_that_are_not_named_stay(inbox):
    remembered(inbox, EVERY_MARK)
    claim = claimed(inbox)
    inbox.settle(claim, Settlement([Verdict(one, Outcome.IGNORED) for one in claim.pending]))
    inbox.accept([touched()])
    assert claimed(inbox).marks == EVERY_MARK


def test_b10_2_each_settled_change_leaves_one_audit_line_without_its_body(inbox, client):
    inbox.accept([linked(request_id="r1", raw='{"email":"billing@northgate.example"}')])
    settled(inbox, claimed(inbox))
    ((_, event),) = events.settled(client)
    assert event.record == BOX
    assert event.outcome == "latched"
    assert event.customer_ids == (8714402,)
    assert event.request_id == "r1"
    assert "northgate" not in str(client.xrange("sw:audit"))
    assert read_counters(client)["settled|latched"] == 1


def test_b6_9_a_dead_letter_keeps_changes_attempts_and_what_to_do(inbox, client):
    inbox.accept([linked(raw='{"a":1}')])
    claim = claimed(inbox)
    claim.attempts.append(Attempt(at=NOW, call="GET /v1/customers/1", status=409, error="no"))
    buried(inbox, claim)
    (letter,) = letters(client)
    assert (letter.reason, letter.state, letter.mailbox) == (Reason.CONFLICT, "open", BOX)
    assert letter.customer_ids == (8714402,)
    assert letter.next_step == "do this"
    assert letter.attempts == tuple(claim.attempts)
    assert [pending.change.raw for pending in letter.changes] == ['{"a":1}']


def test_b6_5_repeats_update_the_one_open_dead_letter(inbox, client):
    for n in range(3):
        inbox.accept([linked(occurred_at=NOW + n)])
        claim = claimed(inbox)
        claim.attempts.append(Attempt(at=NOW, call=str(n)))
        buried(inbox, claim)
    (letter,) = letters(client)
    assert len(letter.changes) == 3
    assert letter.first_failed_at <= letter.last_failed_at
    assert [attempt.call for attempt in letter.attempts] == ["0", "1", "2"]


def test_b6_5_other_reasons_and_records_have_their_own(inbox, client):
    inbox.accept([linked(), linked(COMPANY)])
    buried(inbox, claimed(inbox))
    buried(inbox, claimed(inbox, COMPANY.mailbox))
    inbox.accept([deleted()])
    buried(inbox, claimed(inbox), Reason.REJECTED)
    assert len(letters(client)) == 3
    assert read_status(client).dead_letters == {"conflict": 2, "rejected": 1}


def test_b6_10_a_claim_that_fails_for_another_reason_closes_the_older_letter(inbox, client):
    """A record has one claim. What other records and aspects owe stays."""
    inbox.accept([linked(), linked(COMPANY), deleted()])
    buried(inbox, claimed(inbox, COMPANY.mailbox))
    claim = claimed(inbox)
    for_each = [
        Burial(one.change.aspect, Reason.CONFLICT, "why", "do this", (one,))
        for one in claim.pending
    ]
    inbox.settle(claim, Settlement(burials=for_each))
    inbox.accept([linked(occurred_at=NOW + 1)])
    buried(inbox, claimed(inbox), Reason.REJECTED)
    assert read_status(client).dead_letters == {"conflict": 2, "rejected": 1}
    (closed,) = letters(client, "superseded")
    assert (closed.reason, closed.mailbox, closed.aspect) == (Reason.CONFLICT, BOX, Aspect.LINK)


@pytest.mark.parametrize("outcome", [Outcome.LATCHED, Outcome.UNLATCHED, Outcome.UNCHANGED])
def test_b6_10_a_newer_change_that_came_true_closes_the_older_dead_letter(inbox, client, outcome):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    inbox.accept([linked(occurred_at=NOW + 1)])
    settled(inbox, claimed(inbox), outcome)
    assert letters(client) == []
    assert [letter.state for letter in letters(client, "superseded")] == ["superseded"]
    assert read_status(client).dead_letters == {}


def test_b6_10_another_aspect_closes_nothing(inbox, client):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    inbox.accept([touched(occurred_at=NOW + 1)])
    settled(inbox, claimed(inbox), Outcome.UNCHANGED)
    assert len(letters(client)) == 1


def replayed(client: redis.Redis) -> replay.Replayed:
    return replay.run(
        client, replay.plan(letters(client)), wake=lambda _: None, sleep=lambda _: None
    )


def test_b6_11_a_replay_puts_the_changes_back_with_their_old_times(inbox, client):
    inbox.accept([linked(identity="a", occurred_at=None)])
    before = claimed(inbox)
    buried(inbox, before)
    done = replayed(client)
    assert (done.planned, done.replayed, done.skipped) == (1, 1, [])
    (again,) = claimed(inbox).pending
    assert (again.seq, again.received_at) == (before.pending[0].seq, before.pending[0].received_at)
    assert again.change.replay_id == done.replay_id
    assert [letter.state for letter in letters(client)] == ["replaying"]


def test_b6_11_a_replay_that_works_resolves_the_dead_letter(inbox, client):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    replayed(client)
    settled(inbox, claimed(inbox))
    assert letters(client) == []
    assert len(letters(client, "resolved")) == 1


def test_b6_11_a_replay_that_fails_again_reopens_the_same_one(inbox, client):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    replayed(client)
    buried(inbox, claimed(inbox))
    (letter,) = letters(client)
    assert (letter.id, letter.state, len(letter.changes)) == ("1", "open", 1)


def test_b6_11_a_replay_that_fails_for_another_reason_leaves_one_open(inbox, client):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    replayed(client)
    buried(inbox, claimed(inbox), Reason.REJECTED)
    (letter,) = letters(client)
    assert letter.reason == Reason.REJECTED


def test_b6_11_a_replay_overtaken_by_newer_news_is_closed(inbox, client):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    replayed(client)
    settled(inbox, claimed(inbox), Outcome.STALE)
    assert [letter.state for letter in letters(client, "superseded")] == ["superseded"]


def test_b6_11_replaying_twice_reports_the_skip(inbox, client):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    planned = replay.plan(letters(client))
    replayed(client)
    second = replay.run(client, planned, wake=lambda _: None, sleep=lambda _: None)
    assert second.replayed == 0
    assert [(skip.id, skip.why) for skip in second.skipped] == [("1", "it is replaying by now")]


def test_b6_11_every_replay_has_its_own_id_and_the_second_is_not_swallowed(inbox, client):
    inbox.accept([linked(identity="a")])
    buried(inbox, claimed(inbox))
    first = replayed(client)
    buried(inbox, claimed(inbox))
    second = replayed(client)
    assert second.replayed == 1
    assert first.replay_id != second.replay_id


def test_b6_11_the_pace_is_kept_and_progress_told(inbox, client):
    inbox.accept([linked(), linked(COMPANY)])
    buried(inbox, claimed(inbox))
    buried(inbox, claimed(inbox, COMPANY.mailbox))
    slept: list[float] = []
    told: list[int] = []
    woken: list[str] = []
    replay.run(
        client,
        replay.plan(letters(client)),
        wake=woken.extend,
        on_progress=told.append,
        per_second=4,
        sleep=slept.append,
    )
    assert slept == [0.25]
    assert told == [1, 2]
    assert sorted(woken) == sorted([BOX, COMPANY.mailbox])


def test_b6_11_a_replay_asked_for_twice_says_the_same_twice(inbox, client):
    """redis-py asks again when the answer was lost."""
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    script = scripts.load(client, "replay")
    (stored,) = client.hgetall("sw:dead:1:changes").items()
    asked = ["1", "replay-x", 0, *stored]
    assert script(args=asked) == script(args=asked) == ["open", BOX]
    assert script(args=["1", "replay-y", 0, *stored])[0] == "replaying"


def test_b6_11_a_replay_put_back_during_the_work_is_not_closed_by_it(inbox, client):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    inbox.accept([linked(occurred_at=NOW - 1)])
    claim = claimed(inbox)
    replayed(client)
    settled(inbox, claim, Outcome.STALE)
    assert [letter.state for letter in letters(client)] == ["replaying"]
    buried(inbox, claimed(inbox))
    assert [(letter.id, letter.state) for letter in letters(client)] == [("1", "open")]


def test_b6_5_a_letter_whose_older_change_ended_otherwise_stays_the_same_letter(inbox, client):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    inbox.accept([linked(occurred_at=NOW + 1)])
    buried(inbox, claimed(inbox))
    replayed(client)
    claim = claimed(inbox)
    old, new = claim.pending
    burial = Burial(Aspect.LINK, Reason.CONFLICT, "why", "do this", (new,))
    inbox.settle(claim, Settlement([Verdict(old, Outcome.SUPERSEDED)], [burial]))
    (letter,) = letters(client)
    assert (letter.id, letter.state, len(letter.changes)) == ("1", "open", 2)


def test_b6_10_what_is_settled_but_unmet_closes_no_dead_letter(inbox, client):
    inbox.accept([linked()])
    buried(inbox, claimed(inbox))
    inbox.accept([linked(occurred_at=NOW + 1)])
    claim = claimed(inbox)
    verdict = Verdict(claim.pending[0], Outcome.UNCHANGED, unmet=True)
    inbox.settle(claim, Settlement([verdict]))
    assert [letter.state for letter in letters(client)] == ["open"]


def test_b3_7_a_replay_still_knows_what_showed_the_change(inbox, client):
    """SOAP: what is replayed differs from the last value no more, the mark tells."""
    inbox.accept([linked(evidence=None)])
    claim = claimed(inbox)
    burial = Burial(Aspect.LINK, Reason.CONFLICT, "why", "do this", tuple(claim.pending))
    marks = Marks(claim="8714402", shown=True)
    inbox.settle(claim, Settlement(burials=[burial], marks={BOX: marks}))
    replayed(client)
    again = claimed(inbox)
    assert again.pending[0].change.evidence is None
    assert (again.marks.claim, again.marks.shown) == ("8714402", True)
    assert again.replayed_at >= again.pending[0].received_at


def test_b5_3_nothing_is_settled_while_an_unanswered_write_may_land(inbox, client):
    inbox.accept([linked(), linked(COMPANY)])
    claim = claimed(inbox)
    inbox.hold(claim, {5}, to_write=write())
    inbox.postpone(claim, seconds=0, failures=1, answer_lost=True)
    for record in (CONTACT, COMPANY):
        client.zadd("sw:due", {record.mailbox: 1})
        again = claimed(inbox, record.mailbox)
        inbox.hold(again, {5})
        with pytest.raises(Suspect) as caught:
            settled(inbox, again)
        assert 80 < caught.value.seconds <= 90
        inbox.postpone(again, seconds=0, failures=1)
    client.delete("sw:suspect:5")
    client.zadd("sw:due", {BOX: 1})
    again = claimed(inbox)
    inbox.hold(again, {5})
    assert settled(inbox, again) == 0


def test_b5_3_an_answered_write_leaves_no_suspicion_of_its_own(inbox, client):
    inbox.accept([linked()])
    claim = claimed(inbox)
    inbox.hold(claim, {5}, to_write=write())
    settled(inbox, claim)
    assert not client.exists("sw:suspect:5")


def test_b5_3_an_answered_write_does_not_clear_an_older_one(inbox, client):
    inbox.accept([linked()])
    claim = claimed(inbox)
    inbox.hold(claim, {5}, to_write=write())
    inbox.postpone(claim, seconds=0, failures=1, answer_lost=True)
    client.zadd("sw:due", {BOX: 1})
    again = claimed(inbox)
    inbox.hold(again, {5}, to_write=write())
    with pytest.raises(Suspect):
        settled(inbox, again)


def test_b5_3_a_vanished_workers_write_is_suspect(inbox, client):
    inbox.accept([linked()])
    inbox.hold(claimed(inbox), {5}, to_write=write())
    expire_lease(client, BOX)
    client.delete("sw:lease:5")
    again = claimed(inbox)
    inbox.hold(again, {5})
    with pytest.raises(Suspect):
        settled(inbox, again)


def test_b2_10_one_dead_letter_per_distinct_body(inbox, client):
    for raw in (b"\xff{", b"\xff{", b"other"):
        inbox.accept([], undecoded=[Undecoded(Source.HUBSPOT, raw.hex(), raw, "not JSON")])
    found = letters(client)
    assert sorted(letter.raw or b"" for letter in found) == [b"other", b"\xff{"]
    assert {client.hlen(f"sw:dead:{letter.id}:changes") for letter in found} == {1}
    assert {letter.reason for letter in found} == {Reason.UNDECODABLE}
    planned = replay.plan(found)
    assert not planned.letters
    assert len(planned.skips) == 2


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(reason="conflict"), ["1"]),
        (Filter(source="hubspot"), ["1", "2"]),
        (Filter(source="geotab"), []),
        (Filter(record=BOX), ["1"]),
        (Filter(record=COMPANY.id), ["2"]),
        (Filter(customer=8714402), ["1", "2"]),
        (Filter(customer=1), []),
        (Filter(ids=frozenset({"2"})), ["2"]),
        (Filter(since=10**15), []),
        (Filter(until=10**15), ["1", "2"]),
    ],
)
def test_b6_11_dead_letters_are_found_by_every_filter(inbox, client, wanted, found):
    inbox.accept([linked(), linked(COMPANY)])
    buried(inbox, claimed(inbox))
    buried(inbox, claimed(inbox, COMPANY.mailbox), Reason.REJECTED)
    assert [letter.id for letter in dead_letters.find(client, wanted)] == found


def test_b3_10_what_events_cannot_tell_is_owed_since_the_first_time(inbox, client):
    inbox.accept([], reconcile={Source.SALESFORCE: "GAP_OVERFLOW"})
    (owed,) = read_status(client).reconcile_owed
    inbox.accept([], reconcile={Source.SALESFORCE: "wildcard"})
    assert read_status(client).reconcile_owed == [owed]
    assert (owed.source, owed.why) == ("salesforce", "GAP_OVERFLOW")


def test_b10_5_a_newer_format_is_left_to_a_newer_worker(inbox, client):
    inbox.accept([linked()])
    (seq,) = client.hkeys(f"sw:box:{BOX}")
    client.hset(f"sw:box:{BOX}", seq, f"{NOW}|2:something else")
    assert inbox.claim(BOX) is None
    assert client.hlen(f"sw:box:{BOX}") == 1
    assert client.zscore("sw:due", BOX) > 1
    assert not client.hget(f"sw:work:{BOX}", "token")


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        (f"sw:mark:{BOX}", "link", "not a number"),
        (f"sw:work:{BOX}", "attempts", "{broken"),
        (f"sw:box:{BOX}", "1", "not even a time"),
        (f"sw:box:{BOX}", "1", f"{NOW}|1:{{broken"),
    ],
)
def test_b10_5_what_cannot_be_read_is_left_and_its_lease_given_back(
    inbox, client, key, field, value
):
    inbox.accept([linked()])
    client.hset(key, field, value)
    assert inbox.claim(BOX) is None
    assert not client.hget(f"sw:work:{BOX}", "token")
    assert client.hlen(f"sw:box:{BOX}") == 1


def test_b10_5_marks_of_a_newer_version_are_no_obstacle(inbox, client):
    inbox.accept([linked()])
    client.hset(f"sw:mark:{BOX}", "something new", "x")
    assert claimed(inbox).marks == Marks()


@pytest.fixture
def small_redis(tmp_path) -> Iterator[redis.Redis]:
    with EmbeddedRedis(tmp_path, maxmemory="16mb") as server:
        connection = store.connect(server.url)
        yield connection
        connection.close()


def filled(connection: redis.Redis, share: float) -> None:
    """Take up that share of the memory; above 1, as much as the server lets in."""
    memory = connection.info("memory")
    for n in range(100_000):
        if connection.info("memory")["used_memory"] > share * memory["maxmemory"]:
            return
        try:
            connection.set(f"ballast:{n}", "x" * 50_000)
        except redis.exceptions.OutOfMemoryError:
            return


def test_b6_12_room_is_taken_on_trust_for_no_longer_than_it_lasts(tmp_path):
    """To look costs much, so it is not done again while what was free cannot be filled."""

    def trusted() -> int:
        stats = connection.info("commandstats")
        return stats.get("cmdstat_set", {"calls": 0})["calls"]

    with EmbeddedRedis(tmp_path, maxmemory="400mb") as server:
        connection = store.connect(server.url)
        inbox = Inbox(connection, dedupe_hours=72, audit_days=30, lease_seconds=90)
        inbox.accept([linked()])
        assert trusted() == 1
        assert connection.pttl("sw:room") <= 10
        # Nearly full: each request looks.
        connection.delete("sw:room")
        connection.config_set("maxmemory", int(connection.info("memory")["used_memory"] / 0.8))
        inbox.accept([linked()])
        inbox.accept([linked()])
        assert trusted() == 1
        connection.close()


def test_b6_12_accepting_stops_at_90_percent_and_draining_works_at_100(small_redis):
    inbox = Inbox(small_redis, dedupe_hours=72, audit_days=30, lease_seconds=90)
    inbox.accept([linked(), linked(COMPANY)])
    filled(small_redis, 0.91)
    with pytest.raises(store.StoreError, match="full"):
        inbox.accept([touched()])
    with pytest.raises(store.StoreError, match="full"):
        inbox.check_writable()
    filled(small_redis, 2)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        small_redis.set("one more", "x" * 50_000)
    first, second = claimed(inbox), claimed(inbox, COMPANY.mailbox)
    inbox.hold(first, {1})
    inbox.postpone(first, seconds=0, failures=1)
    settled(inbox, claimed(inbox))
    buried(inbox, second)
    assert small_redis.zcard("sw:due") == 0


def test_a_read_only_replica_is_told_from_an_outage(client):
    inbox = Inbox(client, dedupe_hours=72, audit_days=30, lease_seconds=90)
    client.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(store.StoreError, match="read-only"):
            inbox.accept([linked()])
        with pytest.raises(store.StoreError, match="read-only"):
            inbox.check_writable()
    finally:
        client.replicaof("NO", "ONE")


def test_b10_1_an_unsafe_store_is_refused(client):
    assert store.unsafe_points(client) == []
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("appendonly", "no")
    try:
        with pytest.raises(store.UnsafeStoreError, match="noeviction") as caught:
            store.require_safe(client, allow_unsafe=False)
        assert "AOF" in str(caught.value)
        assert len(store.require_safe(client, allow_unsafe=True)) == 2
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("appendonly", "yes")


def test_stored_changes_read_back_as_they_were(inbox):
    odd = linked(
        msgspec.structs.replace(CONTACT, id="a:b|c é \u2028 \x00"),
        raw='{"x":"\u2028|:"}',
        merged_ids=("1",),
        evidence=None,
    )
    inbox.accept([odd])
    (one,) = claimed(inbox, odd.record.mailbox).pending
    assert isinstance(one, Pending)
    assert one.change == odd


def test_b6_7_what_was_named_and_not_woken_after_all_is_named_again_at_once(inbox, client):
    inbox.accept([linked(), linked(COMPANY)])
    for mailbox in (BOX, COMPANY.mailbox):
        client.zadd("sw:wake", {mailbox: 1})
    named = inbox.wake(10)[0]
    assert inbox.wake(10)[0] == []
    settled(inbox, claimed(inbox))
    inbox.leave(named)
    assert inbox.wake(10)[0] == [COMPANY.mailbox]  # the other owes nothing any more
    inbox.leave([])
