"""Celery's way to Redis, without acknowledgements: a message is gone once it was read.

Messages are wake-ups, and a lost one is sent again (B6.7), so nothing is gained by kombu's notes of
what was read and not acknowledged. Much is lost by them: an acknowledgement that cannot be written
while Redis restarts counts as owed for ever, and a worker with as many of them as it has children
takes no message any more, though it lives and is connected (1 of 40 restarts under load, with kombu
5.7.0); restoring what was not acknowledged ends Celery on some reconnects, and repeats what was
done on others.
"""

from __future__ import annotations

from typing import Any

import kombu
from celery.app.amqp import AMQP
from kombu.transport import redis

RECONNECT_SECONDS = 3.0
"""Longest wait between two tries to connect. Celery's own, 30 s after a long outage, would alone
use up the time in which a worker must be back (B6.7)."""


class NoNotes(redis.QoS):
    """Keeps no note of any message. How many a worker takes is limited by its children alone
    (`worker_disable_prefetch`).
    """

    restore_at_shutdown = False

    def append(self, *_: Any) -> None:
        """Called when a message was read."""

    def ack(self, *_: Any) -> None:
        """Called when a child has taken it up."""

    def reject(self, *_: Any, **__: Any) -> None:
        """Called when it could not be used."""

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Called every few seconds, to repeat what was not acknowledged for long."""


class Channel(redis.Channel):
    """Reads without notes."""

    QoS = NoNotes


class Transport(redis.Transport):
    """Reads without notes."""

    Channel = Channel


class Connection(kombu.Connection):
    """Tries again soon, however long Redis has been away."""

    def get_transport_cls(self) -> type[Any]:
        """Ours in place of kombu's plain one; a sentinel's stays as it is."""
        found = super().get_transport_cls()
        return Transport if found is redis.Transport else found

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        """As in kombu, which takes ever longer waits, up to 30 s."""
        waits = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": RECONNECT_SECONDS}
        return super().ensure_connection(*args, **{**waits, **kwargs})


class Amqp(AMQP):
    """Celery's broker side, with connections of our own."""

    Connection = Connection
