"""What a contact says of the company beside it (B5.7), and what waits for it (B3.12)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.fold import Company, Keep, Latch, Release
from sync_worker.decide.subject import Policy
from sync_worker.domain import Change, Marks, Outcome, Presence
from tests.changes import (
    ACCOUNT,
    COMPANY,
    CONTACT,
    NOW,
    associated,
    deleted,
    dissociated,
    linked,
    truth,
    unlinked,
)
from tests.unit.decide.folding import folded, seqs, told

X, Y, Z = "31", "32", "33"
GRACE = Policy(grace_ms=30_000)


def later(make: object, company: str, by_ms: int, **more: object) -> Change:
    return make(company, occurred_at=NOW + by_ms, **more)


@pytest.mark.parametrize(
    ("changes", "remembered", "company", "primary"),
    [
        pytest.param(
            [associated(X, primary=True)], None, Company(X, True, frozenset()), X, id="primary"
        ),
        pytest.param(
            [associated(X)], None, Company(X, False, frozenset()), X, id="it does not say"
        ),
        pytest.param(
            [dissociated(X)], X, Company("", False, frozenset({X})), "", id="left the primary"
        ),
        pytest.param(
            [dissociated(X)], None, Company("", False, frozenset({X})), "", id="left some company"
        ),
        pytest.param(
            [dissociated(Y)], X, Company(X, False, frozenset({Y})), X, id="left another company"
        ),
        pytest.param(
            [associated(Y, primary=True)],
            X,
            Company(Y, True, frozenset()),
            Y,
            id="another is primary now",
        ),
        pytest.param(
            [associated(Y)],
            X,
            Company(X, False, frozenset()),
            X,
            id="another that may not be primary takes no place",
        ),
        pytest.param(
            [associated(Y)], "", Company(Y, False, frozenset()), Y, id="but one that is free"
        ),
        pytest.param(
            [dissociated(X), later(associated, Y, 1)],
            X,
            Company(Y, False, frozenset({X})),
            Y,
            id="from one to the other",
        ),
        pytest.param(
            [later(dissociated, X, 1), associated(Y)],
            X,
            Company(Y, False, frozenset({X})),
            Y,
            id="whichever is told first",
        ),
        pytest.param(
            [dissociated(X, primary=True), later(associated, Y, 1, primary=True)],
            X,
            Company(Y, True, frozenset({X})),
            Y,
            id="both primary",
        ),
        pytest.param(
            [associated(X, primary=True), later(associated, Y, 1)],
            None,
            Company(X, True, frozenset()),
            X,
            id="the primary one stays",
        ),
        pytest.param(
            [associated(Y), later(associated, X, 1, primary=True)],
            None,
            Company(X, True, frozenset()),
            X,
            id="and is found",
        ),
        pytest.param(
            [associated(X, primary=True), later(associated, Y, 1, primary=True)],
            None,
            Company(Y, True, frozenset()),
            Y,
            id="the newest primary",
        ),
        pytest.param(
            [associated(X), later(associated, Y, 1)],
            None,
            Company(Y, False, frozenset()),
            Y,
            id="the newest of those that do not say",
        ),
        pytest.param(
            [dissociated(X), later(associated, X, 1)],
            X,
            Company(X, False, frozenset()),
            X,
            id="back again",
        ),
        pytest.param(
            [dissociated(X), later(associated, X, 1, primary=True)],
            None,
            Company(X, True, frozenset()),
            X,
            id="back again as the primary",
        ),
        pytest.param(
            [associated(X, primary=True), later(dissociated, X, 1)],
            None,
            Company("", False, frozenset({X})),
            "",
            id="and gone again",
        ),
        pytest.param(
            [associated(X), later(dissociated, X, 1)],
            None,
            Company("", False, frozenset({X})),
            "",
            id="one that does not say and is gone again",
        ),
        pytest.param(
            [associated(X), later(dissociated, Y, 1)],
            None,
            Company(X, False, frozenset({Y})),
            X,
            id="one comes, another goes",
        ),
        pytest.param(
            [dissociated(X), dissociated(Y)],
            X,
            Company("", False, frozenset({X, Y})),
            "",
            id="left both",
        ),
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_b5_7_the_newest_word_on_each_company_counts(
    changes, remembered, company, primary, backwards
):
    if len({one.occurred_at for one in changes}) < len(changes):
        backwards = False  # of equal times the order of arrival counts
    mixed = changes[::-1] if backwards else changes
    result = folded(*mixed, marks=Marks(company=remembered))
    assert result.company == company
    assert result.primary == primary
    assert sorted(seqs(result.company_by)) == list(range(1, len(changes) + 1))
    assert result.wish == Keep(CONTACT, "")
    assert result.by == ()
    assert not result.told


@pytest.mark.parametrize("make", [associated, dissociated])
def test_b5_7_what_is_not_about_the_primary_company_says_nothing(make):
    result = folded(make(X, primary=False), marks=Marks(company=X))
    assert told(result) == {1: (Outcome.IGNORED, "not the primary company")}
    assert result.company is None
    assert result.company_by == ()
    assert result.wish is None


def test_b5_7_it_silences_nothing_beside_it():
    result = folded(dissociated(X, primary=False), associated(Y, primary=True))
    assert result.company == Company(Y, True, frozenset())
    assert seqs(result.company_by) == [2]


def test_b5_7_the_company_remembered_goes_with_a_contact_that_is_latched_later():
    result = folded(linked(customer="5"), marks=Marks(company=X))
    assert result.wish == Latch(CONTACT, 5, evidence=True)
    assert result.company == Company(X, firm=False, drop=frozenset())
    assert result.company_by == ()
    assert seqs(result.by) == [1]
    assert result.primary == X


def test_b5_7_a_contact_without_company_says_nothing_of_it():
    result = folded(linked(customer="5"))
    assert result.company is None
    assert result.primary is None


def test_b5_7_a_deletion_says_nothing_of_the_company():
    result = folded(deleted(), marks=Marks(company=X))
    assert result.wish == Release(CONTACT, None, gone=True)
    assert result.company == Company(X, firm=False, drop=frozenset())


@pytest.mark.parametrize("company", ["property", "off"])
def test_b5_7_only_under_primary_is_it_derived(company):
    policy = Policy(company=company)
    result = folded(linked(customer="5"), marks=Marks(company=X), policy=policy)
    assert result.company is None
    assert result.primary is None
    assert folded(linked(), truth=truth(link="5", company=X), policy=policy).company is None


@pytest.mark.parametrize("record", [ACCOUNT, COMPANY])
def test_b5_7_only_contacts_have_a_company(record):
    result = folded(deleted(record), marks=Marks(company=X))
    assert result.wish == Release(record, None, gone=True)
    assert result.company is None


# --- as read


@pytest.mark.parametrize(
    ("changes", "read", "company", "primary"),
    [
        pytest.param([linked()], X, Company(X, True, frozenset()), X, id="it is primary"),
        pytest.param([linked()], "", None, None, id="there is none, and none was left"),
        pytest.param([linked()], None, None, None, id="it was not asked for"),
        pytest.param(
            [associated(Y, primary=True)], X, Company(X, True, frozenset()), X, id="not as told"
        ),
        pytest.param(
            [associated(Y)], "", Company("", True, frozenset()), None, id="not even the one told"
        ),
        pytest.param(
            [dissociated(Y)], X, Company(X, True, frozenset({Y})), X, id="left another company"
        ),
        pytest.param(
            [dissociated(X)], X, Company(X, True, frozenset()), X, id="it is there after all"
        ),
        pytest.param([dissociated(Y)], "", Company("", True, frozenset({Y})), "", id="left it"),
    ],
)
def test_b5_7_what_is_read_is_the_primary_company(changes, read, company, primary):
    result = folded(*changes, truth=truth(link="5", company=read), marks=Marks(company=Z))
    assert result.company == company
    assert result.primary == primary
    assert seqs(result.company_by) == [
        n for n, one in enumerate(changes, 1) if one.kind in ("associated", "dissociated")
    ]


def test_b5_7_of_a_contact_that_was_only_told_to_have_a_company_nothing_else_changes():
    result = folded(associated(X), truth=truth(link="5", company=X))
    assert result.wish == Keep(CONTACT, "")
    assert result.by == ()
    assert result.claim is None


def test_b3_5_of_a_contact_that_is_not_found_nothing_is_known():
    read = truth(presence=Presence.ABSENT)
    result = folded(linked(), associated(X, primary=True), truth=read)
    assert result.absent
    assert result.company is None
    assert result.primary is None
    assert seqs(result.by) == [1, 2]
    assert result.company_by == ()


def test_b5_7_a_company_read_without_any_news_of_the_record_waits_for_one():
    """What is read goes along with what is decided, and decides nothing by itself."""
    result = folded(linked(customer="abc"), truth=truth(link="abc", company=X))
    assert result.refused
    assert result.wish is None
    assert result.company is None
    assert result.primary == X


# --- B3.12: waiting


@pytest.mark.parametrize(("after_ms", "left"), [(0, 30_000), (29_999, 1), (30_000, 0)])
def test_b3_12_a_company_that_was_left_waits_for_the_one_that_may_follow(after_ms, left):
    result = folded(dissociated(X), policy=GRACE, now=NOW + after_ms, marks=Marks(company=X))
    if left:
        assert (result.company, result.company_by, result.wish) == (None, (), None)
        assert seqs(result.waits) == [1]
        assert result.wait_ms == left
    else:
        assert result.company == Company("", False, frozenset({X}))
        assert result.waits == ()


def test_b3_12_the_contact_does_not_wait_for_its_company():
    result = folded(linked(customer="5"), dissociated(X), policy=GRACE, now=NOW)
    assert result.wish == Latch(CONTACT, 5, evidence=True)
    assert seqs(result.by) == [1]
    assert seqs(result.waits) == [2]
    assert result.wait_ms == 30_000
    assert result.company is None


def test_b3_12_both_wait_for_what_may_explain_them():
    changes = [deleted(), dissociated(X)]
    result = folded(*changes, policy=GRACE, now=NOW)
    assert seqs(result.waits) == [1, 2]
    assert result.wish is None
    assert result.wait_ms == 30_000


def test_b3_12_what_replaces_a_company_waits_with_what_is_left():
    changes = [dissociated(X), associated(Y, primary=True)]
    assert seqs(folded(*changes, policy=GRACE, now=NOW).waits) == [1, 2]


@pytest.mark.parametrize(
    ("change", "read"),
    [
        (associated(X, primary=True), None),
        (dissociated(X, replay_id="r1"), None),
        (dissociated(X), truth(company="")),
    ],
)
def test_b3_12_what_nothing_can_explain_waits_for_nothing(change, read):
    result = folded(change, policy=GRACE, now=NOW, truth=read)
    assert result.waits == ()
    assert seqs(result.company_by) == [1]


def test_b5_8_beside_an_unlink_the_company_has_its_own_changes():
    result = folded(unlinked(), associated(X, primary=True))
    assert result.wish == Release(CONTACT, None)
    assert (seqs(result.by), seqs(result.company_by)) == ([1], [2])


@given(
    st.lists(
        st.tuples(
            st.sampled_from([associated, dissociated]),
            st.sampled_from([X, Y]),
            st.sampled_from([None, True, False]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([None, "", X, Z]),
)
def test_b5_7_the_company_wanted_is_never_one_that_was_left(said, remembered):
    changes = [
        make(company, primary=primary, occurred_at=NOW + n)
        for n, (make, company, primary) in enumerate(said)
    ]
    result = folded(*changes, marks=Marks(company=remembered))
    company = result.company
    if company is None:
        assert all(primary is False for _, _, primary in said) or not remembered
        return
    assert company.id not in company.drop
    last = {id_: make for make, id_, primary in said if primary is not False}
    assert company.drop == {id_ for id_, make in last.items() if make is dissociated}
    if company.id in last:
        assert last[company.id] is associated
    else:
        assert company.id in ("", remembered)


def test_b5_7_an_event_that_names_no_company_drops_none():
    result = folded(dissociated(None), truth=truth(company=""))
    assert result.company == Company("", True, frozenset())
