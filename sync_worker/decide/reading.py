"""How customers are read with the fewest calls (B7.4)."""

from __future__ import annotations

from enum import Enum

MOST_IDS = 100
"""Customers that one list call asks for: their ids make an address of about 1,000 characters."""


class Way(Enum):
    """How several customers are read."""

    SINGLY = "singly"
    SET = "set"
    """By list calls for a set of ids."""
    SWEEP = "sweep"
    """By all pages of the list of customers."""


def best_way(reads: int, *, has_set: bool, pages: int | None, gain: int) -> Way:
    """The way that takes the fewest calls for each read that it saves.

    `reads` customers are to be read now. `has_set` tells whether the server honours a set of ids.
    A sweep takes `pages` calls, None if it may not be used, and saves `gain` reads, those of
    mailboxes to come included, as long as what it shows is fresh.
    """
    if reads < 1:
        return Way.SINGLY
    calls: dict[Way, float] = {Way.SINGLY: 1.0}
    if has_set:
        calls[Way.SET] = -(-reads // MOST_IDS) / reads
    if pages is not None and gain > 0:
        calls[Way.SWEEP] = pages / gain
    return min(calls, key=calls.__getitem__)
