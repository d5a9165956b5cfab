"""Which customer a record belongs to, and what is to be known first (B4, B5.1)."""

from __future__ import annotations

import pytest

from sync_worker.decide.fold import Fill, Find, Keep, Latch, Release
from sync_worker.decide.match import Query
from sync_worker.decide.order import Write
from sync_worker.decide.plan import (
    NOT_NEWER,
    Bury,
    Done,
    Leave,
    Missing,
    NoMatch,
    Plan,
    ReadCustomers,
    Sweep,
    Unknown,
)
from sync_worker.decide.subject import Policy
from sync_worker.domain import Marks, Outcome, Reason, Slot, SlotState
from tests.changes import ACCOUNT, COMPANY, CONTACT, GEOTAB, RECORDS, named, party
from tests.unit.decide.planning import REPLACE, buried, holder, planned, result, steps

LOSER, OTHER_LOSER = named(ACCOUNT, "L1"), named(ACCOUNT, "L2")
SF, GEO, HS = Slot.SALESFORCE_ACCOUNT, Slot.GEOTAB_CUSTOMER, Slot.HUBSPOT_CONTACT
EMPTY = SlotState.EMPTY


def matching(*names: str) -> Policy:
    return Policy(match_by=frozenset(names), salesforce_unlatch=True)


ANY = matching("id", "link", "reference", "email")


# --- B4.1: an explicit id


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("evidence", [True, False])
def test_b3_7_a_claim_fills_an_empty_slot(record, evidence):
    what = planned(party(Latch(record, 5, evidence)), holder(5))
    assert steps(what, record.slot) == [(5, record.id)]
    assert what.results == {record: Done(Outcome.LATCHED, "customer 5", (5,))}
    assert what.releases == ()


@pytest.mark.parametrize("evidence", [True, False])
def test_b5_1_what_is_already_true_costs_no_write(evidence):
    what = planned(party(Latch(GEOTAB, 5, evidence), {5: "holds"}), holder(5, GEOTAB))
    assert what == Plan(
        writes=(),
        results={GEOTAB: Leave("already latched", (5,), at=5)},
        companies={},
        brings={},
        releases=(),
    )


def test_b5_4_a_write_names_both_slots_that_one_call_sets():
    what = planned(party(Latch(CONTACT, 5, True)), holder(5, COMPANY))
    pair = {HS: EMPTY, Slot.HUBSPOT_COMPANY: COMPANY.id}
    assert what.writes == (Write(5, pair, {**pair, HS: CONTACT.id}),)


@pytest.mark.parametrize("record", [CONTACT, COMPANY])
def test_b5_4_a_release_preserves_the_other_slot(record):
    both = holder(5, CONTACT, hubspot_company=COMPANY.id)
    what = planned(party(Release(record, None), {5: "holds"}), both)
    (write,) = what.writes
    assert write.after == {**write.before, record.slot: EMPTY}


def test_b4_5_the_customer_that_is_named_and_the_known_holders_are_read():
    first = party(Latch(GEOTAB, 5, True), {6: "holds", 7: "released"})
    assert planned(first) == ReadCustomers(frozenset({5}))
    assert planned(first, holder(5)) == ReadCustomers(frozenset({6}))
    assert isinstance(planned(first, holder(5), holder(6)), Plan)


@pytest.mark.parametrize("link", ["released", "gone"])
def test_b4_5_where_nobody_is_known_to_hold_it_those_that_did_are_read(link):
    first = party(Release(GEOTAB, None), {6: link, 7: link})
    assert planned(first) == ReadCustomers(frozenset({6, 7}))


def test_b4_1_an_explicit_id_is_final():
    assert planned(party(Latch(GEOTAB, 5, True)), gone=[5]) == Missing(5)


def test_b4_5_a_latch_waits_for_no_sweep():
    first = party(Latch(GEOTAB, 5, True), {6: "gone"})
    assert isinstance(planned(first, holder(5), holder(6)), Plan)


@pytest.mark.parametrize("slot", [Slot.HUBSPOT_CONTACT, Slot.HUBSPOT_COMPANY])
def test_b7_4_a_missing_key_is_unknown_and_not_empty(slot):
    """The slot that is to be set, and the one that is to be preserved."""
    what = planned(party(Latch(CONTACT, 5, True)), holder(5, **{slot: SlotState.UNKNOWN}))
    assert what == Unknown(
        f"Fusebill's answer for customer 5 leaves out its {slot} slot, so nothing was changed: "
        "check that the integration is switched on for this Fusebill account"
    )


def test_b7_4_a_slot_that_is_not_concerned_may_be_unknown():
    unknown = holder(5, salesforce_account=SlotState.UNKNOWN, hubspot_company=SlotState.UNKNOWN)
    assert steps(planned(party(Latch(GEOTAB, 5, True)), unknown), GEO) == [(5, GEOTAB.id)]


# --- B3.7: without evidence nobody is displaced


@pytest.mark.parametrize(
    ("customers", "leave"),
    [
        pytest.param(
            [holder(5, named(GEOTAB, "x"))],
            Leave(NOT_NEWER, (5,), unmet=True),
            id="another record is there",
        ),
        pytest.param(
            [holder(5), holder(6, GEOTAB)],
            Leave(NOT_NEWER, (5, 6), unmet=True, at=6),
            id="another customer holds it",
        ),
        pytest.param(
            [holder(5), holder(7, GEOTAB), holder(6, GEOTAB)],
            Leave(NOT_NEWER, (5, 6, 7), unmet=True),
            id="two others hold it",
        ),
    ],
)
@pytest.mark.parametrize("policy", [Policy(), REPLACE])
def test_b3_7_only_evidence_displaces(customers, leave, policy):
    links = {one.id: "holds" for one in customers if one.holds(GEOTAB)}
    what = planned(party(Latch(GEOTAB, 5, False), links), *customers, policy=policy)
    assert what.writes == ()
    assert result(what) == leave
    assert NOT_NEWER == "claim is not newer than the latch"


def test_b4_5_a_refused_latch_whose_holder_a_sweep_found_is_a_conflict_without_evidence():
    first = party(Latch(GEOTAB, 5, False), {6: "holds"})
    why = buried(planned(first, holder(5), holder(6, GEOTAB), refused=True, swept=True))
    assert why.reason is Reason.CONFLICT
    assert why.customers == (5, 6)


def test_b4_5_and_a_move_with_it():
    first = party(Latch(GEOTAB, 5, True), {6: "holds"})
    what = planned(first, holder(5), holder(6, GEOTAB), refused=True, swept=True)
    assert result(what).outcome is Outcome.MOVED


# --- B4.1: hints

FULL = Find(GEOTAB, "C-1", "a@example.org", "0070440")
BY_REFERENCE, BY_EMAIL = Query("reference", "C-1"), Query("email", "a@example.org")


@pytest.mark.parametrize(
    ("policy", "wish", "asks"),
    [
        (ANY, FULL, BY_REFERENCE),
        (matching("reference"), FULL, BY_REFERENCE),
        (matching("email"), FULL, BY_EMAIL),
        (ANY, Find(GEOTAB, email="a@example.org"), BY_EMAIL),
        (ANY, Find(GEOTAB, previous="0070440"), Sweep()),
        (matching("link"), FULL, Sweep()),
    ],
)
def test_b4_1_only_what_match_by_allows_is_asked_for(policy, wish, asks):
    assert planned(party(wish), policy=policy) == asks


def test_b4_1_the_ways_are_tried_in_their_order():
    first = party(FULL, {6: "holds"})
    assert planned(first, policy=ANY) == ReadCustomers(frozenset({6}))
    known = {"policy": ANY, "previous_links": {7: "holds"}}
    assert planned(first, holder(6), **known) == ReadCustomers(frozenset({7}))
    assert planned(first, holder(6), holder(7), **known) == BY_REFERENCE
    found = {BY_REFERENCE: ()}
    assert planned(first, holder(6), holder(7), **known, found=found) == BY_EMAIL
    found |= {BY_EMAIL: (8,)}
    assert planned(first, holder(6), holder(7), **known, found=found) == ReadCustomers(
        frozenset({8})
    )
    what = planned(first, holder(6), holder(7), holder(8), **known, found=found)
    assert steps(what, GEO) == [(8, GEOTAB.id)]
    assert result(what) == Done(Outcome.LATCHED, "customer 8", (8,))


@pytest.mark.parametrize(
    ("customers", "leave"),
    [
        ([holder(6, GEOTAB)], Leave("already latched", (6,), at=6)),
        ([holder(6, GEOTAB), holder(7, GEOTAB)], Leave("already latched", (6, 7))),
    ],
)
def test_b4_1_the_customer_that_holds_the_record_is_its_customer(customers, leave):
    first = party(FULL, {one.id: "holds" for one in customers})
    what = planned(first, *customers, policy=ANY)
    assert what.writes == ()
    assert result(what) == leave


def test_b3_12_a_hint_of_what_is_left_of_a_merge_leaves_no_merged_record_in_its_place():
    first = party(Find(ACCOUNT, "C-1"), {6: "holds"}, former=[LOSER])
    what = planned(first, holder(6, LOSER))
    assert steps(what, SF) == [(6, ACCOUNT.id)]


def test_b4_1_holding_it_is_no_way_to_find_it_where_link_is_off():
    first = party(Find(GEOTAB, "C-1"), {6: "holds"})
    policy = matching("reference")
    assert planned(first, holder(6, GEOTAB), policy=policy) == BY_REFERENCE
    what = planned(first, holder(6, GEOTAB), holder(5), policy=policy, found={BY_REFERENCE: (5,)})
    assert result(what) == Leave("customer 6 holds it", (6,), unmet=True, at=6)
    assert what.writes == ()


@pytest.mark.parametrize("kind", ["reference", "email"])
def test_b4_2_never_the_first_of_several(kind):
    wish = Find(GEOTAB, **{kind: "C-1"})
    found = {Query(kind, "C-1"): (5, 6)}
    why = buried(planned(party(wish), policy=ANY, found=found))
    assert why == Bury(
        Reason.AMBIGUOUS_MATCH,
        f"{GEOTAB.mailbox} names its customer by its {kind}, which several customers have: "
        "customer 5 and customer 6.",
        "Write the Fusebill id of the right one into the record's link field; that closes this.",
        (5, 6),
    )


def test_b4_2_several_references_stop_before_the_email_is_asked_for():
    wish = Find(GEOTAB, "C-1", "a@example.org")
    assert buried(planned(party(wish), policy=ANY, found={BY_REFERENCE: (5, 6)}))


@pytest.mark.parametrize("kind", ["reference", "email"])
def test_b4_3_what_cannot_be_asked_for_needs_a_person(kind):
    wish = Find(GEOTAB, **{kind: "C;1"})
    why = buried(planned(party(wish), policy=ANY, found={Query(kind, "C;1"): None}))
    assert why == Bury(
        Reason.CUSTOMER_NOT_FOUND,
        f"{GEOTAB.mailbox} names its customer by a {kind} that Fusebill cannot be asked for: it "
        "holds a sign of the query grammar (; : , * |).",
        "Write the customer's Fusebill id into the record's link field; that closes this.",
        (),
    )


@pytest.mark.parametrize(
    ("wish", "policy", "swept", "what"),
    [
        pytest.param(
            Find(GEOTAB, email="a@example.org"),
            ANY,
            False,
            Leave("no customer has this email", outcome=Outcome.IGNORED),
            id="email",
        ),
        pytest.param(
            Find(GEOTAB, "C-1"),
            ANY,
            False,
            NoMatch("No customer in Fusebill has the reference that the record names."),
            id="reference",
        ),
        pytest.param(
            Find(GEOTAB, "C-1", "a@example.org"),
            ANY,
            False,
            NoMatch("No customer in Fusebill has the reference that the record names."),
            id="both",
        ),
        pytest.param(
            Find(GEOTAB, "C-1", "a@example.org"),
            matching("email"),
            False,
            Leave("no customer has this email", outcome=Outcome.IGNORED),
            id="both, the email alone allowed",
        ),
        pytest.param(
            Find(GEOTAB, previous="0070440"), ANY, False, Sweep(), id="previous, not swept"
        ),
        pytest.param(
            Find(GEOTAB, previous="0070440"),
            ANY,
            True,
            NoMatch("No customer in Fusebill has the previous id that the record names."),
            id="previous",
        ),
        pytest.param(
            Find(GEOTAB, "C-1", previous="0070440"), ANY, False, Sweep(), id="previous comes first"
        ),
    ],
)
def test_b4_4_nobody_found(wish, policy, swept, what):
    found = {BY_REFERENCE: (), BY_EMAIL: ()}
    told = planned(party(wish), policy=policy, found=found, swept=swept)
    assert (result(told) if isinstance(told, Plan) else told) == what


# --- B3.4: the id that it had before


def test_b3_4_who_holds_the_previous_id_is_the_customer():
    first = party(Find(GEOTAB, previous="0070440"))
    what = planned(
        first, holder(7, geotab_customer="0070440"), holder(8), previous_links={7: "holds"}
    )
    assert steps(what, GEO) == [(7, GEOTAB.id)]
    assert result(what) == Done(
        Outcome.MOVED, "in the place of 0070440 at customer 7", (7,), took=("0070440", 7)
    )
    assert what.releases == ()


def test_b3_4_only_who_holds_it_now_is_read():
    links = {7: "released", 8: "gone"}
    first = party(Find(GEOTAB, previous="0070440"))
    assert planned(first, previous_links=links) == Sweep()


def test_b4_1_several_that_hold_the_previous_id_stop():
    first = party(Find(GEOTAB, "C-1", previous="0070440"))
    both = [holder(n, geotab_customer="0070440") for n in (8, 7)]
    why = buried(planned(first, *both, previous_links={7: "holds", 8: "holds"}))
    assert why.reason is Reason.AMBIGUOUS_MATCH
    assert why.customers == (7, 8)
    assert "its customer by its previous id, which several customers have" in why.message


def test_b4_1_the_previous_id_is_a_way_of_link():
    first = party(Find(GEOTAB, "C-1", previous="0070440"))
    seven = holder(7, geotab_customer="0070440")
    what = planned(
        first, seven, policy=matching("reference"), previous_links={7: "holds"}, found={}
    )
    assert what == BY_REFERENCE


def test_b3_4_a_claim_takes_the_place_of_the_previous_id():
    first = party(Latch(GEOTAB, 5, True, "0070440"))
    what = planned(first, holder(5, geotab_customer="0070440"))
    assert steps(what, GEO) == [(5, GEOTAB.id)]
    assert what.releases == ()


# --- B3.11, B4.1: filling


@pytest.mark.parametrize(
    ("links", "customers", "gone", "leave"),
    [
        pytest.param(
            {5: "holds"},
            [holder(5, GEOTAB)],
            [],
            Leave("already latched", (5,), at=5),
            id="it is there",
        ),
        pytest.param(
            {6: "holds"},
            [holder(5), holder(6, GEOTAB)],
            [],
            Leave("customer 6 holds it", (6,), unmet=True, at=6),
            id="it is elsewhere",
        ),
        pytest.param(
            {6: "holds", 7: "holds"},
            [holder(5), holder(7, GEOTAB), holder(6, GEOTAB)],
            [],
            Leave("customer 6 holds it", (6, 7), unmet=True, at=6),
            id="in two places",
        ),
        pytest.param(
            {},
            [],
            [5],
            Leave("customer 5 is not there any more", unmet=True),
            id="the customer is gone",
        ),
        pytest.param(
            {},
            [holder(5, named(GEOTAB, "x"))],
            [],
            Leave(NOT_NEWER, (5,), unmet=True),
            id="its place is taken",
        ),
    ],
)
@pytest.mark.parametrize("policy", [Policy(), REPLACE])
def test_b3_11_only_what_is_free_is_filled(links, customers, gone, leave, policy):
    first = party(Fill(GEOTAB, 5), links)
    what = planned(first, *customers, gone=gone, policy=policy)
    assert what.writes == ()
    assert result(what) == leave


def test_b3_11_a_restored_record_goes_back_to_a_free_place():
    first = party(Fill(GEOTAB, 5), {5: "released"})
    assert planned(first) == ReadCustomers(frozenset({5}))
    what = planned(first, holder(5))
    assert steps(what, GEO) == [(5, GEOTAB.id)]
    assert result(what).outcome is Outcome.LATCHED


# --- releases


@pytest.mark.parametrize("wish", [Release(GEOTAB, None), Release(GEOTAB, None, gone=True)])
def test_b3_an_unlink_releases_it_from_its_holder(wish):
    what = planned(party(wish, {5: "holds"}), holder(5, GEOTAB))
    assert steps(what, GEO) == [(5, "")]
    assert result(what) == Done(Outcome.UNLATCHED, "customer 5", (5,))
    assert what.releases == ((5, GEOTAB.id),)


def test_b4_2_a_release_from_one_of_several_needs_a_person():
    first = party(Release(GEOTAB, None), {6: "holds", 5: "holds"})
    why = buried(planned(first, holder(6, GEOTAB), holder(5, GEOTAB)))
    assert why == Bury(
        Reason.AMBIGUOUS_MATCH,
        f"{GEOTAB.mailbox} is to be released, but several customers hold it: customer 5 and "
        "customer 6.",
        "Unlatch it in Fusebill from those it does not belong to, then replay this.",
        (5, 6),
    )


def test_b3_12_what_is_left_of_a_merge_is_released_under_every_id():
    first = party(Release(ACCOUNT, None), {5: "holds", 6: "holds"}, former=[LOSER])
    what = planned(first, holder(6, ACCOUNT), holder(5, LOSER), policy=ANY)
    assert steps(what, SF) == [(5, ""), (6, "")]
    assert result(what) == Done(Outcome.UNLATCHED, "customer 5, 6", (5, 6))
    assert what.releases == ((5, "L1"), (6, ACCOUNT.id))


@pytest.mark.parametrize(
    ("links", "swept", "told"),
    [
        ({}, False, Sweep()),
        ({5: "gone"}, False, Sweep()),
        ({5: "holds"}, False, Sweep()),
        ({5: "released", 6: "gone"}, False, Sweep()),
        ({5: "released"}, False, Sweep()),
        ({6: "released", 5: "released"}, True, Leave("no customer holds it", (5, 6))),
        ({}, True, Leave("no customer holds it")),
        ({5: "gone"}, True, Leave("no customer holds it", (5,))),
    ],
)
def test_b4_5_held_by_nobody_is_concluded_from_a_sweep_only(links, swept, told):
    first = party(Release(GEOTAB, None), links)
    what = planned(first, *(holder(n) for n in links), swept=swept)
    assert (result(what) if isinstance(what, Plan) else what) == told


def test_b3_4_a_release_that_names_a_customer_touches_no_other():
    first = party(Release(GEOTAB, 5), {6: "holds"})
    assert planned(first) == ReadCustomers(frozenset({5}))
    what = planned(first, holder(5, GEOTAB))
    assert steps(what, GEO) == [(5, "")]
    assert result(planned(first, holder(5))) == Leave("customer 5 does not hold it", (5,))
    assert planned(first, gone=[5]) == Missing(5)


def test_b3_12_a_release_that_names_a_customer_is_of_every_id():
    first = party(Release(ACCOUNT, 5), former=[LOSER])
    assert steps(planned(first, holder(5, LOSER), policy=ANY), SF) == [(5, "")]


# --- B3.6: what stays


@pytest.mark.parametrize(
    ("customers", "detail", "leave"),
    [
        ([holder(5, GEOTAB)], "", Leave("customer 5 holds it", (5,), at=5)),
        ([holder(5, GEOTAB)], "why", Leave("why", (5,), at=5)),
        ([holder(6, GEOTAB), holder(5, GEOTAB)], "", Leave("", (5, 6))),
        ([], "", Leave("")),
    ],
)
def test_b3_6_what_is_to_be_kept_stays(customers, detail, leave):
    links = {one.id: "holds" for one in customers}
    what = planned(party(Keep(GEOTAB, detail, merged=True), links), *customers)
    assert what.writes == ()
    assert result(what) == leave


# --- B3.12: merges


@pytest.mark.parametrize("wish", [Keep(ACCOUNT, ""), Keep(ACCOUNT, "", merged=True)])
@pytest.mark.parametrize("unlatch", [True, False])
def test_b3_12_what_is_left_of_a_merge_takes_the_place_of_the_merged(wish, unlatch):
    """Salesforce latches it by force, and so no unlatching is needed (B5.6)."""
    policy = Policy(salesforce_unlatch=unlatch)
    what = planned(party(wish, {5: "holds"}, former=[LOSER]), holder(5, LOSER), policy=policy)
    assert steps(what, SF) == [(5, ACCOUNT.id)]
    assert what.writes[0].displaces == (SF,)
    assert result(what) == Done(
        Outcome.MOVED, "in the place of L1 at customer 5", (5,), took=("L1", 5)
    )
    assert what.releases == ()


def test_b3_12_where_it_is_already_nothing_is_written():
    first = party(Keep(ACCOUNT, ""), {5: "holds"}, former=[LOSER])
    what = planned(first, holder(5, ACCOUNT))
    assert what.writes == ()
    assert result(what) == Leave("customer 5 holds it", (5,), at=5)


@pytest.mark.parametrize(
    ("holders", "message"),
    [
        ([holder(5, ACCOUNT), holder(6, LOSER)], "customer 5 and customer 6"),
        ([holder(6, LOSER), holder(5, OTHER_LOSER)], "customer 5 and customer 6"),
    ],
)
@pytest.mark.parametrize("claims", [None, "", "7", "abc"])
def test_b3_12_two_holders_are_a_conflict(holders, message, claims):
    links = {one.id: "holds" for one in holders}
    first = party(Keep(ACCOUNT, ""), links, former=[LOSER, OTHER_LOSER], claims=claims)
    why = buried(planned(first, *holders, policy=ANY))
    assert why == Bury(
        Reason.CONFLICT,
        f"L1, L2 were merged into {ACCOUNT.mailbox}, and {message} hold one each.",
        "Set the link field of the record that is left to the customer it belongs to, or unlatch "
        "the others in Fusebill and replay this.",
        (5, 6),
    )


def test_b3_12_the_same_for_a_claim_that_names_neither():
    first = party(Latch(ACCOUNT, 7, True), {5: "holds", 6: "holds"}, former=[LOSER])
    why = buried(planned(first, holder(5, ACCOUNT), holder(6, LOSER), holder(7), policy=ANY))
    assert why.reason is Reason.CONFLICT
    assert why.customers == (5, 6)


@pytest.mark.parametrize("named_one", [5, 6])
@pytest.mark.parametrize("evidence", [True, False, None])
def test_b3_12_unless_its_own_id_names_one_then_the_other_is_released(named_one, evidence):
    wish = Keep(ACCOUNT, "") if evidence is None else Latch(ACCOUNT, named_one, evidence)
    first = party(wish, {5: "holds", 6: "holds"}, former=[LOSER], claims=str(named_one))
    what = planned(first, holder(5, ACCOUNT), holder(6, LOSER), policy=ANY)
    other = 11 - named_one
    expected = [(6, "")] if named_one == 5 else [(5, ""), (6, ACCOUNT.id)]
    assert steps(what, SF) == expected
    assert result(what) == Done(
        Outcome.MOVED, f"from customer {other} to {named_one}", (named_one, other)
    )
    assert what.releases == ()


def test_b3_12_a_claim_moves_what_a_merged_record_left():
    """The record it was latched by is no more: that needs no evidence."""
    first = party(Latch(ACCOUNT, 5, False), {6: "holds"}, former=[LOSER])
    what = planned(first, holder(5), holder(6, LOSER), policy=ANY)
    assert sorted(steps(what, SF)) == [(5, ACCOUNT.id), (6, "")]
    assert what.releases == ()


def test_b3_12_a_claim_that_may_displace_nobody_leaves_it_where_the_merged_record_was():
    first = party(Latch(ACCOUNT, 5, False), {6: "holds"}, former=[LOSER])
    what = planned(first, holder(5, named(ACCOUNT, "x")), holder(6, LOSER), policy=ANY)
    assert steps(what, SF) == [(6, ACCOUNT.id)]


ENDED = {LOSER: Marks(ended_on=5), OTHER_LOSER: Marks()}


@pytest.mark.parametrize(
    ("merged_now", "customers", "gone", "writes", "told"),
    [
        pytest.param(
            True,
            [holder(5)],
            [],
            [(5, ACCOUNT.id)],
            Done(Outcome.LATCHED, "customer 5", (5,)),
            id="it is free",
        ),
        pytest.param(False, [holder(5)], [], [], Leave("why"), id="the merge is no news"),
        pytest.param(
            True, [holder(5, named(ACCOUNT, "x"))], [], [], Leave("why"), id="it is taken"
        ),
        pytest.param(True, [], [5], [], Leave("why"), id="it is gone"),
    ],
)
def test_b3_12_a_merge_told_after_the_deletion_that_it_explains(
    merged_now, customers, gone, writes, told
):
    first = party(Keep(ACCOUNT, "why", merged=merged_now), {}, former=ENDED)
    what = planned(first, *customers, gone=gone)
    assert steps(what, SF) == writes
    assert result(what) == told


def test_b3_12_the_customer_that_a_merged_record_left_is_read():
    first = party(Keep(ACCOUNT, "why", merged=True), {}, former=ENDED)
    assert planned(first) == ReadCustomers(frozenset({5}))


def test_b3_12_two_that_they_left_need_a_decision():
    former = {LOSER: Marks(ended_on=5), OTHER_LOSER: Marks(ended_on=6)}
    first = party(Keep(ACCOUNT, "why", merged=True), {}, former=former)
    what = planned(first, holder(5), holder(6))
    assert what.writes == ()
    assert result(what) == Leave("why")


@pytest.mark.parametrize(
    ("merged_now", "swept", "links", "told"),
    [
        (True, False, {}, Sweep()),
        (True, True, {}, Leave("why")),
        (True, False, {5: "released"}, Sweep()),
        (True, True, {5: "released"}, Leave("why", (5,))),
        (False, False, {}, Leave("why")),
    ],
)
def test_b3_12_a_merge_told_now_must_know_who_holds_the_merged(merged_now, swept, links, told):
    first = party(Keep(ACCOUNT, "why", merged=merged_now), links, former=[LOSER])
    what = planned(first, *(holder(n) for n in links), swept=swept)
    assert (result(what) if isinstance(what, Plan) else what) == told


@pytest.mark.parametrize(
    "wish",
    [
        Latch(ACCOUNT, 5, True),
        Keep(ACCOUNT, "why", merged=True),
        Fill(ACCOUNT, 5),
        Find(ACCOUNT, "C-1"),
        Release(ACCOUNT, None),
    ],
)
def test_b3_12_a_merge_of_which_a_holder_may_be_overlooked_waits_for_a_sweep(wish):
    first = party(wish, {5: "holds"}, former=[LOSER], untraced=True)
    assert planned(first, holder(5, ACCOUNT)) == Sweep()
    what = planned(first, holder(5, ACCOUNT), swept=True, policy=ANY)
    assert isinstance(what, Plan)


# --- B3.12: what was unlinked before it was merged


@pytest.mark.parametrize(
    ("wish", "customers", "writes", "told", "releases"),
    [
        pytest.param(
            Keep(ACCOUNT, "why"),
            [holder(6, LOSER)],
            [(6, "")],
            Done(Outcome.UNLATCHED, "customer 6", (6,)),
            ((6, "L1"),),
            id="it is let go of and not taken over",
        ),
        pytest.param(
            Keep(ACCOUNT, "why"),
            [holder(5, ACCOUNT), holder(6, LOSER)],
            [(6, "")],
            Done(Outcome.MOVED, "from customer 6 to 5", (5, 6)),
            ((6, "L1"),),
            id="what is left stays where it is",
        ),
        pytest.param(
            Latch(ACCOUNT, 5, False),
            [holder(5), holder(6, LOSER)],
            [(5, ACCOUNT.id), (6, "")],
            Done(Outcome.MOVED, "from customer 6 to 5", (5, 6)),
            ((6, "L1"),),
            id="or goes where it claims",
        ),
        pytest.param(
            Latch(ACCOUNT, 5, False),
            [holder(5, ACCOUNT)],
            [],
            Leave("already latched", (5,), at=5),
            (),
            id="nobody holds it",
        ),
    ],
)
def test_b3_12_what_was_unlinked_before_it_was_merged_is_let_go_of(
    wish, customers, writes, told, releases
):
    links = {one.id: "holds" for one in customers if one.slots[SF] is not EMPTY}
    first = party(wish, links, former=[LOSER], unlinked=frozenset({"L1"}))
    what = planned(first, *customers, policy=ANY)
    assert steps(what, SF) == writes
    assert result(what) == told
    assert what.releases == releases


def test_b3_12_a_conflict_lets_go_of_nothing():
    first = party(
        Latch(ACCOUNT, 5, True),
        {6: "holds", 7: "holds", 8: "holds"},
        former=[LOSER, OTHER_LOSER],
        unlinked=frozenset({"L1"}),
    )
    customers = [holder(5), holder(6, LOSER), holder(7, OTHER_LOSER), holder(8, ACCOUNT)]
    assert buried(planned(first, *customers, policy=ANY)).reason is Reason.CONFLICT


def test_b3_12_a_claim_told_before_the_merge_may_name_a_third_customer():
    """It was not decided yet: the customer that it names comes along, and the others are let go."""
    first = party(
        Latch(ACCOUNT, 7, True),
        {5: "holds", 6: "holds"},
        former=[LOSER],
        undecided=frozenset({7}),
    )
    what = planned(first, holder(5, ACCOUNT), holder(6, LOSER), holder(7), policy=ANY)
    assert sorted(steps(what, SF)) == [(5, ""), (6, ""), (7, ACCOUNT.id)]


def test_b3_12_what_took_the_place_of_one_that_was_unlinked_before_lets_go_of_it():
    more = {"former": [LOSER], "unlinked": frozenset({"L1"}), "let_go": 5}
    first = party(Keep(ACCOUNT, "why"), {}, **more)
    assert planned(first) == ReadCustomers(frozenset({5}))
    what = planned(first, holder(5, ACCOUNT), policy=ANY)
    assert steps(what, SF) == [(5, "")]
    assert result(what) == Done(Outcome.UNLATCHED, "customer 5", (5,))
    assert what.releases == ((5, ACCOUNT.id),)


@pytest.mark.parametrize("there", [holder(5), holder(5, named(ACCOUNT, "x"))])
def test_b3_12_but_nothing_that_another_hand_put_there_since(there):
    more = {"former": [LOSER], "unlinked": frozenset({"L1"}), "let_go": 5}
    what = planned(party(Keep(ACCOUNT, "why"), {}, **more), there, policy=ANY)
    assert what.writes == ()
    assert result(what) == Leave("why")


def test_b3_12_a_claim_takes_the_place_of_one_that_was_unlinked_before_it_was_merged():
    first = party(Latch(ACCOUNT, 5, True), {5: "holds"}, former=[LOSER], unlinked=frozenset({"L1"}))
    what = planned(first, holder(5, LOSER))
    assert steps(what, SF) == [(5, ACCOUNT.id)]
    assert result(what).outcome is Outcome.MOVED
