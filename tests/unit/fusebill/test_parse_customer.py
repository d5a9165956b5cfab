from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.domain import Customer, Record, RecordType, Slot, SlotState, Source
from sync_worker.fusebill.customer import NotACustomer, parse_customer, parse_page
from tests.unit.fusebill.scripted_server import EMAIL, customer_json

CONTACT, COMPANY = Slot.HUBSPOT_CONTACT, Slot.HUBSPOT_COMPANY
ACCOUNT, GEOTAB = Slot.SALESFORCE_ACCOUNT, Slot.GEOTAB_CUSTOMER

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def test_a_customer_as_the_geotab_pages_show_it() -> None:
    assert parse_customer(customer_json()) == Customer(
        id=8714402,
        status="Active",
        reference="NG-0042",
        slots={
            CONTACT: SlotState.EMPTY,
            COMPANY: SlotState.EMPTY,
            ACCOUNT: "0015g00001LwZ3kAAF",
            GEOTAB: "0070441",
        },
        emails=(EMAIL,),
    )


@pytest.mark.parametrize(
    ("value", "emails"),
    [
        (EMAIL, (EMAIL,)),
        ("A@X.example; b@y.example", ("a@x.example", "b@y.example")),
        ("a@x.example,b@y.example ;\tc@z.example;", ("a@x.example", "b@y.example", "c@z.example")),
        ("a@x.example; A@x.example", ("a@x.example",)),
        ("info@STRASSE.example;info@straße.example", ("info@strasse.example",)),
        (" ;, ", ()),
        ("", ()),
        (None, ()),
        (..., ()),
        (7, ()),
        (["a@x.example"], ()),
    ],
)
def test_each_address_of_the_primary_email_is_read(value: object, emails: tuple[str, ...]) -> None:
    assert parse_customer(customer_json(primaryEmail=value)).emails == emails


def test_a_customer_shows_no_address() -> None:
    customer = parse_customer(customer_json())
    shown = f"{customer!r} {customer} {[customer]} {parse_page([customer_json()], 1)}"
    assert "8714402" in shown
    assert "NG-0042" in shown
    assert EMAIL not in shown


def test_a_customer_as_the_hubspot_pages_show_it_lacks_geotab_which_is_unknown_not_empty() -> None:
    payload = customer_json(
        hubSpotId=101,
        hubSpotCompanyId=202,
        geotabId=...,
        netsuiteSynchStatus=...,
        createdTimestamp=...,
    )
    assert parse_customer(payload).slots == {
        CONTACT: "101",
        COMPANY: "202",
        ACCOUNT: "0015g00001LwZ3kAAF",
        GEOTAB: SlotState.UNKNOWN,
    }


def test_only_the_top_level_id_counts() -> None:
    assert parse_customer(customer_json(id=2554529)).id == 2554529


def test_a_bare_id_is_a_customer_of_whom_nothing_is_known() -> None:
    customer = parse_customer({"id": 5})
    assert (customer.status, customer.reference) == ("", None)
    assert set(customer.slots) == set(Slot)
    assert set(customer.slots.values()) == {SlotState.UNKNOWN}


@pytest.mark.parametrize(
    ("key", "slot", "value", "expected"),
    [
        ("hubSpotId", CONTACT, 9007199254740993, "9007199254740993"),
        ("hubSpotId", CONTACT, "9007199254740993", "9007199254740993"),
        ("hubSpotId", CONTACT, "0101", "101"),
        ("hubSpotId", CONTACT, 0, SlotState.EMPTY),
        ("hubSpotId", CONTACT, "0", SlotState.EMPTY),
        ("hubSpotId", CONTACT, "", SlotState.EMPTY),
        ("hubSpotCompanyId", COMPANY, 2**63 - 1, str(2**63 - 1)),
        ("salesforceId", ACCOUNT, "0015g00001LwZ3kAAF", "0015g00001LwZ3kAAF"),
        ("salesforceId", ACCOUNT, "", SlotState.EMPTY),
        ("geotabId", GEOTAB, "0909909", "0909909"),
        ("geotabId", GEOTAB, 909909, "909909"),
        ("geotabId", GEOTAB, 0, "0"),
        ("geotabId", GEOTAB, "a:b é", "a:b é"),
        ("geotabId", GEOTAB, "", SlotState.EMPTY),
    ],
)
def test_a_slot_is_read_into_its_canonical_spelling(
    key: str, slot: Slot, value: object, expected: object
) -> None:
    # Through JSON and back, so that numbers are as exact as they come over the wire.
    payload = json.loads(json.dumps(customer_json(**{key: value})))
    assert parse_customer(payload).slots[slot] == expected


def test_an_answer_holds_the_record_that_was_latched() -> None:
    customer = parse_customer(customer_json(hubSpotId=4611686018427387905))
    contact = Record(Source.HUBSPOT, "24681357", RecordType.CONTACT, "4611686018427387905")
    assert customer.holds(contact)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        True,
        7,
        "<html></html>",
        [customer_json()],
        {},
        {"ErrorId": 0, "HttpStatusCode": 404, "Errors": []},
        customer_json(id=...),
        customer_json(id=None),
        customer_json(id=0),
        customer_json(id=-1),
        customer_json(id=True),
        customer_json(id=1.0),
        customer_json(id="8714402x"),
        customer_json(id=2**64),
        customer_json(id=10**5000),
    ],
    ids=lambda payload: str(type(payload).__name__),
)
def test_anything_but_an_object_with_an_id_is_not_a_customer(payload: object) -> None:
    with pytest.raises(NotACustomer):
        parse_customer(payload)


SLOTS = {
    "hubSpotId": Slot.HUBSPOT_CONTACT,
    "hubSpotCompanyId": Slot.HUBSPOT_COMPANY,
    "salesforceId": Slot.SALESFORCE_ACCOUNT,
    "geotabId": Slot.GEOTAB_CUSTOMER,
}


@pytest.mark.parametrize("key", SLOTS)
@pytest.mark.parametrize("value", [True, 1.5, [], {}, -1], ids=str)
def test_a_slot_value_that_cannot_be_read_is_unknown_and_spoils_no_other(
    key: str, value: object
) -> None:
    slots = parse_customer(customer_json(**{key: value})).slots
    assert slots[SLOTS[key]] is SlotState.UNKNOWN
    others = parse_customer(customer_json()).slots
    assert {s: v for s, v in slots.items() if s is not SLOTS[key]} == {
        s: v for s, v in others.items() if s is not SLOTS[key]
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hubSpotId", EMAIL),
        ("hubSpotId", "١٢"),
        ("hubSpotId", " 101 "),
        ("hubSpotId", "9" * 5000),
        ("salesforceId", EMAIL),
        ("salesforceId", "1"),
    ],
)
def test_text_that_is_no_id_is_unknown(key: str, value: str) -> None:
    assert parse_customer(customer_json(**{key: value})).slots[SLOTS[key]] is SlotState.UNKNOWN


@given(json_values)
def test_any_json_gives_a_customer_or_not_a_customer(payload: object) -> None:
    with suppress(NotACustomer):
        parse_customer(payload)


@given(
    st.fixed_dictionaries(
        {"id": st.integers(min_value=1, max_value=10**9)},
        optional=dict.fromkeys(
            ["status", "reference", "hubSpotId", "hubSpotCompanyId", "salesforceId", "geotabId"],
            json_values | st.from_regex(r"[0-9A-Za-z]{15}|[0-9A-Za-z]{18}", fullmatch=True),
        ),
    )
)
def test_any_values_in_its_keys_give_a_customer_or_not_a_customer(payload: object) -> None:
    try:
        customer = parse_customer(payload)
    except NotACustomer:
        return
    assert set(customer.slots) == set(Slot)
    assert all(type(value) in (str, SlotState) and value for value in customer.slots.values())
