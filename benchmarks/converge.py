"""Converge: what a change costs the worker, where no limit holds it back.

Each change needs a read and a write of its own: no list read is of use in an account of so many
customers whose server does not know `id:1,2,3`. A second pass lets it, and shows what sharing reads
saves. The simulated API is driven by a bare client in the same rounds, to show that it is not what
is measured.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from benchmarks.harness import api, load, memory
from benchmarks.harness.converging import CUSTOMERS, LATENCY_MS, behave, drain, warm_up
from benchmarks.harness.figures import Bound, Result, Row, Series
from benchmarks.harness.run import Run, Supply, interleaved
from benchmarks.harness.stack import Stack

NAME = "converge"
TITLE = "working off changes, a read and a write each, no limit, 50 ms API"

CHANGES = 3_000
QUICK_CHANGES = 200

BARE_CONNECTIONS = 256
BARE_CALLS = 4_000

SINGLY, SHARED, BARE = "singly", "shared", "bare"


@dataclass
class _Found:
    rate: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    calls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    asked: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


def run(run: Run) -> Result:
    """Two stacks for all rounds: in one, reads can be shared. New records in each round."""
    found = _Found()
    changes = run.either(CHANGES, QUICK_CHANGES)
    with Stack(run.new_folder(SINGLY)) as singly, Stack(run.new_folder(SHARED)) as shared:
        stacks = {SINGLY: singly, SHARED: shared}
        supplies = {SINGLY: Supply(), SHARED: Supply()}
        for name, stack in stacks.items():
            behave(stack, honour_ids=name == SHARED)
            for command in ("web", "worker", "beat"):
                stack.start(command)
            warm_up(stack, supplies[name])
        for number in range(run.rounds):
            for name in interleaved((SINGLY, BARE, SHARED), number):
                if name == BARE:
                    found.bare.append(_bare_rate(singly))
                else:
                    _measure(stacks[name], supplies[name], name, changes, found)
            run.say(
                f"{NAME}, round {number + 1}: {found.rate[SINGLY][-1]:,.0f} changes/s, "
                f"{found.cpu[SINGLY][-1]:.2f} ms CPU a change; shared reads "
                f"{found.rate[SHARED][-1]:,.0f}/s, {found.cpu[SHARED][-1]:.2f} ms"
            )
        occupied = memory.of(singly, "web", "worker", "beat", "redis")
    return Result(
        name=NAME,
        title=TITLE,
        rows=_rows(found) + memory.rows(occupied),
        rounds=run.rounds,
        quick=run.quick,
        load=(
            f"{changes:,} HubSpot contacts, each naming another customer, accepted while the "
            "worker is held still; then the clock starts and runs until all is settled. Settings "
            f"are the defaults, but for the budget. The API answers {LATENCY_MS:g} ms after it "
            "was asked. CPU is that of the worker's processes and of Redis."
        ),
    )


def _bare_rate(stack: Stack) -> float:
    """Calls a second that the simulated API answers to a client that does nothing else."""
    requests = api.requests(BARE_CALLS, first=CUSTOMERS // 2)
    address = "127.0.0.1", stack.fusebill_port
    return load.drive(address, requests, connections=BARE_CONNECTIONS).rate(BARE_CONNECTIONS)


def _measure(stack: Stack, supply: Supply, name: str, changes: int, found: _Found) -> None:
    took = drain(stack, supply, changes)
    found.rate[name].append(changes / took.seconds)
    found.cpu[name].append(took.cpu_seconds / changes * 1000)
    found.calls[name].append(took.calls / changes)
    if name == SINGLY:
        found.asked.append(took.calls / took.seconds)


def _rows(found: _Found) -> list[Row]:
    def series(values: list[float]) -> Series:
        return Series(tuple(values))

    return [
        Row(
            figure="CPU a change, worker and Redis",
            unit="ms",
            ours=series(found.cpu[SINGLY]),
            bound=Bound("≤", 3.5),
        ),
        Row(figure="changes (target ≥ 400 /s)", unit="/s", ours=series(found.rate[SINGLY])),
        Row(figure="calls a change", unit="", ours=series(found.calls[SINGLY])),
        Row(
            figure="calls asked of the simulated API",
            unit="/s",
            ours=series(found.asked),
            reference=series(found.bare),
            against="a bare client",
            bound=Bound("≤", 1 / 3, "ratio"),
        ),
        Row(figure="CPU a change, reads shared", unit="ms", ours=series(found.cpu[SHARED])),
        Row(figure="changes, reads shared", unit="/s", ours=series(found.rate[SHARED])),
        Row(figure="calls a change, reads shared", unit="", ours=series(found.calls[SHARED])),
    ]
