"""A customer, and how the API spells one (the field set and order of seed 001)."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec

from simulators.fusebill.options import Options, SlotField
from sync_worker.domain import salesforce_id_18

Status = Literal["Draft", "Active", "Hold", "Suspended", "Cancelled"]
"""Every status a customer can have."""

SLOT_FIELDS: tuple[SlotField, ...] = ("salesforceId", "hubSpotId", "hubSpotCompanyId", "geotabId")

ABSENT_FROM_HUBSPOT = ("netsuiteSynchStatus", "geotabId", "createdTimestamp")
"""What the samples of seeds 002 and 004 lack, and those of seeds 000 and 001 have."""

_NESTED_ID_OFFSET = 2_381_852
"""How far the nested ids of seeds 002 and 004 lie from the customer's (172677 of 2554529)."""

_TICKS_PER_SECOND = 10_000_000
"""`modifiedTimestamp` counts in units of 100 ns."""


class Customer(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """One customer. Fields are the API's, in snake case here and camel case in JSON.

    What the API nests or derives (`customerReference`, `customerAcquisition`, `uri`) is put
    there by `spell`; `reference1` to `reference3` are plain fields here.
    """

    id: int
    first_name: str | None = None
    middle_name: str | None = None
    last_name: str | None = None
    company_name: str | None = None
    suffix: str | None = None
    primary_email: str | None = None
    """May hold several addresses, `a@x; b@y` (`ref/customers-2`)."""
    primary_phone: str | None = None
    secondary_email: str | None = None
    secondary_phone: str | None = None
    title: str | None = None
    reference: str | None = None
    status: Status = "Active"
    customer_account_status: str = "Good"
    currency: str = "USD"
    reference1: str | None = None
    reference2: str | None = None
    reference3: str | None = None
    monthly_recurring_revenue: Decimal = Decimal("0.0000")
    net_monthly_recurring_revenue: Decimal = Decimal("0.0000")
    salesforce_id: str | None = None
    """Kept with 15 characters, whichever spelling was given."""
    salesforce_account_type: str | None = None
    salesforce_synch_status: str = "Enabled"
    netsuite_id: str | None = None
    netsuite_synch_status: str = "Enabled"
    netsuite_customer_type: str = ""
    portal_user_name: str | None = None
    parent_id: int | None = None
    quick_books_latch_type: str | None = None
    quick_books_id: str | None = None
    quick_books_sync_token: str | None = None
    hub_spot_id: int | None = None
    hub_spot_company_id: int | None = None
    geotab_id: str | None = None
    modified_timestamp: str = "2026-01-02T08:00:00.0000000Z"
    """UTC with 7 fractional digits and `Z`."""
    created_timestamp: str = "2024-02-07T12:59:17.793"
    """UTC with 3 fractional digits and no `Z`."""

    def __post_init__(self) -> None:
        """Refuse a Salesforce id that is none (ValueError)."""
        if self.salesforce_id is not None:
            msgspec.structs.force_setattr(
                self, "salesforce_id", salesforce_id_18(self.salesforce_id)[:15]
            )

    def slot(self, field: SlotField) -> int | str | None:
        """What the slot of that name holds."""
        held: dict[SlotField, int | str | None] = {
            "salesforceId": self.salesforce_id,
            "hubSpotId": self.hub_spot_id,
            "hubSpotCompanyId": self.hub_spot_company_id,
            "geotabId": self.geotab_id,
        }
        return held[field]


def spell(customer: Customer) -> dict[str, Any]:
    """The customer as the API answers with it, in the order of seed 001."""
    plain = msgspec.to_builtins(customer, builtin_types=(Decimal,))
    nested = {"id": customer.id, "uri": f"/{customer.id}"}
    answer = {name: plain[name] for name in _BEFORE_NESTED}
    answer["customerReference"] = {
        **{name: plain[name] for name in _REFERENCES},
        "salesTrackingCodes": [],
        **nested,
    }
    answer["customerAcquisition"] = {**dict.fromkeys(_ACQUISITION), **nested}
    answer.update({name: plain[name] for name in _AFTER_NESTED})
    answer["id"] = customer.id
    answer["uri"] = f"/customers/{customer.id}"
    return answer


def spell_for_hubspot(customer: Customer, options: Options) -> dict[str, Any]:
    """The customer as HubSpot's latch and unlatch answer with it (seeds 002 and 004)."""
    answer = spell(customer)
    if not options.hubspot_answers_full:
        for name in ABSENT_FROM_HUBSPOT:
            del answer[name]
    if options.hubspot_nested_ids_differ:
        nested = abs(customer.id - _NESTED_ID_OFFSET)
        answer["customerReference"].update(id=nested, uri=f"/{nested}")
        answer["customerAcquisition"].update(id=nested, uri=f"/customers/{nested}")
    return answer


def encode(answer: Any) -> bytes:
    """JSON with decimals as numbers that keep their zeros (`25.9800`)."""
    return _ENCODER.encode(answer)


def timestamp(now_ns: int) -> str:
    """`now_ns` (nanoseconds since the epoch) as `modifiedTimestamp` writes it."""
    ticks = now_ns // 100
    second = datetime.fromtimestamp(ticks // _TICKS_PER_SECOND, UTC)
    return f"{second:%Y-%m-%dT%H:%M:%S}.{ticks % _TICKS_PER_SECOND:07d}Z"


_ENCODER = msgspec.json.Encoder(decimal_format="number")
_FIELDS = tuple(field.encode_name for field in msgspec.structs.fields(Customer))
_REFERENCES = ("reference1", "reference2", "reference3")
_ACQUISITION = ("adContent", "campaign", "keyword", "landingPage", "medium", "source")
_BEFORE_NESTED = _FIELDS[1 : _FIELDS.index("reference1")]
_AFTER_NESTED = _FIELDS[_FIELDS.index("reference3") + 1 :]
