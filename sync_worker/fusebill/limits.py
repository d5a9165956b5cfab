"""What Fusebill says of its rate limits, in the headers of every answer.

`X-Rate-Limit-Limit-Minute`, `X-Rate-Limit-Remaining-Minute`, `X-Rate-Limit-Reset-Minute`, and
the same three with `-Day` (vendor page 'Rate Limits'). The page calls the reset "a timestamp"
and does not say in which format, so epoch and ISO 8601 are both read (B7.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

_FIRST_SECOND = 1e9
_LAST_SECOND = 1e11
"""A reset is believed between the years 2001 and 5138. Below that a number is no point in time
(a count of seconds left, perhaps), above it the number counts milliseconds."""

_WHOLE = re.compile(r"-?[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")


class RateLimits(msgspec.Struct, frozen=True):
    """The limits as one answer stated them; None where a header was absent or unreadable.

    Resets are seconds since the epoch by Fusebill's clock.
    """

    minute_limit: int | None = None
    minute_left: int | None = None
    minute_reset: float | None = None
    day_limit: int | None = None
    day_left: int | None = None
    day_reset: float | None = None

    @property
    def known(self) -> bool:
        """Whether any of the headers was there: an error page of a proxy has none."""
        return self != RateLimits()

    def retry_at(self) -> float | None:
        """When a call that was answered 429 may be made again, in seconds since the epoch.

        That is the minute's reset unless it is the day that is used up (B6.2). A used-up day
        without a readable reset falls back on the minute's: asking again then costs little.
        None if no header names a time.
        """
        if self.day_left == 0 and self.day_reset is not None:
            return self.day_reset
        return self.minute_reset


def read_limits(headers: Mapping[str, str]) -> RateLimits:
    """Read the rate-limit headers of an answer; names in any case. Never raises."""
    given = {str(name).lower(): str(value).strip() for name, value in headers.items()}

    def header(part: str, window: str) -> str:
        return given.get(f"x-rate-limit-{part}-{window}", "")

    return RateLimits(
        minute_limit=_count(header("limit", "minute")),
        minute_left=_count(header("remaining", "minute")),
        minute_reset=_moment(header("reset", "minute")),
        day_limit=_count(header("limit", "day")),
        day_left=_count(header("remaining", "day")),
        day_reset=_moment(header("reset", "day")),
    )


def _count(text: str) -> int | None:
    """A whole number; one below 0 (calls beyond the limit) counts as 0."""
    return max(0, int(text)) if _WHOLE.fullmatch(text) else None


def _moment(text: str) -> float | None:
    """Seconds since the epoch from epoch seconds, epoch milliseconds or ISO 8601."""
    if _NUMBER.fullmatch(text):
        seconds = float(text)
        if seconds >= _LAST_SECOND:
            seconds /= 1000
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        # A time without a zone is UTC, as all of Fusebill's times are ('Date Filtering').
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = zoned.timestamp()
    return seconds if _FIRST_SECOND <= seconds < _LAST_SECOND else None
