"""Sweep all customers into the link index, when a mailbox cannot go on without it (B4.5).

One sweep serves all that wait. It is complete only if every customer that Fusebill counts was in
one of its pages: only then may "nobody holds it" be concluded from it.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import redis

from sync_worker.calls import Account, Calls, Purse
from sync_worker.domain import Customer, Slot, SlotState
from sync_worker.fusebill import errors, find
from sync_worker.fusebill.client import PAGE_SIZE
from sync_worker.fusebill.customer import CustomerPage
from sync_worker.gates import FUSEBILL, OPERATOR
from sync_worker.inbox import scripts
from sync_worker.inbox.reserve import Exhausted, Priority
from sync_worker.store import StoreError, now_ms, store_errors

log = logging.getLogger(__name__)

T = TypeVar("T", Customer, CustomerPage)

PATIENCE_SECONDS = 1.0
"""How long a worker's slot waits for budget at most (B7.2)."""

BATCH_SECONDS = 10.0
"""How long a batch sweeps at most."""

SLOW_SECONDS = 600.0
"""How long batches sweep no more after one that took longer."""

LEASE_MS = 180_000
"""How long a sweep is taken to run without a sign of it: longer than one page may take."""

MOST_BACK_OFF = 60
"""Sweeps that are not complete come ever more seldom, down to one in so many turns."""

MOST_ASKED_SINGLY = 100
"""Customers whose row leaves out a slot, and that are read by themselves to know it."""


class _TooMany(Exception):
    """There are more pages than the sweep may take: so many customers at least."""

    def __init__(self, customers: int) -> None:
        super().__init__(customers)
        self.customers = customers


class Paused(Exception):
    """An operator has everything wait (B6.4)."""

    def __init__(self) -> None:
        super().__init__("an operator has paused everything")


class _TooSlow(Exception):
    """A batch cannot wait for the rest of the pages."""


@dataclass(slots=True)
class _Bounds:
    """How far a sweep goes: a batch's ends soon, that of what waits for one sees all customers."""

    most_pages: int | None = None
    ends: float | None = None
    """By the monotonic clock."""
    patience: float = PATIENCE_SECONDS
    """How long it may still wait for budget, in seconds."""

    @property
    def is_for_batch(self) -> bool:
        """Whether a batch waits for it."""
        return self.ends is not None


@dataclass(slots=True)
class Sweeper:
    """Sweeps one account. Of several that try at once, one does."""

    client: redis.Redis
    account: Account
    every_seconds: float
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    _is_slow_until: float = 0.0

    def run_if_due(self) -> bool:
        """Sweep if a mailbox waits for it and the last one is long enough ago; tells if it did.

        What goes wrong is logged, and the next tick tries again. Raises StoreError.
        """
        return self.is_due() and self.run()

    def run(self) -> bool:
        """Sweep now, unless another does; tells if all customers were seen. Raises StoreError."""
        return self._run(_Bounds())

    def run_for_batch(self, *, most_pages: int) -> bool:
        """Sweep now, unless another does; tells if all customers were seen.

        It ends as soon as a page shows that there are more than that, or after BATCH_SECONDS: what
        is shown first must still be fresh at the end, and leases must not run out meanwhile. When
        it is the turn of what waits for a sweep is not touched by it. Raises StoreError.
        """
        if self._is_slow_until > self.monotonic():
            return False
        return self._run(_Bounds(most_pages, self.monotonic() + BATCH_SECONDS))

    def _run(self, bounds: _Bounds) -> bool:
        token = secrets.token_hex(8)
        asked = "" if bounds.is_for_batch else "asked"
        begun = self._note("begin", token, LEASE_MS, asked)
        if not begun:
            return False
        try:
            return self._sweep(token, begun, bounds)
        except (errors.FusebillError, Exhausted, Paused) as error:
            log.warning("the sweep of all customers is put off: %s", error)
            return False
        finally:
            self._note("end", token)

    def customers(self) -> int:
        """How many customers a sweep will meet, as far as is known. Raises StoreError."""
        with store_errors():
            size, customers = self.client.hmget(self._key, "size", "customers")
        return int(size or customers or 0)

    def is_running(self) -> bool:
        """Whether somebody sweeps. Raises StoreError."""
        with store_errors():
            return bool(self.client.exists("sw:sweep:lease"))

    def is_due(self) -> bool:
        """Whether a mailbox waits for a sweep that may begin now. Raises StoreError."""
        with store_errors():
            waiting = self.client.zcard("sw:sweep:waiting")
            begun, failed = self.client.hmget(self._key, "attempted", "incomplete")
            busy = self.client.exists("sw:sweep:lease")
        turns = min(2 ** int(failed or 0), MOST_BACK_OFF)
        soonest = int(begun or 0) + turns * self.every_seconds * 1000
        if not waiting or busy or self._now() < soonest:
            return False
        return not self.account.gates.is_shut(OPERATOR, FUSEBILL)

    @property
    def _key(self) -> str:
        return f"sw:sweep:{self.account.links.account}"

    def _now(self) -> int:
        with store_errors():
            return now_ms(self.client)

    def _note(self, step: str, token: str, *more: int | str) -> int:
        script = scripts.load(self.client, "sweep")
        with store_errors():
            return int(script(args=[step, self.account.links.account, token, *more]))

    def _sweep(self, token: str, begun: int, bounds: _Bounds) -> bool:
        try:
            seen, complete, blind = self._read_all(token, bounds)
        except _TooSlow:
            self._is_slow_until = self.monotonic() + SLOW_SECONDS
            return False
        except _TooMany as many:
            self._note_size(many.customers)
            return False
        except errors.Incomplete as error:
            log.warning("%s", error)
            seen, complete, blind = 0, False, set()
        if not complete:
            self._note("incomplete", token)
            log.error("the sweep did not see every customer: what waits for one goes on waiting")
            return False
        with store_errors():
            self.client.hdel(self._key, "incomplete", "size")
            script = scripts.load(self.client, "swept")
            woken = script(args=[self.account.links.account, begun, seen, *sorted(blind)])
        log.info("swept %d customers, %d mailboxes go on", seen, len(woken))
        return True

    def _note_size(self, customers: int) -> None:
        """Remember it, lest the next batch begins what this one could not end."""
        with contextlib.suppress(StoreError), store_errors():  # a full store takes none (B6.12)
            self.client.hset(self._key, "size", customers)

    def _read_all(self, token: str, bounds: _Bounds) -> tuple[int, bool, set[Slot]]:
        """Read every page: customers seen, whether that was all, and slots some left out."""
        seen: set[int] = set()
        partly: list[Customer] = []
        broken, total = 0, None
        pages = _Pages(self, bounds)
        for number, page in enumerate(find.all_pages(pages), start=1):
            for customer in page.customers:
                seen.add(customer.id)
                if _left_out(customer):
                    partly.append(customer)
            broken += page.broken
            total = page.total if page.total is not None else total
            self._note("seen", token, LEASE_MS, len(seen), total or "")
            at_least = total if total is not None else _at_least(number, page)
            if bounds.most_pages is not None and at_least > bounds.most_pages * PAGE_SIZE:
                raise _TooMany(at_least)
            is_late = bounds.ends is not None and self.monotonic() > bounds.ends
            if is_late and at_least > len(seen):
                raise _TooSlow
            if self.account.gates.is_shut(OPERATOR):
                raise Paused
        complete = not broken and (total is None or len(seen) >= total)
        return len(seen), complete, self._blind(partly)

    def _blind(self, partly: list[Customer]) -> set[Slot]:
        """The slots that are still not known of those whose row left some out (B7.4)."""
        blind: set[Slot] = set()
        for customer in partly[MOST_ASKED_SINGLY:]:
            blind |= _left_out(customer)
        for customer in partly[:MOST_ASKED_SINGLY]:
            try:
                read = self._make(partial(self.account.client.get_customer, customer.id), _Bounds())
            except errors.CustomerNotFound:
                continue
            blind |= _left_out(read)
        return blind

    def _make(self, call: Callable[[], T], bounds: _Bounds) -> T:
        """Make one call, as soon as there is budget for it: it comes before all others (B7.3).

        Raises Exhausted if that takes more than a second (B7.2), for a batch in all; and what the
        call raises.
        """
        calls = Calls(self.account, Priority.FIRST, Purse(self.account.budget))
        if not bounds.is_for_batch:
            bounds.patience = PATIENCE_SECONDS
        while True:
            try:
                reserved = calls.reserve()
            except Exhausted as error:
                bounds.patience -= error.seconds
                if bounds.patience < 0:
                    raise
                self.sleep(error.seconds)
            else:
                return calls.make(call, call=reserved, sent_at=self._now() * 1000)


@dataclass(frozen=True, slots=True)
class _Pages:
    """The pages of all customers, each as a call of the sweep."""

    sweeper: Sweeper
    bounds: _Bounds

    def list_customers(
        self, *, page: int, page_size: int = PAGE_SIZE, query: str | None = None
    ) -> CustomerPage:
        client = self.sweeper.account.client
        return self.sweeper._make(
            lambda: client.list_customers(page=page, page_size=page_size, query=query), self.bounds
        )


def _at_least(number: int, page: CustomerPage) -> int:
    """How many customers there are at least, by the `number`th page, which does not count them."""
    is_last = page.rows < PAGE_SIZE
    return number * PAGE_SIZE + (0 if is_last else 1)


def _left_out(customer: Customer) -> set[Slot]:
    """The slots that an answer does not tell: unknown is not empty (B7.4)."""
    return {slot for slot, value in customer.slots.items() if value is SlotState.UNKNOWN}
