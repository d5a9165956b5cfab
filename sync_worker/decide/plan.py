"""From customers and what is wanted to the call that makes it so (B5.1, B5.4, B5.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sync_worker.decide.fold import Latch, Release, Wanted
from sync_worker.domain import Customer, Outcome, Reason, Record, Slot, SlotState

Value = str | SlotState


@dataclass(frozen=True, slots=True)
class LatchHubSpot:
    """Set both HubSpot ids of a customer; None clears one (B5.4)."""

    customer_id: int
    contact: str | None
    company: str | None


@dataclass(frozen=True, slots=True)
class UnlatchHubSpot:
    """Clear both HubSpot ids of a customer."""

    customer_id: int


@dataclass(frozen=True, slots=True)
class LatchSalesforce:
    """Set the Salesforce Account of a customer whose slot was read empty."""

    customer_id: int
    account_id: str


@dataclass(frozen=True, slots=True)
class UnlatchSalesforce:
    """Clear it, at the path the vendor named (B5.6)."""

    customer_id: int


@dataclass(frozen=True, slots=True)
class LatchGeotab:
    """Set the Geotab reseller customer id of a customer."""

    customer_id: int
    geotab_id: str


@dataclass(frozen=True, slots=True)
class UnlatchGeotab:
    """Clear it."""

    customer_id: int


Call = (
    LatchHubSpot
    | UnlatchHubSpot
    | LatchSalesforce
    | UnlatchSalesforce
    | LatchGeotab
    | UnlatchGeotab
)


@dataclass(frozen=True, slots=True)
class Do:
    """One call, what the customer must look like after it, and the outcome it gives."""

    call: Call
    expect: Mapping[Slot, Value]
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing to call."""

    detail: str
    customers: tuple[int, ...]
    unmet: bool = False
    """What the record claims is not true all the same."""


@dataclass(frozen=True, slots=True)
class Bury:
    """It needs a person."""

    reason: Reason
    message: str
    next_step: str
    customers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """An answer left out what must be known: a missing key is not an empty slot (B7.4)."""

    message: str


@dataclass(frozen=True, slots=True)
class Missing:
    """The customer that is named explicitly is not there (B4.4)."""

    customer_id: int


Settled = Do | Leave | Bury
"""Plans that settle the change, once a call they hold is made."""

Plan = Settled | Unknown | Missing


def plan(
    wanted: Wanted,
    customers: Mapping[int, Customer | None],
    *,
    ours: bool = False,
    salesforce_unlatch: bool = False,
) -> Plan:
    """Plan from what was read; a customer that is not there is None.

    `ours` tells that whoever held the record was released by us, and so nobody holds it.
    `salesforce_unlatch` tells whether a path to unlatch Salesforce is set.
    """
    for one in customers.values():
        if one is not None and one.slots[wanted.record.slot] is SlotState.UNKNOWN:
            return _unknown(one, wanted.record.slot)
    if isinstance(wanted, Latch):
        return _plan_latch(wanted, customers)
    return _plan_release(wanted, customers, ours=ours, salesforce_unlatch=salesforce_unlatch)


def _plan_latch(wanted: Latch, customers: Mapping[int, Customer | None]) -> Plan:
    record, target = wanted.record, customers.get(wanted.customer_id)
    if target is None:
        return Missing(wanted.customer_id)
    occupant = target.slots[record.slot]
    if occupant == record.id:
        return Leave("already latched", (target.id,))
    holders = [one for one in customers.values() if one and one is not target and one.holds(record)]
    if occupant is not SlotState.EMPTY or holders:
        return _taken(wanted, target, occupant, holders)
    return _latch(record, target)


def _taken(wanted: Latch, target: Customer, occupant: Value, holders: list[Customer]) -> Plan:
    concerned = (target.id, *(one.id for one in holders))
    if not wanted.evidence:
        return Leave("claim is not newer than the latch", concerned, unmet=True)  # B3.7
    record = wanted.record
    if occupant is not SlotState.EMPTY:
        return Bury(
            Reason.CONFLICT,
            f"{record.mailbox} names customer {target.id}, whose {record.slot} slot holds "
            f"{occupant}.",
            f"Decide which of the two belongs to customer {target.id}; unlatch {occupant} there "
            "and replay this, or correct the record's link field.",
            concerned,
        )
    held = " and ".join(f"customer {one.id}" for one in holders)
    return Bury(
        Reason.CONFLICT,
        f"{record.mailbox} names customer {target.id}, but {held} holds it.",
        f"If it belongs to customer {target.id}, unlatch it from {held} and replay this; "
        "if not, correct the record's link field.",
        concerned,
    )


def _latch(record: Record, target: Customer) -> Plan:
    expect: dict[Slot, Value] = {record.slot: record.id}
    if record.slot is Slot.SALESFORCE_ACCOUNT:
        return Do(LatchSalesforce(target.id, record.id), expect, Outcome.LATCHED)
    if record.slot is Slot.GEOTAB_CUSTOMER:
        return Do(LatchGeotab(target.id, record.id), expect, Outcome.LATCHED)
    return _set_hubspot(target, record.slot, record.id, Outcome.LATCHED)


def _plan_release(
    wanted: Release,
    customers: Mapping[int, Customer | None],
    *,
    ours: bool,
    salesforce_unlatch: bool,
) -> Plan:
    record = wanted.record
    read = [one for one in customers.values() if one is not None]
    holders = [one for one in read if one.holds(record)]
    if len(holders) > 1:
        return Bury(
            Reason.AMBIGUOUS_MATCH,
            f"{record.mailbox} is to be released, but several customers hold it: "
            f"{', '.join(str(one.id) for one in holders)}.",
            "Unlatch it in Fusebill from those it does not belong to, then replay this.",
            tuple(one.id for one in holders),
        )
    if holders:
        return _release(record, holders[0], salesforce_unlatch=salesforce_unlatch)
    if read and (ours or wanted.only is not None):
        names = ", ".join(str(one.id) for one in read)
        return Leave(f"customer {names} does not hold it", tuple(one.id for one in read))
    if wanted.only is not None:
        return Missing(wanted.only)
    return Bury(
        Reason.CUSTOMER_NOT_FOUND,
        f"{record.mailbox} is to be released, but it is not known which customer holds it.",
        "If a customer in Fusebill shows it, unlatch it there by hand; else nothing is to be done.",
        (),
    )


def _release(record: Record, holder: Customer, *, salesforce_unlatch: bool) -> Plan:
    slot = record.slot
    expect: dict[Slot, Value] = {slot: SlotState.EMPTY}
    if slot is Slot.GEOTAB_CUSTOMER:
        return Do(UnlatchGeotab(holder.id), expect, Outcome.UNLATCHED)
    if slot is Slot.SALESFORCE_ACCOUNT:
        if salesforce_unlatch:
            return Do(UnlatchSalesforce(holder.id), expect, Outcome.UNLATCHED)
        return Bury(
            Reason.UNLATCH_UNSUPPORTED,
            f"{record.mailbox} is to be released from customer {holder.id}, but Fusebill documents "
            "no call that unlatches Salesforce.",
            "Clear it with Fusebill's bulk job (Customer, Manage Salesforce, TargetSalesforceID "
            "`clear`), or set FUSEBILL_SALESFORCE_UNLATCH_PATH and replay this.",
            (holder.id,),
        )
    return _set_hubspot(holder, slot, None, Outcome.UNLATCHED)


def _set_hubspot(customer: Customer, slot: Slot, value: str | None, outcome: Outcome) -> Plan:
    """Set one HubSpot slot and keep the other as it was read (B5.4)."""
    contact = slot is Slot.HUBSPOT_CONTACT
    other_slot = Slot.HUBSPOT_COMPANY if contact else Slot.HUBSPOT_CONTACT
    other = customer.slots[other_slot]
    if other is SlotState.UNKNOWN:
        return _unknown(customer, other_slot)
    kept = None if other is SlotState.EMPTY else str(other)
    expect: dict[Slot, Value] = {slot: value or SlotState.EMPTY, other_slot: other}
    if value is None and kept is None:
        return Do(UnlatchHubSpot(customer.id), expect, outcome)
    ids = (value, kept) if contact else (kept, value)
    return Do(LatchHubSpot(customer.id, *ids), expect, outcome)


def _unknown(customer: Customer, slot: Slot) -> Unknown:
    return Unknown(
        f"Fusebill's answer for customer {customer.id} leaves out its {slot} slot, so nothing was "
        "changed: check that the integration is switched on for this Fusebill account"
    )
