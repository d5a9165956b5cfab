"""Calls: how many calls to Fusebill a change costs, with customers in bulk and under a limit.

An account of 5,000 customers, of which all, a tenth or a hundredth have a change due. Counted at
the simulated Fusebill, for one whose server knows `id:1,2,3` and one that ignores it. Then the same
is told again by new events, which must write nothing.

The minute is a real one, because reads age while a change waits for budget; what is scaled is how
much goes into it. Cases run side by side: they mostly wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.harness.figures import Bound, Result, Row, Series
from benchmarks.harness.fusebill import Behaviour, Counters
from benchmarks.harness.run import Run, Supply, side_by_side
from benchmarks.harness.stack import Stack
from benchmarks.harness.vendors import Vendor

NAME = "calls"
TITLE = "calls to Fusebill for a change"

CUSTOMERS = 5_000
QUICK_CUSTOMERS = 200
SHARES = (1.0, 0.1, 0.01)
QUICK_SHARES = (1.0,)

LIMIT_PER_MINUTE = 900
ALLOWED_PER_MINUTE = 1_000
"""By Fusebill: our own limit leaves something to others (B7.1)."""

SCALE = 3
"""Ten thousand calls at 900 a minute take eleven minutes; with `--long` they do."""

LATENCY_MS = 50.0
SIDE_BY_SIDE = 6
MOST_SECONDS = 1_800


@dataclass(frozen=True)
class Case:
    """One account, one backlog."""

    vendor: Vendor
    honour_ids: bool
    share: float

    def __str__(self) -> str:
        known = "id set known" if self.honour_ids else "id set ignored"
        return f"{self.vendor}, {known}, {self.share:.0%} due".replace("%", " %")

    @property
    def bound(self) -> Bound | None:
        """What the issue asks of it: nothing where a hundredth is due."""
        if self.share < 0.1:
            return None
        serves = self.honour_ids or self.vendor is not Vendor.HUBSPOT
        return Bound("≤", 1.1 if serves else 2.0)


@dataclass(frozen=True)
class _Counted:
    case: Case
    changes: int
    first: Counters
    again: Counters


def run(run: Run) -> Result:
    """Every case once: what is counted depends little on the machine."""
    cases = [
        Case(vendor, honour_ids, share)
        for share in run.either(SHARES, QUICK_SHARES)
        for honour_ids in (False, True)
        for vendor in Vendor
    ]
    scale = 1 if run.long else run.either(SCALE, 20)
    most = run.either(SIDE_BY_SIDE, 2)
    counted = side_by_side(cases, lambda case: _count(run, case, scale), most)
    return Result(
        name=NAME,
        title=TITLE,
        rows=[*map(_row, counted), _again(counted)],
        notes=list(map(_told, counted)),
        rounds=1,
        quick=run.quick,
        load=(
            f"{run.either(CUSTOMERS, QUICK_CUSTOMERS):,} customers, one record each, none latched "
            f"before. Limit: {LIMIT_PER_MINUTE * scale:,} calls in any minute, of "
            f"{ALLOWED_PER_MINUTE * scale:,} that the simulated Fusebill allows (sliding): "
            f"{scale} times what is usual, in minutes of 60 s, so that reads age as they do. "
            "Everything is due before the worker starts; no CRM is read. Probes, list pages and "
            "refused calls count. Compared to the bound with two decimals."
        ),
    )


def _count(run: Run, case: Case, scale: int) -> _Counted:
    customers = run.either(CUSTOMERS, QUICK_CUSTOMERS)
    changes = max(1, round(customers * case.share))
    limit = {"FUSEBILL_CALLS_PER_MINUTE": str(LIMIT_PER_MINUTE * scale)}
    with Stack(run.new_folder(NAME), **limit) as stack:
        stack.fusebill.behave(
            Behaviour(
                count=customers,
                latency_ms=LATENCY_MS,
                honour_ids=case.honour_ids,
                minute_limit=ALLOWED_PER_MINUTE * scale,
                window="sliding",
            )
        )
        supply = Supply()
        stack.start("web")
        stack.feed(case.vendor, supply.take(changes))
        stack.start("beat")
        stack.start("worker")
        stack.drained(MOST_SECONDS)
        first = stack.fusebill.counters()
        stack.fusebill.forget()
        stack.feed(case.vendor, supply.again(range(changes)))
        stack.drained(MOST_SECONDS)
        counted = _Counted(case, changes, first, stack.fusebill.counters())
    run.say(_told(counted))
    return counted


def _spent(counters: Counters) -> int:
    return counters.calls + counters.refused + counters.other


def _row(one: _Counted) -> Row:
    return Row(
        figure=f"calls a change: {one.case}",
        unit="",
        ours=Series((round(_spent(one.first) / one.changes, 2),)),
        bound=one.case.bound,
    )


def _again(counted: list[_Counted]) -> Row:
    return Row(
        figure="writes when the same is told again, all cases",
        unit="",
        ours=Series((float(sum(one.again.writes for one in counted)),)),
        bound=Bound("≤", 0),
    )


def _told(one: _Counted) -> str:
    def spelled(counters: Counters) -> str:
        refused = f", {counters.refused} refused" if counters.refused else ""
        other = f", {counters.other} failed" if counters.other else ""
        return (
            f"{counters.reads} single reads, {counters.lists} list pages, "
            f"{counters.writes} writes{refused}{other}"
        )

    return f"{one.case}: {one.changes} changes, {spelled(one.first)}; again: {spelled(one.again)}"
