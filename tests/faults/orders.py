"""Orders to the product's processes: what the seam in them is to do (`seam/sitecustomize.py`)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEAM = Path(__file__).parent / "seam"

BRISK: dict[str, dict[str, Any]] = {
    "sync_worker.settings": {"CONNECT_TIMEOUT_SECONDS": 0.5, "LEASE_MARGIN_SECONDS": 0.5},
    "sync_worker.celery": {"BATCH": 1, "WAKE_PERIOD_SECONDS": 0.5},
    "sync_worker.inbox.inbox": {"WAKE_GRACE_MS": 3_000, "TURN_MS": 300},
    "sync_worker.drain": {"BUSY_TURNS": 2},
    "sync_worker.sweep": {"LEASE_MS": 4_000},
    "sync_worker.gates": {"PROBE_SECONDS": 1},
}
"""The product's own waits, shortened together so that a minute shows what else takes ten: what they
promise one another (a lease outlives a call) holds as before. A wake-up names one mailbox, so that
a death under way costs the others no wake-up.
"""

BRISK_SETTINGS = {"FUSEBILL_READ_TIMEOUT_SECONDS": "3", "LEASE_SECONDS": "4"}
"""The smallest lease that goes with them."""


@dataclass(frozen=True)
class Plan:
    """What happens at a boundary of the convergence of some mailboxes, to whichever comes first.

    The boundary is named by its number, or by `when` and the beginning of what is done there.
    """

    name: str
    mailboxes: tuple[str, ...]
    act: str
    """`kill`, or `stall` until `Orders.free`."""
    boundary: int | None = None
    when: str = ""
    what: str = ""
    every: bool = False
    """Each time, instead of once."""


@dataclass
class Orders:
    """The orders file of one stack, and what came of it."""

    folder: Path
    constants: dict[str, dict[str, Any]] = field(default_factory=dict)
    sabotage: tuple[str, ...] = ()
    traced: bool = True

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / "orders.json"
        self._trace = self.folder / "trace"
        self._plans: dict[str, list[dict[str, Any]]] = {}
        self._clocks: dict[str, float] = {}
        self._lock = threading.Lock()
        self._write()

    def environment(self, process: str) -> dict[str, str]:
        """What brings the seam into a process."""
        return {
            "PYTHONPATH": str(SEAM),
            "FAULT_ORDERS": str(self._path),
            "FAULT_PROCESS": process,
        }

    def set_clock(self, process: str, seconds: float) -> None:
        """Have the clocks of a process be wrong by so much."""
        self._clocks[process] = seconds
        self._write()

    def plan(self, *plans: Plan) -> None:
        """Have these happen, beside what was planned before."""
        for one in plans:
            form = {name: getattr(one, name) for name in Plan.__dataclass_fields__}
            for mailbox in one.mailboxes:
                self._plans.setdefault(mailbox, []).append(form)
        self._write()

    def drop_plans(self) -> None:
        """Have nothing more happen."""
        self._plans.clear()
        self._write()

    def happened(self, plan: Plan) -> bool:
        """Whether it did, of one that happens once."""
        return (self.folder / plan.name).exists()

    def free(self, plan: Plan) -> None:
        """Let what stalls go on."""
        (self.folder / f"{plan.name}.free").touch()

    @property
    def sabotaged(self) -> bool:
        """Whether what was to be broken was met, and broken."""
        return (self.folder / "sabotaged").exists()

    def trace(self) -> list[Step]:
        """Every boundary that was passed, in the order of time."""
        if not self._trace.exists():
            return []
        with self._trace.open(encoding="utf-8") as lines:
            return sorted((Step(*json.loads(line)) for line in lines), key=lambda step: step.at)

    def _write(self) -> None:
        form = {
            "constants": self.constants,
            "sabotage": self.sabotage,
            "clocks": self._clocks,
            "plans": self._plans,
            "trace": str(self._trace) if self.traced else None,
        }
        with self._lock:
            new = self._path.with_suffix(f".{time.monotonic_ns()}")
            new.write_text(json.dumps(form), encoding="utf-8")
            new.replace(self._path)


@dataclass(frozen=True)
class Step:
    """A line of the trace."""

    at: float
    """By the clock that all processes of the machine share."""
    pid: int
    thread: int
    mailbox: str | None
    number: int
    when: str
    what: str


@dataclass(frozen=True)
class Convergence:
    """The steps of one convergence."""

    steps: tuple[Step, ...]

    @property
    def mailbox(self) -> str | None:
        return self.steps[0].mailbox

    @property
    def boundaries(self) -> int:
        """How many it passed."""
        return max(step.number for step in self.steps)

    @property
    def ended(self) -> str:
        """How it ended, "" if its process died."""
        last = self.steps[-1]
        return last.what if last.when == "ends" else ""


def convergences(steps: Iterable[Step]) -> list[Convergence]:
    """Tell apart what each thread of each process did, one mailbox after the other."""
    found: list[Convergence] = []
    under_way: dict[tuple[int, int], list[Step]] = {}
    for step in steps:
        who = (step.pid, step.thread)
        if step.when == "begins" and who in under_way:
            found.append(Convergence(tuple(under_way.pop(who))))
        under_way.setdefault(who, []).append(step)
        if step.when == "ends":
            found.append(Convergence(tuple(under_way.pop(who))))
    return found + [Convergence(tuple(left)) for left in under_way.values()]
