"""What is known of who holds whom: the history of a customer, and the link index as people read it.

All of it is what answers of Fusebill have told (B4.5); the scripts of the inbox write it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec
import redis

from sync_worker.domain import SLOT_OF, RecordType, Slot, Source, salesforce_id_18
from sync_worker.status import Sweep, iso, read_links, read_sweep
from sync_worker.store import store_errors


class _Stored(msgspec.Struct):
    at: int
    slot: str
    before: str
    after: str
    because: str = ""
    first: bool = False


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One slot of a customer changed hands, in the form `history --json` gives it (B8)."""

    at: str
    slot: str
    before: str | None
    after: str | None
    change: str | None
    """The number of the change that we applied."""
    record: str | None
    """The mailbox of that change."""
    by: str
    """`us`, `first_seen` or `another_hand`."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A customer that holds a record, or did."""

    customer_id: int
    slot: str
    record_id: str
    link: str
    """`holds`, `released` by us, or `gone` by another hand."""


class Holdings(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer holds, as last seen; a slot that no answer told of is left out (B7.4)."""

    customer_id: int
    seen_at: str
    slots: dict[str, str | None]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How much the index of an account knows."""

    account: str
    links: int
    sweep: Sweep
    blind: list[str]
    """The slots that the last sweep could not see."""


def of_customer(client: redis.Redis, account: str, customer_id: int) -> list[Turn]:
    """Who held what of a customer, since when and why, oldest first. Raises StoreError."""
    with store_errors():
        lines = client.lrange(f"sw:history:{account}:{customer_id}", 0, -1)
    return [_turn(msgspec.json.decode(line, type=_Stored)) for line in lines]


def _turn(line: _Stored) -> Turn:
    record, _, change = line.because.rpartition("#")
    ours = bool(line.because)
    return Turn(
        at=iso(line.at),
        slot=line.slot,
        before=line.before or None,
        after=line.after or None,
        change=change or None,
        record=record or None,
        by="us" if ours else "first_seen" if line.first else "another_hand",
    )


def links_of(client: redis.Redis, account: str, record: str) -> list[Link]:
    """The customers of a record, named by its mailbox or its bare id (B8.2). Raises StoreError."""
    wanted = _slots(record)
    pipeline = client.pipeline(transaction=False)
    for slot, id_ in wanted:
        pipeline.hgetall(f"sw:link:{account}:{slot}:{id_}")
    with store_errors():
        answers = pipeline.execute()
    found = [
        Link(customer_id=int(customer), slot=slot, record_id=id_, link=link)
        for (slot, id_), known in zip(wanted, answers, strict=True)
        for customer, link in known.items()
    ]
    return sorted(found, key=lambda link: (link.slot, link.customer_id))


def _slots(record: str) -> list[tuple[Slot, str]]:
    """The slots that may hold it, each with the id it would hold."""
    source, *rest = record.split(":", 3)
    if len(rest) == 3:
        try:
            slot = SLOT_OF[Source(source), RecordType(rest[1])]
        except (ValueError, KeyError):
            pass  # a Geotab id may look like anything
        else:
            return [(slot, _spelled(slot, rest[2]))]
    return [(slot, _spelled(slot, record)) for slot in Slot]


def _spelled(slot: Slot, id_: str) -> str:
    """The id as the index spells it (B3.3)."""
    if slot is Slot.SALESFORCE_ACCOUNT:
        try:
            return salesforce_id_18(id_)
        except ValueError:
            return id_
    return id_


def held_by(client: redis.Redis, account: str, customer_id: int) -> Holdings | None:
    """What a customer holds; None if it was never seen. Raises StoreError."""
    with store_errors():
        known = cast("dict[str, str]", client.hgetall(f"sw:customer:{account}:{customer_id}"))
    if "at" not in known:
        return None
    return Holdings(
        customer_id=customer_id,
        seen_at=iso(int(known["at"]) // 1000),
        slots={str(slot): known[slot] or None for slot in Slot if slot in known},
    )


def slots_of(
    client: redis.Redis, account: str, slot: Slot, customers: Iterable[int]
) -> dict[int, str]:
    """What a slot of these customers holds, "" for nothing, as far as it was seen.

    Raises StoreError.
    """
    wanted = list(customers)
    pipeline = client.pipeline(transaction=False)
    for customer in wanted:
        pipeline.hget(f"sw:customer:{account}:{customer}", slot)
    with store_errors():
        answers: list[Any] = pipeline.execute()
    pairs = zip(wanted, answers, strict=True)
    return {customer: value for customer, value in pairs if value is not None}


def summary(client: redis.Redis, account: str) -> Summary:
    """How much the index knows. Raises StoreError."""
    with store_errors():
        blind = str(client.hget(f"sw:sweep:{account}", "blind") or "")
    return Summary(
        account=account,
        links=read_links(client, account),
        sweep=read_sweep(client, account),
        blind=blind.split(),
    )
