"""`python -m benchmarks`: measure, print one table, keep the figures."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import click
from rich.console import Console

from benchmarks.harness import conditions, results, table
from benchmarks.harness.figures import Result
from benchmarks.harness.run import Run

USUAL = ("accept", "calls", "converge", "latency", "growth", "scaling")
LONG = ("budget", "replay", "soak")
"""Minutes that must really pass: 24, 8 and 30. Run with `--long`, or by name."""

ROUNDS = 5

PLAIN_WIDTH = 150
"""Where there is no terminal to fit into."""


def _names(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    names = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    for name in names:
        if name not in USUAL + LONG:
            raise click.BadParameter(f"{name!r} is none of {', '.join(USUAL + LONG)}")
    return names


@click.command()
@click.option("--only", metavar="NAME,…", callback=_names, help=f"Of {', '.join(USUAL + LONG)}.")
@click.option("--long", "with_long", is_flag=True, help=f"Also {', '.join(LONG)}: an hour more.")
@click.option("--rounds", type=click.IntRange(1, 99), help=f"Rounds of each ({ROUNDS}; quick: 1).")
@click.option("--quick", is_flag=True, help="A smoke: does it run? Its figures mean nothing.")
@click.option(
    "--json",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the figures in FILE, beside those of other benchmarks that it holds.",
)
def main(
    *, only: tuple[str, ...], with_long: bool, rounds: int | None, quick: bool, file: Path | None
) -> None:
    """Measure sync-worker on this machine, each figure beside its reference in the same run."""
    # Also where a shell that runs this in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    names = only or (USUAL + LONG if with_long else USUAL)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    say = _teller()
    found: list[Result] = []
    failed = False
    with tempfile.TemporaryDirectory(
        prefix="sync-worker-bench-", ignore_cleanup_errors=True
    ) as folder:
        machine = conditions.machine(Path(folder))
        for name in names:
            begun = time.monotonic()
            module = import_module(f"benchmarks.{name}")
            run = Run(
                folder=Path(folder),
                rounds=rounds or (1 if quick else ROUNDS),
                quick=quick,
                long=with_long,
                say=say,
            )
            try:
                result = _run(module, run)
            except KeyboardInterrupt:
                say(f"{name}: stopped")
                failed = True
                break
            except Exception as error:  # noqa: BLE001 - the others are still worth measuring
                say(f"{name} failed: {type(error).__name__}: {error}")
                failed = True
                continue
            result.conditions = {
                **machine,
                "took": f"{time.monotonic() - begun:.0f} s",
                "rounds": str(result.rounds),
            }
            found.append(result)
            if file is not None:
                results.keep(file, result)
    if found:
        table.show(console, found)
    skipped = [name for name in LONG if name not in names]
    if skipped and not only:
        console.print(f"Not run, as they take long: {', '.join(skipped)} (--long, or --only).")
    sys.exit(1 if failed else 0)


def _run(module: ModuleType, run: Run) -> Result:
    found: Result = module.run(run)
    return found


def _teller() -> Callable[[str], None]:
    """Lines of progress: with the time that has passed, and to stderr, so that the table alone can
    be redirected.
    """
    console = Console(stderr=True)
    begun = time.monotonic()

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - begun), 60)
        if console.is_terminal:
            console.print(f"[dim]{minutes:3}:{seconds:02}[/dim] {text}", highlight=False)
        else:
            sys.stderr.write(f"{minutes}:{seconds:02} {text}\n")
            sys.stderr.flush()

    return say


if __name__ == "__main__":
    main()
