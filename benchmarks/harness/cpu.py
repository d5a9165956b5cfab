"""CPU time and memory of process trees, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

_TIMES = slice(12, 16)
"""Where `_stat` has the four times: user and system time of the process, then of its children
that have ended and were waited for."""


_IDLE, _WAITING = 3, 4
"""Places in /proc/stat: of a core that had nothing to do, and one that waited for a disk."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process occupies, in bytes."""

    rss: int
    pss: int
    """Its fair share of pages that several processes map."""


def tree(*roots: int) -> list[int]:
    """These processes and all that they started, and those started in turn."""
    by_parent: dict[int, list[int]] = {}
    for stat in _stats():
        by_parent.setdefault(int(stat[2]), []).append(int(stat[0]))
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += by_parent.get(pid, [])
    return found


def children(pid: int) -> list[int]:
    """The processes that a process started itself."""
    return [int(stat[0]) for stat in _stats() if int(stat[2]) == pid]


def seconds(*roots: int) -> float:
    """CPU seconds, user and system, that these trees have used so far, ended children included.

    A child that ends and whose parent does not wait for it is lost; the product's do not.
    """
    return sum(_own(pid) for pid in tree(*roots))


def each(*roots: int) -> dict[int, float]:
    """The same for each process of the trees by itself."""
    return {pid: _own(pid) for pid in tree(*roots)}


def busy() -> float:
    """Seconds that all cores together have been busy since the machine started."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    times = [int(field) / TICKS_PER_SECOND for field in fields]
    return sum(times) - times[_IDLE] - times[_WAITING]


def memory(pid: int) -> Memory | None:
    """What a process occupies now; None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    sizes = {
        line.split()[0]: int(line.split()[1]) * 1024
        for line in text.splitlines()
        if line.startswith(("Rss:", "Pss:"))
    }
    return Memory(sizes.get("Rss:", 0), sizes.get("Pss:", 0))


def command(pid: int) -> str:
    """What a process was started as, "" if it is gone."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return text.replace(b"\0", b" ").decode(errors="replace").strip()


def _own(pid: int) -> float:
    stat = _stat(pid)
    if stat is None:
        return 0.0
    return sum(map(int, stat[_TIMES])) / TICKS_PER_SECOND


def _stats() -> Iterable[list[str]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat is not None:
                yield stat


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat without the command: pid, state, parent, ..."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head, _, rest = text.rpartition(")")
    return [head.split(" ", 1)[0], *rest.split()]
