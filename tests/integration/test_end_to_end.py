"""A signed webhook over HTTP, real Redis, a real Celery worker, and the request at Fusebill.

The five endpoints of Fusebill that the product exists for, each compared with what the vendor's
page of that name says: method, path, where the id stands, and the whole body. Then what needs the
CRMs to be read, and what needs all customers to be looked through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from simulators.fusebill.customer import Customer
from simulators.myadmin.contacts import Contact
from sync_worker.celery import KEY_PREFIX, LIVE_QUEUE
from sync_worker.links import account_of
from sync_worker.status import read_counters, read_status, read_sweep
from tests.processes import until
from tests.stack import Stack, running

N = 8714402
CONTACT, COMPANY, ACCOUNT, GEOTAB = 512340077981, 330222354907, "0015g00001LwZ3kAAF", "0070441"


@dataclass(frozen=True)
class Page:
    """One page of the vendor, and the webhooks that lead to its call."""

    events: tuple[tuple[str, dict[str, Any]], ...]
    path: str
    body: dict[str, Any] | None
    after: dict[str, Any]


PAGES = {
    "HubSpot Latch Customer": Page(
        (("hubspot.contact.linked", {"record_id": str(CONTACT)}),),
        "/v1/HubSpot/latchCustomer",
        {"fusebillId": N, "hubSpotId": CONTACT, "hubSpotCompanyId": None},
        {"hub_spot_id": CONTACT, "hub_spot_company_id": None},
    ),
    "HubSpot Unlatch Customer": Page(
        (
            ("hubspot.contact.linked", {"record_id": str(CONTACT)}),
            ("hubspot.contact.unlinked", {"record_id": str(CONTACT)}),
        ),
        f"/v1/HubSpot/UnlatchCustomer/{N}",
        None,
        {"hub_spot_id": None, "hub_spot_company_id": None},
    ),
    "Salesforce Latch Customer": Page(
        (("salesforce.soap.linked", {"record_id": ACCOUNT}),),
        "/v1/Salesforce/Latch",
        {"fusebillId": N, "salesforceId": ACCOUNT, "forceLatch": False},
        {"salesforce_id": ACCOUNT[:15]},
    ),
    "Geotab Latch Customer": Page(
        (("geotab.linked", {"record_id": GEOTAB}),),
        "/v1/Geotab/LatchCustomer",
        {"fusebillId": N, "geotabId": GEOTAB},
        {"geotab_id": GEOTAB},
    ),
    "Geotab Unlatch Customer": Page(
        (
            ("geotab.linked", {"record_id": GEOTAB}),
            ("geotab.form.unlinked", {"record_id": GEOTAB}),
        ),
        "/v1/Geotab/UnlatchCustomer",
        {"fusebillId": N},
        {"geotab_id": None},
    ),
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_a_webhook_becomes_the_request_of_the_vendors_page(stack, page):
    for count, (event, values) in enumerate(page.events, start=1):
        stack.send(event, customer_id=str(N), **values)
        stack.wait_settled(count)
    call = stack.control.calls(method="POST")[-1]
    assert (call.path, call.body, call.status) == (page.path, page.body, 200)
    if page.body is None:
        assert (call.raw_body_length, call.content_length_header) == (0, "0")
    customer = stack.control.customer(N)
    shown = {name: getattr(customer, name) for name in page.after}
    assert {name: value and str(value)[:15] for name, value in shown.items()} == {
        name: value and str(value)[:15] for name, value in page.after.items()
    }
    assert stack.letters() == []


def test_both_hubspot_ids_come_and_go_one_at_a_time(stack):
    steps = (
        ("hubspot.contact.linked", str(CONTACT), (CONTACT, None)),
        ("hubspot.company.linked", str(COMPANY), (CONTACT, COMPANY)),
        ("hubspot.contact.unlinked", str(CONTACT), (None, COMPANY)),
        ("hubspot.company.unlinked", str(COMPANY), (None, None)),
    )
    for count, (event, record, ids) in enumerate(steps, start=1):
        stack.send(event, record_id=record, customer_id=str(N))
        stack.wait_settled(count)
        customer = stack.control.customer(N)
        assert (customer.hub_spot_id, customer.hub_spot_company_id) == ids


def test_a_second_identical_delivery_makes_no_write(stack):
    made = [
        stack.sample("hubspot.contact.linked", record_id=str(CONTACT), customer_id=str(N)),
        stack.sample("salesforce.soap.linked", record_id=ACCOUNT, customer_id=str(N)),
        stack.sample("geotab.linked", record_id=GEOTAB, customer_id=str(N)),
    ]
    for one in made:
        assert stack.post(one).ok
    stack.wait_settled(3)
    stack.control.clear_calls()
    for one in made:
        assert stack.post(one).ok
    assert read_counters(stack.client)["duplicates"] == 3
    assert stack.control.calls() == []


def test_many_records_at_once_all_arrive(stack):
    stack.control.put_customers(*(Customer(id=n) for n in range(1, 101)))
    for n in range(1, 101):
        stack.send("geotab.linked", record_id=f"{n:07}", customer_id=str(n))
    events = stack.wait_settled(100)
    assert {event.outcome for event in events} == {"latched"}
    stack.wait_drained()
    assert [stack.control.customer(n).geotab_id for n in range(1, 101)] == [
        f"{n:07}" for n in range(1, 101)
    ]
    assert len(stack.control.calls(method="POST")) == 100


def test_b6_7_a_lost_wake_up_is_sent_again(stack):
    """Celery's queues are deleted under a change whose wake-up was never taken."""
    stack.kill("worker")
    stack.send("geotab.linked", record_id=GEOTAB, customer_id=str(N))
    until(lambda: stack.client.llen(KEY_PREFIX + LIVE_QUEUE))
    stack.client.delete(*stack.client.keys(f"{KEY_PREFIX}*"))
    stack.start("worker")
    assert stack.wait_settled(1)[0].outcome == "latched"


def test_status_tells_of_a_dead_letter_and_a_replay_resolves_it(stack):
    stack.control.edit_customer(N, geotab_id="999")
    stack.send("geotab.changed", record_id=GEOTAB, customer_id=str(N))
    stack.wait_settled(1)
    assert read_status(stack.client).dead_letters == {"conflict": 1}
    stack.control.edit_customer(N, geotab_id=None)
    replayed = stack.command("dead-letters", "replay", "--yes", "--json")
    assert replayed["planned"] == replayed["replayed"] == 1
    stack.wait_settled(2)
    assert stack.control.customer(N).geotab_id == GEOTAB
    assert stack.letters() == []


# ---- with the CRMs to be read (B3.5)

UNLATCH_PATH = "/v1/Salesforce/Unlatch"
M = 8714403


@pytest.fixture(scope="module")
def module_stack_with_crms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from running(
        tmp_path_factory.mktemp("crms"),
        crms=True,
        HUBSPOT_LATCH_COMPANY="primary",
        FUSEBILL_SALESFORCE_UNLATCH_PATH=UNLATCH_PATH,
        SWEEP_SECONDS="0.5",
    )


@pytest.fixture
def reading(module_stack_with_crms: Stack) -> Stack:
    """All processes, with read access to three CRMs that are empty, and two customers."""
    stack = module_stack_with_crms
    stack.wait_drained()
    stack.client.flushall()
    stack.control.reset()
    stack.control.set_options(salesforce_unlatch_path=UNLATCH_PATH)
    stack.control.put_customers(Customer(id=N), Customer(id=M))
    stack.crms.reset()
    return stack


def posts(stack: Stack) -> list[tuple[str, dict[str, Any] | None]]:
    return [(call.path, call.body) for call in stack.control.calls(method="POST")]


def hubspot_slots(stack: Stack, customer: int = N) -> tuple[int | None, int | None]:
    found = stack.control.customer(customer)
    return found.hub_spot_id, found.hub_spot_company_id


def test_a_claimed_contact_its_company_and_a_merge(reading):
    """One delivery each: the contact, then the company it joins, then what both are merged into."""
    hubspot = reading.crms.hubspot.world
    contact = hubspot.create("contacts", {"fusebill_id": str(N)})
    double = hubspot.create("contacts")
    company = hubspot.create("companies")

    reading.send("hubspot.contact.linked", record_id=str(contact), customer_id=str(N))
    (latched,) = reading.wait_settled(1)
    assert latched.outcome == "latched"
    assert hubspot_slots(reading) == (contact, None)

    hubspot.associate(contact, company, primary=True)
    reading.send("hubspot.contact.association", record_id=str(contact), other_id=str(company))
    joined = reading.wait_settled(2)[-1]
    assert (joined.kind, joined.outcome) == ("associated", "latched")
    assert hubspot_slots(reading) == (contact, company)

    survivor = hubspot.merge("contacts", contact, double)
    assert survivor not in (contact, double)
    reading.send("hubspot.contact.merge", record_id=str(survivor), other_id=str(contact))
    reading.send("hubspot.contact.deletion", record_id=str(contact))
    merged, deleted = reading.wait_settled(4)[-2:]
    assert {merged.outcome, deleted.outcome} == {"moved", "superseded"}
    reading.wait_drained()
    assert hubspot_slots(reading) == (survivor, company)
    assert len(posts(reading)) == 3  # one write for each thing that changed
    assert reading.letters() == []


def test_b5_6_a_deleted_account_is_released_where_the_unlatch_path_is_known(reading):
    accounts = reading.crms.salesforce.accounts
    accounts.put(ACCOUNT, Fusebill_Id__c=str(N))
    reading.send("salesforce.cdc.update", record_id=ACCOUNT, customer_id=str(N))
    reading.wait_settled(1)
    assert reading.control.customer(N).salesforce_id == ACCOUNT[:15]

    accounts.delete(ACCOUNT)
    reading.send("salesforce.cdc.delete", record_id=ACCOUNT)
    released = reading.wait_settled(2)[-1]
    assert (released.kind, released.outcome) == ("deleted", "unlatched")
    assert posts(reading)[-1] == (UNLATCH_PATH, {"fusebillId": N})
    assert reading.control.customer(N).salesforce_id is None


def test_b3_5_a_deactivated_geotab_customer_is_released_once_myadmin_shows_it(reading):
    contacts = reading.crms.myadmin.contacts
    contacts.put(Contact(id=1, reseller_customer_id=GEOTAB), Contact(id=2))
    reading.send("geotab.linked", record_id=GEOTAB, customer_id=str(N))
    reading.wait_settled(1)
    assert reading.control.customer(N).geotab_id == GEOTAB

    reading.send("geotab.deactivated", record_id=GEOTAB)
    early = reading.wait_settled(2)[-1]
    assert (early.outcome, early.detail) == ("ignored", "an active contact still carries the id")

    contacts.deactivate(1)
    reading.send("geotab.deactivated", record_id=GEOTAB)
    assert reading.wait_settled(3)[-1].outcome == "unlatched"
    assert posts(reading)[-1] == ("/v1/Geotab/UnlatchCustomer", {"fusebillId": N})
    assert reading.control.customer(N).geotab_id is None


def test_b4_5_a_sweep_finds_a_holder_that_was_latched_by_hand(reading):
    """An unlink of a record that nobody here has seen: who holds it stands in no index."""
    hubspot = reading.crms.hubspot.world
    contact = hubspot.create("contacts", {"fusebill_id": str(M)})
    reading.control.edit_customer(M, hub_spot_id=contact)
    hubspot.set_property("contacts", contact, "fusebill_id", "")
    reading.send("hubspot.contact.unlinked", record_id=str(contact))
    (released,) = reading.wait_settled(1)
    assert (released.outcome, released.customer_ids) == ("unlatched", (M,))
    assert hubspot_slots(reading, M) == (None, None)
    assert posts(reading) == [(f"/v1/HubSpot/UnlatchCustomer/{M}", None)]
    sweep = read_sweep(reading.client, account_of(reading.fusebill.url))
    assert (sweep.customers, sweep.waiting) == (2, 0)
