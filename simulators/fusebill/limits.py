"""The rate limit: calls per minute and per day, and the headers that tell of it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from simulators.fusebill.options import LIVE_CALLS_PER_DAY, LIVE_CALLS_PER_MINUTE, Options

Window = Literal["Minute", "Day"]


class Gauge(NamedTuple):
    """One window as it stands: `reset` is seconds since the epoch."""

    limit: int | None
    remaining: int
    reset: float


class RateLimiter:
    """Counts calls in both windows. Refused calls are not counted. The caller holds a lock."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._calls: dict[Window, deque[float]] = {"Minute": deque(), "Day": deque()}

    def take(self, options: Options) -> Window | None:
        """Count one call, or name the window that has no room for it."""
        gauges = self._gauges(options)
        for window, gauge in gauges.items():
            if gauge.remaining <= 0:
                return window
        now = self._now_ns() / 1e9
        for window, gauge in gauges.items():
            if gauge.limit is not None:
                self._calls[window].append(now)
        return None

    def headers(self, options: Options, *, exhausted: Window | None = None) -> dict[str, str]:
        """The six `X-Rate-Limit-*` headers; `exhausted` names a window to show as used up."""
        headers = {}
        for window, gauge in self._gauges(options).items():
            live = LIVE_CALLS_PER_MINUTE if window == "Minute" else LIVE_CALLS_PER_DAY
            limit = live if gauge.limit is None else gauge.limit
            remaining = 0 if window == exhausted else gauge.remaining
            headers[f"X-Rate-Limit-Limit-{window}"] = str(limit)
            headers[f"X-Rate-Limit-Remaining-{window}"] = str(remaining)
            headers[f"X-Rate-Limit-Reset-{window}"] = _moment(gauge.reset, options)
        return headers

    def clear(self) -> None:
        """Forget every call."""
        for calls in self._calls.values():
            calls.clear()

    def _gauges(self, options: Options) -> dict[Window, Gauge]:
        return {
            "Minute": self._gauge("Minute", options.minute_limit, options.minute_seconds, options),
            "Day": self._gauge("Day", options.day_limit, options.day_seconds, options),
        }

    def _gauge(self, window: Window, limit: int | None, seconds: float, options: Options) -> Gauge:
        now = self._now_ns() / 1e9
        calls = self._calls[window]
        fixed = options.limit_window == "fixed"
        start = now - now % seconds if fixed else now - seconds
        while calls and (calls[0] < start if fixed else calls[0] <= start):
            calls.popleft()
        live = LIVE_CALLS_PER_MINUTE if window == "Minute" else LIVE_CALLS_PER_DAY
        if limit is None:
            return Gauge(None, live, now + seconds)
        oldest = calls[0] if calls else now
        return Gauge(limit, max(0, limit - len(calls)), (start if fixed else oldest) + seconds)


def _moment(epoch: float, options: Options) -> str:
    # Rounded up: who waits until the header's second is never early.
    second = math.ceil(epoch)
    if options.reset_header == "epoch":
        return str(second)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"
