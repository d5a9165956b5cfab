"""The end of a worker: nothing more is begun, and what takes too long is handed back (B6.7).

SIGTERM reaches Celery's main process, which passes it on to the children of its pool as SIGUSR2.
A child then starts no further mailbox. What it still does INTERRUPT_SECONDS later is interrupted
by an exception, so that its mailbox is handed back before the whole group is killed
(`supervise.GRACE_SECONDS`); what that kills is due again when its lease ends.

Tried and dropped: a flag in memory shared over the fork, since on macOS the children are spawned
and share none; SIGUSR1, Celery's own soft limit, since it ends a child that has nothing to do.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from types import FrameType

INTERRUPT_SECONDS = 20.0
"""From the request to end to the interruption: most calls are answered by then, and what is left
of the 30 s is enough to hand the mailbox back."""

_STOP = signal.SIGUSR2

_requested = False
_interruptible = False


class Interrupted(Exception):
    """The worker ends and this took too long: hand back what it was about."""

    def __init__(self) -> None:
        super().__init__("the worker ends: handed back to the next one")


def requested() -> bool:
    """Whether this worker ends: begin nothing more, and hand back what cannot be finished."""
    return _requested


def request() -> None:
    """Have this process begin nothing more. May be called by a signal handler."""
    global _requested  # noqa: PLW0603 - a process ends but once
    _requested = True


def pass_on(children: Iterable[int]) -> None:
    """Have this process and these children end. May be called by a signal handler."""
    request()
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, _STOP)


def ignore() -> None:
    """In the main process: a child that was just started, and does not listen yet, must not die
    of the signal.
    """
    signal.signal(_STOP, signal.SIG_IGN)


def listen() -> None:
    """In a child: take the signal of the main process."""
    signal.signal(_STOP, _on_stop)
    signal.signal(signal.SIGALRM, _on_alarm)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let what is done here be interrupted when the worker ends: it may raise Interrupted."""
    global _interruptible  # noqa: PLW0603 - signals come to the main thread alone
    _interruptible = True
    try:
        yield
    finally:
        _interruptible = False


def _on_stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    request()
    signal.setitimer(signal.ITIMER_REAL, INTERRUPT_SECONDS)


def _on_alarm(number: int, frame: FrameType | None) -> None:
    del number, frame
    if _interruptible:
        raise Interrupted
