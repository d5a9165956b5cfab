"""The query grammar of the customer list, and its order."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.fusebill.customer import Customer
from simulators.fusebill.options import Options
from simulators.fusebill.query import QUERYABLE, QueryRefused, compile_query, sort

CUSTOMERS = [
    Customer(
        id=1,
        reference="NG-0042",
        primary_email="billing@northgate.example",
        company_name="Northgate, Haulage",
        salesforce_id="0015g00001LwZ3kAAF",
        modified_timestamp="2026-01-01T00:00:00.0000000Z",
        monthly_recurring_revenue=Decimal("49.5000"),
        hub_spot_id=101,
        geotab_id="0070441",
    ),
    Customer(
        id=2,
        reference="ng-0042",
        primary_email="a@x.example; b@y.example",
        status="Draft",
        modified_timestamp="2026-06-30T23:59:59.9999999Z",
        parent_id=1,
    ),
    Customer(
        id=3,
        reference="",
        primary_email="a+b@x.example",
        status="Hold",
        modified_timestamp="2026-07-01T00:00:00.0000000Z",
        parent_id=2,
    ),
]


def found(query: str, **options) -> list[int]:
    matches = compile_query(query, Options(**options))
    return [customer.id for customer in CUSTOMERS if matches(customer)]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", [1, 2, 3]),
        ("reference:NG-0042", [1, 2]),
        ("REFERENCE:ng-0042;status:Active", [1]),
        ("reference:NG", []),
        ("reference:*0042", [1, 2]),
        ("reference:N*4*", [1, 2]),
        ("reference:[empty]", [3]),
        ("salesforceId:[empty]", [2, 3]),
        ("status:Active,Draft", [1, 2]),
        ("status:hold", [3]),
        ("companyName:Northgate, Haulage", [1]),
        ("companyName:Northgate", []),
        ("primaryEmail:a@x.example", []),
        ("primaryEmail:*a@x.example*", [2]),
        ("primaryEmail:a+b@x.example", [3]),
        ("primaryEmail:a.b@x.example", []),
        ("id:1,3", [1, 3]),
        ("id:2", [2]),
        ("id:2|", [2, 3]),
        ("id:999999", []),
        ("parentId:1,2", [2, 3]),
        ("parentId:|1", [2]),
        ("parentId:[empty]", [1]),
        ("monthlyRecurringRevenue:49.5", [1]),
        ("netMRR:0|10", [1, 2, 3]),
        ("currentMrr:40|49.5", [1]),
        ("modifiedTimestamp:2026-01-01T00:00:00|", [1, 2, 3]),
        ("modifiedTimestamp:2026-01-01T00:00:01|", [2, 3]),
        ("modifiedTimestamp:2026-01-01|2026-07-01", [1, 2]),
        ("modifiedTimestamp:|2026-07-01T00:00:01", [1, 2, 3]),
        ("modifiedTimestamp:2026-06-30", [2]),
        ("customerReference.salesTrackingCode5.code:[empty]", [1, 2, 3]),
        ("arbalance:0|", []),
        ("reference:NG-0042;primaryEmail:*@y.example;", [2]),
    ],
)
def test_the_documented_grammar(query, ids):
    assert found(query) == ids


def test_the_upper_end_of_a_time_is_excluded_to_the_second():
    assert found("modifiedTimestamp:|2026-07-01T00:00:00") == [1, 2]


@pytest.mark.parametrize(
    "query",
    [
        "id:x",
        "id:1,x",
        "id:x|",
        "netMRR:nan",
        "modifiedTimestamp:yesterday|",
        "modifiedTimestamp:2026-01-01T00:00:00Z|",
    ],
)
def test_a_value_that_does_not_fit_its_field_is_refused(query):
    with pytest.raises(QueryRefused, match="is not a"):
        found(query)


@pytest.mark.parametrize("query", ["hubSpotId:101", "hubSpotCompanyId:1", "geotabId:0070441", "x"])
def test_a_name_outside_the_table_is_ignored_refused_or_empty(query):
    assert found(query) == [1, 2, 3]
    assert found(f"{query};status:Hold") == [3]
    assert found(query, unknown_query_name="empty") == []
    with pytest.raises(QueryRefused, match="is not valid"):
        found(query, unknown_query_name="error")


def test_the_id_list_can_be_an_unknown_name():
    assert found("id:1,3", id_queryable=False) == [1, 2, 3]
    assert found("id:1,3", id_queryable=False, unknown_query_name="empty") == []


def test_case_of_values_is_an_option():
    assert found("reference:ng-0042", match_case=True) == [2]
    assert found("reference:ng*", match_case=True) == [2]


@pytest.mark.parametrize(
    ("form", "by_15", "by_18"), [(15, [1], []), (18, [], [1]), ("both", [1], [1])]
)
def test_which_spelling_finds_a_salesforce_id_is_an_option(form, by_15, by_18):
    assert found("salesforceId:0015g00001LwZ3k", salesforce_query_form=form) == by_15
    assert found("salesforceId:0015g00001LwZ3kAAF", salesforce_query_form=form) == by_18


def test_the_table_is_the_vendors():
    assert {"salesforceid", "primaryemail", "reference", "netsuiteid"} <= set(QUERYABLE)
    assert not {"id", "hubspotid", "hubspotcompanyid", "geotabid"} & set(QUERYABLE)
    assert len(QUERYABLE) == 49


@pytest.mark.parametrize(
    ("expression", "order", "ids"),
    [
        ("", "", [1, 2, 3]),
        ("reference", "Ascending", [3, 1, 2]),
        ("modifiedTimestamp", "Descending", [3, 2, 1]),
        ("id", "descending", [3, 2, 1]),
        ("parentId", "Ascending", [1, 2, 3]),
        ("parentId", "Descending", [3, 2, 1]),
        ("id", "", [1, 2, 3]),
        ("", "Descending", [1, 2, 3]),
        ("nosuch", "Descending", [1, 2, 3]),
    ],
)
def test_a_sort_needs_both_parameters(expression, order, ids):
    assert [customer.id for customer in sort(CUSTOMERS, expression, order)] == ids


def test_text_sorts_without_case():
    customers = [Customer(id=n, reference=text) for n, text in enumerate(["b", "C", "A"])]
    assert [each.reference for each in sort(customers, "reference", "Ascending")] == ["A", "b", "C"]


PLAIN_TEXT = st.text(st.characters(exclude_characters=";*", codec="ascii"), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(value=PLAIN_TEXT, others=st.lists(PLAIN_TEXT, max_size=5))
def test_a_text_without_signs_finds_exactly_its_equals(value, others):
    customers = [Customer(id=n, reference=text) for n, text in enumerate([value, *others])]
    matches = compile_query(f"reference:{value}", Options(match_case=True))
    wanted = [c.id for c in customers if c.reference == value] if value != "[empty]" else []
    assert [c.id for c in customers if matches(c)] == wanted


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40))
def test_any_query_is_answered_or_refused(text):
    try:
        matches = compile_query(text, Options())
    except QueryRefused:
        return
    assert all(matches(customer) in (True, False) for customer in CUSTOMERS)
