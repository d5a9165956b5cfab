"""The one table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.harness.figures import NONE, TIMES, Result, Row, number, share, with_space

HEADINGS = ("figure", "ours", "reference", "ratio", "spread", "bound", "verdict")
_COLOURS = {"met": "green", "missed": "red", "not counted": "yellow", "stated": "default"}


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table as text, in the order of `HEADINGS`."""
    unit = with_space(row.unit)
    reference = NONE
    if row.reference is not None:
        reference = f"{number(row.reference.median)}{unit} ({row.against})"
    return (
        row.figure,
        f"{number(row.ours.median)}{unit}",
        reference,
        NONE if row.ratio is None else f"{number(row.ratio)}{TIMES}",
        _spread(row),
        NONE if row.bound is None else row.bound.text(row.unit),
        row.verdict,
    )


def _spread(row: Row) -> str:
    ours = share(row.ours.spread)
    return ours if row.reference is None else f"{ours} / {share(row.reference.spread)}"


def show(console: Console, results: Iterable[Result]) -> None:
    """Print everything that was found, and under which conditions."""
    results = list(results)
    quick = any(result.quick for result in results)
    title = "quick: too short to mean anything" if quick else "sync-worker, measured"
    table = Table(title=title, show_lines=False)
    for heading in HEADINGS:
        left = heading in ("figure", "reference", "verdict")
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    for result in results:
        table.add_section()
        table.add_row(f"[bold]{escape(result.name)}")
        for row in result.rows:
            *texts, verdict = map(escape, cells(row))
            table.add_row(*texts, f"[{_COLOURS[row.verdict]}]{verdict}")
    console.print(table)
    console.print(
        "Medians over the rounds. Spread: greatest less least, by the median (ours / reference); a "
        "ratio counts only where both are under 15 %.",
        style="dim",
    )
    for result in results:
        told = f"{result.title}. {result.load}"
        console.print(f"[bold]{escape(result.name)}[/bold], {escape(told)}")
        for note in result.notes:
            console.print(f"  · {escape(note)}")
    for name, text in (results[0].conditions if results else {}).items():
        console.print(f"{escape(name)}: {escape(text)}", style="dim")
