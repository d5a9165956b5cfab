"""Which customers hold a value: the queries of B4.1, each row checked here (B4.2).

A server may ignore a filter that it does not know and return everybody, and how it compares text
is not documented (facts: ref/list-customers, ref/string-filtering). So a query only narrows down
whom to look at, and none here asks for more than one field.

What comes back was true when the list was read. An empty result says that no list showed such a
customer, which for a slot is no proof of absence (B7.4).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

from sync_worker.domain import Customer, Slot, salesforce_id_18
from sync_worker.fusebill.client import PAGE_SIZE
from sync_worker.fusebill.customer import CustomerPage
from sync_worker.fusebill.errors import Incomplete

MAX_QUERY_PAGES = 200
"""Pages read for one list at most: 200,000 customers, or a server that has the same page for
every number."""

_SIGNS = frozenset(";:,*|")
"""What the query grammar gives a meaning to. No escape is documented, so there is none."""

_EMPTY = "[empty]"
"""The grammar's word for null or empty (facts: ref/string-filtering)."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's control and format characters, half surrogate pairs, and ends of lines."""


class Lists(Protocol):
    """What lists customers, such as a FusebillClient; every call may raise its errors."""

    def list_customers(
        self, *, page: int, page_size: int = ..., query: str | None = ...
    ) -> CustomerPage:
        """Read one page, counted from 0, of the customers that match the query."""
        ...


def queryable(value: str) -> bool:
    """Whether a query can carry the value (B4.3).

    It cannot if the value is blank, is a word of the grammar, or holds one of its signs or a
    character that nobody sees.
    """
    bare = value.strip()
    return (
        bool(bare)
        and bare.casefold() != _EMPTY
        and _SIGNS.isdisjoint(value)
        and not any(unicodedata.category(char) in _UNSEEN for char in value)
    )


def by_reference(client: Lists, value: str, *, statuses: Collection[str]) -> tuple[Customer, ...]:
    """The customers whose `reference` is exactly the value, in one of the statuses, by id.

    `statuses` are spelled as Fusebill does (`MATCH_STATUSES`). Nothing makes a reference unique.
    Raises ValueError, and calls nothing, for a value that is not `queryable`; Incomplete; and
    what the client raises.
    """
    _check(value)
    return _found(
        row
        for row in _rows(client, f"reference:{value}")
        if row.reference == value and row.status in statuses
    )


def by_email(client: Lists, value: str, *, statuses: Collection[str]) -> tuple[Customer, ...]:
    """The customers that have the address among their `emails`, in one of the statuses, by id.

    An exact query misses a customer with several addresses in `primaryEmail`, so a second one
    looks for the value anywhere in it; whole addresses are then compared here, case folded.
    Whether Fusebill's comparison heeds case is not documented: an address that is not all in
    lower case is looked for in lower case too.

    Raises ValueError, and calls nothing, for a value that is not `queryable`, several addresses
    among them; Incomplete; and what the client raises.
    """
    address = value.strip()
    _check(address)
    spellings = dict.fromkeys((address, address.lower()))
    queries = [f"primaryEmail:{text}" for each in spellings for text in (each, f"*{each}*")]
    wanted = address.casefold()
    return _found(
        row for row in _rows(client, *queries) if wanted in row.emails and row.status in statuses
    )


def by_salesforce_id(client: Lists, account_id_18: str) -> tuple[Customer, ...]:
    """The customers whose Salesforce slot holds the Account, whatever their status, by id.

    Answers carry 15 characters and requests 18 (seed 003), and which of them a query compares is
    not documented: both are asked for. A row whose slot could not be read is left out.

    Raises ValueError, and calls nothing, for what is no Salesforce id; Incomplete; and what the
    client raises.
    """
    account = salesforce_id_18(account_id_18)
    rows = _rows(client, f"salesforceId:{account[:15]}", f"salesforceId:{account}")
    return _found(row for row in rows if row.slots[Slot.SALESFORCE_ACCOUNT] == account)


def all_pages(client: Lists, *, query: str | None = None) -> Iterator[CustomerPage]:
    """Every page of the customers that match, in order; each is read when it is asked for.

    It ends once as many rows came as `total` says. Where a page has no `total`, a page that is not
    full is the last one. Rows that moved while the pages were read may come twice or not at all,
    and `broken` rows are unknown customers: what that means is for the caller to say.

    Raises Incomplete if a page is empty before `total` is reached, or if there are more than
    `MAX_QUERY_PAGES`; and what the client raises.
    """
    seen = 0
    for number in range(MAX_QUERY_PAGES):
        page = client.list_customers(page=number, page_size=PAGE_SIZE, query=query)
        yield page
        seen += page.rows
        if page.total is None:
            # The cap on rows is never below what was asked for, so a shorter page has no next.
            if page.rows < PAGE_SIZE:
                return
        elif seen >= page.total:
            return
        elif page.rows == 0:
            raise _incomplete(query, f"it ends after {seen} of {page.total} rows")
    raise _incomplete(query, f"it has more than {MAX_QUERY_PAGES} pages")


def _check(value: str) -> None:
    # Without the value: it may be anything, a person's data too (B10.4).
    if not queryable(value):
        raise ValueError("a query of Fusebill's cannot carry this value: ask `queryable` first")


def _rows(client: Lists, *queries: str) -> Iterable[Customer]:
    """The customers that any of the queries shows, each as read last. Raises Incomplete."""
    rows: dict[int, Customer] = {}
    for query in queries:
        rows |= _whole(client, query)
    return rows.values()


def _whole(client: Lists, query: str) -> dict[int, Customer]:
    rows: dict[int, Customer] = {}
    total = None
    for page in all_pages(client, query=query):
        if page.broken:
            raise _incomplete(query, f"{page.broken} of its rows cannot be read as customers")
        rows.update((customer.id, customer) for customer in page.customers)
        total = page.total
    if total is not None and len(rows) < total:
        raise _incomplete(query, f"it has {len(rows)} customers and counts {total}")
    return rows


def _found(rows: Iterable[Customer]) -> tuple[Customer, ...]:
    return tuple(sorted(rows, key=lambda customer: customer.id))


def _incomplete(query: str | None, cause: str) -> Incomplete:
    # Only the name of what is looked for: the value may be somebody's address (B10.4).
    what = f" by {query.partition(':')[0]}" if query else ""
    return Incomplete(f"Fusebill's list of customers{what} is not whole: {cause}")
