"""The company beside a contact: never in anybody's way, never to the contact's harm (B5.7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.fold import Company, Keep, Latch, Release
from sync_worker.decide.plan import Done, Leave, Plan, ReadCustomers, Unknown
from sync_worker.decide.subject import Policy
from sync_worker.domain import Marks, Outcome, Slot, SlotState
from tests.changes import CONTACT, customer, named, party
from tests.unit.decide.planning import buried, holder, planned, result, steps

CON, COM = Slot.HUBSPOT_CONTACT, Slot.HUBSPOT_COMPANY
OTHER = named(CONTACT, "999")
P, Q, R = "31", "32", "33"
REMEMBERED = Leave("it is remembered until the contact is latched")


def company(id_: str, *drop: str, firm: bool = True) -> Company:
    return Company(id_, firm, frozenset(drop))


def contact(wish, links=None, *, brought=None, **more):
    return party(wish, links, marks=Marks(brought=brought, home="6"), **more)


def latching(of: Company | None, **more):
    return contact(Latch(CONTACT, 5, True), company=of, **more)


def staying(of: Company, **more):
    return contact(Keep(CONTACT, ""), {5: "holds"}, company=of, **more)


def beside(company_id: str | SlotState):
    """The customer 5 with the contact and a company."""
    return holder(5, CONTACT, hubspot_company=company_id)


@pytest.mark.parametrize("firm", [True, False])
def test_b5_7_the_company_comes_with_the_contact_in_one_call(firm):
    what = planned(latching(company(P, firm=firm)), holder(5))
    (write,) = what.writes
    assert write.after == {CON: CONTACT.id, COM: P}
    assert result(what) == Done(Outcome.LATCHED, "customer 5", (5,))
    assert what.companies == {CONTACT: Done(Outcome.LATCHED, "company 31, customer 5", (5,))}
    assert what.brings == {CONTACT: (P, 5)}
    assert what.releases == ()


def test_b5_7_without_a_company_nothing_is_said_of_one():
    what = planned(latching(None), holder(5))
    assert (dict(what.companies), dict(what.brings)) == ({}, {})


@pytest.mark.parametrize("firm", [True, False])
def test_b5_7_a_company_comes_to_a_contact_that_is_latched_already(firm):
    what = planned(staying(company(P, firm=firm)), beside(SlotState.EMPTY))
    assert steps(what, COM) == [(5, P)]
    assert steps(what, CON) == [(5, CONTACT.id)]
    assert result(what) == Leave("customer 5 holds it", (5,), at=5)
    assert what.brings == {CONTACT: (P, 5)}


def test_b5_7_what_is_there_already_costs_no_write_and_counts_as_brought():
    what = planned(staying(company(P)), beside(P))
    assert what.writes == ()
    assert what.companies == {CONTACT: Leave("customer 5 holds company 31", (5,))}
    assert what.brings == {CONTACT: (P, 5)}


# --- it never displaces anyone


@pytest.mark.parametrize(
    ("wanted", "brought", "replaces"),
    [
        pytest.param(company(P), None, False, id="another hand's"),
        pytest.param(company(P), (Q, 5), True, id="it came through this contact"),
        pytest.param(company(P, firm=False), (Q, 5), False, id="but it may not be primary"),
        pytest.param(company(P), (Q, 6), False, id="it came through it elsewhere"),
        pytest.param(company(P), (R, 5), False, id="another came through it"),
        pytest.param(company(P, Q), None, True, id="the contact left it"),
        pytest.param(company(P, Q, firm=False), None, True, id="it left it for one unsaid"),
        pytest.param(company(P, R), None, False, id="it left another"),
    ],
)
def test_b5_7_it_takes_the_place_of_its_predecessor_only(wanted, brought, replaces):
    what = planned(staying(wanted, brought=brought), beside(Q))
    if replaces:
        assert steps(what, COM) == [(5, P)]
        assert what.companies == {CONTACT: Done(Outcome.LATCHED, "company 31, customer 5", (5,))}
        assert what.brings == {CONTACT: (P, 5)}
        assert what.releases == ((5, Q),)
    else:
        assert what.writes == ()
        assert what.companies == {CONTACT: Leave("customer 5 holds company 32", (5,))}
        assert dict(what.brings) == {}


def test_b5_7_the_contacts_latch_goes_on_beside_a_company_that_stays():
    what = planned(latching(company(P)), holder(5, hubspot_company=Q))
    (write,) = what.writes
    assert write.after == {CON: CONTACT.id, COM: Q}
    assert result(what).outcome is Outcome.LATCHED


@pytest.mark.parametrize(
    ("brought", "contact_there"),
    [(None, False), ((P, 7), True), ((P, 8), False), ((Q, 7), False)],
)
def test_b5_7_a_company_held_by_another_customer_stays_there(brought, contact_there):
    there = holder(7, OTHER if contact_there else None, hubspot_company=P)
    what = planned(
        latching(company(P), brought=brought), holder(5), there, company_links={7: "holds"}
    )
    assert steps(what, CON) == [(5, CONTACT.id)]
    assert steps(what, COM) == [(5, "")]
    assert what.companies == {CONTACT: Leave("company held by 7", (5, 7))}
    assert dict(what.brings) == {}


def test_b5_7_who_holds_the_company_is_read():
    links = {7: "holds", 8: "released", 9: "gone"}
    what = planned(latching(company(P)), holder(5), company_links=links)
    assert what == ReadCustomers(frozenset({7}))
    what = planned(latching(company(P)), holder(5), holder(7), company_links=links)
    assert steps(what, COM) == [(5, P)]


# --- it moves with its contact


def test_b5_7_it_moves_with_the_contact_that_brought_it():
    first = latching(company(P, firm=False), links={6: "holds"}, brought=(P, 6))
    there = holder(6, CONTACT, hubspot_company=P)
    what = planned(first, holder(5), there, company_links={6: "holds"})
    assert [(one.customer_id, one.after) for one in what.writes] == [
        (6, {CON: SlotState.EMPTY, COM: SlotState.EMPTY}),
        (5, {CON: CONTACT.id, COM: P}),
    ]
    assert result(what) == Done(Outcome.MOVED, "from customer 6 to 5", (5, 6))
    moved = Done(Outcome.MOVED, "company 31 to customer 5", (5, 6))
    assert what.companies == {CONTACT: moved}
    assert what.brings == {CONTACT: (P, 5)}
    assert what.releases == ()


def test_b5_7_one_that_it_did_not_bring_stays():
    first = latching(company(P, firm=False), links={6: "holds"})
    there = holder(6, CONTACT, hubspot_company=P)
    what = planned(first, holder(5), there, company_links={6: "holds"})
    assert steps(what, COM) == [(6, P), (5, "")]
    assert what.companies == {CONTACT: Leave("company held by 6", (5, 6))}


def test_b5_7_it_stays_with_a_contact_that_takes_its_contacts_place():
    """In an exchange each customer keeps its company, for another contact is beside it then."""
    one = latching(company(P, firm=False), links={6: "holds"}, brought=(P, 6))
    two = party(Latch(OTHER, 6, True), {5: "holds"})
    there = [holder(5, OTHER), holder(6, CONTACT, hubspot_company=P)]
    what = planned([one, two], *there, company_links={6: "holds"})
    assert what.companies == {CONTACT: Leave("company held by 6", (5, 6))}
    assert {write.after[COM] for write in what.writes if write.customer_id == 6} == {P}


def test_b5_7_each_contact_that_moves_has_its_own_company():
    one = latching(company(P), links={6: "holds"})
    two = party(Latch(OTHER, 6, True), {5: "holds"}, company=company(Q))
    what = planned([one, two], holder(5, OTHER), holder(6, CONTACT))
    assert what.brings == {CONTACT: (P, 5), OTHER: (Q, 6)}
    assert sorted(what.companies) == sorted([CONTACT, OTHER])


def test_b5_7_what_is_left_of_a_merge_brought_what_the_merged_brought():
    loser = named(CONTACT, "7")
    first = party(
        Keep(CONTACT, ""),
        {5: "holds"},
        former={loser: Marks(brought=(Q, 5))},
        company=company(P),
    )
    what = planned(first, holder(5, loser, hubspot_company=Q))
    (write,) = what.writes
    assert write.after == {CON: CONTACT.id, COM: P}


# --- it stays, or is remembered


@pytest.mark.parametrize("gone", [True, False])
def test_b5_7_it_stays_when_its_contact_is_released(gone):
    first = contact(Release(CONTACT, None, gone), {5: "holds"}, company=company(P), brought=(P, 5))
    what = planned(first, beside(P))
    (write,) = what.writes
    assert write.after == {CON: SlotState.EMPTY, COM: P}
    assert what.companies == {CONTACT: REMEMBERED}
    assert dict(what.brings) == {}
    assert what.releases == ((5, CONTACT.id),)


@pytest.mark.parametrize("customers", [[], [holder(5, CONTACT), holder(6, CONTACT)]])
def test_b5_7_it_is_remembered_for_a_contact_that_is_latched_later(customers):
    links = {one.id: "holds" for one in customers}
    first = contact(Keep(CONTACT, ""), links, company=company(P))
    what = planned(first, *customers)
    assert what.writes == ()
    assert what.companies == {CONTACT: REMEMBERED}


def test_b5_7_it_comes_to_where_the_contact_stays_against_its_claim():
    first = contact(Latch(CONTACT, 5, False), {6: "holds"}, company=company(P))
    what = planned(first, holder(5), holder(6, CONTACT))
    assert steps(what, COM) == [(6, P)]
    assert what.brings == {CONTACT: (P, 6)}


def test_b5_7_a_contact_that_needs_a_person_brings_nothing():
    first = latching(company(P))
    stays = party(Keep(OTHER, ""), {5: "holds"})
    assert buried(planned([first, stays], holder(5, OTHER)))


# --- dissociated


@pytest.mark.parametrize(
    ("held", "drop", "told", "writes"),
    [
        pytest.param(
            Q,
            (Q,),
            Done(Outcome.UNLATCHED, "company 32 from customer 5", (5,)),
            [(5, "")],
            id="the very company",
        ),
        pytest.param(
            Q,
            (P, Q),
            Done(Outcome.UNLATCHED, "company 32 from customer 5", (5,)),
            [(5, "")],
            id="one of two",
        ),
        pytest.param(
            Q, (P,), Leave("customer 5 does not hold the company it left", (5,)), [], id="another"
        ),
        pytest.param(
            SlotState.EMPTY,
            (P,),
            Leave("customer 5 does not hold the company it left", (5,)),
            [],
            id="none",
        ),
    ],
)
@pytest.mark.parametrize("brought", [None, (Q, 5)])
def test_b5_7_dissociated_releases_only_the_very_company_in_the_slot(
    held, drop, told, writes, brought
):
    what = planned(staying(company("", *drop), brought=brought), beside(held))
    assert steps(what, COM) == writes
    assert what.companies == {CONTACT: told}
    assert dict(what.brings) == {}
    assert what.releases == (((5, Q),) if writes else ())


def test_b5_7_what_comes_and_what_was_left_are_one_write():
    what = planned(staying(company(P, Q)), beside(Q))
    assert steps(what, COM) == [(5, P)]


# --- unknown


def test_b7_4_a_company_slot_that_is_unknown_is_not_empty():
    what = planned(staying(company(P)), beside(SlotState.UNKNOWN))
    assert isinstance(what, Unknown)
    assert "for customer 5 leaves out its hubspot_company slot" in what.message


def test_b7_4_another_customers_unknown_company_is_none_that_it_holds():
    elsewhere = customer(7, hubspot_company=SlotState.UNKNOWN)
    what = planned(latching(company(P)), holder(5), elsewhere)
    assert steps(what, COM) == [(5, P)]


def test_b5_7_a_customer_that_is_not_there_holds_no_company():
    what = planned(latching(company(P)), holder(5), gone=[7], company_links={7: "holds"})
    assert steps(what, COM) == [(5, P)]


@given(
    st.sampled_from([SlotState.EMPTY, P, Q, R]),
    st.sampled_from(["", P, Q]),
    st.frozensets(st.sampled_from([P, Q, R])),
    st.booleans(),
    st.sampled_from([None, (P, 5), (Q, 5), (P, 7)]),
    st.sampled_from([None, P, Q]),
)
def test_b5_7_a_company_of_another_hand_is_never_displaced(
    held, id_, drop, firm, brought, elsewhere
):
    wanted = Company(id_, firm, drop - {id_})
    seven = customer(7, **({"hubspot_company": elsewhere} if elsewhere else {}))
    if held == elsewhere:
        seven = customer(7)
    what = planned(
        latching(wanted, brought=brought),
        holder(5, **({} if held is SlotState.EMPTY else {"hubspot_company": held})),
        seven,
        company_links={7: "holds"},
        policy=Policy(),
    )
    assert isinstance(what, Plan)
    assert result(what).outcome is Outcome.LATCHED
    now = {5: held, 7: seven.slots[COM]}
    for write in what.writes:
        now[write.customer_id] = write.after[COM]
    if isinstance(held, str) and now[5] != held:
        assert held in wanted.drop or (firm and brought == (held, 5))
    if now[7] != seven.slots[COM]:
        assert brought == (seven.slots[COM], 7)
        assert now[5] == seven.slots[COM]
    assert (CONTACT in what.brings) == (bool(id_) and now[5] == id_)


def test_b5_7_a_contact_without_company_holds_no_other_ones_back():
    one = latching(None, links={6: "holds"})
    two = party(Latch(OTHER, 6, True), {5: "holds"}, company=company(Q))
    what = planned([one, two], holder(5, OTHER), holder(6, CONTACT))
    assert what.brings == {OTHER: (Q, 6)}
    assert list(what.companies) == [OTHER]


def test_b5_7_nor_does_one_that_is_released():
    third = named(CONTACT, "888")
    one = latching(None, links={6: "holds"})
    two = contact(Release(OTHER, None), {5: "holds"}, company=company(P))
    three = party(Latch(third, 6, True), {7: "holds"}, company=company(Q))
    there = [holder(5, OTHER), holder(6, CONTACT), holder(7, third)]
    what = planned([one, two, three], *there)
    assert what.companies[OTHER] == REMEMBERED
    assert what.brings == {third: (Q, 6)}
