"""How things stand, in the form B8.1 gives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec
import redis

from sync_worker import durability, gates
from sync_worker.gates import REMOTES, Gate, Why
from sync_worker.inbox import scripts
from sync_worker.inbox.reserve import Priority
from sync_worker.store import READ_ONLY, now_ms, store_errors, unsafe_points

Windows = dict[str, dict[str, int]]
"""Of the `minute` and the `day`, the `limit` of calls to Fusebill and how many are `left`."""


class Owed(msgspec.Struct, frozen=True):
    """A source whose events could not tell what changed (B3.10)."""

    source: str
    since: str
    why: str


class Pause(msgspec.Struct, frozen=True):
    """Work that waits, and why."""

    owner: str
    why: str
    since: str


class Running(msgspec.Struct, frozen=True):
    """How far a sweep has come."""

    seen: int
    total: int | None


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """The sweeps of all customers, by which nobody is found to hold a record (B4.5)."""

    waiting: int
    """Mailboxes that wait for one."""
    last_begun: str | None
    last_ended: str | None
    customers: int | None
    """How many it saw."""
    running: Running | None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the store."""

    backlog: int
    """Mailboxes that owe work, those in back-off included."""
    oldest_due_seconds: float
    """How long the oldest of them has been due; 0 if none is."""
    ticked_seconds: float | None
    """How long ago a worker last took a tick of beat; None if none ever did. Beyond some seconds,
    one of both does not run."""
    dead_letters: dict[str, int]
    """Those that wait for a person, by reason."""
    breaker: dict[str, str]
    """`closed`, `open` or `half-open` for each remote system (B6.3)."""
    outages: list[Pause]
    """Why circuits are open, and which systems did not prove themselves lately (B6.1)."""
    paused: list[Pause]
    """What waits for a person: the owner is `operator`, or the remote system that refuses our
    credentials (B6.4)."""
    reconcile_owed: list[Owed]
    may_lose: str
    """What a power cut or a failover may take along of what was accepted; "" for nothing."""
    unsafe: list[str]
    """What makes the store unfit to hold changes, one sentence each."""
    budget: Windows
    """Calls that may still go; empty without an account."""
    releases_held: int
    """Mailboxes whose releases the brake holds until somebody approves them (B5.10)."""
    would: int
    """Changes that a dry run kept (B5.9)."""
    links: int | None
    """How many links are known, of records that customers hold; None without an account."""
    sweep: Sweep | None
    """None without an account."""


def read_status(
    client: redis.Redis, *, account: str | None = None, calls: tuple[int, int] | None = None
) -> Status:
    """Read it. Raises StoreError.

    `account` is the Fusebill account whose links, sweeps and budget are told of
    (`links.account_of`), `calls` what the settings allow it in a minute and a day.
    """
    told, doubts = gates.look(client), gates.doubts(client)
    unsafe, durable = unsafe_points(client), durability.read(client)
    with store_errors():
        now = now_ms(client)
        oldest = client.zrange("sw:due", 0, 0, withscores=True)
        owed = client.hgetall("sw:reconcile")
        ticked = client.get("sw:ticked")
        reasons = Counter(str(key).partition("|")[0] for key in client.hkeys("sw:dead:open"))
        return Status(
            backlog=client.zcard("sw:due"),
            oldest_due_seconds=max(0.0, (now - float(oldest[0][1])) / 1000) if oldest else 0.0,
            ticked_seconds=max(0.0, now / 1000 - float(ticked)) if ticked else None,
            dead_letters=dict(sorted(reasons.items())),
            breaker={gate.name: gate.breaker for gate in told if gate.name in REMOTES},
            outages=_outages(told, doubts),
            paused=_paused(told),
            reconcile_owed=[_owed(str(source), str(text)) for source, text in sorted(owed.items())],
            may_lose=durable.window,
            unsafe=[*unsafe, *([f"it is {READ_ONLY}"] if durable.read_only else [])],
            budget={} if account is None else read_budget(client, account, calls),
            releases_held=client.hlen("sw:held"),
            would=client.hlen("sw:would"),
            links=None if account is None else read_links(client, account),
            sweep=None if account is None else read_sweep(client, account),
        )


def read_links(client: redis.Redis, account: str) -> int:
    """How many links are known, of records that customers hold. Raises StoreError."""
    with store_errors():
        return int(client.hget(f"sw:index:{account}", "links") or 0)


def read_sweep(client: redis.Redis, account: str) -> Sweep:
    """How the sweeps of an account stand. Raises StoreError."""
    with store_errors():
        told = client.hgetall(f"sw:sweep:{account}")
        waiting = client.zcard("sw:sweep:waiting")
        # A sweeper that died has left its marks, but holds its lease no longer.
        runs = "running" in told and client.exists("sw:sweep:lease")
    begun, ended, customers, seen, total = (
        int(told[name]) if told.get(name) else None
        for name in ("begun", "ended", "customers", "seen", "total")
    )
    return Sweep(
        waiting=waiting,
        last_begun=None if begun is None else iso(begun),
        last_ended=None if ended is None else iso(ended),
        customers=customers,
        running=Running(seen or 0, total) if runs else None,
    )


def read_budget(client: redis.Redis, account: str, calls: tuple[int, int] | None = None) -> Windows:
    """How the budget of Fusebill calls stands, by our own log and what the headers told (B7.1).

    `calls` is what the settings allow in a minute and a day; without it, what those of a worker
    did that made calls last: nothing is told before. Raises StoreError.
    """
    with store_errors():
        if calls is None:
            minute, day = client.hmget(f"sw:budget:{account}", "per_minute", "per_day")
            if not minute or not day:
                return {}
            calls = int(minute), int(day)
        asked = [[account, *calls, 0, 0], Priority.LIVE, 0]
        _, *told = scripts.load(client, "outlook")(args=[msgspec.msgpack.encode(asked)])
    names = ("limit", "left")
    return {
        "minute": dict(zip(names, told[:2], strict=True)),
        "day": dict(zip(names, told[2:], strict=True)),
    }


def read_budgets(client: redis.Redis) -> dict[str, Windows]:
    """The same, of every account that calls were made to. Raises StoreError."""
    with store_errors():
        accounts = sorted(str(one) for one in client.smembers("sw:budgets"))
    return {account: read_budget(client, account) for account in accounts}


def read_counters(client: redis.Redis) -> dict[str, int]:
    """Everything counted since the store began: `NAME` or `NAME|LABEL|LABEL` -> how many."""
    with store_errors():
        return {str(name): int(n) for name, n in client.hgetall("sw:count").items()}


def _outages(told: Iterable[Gate], doubts: Mapping[str, Why]) -> list[Pause]:
    """Open circuits, and what did not prove itself lately without being an outage."""
    found = [Pause(gate.name, gate.open.text, iso(gate.open.since)) for gate in told if gate.open]
    known = {one.owner for one in found}
    found += [
        Pause(name, why.text, iso(why.since)) for name, why in doubts.items() if name not in known
    ]
    return found


def _paused(told: Iterable[Gate]) -> list[Pause]:
    both = [(gate.name, why) for gate in told for why in (gate.paused, gate.refused) if why]
    return [Pause(name, why.text, iso(why.since)) for name, why in both]


def iso(milliseconds: int) -> str:
    """A time in milliseconds since the epoch as ISO 8601 in UTC (B8.1)."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _owed(source: str, text: str) -> Owed:
    since, _, why = text.partition("|")
    return Owed(source, iso(int(since)), why)
