"""Makes changes for tests, so that each names only what matters to it."""

from __future__ import annotations

from typing import Any

from sync_worker.domain import (
    Aspect,
    Change,
    Customer,
    Kind,
    Pending,
    Record,
    RecordType,
    Slot,
    SlotState,
    Source,
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
