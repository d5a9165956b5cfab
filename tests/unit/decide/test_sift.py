"""What a mailbox alone tells: of no use, out of date, told before (B3.8, B3.11, B4.1, B5.7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.sift import Sifted, Told, before_merge, sift
from sync_worker.decide.subject import Policy
from sync_worker.domain import Aspect, Change, Kind, Marks, Outcome, Source
from tests.changes import (
    ACCOUNT,
    COMPANY,
    CONTACT,
    GEOTAB,
    NOW,
    associated,
    deleted,
    dissociated,
    hinted,
    linked,
    merged,
    named,
    restored,
    subject,
    touched,
    unlinked,
)

LOSER = named(CONTACT, "7")
SEEN = "04k000000000001"


def sifted(
    *changes: Change, policy: Policy | None = None, reads: bool = False, **more: object
) -> Sifted:
    about = subject(*changes, record=more.pop("record", changes[0].record), **more)
    return sift(about, policy or Policy(), reads=reads)


def told(result: Sifted) -> list[tuple[Outcome, str]]:
    return [(one.outcome, one.detail) for one in result.told]


def matching(*names: str) -> Policy:
    return Policy(match_by=frozenset(names))


def test_what_is_fresh_is_kept_by_aspect_in_order_of_arrival():
    about = subject(
        linked(LOSER, "1"),
        linked(customer="2"),
        hinted(email="a@example.org"),
        linked(LOSER, "3", occurred_at=NOW - 9),
        deleted(),
        former=[LOSER],
    )
    result = sift(about, Policy(match_by=frozenset({"id", "email"})), reads=False)
    assert not result.told
    assert [one.seq for one in result.of(Aspect.LINK)] == [1, 2, 4]
    assert [one.seq for one in result.of(Aspect.HINT)] == [3]
    assert [one.seq for one in result.of(Aspect.EXISTENCE)] == [5]
    assert result.of(Aspect.COMPANY) == []


def test_changes_are_found_by_their_kind():
    result = sifted(linked(), deleted(), unlinked(), restored())
    assert {one.seq for one in result.kinds(Kind.UNLINKED, Kind.DELETED)} == {2, 3}
    assert result.kinds(Kind.MERGED) == []


def test_what_is_told_by_the_mailbox_alone_closes_no_dead_letter_unless_it_says_so():
    (one,) = sifted(touched()).told
    assert one == Told(one.pending, Outcome.IGNORED, "needs read access")


# --- B3.2


@pytest.mark.parametrize(
    ("definition", "kind", "aspect"),
    [(SEEN, Kind.UNLINKED, Aspect.LINK), ("other", Kind.TOUCHED, Aspect.EXISTENCE)],
)
def test_b3_2_a_field_left_out_is_an_unlink_where_its_definition_was_seen_with_it(
    definition, kind, aspect
):
    policy = Policy(definitions=frozenset({SEEN}))
    left_out = unlinked(ACCOUNT, evidence=None, left_out=True, definition=definition)
    result = sifted(left_out, policy=policy, reads=True)
    (one,) = result.of(aspect)
    assert (one.seq, one.received_at) == (1, NOW)
    assert one.change.kind is kind
    assert one.change.aspect is aspect
    assert one.change.record == ACCOUNT


def test_b3_2_a_field_left_out_that_means_nothing_needs_read_access():
    left_out = unlinked(ACCOUNT, evidence=None, left_out=True, definition="other")
    assert told(sifted(left_out)) == [(Outcome.IGNORED, "needs read access")]


# --- B3.11


@pytest.mark.parametrize("record", [CONTACT, ACCOUNT, GEOTAB])
def test_b3_11_touched_without_read_access_is_ignored(record):
    assert told(sifted(touched(record))) == [(Outcome.IGNORED, "needs read access")]


def test_b3_11_touched_is_fresh_where_the_crm_can_be_read():
    assert len(sifted(touched(), reads=True).of(Aspect.EXISTENCE)) == 1


def test_b3_12_news_of_a_merged_record_is_news_that_it_was_merged():
    """Even `touched` without read access: the survivor is looked at."""
    result = sifted(touched(LOSER), record=CONTACT, former=[LOSER])
    assert len(result.of(Aspect.EXISTENCE)) == 1


# --- B4.1


@pytest.mark.parametrize(
    ("change", "names", "why"),
    [
        (linked(), ("id",), None),
        (linked(), ("link", "reference", "email"), "matching by id is off"),
        (unlinked(), ("reference",), None),
        (unlinked(GEOTAB, customer_id="5"), ("reference",), None),
        (hinted(reference="C-1"), ("reference",), None),
        (hinted(reference="C-1"), ("id", "link", "email"), "matching by reference is off"),
        (hinted(email="a@example.org"), ("email",), None),
        (hinted(email="a@example.org"), ("id", "link", "reference"), "matching by email is off"),
        (hinted(GEOTAB, previous_id="7"), ("link",), None),
        (hinted(GEOTAB, previous_id="7"), ("id", "reference"), "matching by link is off"),
        (
            hinted(reference="C-1", email="a@example.org"),
            ("id",),
            "matching by reference and email is off",
        ),
        (hinted(reference="C-1", email="a@example.org"), ("email",), None),
        (deleted(), (), None),
        (touched(), (), None),
    ],
)
def test_b4_1_only_the_ways_to_match_that_are_allowed_are_of_use(change, names, why):
    result = sifted(change, policy=matching(*names), reads=True)
    assert told(result) == ([(Outcome.IGNORED, why)] if why else [])
    assert bool(result.fresh) is (why is None)


# --- B5.7


@pytest.mark.parametrize(
    ("change", "primary", "own_property"),
    [
        (linked(COMPANY), False, True),
        (unlinked(COMPANY), False, True),
        (hinted(COMPANY, reference="C-1"), False, True),
        (touched(COMPANY), False, True),
        (deleted(COMPANY), True, True),
        (restored(COMPANY), True, True),
        (merged(COMPANY, "7"), True, True),
        (associated(), True, False),
        (dissociated(), True, False),
        (linked(CONTACT), True, True),
        (deleted(CONTACT), True, True),
    ],
)
@pytest.mark.parametrize("reads", [False, True])
def test_b5_7_what_says_something_of_the_company_slot(change, primary, own_property, reads):
    of_use = {"primary": primary, "property": own_property, "off": change.record is CONTACT}
    if change.aspect is Aspect.COMPANY:
        of_use["off"] = False
    for company, useful in of_use.items():
        result = sifted(change, policy=Policy(company=company), reads=reads)
        if change.kind is Kind.TOUCHED and not reads and useful:
            assert told(result) == [(Outcome.IGNORED, "needs read access")]
        elif useful:
            assert not result.told
        else:
            why = f"HUBSPOT_LATCH_COMPANY is {company}"
            assert told(result) == [(Outcome.IGNORED, why)]


# --- B3.8: watermarks


@pytest.mark.parametrize(
    ("at", "stale"), [(NOW - 1, True), (NOW, False), (NOW + 1, False), (None, False)]
)
@pytest.mark.parametrize(
    "make",
    [
        linked,
        unlinked,
        deleted,
        restored,
        lambda **more: hinted(reference="C-1", **more),
        associated,
    ],
)
def test_b3_8_older_than_the_watermark_is_stale_and_equal_is_not(make, at, stale):
    change = make(occurred_at=at)
    result = sifted(change, marks=Marks(watermarks={change.aspect: NOW}))
    if stale:
        assert told(result) == [(Outcome.STALE, "a newer change was decided before")]
    else:
        assert not result.told


@pytest.mark.parametrize("aspect", [Aspect.HINT, Aspect.EXISTENCE, Aspect.COMPANY])
def test_b3_8_news_of_one_aspect_makes_news_of_another_no_less_new(aspect):
    result = sifted(linked(occurred_at=NOW - 1), marks=Marks(watermarks={aspect: NOW}))
    assert not result.told


def test_b3_8_each_merged_record_has_watermarks_of_its_own():
    about = subject(
        linked(LOSER, occurred_at=NOW - 5),
        linked(occurred_at=NOW - 5),
        former={LOSER: Marks(watermarks={Aspect.LINK: NOW - 9})},
        marks=Marks(watermarks={Aspect.LINK: NOW}),
    )
    result = sift(about, Policy(), reads=False)
    assert [(one.pending.seq, one.outcome) for one in result.told] == [(2, Outcome.STALE)]


def test_b3_8_a_merge_is_never_stale_against_the_deletion_of_what_it_merges():
    about = subject(
        merged(CONTACT, LOSER.id, occurred_at=NOW - 5),
        former={LOSER: Marks(watermarks={Aspect.EXISTENCE: NOW}, ended_at=NOW)},
    )
    assert not sift(about, Policy(), reads=False).told


@given(st.lists(st.integers(NOW - 5, NOW + 5), min_size=1, max_size=8), st.integers(-6, 6))
def test_b3_8_what_is_stale_does_not_depend_on_the_order_of_arrival(times, offset):
    marks = Marks(watermarks={Aspect.LINK: NOW + offset})
    result = sifted(*(linked(occurred_at=at) for at in times), marks=marks)
    assert sorted(one.pending.occurred_at for one in result.told) == sorted(
        at for at in times if at < NOW + offset
    )


# --- B3.7: late evidence

UNMET = Marks(watermarks={Aspect.LINK: NOW}, claim="8714402")


@pytest.mark.parametrize(
    ("change", "marks", "fresh"),
    [
        pytest.param(linked(occurred_at=NOW - 1), UNMET, True, id="it is the evidence"),
        pytest.param(
            linked(occurred_at=NOW - 1, evidence=False), UNMET, False, id="it shows nothing"
        ),
        pytest.param(
            linked(occurred_at=NOW - 1, evidence=None), UNMET, False, id="it may show nothing"
        ),
        pytest.param(linked(customer="5", occurred_at=NOW - 1), UNMET, False, id="another value"),
        pytest.param(unlinked(occurred_at=NOW - 1), UNMET, False, id="an unlink"),
        pytest.param(
            linked(occurred_at=NOW - 1),
            Marks(watermarks=UNMET.watermarks, claim="8714402", home="8714402"),
            False,
            id="the claim is true",
        ),
        pytest.param(
            linked(occurred_at=NOW - 1),
            Marks(watermarks=UNMET.watermarks, claim="8714402", home="5"),
            True,
            id="it is latched by an older claim",
        ),
        pytest.param(
            linked(occurred_at=NOW - 1),
            Marks(watermarks=UNMET.watermarks, claim="8714402", shown=True),
            False,
            id="the evidence is known",
        ),
        pytest.param(
            unlinked(occurred_at=NOW - 1),
            Marks(watermarks=UNMET.watermarks, claim="", home="5"),
            False,
            id="nothing is claimed",
        ),
        pytest.param(
            linked(occurred_at=NOW - 1),
            Marks(watermarks=UNMET.watermarks),
            False,
            id="nothing was claimed",
        ),
    ],
)
def test_b3_7_late_evidence_of_a_claim_that_is_unmet_is_not_stale(change, marks, fresh):
    assert bool(sifted(change, marks=marks).fresh) is fresh


def test_b3_7_late_evidence_is_of_the_link_field_only():
    marks = Marks(watermarks={Aspect.HINT: NOW}, claim="8714402")
    late = hinted(reference="C-1", customer_id="8714402", occurred_at=NOW - 1)
    assert [one.outcome for one in sifted(late, marks=marks).told] == [Outcome.STALE]


# --- B2.11, B3.6: told again

DONE = Marks(watermarks={Aspect.LINK: NOW}, done={Aspect.LINK: frozenset({"a", "b"})})


@pytest.mark.parametrize(
    ("change", "repeat"),
    [
        (linked(identity="a"), True),
        (unlinked(identity="b"), True),
        (linked(identity="c"), False),
        (linked(identity=None), False),
        (linked(identity="a", replay_id="r1"), False),
        (linked(identity="a", occurred_at=NOW + 1), False),
        (hinted(reference="C-1", identity="a"), False),
    ],
)
def test_b3_6_what_was_settled_for_good_is_no_news_when_it_is_told_again(change, repeat):
    """Whatever a person did in Fusebill since then stays; a replay is asked for (B6.11)."""
    result = sifted(change, marks=DONE)
    assert told(result) == ([(Outcome.UNCHANGED, "it was decided before")] if repeat else [])
    assert [one.pending.seq for one in result.told] == ([1] if repeat else [])


def test_b3_6_what_was_decided_without_an_identity_is_no_repeat():
    marks = Marks(watermarks={Aspect.HINT: NOW})
    assert not sifted(hinted(reference="C-1", identity="a"), marks=marks).told


def test_b3_8_a_repeat_that_is_older_than_the_watermark_is_stale():
    assert told(sifted(linked(identity="a", occurred_at=NOW - 1), marks=DONE)) == [
        (Outcome.STALE, "a newer change was decided before")
    ]


# --- B3.12: an unlink from before a merge


@pytest.mark.parametrize(
    ("changes", "apart"),
    [
        ([unlinked(occurred_at=NOW - 1), merged(CONTACT, "7")], [1]),
        ([unlinked(), merged(CONTACT, "7")], [1]),
        (
            [
                linked(occurred_at=NOW - 2),
                unlinked(occurred_at=NOW - 1),
                merged(CONTACT, "7"),
                merged(CONTACT, "8", occurred_at=NOW - 9),
                linked(LOSER, occurred_at=NOW - 1),
            ],
            [1, 2],
        ),
        ([unlinked(occurred_at=NOW + 1), merged(CONTACT, "7")], None),
        ([unlinked(occurred_at=NOW - 2), linked(occurred_at=NOW - 1), merged(CONTACT, "7")], None),
        ([unlinked(LOSER, occurred_at=NOW - 1), merged(CONTACT, "7")], None),
        ([unlinked(), deleted(LOSER)], None),
        ([merged(CONTACT, "7")], None),
    ],
)
def test_b3_12_an_unlink_from_before_a_merge_is_decided_before_it(changes, apart):
    """What comes with the merge stays."""
    marks = Marks(claim="5")
    about = subject(*changes, record=CONTACT, marks=marks, former=[LOSER])
    alone = before_merge(about, sift(about, Policy(), reads=False))
    if apart is None:
        assert alone is None
        return
    assert alone is not None
    assert (alone.record, alone.marks, alone.former) == (CONTACT, marks, ())
    assert [one.seq for one in alone.pending] == apart


def test_b2_9_a_change_of_another_tenant_is_ignored():
    elsewhere = Policy(tenants={Source.GEOTAB: "ANOTHER"})
    (told,) = sifted(linked(GEOTAB), record=GEOTAB, policy=elsewhere).told
    assert (told.outcome, told.detail) == (Outcome.IGNORED, "of another tenant")
