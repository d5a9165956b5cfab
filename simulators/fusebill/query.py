"""The customer list's query grammar (`ref/string-filtering`, `ref/date-filtering`, `ref/sorting`).

`name:value;name:value`: `;` is AND, `,` is OR on enum and integer fields only (elsewhere it
is a plain character), `*` is a wildcard in text, `[empty]` is null or empty, `lo|hi` is a
range whose sides may be blank; for dates the upper end is excluded. Names compare without
case. No escape is documented, so there is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from simulators.fusebill.customer import Customer
from simulators.fusebill.options import Options
from sync_worker.domain import salesforce_id_18

Matches = Callable[[Customer], bool]

_DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d)?")
"""The one documented form of a time; UTC."""

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class QueryRefused(Exception):
    """The query is not in the grammar; the message says where. The API answers 400."""


class Field(NamedTuple):
    """A queryable name: how its values compare, and the attribute that holds them.

    No attribute: the vendor's table has the name, customers here have no such field, and it
    reads as empty.
    """

    kind: Literal["text", "enum", "integer", "decimal", "date", "salesforce"]
    attribute: str | None = None

    def of(self, customer: Customer) -> Any:
        """What the customer holds there."""
        return None if self.attribute is None else getattr(customer, self.attribute)


_TABLE = {
    "AccountStatus": Field("enum", "customer_account_status"),
    "Arbalance": Field("decimal"),
    "CompanyName": Field("text", "company_name"),
    "CreatedTimestamp": Field("date", "created_timestamp"),
    "CurrencyId": Field("integer"),
    "CurrentMrr": Field("decimal", "monthly_recurring_revenue"),
    "CurrentNetMrr": Field("decimal", "net_monthly_recurring_revenue"),
    "CustomerAcquisition.AdContent": Field("text"),
    "CustomerAcquisition.Campaign": Field("text"),
    "CustomerAcquisition.LandingPage": Field("text"),
    "CustomerAcquisition.Medium": Field("text"),
    "CustomerAcquisition.Source": Field("text"),
    "CustomerReference.Reference1": Field("text", "reference1"),
    "CustomerReference.Reference2": Field("text", "reference2"),
    "CustomerReference.Reference3": Field("text", "reference3"),
    **{
        f"CustomerReference.SalesTrackingCode{place}.{part}": Field("text")
        for place in range(1, 6)
        for part in ("Code", "Name")
    },
    "FirstName": Field("text", "first_name"),
    "LastName": Field("text", "last_name"),
    "MiddleName": Field("text", "middle_name"),
    "ModifiedTimestamp": Field("date", "modified_timestamp"),
    "MonthlyRecurringRevenue": Field("decimal", "monthly_recurring_revenue"),
    "NetMRR": Field("decimal", "net_monthly_recurring_revenue"),
    "NetsuiteEntityType": Field("enum"),
    "NetSuiteId": Field("text", "netsuite_id"),
    "NetSuiteSynchStatusId": Field("integer"),
    "ParentId": Field("integer", "parent_id"),
    "PrimaryEmail": Field("text", "primary_email"),
    "PrimaryPhone": Field("text", "primary_phone"),
    "QuickBooksId": Field("text", "quick_books_id"),
    "QuickBooksLatchTypeId": Field("integer"),
    "QuickBooksSyncToken": Field("text", "quick_books_sync_token"),
    "Reference": Field("text", "reference"),
    "SalesforceAccountType": Field("enum", "salesforce_account_type"),
    "SalesforceId": Field("salesforce", "salesforce_id"),
    "SalesforceSynchStatus": Field("enum", "salesforce_synch_status"),
    "SecondaryEmail": Field("text", "secondary_email"),
    "SecondaryPhone": Field("text", "secondary_phone"),
    "Status": Field("enum", "status"),
    "Suffix": Field("text", "suffix"),
    "Title": Field("text", "title"),
}
"""The whole table of `ref/list-customers`. HubSpot and Geotab ids are not in it."""

QUERYABLE = {name.lower(): field for name, field in _TABLE.items()}

_ID = Field("integer", "id")


def compile_query(text: str, options: Options) -> Matches:
    """What the query says of one customer; an empty query matches every one.

    Raises QueryRefused.
    """
    tests = [_criterion(part, options) for part in text.split(";") if part.strip()]
    if len(tests) < 2:
        # Most queries: with many customers the loop below is what a list call costs.
        return tests[0] if tests else lambda _: True
    return lambda customer: all(test(customer) for test in tests)


def sort(customers: Iterable[Customer], expression: str, order: str) -> list[Customer]:
    """The customers by that field, empty values first, then by id.

    Without both `expression` and `order` ("Ascending", "Descending"), or by a name that does
    not exist, by id: a custom sort needs both parameters (`ref/pagination`).
    """
    field = {**QUERYABLE, "id": _ID}.get(expression.lower())
    direction = order.lower()
    if field is None or direction not in ("ascending", "descending"):
        return sorted(customers, key=lambda customer: customer.id)

    def key(customer: Customer) -> tuple[bool, Any, int]:
        value = field.of(customer)
        if isinstance(value, str):
            value = value.casefold()
        return (value is not None, "" if value is None else value, customer.id)

    return sorted(customers, key=key, reverse=direction == "descending")


def _criterion(part: str, options: Options) -> Matches:
    name, colon, value = part.partition(":")
    known = {**QUERYABLE, "id": _ID} if options.id_queryable else QUERYABLE
    field = known.get(name.strip().lower()) if colon else None
    if field is None:
        return _unknown(part, options)
    if value == "[empty]":
        return lambda customer: field.of(customer) in (None, "")
    return _COMPARE[field.kind](field, value, options)


def _unknown(part: str, options: Options) -> Matches:
    if options.unknown_query_name == "error":
        raise QueryRefused(f"The query {part.strip()!r} is not valid.")
    keep = options.unknown_query_name == "ignore"
    return lambda _: keep


def _text(field: Field, value: str, options: Options) -> Matches:
    same = _same_text(value, options)
    return lambda customer: same(field.of(customer) or "")


def _same_text(value: str, options: Options) -> Callable[[str], bool]:
    fold = str if options.match_case else str.casefold
    if "*" not in value:
        wanted = fold(value)
        return lambda held: fold(held) == wanted
    pattern = re.compile(".*".join(map(re.escape, fold(value).split("*"))), re.DOTALL)
    return lambda held: pattern.fullmatch(fold(held)) is not None


def _enum(field: Field, value: str, _: Options) -> Matches:
    wanted = {choice.strip().casefold() for choice in value.split(",")}
    return lambda customer: (field.of(customer) or "").casefold() in wanted


def _integer(field: Field, value: str, options: Options) -> Matches:
    if "|" in value:
        return _range(field, value, _number)
    if "," not in value:
        return _decimal(field, value, options)
    wanted = {_number(choice) for choice in value.split(",")}
    return lambda customer: field.of(customer) in wanted


def _decimal(field: Field, value: str, _: Options) -> Matches:
    if "|" in value:
        return _range(field, value, _number)
    wanted = _number(value)
    return lambda customer: field.of(customer) == wanted


def _date(field: Field, value: str, _: Options) -> Matches:
    # ISO 8601 sorts as text. A stored time has a fraction and the bound has none, so the time
    # that equals the bound sorts above it: as lower end it is within, as upper end excluded.
    if "|" in value:
        return _range(field, value, _moment)
    day = _moment(value)
    return lambda customer: (field.of(customer) or "").startswith(day)


def _salesforce(field: Field, value: str, options: Options) -> Matches:
    by_15 = _text(field, value, options)
    if options.salesforce_query_form == 15:
        return by_15
    same = _same_text(value, options)

    def by_18(customer: Customer) -> bool:
        held = customer.salesforce_id
        return held is not None and same(salesforce_id_18(held))

    if options.salesforce_query_form == 18:
        return by_18
    return lambda customer: by_15(customer) or by_18(customer)


def _range(field: Field, value: str, read: Callable[[str], Any]) -> Matches:
    low_text, _, high_text = value.partition("|")
    low = read(low_text) if low_text.strip() else None
    high = read(high_text) if high_text.strip() else None

    def within(customer: Customer) -> bool:
        held = field.of(customer)
        if held is None or (low is not None and held < low):
            return False
        return high is None or held <= high

    return within


def _number(text: str) -> Decimal:
    if not _NUMBER.fullmatch(text.strip()):
        raise QueryRefused(f"The value {text!r} is not a number.")
    return Decimal(text.strip())


def _moment(text: str) -> str:
    if not _DATE.fullmatch(text.strip()):
        raise QueryRefused(f"The value {text!r} is not a date: YYYY-MM-DD[THH:MM:SS].")
    return text.strip()


_COMPARE: dict[str, Callable[[Field, str, Options], Matches]] = {
    "text": _text,
    "enum": _enum,
    "integer": _integer,
    "decimal": _decimal,
    "date": _date,
    "salesforce": _salesforce,
}
