"""Work through the mailboxes that a wake-up names, and find those that nobody has woken."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sync_worker import celery, gates, probe, stopping
from sync_worker.batch import Worked
from sync_worker.converge import BUSY_SECONDS
from sync_worker.crew import AT_ONCE
from sync_worker.inbox.reserve import Priority
from sync_worker.runtime import WorkerRuntime
from sync_worker.store import StoreError, StoreFull, store_errors
from sync_worker.sweep import PATIENCE_SECONDS

log = logging.getLogger(__name__)

BUSY_TURNS = 10
"""How often a mailbox is tried again here while another one works on its customer."""

PAUSE_SECONDS = 0.3
"""How long it is at least until a batch asks again for budget: what comes free one call at a time
makes no batch."""

MOST_WAITING_MESSAGES = 200
"""While this many wake-ups wait in the queue, workers are behind, not asleep: beat adds but one."""


RELIEF_SECONDS = 5.0
"""How often the worker looks whether the store is full, and how long it then works at a time."""

RELIEF_BATCH = 200
"""Mailboxes taken at a time then."""


class Works(Protocol):
    """What works through a batch of mailboxes."""

    def work_through(self, mailboxes: Sequence[str]) -> Worked:
        """Converge those that are due and free."""
        ...


def drain(
    mailboxes: Sequence[str],
    batches: Works,
    *,
    seconds: float,
    stop: Callable[[], bool] = stopping.requested,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Converge these mailboxes, so many at a time; start none after `seconds`, nor once `stop`
    says that the worker ends.

    Gives those that are due and were left over: beat wakes them, or the caller does. What there is
    no budget for is left to beat after PATIENCE_SECONDS (B7.2).
    """
    ends = monotonic() + seconds
    waiting = list(dict.fromkeys(mailboxes))
    busy: list[str] = []
    poor: list[str] = []
    patience, turns = PATIENCE_SECONDS, 0
    while waiting and not stop() and monotonic() < ends:
        with stopping.interruptible():
            worked = batches.work_through(waiting[:AT_ONCE])
        waiting = worked.again + waiting[AT_ONCE:]
        busy += worked.busy
        poor += worked.poor
        if waiting or stop():
            continue
        if poor and patience > 0:
            pause = min(patience, max(worked.seconds, PAUSE_SECONDS))
            sleep(pause)
            patience -= pause
            waiting, poor = poor, []
        elif busy and turns < BUSY_TURNS:
            sleep(BUSY_SECONDS)
            turns += 1
            waiting, busy = busy, []
    return waiting


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
            probe.run(runtime.gates, name, runtime.settings, runtime.budget)
        runtime.sweeper.run_if_due()
        live, replayed = runtime.inbox.wake(RELIEF_BATCH, gates.ALL)
        left = drain(live + replayed, runtime.batches, seconds=RELIEF_SECONDS)
        runtime.inbox.leave(left)
    except StoreError as error:
        log.warning("the full store could not be drained: %s", error)
    except Exception:
        log.exception("draining the full store ended unexpectedly, and is tried again")


def wake_due(
    runtime: WorkerRuntime,
    publish: Callable[[Sequence[str], str], bool],
    *,
    seconds: float,
) -> int:
    """Send wake-ups for due mailboxes that nobody has woken (B6.7), as many as there will be budget
    for within `seconds` (B7.2); gives how many.
    """
    queues = (celery.LIVE_QUEUE, celery.REPLAY_QUEUE)
    with store_errors():
        waiting = sum(runtime.redis.llen(celery.KEY_PREFIX + queue) for queue in queues)
    # At least one message, so that what is overdue is never kept out by newer work.
    room = max(1, MOST_WAITING_MESSAGES - waiting) * AT_ONCE
    afford = {
        priority: runtime.budget.outlook(priority, seconds)
        for priority in (Priority.LIVE, Priority.REPLAY)
    }
    live, replayed = runtime.inbox.wake(
        min(room, afford[Priority.LIVE]), gates.ALL, replays=afford[Priority.REPLAY]
    )
    for mailboxes, queue in zip((live, replayed), queues, strict=True):
        if mailboxes and not publish(mailboxes, queue):
            runtime.inbox.leave(mailboxes)
    return len(live) + len(replayed)
