"""From customers and what is wanted to a call (B5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide import plan as planning
from sync_worker.decide.fold import Latch, Release
from sync_worker.decide.plan import Bury, Do, Leave, Missing, Unknown, plan
from sync_worker.domain import Outcome, Reason, Record, RecordType, Slot, SlotState, Source
from tests.changes import ACCOUNT, COMPANY, CONTACT, GEOTAB, RECORDS, customer

N = 8714402


def latch(record=CONTACT, customer_id=N, evidence=True):
    return Latch(record, customer_id, evidence)


def given_customers(*customers):
    return {one.id: one for one in customers}


@pytest.mark.parametrize(
    ("record", "call"),
    [
        (CONTACT, planning.LatchHubSpot(N, CONTACT.id, None)),
        (COMPANY, planning.LatchHubSpot(N, None, COMPANY.id)),
        (ACCOUNT, planning.LatchSalesforce(N, ACCOUNT.id)),
        (GEOTAB, planning.LatchGeotab(N, GEOTAB.id)),
    ],
    ids=lambda value: getattr(value, "slot", ""),
)
def test_an_empty_slot_is_filled(record, call):
    made = plan(latch(record), given_customers(customer(N)))
    assert isinstance(made, Do)
    assert made.call == call
    assert made.outcome is Outcome.LATCHED
    assert made.expect[record.slot] == record.id


def test_b5_4_the_other_hubspot_id_is_kept():
    made = plan(latch(CONTACT), given_customers(customer(N, hubspot_company="77")))
    assert isinstance(made, Do)
    assert made.call == planning.LatchHubSpot(N, CONTACT.id, "77")
    assert made.expect == {Slot.HUBSPOT_CONTACT: CONTACT.id, Slot.HUBSPOT_COMPANY: "77"}
    made = plan(latch(COMPANY), given_customers(customer(N, hubspot_contact="55")))
    assert isinstance(made, Do)
    assert made.call == planning.LatchHubSpot(N, "55", COMPANY.id)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.slot)
def test_b5_1_what_is_already_true_needs_no_call(record):
    made = plan(latch(record), given_customers(customer(N, **{record.slot: record.id})))
    assert made == Leave("already latched", (N,))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.slot)
def test_b5_5_an_occupied_slot_is_a_conflict_that_names_both(record):
    made = plan(latch(record), given_customers(customer(N, **{record.slot: "999"})))
    assert isinstance(made, Bury)
    assert made.reason is Reason.CONFLICT
    assert record.mailbox in made.message
    assert "999" in made.message
    assert str(N) in made.message
    assert made.customers == (N,)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.slot)
def test_b5_5_a_record_that_another_customer_holds_is_a_conflict(record):
    made = plan(
        latch(record), given_customers(customer(N), customer(7, **{record.slot: record.id}))
    )
    assert isinstance(made, Bury)
    assert made.reason is Reason.CONFLICT
    assert made.customers == (N, 7)


@pytest.mark.parametrize(
    "customers",
    [
        given_customers(customer(N, hubspot_contact="999")),
        given_customers(customer(N), customer(7, hubspot_contact=CONTACT.id)),
    ],
    ids=["occupied", "held elsewhere"],
)
def test_b3_7_without_evidence_nothing_is_displaced(customers):
    made = plan(latch(evidence=False), customers)
    assert isinstance(made, Leave)
    assert made.detail == "claim is not newer than the latch"
    assert made.unmet


def test_b3_7_without_evidence_an_empty_slot_is_filled():
    assert isinstance(plan(latch(evidence=False), given_customers(customer(N))), Do)


def test_b4_4_a_customer_that_is_not_there():
    assert plan(latch(), {N: None}) == Missing(N)
    assert plan(Release(GEOTAB, only=N), {N: None}) == Missing(N)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.slot)
def test_b7_4_a_missing_key_is_unknown_and_nothing_is_written(record):
    unknown = given_customers(customer(N, **{record.slot: SlotState.UNKNOWN}))
    assert isinstance(plan(latch(record), unknown), Unknown)
    assert isinstance(plan(Release(record, None), unknown), Unknown)


@pytest.mark.parametrize(
    ("record", "other"), [(CONTACT, "hubspot_company"), (COMPANY, "hubspot_contact")]
)
def test_b5_4_an_unknown_other_hubspot_slot_is_not_overwritten(record, other):
    slots = {other: SlotState.UNKNOWN}
    assert isinstance(plan(latch(record), given_customers(customer(N, **slots))), Unknown)
    held = given_customers(customer(N, **slots, **{record.slot: record.id}))
    assert isinstance(plan(Release(record, None), held), Unknown)


def test_b5_4_releasing_the_only_hubspot_id_unlatches():
    for record in (CONTACT, COMPANY):
        made = plan(Release(record, None), given_customers(customer(N, **{record.slot: record.id})))
        assert isinstance(made, Do)
        assert made.call == planning.UnlatchHubSpot(N)
        assert made.outcome is Outcome.UNLATCHED


def test_b5_4_releasing_one_of_two_keeps_the_other():
    both = given_customers(customer(N, hubspot_contact=CONTACT.id, hubspot_company=COMPANY.id))
    made = plan(Release(CONTACT, None), both)
    assert isinstance(made, Do)
    assert made.call == planning.LatchHubSpot(N, None, COMPANY.id)
    made = plan(Release(COMPANY, None), both)
    assert isinstance(made, Do)
    assert made.call == planning.LatchHubSpot(N, CONTACT.id, None)


def test_geotab_is_released():
    made = plan(Release(GEOTAB, N), given_customers(customer(N, geotab_customer=GEOTAB.id)))
    assert isinstance(made, Do)
    assert made.call == planning.UnlatchGeotab(N)
    assert made.expect == {Slot.GEOTAB_CUSTOMER: SlotState.EMPTY}


def test_b5_6_salesforce_is_released_only_where_a_path_is_set():
    held = given_customers(customer(N, salesforce_account=ACCOUNT.id))
    made = plan(Release(ACCOUNT, None), held)
    assert isinstance(made, Bury)
    assert made.reason is Reason.UNLATCH_UNSUPPORTED
    made = plan(Release(ACCOUNT, None), held, salesforce_unlatch=True)
    assert isinstance(made, Do)
    assert made.call == planning.UnlatchSalesforce(N)


def test_b5_1_a_release_that_is_already_true_needs_no_call():
    read = given_customers(customer(N, hubspot_contact="999"))
    assert plan(Release(CONTACT, N), read) == Leave(f"customer {N} does not hold it", (N,))
    made = plan(Release(CONTACT, None), read, ours=True)
    assert made == Leave(f"customer {N} does not hold it", (N,))


def test_b4_5_who_took_a_record_away_may_have_put_it_anywhere():
    made = plan(Release(CONTACT, None), given_customers(customer(N)), ours=False)
    assert isinstance(made, Bury)
    assert made.reason is Reason.CUSTOMER_NOT_FOUND


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.slot)
def test_b7_4_a_holder_whose_slot_is_unknown_may_hold_it_still(record):
    read = given_customers(customer(N), customer(7, **{record.slot: SlotState.UNKNOWN}))
    assert isinstance(plan(latch(record), read), Unknown)


def test_b4_2_several_holders_are_never_guessed_at():
    both = given_customers(
        customer(N, geotab_customer=GEOTAB.id), customer(7, geotab_customer=GEOTAB.id)
    )
    made = plan(Release(GEOTAB, None), both)
    assert isinstance(made, Bury)
    assert made.reason is Reason.AMBIGUOUS_MATCH
    assert set(made.customers) == {N, 7}


def test_a_release_nobody_is_known_for_waits_for_a_person():
    made = plan(Release(GEOTAB, None), {})
    assert isinstance(made, Bury)
    assert made.reason is Reason.CUSTOMER_NOT_FOUND


def test_geotab_ids_are_text():
    """`"0909909"` stays what it is, and is not 909909."""
    record = Record(Source.GEOTAB, "ACCT01", RecordType.CUSTOMER, "0909909")
    made = plan(latch(record), given_customers(customer(N, geotab_customer="909909")))
    assert isinstance(made, Bury)


VALUES = st.sampled_from([SlotState.EMPTY, SlotState.UNKNOWN, "1", "2", CONTACT.id, GEOTAB.id])
CUSTOMERS = st.builds(
    customer,
    st.sampled_from([1, 2, 3]),
    hubspot_contact=VALUES,
    hubspot_company=VALUES,
    geotab_customer=VALUES,
)


@given(
    st.lists(CUSTOMERS, max_size=3),
    st.sampled_from([CONTACT, COMPANY, GEOTAB]),
    st.booleans(),
    st.none() | st.sampled_from([1, 2, 3]),
)
def test_a_call_never_loses_an_id_that_is_not_meant(customers, record, evidence, named):
    """Whatever was read: no unknown slot is written over, no occupant displaced, no other
    record's id dropped.
    """
    read = given_customers(*customers)
    wanted = Release(record, None) if named is None else Latch(record, named, evidence)
    made = plan(wanted, read)
    if not isinstance(made, Do):
        return
    before = read[made.call.customer_id].slots
    after = {**before, **made.expect}
    for slot in Slot:
        if slot is record.slot:
            assert before[slot] == (record.id if named is None else SlotState.EMPTY)
        else:
            assert after[slot] == before[slot]
    if isinstance(made.call, planning.LatchHubSpot):
        sent = {Slot.HUBSPOT_CONTACT: made.call.contact, Slot.HUBSPOT_COMPANY: made.call.company}
        for slot, value in sent.items():
            assert after[slot] == (value or SlotState.EMPTY)
