"""What stays remembered of a record (B3.8, B3.11, B5.7, B6.10)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.fold import Fill, Find, Folded, Keep, Latch, Release
from sync_worker.decide.plan import Bury, Done, Leave
from sync_worker.decide.remember import (
    MOST_IDENTITIES,
    Settled,
    brought,
    decided,
    is_met,
    satisfied,
    settled,
)
from sync_worker.decide.sift import Told
from sync_worker.domain import DECIDED, Aspect, Change, Marks, Outcome, Reason
from tests.changes import (
    CONTACT,
    NOW,
    associated,
    deleted,
    hinted,
    linked,
    pending,
    restored,
    unlinked,
)

LATCHED = Done(Outcome.LATCHED, "customer 5", (5,))
MOVED = Done(Outcome.MOVED, "from customer 6 to 5", (5, 6))
UNLATCHED = Done(Outcome.UNLATCHED, "customer 6", (6, 7))
THERE = Leave("already latched", (5,), at=5)
UNMET = Leave("claim is not newer than the latch", (5,), unmet=True)
DISCARDED = Leave("release discarded", outcome=Outcome.IGNORED)
BURIED = Bury(Reason.CONFLICT, "both", "decide", (5,))
WISH = Latch(CONTACT, 5, evidence=True)


def after(outcome: Outcome, *changes: Change, marks: Marks | None = None, unmet=False) -> Marks:
    return settled(marks or Marks(), [Settled(one, outcome, unmet) for one in pending(*changes)])


# --- watermarks


@pytest.mark.parametrize("outcome", Outcome)
def test_b3_8_the_watermark_is_the_newest_that_was_decided_dead_letters_included(outcome):
    many = [linked(occurred_at=NOW), linked(occurred_at=NOW + 2), linked(occurred_at=NOW + 1)]
    marks = after(outcome, *many)
    decides = {
        Outcome.LATCHED,
        Outcome.UNLATCHED,
        Outcome.MOVED,
        Outcome.UNCHANGED,
        Outcome.DEAD_LETTER,
    }
    assert decides == DECIDED
    assert marks.watermarks == ({Aspect.LINK: NOW + 2} if outcome in decides else {})


@pytest.mark.parametrize(("before", "now"), [(NOW - 1, NOW), (NOW, NOW), (NOW + 1, NOW + 1)])
def test_b3_8_a_watermark_never_falls(before, now):
    marks = Marks(watermarks={Aspect.LINK: before})
    assert after(Outcome.LATCHED, linked(), marks=marks).watermarks == {Aspect.LINK: now}


def test_b3_8_each_aspect_has_its_own_watermark():
    marks = Marks(watermarks={Aspect.COMPANY: NOW - 5})
    many = [linked(), deleted(occurred_at=NOW + 3), hinted(email="a@example.org", occurred_at=None)]
    assert after(Outcome.UNCHANGED, *many, marks=marks).watermarks == {
        Aspect.LINK: NOW,
        Aspect.EXISTENCE: NOW + 3,
        Aspect.HINT: NOW,
        Aspect.COMPANY: NOW - 5,
    }


def test_nothing_settled_leaves_everything_as_it_is():
    marks = Marks(watermarks={Aspect.LINK: NOW}, claim="5", home="5", ended_at=3, brought=("1", 2))
    assert settled(marks, []) == marks


@pytest.mark.parametrize("decided_one", Aspect)
def test_b3_8_what_was_only_ignored_of_one_aspect_holds_no_other_back(decided_one):
    many = [
        Settled(
            pending(msgspec.structs.replace(linked(), aspect=aspect))[0],
            Outcome.LATCHED if aspect is decided_one else Outcome.IGNORED,
        )
        for aspect in Aspect
    ]
    assert settled(Marks(), many).watermarks == {decided_one: NOW}


def test_b3_8_what_was_only_ignored_moves_no_watermark_beside_what_was_decided():
    one, two = pending(linked(occurred_at=NOW + 9), linked())
    many = [Settled(one, Outcome.IGNORED), Settled(two, Outcome.LATCHED)]
    assert settled(Marks(), iter(many)).watermarks == {Aspect.LINK: NOW}


# --- identities


@pytest.mark.parametrize(
    ("outcome", "unmet", "done"),
    [
        (Outcome.LATCHED, False, {"a"}),
        (Outcome.UNCHANGED, False, {"a"}),
        (Outcome.UNCHANGED, True, set()),
        (Outcome.DEAD_LETTER, False, set()),
    ],
)
def test_b3_6_what_was_settled_for_good_is_known_again(outcome, unmet, done):
    marks = after(outcome, linked(identity="a"), linked(), unmet=unmet)
    assert marks.done == {Aspect.LINK: done}


def test_b3_6_only_identities_at_the_watermark_are_kept():
    marks = Marks(watermarks={Aspect.LINK: NOW}, done={Aspect.LINK: frozenset({"a"})})
    same = after(Outcome.LATCHED, linked(identity="b"), marks=marks)
    assert same.done == {Aspect.LINK: {"a", "b"}}
    newer = after(
        Outcome.LATCHED,
        linked(identity="c", occurred_at=NOW + 1),
        linked(identity="d"),
        marks=marks,
    )
    assert newer.done == {Aspect.LINK: {"c"}}
    older = after(Outcome.LATCHED, linked(identity="e", occurred_at=NOW - 1), marks=marks)
    assert older == marks
    assert after(Outcome.IGNORED, linked(identity="f"), marks=marks) == marks


def test_b3_6_superseded_at_the_watermark_is_known_too():
    one, two = pending(linked(identity="a"), linked(identity="b"))
    many = [Settled(one, Outcome.SUPERSEDED), Settled(two, Outcome.LATCHED)]
    assert settled(Marks(), many).done == {Aspect.LINK: {"a", "b"}}


def test_b3_6_a_bound_number_of_identities_is_kept():
    assert MOST_IDENTITIES == 64
    many = [linked(identity=f"{n:03}") for n in range(100)]
    kept = after(Outcome.LATCHED, *many).done[Aspect.LINK]
    assert kept == {f"{n:03}" for n in range(64)}


# --- the end of a record


@pytest.mark.parametrize(
    ("outcome", "before", "ended_at"),
    [
        (Outcome.UNLATCHED, None, NOW),
        (Outcome.UNCHANGED, NOW - 1, NOW),
        (Outcome.UNLATCHED, NOW + 1, NOW + 1),
        (Outcome.DEAD_LETTER, None, NOW),
        (Outcome.SUPERSEDED, None, None),
        (Outcome.IGNORED, NOW - 1, NOW - 1),
    ],
)
def test_b3_8_when_a_record_ended_is_remembered(outcome, before, ended_at):
    many = [deleted(), restored(occurred_at=NOW + 5), linked(occurred_at=NOW + 6)]
    assert after(outcome, *many, marks=Marks(ended_at=before)).ended_at == ended_at


# --- what it claims


@pytest.mark.parametrize("result", [LATCHED, MOVED, THERE])
def test_b5_5_a_claim_that_is_true_is_where_the_record_is_at_home(result):
    marks = Marks(claim="6", shown=True, home="6", ended_on=7, company="9")
    folded = Folded(wish=WISH, claim="5")
    assert decided(marks, folded, result) == Marks(claim="5", home="5", company="9")


@pytest.mark.parametrize("result", [UNMET, DISCARDED, BURIED, None])
@pytest.mark.parametrize("evidence", [True, False])
def test_b3_7_evidence_of_a_claim_that_is_not_true_yet_is_remembered(result, evidence):
    marks = Marks(claim="6", home="6", ended_on=7, shown=not evidence)
    folded = Folded(wish=Latch(CONTACT, 5, evidence), claim="5")
    assert decided(marks, folded, result) == Marks(claim="5", home="6", ended_on=7, shown=evidence)


@pytest.mark.parametrize("result", [UNLATCHED, Leave("no customer holds it")])
def test_b5_5_after_an_unlink_the_record_is_at_home_nowhere(result):
    folded = Folded(wish=Release(CONTACT, None), claim="")
    marks = Marks(claim="5", shown=True, home="5", ended_on=7)
    assert decided(marks, folded, result) == Marks(claim="", home="", ended_on=7)


@pytest.mark.parametrize("result", [BURIED, DISCARDED, UNMET, None])
@pytest.mark.parametrize("gone", [True, False])
def test_b5_5_a_release_that_was_not_made_changes_nothing_but_the_claim(result, gone):
    folded = Folded(wish=Release(CONTACT, None, gone), claim="")
    marks = Marks(claim="5", home="5", shown=True)
    assert decided(marks, folded, result) == msgspec.structs.replace(marks, claim="")


def test_b3_11_who_held_a_record_when_it_was_deleted_is_remembered():
    folded = Folded(wish=Release(CONTACT, None, gone=True))
    marks = Marks(claim="5", home="5")
    assert decided(marks, folded, UNLATCHED) == Marks(claim="5", home="5", ended_on=6)
    held_by_nobody = Leave("no customer holds it")
    assert decided(marks, folded, held_by_nobody) == marks


@pytest.mark.parametrize("wish", [Fill(CONTACT, 5), Find(CONTACT, "C-1"), Keep(CONTACT, "")])
@pytest.mark.parametrize(
    ("result", "ended_on"),
    [(LATCHED, None), (MOVED, None), (UNLATCHED, 6), (THERE, 6), (BURIED, 6), (None, 6)],
)
def test_b3_11_it_is_forgotten_when_the_record_is_latched_again(wish, result, ended_on):
    marks = Marks(ended_on=6, home="6", claim="6", shown=True)
    expected = Marks(ended_on=ended_on, home="6", claim="6", shown=True)
    assert decided(marks, Folded(wish=wish), result) == expected


@pytest.mark.parametrize(("told", "company"), [(None, "9"), ("", ""), ("8", "8")])
def test_b5_7_the_primary_company_is_remembered(told, company):
    assert decided(Marks(company="9"), Folded(primary=told), None) == Marks(company=company)


@pytest.mark.parametrize(("told", "claim"), [(None, "5"), ("", ""), ("abc", "abc")])
def test_b3_7_the_last_value_of_the_link_field_is_remembered_whatever_became_of_it(told, claim):
    assert decided(Marks(claim="5"), Folded(claim=told), None).claim == claim


# --- B5.7: what was brought


@pytest.mark.parametrize(
    ("company", "brings", "remembered"),
    [
        (LATCHED, ("31", 5), ("31", 5)),
        (THERE, ("31", 5), ("31", 5)),
        (UNLATCHED, None, None),
        (UNLATCHED, ("31", 5), ("31", 5)),
        (LATCHED, None, ("30", 6)),
        (THERE, None, ("30", 6)),
        (None, None, ("30", 6)),
    ],
)
def test_b5_7_what_is_latched_through_a_contact_is_remembered(company, brings, remembered):
    assert brought(Marks(brought=("30", 6)), company, brings) == Marks(brought=remembered)


# --- B6.10: what is true now


@pytest.mark.parametrize(
    ("result", "met"),
    [
        (LATCHED, True),
        (MOVED, True),
        (UNLATCHED, True),
        (THERE, True),
        (UNMET, False),
        (DISCARDED, False),
        (Leave("", outcome=Outcome.IGNORED, unmet=True), False),
        (BURIED, False),
        (None, False),
    ],
)
def test_b6_10_what_is_true_now(result, met):
    assert is_met(result) is met


LINK, HINT, EXISTENCE, COMPANY = Aspect.LINK, Aspect.HINT, Aspect.EXISTENCE, Aspect.COMPANY
GONE = Release(CONTACT, None, gone=True)


@pytest.mark.parametrize(
    ("folded", "result", "company", "aspects"),
    [
        pytest.param(
            Folded(wish=WISH, by=tuple(pending(linked()))), LATCHED, None, {LINK, HINT}, id="latch"
        ),
        pytest.param(Folded(wish=WISH), LATCHED, None, {LINK, HINT}, id="by what was read"),
        pytest.param(
            Folded(wish=GONE, by=tuple(pending(deleted()))),
            UNLATCHED,
            None,
            {EXISTENCE, LINK, HINT},
            id="deletion",
        ),
        pytest.param(
            Folded(wish=Find(CONTACT, "C-1"), by=tuple(pending(hinted(reference="C-1")))),
            LATCHED,
            None,
            {HINT},
            id="a hint says nothing of the link field",
        ),
        pytest.param(
            Folded(wish=Keep(CONTACT, ""), by=tuple(pending(restored()))),
            THERE,
            None,
            {EXISTENCE},
            id="nor does its existence",
        ),
        pytest.param(
            Folded(wish=Keep(CONTACT, ""), claim="", by=tuple(pending(restored()))),
            THERE,
            None,
            {EXISTENCE, LINK, HINT},
            id="an empty link field does",
        ),
        pytest.param(
            Folded(wish=WISH, by=tuple(pending(linked()))), UNMET, None, set(), id="not true yet"
        ),
        pytest.param(
            Folded(wish=Release(CONTACT, None), claim="", by=tuple(pending(unlinked()))),
            BURIED,
            None,
            set(),
            id="a dead letter",
        ),
        pytest.param(
            Folded(wish=Keep(CONTACT, ""), company_by=tuple(pending(associated()))),
            THERE,
            LATCHED,
            {COMPANY},
            id="company",
        ),
        pytest.param(
            Folded(
                wish=Keep(CONTACT, ""),
                by=tuple(pending(restored())),
                company_by=tuple(pending(associated())),
            ),
            THERE,
            LATCHED,
            {EXISTENCE, COMPANY},
            id="both",
        ),
        pytest.param(
            Folded(wish=WISH, company_by=tuple(pending(associated()))),
            UNMET,
            THERE,
            {COMPANY},
            id="a company beside a claim that is not true yet",
        ),
        pytest.param(
            Folded(wish=WISH, company_by=tuple(pending(associated()))),
            BURIED,
            LATCHED,
            set(),
            id="a company whose contact needs a person",
        ),
        pytest.param(
            Folded(wish=WISH, company_by=tuple(pending(associated()))),
            None,
            None,
            set(),
            id="no company",
        ),
    ],
)
def test_b6_10_the_aspects_that_are_true_close_older_dead_letters(folded, result, company, aspects):
    assert satisfied(folded, result, company) == aspects


def test_b6_10_what_was_only_told_closes_none():
    one, two = pending(linked(), deleted())
    told = [Told(one, Outcome.UNCHANGED, ""), Told(two, Outcome.STALE, "")]
    assert satisfied(Folded(told=told), None, None) == set()


# --- any order

SETTLED = st.builds(
    lambda make, at, outcome, identity: (make(occurred_at=NOW + at, identity=identity), outcome),
    st.sampled_from([linked, unlinked, deleted, restored]),
    st.integers(0, 3),
    st.sampled_from(Outcome),
    st.sampled_from([None, "a", "b"]),
)


@given(st.lists(SETTLED, max_size=6), st.randoms(use_true_random=False))
def test_b3_8_the_order_in_which_changes_are_settled_says_nothing(made, random):
    marks = Marks(watermarks={Aspect.LINK: NOW + 1}, done={Aspect.LINK: frozenset({"a"})})
    many = [
        Settled(one, outcome)
        for one, (_, outcome) in zip(pending(*(c for c, _ in made)), made, strict=True)
    ]
    mixed = list(many)
    random.shuffle(mixed)
    assert settled(marks, many) == settled(marks, mixed)


# --- B3.12: whose place it took

TOOK = Done(Outcome.MOVED, "in the place of 7 at customer 5", (5,), took=("7", 5))


@pytest.mark.parametrize(
    ("wish", "result", "took"),
    [
        (Keep(CONTACT, ""), TOOK, ("7", 5)),
        (WISH, TOOK, ("7", 5)),
        (Keep(CONTACT, ""), THERE, ("8", 6)),
        (WISH, THERE, None),
        (WISH, LATCHED, None),
        (Release(CONTACT, None), UNLATCHED, None),
        (WISH, UNMET, ("8", 6)),
        (WISH, BURIED, ("8", 6)),
        (WISH, None, ("8", 6)),
    ],
)
def test_b3_12_whose_place_it_took_is_remembered_while_it_stays(wish, result, took):
    assert decided(Marks(took=("8", 6)), Folded(wish=wish), result).took == took


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (Done(Outcome.UNLATCHED, "customer 5", (5,)), False),
        (Leave("no customer holds it"), False),
        (Bury(Reason.UNLATCH_UNSUPPORTED, "why", "do this", (5,)), True),
    ],
)
def test_b6_10_a_record_that_is_gone_claims_nothing_any_more(result, shown):
    """Else a claim that nobody is asked about any more would count as evidence later (B3.7)."""
    folded = Folded(wish=Release(CONTACT, None, gone=True))
    assert decided(Marks(claim="1", shown=True), folded, result).shown is shown


@pytest.mark.parametrize(("claim", "closes"), [(None, set()), ("", {Aspect.LINK, Aspect.HINT})])
def test_b3_4_an_unlink_from_another_customer_closes_nothing(claim, closes):
    """The claim that waits for a person is of the customer that the record names."""
    by = tuple(pending(unlinked(customer_id="5")))
    folded = Folded(wish=Release(CONTACT, 5), by=by, claim=claim)
    assert satisfied(folded, Done(Outcome.UNLATCHED, "customer 5", (5,)), None) == closes
