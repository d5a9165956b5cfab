"""What a record that was read says together with its changes (B3.5 to B3.7, B3.11, B3.12)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.fold import SAME_WRITE_MS, Fill, Find, Keep, Latch, Release
from sync_worker.decide.subject import Policy
from sync_worker.domain import Aspect, Marks, Outcome, Presence, Reason
from tests.changes import (
    ACCOUNT,
    CONTACT,
    GEOTAB,
    NOW,
    deleted,
    hinted,
    linked,
    merged,
    named,
    restored,
    touched,
    truth,
    unlinked,
)
from tests.unit.decide.folding import folded, seqs, told

LOSER = named(CONTACT, "7")
SUPERSEDED, UNCHANGED, IGNORED = Outcome.SUPERSEDED, Outcome.UNCHANGED, Outcome.IGNORED
ANY_HINT = Policy(match_by=frozenset({"id", "link", "reference", "email"}))
GONE = Presence.DELETED
EMPTY_FIELD = Keep(CONTACT, "its link field is empty")


# --- B3.5: truth beats events


@pytest.mark.parametrize(
    ("change", "read", "wish", "claim"),
    [
        pytest.param(
            linked(customer="9"), truth(link="5"), Latch(CONTACT, 5, True), "5", id="another value"
        ),
        pytest.param(
            unlinked(), truth(link="5"), Latch(CONTACT, 5, True), "5", id="filled again since"
        ),
        pytest.param(
            deleted(), truth(link="5"), Latch(CONTACT, 5, False), "5", id="it is there after all"
        ),
        pytest.param(
            deleted(), truth(), EMPTY_FIELD, None, id="it is there, and its field is empty"
        ),
        pytest.param(linked(customer="9"), truth(), EMPTY_FIELD, None, id="no unlink was told"),
        pytest.param(unlinked(), truth(), Release(CONTACT, None), "", id="it was emptied"),
        pytest.param(
            linked(customer="5"),
            truth(presence=GONE),
            Release(CONTACT, None, gone=True),
            None,
            id="it is gone",
        ),
        pytest.param(
            touched(),
            truth(presence=GONE, link="5"),
            Release(CONTACT, None, gone=True),
            None,
            id="touched and gone",
        ),
        pytest.param(
            deleted(),
            truth(presence=Presence.ABSENT),
            Release(CONTACT, None, gone=True),
            None,
            id="not found, and told to be deleted",
        ),
    ],
)
def test_b3_5_what_is_read_decides(change, read, wish, claim):
    result = folded(change, truth=read)
    assert result.wish == wish
    assert result.claim == claim
    assert seqs(result.by) == [1]
    assert not result.told
    assert not result.absent


@pytest.mark.parametrize("make", [linked, unlinked, touched, restored])
def test_b3_5_not_found_is_by_itself_no_reason_for_anything(make):
    result = folded(make(), truth=truth(presence=Presence.ABSENT))
    assert result.absent
    assert result.wish is None
    assert result.claim is None
    assert seqs(result.by) == [1]


def test_b3_5_what_is_not_found_is_told_with_every_change_that_asks_for_it():
    changes = [linked(customer="1"), linked(customer="2"), hinted(reference="C-1"), touched()]
    result = folded(*changes, truth=truth(presence=Presence.ABSENT))
    assert seqs(result.by) == [2, 3, 4]
    assert told(result) == {1: (SUPERSEDED, "by change 2")}


def test_b3_9_one_read_decides_the_newest_change_of_each_aspect():
    changes = [
        linked(customer="1"),
        linked(customer="2", occurred_at=NOW - 1),
        hinted(reference="C-1"),
        hinted(reference="C-2"),
        deleted(),
        touched(occurred_at=NOW - 1),
    ]
    result = folded(*changes, truth=truth(link="5"))
    assert seqs(result.by) == [1, 4, 5]
    assert told(result) == {
        2: (SUPERSEDED, "by change 1"),
        3: (SUPERSEDED, "by change 4"),
        6: (SUPERSEDED, "by change 5"),
    }


def test_b3_8_what_is_stale_is_told_and_nothing_else_if_nothing_is_fresh():
    marks = Marks(watermarks={Aspect.LINK: NOW})
    result = folded(linked(occurred_at=NOW - 1), truth=truth(link="5"), marks=marks)
    assert [outcome for outcome, _ in told(result).values()] == [Outcome.STALE]
    assert result.wish is None
    assert result.claim is None


def test_b5_2_a_record_in_anothers_way_is_judged_by_what_was_read_of_it():
    result = folded(record=CONTACT, truth=truth(link="5"), joined=True, marks=Marks(claim="6"))
    assert result.wish == Latch(CONTACT, 5, evidence=True)
    assert result.by == ()
    assert result.claim == "5"


def test_b5_2_a_record_in_anothers_way_that_was_not_read_wants_nothing():
    result = folded(record=CONTACT, joined=True)
    assert result.wish is None


def test_b5_2_a_record_that_is_not_in_the_way_wants_nothing_unless_it_changed():
    assert folded(record=CONTACT, truth=truth(link="5")).wish is None


def test_b3_12_a_read_release_waits_for_no_merge():
    result = folded(deleted(), truth=truth(presence=GONE), now=NOW)
    assert result.wish == Release(CONTACT, None, gone=True)
    assert result.waits == ()


# --- B3.6: silence


@pytest.mark.parametrize("make", [touched, linked, restored])
@pytest.mark.parametrize("claim", [None, "", "5"])
def test_b3_6_an_empty_field_that_is_read_keeps_the_latch(make, claim):
    result = folded(make(), truth=truth(), marks=Marks(claim=claim))
    assert result.wish == EMPTY_FIELD
    assert result.claim is None


def test_b3_6_a_crm_that_says_nothing_of_the_field_says_no_more_than_an_empty_one():
    assert folded(touched(), truth=truth(link=None)).wish == EMPTY_FIELD


@pytest.mark.parametrize(
    ("evidence", "claim", "releases"),
    [(True, None, True), (None, None, False), (None, "", False), (None, "5", True)],
)
def test_b3_6_only_a_field_that_was_emptied_releases(evidence, claim, releases):
    result = folded(
        unlinked(ACCOUNT, evidence=evidence), truth=truth(ACCOUNT), marks=Marks(claim=claim)
    )
    keeps = Keep(ACCOUNT, "its link field is empty")
    assert result.wish == (Release(ACCOUNT, None) if releases else keeps)
    assert result.claim == ("" if releases else None)


# --- B3.7: evidence


@pytest.mark.parametrize(
    ("change", "marks", "link", "evidence"),
    [
        pytest.param(touched(), Marks(), "5", False, id="nothing shows a change"),
        pytest.param(touched(), Marks(claim="5"), "5", False, id="the claim is the one stored"),
        pytest.param(touched(), Marks(claim="6"), "5", True, id="the claim stored differs"),
        pytest.param(touched(), Marks(claim=""), "5", True, id="the field was empty"),
        pytest.param(touched(), Marks(claim="5", shown=True), "5", True, id="shown before"),
        pytest.param(touched(), Marks(shown=True), "5", False, id="shown of no claim"),
        pytest.param(linked(customer="5"), Marks(), "5", True, id="the event"),
        pytest.param(linked(customer="5", evidence=False), Marks(), "5", False, id="its making"),
        pytest.param(linked(customer="5", evidence=None), Marks(), "5", False, id="SOAP"),
        pytest.param(
            linked(customer="6", evidence=False), Marks(), "5", True, id="the event's value differs"
        ),
        pytest.param(
            linked(customer="6", evidence=None),
            Marks(),
            "5",
            True,
            id="the message's value differs",
        ),
        pytest.param(unlinked(evidence=None), Marks(), "5", True, id="it was empty when told"),
        pytest.param(
            hinted(reference="C-1", evidence=True), Marks(), "5", False, id="a hint is no claim"
        ),
        pytest.param(deleted(evidence=True), Marks(), "5", False, id="nor is anything else"),
    ],
)
def test_b3_7_what_shows_that_the_field_read_has_changed(change, marks, link, evidence):
    result = folded(change, truth=truth(link=link), marks=marks)
    assert result.wish == Latch(CONTACT, int(link), evidence=evidence)


@pytest.mark.parametrize(
    ("mark", "set_at", "evidence"),
    [
        (NOW - 10, NOW - 9, True),
        (NOW - 10, NOW - 10, False),
        (NOW - 10, NOW - 11, False),
        (NOW - 10, None, False),
        (None, NOW - SAME_WRITE_MS + 1, True),
        (None, NOW - SAME_WRITE_MS, False),
        (None, NOW + 1, True),
        (None, None, False),
    ],
)
def test_b3_7_history_read_from_the_crm_shows_it(mark, set_at, evidence):
    """Since what was decided last, else since the first of what is pending."""
    marks = Marks(watermarks={} if mark is None else {Aspect.LINK: mark})
    read = truth(link="5", link_set_at=set_at)
    changes = [touched(occurred_at=NOW + 5), hinted(reference="C-1")]
    assert folded(*changes, truth=read, marks=marks).wish == Latch(CONTACT, 5, evidence=evidence)


def test_b3_7_history_of_before_anything_was_told_shows_nothing():
    read = truth(link="5", link_set_at=NOW + 1)
    result = folded(record=CONTACT, truth=read, joined=True)
    assert result.wish == Latch(CONTACT, 5, evidence=False)


@given(st.permutations([("5", None), ("6", None), ("5", False), ("", None)]))
def test_b3_7_no_order_of_changes_hides_that_the_field_changed(values):
    changes = [
        linked(customer=value, evidence=shown, occurred_at=NOW + at)
        if value
        else unlinked(evidence=shown, occurred_at=NOW + at)
        for at, (value, shown) in enumerate(values)
    ]
    assert folded(*changes, truth=truth(link="5")).wish == Latch(CONTACT, 5, evidence=True)


# --- B4.1, B4.4: what the field names


@pytest.mark.parametrize("value", ["abc", "0", "-5", "1" * 19])
def test_b4_4_a_field_that_holds_no_customers_id_needs_a_person(value):
    result = folded(touched(), truth=truth(link=value))
    (refused,) = result.refused
    assert (refused.aspect, refused.reason) == (Aspect.LINK, Reason.CUSTOMER_NOT_FOUND)
    assert repr(value) in refused.message
    assert seqs(refused.pending) == [1]
    assert result.wish is None
    assert result.claim == value


def test_b4_1_the_field_is_of_no_use_where_matching_by_id_is_off():
    policy = Policy(match_by=frozenset({"reference"}))
    result = folded(touched(), truth=truth(link="5", reference="C-1"), policy=policy)
    assert result.wish is None
    assert result.by == ()
    assert told(result) == {1: (IGNORED, "matching by id is off")}
    assert result.claim == "5"


@pytest.mark.parametrize(
    ("names", "read", "wish"),
    [
        (
            {"reference", "email"},
            {"reference": "C-1", "email": "a@example.org"},
            Find(CONTACT, "C-1", "a@example.org"),
        ),
        ({"reference"}, {"reference": "C-1", "email": "a@example.org"}, Find(CONTACT, "C-1")),
        (
            {"email"},
            {"reference": "C-1", "email": "a@example.org"},
            Find(CONTACT, None, "a@example.org"),
        ),
        ({"reference", "email"}, {"email": "a@example.org"}, Find(CONTACT, None, "a@example.org")),
        ({"reference", "email"}, {"reference": ""}, EMPTY_FIELD),
        ({"id", "link"}, {"reference": "C-1", "email": "a@example.org"}, EMPTY_FIELD),
    ],
)
@pytest.mark.parametrize("claim", [None, "5"])
def test_b4_1_where_the_field_is_empty_the_hints_are_looked_for(names, read, wish, claim):
    policy = Policy(match_by=frozenset(names))
    result = folded(touched(), truth=truth(**read), policy=policy, marks=Marks(claim=claim))
    assert result.wish == wish
    assert result.claim is None


def test_b3_8_after_an_unlink_no_hint_latches_until_an_explicit_link():
    read = truth(reference="C-1", email="a@example.org")
    result = folded(hinted(reference="C-1"), truth=read, policy=ANY_HINT, marks=Marks(claim=""))
    assert result.wish == EMPTY_FIELD


def test_b3_8_nor_does_one_that_comes_with_the_unlink():
    read = truth(reference="C-1")
    result = folded(unlinked(), hinted(reference="C-1"), truth=read)
    assert result.wish == Release(CONTACT, None)
    assert seqs(result.by) == [1, 2]


# --- B3.11


@pytest.mark.parametrize(
    ("read", "wish"),
    [
        (truth(), Fill(CONTACT, 5)),
        (truth(link="6"), Latch(CONTACT, 6, evidence=False)),
        (truth(reference="C-1"), Find(CONTACT, "C-1")),
        (truth(presence=GONE), Release(CONTACT, None, gone=True)),
    ],
)
def test_b3_11_a_restored_record_goes_back_unless_it_says_where_to(read, wish):
    assert folded(restored(), truth=read, marks=Marks(ended_on=5)).wish == wish


def test_b3_11_only_what_was_restored_goes_back():
    assert folded(touched(), truth=truth(), marks=Marks(ended_on=5)).wish == EMPTY_FIELD


# --- B3.12: merges


@pytest.mark.parametrize(
    ("changes", "merged_now"), [([touched()], False), ([merged(CONTACT, "7")], True)]
)
def test_b3_12_a_merge_that_is_told_now_needs_to_know_every_holder(changes, merged_now):
    result = folded(*changes, truth=truth(), former=[LOSER])
    assert result.wish == Keep(CONTACT, "its link field is empty", merged=merged_now)


@pytest.mark.parametrize("make", [deleted, touched])
@pytest.mark.parametrize("link", ["", "5"])
def test_b3_12_a_read_that_finds_a_record_merged_is_a_merge_told_now(make, link):
    """The mailbox of a merged record may be the only one that ever tells of the merge."""
    result = folded(
        make(LOSER), record=CONTACT, former=[LOSER], truth=truth(LOSER, link, survivor=CONTACT)
    )
    assert result.wish == Keep(CONTACT, "it was merged before", merged=True)
    assert told(result) == {1: (SUPERSEDED, f"merged into {CONTACT.id}")}


def test_b3_12_a_claim_of_what_is_left_decides_for_all():
    result = folded(merged(CONTACT, "7"), deleted(LOSER), former=[LOSER], truth=truth(link="5"))
    assert result.wish == Latch(CONTACT, 5, evidence=False)
    assert seqs(result.by) == [1]


@pytest.mark.parametrize("presence", [Presence.PRESENT, Presence.ABSENT])
def test_b3_12_a_late_deletion_of_a_merged_record_never_unlatches(presence):
    """Not even where what is left of it cannot be found at the moment."""
    result = folded(
        deleted(LOSER), touched(), former=[LOSER], record=CONTACT, truth=truth(presence=presence)
    )
    assert not isinstance(result.wish, Release)
    assert result.absent is (presence is Presence.ABSENT)


def test_b3_12_what_is_left_of_a_merge_may_be_gone_itself():
    read = truth(LOSER, presence=GONE, survivor=CONTACT)
    result = folded(deleted(LOSER), record=CONTACT, former=[LOSER], truth=read)
    assert result.wish == Release(CONTACT, None, gone=True)


# --- Geotab: MyAdmin tells presence only


@pytest.mark.parametrize(
    ("change", "presence", "wish"),
    [
        (linked(GEOTAB, "5"), Presence.PRESENT, Latch(GEOTAB, 5, evidence=True)),
        (hinted(GEOTAB, reference="C-1"), Presence.PRESENT, Find(GEOTAB, "C-1")),
        (unlinked(GEOTAB), GONE, Release(GEOTAB, None)),
        (unlinked(GEOTAB, customer_id="5"), GONE, Release(GEOTAB, only=5)),
    ],
)
def test_b3_5_the_events_decide_where_myadmin_agrees(change, presence, wish):
    result = folded(change, truth=truth(GEOTAB, None, presence))
    assert result.wish == wish
    assert seqs(result.by) == [1]
    assert not result.absent


def test_b3_5_a_geotab_release_needs_that_no_active_contact_carries_the_id():
    changes = [
        unlinked(GEOTAB),
        unlinked(GEOTAB, occurred_at=NOW - 1),
        hinted(GEOTAB, reference="C"),
    ]
    result = folded(*changes, truth=truth(GEOTAB, None))
    assert result.wish is None
    assert told(result) == {
        1: (IGNORED, "an active contact still carries the id"),
        2: (SUPERSEDED, "by change 1"),
        3: (IGNORED, "an active contact still carries the id"),
    }


@pytest.mark.parametrize("first", [0, 1])
def test_b3_5_an_unlink_that_myadmin_contradicts_outdoes_no_claim(first):
    """Told apart it would not either."""
    changes = [linked(GEOTAB, "5"), unlinked(GEOTAB, occurred_at=NOW + 1)]
    result = folded(changes[first], changes[1 - first], truth=truth(GEOTAB, None))
    assert result.wish == Latch(GEOTAB, 5, evidence=True)
    assert seqs(result.by) == [1 + first]
    assert told(result) == {2 - first: (IGNORED, "an active contact still carries the id")}


def test_b3_5_an_older_unlink_is_folded_into_a_claim_that_myadmin_agrees_with():
    changes = [unlinked(GEOTAB, occurred_at=NOW - 1), linked(GEOTAB, "5")]
    result = folded(*changes, truth=truth(GEOTAB, None))
    assert result.wish == Latch(GEOTAB, 5, evidence=True)


@pytest.mark.parametrize("presence", [GONE, Presence.ABSENT])
@pytest.mark.parametrize("change", [linked(GEOTAB, "5"), hinted(GEOTAB, reference="C-1")])
def test_b3_5_a_customer_that_myadmin_does_not_know_is_not_latched(change, presence):
    result = folded(change, truth=truth(GEOTAB, None, presence))
    assert result.absent
    assert result.wish is None
    assert seqs(result.by) == [1]


def test_b3_5_touched_names_no_customer_to_latch():
    result = folded(touched(GEOTAB), truth=truth(GEOTAB, None))
    assert result.wish is None
    assert told(result) == {1: (IGNORED, "it names no customer")}


# --- any order


READ = st.builds(
    truth,
    link=st.sampled_from(["", "1", "nobody"]),
    presence=st.sampled_from(Presence),
    reference=st.sampled_from([None, "C-1"]),
    link_set_at=st.sampled_from([None, NOW + 3]),
)
MAKERS = [
    lambda at: linked(customer="1", occurred_at=at),
    lambda at: linked(customer="2", occurred_at=at, evidence=None),
    lambda at: unlinked(occurred_at=at),
    lambda at: unlinked(occurred_at=at, evidence=None),
    lambda at: deleted(occurred_at=at),
    lambda at: restored(occurred_at=at),
    lambda at: touched(occurred_at=at),
    lambda at: merged(CONTACT, "7", occurred_at=at),
    lambda at: hinted(reference="C-1", occurred_at=at),
    lambda at: deleted(LOSER, occurred_at=at),
]


@given(
    st.lists(st.tuples(st.sampled_from(MAKERS), st.integers(0, 9)), min_size=1, max_size=6),
    READ,
    st.randoms(use_true_random=False),
)
def test_b3_8_the_order_of_arrival_says_nothing(made, read, random):
    changes = [make(NOW + 10 * n + at) for n, (make, at) in enumerate(made)]
    mixed = list(changes)
    random.shuffle(mixed)
    one, other = (
        folded(*each, record=CONTACT, former=[LOSER], truth=read) for each in (changes, mixed)
    )
    assert (one.wish, one.claim, one.absent) == (other.wish, other.claim, other.absent)
    for each in (one, other):
        ended = [*told(each), *seqs(each.by), *(n for r in each.refused for n in seqs(r.pending))]
        assert sorted(ended) == list(range(1, len(changes) + 1))
    times = [{p.occurred_at for p in each.by} for each in (one, other)]
    assert times[0] == times[1]


# --- B3.12: what was claimed before a merge


@pytest.mark.parametrize(
    ("claims", "marks", "evidence"),
    [
        pytest.param([("5", True)], Marks(), True, id="the event shows it"),
        pytest.param([("5", False)], Marks(), False, id="it shows nothing"),
        pytest.param([("5", None)], Marks(), False, id="a first message is no evidence"),
        pytest.param([("5", None)], Marks(claim="6"), True, id="it differs from the last stored"),
        pytest.param([("5", None)], Marks(claim="5", shown=True), True, id="shown before"),
        pytest.param([("6", None), ("5", None)], Marks(), True, id="the field changed since"),
    ],
)
def test_b3_12_a_claim_from_before_a_merge_brings_its_customer_along(claims, marks, evidence):
    changes = [
        linked(LOSER, value, evidence=shown, occurred_at=NOW + at)
        for at, (value, shown) in enumerate(claims)
    ]
    result = folded(
        *changes, record=CONTACT, former={LOSER: marks}, truth=truth(LOSER, survivor=CONTACT)
    )
    assert result.wish == Latch(CONTACT, 5, evidence=evidence)
    assert result.undecided == {5}
    assert result.claim is None
    assert seqs(result.by) == [len(changes)]


def test_b3_12_the_newest_claim_of_several_merged_records_counts():
    other = named(CONTACT, "8")
    changes = [
        linked(LOSER, "5"),
        linked(other, "6", occurred_at=NOW + 1),
        linked(other, "7", occurred_at=NOW - 1),
        linked(customer="9", occurred_at=NOW + 9),
    ]
    result = folded(*changes, record=CONTACT, former=[LOSER, other], truth=truth())
    assert result.wish == Latch(CONTACT, 6, evidence=True)
    assert result.undecided == {5, 6}


def test_b3_12_what_is_left_of_a_merge_says_so_itself():
    """What the field of a merged record showed is about this one only if it holds the same."""
    read = truth(LOSER, "6", survivor=CONTACT)
    result = folded(linked(LOSER, "5"), record=CONTACT, former=[LOSER], truth=read)
    assert result.wish == Latch(CONTACT, 6, evidence=False)
    result = folded(linked(LOSER, "6"), record=CONTACT, former=[LOSER], truth=read)
    assert result.wish == Latch(CONTACT, 6, evidence=True)


@pytest.mark.parametrize("value", ["abc", ""])
def test_b3_12_a_claim_that_names_no_customer_brings_none_along(value):
    result = folded(linked(LOSER, value), record=CONTACT, former=[LOSER], truth=truth())
    assert result.wish == EMPTY_FIELD
    assert result.undecided == set()


def test_b3_12_an_unlink_of_what_is_left_outweighs_them():
    result = folded(linked(LOSER, "5"), unlinked(), record=CONTACT, former=[LOSER], truth=truth())
    assert result.wish == Release(CONTACT, None)


def test_b3_5_a_record_that_came_back_is_not_released_for_an_older_deletion():
    """The CRM may be slow to show it again: that it is not found says nothing then."""
    read = truth(presence=Presence.ABSENT, link=None)
    result = folded(deleted(), restored(occurred_at=NOW + 1), truth=read)
    assert result.absent
    assert not isinstance(result.wish, Release)


def test_b3_4_an_unlink_from_another_customer_says_nothing_of_its_own():
    marks = Marks(claim="8", home="8", watermarks={Aspect.LINK: NOW - 9})
    result = folded(unlinked(GEOTAB, customer_id="5"), marks=marks)
    assert result.wish == Release(GEOTAB, 5)
    assert result.claim is None
