"""Whatever happens to mailboxes, in whatever order: nothing is lost and nobody is stuck.

Workers vanish between any two steps, changes arrive during the work, mailboxes are joined to one
another, dead letters and dry runs are replayed at any moment, releases are held by the brake and
ruled on, slots become free, and some steps are asked for after their lease is gone.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from sync_worker import dead_letters, releases, replay
from sync_worker.dead_letters import Filter
from sync_worker.domain import IN_DRY_RUN, Outcome, Pending, Reason
from sync_worker.inbox import Burial, Claim, Inbox, Intent, LeaseLost, Settlement, Suspect, Verdict
from sync_worker.links import LinkIndex
from tests.changes import COMPANY, CONTACT, GEOTAB, NOW, customer, linked, touched, unlinked

RECORDS = (CONTACT, COMPANY, GEOTAB)
CUSTOMERS = st.sets(st.sampled_from([1, 2]), max_size=2)
REASONS = st.sampled_from([Reason.CONFLICT, Reason.REJECTED])
ENDINGS = st.sampled_from([one for one in Outcome if one is not Outcome.DEAD_LETTER])
ALL_STATES = frozenset({"open", "replaying", "superseded", "resolved"})


class Mailboxes(RuleBasedStateMachine):
    """Random steps on three mailboxes that share customers."""

    client: ClassVar[redis.Redis]

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.inbox = Inbox(self.client, dedupe_hours=0, audit_days=30, lease_seconds=90)
        self.links = LinkIndex(self.client, base_url="https://fusebill.example")
        self.claims: list[Claim] = []
        self.accepted = 0
        self.seen_at = 0
        self.overtaken: set[str] = set()

    @rule(
        record=st.sampled_from(RECORDS),
        make=st.sampled_from([linked, unlinked, touched]),
        at=st.integers(NOW - 2, NOW + 2),
    )
    def accept(self, record, make, at):
        self.accepted += self.inbox.accept([make(record, occurred_at=at)]).accepted

    @rule(record=st.sampled_from(RECORDS))
    def claim(self, record):
        claim = self.inbox.claim(record.mailbox)
        if claim:
            self.claims.append(claim)

    @rule(record=st.sampled_from(RECORDS), reason=REASONS, make=st.sampled_from([linked, unlinked]))
    def come_to_nothing(self, record, reason, make):
        """A change that ends as a dead letter, the next one in work: rare by chance."""
        self.inbox.accept([make(record)])
        self.accepted += 1
        claim = self.inbox.claim(record.mailbox)
        if claim is None:
            return
        *rest, newest = claim.pending
        burial = Burial(newest.change.aspect, reason, "why", "what to do", (newest,))
        older = [Verdict(one, Outcome.SUPERSEDED) for one in rest]
        self.inbox.settle(claim, Settlement(older, [burial]))
        self.accept(record=record, make=make, at=NOW)
        self.claim(record=record)

    @rule(data=st.data(), customers=CUSTOMERS, write=st.booleans())
    def hold(self, data, customers, write):
        intent = Intent(min(customers), "box#1", {}) if write and customers else None
        self.with_claim(data, lambda claim: self.inbox.hold(claim, customers, to_write=intent))

    @rule(data=st.data(), records=st.sets(st.sampled_from(RECORDS), min_size=1))
    def join(self, data, records):
        def step(claim: Claim) -> None:
            more = [one.mailbox for one in records if one.mailbox not in claim.mailboxes]
            if more:
                self.inbox.join(claim, more)
            elif self.token(claim.mailbox) != claim.token:
                raise LeaseLost  # it asks the store for nothing

        self.with_claim(data, step, needs_all=False)

    @rule(data=st.data(), limit=st.integers(0, 2), more=st.integers(1, 2))
    def brake(self, data, limit, more):
        """What is allowed goes on; what is held goes back, as a worker has it."""

        def step(claim: Claim) -> None:
            wanted = [(n, claim.mailbox) for n in range(more)]
            if not self.inbox.brake(claim, wanted, limit=limit):
                self.inbox.postpone(claim, seconds=3600, failures=claim.failures)

        self.with_claim(data, step, needs_all=False)

    @rule(ruling=st.sampled_from(["approved", "discarded"]))
    def rule_on_releases(self, ruling):
        for held in releases.held(self.client):
            assert releases.rule(self.client, held, ruling)

    @rule(who=st.sampled_from([1, 2]), taken=st.booleans())
    def see_customer(self, who, taken):
        """An answer of Fusebill that shows its slots taken or free: conflicts are put back."""
        self.seen_at += 1
        slots = {record.slot: "999" for record in RECORDS} if taken else {}
        self.links.observe(customer(who, **slots), sent_at=self.seen_at)

    @rule(
        data=st.data(),
        ending=ENDINGS,
        unmet=st.booleans(),
        all_of_them=st.booleans(),
        dry_run=st.booleans(),
    )
    def settle(self, data, ending, unmet, all_of_them, dry_run):
        def step(claim: Claim) -> None:
            these = held_by(claim) if all_of_them else claim.pending
            verdicts = [Verdict(one, ending, unmet=unmet) for one in these]
            dry = dry_run or ending in IN_DRY_RUN.values()
            before = set(self.client.hkeys("sw:would"))
            self.inbox.settle(claim, Settlement(verdicts, dry_run=dry))
            self.overtaken |= before - set(self.client.hkeys("sw:would")) if dry_run else set()

        self.with_claim(data, step)

    @rule(data=st.data(), later=st.sampled_from([0, 60]))
    def settle_all_but_the_newest(self, data, later):
        """It waits for what may explain it."""

        def step(claim: Claim) -> None:
            done = [Verdict(one, Outcome.UNCHANGED) for one in claim.pending[:-1]]
            self.inbox.settle(claim, Settlement(done, later=later))

        self.with_claim(data, step)

    @rule(data=st.data(), reason=REASONS, older=ENDINGS, blocked_by=CUSTOMERS)
    def bury_the_newest(self, data, reason, older, blocked_by):
        def step(claim: Claim) -> None:
            *rest, newest = claim.pending
            verdicts = [Verdict(one, older) for one in rest]
            burial = Burial(
                newest.change.aspect, reason, "why", "what to do", (newest,), tuple(blocked_by)
            )
            self.inbox.settle(claim, Settlement(verdicts, [burial]))

        self.with_claim(data, step)

    @rule(data=st.data(), seconds=st.sampled_from([0, 60]), lost=st.booleans())
    def postpone(self, data, seconds, lost):
        self.with_claim(
            data,
            lambda claim: self.inbox.postpone(
                claim, seconds=seconds, failures=claim.failures + 1, answer_lost=lost
            ),
            needs_all=False,
        )

    @rule(record=st.sampled_from(RECORDS))
    def time_passes(self, record):
        """Leases, back-off, suspicion and turns run out."""
        for pattern in ("sw:suspect:*", "sw:lease:*", "sw:alone"):
            for key in self.client.keys(pattern):
                self.client.delete(key)
        if self.client.zscore("sw:due", record.mailbox) is not None:
            self.client.zadd("sw:due", {record.mailbox: 1})
            if self.client.exists(f"sw:work:{record.mailbox}"):
                self.client.hset(f"sw:work:{record.mailbox}", "until", 1)

    @rule()
    def replay(self):
        letters = dead_letters.find(self.client, Filter())
        replay.run(self.client, replay.plan(letters), wake=lambda _: None, sleep=lambda _: None)

    @rule()
    def apply_what_dry_runs_kept(self):
        planned = replay.plan_dry_run(self.client, replay.KeptFilter())
        replay.run(self.client, planned, wake=lambda _: None, sleep=lambda _: None)

    def with_claim(self, data, step, *, needs_all=True):
        """Take a step with any claim there ever was; one that is gone must not get through, and
        where the step concerns them, nor one that has lost a mailbox it joined.
        """
        if not self.claims:
            return
        claim = data.draw(st.sampled_from(self.claims[-4:]))
        held = self.holds(claim) if needs_all else self.token(claim.mailbox) == claim.token
        try:
            step(claim)
        except LeaseLost:
            assert not held
        except Suspect:
            assert held
        else:
            assert held

    def token(self, mailbox: str) -> str | None:
        return self.client.hget(f"sw:work:{mailbox}", "token")

    def holds(self, claim: Claim) -> bool:
        """Whether a claim still has all its mailboxes."""
        return all(self.token(mailbox) == claim.token for mailbox in claim.mailboxes)

    def box(self, mailbox: str) -> set[str]:
        return set(self.client.hkeys(f"sw:box:{mailbox}"))

    @invariant()
    def every_change_waits_or_was_settled(self):
        waiting = {seq for record in RECORDS for seq in self.box(record.mailbox)}
        would = set(self.client.hkeys("sw:would"))
        outcomes = {
            fields["seq"]: fields["outcome"] for _, fields in self.client.xrange("sw:audit")
        }
        kept = {
            str(one.seq)
            for letter in dead_letters.find(self.client, Filter(states=ALL_STATES))
            for one in letter.changes
        }
        assert waiting | set(outcomes) == {str(n) for n in range(1, self.accepted + 1)}
        assert not waiting & would
        in_dry_run = {seq for seq, outcome in outcomes.items() if outcome.startswith("would_")}
        assert in_dry_run <= would | waiting | self.overtaken
        buried = {seq for seq, outcome in outcomes.items() if outcome == Outcome.DEAD_LETTER}
        assert buried <= kept

    @invariant()
    def what_is_owed_is_due(self):
        due = set(self.client.zrange("sw:due", 0, -1))
        lanes = [self.client.zrange(lane, 0, -1) for lane in ("sw:wake", "sw:wake:replay")]
        wake = {mailbox for lane in lanes for mailbox in lane}
        assert sum(map(len, lanes)) == len(wake)
        owing = {record.mailbox for record in RECORDS if self.box(record.mailbox)}
        assert due == wake
        assert owing <= due
        # An empty mailbox is only due while somebody holds it, or until its lease is found to end.
        assert all(self.token(mailbox) for mailbox in due - owing)

    @invariant()
    def what_is_held_waits_to_be_ruled_on(self):
        for held in releases.held(self.client):
            assert self.box(held.mailbox)
            assert self.client.hget(f"sw:work:{held.mailbox}", "brake").startswith("held ")

    @invariant()
    def dead_letters_add_up(self):
        letters = list(dead_letters.find(self.client, Filter(states=ALL_STATES)))
        waiting = [letter for letter in letters if letter.state in ("open", "replaying")]
        assert set(self.client.zrange("sw:dead:waiting", 0, -1)) == {one.id for one in waiting}
        assert set(self.client.hvals("sw:dead:open")) == {one.id for one in waiting}
        keys = [(one.mailbox, one.aspect, one.reason) for one in waiting]
        assert len(keys) == len(set(keys))
        boxes = {seq for record in RECORDS for seq in self.box(record.mailbox)}
        in_any, in_waiting = (
            {str(each.seq) for one in these for each in one.changes} for these in (letters, waiting)
        )
        assert boxes & in_any <= in_waiting  # what is put back is watched until it is settled
        for one in waiting:
            if one.state == "replaying":  # something of it is still to be settled
                assert {str(each.seq) for each in one.changes} & self.box(one.mailbox)


def held_by(claim: Claim) -> list[Pending]:
    """The changes of all its mailboxes."""
    return [*claim.pending, *(one for joined in claim.joined.values() for one in joined.pending)]


@pytest.mark.timeout(300)
def test_nothing_is_lost_and_nobody_is_stuck(client):
    Mailboxes.client = client
    run_state_machine_as_test(
        Mailboxes,
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
