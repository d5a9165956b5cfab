"""The desk of the simulated CRMs: what may be done by hand, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from simulators.crms import DEEDS, Desk
from simulators.hubspot import HubSpotWorld
from simulators.myadmin.contacts import Contacts, synthetic_contacts
from simulators.salesforce.accounts import Accounts

ACCOUNT = "0015g00001LwZ3kAAF"


@pytest.fixture
def records() -> dict:
    contacts = Contacts()
    contacts.put(*synthetic_contacts(1))
    return {
        "hubspot": HubSpotWorld(),
        "salesforce": Accounts(("Name", "Fusebill_Id__c")),
        "myadmin": contacts,
    }


@pytest.fixture
def desk(records) -> Iterator[str]:
    with Desk(records) as running:
        yield running.url


def do(desk: str, what: str, **values: object) -> requests.Response:
    return requests.post(f"{desk}/{what}", json=values, timeout=10)


def test_every_deed_is_a_method(records):
    for system, deeds in DEEDS.items():
        assert all(callable(getattr(records[system], deed)) for deed in deeds)


def test_it_says_what_may_be_done(desk):
    told = requests.get(desk, timeout=10).json()
    assert {name: frozenset(deeds) for name, deeds in told.items()} == DEEDS


def test_records_of_each_system_are_changed(desk, records):
    made = do(desk, "hubspot/create", type_="contacts", properties={"fusebill_id": "1"})
    assert (made.status_code, records["hubspot"].find("contacts", made.json()).id) == (
        200,
        made.json(),
    )
    assert do(desk, "salesforce/put", id_=ACCOUNT, Fusebill_Id__c="1").ok
    assert do(desk, "salesforce/delete", id_=ACCOUNT).ok
    assert records["salesforce"].find(ACCOUNT, deleted=True)["IsDeleted"] is True
    assert do(desk, "myadmin/deactivate", contact_id=4711).ok
    assert records["myadmin"].rows(active_only=True) == []


@pytest.mark.parametrize(
    ("what", "values", "status"),
    [
        ("hubspot/find", {"type_": "contacts", "id_": 1}, 404),
        ("hubspot/_record", {"type_": "contacts", "id_": 1}, 404),
        ("hubspot", {}, 404),
        ("elsewhere/put", {}, 404),
        ("hubspot/archive", {"type_": "contacts", "id_": 1}, 404),
        ("salesforce/delete", {"id_": ACCOUNT}, 404),
        ("hubspot/archive", {"name": "contacts"}, 400),
        ("salesforce/put", {"id_": "short"}, 400),
        ("myadmin/set", {"contact_id": 4711, "colour": "blue"}, 400),
    ],
)
def test_what_cannot_be_done_is_refused_with_why(desk, what, values, status):
    answer = do(desk, what, **values)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


@pytest.mark.parametrize("body", [b"", b"[]", b"{"])
def test_a_body_that_is_no_object_is_refused(desk, body):
    assert requests.post(f"{desk}/hubspot/create", data=body, timeout=10).status_code == 400
