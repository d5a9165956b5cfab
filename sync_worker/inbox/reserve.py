"""What the steps on mailboxes know of Fusebill's budget: who comes first, and that nothing is left.

What is reserved, and by which rules, is the matter of `fusebill/budget.py` and `lua/budget.lua`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """Who asks for calls, the most urgent first (B7.3); budget.lua knows the numbers."""

    FIRST = 0
    """Few calls that serve many: sweeps that mailboxes wait for, and probes."""
    LIVE = 1
    REPLAY = 2
    """Spread over the minute, so that calls come free for live changes all the time."""
    BACKGROUND = 3
    """Has nothing while less than `LIVE_RESERVE` of the minute or the day would be left."""


class Exhausted(Exception):
    """No call may be made now; `seconds` says when it may be worth asking again (B6.2)."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the budget of Fusebill calls is used up for {seconds:.1f} s; the work waits by itself"
        )
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Reserve:
    """Calls that are to be reserved in the budget."""

    budget: Sequence[object]
    """`Budget.packed`."""
    priority: Priority
    beside_reads: int = 0
    """How many, beside one for each customer that has to be read."""
    in_hand: Sequence[int] = ()
    """Those of them that are reserved already ..."""
    for_long: bool = False
    """... and whether they have been for so long that they must be renewed."""
