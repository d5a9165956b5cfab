"""Budget: how much of what Fusebill allows is used, and how often it has to refuse.

Two workers share 1,200 calls a minute, with more to do than that, for six minutes; counted at the
simulated Fusebill. Once alone, once beside a foreign client of the same account that takes 30 % in
bursts; once in windows that begin with the minute, once in windows that slide.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from benchmarks.harness import api, load
from benchmarks.harness.figures import Bound, Result, Row, Series
from benchmarks.harness.fusebill import MINUTE_SECONDS, Behaviour, Call
from benchmarks.harness.run import Run, Supply, side_by_side
from benchmarks.harness.stack import Stack
from benchmarks.harness.vendors import Vendor

NAME = "budget"
TITLE = "1,200 calls a minute, shared by two workers"

LIMIT = 1_200
MINUTES = 6
QUICK_MINUTES = 1
LATENCY_MS = 50.0
CUSTOMERS = 100_000

BURST_CALLS = 60
BURST_SECONDS = 10.0
BURST_CONNECTIONS = 6
"""The foreign client: 60 calls as fast as six connections make them, every 10 s: 30 % of 1,200."""

SIDE_BY_SIDE = 2
FEED_SECONDS = 8.0
"""Before the minute begins in which counting begins, the backlog is put there."""

Window = Literal["fixed", "sliding"]


@dataclass(frozen=True)
class Case:
    """One run of some minutes."""

    window: Window
    foreign: bool

    def __str__(self) -> str:
        beside = "beside a foreign client" if self.foreign else "alone"
        return f"{self.window} window, {beside}"


@dataclass(frozen=True)
class _Used:
    case: Case
    minutes: int
    calls: list[Call]
    """Those of the minutes that count."""

    def count(self, *, ours: bool, refused: bool) -> int:
        """How many of them."""
        return sum(call.ours is ours and (call.status == 429) is refused for call in self.calls)

    @property
    def left_to_us(self) -> int:
        """What the limit allows in these minutes, less what the foreign client got."""
        return LIMIT * self.minutes - self.count(ours=False, refused=False)

    @property
    def share(self) -> float:
        """How much of that was used."""
        return self.count(ours=True, refused=False) / self.left_to_us

    @property
    def refused_a_minute(self) -> float:
        """Our calls that were answered 429."""
        return self.count(ours=True, refused=True) / self.minutes


def run(run: Run) -> Result:
    """Each case once, two at a time: they hardly use the processors."""
    cases = [Case(window, foreign) for foreign in (False, True) for window in ("fixed", "sliding")]
    used = side_by_side(cases, lambda case: _use(run, case), SIDE_BY_SIDE)
    return Result(
        name=NAME,
        title=TITLE,
        rows=[row for one in used for row in _rows(one)],
        notes=list(map(_told, used)),
        rounds=1,
        quick=run.quick,
        load=(
            f"{run.either(MINUTES, QUICK_MINUTES)} minutes, {LIMIT:,} calls in each, two workers "
            "with their usual settings and FUSEBILL_CALLS_PER_MINUTE at the same figure; more "
            "HubSpot contacts are due than the minutes allow. The API takes "
            f"{LATENCY_MS:g} ms and knows `id:1,2,3`. The foreign client makes {BURST_CALLS} calls "
            f"as fast as {BURST_CONNECTIONS} connections do, every {BURST_SECONDS:g} s, whatever "
            "it is answered; it is told from us by its User-Agent."
        ),
    )


def _use(run: Run, case: Case) -> _Used:
    minutes = run.either(MINUTES, QUICK_MINUTES)
    limit = {"FUSEBILL_CALLS_PER_MINUTE": str(LIMIT)}
    workers = ("worker 1", "worker 2")
    with Stack(run.new_folder(NAME), **limit) as stack:
        behaviour = Behaviour(
            count=CUSTOMERS, latency_ms=LATENCY_MS, minute_limit=LIMIT, window=case.window
        )
        stack.fusebill.behave(behaviour)
        supply = Supply()
        stack.start("web")
        stack.start("beat")
        for name in workers:
            stack.start("worker", name=name)
        stack.feed(Vendor.HUBSPOT, supply.take(100))
        stack.drained(180)
        _sleep_until(_next_minute() - FEED_SECONDS)
        begin = _next_minute()
        with stack.frozen(*workers):
            stack.feed(Vendor.HUBSPOT, supply.take(int(LIMIT * (minutes + 0.5))))
            _sleep_until(begin)
        begin_ns = time.monotonic_ns() - int((time.time() - begin) * 1e9)
        run.say(f"{NAME}: {case} has begun, and takes {minutes} minutes")
        stop = threading.Event()
        if case.foreign:
            address = "127.0.0.1", stack.fusebill_port
            threading.Thread(target=_be_foreign, args=(address, stop), daemon=True).start()
        _sleep_until(begin + minutes * MINUTE_SECONDS)
        end_ns = begin_ns + int(minutes * MINUTE_SECONDS * 1e9)
        stop.set()
        calls = [call for call in stack.fusebill.calls() if begin_ns <= call.at_ns < end_ns]
        left = stack.owed()
    if not left:
        raise RuntimeError("the workers ran out of work: nothing is shown by what they left")
    used = _Used(case, minutes, calls)
    run.say(_told(used))
    return used


def _be_foreign(address: tuple[str, int], stop: threading.Event) -> None:
    begun = time.monotonic()
    burst = 0
    while not stop.wait(max(0.0, begun + burst * BURST_SECONDS - time.monotonic())):
        requests = [api.read(1) for _ in range(BURST_CALLS)]
        load.drive(address, requests, connections=BURST_CONNECTIONS, accept=(200, 404, 429))
        burst += 1


def _next_minute() -> float:
    now = time.time()
    begins = now - now % MINUTE_SECONDS + MINUTE_SECONDS
    # One that is too near for the backlog to be put there is let go by.
    return begins if begins - now >= FEED_SECONDS - 1 else begins + MINUTE_SECONDS


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


def _rows(used: _Used) -> list[Row]:
    most = Bound("≤", 1 if used.case.foreign else 0)
    return [
        Row(
            figure=f"used of what was left to us: {used.case}",
            unit="%",
            ours=Series((used.share * 100,)),
            bound=Bound("≥", 97),
        ),
        Row(
            figure=f"our calls answered 429: {used.case}",
            unit="a minute",
            ours=Series((used.refused_a_minute,)),
            bound=most,
        ),
    ]


def _told(used: _Used) -> str:
    text = (
        f"{used.case}: {used.count(ours=True, refused=False):,} calls of "
        f"{used.left_to_us:,} that were left to us, "
        f"{used.count(ours=True, refused=True)} answered 429; most in 60 s: "
        f"{most_in_a_minute([call.at_ns for call in used.calls if call.ours]):,}"
    )
    if used.case.foreign:
        text += (
            f"; the foreign client got {used.count(ours=False, refused=False):,} and was answered "
            f"429 {used.count(ours=False, refused=True):,} times"
        )
    kinds = Counter(call.kind for call in used.calls if call.ours and call.status == 200)
    return f"{text} ({', '.join(f'{n:,} {kind}s' for kind, n in sorted(kinds.items()))})"


def most_in_a_minute(at_ns: list[int]) -> int:
    """The most of these moments that any 60 seconds hold."""
    ordered = sorted(at_ns)
    first, most = 0, 0
    for place, moment in enumerate(ordered):
        while moment - ordered[first] >= MINUTE_SECONDS * 1e9:
            first += 1
        most = max(most, place - first + 1)
    return most
