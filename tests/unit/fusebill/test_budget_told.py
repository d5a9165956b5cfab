"""What an answer tells of the budget, as scripts take it (B7.1)."""

from __future__ import annotations

from sync_worker.fusebill.budget import Exhausted, told
from sync_worker.fusebill.limits import RateLimits, read_limits


def test_no_answer_tells_nothing():
    assert told(None) == []


def test_what_was_not_told_is_less_than_nothing():
    assert told(RateLimits(minute_left=3)) == [-1, 3, -1, -1, -1, -1, 0]


def test_a_refusal_without_headers_is_told():
    assert told(None, refused=True) == [-1, -1, -1, -1, -1, -1, 1]


def test_resets_are_told_in_milliseconds_however_they_are_written():
    header = "X-Rate-Limit-{}-{}".format
    moment = 1_800_000_060_000
    for text in ("1800000060", "1800000060000", "2027-01-15T08:01:00Z"):
        limits = read_limits(
            {
                header("Limit", "Minute"): "1000",
                header("Remaining", "Minute"): "0",
                header("Reset", "Minute"): text,
                header("Limit", "Day"): "180000",
                header("Remaining", "Day"): "170000",
                header("Reset", "Day"): "soon",
            }
        )
        assert told(limits, refused=True) == [1000, 0, moment, 180_000, 170_000, -1, 1]


def test_who_is_refused_is_told_for_how_long():
    assert "12.3 s" in str(Exhausted(12.34))
