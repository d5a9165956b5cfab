"""A world of records that change, and the model of what their customers hold in the end.

Each record has a few customers in whose slot it is the only claimant, so the model is simple: the
newest change of a record, by the time it occurred, says which customer it is linked to (B3.8). The
four kinds of record share their customers, so that their workers meet there (B5.3, B5.4).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from simulators.fusebill.customer import Customer
from simulators.fusebill.options import SlotField
from sync_worker.domain import Record, RecordType, Source, salesforce_id_18
from sync_worker.settings import Settings

UNLATCH_PATH = "/v1/Salesforce/Unlatch"
"""None is documented (B5.6); the world has one, so that every record can be unlinked."""

CUSTOMERS_OF_A_RECORD = 3

UNLINKED_SHARE = 0.25

STEP_MS = 1000
"""Between two changes of one record: HubSpot and CDC tell milliseconds, and so does SOAP here."""


class Channel(Enum):
    """By which kind of webhook the changes of a record come."""

    HUBSPOT = "hubspot"
    SOAP = "soap"
    CDC = "cdc"
    GEOTAB = "geotab"


@dataclass(frozen=True)
class Member:
    """A record, where its changes come from, and the customers that are its own."""

    record: Record
    channel: Channel
    field: SlotField
    customers: tuple[int, ...]

    @property
    def mailbox(self) -> str:
        return self.record.mailbox


@dataclass(frozen=True)
class News:
    """A change: the record is linked to this customer from then on, or to none."""

    number: int
    member: Member
    customer: int | None
    occurred_at: int

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from all others, also in the audit."""
        return self.member.mailbox, self.occurred_at


class Census:
    """Gives out records and customers that nobody else has."""

    def __init__(self, current: Settings, *, first_customer: int = 1000) -> None:
        self._settings = current
        self._next_customer = first_customer
        self._next_record = 0
        self._new: list[int] = []

    def take_customers(self, count: int = CUSTOMERS_OF_A_RECORD) -> tuple[int, ...]:
        """New customers."""
        taken = tuple(range(self._next_customer, self._next_customer + count))
        self._next_customer += count
        self._new += taken
        return taken

    def member(self, kind: RecordType, customers: tuple[int, ...], *, soap: bool = False) -> Member:
        """A new record."""
        self._next_record += 1
        n = self._next_record
        match kind:
            case RecordType.CONTACT:
                at, field, id_ = Source.HUBSPOT, "hubSpotId", str(512_340_000_000 + n)
            case RecordType.COMPANY:
                at, field, id_ = Source.HUBSPOT, "hubSpotCompanyId", str(330_220_000_000 + n)
            case RecordType.ACCOUNT:
                at, field = Source.SALESFORCE, "salesforceId"
                id_ = salesforce_id_18(f"0015g00000{n:05}")
            case _:
                at, field, id_ = Source.GEOTAB, "geotabId", f"{n:07}"
        channel = {
            Source.HUBSPOT: Channel.HUBSPOT,
            Source.SALESFORCE: Channel.SOAP if soap else Channel.CDC,
            Source.GEOTAB: Channel.GEOTAB,
        }[at]
        record = Record(at, self._settings.tenant(at) or "", kind, id_)
        return Member(record, channel, field, customers)

    def family(self, *, soap: bool) -> list[Member]:
        """One record of each kind, all of them with the same customers."""
        shared = self.take_customers()
        return [self.member(kind, shared, soap=soap) for kind in RecordType]

    def people(self) -> list[Customer]:
        """The customers that were given out since this was asked last, as Fusebill has them."""
        new, self._new = self._new, []
        return [Customer(id=one) for one in new]


def history(
    dice: random.Random, members: Sequence[Member], changes: int, *, begins: int
) -> list[News]:
    """So many changes, each record having at least one; in the order in which they occur."""
    whose = [*members, *dice.choices(members, k=changes - len(members))]
    dice.shuffle(whose)
    return [
        News(n, member, _target(dice, member), begins + n * STEP_MS)
        for n, member in enumerate(whose, start=1)
    ]


def _target(dice: random.Random, member: Member) -> int | None:
    """No Outbound Message empties the field here: one that overtakes the message that filled it is
    no news (B3.6), so that the newest would not win.
    """
    may_be_none = member.channel is not Channel.SOAP
    if may_be_none and dice.random() < UNLINKED_SHARE:
        return None
    return dice.choice(member.customers)


Slots = dict[tuple[int, SlotField], str]
"""Customer and slot -> the id it holds."""


def expected(news: Iterable[News]) -> Slots:
    """What the customers hold once all of it has arrived (B3.8)."""
    newest: dict[str, News] = {}
    for one in news:
        before = newest.get(one.member.mailbox)
        if before is None or before.occurred_at <= one.occurred_at:
            newest[one.member.mailbox] = one
    return {
        (one.customer, one.member.field): _as_held(one.member)
        for one in newest.values()
        if one.customer is not None
    }


def held(customers: Iterable[Customer]) -> Slots:
    """What they hold now."""
    fields: tuple[SlotField, ...] = ("hubSpotId", "hubSpotCompanyId", "salesforceId", "geotabId")
    return {
        (customer.id, field): str(value)
        for customer in customers
        for field in fields
        if (value := customer.slot(field)) is not None
    }


def _as_held(member: Member) -> str:
    """Fusebill tells a Salesforce id with 15 characters."""
    id_ = member.record.id
    return id_[:15] if member.record.source is Source.SALESFORCE else id_
