"""Folds changes as a convergence does: sifted first."""

from __future__ import annotations

from typing import Any

from sync_worker.decide.fold import Folded, fold
from sync_worker.decide.sift import sift
from sync_worker.decide.subject import Policy
from sync_worker.domain import Change, Outcome, Truth
from tests.changes import NOW, subject

HOUR_MS = 3_600_000


def folded(
    *changes: Change,
    truth: Truth | None = None,
    policy: Policy | None = None,
    now: int = NOW + HOUR_MS,
    **about: Any,
) -> Folded:
    """What those changes say together, long after they came (whatever may explain them is here)."""
    how = {"joined": about.pop("joined")} if "joined" in about else {}
    about.setdefault("record", changes[0].record if changes else truth.record if truth else None)
    who = subject(*changes, **about)
    policy = policy or Policy()
    sifted = sift(who, policy, reads=truth is not None)
    return fold(who, sifted, policy, now=now, truth=truth, **how)


def told(result: Folded) -> dict[int, tuple[Outcome, str]]:
    """What each change ends as, by its number."""
    said = {one.pending.seq: (one.outcome, one.detail) for one in result.told}
    assert len(said) == len(result.told), "a change is told twice"
    return said


def seqs(pending: Any) -> list[int]:
    """The numbers of changes."""
    return [one.seq for one in pending]
