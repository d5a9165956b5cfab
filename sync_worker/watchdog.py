"""Finds a Celery that lives and takes no messages, and ends it, so that it is started again (B6.7).

Celery has had a fault of this kind after reconnecting to Redis in almost every release, and a
process that runs, or that answers a ping, tells nothing of it. So what is watched is work: a
message waits, a child of the pool is free, Redis answers, and still no message is taken. No probe
of our own is needed, for beat has a message waiting every few seconds.

That cannot be a worker that is merely slow, idle or one of many: Redis hands a message at once to
whoever waits for one, so a message that waits while a healthy worker has a free child is seen by
chance only, never for many looks in a row.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import sentry_sdk
from celery import signals
from celery.worker import state

from sync_worker import stopping, store
from sync_worker.store import StoreError, store_errors

log = logging.getLogger(__name__)

DEAF_SECONDS = 15.0
"""So long without a break, then it is deaf: with the start of another, on a busy machine too, it
stays within the 30 s of B6.7. Celery itself needs 13 s at most to drop a silent connection
(`celery.HEALTH_CHECK_SECONDS`), and less to connect again."""

LOOK_SECONDS = 1.0

MOST_GAP_SECONDS = 5.0
"""Between two looks; after a longer one the process itself had stood still, and all begins anew."""

EXIT_CODE = 70
"""EX_SOFTWARE, to be told from Celery's own exits in the log of the supervisor."""

REPORT_SECONDS = 2.0
"""How long the end waits for Sentry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at the queues and the pool showed."""

    at: float
    """Monotonic seconds."""
    waits: bool
    """Redis answered, and a message waits."""
    free: bool
    """A child of the pool has nothing to do."""
    taken: int
    """Messages this worker took so far."""


class Watch:
    """Decides from one look after the other whether the worker is deaf."""

    def __init__(self, seconds: float = DEAF_SECONDS) -> None:
        self._seconds = seconds
        self._since: Look | None = None
        self._last: Look | None = None

    def is_deaf(self, look: Look) -> bool:
        """Take the next look, and say."""
        before, self._last = self._last, look
        if not look.waits or not look.free:
            self._since = None
            return False
        unbroken = (
            self._since is not None
            and before is not None
            and look.taken == before.taken
            and look.at - before.at <= MOST_GAP_SECONDS
        )
        if not unbroken or self._since is None:
            self._since = look
        return look.at - self._since.at >= self._seconds


class Counter:
    """The messages that this worker took, be they any good or not."""

    def __init__(self) -> None:
        self.taken = 0
        for signal in (signals.task_received, signals.task_unknown, signals.task_rejected):
            signal.connect(self._take)

    def _take(self, **_: object) -> None:
        self.taken += 1


def start(*, url: str, queues: Sequence[str], children: int) -> None:
    """Watch the Celery worker that this process is, from a thread; `queues` are its lists."""
    threading.Thread(
        target=_keep_watching,
        args=(store.connect(url), queues, children),
        name="watchdog",
        daemon=True,
    ).start()


def _keep_watching(client: redis.Redis, queues: Sequence[str], children: int) -> None:
    watch, counter = Watch(DEAF_SECONDS), Counter()
    while not stopping.requested():
        time.sleep(LOOK_SECONDS)
        look = Look(
            at=time.monotonic(),
            waits=_waits(client, queues),
            free=len(state.active_requests) < children,  # not those handed out and never begun
            taken=counter.taken,
        )
        if watch.is_deaf(look):
            _end()


def _waits(client: redis.Redis, queues: Sequence[str]) -> bool:
    try:
        with store_errors():
            return any(client.llen(queue) for queue in queues)
    except StoreError:
        return False


def _end(leave: Callable[[int], Any] = os._exit) -> None:
    log.critical(
        "Celery took no message for %d s though some wait and it has time, as happens after it "
        "lost Redis: it is ended, and started again by itself",
        DEAF_SECONDS,
    )
    sentry_sdk.flush(REPORT_SECONDS)
    leave(EXIT_CODE)
