"""The order of a plan's writes: no moment finds one record on two customers (B5.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.order import SET_TOGETHER, Write, writes
from sync_worker.domain import Slot, SlotState
from tests.changes import customer

EMPTY = SlotState.EMPTY
G = Slot.GEOTAB_CUSTOMER
CONTACT, COMPANY = Slot.HUBSPOT_CONTACT, Slot.HUBSPOT_COMPANY


def holding(**ids: str) -> list:
    """Customers 1, 2 … by what their Geotab slot holds: `c1="x"`."""
    return [
        customer(int(name[1:]), **({"geotab_customer": id_} if id_ else {}))
        for name, id_ in ids.items()
    ]


def steps(customers: list, target: dict[int, str]) -> list[tuple[int, str]]:
    wanted = {one: {G: id_ or EMPTY} for one, id_ in target.items()}
    made = writes(customers, wanted, (G,))
    return [(one.customer_id, "" if one.after[G] is EMPTY else str(one.after[G])) for one in made]


@pytest.mark.parametrize(
    ("before", "target", "made"),
    [
        pytest.param({"c1": ""}, {1: "x"}, [(1, "x")], id="fill"),
        pytest.param({"c1": "x"}, {1: ""}, [(1, "")], id="release"),
        pytest.param({"c1": "x"}, {1: "x"}, [], id="it is so"),
        pytest.param({"c1": "x"}, {1: "y"}, [(1, "y")], id="take its place"),
        pytest.param({"c1": "x"}, {}, [], id="nothing is wanted"),
        pytest.param({"c1": ""}, {2: "x"}, [], id="a customer that is not there"),
        pytest.param(
            {"c1": "", "c2": "x"}, {1: "x", 2: ""}, [(2, ""), (1, "x")], id="move: first let go"
        ),
        pytest.param(
            {"c1": "x", "c2": "y"},
            {1: "y", 2: "x"},
            [(1, ""), (2, "x"), (1, "y")],
            id="exchange",
        ),
        pytest.param(
            {"c1": "x", "c2": "y", "c3": "z"},
            {1: "z", 2: "x", 3: "y"},
            [(1, ""), (2, "x"), (3, "y"), (1, "z")],
            id="ring of three",
        ),
        pytest.param(
            {"c1": "x", "c2": "y", "c3": ""},
            {1: "", 2: "x", 3: "y"},
            [(1, ""), (2, "x"), (3, "y")],
            id="chain that begins by a release",
        ),
        pytest.param(
            {"c1": "", "c2": "x", "c3": "y"},
            {1: "x", 2: "y", 3: ""},
            [(3, ""), (2, "y"), (1, "x")],
            id="chain the other way",
        ),
        pytest.param(
            {"c1": "x", "c2": "y", "c3": "p", "c4": "q"},
            {1: "y", 2: "x", 3: "q", 4: "p"},
            [(1, ""), (2, "x"), (1, "y"), (3, ""), (4, "p"), (3, "q")],
            id="two exchanges",
        ),
    ],
)
def test_b5_2_a_record_leaves_where_it_was_before_it_is_put_elsewhere(before, target, made):
    assert steps(holding(**before), target) == made


def test_b5_2_a_holder_that_the_plan_does_not_change_blocks_nothing():
    """Who stands in the way of a plan is its business, not that of the order."""
    assert steps(holding(c1="", c2="x"), {1: "x"}) == [(1, "x")]


def test_b5_4_a_write_says_what_both_slots_hold_before_and_after():
    known = [customer(1, hubspot_contact="a", hubspot_company="p", geotab_customer="7")]
    (write,) = writes(known, {1: {CONTACT: EMPTY}}, SET_TOGETHER[CONTACT])
    assert write == Write(1, {CONTACT: "a", COMPANY: "p"}, {CONTACT: EMPTY, COMPANY: "p"})


def test_b5_4_what_one_call_sets_is_set_by_one_write():
    known = [customer(1), customer(2, hubspot_contact="a", hubspot_company="p")]
    target = {1: {CONTACT: "a", COMPANY: "p"}, 2: {CONTACT: EMPTY, COMPANY: EMPTY}}
    assert [(one.customer_id, one.after) for one in writes(known, target, (CONTACT, COMPANY))] == [
        (2, {CONTACT: EMPTY, COMPANY: EMPTY}),
        (1, {CONTACT: "a", COMPANY: "p"}),
    ]


def test_b5_4_to_break_a_ring_only_what_changes_is_let_go_of():
    known = [
        customer(1, hubspot_contact="a", hubspot_company="p"),
        customer(2, hubspot_contact="b", hubspot_company="q"),
    ]
    target = {1: {CONTACT: "b"}, 2: {CONTACT: "a"}}
    made = writes(known, target, (CONTACT, COMPANY))
    assert [(one.customer_id, one.after) for one in made] == [
        (1, {CONTACT: EMPTY, COMPANY: "p"}),
        (2, {CONTACT: "a", COMPANY: "q"}),
        (1, {CONTACT: "b", COMPANY: "p"}),
    ]


def test_b5_2_an_id_in_another_slot_is_another_record():
    known = [customer(1, hubspot_company="p"), customer(2, hubspot_contact="x")]
    target = {1: {CONTACT: "p", COMPANY: "y"}, 2: {CONTACT: EMPTY, COMPANY: EMPTY}}
    made = writes(known, target, (CONTACT, COMPANY))
    assert [one.customer_id for one in made] == [1, 2]


@pytest.mark.parametrize(
    ("before", "after", "displaces"),
    [
        (EMPTY, "x", ()),
        ("x", EMPTY, ()),
        ("x", "x", ()),
        (SlotState.UNKNOWN, "x", ()),
        ("x", "y", (G,)),
    ],
)
def test_b5_5_a_write_displaces_where_one_record_takes_anothers_place(before, after, displaces):
    assert Write(1, {G: before}, {G: after}).displaces == displaces


def test_b5_4_both_hubspot_slots_are_set_together_and_no_others():
    assert {
        CONTACT: (CONTACT, COMPANY),
        COMPANY: (CONTACT, COMPANY),
    } == SET_TOGETHER


@st.composite
def rearrangements(draw: st.DrawFn) -> tuple[list, dict[int, str]]:
    """Customers with records in one slot, and where the records are to be instead."""
    size = draw(st.integers(1, 7))
    ids = [f"r{n}" for n in range(size + 2)]
    held = draw(st.permutations(ids + [""] * size))[:size]
    wanted = draw(st.permutations(ids + [""] * size))[:size]
    numbers = draw(st.permutations(range(1, size + 1)))
    customers = [
        customer(n, **({"geotab_customer": id_} if id_ else {}))
        for n, id_ in zip(numbers, held, strict=True)
    ]
    target = dict(zip(numbers, wanted, strict=True))
    return customers, target


@given(rearrangements())
def test_b5_2_whatever_is_rearranged_no_record_is_ever_on_two_customers(case):
    customers, target = case
    now = {one.id: one.slots[G] for one in customers}
    made = writes(customers, {one: {G: id_ or EMPTY} for one, id_ in target.items()}, (G,))
    changed = {one for one, id_ in target.items() if now[one] != (id_ or EMPTY)}
    for write in made:
        assert write.before == {G: now[write.customer_id]}
        assert write.after != write.before, "a needless write"
        now[write.customer_id] = write.after[G]
        held = [value for value in now.values() if isinstance(value, str)]
        assert len(held) == len(set(held))
    assert now == {one: id_ or EMPTY for one, id_ in target.items()}
    written = [write.customer_id for write in made]
    assert set(written) == changed
    assert all(written.count(one) <= 2 for one in changed)
    assert len(written) <= len(changed) + _rings(customers, target), "a needless write"


def _rings(customers: list, target: dict[int, str]) -> int:
    """How many rings there are: each needs one record to be let go of first."""
    holder = {one.slots[G]: one.id for one in customers}
    comes_from = {one: holder[id_] for one, id_ in target.items() if id_ and id_ in holder}
    rings, seen = 0, set()
    for start in comes_from:
        path, at = [], start
        while at in comes_from and at not in seen and at not in path:
            path.append(at)
            at = comes_from[at]
        if at in path and comes_from[at] != at:
            rings += 1
        seen |= set(path)
    return rings


@given(rearrangements(), st.randoms(use_true_random=False))
def test_b5_2_the_order_in_which_customers_are_named_says_nothing(case, random):
    customers, target = case
    wanted = {one: {G: id_ or EMPTY} for one, id_ in target.items()}
    mixed, mixed_target = list(customers), list(wanted.items())
    random.shuffle(mixed)
    random.shuffle(mixed_target)
    assert writes(mixed, dict(mixed_target), (G,)) == writes(customers, wanted, (G,))
