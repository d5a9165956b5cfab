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

import redis

from sync_worker.domain import Source
from sync_worker.inbox import scripts
from sync_worker.store import StoreError, store_errors

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


class Verdict(StrEnum):
    """What a call tells of the remote system; see report.lua."""

    ALIVE = "alive"
    FAILED = "failed"
    REFUSED = "refused"
    PROVEN = "proven"
    DOUBTED = "doubted"


class Shut(StrEnum):
    """Why a gate is shut."""

    OPEN = "open"
    """The circuit is: as an electrician says it, nothing flows."""
    REFUSED = "refused"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a gate is shut, in a sentence, and since when (ms)."""

    kind: Shut
    since: int
    why: str


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate, as it stands."""

    name: str
    reasons: tuple[Reason, ...] = ()
    probed: bool = False
    """A probe is under way."""
    lifted: int = 0
    """How often a refusal ended: after each, workers read their credentials afresh."""

    def shut_by(self, kind: Shut) -> Reason | None:
        """The reason of that kind, if it is one."""
        return next((one for one in self.reasons if one.kind is kind), None)

    @property
    def breaker(self) -> str:
        """The state of its circuit breaker, in the words of B8.1."""
        if self.shut_by(Shut.OPEN) is None:
            return "closed"
        return "half-open" if self.probed else "open"


class Gates:
    """The gates in one store. Safe for any number of threads and processes."""

    def __init__(self, client: redis.Redis, *, breaker_failures: int) -> None:
        self._client = client
        self._failures = breaker_failures
        self._report = scripts.load(client, "report")
        self._probe = scripts.load(client, "probe")

    def report(self, gate: str, verdict: Verdict, *, whom: str = "", why: str = "") -> bool:
        """Tell what became of a call; gives whether the gate is shut now.

        `whom` is the customer or record that it was about, `why` one sentence. A store that
        cannot be asked is no reason to fail what was called: then the gate counts as open.
        """
        fixed = [DIFFERENT_ONES, PROBE_SECONDS * 1000, REFUSED_PROBE_SECONDS * 1000]
        try:
            with store_errors():
                shut = self._report(args=[gate, verdict, whom, why, self._failures, *fixed])
        except StoreError as error:
            log.debug("%s could not be told: %s", gate, error)
            return False
        return bool(shut)

    def take_turn(self, gate: str, *, seconds: float) -> str | None:
        """Take the turn to probe a shut gate, for so long at most; None if it is not time, or
        another has it. Raises StoreError.
        """
        token = secrets.token_hex(8)
        between = [PROBE_SECONDS * 1000, REFUSED_PROBE_SECONDS * 1000]
        with store_errors():
            taken = self._probe(args=[gate, token, round(seconds * 1000), *between])
        return token if taken else None

    def end_turn(self, gate: str, token: str) -> None:
        """Give the turn back. Raises StoreError."""
        with store_errors():
            if self._client.get(f"sw:gate:{gate}:probe") == token:
                self._client.delete(f"sw:gate:{gate}:probe")

    def look(self, *names: str) -> list[Gate]:
        """How these gates stand, all of them if none is named. Raises StoreError."""
        return look(self._client, *names)

    def is_shut(self, *names: str) -> bool:
        """Whether one of these gates is. Raises StoreError."""
        return any(gate.reasons for gate in self.look(*names))

    def to_probe(self) -> list[str]:
        """The gates whose probe is due; taking the turn decides. Raises StoreError."""
        with store_errors():
            pipeline = self._client.pipeline(transaction=False)
            for name in REMOTES:
                pipeline.hmget(f"sw:gate:{name}", "open", "refused", "probe_at")
            told = pipeline.execute()
            now = int(self._client.time()[0]) * 1000
        return [
            name
            for name, (open_, refused, at) in zip(REMOTES, told, strict=True)
            if (open_ or refused) and now >= int(at or 0)
        ]

    def pause(self, why: str) -> bool:
        """Have all work wait until `resume`; tells whether it did not yet. Raises StoreError."""
        with store_errors():
            seconds, micros = self._client.time()
            since = int(seconds) * 1000 + int(micros) // 1000
            return bool(self._client.hsetnx(f"sw:gate:{OPERATOR}", Shut.PAUSED, f"{since}|{why}"))

    def resume(self) -> bool:
        """Lift the operator's pause, and have what shut by itself probed at once; tells whether
        there was a pause. Raises StoreError.
        """
        with store_errors():
            lifted = self._client.hdel(f"sw:gate:{OPERATOR}", Shut.PAUSED)
            for name in REMOTES:
                self._client.hdel(f"sw:gate:{name}", "probe_at")
        return bool(lifted)


def look(client: redis.Redis, *names: str) -> list[Gate]:
    """How these gates stand, all of them if none is named. Raises StoreError."""
    wanted = names or ALL
    with store_errors():
        pipeline = client.pipeline(transaction=False)
        for name in wanted:
            pipeline.hgetall(f"sw:gate:{name}")
            pipeline.exists(f"sw:gate:{name}:probe")
        told = pipeline.execute()
    return [
        _gate(name, fields, probed=bool(probed))
        for name, fields, probed in zip(wanted, told[::2], told[1::2], strict=True)
    ]


def passed_by(mailbox: str, readable: Container[str]) -> tuple[str, ...]:
    """The gates that a mailbox passes: that of its CRM only if that is among the readable ones."""
    source = mailbox.partition(":")[0]
    return (OPERATOR, FUSEBILL, source) if source in readable else (OPERATOR, FUSEBILL)


def _gate(name: str, fields: dict[str, str], *, probed: bool) -> Gate:
    reasons = tuple(
        Reason(kind, int(text.partition("|")[0]), text.partition("|")[2])
        for kind in Shut
        if (text := fields.get(kind)) is not None
    )
    return Gate(name, reasons, probed, int(fields.get("lifted", 0)))
