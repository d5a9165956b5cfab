"""The log of API calls, and waiting for calls to come. Credentials are never in it."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import msgspec

KEPT_CALLS = 200_000
"""How many calls the log keeps, newest first to stay; `dev` runs for days, tests for less."""


class Call(msgspec.Struct, kw_only=True, frozen=True):
    """One call to the API, as received and as decided."""

    seq: int
    """Order in which calls took effect, from 1; clearing the log does not start it anew."""
    at: float
    """When the call came, in seconds since the epoch."""
    method: str
    path: str
    query: dict[str, str]
    body: Any
    """The parsed JSON; None if there was none or it could not be read."""
    raw_body_length: int
    content_length_header: str | None
    customer_id: int | None
    """The customer in the path or in the body's `fusebillId`."""
    status: int | None
    """The answer that was decided; None: the connection is closed instead. A client that has
    gone by then has not seen it."""
    applied: bool
    """Whether a slot's value changed."""
    fault: str | None
    """`Fault.label` of the fault that the call met."""


class Wanted(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which calls of the log; fields that are left out match all."""

    since: int = 0
    """Only calls with a greater `seq`."""
    method: str | None = None
    path: str | None = None
    """A regular expression, searched without case."""
    customer_id: int | None = None
    status: int | None = None
    applied: bool | None = None

    def matches(self, call: Call) -> bool:
        """Whether the call is one of them, `since` apart."""
        same = (
            (self.method, call.method),
            (self.customer_id, call.customer_id),
            (self.status, call.status),
            (self.applied, call.applied),
        )
        if any(want not in (None, got) for want, got in same):
            return False
        return self.path is None or re.search(self.path, call.path, re.IGNORECASE) is not None


class CallLog:
    """The calls that took effect, oldest first. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: list[Call] = []
        self._last_seq = 0

    @property
    def last_seq(self) -> int:
        """The `seq` of the newest call ever logged; 0 if there was none."""
        return self._last_seq

    def append(self, **fields: Any) -> None:
        """Log a call; `seq` is given here."""
        with self._changed:
            self._last_seq += 1
            self._calls.append(Call(seq=self._last_seq, **fields))
            if len(self._calls) > KEPT_CALLS + KEPT_CALLS // 10:
                # In lumps, so that a full log costs a copy only once in a while.
                del self._calls[:-KEPT_CALLS]
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget every call."""
        with self._changed:
            self._calls.clear()

    def read(self, wanted: Wanted, wait_for: int = 0, timeout: float = 0) -> list[Call]:
        """The calls that match, once there are `wait_for` or `timeout` seconds have passed."""
        deadline = time.monotonic() + timeout
        found: list[Call] = []
        seen = wanted.since
        with self._changed:
            while True:
                found += [call for call in self._after(seen) if wanted.matches(call)]
                seen = max(seen, self._last_seq)
                left = deadline - time.monotonic()
                if len(found) >= wait_for or left <= 0:
                    return found
                self._changed.wait(left)

    def _after(self, seq: int) -> list[Call]:
        """The calls with a greater seq; the newest has the last one, and none is left out."""
        newer = self._last_seq - seq
        return self._calls[-newer:] if newer > 0 else []
