"""Everything of the product but its processes, among simulated remote systems over real HTTP.

Quick enough for hundreds of tests: the receiver's application, a worker's converger and a sweeper,
called by hand instead of by gunicorn, Celery and beat, on a real Redis.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import redis

from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from simulators.fusebill.server import SimulatedFusebill
from simulators.hubspot import HubSpotWorld, SimulatedHubSpot
from simulators.myadmin.contacts import Contacts
from simulators.myadmin.server import SimulatedMyAdmin
from simulators.salesforce.accounts import Accounts
from simulators.salesforce.server import SimulatedSalesforce
from sync_worker import dead_letters, events, history, probe, releases, replay, settings
from sync_worker.batch import Batches, Worked
from sync_worker.calls import Account
from sync_worker.converge import Converger, Ended
from sync_worker.dead_letters import DeadLetter, Filter
from sync_worker.domain import Change, Record, Source, salesforce_id_18
from sync_worker.fusebill.budget import Budget
from sync_worker.fusebill.client import FusebillClient
from sync_worker.gates import Gates
from sync_worker.inbox import Inbox
from sync_worker.links import LinkIndex
from sync_worker.runtime import make_readers
from sync_worker.store import now_ms
from sync_worker.sweep import Sweeper
from sync_worker.together import Together
from tests.changes import linked, named
from tests.receiving import SETTINGS, Door, Sent
from webhooks import samples

N, OTHER, THIRD = 8714402, 8714403, 8714404
"""The customers that there are."""

ORG = "00D5g000007Kp2Q"
ACCOUNT_FIELDS = ("Name", "AccountNumber", "Fusebill_Id__c")

MOST_TURNS = 100
"""A mailbox that is due again and again has no end."""


def numbered(like: Record, number: int) -> Record:
    """Another record of the same kind, of so many that each has a number."""
    if like.source is Source.SALESFORCE:
        return named(like, salesforce_id_18(f"{like.id[:10]}{number:05}"))
    return named(like, f"{like.id[:-5]}{number:05}")


class Crms:
    """The three CRMs, and the settings by which the product may read them."""

    def __init__(self) -> None:
        self.hubspot = SimulatedHubSpot()
        self.salesforce = SimulatedSalesforce()
        self.myadmin = SimulatedMyAdmin()
        self._all = (self.hubspot, self.salesforce, self.myadmin)

    def __enter__(self) -> Crms:
        for one in self._all:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._all:
            one.stop()

    def reset(self) -> None:
        """Empty all of them."""
        for one in self._all:
            one.control.clear_faults()
            one.control.clear_calls()
        self.hubspot.world = HubSpotWorld()
        self.hubspot.portal_id = int(SETTINGS["hubspot_portal_id"])
        self.salesforce.accounts = Accounts(ACCOUNT_FIELDS)
        self.salesforce.org_id = ORG
        self.salesforce.expire_sessions()
        self.myadmin.contacts = Contacts()
        self.myadmin.rewrite = None

    def access(self, *sources: Source) -> dict[str, Any]:
        """Read access to these."""
        ways = {
            Source.HUBSPOT: {
                "hubspot_base_url": self.hubspot.url,
                "hubspot_access_token": self.hubspot.access_token,
            },
            Source.SALESFORCE: {
                "salesforce_instance_url": self.salesforce.url,
                "salesforce_client_id": self.salesforce.client_id,
                "salesforce_client_secret": self.salesforce.client_secret,
            },
            Source.GEOTAB: {
                "geotab_myadmin_url": self.myadmin.url,
                "geotab_myadmin_username": self.myadmin.username,
                "geotab_myadmin_password": self.myadmin.password,
            },
        }
        return {name: value for source in sources for name, value in ways[source].items()}


class World:
    """One store, one Fusebill, the CRMs where they may be read, and a worker between them."""

    def __init__(
        self,
        client: redis.Redis,
        fusebill: SimulatedFusebill,
        crms: Crms | None = None,
        **defaults: Any,
    ) -> None:
        self.client = client
        self.fusebill = fusebill
        self.control = fusebill.control
        self._crms = crms
        self._defaults = defaults
        self._closing: list[Callable[[], None]] = []
        self.now = 1000.0
        self.use()

    @property
    def crms(self) -> Crms:
        assert self._crms is not None
        return self._crms

    def use(self, *reads: Source, **overrides: Any) -> None:
        """Work with other settings from now on, and with read access to these sources."""
        access = self.crms.access(*reads) if reads else {}
        self.settings = settings.Settings(
            _env_file=None,
            fusebill_base_url=self.fusebill.url,
            fusebill_api_key=self.fusebill.api_key,
            **{
                "fusebill_read_timeout_seconds": 5,
                **SETTINGS,
                **self._defaults,
                **access,
                **overrides,
            },
        )
        current = self.settings
        self.inbox = Inbox.of(self.client, current)
        self.http = FusebillClient(
            current.fusebill_base_url,
            self.fusebill.api_key,
            read_timeout=current.fusebill_read_timeout_seconds,
            salesforce_unlatch_path=current.fusebill_salesforce_unlatch_path,
        )
        self.links = LinkIndex(self.client, base_url=current.fusebill_base_url)
        readers = make_readers(current)
        self._closing += [self.http.close, *(reader.close for reader in readers.values())]
        self.gates = Gates(self.client, breaker_failures=current.breaker_failures)
        self.budget = Budget.of(self.client, current)
        self.account = Account.of(self.client, self.http, self.links, self.gates, self.budget)
        self.converger = Converger(
            self.inbox,
            self.account,
            current,
            readers,
            monotonic=lambda: self.now,
            jitter=lambda: 0.0,
        )
        self.sweeper = Sweeper(self.client, self.account, every_seconds=0)
        self.together = Together(
            self.client,
            self.inbox,
            self.account,
            self.sweeper,
            current.fusebill_calls_per_minute,
        )
        self.batches = Batches(self.converger, self.together)
        self._closing.append(self.batches.close)
        self._door: Door | None = None

    @property
    def door(self) -> Door:
        """The receiver."""
        if self._door is None:
            self._door = Door(self.client, settings=self.settings)
        return self._door

    def probe(self) -> None:
        """Probe what has its gate shut, as beat and a worker do when it is time."""
        self.gates.resume()
        for name in self.gates.to_probe():
            turn = self.gates.take_turn(name, seconds=60)
            verdict, why = probe.probe(name, self.settings, self.budget)
            assert turn is not None
            if verdict is not None:
                self.gates.report(name, verdict, why=why, began=turn.began)
            self.gates.end_turn(turn)

    def close(self) -> None:
        for close in self._closing:
            close()

    # --- what comes in

    def feed(self, *changes: Change) -> Ended:
        """Accept changes and converge the record of the first."""
        self.inbox.accept(changes)
        return self.converge(changes[0].record)

    def deliver(self, name: str, **values: Any) -> None:
        """Have a sample of the vendor's own request come in, as signed by the vendor."""
        self.send(self.sample(name, **values))

    def sample(self, name: str, **values: Any) -> Sent:
        """That request."""
        built = samples.build(name, self.settings, now=time.time(), **values)
        return Sent(built.path, built.body, built.headers)

    def send(self, sent: Sent, *, status: int | None = None) -> Any:
        """Have a request come in; it is to be taken, unless another status is named."""
        answer = self.door.send(sent)
        assert answer.status_code in ((200, 202) if status is None else (status,)), answer.text
        return answer

    # --- what the worker does

    def converge(self, record: Record) -> Ended:
        return self.converger.converge(record.mailbox)

    def work(self) -> None:
        """Converge whatever is due, until nothing is."""
        for _ in range(MOST_TURNS):
            due = self.client.zrangebyscore("sw:due", "-inf", self.store_ms())
            if not due:
                return
            for mailbox in due:
                self.converger.converge(mailbox)
        raise AssertionError(f"due again and again: {due}")

    def crowd(
        self, like: Record, count: int = 20, *, first: int = 1001, **slots: Any
    ) -> dict[int, Record]:
        """So many customers, and the record of each that is now to be latched to it."""
        crowd = {n: numbered(like, n) for n in range(first, first + count)}
        self.control.put_customers(*(Customer(id=n, **slots) for n in crowd))
        self.tell(crowd)
        return crowd

    def tell(self, crowd: Mapping[int, Record], **more: Any) -> None:
        """Have each record say that it belongs to its customer, a moment ago."""
        self.inbox.accept([linked(record, str(n), **more) for n, record in crowd.items()])
        self.pass_a_moment()

    def work_together(self, *records: Record) -> Worked:
        """Work through the mailboxes of these as one batch."""
        return self.batches.work_through([record.mailbox for record in records])

    def sweep(self) -> bool:
        """What beat does when a mailbox waits for a sweep."""
        self.pass_a_moment()
        return self.sweeper.run_if_due()

    def settle(self, *records: Record) -> None:
        """Work, let the grace of these records' releases pass, sweep, and work on what waited."""
        for _ in range(4):
            self.work()
            for record in records:
                self.age(record, 31)
            self.work()
            self.sweep()
            self.work()

    # --- time

    def store_ms(self) -> int:
        return now_ms(self.client)

    def sweep_all(self) -> None:
        """Have all customers swept, though no mailbox waits for it."""
        self.client.zadd("sw:sweep:waiting", {"nobody": 0})
        assert self.sweep()

    def pass_a_moment(self) -> None:
        """Go on to another millisecond: what is read then is known to be newer than what came."""
        now = self.store_ms()
        while self.store_ms() == now:
            pass

    def pass_time(self, *records: Record) -> None:
        """Make mailboxes that wait in back-off due."""
        for record in records:
            self.client.zadd("sw:due", {record.mailbox: 1}, xx=True)

    def age(self, record: Record, seconds: float) -> None:
        """As if what waits in a mailbox had been received so much earlier."""
        box = f"sw:box:{record.mailbox}"
        for seq, stored in self.client.hgetall(box).items():
            received, _, form = stored.partition("|")
            self.client.hset(box, seq, f"{int(received) - int(seconds * 1000)}|{form}")
        self.pass_time(record)

    def forget_suspicion(self) -> None:
        """As if LATE_WRITE_SECONDS had passed."""
        self.client.delete(*[f"sw:suspect:{customer}" for customer in (N, OTHER, THIRD)])

    def waits_seconds(self, record: Record) -> float:
        """How far off the mailbox's next try is."""
        due = self.client.zscore("sw:due", record.mailbox)
        assert due is not None
        return (due - self.store_ms()) / 1000

    # --- people and other hands

    def read_slowly(
        self, seconds: float, *, meanwhile: Mapping[str, Any] = {}, customer: int = N
    ) -> None:
        """Have the next read take so long, and another hand change the customer at its end."""
        read = self.http.get_customer

        def slow(customer_id: int) -> Any:
            self.http.get_customer = read
            answer = read(customer_id)
            self.now += seconds
            self.control.edit_customer(customer, **meanwhile)
            return answer

        self.http.get_customer = slow

    def refuse(self, customer: int, text: str = "It breaks a business rule.") -> None:
        """Have Fusebill refuse every latch of a customer for good; of its releases none."""
        fault = Fault(method="POST", path="/latch", customer_id=customer, status=400, text=text)
        self.control.add_fault(fault)

    def replay(self) -> replay.Replayed:
        """Have every open dead letter replayed, and worked on."""
        planned = replay.plan(self.letters())
        return self._run(planned)

    def apply_dry_run(self, *outcomes: str) -> replay.Replayed:
        """`replay --outcome would_*`; the work is left to do."""
        wanted = replay.KeptFilter(outcomes=frozenset(outcomes) or replay.EVERY_OUTCOME)
        return self._run(replay.plan_dry_run(self.client, wanted))

    def _run(self, planned: Any) -> replay.Replayed:
        return replay.run(self.client, planned, wake=lambda _: None, sleep=lambda _: None)

    def rule(self, record: Record, ruling: releases.Ruling) -> bool:
        """Approve or discard what the brake holds of a record."""
        (held,) = [one for one in releases.held(self.client) if one.record == record.mailbox]
        return releases.rule(self.client, held, ruling)

    # --- what came of it

    def outcomes(self) -> list[tuple[str, str]]:
        return [(event.outcome, event.detail) for _, event in events.settled(self.client)]

    def last(self) -> tuple[str, str]:
        return self.outcomes()[-1]

    def outcomes_of(self, record: Record) -> list[str]:
        """The outcomes of a record's changes, in the order they were settled."""
        found = (event for _, event in events.settled(self.client))
        return [event.outcome for event in found if event.record == record.mailbox]

    def letters(self, *states: str) -> list[DeadLetter]:
        wanted = Filter(states=frozenset(states)) if states else Filter()
        return list(dead_letters.find(self.client, wanted))

    def letter(self) -> DeadLetter:
        """The one that there is."""
        (letter,) = self.letters()
        return letter

    def waiting(self) -> set[str]:
        """The mailboxes that owe work."""
        return set(self.client.zrange("sw:due", 0, -1))

    def writes(self) -> list[tuple[str, Any]]:
        return [(call.path, call.body) for call in self.control.calls(method="POST")]

    def reads(self) -> int:
        return len(self.control.calls(method="GET"))

    def customer(self, customer_id: int = N) -> Customer:
        return self.control.customer(customer_id)

    def turns(self, customer_id: int = N) -> list[history.Turn]:
        """The history of a customer."""
        return history.of_customer(self.client, self.links.account, customer_id)

    def contacts(self) -> list[int | None]:
        """The contact of each customer."""
        return self.slots("hub_spot_id")

    def slots(self, field: str, customers: Iterable[int] = (N, OTHER, THIRD)) -> list[Any]:
        """What that field of each customer holds."""
        return [getattr(self.customer(one), field) for one in customers]
