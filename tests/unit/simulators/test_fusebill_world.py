"""The rules of latching, and each option where the vendor's pages leave a rule open."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.fusebill.customer import SLOT_FIELDS, Customer
from simulators.fusebill.options import Options
from simulators.fusebill.world import Refused, World

ONE, TWO, THREE = 8714401, 8714402, 8714403
ACCOUNT = "0015g00001LwZ3k"
ACCOUNT_18 = "0015g00001LwZ3kAAF"
OTHER_ACCOUNT = "0014100000JJ3wt"
NOW_NS = 1_795_000_000_000_000_000
NOW = "2026-11-18T11:06:40.0000000Z"


def world_of(*customers: Customer, **options) -> World:
    world = World(lambda: NOW_NS, Options(**options))
    world.put(customers or [Customer(id=ONE), Customer(id=TWO), Customer(id=THREE)])
    return world


def refusal(call, *args, **kwargs) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)
    return caught.value.status, str(caught.value)


class TestEveryCall:
    def test_an_unknown_customer_is_404_in_the_documented_words(self):
        world = world_of()
        calls = [
            lambda: world.read(123),
            lambda: world.latch_salesforce(123, ACCOUNT),
            lambda: world.latch_hubspot(123, {"hubSpotId": 1}),
            lambda: world.unlatch_hubspot(123),
            lambda: world.latch_geotab(123, "0070441"),
            lambda: world.unlatch_geotab(123),
        ]
        expected = (404, "Customer with id 123 not found.")
        assert [refusal(call) for call in calls] == [expected] * len(calls)

    def test_a_latch_and_an_unlatch_move_modified_timestamp(self):
        world = world_of()
        assert world.read(ONE).modified_timestamp != NOW
        assert world.latch_geotab(ONE, "0070441").modified_timestamp == NOW
        assert world.unlatch_hubspot(TWO).modified_timestamp == NOW

    def test_modified_timestamp_can_stay(self):
        world = world_of(latch_moves_modified=False)
        before = world.read(ONE).modified_timestamp
        assert world.latch_geotab(ONE, "0070441").modified_timestamp == before

    def test_only_a_call_that_alters_a_slot_counts_as_a_change(self):
        world = world_of()
        world.latch_geotab(ONE, "0070441")
        assert world.changes == 1
        world.latch_geotab(ONE, "0070441")
        world.unlatch_hubspot(ONE)
        refusal(world.latch_geotab, TWO, "0070441")
        assert world.changes == 1
        world.unlatch_geotab(ONE)
        assert world.changes == 2

    def test_unlatching_what_is_not_latched_is_fine_unless_the_option_says_400(self):
        assert world_of().unlatch_geotab(ONE).geotab_id is None
        strict = world_of(unlatch_empty=400)
        expected = (400, f"Customer {ONE} is not latched.")
        assert refusal(strict.unlatch_geotab, ONE) == expected
        assert refusal(strict.unlatch_hubspot, ONE) == expected
        strict.latch_hubspot(ONE, {"hubSpotId": None, "hubSpotCompanyId": 202})
        assert strict.unlatch_hubspot(ONE).hub_spot_company_id is None


class TestSalesforce:
    def test_either_spelling_is_kept_as_15_characters(self):
        world = world_of()
        assert world.latch_salesforce(ONE, ACCOUNT_18).salesforce_id == ACCOUNT
        assert world.latch_salesforce(TWO, OTHER_ACCOUNT).salesforce_id == OTHER_ACCOUNT

    @pytest.mark.parametrize("force", [None, False, True])
    def test_a_free_customer_latches_whatever_force_says(self, force):
        assert world_of().latch_salesforce(ONE, ACCOUNT, force=force).salesforce_id == ACCOUNT

    def test_a_latched_customer_moves_only_by_force(self):
        world = world_of(Customer(id=ONE, salesforce_id=OTHER_ACCOUNT))
        status, text = refusal(world.latch_salesforce, ONE, ACCOUNT, force=False)
        assert status == 400
        assert "already associated" in text
        assert world.read(ONE).salesforce_id == OTHER_ACCOUNT
        assert world.latch_salesforce(ONE, ACCOUNT, force=True).salesforce_id == ACCOUNT

    def test_status_of_that_refusal_is_an_option(self):
        world = world_of(Customer(id=ONE, salesforce_id=OTHER_ACCOUNT), already_latched_status=409)
        assert refusal(world.latch_salesforce, ONE, ACCOUNT, force=False)[0] == 409

    def test_force_left_out_is_an_option(self):
        customer = Customer(id=ONE, salesforce_id=OTHER_ACCOUNT)
        refusal(world_of(customer).latch_salesforce, ONE, ACCOUNT)
        forced = world_of(customer, force_latch_default=True)
        assert forced.latch_salesforce(ONE, ACCOUNT).salesforce_id == ACCOUNT

    def test_the_same_id_again_without_force_is_an_option(self):
        customer = Customer(id=ONE, salesforce_id=ACCOUNT)
        assert refusal(world_of(customer).latch_salesforce, ONE, ACCOUNT_18, force=False)[0] == 400
        lenient = world_of(customer, relatch_same_salesforce="ok")
        assert lenient.latch_salesforce(ONE, ACCOUNT_18, force=False).salesforce_id == ACCOUNT
        refusal(lenient.latch_salesforce, ONE, OTHER_ACCOUNT, force=False)

    @pytest.mark.parametrize("sent", ["1", "0035g00001LwZ3k", ACCOUNT, ACCOUNT_18])
    @pytest.mark.parametrize("known_as", [ACCOUNT, ACCOUNT_18])
    def test_an_account_that_does_not_exist_is_the_relayed_400(self, sent, known_as):
        world = world_of(missing_salesforce_accounts={known_as})
        expected = (400, f"Salesforce Account {sent} does not exist.")
        assert refusal(world.latch_salesforce, ONE, sent) == expected
        assert world.read(ONE).salesforce_id is None


class TestHubSpot:
    def test_both_ids_are_set_at_once(self):
        after = world_of().latch_hubspot(ONE, {"hubSpotId": 101, "hubSpotCompanyId": 202})
        assert (after.hub_spot_id, after.hub_spot_company_id) == (101, 202)

    def test_null_removes_and_a_key_left_out_wipes(self):
        customer = Customer(id=ONE, hub_spot_id=101, hub_spot_company_id=202)
        after = world_of(customer).latch_hubspot(ONE, {"hubSpotId": None, "hubSpotCompanyId": 202})
        assert (after.hub_spot_id, after.hub_spot_company_id) == (None, 202)
        after = world_of(customer).latch_hubspot(ONE, {"hubSpotId": 101})
        assert (after.hub_spot_id, after.hub_spot_company_id) == (101, None)

    def test_a_key_left_out_can_keep(self):
        customer = Customer(id=ONE, hub_spot_id=101, hub_spot_company_id=202)
        world = world_of(customer, hubspot_omitted_key="keep")
        after = world.latch_hubspot(ONE, {"hubSpotId": 103})
        assert (after.hub_spot_id, after.hub_spot_company_id) == (103, 202)
        after = world.latch_hubspot(ONE, {"hubSpotId": None})
        assert (after.hub_spot_id, after.hub_spot_company_id) == (None, 202)

    def test_unlatch_clears_both(self):
        customer = Customer(id=ONE, hub_spot_id=101, hub_spot_company_id=202)
        after = world_of(customer).unlatch_hubspot(ONE)
        assert (after.hub_spot_id, after.hub_spot_company_id) == (None, None)

    def test_what_hubspot_does_not_know_is_the_relayed_400(self):
        world = world_of(missing_hubspot_contacts={101}, missing_hubspot_companies={202})
        documented = "The was an error getting the contact from HubSpot: resource not found"
        assert refusal(world.latch_hubspot, ONE, {"hubSpotId": 101}) == (400, documented)
        status, text = refusal(world.latch_hubspot, ONE, {"hubSpotCompanyId": 202})
        assert (status, text) == (400, documented.replace("contact", "company"))
        assert world.latch_hubspot(ONE, {"hubSpotId": 202, "hubSpotCompanyId": 101}).hub_spot_id


def test_a_geotab_latch_overwrites_and_keeps_leading_zeros():
    world = world_of()
    assert world.latch_geotab(ONE, "0070441").geotab_id == "0070441"
    assert world.latch_geotab(ONE, "70441").geotab_id == "70441"


def latch(world: World, slot: str, customer_id: int, value) -> Customer:
    if slot == "salesforceId":
        return world.latch_salesforce(customer_id, value, force=True)
    if slot == "geotabId":
        return world.latch_geotab(customer_id, value)
    other = {"hubSpotId": "hubSpotCompanyId", "hubSpotCompanyId": "hubSpotId"}[slot]
    return world.latch_hubspot(
        customer_id, {slot: value, other: world.read(customer_id).slot(other)}
    )


VALUES = {
    "salesforceId": ACCOUNT,
    "hubSpotId": 512340077,
    "hubSpotCompanyId": 512340077,
    "geotabId": "0070441",
}


@pytest.mark.parametrize("slot", SLOT_FIELDS)
class TestAnIdThatAnotherCustomerHolds:
    @pytest.mark.parametrize("status", [400, 409])
    def test_is_refused_and_stays(self, slot, status):
        world = world_of(held_elsewhere=status)
        latch(world, slot, ONE, VALUES[slot])
        with pytest.raises(Refused, match=f"already associated to customer {ONE}") as caught:
            latch(world, slot, TWO, VALUES[slot])
        assert caught.value.status == status
        assert world.read(ONE).slot(slot) == VALUES[slot]
        assert world.read(TWO).slot(slot) is None

    def test_is_stolen(self, slot):
        world = world_of(held_elsewhere="steal")
        latch(world, slot, ONE, VALUES[slot])
        assert latch(world, slot, TWO, VALUES[slot]).slot(slot) == VALUES[slot]
        assert world.read(ONE).slot(slot) is None

    def test_is_held_by_both(self, slot):
        world = world_of(held_elsewhere="allow")
        latch(world, slot, ONE, VALUES[slot])
        latch(world, slot, TWO, VALUES[slot])
        assert world.read(ONE).slot(slot) == world.read(TWO).slot(slot) == VALUES[slot]

    def test_follows_the_rule_of_its_own_slot(self, slot):
        world = world_of(held_elsewhere=400, held_elsewhere_by_slot={slot: "steal"})
        for each in SLOT_FIELDS:
            latch(world, each, ONE, VALUES[each])
        latch(world, slot, TWO, VALUES[slot])
        for each in set(SLOT_FIELDS) - {slot}:
            with pytest.raises(Refused):
                latch(world, each, TWO, VALUES[each])

    def test_is_free_again_once_unlatched_edited_away_or_deleted(self, slot):
        world = world_of()
        latch(world, slot, ONE, VALUES[slot])
        world.edit(ONE, {slot: None})
        latch(world, slot, TWO, VALUES[slot])
        world.delete(TWO)
        latch(world, slot, THREE, VALUES[slot])
        world.put([Customer(id=THREE)])
        assert latch(world, slot, ONE, VALUES[slot]).slot(slot) == VALUES[slot]


def test_a_refused_hubspot_latch_leaves_both_slots_alone():
    world = world_of(
        Customer(id=ONE, hub_spot_company_id=202),
        Customer(id=TWO, hub_spot_id=7),
        Customer(id=THREE, hub_spot_id=101),
        held_elsewhere_by_slot={"hubSpotId": "steal"},
    )
    refusal(world.latch_hubspot, TWO, {"hubSpotId": 101, "hubSpotCompanyId": 202})
    assert world.read(TWO).hub_spot_id == 7
    assert world.read(THREE).hub_spot_id == 101


class TestByHand:
    def test_an_edit_changes_what_it_names_and_moves_modified_timestamp(self):
        world = world_of(Customer(id=ONE, reference="A", geotab_id="1"))
        after = world.edit(ONE, {"reference": "B"})
        assert after == Customer(id=ONE, reference="B", geotab_id="1", modified_timestamp=NOW)
        early = "2020-01-01T00:00:00.0000000Z"
        assert world.edit(ONE, {"modifiedTimestamp": early}).modified_timestamp == early

    def test_an_edit_of_what_does_not_exist_or_fit_is_refused(self):
        world = world_of()
        assert refusal(world.edit, 1, {})[0] == 404
        for fields in ({"nosuch": 1}, {"status": "Asleep"}, {"salesforceId": "1"}):
            with pytest.raises(msgspec.ValidationError):
                world.edit(ONE, fields)
        assert world.read(ONE) == Customer(id=ONE)

    def test_an_edit_passes_by_every_rule(self):
        world = world_of(Customer(id=ONE, geotab_id="1"), Customer(id=TWO))
        assert world.edit(TWO, {"geotabId": "1"}).geotab_id == "1"

    def test_customers_are_listed_by_id_and_cleared(self):
        world = world_of(Customer(id=TWO, geotab_id="1"), Customer(id=ONE))
        assert [customer.id for customer in world.all()] == [ONE, TWO]
        world.clear()
        assert world.all() == []
        world.put([Customer(id=THREE)])
        assert world.latch_geotab(THREE, "1").geotab_id == "1"


CUSTOMERS = st.sampled_from([ONE, TWO, THREE])
SMALL = st.integers(1, 3)
CALLS = st.one_of(
    st.tuples(st.just("salesforce"), CUSTOMERS, SMALL, st.booleans()),
    st.tuples(st.just("hubspot"), CUSTOMERS, st.none() | SMALL, st.none() | SMALL),
    st.tuples(st.just("geotab"), CUSTOMERS, SMALL, st.none()),
    st.tuples(st.sampled_from(["unhubspot", "ungeotab", "unsalesforce"]), CUSTOMERS),
)


def make(world: World, call: tuple) -> None:
    what, customer_id, *values = call
    if what == "salesforce":
        world.latch_salesforce(customer_id, f"{ACCOUNT[:-1]}{values[0]}", force=values[1])
    elif what == "hubspot":
        world.latch_hubspot(customer_id, {"hubSpotId": values[0], "hubSpotCompanyId": values[1]})
    elif what == "geotab":
        world.latch_geotab(customer_id, f"00{values[0]}")
    else:
        getattr(world, f"unlatch_{what[2:]}")(customer_id)


@settings(max_examples=150, deadline=None)
@given(calls=st.lists(CALLS, max_size=25), rule=st.sampled_from([400, 409, "steal"]))
def test_whatever_is_called_no_id_is_held_twice_and_a_refusal_changes_nothing(calls, rule):
    world = world_of(held_elsewhere=rule)
    for call in calls:
        before = world.all()
        changes = world.changes
        try:
            make(world, call)
        except Refused:
            assert world.all() == before
            assert world.changes == changes
    for slot in SLOT_FIELDS:
        held = [c.slot(slot) for c in world.all() if c.slot(slot) is not None]
        assert len(held) == len(set(held))
