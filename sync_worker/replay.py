"""Puts dead letters, and what a dry run kept, back to work: plan with counts, then a paced run that
can be stopped (B6.11).

A replay goes past dedupe, under an id of its own. It is judged like a change that arrives now
with its old time, so it never regresses what was decided since (B6.10).
"""

from __future__ import annotations

import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import redis

from sync_worker.dead_letters import OPEN, DeadLetter, Skip, by_reason, is_of
from sync_worker.domain import IN_DRY_RUN, Pending, Reason
from sync_worker.inbox import codec, scripts
from sync_worker.inbox.inbox import WAKE_GRACE_MS
from sync_worker.store import store_errors

PER_SECOND = 10
"""Pace: live changes share the workers and Fusebill's limit of 1,000 calls a minute."""

GATHERED = 20
"""Mailboxes woken by one message."""

EVERY_OUTCOME = frozenset(str(one) for one in IN_DRY_RUN.values())
"""The outcomes whose changes a dry run keeps."""

_NEWER = "it was written by a newer version of sync-worker"

_KEPT = re.compile(r"(\w+)\|(.+?)\|(\d+\|.*)", re.DOTALL)
"""OUTCOME|MAILBOX|stored form. A Geotab id may hold the sign that parts them."""


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a replay of dead letters would do."""

    letters: tuple[DeadLetter, ...]
    skips: tuple[Skip, ...]

    @property
    def size(self) -> int:
        """How many dead letters."""
        return len(self.letters)

    @property
    def by_reason(self) -> Counter[str]:
        """How many would be replayed, by reason."""
        return by_reason(self.letters)


@dataclass(frozen=True, slots=True)
class Kept:
    """A change that a dry run kept (B5.9)."""

    outcome: str
    mailbox: str
    pending: Pending

    @property
    def would(self) -> bool:
        """Whether it stands for a write; what was kept beside one only goes along with it."""
        return self.outcome in EVERY_OUTCOME


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFilter:
    """Which of them; what is None matches all (B6.11)."""

    outcomes: frozenset[str] = EVERY_OUTCOME
    source: str | None = None
    record: str | None = None
    """A mailbox name or a bare id (B8.2)."""
    since: int | None = None
    """Received at or after this, in ms since the epoch."""
    until: int | None = None

    def matches(self, kept: Kept) -> bool:
        """Whether it is meant."""
        return all(
            (
                kept.outcome in self.outcomes or not kept.would,
                self.source in (None, kept.mailbox.partition(":")[0]),
                self.record is None or is_of(kept.mailbox, self.record),
                self.since is None or kept.pending.received_at >= self.since,
                self.until is None or kept.pending.received_at < self.until,
            )
        )


@dataclass(frozen=True, slots=True)
class DryRunPlan:
    """What applying what a dry run kept would do."""

    boxes: tuple[tuple[Kept, ...], ...]
    """By record: what it is owed comes back at once, so that it is one decision (B3.9)."""
    skips: tuple[Skip, ...]

    @property
    def size(self) -> int:
        """How many changes."""
        return sum(map(len, self.boxes))

    @property
    def by_outcome(self) -> Counter[str]:
        """How many would be applied, by what they would do."""
        return Counter(kept.outcome for box in self.boxes for kept in box if kept.would)


@dataclass(slots=True)
class Replayed:
    """What a replay did (B8.1)."""

    replay_id: str
    planned: int
    replayed: int = 0
    stopped: bool = False
    skipped: list[Skip] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Step:
    """One mailbox's part of a replay."""

    mailbox: str
    size: int
    put_back: Callable[[], list[Skip]]
    """Does it, and tells what was not put back."""


def plan(letters: Iterable[DeadLetter]) -> ReplayPlan:
    """Sort out what can be replayed."""
    taken, skips = [], []
    for letter in letters:
        why = _why_not(letter)
        if why:
            skips.append(Skip(letter.id, why))
        else:
            taken.append(letter)
    return ReplayPlan(tuple(taken), tuple(skips))


def _why_not(letter: DeadLetter) -> str | None:
    if letter.state != OPEN:
        return f"it is {letter.state}"
    if letter.reason == Reason.UNDECODABLE:
        return "it never became a change: mend the sender and have it send again"
    if letter.newer_changes:
        return _NEWER
    return None


def plan_dry_run(client: redis.Redis, wanted: KeptFilter) -> DryRunPlan:
    """Sort out what can be applied of what a dry run kept. Raises StoreError.

    A change is left where it is while something newer is kept of its record and not meant: by
    itself it would bring back what was true before that.
    """
    boxes: dict[str, list[Kept]] = {}
    skips = []
    for seq, kept in _kept(client):
        if kept is None:
            skips.append(Skip(seq, _NEWER))
        else:
            boxes.setdefault(kept.mailbox, []).append(kept)
    chosen = []
    for box in boxes.values():
        taken, left = _newest(box, wanted)
        skips += left
        if any(kept.would for kept in taken):
            chosen.append(taken)
    chosen.sort(key=lambda box: _age(box[0]))
    return DryRunPlan(tuple(chosen), tuple(skips))


def _newest(box: list[Kept], wanted: KeptFilter) -> tuple[tuple[Kept, ...], list[Skip]]:
    """What is meant of a record's changes, oldest first, less what something newer bars."""
    taken: list[Kept] = []
    skips: list[Skip] = []
    for kept in sorted(box, key=_age):
        if wanted.matches(kept):
            taken.append(kept)
        else:
            why = f"change {kept.pending.seq} of its record is newer, kept, and not in this replay"
            skips += [Skip(str(one.pending.seq), why) for one in taken]
            taken = []
    return tuple(taken), skips


def _age(kept: Kept) -> tuple[int, int]:
    return kept.pending.occurred_at, kept.pending.seq


def _kept(client: redis.Redis) -> Iterator[tuple[str, Kept | None]]:
    """Everything that is kept, None for what this version cannot read."""
    with store_errors():
        # A field may come twice while the hash is rehashed.
        stored = dict(client.hscan_iter("sw:would", count=500))
    for seq, text in stored.items():
        parts = _KEPT.fullmatch(text)
        try:
            pending = codec.decode_pending(seq, parts[3]) if parts else None
        except codec.NewerFormat:
            pending = None
        yield seq, Kept(parts[1], parts[2], pending) if parts and pending else None


def run(
    client: redis.Redis,
    planned: ReplayPlan | DryRunPlan,
    *,
    wake: Callable[[Sequence[str]], object],
    on_progress: Callable[[int], None] = lambda _: None,
    per_second: float = PER_SECOND,
    sleep: Callable[[float], None] = time.sleep,
) -> Replayed:
    """Replay what was planned. `on_progress` is told how many are done.

    A KeyboardInterrupt between any two stops it: what was put back stays put back, the rest stays
    where it was, and the result says how far it came. Raises StoreError.
    """
    replay_id = f"replay-{secrets.token_hex(4)}"
    steps = _steps(client, planned, replay_id)
    result = Replayed(replay_id, planned.size)
    result.skipped.extend(planned.skips)
    woken: list[str] = []
    done = 0
    try:
        for step in steps:
            if done:
                sleep(1 / per_second)
            left = step.put_back()
            result.replayed += step.size - len(left)
            result.skipped.extend(left)
            if len(left) < step.size:
                woken.append(step.mailbox)
            if len(woken) >= GATHERED:
                wake(woken)
                woken = []
            done += step.size
            on_progress(done)
    except KeyboardInterrupt:
        result.stopped = True
    if woken:
        wake(woken)
    return result


def _steps(client: redis.Redis, planned: ReplayPlan | DryRunPlan, replay_id: str) -> list[_Step]:
    if isinstance(planned, ReplayPlan):
        script = scripts.load(client, "replay")
        return [_letter_step(script, letter, replay_id) for letter in planned.letters]
    script = scripts.load(client, "apply_dry_run")
    return [_kept_step(script, box, replay_id) for box in planned.boxes]


def _letter_step(script: scripts.Script, letter: DeadLetter, replay_id: str) -> _Step:
    def put_back() -> list[Skip]:
        flat = _stored(letter.changes, replay_id)
        with store_errors():
            state, _ = script(args=[letter.id, replay_id, WAKE_GRACE_MS, *flat])
        return [] if state == OPEN else [Skip(letter.id, f"it is {state or 'gone'} by now")]

    return _Step(letter.mailbox, 1, put_back)


def _kept_step(script: scripts.Script, box: tuple[Kept, ...], replay_id: str) -> _Step:
    mailbox = box[0].mailbox

    def put_back() -> list[Skip]:
        flat = _stored([kept.pending for kept in box], replay_id)
        with store_errors():
            taken = script(args=[mailbox, WAKE_GRACE_MS, *flat])
        return [
            Skip(str(kept.pending.seq), "it is kept no longer")
            for kept, put in zip(box, taken, strict=True)
            if not put
        ]

    return _Step(mailbox, len(box), put_back)


def _stored(changes: Iterable[Pending], replay_id: str) -> list[str]:
    """Flat: number, stored form, ..., as put back by this replay."""
    flat: list[str] = []
    for pending in changes:
        change = msgspec.structs.replace(pending.change, replay_id=replay_id)
        flat += (str(pending.seq), f"{pending.received_at}|{codec.encode_change(change).decode()}")
    return flat
