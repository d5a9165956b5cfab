"""Sends wake-ups without making anybody wait for them.

A receiver answers as soon as a change is stored; the wake-up follows from a thread of its own. The
first name goes out at once. What comes while messages are being sent, or soon after, goes together:
a message costs a receiver as much as a hundred changes do, so under load there must be few of them,
each with many names. A wake-up that is lost here is sent by beat.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import redis

from sync_worker import celery

MOST_WAITING = 20_000
"""Names held while the broker is slow; beyond this, beat finds the mailboxes by itself."""

MOST_MESSAGES = 4
"""Messages sent at a time: more names than these hold make them longer. A worker takes each of them
by itself, and works through a long one BATCH by BATCH."""

MOST_AT_A_TIME = 2_000
"""Names sent at a time; so a message is worked through well before its task has to end."""

PAUSE_PER_NAME_SECONDS = 0.0025
LONGEST_PAUSE_SECONDS = 0.1
"""How long more names are gathered after some were sent: hardly where they come one by one, and
where they come in hundreds for as long as nobody minds, as they wait for workers anyway."""


MOST_IN_QUEUE = 50
"""While so many messages wait, workers are behind, not asleep: names are held back, and gather,
until they have caught up. It is looked at again before they can have."""


class Waker:
    """Hands names of mailboxes to `publish` from a daemon thread, while `is_behind` does not say
    that workers have more than enough to do. Neither may raise.

    Safe for any thread.

    The thread starts with the first name, so that a process may fork before.
    """

    def __init__(
        self,
        publish: Callable[[Sequence[str]], object],
        *,
        is_behind: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._publish = publish
        self._is_behind = is_behind
        self._sleep = sleep
        self._waiting: list[str] = []
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None

    def wake(self, mailboxes: Iterable[str]) -> None:
        """Have these mailboxes woken soon."""
        with self._ready:
            room = MOST_WAITING - len(self._waiting)
            self._waiting += islice(mailboxes, max(0, room))
            if not self._waiting:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="waker", daemon=True)
                self._thread.start()
            self._ready.notify()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._waiting:
                    self._ready.wait()
            # A few names are not worth asking for.
            while len(self._waiting) > celery.BATCH and self._is_behind():
                self._sleep(LONGEST_PAUSE_SECONDS)
            with self._ready:
                mailboxes = list(dict.fromkeys(self._waiting[:MOST_AT_A_TIME]))
                del self._waiting[:MOST_AT_A_TIME]
            self._publish(mailboxes)
            self._sleep(min(LONGEST_PAUSE_SECONDS, PAUSE_PER_NAME_SECONDS * len(mailboxes)))


def is_behind(client: redis.Redis) -> bool:
    """Whether more wake-ups wait than workers will soon have taken up."""
    try:
        return int(client.llen(celery.KEY_PREFIX + celery.LIVE_QUEUE)) >= MOST_IN_QUEUE
    except redis.RedisError:
        return False


def publish(mailboxes: Sequence[str]) -> None:
    """Send wake-ups for changes that just came, in few messages; leave them to beat if the broker
    cannot be reached.
    """
    size = max(celery.BATCH, -(-len(mailboxes) // MOST_MESSAGES))
    celery.publish_or_leave(mailboxes, size=size)
