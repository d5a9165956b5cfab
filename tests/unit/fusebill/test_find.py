from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.domain import Customer, Slot, SlotState
from sync_worker.fusebill import find
from sync_worker.fusebill.client import FusebillClient
from sync_worker.fusebill.customer import CustomerPage
from sync_worker.fusebill.errors import FusebillError, Incomplete, Transient
from tests.unit.fusebill.scripted_server import EMAIL, Reply, ScriptedServer

ACCOUNT = "0015g00001LwZ3kAAF"
OTHER_ACCOUNT = "0015g00001LwZ3lAAF"
STATUSES = frozenset({"Draft", "Active", "Hold", "Suspended"})


def customer(
    id_: int,
    *,
    status: str = "Active",
    reference: str | None = None,
    emails: Iterable[str] = (),
    account: str | SlotState = SlotState.EMPTY,
) -> Customer:
    slots: dict[Slot, str | SlotState] = dict.fromkeys(Slot, SlotState.EMPTY)
    slots[Slot.SALESFORCE_ACCOUNT] = account
    return Customer(id_, status, reference, slots, tuple(emails))


class Everybody:
    """Lists its customers whatever the query, as a server may that does not know its name."""

    def __init__(self, *customers: Customer, cap: int = 1000, counts: bool = True) -> None:
        self.customers = customers
        self.cap = cap
        self.counts = counts
        self.asked: list[tuple[str | None, int]] = []

    @property
    def queries(self) -> list[str | None]:
        return [query for query, _ in self.asked]

    def select(self, query: str | None) -> list[Customer]:
        return list(self.customers)

    def list_customers(
        self, *, page: int, page_size: int = 1000, query: str | None = None
    ) -> CustomerPage:
        self.asked.append((query, page))
        rows = self.select(query)
        size = min(page_size, self.cap)
        total = len(rows) if self.counts else None
        return CustomerPage(tuple(rows[page * size : (page + 1) * size]), total, 0)


class Scripted:
    """Answers with these pages, one a call, the last one over and over."""

    def __init__(self, *pages: CustomerPage) -> None:
        self.pages = list(pages)
        self.calls = 0

    def list_customers(self, **_: Any) -> CustomerPage:
        self.calls += 1
        return self.pages[min(self.calls, len(self.pages)) - 1]


def ids(customers: Iterable[Customer]) -> list[int]:
    return [each.id for each in customers]


def page(*of: int, total: int | None = None, broken: int = 0) -> CustomerPage:
    return CustomerPage(tuple(customer(id_, reference="R") for id_ in of), total, broken)


# Which values a query may carry (B4.3)


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "\t", "[empty]", "[EMPTY]", " [Empty] "),
        *("a;b", "a:b", "a,b", "a*", "*", "a|b", "|", "a@x; b@y", "2026-01-01T00:00:00"),
        *("a\nb", "a\0", "a\x7f", "a\u200bb", "a\u2028b", "\ud800", "\u202ea"),
    ],
)
def test_b4_3_a_value_that_the_grammar_cannot_carry_is_not_queryable(value: str) -> None:
    assert not find.queryable(value)


@pytest.mark.parametrize(
    "value",
    [
        *("NG-0042", "a+b@x.example", "o'brien@x.example", "100%", "a b", "a&b=c#d?", "[a]"),
        *("empty", "é", "\u00a0x", "株式会社", "x\\y", '"a"', "(1)", "1.5", "-"),
    ],
)
def test_any_other_value_is_queryable(value: str) -> None:
    assert find.queryable(value)


@given(st.text())
def test_b4_3_no_sign_of_the_grammar_is_ever_in_a_query(value: str) -> None:
    lists = Everybody()
    for look in (find.by_reference, find.by_email):
        with suppress(ValueError):
            look(lists, value, statuses=STATUSES)
    for query in lists.queries:
        assert query is not None
        name, _, looked_for = query.partition(":")
        if name == "primaryEmail" and looked_for.startswith("*"):
            looked_for = looked_for[1:-1]
        assert find.queryable(looked_for)
        assert not set(looked_for) & set(";:,*|")


@pytest.mark.parametrize(
    "look",
    [
        lambda lists: find.by_reference(lists, "Oduya; Maren", statuses=STATUSES),
        lambda lists: find.by_reference(lists, "", statuses=STATUSES),
        lambda lists: find.by_email(lists, f"{EMAIL}; b@y.example", statuses=STATUSES),
        lambda lists: find.by_email(lists, "*", statuses=STATUSES),
        lambda lists: find.by_salesforce_id(lists, "1"),
        lambda lists: find.by_salesforce_id(lists, "0015g00001LwZ3kAA*"),
    ],
)
def test_b4_3_what_is_not_queryable_is_refused_before_any_call(
    look: Callable[[Everybody], Any],
) -> None:
    lists = Everybody(customer(1, reference="Oduya; Maren", emails=[EMAIL]))
    with pytest.raises(ValueError, match=r"queryable|Salesforce id") as caught:
        look(lists)
    assert not lists.asked
    assert "Oduya" not in str(caught.value)
    assert EMAIL not in str(caught.value)


# Which customers (B4.1, B4.2)


@pytest.mark.parametrize("counts", [True, False])
def test_b4_2_a_reference_is_equal_or_no_match_whatever_the_server_lists(counts: bool) -> None:
    others = [customer(id_, reference=f"R-{id_}") for id_ in range(10, 2510)]
    lists = Everybody(
        *others,
        customer(3, reference="NG-0042"),
        customer(4, reference="ng-0042"),
        customer(5, reference="NG-0042 "),
        customer(6, reference="NG-00421"),
        customer(7),
        customer(2, reference="NG-0042", status="Hold"),
        customer(8, reference="NG-0042", status="Cancelled"),
        customer(9, reference="NG-0042", status=""),
        counts=counts,
    )
    assert ids(find.by_reference(lists, "NG-0042", statuses=STATUSES)) == [2, 3]
    assert lists.asked == [("reference:NG-0042", number) for number in range(3)]


def test_b4_2_an_email_is_one_whole_address_of_a_customer() -> None:
    lists = Everybody(
        customer(1, emails=["a@x.example"]),
        customer(2, emails=["b@y.example", "a@x.example"]),
        customer(3, emails=["aa@x.example"]),
        customer(4, emails=["a@x.example.test"]),
        customer(5, emails=["a@x.example"], status="Cancelled"),
        customer(6),
    )
    for spelling in ("a@x.example", "A@X.Example", " a@x.example\t"):
        assert ids(find.by_email(lists, spelling, statuses=STATUSES)) == [1, 2]
    assert lists.queries == [
        *("primaryEmail:a@x.example", "primaryEmail:*a@x.example*"),
        *("primaryEmail:A@X.Example", "primaryEmail:*A@X.Example*"),
        *("primaryEmail:a@x.example", "primaryEmail:*a@x.example*"),
        *("primaryEmail:a@x.example", "primaryEmail:*a@x.example*"),
    ]


class Picky(Everybody):
    """A server that shows each customer to one query only."""

    def __init__(self, shown: dict[str, Customer]) -> None:
        super().__init__()
        self.shown = shown

    def select(self, query: str | None) -> list[Customer]:
        return [each for asked, each in self.shown.items() if asked == query]


def test_what_either_query_finds_counts_each_customer_once_as_last_read() -> None:
    lists = Picky(
        {
            "primaryEmail:A@x.example": customer(1, emails=["a@x.example"]),
            "primaryEmail:*A@x.example*": customer(2, emails=["a@x.example", "b@y.example"]),
            "primaryEmail:a@x.example": customer(1, emails=["a@x.example"], status="Cancelled"),
            "primaryEmail:*a@x.example*": customer(3, emails=["a@x.example"]),
        }
    )
    assert ids(find.by_email(lists, "A@x.example", statuses=STATUSES)) == [2, 3]


@pytest.mark.parametrize("account", [ACCOUNT, ACCOUNT[:15]])
def test_a_salesforce_account_is_asked_for_in_both_spellings(account: str) -> None:
    lists = Picky(
        {
            f"salesforceId:{ACCOUNT[:15]}": customer(1, account=ACCOUNT, status="Cancelled"),
            f"salesforceId:{ACCOUNT}": customer(2, account=ACCOUNT, status="Draft"),
        }
    )
    assert ids(find.by_salesforce_id(lists, account)) == [1, 2]
    assert lists.queries == [f"salesforceId:{ACCOUNT[:15]}", f"salesforceId:{ACCOUNT}"]


def test_b4_2_only_a_slot_that_holds_the_account_counts() -> None:
    lists = Everybody(
        customer(1, account=OTHER_ACCOUNT),
        customer(2),
        customer(3, account=SlotState.UNKNOWN),
        customer(4, account=ACCOUNT),
    )
    assert ids(find.by_salesforce_id(lists, ACCOUNT)) == [4]


@given(
    st.lists(
        st.builds(
            customer,
            st.integers(min_value=1, max_value=10**9),
            status=st.sampled_from(["Active", "Draft", "Cancelled"]),
            reference=st.sampled_from(["R", "r", "R ", None]),
            emails=st.lists(st.sampled_from(["a@x", "b@y"]), unique=True),
            account=st.sampled_from([ACCOUNT, OTHER_ACCOUNT, *SlotState]),
        ),
        unique_by=lambda each: each.id,
        max_size=12,
    ),
    st.integers(min_value=1, max_value=5),
)
def test_a_server_that_lists_everybody_in_small_pages_gives_the_right_ones(
    customers: list[Customer], cap: int
) -> None:
    lists = Everybody(*customers, cap=cap)
    by_id = sorted(customers, key=lambda each: each.id)
    open_ = [each for each in by_id if each.status != "Cancelled"]
    assert find.by_reference(lists, "R", statuses=STATUSES) == tuple(
        each for each in open_ if each.reference == "R"
    )
    assert find.by_email(lists, "A@x", statuses=STATUSES) == tuple(
        each for each in open_ if "a@x" in each.emails
    )
    assert find.by_salesforce_id(lists, ACCOUNT) == tuple(
        each for each in by_id if each.slots[Slot.SALESFORCE_ACCOUNT] == ACCOUNT
    )


# Paging


@pytest.mark.parametrize(
    ("number", "cap", "counts", "calls"),
    [
        (0, 1000, True, 1),
        (0, 1000, False, 1),
        (1, 1000, True, 1),
        (1000, 1000, True, 1),
        (1000, 1000, False, 2),  # only an empty page shows that a full one was the last
        (2500, 1000, True, 3),
        (2500, 1000, False, 3),
        (2500, 400, True, 7),  # a server whose cap is lower than it says
    ],
)
def test_pages_are_read_to_the_last_and_no_further(
    number: int, cap: int, counts: bool, calls: int
) -> None:
    lists = Everybody(*(customer(id_ + 1) for id_ in range(number)), cap=cap, counts=counts)
    pages = list(find.all_pages(lists, query="status:Active"))
    assert [id_ for each in pages for id_ in ids(each.customers)] == list(range(1, number + 1))
    assert lists.asked == [("status:Active", place) for place in range(calls)]


def test_pages_are_read_as_they_are_asked_for_and_need_no_query() -> None:
    lists = Everybody(*(customer(id_ + 1) for id_ in range(2500)))
    pages = find.all_pages(lists)
    assert not lists.asked
    next(pages)
    assert lists.asked == [(None, 0)]


def test_a_count_that_falls_while_the_pages_are_read_is_believed() -> None:
    lists = Scripted(page(1, 2, total=4), page(3, total=3))
    assert ids(find.by_reference(lists, "R", statuses=STATUSES)) == [1, 2, 3]


@pytest.mark.parametrize("total", [3, None])
def test_an_iteration_passes_broken_and_repeated_rows_on(total: int | None) -> None:
    lists = Scripted(page(1, 1, total=total, broken=1))
    assert list(find.all_pages(lists)) == lists.pages


@pytest.mark.parametrize(
    ("pages", "cause"),
    [
        ([page(1, total=3), page(total=3)], "it ends after 1 of 3 rows"),
        ([page(total=1)], "it ends after 0 of 1 rows"),
        ([page(1, total=2, broken=1)], "1 of its rows cannot be read as customers"),
        ([page(1, broken=2)], "2 of its rows cannot be read as customers"),
        # A row that moved from the second page to the first while they were read.
        ([page(1, 2, total=4), page(2, 3, total=4)], "it has 3 customers and counts 4"),
    ],
)
def test_a_list_that_is_not_whole_tells_nothing(pages: list[CustomerPage], cause: str) -> None:
    with pytest.raises(Incomplete) as caught:
        find.by_reference(Scripted(*pages), "R", statuses=STATUSES)
    assert str(caught.value) == f"Fusebill's list of customers by reference is not whole: {cause}"


@pytest.mark.parametrize("total", [None, 10**9])
def test_a_server_that_never_ends_is_left(total: int | None) -> None:
    lists = Scripted(page(*range(1, 1001), total=total))
    with pytest.raises(Incomplete, match="more than 200 pages"):
        for _ in find.all_pages(lists):
            pass
    assert lists.calls == find.MAX_QUERY_PAGES


# Over HTTP


def test_b10_4_neither_calls_nor_errors_show_whom_a_query_looks_for(
    client: FusebillClient, server: ScriptedServer, attempts: list[Any]
) -> None:
    server.default = Reply(body=b'[{"id": null}]')
    with pytest.raises(Incomplete) as caught:
        find.by_email(client, EMAIL, statuses=STATUSES)
    assert EMAIL not in f"{caught.value!r} {attempts}"
    (attempt,) = attempts
    assert attempt.call == "GET /v1/customers/?query=primaryEmail:…&pageSize=1000&pageNumber=0"
    (seen,) = server.seen
    assert parse_qs(urlsplit(seen.path).query)["query"] == [f"primaryEmail:{EMAIL}"]


def test_an_error_of_the_second_query_is_not_taken_for_an_answer(
    client: FusebillClient, server: ScriptedServer
) -> None:
    server.will(Reply(body=b"[]"), Reply(503))
    with pytest.raises(Transient):
        find.by_email(client, EMAIL, statuses=STATUSES)
    assert len(server.seen) == 2


def test_an_incomplete_list_is_no_failed_call() -> None:
    assert not issubclass(Incomplete, FusebillError)
