"""Trouble on demand and the log of calls of the simulated CRMs."""

from __future__ import annotations

import re
import threading
from typing import Any, Literal

import msgspec

from simulators.fusebill.messages import JSON

WAIT_SECONDS = 10.0
"""How long the waiting methods wait unless told otherwise."""


class Fault(msgspec.Struct, kw_only=True, frozen=True):
    """What goes wrong, and for which calls. Of `status` and `drop` at most one."""

    method: str | None = None
    path: str = ""
    """A regular expression, searched in path, `?` and query, percent-decoded, and behind a
    blank what `SimulatedServer.about` says of the call."""
    times: int | None = None
    """Only the next so many calls that match; None: until cleared."""

    status: int | None = None
    """Answer with this status, `body` and `headers`, instead of what the simulator would."""
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = {}
    drop: bool = False
    """Close the connection without an answer; nothing takes effect."""
    latency_ms: int = 0
    """Wait before the call takes effect."""
    hold: Literal["before", "after"] | None = None
    """Keep the call, before or after its answer is decided, until the fault is released."""
    trickle_ms: int = 0
    """Pause this long before each byte of the answer's body."""


class PlacedFault:
    """A fault in place: how often it was met, and the hand that lets go what it holds."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.used = 0
        self.holding = 0
        self._released = False
        self._path = re.compile(fault.path)
        self._changed = threading.Condition()

    def take(self, method: str, line: str) -> bool:
        """Whether the call meets this fault; if so it is counted."""
        fault = self.fault
        with self._changed:
            spent = self._released or (fault.times is not None and self.used >= fault.times)
            if spent or fault.method not in (None, method) or not self._path.search(line):
                return False
            self.used += 1
            return True

    def hold(self, when: str) -> None:
        """Wait here until released, if the fault holds calls at this point."""
        if self.fault.hold != when:
            return
        with self._changed:
            self.holding += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._released)
            self.holding -= 1

    def release(self) -> None:
        """Let go what is held; the fault happens no more."""
        with self._changed:
            self._released = True
            self._changed.notify_all()

    def wait_held(self, count: int = 1, *, timeout: float = WAIT_SECONDS) -> None:
        """Return as soon as `count` calls are held. Raises AssertionError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.holding >= count, timeout):
                raise AssertionError(f"{self.holding} of {count} calls held after {timeout} s")


class Call(msgspec.Struct, kw_only=True, frozen=True):
    """One call as received and as decided. Credentials are never in it."""

    at: float
    """When the answer was decided, in seconds since the epoch."""
    method: str
    path: str
    query: dict[str, str]
    about: str
    """What `SimulatedServer.about` says of it."""
    status: int | None
    """None: the connection is closed instead of an answer."""


class Control:
    """The hand on a simulator: its faults and its log. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._faults: list[PlacedFault] = []
        self._calls: list[Call] = []

    def add_fault(self, fault: Fault) -> PlacedFault:
        """Put a fault in place, behind those that are there: the first that matches happens."""
        placed = PlacedFault(fault)
        with self._changed:
            self._faults.append(placed)
        return placed

    def clear_faults(self) -> None:
        """Let go and forget every fault."""
        with self._changed:
            faults, self._faults = self._faults, []
        for placed in faults:
            placed.release()

    def let_go(self) -> None:
        """Release every fault that holds a call now, and leave the others in place."""
        with self._changed:
            faults = list(self._faults)
        for placed in faults:
            if placed.holding:
                placed.release()

    def pick(self, method: str, line: str) -> PlacedFault:
        """The fault that a call meets; one that does nothing if it meets none."""
        with self._changed:
            found = (placed for placed in self._faults if placed.take(method, line))
            return next(found, None) or PlacedFault(Fault())

    def calls(self, *, method: str | None = None, path: str = "") -> list[Call]:
        """The calls with this method and a path in which the expression is found, in order."""
        with self._changed:
            return [
                call
                for call in self._calls
                if method in (None, call.method) and re.search(path, call.path)
            ]

    def wait_for_calls(
        self, count: int = 1, *, timeout: float = WAIT_SECONDS, **matching: Any
    ) -> list[Call]:
        """`calls(**matching)`, as soon as there are `count`. Raises AssertionError."""
        with self._changed:
            if self._changed.wait_for(lambda: len(self.calls(**matching)) >= count, timeout):
                return self.calls(**matching)
            raise AssertionError(f"{len(self.calls(**matching))} of {count} calls in {timeout} s")

    def clear_calls(self) -> None:
        """Forget the calls so far."""
        with self._changed:
            self._calls.clear()

    def log(self, call: Call) -> None:
        """Keep a call."""
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()
