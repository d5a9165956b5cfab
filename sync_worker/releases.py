"""Releases that the brake holds until a person rules on them (B5.10)."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import redis

from sync_worker.inbox import scripts
from sync_worker.inbox.inbox import WAKE_GRACE_MS
from sync_worker.status import iso
from sync_worker.store import store_errors

Ruling = Literal["approved", "discarded"]
"""An approved one is made; a discarded one settles as `ignored: release discarded`."""


class Held(msgspec.Struct, frozen=True):
    """The plan of one mailbox, held as a whole."""

    id: str
    record: str
    customer_id: int
    """The customer that the first release of the plan concerns."""
    slot: str
    since: int
    """Milliseconds since the epoch."""
    mailbox: str = ""
    """The one that is held; the record's own unless that was merged."""

    def as_json(self) -> dict[str, Any]:
        """The form of B8."""
        return {
            "id": self.id,
            "record": self.record,
            "customer_id": self.customer_id,
            "slot": self.slot,
            "since": iso(self.since),
        }


def held(client: redis.Redis) -> list[Held]:
    """All that is held, the longest waiting first. Raises StoreError."""
    with store_errors():
        stored = client.hgetall("sw:held")
    found = [_read(str(mailbox), str(text)) for mailbox, text in stored.items()]
    return sorted(found, key=lambda one: (one.since, int(one.id)))


def rule(client: redis.Redis, release: Held, ruling: Ruling) -> bool:
    """Say what becomes of one; False if it is not held any more, then nothing is done.

    Its mailbox is due afterwards. Raises StoreError.
    """
    script = scripts.load(client, "rule")
    with store_errors():
        return bool(script(args=[release.mailbox, release.id, ruling, WAKE_GRACE_MS]))


def _read(mailbox: str, text: str) -> Held:
    return msgspec.structs.replace(msgspec.json.decode(text, type=Held), mailbox=mailbox)
