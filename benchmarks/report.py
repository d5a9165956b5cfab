"""`python -m benchmarks.report FILE`: put the figures of a run into docs/performance.md and its
picture, so that nobody types one by hand.

The page says `<!-- NAME -->` where something goes in and `<!-- /NAME -->` where it ends; what
stands between is replaced. NAME is a benchmark, or one of `summary` and `conditions`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import click

from benchmarks import picture
from benchmarks.harness import results, table
from benchmarks.harness.figures import Result, Row

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
"""The run that the page tells of."""
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "performance.svg"

ORDER = (
    *("accept", "calls", "budget", "replay", "converge"),
    *("latency", "growth", "soak", "scaling"),
)

PAGE_WIDTH = 132

NOT_RUN = "Not run yet."


@click.command()
@click.argument(
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=RESULTS,
)
def main(file: Path) -> None:
    """Rewrite docs/performance.md and its picture from FILE (benchmarks/results.json)."""
    found = results.load(file).benchmarks
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, parts(found)), encoding="utf-8")
    PICTURE.write_text(picture.draw(in_order(found)), encoding="utf-8")
    click.echo(f"{PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)} are rewritten")


def in_order(found: Mapping[str, Result]) -> list[Result]:
    """The results as the page has them."""
    return [found[name] for name in ORDER if name in found]


def parts(found: Mapping[str, Result]) -> dict[str, str]:
    """What goes into the page, by the name of its place."""
    made = {name: _section(found[name]) if name in found else NOT_RUN for name in ORDER}
    return {**made, "summary": _summary(found), "conditions": _conditions(found)}


def filled(page: str, parts: Mapping[str, str]) -> str:
    """The page with these put in. Raises KeyError for a place that nothing is known of."""

    def put(found: re.Match[str]) -> str:
        name = found[1]
        return f"<!-- {name} -->\n\n{parts[name]}\n\n<!-- /{name} -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", put, page, flags=re.DOTALL)


def _section(result: Result) -> str:
    rounds = f"{result.rounds} rounds" if result.rounds > 1 else "One round"
    told = f"{result.load} {rounds}, {result.conditions.get('date', '')}."
    lines = [
        "| figure | ours | reference | ratio | spread | bound | |",
        "|---|--:|---|--:|--:|--:|---|",
        *("| " + " | ".join(_cell(text) for text in _shown(row)) + " |" for row in result.rows),
        "",
        textwrap.fill(told, PAGE_WIDTH, break_long_words=False, break_on_hyphens=False),
    ]
    if result.quick:
        lines.insert(0, "**A smoke, too short to mean anything.**\n")
    if result.notes:
        lines += ["", *(f"- {note}" for note in result.notes)]
    return "\n".join(lines)


def _shown(row: Row) -> tuple[str, ...]:
    *texts, verdict = table.cells(row)
    return (*texts, f"**{verdict}**" if verdict == "missed" else verdict)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _summary(found: Mapping[str, Result]) -> str:
    rows = [(result, row) for result in in_order(found) for row in result.rows if row.bound]
    if not rows:
        return NOT_RUN
    counts = {
        verdict: [f"{result.name}: {row.figure}" for result, row in rows if row.verdict == verdict]
        for verdict in ("met", "missed", "not counted")
    }
    told = (
        f"{len(rows)} figures have a bound: {len(counts['met'])} keep to it, "
        f"{len(counts['missed'])} miss it, {len(counts['not counted'])} are not counted, as their "
        "spread is too wide."
    )
    lines = [told]
    for verdict, words in (("missed", "Missed"), ("not counted", "Not counted")):
        if counts[verdict]:
            lines += ["", f"{words}:", "", *(f"- {one}" for one in counts[verdict])]
    return "\n".join(lines)


def _conditions(found: Mapping[str, Result]) -> str:
    ordered = in_order(found)
    if not ordered:
        return NOT_RUN
    told = ordered[0].conditions
    lines = ["| | |", "|---|---|"]
    lines += [
        f"| {name} | {text} |"
        for name, text in told.items()
        if name not in ("date", "took", "rounds", "busy before")
    ]
    lines += ["", "| benchmark | began | took | rounds | busy before |", "|---|---|--:|--:|---|"]
    lines += [
        f"| {result.name} | {result.conditions.get('date', '')} | "
        f"{result.conditions.get('took', '')} | {result.rounds} | "
        f"{result.conditions.get('busy before', '')} |"
        for result in ordered
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
