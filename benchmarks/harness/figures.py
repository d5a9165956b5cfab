"""Figures: medians, spread, and whether a bound is met. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

MOST_SPREAD = 0.15
"""A ratio counts only where both of its figures spread less than this."""

TIMES = "\N{MULTIPLICATION SIGN}"
NONE = "-"
"""Stands where there is nothing to show."""

Verdict = Literal["met", "missed", "not counted", "stated"]
"""Not counted: the spread is too wide. Stated: no bound was set."""


class Series(msgspec.Struct, frozen=True):
    """What was measured in each round."""

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.runs)

    @property
    def spread(self) -> float | None:
        """The distance from the least to the greatest, as a share of the median: one bad round
        shows. None of a single round, which has none to show.
        """
        if len(self.runs) < 2:
            return None
        middle = self.median
        return (max(self.runs) - min(self.runs)) / middle if middle else 0.0


class Bound(msgspec.Struct, frozen=True):
    """What the figure, or its ratio to the reference, must keep to."""

    sense: Literal["≤", "≥"]
    limit: float
    of: Literal["figure", "ratio"] = "figure"

    def holds(self, value: float) -> bool:
        """Whether the value keeps to it."""
        return value <= self.limit if self.sense == "≤" else value >= self.limit

    def text(self, unit: str = "") -> str:
        """As it is written in the table."""
        behind = TIMES if self.of == "ratio" else with_space(unit)
        return f"{self.sense} {number(self.limit)}{behind}"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of the table."""

    figure: str
    unit: str
    ours: Series
    reference: Series | None = None
    against: str = ""
    """What the reference is, in a few words."""
    bound: Bound | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours by the reference's, of the medians."""
        if self.reference is None or not self.reference.median:
            return None
        return self.ours.median / self.reference.median

    @property
    def spread(self) -> float | None:
        """The wider of the two, for a row with a reference."""
        spreads = [one.spread for one in (self.ours, self.reference) if one is not None]
        known = [one for one in spreads if one is not None]
        return max(known) if known else None

    @property
    def verdict(self) -> Verdict:
        """Whether the bound is met. A ratio of single rounds counts: there is no spread to tell."""
        if self.bound is None:
            return "stated"
        if self.bound.of == "figure":
            return "met" if self.bound.holds(self.ours.median) else "missed"
        if self.ratio is None or (self.spread is not None and self.spread >= MOST_SPREAD):
            return "not counted"
        return "met" if self.bound.holds(self.ratio) else "missed"


class Result(msgspec.Struct, kw_only=True):
    """What one benchmark found."""

    name: str
    title: str
    rows: list[Row]
    load: str
    """What was sent, and what else a reader must know to judge the figures."""
    rounds: int
    quick: bool = False
    """A smoke: too short to mean anything."""
    notes: list[str] = []
    conditions: dict[str, str] = {}
    points: dict[str, list[tuple[float, float]]] = {}
    """Curves, for the picture."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value below or at which that share of the values lies (nearest rank)."""
    if not values:
        raise ValueError("no value was measured")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def slope(points: Iterable[tuple[float, float]]) -> float:
    """By how much y grows while x grows by one: the least squares line through the points."""
    pairs = list(points)
    if len({x for x, _ in pairs}) < 2:
        return 0.0
    return statistics.linear_regression([x for x, _ in pairs], [y for _, y in pairs]).slope


def number(value: float) -> str:
    """Three digits that count, thousands apart."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    digits = max(0, 2 - size)
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def share(value: float | None) -> str:
    """A share as a percentage."""
    return NONE if value is None else f"{value:.0%}".replace("%", " %")


def with_space(unit: str) -> str:
    """The unit as it stands behind a number."""
    return f" {unit}" if unit else ""
