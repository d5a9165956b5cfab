"""Growth: a store that holds a million settled changes, beside one that holds none.

What a settled change leaves in Redis, and whether receiving and working off are any slower for it.
How the million is made stands in `harness/multiply.py`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from benchmarks.harness import load, vendors
from benchmarks.harness.converging import behave, warm_up
from benchmarks.harness.figures import Bound, Result, Row, Series
from benchmarks.harness.fusebill import FIRST_CUSTOMER
from benchmarks.harness.multiply import multiply
from benchmarks.harness.run import Run, Supply, interleaved
from benchmarks.harness.stack import Stack, Stuck
from benchmarks.harness.vendors import Link, Vendor

NAME = "growth"
TITLE = "a store with a million settled changes"

RECORDS, QUICK_RECORDS = 2_500, 50
"""Really accepted and settled; each is told of so often:"""
WAVES = (1, 5, 5, 5, 4)
"""The first makes the latch; the others repeat it, several in one mailbox, so that most end as
`superseded` and one in each wave as `unchanged`."""
COPIES, QUICK_COPIES = 19, 3

MEASURED_RECORDS, QUICK_MEASURED = 2_000, 60
TOLD = 10
"""How often each record is told of in what is measured: requests enough for receiving, mailboxes
few enough for working off."""
CONNECTIONS = 16

EMPTY, FULL = "empty", "full"


@dataclass
class _Found:
    accepted: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    accept_cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    drained: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    drain_cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    calls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """For each mailbox: the two stores must have been worked off alike."""


@dataclass
class Sizes:
    """What the store held after each step, in bytes."""

    before: int
    first: int
    """After the first change of each record."""
    small: int
    """After all that was really settled."""
    full: int
    """After copying."""


def run(run: Run) -> Result:
    """Fill one of two stores, then measure both in turn."""
    records = run.either(RECORDS, QUICK_RECORDS)
    copies = run.either(COPIES, QUICK_COPIES)
    each = sum(WAVES)
    found = _Found()
    with Stack(run.new_folder(EMPTY)) as empty, Stack(run.new_folder(FULL)) as full:
        supplies = {FULL: Supply(), EMPTY: Supply()}
        sizes = _fill(run, full, supplies[FULL], records, copies)
        # The same records as there: only what was settled before differs.
        supplies[EMPTY].take(records * (copies + 1))
        _start(empty)
        warm_up(empty, supplies[EMPTY])
        stacks = {EMPTY: empty, FULL: full}
        for stack in stacks.values():
            stack.settle_file()
        count = run.either(MEASURED_RECORDS, QUICK_MEASURED)
        for name, stack in stacks.items():  # as warm as one another: this round does not count
            _measure(stack, supplies[name], name, count, _Found())
        for number in range(run.rounds):
            for name in interleaved((EMPTY, FULL), number):
                _measure(stacks[name], supplies[name], name, count, found)
                run.say(
                    f"{NAME}, round {number + 1}, {name}: {found.accepted[name][-1]:,.0f} events/s "
                    f"accepted, {found.drained[name][-1]:,.0f} mailboxes/s worked off"
                )
    changes = records * each
    settled = changes * (copies + 1)
    return Result(
        name=NAME,
        title=TITLE,
        rows=[*_ratios(found), *_bytes(sizes, records, each, copies)],
        rounds=run.rounds,
        quick=run.quick,
        load=(
            f"{settled:,} settled changes of {records * (copies + 1):,} records: {changes:,} of "
            f"{records:,} were received over HTTP and settled by a worker ({each} each, in waves "
            f"of {', '.join(map(str, WAVES))}); what they left was then copied {copies} times for "
            "other records and customers, key by key and line by line. Measured with "
            f"{count * TOLD:,} events of {count:,} new records, {TOLD} each: received with the "
            "worker held still, then worked off, the API answering at once and knowing "
            "`id:1,2,3`; one store after the other in each round."
        ),
    )


def _start(stack: Stack) -> None:
    behave(stack, honour_ids=True, latency_ms=0)
    for command in ("web", "worker", "beat"):
        stack.start(command)


def _fill(run: Run, stack: Stack, supply: Supply, records: int, copies: int) -> Sizes:
    _start(stack)
    supply.take(records)
    # Warmed with records beyond those that will be copied.
    warm = Supply()
    warm.take(1_000_000)
    warm_up(stack, warm)
    time.sleep(1)
    before = stack.used_memory()
    sizes = []
    for number, times in enumerate(WAVES):
        for _ in range(times):
            stack.feed(Vendor.HUBSPOT, supply.again(range(records)))
        stack.drained(1_800)
        time.sleep(1)
        sizes.append(stack.used_memory())
        run.say(f"{NAME}: wave {number + 1} of {len(WAVES)} is settled")
    changes = records * sum(WAVES)
    multiply(stack.redis.url, records=records, changes=changes, copies=copies)
    supply.take(records * copies)
    _check_copies(stack, records)
    time.sleep(1)
    run.say(f"{NAME}: {changes * (copies + 1):,} settled changes are there")
    return Sizes(before, sizes[0], sizes[-1], stack.used_memory())


def _check_copies(stack: Stack, records: int) -> None:
    """The product knows as much of a copied customer as of the one that it was copied from."""
    turns = [
        msgspec.json.decode(stack.command("history", str(customer), "--json"))
        for customer in (FIRST_CUSTOMER, FIRST_CUSTOMER + records)
    ]
    if not turns[0] or len(turns[0]) != len(turns[1]):
        raise Stuck(f"copying did not work: {turns}")


def _measure(stack: Stack, supply: Supply, name: str, count: int, found: _Found) -> None:
    links = supply.take(count)
    told = links + [
        again
        for _ in range(TOLD - 1)
        for again in supply.again(range(links[0].record, links[0].record + count))
    ]
    stack.fusebill.forget()
    with stack.frozen("worker"):
        _receive(stack, name, told, found)
        before = stack.cpu("worker", "redis")
        begun = time.monotonic()
    seconds = stack.drained() - begun
    found.calls[name].append(stack.fusebill.counters().calls / count)
    found.drained[name].append(count / seconds)
    found.drain_cpu[name].append((stack.cpu("worker", "redis") - before) / count * 1000)


def _receive(stack: Stack, name: str, links: Sequence[Link], found: _Found) -> None:
    requests = vendors.requests(Vendor.HUBSPOT, links, public_url=stack.url)
    before = stack.cpu("web", "redis")
    measured = load.drive(stack.address, requests, connections=CONNECTIONS)
    time.sleep(0.3)  # wake-ups are sent a little later
    used = stack.cpu("web", "redis") - before
    found.accepted[name].append(len(links) / measured.seconds)
    found.accept_cpu[name].append(used / len(links) * 1e6)


def _ratios(found: _Found) -> list[Row]:
    def row(figure: str, unit: str, of: dict[str, list[float]], bound: Bound | None) -> Row:
        return Row(
            figure=f"{figure}, store full",
            unit=unit,
            ours=Series(tuple(of[FULL])),
            reference=Series(tuple(of[EMPTY])),
            against="store empty",
            bound=bound,
        )

    fast, cheap = Bound("≥", 0.9, "ratio"), Bound("≤", 1.1, "ratio")
    return [
        row("events accepted", "/s", found.accepted, fast),
        row("CPU an event accepted", "µs", found.accept_cpu, cheap),
        row("mailboxes worked off", "/s", found.drained, fast),
        row("CPU a mailbox worked off", "ms", found.drain_cpu, cheap),
        row("calls a mailbox worked off", "", found.calls, None),
    ]


def _bytes(sizes: Sizes, records: int, each: int, copies: int) -> list[Row]:
    changes = records * each

    def row(figure: str, size: float, bound: Bound | None = None) -> Row:
        return Row(figure=figure, unit="bytes", ours=Series((size,)), bound=bound)

    settled = changes * (copies + 1)
    return [
        row(
            f"Redis a settled change, {each} a record",
            (sizes.full - sizes.before) / settled,
            Bound("≤", 400),
        ),
        row("of those really settled", (sizes.small - sizes.before) / changes),
        row("of those copied", (sizes.full - sizes.small) / (changes * copies)),
        row(
            "Redis the first change of a record, with all that is known of it then",
            (sizes.first - sizes.before) / records,
        ),
        row(
            "Redis each further change of it",
            (sizes.small - sizes.first) / (changes - records),
        ),
    ]
