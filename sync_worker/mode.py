"""Dry run or not: all processes on one store must agree (B5.9).

A worker that writes beside one that only tries would make nonsense of both. Each process says
every few seconds in which mode it runs, and one that says no more is soon forgotten.
"""

from __future__ import annotations

import logging
import threading

import redis

from sync_worker.store import StoreError, store_errors

log = logging.getLogger(__name__)

KNOWN_SECONDS = 20
"""How long a process is taken to run on after its last word."""

SAID_EVERY_SECONDS = 5.0


class ModesDiffer(Exception):
    """Another process on the same store runs in the other mode."""


def join(client: redis.Redis, *, dry_run: bool) -> None:
    """Say in which mode this process is to run. Raises ModesDiffer; raises StoreError."""
    mine, other = _keys(dry_run=dry_run)
    _refuse_beside(client, other, dry_run=dry_run)
    _say(client, mine)
    try:
        _refuse_beside(client, other, dry_run=dry_run)  # of two that start at once
    except ModesDiffer:
        with store_errors():
            client.delete(mine)
        raise


def keep_saying(client: redis.Redis, *, dry_run: bool, stop: threading.Event) -> None:
    """Go on saying it, until `stop` is set."""
    mine, _ = _keys(dry_run=dry_run)
    while not stop.wait(SAID_EVERY_SECONDS):
        try:
            _say(client, mine)
        except StoreError as error:
            log.debug("the mode could not be told: %s", error)


def _keys(*, dry_run: bool) -> tuple[str, str]:
    dry, live = "sw:mode:dry", "sw:mode:live"
    return (dry, live) if dry_run else (live, dry)


def _say(client: redis.Redis, key: str) -> None:
    with store_errors():
        client.set(key, "1", ex=KNOWN_SECONDS)


def _refuse_beside(client: redis.Redis, other: str, *, dry_run: bool) -> None:
    with store_errors():
        differs = client.exists(other)
    if differs:
        raise ModesDiffer(
            f"DRY_RUN is {_word(dry_run)} here, but a process on the same Redis runs with "
            f"DRY_RUN={_word(not dry_run)}: give all the same value, or stop that one and wait "
            f"{KNOWN_SECONDS} s"
        )


def _word(value: bool) -> str:  # noqa: FBT001 - it is all it is about
    return str(value).lower()
