"""Sort out the changes that decide nothing: of no use, out of date, or told before (B3.8).

What is left is fresh, and only for fresh changes is anything read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from sync_worker.decide.subject import Box, Policy, Subject, newest
from sync_worker.domain import Aspect, Change, Kind, Outcome, Pending, RecordType, claimed_value


@dataclass(frozen=True, slots=True)
class Told:
    """A change whose outcome follows from the mailbox alone."""

    pending: Pending
    outcome: Outcome
    detail: str


@dataclass(slots=True)
class Sifted:
    """The changes of a subject, apart."""

    told: list[Told] = field(default_factory=list)
    fresh: dict[Aspect, list[Pending]] = field(default_factory=dict)
    """In order of arrival."""

    def of(self, aspect: Aspect) -> list[Pending]:
        """The fresh changes of an aspect."""
        return self.fresh.get(aspect, [])

    def kinds(self, *kinds: Kind) -> list[Pending]:
        """The fresh changes of these kinds."""
        return [one for many in self.fresh.values() for one in many if one.change.kind in kinds]


def sift(subject: Subject, policy: Policy, *, reads: bool) -> Sifted:
    """Sort the pending changes of a subject; `reads` tells whether its CRM can be asked."""
    sifted = Sifted()
    for box in subject.boxes:
        former = box.record != subject.record
        for stored in box.pending:
            one = _as_meant(stored, policy)
            why = _of_another(one.change, policy) or _of_no_use(
                one.change, policy, reads=reads, former=former
            )
            if why:
                sifted.told.append(Told(one, Outcome.IGNORED, why))
            elif _is_stale(one, box):
                sifted.told.append(Told(one, Outcome.STALE, "a newer change was decided before"))
            elif _is_repeat(one, box):
                sifted.told.append(Told(one, Outcome.UNCHANGED, "it was decided before"))
            else:
                sifted.fresh.setdefault(one.change.aspect, []).append(one)
    for many in sifted.fresh.values():
        many.sort(key=lambda each: each.seq)
    return sifted


def before_merge(subject: Subject, sifted: Sifted) -> Subject | None:
    """The record alone, with its link changes, if it was unlinked before something was merged into
    it: that is decided first, for what comes with the merge stays.
    """
    own = [one for one in sifted.of(Aspect.LINK) if one.change.record == subject.record]
    merges = sifted.kinds(Kind.MERGED)
    if not own or not merges:
        return None
    last = newest(own)
    if last.change.kind is not Kind.UNLINKED or last.occurred_at > newest(merges).occurred_at:
        return None
    box = subject.boxes[0]
    return Subject((Box(box.record, box.marks, tuple(own)),))


def _as_meant(one: Pending, policy: Policy) -> Pending:
    """A link field that is left out means a cleared one only where the message definition was
    seen carrying it; else nothing is known (B3.2).
    """
    change = one.change
    if not change.left_out or change.definition in policy.definitions:
        return one
    touched = msgspec.structs.replace(change, kind=Kind.TOUCHED, aspect=Aspect.EXISTENCE)
    return Pending(one.seq, one.received_at, touched)


def _of_another(change: Change, policy: Policy) -> str | None:
    """It was taken in before the settings named the tenant that may write (B2.9)."""
    tenant = policy.tenants.get(change.record.source, change.record.tenant)
    return "of another tenant" if tenant != change.record.tenant else None


def _of_no_use(change: Change, policy: Policy, *, reads: bool, former: bool) -> str | None:
    """Why a change can concern no customer, if so."""
    if change.record.type is RecordType.COMPANY and not _concerns_company(change, policy):
        return f"HUBSPOT_LATCH_COMPANY is {policy.company}"  # B5.7
    if change.kind is Kind.TOUCHED and not reads and not former:
        return "needs read access"  # B3.11
    if change.aspect is Aspect.COMPANY and policy.company != "primary":
        return f"HUBSPOT_LATCH_COMPANY is {policy.company}"
    if change.aspect is Aspect.HINT:
        return _of_no_hint(change, policy)
    if change.aspect is Aspect.LINK and "id" not in policy.match_by and claimed_value(change):
        return "matching by id is off"  # B4.1
    return None


def _concerns_company(change: Change, policy: Policy) -> bool:
    """Under `primary` a company's own fields say nothing, but that it is gone does."""
    if policy.company == "primary":
        return change.aspect is Aspect.EXISTENCE and change.kind is not Kind.TOUCHED
    return policy.company == "property"


def _of_no_hint(change: Change, policy: Policy) -> str | None:
    hints = {"reference": change.reference, "email": change.email, "link": change.previous_id}
    given = [name for name, value in hints.items() if value is not None]
    if any(name in policy.match_by for name in given):
        return None
    return f"matching by {' and '.join(given)} is off"  # B4.1


def _is_stale(one: Pending, box: Box) -> bool:
    """Older than what was decided; equal is not (B3.8).

    A late change that shows the field to have changed to the very claim that is not true yet for
    want of just that is not: it is the evidence (B3.7).
    """
    change = one.change
    mark = box.marks.watermarks.get(change.aspect)
    if mark is None or one.occurred_at >= mark:
        return False
    missing = change.aspect is Aspect.LINK and not box.marks.shown and _is_unmet(box)
    return not (missing and change.evidence and claimed_value(change) == box.marks.claim)


def _is_unmet(box: Box) -> bool:
    return bool(box.marks.claim) and box.marks.home != box.marks.claim


def _is_repeat(one: Pending, box: Box) -> bool:
    """The very change that was settled for good last: whatever a person did since stays (B3.6).

    A replay is asked for, so it is judged anew.
    """
    change, aspect = one.change, one.change.aspect
    return (
        change.replay_id is None
        and change.identity is not None
        and one.occurred_at == box.marks.watermarks.get(aspect)
        and change.identity in box.marks.done.get(aspect, ())
    )
