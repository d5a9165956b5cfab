"""Changes arrive while everything dies at random moments, and all of them end as they should (B6).

Without FAULTS=long this is the short form, of less than a minute. The long form is 10,000 changes
on 500 records with the product's own waits: `make faults`. FAULT_SEED picks another run.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import pytest

from tests.faults.chaos import LONG, SHORT, Chaos, Doses
from tests.faults.scene import LONG_RUN, SEED, staged
from tests.faults.sender import Sender, deliveries
from tests.faults.verify import account, table
from tests.faults.world import Census, history

MS_BEFORE = 12 * 3_600_000
"""How long ago the first change occurred: none may lie ahead of the store's clock (B3.8)."""


@dataclass(frozen=True)
class Size:
    """How much is sent, and how long its end may take."""

    records: int
    changes: int
    seconds: float
    doses: Doses
    brisk: bool


SIZE = (
    Size(500, 10_000, 1200, LONG, brisk=False) if LONG_RUN else Size(60, 300, 60, SHORT, brisk=True)
)


@pytest.mark.timeout(3 * SIZE.seconds)
def test_whatever_dies_nothing_is_lost_and_nothing_is_done_twice(tmp_path, capsys):
    """B2.2, B5.1, B5.3, B6.1, B6.3, B6.6 to B6.8."""
    dice = random.Random(SEED)
    with staged(tmp_path, brisk=SIZE.brisk) as (stack, orders):
        census = Census(stack.settings)
        families = [census.family(soap=n % 2 == 0) for n in range(SIZE.records // 4)]
        members = [member for family in families for member in family]
        stack.control.put_customers(*census.people())
        begins = int(time.time() * 1000) - MS_BEFORE
        news = history(dice, members, SIZE.changes, begins=begins)
        chaos = Chaos(stack, orders, SIZE.doses, dice)
        begun = time.monotonic()
        with Sender(stack.url, stack.settings) as sender:
            chaos.run(sender, deliveries(dice, news, disorder=0.7))
            sender.wait(SIZE.seconds)
        answered = time.monotonic()
        chaos.end()
        stack.wait_drained(SIZE.seconds)
        drained = time.monotonic()
        found = account(stack, news, sender, orders.trace())
        times = [
            ("answered after", f"{answered - begun:.1f} s"),
            ("drained after", f"{drained - answered:.1f} s more"),
            ("attempts", f"{sender.sent.attempts}, failed {dict(sender.sent.failures)}"),
        ]
        rows = [*found.rows(), *chaos.rows(), *times]
        title = f"chaos, FAULT_SEED={SEED}: {SIZE.changes} changes on {SIZE.records} records"
        with capsys.disabled():
            print(table(title, rows))
        assert found.faults == []
        assert sender.sent.complaints == []
