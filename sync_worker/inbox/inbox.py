"""The steps on mailboxes, each one Lua script (the key schema is in the package's docstring)."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import msgspec
import redis

from sync_worker.domain import (
    SATISFIED,
    URGENT_ASPECTS,
    Aspect,
    Attempt,
    Change,
    Kind,
    Marks,
    Outcome,
    Pending,
    Reason,
    Record,
    Slot,
    SlotState,
    Source,
)
from sync_worker.inbox import codec, scripts
from sync_worker.inbox.reserve import Exhausted, Priority, Reserve
from sync_worker.settings import Settings
from sync_worker.store import FULL_SHARE, StoreFull, store_errors

log = logging.getLogger(__name__)

HOUR_MS = 3_600_000

WAKE_GRACE_MS = 15_000
"""How long a wake-up may be under way before beat sends another. With beat's own period it stays
under the 30 s in which due work must be woken (B6.7)."""

KEPT_ATTEMPTS = 50
"""Calls kept of one mailbox: the whole retry schedule with room to spare."""

FREED_BY_OTHERS = frozenset({Reason.CONFLICT, Reason.UNLATCH_UNSUPPORTED})
"""Dead letters that are judged again once the slot that is in the way is seen to be free."""

ALIAS_MS = 100 * 24 * HOUR_MS
"""How long the ids that were merged into a record are remembered to be it (B3.12)."""

TURN_MS = 2_000
"""How soon a mailbox is woken again that has to wait until another one was worked on alone."""

HELD_SECONDS = 3600.0
"""How soon a mailbox that the brake holds is looked at again; approving wakes it."""

UNREADABLE_SECONDS = 60
"""How soon a mailbox that only a newer version can read is looked at again (B10.5)."""

SweepWanted = Literal["", "asked", "refused"]
"""Whether a mailbox waits for a sweep, or even because Fusebill refused what only one explains."""

_NO_CUSTOMERS: tuple[int, ...] = ()
_pack = msgspec.msgpack.Encoder().encode


class Suspect(Exception):
    """A write that was not answered may yet land on a customer; `seconds` says for how long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a write may yet land for {seconds:.1f} s")
        self.seconds = seconds


class Braking(Enum):
    """What the brake says of releases (B5.10)."""

    FREE = "free"
    HELD = "held"
    DISCARDED = "discarded"

    def __bool__(self) -> bool:
        """Whether they may be made."""
        return self is Braking.FREE


_BRAKING = {1: Braking.FREE, 0: Braking.HELD, 2: Braking.DISCARDED}


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
class Intent:
    """A write that is about to be sent: what the history says once it is seen to have arrived."""

    customer: int
    because: str
    """The mailbox and the number of the change that brought it about."""
    slots: dict[str, str]
    """What each slot will hold, "" for nothing."""
    replaces: frozenset[str] = frozenset()
    """The slots in which another record is displaced (B5.5)."""
    undo: str = ""
    """How to put back what the plan lets go of (B5.2)."""

    def as_json(self) -> str:
        """As the store keeps it."""
        replaces = dict.fromkeys(self.replaces, True)
        form = {"because": self.because, "slots": self.slots, "replaces": replaces}
        return msgspec.json.encode(form).decode()


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a request's changes."""

    accepted: int
    duplicates: int
    wake: list[str]
    """Mailboxes that became due and that nobody is awake for."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What somebody has read of a customer, in this convergence or in another one (B7.4)."""

    slots: dict[Slot, str | SlotState]
    sent_at: int
    """When its request was sent (us, store's clock)."""


@dataclass(frozen=True, slots=True)
class Held:
    """The leases are taken or renewed, and the calls that follow are reserved."""

    at: int
    """The store's clock in microseconds."""
    calls: range = range(0)
    """The calls that were reserved."""
    snapshots: dict[int, Snapshot] = field(default_factory=dict)
    """By customer, of those that were to be read."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Customers that are to be read."""

    account: str
    """That of the link index."""
    customers: tuple[int, ...]
    since: int
    """A snapshot will do if its request was sent then or later (us, store's clock) ..."""
    oldest_us: int
    """... and not longer ago than this."""


@dataclass(slots=True)
class Claims:
    """What became of mailboxes that were to be claimed."""

    taken: list[Claim] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    """Those that are to be worked on alone (B6.6)."""
    poor: list[str] = field(default_factory=list)
    """Those that there is no budget for."""
    seconds: float = 0
    """How long until there may be budget for one of them."""
    calls: list[int] = field(default_factory=list)
    """The calls that were reserved for all that was taken."""


@dataclass(slots=True)
class Joined:
    """A mailbox held beside the one that was claimed, with what it held at that moment."""

    mailbox: str
    pending: list[Pending]
    marks: Marks
    merged: tuple[str, ...]
    """The mailboxes of all that was merged into the record that is left."""
    survivor: str
    """The mailbox of the record that is left; its own if the record was not merged."""
    due_before: str
    """When it was due, in ms; "" if it was empty."""


@dataclass(slots=True)
class Claim:
    """A mailbox held by this worker, with what it held at that moment."""

    mailbox: str
    token: str
    pending: list[Pending] = field(default_factory=list)
    marks: Marks = field(default_factory=Marks)
    now: int = 0
    """The store's clock at that moment, in ms."""
    failures: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    survivor: str = ""
    """The mailbox of the record that is left; its own if the record was not merged."""
    merged: tuple[str, ...] = ()
    """The mailboxes of all that was merged into that."""
    definitions: frozenset[str] = frozenset()
    """Salesforce message definitions that were seen carrying the link field (B3.2)."""
    replayed_at: int = 0
    """When a replay put changes back (ms); 0 if none did."""
    refused_at: int = 0
    """When Fusebill refused a latch that only a sweep can explain (ms); 0 if it did not."""
    undo: str = ""
    """How to put back what an earlier try let go of (B5.2)."""
    crashes: tuple[int, ...] = ()
    """When workers vanished while they worked on this mailbox alone (ms) (B6.6)."""
    customers: tuple[int, ...] = _NO_CUSTOMERS
    """The customers that are leased with it."""
    leased_at: dict[int, int] = field(default_factory=dict)
    """Since when each of them is (us, store's clock)."""
    joined: dict[str, Joined] = field(default_factory=dict)
    """The mailboxes that are leased with it."""

    def boxes(self) -> Iterable[tuple[str, list[Pending]]]:
        """What each mailbox held when it was taken."""
        yield self.mailbox, self.pending
        yield from ((one.mailbox, one.pending) for one in self.joined.values())

    @property
    def mailboxes(self) -> list[str]:
        """Every mailbox that is held, the one that was claimed first."""
        return [self.mailbox, *self.joined]

    @property
    def priority(self) -> Priority:
        """Whose calls come first: what only a replay put back is no live change (B7.3)."""
        replayed = all(one.change.replay_id is not None for one in self.pending)
        return Priority.REPLAY if replayed else Priority.LIVE

    @property
    def received_at(self) -> int:
        """When the newest change of all that is held was received, or put back by a replay (ms)."""
        received = [one.received_at for _, box in self.boxes() for one in box]
        return max([self.replayed_at, *received])


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one change (B5.8)."""

    pending: Pending
    outcome: Outcome
    detail: str = ""
    customers: tuple[int, ...] = _NO_CUSTOMERS
    unmet: bool = False
    """It is settled although what it says is not true: older dead letters stay open."""

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
    mailbox: str | None = None
    """The record's, where its changes came under a merged id; None: that of the changes."""


@dataclass(slots=True)
class Settlement:
    """The end of a convergence: every claimed change is in at most one list, and what is in none
    stays in its mailbox.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    burials: list[Burial] = field(default_factory=list)
    answer_lost: bool = False
    """The last write was not answered: its customer stays suspect (B5.3)."""
    satisfied: dict[str, set[Aspect]] = field(default_factory=dict)
    """Mailbox -> the aspects that are true now; one that is not named: as its verdicts tell."""
    marks: dict[str, Marks] = field(default_factory=dict)
    """Mailbox -> what is to be remembered of its record."""
    dry_run: bool = False
    """Nothing is written, and what would have been is kept (B5.9)."""
    later: float = 0
    """Seconds until what stays in the mailbox is due again."""

    def all_verdicts(self) -> Iterable[Verdict]:
        """The outcomes, those of buried changes included."""
        yield from self.verdicts
        for burial in self.burials:
            for pending in burial.pending:
                # The reason alone: the message may quote what stands in the record (B10.3).
                yield Verdict(pending, Outcome.DEAD_LETTER, burial.reason, burial.customers)


def new_token() -> str:
    """A token for a lease."""
    return secrets.token_hex(8)


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
        self._leave = scripts.load(client, "leave")
        self._join = scripts.load(client, "join")
        self._brake = scripts.load(client, "brake")
        self._merge = scripts.load(client, "merge")

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
        columns = (
            [one.record.mailbox for one in changes],
            [one.identity or "" for one in changes],
            [one.aspect in URGENT_ASPECTS for one in changes],
            [codec.encode_change(one).decode() for one in changes],
        )
        packed = _pack(
            [
                FULL_SHARE,
                self._dedupe_ms,
                WAKE_GRACE_MS,
                columns,
                [_undecoded_letter(item) for item in undecoded],
                _flat(reconcile),
                _flat(counts),
                _merges(changes),
                ALIAS_MS,
                _definitions(changes),
            ]
        )
        with store_errors():
            accepted, duplicates, *wake = self._accept(args=[packed])
        return Accepted(accepted, duplicates, wake)

    def claim(self, mailbox: str, gates: Iterable[str] = ()) -> Claim | None:
        """Lease a due mailbox; None if it is empty, not due, held by another worker, if one of
        these gates is shut (B6.3), or if it waits for its turn to be worked on alone (B6.6).
        """
        claims = self.claim_all({mailbox: gates}, alone=True)
        return claims.taken[0] if claims.taken else None

    def claim_all(
        self,
        mailboxes: Mapping[str, Iterable[str]],
        *,
        alone: bool = False,
        budget: Sequence[object] = (),
        calls: int = 0,
        tokens: Mapping[str, str] | None = None,
    ) -> Claims:
        """Lease those of these mailboxes that are due and free, in this order, and as many as
        there is budget for, with so many calls reserved for each (B7.2).

        The mailboxes come with the gates that each must pass (B6.3). `alone` tells that the caller
        works on nothing else, so that it may take what is to be worked on alone (B6.6).
        What only a newer version can read is put back for that (B10.5). With the same `tokens` it
        may be asked again if the answer was lost.
        """
        tokens = tokens or {mailbox: new_token() for mailbox in mailboxes}
        wanted = [[name, tokens[name], list(gates)] for name, gates in mailboxes.items()]
        packed = _pack([self._lease_ms, TURN_MS, alone, budget, calls, wanted])
        with store_errors():
            now, wait_ms, definitions, reserved, answers = self._claim(args=[packed])
        claims = Claims(seconds=wait_ms / 1000)
        for first, count in zip(reserved[::2], reserved[1::2], strict=True):
            claims.calls += range(first, first + count)
        for mailbox, answer in zip(mailboxes, answers, strict=True):
            token = tokens[mailbox]
            if answer[0] == "alone":
                claims.alone.append(mailbox)
            elif answer[0] == "poor":
                claims.poor.append(mailbox)
            elif answer[0] == "claimed":
                claim = Claim(mailbox, token, now=int(now), definitions=frozenset(definitions))
                if self._read_or_leave(claim, answer):
                    claims.taken.append(claim)
        return claims

    def _read_or_leave(self, claim: Claim, answer: list[Any]) -> bool:
        try:
            _read_claim(claim, answer)
        except codec.NewerFormat as error:
            log.warning("left for a newer version: %s", error, extra={"mailbox": claim.mailbox})
            self.postpone(claim, seconds=UNREADABLE_SECONDS, failures=claim.failures)
            return False
        return True

    def join(self, claim: Claim, mailboxes: Iterable[str]) -> bool:
        """Hold further mailboxes beside the claimed one, due or not, all or none (B5.3).

        False while another worker holds one of them. Raises LeaseLost, and codec.NewerFormat
        with all of them held.
        """
        wanted = [one for one in mailboxes if one not in claim.mailboxes]
        if not wanted:
            return True
        with store_errors():
            answer = self._join(args=[claim.mailbox, claim.token, self._lease_ms, *wanted])
        if answer[0] == "lost":
            raise LeaseLost(claim.mailbox)
        if answer[0] == "busy":
            return False
        for mailbox, due, box, _work, marks, survivor, merged in answer[2:]:
            joined = Joined(mailbox, [], Marks(), tuple(merged), survivor, due)
            claim.joined[mailbox] = joined
            joined.pending = _read_box(mailbox, _pairs(box))
            joined.marks = _read_marks(mailbox, _pairs(marks))
        return True

    def note_merge(self, merged: Record, survivor: Record) -> None:
        """Remember that a record was merged into another, as its CRM says (B3.12)."""
        with store_errors():
            self._merge(args=[merged.mailbox, survivor.mailbox, ALIAS_MS])

    def hold(
        self,
        claim: Claim,
        customers: Iterable[int],
        *,
        to_write: Intent | None = None,
        reading: Reading | None = None,
        reserve: Reserve | None = None,
    ) -> Held | None:
        """Take or renew the leases of the mailboxes and of these customers, all or none (B5.3).

        `to_write` is the write that comes next; its customer is suspect until the answer is there.
        `reading` tells which customers are to be read: snapshots of them are given where there are.
        `reserve` has the calls reserved that follow (B7.2).
        None while another mailbox holds one of the customers. Raises LeaseLost; Exhausted, with
        nothing taken, if there is no budget.
        """
        wanted = tuple(sorted(customers))
        write = [str(to_write.customer), to_write.as_json(), to_write.undo] if to_write else []
        packed = _packed_hold(claim, wanted, write, reading, _packed_reserve(reserve))
        with store_errors():
            ((at, *more),) = self._hold(args=[self._pack_holds([packed])])
        if at == -1:
            raise LeaseLost(claim.mailbox)
        if at == -2:
            raise Exhausted(more[0] / 1000)
        return _read_hold(claim, wanted, at, more)

    def hold_each(self, wanted: Iterable[tuple[Claim, Reading]]) -> list[Held | None]:
        """For each claim take the leases of the customers that it is to read, all or none.

        None where they cannot be taken, for whatever reason: `hold` tells it.
        """
        pairs = list(wanted)
        packed = [_packed_hold(one, tuple(sorted(r.customers)), [], r, []) for one, r in pairs]
        with store_errors():
            answers = self._hold(args=[self._pack_holds(packed)])
        return [
            _read_hold(claim, tuple(sorted(reading.customers)), at, more) if at > 0 else None
            for (claim, reading), (at, *more) in zip(pairs, answers, strict=True)
        ]

    def _pack_holds(self, packed: list[list[Any]]) -> bytes:
        return _pack([self._lease_ms, self._late_write_ms, packed])

    def brake(self, claim: Claim, releases: Sequence[tuple[int, str]], *, limit: int) -> Braking:
        """Count releases against the brake, unless they are held or were ruled on (B5.10).

        Raises LeaseLost.
        """
        record = claim.pending[0].change.record if claim.pending else None
        held = {
            "record": claim.survivor,
            "customer_id": releases[0][0],
            "slot": record.slot if record else "",
        }
        names = [f"{claim.mailbox}|{customer}|{id_}" for customer, id_ in releases]
        fixed = [claim.mailbox, claim.token, limit, msgspec.json.encode(held).decode()]
        with store_errors():
            allowed = self._brake(args=[*fixed, *names])
        if allowed == -1:
            raise LeaseLost(claim.mailbox)
        return _BRAKING[int(allowed)]

    def settle(self, claim: Claim, settlement: Settlement) -> int:
        """Give the claimed changes their outcomes and let go of the mailboxes (B6.8).

        Gives the number of changes that the claimed one still holds. Raises LeaseLost; raises
        Suspect, with nothing settled, while an unanswered write may yet land on one of the
        customers (B5.3).
        """
        verdicts = list(settlement.all_verdicts())
        packed = _pack(
            [
                [_box(claim, settlement, mailbox, verdicts) for mailbox in claim.mailboxes],
                [_letter(claim, burial) for burial in settlement.burials],
                [str(customer) for customer in claim.customers],
                list(Reason),
                list(Aspect),
                _flat(Counter(f"settled|{verdict.outcome}" for verdict in verdicts)),
                settlement.answer_lost,
                settlement.dry_run,
                max(0, round(settlement.later * 1000)),
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
        self,
        claim: Claim,
        *,
        seconds: float,
        failures: int,
        answer_lost: bool = False,
        notes: Mapping[str, str] | None = None,
        sweep: SweepWanted = "",
    ) -> None:
        """Put the mailbox back for later, with `failures` steps of the schedule used up.

        `answer_lost` tells that a write was sent and not answered; `notes` are fields of `sw:work`
        to set, or with "" to remove. With `sweep` it is woken once all customers were swept (B4.5).
        Raises LeaseLost.
        """
        packed = _pack(
            [
                claim.mailbox,
                claim.token,
                max(0, round(seconds * 1000)),
                failures,
                codec.encode_attempts(claim.attempts[-KEPT_ATTEMPTS:]),
                answer_lost,
                [str(customer) for customer in claim.customers],
                [part for one in claim.joined.values() for part in (one.mailbox, one.due_before)],
                _flat(notes),
                sweep,
            ]
        )
        with store_errors():
            due = self._postpone(args=[packed])
        if due == -1:
            raise LeaseLost(claim.mailbox)

    def refused(self, customer: int) -> None:
        """Forget a write that was refused for good: the same again would be another hand's."""
        with store_errors():
            self._client.delete(f"sw:intent:{customer}")

    def count(self, metric: str, n: int = 1) -> None:
        """Count `n` more of something for the metrics: `NAME` or `NAME|LABEL|LABEL`."""
        with store_errors():
            self._client.hincrby("sw:count", metric, n)

    def leave(self, mailboxes: Sequence[str]) -> None:
        """Have `wake` name these again at once: nobody was woken for them after all."""
        if mailboxes:
            with store_errors():
                self._leave(args=list(mailboxes))

    def note_tick(self) -> None:
        """Note that a worker has taken a tick of beat: both are there and work."""
        with store_errors():
            self._client.set("sw:ticked", self._client.time()[0])

    def check_writable(self) -> None:
        """Find out whether changes could be accepted now. Raises StoreError if not."""
        with store_errors():
            self._client.set("sw:probe", "1", px=1000)
            memory = self._client.info("memory")
        limit = memory["maxmemory"]
        if limit and memory["used_memory"] > FULL_SHARE * limit:
            raise StoreFull

    def wake(
        self, limit: int, gates: Iterable[str] = (), *, replays: int | None = None
    ) -> tuple[list[str], list[str]]:
        """Name up to `limit` due mailboxes that nobody has woken (B6.7), those included that were
        parked at one of these gates if that is open again (B6.3).

        Gives those with live changes, and at most `replays` of those that only a replay put back,
        which come after all others (B7.3).
        """
        most = limit if replays is None else replays
        with store_errors():
            live, replayed = self._wake(args=[limit, most, WAKE_GRACE_MS, *gates])
        return live, replayed


def _packed_hold(
    claim: Claim,
    customers: tuple[int, ...],
    write: list[str],
    reading: Reading | None,
    calls: list[Any],
) -> list[Any]:
    return [
        claim.mailboxes,
        claim.token,
        [str(one) for one in customers],
        [str(one) for one in claim.customers],
        write,
        [reading.account, reading.since, reading.oldest_us, *reading.customers] if reading else [],
        calls,
    ]


def _read_hold(claim: Claim, customers: tuple[int, ...], at: int, more: list[Any]) -> Held | None:
    if at == 0:
        return None
    claim.customers = customers
    claim.leased_at = {one: claim.leased_at.get(one, at) for one in customers}
    first, count, snapshots = more
    return Held(at, range(first, first + count), dict(map(_read_snapshot, snapshots)))


def _packed_reserve(reserve: Reserve | None) -> list[Any]:
    if reserve is None:
        return []
    return [
        reserve.budget,
        reserve.priority,
        reserve.beside_reads,
        reserve.in_hand,
        reserve.for_long,
    ]


def _read_snapshot(stored: list[Any]) -> tuple[int, Snapshot]:
    customer, at, *ids = stored
    slots = {slot: id_ or SlotState.EMPTY for slot, id_ in zip(Slot, ids, strict=True)}
    return int(customer), Snapshot(slots, int(at))


def _read_claim(claim: Claim, answer: list[Any]) -> None:
    """Fill a claim from the store. Raises codec.NewerFormat for what this version cannot read."""
    box, work, marks = (_pairs(part) for part in answer[1:4])
    with codec.newer_format(claim.mailbox):
        claim.failures = int(work.get("failures", 0))
        claim.attempts = codec.decode_attempts(work.get("attempts"))
        claim.replayed_at = int(work.get("replayed_at", 0))
        claim.refused_at = int(work.get("refused_at", 0))
        claim.crashes = tuple(int(at) for at in work.get("crashes", "").split())
    claim.undo = work.get("undo", "")
    claim.survivor, claim.merged = answer[4], tuple(answer[5])
    claim.marks = _read_marks(claim.mailbox, marks)
    claim.pending = _read_box(claim.mailbox, box)


def _read_box(mailbox: str, box: dict[str, str]) -> list[Pending]:
    with codec.newer_format(mailbox):
        return [
            codec.decode_pending(seq, stored)
            for seq, stored in sorted(box.items(), key=lambda item: int(item[0]))
        ]


def _read_marks(mailbox: str, stored: dict[str, str]) -> Marks:
    with codec.newer_format(mailbox):
        return codec.decode_marks(stored)


def _definitions(changes: Iterable[Change]) -> list[str]:
    """The Salesforce message definitions that are seen carrying the link field (B3.2)."""
    return sorted(
        {
            one.definition
            for one in changes
            if one.definition and one.aspect is Aspect.LINK and not one.left_out
        }
    )


def _merges(changes: Iterable[Change]) -> list[str]:
    """Flat: mailbox of a record that was merged, mailbox of the one that is left, ..."""
    flat: list[str] = []
    for change in changes:
        if change.merged_ids and change.kind is Kind.MERGED:
            for merged in change.merged_ids:
                record = msgspec.structs.replace(change.record, id=merged)
                flat += (record.mailbox, change.record.mailbox)
    return flat


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
        "change": f"raw:{stored}",
    }


def _letter(claim: Claim, burial: Burial) -> dict[str, object]:
    record = burial.pending[0].change.record
    lies_in = {one.seq: mailbox for mailbox, box in claim.boxes() for one in box}
    blocked_by = []
    if burial.reason in FREED_BY_OTHERS:
        blocked_by = [f"{record.slot}:{customer}" for customer in burial.customers]
    return {
        "reason": burial.reason,
        "aspect": burial.aspect,
        "mailbox": burial.mailbox or record.mailbox,
        "source": record.source,
        "message": burial.message,
        "next_step": burial.next_step,
        "customer_ids": msgspec.json.encode(burial.customers).decode(),
        "attempts": [codec.encode_attempt(one) for one in burial.attempts],
        "changes": [
            part
            for pending in burial.pending
            for part in (lies_in.get(pending.seq, claim.mailbox), str(pending.seq))
        ],
        "blocked_by": blocked_by,
    }


def _box(
    claim: Claim, settlement: Settlement, mailbox: str, verdicts: Iterable[Verdict]
) -> list[object]:
    """What becomes of one mailbox, as settle.lua takes it."""
    joined = claim.joined.get(mailbox)
    held = joined or claim
    # By where it lies, not by its record: a replayed change may lie in what is left of a merge.
    seqs = {pending.seq for pending in held.pending}
    mine = [one for one in verdicts if one.pending.seq in seqs]
    satisfied = {v.pending.change.aspect for v in mine if v.satisfies}
    satisfied = settlement.satisfied.get(mailbox, satisfied)
    buried = {burial.aspect for burial in settlement.burials}
    ended = {v.pending.change.aspect for v in mine} - satisfied - buried
    marks, forgotten = codec.changed_marks(held.marks, settlement.marks.get(mailbox, held.marks))
    return [
        mailbox,
        joined.due_before if joined else "",
        [_audit_line(verdict, dry_run=settlement.dry_run) for verdict in mine],
        marks,
        forgotten,
        sorted(satisfied),
        sorted(ended),
        len(held.pending) - len(mine),
    ]


def _audit_line(verdict: Verdict, *, dry_run: bool) -> list[str]:
    pending, change = verdict.pending, verdict.pending.change
    detail = verdict.detail
    if pending.clock_doubted:
        detail = f"{detail}; clock" if detail else "clock"
    return [
        str(pending.seq),
        verdict.outcome if dry_run and verdict.outcome is not Outcome.STALE else "",
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
