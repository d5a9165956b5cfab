"""What the processes of a stack occupy."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.harness import cpu
from benchmarks.harness.cpu import Memory
from benchmarks.harness.figures import Row, Series
from benchmarks.harness.stack import Stack

MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the product."""

    name: str
    """`web`, or `web 1` for one that it started, `web 2` for one that that one started."""
    pid: int
    memory: Memory


def of(stack: Stack, *names: str) -> list[Process]:
    """Every process of these, those that they started included."""
    found = []
    for name in names:
        level = [stack.pid(name)]
        depth = 0
        while level:
            for pid in level:
                memory = cpu.memory(pid)
                if memory is not None and "lifeline" not in cpu.command(pid):
                    found.append(Process(f"{name} {depth}" if depth else name, pid, memory))
            level = [child for pid in level for child in cpu.children(pid)]
            depth += 1
    return found


def rows(processes: list[Process]) -> list[Row]:
    """A row for each kind of process: the largest of its kind, and how many there are."""
    kinds: dict[str, list[Process]] = {}
    for process in processes:
        kinds.setdefault(process.name, []).append(process)
    made = [
        Row(
            figure=f"memory: {called(name)}" + (f", largest of {len(many)}" if many[1:] else ""),
            unit="MB",
            ours=Series((max(one.memory.rss for one in many) / MEGABYTE,)),
        )
        for name, many in kinds.items()
    ]
    whole = sum(one.memory.pss for one in processes) / MEGABYTE
    return [
        *made,
        Row(figure="memory: all together (PSS)", unit="MB", ours=Series((whole,))),
    ]


def called(name: str) -> str:
    """What a process is for, in words."""
    base, _, depth = name.partition(" ")
    if base == "redis":
        return "Redis"
    parts = {"": "the command itself", "1": "started by it", "2": "its pool"}
    return f"{base}, {parts.get(depth, depth)}"
