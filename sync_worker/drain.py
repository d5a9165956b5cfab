"""Work through the mailboxes that a wake-up names, and find those that nobody has woken."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import redis

from sync_worker.converge import BUSY_SECONDS, Ended
from sync_worker.inbox import Inbox
from sync_worker.store import store_errors

log = logging.getLogger(__name__)

BUSY_TURNS = 10
"""How often a mailbox is tried again here while another one works on its customer."""

MOST_WAITING_MESSAGES = 200
"""While this many wake-ups wait in the queue, beat adds none: workers are behind, not asleep."""


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
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Converge these mailboxes, one after the other, and start none after `seconds`.

    What is left over stays due, and beat wakes it.
    """
    ends = monotonic() + seconds
    waiting = list(dict.fromkeys(mailboxes))
    for _ in range(BUSY_TURNS):
        busy = []
        for mailbox in waiting:
            ended = Ended.MORE
            while ended is Ended.MORE and monotonic() < ends:
                ended = converger.converge(mailbox)
            if ended is Ended.BUSY:
                busy.append(mailbox)
        if not busy or monotonic() >= ends:
            return
        waiting = busy
        sleep(BUSY_SECONDS)


def wake_due(
    client: redis.Redis,
    inbox: Inbox,
    publish: Callable[[Sequence[str]], None],
    *,
    queue_key: str,
    batch: int,
) -> int:
    """Send wake-ups for due mailboxes that nobody has woken (B6.7); gives how many."""
    with store_errors():
        waiting = client.llen(queue_key)
    room = MOST_WAITING_MESSAGES - int(waiting)
    if room <= 0:
        return 0
    mailboxes = inbox.wake(room * batch)
    if mailboxes:
        publish(mailboxes)
        log.debug("woke %d mailboxes", len(mailboxes))
    return len(mailboxes)
