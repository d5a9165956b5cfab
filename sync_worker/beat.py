"""Beat's scheduler: nothing on disk, no wall clock, and no heap of ticks while no worker runs.

What is due stands in the store, so a tick that was missed is made up for by the next. A tick that
still waits in the queue makes another one needless, whoever sent it: that holds for several beats
as well, and the mailboxes themselves are named but once in a while (`inbox.WAKE_GRACE_MS`).
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import beat

from sync_worker import settings, store
from sync_worker.celery import BEAT_QUEUE, KEY_PREFIX, WAKE_PERIOD_SECONDS

log = logging.getLogger(__name__)


class WakeScheduler(beat.Scheduler):
    """Sends a tick only when none waits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._away = False
        self._next = time.monotonic()
        self._redis = store.connect(settings.load().redis_url.get_secret_value())

    def tick(self, *_: Any, **__: Any) -> float:
        """Send what is due; gives the seconds until more is.

        Celery's own goes by the wall clock: set back by an hour, it wakes nobody for an hour
        (B7.6).
        """
        wait = self._next - time.monotonic()
        if wait > 0:
            return wait
        self._next = time.monotonic() + WAKE_PERIOD_SECONDS
        for entry in self.schedule.values():
            # Without the producer that Celery keeps, which waits for Redis for as long as it takes.
            self.apply_async(entry)
        return WAKE_PERIOD_SECONDS

    def apply_async(self, entry: Any, *args: Any, **kwargs: Any) -> Any:
        """Send what is due, unless the last one was not taken yet.

        While the store is away a tick is skipped; that is said once, not every time.
        """
        try:
            with store.store_errors():
                waiting = self._redis.llen(KEY_PREFIX + BEAT_QUEUE)
            sent = None if waiting else super().apply_async(entry, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - kombu raises what its transport raises
            if not self._away:
                log.warning("nothing is woken until the store is back: %s", error)
            self._away = True
            return None
        if self._away:
            log.info("the store is back")
        self._away = False
        return sent
