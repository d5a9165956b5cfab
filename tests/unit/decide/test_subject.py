"""A record and what was merged into it are one (B3.12); the newest of changes (B3.8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.subject import Policy, newest
from sync_worker.domain import FIVE_MINUTES_MS, Marks
from tests.changes import CONTACT, NOW, linked, named, pending, subject

LOSER, OTHER_LOSER = named(CONTACT, "7"), named(CONTACT, "8")


def test_b3_12_a_subject_is_the_record_that_is_left_and_all_that_were_merged_into_it():
    marks = Marks(claim="5")
    one = subject(
        linked(LOSER),
        linked(),
        marks=marks,
        former={LOSER: Marks(claim="6"), OTHER_LOSER: Marks()},
    )
    assert one.record == CONTACT
    assert one.marks == marks
    assert one.former == (LOSER, OTHER_LOSER)
    assert one.ids == {CONTACT.id, "7", "8"}
    assert [each.seq for each in one.pending] == [2, 1]


def test_b5_7_a_subject_brought_the_companies_of_all_its_records():
    marks = {LOSER: Marks(brought=("33", 5)), OTHER_LOSER: Marks()}
    one = subject(marks=Marks(brought=("44", 6)), former=marks)
    assert one.brought == {("33", 5), ("44", 6)}


def test_what_is_decided_without_any_setting():
    """The defaults of B4.1, B5.5, B5.6, B5.7 and B3.12."""
    policy = Policy()
    assert policy.company == "primary"
    assert policy.match_by == {"id", "link", "reference"}
    assert (policy.replace, policy.salesforce_unlatch) == (False, False)
    assert policy.grace_ms == 30_000
    assert policy.definitions == frozenset()


def test_b3_8_of_equal_times_the_one_that_arrived_last_is_the_newest():
    many = pending(linked(customer="1"), linked(customer="2"), linked(occurred_at=NOW - 1))
    assert newest(many).change.customer_id == "2"


@pytest.mark.parametrize(
    ("stated", "counts"),
    [
        (None, NOW),
        (NOW - 1, NOW - 1),
        (NOW + FIVE_MINUTES_MS, NOW + FIVE_MINUTES_MS),
        (NOW + FIVE_MINUTES_MS + 1, NOW),
    ],
)
def test_b3_8_a_time_that_is_missing_or_too_far_ahead_counts_as_the_time_of_receipt(stated, counts):
    (one,) = pending(linked(occurred_at=stated))
    assert one.occurred_at == counts


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_b3_8_the_newest_does_not_depend_on_the_order_it_is_looked_for_in(times):
    many = pending(*(linked(occurred_at=NOW + at) for at, _ in times))
    assert newest(many) is newest(reversed(many))
