"""What follows a failure (B6.1, B6.2, B6.4, B6.5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.retry import GiveUp, Trouble, Wait, after
from sync_worker.domain import Reason

SCHEDULE = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800)


def decided(trouble: Trouble, failures: int = 0, **more: float | None) -> Wait | GiveUp:
    return after(
        trouble,
        failures=failures,
        schedule=SCHEDULE,
        not_found_steps=5,
        **{"jitter": 0.0, **more},  # type: ignore[arg-type]
    )


def test_b6_1_transient_trouble_walks_the_schedule_and_ends():
    waits = [decided(Trouble.TRANSIENT, failures) for failures in range(len(SCHEDULE))]
    assert waits == [Wait(step, failures) for failures, step in enumerate(SCHEDULE, start=1)]
    ended = decided(Trouble.TRANSIENT, len(SCHEDULE))
    assert isinstance(ended, GiveUp)
    assert ended.reason is Reason.RETRIES_EXHAUSTED


@pytest.mark.parametrize(
    ("trouble", "steps", "reason"),
    [
        (Trouble.RELAYED_NOT_FOUND, 3, Reason.REJECTED),
        (Trouble.MISSING_CUSTOMER, 5, Reason.CUSTOMER_NOT_FOUND),
        (Trouble.GONE_CUSTOMER, 0, Reason.CUSTOMER_NOT_FOUND),
        (Trouble.REJECTED, 0, Reason.REJECTED),
    ],
)
def test_what_is_given_up_earlier(trouble, steps, reason):
    """B6.1 for a relayed `not found`, B4.4 for an unknown customer, B6.5 for the rest."""
    for failures in range(steps):
        assert decided(trouble, failures) == Wait(SCHEDULE[failures], failures + 1)
    ended = decided(trouble, steps)
    assert isinstance(ended, GiveUp)
    assert ended.reason is reason
    assert ended.next_step


@given(failures=st.integers(0, 100))
def test_b6_2_waiting_for_the_account_uses_up_no_attempt(failures):
    decision = decided(Trouble.RATE_LIMITED, failures)
    assert isinstance(decision, Wait)
    assert decision.failures == failures


@pytest.mark.parametrize(
    ("reset", "waits"), [(17.0, 17.0), (None, 60.0), (-3.0, 1.0), (10.0**9, 3600.0), (0.0, 1.0)]
)
def test_b6_2_a_rate_limit_waits_for_its_reset(reset, waits):
    assert decided(Trouble.RATE_LIMITED, reset_seconds=reset) == Wait(waits, 0)


@given(st.floats(-1, 1), st.integers(0, 8))
def test_b6_1_each_wait_is_spread_by_a_fifth(jitter, failures):
    decision = decided(Trouble.TRANSIENT, failures, jitter=jitter)
    assert isinstance(decision, Wait)
    assert 0.799 * SCHEDULE[failures] <= decision.seconds <= 1.201 * SCHEDULE[failures]


CREATE_IT = (
    "Create that customer in Fusebill and replay this, or correct the link field on the record."
)


@pytest.mark.parametrize(
    ("trouble", "next_step"),
    [
        (Trouble.TRANSIENT, "Mend what the last attempt complains of, then replay this."),
        (Trouble.REJECTED, "Correct what Fusebill complains of, then replay this."),
        (Trouble.RELAYED_NOT_FOUND, "Correct what Fusebill complains of, then replay this."),
        (
            Trouble.GONE_CUSTOMER,
            CREATE_IT,
        ),
    ],
)
def test_b6_9_what_is_given_up_says_what_to_do_next(trouble, next_step):
    ended = decided(trouble, 99)
    assert isinstance(ended, GiveUp)
    assert ended.next_step == next_step


@pytest.mark.parametrize(("jitter", "seconds"), [(-1.0, 24.0), (1.0, 36.0)])
def test_b6_1_a_step_is_spread_both_ways(jitter, seconds):
    assert decided(Trouble.TRANSIENT, 1, jitter=jitter) == Wait(pytest.approx(seconds), 2)


def test_b6_1_no_schedule_is_walked_beyond_its_end():
    """A short one ends before the steps that a missing customer is given."""
    short = {"schedule": (5, 30), "not_found_steps": 5, "jitter": 0.0}
    assert after(Trouble.MISSING_CUSTOMER, failures=1, **short) == Wait(30, 2)
    ended = after(Trouble.MISSING_CUSTOMER, failures=2, **short)
    assert isinstance(ended, GiveUp)
    assert ended.reason is Reason.CUSTOMER_NOT_FOUND
