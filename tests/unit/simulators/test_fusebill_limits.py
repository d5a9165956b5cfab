"""The rate limit: what it lets through, and what its headers say."""

from __future__ import annotations

import pytest

from simulators.fusebill.limits import RateLimiter
from simulators.fusebill.options import Options

MINUTE_START = 1_795_000_020
"""A whole minute of the clock."""


class Clock:
    def __init__(self, seconds: float = MINUTE_START) -> None:
        self.seconds = seconds

    def __call__(self) -> int:
        return int(self.seconds * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_fixed_minute_lets_its_number_through_and_starts_anew_with_the_clock(clock):
    limiter, options = RateLimiter(clock), Options(minute_limit=2)
    clock.seconds += 59
    assert [limiter.take(options) for _ in range(3)] == [None, None, "Minute"]
    clock.seconds += 1
    assert [limiter.take(options) for _ in range(3)] == [None, None, "Minute"]


def test_a_sliding_minute_counts_the_time_just_gone(clock):
    limiter, options = RateLimiter(clock), Options(minute_limit=2, limit_window="sliding")
    assert limiter.take(options) is None
    clock.seconds += 59
    assert limiter.take(options) is None
    assert limiter.take(options) == "Minute"
    assert limiter.headers(options)["X-Rate-Limit-Reset-Minute"] == str(MINUTE_START + 60)
    clock.seconds += 1
    assert limiter.take(options) is None
    assert limiter.take(options) == "Minute"


def test_the_day_runs_out_on_its_own(clock):
    limiter, options = RateLimiter(clock), Options(day_limit=1)
    assert limiter.take(options) is None
    clock.seconds += 3_600
    assert limiter.take(options) == "Day"
    headers = limiter.headers(options)
    assert headers["X-Rate-Limit-Remaining-Day"] == "0"
    assert headers["X-Rate-Limit-Remaining-Minute"] == "1000"


def test_the_headers_count_down_and_name_the_next_reset(clock):
    limiter, options = RateLimiter(clock), Options(minute_limit=50, day_limit=5_000)
    clock.seconds += 20.5
    limiter.take(options)
    assert limiter.headers(options) == {
        "X-Rate-Limit-Limit-Minute": "50",
        "X-Rate-Limit-Remaining-Minute": "49",
        "X-Rate-Limit-Reset-Minute": str(MINUTE_START + 60),
        "X-Rate-Limit-Limit-Day": "5000",
        "X-Rate-Limit-Remaining-Day": "4999",
        "X-Rate-Limit-Reset-Day": "1795046400",
    }
    iso = Options(reset_header="iso")
    assert limiter.headers(iso)["X-Rate-Limit-Reset-Minute"] == "2026-11-18T11:08:00Z"


def test_a_reset_within_a_second_is_named_by_its_end(clock):
    limiter, options = RateLimiter(clock), Options(minute_limit=1, limit_window="sliding")
    clock.seconds += 0.25
    limiter.take(options)
    assert limiter.headers(options)["X-Rate-Limit-Reset-Minute"] == str(MINUTE_START + 61)


def test_without_a_limit_nothing_is_refused_and_the_headers_never_run_low(clock):
    limiter, options = RateLimiter(clock), Options(minute_limit=None, day_limit=None)
    assert {limiter.take(options) for _ in range(2_000)} == {None}
    headers = limiter.headers(options)
    assert headers["X-Rate-Limit-Remaining-Minute"] == headers["X-Rate-Limit-Limit-Minute"]
    assert headers["X-Rate-Limit-Remaining-Day"] == headers["X-Rate-Limit-Limit-Day"] == "180000"


def test_a_shorter_minute_and_forgetting(clock):
    limiter, options = RateLimiter(clock), Options(minute_limit=1, minute_seconds=2)
    assert [limiter.take(options) for _ in range(2)] == [None, "Minute"]
    clock.seconds += 2
    assert limiter.take(options) is None
    limiter.clear()
    assert limiter.take(options) is None
