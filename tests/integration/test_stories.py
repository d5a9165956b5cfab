"""The stories in which a careless synchroniser does harm, each from the vendor's own request to the
customer in Fusebill: the real receiver, store, worker and clients, and simulated systems over HTTP.

Here: what CRMs tell and fail to tell, and whose claim counts. Plans of several writes are in
`test_stories_plans`.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from simulators.http import Fault as CrmFault
from simulators.hubspot import rate_limited
from simulators.myadmin import rpc
from simulators.myadmin.contacts import Company, Contact
from sync_worker.converge import Ended
from sync_worker.domain import Reason, Source
from sync_worker.status import read_counters, read_status
from tests import receiving
from tests.changes import (
    ACCOUNT,
    COMPANY,
    CONTACT,
    GEOTAB,
    NOW,
    associated,
    linked,
    named,
    unlinked,
)
from tests.worlds import OTHER, N, World

ELSE = named(CONTACT, "512340077990")
"""Another contact."""

SECOND, FIRST = named(GEOTAB, "0070442"), named(GEOTAB, "0070440")

UNLATCH = "/v1/Salesforce/Unlatch"

LINK = "Fusebill_Id__c"


# --- Salesforce tells more, or less, than it seems to


def cdc(
    world: World, name: str, *, header: dict[str, Any] | None = None, **fields: Any
) -> receiving.Sent:
    """A change event that differs from the sample in its header and these fields."""
    event = msgspec.json.decode(world.sample(name).body)
    event["payload"]["ChangeEventHeader"] |= header or {}
    event["payload"] |= fields
    return receiving.salesforce(event)


@pytest.mark.parametrize("enriched", [None, "", "8714403"], ids=["null", "empty", "filled"])
def test_a_cdc_update_of_another_field_says_nothing_of_the_link_field(world, enriched):
    """B3.2, B3.6: what the event does not name as changed is silence, whatever is sent of it."""
    world.control.edit_customer(N, salesforce_id=ACCOUNT.id)
    header = {"changedFields": ["Name", "LastModifiedDate"]}
    sent = cdc(world, "salesforce.cdc.update", header=header, Name="Northgate", **{LINK: enriched})
    answer = world.send(sent)
    assert (answer.json["accepted"], answer.json["ignored"]) == (0, 1)
    world.work()
    assert world.control.calls() == []
    assert world.customer().salesforce_id == ACCOUNT.id[:15]


def test_a_cdc_update_without_the_link_field_says_nothing_of_it(world):
    world.control.edit_customer(N, salesforce_id=ACCOUNT.id)
    event = msgspec.json.decode(world.sample("salesforce.cdc.update").body)
    event["payload"]["ChangeEventHeader"]["changedFields"] = ["LastModifiedDate"]
    del event["payload"][LINK]
    assert world.send(receiving.salesforce(event)).json["accepted"] == 0
    world.work()
    assert world.control.calls() == []
    assert world.customer().salesforce_id == ACCOUNT.id[:15]


@pytest.mark.parametrize("sent", [True, False], ids=["null", "left out"])
def test_a_cdc_update_that_names_the_link_field_as_changed_and_sends_none(world, sent):
    """Null is an empty field; one that is left out takes a read to tell (B3.2)."""
    world.control.set_options(salesforce_unlatch_path=UNLATCH)
    world.use(fusebill_salesforce_unlatch_path=UNLATCH)
    world.control.edit_customer(N, salesforce_id=ACCOUNT.id)
    event = msgspec.json.decode(world.sample("salesforce.cdc.clear").body)
    if not sent:
        del event["payload"][LINK]
    world.send(receiving.salesforce(event))
    world.work()
    assert (world.customer().salesforce_id is None) is sent
    assert world.last()[0] == ("unlatched" if sent else "ignored")


def test_a_cdc_update_whose_changed_fields_are_a_bitmap_releases_nothing(world):
    """B3.2: it only says: look. What is read is silent, so the latch stays (B3.6)."""
    world.use(Source.SALESFORCE, fusebill_salesforce_unlatch_path=UNLATCH)
    world.control.edit_customer(N, salesforce_id=ACCOUNT.id)
    world.crms.salesforce.accounts.put(ACCOUNT.id, Name="Northgate")
    world.send(cdc(world, "salesforce.cdc.update", header={"changedFields": ["0x400001"]}))
    world.work()
    assert world.last()[0] == "unchanged"
    assert world.writes() == []
    assert world.customer().salesforce_id == ACCOUNT.id[:15]


def test_an_enriched_cdc_delete_latches_nothing(world):
    """B3.2: the link field that enrichment puts on a deletion is no claim."""
    event = msgspec.json.decode(world.sample("salesforce.cdc.delete").body)
    assert event["payload"][LINK] == str(N)
    world.deliver("salesforce.cdc.delete")
    world.age(ACCOUNT, 31)
    world.work()
    world.sweep()
    world.work()
    assert world.writes() == []
    assert world.customer().salesforce_id is None
    assert world.outcomes_of(ACCOUNT) == ["unchanged"]


def test_an_enriched_cdc_delete_releases_the_account(world):
    """And what it releases is whoever holds the Account, not whom the field names."""
    world.control.set_options(salesforce_unlatch_path=UNLATCH)
    world.use(fusebill_salesforce_unlatch_path=UNLATCH)
    world.control.edit_customer(OTHER, salesforce_id=ACCOUNT.id)
    world.deliver("salesforce.cdc.delete", customer_id=str(N))
    world.work()
    assert world.customer(OTHER).salesforce_id is not None  # a merge may explain it yet (B3.12)
    world.age(ACCOUNT, 31)
    world.work()
    assert world.writes() == [(UNLATCH, {"fusebillId": OTHER})]
    assert world.outcomes_of(ACCOUNT) == ["unlatched"]
    assert world.slots("salesforce_id") == [None, None, None]


SANDBOX = "00D5g000007Kp9Z"


@pytest.mark.parametrize(
    "name", ["salesforce.soap.linked", "salesforce.soap.unlinked", "salesforce.eventbridge.create"]
)
def test_a_sandbox_copy_of_the_organisation_is_refused_at_the_door(world, name):
    """B2.9: it sends the same record ids with the same token, and only the organisation differs."""
    world.control.edit_customer(N, salesforce_id=ACCOUNT.id)
    world.use(salesforce_org_id=SANDBOX)
    sent = world.sample(name)
    world.use()
    answer = world.send(sent, status=403)
    assert ("Fault" in answer.text) == ("soap" in name)
    world.work()
    assert world.waiting() == set()
    assert world.control.calls() == []
    assert read_counters(world.client)["foreign|salesforce"] == 1


@pytest.mark.parametrize("source", list(Source))
def test_credentials_of_another_tenant_are_not_believed(world, source):
    """B2.9, B3.5: what they read may be another record of the same id, so nothing is decided."""
    hubspot, salesforce, myadmin = world.crms.hubspot, world.crms.salesforce, world.crms.myadmin
    record, name = READ[source]
    hubspot.world.create("contacts", {"fusebill_id": str(N)}, id_=int(CONTACT.id))
    hubspot.portal_id = 99999999
    salesforce.accounts.put(ACCOUNT.id, Fusebill_Id__c=str(N))
    salesforce.org_id = SANDBOX
    theirs = Company(account="ACCT99")
    myadmin.contacts.put(Contact(id=1, reseller_customer_id=GEOTAB.id, user_company=theirs))
    world.use(source)
    world.deliver(name)
    assert world.converge(record) is Ended.POSTPONED
    for _ in range(12):
        world.probe()
        world.pass_time(record)
        assert world.converge(record) is Ended.NOT_DUE
    (pause,) = read_status(world.client).paused
    assert pause.owner == source
    assert world.control.calls() == []
    assert world.client.hget(f"sw:work:{record.mailbox}", "failures") == "0"
    assert (world.letters(), world.outcomes()) == ([], [])


READ = {
    Source.HUBSPOT: (CONTACT, "hubspot.contact.linked"),
    Source.SALESFORCE: (ACCOUNT, "salesforce.cdc.update"),
    Source.GEOTAB: (GEOTAB, "geotab.linked"),
}


# --- CRM reads that fail


def readable(world: World) -> None:
    """Every CRM has the record, and it claims N."""
    world.crms.hubspot.world.create("contacts", {"fusebill_id": str(N)}, id_=int(CONTACT.id))
    world.crms.salesforce.accounts.put(ACCOUNT.id, Fusebill_Id__c=str(N))
    world.crms.myadmin.contacts.put(Contact(id=1, reseller_customer_id=GEOTAB.id))


def refuse_token(world: World) -> None:
    world.crms.hubspot.control.add_fault(CrmFault(status=401, times=1))
    world.crms.salesforce.control.add_fault(CrmFault(path="/oauth2/", status=401, times=1))
    world.crms.myadmin.fail(rpc.error("InvalidUserException", "x"), times=1)


def drop(world: World) -> None:
    for crm in (world.crms.hubspot, world.crms.salesforce, world.crms.myadmin):
        crm.control.add_fault(CrmFault(drop=True, times=2))


def fail(world: World) -> None:
    for crm in (world.crms.hubspot, world.crms.salesforce, world.crms.myadmin):
        crm.control.add_fault(CrmFault(status=503, times=1))


def limit(world: World) -> None:
    world.crms.hubspot.control.add_fault(rate_limited())
    world.crms.salesforce.calls_left = 0
    world.crms.myadmin.fail(rpc.over_limit(), times=1)


def heal(world: World) -> None:
    world.crms.salesforce.calls_left = None
    for crm in (world.crms.hubspot, world.crms.salesforce, world.crms.myadmin):
        crm.control.clear_faults()


TROUBLE = {"503": fail, "connection cut": drop, "refused": refuse_token, "limit reached": limit}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
@pytest.mark.parametrize("source", list(Source))
def test_a_crm_that_cannot_be_read_is_waited_for_and_never_guessed(world, source, trouble):
    """B3.5: no attempt is used up, however long it lasts, and the events alone decide nothing."""
    record, name = READ[source]
    readable(world)
    world.use(source)
    world.deliver(name)
    trouble(world)
    assert world.converge(record) is Ended.POSTPONED
    assert world.control.calls() == []
    assert world.client.hget(f"sw:work:{record.mailbox}", "failures") == "0"
    assert world.waits_seconds(record) > 0.5
    heal(world)
    world.probe()
    world.pass_time(record)
    assert world.converge(record) is Ended.SETTLED
    assert world.last() == ("latched", f"customer {N}")
    assert len(world.writes()) == 1


@pytest.mark.parametrize("source", [Source.HUBSPOT, Source.SALESFORCE])
def test_the_truth_beats_an_event_that_says_otherwise(world, source):
    """B3.5: events come late and out of order; the record claims N by now."""
    _, name = READ[source]
    readable(world)
    world.use(source)
    world.deliver(name, customer_id=str(OTHER))
    world.work()
    assert world.last() == ("latched", f"customer {N}")
    assert {path.rpartition("/")[2].lower() for path, _ in world.writes()} <= {
        "latch",
        "latchcustomer",
    }
    assert [body["fusebillId"] for _, body in world.writes()] == [N]


@pytest.mark.parametrize("broken", ["empty", "short of a contact"])
def test_a_list_of_myadmin_that_is_not_whole_releases_nobody(world, broken):
    """B3.5: an empty list is no answer, and neither is one that lacks who it counted."""
    world.use(Source.GEOTAB)
    myadmin = world.crms.myadmin
    if broken == "empty":
        myadmin.list_nothing()
    else:
        myadmin.fail(rpc.result([], {"page": 1, "perPage": 20, "total": 1}), method="GetUser")
    world.control.edit_customer(N, geotab_id=GEOTAB.id)
    world.deliver("geotab.unlinked")
    assert world.converge(GEOTAB) is Ended.POSTPONED
    assert world.customer().geotab_id == GEOTAB.id
    myadmin.rewrite = None
    heal(world)
    myadmin.contacts.put(Contact(id=1, reseller_customer_id=GEOTAB.id))
    world.pass_time(GEOTAB)
    world.converge(GEOTAB)
    assert world.last() == ("ignored", "an active contact still carries the id")
    assert world.writes() == []
    myadmin.contacts.deactivate(1)
    world.deliver("geotab.unlinked")
    world.work()
    assert world.last() == ("unlatched", f"customer {N}")


# --- latches that somebody else made


@pytest.mark.parametrize("known", [False, True], ids=["unknown to us", "seen before"])
@pytest.mark.parametrize(
    "name", ["hubspot.contact.creation", "hubspot.contact.email", "hubspot.contact.association"]
)
def test_a_latch_made_by_hand_outlives_a_change_that_is_not_about_it(world, name, known):
    """B3.6, with read access: the contact's link field is empty, and was never filled."""
    world.use(Source.HUBSPOT, match_by=("id", "link", "email"))
    world.crms.hubspot.world.create("contacts", {"email": "a@b.example"}, id_=int(CONTACT.id))
    world.control.edit_customer(N, hub_spot_id=int(CONTACT.id), hub_spot_company_id=77)
    if known:
        world.feed(linked(GEOTAB))
    world.control.clear_calls()
    world.deliver(name)
    world.work()
    assert world.outcomes_of(CONTACT)[0] in ("unchanged", "ignored")
    assert world.writes() == []
    customer = world.customer()
    assert (customer.hub_spot_id, customer.hub_spot_company_id) == (int(CONTACT.id), 77)
    assert world.letters() == []


def test_a_latch_made_by_hand_outlives_an_email_that_names_another_customer(world):
    """B4.1, without read access and with the holder unknown: the refusal shows there is one."""
    world.use(match_by=("id", "link", "email"))
    world.control.edit_customer(OTHER, primary_email="billing@northgate.example")
    world.control.edit_customer(N, hub_spot_id=int(CONTACT.id))
    world.deliver("hubspot.contact.email")
    world.work()
    world.sweep()
    world.work()
    assert world.last() == ("unchanged", "already latched")
    assert world.slots("hub_spot_id") == [int(CONTACT.id), None, None]
    assert world.letters() == []


def test_a_latch_made_by_hand_is_not_displaced_by_a_record_that_was_just_made(world):
    """B3.7: a CDC CREATE that carries the field is no evidence that the field changed."""
    world.control.edit_customer(N, salesforce_id="0015g00001LwZ4R")
    world.deliver("salesforce.cdc.create")
    world.work()
    assert world.last() == ("unchanged", "claim is not newer than the latch")
    assert world.writes() == []
    assert world.letters() == []


# --- two records, one customer (B5.5)


def test_two_contacts_that_claim_one_customer_do_not_take_turns_under_replace(world):
    """The first still claims it, so the second is a conflict, whichever writes last."""
    world.use(on_conflict="replace")
    world.deliver("hubspot.contact.linked")
    world.work()
    world.deliver("hubspot.contact.linked", record_id=ELSE.id)
    world.work()
    letter = world.letter()
    assert (letter.reason, letter.mailbox) == (Reason.CONFLICT, ELSE.mailbox)
    assert CONTACT.id in letter.message
    assert letter.customer_ids == (N,)
    assert world.customer().hub_spot_id == int(CONTACT.id)
    assert len(world.writes()) == 1
    world.deliver("hubspot.contact.unlinked")  # and when the first lets go, the second is put there
    world.work()
    assert world.customer().hub_spot_id == int(ELSE.id)
    assert world.letters() == []
    assert [letter.state for letter in world.letters("resolved")] == ["resolved"]


def test_of_two_that_wait_for_one_slot_the_other_goes_on_waiting(world):
    """When it is free both are judged again, and only one can have it."""
    world.control.edit_customer(N, geotab_id="999")
    world.feed(linked(GEOTAB))
    world.feed(linked(SECOND))
    world.feed(unlinked(named(GEOTAB, "999"), customer_id=str(N)))
    world.work()
    held = world.customer().geotab_id
    assert held in (GEOTAB.id, SECOND.id)
    letter = world.letter()
    assert (letter.reason, letter.state) == (Reason.CONFLICT, "open")
    assert held in letter.message
    winner = named(GEOTAB, held)
    world.feed(unlinked(winner, customer_id=str(N), occurred_at=NOW + 1))
    world.work()
    assert world.customer().geotab_id == letter.mailbox.rpartition(":")[2]
    assert world.letters() == []


def test_an_occupant_that_claims_nothing_is_replaced_once_in_an_hour(world):
    """The slot holds what another hand put there; the next claimant has to wait for a person."""
    world.use(on_conflict="replace")
    world.control.edit_customer(N, hub_spot_id=9, hub_spot_company_id=77)
    world.feed(linked())
    assert world.last() == ("latched", f"customer {N}, replacing 9")
    assert world.writes() == [
        (
            "/v1/HubSpot/latchCustomer",
            {"fusebillId": N, "hubSpotId": int(CONTACT.id), "hubSpotCompanyId": 77},
        )
    ]
    world.feed(linked(customer=str(OTHER), occurred_at=NOW + 1))
    world.control.edit_customer(N, hub_spot_id=10)
    world.feed(linked(ELSE))
    assert world.letter().reason == Reason.CONFLICT
    assert world.customer().hub_spot_id == 10
    world.client.hincrby(
        f"sw:customer:{world.links.account}:{N}", "replaced:hubspot_contact", -3_600_000
    )
    world.replay()
    world.work()
    assert world.customer().hub_spot_id == int(ELSE.id)


def test_an_occupant_whose_field_names_the_customer_is_not_replaced(world):
    """With read access it is asked, even if nothing was ever heard of it."""
    world.use(Source.HUBSPOT, on_conflict="replace")
    hubspot = world.crms.hubspot.world
    hubspot.create("contacts", {"fusebill_id": str(N)}, id_=int(CONTACT.id))
    hubspot.create("contacts", {"fusebill_id": str(N)}, id_=int(ELSE.id))
    world.control.edit_customer(N, hub_spot_id=int(ELSE.id))
    world.deliver("hubspot.contact.linked")
    world.work()
    assert world.letter().reason == Reason.CONFLICT
    assert world.customer().hub_spot_id == int(ELSE.id)
    assert world.writes() == []
    hubspot.set_property("contacts", int(ELSE.id), "fusebill_id", "")
    world.replay()
    world.work()
    assert world.customer().hub_spot_id == int(CONTACT.id)


def test_a_salesforce_occupant_is_displaced_only_by_name(world):
    """B5.5: `forceLatch` is true only where the plan names whom it displaces."""
    world.use(on_conflict="replace")
    world.control.edit_customer(N, salesforce_id="0015g00001LwZ4R")
    world.feed(linked(ACCOUNT))
    assert [body["forceLatch"] for _, body in world.writes()] == [True]
    world.feed(linked(named(ACCOUNT, "0015g00001LwZ5TAAV"), customer=str(OTHER)))
    assert [body["forceLatch"] for _, body in world.writes()] == [True, False]


def test_two_contacts_of_one_company_on_two_customers(world):
    """B5.7: the company stays with the first, and the second contact is latched all the same."""
    for record, customer in ((CONTACT, N), (ELSE, OTHER)):
        world.deliver("hubspot.contact.association", record_id=record.id)
        world.deliver("hubspot.contact.linked", record_id=record.id, customer_id=str(customer))
        world.work()
    assert world.slots("hub_spot_id") == [int(CONTACT.id), int(ELSE.id), None]
    assert world.slots("hub_spot_company_id") == [int(COMPANY.id), None, None]
    assert world.letters() == []
    assert [detail for _, detail in world.outcomes()].count(f"company held by {N}") == 1


def test_a_company_that_fusebill_refuses_delays_no_contact(world):
    """B5.7: HubSpot does not know the company; it is latched without it at once."""
    world.control.set_options(missing_hubspot_companies=[int(COMPANY.id)])
    world.feed(linked(), associated(primary=True))
    assert world.customer().hub_spot_id == int(CONTACT.id)
    assert world.customer().hub_spot_company_id is None
    assert world.letters() == []
    assert world.waiting() == set()
