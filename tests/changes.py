"""Makes changes for tests, so that each names only what matters to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sync_worker.decide.fold import Company, Latch, Wish
from sync_worker.decide.match import Link
from sync_worker.decide.plan import Party
from sync_worker.decide.subject import Box, Subject
from sync_worker.domain import (
    Aspect,
    Change,
    Customer,
    Kind,
    Marks,
    Pending,
    Presence,
    Record,
    RecordType,
    Slot,
    SlotState,
    Source,
    Truth,
)

CONTACT = Record(Source.HUBSPOT, "24681357", RecordType.CONTACT, "512340077981")
COMPANY = Record(Source.HUBSPOT, "24681357", RecordType.COMPANY, "330222354907")
ACCOUNT = Record(Source.SALESFORCE, "00D5g000007Kp2Q", RecordType.ACCOUNT, "0015g00001LwZ3kAAF")
GEOTAB = Record(Source.GEOTAB, "ACCT01", RecordType.CUSTOMER, "0070441")
RECORDS = (CONTACT, COMPANY, ACCOUNT, GEOTAB)

NOW = 1_795_183_387_000
"""2026-11-20T14:03:07Z in milliseconds."""


def linked(record: Record = CONTACT, customer: str = "8714402", **more: Any) -> Change:
    """The record names a customer."""
    return _change(record, Kind.LINKED, Aspect.LINK, customer_id=customer, **more)


def unlinked(record: Record = CONTACT, **more: Any) -> Change:
    """The record names no customer any more."""
    return _change(record, Kind.UNLINKED, Aspect.LINK, **more)


def deleted(record: Record = CONTACT, **more: Any) -> Change:
    """The record is gone."""
    return _change(record, Kind.DELETED, Aspect.EXISTENCE, **more)


def restored(record: Record = CONTACT, **more: Any) -> Change:
    """The record is back."""
    return _change(record, Kind.RESTORED, Aspect.EXISTENCE, **more)


def merged(record: Record = CONTACT, *ids: str, **more: Any) -> Change:
    """The records of those ids were merged into this one."""
    return _change(record, Kind.MERGED, Aspect.EXISTENCE, merged_ids=ids, **more)


def associated(company: str = COMPANY.id, record: Record = CONTACT, **more: Any) -> Change:
    """The contact belongs to that company now; the event does not say whether first of all."""
    return _change(record, Kind.ASSOCIATED, Aspect.COMPANY, company_id=company, **more)


def dissociated(company: str = COMPANY.id, record: Record = CONTACT, **more: Any) -> Change:
    """The contact belongs to that company no more."""
    return _change(record, Kind.DISSOCIATED, Aspect.COMPANY, company_id=company, **more)


def touched(record: Record = CONTACT, **more: Any) -> Change:
    """Only a read could tell what happened to the record."""
    return _change(record, Kind.TOUCHED, Aspect.EXISTENCE, **more)


def hinted(record: Record = CONTACT, **more: Any) -> Change:
    """The record names its customer by something other than its Fusebill id."""
    return _change(record, Kind.LINKED, Aspect.HINT, **more)


def _change(record: Record, kind: Kind, aspect: Aspect, **more: Any) -> Change:
    fields = {"occurred_at": NOW, "evidence": True, "raw": "{}", **more}
    return Change(record=record, kind=kind, aspect=aspect, **fields)


def pending(*changes: Change, received_at: int = NOW) -> list[Pending]:
    """Those changes as stored, in this order of arrival."""
    return [Pending(seq, received_at, change) for seq, change in enumerate(changes, start=1)]


def customer(customer_id: int = 8714402, **slots: str | SlotState) -> Customer:
    """A customer whose slots are empty but for those named."""
    all_slots: dict[Slot, str | SlotState] = dict.fromkeys(Slot, SlotState.EMPTY)
    all_slots.update({Slot(name): value for name, value in slots.items()})
    return Customer(customer_id, "Active", None, all_slots)


def named(like: Record, id_: str) -> Record:
    """Another record of the same kind."""
    return msgspec.structs.replace(like, id=id_)


def truth(
    record: Record = CONTACT,
    link: str | None = "",
    presence: Presence = Presence.PRESENT,
    **more: Any,
) -> Truth:
    """What the CRM says of a record: by default that it is there, its link field empty."""
    return Truth(record=record, presence=presence, link=link, **more)


def subject(
    *changes: Change,
    record: Record = CONTACT,
    marks: Marks | None = None,
    former: Mapping[Record, Marks] | Iterable[Record] = (),
    received_at: int = NOW,
) -> Subject:
    """A record with those changes in this order of arrival, each in the mailbox it is of."""
    known = dict.fromkeys(former, Marks()) if not isinstance(former, Mapping) else former
    boxes = {record: marks or Marks(), **known}
    stored = pending(*changes, received_at=received_at)
    return Subject(
        tuple(
            Box(of, its, tuple(one for one in stored if one.change.record == of))
            for of, its in boxes.items()
        )
    )


def party(
    wish: Wish,
    links: Mapping[int, Link] | None = None,
    *,
    marks: Marks | None = None,
    former: Mapping[Record, Marks] | Iterable[Record] = (),
    changes: Iterable[Change] = (),
    company: Company | None = None,
    claims: str | None = None,
    **more: Any,
) -> Party:
    """A record that takes part in a plan; it claims the customer that it is to be latched to."""
    if claims is None and isinstance(wish, Latch):
        claims = str(wish.customer_id)
    who = subject(*changes, record=wish.record, marks=marks, former=former)
    return Party(who, wish, links or {}, company, claims, **more)
