"""A Fusebill customer, and a page of them, as its API writes them, read into `domain.Customer`.

The shape is that of the vendor pages' samples (Geotab 'Latch Customer' and 'Unlatch
Customer', HubSpot 'Latch Customer' and 'Unlatch Customer'). Only these keys are looked at:

    {"id": 8714402, "status": "Active", "reference": "NG-0042",
     "primaryEmail": "a@x.example; b@y.example",
     "hubSpotId": 101, "hubSpotCompanyId": null,
     "salesforceId": "0015g00001LwZ3k", "geotabId": "0070441"}

The HubSpot pages' samples have no `geotabId`: a missing key is unknown, not empty (B7.4).
The objects inside (`customerReference`, `customerAcquisition`) carry ids of their own, which
differ from the customer's in those samples, so only the top-level `id` counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sync_worker.domain import Customer, Slot, SlotState, salesforce_id_18

_LARGEST_ID = 2**64 - 1
"""No system of ours numbers beyond 64 bits; a longer number is damage, not an id."""


_BETWEEN_EMAILS = re.compile("[;,]")
"""`primaryEmail` separates addresses by `;` (vendor page 'Customers'); people also type `,`."""


class CustomerPage(msgspec.Struct, frozen=True):
    """One page of a list of customers (vendor page 'List Customers')."""

    customers: tuple[Customer, ...]
    """The rows that could be read, in the order of the answer."""
    total: int | None
    """How many customers match on all pages: `X-Count`; None if that is missing or unreadable."""
    broken: int
    """How many more rows there were that are no customer: any customer may be behind them."""

    @property
    def rows(self) -> int:
        """How many rows the page had, read or not."""
        return len(self.customers) + self.broken


class NotACustomer(ValueError):
    """The payload is no Fusebill customer that can be read.

    The message names the key at fault and the kind of its value, never the value itself: it
    may be anything, a person's data too (B10.4).
    """


def parse_customer(payload: object) -> Customer:
    """Read a decoded JSON answer as a customer.

    A slot key that is missing or holds no id of its kind becomes `SlotState.UNKNOWN`; null, ""
    and a HubSpot id of 0 become `SlotState.EMPTY`. Ids come out canonical, as in `Record.id`:
    HubSpot numbers as decimal text (exact, also beyond 2^53), Salesforce ids with 18 characters,
    Geotab ids unchanged. A missing `status` becomes "", a missing or empty `reference` None, a
    missing or empty `primaryEmail` no `emails`.

    Raises NotACustomer for anything that is not an object with a positive whole `id`.
    """
    if not isinstance(payload, dict):
        raise NotACustomer(f"a customer is a JSON object, this is {_kind(payload)}")
    id_ = _whole(payload.get("id"))
    if not id_:
        raise NotACustomer(f"`id` is {_kind(payload.get('id'))}, not a positive whole number")
    return Customer(
        id=id_,
        status=_text(payload.get("status")) or "",
        reference=_text(payload.get("reference")),
        slots={slot: _slot(payload, key, read) for slot, (key, read) in _SLOTS.items()},
        emails=_emails(_text(payload.get("primaryEmail")) or ""),
    )


def parse_page(rows: Iterable[object], total: int | None) -> CustomerPage:
    """Read the rows of a decoded list, of which `total` match on all its pages."""
    customers = []
    broken = 0
    for row in rows:
        try:
            customers.append(parse_customer(row))
        except NotACustomer:
            broken += 1
    return CustomerPage(tuple(customers), total, broken)


def _emails(text: str) -> tuple[str, ...]:
    addresses = (part.strip().casefold() for part in _BETWEEN_EMAILS.split(text))
    return tuple(dict.fromkeys(filter(None, addresses)))


def _slot(payload: dict[Any, Any], key: str, read: Callable[[object], str]) -> str | SlotState:
    if key not in payload:
        return SlotState.UNKNOWN
    value = payload[key]
    if value is None or value == "":
        return SlotState.EMPTY
    try:
        return read(value) or SlotState.EMPTY
    except (TypeError, ValueError):
        return SlotState.UNKNOWN  # not empty: what stands there must not be written over


def _hubspot(value: object) -> str:
    """0 reads as no id: HubSpot numbers its records from 1, and 0 is how .NET writes "none"
    where a number cannot be null.
    """
    number = _whole(value)
    if number is None:
        raise ValueError("not a HubSpot id")
    return str(number) if number else ""


def _salesforce(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a Salesforce id")
    return salesforce_id_18(value)


def _geotab(value: object) -> str:
    """Leading zeros count, so a string stays as it is; a JSON number gives its digits."""
    if isinstance(value, str):
        return value
    number = _whole(value)
    if number is None:
        raise ValueError("not a Geotab id")
    return str(number)


_SLOTS: dict[Slot, tuple[str, Callable[[object], str]]] = {
    Slot.HUBSPOT_CONTACT: ("hubSpotId", _hubspot),
    Slot.HUBSPOT_COMPANY: ("hubSpotCompanyId", _hubspot),
    Slot.SALESFORCE_ACCOUNT: ("salesforceId", _salesforce),
    Slot.GEOTAB_CUSTOMER: ("geotabId", _geotab),
}
"""The customer field that holds each slot (the table of B1), and how its value is read."""


def _whole(value: object) -> int | None:
    """A whole number from 0 on, from a JSON number or its digits; None for anything else.

    A float is refused: it may have lost digits already.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_ID:
        return None
    return value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


_KINDS = (
    (type(None), "null or missing"),
    (bool, "a boolean"),
    ((int, float), "a number"),
    (str, "a string"),
    (list, "a list"),
    (dict, "an object"),
)
"""In order: a bool is an int too."""


def _kind(value: object) -> str:
    """What a JSON value is, in words, without the value."""
    for kind, words in _KINDS:
        if isinstance(value, kind):
            return words
    return "no JSON"
