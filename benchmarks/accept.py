"""Accept: HubSpot requests of 100 events, signed, as fast as the receiver takes them.

Three receivers in turn, each fresh and on a fresh store: ours, reference A (one `apply_async` for
each event) and reference B (one XADD of the raw body). Then, at half of what ours took, how long
an answer takes; and single events, one at a time, beside an empty view.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field

from benchmarks.harness import load, vendors
from benchmarks.harness.figures import Bound, Result, Row, Series, percentile
from benchmarks.harness.run import Run, Supply, interleaved
from benchmarks.harness.stack import Stack, Stuck
from benchmarks.harness.vendors import BATCH, Link, Vendor
from benchmarks.references import apply_async, xadd

NAME = "accept"
TITLE = "receiving HubSpot's requests of 100 events"

OURS, PER_EVENT, RAW, EMPTY = "ours", "apply_async", "xadd", "empty"
CONTESTANTS = (PER_EVENT, OURS, RAW)
AGAINST = {
    PER_EVENT: "one apply_async an event",
    RAW: "one XADD of the raw body",
    EMPTY: "an empty view",
}
POLICIES = ("always", "everysec")

CONNECTIONS = 16
WARM_REQUESTS = 16
"""Before the clock starts: connections to Redis and lazy imports."""

MEASURED_SECONDS = {OURS: 4.0, PER_EVENT: 8.0, RAW: 4.0}
"""A takes a tenth of a second and more for a request: it needs longer for as many."""
QUICK_SECONDS = 0.6
SLICES = 4
"""How often connections are opened anew: a connection stays with the process of gunicorn that took
it, and sixteen seldom fall eight and eight, so one set of them would measure the dice."""
SLICE_REQUESTS = 4 * CONNECTIONS
"""No slice is shorter."""
CALIBRATION_SECONDS = 0.4
MOST_REQUESTS = 12_000
"""What is prepared beforehand fits into memory: 28 kB each."""

TRAILING_SECONDS = 0.4
"""Work that follows an answer belongs to it: our wake-ups are sent by a thread of its own."""

HALF_SECONDS = 5.0
SINGLE_EVENTS = 300


@dataclass
class _Found:
    """By what was measured: one figure for each round."""

    rate: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    half_p50: list[float] = field(default_factory=list)
    half_p99: list[float] = field(default_factory=list)
    single: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def run(run: Run) -> Result:
    """Measure under both policies of keeping."""
    rows: list[Row] = []
    for policy in POLICIES:
        found = _Found()
        for number in range(run.rounds):
            for name in interleaved(CONTESTANTS, number):
                _measure(run, policy, name, found)
                run.say(
                    f"{NAME}, fsync {policy}, round {number + 1}: {name} "
                    f"{found.rate[name][-1]:,.0f} events/s, {found.cpu[name][-1]:.0f} µs/event"
                )
            _single_events(run, policy, found, ours_first=number % 2 == 0)
        rows += _rows(policy, found)
    return Result(
        name=NAME,
        title=TITLE,
        rows=rows,
        rounds=run.rounds,
        quick=run.quick,
        load=(
            f"{BATCH} events a request (28 kB), signed v3, {CONNECTIONS} connections, every event "
            "of another record; connections are opened anew a few times a round. No worker and no "
            "beat run: names gather in the queue. The store "
            "keeps its file on disk, for the references too; the load generator runs on the same "
            "cores, and only the CPU time of the receiver and of Redis is counted."
        ),
    )


def _rows(policy: str, found: _Found) -> list[Row]:
    def series(values: list[float]) -> Series:
        return Series(tuple(values))

    def beside(
        figure: str, unit: str, of: dict[str, list[float]], name: str, bound: Bound | None = None
    ) -> Row:
        return Row(
            figure=f"{figure}, fsync {policy}",
            unit=unit,
            ours=series(of[OURS]),
            reference=series(of[name]),
            against=AGAINST[name],
            bound=bound,
        )

    def ours(figure: str, values: list[float], bound: Bound | None = None) -> Row:
        return Row(figure=f"{figure}, fsync {policy}", unit="ms", ours=series(values), bound=bound)

    return [
        beside("events accepted", "/s", found.rate, PER_EVENT, Bound("≥", 15, "ratio")),
        beside("CPU an event", "µs", found.cpu, RAW, Bound("≤", 3.5, "ratio")),
        beside("CPU an event", "µs", found.cpu, PER_EVENT),
        beside("events accepted", "/s", found.rate, RAW),
        ours("p99 at half of our ceiling", found.half_p99, Bound("≤", 150)),
        ours("p50 at half of our ceiling", found.half_p50),
        beside("one event at a time, p50", "ms", found.single, EMPTY, Bound("≤", 2, "ratio")),
    ]


def _measure(run: Run, policy: str, name: str, found: _Found) -> None:
    """One receiver, fresh, at its ceiling; ours then at half of it."""
    with Stack(run.new_folder(f"accept-{name}"), appendfsync=policy) as stack:
        process = _start(stack, name)
        sender = _Sender(stack)
        sender.send(WARM_REQUESTS)
        rate = sender.calibrated()
        seconds = run.either(MEASURED_SECONDS[name], QUICK_SECONDS)
        requests = sender.prepare(int(min(MOST_REQUESTS, max(CONNECTIONS * 2, rate * seconds))))
        before = stack.cpu(process, "redis")
        rate = _driven(stack, requests)
        time.sleep(TRAILING_SECONDS)
        used = stack.cpu(process, "redis") - before
        found.rate[name].append(rate * BATCH)
        found.cpu[name].append(used / (len(requests) * BATCH) * 1e6)
        if name == OURS:
            count = max(50, int(rate / 2 * run.either(HALF_SECONDS, QUICK_SECONDS)))
            half = load.drive(
                stack.address, sender.prepare(count), connections=CONNECTIONS, rate=rate / 2
            )
            found.half_p50.append(percentile(half.latencies, 0.5) * 1000)
            found.half_p99.append(percentile(half.latencies, 0.99) * 1000)
        _check_kept(stack, name, sender.sent)


def _driven(stack: Stack, requests: list[bytes]) -> float:
    """Send these at the ceiling; requests a second, with connections opened anew now and then."""
    slices = max(1, min(SLICES, len(requests) // SLICE_REQUESTS))
    parts = [requests[place::slices] for place in range(slices)]
    rates = [
        load.drive(stack.address, part, connections=CONNECTIONS).rate(CONNECTIONS) for part in parts
    ]
    # Each slice is as many requests: what counts is how long they take together.
    return statistics.harmonic_mean(rates)


def _start(stack: Stack, name: str) -> str:
    """Start a receiver; the name of its process."""
    if name == OURS:
        stack.start("web")
        return "web"
    stack.start_reference(name)
    return name


class _Sender:
    """Prepares requests, none of which repeats anything."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._supply = Supply()
        self.sent = 0
        """Requests."""

    def prepare(self, count: int) -> list[bytes]:
        """So many requests, signed now."""
        self.sent += count
        links = self._supply.take(count * BATCH)
        return vendors.requests(Vendor.HUBSPOT, links, public_url=self._stack.url)

    def send(self, count: int) -> load.Measured:
        """Prepare and send them."""
        return load.drive(self._stack.address, self.prepare(count), connections=CONNECTIONS)

    def calibrated(self) -> float:
        """About how many requests a second it takes."""
        count = WARM_REQUESTS
        while True:
            measured = self.send(count)
            if measured.seconds >= CALIBRATION_SECONDS:
                return count / measured.seconds
            count *= 2


def _check_kept(stack: Stack, name: str, requests: int) -> None:
    """Everything that was answered is there, once."""
    events = requests * BATCH
    if name == OURS:
        kept, due = stack.counted("accepted"), stack.owed()
        if kept != events or due != events:
            raise Stuck(f"{events} events were answered, {kept} counted, {due} are due")
        return
    if name == RAW:
        told, kept = requests, int(stack.client.xlen(xadd.STREAM))
    else:
        told, kept = events, int(stack.client.llen(apply_async.QUEUE))
    if told != kept:
        raise Stuck(f"reference {name} answered {told} and kept {kept}")


def _single_events(run: Run, policy: str, found: _Found, *, ours_first: bool) -> None:
    """One event at a time, over one connection: ours and the empty view in turn."""
    with (
        Stack(run.new_folder("single"), appendfsync=policy) as ours,
        Stack(run.new_folder(EMPTY)) as empty,
    ):
        ours.start("web")
        empty.start_reference(EMPTY)
        count = run.either(SINGLE_EVENTS, 40)
        supply = Supply()

        def times(stack: Stack, links: list[Link]) -> list[float]:
            requests = vendors.requests(Vendor.HUBSPOT, links, public_url=stack.url, batch=1)
            return load.drive(stack.address, requests, connections=1).latencies

        took: dict[str, list[float]] = {OURS: [], EMPTY: []}
        for part in range(4):
            # The first part is not counted: connections, lazy imports.
            order = [(OURS, ours), (EMPTY, empty)]
            for name, stack in interleaved(order, part + (not ours_first)):
                latencies = times(stack, supply.take(count // 3))
                if part:
                    took[name] += latencies
        for name, latencies in took.items():
            found.single[name].append(statistics.median(latencies) * 1000)
