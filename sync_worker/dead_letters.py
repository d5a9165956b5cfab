"""What needs a person: reading, discarding and exporting dead letters (B6.9, B8.1).

They are written by the inbox's scripts.

Kept until resolved (B10.2). One that was discarded keeps why, which record and customers, and when;
what its changes said is gone.
"""

from __future__ import annotations

import base64
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import redis

from sync_worker.domain import Attempt, Pending, Reason, Source, salesforce_id_18
from sync_worker.inbox import codec, scripts
from sync_worker.status import iso
from sync_worker.store import store_errors

PAGE = 100
"""Dead letters read in one round trip."""

OPEN = "open"
REPLAYING = "replaying"
DISCARDED = "discarded"

WAITING = frozenset({OPEN, REPLAYING})
EVERY_STATE = WAITING | {"superseded", "resolved", DISCARDED}

BULK_ROWS = 5000
"""Rows that Fusebill's bulk job takes at most (B5.6)."""

BULK_COLUMNS = ("FusebillId", "TargetSalesforceID")
"""Headings of the job *Customer, Manage Salesforce*. Its page calls the one of the customer's id
"Fusebill ID / Stax Bill ID" and does not spell it out; this spelling was seen in practice."""

BULK_CLEAR = "clear"
"""The word that unlinks."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Something that is left as it is, and why."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter; times are milliseconds since the epoch."""

    id: str
    reason: str
    """One of `domain.Reason`, or of a newer version's."""
    state: str
    """`open`, `replaying`, `superseded`, `resolved` or `discarded`."""
    source: Source
    aspect: str
    mailbox: str
    """"" for a body that never became a change."""
    customer_ids: tuple[int, ...]
    message: str
    next_step: str
    attempts: tuple[Attempt, ...]
    first_failed_at: int
    last_failed_at: int
    changes: tuple[Pending, ...]
    raw: bytes | None
    """The body of an undecodable one."""
    newer_changes: int
    """How many of its changes are stored in a format this version cannot read (B10.5)."""

    def as_json(self) -> dict[str, Any]:
        """The form of B8.1."""
        return {
            "id": self.id,
            "reason": self.reason,
            "state": self.state,
            "source": self.source,
            "record": self.mailbox or None,
            "aspect": self.aspect or None,
            "customer_ids": self.customer_ids,
            "message": self.message,
            "next_step": self.next_step,
            "attempts": [
                {"at": iso(a.at), "call": a.call, "status": a.status, "error": a.error}
                for a in self.attempts
            ],
            "first_failed_at": iso(self.first_failed_at),
            "last_failed_at": iso(self.last_failed_at),
            "changes": [_change(pending) for pending in self.changes],
            "body": _text(self.raw),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which dead letters; what is None matches all (B6.11)."""

    ids: frozenset[str] = frozenset()
    reason: str | None = None
    source: str | None = None
    record: str | None = None
    """A mailbox name or a bare id (B8.2)."""
    customer: int | None = None
    since: int | None = None
    until: int | None = None
    states: frozenset[str] = WAITING

    def matches(self, letter: DeadLetter) -> bool:
        """Whether a dead letter is meant."""
        return all(
            (
                not self.ids or letter.id in self.ids,
                letter.state in self.states,
                self.reason in (None, letter.reason),
                self.source in (None, letter.source),
                self.record is None or is_of(letter.mailbox, self.record),
                self.customer is None or self.customer in letter.customer_ids,
                self.since is None or letter.last_failed_at >= self.since,
                self.until is None or letter.last_failed_at < self.until,
            )
        )


def is_of(mailbox: str, record: str) -> bool:
    """Whether a mailbox is the one named, or holds the record of that bare id (B8.2)."""
    bare = mailbox.split(":", 3)[-1]
    if record in (mailbox, bare):
        return True
    try:
        return salesforce_id_18(record) == bare
    except ValueError:
        return False


def find(client: redis.Redis, wanted: Filter) -> Iterator[DeadLetter]:
    """The dead letters that match, oldest failure first. Raises StoreError."""
    key = "sw:dead:waiting" if wanted.states <= WAITING else "sw:dead:all"
    with store_errors():
        ids = sorted(wanted.ids) or [str(one) for one in client.zrange(key, 0, -1)]
    for start in range(0, len(ids), PAGE):
        for letter in _read(client, ids[start : start + PAGE]):
            if wanted.matches(letter):
                yield letter


def discard(client: redis.Redis, letters: Iterable[DeadLetter]) -> list[Skip]:
    """Close them without applying them; gives those that were not open (any more).

    Raises StoreError; what was discarded before that stays so.
    """
    script = scripts.load(client, "discard")
    discard_id = f"discard-{secrets.token_hex(4)}"
    left = []
    for letter in letters:
        with store_errors():
            state = script(args=[letter.id, discard_id])
        if state != OPEN:
            left.append(Skip(letter.id, f"it is {state or 'gone'}"))
    return left


def by_reason(letters: Iterable[DeadLetter]) -> Counter[str]:
    """How many there are of each reason."""
    return Counter(letter.reason for letter in letters)


@dataclass(frozen=True, slots=True)
class BulkJob:
    """The rows of Fusebill's bulk job that clear Salesforce slots (B5.6)."""

    customers: tuple[int, ...]
    skips: tuple[Skip, ...]
    """The letters whose customer is no longer as they say."""

    def files(self) -> list[list[tuple[str, str]]]:
        """The rows below the headings, no more to a file than the job takes."""
        rows = [(str(customer), BULK_CLEAR) for customer in self.customers]
        return [rows[start : start + BULK_ROWS] for start in range(0, len(rows), BULK_ROWS)]


def bulk_job(letters: Iterable[DeadLetter], held: Mapping[int, str]) -> BulkJob:
    """The customers to clear, each once.

    `held` is what their Salesforce slots held when they were last seen, "" for nothing. The job
    clears whatever it finds there, so a customer that holds another Account by now is left to a
    person.
    """
    customers: dict[int, None] = {}
    skips = []
    for letter in letters:
        if letter.reason != Reason.UNLATCH_UNSUPPORTED or letter.source is not Source.SALESFORCE:
            continue
        for customer in letter.customer_ids:
            now = held.get(customer)
            if now is None or now in _names(letter):
                customers[customer] = None
            elif now:
                skips.append(Skip(letter.id, f"customer {customer} holds {now} by now"))
            else:
                skips.append(Skip(letter.id, f"customer {customer} is clear already"))
    return BulkJob(tuple(sorted(customers)), tuple(skips))


def _names(letter: DeadLetter) -> set[str]:
    """Every id that the letter's record has or had (B3.12)."""
    changes = [pending.change for pending in letter.changes]
    merged = {id_ for change in changes for id_ in change.merged_ids}
    return {letter.mailbox.split(":", 3)[-1]} | {change.record.id for change in changes} | merged


def _read(client: redis.Redis, ids: list[str]) -> Iterator[DeadLetter]:
    pipeline = client.pipeline(transaction=False)
    for one in ids:
        pipeline.hgetall(f"sw:dead:{one}")
        pipeline.hgetall(f"sw:dead:{one}:changes")
        pipeline.lrange(f"sw:dead:{one}:attempts", 0, -1)
    with store_errors():
        answers = pipeline.execute()
    for one, fields, changes, attempts in zip(
        ids, answers[::3], answers[1::3], answers[2::3], strict=True
    ):
        if fields:
            yield _letter(one, fields, changes, attempts)


def _letter(
    one: str, fields: dict[str, str], stored: dict[str, str], attempts: list[str]
) -> DeadLetter:
    changes, raw, newer = [], None, 0
    for seq, text in sorted(stored.items(), key=lambda item: int(item[0])):
        if text.partition("|")[2].startswith("raw:"):
            raw = base64.b64decode(msgspec.json.decode(text.partition("raw:")[2])["raw"])
            continue
        try:
            changes.append(codec.decode_pending(seq, text))
        except codec.NewerFormat:
            newer += 1
    return DeadLetter(
        id=one,
        reason=fields["reason"],
        state=fields["state"],
        source=Source(fields["source"]),
        aspect=fields["aspect"],
        mailbox=fields["mailbox"],
        customer_ids=tuple(msgspec.json.decode(fields["customer_ids"], type=list[int])),
        message=fields["message"],
        next_step=fields["next_step"],
        attempts=tuple(codec.decode_attempt(text) for text in attempts),
        first_failed_at=int(fields["first_failed_at"]),
        last_failed_at=int(fields["last_failed_at"]),
        changes=tuple(changes),
        raw=raw,
        newer_changes=newer,
    )


def _change(pending: Pending) -> dict[str, Any]:
    change = pending.change
    return {
        "id": str(pending.seq),
        "kind": change.kind,
        "aspect": change.aspect,
        "occurred_at": iso(pending.occurred_at),
        "received_at": iso(pending.received_at),
        "customer_id": change.customer_id,
        "request_id": change.request_id,
        "raw": change.raw,
    }


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "backslashreplace")
