"""What the changes of one mailbox say together (B3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.fold import Folded, Latch, Release, fold
from sync_worker.domain import FIVE_MINUTES_MS, Aspect, Kind, Outcome, Pending, Reason
from tests.changes import (
    ACCOUNT,
    COMPANY,
    CONTACT,
    GEOTAB,
    NOW,
    RECORDS,
    _change,
    deleted,
    hinted,
    linked,
    pending,
    touched,
    unlinked,
)


def folded(changes: list[Pending], **more: object) -> Folded:
    fixed = {
        "watermarks": {},
        "last_claim": None,
        "ended_at": None,
        "company_policy": "property",
        **more,
    }
    return fold(changes, **fixed)  # type: ignore[arg-type]


def outcomes(result: Folded) -> dict[int, Outcome]:
    return {told.pending.seq: told.outcome for told in result.told}


def test_an_explicit_id_is_wanted():
    result = folded(pending(linked(customer="8714402")))
    assert result.wanted == Latch(CONTACT, 8714402, evidence=True)
    assert result.by is not None
    assert result.by.seq == 1
    assert not result.told
    assert not result.refused


def test_an_unlink_is_a_release_wherever_the_record_is():
    assert folded(pending(unlinked())).wanted == Release(CONTACT, only=None)


def test_b3_4_an_unlink_that_names_a_customer_means_that_one_only():
    result = folded(pending(unlinked(GEOTAB, customer_id="8714403")))
    assert result.wanted == Release(GEOTAB, only=8714403)


def test_b3_9_a_burst_is_one_decision():
    result = folded(pending(*(linked(customer=str(n), occurred_at=NOW + n) for n in range(1, 501))))
    assert result.wanted == Latch(CONTACT, 500, evidence=True)
    assert outcomes(result) == dict.fromkeys(range(1, 500), Outcome.SUPERSEDED)


def test_b3_8_equal_times_the_later_arrival_wins():
    result = folded(pending(linked(customer="1"), linked(customer="2")))
    assert result.wanted == Latch(CONTACT, 2, evidence=True)


def test_b3_8_a_newer_time_wins_whatever_the_order_of_arrival():
    result = folded(pending(linked(customer="2", occurred_at=NOW), unlinked(occurred_at=NOW - 1)))
    assert result.wanted == Latch(CONTACT, 2, evidence=True)


def test_b3_8_older_than_the_watermark_is_stale_and_equal_is_not():
    marks = {Aspect.LINK: NOW}
    late = folded(pending(linked(occurred_at=NOW - 1)), watermarks=marks)
    assert outcomes(late) == {1: Outcome.STALE}
    assert late.wanted is None
    assert folded(pending(linked(occurred_at=NOW)), watermarks=marks).wanted is not None


def test_b3_8_watermarks_are_per_aspect():
    result = folded(pending(linked(occurred_at=NOW)), watermarks={Aspect.HINT: NOW + 1})
    assert result.wanted is not None


@pytest.mark.parametrize("stated", [None, NOW + FIVE_MINUTES_MS + 1])
def test_b3_8_a_missing_or_impossible_time_counts_as_the_time_of_receipt(stated):
    odd, normal = (
        linked(customer="1", occurred_at=stated),
        linked(customer="2", occurred_at=NOW + 1),
    )
    assert folded(pending(odd, normal)).wanted == Latch(CONTACT, 2, evidence=True)
    assert folded(pending(odd), watermarks={Aspect.LINK: NOW + 1}).wanted is None


def test_b3_8_five_minutes_ahead_is_believed():
    result = folded(
        pending(linked(customer="1", occurred_at=NOW + FIVE_MINUTES_MS), linked(customer="2"))
    )
    assert result.wanted == Latch(CONTACT, 1, evidence=True)


def test_b3_8_the_link_field_outranks_a_hint():
    result = folded(pending(linked(), hinted(reference="NG-0042", occurred_at=NOW + 1)))
    assert result.wanted == Latch(CONTACT, 8714402, evidence=True)
    assert outcomes(result) == {2: Outcome.SUPERSEDED}


def test_b3_8_after_an_unlink_no_hint_speaks_for_the_record():
    result = folded(
        pending(hinted(reference="NG-0042", occurred_at=NOW + 1)), watermarks={Aspect.LINK: NOW}
    )
    assert outcomes(result) == {1: Outcome.SUPERSEDED}
    assert not result.refused


def test_b3_11_touched_needs_read_access():
    result = folded(pending(touched()))
    assert [(told.outcome, told.detail) for told in result.told] == [
        (Outcome.IGNORED, "needs read access")
    ]


def test_b4_1_email_matching_is_opt_in():
    result = folded(pending(hinted(email="billing@northgate.example")))
    assert outcomes(result) == {1: Outcome.IGNORED}


@pytest.mark.parametrize("text", ["abc", "0", "-5", "12.5", "1e3", " 12", "٣", "9" * 19, ""])
def test_b4_4_an_id_that_is_no_positive_integer_is_refused_at_once(text):
    result = folded(pending(linked(customer=text)))
    assert result.wanted is None
    (refused,) = result.refused
    assert refused.reason is Reason.CUSTOMER_NOT_FOUND
    assert repr(text[:80]) in refused.message


@pytest.mark.parametrize("policy", ["primary", "off"])
def test_b5_7_a_companys_own_property_counts_only_under_property(policy):
    result = folded(pending(linked(COMPANY)), company_policy=policy)
    assert outcomes(result) == {1: Outcome.IGNORED}
    assert folded(pending(linked(COMPANY)), company_policy="property").wanted is not None


def test_b5_7_associations_count_only_under_primary():
    change = _change(CONTACT, Kind.ASSOCIATED, Aspect.COMPANY, company_id=COMPANY.id)
    assert outcomes(folded(pending(change))) == {1: Outcome.IGNORED}
    assert folded(pending(change), company_policy="primary").refused


@pytest.mark.parametrize(
    "change",
    [
        deleted(),
        _change(CONTACT, Kind.MERGED, Aspect.EXISTENCE, merged_ids=("1", "2")),
        _change(CONTACT, Kind.RESTORED, Aspect.EXISTENCE),
        hinted(reference="NG-0042"),
        _change(CONTACT, Kind.DISSOCIATED, Aspect.COMPANY, company_id=COMPANY.id),
    ],
    ids=lambda change: change.kind,
)
def test_what_this_version_does_not_decide_waits_for_a_person(change):
    result = folded(pending(change), company_policy="primary")
    (refused,) = result.refused
    assert refused.reason is Reason.REJECTED
    assert refused.aspect is change.aspect
    assert result.wanted is None


def test_a_claim_does_not_outlive_its_record():
    """B3.5, without read access: nothing is latched to what is known to be deleted."""
    result = folded(pending(touched(), linked(), deleted(occurred_at=NOW + 1)))
    assert result.wanted is None
    assert outcomes(result) == {1: Outcome.IGNORED, 2: Outcome.SUPERSEDED}
    assert [refused.aspect for refused in result.refused] == [Aspect.EXISTENCE]


def test_a_late_claim_of_a_record_that_ended_is_not_latched():
    result = folded(pending(linked()), watermarks={Aspect.EXISTENCE: NOW + 1}, ended_at=NOW + 1)
    assert result.wanted is None
    assert outcomes(result) == {1: Outcome.SUPERSEDED}


def test_a_claim_after_the_end_counts():
    marks = {Aspect.EXISTENCE: NOW + 1}
    result = folded(pending(linked(occurred_at=NOW + 2)), watermarks=marks, ended_at=NOW + 1)
    assert result.wanted is not None


@pytest.mark.parametrize("kind", [Kind.MERGED, Kind.RESTORED])
def test_a_merge_into_a_record_or_its_restoration_does_not_end_it(kind):
    """Decided before, or in the same batch and millisecond: its claim stands."""
    assert folded(pending(linked()), watermarks={Aspect.EXISTENCE: NOW}).wanted is not None
    marks = {Aspect.EXISTENCE: NOW + 1}
    assert folded(pending(linked()), watermarks=marks, ended_at=NOW - 5).wanted is not None
    assert folded(pending(_change(CONTACT, kind, Aspect.EXISTENCE), linked())).wanted is not None
    both = pending(
        deleted(), _change(CONTACT, kind, Aspect.EXISTENCE, occurred_at=NOW + 1), linked()
    )
    assert folded(both).wanted is not None


def test_a_touch_does_not_end_a_record():
    result = folded(pending(linked(), touched(occurred_at=NOW + 5)))
    assert result.wanted is not None


@pytest.mark.parametrize(
    ("last_claim", "evidence"),
    [(None, False), ("8714402", False), ("8714401", True), ("", True)],
)
def test_b3_7_soap_shows_a_change_only_against_the_last_value(last_claim, evidence):
    result = folded(pending(linked(ACCOUNT, evidence=None)), last_claim=last_claim)
    assert result.wanted == Latch(ACCOUNT, 8714402, evidence=evidence)


def test_b3_7_what_the_event_shows_needs_no_comparison():
    result = folded(pending(linked(evidence=False)), last_claim="1")
    assert result.wanted == Latch(CONTACT, 8714402, evidence=False)


def test_b3_7_evidence_of_an_earlier_event_with_the_same_value_counts():
    shown, silent = linked(evidence=True), linked(evidence=False, occurred_at=NOW + 1)
    assert folded(pending(shown, silent)).wanted == Latch(CONTACT, 8714402, evidence=True)
    other = linked(customer="1", evidence=True)
    assert folded(pending(other, silent)).wanted == Latch(CONTACT, 8714402, evidence=False)


def test_b3_9_a_soap_burst_shows_what_its_messages_would_show_one_by_one():
    first, second = linked(ACCOUNT, customer="1", evidence=None), linked(ACCOUNT, evidence=None)
    assert folded(pending(first, second)).wanted == Latch(ACCOUNT, 8714402, evidence=True)
    cleared = unlinked(ACCOUNT, evidence=None)
    assert folded(pending(cleared, second)).wanted == Latch(ACCOUNT, 8714402, evidence=True)
    assert folded(pending(second, second)).wanted == Latch(ACCOUNT, 8714402, evidence=False)
    assert folded(pending(first, cleared, second)).wanted == Latch(ACCOUNT, 8714402, evidence=True)


CHANGES = st.builds(
    _change,
    st.sampled_from(RECORDS[:1]),
    st.sampled_from(Kind),
    st.sampled_from(Aspect),
    customer_id=st.none() | st.sampled_from(["1", "2", "x"]),
    reference=st.none() | st.just("R"),
    occurred_at=st.none() | st.integers(NOW - 3, NOW + 3),
)


@given(
    st.lists(CHANGES, max_size=8),
    st.dictionaries(st.sampled_from(Aspect), st.integers(NOW - 3, NOW + 3)),
    st.sampled_from(["primary", "property", "off"]),
)
def test_every_change_is_accounted_for_exactly_once(changes, watermarks, policy):
    stored = pending(*changes)
    result = folded(stored, watermarks=watermarks, company_policy=policy)
    seen = [told.pending.seq for told in result.told]
    seen += [one.seq for refused in result.refused for one in refused.pending]
    seen += [result.by.seq] if result.by else []
    assert sorted(seen) == [one.seq for one in stored]
    assert (result.by is None) == (result.wanted is None)


@given(st.lists(CHANGES, max_size=8), st.randoms())
def test_the_order_of_the_list_does_not_matter(changes, random):
    """Arrival is told by the number, not by the place in the answer of the store."""
    stored = pending(*changes)
    shuffled = stored.copy()
    random.shuffle(shuffled)
    assert folded(shuffled) == folded(stored)
