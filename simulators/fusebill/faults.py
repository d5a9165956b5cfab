"""Trouble on demand: which call meets which fault, and calls that are held until released.

A fault is matched before anything else looks at the call, as trouble on the way would be.
The first that matches, in the order they were added, is the one that happens.
"""

from __future__ import annotations

import random
import re
import threading
import time
from typing import Annotated, Literal

import msgspec


class Fault(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What goes wrong, and for which calls. Every field that is left out matches all.

    Of `status`, `drop`, `lose_answer` and `not_a_customer` at most one; a delay or a `hold`
    goes with any of them, or alone.
    """

    # Which calls.
    method: str | None = None
    path: str | None = None
    """A regular expression, searched in the path as received, without case."""
    customer_id: int | None = None
    """The customer in the path or in the body's `fusebillId`; a list call has none."""
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    seed: int = 0
    """Of the dice for `probability`: the same seed and calls give the same faults."""
    count: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Only the next so many calls that match; None: until removed."""

    # What happens to them.
    latency_ms: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Wait before the call takes effect: a client that gave up sees it land late."""
    answer_latency_ms: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Wait after the call took effect, before the answer."""
    hold: Literal["before", "after"] | None = None
    """Keep the call, before or after it takes effect, until the fault is released or removed."""
    status: Annotated[int, msgspec.Meta(ge=300, le=599)] | None = None
    """Answer with this status: 404 carries `Message` as for an unknown route, 302 a `Location`,
    429 used-up limits, 502 to 504 a gateway's HTML."""
    text: str | None = None
    """With `status`: answer in the Errors envelope, with this text."""
    drop: bool = False
    """Close the connection without an answer; nothing takes effect."""
    lose_answer: bool = False
    """Let the call take effect, then close the connection without an answer."""
    not_a_customer: Literal["null", "html"] | None = None
    """Answer 200 with the literal `null`, or with a page of HTML."""
    applies: bool = False
    """With `status` or `not_a_customer`: the call takes effect all the same."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself (ValueError)."""
        ends = [self.status is not None, self.drop, self.lose_answer, self.not_a_customer]
        if sum(map(bool, ends)) > 1:
            raise ValueError("name one of status, drop, lose_answer and not_a_customer")
        if self.text is not None and self.status is None:
            raise ValueError("text goes with a status")
        if self.applies and self.status is None and self.not_a_customer is None:
            raise ValueError("applies goes with status or not_a_customer")
        if not self.label:
            raise ValueError("a fault that does nothing: name what goes wrong")
        if self.path is not None:
            try:
                re.compile(self.path)
            except re.error as error:
                raise ValueError(f"path is no regular expression: {error}") from error

    @property
    def takes_effect(self) -> bool:
        """Whether a call that meets this fault still reaches the customers."""
        if self.lose_answer or self.applies:
            return True
        return not (self.drop or self.status is not None or self.not_a_customer is not None)

    @property
    def label(self) -> str:
        """The fault in a word or two, for the log of calls."""
        parts = [f"hold {self.hold}"] if self.hold else []
        if self.status is not None:
            parts.append(f"status {self.status}")
        if self.not_a_customer is not None:
            parts.append(f"not_a_customer {self.not_a_customer}")
        parts += [name for name in ("drop", "lose_answer") if getattr(self, name)]
        if self.latency_ms or self.answer_latency_ms:
            parts.append("latency")
        return ", ".join(parts)


class FaultState(msgspec.Struct, kw_only=True, frozen=True):
    """A fault that is in place."""

    id: int
    fault: Fault
    used: int
    """How many calls met it."""
    holding: int
    """How many calls it keeps right now."""


class ActiveFault:
    """A fault in place, as one call meets it."""

    def __init__(self, id_: int, fault: Fault, changed: threading.Condition) -> None:
        self.id = id_
        self.fault = fault
        self.used = 0
        self.holding = 0
        self.released = False
        self._path = re.compile(fault.path or "", re.IGNORECASE)
        self._dice = random.Random(fault.seed)  # noqa: S311 - dice, not secrets
        self._changed = changed

    def meets(self, method: str, path: str, customer_id: int | None) -> bool:
        """Whether this call meets the fault. Every call that could throws the dice once."""
        fault = self.fault
        if fault.count is not None and self.used >= fault.count:
            return False
        if fault.method is not None and fault.method.upper() != method:
            return False
        if fault.customer_id is not None and fault.customer_id != customer_id:
            return False
        return self._path.search(path) is not None and self._dice.random() < fault.probability

    def hold(self) -> None:
        """Wait here until the fault is released or removed."""
        with self._changed:
            self.holding += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.released)
            self.holding -= 1
            self._changed.notify_all()

    def state(self) -> FaultState:
        """As control shows it. The caller holds the book's lock."""
        return FaultState(id=self.id, fault=self.fault, used=self.used, holding=self.holding)


class FaultBook:
    """The faults in place. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._active: dict[int, ActiveFault] = {}
        self._last_id = 0

    def add(self, fault: Fault) -> int:
        """Put a fault in place, behind those that are there; returns its id."""
        with self._changed:
            self._last_id += 1
            self._active[self._last_id] = ActiveFault(self._last_id, fault, self._changed)
            return self._last_id

    def pick(self, method: str, path: str, customer_id: int | None) -> ActiveFault | None:
        """The fault that this call meets, counted as used."""
        with self._changed:
            for active in self._active.values():
                if not active.released and active.meets(method, path, customer_id):
                    active.used += 1
                    return active
        return None

    def release(self, id_: int) -> None:
        """Let go what the fault holds, and let it happen no more; it stays to be looked at.

        Raises KeyError if there is no such fault.
        """
        with self._changed:
            self._active[id_].released = True
            self._changed.notify_all()

    def remove(self, id_: int) -> None:
        """Release a fault and forget it. Raises KeyError if there is none."""
        with self._changed:
            self.release(id_)
            del self._active[id_]

    def clear(self) -> None:
        """Release and forget every fault."""
        with self._changed:
            for id_ in list(self._active):
                self.remove(id_)

    def let_go(self) -> None:
        """Release every fault that holds a call now, and leave the others in place."""
        with self._changed:
            for active in self._active.values():
                active.released = active.released or active.holding > 0
            self._changed.notify_all()

    def states(self) -> list[FaultState]:
        """Every fault in place, in order."""
        with self._changed:
            return [active.state() for active in self._active.values()]

    def wait_holding(self, id_: int, count: int, timeout: float) -> FaultState:
        """The fault, once it holds at least `count` calls or `timeout` seconds have passed.

        Raises KeyError if there is no such fault.
        """
        with self._changed:
            active = self._active[id_]
            deadline = time.monotonic() + timeout
            while active.holding < count and not active.released:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return active.state()
