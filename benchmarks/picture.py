"""The picture of the results: how much of its bound each figure uses up. Plain SVG, from the same
figures as the table; its colours follow the reader's light or dark setting.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from benchmarks.harness.figures import TIMES, Result, Row, number, with_space

TITLE = "How much of its bound each figure uses up"
DESCRIPTION = (
    "A bar for each measured figure that has a bound. The dashed line is the bound: a bar that "
    "ends before it keeps to it."
)
WIDTH = 980
LABEL_X = 20
BAR_X = 470
BAR_WIDTH = 300
"""From nothing to twice the bound; the bound itself is in the middle."""
MOST = 2.0
TEXT_X = BAR_X + BAR_WIDTH + 14
ROW_HEIGHT, BAR_HEIGHT, HEADING_HEIGHT = 22, 12, 30
TOP, BOTTOM = 72, 20

_FONT = (
    'font-family="DejaVu Sans, Verdana, sans-serif" font-size="14" role="img" aria-labelledby="t d"'
)
_STYLE = """
      svg{color-scheme:light dark}
      .paper{fill:#ffffff}.head{font-weight:bold;fill:#0f172a}.text{fill:#334155;font-size:12px}
      .bound{stroke:#0f172a;stroke-width:1.5;stroke-dasharray:4 3}.rail{fill:#f1f5f9}
      .met{fill:#0284c7}.missed{fill:#d97706}.open{fill:#94a3b8}
      @media (prefers-color-scheme:dark){
        .paper{fill:#0f172a}.head{fill:#f8fafc}.text{fill:#cbd5e1}.bound{stroke:#f8fafc}
        .rail{fill:#1e293b}.met{fill:#38bdf8}.missed{fill:#fbbf24}.open{fill:#64748b}
      }
"""

_CLASS = {"met": "met", "missed": "missed", "not counted": "open", "stated": "open"}


def use(row: Row) -> float:
    """How much of its bound a figure uses up: below 1 it keeps to it. A row without a bound has
    none to use up (ValueError).
    """
    if row.bound is None:
        raise ValueError(f"{row.figure} has no bound")
    value = row.ours.median if row.bound.of == "figure" else (row.ratio or 0.0)
    over, under = (value, row.bound.limit) if row.bound.sense == "≤" else (row.bound.limit, value)
    if over <= 0:
        return 0.0
    return over / under if under > 0 else MOST * 10


def draw(results: Iterable[Result]) -> str:
    """The whole picture; rows without a bound are not in it."""
    parts: list[str] = []
    y = TOP
    for result in results:
        bounded = [row for row in result.rows if row.bound is not None]
        if not bounded:
            continue
        y += HEADING_HEIGHT
        parts.append(_text(LABEL_X, y - 8, f"{result.name}: {result.title}", "head"))
        for row in bounded:
            parts.append(_bar(row, y))
            y += ROW_HEIGHT
    bound_x = BAR_X + BAR_WIDTH / MOST
    line = f'<path class="bound" d="M{bound_x:g} {TOP - 8}V{y}"/>'
    height = y + BOTTOM
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {_FONT}>',
            f'  <title id="t">{TITLE}</title>',
            f'  <desc id="d">{DESCRIPTION}</desc>',
            f"  <style>{_STYLE}  </style>",
            f'  <rect class="paper" width="{WIDTH}" height="{height}"/>',
            "  " + _text(LABEL_X, 30, TITLE, "head"),
            "  " + _legend(),
            *(f"  {part}" for part in parts),
            f"  {line}",
            "  " + _text(bound_x, TOP - 14, "the bound", "text", "middle"),
            "</svg>",
            "",
        ]
    )


def _legend() -> str:
    entries = (("met", "met"), ("missed", "missed"), ("open", "not counted: too wide a spread"))
    parts = []
    x = LABEL_X
    for class_, words in entries:
        parts.append(f'<rect class="{class_}" x="{x}" y="42" width="12" height="12" rx="2"/>')
        parts.append(_text(x + 18, 52, words, "text"))
        x += 36 + 7 * len(words)
    return "".join(parts)


def _bar(row: Row, y: int) -> str:
    used = use(row)
    width = max(2.0, min(used, MOST) / MOST * BAR_WIDTH)
    top = y + (ROW_HEIGHT - BAR_HEIGHT) / 2
    class_ = _CLASS[row.verdict]
    size = f'y="{top:g}" height="{BAR_HEIGHT}" rx="2"'
    beyond = " →" if used > MOST else ""
    return "".join(
        (
            _text(LABEL_X, y + 15, row.figure, "text"),
            f'<rect class="rail" x="{BAR_X}" width="{BAR_WIDTH}" {size}/>',
            f'<rect class="{class_}" x="{BAR_X}" width="{width:.1f}" {size}/>',
            _text(TEXT_X, y + 15, f"{_value(row)}{beyond}", "text"),
        )
    )


def _value(row: Row) -> str:
    if row.bound is None:
        return ""
    ratio = row.bound.of == "ratio" and row.ratio is not None
    shown = number(row.ours.median) + with_space(row.unit)
    if ratio:
        shown = f"{number(row.ratio or 0)}{TIMES}"
    return f"{shown} ({row.bound.text('')})"


def _text(x: float, y: float, words: str, class_: str, anchor: str = "start") -> str:
    place = f'class="{class_}" x="{x:g}" y="{y:g}"'
    if anchor != "start":
        place += f' text-anchor="{anchor}"'
    return f"<text {place}>{escape(words)}</text>"
