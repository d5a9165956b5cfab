"""Records that stand in each other's way: moves, rings, conflicts (B5.2, B5.5, B5.6, B5.10)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.fold import Fill, Find, Keep, Latch, Release
from sync_worker.decide.plan import (
    MOST_PARTIES,
    REPLACED_AGAIN_MS,
    Bury,
    Done,
    Join,
    Leave,
    Plan,
    Unknown,
)
from sync_worker.decide.subject import Policy
from sync_worker.domain import Marks, Outcome, Reason, Record, Slot, SlotState
from tests.changes import ACCOUNT, CONTACT, GEOTAB, customer, linked, named, party
from tests.unit.decide.planning import (
    REPLACE,
    buried,
    bystander,
    holder,
    planned,
    result,
    solved,
    steps,
)

GEO, SF = Slot.GEOTAB_CUSTOMER, Slot.SALESFORCE_ACCOUNT
UNLATCHES = Policy(salesforce_unlatch=True)
X, Y, Z = (named(GEOTAB, id_) for id_ in "xyz")
HOUR_MS = 3_600_000


def moving(record: Record, at: int | None, to: int, **more: object):
    """It claims another customer than the one that holds it."""
    links = {} if at is None else {at: "holds"}
    return party(Latch(record, to, True), links, **more)


# --- B5.5: taken slots


def test_b5_5_who_stands_in_the_way_is_asked_what_it_wants():
    assert planned(moving(X, None, 5), holder(5, Y)) == Join(Y)


@pytest.mark.parametrize(
    ("wish", "policy"),
    [
        pytest.param(Keep(Y, ""), Policy(), id="hold"),
        pytest.param(Latch(Y, 5, True), REPLACE, id="replace, but it claims the customer"),
        pytest.param(Latch(Y, 5, False), REPLACE, id="replace, but it claims it still"),
    ],
)
def test_b5_5_one_that_stays_is_a_conflict_that_names_both(wish, policy):
    parties = [moving(X, None, 5), party(wish, {5: "holds"})]
    why = buried(planned(parties, holder(5, Y), policy=policy))
    assert why == Bury(
        Reason.CONFLICT,
        f"{X.mailbox} names customer 5, whose {GEO} slot holds y.",
        "Decide which of the two belongs to customer 5; unlatch y there and replay this, or "
        "correct the record's link field.",
        (5,),
    )


@pytest.mark.parametrize("claims", [None, "", "6", "abc"])
def test_b5_5_replace_lets_go_of_one_that_does_not_claim_the_customer(claims):
    parties = [moving(X, None, 5), party(Keep(Y, ""), {5: "holds"}, claims=claims)]
    what = planned(parties, holder(5, Y), policy=REPLACE)
    assert steps(what, GEO) == [(5, "x")]
    assert what.writes[0].displaces == (GEO,)
    assert what.results == {X: Done(Outcome.LATCHED, "customer 5, replacing y", (5,))}
    assert what.releases == ((5, "y"),)


@pytest.mark.parametrize("claims", ["5", "05"])
def test_b5_5_replace_spares_one_that_was_last_told_to_claim_it(claims):
    parties = [moving(X, None, 5), party(Keep(Y, ""), {5: "holds"}, claims=claims)]
    assert buried(planned(parties, holder(5, Y), policy=REPLACE)).reason is Reason.CONFLICT


@pytest.mark.parametrize(
    ("ago", "again"), [(0, False), (HOUR_MS - 1, False), (HOUR_MS, True), (None, True)]
)
def test_b5_5_a_slot_is_not_replaced_twice_within_the_hour(ago, again):
    assert REPLACED_AGAIN_MS == HOUR_MS
    now = 10 * HOUR_MS
    replaced = {6: now} if ago is None else {5: now - ago}
    parties = [moving(X, None, 5), bystander(Y, [holder(5, Y)])]
    what = planned(parties, holder(5, Y), policy=REPLACE, replaced=replaced, now=now)
    if again:
        assert steps(what, GEO) == [(5, "x")]
    else:
        assert buried(what).reason is Reason.CONFLICT


@pytest.mark.parametrize(
    ("marks", "policy", "moves"),
    [
        pytest.param(Marks(home="6", claim="6"), Policy(), True, id="its claim moved"),
        pytest.param(Marks(home="6", claim="7"), Policy(), True, id="over another claim"),
        pytest.param(Marks(home="7", claim="6"), Policy(), True, id="it claimed the holder last"),
        pytest.param(Marks(), Policy(), True, id="it never was anywhere by its claim"),
        pytest.param(Marks(home="7", claim="7"), Policy(), False, id="another hand moved it"),
        pytest.param(Marks(home="", claim=""), Policy(), False, id="another hand latched it"),
        pytest.param(Marks(home="7", claim="7"), REPLACE, True, id="replace"),
        pytest.param(Marks(claim="5"), Policy(), True, id="it only ever claimed this customer"),
        pytest.param(Marks(claim="9"), Policy(), False, id="it claimed a third"),
        pytest.param(Marks(claim=""), Policy(), False, id="it was unlinked before"),
    ],
)
def test_b5_5_a_move_is_no_conflict(marks, policy, moves):
    see_whether_it_moves(moves, moving(X, 6, 5, marks=marks), policy)


@pytest.mark.parametrize(("told", "moves"), [("6", True), ("7", False)])
def test_b5_5_a_claim_that_is_not_settled_yet_may_have_put_it_there(told, moves):
    """Its worker vanished after the call, or the call's answer was lost."""
    changes = [linked(X, told), linked(X, "5")]
    one = moving(X, 6, 5, marks=Marks(home="7", claim="7"), changes=changes)
    see_whether_it_moves(moves, one, Policy())


def see_whether_it_moves(moves, one, policy):
    what = planned(one, holder(5), holder(6, X), policy=policy)
    if moves:
        assert steps(what, GEO) == [(6, ""), (5, "x")]
        assert result(what) == Done(Outcome.MOVED, "from customer 6 to 5", (5, 6))
        assert what.releases == ()
    else:
        assert buried(what) == Bury(
            Reason.CONFLICT,
            f"{X.mailbox} names customer 5, but customer 6 holds it.",
            "If it belongs to customer 5, unlatch it from customer 6 and replay this; if not, "
            "correct the record's link field.",
            (5, 6),
        )


@pytest.mark.parametrize(
    ("marks", "evidence", "leaves"),
    [
        (Marks(home="6"), True, True),
        (Marks(home="6"), False, False),
        (Marks(home="7", claim="7"), True, False),
    ],
)
def test_b5_5_a_move_whose_other_half_is_done_is_finished(marks, evidence, leaves):
    first = party(Latch(X, 5, evidence), {5: "holds", 6: "holds"}, marks=marks)
    what = planned(first, holder(5, X), holder(6, X))
    assert steps(what, GEO) == ([(6, "")] if leaves else [])
    assert what.releases == ()
    if leaves:
        assert result(what) == Done(Outcome.MOVED, "from customer 6 to 5", (5, 6))
    else:
        assert result(what) == Leave("already latched", (5,), at=5)


@pytest.mark.parametrize("marks", [Marks(), Marks(home="6")])
def test_b5_5_held_by_several_is_no_move(marks):
    links = {6: "holds", 7: "holds"}
    first = party(Latch(X, 5, True), links, marks=marks)
    customers = [holder(5), holder(7, X), holder(6, X)]
    why = buried(planned(first, *customers))
    assert why.customers == (5, 6, 7)
    assert "customer 6 and customer 7 holds it" in why.message
    what = planned(first, *customers, policy=REPLACE)
    assert steps(what, GEO) == [(6, ""), (7, ""), (5, "x")]
    assert result(what) == Done(Outcome.MOVED, "from customer 6, 7 to 5", (5, 6, 7))


# --- B5.2: moves that depend on each other


def claiming(**moves: tuple[int | None, int]) -> list:
    return [moving(named(GEOTAB, id_), at, to) for id_, (at, to) in moves.items()]


@pytest.mark.parametrize(
    "moves",
    [
        pytest.param({"x": (1, 2), "y": (2, 1)}, id="exchange"),
        pytest.param({"x": (1, 2), "y": (2, 3), "z": (3, 1)}, id="ring of three"),
        pytest.param({"x": (1, 2), "y": (2, 3)}, id="chain"),
        pytest.param({"x": (None, 2), "y": (2, 3)}, id="from nowhere"),
    ],
)
def test_b5_2_moves_that_depend_on_each_other_are_one_plan(moves):
    parties = claiming(**moves)
    world = [holder(n) for n in (1, 2, 3)]
    for id_, (at, _) in moves.items():
        if at is not None:
            world[at - 1] = holder(at, named(GEOTAB, id_))
    what = solved(parties, world)
    assert {record.id: one.outcome for record, one in what.results.items()} == {
        id_: Outcome.MOVED if at else Outcome.LATCHED for id_, (at, _) in moves.items()
    }
    now = {one.id: one.slots[GEO] for one in world}
    for write in what.writes:
        assert write.before[GEO] == now[write.customer_id]
        now[write.customer_id] = write.after[GEO]
        held = [value for value in now.values() if isinstance(value, str)]
        assert len(held) == len(set(held))
    assert {value: at for at, value in now.items() if isinstance(value, str)} == {
        id_: to for id_, (_, to) in moves.items()
    }
    assert what.releases == ()


def test_b5_2_an_exchange_in_full():
    what = planned(claiming(x=(1, 2), y=(2, 1)), holder(1, X), holder(2, Y))
    assert steps(what, GEO) == [(1, ""), (2, "x"), (1, "y")]
    assert what.results == {
        X: Done(Outcome.MOVED, "from customer 1 to 2", (2, 1)),
        Y: Done(Outcome.MOVED, "from customer 2 to 1", (1, 2)),
    }


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(Keep(Z, ""), id="it stays"),
        pytest.param(Latch(Z, 4, False), id="it may not displace who is there"),
        pytest.param(Latch(Z, 3, True), id="it claims where it is"),
        pytest.param(Find(Z, "C-1"), id="it is found where it is"),
        pytest.param(Fill(Z, 4), id="it fills nothing"),
    ],
)
def test_b5_2_a_chain_whose_end_cannot_move_writes_nothing(last):
    parties = [*claiming(x=(1, 2), y=(2, 3)), party(last, {3: "holds"})]
    world = [holder(1, X), holder(2, Y), holder(3, Z), holder(4, named(GEOTAB, "w"))]
    assert buried(solved(parties, world)).reason is Reason.CONFLICT


def test_b5_2_a_chain_whose_end_is_released_goes_through():
    parties = [*claiming(x=(1, 2)), party(Release(Y, None), {2: "holds"})]
    what = solved(parties, [holder(1, X), holder(2, Y)])
    assert sorted(what.results) == [X, Y]
    assert what.results[Y] == Done(Outcome.UNLATCHED, "customer 2", (2,))
    assert what.releases == ((2, "y"),)
    assert steps(what, GEO) == [(1, ""), (2, "x")]


def test_b5_2_one_that_moves_on_without_leaving_this_customer_is_in_the_way():
    """It is held twice, and lets go of the other place only."""
    first = moving(X, None, 5)
    other = party(Release(Y, 6), {6: "holds"})
    what = planned([first, other], holder(5, Y), holder(6, Y))
    assert buried(what).reason is Reason.CONFLICT


def test_b5_2_two_that_want_one_customer_are_a_conflict():
    parties = claiming(x=(None, 2), y=(2, 3))
    parties.append(party(Latch(Z, 2, True), {3: "holds"}))
    world = [holder(2, Y), holder(3, Z)]
    why = buried(solved(parties, world))
    assert why.reason is Reason.CONFLICT


def test_b5_2_what_another_record_lacks_is_its_own_affair():
    other = party(Find(Y, "C-1"), {})
    what = planned(
        [moving(X, None, 5), other],
        holder(5, Y),
        policy=Policy(match_by=frozenset({"id", "reference"})),
    )
    assert buried(what).reason is Reason.CONFLICT
    replaced = planned(
        [moving(X, None, 5), other],
        holder(5, Y),
        policy=Policy(replace=True, match_by=frozenset({"id", "reference"})),
    )
    assert steps(replaced, GEO) == [(5, "x")]
    assert Y not in replaced.results


def test_b5_2_the_customers_of_all_that_take_part_are_read():
    parties = claiming(x=(None, 2), y=(2, 3))
    what = planned(parties, holder(2, Y))
    assert what.ids == {3}


def test_b5_2_only_what_the_first_record_needs_is_written():
    """One that could go while the first stays goes by its own mailbox."""
    parties = [party(Latch(X, 5, False)), moving(Y, 5, 6)]
    what = planned(parties, holder(5, Y), holder(6))
    assert what.writes == ()
    assert list(what.results) == [X]


@pytest.mark.parametrize("length", [MOST_PARTIES - 1, MOST_PARTIES, MOST_PARTIES + 1])
def test_b5_2_a_ring_that_is_too_long_is_a_conflict(length):
    assert MOST_PARTIES == 8
    ring = [named(GEOTAB, f"r{n}") for n in range(length)]
    parties = [moving(one, n + 1, (n + 1) % length + 1) for n, one in enumerate(ring)]
    world = [holder(n + 1, one) for n, one in enumerate(ring)]
    what = solved(parties, world)
    if length > MOST_PARTIES:
        why = buried(what)
        assert why.reason is Reason.CONFLICT
        return
    assert len(what.writes) == length + 1
    assert {one.outcome for one in what.results.values()} == {Outcome.MOVED}
    assert len(what.results) == length


def test_b5_2_each_that_takes_part_is_judged_whoever_stays_before_it():
    parties = [moving(X, None, 5), party(Keep(Y, ""), {6: "holds"}), moving(Z, None, 6)]
    what = planned(parties, holder(5), holder(6, Y))
    assert steps(what, GEO) == [(5, "x")]
    assert list(what.results) == [X]


def test_b7_4_a_customer_in_the_way_whose_slot_is_unknown_stops_the_plan():
    parties = claiming(x=(1, 2))
    what = planned(parties, holder(1, geotab_customer=SlotState.UNKNOWN), holder(2))
    assert isinstance(what, Unknown)
    assert "customer 1" in what.message


# --- B5.6: Salesforce has no unlatch

A, B = named(ACCOUNT, "a"), named(ACCOUNT, "b")


@pytest.mark.parametrize(
    ("parties", "customers", "names"),
    [
        pytest.param([party(Release(A, None), {5: "holds"})], [holder(5, A)], (5,), id="a release"),
        pytest.param(
            [moving(A, 6, 5)], [holder(5), holder(6, A)], (6,), id="a move lets go of it first"
        ),
        pytest.param(
            [moving(A, 1, 2), moving(B, 2, 1)],
            [holder(1, A), holder(2, B)],
            (1,),
            id="an exchange too",
        ),
        pytest.param(
            [
                party(
                    Keep(A, ""),
                    {5: "holds", 6: "holds"},
                    former=[B],
                    claims="5",
                )
            ],
            [holder(5, A), holder(6, B)],
            (6,),
            id="so does a merge of two that are held",
        ),
        pytest.param(
            [party(Release(A, None), {5: "holds", 6: "holds"}, former=[B])],
            [holder(5, A), holder(6, B)],
            (5, 6),
            id="several",
        ),
    ],
)
def test_b5_6_what_needs_a_salesforce_release_needs_a_person(parties, customers, names):
    why = buried(planned(parties, *customers))
    listed = " and ".join(f"customer {one}" for one in names)
    assert why == Bury(
        Reason.UNLATCH_UNSUPPORTED,
        f"{A.mailbox} is to be released from {listed}, but Fusebill documents no call that "
        "unlatches Salesforce, so nothing was changed.",
        "Clear it with Fusebill's bulk job (sync-worker dead-letters export --salesforce-bulk "
        "writes its file), or set FUSEBILL_SALESFORCE_UNLATCH_PATH, and replay this.",
        names,
    )
    assert planned(parties, *customers, policy=UNLATCHES).writes


@pytest.mark.parametrize(
    "parties",
    [
        pytest.param([moving(A, None, 5), party(Keep(B, ""), {5: "holds"})], id="replace"),
        pytest.param([party(Keep(A, ""), {5: "holds"}, former=[B])], id="merge"),
    ],
)
def test_b5_6_what_is_taken_over_by_force_needs_no_release(parties):
    what = planned(parties, holder(5, B), policy=REPLACE)
    assert steps(what, SF) == [(5, "a")]
    assert what.writes[0].displaces == (SF,)


def test_b5_6_other_slots_can_be_released():
    what = planned(party(Release(CONTACT, None), {5: "holds"}), holder(5, CONTACT))
    assert len(what.writes) == 1


# --- B5.10: what the brake counts


@pytest.mark.parametrize(
    ("parties", "customers", "policy", "counts"),
    [
        pytest.param(
            [party(Release(X, None), {5: "holds"})],
            [holder(5, X)],
            Policy(),
            [(5, "x")],
            id="release",
        ),
        pytest.param([moving(X, 6, 5)], [holder(5), holder(6, X)], Policy(), [], id="move"),
        pytest.param(
            [moving(X, 1, 2), moving(Y, 2, 1)],
            [holder(1, X), holder(2, Y)],
            Policy(),
            [],
            id="exchange",
        ),
        pytest.param(
            [moving(X, 6, 5), party(Keep(Y, ""), {5: "holds"})],
            [holder(5, Y), holder(6, X)],
            REPLACE,
            [(5, "y")],
            id="replace",
        ),
        pytest.param(
            [party(Keep(X, ""), {5: "holds"}, former=[Y])], [holder(5, Y)], Policy(), [], id="merge"
        ),
        pytest.param(
            [party(Keep(X, ""), {5: "holds", 6: "holds"}, former=[Y], claims="6")],
            [holder(5, Y), holder(6, X)],
            Policy(),
            [],
            id="merge of two that are held",
        ),
        pytest.param(
            [party(Latch(X, 5, True, "y"), {6: "holds"})],
            [holder(5, Y), holder(6, X)],
            Policy(),
            [],
            id="the id that it had before",
        ),
        pytest.param([moving(X, None, 5)], [holder(5)], Policy(), [], id="latch"),
    ],
)
def test_b5_10_only_what_ends_latched_nowhere_counts(parties, customers, policy, counts):
    what = planned(parties, *customers, policy=policy)
    assert what.writes
    assert list(what.releases) == counts


# --- whatever the world is like


@st.composite
def worlds(draw: st.DrawFn):
    """Customers and records in one slot, and what each record wants."""
    size = draw(st.integers(1, 5))
    records = [named(GEOTAB, f"r{n}") for n in range(size + 1)]
    held = draw(st.permutations([*records, *[None] * size]))[:size]
    world = [holder(n, one) for n, one in enumerate(held, start=1)]
    parties = []
    for record in records:
        at = {one.id: "holds" for one in world if one.holds(record)}
        to = draw(st.integers(1, size))
        wish = draw(
            st.sampled_from(
                [
                    Latch(record, to, True),
                    Latch(record, to, True),
                    Latch(record, to, False),
                    Keep(record, ""),
                    Release(record, None),
                    Fill(record, to),
                ]
            )
        )
        home = draw(st.sampled_from([None, *map(str, at), "99"]))
        parties.append(party(wish, at, marks=Marks(home=home)))
    first = draw(st.integers(0, len(parties) - 1))
    parties.insert(0, parties.pop(first))
    return parties, world, draw(st.booleans())


@given(worlds())
def test_b5_2_a_plan_that_cannot_finish_writes_nothing_and_one_that_can_ends_as_wanted(case):
    parties, world, replace = case
    what = solved(parties, world, policy=Policy(replace=replace), swept=True)
    assert isinstance(what, Plan)
    mine = parties[0].subject.record
    if isinstance(what.results[mine], Bury):
        assert what.writes == ()
        return
    before = {one.id: one.slots[GEO] for one in world}
    now = dict(before)
    for write in what.writes:
        assert write.before[GEO] == now[write.customer_id]
        now[write.customer_id] = write.after[GEO]
        held = [value for value in now.values() if isinstance(value, str)]
        assert len(held) == len(set(held))
    wishes = {one.subject.record: one.wish for one in parties}
    at = {value: one for one, value in now.items() if isinstance(value, str)}
    for record, became in what.results.items():
        if not isinstance(became, Done):
            continue
        wish = wishes[record]
        assert at.get(record.id) == (None if isinstance(wish, Release) else wish.customer_id)
    untouched = {value for value in before.values() if isinstance(value, str)}
    untouched -= {record.id for record in what.results}
    gone = {id_ for _, id_ in what.releases}
    assert all(before[at[id_]] == id_ for id_ in untouched if id_ in at)
    assert {id_ for id_ in untouched if id_ not in at} <= gone
    assert gone == {v for v in before.values() if isinstance(v, str)} - at.keys()
    assert replace or gone <= {r.id for r, w in wishes.items() if isinstance(w, Release)}


@given(worlds(), st.randoms(use_true_random=False))
def test_b5_2_the_order_in_which_customers_became_known_says_nothing(case, random):
    parties, world, replace = case
    policy = Policy(replace=replace)
    mixed = list(world)
    random.shuffle(mixed)
    assert planned(parties, *mixed, policy=policy, swept=True) == planned(
        parties, *world, policy=policy, swept=True
    )


@given(worlds())
def test_b5_2_one_that_claims_its_customer_is_never_displaced(case):
    parties, world, replace = case
    what = solved(parties, world, policy=Policy(replace=replace), swept=True)
    claims = {one.subject.record.id: one.claims for one in parties}
    for customer_id, id_ in what.releases:
        wish = next(one.wish for one in parties if one.subject.record.id == id_)
        assert isinstance(wish, Release) or claims[id_] != str(customer_id)


def test_b4_1_a_record_in_the_way_is_asked_for_nothing_but_customers():
    other = party(Release(Y, None), {})
    what = planned([moving(X, None, 5), other], holder(5), customer(6))
    assert steps(what, GEO) == [(5, "x")]
    assert list(what.results) == [X]


@pytest.mark.parametrize(("claim", "moves"), [(None, True), ("7", True), ("8", True), ("5", False)])
def test_b5_5_a_holder_that_the_record_never_claimed_is_no_move(claim, moves):
    """Its claim changed from another customer than the one that holds it."""
    first = party(Latch(GEOTAB, 7, evidence=True), {8: "holds"}, marks=Marks(claim=claim))
    what = planned(first, holder(7), holder(8, GEOTAB))
    assert isinstance(result(what), Done) is moves
