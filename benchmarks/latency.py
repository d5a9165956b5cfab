"""Latency: on an idle system, from the moment a webhook is sent to the latch on the wire.

The API answers at once, so what is measured is ours: receive, store, wake, claim, read, decide.
Both moments are read from CLOCK_MONOTONIC, which is the same for all processes of a machine.
"""

from __future__ import annotations

import random
import time

from benchmarks.harness import load, vendors
from benchmarks.harness.converging import behave, warm_up
from benchmarks.harness.figures import Bound, Result, Row, Series, percentile
from benchmarks.harness.run import Run, Supply
from benchmarks.harness.stack import Stack
from benchmarks.harness.vendors import Vendor

NAME = "latency"
TITLE = "one webhook on an idle system, until its latch is on the wire"

CHANGES = 100
QUICK_CHANGES = 15
PAUSE_SECONDS = (0.05, 0.2)
"""Between two webhooks, by the dice: no two meet, and none keeps step with a period of ours."""


def run(run: Run) -> Result:
    """One stack for all rounds."""
    changes = run.either(CHANGES, QUICK_CHANGES)
    dice = random.Random(1)
    answered: list[float] = []
    median: list[float] = []
    slow: list[float] = []
    with Stack(run.new_folder(NAME)) as stack:
        supply = Supply()
        behave(stack, honour_ids=True, latency_ms=0)
        for command in ("web", "worker", "beat"):
            stack.start(command)
        warm_up(stack, supply)
        _one_by_one(stack, supply, 10, dice)
        for number in range(run.rounds):
            answers, latches = _one_by_one(stack, supply, changes, dice)
            answered.append(percentile(answers, 0.5) * 1000)
            median.append(percentile(latches, 0.5) * 1000)
            slow.append(percentile(latches, 0.95) * 1000)
            run.say(f"{NAME}, round {number + 1}: p50 {median[-1]:.1f} ms, p95 {slow[-1]:.1f} ms")
    return Result(
        name=NAME,
        title=TITLE,
        rows=[
            Row(
                figure="webhook sent → latch on the wire, p50",
                unit="ms",
                ours=Series(tuple(median)),
                bound=Bound("≤", 30),
            ),
            Row(figure="the same, p95", unit="ms", ours=Series(tuple(slow))),
            Row(
                figure="of it: webhook sent → answered, p50",
                unit="ms",
                ours=Series(tuple(answered)),
            ),
        ],
        rounds=run.rounds,
        quick=run.quick,
        load=(
            f"{changes} webhooks of one HubSpot event a round, one after the other, with random "
            f"pauses of {PAUSE_SECONDS[0] * 1000:g} to {PAUSE_SECONDS[1] * 1000:g} ms; web, worker "
            "and beat run. The simulated API adds nothing of its own but the handling of one read, "
            "about 0.2 ms, which is not taken off."
        ),
    )


def _one_by_one(
    stack: Stack, supply: Supply, count: int, dice: random.Random
) -> tuple[list[float], list[float]]:
    """Seconds to the answer and to the latch, of each."""
    stack.fusebill.forget()
    sent: dict[int, float] = {}
    answers = []
    for _ in range(count):
        (link,) = supply.take(1)
        (request,) = vendors.requests(Vendor.HUBSPOT, [link], public_url=stack.url)
        measured = load.drive(stack.address, [request], connections=1)
        sent[link.customer] = measured.sent[0]
        answers += measured.latencies
        stack.drained(60)
        time.sleep(dice.uniform(*PAUSE_SECONDS))
    latches = [
        call.at_ns / 1e9 - sent[call.customer]
        for call in stack.fusebill.calls()
        if call.kind == "write" and call.customer in sent
    ]
    if len(latches) != count:
        raise RuntimeError(f"{count} webhooks made {len(latches)} latches")
    return answers, latches
