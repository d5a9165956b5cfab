"""The Celery tasks: each hands over to the code that does the work."""

from __future__ import annotations

import logging

from sync_worker import celery, drain, probe, stopping
from sync_worker.runtime import worker_runtime
from sync_worker.store import StoreError

log = logging.getLogger(__name__)


@celery.app.task(name=celery.DRAIN)
def drain_mailboxes(mailboxes: list[str]) -> None:
    """Converge the mailboxes that this message names."""
    try:
        runtime = worker_runtime()
        left = drain.drain(
            mailboxes,
            runtime.batches,
            seconds=celery.DRAIN_SECONDS,
            stop=lambda: stopping.requested() or runtime.gates.were_renewed(),
        )
    except StoreError as error:
        log.warning("left %d mailboxes to beat: %s", len(mailboxes), error)
        return
    except stopping.Interrupted as error:
        log.warning("%s", error)
        left = mailboxes
    if left:
        send = celery.give_back if stopping.requested() else celery.publish_or_leave
        send(left)


@celery.app.task(name=celery.WAKE_DUE)
def wake_due() -> None:
    """Wake what is due and was not woken."""
    runtime = worker_runtime()
    try:
        drain.wake_due(runtime, celery.publish_or_leave, seconds=celery.WAKE_PERIOD_SECONDS)
        for name in runtime.gates.to_probe():
            celery.app.send_task(celery.PROBE, args=[name], queue=celery.BEAT_QUEUE, retry=False)
        if runtime.sweeper.is_due():
            celery.app.send_task(celery.SWEEP, queue=celery.BEAT_QUEUE, retry=False)
        runtime.restarts.look()
        runtime.inbox.note_tick()
    except StoreError as error:
        log.warning("the tick of beat was not carried out to its end: %s", error)


@celery.app.task(name=celery.PROBE)
def probe_remote(name: str) -> None:
    """Find out whether a remote system whose gate is shut is back (B6.3, B6.4)."""
    try:
        with stopping.interruptible():
            runtime = worker_runtime()
            probe.run(runtime.gates, name, runtime.settings, runtime.budget)
    except (StoreError, stopping.Interrupted) as error:
        log.warning("%s is not probed: %s", name, error)


@celery.app.task(name=celery.SWEEP)
def sweep() -> None:
    """Read all customers for those that wait for it (B4.5)."""
    if stopping.requested():
        return
    try:
        with stopping.interruptible():
            worker_runtime().sweeper.run_if_due()
    except (StoreError, stopping.Interrupted) as error:
        log.warning("the sweep is put off: %s", error)
