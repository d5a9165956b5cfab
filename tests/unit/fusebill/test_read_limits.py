from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from sync_worker.fusebill.limits import RateLimits, read_limits

NAMES = [
    f"X-Rate-Limit-{part}-{window}"
    for part in ("Limit", "Remaining", "Reset")
    for window in ("Minute", "Day")
]


def test_all_six_headers_are_read() -> None:
    headers = {
        "X-Rate-Limit-Limit-Minute": "1000",
        "X-Rate-Limit-Remaining-Minute": "998",
        "X-Rate-Limit-Reset-Minute": "1795183440",
        "X-Rate-Limit-Limit-Day": "180000",
        "X-Rate-Limit-Remaining-Day": "0",
        "X-Rate-Limit-Reset-Day": "1795219200",
    }
    expected = RateLimits(1000, 998, 1795183440.0, 180000, 0, 1795219200.0)
    assert read_limits(headers) == expected
    assert read_limits({name.lower(): value for name, value in headers.items()}) == expected
    assert read_limits(CaseInsensitiveDict(headers)) == expected
    assert expected.known


def test_an_answer_without_them_says_nothing() -> None:
    limits = read_limits({"Content-Type": "application/json"})
    assert limits == RateLimits(None, None, None, None, None, None)
    assert not limits.known
    assert limits.retry_at() is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1795183440", 1795183440.0),
        ("1795183440.5", 1795183440.5),
        ("1795183440123", 1795183440.123),
        (" 1795183440 ", 1795183440.0),
        ("2026-11-20T14:04:00Z", 1795183440.0),
        ("2026-11-20T14:04:00", 1795183440.0),
        ("2026-11-20T09:04:00-05:00", 1795183440.0),
        ("2026-11-20T14:04:00.8536714Z", 1795183440.853671),
        ("2026-11-20 14:04:00", 1795183440.0),
        ("", None),
        ("37", None),
        ("-1795183440", None),
        ("nan", None),
        ("1e300", None),
        ("soon", None),
        ("0001-01-01T00:00:00", None),
        ("9999-12-31T23:59:59-23:59", None),
        ("1795183440, 1795183440", None),
        ("٣" * 10, None),
    ],
)
def test_a_reset_is_read_as_epoch_seconds_milliseconds_or_iso(
    text: str, seconds: float | None
) -> None:
    limits = read_limits({"X-Rate-Limit-Reset-Minute": text, "X-Rate-Limit-Reset-Day": text})
    assert limits.minute_reset == seconds
    assert limits.day_reset == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("-3", 0), ("50", 50), ("", None), ("50.5", None), ("5, 5", None), ("many", None)],
)
def test_a_count_is_a_whole_number_or_unknown(text: str, count: int | None) -> None:
    limits = read_limits({"X-Rate-Limit-Remaining-Minute": text, "X-Rate-Limit-Limit-Day": text})
    assert limits.minute_left == count
    assert limits.day_limit == count


@pytest.mark.parametrize(
    ("limits", "at"),
    [
        (RateLimits(minute_left=0, minute_reset=2e9, day_left=5, day_reset=3e9), 2e9),
        (RateLimits(minute_left=0, minute_reset=2e9, day_left=0, day_reset=3e9), 3e9),
        (RateLimits(minute_left=7, minute_reset=2e9, day_left=0, day_reset=3e9), 3e9),
        (RateLimits(minute_left=7, minute_reset=2e9, day_left=5, day_reset=3e9), 2e9),
        (RateLimits(minute_reset=2e9, day_reset=3e9), 2e9),
        (RateLimits(minute_reset=2e9, day_left=0), 2e9),
        (RateLimits(day_left=0, day_reset=3e9), 3e9),
        (RateLimits(day_left=5, day_reset=3e9), None),
    ],
)
def test_a_429_waits_for_the_minute_unless_the_day_is_used_up(
    limits: RateLimits, at: float | None
) -> None:
    assert limits.retry_at() == at


moments = st.datetimes().map(lambda moment: moment.isoformat())
numbers = (st.integers() | st.floats()).map(str)


@given(st.dictionaries(st.sampled_from(NAMES), st.text() | moments | numbers))
def test_whatever_the_headers_hold_reading_never_fails(headers: dict[str, str]) -> None:
    limits = read_limits(headers)
    for reset in (limits.minute_reset, limits.day_reset):
        assert reset is None or 1e9 <= reset < 1e11
    for count in (limits.minute_left, limits.day_left, limits.minute_limit, limits.day_limit):
        assert count is None or count >= 0
