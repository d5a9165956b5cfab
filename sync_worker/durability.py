"""What the store may lose of what it took, and when it may just have (B10.1).

A receiver answers 2xx once Redis has a change, so what Redis loses is lost unless somebody is told:
the sender will not repeat it. Nobody can count what is missing from a log that ends early, so each
restart of a store that may lose something is taken for a loss, and owes a reconciliation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import msgspec
import redis
from redis.exceptions import ResponseError

from sync_worker.domain import Source
from sync_worker.store import now_ms, store_errors

log = logging.getLogger(__name__)

RUN_KEY = "sw:store:run"


class Durability(msgspec.Struct, frozen=True):
    """How surely a store keeps what it has answered for."""

    run: str
    """Tells one run of the server from the next."""
    window: str
    """What a power cut or a failover may take along, "" for nothing."""
    read_only: bool = False
    """It is a replica, and takes nothing."""


def read(client: redis.Redis) -> Durability:
    """Ask the store. Raises StoreError."""
    with store_errors():
        server, replication = client.info("server"), client.info("replication")
        config: dict[str | None, str | None] = {}
        for name in ("appendonly", "appendfsync"):
            try:
                config.update(client.config_get(name))
            except ResponseError:  # managed services forbid CONFIG
                continue
    windows = [fsync_window(config)]
    if int(replication.get("connected_slaves", 0)):
        windows.append("what its replicas lag behind, on a failover")
    window = " and ".join(one for one in windows if one)
    return Durability(str(server["run_id"]), window, replication.get("role") == "slave")


def fsync_window(config: Mapping[str | None, str | None]) -> str:
    """What a power cut may take along with this configuration, "" for nothing."""
    if config.get("appendonly", "yes") != "yes":
        return "everything, on a restart (appendonly is off)"
    match config.get("appendfsync"):
        case "always":
            return ""
        case "everysec":
            return "up to a second of changes, on power loss (appendfsync everysec)"
        case "no":
            return "whatever the system had not written yet, on power loss (appendfsync no)"
        case _:
            return "what is not known, as the service forbids to ask for appendfsync"


class RestartWatch:
    """Owes all sources a reconciliation when a store has restarted that may have lost something.

    What counts is how it ran before. That stands in the store, and is remembered here for one that
    comes back without it, or with what it was long ago.
    """

    def __init__(self, client: redis.Redis, sources: Sequence[Source]) -> None:
        self._client = client
        self._sources = sources
        self._last: Durability | None = None

    def look(self) -> bool:
        """Look whether it has restarted, and tell. Raises StoreError."""
        now = read(self._client)
        with store_errors():
            stored = self._client.get(RUN_KEY)
            told = msgspec.json.decode(stored, type=Durability) if stored else None
            ended = [one for one in (self._last, told) if one is not None and one.run != now.run]
            for before in ended:
                if before.window:
                    self._owe(f"Redis restarted, which may have lost {before.window}")
                    break
            if told != now:
                self._client.set(RUN_KEY, msgspec.json.encode(now))
        self._last = now
        return bool(ended)

    def _owe(self, why: str) -> None:
        log.error("%s: a reconciliation is owed", why)
        since = now_ms(self._client)
        for source in self._sources:
            self._client.hsetnx("sw:reconcile", source, f"{since}|{why}")
