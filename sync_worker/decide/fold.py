"""Fold the pending changes of one mailbox into one desired state (B3.8, B3.9).

Only what the link field says is decided here: a record that names a Fusebill customer, or names
none any more. What says something else and could concern a customer is refused, so that it waits
for a person instead of being guessed at; what can concern no customer is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sync_worker.domain import (
    Aspect,
    Kind,
    Outcome,
    Pending,
    Reason,
    Record,
    RecordType,
    claimed_value,
)

CompanyPolicy = Literal["primary", "property", "off"]


@dataclass(frozen=True, slots=True)
class Latch:
    """The record should be in its slot of this customer."""

    record: Record
    customer_id: int
    evidence: bool
    """The link field itself is known to have changed (B3.7)."""


@dataclass(frozen=True, slots=True)
class Release:
    """The record should be in no customer's slot; if `only` is set, that one is meant (B3.4)."""

    record: Record
    only: int | None


Wanted = Latch | Release


@dataclass(frozen=True, slots=True)
class Told:
    """A change whose outcome follows from the mailbox alone."""

    pending: Pending
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """Changes of one aspect that need a person (B6.9)."""

    aspect: Aspect
    reason: Reason
    message: str
    next_step: str
    pending: tuple[Pending, ...]


@dataclass(slots=True)
class Folded:
    """What a mailbox says: every pending change is told, refused, or the one `by` which
    `wanted` holds.
    """

    told: list[Told] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    wanted: Wanted | None = None
    by: Pending | None = None


def fold(
    pending: Iterable[Pending],
    *,
    watermarks: Mapping[Aspect, int],
    last_claim: str | None,
    ended_at: int | None,
    company_policy: CompanyPolicy,
) -> Folded:
    """Fold changes, in order of arrival, against what was decided before.

    `last_claim` is the last value of the link field, "" if it was empty and None if none was ever
    stored; `ended_at` is when the record was last deleted.
    """
    folded = Folded()
    fresh: dict[Aspect, list[Pending]] = {}
    for one in sorted(pending, key=lambda each: each.seq):
        aspect = one.change.aspect
        ignored = _ignored(one, company_policy)
        if ignored:
            folded.told.append(Told(one, Outcome.IGNORED, ignored))
        elif one.occurred_at < watermarks.get(aspect, one.occurred_at):
            folded.told.append(Told(one, Outcome.STALE, "a newer change was decided before"))
        else:
            fresh.setdefault(aspect, []).append(one)
    ended = _end_of_record(fresh, watermarks, ended_at)
    for aspect, changes in fresh.items():
        if aspect is Aspect.LINK:
            _fold_link(changes, ended, last_claim, folded)
        elif aspect is Aspect.HINT and (Aspect.LINK in fresh or Aspect.LINK in watermarks):
            # The link field has spoken, for a customer or for none (B3.8).
            folded.told += [
                Told(one, Outcome.SUPERSEDED, "the link field outranks a hint") for one in changes
            ]
        else:
            folded.refused.append(_undecided(aspect, changes))
    return folded


def _ignored(one: Pending, company_policy: CompanyPolicy) -> str | None:
    """Why a change can concern no customer, if so."""
    change = one.change
    if change.kind is Kind.TOUCHED:
        return "needs read access"  # B3.11
    if change.aspect is Aspect.HINT and change.reference is None:
        return "matching by email is off"  # B4.1: it is opt-in
    if change.aspect is Aspect.COMPANY and company_policy != "primary":
        return f"HUBSPOT_LATCH_COMPANY is {company_policy}"  # B5.7
    if change.record.type is RecordType.COMPANY and company_policy != "property":
        return f"HUBSPOT_LATCH_COMPANY is {company_policy}"
    return None


def _newest(changes: list[Pending]) -> Pending:
    """The newest by its own time; of equals, the one that arrived last (B3.8)."""
    return max(changes, key=lambda each: (each.occurred_at, each.seq))


def _end_of_record(
    fresh: Mapping[Aspect, list[Pending]], watermarks: Mapping[Aspect, int], ended_at: int | None
) -> int | None:
    """When the record was deleted, if that is the newest thing known of its existence: a claim of
    before then is none any more.
    """
    changes = fresh.get(Aspect.EXISTENCE)
    if changes:
        newest = _newest(changes)
        return newest.occurred_at if newest.change.kind is Kind.DELETED else None
    return ended_at if ended_at == watermarks.get(Aspect.EXISTENCE) else None


def _fold_link(
    changes: list[Pending], ended: int | None, last_claim: str | None, folded: Folded
) -> None:
    winner = _newest(changes)
    folded.told += [
        Told(one, Outcome.SUPERSEDED, f"by change {winner.seq}")
        for one in changes
        if one is not winner
    ]
    unlinks = winner.change.kind is Kind.UNLINKED
    if not unlinks and ended is not None and winner.occurred_at <= ended:
        folded.told.append(Told(winner, Outcome.SUPERSEDED, "by the end of the record"))
        return
    customer_id = _positive_integer(winner.change.customer_id)
    if customer_id is None and not (unlinks and winner.change.customer_id is None):
        folded.refused.append(_no_customer_id(winner))
        return
    folded.by = winner
    if unlinks or customer_id is None:
        folded.wanted = Release(winner.change.record, customer_id)
    else:
        folded.wanted = Latch(
            winner.change.record, customer_id, _evidence(changes, winner, last_claim)
        )


def _evidence(changes: list[Pending], winner: Pending, last_claim: str | None) -> bool:
    """Whether any change to the winner's value shows that the field changed (B3.7): the event says
    so, or the value differs from the one before it, the last one stored at first.
    """
    before = last_claim
    for one in sorted(changes, key=lambda each: (each.occurred_at, each.seq)):
        value, shown = claimed_value(one.change), one.change.evidence
        if shown is None:
            shown = before is not None and before != value
        if shown and value == claimed_value(winner.change):
            return True
        before = value
    return False


def _positive_integer(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 18:
        return None
    return int(text) or None


def _no_customer_id(winner: Pending) -> Refused:
    return Refused(
        Aspect.LINK,
        Reason.CUSTOMER_NOT_FOUND,  # at once, and naming the value (B4.4)
        f"{winner.change.record.mailbox} names the Fusebill customer "
        f"{(winner.change.customer_id or '')[:80]!r}, which is not a customer's id: a positive "
        "whole number of at most 18 digits.",
        "Correct the link field on the record in the CRM; the correction closes this.",
        (winner,),
    )


def _listed(words: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(words))


_ASPECT_WORDS: Mapping[Aspect, Callable[[list[Pending]], str]] = {
    Aspect.HINT: lambda _: "names its customer by a reference only",
    Aspect.EXISTENCE: lambda many: f"was {_listed(one.change.kind for one in many)}",
    Aspect.COMPANY: lambda many: (
        "was " + _listed(f"{one.change.kind} with company {one.change.company_id}" for one in many)
    ),
}


def _undecided(aspect: Aspect, changes: list[Pending]) -> Refused:
    newest = _newest(changes)
    return Refused(
        aspect,
        Reason.REJECTED,
        f"{newest.change.record.mailbox} {_ASPECT_WORDS[aspect](changes)}, "
        "which this version of sync-worker does not decide.",
        "Set the customer's ids in Fusebill by hand if they must change, "
        "or replay this with a version that decides it.",
        tuple(changes),
    )
