"""Threads of one process that work through jobs together: calls mostly wait for the network.

They are daemons, so that a process may end while one of them waits for an answer that never comes.
What it works on was handed back by then, and its lease lost: it does nothing more (B5.3).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

AT_ONCE = 20
"""Mailboxes that one process works on at the same time. More gain little: a process has one CPU,
and Fusebill's answers take some ten milliseconds."""

HEED_SECONDS = 1.0
"""How late a signal is heeded at most. One that comes just before a wait begins does not end it:
without a limit it would be heeded when the first job ends, and a job may hang."""


class Crew(Generic[T]):
    """So many threads, started when they are first needed, and so after a fork."""

    def __init__(self, size: int, work: Callable[[T], None]) -> None:
        self._size = size
        self._work = work
        self._jobs: queue.SimpleQueue[tuple[T, queue.SimpleQueue[BaseException | None]] | None]
        self._jobs = queue.SimpleQueue()
        self._threads = 0

    def run(self, jobs: Iterable[T]) -> None:
        """Have all jobs done, and wait for that.

        Raises what the first job that failed raised, once all have ended; and what a signal
        raises here, at once: then the jobs that are under way go on in threads that are given up.
        """
        done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        failed: BaseException | None = None
        waiting = 0
        try:
            for job in jobs:
                self._jobs.put((job, done))
                waiting += 1
            while self._threads < min(self._size, waiting):
                self._threads += 1
                threading.Thread(target=self._labour, args=(self._jobs,), daemon=True).start()
            while waiting:
                with contextlib.suppress(queue.Empty):
                    ended = done.get(timeout=HEED_SECONDS)
                    waiting -= 1
                    failed = failed or ended
        except BaseException:
            self.close()
            raise
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Let go of all threads: each ends with the job that it is at, and no other is begun."""
        jobs, threads = self._jobs, self._threads
        self._jobs, self._threads = queue.SimpleQueue(), 0
        with contextlib.suppress(queue.Empty):
            while True:
                jobs.get_nowait()
        for _ in range(threads):
            jobs.put(None)

    def _labour(
        self, jobs: queue.SimpleQueue[tuple[T, queue.SimpleQueue[BaseException | None]] | None]
    ) -> None:
        while (taken := jobs.get()) is not None:
            job, done = taken
            try:
                self._work(job)
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                done.put(error)
            else:
                done.put(None)
