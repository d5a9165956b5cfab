"""Soak: what grows in half an hour of steady work.

Memory of every process, and of Redis for each settled change, looked at every ten seconds. The
first minutes do not count: pools fill, caches warm.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict

from benchmarks.harness import load, memory, vendors
from benchmarks.harness.converging import behave, warm_up
from benchmarks.harness.figures import Bound, Result, Row, Series, slope
from benchmarks.harness.memory import MEGABYTE
from benchmarks.harness.run import Run, Supply
from benchmarks.harness.stack import Stack
from benchmarks.harness.vendors import Vendor

NAME = "soak"
TITLE = "half an hour of steady work"

SECONDS, QUICK_SECONDS = 1_800.0, 40.0
SETTLING_SHARE = 1 / 6
"""The first five minutes of thirty."""
SAMPLE_SECONDS, QUICK_SAMPLE_SECONDS = 10.0, 1.0

RECORDS = 5_000
CHANGES_A_REQUEST = 10
PAUSE_SECONDS = 0.5
"""20 changes a second: twice what Fusebill's own limit allows to a write and a read each."""

PROCESSES = ("web", "worker", "beat", "redis")
MOST_GROWTH = 5.0
"""Per cent in the half hour that still pass for flat: an allocator never gives back all."""


def run(run: Run) -> Result:
    """One stack, one long round."""
    seconds = run.either(SECONDS, QUICK_SECONDS)
    every = run.either(SAMPLE_SECONDS, QUICK_SAMPLE_SECONDS)
    rss: dict[str, list[tuple[float, float]]] = defaultdict(list)
    used: list[tuple[float, float]] = []
    with Stack(run.new_folder(NAME)) as stack:
        supply = Supply()
        behave(stack, honour_ids=True)
        for command in ("web", "worker", "beat"):
            stack.start(command)
        warm_up(stack, supply)
        stop = threading.Event()
        feeding = threading.Thread(target=_feed, args=(stack, supply, stop), daemon=True)
        feeding.start()
        begun = time.monotonic()
        told = 0.0
        while (passed := time.monotonic() - begun) < seconds:
            for name, bytes_ in _largest(stack).items():
                rss[name].append((passed, bytes_ / MEGABYTE))
            accepted = stack.counted("accepted")
            used.append((float(accepted - stack.owed()), float(stack.used_memory())))
            if passed - told >= 60:
                told = passed
                run.say(f"{NAME}: {passed / 60:.0f} minutes, {accepted:,} changes")
            if not feeding.is_alive():
                raise RuntimeError("the sender gave up")
            time.sleep(every)
        stop.set()
        feeding.join(30)
    return Result(
        name=NAME,
        title=TITLE,
        rows=[*(_row(name, points, seconds) for name, points in rss.items()), _redis(used)],
        rounds=1,
        quick=run.quick,
        load=(
            f"{CHANGES_A_REQUEST} changes every {PAUSE_SECONDS:g} s of {RECORDS:,} records in "
            f"turn, for {seconds / 60:.0f} minutes, the API at 50 ms and knowing `id:1,2,3`. "
            "Growth is the slope of a straight line through what was seen every "
            f"{every:g} s, without the first sixth of the time, over the whole time and by the "
            "first value. Of processes of a kind the largest is looked at."
        ),
        points={f"memory, {name}": points for name, points in rss.items()},
    )


def _feed(stack: Stack, supply: Supply, stop: threading.Event) -> None:
    place = 0
    while not stop.wait(PAUSE_SECONDS):
        links = supply.again(range(place, place + CHANGES_A_REQUEST))
        place = (place + CHANGES_A_REQUEST) % RECORDS
        requests = vendors.requests(Vendor.HUBSPOT, links, public_url=stack.url)
        load.drive(stack.address, requests, connections=1)


def _largest(stack: Stack) -> dict[str, int]:
    """The largest process of each kind."""
    found: dict[str, int] = defaultdict(int)
    for process in memory.of(stack, *PROCESSES):
        name = memory.called(process.name)
        found[name] = max(found[name], process.memory.rss)
    return found


def _row(name: str, points: list[tuple[float, float]], seconds: float) -> Row:
    counted = [point for point in points if point[0] >= seconds * SETTLING_SHARE] or points
    grown = slope(counted) * seconds / counted[0][1] * 100
    if name == "Redis":
        return Row(figure="growth of Redis, data included", unit="%", ours=Series((grown,)))
    return Row(
        figure=f"growth of {name} ({counted[0][1]:.0f} MB)",
        unit="%",
        ours=Series((grown,)),
        bound=Bound("≤", MOST_GROWTH),
    )


def _redis(used: list[tuple[float, float]]) -> Row:
    return Row(
        figure="Redis a settled change, slope",
        unit="bytes",
        ours=Series((slope(used[len(used) // 6 :]),)),
        bound=Bound("≤", 400),
    )
