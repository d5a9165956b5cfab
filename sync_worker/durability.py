"""What the store may lose of what it took, and when it may just have (B10.1).

A receiver answers 2xx once Redis has a change, so what Redis loses is lost unless somebody is told:
the sender will not repeat it. Nobody can count what is missing from a log that ends early, so each
restart of a store that may lose something is taken for a loss, and owes a reconciliation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec
import redis
from redis.exceptions import ResponseError

from sync_worker.domain import Source
from sync_worker.store import store_errors

log = logging.getLogger(__name__)

RUN_KEY = "sw:store:run"


class Durability(msgspec.Struct, frozen=True):
    """How surely a store keeps what it has answered for."""

    run: str
    """Tells one run of the server from the next."""
    window: str
    """What a power cut or a failover may take along, "" for nothing."""


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
    windows = [_fsync_window(config)]
    if int(replication.get("connected_slaves", 0)):
        windows.append("what its replicas lag behind, on a failover")
    return Durability(str(server["run_id"]), " and ".join(one for one in windows if one))


def _fsync_window(config: dict[str | None, str | None]) -> str:
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


def note_restart(client: redis.Redis, sources: Iterable[Source]) -> bool:
    """Owe these sources a reconciliation if the store has restarted and may have lost something;
    tells if it has. Raises StoreError.

    What counts is how it ran before, which it remembers itself.
    """
    now = read(client)
    with store_errors():
        stored = client.get(RUN_KEY)
        before = msgspec.json.decode(stored, type=Durability) if stored else now
        restarted = before.run != now.run
        if restarted and before.window:
            why = f"Redis restarted, which may have lost {before.window}"
            log.error("%s: a reconciliation is owed", why)
            seconds, micros = client.time()
            since = int(seconds) * 1000 + int(micros) // 1000
            for source in sources:
                client.hsetnx("sw:reconcile", source, f"{since}|{why}")
        if before != now or not stored:
            client.set(RUN_KEY, msgspec.json.encode(now))
    return restarted
