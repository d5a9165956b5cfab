"""The connection to Redis, and what it must be like to be trusted (B10.1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import ConstantBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,  # noqa: A004 - redis' own, as it is raised here
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

CONNECT_TIMEOUT_SECONDS = 1.0
"""HubSpot gives up after 5 s, so an unreachable store must be known well before (B2.2)."""

READ_TIMEOUT_SECONDS = 2.0
"""Longer than a fsync stalls on a busy disk; the receiver must answer within 5 s (B2.2)."""

OLDEST_SERVER = (7, 0)
"""Scripts state by `#!lua flags=allow-oom` that they may run in a full store (B6.12)."""


FULL_SHARE = 0.9
"""From this share of `maxmemory` on nothing is accepted; the rest is for draining (B6.12)."""


READ_ONLY = "a read-only replica: point REDIS_URL at the primary"


class StoreError(Exception):
    """The store cannot take or give anything now; the message says why."""


class StoreFull(StoreError):
    """The store takes no more for now; what is in it can still be worked off."""

    def __init__(self) -> None:
        super().__init__("Redis is full: let the backlog drain, or raise its maxmemory")


class StoreRefused(StoreError):
    """The store answers, but not to us: waiting does not help."""


class UnsafeStoreError(Exception):
    """The store may lose or evict what it is given; the message lists how, with the cure."""


def connect(url: str) -> redis.Redis:
    """Open a pooled connection; nothing is sent yet.

    One retry on a connection that turns out broken: after a restart of Redis every pooled
    connection is, and all scripts may be run twice.
    """
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=READ_TIMEOUT_SECONDS,
        socket_keepalive=not url.startswith("unix:"),
        health_check_interval=25,
        # Not after a time-out: it would only double the wait.
        retry=Retry(ConstantBackoff(0.05), 1, supported_errors=(ConnectionError,)),
    )


def now_ms(client: redis.Redis) -> int:
    """The store's clock, the only one that machines share (B7.6). Raises what redis raises."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn every failure of Redis into a StoreError that says what to look at."""
    try:
        yield
    except AuthenticationError as error:
        raise StoreRefused("Redis refuses the user or password: correct REDIS_URL") from error
    except ResponseError as error:
        text = str(error)
        if text.startswith("DB index"):
            raise StoreRefused("Redis has no database of that number: correct REDIS_URL") from error
        if isinstance(error, NoPermissionError):
            raise StoreRefused(
                "Redis forbids this user a command: allow it all on the keys sw:*"
            ) from error
        if text.startswith("FULL") or isinstance(error, OutOfMemoryError) or "OOM" in text:
            raise StoreFull from error
        if isinstance(error, ReadOnlyError) or "READONLY" in text:
            raise StoreError(f"Redis is {READ_ONLY}") from error
        if "MISCONF" in text:
            raise StoreError(
                "Redis cannot write to its disk: free space or mend the disk"
            ) from error
        raise StoreError(f"Redis refused a command ({text[:200]}): look at its log") from error
    except RedisError as error:
        raise StoreError(
            f"Redis cannot be reached ({type(error).__name__}): check that it runs and REDIS_URL"
        ) from error


def unsafe_points(client: redis.Redis) -> list[str]:
    """What makes this Redis unfit to hold accepted changes, one sentence each (B10.1).

    Raises StoreError if it cannot be asked.
    """
    with store_errors():
        info = client.info("server")
        config: dict[str | None, str | None] = {}
        for name in ("appendonly", "maxmemory-policy"):
            try:
                config.update(client.config_get(name))
            except ResponseError:  # managed services forbid CONFIG; then their word must do
                continue
    found = []
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < OLDEST_SERVER:
        found.append(f"it is version {info['redis_version']}: 7.0 or newer is needed")
    if config.get("appendonly", "yes") != "yes":
        found.append("AOF is off, so a restart loses what was accepted: set appendonly yes")
    if config.get("maxmemory-policy", "noeviction") != "noeviction":
        found.append("it evicts keys when full: set maxmemory-policy noeviction")
    return found


def require_safe(client: redis.Redis, *, allow_unsafe: bool) -> list[str]:
    """Check the store at start; give back what is wrong with it if that is allowed.

    Raises UnsafeStoreError unless `allow_unsafe`, and always for a server that is too old.
    """
    found = unsafe_points(client)
    if found and (not allow_unsafe or any("is needed" in point for point in found)):
        raise UnsafeStoreError(
            "Redis is not safe to hold changes: "
            + "; ".join(found)
            + " (or ALLOW_UNSAFE_REDIS=true to start all the same)"
        )
    return found
