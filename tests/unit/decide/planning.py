"""Plans as a convergence does: asked for customers and records, it is given them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sync_worker.decide.fold import Keep
from sync_worker.decide.order import Write
from sync_worker.decide.plan import (
    Bury,
    Join,
    Known,
    Need,
    Party,
    Plan,
    ReadCustomers,
    plan,
)
from sync_worker.decide.subject import Policy
from sync_worker.domain import Customer, Record, Slot, SlotState
from tests.changes import customer, party

REPLACE = Policy(replace=True)


def planned(
    first: Party | Sequence[Party],
    *customers: Customer,
    policy: Policy | None = None,
    gone: Iterable[int] = (),
    **known: Any,
) -> Plan | Need:
    """What is planned or asked for with exactly these customers read."""
    parties = [first] if isinstance(first, Party) else list(first)
    read = {one.id: one for one in customers} | dict.fromkeys(gone)
    return plan(parties, Known(customers=read, **known), policy or Policy())


def solved(
    parties: Sequence[Party],
    world: Iterable[Customer],
    *,
    policy: Policy | None = None,
    **known: Any,
) -> Plan | Need:
    """What comes out when each customer and each record that is asked for is made known.

    A record of which nothing is known stays where it is.
    """
    there = {one.id: one for one in world}
    others = {one.subject.record: one for one in parties[1:]}
    joined, read = [parties[0]], {}
    for _ in range(50):
        what = plan(joined, Known(customers=read, **known), policy or Policy())
        if isinstance(what, ReadCustomers):
            assert not what.ids & read.keys()
            read |= {one: there.get(one) for one in sorted(what.ids)}
        elif isinstance(what, Join):
            assert what.record not in [one.subject.record for one in joined]
            joined.append(others.get(what.record) or bystander(what.record, there.values()))
        else:
            return what
    raise AssertionError("it asks without end")


def bystander(record: Record, world: Iterable[Customer]) -> Party:
    """A record that wants nothing."""
    holders = {one.id: "holds" for one in world if one.slots[record.slot] == record.id}
    return party(Keep(record, ""), holders)


def steps(what: Plan | Need, slot: Slot) -> list[tuple[int, str]]:
    """What the writes of a plan set in one slot, in their order."""
    assert isinstance(what, Plan)
    return [(one.customer_id, _text(one, slot)) for one in what.writes]


def _text(write: Write, slot: Slot) -> str:
    value = write.after[slot]
    assert isinstance(value, str) or value is SlotState.EMPTY, value
    return value if isinstance(value, str) else ""


def result(what: Plan | Need) -> Any:
    """What becomes of the first record."""
    assert isinstance(what, Plan), what
    return next(iter(what.results.values()))


def buried(what: Plan | Need) -> Bury:
    """Why the first record needs a person; nothing at all is written then."""
    why = result(what)
    assert isinstance(why, Bury), why
    assert isinstance(what, Plan)
    assert what.writes == ()
    assert what.releases == ()
    assert (dict(what.companies), dict(what.brings)) == ({}, {})
    assert len(what.results) == 1
    return why


def holder(customer_id: int, record: Record | None = None, **more: str | SlotState) -> Customer:
    """A customer that holds this record and nothing else."""
    held = {str(record.slot): record.id} if record else {}
    return customer(customer_id, **{**held, **more})
