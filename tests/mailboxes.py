"""What tests of the steps on mailboxes share: a worker's steps in a word each."""

from __future__ import annotations

from typing import Any

import redis

from sync_worker import dead_letters
from sync_worker.dead_letters import DeadLetter, Filter
from sync_worker.decide import remember
from sync_worker.domain import Marks, Outcome, Reason
from sync_worker.inbox import Burial, Claim, Inbox, Intent, Settlement, Verdict
from tests.changes import CONTACT

BOX = CONTACT.mailbox


def claimed(inbox: Inbox, mailbox: str = BOX) -> Claim:
    claim = inbox.claim(mailbox)
    assert claim is not None
    return claim


def settled(inbox: Inbox, claim: Claim, outcome: Outcome = Outcome.LATCHED) -> int:
    verdicts = [Verdict(pending, outcome, "", (8714402,)) for pending in claim.pending]
    return inbox.settle(claim, Settlement(verdicts, marks=moved_marks(claim, *verdicts)))


def moved_marks(claim: Claim, *verdicts: Verdict) -> dict[str, Marks]:
    """What is remembered after these."""
    told = [remember.Settled(one.pending, one.outcome, one.unmet) for one in verdicts]
    return {claim.mailbox: remember.settled(claim.marks, told)}


def buried(inbox: Inbox, claim: Claim, reason: Reason = Reason.CONFLICT) -> None:
    burial = Burial(
        claim.pending[-1].change.aspect,
        reason,
        "why",
        "do this",
        tuple(claim.pending),
        (8714402,),
        attempts=tuple(claim.attempts),
    )
    told = [Verdict(pending, Outcome.DEAD_LETTER) for pending in claim.pending]
    inbox.settle(claim, Settlement(burials=[burial], marks=moved_marks(claim, *told)))


def write(customer: int = 5, **more: Any) -> Intent:
    """A write to a customer that comes next."""
    return Intent(customer, f"{BOX}#1", more.pop("slots", {}), **more)


def letters(client: redis.Redis, *states: str) -> list[DeadLetter]:
    wanted = Filter(states=frozenset(states)) if states else Filter()
    return list(dead_letters.find(client, wanted))


def expire_lease(client: redis.Redis, mailbox: str) -> None:
    """What the end of a lease looks like, without waiting for it."""
    client.hset(f"sw:work:{mailbox}", "until", 1)
    client.zadd("sw:due", {mailbox: 1})
    client.zadd("sw:wake", {mailbox: 1})
