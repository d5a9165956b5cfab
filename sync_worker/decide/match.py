"""The ways to find a record's customer other than its explicit id (B4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Link = Literal["holds", "released", "gone"]
"""What the link index says of a customer and a record: it holds it; it held it until we released
it; or until somebody else took it away, who may have put it anywhere."""


@dataclass(frozen=True, slots=True)
class Query:
    """Ask Fusebill for the customers that have this reference or email (B4.1)."""

    kind: str
    """`reference` or `email`."""
    value: str


def any_of(links: list[dict[int, Link]]) -> dict[int, Link]:
    """What the index says of several ids of one record: whoever holds one of them holds it."""
    rank: dict[Link, int] = {"released": 0, "gone": 1, "holds": 2}
    merged: dict[int, Link] = {}
    for one in links:
        for customer, link in one.items():
            merged[customer] = max(merged.get(customer, link), link, key=rank.__getitem__)
    return merged
