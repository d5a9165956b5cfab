"""The link index: which customers hold a record, as far as answers of Fusebill have told (B4.5).

HubSpot and Geotab ids cannot be queried at Fusebill, and an unlink often names no customer, so
every answer is remembered here. An entry is a hint to be verified by a read and nothing more.
"""

from __future__ import annotations

from typing import cast
from urllib.parse import urlsplit

import redis

from sync_worker.decide.match import Link
from sync_worker.domain import Customer, Record, SlotState
from sync_worker.inbox import scripts
from sync_worker.store import store_errors


class LinkIndex:
    """The index of one Fusebill account, kept apart by the host of its address.

    Safe for any number of processes. Raises `store.StoreError` when Redis cannot be used.
    """

    def __init__(self, client: redis.Redis, *, base_url: str) -> None:
        self._client = client
        self._account = urlsplit(base_url).netloc.rpartition("@")[2].replace(":", "_")
        self._observe = scripts.load(client, "observe")

    def observe(self, customer: Customer, *, sent_at: int, written: bool = False) -> None:
        """Remember an answer; `sent_at` is when its request was sent (us, store's clock), and
        `written` tells that it was a write of ours.

        Slots that the answer left out stay as they were known.
        """
        flat: list[str] = []
        for slot, value in customer.slots.items():
            if value is not SlotState.UNKNOWN:
                flat += (slot, "" if value is SlotState.EMPTY else value)
        with store_errors():
            self._observe(args=[self._account, customer.id, sent_at, "1" if written else "", *flat])

    def seen(self, customer_id: int) -> bool:
        """Whether the customer was ever there."""
        with store_errors():
            return bool(self._client.exists(f"sw:customer:{self._account}:{customer_id}"))

    def known(self, record: Record) -> dict[int, Link]:
        """The customers that hold the record or once did, as last seen."""
        key = f"sw:link:{self._account}:{record.slot}:{record.id}"
        with store_errors():
            found = cast("dict[str, Link]", self._client.hgetall(key))
        return {int(customer): link for customer, link in found.items()}
