"""Does the fault suite notice a broken promise, and does it leave a healthy tree alone?

    python -m tests.faults.sabotage --rounds 5      each promise broken in turn: red every time?
    python -m tests.faults.sabotage --healthy 20    nothing broken: green every time?

Each round has a seed of its own. A promise is broken by the seam, in the processes of the stack
(`seam/sitecustomize.py`); the product's code stays as it is.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

HERE = Path(__file__).parent
DIRECTED = "test_directed.py"

NOTICED_BY = {
    "crash_counting": f"{DIRECTED}::test_b6_6_what_kills_its_workers_ends_as_a_dead_letter"
    "_and_the_others_flow",
    "sweep": f"{DIRECTED}::test_b6_7_what_nobody_woke_is_woken_though_nothing_more_comes",
    "lease_renewal": f"{DIRECTED}::test_b5_3_a_plan_slower_than_its_lease_is_worked_by_one_worker",
    "lost_answer": f"{DIRECTED}::test_b5_3_a_write_that_was_lost_on_its_way_is_made_after_all",
    "token": f"{DIRECTED}::test_b6_8_a_worker_that_stalled_settles_nothing_of_its_successors",
}
"""The promise that is broken -> the test that has to notice."""

HEALTHY = ("test_chaos.py", "test_boundaries.py", DIRECTED)

LOGS = Path("fault-logs")


class Colour(Enum):
    """How a run ended."""

    GREEN = "green"
    RED = "red"
    BROKEN = "broken"
    """The tests did not get to what they test: that shows nothing."""


@dataclass(frozen=True)
class Run:
    """One run of some tests."""

    what: str
    seed: int
    colour: Colour
    seconds: float
    why: str


def run(what: str, tests: Iterable[str], seed: int, *, sabotage: str, logs: Path) -> Run:
    """Run tests once, in a process of their own; what they say is kept in a file."""
    begun = time.monotonic()
    log = logs / f"{what}-{seed}.log"
    environment = {**os.environ, "FAULT_SEED": str(seed), "FAULT_SABOTAGE": sabotage}
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
    with log.open("wb") as out:
        code = subprocess.run(
            [*command, *(str(HERE / test) for test in tests)],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    colour, why = judge(code, log.read_text(errors="replace"))
    return Run(what, seed, colour, time.monotonic() - begun, why)


def judge(code: int, said: str) -> tuple[Colour, str]:
    """A test that fails is red; one that cannot be set up, or was not sabotaged, shows nothing."""
    if code == 0:
        return Colour.GREEN, ""
    why = next(iter(re.findall(r"^E {3,}(?![ \[])(.+)$", said, re.MULTILINE)), "see its log")[:90]
    errors = re.search(r"^ERROR ", said, re.MULTILINE)
    return (Colour.BROKEN if code != 1 or errors else Colour.RED), why


def show(runs: Sequence[Run], wanted: Colour) -> bool:
    """Print how it went, by what was run; tells whether all of it is as wanted."""
    print(f"\n{'':<16} {'as wanted':<12} seconds  seeds that were not")
    for what in dict.fromkeys(one.what for one in runs):
        mine = [one for one in runs if one.what == what]
        good = [one for one in mine if one.colour is wanted]
        bad = ", ".join(
            f"{one.seed} {one.colour.value}: {one.why}" for one in mine if one not in good
        )
        seconds = sum(one.seconds for one in mine) / len(mine)
        count = f"{len(good)} of {len(mine)}"
        print(f"{what:<16} {count:<12} {seconds:7.1f}  {bad or '-'}")
    return all(one.colour is wanted for one in runs)


def tell(one: Run) -> Run:
    """Say how a run went as soon as it is known."""
    print(
        f"{one.what} seed {one.seed}: {one.colour.value} ({one.seconds:.0f} s) {one.why}",
        flush=True,
    )
    return one


def broken(rounds: int, names: Sequence[str], first_seed: int, logs: Path) -> bool:
    """Break one promise after the other."""
    print(f"{rounds} rounds of each, which all have to be red")
    runs = [
        tell(run(name, [NOTICED_BY[name]], seed, sabotage=name, logs=logs))
        for seed in range(first_seed, first_seed + rounds)
        for name in names
    ]
    return show(runs, Colour.RED)


def healthy(rounds: int, first_seed: int, logs: Path) -> bool:
    """Break nothing."""
    print(f"{rounds} rounds of each, which all have to be green")
    runs = [
        tell(run(test.removesuffix(".py"), [test], seed, sabotage="", logs=logs))
        for seed in range(first_seed, first_seed + rounds)
        for test in HEALTHY
    ]
    return show(runs, Colour.GREEN)


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help="of each sabotage")
    parser.add_argument("--only", choices=NOTICED_BY, action="append", help="of the sabotages")
    parser.add_argument("--healthy", type=int, default=0, help="rounds with nothing broken")
    parser.add_argument("--seed", type=int, default=101, help="of the first round")
    parser.add_argument("--logs", type=Path, default=LOGS, help="folder for what the tests say")
    asked = parser.parse_args()
    asked.logs.mkdir(parents=True, exist_ok=True)
    good = True
    if asked.rounds:
        good &= broken(asked.rounds, asked.only or list(NOTICED_BY), asked.seed, asked.logs)
    if asked.healthy:
        good &= healthy(asked.healthy, asked.seed, asked.logs)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
