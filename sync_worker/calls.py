"""The calls to Fusebill that workers make: each within the budget, and what each told is told on.

A call was reserved before it is made (B7.1), mostly with others that follow from the same plan
(B7.2). After it, one step of the store takes in all that follows: its end in the budget, what it
tells of Fusebill itself (B6.3), and the customers that it showed (B4.5).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import redis

from sync_worker import gates, links, verdicts
from sync_worker.crm.errors import CrmError
from sync_worker.domain import Attempt, Customer, Record
from sync_worker.fusebill import errors
from sync_worker.fusebill.budget import Budget, told
from sync_worker.fusebill.client import FusebillClient
from sync_worker.fusebill.customer import CustomerPage
from sync_worker.gates import Gates
from sync_worker.inbox import scripts
from sync_worker.inbox.reserve import Priority
from sync_worker.links import LinkIndex
from sync_worker.store import store_errors

T = TypeVar("T", Customer, CustomerPage)

SEEN = 2
"""Customers remembered to be there: as many as the probe for a set of ids takes (B7.4)."""

RENEWED_SECONDS = 30
"""What was reserved for longer than this is renewed before it is used."""

_pack = msgspec.msgpack.Encoder().encode


class Recorder(threading.local):
    """Where the calls of this thread are written down, for the dead letter they may end in."""

    attempts: list[Attempt] | None = None

    def __call__(self, attempt: Attempt) -> None:
        """Write one down."""
        if self.attempts is not None:
            self.attempts.append(attempt)


class Purse:
    """Calls that are reserved and not made yet, for several convergences. For any thread."""

    def __init__(self, budget: Budget, calls: Iterable[int] = ()) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._calls = list(calls)
        self._since = time.monotonic()

    @property
    def is_old(self) -> bool:
        """Whether what was reserved at first might soon count as lost (budget.py)."""
        return time.monotonic() - self._since > RENEWED_SECONDS

    def take(self, most: int) -> list[int]:
        """Take as many as there are, up to so many."""
        with self._lock:
            taken, self._calls = self._calls[:most], self._calls[most:]
        return taken

    def put(self, calls: Iterable[int]) -> None:
        """Put back what was not made."""
        with self._lock:
            self._calls += calls

    def give_back(self) -> None:
        """Give the budget back what is left. Raises StoreError."""
        self._budget.give_back(self.take(len(self._calls)))


@dataclass(frozen=True, slots=True)
class Account:
    """One Fusebill account, with what is kept of it in the store. For any thread."""

    client: FusebillClient
    links: LinkIndex
    gates: Gates
    budget: Budget
    heard: scripts.Script
    seen: deque[int] = field(default_factory=lambda: deque(maxlen=SEEN))
    """The customers that an answer showed last."""

    @classmethod
    def of(
        cls,
        store: redis.Redis,
        client: FusebillClient,
        links: LinkIndex,
        gates: Gates,
        budget: Budget,
    ) -> Account:
        """What is kept in this store."""
        return cls(client, links, gates, budget, scripts.load(store, "heard"))


@dataclass(slots=True)
class Calls:
    """The calls of one convergence, or of a sweep. For one thread."""

    account: Account
    priority: Priority
    purse: Purse
    shut: bool = False
    """Whether the last remote system that was called has its gate shut."""

    def reserve(self) -> int:
        """Reserve one call. Raises Exhausted, StoreError."""
        taken = self.purse.take(1)
        return taken[0] if taken else self.account.budget.reserve(1, self.priority)

    def make(
        self,
        what: Callable[[], T],
        *,
        call: int,
        whom: int | None = None,
        sent_at: int = 0,
        written: bool = False,
    ) -> T:
        """Make a reserved call, and tell on what came of it.

        `whom` is the customer that it is about, None for a list. `sent_at` is the store's clock
        (us) before it, `written` whether it is a write. Raises what the call raises, and
        StoreError.
        """
        try:
            answer = what()
        except errors.FusebillError as error:
            self._tell(call, whom, error, [])
            raise
        shown = _shown(answer)
        seen = self.account.seen
        seen.extend(one.id for one in shown[:SEEN] if one.id not in seen)
        few, rest = shown[: links.AT_A_TIME], shown[links.AT_A_TIME :]
        self._tell(
            call,
            whom,
            None,
            [links.packed(one, sent_at=sent_at, written=written) for one in few],
        )
        if rest:
            self.account.links.observe(*rest, sent_at=sent_at)
        return answer

    def _tell(
        self,
        call: int,
        whom: int | None,
        error: errors.FusebillError | None,
        shown: list[list[object]],
    ) -> None:
        account = self.account
        report = account.gates.packed(
            gates.FUSEBILL,
            verdicts.of_fusebill(error),
            whom="" if whom is None else str(whom),
            why="" if error is None else str(error),
        )
        limits = told(account.client.limits, refused=isinstance(error, errors.RateLimited))
        packed = [account.budget.packed, call, limits, report, account.links.account, shown]
        with store_errors():
            self.shut = bool(account.heard(args=[_pack(packed)]))

    def heard_crm(self, record: Record, error: CrmError | None) -> None:
        """Take in what became of a read of a CRM."""
        verdict, why = verdicts.of_crm(error), str(error or "")
        self.shut = self.account.gates.report(record.source, verdict, whom=record.mailbox, why=why)


def _shown(answer: Customer | CustomerPage) -> list[Customer]:
    return [answer] if isinstance(answer, Customer) else list(answer.customers)
