"""How changes were settled: the audit lines of the last AUDIT_DAYS (B10.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import msgspec
import redis

from sync_worker.store import store_errors

PAGE = 500
"""Lines read in one round trip."""


@dataclass(frozen=True, slots=True)
class Event:
    """One settled change; times are milliseconds since the epoch."""

    id: str
    record: str
    kind: str
    aspect: str
    occurred_at: int
    received_at: int
    outcome: str
    detail: str
    customer_ids: tuple[int, ...]
    request_id: str


def settled(client: redis.Redis, *, after: str = "-") -> Iterator[tuple[str, Event]]:
    """Settled changes in the order they were settled, each with its place.

    `after` is a place: only what came later is given. Raises StoreError.
    """
    start = after if after == "-" else f"({after}"
    while True:
        with store_errors():
            lines = cast(
                "list[tuple[str, dict[str, str]]]",
                client.xrange("sw:audit", min=start, count=PAGE),
            )
        for place, fields in lines:
            yield place, _event(fields)
            start = f"({place}"
        if len(lines) < PAGE:
            return


def _event(fields: dict[str, str]) -> Event:
    return Event(
        id=fields["seq"],
        record=fields["record"],
        kind=fields["kind"],
        aspect=fields["aspect"],
        occurred_at=int(fields["occurred_at"]),
        received_at=int(fields["received_at"]),
        outcome=fields["outcome"],
        detail=fields["detail"],
        customer_ids=tuple(msgspec.json.decode(fields["customer_ids"], type=list[int])),
        request_id=fields["request_id"],
    )
