"""Gates: whether work that needs a remote system may go on (B6.3, B6.4).

Each remote system has a gate, shared by all workers. A circuit breaker shuts it when call after
call meets an outage, refused credentials shut it until they are mended, and an operator may shut
the one that all work passes. What waits at a gate uses up no attempt and becomes no dead letter;
it is parked, costs nothing meanwhile, and is due again when the gate opens. Receiving passes none.

A shut gate is probed: one cheap read at a time. The circuit breakers that libraries offer count
calls where this has to count customers (one that always fails is no outage), and let live work try
whether the remote is back, which with a write would be a try on a customer.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Container
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import redis

from sync_worker.domain import Source
from sync_worker.inbox import scripts
from sync_worker.store import StoreError, now_ms, store_errors

log = logging.getLogger(__name__)

FUSEBILL = "fusebill"
OPERATOR = "operator"
"""The gate that all work passes; only an operator shuts it, and opens it (B6.4)."""

REMOTES = (FUSEBILL, *Source)
"""Whose gates shut by themselves. A CRM's bears the name of its source."""

ALL = (OPERATOR, *REMOTES)

DIFFERENT_ONES = 3
"""Customers or records that a streak of failures must concern before it is an outage (B6.3)."""

PROBE_SECONDS = 15
"""How often an open circuit is probed."""

REFUSED_PROBE_SECONDS = 60
"""How often credentials that were refused are tried again (B6.4)."""

DOUBTED_SECONDS = 900
"""How long `status` tells of a Fusebill that did not prove itself: whatever waits for that asks
again within this time."""

RENEWED_KEY = "sw:renewed"


class Verdict(StrEnum):
    """What a call tells of the remote system; see gates.lua."""

    ALIVE = "alive"
    SOUND = "sound"
    FAILED = "failed"
    REFUSED = "refused"
    PROVEN = "proven"
    PAUSED = "paused"
    """Of no call: an operator's word."""


@dataclass(frozen=True, slots=True)
class Why:
    """Why a gate is shut, in a sentence, and since when (ms)."""

    since: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One gate, as it stands."""

    name: str
    open: Why | None = None
    """The circuit is open: as an electrician says it, nothing flows."""
    refused: Why | None = None
    paused: Why | None = None
    probed: bool = False
    """A probe is under way."""

    @property
    def breaker(self) -> str:
        """The state of its circuit breaker, in the words of B8.1."""
        if self.open is None:
            return "closed"
        return "half-open" if self.probed else "open"


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to probe a gate, which one has at a time."""

    gate: str
    token: str
    began: int
    """By the store's clock (ms)."""


class Gates:
    """The gates in one store, for work with one set of credentials. Safe for any thread."""

    def __init__(self, client: redis.Redis, *, breaker_failures: int) -> None:
        self._client = client
        self._failures = breaker_failures
        self._report = scripts.load(client, "report")
        self._probe = scripts.load(client, "probe")
        self._renewed = 0
        """How often credentials had been renewed when those in use here were read."""

    def report(
        self, gate: str, verdict: Verdict, *, whom: str = "", why: str = "", began: int = 0
    ) -> bool:
        """Tell what became of a call; gives whether the gate is shut now.

        `whom` is the customer or record that it was about, `why` one sentence, `began` when the
        probe did that proves (ms). A store that cannot be asked is no reason to fail what was
        called: then the gate counts as open to all.
        """
        try:
            return self._tell(self.packed(gate, verdict, whom=whom, why=why, began=began))
        except StoreError as error:
            log.debug("the gate of %s could not be told: %s", gate, error)
            return False

    def _tell(self, packed: list[object]) -> bool:
        with store_errors():
            return bool(self._report(args=[msgspec.msgpack.encode(packed)]))

    def packed(
        self, gate: str, verdict: Verdict, *, whom: str = "", why: str = "", began: int = 0
    ) -> list[object]:
        """A report as the scripts take it (gates.lua)."""
        times = [PROBE_SECONDS * 1000, REFUSED_PROBE_SECONDS * 1000]
        return [
            gate,
            verdict,
            whom,
            why,
            self._failures,
            DIFFERENT_ONES,
            *times,
            self._renewed,
            began,
        ]

    def take_turn(self, gate: str, *, seconds: float) -> Turn | None:
        """Take the turn to probe a shut gate, for so long at most; None if it is not time, or
        another has it. Raises StoreError.
        """
        token = secrets.token_hex(8)
        between = [PROBE_SECONDS * 1000, REFUSED_PROBE_SECONDS * 1000]
        with store_errors():
            began = self._probe(args=[gate, token, round(seconds * 1000), *between])
        return Turn(gate, token, int(began)) if began else None

    def end_turn(self, turn: Turn) -> None:
        """Give the turn back. Raises StoreError."""
        key = f"sw:gate:{turn.gate}:probe"
        with store_errors():
            if self._client.get(key) == turn.token:
                self._client.delete(key)

    def is_shut(self, *names: str) -> bool:
        """Whether one of these gates is. Raises StoreError."""
        return any(g.open or g.refused or g.paused for g in look(self._client, *names))

    def to_probe(self) -> list[str]:
        """The gates whose probe is due; taking the turn decides. Raises StoreError."""
        with store_errors():
            pipeline = self._client.pipeline(transaction=False)
            for name in REMOTES:
                pipeline.hmget(f"sw:gate:{name}", "open", "refused", "probe_at")
                pipeline.exists(f"sw:gate:{name}:probe")
            told = pipeline.execute()
            now = now_ms(self._client)
        return [
            name
            for name, (opened, refused, at), probed in zip(
                REMOTES, told[::2], told[1::2], strict=True
            )
            if (opened or refused) and not probed and now >= int(at or 0)
        ]

    def pause(self, why: str) -> bool:
        """Have all work wait until `resume`; tells whether it did not yet. Raises StoreError."""
        if self.is_shut(OPERATOR):
            return False
        self._tell(self.packed(OPERATOR, Verdict.PAUSED, why=why))
        return True

    def resume(self) -> bool:
        """Lift the operator's pause, and have what shut by itself probed at once; tells whether
        there was a pause. Raises StoreError.
        """
        with store_errors():
            lifted = self._client.hdel(f"sw:gate:{OPERATOR}", "paused")
            for name in REMOTES:
                self._client.hdel(f"sw:gate:{name}", "probe_at")
        return bool(lifted)

    def doubt(self, gate: str, why: str) -> None:
        """Have `status` say that a remote system did not prove itself. Raises StoreError."""
        with store_errors():
            since = now_ms(self._client)
            self._client.set(f"sw:gate:{gate}:doubt", f"{since}|{why}", ex=DOUBTED_SECONDS)

    def note_renewed(self) -> None:
        """Take the credentials that are read after this for the newest. Raises StoreError."""
        with store_errors():
            self._renewed = int(self._client.get(RENEWED_KEY) or 0)

    def were_renewed(self) -> bool:
        """Whether credentials were refused and mended since (B6.4). Raises StoreError."""
        with store_errors():
            return int(self._client.get(RENEWED_KEY) or 0) != self._renewed


def look(client: redis.Redis, *names: str) -> list[Gate]:
    """How these gates stand, all of them if none is named. Raises StoreError."""
    wanted = names or ALL
    with store_errors():
        pipeline = client.pipeline(transaction=False)
        for name in wanted:
            pipeline.hmget(f"sw:gate:{name}", "open", "refused", "paused")
            pipeline.exists(f"sw:gate:{name}:probe")
        told = pipeline.execute()
    return [
        Gate(
            name=name,
            open=_why(opened),
            refused=_why(refused),
            paused=_why(paused),
            probed=bool(probed),
        )
        for name, (opened, refused, paused), probed in zip(
            wanted, told[::2], told[1::2], strict=True
        )
    ]


def doubts(client: redis.Redis) -> dict[str, Why]:
    """The remote systems that did not prove themselves when asked last. Raises StoreError."""
    with store_errors():
        told = client.mget([f"sw:gate:{name}:doubt" for name in REMOTES])
    found = ((name, _why(str(one))) for name, one in zip(REMOTES, told, strict=True) if one)
    return {name: why for name, why in found if why is not None}


def passed_by(mailbox: str, readable: Container[str]) -> tuple[str, ...]:
    """The gates that a mailbox passes: that of its CRM only if that is among the readable ones."""
    source = mailbox.partition(":")[0]
    return (OPERATOR, FUSEBILL, source) if source in readable else (OPERATOR, FUSEBILL)


def _why(stored: str | None) -> Why | None:
    if stored is None:
        return None
    since, _, text = stored.partition("|")
    return Why(int(since), text)
