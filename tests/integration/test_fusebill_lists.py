"""Finding customers by queries: the client and the simulated Fusebill, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulators.fusebill.control import FusebillControl
from simulators.fusebill.customer import Customer
from simulators.fusebill.server import SimulatedFusebill
from simulators.fusebill.synthetic import synthetic_customers
from sync_worker.domain import Attempt
from sync_worker.fusebill import find
from sync_worker.fusebill.client import FusebillClient
from sync_worker.fusebill.customer import CustomerPage
from sync_worker.fusebill.errors import Rejected, Unauthorized

ACCOUNT = "0015g00001LwZ3kAAF"
OTHER_ACCOUNT = "0015g00001LwZ3lAAF"
STATUSES = frozenset({"Draft", "Active", "Hold", "Suspended"})
MAREN = "maren+bills@northgate.example"


@pytest.fixture(scope="module")
def running() -> Iterator[SimulatedFusebill]:
    with SimulatedFusebill() as fusebill:
        yield fusebill


@pytest.fixture
def control(running) -> FusebillControl:
    running.control.reset()
    running.control.put_customers(
        Customer(id=1, reference="NG-0042", primary_email=MAREN),
        Customer(id=2, reference="ng-0042", primary_email="tomas@northgate.example"),
        Customer(
            id=3,
            reference="NG-0043",
            primary_email=f"Ines@Northgate.example; {MAREN.upper()}",
            status="Hold",
            salesforce_id=ACCOUNT,
        ),
        Customer(
            id=4,
            reference="NG-0042",
            primary_email=f"x{MAREN}",
            status="Cancelled",
            salesforce_id=OTHER_ACCOUNT,
        ),
    )
    return running.control


@pytest.fixture
def attempts() -> list[Attempt]:
    return []


@pytest.fixture
def client(running, control, attempts) -> Iterator[FusebillClient]:
    client = FusebillClient(running.url, running.api_key, read_timeout=30, on_call=attempts.append)
    with client:
        yield client


class IgnoredFilter:
    """The client with every name in its queries misspelt: this Fusebill then ignores them."""

    def __init__(self, client: FusebillClient) -> None:
        self._client = client

    def list_customers(
        self, *, page: int, page_size: int = 1000, query: str | None = None
    ) -> CustomerPage:
        unknown = None if query is None else f"no{query}"
        return self._client.list_customers(page=page, page_size=page_size, query=unknown)


def ids(customers) -> list[int]:
    return [customer.id for customer in customers]


def queries(control: FusebillControl) -> list[str]:
    return [call.query["query"] for call in control.calls()]


def test_b4_1_a_reference_matches_in_its_own_case_only(client, control):
    assert ids(find.by_reference(client, "NG-0042", statuses=STATUSES)) == [1]
    assert ids(find.by_reference(client, "ng-0042", statuses=STATUSES)) == [2]
    assert ids(find.by_reference(client, "NG-004", statuses=STATUSES)) == []
    assert queries(control) == ["reference:NG-0042", "reference:ng-0042", "reference:NG-004"]


def test_b4_1_only_customers_in_the_statuses_match(client, control):
    assert ids(find.by_reference(client, "NG-0042", statuses={"Active", "Cancelled"})) == [1, 4]
    assert ids(find.by_reference(client, "NG-0043", statuses={"Active"})) == []


def test_b4_2_a_reference_may_be_that_of_several_customers(client, control):
    control.edit_customer(2, reference="NG-0042")
    assert ids(find.by_reference(client, "NG-0042", statuses=STATUSES)) == [1, 2]


@pytest.mark.parametrize("match_case", [False, True])
def test_b4_1_an_email_is_found_among_several_and_whatever_its_case(client, control, match_case):
    control.edit_customer(3, primaryEmail=f"ines@northgate.example; {MAREN}")
    control.set_options(match_case=match_case)
    for spelling in (MAREN, MAREN.upper(), MAREN.title()):
        assert ids(find.by_email(client, spelling, statuses=STATUSES)) == [1, 3]
    assert ids(find.by_email(client, "ines@northgate.example", statuses=STATUSES)) == [3]
    assert ids(find.by_email(client, "nobody@northgate.example", statuses=STATUSES)) == []


def test_b4_1_a_stored_address_may_be_in_capitals(client):
    assert ids(find.by_email(client, MAREN, statuses=STATUSES)) == [1, 3]


def test_b4_1_an_email_in_a_closed_customer_or_within_another_is_none(client):
    assert ids(find.by_email(client, f"x{MAREN}", statuses=STATUSES)) == []
    assert ids(find.by_email(client, f"x{MAREN}", statuses={"Cancelled"})) == [4]


@pytest.mark.parametrize("form", [15, 18, "both"])
def test_b4_1_a_salesforce_account_is_found_whichever_spelling_is_compared(client, control, form):
    control.set_options(salesforce_query_form=form)
    assert ids(find.by_salesforce_id(client, ACCOUNT)) == [3]
    assert ids(find.by_salesforce_id(client, OTHER_ACCOUNT)) == [4], "in any status"
    assert ids(find.by_salesforce_id(client, "0015g00001LwZ3mAAF")) == []


def test_2500_customers_come_in_three_pages(client, control, attempts):
    control.delete_customers()
    control.put_customers(*synthetic_customers(2500, first_id=1))
    pages = list(find.all_pages(client))
    assert [page.rows for page in pages] == [1000, 1000, 500]
    assert {page.total for page in pages} == {2500}
    assert [id_ for page in pages for id_ in ids(page.customers)] == list(range(1, 2501))
    assert [attempt.call for attempt in attempts] == [
        f"GET /v1/customers/?pageSize=1000&pageNumber={number}" for number in range(3)
    ]


def test_b4_2_a_server_that_ignores_the_filter_changes_nothing_but_the_cost(client, control):
    control.put_customers(*synthetic_customers(2500, first_id=1001))
    lists = IgnoredFilter(client)
    assert ids(find.by_reference(lists, "NG-0042", statuses=STATUSES)) == [1]
    assert ids(find.by_email(lists, MAREN, statuses=STATUSES)) == [1, 3]
    assert ids(find.by_salesforce_id(lists, ACCOUNT)) == [3]
    assert len(control.calls()) == 3 + 6 + 6


def test_b4_3_what_the_grammar_cannot_carry_is_never_sent(client, control):
    for value in ("a;b", "a:b", "a,b", "a*", "a|b", "[empty]", " ", "a\nb"):
        with pytest.raises(ValueError, match="queryable"):
            find.by_reference(client, value, statuses=STATUSES)
        with pytest.raises(ValueError, match="queryable"):
            find.by_email(client, value, statuses=STATUSES)
    assert control.calls() == []


@pytest.mark.parametrize("sign", list("+&=#?/%'\"@ é株\\"))
def test_any_other_sign_arrives_as_it_is(client, control, sign):
    control.edit_customer(2, reference=f"a{sign}b", primaryEmail=f"a{sign}b@x.example")
    assert ids(find.by_reference(client, f"a{sign}b", statuses=STATUSES)) == [2]
    assert ids(find.by_email(client, f"a{sign}b@x.example", statuses=STATUSES)) == [2]


def test_b10_4_attempts_and_errors_do_not_show_an_address(client, control, attempts):
    find.by_email(client, MAREN, statuses=STATUSES)
    control.set_options(unknown_query_name="error")
    with pytest.raises(Rejected) as caught:
        find.by_email(IgnoredFilter(client), MAREN, statuses=STATUSES)
    assert "The query 'noprimaryEmail:…' is not valid." in str(caught.value)
    shown = f"{attempts} {caught.value} {caught.value!r} {vars(caught.value)}"
    assert "maren" not in shown.lower()
    assert [attempt.call for attempt in attempts] == [
        "GET /v1/customers/?query=primaryEmail:…&pageSize=1000&pageNumber=0",
        "GET /v1/customers/?query=primaryEmail:…&pageSize=1000&pageNumber=0",
        "GET /v1/customers/?query=noprimaryEmail:…&pageSize=1000&pageNumber=0",
    ]


def test_a_wrong_key_is_told_as_for_any_call(running, control):
    with (
        FusebillClient(running.url, "bm90LWEta2V5", read_timeout=30) as client,
        pytest.raises(Unauthorized),
    ):
        find.by_reference(client, "NG-0042", statuses=STATUSES)
