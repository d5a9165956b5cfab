"""What several commands share: settings, output, times and filters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

import click
import msgspec
import redis
from rich.console import Console
from rich.table import Table

from sync_worker import logs, settings, store
from sync_worker.settings import Settings

NOTHING_MATCHED = 3

WIDE = 400
"""Characters of a line where there is no terminal to fit into."""

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def connect() -> tuple[Settings, redis.Redis]:
    """Read the settings and open the store they name."""
    current = settings.load()
    return current, store.connect(current.redis_url.get_secret_value())


def fail(message: str) -> NoReturn:
    """End with exit code 1; the message says what is wrong and the cure."""
    click.echo(f"sync-worker: {message}", err=True)
    sys.exit(1)


def nothing_matched(message: str) -> NoReturn:
    """End with the exit code for that."""
    click.echo(message, err=True)
    sys.exit(NOTHING_MATCHED)


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """A number of things, in words: `1 change`, `2 changes`."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def console() -> Console:
    """A console on standard output; elsewhere than on a terminal, lines are as long as needed."""
    wide = None if sys.stdout.isatty() else WIDE
    return Console(
        width=wide,
        markup=False,
        highlight=False,
        soft_wrap=not sys.stdout.isatty(),
        emoji=False,
        legacy_windows=False,
    )


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, whole: Sequence[str] = ()
) -> Table:
    """An aligned table; the columns `whole` are never broken, so that they can be copied."""
    made = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        padding=(0, 2, 0, 0),
        show_header=any(headings),
    )
    for heading in headings:
        made.add_column(heading, overflow="fold", no_wrap=heading in whole)
    for row in rows:
        made.add_row(*row)
    return made


def moment(text: str | None) -> int | None:
    """Read an ISO 8601 time as milliseconds since the epoch; without a zone it is UTC."""
    if text is None:
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a time: write it like 2026-11-20T14:03:07Z"
        ) from None
    if read.tzinfo is None:
        read = read.replace(tzinfo=UTC)
    return int(read.timestamp() * 1000)


def configure_logs(current: Settings) -> None:
    """Have this process log as the settings say."""
    logs.configure(current.log_level, secrets=logs.secrets_of(current))
