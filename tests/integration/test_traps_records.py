"""Traps in what becomes of records: merged, deleted, restored, latched with their company, and
exchanged for one another. Real HTTP on every side; see also `test_traps`.
"""

from __future__ import annotations

import msgspec
import pytest

from sync_worker.domain import Change, Reason, Record, Source
from tests.changes import (
    ACCOUNT,
    COMPANY,
    CONTACT,
    NOW,
    associated,
    deleted,
    dissociated,
    linked,
    merged,
    named,
    restored,
)
from tests.worlds import OTHER, THIRD, N, World

ELSE = named(CONTACT, "512340077990")
"""Another contact."""

NEW = named(CONTACT, "512340078000")
"""The contact that a merge of the two makes."""

OTHER_ACCOUNT = named(ACCOUNT, "0015g00001LwZ4RAAV")

UNLATCH = "/v1/Salesforce/Unlatch"


# --- HubSpot's one call for two ids


@pytest.mark.parametrize(
    ("kept", "sample", "cleared"),
    [
        ("hub_spot_company_id", "hubspot.contact.unlinked", "hub_spot_id"),
        ("hub_spot_id", "hubspot.company.unlinked", "hub_spot_company_id"),
    ],
)
def test_b5_4_clearing_one_hub_spot_id_keeps_the_other(world, kept, sample, cleared):
    """A null wipes, and so does a key that is left out."""
    world.use(hubspot_latch_company="property")
    world.control.edit_customer(N, hub_spot_id=int(CONTACT.id), hub_spot_company_id=int(COMPANY.id))
    before = getattr(world.customer(), kept)
    world.deliver(sample)
    world.settle()
    customer = world.customer()
    assert (getattr(customer, kept), getattr(customer, cleared)) == (before, None)
    ((path, body),) = world.writes()
    assert path == "/v1/HubSpot/latchCustomer"
    assert body.keys() == {"fusebillId", "hubSpotId", "hubSpotCompanyId"}


@pytest.mark.parametrize("sample", ["hubspot.contact.unlinked", "hubspot.company.unlinked"])
def test_b5_4_the_last_hub_spot_id_is_unlatched_by_its_own_call(world, sample):
    world.use(hubspot_latch_company="property")
    field, record = (
        ("hub_spot_id", CONTACT) if "contact" in sample else ("hub_spot_company_id", COMPANY)
    )
    world.control.edit_customer(N, **{field: int(record.id)})
    world.deliver(sample)
    world.settle()
    assert world.writes() == [(f"/v1/HubSpot/UnlatchCustomer/{N}", None)]


def test_b5_7_the_deletion_of_a_contact_keeps_the_company_it_brought(world):
    world.deliver("hubspot.contact.association")
    world.deliver("hubspot.contact.linked")
    world.work()
    assert world.customer().hub_spot_company_id == int(COMPANY.id)
    world.deliver("hubspot.contact.deletion")
    world.settle(CONTACT)
    customer = world.customer()
    assert (customer.hub_spot_id, customer.hub_spot_company_id) == (None, int(COMPANY.id))
    assert world.writes()[-1][1] == {
        "fusebillId": N,
        "hubSpotId": None,
        "hubSpotCompanyId": int(COMPANY.id),
    }


@pytest.mark.parametrize("kind", ["deletion", "privacyDeletion"])
def test_b3_1_a_deleted_contact_is_released(world, kind):
    if kind == "privacyDeletion":
        world.control.edit_customer(N, hub_spot_id=int(CONTACT.id))  # not known to us before
    else:
        world.feed(linked())
    world.deliver(f"hubspot.contact.{kind}")
    world.settle(CONTACT)
    assert world.contacts() == [None, None, None]
    assert world.outcomes_of(CONTACT)[-1] == "unlatched"


def test_b5_7_a_deleted_company_is_released_and_the_contact_stays(world):
    world.feed(linked(), associated(primary=True))
    world.deliver("hubspot.company.deletion")
    world.settle(COMPANY)
    customer = world.customer()
    assert (customer.hub_spot_id, customer.hub_spot_company_id) == (int(CONTACT.id), None)


# --- merges


def hubspot_merge(world: World, *, new: Record = NEW) -> Change:
    """ELSE was merged into CONTACT: a new contact, or CONTACT itself where HubSpot did so."""
    gone = [one.id for one in (CONTACT, ELSE) if one != new]
    return merged(new, *gone, occurred_at=NOW + 10)


GONE = deleted(ELSE, occurred_at=NOW + 11)
"""HubSpot tells the deletion of a merged contact too, before or after the merge."""

ORDERS = {
    "merge first": lambda merge: [[merge], [GONE]],
    "deletion first": lambda merge: [[GONE], [merge]],
    "both at once": lambda merge: [[GONE, merge]],
    "merge alone": lambda merge: [[merge]],
    "deletion long before": lambda merge: [[GONE], "grace", [merge]],
}


@pytest.mark.parametrize("survivor", [NEW, CONTACT], ids=["new id", "primary stays"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_b3_12_a_merge_takes_over_where_the_merged_contact_was(world, order, survivor):
    """Without read access, in whatever order it is told; no late deletion unlatches it."""
    world.feed(linked(ELSE))
    for step in order(hubspot_merge(world, new=survivor)):
        if step == "grace":
            world.settle(ELSE)
        else:
            world.inbox.accept(step)
            world.work()
    world.settle(ELSE, survivor)
    assert world.contacts() == [int(survivor.id), None, None]
    assert world.letters() == []
    assert world.waiting() == set()
    released = world.client.zcard("sw:releases")
    assert released == (1 if order is ORDERS["deletion long before"] else 0)


def test_b3_12_a_deletion_alone_is_a_deletion(world):
    """After the grace in which a merge might have explained it, and not before."""
    world.feed(linked(ELSE))
    world.deliver("hubspot.contact.deletion", record_id=ELSE.id)
    world.work()
    assert world.contacts() == [int(ELSE.id), None, None]
    assert 25 < world.waits_seconds(ELSE) <= 30
    world.settle(ELSE)
    assert world.contacts() == [None, None, None]
    assert world.outcomes_of(ELSE) == ["latched", "unlatched"]


def test_b3_12_the_winner_of_a_merge_keeps_its_own_customer(world):
    """Only the winner is latched; the loser's deletion touches nobody."""
    world.feed(linked(CONTACT))
    world.deliver("hubspot.contact.merge", record_id=CONTACT.id, other_id=ELSE.id)
    world.deliver("hubspot.contact.deletion", record_id=ELSE.id)
    world.settle(CONTACT, ELSE)
    assert world.contacts() == [int(CONTACT.id), None, None]
    assert len(world.writes()) == 1


def test_b3_12_merged_contacts_of_two_customers_wait_for_a_person(world):
    """The new contact names nobody itself, so either of the two may be right."""
    world.feed(linked(CONTACT))
    world.feed(linked(ELSE, customer=str(OTHER)))
    writes = len(world.writes())
    world.inbox.accept([hubspot_merge(world), GONE])
    world.settle(ELSE, CONTACT, NEW)
    letter = world.letter()
    assert letter.reason == Reason.CONFLICT
    assert set(letter.customer_ids) == {N, OTHER}
    assert len(world.writes()) == writes
    world.feed(linked(NEW, customer=str(OTHER), occurred_at=NOW + 20))
    world.settle(NEW)
    assert world.contacts() == [None, int(NEW.id), None]
    assert world.letters() == []


def test_b3_12_of_two_customers_the_survivor_keeps_the_one_it_names(world):
    """The contact that is left still claims N, so the other is released."""
    world.feed(linked(CONTACT))
    world.feed(linked(ELSE, customer=str(OTHER)))
    world.inbox.accept([hubspot_merge(world, new=CONTACT), GONE])
    world.settle(ELSE, CONTACT)
    assert world.contacts() == [int(CONTACT.id), None, None]
    assert world.letters() == []


def test_b3_12_a_chain_of_merges_is_followed(world):
    world.feed(linked(ELSE))
    world.inbox.accept([hubspot_merge(world), merged(named(CONTACT, "7"), NEW.id)])
    world.settle(NEW, CONTACT, ELSE)
    assert world.contacts() == [7, None, None]
    assert world.letters() == []


def test_b3_12_a_deletion_that_comes_months_after_the_merge_unlatches_nobody(world):
    world.feed(linked(ELSE))
    world.inbox.accept([hubspot_merge(world)])
    world.settle(NEW)
    world.inbox.accept([msgspec.structs.replace(GONE, occurred_at=NOW + 90 * 86_400_000)])
    world.settle(ELSE, NEW)
    assert world.contacts() == [int(NEW.id), None, None]
    assert world.outcomes_of(ELSE) == ["latched", "superseded"]


def test_b3_12_the_deletion_of_the_survivor_itself_is_one(world):
    world.feed(linked(ELSE))
    world.inbox.accept([hubspot_merge(world)])
    world.settle(NEW)
    world.inbox.accept([deleted(NEW, occurred_at=NOW + 20)])
    world.settle(NEW)
    assert world.contacts() == [None, None, None]


@pytest.mark.parametrize("told", ["merge", "deletion", "deletion, merge", "merge, deletion"])
@pytest.mark.parametrize("new_id", [True, False], ids=["new id", "primary stays"])
def test_b3_12_hubspot_itself_says_what_became_of_a_merged_contact(world, told, new_id):
    """With read access a deletion alone is enough: the id leads to the survivor."""
    world.use(Source.HUBSPOT)
    hubspot = world.crms.hubspot.world
    hubspot.merge_makes_new_id = new_id
    hubspot.create("contacts", {"email": "a@b.example"}, id_=int(CONTACT.id))
    hubspot.create("contacts", {"fusebill_id": str(N)}, id_=int(ELSE.id))
    world.deliver("hubspot.contact.linked", record_id=ELSE.id)
    world.work()
    survivor = hubspot.merge("contacts", int(CONTACT.id), int(ELSE.id))
    assert (survivor == int(CONTACT.id)) is not new_id
    for what in told.split(", "):
        if what == "deletion":
            world.deliver("hubspot.contact.deletion", record_id=ELSE.id)
        else:
            world.inbox.accept([hubspot_merge(world, new=named(CONTACT, str(survivor)))])
        world.work()
    world.settle(ELSE)
    assert world.contacts() == [survivor, None, None]
    assert world.letters() == []
    assert world.waiting() == set()


@pytest.mark.parametrize("told", ["deletion", "update", "apex merge", "deletion, apex merge"])
def test_b3_12_salesforce_names_the_survivor_as_master_record(world, told):
    """MasterRecordId, by a read or told by a trigger; what came of the loser is told first."""
    if told != "apex merge":
        world.use(Source.SALESFORCE, fusebill_salesforce_unlatch_path=UNLATCH)
    accounts = world.crms.salesforce.accounts
    accounts.put(ACCOUNT.id, Name="Northgate")
    accounts.put(OTHER_ACCOUNT.id, Name="Northgate 2", Fusebill_Id__c=str(N))
    world.deliver("salesforce.cdc.update", record_id=OTHER_ACCOUNT.id)
    world.work()
    accounts.merge(ACCOUNT.id, OTHER_ACCOUNT.id)
    accounts.set_field(ACCOUNT.id, "Fusebill_Id__c", str(N))
    samples = {
        "deletion": ("salesforce.cdc.delete", {"record_id": OTHER_ACCOUNT.id}),
        "update": ("salesforce.cdc.update", {"record_id": OTHER_ACCOUNT.id}),
        "apex merge": (
            "salesforce.apex.merge",
            {"record_id": ACCOUNT.id, "other_id": OTHER_ACCOUNT.id},
        ),
    }
    for what in told.split(", "):
        name, values = samples[what]
        world.deliver(name, **values)
        world.work()
    world.settle(OTHER_ACCOUNT, ACCOUNT)
    assert world.slots("salesforce_id") == [ACCOUNT.id[:15], None, None]
    assert [body["salesforceId"] for _, body in world.writes()] == [OTHER_ACCOUNT.id, ACCOUNT.id]
    assert world.writes()[-1][1]["forceLatch"] is True  # it displaces the loser, by name (B5.5)
    assert world.letters() == []


# --- a customer that goes from one record to another


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["release first", "claim first"])
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
def test_a_customer_that_moves_from_one_record_to_another(world, order, at_once):
    """A person clears the field on one contact and writes it on the other."""
    world.feed(linked(CONTACT))
    both = [
        ("hubspot.contact.unlinked", {"record_id": CONTACT.id}),
        ("hubspot.contact.linked", {"record_id": ELSE.id}),
    ]
    for place in order:
        name, values = both[place]
        world.deliver(name, **values)
        if not at_once:
            world.work()
    world.settle()
    assert world.contacts() == [int(ELSE.id), None, None]
    assert world.letters() == []
    assert world.outcomes_of(CONTACT)[-1] in ("unlatched", "unchanged")


def test_a_customer_that_moves_between_records_with_read_access(world):
    """The first contact's own field says that it makes room, told or not."""
    world.use(Source.HUBSPOT)
    hubspot = world.crms.hubspot.world
    hubspot.create("contacts", {"fusebill_id": str(N)}, id_=int(CONTACT.id))
    hubspot.create("contacts", {}, id_=int(ELSE.id))
    world.deliver("hubspot.contact.linked")
    world.work()
    hubspot.set_property("contacts", int(CONTACT.id), "fusebill_id", "")
    hubspot.set_property("contacts", int(ELSE.id), "fusebill_id", str(N))
    world.deliver("hubspot.contact.linked", record_id=ELSE.id)
    world.work()
    assert world.contacts() == [int(CONTACT.id), None, None]  # silence is no statement yet (B3.6)
    assert world.letter().reason == Reason.CONFLICT
    world.deliver("hubspot.contact.unlinked")
    world.work()
    assert world.contacts() == [int(ELSE.id), None, None]
    assert world.letters() == []


# --- the company that comes with its contact (B5.7)


def companies(world: World) -> list[int | None]:
    return world.slots("hub_spot_company_id")


K = int(COMPANY.id)


def test_b5_7_a_company_is_remembered_until_its_contact_is_latched(world):
    world.deliver("hubspot.contact.association")
    world.work()
    assert world.last() == ("unchanged", "it is remembered until the contact is latched")
    assert world.control.calls() == []
    world.deliver("hubspot.contact.linked")
    world.work()
    assert (world.contacts()[0], companies(world)[0]) == (int(CONTACT.id), K)
    assert len(world.writes()) == 1


@pytest.mark.parametrize("by", ["contact", "company"])
def test_b5_7_the_primary_association_sets_the_company_of_a_latched_contact(world, by):
    """Whichever side tells it."""
    world.feed(linked())
    world.deliver(f"hubspot.{by}.association")
    world.work()
    assert companies(world) == [K, None, None]
    world.deliver(f"hubspot.{by}.dissociation")
    world.work()
    assert companies(world) == [K, None, None]  # another association may explain it (B3.12)
    world.settle(CONTACT)
    assert (world.contacts()[0], companies(world)[0]) == (int(CONTACT.id), None)


def test_b5_7_what_is_not_primary_says_nothing(world):
    world.feed(linked())
    world.deliver("hubspot.contact.association.other")
    world.deliver("hubspot.contact.dissociation.other")
    world.settle(CONTACT)
    assert companies(world) == [None, None, None]
    world.control.edit_customer(N, hub_spot_company_id=K)
    world.deliver("hubspot.contact.dissociation.other", event_id="4711")
    world.settle(CONTACT)
    assert companies(world) == [K, None, None]


def test_b5_7_an_association_that_does_not_say_fills_an_empty_slot_only(world):
    world.feed(linked())
    world.control.edit_customer(N, hub_spot_company_id=77)
    world.feed(associated(occurred_at=NOW + 1))
    assert companies(world) == [77, None, None]
    world.control.edit_customer(N, hub_spot_company_id=None)
    world.feed(associated(occurred_at=NOW + 2))
    assert companies(world) == [K, None, None]


def test_b5_7_a_dissociation_releases_only_the_very_company(world):
    world.feed(linked())
    world.control.edit_customer(N, hub_spot_company_id=77)
    world.inbox.accept([dissociated(primary=True, occurred_at=NOW + 1)])
    world.settle(CONTACT)
    assert companies(world) == [77, None, None]


def test_b5_7_a_new_primary_company_takes_the_place_of_the_one_it_brought(world):
    world.feed(linked(), associated(primary=True))
    world.inbox.accept(
        [
            dissociated(primary=True, occurred_at=NOW + 1),
            associated("88", primary=True, occurred_at=NOW + 1),
        ]
    )
    world.settle(CONTACT)
    assert companies(world) == [88, None, None]
    assert world.contacts() == [int(CONTACT.id), None, None]


def test_b5_7_a_company_set_by_hand_is_never_displaced(world):
    world.control.edit_customer(N, hub_spot_company_id=77)
    world.feed(linked(), associated(primary=True))
    assert (world.contacts()[0], companies(world)[0]) == (int(CONTACT.id), 77)
    assert world.letters() == []


@pytest.mark.parametrize("reads", [False, True], ids=["by events", "by reading"])
def test_b5_7_the_company_moves_with_the_contact_that_brought_it(world, reads):
    if reads:
        world.use(Source.HUBSPOT)
        hubspot = world.crms.hubspot.world
        hubspot.create("companies", {}, id_=K)
        hubspot.create("contacts", {"fusebill_id": str(N)}, id_=int(CONTACT.id))
        hubspot.associate(int(CONTACT.id), K, primary=True)
    world.deliver("hubspot.contact.association")
    world.deliver("hubspot.contact.linked")
    world.work()
    assert companies(world) == [K, None, None]
    if reads:
        hubspot.set_property("contacts", int(CONTACT.id), "fusebill_id", str(OTHER))
    world.deliver("hubspot.contact.linked", customer_id=str(OTHER))
    world.work()
    assert world.contacts() == [None, int(CONTACT.id), None]
    assert companies(world) == [None, K, None]
    assert world.letters() == []


def test_b5_7_a_company_that_another_contact_brought_stays(world):
    world.feed(linked(), associated(primary=True))
    world.feed(linked(ELSE, customer=str(OTHER)), associated(record=ELSE, primary=True))
    world.feed(linked(ELSE, customer=str(THIRD), occurred_at=NOW + 1))
    assert world.contacts() == [int(CONTACT.id), None, int(ELSE.id)]
    assert companies(world) == [K, None, None]


def test_b5_7_with_read_access_any_change_of_the_contact_brings_its_company(world):
    world.use(Source.HUBSPOT)
    hubspot = world.crms.hubspot.world
    hubspot.create("companies", {}, id_=K)
    hubspot.create("contacts", {"fusebill_id": str(N)}, id_=int(CONTACT.id))
    world.deliver("hubspot.contact.linked")
    world.work()
    assert companies(world) == [None, None, None]
    hubspot.associate(int(CONTACT.id), K, primary=True)
    world.deliver("hubspot.contact.association")
    world.work()
    assert companies(world) == [K, None, None]
    hubspot.dissociate(int(CONTACT.id), K)
    world.deliver("hubspot.contact.dissociation")
    world.settle(CONTACT)
    assert (world.contacts()[0], companies(world)[0]) == (int(CONTACT.id), None)


def test_b5_7_a_company_is_switched_off_by_its_setting(world):
    world.use(hubspot_latch_company="off")
    world.feed(linked(), associated(primary=True))
    world.feed(linked(COMPANY))
    assert companies(world) == [None, None, None]
    assert world.contacts() == [int(CONTACT.id), None, None]


# --- deletions and restores


def test_b3_11_a_restored_contact_goes_back_to_the_customer_it_had(world):
    world.feed(linked())
    world.inbox.accept([deleted(occurred_at=NOW + 1)])
    world.settle(CONTACT)
    assert world.contacts() == [None, None, None]
    world.feed(restored(occurred_at=NOW + 2))
    assert world.contacts() == [int(CONTACT.id), None, None]


def test_b3_11_a_restored_contact_displaces_nobody(world):
    world.feed(linked())
    world.inbox.accept([deleted(occurred_at=NOW + 1)])
    world.settle(CONTACT)
    world.control.edit_customer(N, hub_spot_id=9)
    world.feed(restored(occurred_at=NOW + 2))
    assert world.contacts() == [9, None, None]
    assert world.letters() == []
