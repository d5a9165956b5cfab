"""Sweep all customers into the link index, when a mailbox cannot go on without it (B4.5).

One sweep serves all that wait. It is complete only if every customer that Fusebill counts was in
one of its pages: only then may "nobody holds it" be concluded from it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import redis

from sync_worker.domain import Customer, Slot, SlotState
from sync_worker.fusebill import errors, find
from sync_worker.gates import FUSEBILL, OPERATOR, Gates
from sync_worker.inbox import scripts
from sync_worker.links import LinkIndex
from sync_worker.store import store_errors

log = logging.getLogger(__name__)

LEASE_MS = 180_000
"""How long a sweep is taken to run without a sign of it: longer than one page may take."""

MOST_BACK_OFF = 60
"""Sweeps that are not complete come ever more seldom, down to one in so many turns."""

MOST_ASKED_SINGLY = 100
"""Customers whose row leaves out a slot, and that are read by themselves to know it."""


class Customers(find.Lists, Protocol):
    """What reads customers, such as a FusebillClient."""

    def get_customer(self, customer_id: int) -> Customer:
        """Read one."""
        ...


class Paused(Exception):
    """An operator has everything wait (B6.4)."""

    def __init__(self) -> None:
        super().__init__("an operator has paused everything")


@dataclass(slots=True)
class Sweeper:
    """Sweeps one account. Of several that try at once, one does."""

    client: redis.Redis
    links: LinkIndex
    fusebill: Customers
    gates: Gates
    every_seconds: float
    clock: Callable[[], float] = time.time

    def run_if_due(self) -> bool:
        """Sweep if a mailbox waits for it and the last one is long enough ago; tells if it did.

        What goes wrong is logged, and the next tick tries again. Raises StoreError.
        """
        if not self.is_due():
            return False
        token = secrets.token_hex(8)
        begun = self._note("begin", token, LEASE_MS)
        if not begun:
            return False
        try:
            return self._sweep(token, begun)
        except (errors.FusebillError, Paused) as error:
            log.warning("the sweep of all customers is put off: %s", error)
            return False
        finally:
            self._note("end", token)

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
        return not self.gates.is_shut(OPERATOR, FUSEBILL)

    @property
    def _key(self) -> str:
        return f"sw:sweep:{self.links.account}"

    def _now(self) -> int:
        with store_errors():
            seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def _note(self, step: str, token: str, *more: int | str) -> int:
        script = scripts.load(self.client, "sweep")
        with store_errors():
            return int(script(args=[step, self.links.account, token, *more]))

    def _sweep(self, token: str, begun: int) -> bool:
        try:
            seen, complete, blind = self._read_all(token)
        except errors.Incomplete as error:
            log.warning("%s", error)
            seen, complete, blind = 0, False, set()
        if not complete:
            self._note("incomplete", token)
            log.error("the sweep did not see every customer: what waits for one goes on waiting")
            return False
        with store_errors():
            self.client.hdel(self._key, "incomplete")
            script = scripts.load(self.client, "swept")
            woken = script(args=[self.links.account, begun, seen, *sorted(blind)])
        log.info("swept %d customers, %d mailboxes go on", seen, len(woken))
        return True

    def _read_all(self, token: str) -> tuple[int, bool, set[Slot]]:
        """Read every page: customers seen, whether that was all, and slots some left out."""
        seen: set[int] = set()
        partly: list[Customer] = []
        broken, total = 0, None
        pages = find.all_pages(self.fusebill)
        while True:
            sent_at = self._now() * 1000
            page = next(pages, None)
            if page is None:
                break
            for customer in page.customers:
                seen.add(customer.id)
                if _left_out(customer):
                    partly.append(customer)
                self.links.observe(customer, sent_at=sent_at)
            broken += page.broken
            total = page.total if page.total is not None else total
            self._note("seen", token, LEASE_MS, len(seen), total or "")
            if self.gates.is_shut(OPERATOR):
                raise Paused
        complete = not broken and (total is None or len(seen) >= total)
        return len(seen), complete, self._blind(partly)

    def _blind(self, partly: list[Customer]) -> set[Slot]:
        """The slots that are still not known of those whose row left some out (B7.4)."""
        blind: set[Slot] = set()
        for customer in partly[MOST_ASKED_SINGLY:]:
            blind |= _left_out(customer)
        for customer in partly[:MOST_ASKED_SINGLY]:
            sent_at = self._now() * 1000
            try:
                read = self.fusebill.get_customer(customer.id)
            except errors.CustomerNotFound:
                continue
            self.links.observe(read, sent_at=sent_at)
            blind |= _left_out(read)
        return blind


def _left_out(customer: Customer) -> set[Slot]:
    """The slots that an answer does not tell: unknown is not empty (B7.4)."""
    return {slot for slot, value in customer.slots.items() if value is SlotState.UNKNOWN}
