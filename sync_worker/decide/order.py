"""The order of a plan's writes: a record leaves where it was before it is put elsewhere.

Fusebill latches a record to one customer only, and so no moment may find one on two (B5.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sync_worker.domain import Customer, Slot, SlotState

Value = str | SlotState

SET_TOGETHER = dict.fromkeys(
    (Slot.HUBSPOT_CONTACT, Slot.HUBSPOT_COMPANY), (Slot.HUBSPOT_CONTACT, Slot.HUBSPOT_COMPANY)
)
"""Slots that one call sets (B5.4)."""


@dataclass(frozen=True, slots=True)
class Write:
    """One call: what the slots it sets must hold before, and will hold after it."""

    customer_id: int
    before: Mapping[Slot, Value]
    after: Mapping[Slot, Value]

    @property
    def displaces(self) -> tuple[Slot, ...]:
        """The slots in which one record takes another's place."""
        return tuple(
            slot
            for slot, before in self.before.items()
            if isinstance(before, str) and self.after[slot] not in (before, SlotState.EMPTY)
        )


def writes(
    customers: Sequence[Customer],
    target: Mapping[int, Mapping[Slot, Value]],
    slots: Sequence[Slot],
) -> tuple[Write, ...]:
    """The writes that bring customers to their target, none of them needless.

    `slots` are those that one call sets. A ring has no beginning: one of its records is let go
    first, and put in its place last.
    """
    now = {one.id: {slot: one.slots[slot] for slot in slots} for one in customers}
    wanted = {
        customer_id: {**now[customer_id], **after}
        for customer_id, after in target.items()
        if customer_id in now
    }
    made: list[Write] = []

    def write(customer_id: int, after: Mapping[Slot, Value]) -> None:
        made.append(Write(customer_id, dict(now[customer_id]), dict(after)))
        now[customer_id] = dict(after)

    while waiting := sorted(one for one, after in wanted.items() if now[one] != after):
        ready = [one for one in waiting if not _blocked(one, wanted[one], now, waiting)]
        if ready:
            write(ready[0], wanted[ready[0]])
            continue
        let_go = {one: _let_go(now[one], wanted[one]) for one in waiting}
        first = next(one for one in waiting if let_go[one] != now[one])
        write(first, let_go[first])
    return tuple(made)


def _blocked(
    customer_id: int,
    after: Mapping[Slot, Value],
    now: Mapping[int, Mapping[Slot, Value]],
    waiting: Sequence[int],
) -> bool:
    """Whether a customer that is to let it go still holds what this one is to get."""
    return any(
        isinstance(value, str) and other != customer_id and now[other][slot] == value
        for slot, value in after.items()
        if now[customer_id][slot] != value
        for other in waiting
    )


def _let_go(now: Mapping[Slot, Value], wanted: Mapping[Slot, Value]) -> dict[Slot, Value]:
    return {
        slot: value if value == wanted[slot] else SlotState.EMPTY for slot, value in now.items()
    }
