"""What stays remembered of a record when changes of it are settled (B3.8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from sync_worker.decide.fold import Folded, Keep, Latch, Release
from sync_worker.decide.plan import Bury, Done, Leave, Result
from sync_worker.domain import DECIDED, Aspect, Kind, Marks, Outcome, Pending

MOST_IDENTITIES = 64
"""Identities kept of one aspect: changes of one record in one millisecond."""


@dataclass(frozen=True, slots=True)
class Settled:
    """One change and what became of it."""

    pending: Pending
    outcome: Outcome
    unmet: bool = False


def settled(marks: Marks, changes: Iterable[Settled]) -> Marks:
    """Move the watermarks of a mailbox to the newest that was decided.

    What was only ignored, or found stale, has decided nothing.
    """
    watermarks, done = dict(marks.watermarks), dict(marks.done)
    many = list(changes)
    for aspect in {one.pending.change.aspect for one in many}:
        mine = [one for one in many if one.pending.change.aspect is aspect]
        decided = [one.pending.occurred_at for one in mine if one.outcome in DECIDED]
        before = watermarks.get(aspect)
        if not decided or (before is not None and max(decided) < before):
            continue
        mark = max(decided)
        known = done.get(aspect, frozenset()) if mark == before else frozenset()
        watermarks[aspect] = mark
        done[aspect] = frozenset(sorted(known | set(_for_good(mine, mark)))[:MOST_IDENTITIES])
    ended = [
        one.pending.occurred_at
        for one in many
        if one.pending.change.kind is Kind.DELETED and one.outcome in DECIDED
    ]
    ended_at = max(
        [*ended, *([marks.ended_at] if marks.ended_at is not None else [])], default=None
    )
    return msgspec.structs.replace(marks, watermarks=watermarks, done=done, ended_at=ended_at)


def _for_good(mine: Iterable[Settled], mark: int) -> Iterable[str]:
    for one in mine:
        identity = one.pending.change.identity
        over = one.outcome is not Outcome.DEAD_LETTER and not one.unmet
        if identity is not None and over and one.pending.occurred_at == mark:
            yield identity


def decided(marks: Marks, folded: Folded, result: Result | None) -> Marks:
    """Remember what the record claims, and whether that is true now."""
    if folded.primary is not None:
        marks = msgspec.structs.replace(marks, company=folded.primary)
    if folded.claim is not None:
        marks = msgspec.structs.replace(marks, claim=folded.claim)
    if is_met(result):
        took = result.took if isinstance(result, Done) else None
        stays = took is None and isinstance(result, Leave) and isinstance(folded.wish, Keep)
        marks = marks if stays else msgspec.structs.replace(marks, took=took)
    if isinstance(folded.wish, Latch):
        return _claimed(marks, folded.wish, result)
    if isinstance(folded.wish, Release):
        return _released(marks, folded.wish, result)
    if isinstance(result, Done) and result.outcome in (Outcome.LATCHED, Outcome.MOVED):
        return msgspec.structs.replace(marks, ended_on=None)
    return marks


def _claimed(marks: Marks, wish: Latch, result: Result | None) -> Marks:
    if is_met(result):
        home = str(wish.customer_id)
        return msgspec.structs.replace(marks, shown=False, home=home, ended_on=None)
    return msgspec.structs.replace(marks, shown=wish.evidence)


def _released(marks: Marks, wish: Release, result: Result | None) -> Marks:
    if not is_met(result):
        return marks
    if wish.gone:
        # What it claimed is no claim any more: its dead letter closes with it.
        return _ended(msgspec.structs.replace(marks, shown=False), result)
    if wish.only is not None and marks.home not in (None, str(wish.only)):
        return marks
    return msgspec.structs.replace(marks, shown=False, home="")


def _ended(marks: Marks, result: Result | None) -> Marks:
    """Where it was; also if an earlier try let go of it there and did not hear of it."""
    match result:
        case Done(customers=customers):
            return msgspec.structs.replace(marks, ended_on=customers[0])
        case Leave(customers=customers) if marks.home in {str(one) for one in customers}:
            return msgspec.structs.replace(marks, ended_on=int(marks.home or 0))
    return marks


def brought(marks: Marks, company: Done | Leave | None, brings: tuple[str, int] | None) -> Marks:
    """Remember the company that is latched through the contact, and where (B5.7)."""
    if brings is not None:
        return msgspec.structs.replace(marks, brought=brings)
    if isinstance(company, Done) and company.outcome is Outcome.UNLATCHED:
        return msgspec.structs.replace(marks, brought=None)
    return marks


def is_met(result: Result | None) -> bool:
    """Whether what was wished for is true now."""
    match result:
        case Done():
            return True
        case Leave(unmet=unmet, outcome=outcome):
            return not unmet and outcome is Outcome.UNCHANGED
        case Bury() | None:
            return False


def satisfied(folded: Folded, result: Result | None, company: Done | Leave | None) -> set[Aspect]:
    """The aspects that are true now, so that older dead letters of them close (B6.10)."""
    aspects: set[Aspect] = set()
    wish = folded.wish
    elsewhere = isinstance(wish, Release) and not wish.gone and folded.claim is None
    if is_met(result) and not elsewhere:  # what it was unlinked from is not what it claims (B3.4)
        aspects |= {one.change.aspect for one in folded.by}
        if isinstance(folded.wish, Latch | Release) or folded.claim == "":
            # The link field is as it should be, or is none any more; so is what it outranks.
            aspects |= {Aspect.LINK, Aspect.HINT}
    if company is not None and not isinstance(result, Bury):
        aspects |= {one.change.aspect for one in folded.company_by}
    return aspects
