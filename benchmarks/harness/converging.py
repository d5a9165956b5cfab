"""A backlog that is worked off against the fast Fusebill: what several benchmarks measure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.harness.fusebill import Behaviour
from benchmarks.harness.run import Supply
from benchmarks.harness.stack import Stack
from benchmarks.harness.vendors import Vendor

LATENCY_MS = 50.0
CUSTOMERS = 5_000_000
"""Reading them all in pages would take 5,000 calls: no sweep pays."""

WARM_CHANGES = 200


@dataclass
class Drained:
    """One backlog, worked off."""

    seconds: float
    cpu_seconds: float
    calls: int


def behave(stack: Stack, *, honour_ids: bool, latency_ms: float = LATENCY_MS) -> None:
    """Have the Fusebill of this benchmark behave so; what is latched stays latched."""
    stack.fusebill.behave(
        Behaviour(count=CUSTOMERS, latency_ms=latency_ms, honour_ids=honour_ids), anew=False
    )


def warm_up(stack: Stack, supply: Supply) -> None:
    """Until the worker's processes are up, connected and have all code loaded, and have found out
    what this Fusebill can do: for that some customers must be known, so they are told of twice.
    """
    links = supply.take(WARM_CHANGES // 2)
    stack.feed(Vendor.HUBSPOT, links)
    stack.drained()
    stack.feed(Vendor.HUBSPOT, supply.again(range(links[0].record, links[-1].record + 1)))
    stack.drained()


def drain(
    stack: Stack, supply: Supply, changes: int, look: Callable[[], object] = lambda: None
) -> Drained:
    """Put so many changes before a worker that is held still, and let it go. `look` is called just
    then, and when all is settled.
    """
    stack.fusebill.forget()
    with stack.frozen("worker"):
        stack.feed(Vendor.HUBSPOT, supply.take(changes))
        time.sleep(0.3)  # the receiver sends its wake-ups a little later
        look()
        before = stack.cpu("worker", "redis")
        begun = time.monotonic()
    seconds = stack.drained() - begun
    look()
    used = stack.cpu("worker", "redis") - before
    return Drained(seconds, used, stack.fusebill.counters().calls)
