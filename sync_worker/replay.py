"""Puts dead letters back to work: plan with counts, then a paced run that can be stopped (B6.11).

A replay goes past dedupe, under an id of its own. It is judged like a change that arrives now
with its old time, so it never regresses what was decided since (B6.10).
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import redis

from sync_worker.dead_letters import OPEN, DeadLetter
from sync_worker.domain import Reason
from sync_worker.inbox import codec, scripts
from sync_worker.inbox.inbox import WAKE_GRACE_MS
from sync_worker.store import store_errors

PER_SECOND = 10
"""Pace: live changes share the workers and Fusebill's limit of 1,000 calls a minute."""

GATHERED = 20
"""Mailboxes woken by one message."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A dead letter that is not replayed, and why."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a replay would do."""

    letters: tuple[DeadLetter, ...]
    skips: tuple[Skip, ...]

    @property
    def by_reason(self) -> Counter[str]:
        """How many would be replayed, by reason."""
        return Counter(letter.reason for letter in self.letters)


@dataclass(slots=True)
class Replayed:
    """What a replay did (B8.1)."""

    replay_id: str
    planned: int
    replayed: int = 0
    stopped: bool = False
    skipped: list[Skip] = field(default_factory=list)


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
        return "it was written by a newer version of sync-worker"
    return None


def run(
    client: redis.Redis,
    planned: ReplayPlan,
    *,
    wake: Callable[[Sequence[str]], None],
    on_progress: Callable[[int], None] = lambda _: None,
    per_second: float = PER_SECOND,
    sleep: Callable[[float], None] = time.sleep,
) -> Replayed:
    """Replay what was planned. `on_progress` is told how many are done.

    A KeyboardInterrupt between any two stops it: what was put back stays put back, the rest stays
    open, and the result says how far it came. Raises StoreError.
    """
    script = scripts.load(client, "replay")
    result = Replayed(f"replay-{secrets.token_hex(4)}", len(planned.letters))
    result.skipped.extend(planned.skips)
    woken: list[str] = []
    try:
        for done, letter in enumerate(planned.letters, start=1):
            if done > 1:
                sleep(1 / per_second)
            state = _put_back(script, letter, result.replay_id)
            if state == OPEN:
                result.replayed += 1
                woken.append(letter.mailbox)
            else:
                result.skipped.append(Skip(letter.id, f"it is {state or 'gone'} by now"))
            if len(woken) >= GATHERED:
                wake(woken)
                woken = []
            on_progress(done)
    except KeyboardInterrupt:
        result.stopped = True
    if woken:
        wake(woken)
    return result


def _put_back(script: scripts.Script, letter: DeadLetter, replay_id: str) -> str:
    flat: list[str] = []
    for pending in letter.changes:
        # What showed that the field changed was seen before; it counts for the replay too.
        evidence = True if letter.evidence else pending.change.evidence
        change = msgspec.structs.replace(pending.change, replay_id=replay_id, evidence=evidence)
        flat += (str(pending.seq), f"{pending.received_at}|{codec.encode_change(change).decode()}")
    with store_errors():
        state, _ = script(args=[letter.id, replay_id, WAKE_GRACE_MS, *flat])
    return str(state)
