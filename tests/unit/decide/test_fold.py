"""What the changes of a record say together without read access (B3.5, B3.7 to B3.12)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.fold import (
    Fill,
    Find,
    Folded,
    Keep,
    Latch,
    Refused,
    Release,
    positive_integer,
)
from sync_worker.decide.subject import Policy
from sync_worker.domain import (
    FIVE_MINUTES_MS,
    Aspect,
    Change,
    Marks,
    Outcome,
    Pending,
    Presence,
    Reason,
)
from tests.changes import (
    ACCOUNT,
    CONTACT,
    GEOTAB,
    NOW,
    RECORDS,
    associated,
    deleted,
    dissociated,
    hinted,
    linked,
    merged,
    named,
    pending,
    restored,
    touched,
    truth,
    unlinked,
)
from tests.unit.decide.folding import folded, seqs, told

LOSER = named(CONTACT, "7")
SUPERSEDED, UNCHANGED, IGNORED = Outcome.SUPERSEDED, Outcome.UNCHANGED, Outcome.IGNORED
PROPERTY = Policy(company="property")


# --- one change


@pytest.mark.parametrize("record", RECORDS)
def test_b3_an_explicit_id_is_wanted(record):
    result = folded(linked(record, "5"), policy=PROPERTY)
    assert result.wish == Latch(record, 5, evidence=True)
    assert seqs(result.by) == [1]
    assert result.claim == "5"
    assert not result.told
    assert not result.refused
    assert not result.absent


def test_b3_4_a_claim_takes_along_the_id_that_its_customer_had_before():
    result = folded(linked(GEOTAB, "5", previous_id="0070440"))
    assert result.wish == Latch(GEOTAB, 5, evidence=True, succeeds="0070440")


def test_b3_an_unlink_is_a_release_wherever_the_record_is():
    result = folded(unlinked())
    assert result.wish == Release(CONTACT, None)
    assert result.claim == ""
    assert seqs(result.by) == [1]


def test_b3_4_an_unlink_that_names_a_customer_means_that_one_only():
    result = folded(unlinked(GEOTAB, customer_id="8714403"))
    assert result.wish == Release(GEOTAB, only=8714403)
    assert result.claim == ""


def test_b3_9_nothing_fresh_asks_for_nothing():
    result = folded(touched())
    assert result.wish is None
    assert told(result) == {1: (IGNORED, "needs read access")}
    assert (result.by, result.claim, result.company) == ((), None, None)


# --- B3.8, B3.9: a burst is one decision


def test_b3_9_a_burst_is_one_decision():
    result = folded(*(linked(customer=str(n), occurred_at=NOW + n) for n in range(1, 501)))
    assert result.wish == Latch(CONTACT, 500, evidence=True)
    assert seqs(result.by) == [500]
    assert told(result) == dict.fromkeys(range(1, 500), (SUPERSEDED, "by change 500"))


def test_b3_8_equal_times_the_later_arrival_wins():
    result = folded(linked(customer="1"), linked(customer="2"))
    assert result.wish == Latch(CONTACT, 2, evidence=True)
    assert told(result) == {1: (SUPERSEDED, "by change 2")}


def test_b3_8_a_newer_time_wins_whatever_the_order_of_arrival():
    result = folded(linked(customer="2"), unlinked(occurred_at=NOW - 1))
    assert result.wish == Latch(CONTACT, 2, evidence=True)


@pytest.mark.parametrize(
    "stated", [None, NOW + FIVE_MINUTES_MS + 1], ids=["missing", "too far ahead"]
)
def test_b3_8_a_time_that_is_not_believed_is_the_time_of_receipt(stated):
    result = folded(linked(customer="1", occurred_at=stated), linked(customer="2"))
    assert result.wish == Latch(CONTACT, 2, evidence=True)
    result = folded(
        linked(customer="1", occurred_at=stated), linked(customer="2", occurred_at=NOW - 1)
    )
    assert result.wish == Latch(CONTACT, 1, evidence=True)


# --- B3.7: evidence


@pytest.mark.parametrize(
    ("changes", "marks", "evidence"),
    [
        pytest.param([True], Marks(), True, id="the event says that the field changed"),
        pytest.param([False], Marks(), False, id="the event says that it did not"),
        pytest.param([False], Marks(claim="9"), False, id="which is believed"),
        pytest.param([None], Marks(), False, id="SOAP: the first message is no evidence"),
        pytest.param([None], Marks(claim="9"), True, id="SOAP: it differs from the last stored"),
        pytest.param([None], Marks(claim=""), True, id="SOAP: the field was empty"),
        pytest.param([None], Marks(claim="5"), False, id="SOAP: it is the last stored"),
        pytest.param([None], Marks(claim="5", shown=True), True, id="it was shown before"),
        pytest.param([False], Marks(claim="5", shown=True), True, id="which is not forgotten"),
        pytest.param([None], Marks(claim="9", shown=True), True, id="what differs is new"),
        pytest.param([False], Marks(claim="9", shown=True), False, id="shown of another claim"),
        pytest.param([True, False], Marks(), True, id="an older change showed it"),
        pytest.param([None, None], Marks(claim="9"), True, id="the first of them differed"),
        pytest.param([None, None], Marks(), False, id="the first is still no evidence"),
    ],
)
def test_b3_7_what_shows_that_the_link_field_itself_changed(changes, marks, evidence):
    told_by = [
        linked(ACCOUNT, "5", evidence=each, occurred_at=NOW + at) for at, each in enumerate(changes)
    ]
    assert folded(*told_by, marks=marks).wish == Latch(ACCOUNT, 5, evidence=evidence)


@pytest.mark.parametrize(
    ("values", "evidence"),
    [
        ([("5", None), ("6", None), ("5", None)], True),
        ([("6", True), ("5", False)], False),
        ([("6", None), ("5", None)], True),
        ([("", None), ("5", None)], True),
        ([("5", None), ("5", None)], False),
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_b3_7_messages_are_compared_in_the_order_in_which_they_happened(
    values, evidence, backwards
):
    changes = [
        _valued(value, shows, occurred_at=NOW + at) for at, (value, shows) in enumerate(values)
    ]
    result = folded(*(changes[::-1] if backwards else changes))
    assert result.wish == Latch(ACCOUNT, 5, evidence=evidence)


def test_b3_7_of_equal_times_the_first_to_arrive_comes_before():
    changes = [linked(ACCOUNT, "6", evidence=None), linked(ACCOUNT, "5", evidence=None)]
    assert folded(*changes).wish == Latch(ACCOUNT, 5, evidence=True)


def _valued(value: str, shows: bool | None, **more: object) -> Change:
    if not value:
        return unlinked(ACCOUNT, evidence=shows, **more)
    return linked(ACCOUNT, value, evidence=shows, **more)


# --- B3.6: an emptied field


@pytest.mark.parametrize(
    ("evidence", "claim", "emptied"),
    [
        (True, None, True),
        (True, "", True),
        (False, None, True),
        (None, None, False),
        (None, "", False),
        (None, "5", True),
    ],
)
def test_b3_6_a_field_that_is_empty_is_news_only_if_it_was_filled(evidence, claim, emptied):
    result = folded(unlinked(ACCOUNT, evidence=evidence), marks=Marks(claim=claim))
    if emptied:
        assert result.wish == Release(ACCOUNT, None)
        assert result.claim == ""
    else:
        assert result.wish is None
        assert result.claim is None
        assert told(result) == {1: (IGNORED, "the link field is not known to have been filled")}


@pytest.mark.parametrize(
    ("beside", "wish"),
    [
        (deleted(ACCOUNT), Release(ACCOUNT, None, gone=True)),
        (
            merged(ACCOUNT, "7"),
            Keep(ACCOUNT, "none of the merged records is latched", merged=True),
        ),
        (restored(ACCOUNT), Keep(ACCOUNT, "never latched here")),
    ],
)
def test_b3_6_an_empty_field_that_is_no_news_silences_no_other_news(beside, wish):
    result = folded(unlinked(ACCOUNT, evidence=None, occurred_at=NOW + 1), beside)
    assert result.wish == wish
    assert seqs(result.by) == [2]
    assert told(result)[1] == (IGNORED, "the link field is not known to have been filled")


# --- B4.4: an id that is none


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("0005", 5),
        ("1" * 18, int("1" * 18)),
        ("1" * 19, None),
        ("0", None),
        ("", None),
        ("-5", None),
        ("5.0", None),
        (" 5", None),
        ("\u0665", None),
        ("\u00b2", None),
        ("five", None),
        (None, None),
    ],
)
def test_b4_4_a_customers_id_is_a_positive_integer(text, number):
    assert positive_integer(text) == number


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        (linked(customer="abc"), "abc"),
        (linked(customer="0"), "0"),
        (linked(customer=""), ""),
        (unlinked(GEOTAB, customer_id="abc"), None),
        (unlinked(GEOTAB, customer_id=""), None),
    ],
)
def test_b4_4_an_explicit_id_that_is_none_needs_a_person_at_once(change, claim):
    result = folded(change)
    (refused,) = result.refused
    value = change.customer_id
    assert refused == Refused(
        Aspect.LINK,
        Reason.CUSTOMER_NOT_FOUND,
        f"{change.record.mailbox} names the Fusebill customer {value!r}, which is not a "
        "customer's id: a positive whole number of at most 18 digits.",
        "Correct the link field on the record in the CRM; the correction closes this.",
        tuple(pending(change)),
    )
    assert result.wish is None
    assert result.by == ()
    assert result.claim == claim


def test_b4_4_a_long_value_is_named_by_its_beginning():
    (refused,) = folded(linked(customer="x" * 500)).refused
    assert f"{'x' * 80!r}" in refused.message


def test_b4_4_a_newer_claim_spares_a_person():
    result = folded(linked(customer="abc"), linked(customer="5"))
    assert not result.refused
    assert result.wish == Latch(CONTACT, 5, evidence=True)


# --- existence beside the link field


@pytest.mark.parametrize(
    ("changes", "wish", "by", "said"),
    [
        pytest.param(
            [deleted()], Release(CONTACT, None, gone=True), [1], {}, id="a deletion releases"
        ),
        pytest.param(
            [linked(customer="5", occurred_at=NOW - 1), deleted()],
            Release(CONTACT, None, gone=True),
            [2],
            {1: (SUPERSEDED, "by the end of the record")},
            id="an older claim ends with the record",
        ),
        pytest.param(
            [linked(customer="5"), deleted()],
            Release(CONTACT, None, gone=True),
            [2],
            {1: (SUPERSEDED, "by the end of the record")},
            id="so does one of the same moment",
        ),
        pytest.param(
            [linked(customer="5", occurred_at=NOW + 1), deleted()],
            Latch(CONTACT, 5, evidence=True),
            [1],
            {2: (SUPERSEDED, "by change 1")},
            id="a newer claim shows that the record is there",
        ),
        pytest.param(
            [unlinked(occurred_at=NOW - 1), deleted()],
            Release(CONTACT, None),
            [1, 2],
            {},
            id="an unlink says the same",
        ),
        pytest.param(
            [linked(customer="5", occurred_at=NOW - 1), restored()],
            Latch(CONTACT, 5, evidence=True),
            [1, 2],
            {},
            id="a claim of a restored record",
        ),
        pytest.param(
            [linked(customer="5"), deleted(), restored(occurred_at=NOW + 1)],
            Latch(CONTACT, 5, evidence=True),
            [1, 3],
            {2: (SUPERSEDED, "by change 3")},
            id="restored since",
        ),
        pytest.param(
            [restored(), deleted(occurred_at=NOW + 1)],
            Release(CONTACT, None, gone=True),
            [2],
            {1: (SUPERSEDED, "by change 2")},
            id="deleted again",
        ),
        pytest.param(
            [linked(customer="5"), merged(CONTACT, "7")],
            Latch(CONTACT, 5, evidence=True),
            [1, 2],
            {},
            id="a claim of what is left of a merge",
        ),
        pytest.param(
            [merged(CONTACT, "7"), restored(occurred_at=NOW + 1)],
            Keep(CONTACT, "none of the merged records is latched", merged=True),
            [1],
            {2: (SUPERSEDED, "by change 1")},
            id="a merge is told however late something else is",
        ),
        pytest.param(
            [merged(CONTACT, "7"), deleted(occurred_at=NOW + 1)],
            Release(CONTACT, None, gone=True),
            [2],
            {1: (SUPERSEDED, "by change 2")},
            id="but the end of the record",
        ),
        pytest.param(
            [deleted(), merged(CONTACT, "7", occurred_at=NOW + 1)],
            Keep(CONTACT, "none of the merged records is latched", merged=True),
            [2],
            {1: (SUPERSEDED, "by change 2")},
            id="a merge after a deletion",
        ),
        pytest.param(
            [merged(CONTACT, "7"), merged(CONTACT, "8", occurred_at=NOW - 1)],
            Keep(CONTACT, "none of the merged records is latched", merged=True),
            [1],
            {2: (SUPERSEDED, "by change 1")},
            id="two merges",
        ),
    ],
)
def test_b3_8_the_newest_of_each_aspect_decides(changes, wish, by, said):
    result = folded(*changes)
    assert result.wish == wish
    assert seqs(result.by) == by
    assert told(result) == said


@pytest.mark.parametrize(
    ("marks", "change", "wish"),
    [
        pytest.param(
            Marks(watermarks={Aspect.EXISTENCE: NOW}, ended_at=NOW),
            linked(occurred_at=NOW),
            None,
            id="a claim from before the end of the record",
        ),
        pytest.param(
            Marks(watermarks={Aspect.EXISTENCE: NOW}, ended_at=NOW),
            linked(occurred_at=NOW + 1),
            Latch(CONTACT, 8714402, evidence=True),
            id="a claim since",
        ),
        pytest.param(
            Marks(watermarks={Aspect.EXISTENCE: NOW + 1}, ended_at=NOW),
            linked(occurred_at=NOW),
            Latch(CONTACT, 8714402, evidence=True),
            id="it was restored since",
        ),
        pytest.param(
            Marks(watermarks={Aspect.EXISTENCE: NOW}, ended_at=NOW),
            unlinked(occurred_at=NOW),
            Release(CONTACT, None),
            id="an unlink from before",
        ),
    ],
)
def test_b3_8_a_claim_ends_with_its_record(marks, change, wish):
    result = folded(change, marks=marks)
    assert result.wish == wish
    if wish is None:
        assert told(result) == {1: (SUPERSEDED, "by the end of the record")}


@pytest.mark.parametrize(
    ("marks", "superseded"),
    [
        (Marks(claim="5", watermarks={Aspect.LINK: NOW + 1}), True),
        (Marks(claim="5", watermarks={Aspect.LINK: NOW}), False),
        (Marks(claim="", watermarks={Aspect.LINK: NOW + 1}), False),
        (Marks(claim=None, watermarks={Aspect.LINK: NOW + 1}), False),
        (Marks(claim="5"), False),
    ],
)
def test_b3_8_a_deletion_from_before_the_claim_that_was_decided_ends_nothing(marks, superseded):
    result = folded(deleted(), marks=marks)
    if superseded:
        assert told(result) == {1: (SUPERSEDED, "a newer claim was decided before")}
        assert result.wish is None
    else:
        assert result.wish == Release(CONTACT, None, gone=True)


# --- B3.11: restored


@pytest.mark.parametrize(
    ("marks", "wish"),
    [
        (Marks(ended_on=5), Fill(CONTACT, 5)),
        (Marks(), Keep(CONTACT, "never latched here")),
    ],
)
def test_b3_11_a_restored_record_goes_back_to_where_it_was(marks, wish):
    result = folded(restored(), marks=marks)
    assert result.wish == wish
    assert seqs(result.by) == [1]


def test_b3_11_a_deletion_alone_brings_nothing_back():
    assert folded(deleted(), marks=Marks(ended_on=5)).wish == Release(CONTACT, None, gone=True)


# --- B3.12: merges


def test_b3_12_the_end_of_a_merged_record_never_unlatches():
    result = folded(deleted(LOSER), record=CONTACT, former=[LOSER])
    assert result.wish == Keep(CONTACT, "it was merged before", merged=True)
    assert told(result) == {1: (SUPERSEDED, f"merged into {CONTACT.id}")}
    assert result.by == ()


@pytest.mark.parametrize("make", [touched, restored])
def test_b3_12_what_becomes_of_a_merged_record_is_no_news_of_what_is_left(make):
    result = folded(make(LOSER), linked(customer="5"), record=CONTACT, former=[LOSER])
    assert result.wish == Latch(CONTACT, 5, evidence=True)
    assert told(result) == {1: (SUPERSEDED, f"merged into {CONTACT.id}")}
    assert seqs(result.by) == [2]


def test_b3_12_a_merge_told_in_the_mailbox_of_a_merged_record_is_a_merge():
    result = folded(merged(LOSER, "8"), record=CONTACT, former=[LOSER])
    assert result.wish == Keep(CONTACT, "none of the merged records is latched", merged=True)


def test_b3_12_a_claim_from_before_a_merge_is_a_claim_of_what_is_left():
    result = folded(linked(LOSER, "5"), merged(CONTACT, "7"), record=CONTACT, former=[LOSER])
    assert result.wish == Latch(CONTACT, 5, evidence=True)


def test_b3_12_touched_beside_a_merge_names_no_customer():
    """It is fresh only because it is of a merged record; of the survivor it is not."""
    result = folded(touched(), merged(CONTACT, "7"))
    assert result.wish == Keep(CONTACT, "none of the merged records is latched", merged=True)
    assert told(result) == {1: (IGNORED, "needs read access")}


# --- B3.8, B4.1: hints


@pytest.mark.parametrize(
    ("change", "wish"),
    [
        (hinted(reference="C-1"), Find(CONTACT, reference="C-1")),
        (hinted(email="a@example.org"), Find(CONTACT, email="a@example.org")),
        (hinted(GEOTAB, previous_id="0070440"), Find(GEOTAB, previous="0070440")),
        (
            hinted(GEOTAB, previous_id="0070440", reference="C-1"),
            Find(GEOTAB, reference="C-1", previous="0070440"),
        ),
    ],
)
def test_b4_1_a_hint_is_looked_for(change, wish):
    policy = Policy(match_by=frozenset({"link", "reference", "email"}))
    result = folded(change, policy=policy)
    assert result.wish == wish
    assert seqs(result.by) == [1]
    assert result.claim is None
    assert not result.told


def test_b4_1_the_newest_of_each_hint_is_looked_for():
    policy = Policy(match_by=frozenset({"reference", "email"}))
    result = folded(
        hinted(email="b@example.org"),
        hinted(email="a@example.org", occurred_at=NOW - 1),
        hinted(reference="C-1", occurred_at=NOW - 2),
        policy=policy,
    )
    assert result.wish == Find(CONTACT, reference="C-1", email="b@example.org")
    assert seqs(result.by) == [1, 3]
    assert told(result) == {2: (SUPERSEDED, "by a newer hint")}


@pytest.mark.parametrize(
    "beside", [linked(customer="5", occurred_at=NOW - 1), unlinked(occurred_at=NOW - 1)]
)
def test_b3_8_link_outranks_hint(beside):
    result = folded(beside, hinted(reference="C-1"))
    assert told(result) == {2: (SUPERSEDED, "the link field outranks a hint")}
    assert seqs(result.by) == [1]
    assert not isinstance(result.wish, Find)


@pytest.mark.parametrize(
    "beside",
    [
        deleted(occurred_at=NOW - 1),
        restored(occurred_at=NOW - 1),
        merged(CONTACT, "7", occurred_at=NOW - 1),
    ],
)
def test_b3_8_whether_the_record_is_there_comes_before_a_hint(beside):
    """The hint stays in its mailbox, and is judged by what was decided of that."""
    result = folded(beside, hinted(reference="C-1"))
    assert told(result) == {}
    assert seqs(result.by) == [1]
    assert not isinstance(result.wish, Find)


@pytest.mark.parametrize("claim", ["", "5"])
def test_b3_8_after_the_link_field_has_spoken_no_hint_latches(claim):
    marks = Marks(claim=claim, watermarks={Aspect.LINK: NOW - 9})
    result = folded(hinted(reference="C-1"), marks=marks)
    assert result.wish is None
    assert told(result) == {1: (SUPERSEDED, "the link field outranks a hint")}


def test_b3_8_a_link_field_that_was_never_filled_has_not_spoken():
    """An Outbound Message tells both fields each time, the link field as empty."""
    empty = unlinked(ACCOUNT, evidence=None)
    result = folded(empty, hinted(ACCOUNT, reference="C-1"))
    assert result.wish == Find(ACCOUNT, reference="C-1")
    assert seqs(result.by) == [2]
    again = folded(
        empty, hinted(ACCOUNT, reference="C-1"), marks=Marks(watermarks={Aspect.LINK: NOW})
    )
    assert again.wish == Find(ACCOUNT, reference="C-1")


@pytest.mark.parametrize("filled", [linked(ACCOUNT, "5", evidence=None, occurred_at=NOW - 1)])
@pytest.mark.parametrize("empties", [1, 2])
def test_b3_9_a_field_filled_and_emptied_in_one_burst_was_emptied(filled, empties):
    emptied = [unlinked(ACCOUNT, evidence=None, occurred_at=NOW + n) for n in range(empties)]
    result = folded(filled, *emptied)
    assert result.wish == Release(ACCOUNT, None)
    assert result.claim == ""


def test_b3_8_nor_does_one_of_what_is_left_of_a_merge():
    marks = Marks(claim="", watermarks={Aspect.LINK: NOW - 9})
    result = folded(hinted(reference="C-1"), former={LOSER: marks})
    assert told(result) == {1: (SUPERSEDED, "the link field outranks a hint")}


@pytest.mark.parametrize(
    ("marks", "finds"),
    [
        (Marks(watermarks={Aspect.EXISTENCE: NOW + 1}, ended_at=NOW + 1), False),
        (Marks(watermarks={Aspect.EXISTENCE: NOW}, ended_at=NOW), False),
        (Marks(watermarks={Aspect.EXISTENCE: NOW - 1}, ended_at=NOW - 1), True),
        (Marks(watermarks={Aspect.EXISTENCE: NOW + 2}, ended_at=NOW + 1), True),
        (Marks(watermarks={Aspect.EXISTENCE: NOW + 1}), True),
    ],
)
def test_b3_8_a_hint_ends_with_its_record(marks, finds):
    result = folded(hinted(reference="C-1"), marks=marks)
    if finds:
        assert result.wish == Find(CONTACT, reference="C-1")
    else:
        assert result.wish is None
        assert told(result) == {1: (SUPERSEDED, "by the end of the record")}


def test_b3_8_a_hint_since_the_end_of_the_record_is_looked_for():
    marks = Marks(watermarks={Aspect.EXISTENCE: NOW}, ended_at=NOW)
    result = folded(
        hinted(reference="C-1"), hinted(reference="C-2", occurred_at=NOW + 1), marks=marks
    )
    assert result.wish == Find(CONTACT, reference="C-2")
    assert told(result) == {1: (SUPERSEDED, "by the end of the record")}


# --- B3.12: waiting for what may explain a release

GRACE = Policy(grace_ms=30_000)


@pytest.mark.parametrize(
    ("after_ms", "left"), [(0, 30_000), (29_999, 1), (30_000, 0), (30_001, 0), (-5, 30_005)]
)
def test_b3_12_a_deletion_waits_for_the_merge_that_may_explain_it(after_ms, left):
    result = folded(deleted(), policy=GRACE, now=NOW + after_ms)
    if left:
        assert result.wish is None
        assert result.by == ()
        assert seqs(result.waits) == [1]
        assert result.wait_ms == left
    else:
        assert result.wish == Release(CONTACT, None, gone=True)
        assert seqs(result.by) == [1]
        assert (result.waits, result.wait_ms) == ((), 0)


@pytest.mark.parametrize(
    ("changes", "wish"),
    [
        pytest.param([deleted(replay_id="r1")], Release(CONTACT, None, gone=True), id="a replay"),
        pytest.param([unlinked()], Release(CONTACT, None), id="an unlink"),
        pytest.param(
            [unlinked(), deleted()], Release(CONTACT, None), id="a deletion beside an unlink"
        ),
        pytest.param([linked(customer="5")], Latch(CONTACT, 5, evidence=True), id="a claim"),
        pytest.param(
            [deleted(), merged(CONTACT, "7")],
            Keep(CONTACT, "none of the merged records is latched", merged=True),
            id="the merge is here",
        ),
        pytest.param(
            [deleted(GEOTAB)], Release(GEOTAB, None, gone=True), id="Geotab merges nothing"
        ),
    ],
)
def test_b3_12_what_a_merge_cannot_explain_waits_for_none(changes, wish):
    result = folded(*changes, policy=GRACE, now=NOW)
    assert result.wish == wish
    assert result.waits == ()


def test_b3_12_what_is_superseded_is_told_while_a_deletion_waits():
    result = folded(linked(occurred_at=NOW - 1), deleted(), policy=GRACE, now=NOW)
    assert told(result) == {1: (SUPERSEDED, "by the end of the record")}
    assert seqs(result.waits) == [2]


# --- B3.8: any order, any repetition

KINDS = st.sampled_from(
    [
        lambda at, n: linked(customer=str(n), occurred_at=at),
        lambda at, n: linked(customer=str(n), occurred_at=at, evidence=None),
        lambda at, n: linked(customer="nobody", occurred_at=at),
        lambda at, n: unlinked(occurred_at=at),
        lambda at, n: unlinked(occurred_at=at, evidence=None),
        lambda at, n: deleted(occurred_at=at),
        lambda at, n: restored(occurred_at=at),
        lambda at, n: merged(CONTACT, "7", occurred_at=at),
        lambda at, n: hinted(reference=f"C-{n}", occurred_at=at),
        lambda at, n: hinted(email=f"{n}@example.org", occurred_at=at),
        lambda at, n: associated(str(n), occurred_at=at, primary=True),
        lambda at, n: associated(str(n), occurred_at=at),
        lambda at, n: dissociated(str(n), occurred_at=at),
        lambda at, n: deleted(LOSER, occurred_at=at),
        lambda at, n: linked(LOSER, str(n), occurred_at=at),
    ]
)
MARKS = st.builds(
    Marks,
    claim=st.sampled_from([None, "", "1", "2"]),
    shown=st.booleans(),
    company=st.sampled_from([None, "", "1", "2"]),
    ended_on=st.sampled_from([None, 1]),
    ended_at=st.sampled_from([None, NOW + 2]),
    watermarks=st.dictionaries(st.sampled_from(Aspect), st.integers(NOW, NOW + 4)),
)


@st.composite
def mailboxes(draw: st.DrawFn) -> tuple[list[Change], Marks]:
    times = draw(st.lists(st.integers(0, 12), unique=True, min_size=1, max_size=7))
    changes = [draw(KINDS)(NOW + at, draw(st.integers(1, 3))) for at in times]
    return changes, draw(MARKS)


ANYTHING = Policy(match_by=frozenset({"id", "link", "reference", "email"}))


def ends(changes: list[Change], marks: Marks, **more: object) -> tuple[object, ...]:
    """All that a mailbox says, but for the numbers of its changes."""
    result = folded(*changes, record=CONTACT, former=[LOSER], marks=marks, policy=ANYTHING, **more)
    return (
        result.wish,
        result.company,
        result.claim,
        result.primary,
        result.wait_ms,
        sorted(_stated(one) for one in result.by),
        sorted(_stated(one) for one in result.company_by),
        sorted(_stated(one) for one in result.waits),
        sorted((_stated(one.pending), one.outcome) for one in result.told),
        sorted((one.reason, *sorted(map(_stated, one.pending))) for one in result.refused),
    )


def _stated(one: object) -> int:
    return one.change.occurred_at - NOW


@given(mailboxes(), st.randoms(use_true_random=False), st.sampled_from([0, 10**9]))
def test_b3_8_the_order_of_arrival_says_nothing(case, random, later):
    changes, marks = case
    mixed = list(changes)
    random.shuffle(mixed)
    assert ends(mixed, marks, now=NOW + later) == ends(changes, marks, now=NOW + later)


@given(mailboxes(), st.randoms(use_true_random=False))
def test_b2_11_what_is_told_twice_is_as_if_told_once(case, random):
    changes, marks = case
    twice = [*changes, *random.choices(changes, k=random.randint(1, len(changes)))]
    once, again = ends(changes, marks), ends(twice, marks)
    assert again[:4] == once[:4]


@given(mailboxes(), st.sampled_from([0, 10**9]))
def test_b5_8_each_change_has_one_outcome_or_waits(case, later):
    changes, marks = case
    result = folded(
        *changes, record=CONTACT, former=[LOSER], marks=marks, policy=ANYTHING, now=NOW + later
    )
    ended = [
        *(one.pending.seq for one in result.told),
        *seqs(result.by),
        *seqs(result.company_by),
        *seqs(result.waits),
        *(one.seq for refused in result.refused for one in refused.pending),
    ]
    assert len(set(ended)) == len(ended)
    left = [changes[n - 1] for n in {*range(1, len(changes) + 1)} - set(ended)]
    assert {one.aspect for one in left} <= {Aspect.HINT}, "it is left without need"
    assert not left or any(one.change.aspect is Aspect.EXISTENCE for one in _decided(result))
    assert bool(result.by) <= (result.wish is not None)


def _decided(result: Folded) -> list[Pending]:
    return [*result.by, *result.waits, *(one.pending for one in result.told)]


# --- B3.12: what was unlinked before it was merged


@pytest.mark.parametrize(
    ("read", "wish"),
    [
        (None, Keep(ACCOUNT, "it was merged before", merged=True)),
        (truth(ACCOUNT), Keep(ACCOUNT, "its link field is empty")),
        (truth(ACCOUNT, "9"), Latch(ACCOUNT, 9, evidence=False)),
    ],
)
def test_b3_12_an_unlink_of_a_merged_record_says_nothing_of_what_is_left(read, wish):
    loser = named(ACCOUNT, "7")
    result = folded(
        linked(loser, "5", occurred_at=NOW - 1),
        unlinked(loser),
        record=ACCOUNT,
        former=[loser],
        truth=read,
    )
    assert result.wish == wish
    assert result.unlinked == {"7"}
    assert result.claim == ("9" if isinstance(wish, Latch) else None)
    assert told(result) == {1: (SUPERSEDED, "by change 2")}
    assert seqs(result.by) == [2]


def test_b3_12_a_claim_of_what_is_left_goes_on_beside_it():
    result = folded(linked(customer="5"), unlinked(LOSER, occurred_at=NOW + 1), former=[LOSER])
    assert result.wish == Latch(CONTACT, 5, evidence=True)
    assert result.unlinked == {"7"}
    assert seqs(result.by) == [1, 2]


@pytest.mark.parametrize(
    ("evidence", "claim", "emptied"),
    [(True, None, True), (None, "5", True), (None, None, False), (None, "", False)],
)
def test_b3_6_an_empty_field_of_a_merged_record_is_news_only_if_it_was_filled(
    evidence, claim, emptied
):
    result = folded(
        merged(CONTACT, "7"),
        unlinked(LOSER, evidence=evidence),
        former={LOSER: Marks(claim=claim)},
        marks=Marks(claim="9"),
    )
    none_is_latched = "none of the merged records is latched"
    assert result.wish == Keep(CONTACT, none_is_latched, merged=True)
    assert result.unlinked == ({"7"} if emptied else set())
    assert seqs(result.by) == ([1, 2] if emptied else [1])
    never_filled = {2: (IGNORED, "the link field is not known to have been filled")}
    assert told(result) == ({} if emptied else never_filled)


def test_b3_12_a_merged_record_that_was_linked_again_since_is_not_unlinked():
    result = folded(
        unlinked(LOSER, occurred_at=NOW - 1), linked(LOSER, "5"), record=CONTACT, former=[LOSER]
    )
    assert result.wish == Latch(CONTACT, 5, evidence=True)
    assert result.unlinked == set()


def test_b3_5_it_is_told_with_what_is_not_found():
    read = truth(presence=Presence.ABSENT)
    result = folded(unlinked(LOSER), touched(), record=CONTACT, former=[LOSER], truth=read)
    assert result.absent
    assert seqs(result.by) == [1, 2]


TOOK = Marks(took=("7", 5))


@pytest.mark.parametrize(
    ("changes", "marks", "read", "let_go"),
    [
        pytest.param([unlinked(LOSER)], TOOK, None, 5, id="it took its place"),
        pytest.param([unlinked(LOSER)], TOOK, truth(), 5, id="as read"),
        pytest.param([unlinked(LOSER)], Marks(), None, None, id="it took nobody's place"),
        pytest.param([unlinked(LOSER)], Marks(took=("8", 5)), None, None, id="another's place"),
        pytest.param([deleted(LOSER)], TOOK, None, None, id="it was not unlinked"),
        pytest.param(
            [unlinked(LOSER)], Marks(took=("7", 5), claim="5"), None, None, id="its own field"
        ),
        pytest.param([unlinked(LOSER)], TOOK, truth(link="5"), None, id="its own field as read"),
        pytest.param([unlinked(LOSER), linked()], TOOK, None, None, id="its own field now"),
        pytest.param(
            [unlinked(LOSER)], Marks(took=("7", 5), claim="5"), truth(), 5, id="as read, emptied"
        ),
    ],
)
def test_b3_12_a_place_taken_of_one_that_was_unlinked_before_is_let_go_of(
    changes, marks, read, let_go
):
    result = folded(*changes, record=CONTACT, former=[LOSER], marks=marks, truth=read)
    assert result.let_go == let_go


def test_b3_12_of_several_merged_records_those_that_were_unlinked_are_apart():
    third, fourth = named(CONTACT, "8"), named(CONTACT, "9")
    result = folded(
        linked(third, "5"), unlinked(fourth), record=CONTACT, former=[LOSER, third, fourth]
    )
    assert result.unlinked == {"9"}
    assert result.wish == Latch(CONTACT, 5, evidence=True)


UNLINKED = Marks(claim="", watermarks={Aspect.LINK: NOW})
CLAIMED = Marks(claim="5", watermarks={Aspect.LINK: NOW})


@pytest.mark.parametrize(
    ("change", "marks", "read", "ids"),
    [
        pytest.param(merged(CONTACT, "7"), UNLINKED, None, {"7"}, id="a merge of that moment"),
        pytest.param(
            merged(CONTACT, "7", "9", occurred_at=NOW - 1), UNLINKED, None, {"7"}, id="of before"
        ),
        pytest.param(merged(CONTACT, "7", occurred_at=NOW + 1), UNLINKED, None, set(), id="since"),
        pytest.param(deleted(LOSER, occurred_at=NOW - 1), UNLINKED, None, {"7"}, id="a deletion"),
        pytest.param(deleted(LOSER, occurred_at=NOW + 1), UNLINKED, None, set(), id="one since"),
        pytest.param(restored(LOSER, occurred_at=NOW - 1), UNLINKED, None, set(), id="neither"),
        pytest.param(merged(CONTACT, "7"), CLAIMED, None, set(), id="it claimed a customer"),
        pytest.param(merged(CONTACT, "7"), Marks(claim=""), None, set(), id="nothing decided"),
        pytest.param(merged(CONTACT, "7"), UNLINKED, truth(), {"7"}, id="its field is empty"),
        pytest.param(merged(CONTACT, "7"), UNLINKED, truth(link="5"), set(), id="it is filled"),
    ],
)
def test_b3_12_what_was_merged_before_an_unlink_is_let_go_of_with_it(change, marks, read, ids):
    """However late the merge is told."""
    result = folded(change, record=CONTACT, former=[LOSER], marks=marks, truth=read)
    assert result.unlinked == ids


@pytest.mark.parametrize(
    ("changes", "customers"),
    [
        ([linked(customer="5", occurred_at=NOW - 1), merged(CONTACT, "7")], {5}),
        ([linked(customer="5"), merged(CONTACT, "7")], {5}),
        ([linked(customer="5", occurred_at=NOW + 1), merged(CONTACT, "7")], set()),
        ([linked(customer="5", occurred_at=NOW - 1), linked(), merged(CONTACT, "7")], {8714402}),
        ([linked(customer="abc"), merged(CONTACT, "7")], set()),
        ([linked(customer="5"), deleted(LOSER)], set()),
        ([linked(LOSER, "6"), linked(customer="5"), merged(CONTACT, "7")], {5, 6}),
        ([merged(CONTACT, "7")], set()),
    ],
)
def test_b3_12_what_was_claimed_before_a_merge_and_is_not_decided_yet(changes, customers):
    assert folded(*changes, record=CONTACT, former=[LOSER]).undecided == customers
