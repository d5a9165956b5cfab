"""The link index: which customers hold a record, as far as answers of Fusebill have told (B4.5).

HubSpot and Geotab ids cannot be queried at Fusebill, and an unlink often names no customer, so
every answer is remembered here. An entry is a hint to be verified by a read and nothing more; that
nobody holds a record is known only after a sweep of all customers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import msgspec
import redis

from sync_worker.decide.match import Link, any_of
from sync_worker.domain import Customer, Slot, SlotState
from sync_worker.inbox import scripts
from sync_worker.store import store_errors

AT_A_TIME = 100
"""Customers that one script remembers: some of a millisecond of the store's time each ten."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What the last complete sweep of all customers saw."""

    begun: int
    """When it began (ms); 0: there was none."""
    blind: frozenset[str]
    """The slots that it did not see of every customer."""

    @classmethod
    def of(cls, begun: str | None, blind: str | None) -> Swept:
        """As the store keeps it (swept.lua)."""
        return cls(int(begun or 0), frozenset((blind or "").split()))

    def since(self, slot: Slot) -> int:
        """When it began, if it saw this slot of every customer (ms); 0: it did not."""
        return 0 if slot in self.blind else self.begun


def account_of(base_url: str) -> str:
    """The name under which the index of a Fusebill account is kept: the host of its address."""
    return urlsplit(base_url).netloc.rpartition("@")[2].replace(":", "_")


class LinkIndex:
    """The index of one Fusebill account.

    Safe for any number of processes. Raises `store.StoreError` when Redis cannot be used.
    """

    def __init__(self, client: redis.Redis, *, base_url: str) -> None:
        self._client = client
        self.account = account_of(base_url)
        self._observe = scripts.load(client, "observe")

    def observe(self, *customers: Customer, sent_at: int, written: bool = False) -> None:
        """Remember an answer; `sent_at` is when its request was sent (us, store's clock), and
        `written` tells that it was a write of ours.

        Slots that the answer left out stay as they were known.
        """
        for start in range(0, len(customers), AT_A_TIME):
            some = customers[start : start + AT_A_TIME]
            shown = [packed(one, sent_at=sent_at, written=written) for one in some]
            with store_errors():
                self._observe(args=[msgspec.msgpack.encode([self.account, shown])])

    def seen(self, customer_id: int) -> bool:
        """Whether the customer was ever there."""
        with store_errors():
            return bool(self._client.exists(f"sw:customer:{self.account}:{customer_id}"))

    def known(self, slot: Slot, ids: Iterable[str]) -> dict[int, Link]:
        """The customers that hold one of these ids or once did, as last seen."""
        pipeline = self._client.pipeline(transaction=False)
        for id_ in ids:
            pipeline.hgetall(f"sw:link:{self.account}:{slot}:{id_}")
        with store_errors():
            found = cast("list[dict[str, Link]]", pipeline.execute())
        return any_of([{int(customer): link for customer, link in one.items()} for one in found])

    def replaced_at(self, customer_id: int, slot: Slot) -> int | None:
        """When a record was displaced from that slot last (ms), if ever by us (B5.5)."""
        with store_errors():
            at = self._client.hget(f"sw:customer:{self.account}:{customer_id}", f"replaced:{slot}")
        return int(at) if at else None

    def count(self) -> int:
        """How many links are known."""
        with store_errors():
            return int(self._client.hget(f"sw:index:{self.account}", "links") or 0)

    def swept_since(self, slot: Slot) -> int:
        """When the last complete sweep began that saw this slot of every customer (ms); 0: none."""
        with store_errors():
            told = cast(
                "list[str | None]",
                self._client.hmget(f"sw:sweep:{self.account}", "begun", "blind"),
            )
        return Swept.of(*told).since(slot)


def packed(customer: Customer, *, sent_at: int, written: bool) -> list[object]:
    """An answer as the scripts take it (observe.lua)."""
    flat: list[str] = []
    for slot, value in customer.slots.items():
        if value is not SlotState.UNKNOWN:
            flat += (slot, "" if value is SlotState.EMPTY else value)
    return [str(customer.id), sent_at, written, flat]
