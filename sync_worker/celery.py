"""The Celery app: wake-ups for mailboxes, and nothing but wake-ups (B6.7).

A message names mailboxes that are due. All that is owed is in the inbox, so a message may be
lost, repeated or late without harm; beat sends a new one for whatever nobody has woken. Hence no
ETA, no countdown, no result backend and no Celery retry, and no acknowledgements (`broker.py`): a
redelivery would only repeat what the due set knows better.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from typing import Any

import billiard
from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning

from sync_worker import logs, settings, stopping, stray
from sync_worker.broker import Amqp
from sync_worker.crew import AT_ONCE

log = logging.getLogger(__name__)

DRAIN = "sync_worker.drain"
WAKE_DUE = "sync_worker.wake_due"
SWEEP = "sync_worker.sweep"
PROBE = "sync_worker.probe"

LIVE_QUEUE = "live"
BEAT_QUEUE = "beat"
REPLAY_QUEUE = "replay"
"""Queues are read in the order of their names: beat's own task does not stand in line behind
wake-ups, nor those of live changes behind those of a replay (B7.3)."""

KEY_PREFIX = "sw:celery:"
"""Keeps Celery's keys apart from the inbox in the same Redis."""

BATCH = AT_ONCE
"""Mailboxes named by one message: those that are worked on together."""

WAKE_PERIOD_SECONDS = 1.0
"""How often beat looks for what is due, and for what there is budget by now."""

DRAIN_SECONDS = 60
"""After this a task starts no further mailbox; beat wakes the rest."""

SOFT_LIMIT_SECONDS = 660
"""DRAIN_SECONDS and one convergence at its slowest: nine calls of 65 s each."""

HARD_LIMIT_SECONDS = SOFT_LIMIT_SECONDS + 30

HEALTH_CHECK_SECONDS = 6
"""How often a silent connection is looked at: one that was cut off without a word is dropped after
13 s at the latest, before the watchdog takes the worker for deaf."""

LAST_READ_SECONDS = 1.5
"""From the request to end to the moment when nothing more is read: kombu asks Redis for a message
for 1 s at a time, and what comes in the last of them is lost."""


def configuration() -> dict[str, Any]:
    """Celery's settings; read when the app is first used, not when it is imported."""
    return {
        "broker_url": settings.load().redis_url.get_secret_value(),
        "include": ["sync_worker.tasks"],
        "task_default_queue": LIVE_QUEUE,
        "task_ignore_result": True,
        "result_expires": None,  # else beat sends a task to clean up a backend that is not there
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": False,
        "task_soft_time_limit": SOFT_LIMIT_SECONDS,
        "task_time_limit": HARD_LIMIT_SECONDS,
        "task_publish_retry": False,  # beat sends what could not be sent
        "worker_disable_prefetch": True,  # what one worker has no child for, another may
        "worker_lost_wait": 1.0,  # a child that was killed has no result to wait for
        "worker_eta_task_limit": 1,
        "worker_max_tasks_per_child": 10_000,
        "worker_enable_remote_control": False,  # its reply queues grow Redis without end
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # leases guard the effect
        "worker_hijack_root_logger": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_acquire_timeout": 2,
        "broker_transport_options": {
            "global_keyprefix": KEY_PREFIX,
            "queue_order_strategy": "sorted",
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": HEALTH_CHECK_SECONDS,
        },
        "beat_schedule": {
            "wake what is due": {
                "task": WAKE_DUE,
                "schedule": WAKE_PERIOD_SECONDS,
                # Not `expires`: it compares the clocks of two machines (B7.6), and a worker whose
                # clock is ahead would throw every tick away.
                "options": {"queue": BEAT_QUEUE},
            }
        },
    }


app = Celery("sync_worker", amqp=Amqp)
app.add_defaults(configuration)


@signals.setup_logging.connect
def _configure_logs(**_: object) -> None:
    """Celery's processes log as all others do."""
    logs.start(settings.load())
    stray.reword()
    # A wake-up is no news: what became of the changes is logged where it is decided.
    for noisy in ("celery.app.trace", "celery.worker.strategy", "celery.beat"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


# The life of a worker. The first, third and fourth are sent in its main process.


@signals.worker_init.connect
def _before_the_pool(**_: object) -> None:
    stopping.ignore()


@signals.worker_process_init.connect
def _in_a_child(**_: object) -> None:
    stopping.listen()


@signals.worker_ready.connect
def _watch(sender: Any, **_: object) -> None:
    from sync_worker import watchdog  # noqa: PLC0415 - of use to a worker alone

    # At each reconnect Celery advises a setting that is decided above.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
    watchdog.start(
        url=settings.load().redis_url.get_secret_value(),
        queues=[KEY_PREFIX + LIVE_QUEUE, KEY_PREFIX + BEAT_QUEUE],
        children=sender.controller.concurrency,
    )


@signals.worker_shutting_down.connect
def _stop(**_: object) -> None:
    stopping.pass_on(child.pid for child in billiard.active_children() if child.pid)


def publish_or_leave(
    mailboxes: Sequence[str], queue: str = LIVE_QUEUE, *, size: int | None = None
) -> bool:
    """Send wake-ups, or leave them to beat if the broker cannot be reached; tells if they went."""
    try:
        publish(mailboxes, queue, size=size)
    except Exception as error:  # noqa: BLE001 - kombu raises what its transport raises
        log.warning(
            "%d wake-ups could not be sent (%s): beat will send them",
            len(mailboxes),
            type(error).__name__,
        )
        return False
    return True


def give_back(mailboxes: Sequence[str]) -> None:
    """Send wake-ups for what a worker that ends leaves over, so that another one takes it up."""
    time.sleep(LAST_READ_SECONDS)
    publish_or_leave(mailboxes)


def publish(mailboxes: Sequence[str], queue: str = LIVE_QUEUE, *, size: int | None = None) -> None:
    """Send wake-ups for mailboxes, `size` of them in a message, or else BATCH.

    Raises what kombu raises when the broker cannot be reached.
    """
    size = size or BATCH
    with app.producer_or_acquire() as producer:
        for start in range(0, len(mailboxes), size):
            app.send_task(
                DRAIN,
                args=[list(mailboxes[start : start + size])],
                queue=queue,
                retry=False,
                producer=producer,
                argsrepr="",  # what Celery would else spell out for its log, name by name
                kwargsrepr="",
            )
