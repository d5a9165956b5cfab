"""Sends wake-ups without making anybody wait for them.

A receiver answers as soon as a change is stored; the wake-up follows from a thread of its own,
which takes along whatever has gathered in the meantime. So a burst costs Celery a message for
each BATCH of mailboxes, not one for each event. A wake-up that is lost here is sent by beat.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

MOST_WAITING = 20_000
"""Names held while the broker is slow; beyond this, beat finds the mailboxes by itself."""


class Waker:
    """Hands names of mailboxes to `publish`, which must not raise, from a daemon thread.

    Safe for any thread.

    The thread starts with the first name, so that a process may fork before.
    """

    def __init__(self, publish: Callable[[Sequence[str]], object]) -> None:
        self._publish = publish
        self._waiting: dict[str, None] = {}
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None

    def wake(self, mailboxes: Iterable[str]) -> None:
        """Have these mailboxes woken soon."""
        with self._ready:
            for mailbox in mailboxes:
                if len(self._waiting) < MOST_WAITING:
                    self._waiting[mailbox] = None
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
                mailboxes = list(self._waiting)
                self._waiting.clear()
            self._publish(mailboxes)
