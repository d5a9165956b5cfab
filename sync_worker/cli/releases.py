"""`releases`: what the brake holds, and a person's ruling on it (B5.10)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click
import redis

from sync_worker import celery
from sync_worker import releases as brake
from sync_worker.cli.common import (
    NOTHING_MATCHED,
    F,
    connect,
    console,
    counted,
    json_option,
    nothing_matched,
    print_json,
    table,
)
from sync_worker.status import iso


@click.group()
def releases() -> None:
    """Releases held back because there were too many in an hour (MAX_RELEASES_PER_HOUR)."""


@releases.command("list")
@json_option
def list_releases(*, as_json: bool) -> None:
    """List them, the longest waiting first."""
    _, client = connect()
    found = brake.held(client)
    if as_json:
        print_json([one.as_json() for one in found])
        sys.exit(0 if found else NOTHING_MATCHED)
    if not found:
        nothing_matched("No releases are held.")
    _print(found)


def _which(command: F) -> F:
    """Add what `approve` and `discard` have in common."""
    options: tuple[Callable[[F], F], ...] = (
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--all", "every", is_flag=True, help="All that are held now."),
        click.argument("ids", nargs=-1, metavar="[ID]..."),
    )
    for option in options:
        command = option(command)
    return command


@releases.command("approve")
@_which
def approve(*, ids: tuple[str, ...], every: bool, yes: bool) -> None:
    """Let releases be made: shows them, and asks."""
    _rule("approved", "Approve", ids, every=every, yes=yes)


@releases.command("discard")
@_which
def discard(*, ids: tuple[str, ...], every: bool, yes: bool) -> None:
    """Drop releases, so that the customers keep what they hold: shows them, and asks."""
    _rule("discarded", "Discard", ids, every=every, yes=yes)


def _rule(ruling: brake.Ruling, verb: str, ids: tuple[str, ...], *, every: bool, yes: bool) -> None:
    if bool(ids) is every:
        raise click.UsageError("name the ids of `releases list`, or --all")
    _, client = connect()
    found = [one for one in brake.held(client) if every or one.id in ids]
    for one in sorted(set(ids) - {one.id for one in found}):
        click.echo(f"sync-worker: no release {one} is held", err=True)
    if not found:
        nothing_matched("No releases match.")
    _print(found)
    if not yes and not click.confirm(f"{verb} {counted(len(found), 'release')}?"):
        click.echo(f"Nothing was {ruling}.")
        return
    ruled = _ruled(client, found, ruling)
    click.echo(f"{counted(len(ruled), 'release')} {ruling}")
    if not ruled:
        sys.exit(NOTHING_MATCHED)


def _ruled(
    client: redis.Redis, found: Sequence[brake.Held], ruling: brake.Ruling
) -> list[brake.Held]:
    """Those that were held still; the workers are woken for them, also if this is cut short."""
    done: list[brake.Held] = []
    try:
        for one in found:
            if brake.rule(client, one, ruling):
                done.append(one)
            else:
                click.echo(f"left {one.id}: it is held no longer", err=True)
    finally:
        if done:
            celery.publish_or_leave([one.mailbox for one in done])
    return done


def _print(found: Sequence[brake.Held]) -> None:
    rows = [(one.id, one.record, str(one.customer_id), one.slot, iso(one.since)) for one in found]
    headings = ("ID", "RECORD", "CUSTOMER", "SLOT", "SINCE")
    console().print(table(headings, rows, whole=headings))
