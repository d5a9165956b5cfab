"""The Celery tasks: each hands over to the code that does the work."""

from __future__ import annotations

import logging

from sync_worker import celery, drain
from sync_worker.runtime import worker_runtime
from sync_worker.store import StoreError

log = logging.getLogger(__name__)


@celery.app.task(name=celery.DRAIN)
def drain_mailboxes(mailboxes: list[str]) -> None:
    """Converge the mailboxes that this message names."""
    try:
        drain.drain(mailboxes, worker_runtime().converger, seconds=celery.DRAIN_SECONDS)
    except StoreError as error:
        log.warning("left %d mailboxes to beat: %s", len(mailboxes), error)


@celery.app.task(name=celery.WAKE_DUE)
def wake_due() -> None:
    """Wake what is due and was not woken."""
    runtime = worker_runtime()
    try:
        drain.wake_due(
            runtime.redis,
            runtime.inbox,
            celery.publish_or_leave,
            queue_key=celery.KEY_PREFIX + celery.LIVE_QUEUE,
            batch=celery.BATCH,
        )
        if runtime.sweeper.is_due():
            celery.app.send_task(celery.SWEEP, queue=celery.LIVE_QUEUE, retry=False)
    except StoreError as error:
        log.warning("nothing woken: %s", error)


@celery.app.task(name=celery.SWEEP)
def sweep() -> None:
    """Read all customers for those that wait for it (B4.5)."""
    try:
        worker_runtime().sweeper.run_if_due()
    except StoreError as error:
        log.warning("the sweep is put off: %s", error)
