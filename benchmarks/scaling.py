"""Scaling: one worker with 1, 2 and 4 processes, and what bounds each.

The same backlog as in converge, worked off by workers of different size. What bounds them is read
off the CPU time of every process while they work: cores that are all busy, one process that is, or
neither, and then the work waits for the API.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import cpu
from benchmarks.harness.converging import LATENCY_MS, Drained, behave, drain, warm_up
from benchmarks.harness.figures import Result, Row, Series, share
from benchmarks.harness.run import Run, Supply, interleaved
from benchmarks.harness.stack import Stack

NAME = "scaling"
TITLE = "one worker of 1, 2 and 4 processes"

SIZES = (1, 2, 4)
CHANGES = 1_500
QUICK_CHANGES = 100

BUSY = 0.9
"""A core, or all of them, that works this share of the time is what bounds."""

OURS = 0.8
"""Of what the machine did, so much must be the processes measured."""

SAMPLED_SECONDS = 5
SHOWN_FUNCTIONS = 8


@dataclass(frozen=True)
class Load:
    """Cores that each kind of process kept busy on average: 1.0 is a core."""

    machine: float
    of: dict[str, float]

    def told(self) -> str:
        """In words, the largest first."""
        ordered = sorted(self.of.items(), key=lambda item: -item[1])
        parts = [f"{name} {share(busy)}" for name, busy in ordered if busy >= 0.01]
        return f"the machine: {share(self.machine)} of a core, of it " + ", ".join(parts)


def run(run: Run) -> Result:
    """One stack; a new worker for each size in each round."""
    rates: dict[int, list[float]] = defaultdict(list)
    costs: dict[int, list[float]] = defaultdict(list)
    loads: dict[int, Load] = {}
    functions: dict[int, list[str]] = {}
    changes = run.either(CHANGES, QUICK_CHANGES)
    with Stack(run.new_folder(NAME)) as stack:
        supply = Supply()
        behave(stack, honour_ids=False)
        stack.start("web")
        stack.start("beat")
        for number in range(run.rounds):
            for size in interleaved(SIZES, number):
                stack.start("worker", "--concurrency", str(size))
                warm_up(stack, supply)
                took, loads[size] = _worked(stack, supply, changes)
                rates[size].append(changes / took.seconds)
                costs[size].append(took.cpu_seconds / changes * 1000)
                if number == run.rounds - 1:
                    functions[size] = _functions(stack, supply, changes, run.folder)
                stack.stop("worker")
                run.say(f"{NAME}, round {number + 1}, {size}: {rates[size][-1]:,.0f} changes/s")
    return Result(
        name=NAME,
        title=TITLE,
        rows=[_row(size, rates) for size in SIZES]
        + [
            Row(
                figure=f"CPU a change, worker of {size}",
                unit="ms",
                ours=Series(tuple(costs[size])),
            )
            for size in SIZES
        ],
        notes=[
            f"worker of {size}: bound by {bound_by(loads[size], os.cpu_count() or 1)} "
            f"({loads[size].told()})" + "".join(functions.get(size, []))
            for size in SIZES
        ],
        rounds=run.rounds,
        quick=run.quick,
        load=(
            f"{changes:,} changes a round, a read and a write each, the API answers after "
            f"{LATENCY_MS:g} ms; `--concurrency` of the worker is 1, 2 and 4, all else as in "
            "converge. The simulated API and Redis run on the same cores."
        ),
        points={
            "changes a second": [(float(size), Series(tuple(rates[size])).median) for size in SIZES]
        },
    )


def _row(size: int, rates: dict[int, list[float]]) -> Row:
    one = Series(tuple(rates[1])) if size > 1 else None
    return Row(
        figure=f"changes worked off, worker of {size}",
        unit="/s",
        ours=Series(tuple(rates[size])),
        reference=one,
        against="worker of 1" if one else "",
    )


def _worked(stack: Stack, supply: Supply, changes: int) -> tuple[Drained, Load]:
    """Work a backlog off, and see who was busy meanwhile."""
    roots = {name: stack.pid(name) for name in ("web", "worker", "beat", "redis", "fusebill")}
    seen: list[tuple[float, dict[str, dict[int, float]]]] = []

    def look() -> None:
        seen.append((cpu.busy(), {name: cpu.each(pid) for name, pid in roots.items()}))

    took = drain(stack, supply, changes, look)
    (busy_before, before), (busy_after, after) = seen
    of = {}
    for name, pid in roots.items():
        used = {one: now - before[name].get(one, 0.0) for one, now in after[name].items()}
        if name == "worker":
            pool = {one for main in cpu.children(pid) for one in cpu.children(main)}
            of["worker's main processes"] = sum(used[one] for one in used if one not in pool)
            for place, one in enumerate(sorted(pool & used.keys()), start=1):
                of[f"worker's process {place}"] = used[one]
        else:
            of[{"redis": "Redis", "fusebill": "the simulated API"}.get(name, name)] = sum(
                used.values()
            )
    of = {name: seconds / took.seconds for name, seconds in of.items()}
    return took, Load((busy_after - busy_before) / took.seconds, of)


def bound_by(load: Load, cores: int) -> str:
    """What keeps it from going faster."""
    if load.machine >= BUSY * cores:
        if sum(load.of.values()) < OURS * load.machine:
            return "other programs, which kept the machine busy: measure again"
        return f"the {cores} cores of the machine, which are all busy"
    name, most = max(load.of.items(), key=lambda item: item[1])
    if most >= BUSY:
        return f"one core: {name} is busy all the time"
    return "waiting: for the API, and for its turn; no core is busy"


def _functions(stack: Stack, supply: Supply, changes: int, folder: Path) -> list[str]:
    """Where a process of the pool spends its time, if there is a py-spy to look with. Only threads
    that hold the interpreter count: those that wait cost nothing.
    """
    tool = shutil.which("py-spy")
    main = [one for one in cpu.children(stack.pid("worker")) if cpu.children(one)]
    pool = [one for pid in main for one in cpu.children(pid)]
    if tool is None or not pool:
        return []
    path = folder / "stacks"
    argv = [tool, "record", "--pid", str(pool[0]), "--duration", str(SAMPLED_SECONDS)]
    looking = subprocess.Popen(
        [*argv, "--gil", "--format", "raw", "--output", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    drain(stack, supply, changes)
    looking.wait(60)
    return [f"; of a process of its pool: {top_functions(path.read_text())}"]


def top_functions(stacks: str) -> str:
    """The functions that were on top most often, from lines of `a;b;c COUNT`."""
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        counts[stack.rpartition(";")[2]] += int(count)
    whole = sum(counts.values()) or 1
    shown = counts.most_common(SHOWN_FUNCTIONS)
    return ", ".join(f"{name} {share(count / whole)}" for name, count in shown)
