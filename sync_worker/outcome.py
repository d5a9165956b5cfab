"""From what was decided to the settlement of the mailboxes (B5.8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sync_worker.decide import fold as folding
from sync_worker.decide import remember
from sync_worker.decide.plan import Bury, Done, Leave, Result
from sync_worker.domain import IN_DRY_RUN, Aspect, Attempt, Outcome, Pending
from sync_worker.gather import Participant
from sync_worker.inbox import Burial, Settlement, Verdict

REMEMBERED = Leave("it is remembered until the contact is latched")


def add(
    settlement: Settlement,
    one: Participant,
    result: Result | None,
    *,
    company: Done | Leave | None = None,
    brings: tuple[str, int] | None = None,
    attempts: Sequence[Attempt] = (),
    dry_run: bool = False,
) -> None:
    """Add what became of one record's changes: verdicts, dead letters, what to remember."""
    folded = one.folded
    if company is None and folded.company_by:
        company = REMEMBERED
    verdicts = [
        *(Verdict(t.pending, t.outcome, t.detail, unmet=True) for t in folded.told),
        *_verdicts(folded.by, _with_company(result, company, folded), dry_run=dry_run),
        *_verdicts(folded.company_by, company, dry_run=dry_run),
    ]
    burials = [
        Burial(r.aspect, r.reason, r.message, r.next_step, r.pending, mailbox=one.record.mailbox)
        for r in folded.refused
    ]
    if isinstance(result, Bury) and (folded.by or folded.company_by):
        burials.append(_burial(one, result, attempts))
    settlement.verdicts += verdicts
    settlement.burials += burials
    if dry_run:  # nothing is remembered, and nothing closed (B5.9)
        settlement.satisfied |= {box.record.mailbox: set() for box in one.subject.boxes}
        return
    settled = [remember.Settled(v.pending, v.outcome, v.unmet) for v in verdicts]
    settled += [
        remember.Settled(pending, Outcome.DEAD_LETTER)
        for burial in burials
        for pending in burial.pending
    ]
    satisfied = remember.satisfied(folded, result, company)
    for box in one.subject.boxes:
        mine = [each for each in settled if each.pending.change.record == box.record]
        marks = remember.settled(box.marks, mine)
        if box.record == one.record:
            marks = remember.brought(remember.decided(marks, folded, result), company, brings)
        settlement.marks[box.record.mailbox] = marks
        settlement.satisfied[box.record.mailbox] = satisfied


def _with_company(
    result: Result | None, company: Done | Leave | None, folded: folding.Folded
) -> Result | None:
    """Where no change is about the company, what became of it is told with the contact (B5.7)."""
    if not isinstance(result, Done | Leave) or company is None or folded.company_by:
        return result
    if isinstance(company, Leave) and not company.detail.startswith("company held by"):
        return result
    return _detailed(result, company.detail)


def _detailed(result: Done | Leave, more: str) -> Done | Leave:
    detail = f"{result.detail}; {more}" if result.detail else more
    if isinstance(result, Done):
        return Done(result.outcome, detail, result.customers)
    return Leave(detail, result.customers, result.unmet, result.at, result.outcome)


def _verdicts(by: Iterable[Pending], result: Result | None, *, dry_run: bool) -> Iterable[Verdict]:
    for pending in by:
        match result:
            case Done(outcome, detail, customers):
                told = IN_DRY_RUN.get(outcome, outcome) if dry_run else outcome
                yield Verdict(pending, told, detail, customers)
            case Leave(detail, customers, unmet, _, outcome):
                yield Verdict(pending, outcome, detail, customers, unmet=unmet)


def _burial(one: Participant, why: Bury, attempts: Sequence[Attempt]) -> Burial:
    return Burial(
        _aspect(one.folded),
        why.reason,
        why.message,
        why.next_step,
        one.folded.by or one.folded.company_by,
        why.customers,
        attempts=tuple(attempts),
        mailbox=one.record.mailbox,
    )


def _aspect(folded: folding.Folded) -> Aspect:
    """What a record wants is one thing: a dead letter of its link field, whichever change told."""
    if isinstance(folded.wish, folding.Latch):
        return Aspect.LINK
    if isinstance(folded.wish, folding.Find):
        return Aspect.HINT
    aspects = [one.change.aspect for one in folded.by or folded.company_by]
    return Aspect.LINK if Aspect.LINK in aspects else aspects[0]
