"""Fold the fresh changes of one record into what should be true of it (B3.5 to B3.12).

With read access the record itself says so, and the changes only lend what a read cannot tell:
that a field changed, that an empty one was emptied. Without it the changes decide, newest first
per aspect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sync_worker.decide.sift import Sifted, Told
from sync_worker.decide.subject import Policy, Subject, newest
from sync_worker.domain import (
    Aspect,
    Kind,
    Marks,
    Outcome,
    Pending,
    Presence,
    Reason,
    Record,
    Source,
    Truth,
    claimed_value,
)

FOREVER = 1 << 62
SAME_WRITE_MS = 1_000
"""A field's history and the event about its change may differ by so much."""

NEVER_FILLED = "the link field is not known to have been filled"
"""The detail of an empty field that is no news (B3.6)."""

STILL_CARRIED = "an active contact still carries the id"
"""The detail of an unlink that MyAdmin contradicts (B3.5)."""


@dataclass(frozen=True, slots=True)
class Latch:
    """The record should be in its slot of this customer: its link field says so."""

    record: Record
    customer_id: int
    evidence: bool
    """The link field itself is known to have changed (B3.7)."""
    succeeds: str | None = None
    """Geotab: the id that the same customer of the reseller had before (B3.4)."""


@dataclass(frozen=True, slots=True)
class Fill:
    """The record should be in its slot of this customer, if both are free: a hint found it
    (B4.1), or it was there when it was deleted (B3.11).
    """

    record: Record
    customer_id: int


@dataclass(frozen=True, slots=True)
class Find:
    """The record should be where a hint leads, if both are free (B4.1)."""

    record: Record
    reference: str | None = None
    email: str | None = None
    previous: str | None = None
    """Geotab: whoever holds this id is its customer, and the record takes its place (B3.4)."""


@dataclass(frozen=True, slots=True)
class Release:
    """The record should be in no customer's slot; if `only` is set, not in that one's (B3.4)."""

    record: Record
    only: int | None
    gone: bool = False
    """The record is there no more."""


@dataclass(frozen=True, slots=True)
class Keep:
    """The record stays where it is, and takes over where one was that was merged into it."""

    record: Record
    detail: str
    merged: bool = False
    """A merge is told now, so whoever holds a merged record must be known (B3.12)."""


Wish = Latch | Fill | Find | Release | Keep


@dataclass(frozen=True, slots=True)
class Company:
    """What should become of the company slot beside a contact (B5.7)."""

    id: str
    """The company that should be there, "" for none in particular."""
    firm: bool
    """It may take the place of one that came through the same contact."""
    drop: frozenset[str]
    """The companies that the contact has left."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Changes that need a person before anything is read (B6.9)."""

    aspect: Aspect
    reason: Reason
    message: str
    next_step: str
    pending: tuple[Pending, ...]


@dataclass(slots=True, kw_only=True)
class Folded:
    """What a mailbox says: each fresh change is told, refused, waits, or is decided by what
    becomes of `wish` or of `company`.
    """

    told: list[Told] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    wish: Wish | None = None
    by: tuple[Pending, ...] = ()
    company: Company | None = None
    company_by: tuple[Pending, ...] = ()
    claim: str | None = None
    """The value of the link field to remember; None: the one remembered stays."""
    primary: str | None = None
    """The contact's primary company to remember, likewise."""
    waits: tuple[Pending, ...] = ()
    """Left for later: what explains them may be under way (B3.12)."""
    wait_ms: int = 0
    unlinked: frozenset[str] = frozenset()
    """Ids of merged records that were unlinked before they were merged."""
    let_go: int | None = None
    """The customer where the record took the place of one of those, before that was known."""
    undecided: frozenset[int] = frozenset()
    """Customers that merged records claimed before, as far as that was not decided yet."""
    absent: bool = False
    """The CRM does not have the record, and nothing says that it was deleted (B3.5)."""


def fold(
    subject: Subject,
    sifted: Sifted,
    policy: Policy,
    *,
    now: int,
    truth: Truth | None,
    joined: bool = False,
) -> Folded:
    """Fold what is fresh; `truth` is None without read access, `now` the store's clock in ms.

    A record that is only in another one's way (`joined`) is judged by what was read of it, even if
    nothing of it is pending.
    """
    folded = Folded(told=list(sifted.told))
    if not sifted.fresh and not (joined and truth is not None):
        return folded
    sifted, before = _without_former_unlinks(subject, sifted, folded)
    folded.let_go = _taken_by_mistake(subject, sifted, folded, truth)
    if truth is None or not truth.link:
        folded.unlinked |= _unlinked_since(subject, sifted)
    claimed = _former_claims(subject, sifted) | _claim_before_merge(subject, sifted)
    folded.undecided = frozenset(claimed.values())
    if truth is None:
        _fold_events(subject, sifted, folded)
    elif subject.record.source is Source.GEOTAB:
        _fold_presence(subject, sifted, truth, folded)
    else:
        _fold_truth(subject, sifted, policy, truth, folded)
    if before:
        folded.by += before
        folded.wish = folded.wish or Keep(subject.record, "it was merged before", merged=True)
    _fold_company(subject, sifted, policy, truth, folded)
    if folded.absent:
        told = {one.pending.seq for one in folded.told}
        fresh = [one for many in sifted.fresh.values() for one in many]
        folded.by = before + tuple(one for one in fresh if one.seq not in told)
    if truth is None:
        _wait_for_explanation(subject, policy, now, folded)
    return folded


def _without_former_unlinks(
    subject: Subject, sifted: Sifted, folded: Folded
) -> tuple[Sifted, tuple[Pending, ...]]:
    """A record that was unlinked and then merged brings no customer along: that says nothing of
    the record that is left.
    """
    link = sifted.of(Aspect.LINK)
    unlinks: list[Pending] = []
    apart: set[Record] = set()
    for box in subject.boxes[1:]:
        mine = [one for one in link if one.change.record == box.record]
        if not mine or newest(mine).change.kind is not Kind.UNLINKED:
            continue
        last = newest(mine)
        apart.add(box.record)
        _tell(folded, [one for one in mine if one is not last], Outcome.SUPERSEDED, _by(last))
        if _says_nothing(last, subject, sifted):
            _tell(folded, [last], Outcome.IGNORED, NEVER_FILLED)
        else:
            unlinks.append(last)
    if not apart:
        return sifted, ()
    folded.unlinked = frozenset(one.change.record.id for one in unlinks)
    fresh = {aspect: list(many) for aspect, many in sifted.fresh.items()}
    fresh[Aspect.LINK] = [one for one in link if one.change.record not in apart]
    return Sifted(sifted.told, {aspect: many for aspect, many in fresh.items() if many}), tuple(
        unlinks
    )


def _unlinked_since(subject: Subject, sifted: Sifted) -> frozenset[str]:
    """Records that were merged into it before it was unlinked, though that is told only now: they
    would have been let go of with it.
    """
    mark = subject.marks.watermarks.get(Aspect.LINK)
    if mark is None or subject.marks.claim != "":
        return frozenset()
    before = [one for one in sifted.of(Aspect.EXISTENCE) if one.occurred_at <= mark]
    merged = {id_ for one in before for id_ in one.change.merged_ids}
    deleted = {one.change.record.id for one in before if one.change.kind is Kind.DELETED}
    return frozenset((merged | deleted) & {record.id for record in subject.former})


def _taken_by_mistake(
    subject: Subject, sifted: Sifted, folded: Folded, truth: Truth | None
) -> int | None:
    """Where it took the place of a record of which it is told only now that it was unlinked before,
    unless its own link field has it there.
    """
    took = subject.marks.took
    if took is None or took[0] not in folded.unlinked:
        return None
    own = truth.link if truth is not None else subject.marks.claim
    return None if own or sifted.of(Aspect.LINK) else took[1]


# --- with read access


def _fold_truth(
    subject: Subject, sifted: Sifted, policy: Policy, truth: Truth, folded: Folded
) -> None:
    """The record was read: HubSpot and Salesforce (B3.5)."""
    by = _deciding(subject, sifted, folded)
    gone = _read_as_gone(subject, sifted, truth, folded)
    if gone is not None:
        _decide(folded, gone, by)
        return
    if folded.absent:
        return
    if not by and sifted.fresh:
        # Only its company was told of, or what became of a record that was merged into it.
        folded.wish = folded.wish or Keep(subject.record, "")
        return
    link = truth.link or ""
    if link:
        folded.claim = link
        if "id" not in policy.match_by:
            _tell(folded, by, Outcome.IGNORED, "matching by id is off")
        elif (customer_id := positive_integer(link)) is None:
            if by:
                folded.refused.append(_no_customer_id(subject.record, link, by))
        else:
            evidence = _changed(subject, sifted, truth)
            _decide(folded, Latch(subject.record, customer_id, evidence), by)
        return
    _decide(folded, _without_link(subject, sifted, policy, truth, folded), by)


def _read_as_gone(subject: Subject, sifted: Sifted, truth: Truth, folded: Folded) -> Release | None:
    """A release if the record is gone for sure; marks it absent if that is not sure.

    That a record which was merged into it is gone says nothing of it (B3.12).
    """
    if truth.presence is Presence.PRESENT:
        return None
    record = truth.survivor or truth.record
    own = [
        one
        for one in sifted.of(Aspect.EXISTENCE)
        if one.change.record == subject.record and one.change.kind is not Kind.TOUCHED
    ]
    told = bool(own) and newest(own).change.kind is Kind.DELETED
    if truth.presence is Presence.DELETED or told:
        return Release(record, None, gone=True)
    folded.absent = True
    return None


def _changed(subject: Subject, sifted: Sifted, truth: Truth) -> bool:
    """Whether the link field itself is known to have changed to what was read (B3.7).

    Any change that shows it to have changed does: if it shows another value, the field has
    changed since.
    """
    marks, link = subject.marks, truth.link
    if marks.claim == link and marks.shown:
        return True
    if marks.claim is not None and marks.claim != link:
        return True
    told = sifted.of(Aspect.LINK)
    own = [one for one in told if one.change.record == subject.record]
    same = [one for one in told if claimed_value(one.change) == link]
    # What a merged record's field showed is about this one's only if it holds the same.
    if any(one.change.evidence for one in (*own, *same)):
        return True
    if len({claimed_value(one.change) for one in own} | {link}) > 1:
        return True
    return truth.link_set_at is not None and truth.link_set_at > _decided_until(subject, sifted)


def _decided_until(subject: Subject, sifted: Sifted) -> int:
    """A change of the field after this time is news: what was decided last, else the first of
    what is pending.
    """
    mark = subject.marks.watermarks.get(Aspect.LINK)
    if mark is not None:
        return mark
    fresh = [one.occurred_at for many in sifted.fresh.values() for one in many]
    return min(fresh) - SAME_WRITE_MS if fresh else FOREVER


def _without_link(
    subject: Subject, sifted: Sifted, policy: Policy, truth: Truth, folded: Folded
) -> Wish:
    """An empty link field releases only if it is told that it was emptied (B3.6)."""
    record = subject.record
    if any(_is_known_to_empty(one, subject, sifted) for one in sifted.kinds(Kind.UNLINKED)):
        folded.claim = ""
        return Release(record, None)
    if claimed := _claimed_before_merge(subject, sifted):
        return claimed
    if subject.marks.claim != "":  # after an unlink no hint latches it again (B3.8)
        reference = truth.reference if "reference" in policy.match_by else None
        email = truth.email if "email" in policy.match_by else None
        if reference or email:
            return Find(record, reference or None, email or None)
    return _restored(subject, sifted) or Keep(
        record, "its link field is empty", merged=bool(sifted.kinds(Kind.MERGED))
    )


def _claimed_before_merge(subject: Subject, sifted: Sifted) -> Latch | None:
    """What a record claimed before it was merged, if that was not decided yet: its customer comes
    along (B3.12).
    """
    claims = _former_claims(subject, sifted)
    if not claims:
        return None
    last = newest(claims)
    (box,) = (box for box in subject.boxes if box.record == last.change.record)
    mine = [one for one in sifted.of(Aspect.LINK) if one.change.record == box.record]
    return Latch(subject.record, claims[last], _shown_by_events(mine, last, box.marks))


def _claim_before_merge(subject: Subject, sifted: Sifted) -> dict[Pending, int]:
    """What the record that is left had claimed when another was merged into it, likewise."""
    own = [one for one in sifted.of(Aspect.LINK) if one.change.record == subject.record]
    merges = sifted.kinds(Kind.MERGED)
    if not own or not merges:
        return {}
    last = newest(own)
    customer_id = positive_integer(last.change.customer_id)
    before = last.occurred_at <= newest(merges).occurred_at
    return {last: customer_id} if customer_id is not None and before else {}


def _former_claims(subject: Subject, sifted: Sifted) -> dict[Pending, int]:
    """The newest claim of each merged record, if it was not decided yet, and its customer."""
    claims = {}
    for box in subject.boxes[1:]:
        mine = [one for one in sifted.of(Aspect.LINK) if one.change.record == box.record]
        last = newest(mine) if mine else None
        customer_id = positive_integer(last.change.customer_id) if last else None
        if last is not None and customer_id is not None:
            claims[last] = customer_id
    return claims


def _fold_presence(subject: Subject, sifted: Sifted, truth: Truth, folded: Folded) -> None:
    """MyAdmin tells only whether an active contact carries the id (B3.5)."""
    link = sifted.of(Aspect.LINK)
    winner = newest(link) if link else None
    unlinks = winner is not None and winner.change.kind is Kind.UNLINKED
    if truth.presence is not Presence.PRESENT:
        if unlinks:
            _fold_events(subject, sifted, folded)
        else:
            folded.absent = True
        return
    claims = [one for one in link if one.change.kind is not Kind.UNLINKED]
    if unlinks and not claims:
        by = _deciding(subject, sifted, folded)
        _tell(folded, by, Outcome.IGNORED, STILL_CARRIED)
        return
    if unlinks:
        # What is not so outdoes no claim, be they told together or apart.
        mistaken = [one for one in link if one not in claims]
        _tell(folded, mistaken, Outcome.IGNORED, STILL_CARRIED)
        sifted = Sifted(sifted.told, {**sifted.fresh, Aspect.LINK: claims})
    _fold_events(subject, sifted, folded)


# --- without read access


def _fold_events(subject: Subject, sifted: Sifted, folded: Folded) -> None:
    """The changes decide, newest first per aspect (B3.5)."""
    existence = _existence(subject, sifted, folded)
    link = _live_link(subject, sifted, existence, folded)
    hints = sifted.of(Aspect.HINT)
    if link is not None and _says_nothing(link, subject, sifted):
        _tell(folded, [link], Outcome.IGNORED, NEVER_FILLED)
        link = None
    if link is not None:
        _outrank(folded, hints, "the link field outranks a hint")
        by = (link, *([existence] if existence else ()))
        if existence and existence.change.kind is Kind.DELETED:
            by = _after_deletion(link, existence, folded)
        _claim(subject, sifted, link, by, folded)
        return
    if existence is not None:
        # Hints stay for the next turn: whether the record is there comes first.
        _exist(subject, sifted, existence, folded)
    elif hints:
        _hint(subject, hints, folded)


def _existence(subject: Subject, sifted: Sifted, folded: Folded) -> Pending | None:
    """The newest news of the record's existence; what became of a merged one is no news of it."""
    own = _own_existence(subject, sifted, folded)
    touched = [one for one in own if one.change.kind is Kind.TOUCHED]
    _tell(folded, touched, Outcome.IGNORED, "it names no customer")
    own = [one for one in own if one not in touched]
    if not own:
        return None
    merges = [one for one in own if one.change.kind is Kind.MERGED]
    last = newest(own)
    if merges and last.change.kind is not Kind.DELETED:
        last = newest(merges)
    _tell(folded, [one for one in own if one is not last], Outcome.SUPERSEDED, _by(last))
    return last


def _own_existence(subject: Subject, sifted: Sifted, folded: Folded) -> list[Pending]:
    """News of the existence of the record that is left: what becomes of a merged one is none."""
    own: list[Pending] = []
    former: list[Pending] = []
    for one in sifted.of(Aspect.EXISTENCE):
        is_own = one.change.record == subject.record or one.change.kind is Kind.MERGED
        (own if is_own else former).append(one)
    _tell(folded, former, Outcome.SUPERSEDED, f"merged into {subject.record.id}")
    if former and folded.wish is None:
        folded.wish = Keep(subject.record, "it was merged before", merged=True)
    return own


def _live_link(
    subject: Subject, sifted: Sifted, existence: Pending | None, folded: Folded
) -> Pending | None:
    """The newest link change, unless the record has ended since."""
    changes = sifted.of(Aspect.LINK)
    if not changes:
        return None
    winner = newest(changes)
    _tell(folded, [one for one in changes if one is not winner], Outcome.SUPERSEDED, _by(winner))
    ended = _ended_at(subject, existence)
    if (
        winner.change.kind is not Kind.UNLINKED
        and ended is not None
        and winner.occurred_at <= ended
    ):
        _tell(folded, [winner], Outcome.SUPERSEDED, "by the end of the record")
        return None
    return winner


def _ended_at(subject: Subject, existence: Pending | None) -> int | None:
    """When the record was deleted, if that is the newest thing known of its existence."""
    if existence is not None:
        deleted = existence.change.kind is Kind.DELETED
        return existence.occurred_at if deleted else None
    ended = subject.marks.ended_at
    return ended if ended == subject.marks.watermarks.get(Aspect.EXISTENCE) else None


def _after_deletion(link: Pending, deletion: Pending, folded: Folded) -> tuple[Pending, ...]:
    """Beside a newer claim a deletion has no say; beside an unlink it says the same."""
    if link.change.kind is Kind.UNLINKED:
        return (link, deletion)
    _tell(folded, [deletion], Outcome.SUPERSEDED, _by(link))
    return (link,)


def _claim(
    subject: Subject,
    sifted: Sifted,
    link: Pending,
    by: tuple[Pending, ...],
    folded: Folded,
) -> None:
    change = link.change
    if change.kind is Kind.UNLINKED:
        _unlink(subject, link, by, folded)
        return
    folded.claim = change.customer_id or ""
    customer_id = positive_integer(change.customer_id)
    if customer_id is None:
        folded.refused.append(_no_customer_id(subject.record, change.customer_id or "", by))
        return
    evidence = _shown_by_events(sifted.of(Aspect.LINK), link, subject.marks)
    _decide(folded, Latch(subject.record, customer_id, evidence, change.previous_id), by)


def _unlink(subject: Subject, link: Pending, by: tuple[Pending, ...], folded: Folded) -> None:
    change = link.change
    only = positive_integer(change.customer_id)
    if change.customer_id is not None and only is None:
        folded.refused.append(_no_customer_id(subject.record, change.customer_id, by))
        return
    if only is None or subject.marks.claim in (None, str(only)):
        folded.claim = ""  # else it was another customer's that was taken back
    _decide(folded, Release(subject.record, only), by)


def _says_nothing(link: Pending, subject: Subject, sifted: Sifted) -> bool:
    """An empty link field that may never have been filled: other news counts beside it (B3.6)."""
    return link.change.kind is Kind.UNLINKED and not _is_known_to_empty(link, subject, sifted)


def _is_known_to_empty(one: Pending, subject: Subject, sifted: Sifted) -> bool:
    """Whether an empty field is news: the change says so, or it was filled when told before."""
    record, before = one.change.record, (one.occurred_at, one.seq)
    if one.change.evidence is not None:
        return True
    if any(box.marks.claim for box in subject.boxes if box.record == record):
        return True
    mine = [each for each in sifted.of(Aspect.LINK) if each.change.record == record]
    return any(claimed_value(each.change) for each in mine if (each.occurred_at, each.seq) < before)


def _shown_by_events(changes: Iterable[Pending], winner: Pending, marks: Marks) -> bool:
    """Whether any change to the winner's value shows that the field changed (B3.7): the event
    says so, or the value differs from the one before it, the last one stored at first.
    """
    value = claimed_value(winner.change)
    if marks.shown and marks.claim == value:
        return True
    before = marks.claim
    for one in sorted(changes, key=lambda each: (each.occurred_at, each.seq)):
        now, shown = claimed_value(one.change), one.change.evidence
        if shown is None:
            shown = before is not None and before != now
        if shown and now == value:
            return True
        before = now
    return False


def _exist(subject: Subject, sifted: Sifted, existence: Pending, folded: Folded) -> None:
    """News of the record's existence alone."""
    kind, record = existence.change.kind, subject.record
    by = (existence,)
    if kind is Kind.MERGED:
        _decide(folded, Keep(record, "none of the merged records is latched", merged=True), by)
    elif kind is Kind.RESTORED:
        _decide(folded, _restored(subject, sifted) or Keep(record, "never latched here"), by)
    elif _claimed_since(subject, existence):
        _tell(folded, by, Outcome.SUPERSEDED, "a newer claim was decided before")
    else:
        _decide(folded, Release(record, None, gone=True), by)


def _claimed_since(subject: Subject, deletion: Pending) -> bool:
    marks = subject.marks
    return bool(marks.claim) and marks.watermarks.get(Aspect.LINK, 0) > deletion.occurred_at


def _restored(subject: Subject, sifted: Sifted) -> Fill | None:
    """Back to the customer that held it when it was deleted (B3.11)."""
    held = subject.marks.ended_on
    if held is None or not sifted.kinds(Kind.RESTORED):
        return None
    return Fill(subject.record, held)


def _hint(subject: Subject, hints: list[Pending], folded: Folded) -> None:
    """The newest of each hint; none after the link field has spoken (B3.8)."""
    if any(box.marks.claim is not None for box in subject.boxes):
        _outrank(folded, hints, "the link field outranks a hint")
        return
    if (ended := _ended_at(subject, None)) is not None:
        late = [one for one in hints if one.occurred_at <= ended]
        _tell(folded, late, Outcome.SUPERSEDED, "by the end of the record")
        hints = [one for one in hints if one.occurred_at > ended]
    found = {
        name: newest(many).change
        for name in ("reference", "email", "previous_id")
        if (many := [one for one in hints if getattr(one.change, name)])
    }
    by = tuple(one for one in hints if any(one.change is change for change in found.values()))
    older = [one for one in hints if one not in by]
    _tell(folded, older, Outcome.SUPERSEDED, "by a newer hint")
    if by:
        values = {name: getattr(change, name) for name, change in found.items()}
        previous = values.pop("previous_id", None)
        _decide(folded, Find(subject.record, previous=previous, **values), by)


def _wait_for_explanation(subject: Subject, policy: Policy, now: int, folded: Folded) -> None:
    """A release that a merge or an association may yet explain waits for it (B3.12)."""
    wish = folded.wish
    if isinstance(wish, Release) and wish.gone and subject.record.source is not Source.GEOTAB:
        left = _grace_left(folded.by, policy, now)
        if left and all(one.change.kind is Kind.DELETED for one in folded.by):
            folded.waits += folded.by
            folded.wish, folded.by, folded.wait_ms = None, (), left
    if folded.company is not None and folded.company.drop:
        left = _grace_left(folded.company_by, policy, now)
        if left:
            folded.waits += folded.company_by
            folded.company, folded.company_by = None, ()
            if not folded.by:
                folded.wish = None
            folded.wait_ms = max(folded.wait_ms, left)


def _grace_left(by: Sequence[Pending], policy: Policy, now: int) -> int:
    """Milliseconds until the grace of the last of these is over; a replay needs none."""
    ends = [one.received_at + policy.grace_ms for one in by if one.change.replay_id is None]
    return max(0, max(ends, default=now) - now)


# --- the company beside a contact


def _fold_company(
    subject: Subject, sifted: Sifted, policy: Policy, truth: Truth | None, folded: Folded
) -> None:
    """What the contact's company should be, by its associations or as read (B5.7)."""
    if subject.record.slot != "hubspot_contact" or policy.company != "primary" or folded.absent:
        return
    told = sorted(sifted.of(Aspect.COMPANY), key=lambda each: (each.occurred_at, each.seq))
    if truth is not None:
        folded.company = _company_as_read(told, truth)
    else:
        folded.company = _company_as_told(subject, told, folded)
    if folded.company is None:
        return
    settled = {one.pending.seq for one in folded.told}
    folded.company_by = tuple(one for one in told if one.seq not in settled)
    folded.primary = folded.company.id or ("" if folded.company.drop else None)
    if folded.wish is None:
        if folded.company_by:
            folded.wish = Keep(subject.record, "")
        else:
            folded.company = None


def _company_as_read(told: Iterable[Pending], truth: Truth) -> Company | None:
    left = {
        one.change.company_id or ""
        for one in told
        if one.change.kind is Kind.DISSOCIATED and one.change.primary is not False
    }
    company = truth.company or ""
    drop = frozenset(left - {company, ""})
    return Company(company, firm=True, drop=drop) if company or drop or told else None


def _company_as_told(subject: Subject, told: Sequence[Pending], folded: Folded) -> Company | None:
    """The newest word on each company counts; what is not about the primary one says nothing."""
    company, firm, spare, drop = subject.marks.company or "", False, "", set()
    for one in told:
        change = one.change
        id_ = change.company_id or ""
        if change.primary is False:
            _tell(folded, [one], Outcome.IGNORED, "not the primary company")
        elif change.kind is Kind.DISSOCIATED:
            drop.add(id_)
            spare = "" if spare == id_ else spare
            if company == id_:
                company, firm = "", False
        elif change.primary:
            company, firm = id_, True
            drop.discard(id_)
        else:  # it does not say: it fills in where no other is known
            spare = id_
            drop.discard(id_)
    company = company or spare
    if not company and not drop:
        return None
    return Company(company, firm, frozenset(drop))


# --- small things


def positive_integer(text: str | None) -> int | None:
    """A Fusebill id as a number; None if it is none (B4.4)."""
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 18:
        return None
    return int(text) or None


def _deciding(subject: Subject, sifted: Sifted, folded: Folded) -> tuple[Pending, ...]:
    """The newest change of each aspect that a read decides; the others are folded into it."""
    own = _own_existence(subject, sifted, folded)
    by = []
    for many in (sifted.of(Aspect.LINK), sifted.of(Aspect.HINT), own):
        if many:
            last = newest(many)
            by.append(last)
            _tell(folded, [one for one in many if one is not last], Outcome.SUPERSEDED, _by(last))
    return tuple(by)


def _decide(folded: Folded, wish: Wish, by: tuple[Pending, ...]) -> None:
    folded.wish, folded.by = wish, by


def _tell(folded: Folded, changes: Iterable[Pending], outcome: Outcome, detail: str) -> None:
    folded.told += [Told(one, outcome, detail) for one in changes]


def _outrank(folded: Folded, hints: Iterable[Pending], why: str) -> None:
    _tell(folded, hints, Outcome.SUPERSEDED, why)


def _by(winner: Pending) -> str:
    return f"by change {winner.seq}"


def _no_customer_id(record: Record, value: str, by: tuple[Pending, ...]) -> Refused:
    return Refused(
        Aspect.LINK,
        Reason.CUSTOMER_NOT_FOUND,  # at once, and naming the value (B4.4)
        f"{record.mailbox} names the Fusebill customer {value[:80]!r}, which is not a customer's "
        "id: a positive whole number of at most 18 digits.",
        "Correct the link field on the record in the CRM; the correction closes this.",
        by,
    )
