"""Waiting for real processes: what tests of kills and restarts share."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_SECONDS = 30


def until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Return when the condition holds; fail loudly if it never does."""
    if not within(condition, seconds):
        raise AssertionError(f"did not come true within {seconds} s")


def within(condition: Callable[[], object], seconds: float) -> bool:
    """Whether the condition came to hold; return as soon as it does, or when the time is over."""
    begun = time.monotonic()
    while not condition():
        waited = time.monotonic() - begun
        if waited > seconds:
            return False
        # Ever more seldom: looking takes time from what is waited for.
        time.sleep(min(0.01 + waited / 50, 0.1))
    return True


def gone(pid: int) -> bool:
    """Whether a process has ended: no longer there, or a zombie that nobody has waited for."""
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return True
        return stat.rpartition(")")[2].split()[0] in "ZX"
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return not state or state.startswith("Z")


def command_line(pid: int) -> str:
    """The command line of a process, "" if it is gone."""
    shown = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip()


def children(pid: int) -> list[int]:
    """The processes that a process started itself."""
    return _by_parent().get(pid, [])


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    by_parent = _by_parent()
    found: list[int] = []
    waiting = [pid]
    while waiting:
        young = by_parent.get(waiting.pop(), [])
        found += young
        waiting += young
    return found


def _by_parent() -> dict[int, list[int]]:
    listing = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    found: dict[int, list[int]] = {}
    for line in listing.splitlines():
        child, parent = map(int, line.split())
        found.setdefault(parent, []).append(child)
    return found
