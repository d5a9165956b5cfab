"""A world to try things in: customers, records, events under way, and workers that may vanish."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import redis

from simulators.fusebill.customer import Customer
from simulators.fusebill.options import Options
from simulators.fusebill.world import World
from sync_worker import dead_letters, events, settings
from sync_worker.calls import Account
from sync_worker.converge import Converger
from sync_worker.dead_letters import DeadLetter, Filter
from sync_worker.domain import (
    Aspect,
    Change,
    Kind,
    Record,
    RecordType,
    Slot,
    Source,
    salesforce_id_18,
)
from sync_worker.fusebill.budget import Budget
from sync_worker.gates import Gates
from sync_worker.inbox import Inbox
from sync_worker.links import LinkIndex
from sync_worker.sweep import Sweeper
from tests.changes import NOW
from tests.properties.remote import SLOT_FIELD, Crm, DirectFusebill, Entry, slots_of

CUSTOMERS = range(1, 33)

RECORDS = (
    *(Record(Source.HUBSPOT, "1", RecordType.CONTACT, str(100 + n)) for n in range(20)),
    *(Record(Source.HUBSPOT, "1", RecordType.COMPANY, str(300 + n)) for n in range(14)),
    *(
        Record(Source.SALESFORCE, "o", RecordType.ACCOUNT, salesforce_id_18(f"0010000000000{n:02}"))
        for n in range(14)
    ),
    *(Record(Source.GEOTAB, "a", RecordType.CUSTOMER, f"{n:05}") for n in range(14)),
)

TURNS = 60


Slots = dict[Slot, str]


class Vanished(BaseException):
    """The worker is gone: killed between two steps."""


class Simulation:
    """One world. Nothing in it is faster or slower than another: what is due is worked at once."""

    def __init__(
        self, client: redis.Redis, *, reads: frozenset[Source], options: Options, **current: Any
    ) -> None:
        client.flushall()
        self.client = client
        self.time = NOW
        self.number = 0
        self.fusebill = World(lambda: 0, options)
        self.fusebill.put(Customer(id=n) for n in CUSTOMERS)
        self.crm = Crm({record: Entry(record) for record in RECORDS})
        self.under_way: list[Change] = []
        self.sent: list[Change] = []
        self.writes: list[tuple[int, Slots, Slots]] = []
        self.written: Callable[[int, Slots, Slots], None] = lambda *_: None
        """Told after each write: the customer's slots before and after it."""
        self.steps_to_live: int | None = None
        self.at_work: list[set[int]] = []
        """The customers that each convergence under way has read, the outermost first."""
        self.interrupt: Callable[[], None] = lambda: None
        """Told at every step: another worker may do something there."""
        self.settings = settings.Settings(
            _env_file=None,
            **{
                "fusebill_base_url": "http://127.0.0.1:1",
                "release_grace_seconds": 0,
                "dedupe_hours": 0,
                "max_releases_per_hour": 1_000_000,
                "max_crashes": 1_000_000,
                "fusebill_calls_per_minute": 100_000,
                "fusebill_calls_per_day": 100_000_000,
                "fusebill_salesforce_unlatch_path": "/v1/Salesforce/Unlatch",
                **current,
            },
        )
        self.reads = reads
        self.inbox = Inbox.of(client, self.settings)
        self.links = LinkIndex(client, base_url=self.settings.fusebill_base_url)
        self.gates = Gates(client, breaker_failures=self.settings.breaker_failures)
        self.sweeper = Sweeper(client, self._account(), every_seconds=0)
        self.crm.around = self._step

    def _direct(self) -> DirectFusebill:
        direct = DirectFusebill(self.fusebill)
        direct.around = self._step
        return direct

    def _account(self) -> Account:
        budget = Budget.of(self.client, self.settings)
        direct: Any = self._direct()
        return Account.of(self.client, direct, self.links, self.gates, budget)

    def _worker(self) -> Converger:
        return Converger(
            self.inbox,
            self._account(),
            self.settings,
            dict.fromkeys(self.reads, self.crm),
            monotonic=lambda: 0.0,
            jitter=lambda: 0.0,
        )

    # --- what happens in the world

    def happen(self, record: Record, kind: Kind, aspect: Aspect, **more: Any) -> None:
        """An event about a record is on its way."""
        self.time += 1
        self.number += 1
        identity = hashlib.blake2b(str(self.number).encode(), digest_size=8).hexdigest()
        fields = {"occurred_at": self.time, "evidence": True, "identity": identity, **more}
        change = Change(record=record, kind=kind, aspect=aspect, raw="{}", **fields)
        self.under_way.append(change)

    def latch_by_hand(self, customer_id: int, slot: Slot, id_: str | None) -> None:
        """A person sets a slot in Fusebill."""
        value: Any = id_
        if id_ is not None and slot in (Slot.HUBSPOT_CONTACT, Slot.HUBSPOT_COMPANY):
            value = int(id_)
        self.fusebill.edit(customer_id, {SLOT_FIELD[slot]: value})

    def held(self) -> dict[tuple[int, Slot], str]:
        """What customers hold."""
        return slots_of(self.fusebill)

    # --- what the product does

    def deliver(self, changes: list[Change]) -> None:
        """The sender delivers these in one request."""
        self.inbox.accept(changes)
        self.sent += changes

    def work(self, mailbox: str) -> None:
        """A worker takes a mailbox; it may vanish under way."""
        self.at_work.append(set())
        try:
            self._worker().converge(mailbox)
        except Vanished:
            self._expire(mailbox)
        finally:
            self.at_work.pop()
            self.steps_to_live = None

    def due(self) -> list[str]:
        """The mailboxes that owe work, in back-off or not."""
        return sorted(str(one) for one in self.client.zrange("sw:due", 0, -1))

    def pass_time(self) -> None:
        """As if every back-off, lease and suspicion had run out."""
        for mailbox in self.due():
            self.client.zadd("sw:due", {mailbox: 1})
        suspects = list(self.client.scan_iter("sw:suspect:*", count=1000))
        if suspects:
            self.client.delete(*suspects)

    def drain(self) -> None:
        """Work until nothing is owed."""
        for _ in range(TURNS):
            self.pass_time()
            due = self.due()
            if not due:
                return
            for mailbox in due:
                self.work(mailbox)
            self.sweeper.run_if_due()
        raise AssertionError(f"still owed after {TURNS} turns: {self.due()}")

    def _expire(self, mailbox: str) -> None:
        """The leases of the worker that had this mailbox run out."""
        token = self.client.hget(f"sw:work:{mailbox}", "token")
        for key in self.client.scan_iter("sw:work:*", count=1000):
            if self.client.hget(key, "token") == token:
                self.client.hset(key, "until", 1)
        for key in self.client.scan_iter("sw:lease:*", count=1000):
            if self.client.get(key) == token:
                self.client.delete(key)
        if self.client.get("sw:alone") == token:
            self.client.delete("sw:alone")

    def _step(self, when: str, what: str, customer_id: int | None) -> None:
        """Between any two steps the worker may vanish."""
        if self.steps_to_live is not None:
            self.steps_to_live -= 1
            if self.steps_to_live < 0:
                raise Vanished
        if when == "before":
            self.interrupt()
        if what == "read" and self.at_work:
            self.at_work[-1].add(customer_id or 0)
        if what == "write":
            self._watch_write(when, customer_id or 0)

    def _watch_write(self, when: str, customer_id: int) -> None:
        now = {
            slot: id_ for (customer, slot), id_ in self.held().items() if customer == customer_id
        }
        if when == "before":
            assert self.client.exists(f"sw:lease:{customer_id}"), "a write without a lease (B5.3)"
            others = set().union(*self.at_work[:-1])
            assert customer_id not in others, "two at work on one customer (B5.3)"
            self._before = now
            return
        assert now != self._before, f"a needless write to customer {customer_id} (B5.1)"
        self.writes.append((customer_id, self._before, now))
        self.written(customer_id, self._before, now)

    # --- what people see

    def letters(self) -> list[DeadLetter]:
        """The dead letters that wait."""
        return list(dead_letters.find(self.client, Filter()))

    def told(self) -> list[str]:
        """What was settled, for a failed test to show."""
        return [
            f"{e.record} {e.kind}@{e.occurred_at - NOW}: {e.outcome} {e.detail}"
            for _, e in events.settled(self.client)
        ]
