"""Work through the mailboxes that a wake-up names, and find those that nobody has woken."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import redis

from sync_worker import gates, probe, stopping
from sync_worker.converge import BUSY_SECONDS, Ended
from sync_worker.inbox import Inbox
from sync_worker.runtime import WorkerRuntime
from sync_worker.store import StoreError, StoreFull, store_errors

log = logging.getLogger(__name__)

BUSY_TURNS = 10
"""How often a mailbox is tried again here while another one works on its customer."""

MOST_WAITING_MESSAGES = 200
"""While this many wake-ups wait in the queue, workers are behind, not asleep: beat adds but one."""


RELIEF_SECONDS = 5.0
"""How often the worker looks whether the store is full, and how long it then works at a time."""

RELIEF_BATCH = 200
"""Mailboxes taken at a time then."""


class Converges(Protocol):
    """What converges one mailbox."""

    def converge(self, mailbox: str) -> Ended:
        """Converge it if it is due and free."""
        ...


def drain(
    mailboxes: Sequence[str],
    converger: Converges,
    *,
    seconds: float,
    stop: Callable[[], bool] = stopping.requested,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Converge these mailboxes, one after the other; start none after `seconds`, nor once `stop`
    says that the worker ends.

    Gives those that are due and were left over: beat wakes them, or the caller does.
    """
    ends = monotonic() + seconds
    waiting = list(dict.fromkeys(mailboxes))
    left: list[str] = []
    for _ in range(BUSY_TURNS):
        busy = []
        for mailbox in waiting:
            ended = Ended.MORE
            while ended is Ended.MORE and not stop() and monotonic() < ends:
                with stopping.interruptible():
                    ended = _converge(converger, mailbox)
            if ended is Ended.MORE:
                left.append(mailbox)
            elif ended is Ended.BUSY:
                busy.append(mailbox)
        if not busy or stop() or monotonic() >= ends:
            break
        waiting = busy
        sleep(BUSY_SECONDS)
    return left


def _converge(converger: Converges, mailbox: str) -> Ended:
    try:
        return converger.converge(mailbox)
    except StoreError:
        raise
    except Exception:
        # It is due again when its lease ends; the others of the batch must not wait for it.
        log.exception("convergence of %s ended unexpectedly", mailbox)
        return Ended.LOST


def relieve(runtime: Callable[[], WorkerRuntime], *, stop: threading.Event) -> None:
    """Drain a full store without Celery, until `stop` is set (B6.12).

    Celery shares the store and cannot send a wake-up while it is full, so nobody would be woken to
    make room. Then, and only then, it is done here: mailboxes are worked on, shut gates probed,
    customers swept.
    """
    while not stop.wait(RELIEF_SECONDS):
        try:
            runtime().inbox.check_writable()
        except StoreFull:
            log.warning("the store is full: draining it without Celery")
            _relieve_once(runtime())
        except StoreError:
            continue  # away altogether: whoever works on something says so


def _relieve_once(runtime: WorkerRuntime) -> None:
    try:
        for name in runtime.gates.to_probe():
            probe.run(runtime.gates, name, runtime.settings)
        runtime.sweeper.run_if_due()
        due = runtime.inbox.wake(RELIEF_BATCH, gates.ALL)
        runtime.inbox.leave(drain(due, runtime.converger, seconds=RELIEF_SECONDS))
    except StoreError as error:
        log.warning("the full store could not be drained: %s", error)
    except Exception:
        log.exception("draining the full store ended unexpectedly, and is tried again")


def wake_due(
    client: redis.Redis,
    inbox: Inbox,
    publish: Callable[[Sequence[str]], bool],
    *,
    queue_key: str,
    batch: int,
) -> int:
    """Send wake-ups for due mailboxes that nobody has woken (B6.7); gives how many."""
    with store_errors():
        waiting = client.llen(queue_key)
    # At least one message, so that what is overdue is never kept out by newer work.
    room = max(1, MOST_WAITING_MESSAGES - int(waiting))
    mailboxes = inbox.wake(room * batch, gates.ALL)
    if mailboxes and not publish(mailboxes):
        inbox.leave(mailboxes)
    elif mailboxes:
        log.debug("woke %d mailboxes", len(mailboxes))
    return len(mailboxes)
