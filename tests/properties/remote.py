"""Fusebill and the CRMs without HTTP: fast enough for ten thousand worlds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from simulators.fusebill.customer import Customer, spell
from simulators.fusebill.world import Refused, World
from sync_worker.domain import Attempt, Presence, Record, RecordType, Slot, Source, Truth
from sync_worker.domain import Customer as Seen
from sync_worker.fusebill import errors
from sync_worker.fusebill.customer import CustomerPage, parse_customer
from sync_worker.fusebill.limits import RateLimits

SLOT_FIELD = {
    Slot.HUBSPOT_CONTACT: "hubSpotId",
    Slot.HUBSPOT_COMPANY: "hubSpotCompanyId",
    Slot.SALESFORCE_ACCOUNT: "salesforceId",
    Slot.GEOTAB_CUSTOMER: "geotabId",
}


def slots_of(world: World) -> dict[tuple[int, Slot], str]:
    """What every customer holds, in canonical spelling."""
    held = {}
    for customer in world.all():
        for slot, value in parse_customer(spell(customer)).slots.items():
            if isinstance(value, str):
                held[customer.id, slot] = value
    return held


class DirectFusebill:
    """The methods of `FusebillClient` on a simulated world in the same process.

    `around` is told each call, before and after it took effect, and may raise.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.limits = RateLimits()
        self.on_call: Callable[[Attempt], None] | None = None
        self.around: Callable[[str, str, int | None], None] = lambda *_: None

    def probe(self) -> CustomerPage:
        """It always answers."""
        return CustomerPage((), 0, 0)

    def get_customer(self, customer_id: int) -> Seen:
        return self._call("read", customer_id, lambda: self.world.read(customer_id))

    def latch_hubspot(self, customer_id: int, *, contact: str | None, company: str | None) -> Seen:
        sent = {"hubSpotId": _number(contact), "hubSpotCompanyId": _number(company)}
        return self._call("write", customer_id, lambda: self.world.latch_hubspot(customer_id, sent))

    def unlatch_hubspot(self, customer_id: int) -> Seen:
        return self._call("write", customer_id, lambda: self.world.unlatch_hubspot(customer_id))

    def latch_salesforce(self, customer_id: int, account_id: str, *, force: bool) -> Seen:
        return self._call(
            "write",
            customer_id,
            lambda: self.world.latch_salesforce(customer_id, account_id, force=force),
        )

    def unlatch_salesforce(self, customer_id: int) -> Seen:
        return self._call("write", customer_id, lambda: self.world.unlatch_salesforce(customer_id))

    def latch_geotab(self, customer_id: int, geotab_id: str) -> Seen:
        return self._call(
            "write", customer_id, lambda: self.world.latch_geotab(customer_id, geotab_id)
        )

    def unlatch_geotab(self, customer_id: int) -> Seen:
        return self._call("write", customer_id, lambda: self.world.unlatch_geotab(customer_id))

    def list_customers(
        self, *, page: int, page_size: int = 1000, query: str | None = None
    ) -> CustomerPage:
        self.around("before", "list", None)
        rows = self.world.find(query or "")
        chosen = rows[page * page_size : (page + 1) * page_size]
        return CustomerPage(tuple(parse_customer(spell(row)) for row in chosen), len(rows), 0)

    def _call(self, kind: str, customer_id: int, act: Callable[[], Customer]) -> Seen:
        self.around("before", kind, customer_id)
        try:
            customer = act()
        except Refused as refused:
            raise _error(refused, customer_id) from None
        self.around("after", kind, customer_id)
        return parse_customer(spell(customer))


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _error(refused: Refused, customer_id: int) -> errors.FusebillError:
    attempt = Attempt(0, "call", refused.status, str(refused))
    if refused.status == 404:
        return errors.CustomerNotFound(str(refused), attempt, customer_id=customer_id)
    return errors.Rejected(str(refused), attempt)


@dataclass
class Entry:
    """A record as its CRM has it."""

    record: Record
    link: str = ""
    deleted: bool = False
    survivor: Record | None = None
    company: str = ""


@dataclass
class Crm:
    """All CRMs, and a reader of each that may be used as the product's."""

    entries: dict[Record, Entry] = field(default_factory=dict)
    on_call: Callable[[Attempt], None] | None = None
    source: Source = Source.HUBSPOT
    around: Callable[[str, str, int | None], None] = lambda *_: None

    def read(self, record: Record) -> Truth:
        """What `crm.Reader.read` gives."""
        self.around("before", "crm", None)
        entry = self.entries.get(record)
        if entry is None:
            return Truth(record=record, presence=Presence.ABSENT)
        survivor = None
        while entry.survivor is not None:
            survivor = entry.survivor
            entry = self.entries[survivor]
        presence = Presence.DELETED if entry.deleted else Presence.PRESENT
        keeps_link = record.source is not Source.GEOTAB and presence is Presence.PRESENT
        is_contact = record.type is RecordType.CONTACT
        return Truth(
            record=record,
            presence=presence,
            survivor=survivor,
            link=entry.link if keeps_link else None,
            company=entry.company if is_contact and keeps_link else None,
        )

    def probe(self) -> None:
        """It always answers."""

    def close(self) -> None:
        """Nothing to close."""

    def live(self) -> Iterator[Entry]:
        """The records that are there."""
        return (e for e in self.entries.values() if not e.deleted and e.survivor is None)
