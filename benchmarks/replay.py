"""Replay: what live changes notice of 3,000 dead letters that are put back to work beside them.

Everybody shares 1,200 calls a minute, and the replay alone could use them up (B7.3: live changes
come first).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.harness import load, vendors
from benchmarks.harness.figures import Bound, Result, Row, Series, percentile
from benchmarks.harness.fusebill import Behaviour
from benchmarks.harness.run import Run, Supply
from benchmarks.harness.stack import Stack, Stuck
from benchmarks.harness.vendors import Vendor

NAME = "replay"
TITLE = "live changes beside a replay"

LETTERS = 3_000
QUICK_LETTERS = 60
LIMIT = 1_200
LATENCY_MS = 50.0
CUSTOMERS = 100_000
OTHERS = 900_000_000_000
"""Contacts that hold the customers at first: each claim on one of those is a conflict."""

LIVE_SECONDS = 0.5
"""Between two live webhooks, on average: 240 calls a minute of the 1,200."""

WITHOUT_SECONDS = 90.0
MOST_SECONDS = 240.0
"""A replay that takes longer is watched for so long."""

SETTLE_SECONDS = 180.0

WARM_CHANGES = 40
"""Enough for each process of the worker to be up and connected."""


@dataclass
class _Sent:
    """Customer of a live change -> when its webhook was answered."""

    at: dict[int, float] = field(default_factory=dict)


def run(run: Run) -> Result:
    """Once without, once beside the replay, on one stack."""
    count = run.either(LETTERS, QUICK_LETTERS)
    with Stack(run.new_folder(NAME)) as stack:
        supply = Supply()
        behaviour = Behaviour(
            count=CUSTOMERS, latency_ms=LATENCY_MS, window="sliding", occupant=OTHERS
        )
        stack.fusebill.behave(behaviour)
        for command in ("web", "beat", "worker"):
            stack.start(command)
        stack.feed(Vendor.HUBSPOT, supply.take(count))
        stack.drained()
        letters = int(stack.client.zcard("sw:dead:waiting"))
        if letters != count:
            raise Stuck(f"{count} conflicts made {letters} dead letters")
        run.say(f"{NAME}: {letters} dead letters are there")
        stack.stop("worker")
        free = Behaviour(
            count=CUSTOMERS, latency_ms=LATENCY_MS, window="sliding", minute_limit=LIMIT
        )
        stack.fusebill.behave(free, anew=False)
        stack.set(FUSEBILL_CALLS_PER_MINUTE=str(LIMIT))
        stack.start("worker")
        stack.feed(Vendor.HUBSPOT, supply.take(WARM_CHANGES))
        stack.drained()
        stack.fusebill.forget()
        without = _live(stack, supply, seconds=run.either(WITHOUT_SECONDS, 5.0))
        before = _waits(stack, without)
        time.sleep(run.either(60.0, 0.0))  # both begin with a minute that nobody has used
        stack.fusebill.forget()
        replaying = _Replaying(stack)
        beside = _live(
            stack,
            supply,
            seconds=run.either(MOST_SECONDS, 10.0),
            while_true=replaying.goes_on,
        )
        left = int(stack.client.zcard("sw:dead:waiting"))
        during = _waits(stack, beside)
        refused = stack.fusebill.counters().refused
    replayed = count - left
    run.say(
        f"{NAME}: p95 {percentile(before, 0.95):.2f} s without, beside it "
        f"{percentile(during, 0.95):.2f} s; {replayed} of {count} were replayed meanwhile"
    )
    return Result(
        name=NAME,
        title=TITLE,
        rows=_rows(before, during),
        notes=[
            (
                f"{len(before)} live changes without, {len(during)} beside the replay, of whose "
                f"{count:,} letters {replayed:,} were settled while these were sent; "
                f"{refused} calls were answered 429"
            )
        ],
        rounds=1,
        quick=run.quick,
        load=(
            f"One live webhook every {LIVE_SECONDS:g} s, by the dice, each a contact that names a "
            "customer of its own; from its answer to its latch at the simulated API. One worker, "
            f"{LIMIT:,} calls in any minute. {count:,} conflicts are replayed with "
            "`sync-worker dead-letters replay --reason conflict --yes`, as it paces itself."
        ),
    )


class _Replaying:
    """The command, in a thread of its own."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def goes_on(self) -> bool:
        """Whether there are letters that it has still to settle."""
        if self._failed:
            raise self._failed[0]
        return self._thread.is_alive() or int(self._stack.client.zcard("sw:dead:waiting")) > 0

    def _run(self) -> None:
        try:
            self._stack.command(
                *("dead-letters", "replay", "--reason", "conflict", "--yes", "--json"),
                seconds=3600,
            )
        except BaseException as error:  # noqa: BLE001 - raised in the thread that measures
            self._failed.append(error)


def _live(
    stack: Stack,
    supply: Supply,
    *,
    seconds: float,
    while_true: Callable[[], bool] = lambda: True,
) -> _Sent:
    """Send live changes, one at a time, for so long."""
    dice = random.Random(1)
    sent = _Sent()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and while_true():
        (link,) = supply.take(1)
        (request,) = vendors.requests(Vendor.HUBSPOT, [link], public_url=stack.url)
        sent.at[link.customer] = load.drive(stack.address, [request], connections=1).finished[0]
        time.sleep(dice.uniform(0.5, 1.5) * LIVE_SECONDS)
    return sent


def _waits(stack: Stack, sent: _Sent) -> list[float]:
    """Seconds from answer to latch, of each; those that are not latched in time count as if they
    had been then.
    """
    ends = time.monotonic() + SETTLE_SECONDS
    while True:
        latched = {
            call.customer: call.at_ns / 1e9
            for call in stack.fusebill.calls()
            if call.kind == "write" and call.status == 200 and call.customer in sent.at
        }
        if len(latched) == len(sent.at) or time.monotonic() > ends:
            break
        time.sleep(0.5)
    return [latched.get(customer, ends) - at for customer, at in sent.at.items()]


def _rows(before: list[float], during: list[float]) -> list[Row]:
    def at(waits: list[float], share: float) -> float:
        return percentile(waits, share)

    return [
        Row(
            figure="live p95 beside the replay, more than without",
            unit="s",
            ours=Series((at(during, 0.95) - at(before, 0.95),)),
            bound=Bound("≤", 1),
        ),
        Row(
            figure="live p95 beside the replay",
            unit="s",
            ours=Series((at(during, 0.95),)),
            reference=Series((at(before, 0.95),)),
            against="without",
        ),
        Row(
            figure="live p50 beside the replay",
            unit="s",
            ours=Series((at(during, 0.5),)),
            reference=Series((at(before, 0.5),)),
            against="without",
        ),
    ]
