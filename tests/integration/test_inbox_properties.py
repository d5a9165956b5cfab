"""Whatever happens to mailboxes, in whatever order: nothing is lost and nobody is stuck.

Workers vanish between any two steps, changes arrive during the work, dead letters are replayed at
any moment, and some steps are asked for after their lease is gone.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from sync_worker import dead_letters, replay
from sync_worker.dead_letters import Filter
from sync_worker.domain import Outcome, Reason
from sync_worker.inbox import Burial, Claim, Inbox, LeaseLost, Settlement, Suspect, Verdict
from tests.changes import COMPANY, CONTACT, NOW, linked, touched, unlinked

RECORDS = (CONTACT, COMPANY)
CUSTOMERS = st.sets(st.sampled_from([1, 2]), max_size=2)
REASONS = st.sampled_from([Reason.CONFLICT, Reason.REJECTED])
ENDINGS = st.sampled_from([one for one in Outcome if one is not Outcome.DEAD_LETTER])
ALL_STATES = frozenset({"open", "replaying", "superseded", "resolved"})


class Mailboxes(RuleBasedStateMachine):
    """Random steps on two mailboxes that share customers."""

    client: ClassVar[redis.Redis]

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.inbox = Inbox(self.client, dedupe_hours=0, audit_days=30, lease_seconds=90)
        self.claims: list[Claim] = []
        self.accepted = 0

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
        self.with_claim(
            data,
            lambda claim: self.inbox.hold(
                claim, customers, to_write=min(customers) if write and customers else None
            ),
        )

    @rule(data=st.data(), ending=ENDINGS, unmet=st.booleans())
    def settle(self, data, ending, unmet):
        self.with_claim(
            data,
            lambda claim: self.inbox.settle(
                claim,
                Settlement([Verdict(one, ending, unmet=unmet) for one in claim.pending]),
            ),
        )

    @rule(data=st.data(), reason=REASONS, older=ENDINGS)
    def bury_the_newest(self, data, reason, older):
        def step(claim: Claim) -> None:
            *rest, newest = claim.pending
            burial = Burial(newest.change.aspect, reason, "why", "what to do", (newest,))
            verdicts = [Verdict(one, older) for one in rest]
            self.inbox.settle(claim, Settlement(verdicts, [burial]))

        self.with_claim(data, step)

    @rule(data=st.data(), seconds=st.sampled_from([0, 60]), lost=st.booleans())
    def postpone(self, data, seconds, lost):
        self.with_claim(
            data,
            lambda claim: self.inbox.postpone(
                claim, seconds=seconds, failures=claim.failures + 1, answer_lost=lost
            ),
        )

    @rule(record=st.sampled_from(RECORDS))
    def time_passes(self, record):
        """Leases, back-off and suspicion run out."""
        for key in self.client.keys("sw:suspect:*") + self.client.keys("sw:lease:*"):
            self.client.delete(key)
        if self.client.zscore("sw:due", record.mailbox) is not None:
            self.client.zadd("sw:due", {record.mailbox: 1})
            if self.client.exists(f"sw:work:{record.mailbox}"):
                self.client.hset(f"sw:work:{record.mailbox}", "until", 1)

    @rule()
    def replay(self):
        letters = dead_letters.find(self.client, Filter())
        replay.run(self.client, replay.plan(letters), wake=lambda _: None, sleep=lambda _: None)

    def with_claim(self, data, step):
        """Take a step with any claim there ever was; one that is gone must not get through."""
        if not self.claims:
            return
        claim = data.draw(st.sampled_from(self.claims[-3:]))
        held = self.client.hget(f"sw:work:{claim.mailbox}", "token") == claim.token
        try:
            step(claim)
        except LeaseLost:
            assert not held
        except Suspect:
            assert held
        else:
            assert held

    def box(self, mailbox: str) -> set[str]:
        return set(self.client.hkeys(f"sw:box:{mailbox}"))

    @invariant()
    def every_change_waits_or_was_settled(self):
        waiting = {seq for record in RECORDS for seq in self.box(record.mailbox)}
        outcomes = {
            fields["seq"]: fields["outcome"] for _, fields in self.client.xrange("sw:audit")
        }
        kept = {
            str(one.seq)
            for letter in dead_letters.find(self.client, Filter(states=ALL_STATES))
            for one in letter.changes
        }
        assert waiting | set(outcomes) == {str(n) for n in range(1, self.accepted + 1)}
        buried = {seq for seq, outcome in outcomes.items() if outcome == Outcome.DEAD_LETTER}
        assert buried <= kept

    @invariant()
    def what_is_owed_is_due(self):
        due = set(self.client.zrange("sw:due", 0, -1))
        wake = set(self.client.zrange("sw:wake", 0, -1))
        owing = {record.mailbox for record in RECORDS if self.box(record.mailbox)}
        assert due == wake == owing

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


@pytest.mark.timeout(300)
def test_nothing_is_lost_and_nobody_is_stuck(client):
    Mailboxes.client = client
    run_state_machine_as_test(
        Mailboxes,
        settings=settings(
            max_examples=150,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
