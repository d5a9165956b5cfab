"""What follows when a convergence could not finish (B6.1, B6.2, B6.5).

Waiting is never done here or in Celery: a mailbox goes back to the due set for a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from sync_worker.domain import Reason

JITTER = 0.2
"""Each wait is changed by up to this share, so that a burst does not come back as one (B6.1)."""

UNKNOWN_RESET_SECONDS = 60.0
"""The wait after a 429 whose headers name no reset: a minute's limit has passed by then (B6.2)."""

LONGEST_RESET_SECONDS = 3600.0
"""The format of the reset is not documented: one misread by time zones must not park a change for a
day, and asking once an hour costs little where it is the day's limit (B6.2)."""

RELAYED_NOT_FOUND_STEPS = 3
"""Steps for a `not found` of HubSpot or Salesforce: the record may be seconds old (B6.1)."""


class Trouble(Enum):
    """What stood in the way."""

    TRANSIENT = "transient"
    RELAYED_NOT_FOUND = "relayed_not_found"
    MISSING_CUSTOMER = "missing_customer"
    GONE_CUSTOMER = "gone_customer"
    """It was there before."""
    RATE_LIMITED = "rate_limited"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again after `seconds`, with `failures` steps of the schedule used up."""

    seconds: float
    failures: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It needs a person."""

    reason: Reason
    next_step: str


_NEXT_STEP = {
    Reason.RETRIES_EXHAUSTED: "Mend what the last attempt complains of, then replay this.",
    Reason.REJECTED: "Correct what Fusebill complains of, then replay this.",
    Reason.CUSTOMER_NOT_FOUND: "Create that customer in Fusebill and replay this, "
    "or correct the link field on the record.",
}


def after(
    trouble: Trouble,
    *,
    failures: int,
    schedule: Sequence[int],
    not_found_steps: int,
    jitter: float,
    reset_seconds: float | None = None,
) -> Wait | GiveUp:
    """Decide after a try that failed, with `failures` steps of the schedule used up before it.

    `jitter` is a random number from -1 to 1; `reset_seconds` is how far off the rate limit's
    reset is, if the answer named it.
    """
    if trouble is Trouble.RATE_LIMITED:
        wait = UNKNOWN_RESET_SECONDS if reset_seconds is None else reset_seconds
        return Wait(min(max(wait, 1.0), LONGEST_RESET_SECONDS), failures)
    steps, reason = {
        Trouble.TRANSIENT: (len(schedule), Reason.RETRIES_EXHAUSTED),
        Trouble.RELAYED_NOT_FOUND: (RELAYED_NOT_FOUND_STEPS, Reason.REJECTED),
        Trouble.MISSING_CUSTOMER: (not_found_steps, Reason.CUSTOMER_NOT_FOUND),
        Trouble.GONE_CUSTOMER: (0, Reason.CUSTOMER_NOT_FOUND),
        Trouble.REJECTED: (0, Reason.REJECTED),
    }[trouble]
    if failures >= min(steps, len(schedule)):
        return GiveUp(reason, _NEXT_STEP[reason])
    return Wait(schedule[failures] * (1 + JITTER * jitter), failures + 1)
