"""The steps on mailboxes, each one Lua script (the key schema is in the package's docstring)."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import redis

from sync_worker.domain import (
    DECIDED,
    SATISFIED,
    URGENT_ASPECTS,
    Aspect,
    Attempt,
    Change,
    Kind,
    Outcome,
    Pending,
    Reason,
    Source,
    claimed_value,
)
from sync_worker.inbox import codec, scripts
from sync_worker.settings import Settings
from sync_worker.store import FULL_SHARE, StoreFull, store_errors

HOUR_MS = 3_600_000

WAKE_GRACE_MS = 15_000
"""How long a wake-up may be under way before beat sends another. With beat's own period it stays
under the 30 s in which due work must be woken (B6.7)."""

KEPT_ATTEMPTS = 50
"""Calls kept of one mailbox: the whole retry schedule with room to spare."""

CLAIM = "claim"
"""The field of `sw:mark` that holds the last value of the link field, behind a `=`."""

ENDED = "ended"
"""The field of `sw:mark` that holds when the record was last deleted."""

UNREADABLE_SECONDS = 60
"""How soon a mailbox that only a newer version can read is looked at again (B10.5)."""

_NO_CUSTOMERS: tuple[int, ...] = ()
_pack = msgspec.msgpack.Encoder().encode


class Suspect(Exception):
    """A write that was not answered may yet land on a customer; `seconds` says for how long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a write may yet land for {seconds:.1f} s")
        self.seconds = seconds


class LeaseLost(Exception):
    """Another worker has taken the mailbox, or it was settled: nothing more may be sent (B5.3)."""


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A body or event that could not be read, to be kept as a dead letter (B2.10)."""

    source: Source
    digest: str
    """Tells one body from another: one dead letter per distinct body."""
    raw: bytes
    message: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a request's changes."""

    accepted: int
    duplicates: int
    wake: list[str]
    """Mailboxes that became due and that nobody is awake for."""


@dataclass(slots=True)
class Claim:
    """A mailbox held by this worker, with what it held at that moment."""

    mailbox: str
    token: str
    pending: list[Pending]
    failures: int
    attempts: list[Attempt]
    watermarks: dict[Aspect, int]
    last_claim: str | None
    """The last value of the link field: "" if it was empty, None if none was ever stored."""
    ended_at: int | None
    """When the record was last deleted, as far as that was decided."""
    customers: tuple[int, ...] = _NO_CUSTOMERS
    """The customers that are leased with it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one change (B5.8)."""

    pending: Pending
    outcome: Outcome
    detail: str = ""
    customers: tuple[int, ...] = _NO_CUSTOMERS
    unmet: bool = False
    """It is settled although the record's claim is not true: older dead letters stay open."""

    @property
    def satisfies(self) -> bool:
        """Whether the aspect is true now (B6.10)."""
        return self.outcome in SATISFIED and not self.unmet


@dataclass(frozen=True, slots=True)
class Burial:
    """A dead letter to write for changes of one aspect (B6.9)."""

    aspect: Aspect
    reason: Reason
    message: str
    next_step: str
    pending: tuple[Pending, ...]
    customers: tuple[int, ...] = _NO_CUSTOMERS
    attempts: tuple[Attempt, ...] = ()
    evidence: bool = False
    """The link field was known to have changed (B3.7); a replay must still know."""


@dataclass(slots=True)
class Settlement:
    """The end of a convergence: every claimed change is in exactly one list."""

    verdicts: list[Verdict] = field(default_factory=list)
    burials: list[Burial] = field(default_factory=list)
    answer_lost: bool = False
    """The last write was not answered: its customer stays suspect (B5.3)."""

    def all_verdicts(self) -> Iterable[Verdict]:
        """The outcomes, those of buried changes included."""
        yield from self.verdicts
        for burial in self.burials:
            for pending in burial.pending:
                # The reason alone: the message may quote what stands in the record (B10.3).
                yield Verdict(pending, Outcome.DEAD_LETTER, burial.reason, burial.customers)


class Inbox:
    """Mailboxes in one Redis.

    Safe for any number of threads and processes: every method is one atomic step. All raise
    `store.StoreError` when Redis cannot be used.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        dedupe_hours: int,
        audit_days: int,
        lease_seconds: float,
        late_write_seconds: float = 90,
    ) -> None:
        self._client = client
        self._dedupe_ms = dedupe_hours * HOUR_MS // 3
        self._audit_days = audit_days
        self._lease_ms = int(lease_seconds * 1000)
        self._late_write_ms = int(late_write_seconds * 1000)
        self._accept = scripts.load(client, "accept")
        self._claim = scripts.load(client, "claim")
        self._hold = scripts.load(client, "hold")
        self._settle = scripts.load(client, "settle")
        self._postpone = scripts.load(client, "postpone")
        self._wake = scripts.load(client, "wake")

    @classmethod
    def of(cls, client: redis.Redis, settings: Settings) -> Inbox:
        """The inbox as these settings want it."""
        return cls(
            client,
            dedupe_hours=settings.dedupe_hours,
            audit_days=settings.audit_days,
            lease_seconds=settings.lease_seconds,
            late_write_seconds=settings.late_write_seconds,
        )

    def accept(
        self,
        changes: Sequence[Change],
        *,
        undecoded: Sequence[Undecoded] = (),
        reconcile: Mapping[Source, str] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> Accepted:
        """Store what is new of a request, mark it as seen and make it due (B2.3)."""
        flat: list[object] = []
        for change in changes:
            urgent = int(change.aspect in URGENT_ASPECTS)
            stored = codec.encode_change(change).decode()
            flat += (change.record.mailbox, change.identity or "", urgent, stored)
        letters = [_undecoded_letter(item) for item in undecoded]
        packed = _pack(
            [
                FULL_SHARE,
                self._dedupe_ms,
                WAKE_GRACE_MS,
                flat,
                letters,
                _flat(reconcile),
                _flat(counts),
            ]
        )
        with store_errors():
            accepted, duplicates, *wake = self._accept(args=[packed])
        return Accepted(accepted, duplicates, wake)

    def claim(self, mailbox: str) -> Claim | None:
        """Lease a due mailbox; None if it is empty, not due, or held by another worker.

        Raises codec.NewerFormat, with the lease given back, if it holds a change that only a
        newer version can read (B10.5).
        """
        token = secrets.token_hex(8)
        with store_errors():
            answer = self._claim(args=[mailbox, token, self._lease_ms])
        if answer[0] != "claimed":
            return None
        claim = Claim(mailbox, token, [], 0, [], {}, None, None)
        try:
            _read_claim(claim, *(_pairs(part) for part in answer[2:]))
        except codec.NewerFormat:
            self.postpone(claim, seconds=UNREADABLE_SECONDS, failures=claim.failures)
            raise
        return claim

    def hold(
        self, claim: Claim, customers: Iterable[int], *, to_write: int | None = None
    ) -> int | None:
        """Take or renew the lease of the mailbox and of these customers, all or none (B5.3).

        `to_write` is the customer that is written next; it is suspect until the answer is there.
        Gives the store's clock in microseconds, or None while another mailbox holds one of the
        customers. Raises LeaseLost.
        """
        wanted = tuple(sorted(customers))
        fixed = [claim.mailbox, claim.token, self._lease_ms, self._late_write_ms, to_write or ""]
        with store_errors():
            held = self._hold(args=[*fixed, *wanted])
        if held == -1:
            raise LeaseLost(claim.mailbox)
        if held == 0:
            return None
        claim.customers = wanted
        return int(held)

    def settle(self, claim: Claim, settlement: Settlement) -> int:
        """Give the claimed changes their outcomes and let go of the mailbox (B6.8).

        Gives the number of changes that came meanwhile. Raises LeaseLost; raises Suspect, with
        nothing settled, while an unanswered write may yet land on one of the customers (B5.3).
        """
        verdicts = list(settlement.all_verdicts())
        satisfied = {v.pending.change.aspect for v in verdicts if v.satisfies}
        buried = {burial.aspect for burial in settlement.burials}
        ended = {v.pending.change.aspect for v in verdicts} - satisfied - buried
        packed = _pack(
            [
                [_audit_line(verdict) for verdict in verdicts],
                _marks(claim, verdicts),
                sorted(satisfied),
                sorted(ended),
                [_letter(claim.mailbox, burial) for burial in settlement.burials],
                [str(customer) for customer in claim.customers],
                list(Reason),
                _flat(Counter(f"settled|{verdict.outcome}" for verdict in verdicts)),
                settlement.answer_lost,
            ]
        )
        with store_errors():
            left, suspect_ms = self._settle(
                args=[claim.mailbox, claim.token, WAKE_GRACE_MS, self._audit_days, packed]
            )
        if left == -1:
            raise LeaseLost(claim.mailbox)
        if left == -2:
            raise Suspect(suspect_ms / 1000)
        return int(left)

    def postpone(
        self, claim: Claim, *, seconds: float, failures: int, answer_lost: bool = False
    ) -> None:
        """Put the mailbox back for later, with `failures` steps of the schedule used up.

        `answer_lost` tells that a write was sent and not answered. Raises LeaseLost.
        """
        attempts = codec.encode_attempts(claim.attempts[-KEPT_ATTEMPTS:])
        delay = max(0, round(seconds * 1000))
        lost = "1" if answer_lost else ""
        fixed = [claim.mailbox, claim.token, delay, failures, attempts, lost]
        with store_errors():
            due = self._postpone(args=[*fixed, *claim.customers])
        if due == -1:
            raise LeaseLost(claim.mailbox)

    def count(self, metric: str, n: int = 1) -> None:
        """Count `n` more of something for the metrics: `NAME` or `NAME|LABEL|LABEL`."""
        with store_errors():
            self._client.hincrby("sw:count", metric, n)

    def check_writable(self) -> None:
        """Find out whether changes could be accepted now. Raises StoreError if not."""
        with store_errors():
            self._client.set("sw:probe", "1", px=1000)
            memory = self._client.info("memory")
        limit = memory["maxmemory"]
        if limit and memory["used_memory"] > FULL_SHARE * limit:
            raise StoreFull

    def wake(self, limit: int) -> list[str]:
        """Name up to `limit` due mailboxes that nobody has woken (B6.7)."""
        with store_errors():
            return list(self._wake(args=[limit, WAKE_GRACE_MS]))


def _read_claim(
    claim: Claim, box: dict[str, str], work: dict[str, str], marks: dict[str, str]
) -> None:
    """Fill a claim from the store. Raises codec.NewerFormat for what this version cannot read."""
    with codec.newer_format(claim.mailbox):
        claim.failures = int(work.get("failures", 0))
        claim.attempts = codec.decode_attempts(work.get("attempts"))
        known = {aspect: marks[aspect] for aspect in Aspect if aspect in marks}
        claim.watermarks = {aspect: int(at) for aspect, at in known.items()}
        claim.last_claim = marks[CLAIM].removeprefix("=") if CLAIM in marks else None
        claim.ended_at = int(marks[ENDED]) if ENDED in marks else None
        claim.pending = [
            codec.decode_pending(seq, stored)
            for seq, stored in sorted(box.items(), key=lambda item: int(item[0]))
        ]


def _flat(mapping: Mapping[Any, Any] | None) -> list[Any]:
    return [part for pair in (mapping or {}).items() for part in pair]


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _undecoded_letter(item: Undecoded) -> dict[str, object]:
    stored = msgspec.json.encode({"source": item.source, "raw": item.raw}).decode()
    return {
        "reason": Reason.UNDECODABLE,
        "aspect": "",
        "mailbox": "",
        "digest": f"{item.source}:{item.digest}",
        "source": item.source,
        "message": item.message,
        "next_step": "Mend what the sender sends and have it send this again.",
        "customer_ids": "[]",
        "attempts": [],
        "evidence": "0",
        "change": f"raw:{stored}",
    }


def _letter(mailbox: str, burial: Burial) -> dict[str, object]:
    return {
        "reason": burial.reason,
        "aspect": burial.aspect,
        "mailbox": mailbox,
        "source": burial.pending[0].change.record.source,
        "message": burial.message,
        "next_step": burial.next_step,
        "customer_ids": msgspec.json.encode(burial.customers).decode(),
        "attempts": [codec.encode_attempt(one) for one in burial.attempts],
        "evidence": str(int(burial.evidence)),
        "seqs": [str(pending.seq) for pending in burial.pending],
    }


def _audit_line(verdict: Verdict) -> list[str]:
    pending, change = verdict.pending, verdict.pending.change
    detail = verdict.detail
    if pending.clock_doubted:
        detail = f"{detail}; clock" if detail else "clock"
    return [
        str(pending.seq),
        *("seq", str(pending.seq)),
        *("record", change.record.mailbox),
        *("kind", change.kind),
        *("aspect", change.aspect),
        *("occurred_at", str(pending.occurred_at)),
        *("received_at", str(pending.received_at)),
        *("outcome", verdict.outcome),
        *("detail", detail),
        *("customer_ids", msgspec.json.encode(verdict.customers).decode()),
        *("request_id", change.request_id or ""),
        *("replay_id", change.replay_id or ""),
    ]


def _marks(claim: Claim, verdicts: Iterable[Verdict]) -> list[str]:
    """Watermarks and the last claim, as far as these outcomes move them (B3.8)."""
    flat: list[str] = []
    newest: dict[Aspect, Pending] = {}
    for verdict in verdicts:
        pending, aspect = verdict.pending, verdict.pending.change.aspect
        if verdict.outcome not in DECIDED:
            continue
        if pending.occurred_at < claim.watermarks.get(aspect, pending.occurred_at):
            continue
        best = newest.get(aspect)
        if best is None or (pending.occurred_at, pending.seq) > (best.occurred_at, best.seq):
            newest[aspect] = pending
    for aspect, pending in newest.items():
        flat += (aspect, str(pending.occurred_at))
        if aspect is Aspect.LINK:
            flat += (CLAIM, f"={claimed_value(pending.change)}")
        if pending.change.kind is Kind.DELETED:
            flat += (ENDED, str(max(pending.occurred_at, claim.ended_at or 0)))
    return flat
