"""Converge: what a change costs the worker, where no limit holds it back.

Each change needs a read and a write of its own: no list read is of use in an account of so many
customers whose server does not know `id:1,2,3`. A second pass lets it, and shows what sharing reads
saves. In the same rounds a plain script makes the same two calls and nothing else, which tells what
this machine takes for those alone; and the simulated API is driven by a bare client, to show that
it is not what is measured.
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field

from benchmarks.harness import api, load, memory
from benchmarks.harness.converging import CUSTOMERS, LATENCY_MS, behave, drain, warm_up
from benchmarks.harness.figures import Bound, Result, Row, Series
from benchmarks.harness.fusebill import API_KEY, FIRST_CUSTOMER
from benchmarks.harness.run import Run, Supply, interleaved, side_by_side
from benchmarks.harness.stack import Stack
from benchmarks.references import two_calls

NAME = "converge"
TITLE = "working off changes, a read and a write each, no limit, 50 ms API"

CHANGES = 3_000
QUICK_CHANGES = 200

BARE_CONNECTIONS = 256
BARE_CALLS = 4_000

PLAIN_PROCESSES = 4
"""As many as the worker has by itself on a machine of two cores."""
PLAIN_SECONDS = 300

SINGLY, SHARED, BARE, PLAIN = "singly", "shared", "bare", "plain"


@dataclass
class _Found:
    rate: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    calls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    asked: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)


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
            for name in interleaved((SINGLY, PLAIN, BARE, SHARED), number):
                if name == BARE:
                    found.bare.append(_bare_rate(singly))
                elif name == PLAIN:
                    found.plain.append(_plain_cpu(singly, changes))
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
            "was asked. CPU is that of the worker's processes and of Redis. The script that makes "
            f"the two calls alone has {PLAIN_PROCESSES} processes of {two_calls.THREADS} threads."
        ),
    )


def _bare_rate(stack: Stack) -> float:
    """Calls a second that the simulated API answers to a client that does nothing else."""
    requests = api.requests(BARE_CALLS, first=CUSTOMERS // 2)
    address = "127.0.0.1", stack.fusebill_port
    return load.drive(address, requests, connections=BARE_CONNECTIONS).rate(BARE_CONNECTIONS)


def _plain_cpu(stack: Stack, changes: int) -> float:
    """CPU milliseconds that a change takes a script which makes its two calls and nothing else."""
    each = changes // PLAIN_PROCESSES
    firsts = [FIRST_CUSTOMER + CUSTOMERS // 2 + each * place for place in range(PLAIN_PROCESSES)]
    argv = [sys.executable, "-m", two_calls.__name__, str(stack.fusebill_port), API_KEY]

    def cpu_seconds(first: int) -> float:
        done = subprocess.run(
            [*argv, str(first), str(each)],
            stdout=subprocess.PIPE,
            env=stack.env,
            timeout=PLAIN_SECONDS,
            check=True,
        )
        return float(done.stdout)

    used = side_by_side(firsts, cpu_seconds, PLAIN_PROCESSES)
    return sum(used) / (each * PLAIN_PROCESSES) * 1000


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
            reference=series(found.plain),
            against="its two calls alone, by requests",
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
