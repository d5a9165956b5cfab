"""`dead-letters`: read what waits for a person, and put it back to work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import reduce
from typing import Any

import click
from rich.progress import Progress

from sync_worker import celery, replay
from sync_worker.cli.common import (
    NOTHING_MATCHED,
    F,
    connect,
    console,
    json_option,
    moment,
    print_json,
    table,
)
from sync_worker.dead_letters import OPEN, REPLAYING, DeadLetter, Filter, find
from sync_worker.domain import Reason, Source
from sync_worker.status import iso

_FILTERS: tuple[Callable[[Any], Any], ...] = (
    click.option("--reason", type=click.Choice([str(one) for one in Reason])),
    click.option("--source", type=click.Choice([str(one) for one in Source])),
    click.option("--record", metavar="MAILBOX|ID", help="A mailbox name or a bare record id."),
    click.option("--customer", type=int, metavar="ID", help="Concerns this Fusebill customer."),
    click.option(
        "--since",
        metavar="TIME",
        help="Last failed at or after this ISO 8601 time.",
    ),
    click.option(
        "--until", metavar="TIME", help="Last failed before it; without a zone it is UTC."
    ),
)


EVERY_STATE = frozenset({OPEN, REPLAYING, "superseded", "resolved"})


def filtered(command: F) -> F:
    """Add the options that choose dead letters (B6.11)."""
    return reduce(lambda made, option: option(made), reversed(_FILTERS), command)


def _filter(options: dict[str, Any], **more: Any) -> Filter:
    return Filter(
        **{
            **options,
            "since": moment(options["since"]),
            "until": moment(options["until"]),
            **more,
        }
    )


@click.group("dead-letters")
def dead_letters() -> None:
    """Changes that cannot be applied without a person."""


@dead_letters.command("list")
@filtered
@click.option("--all", "closed_too", is_flag=True, help="Also those that are closed.")
@json_option
def list_letters(*, closed_too: bool, as_json: bool, **options: Any) -> None:
    """List them, the longest waiting first."""
    _, client = connect()
    states = EVERY_STATE if closed_too else frozenset({OPEN, REPLAYING})
    found = find(client, _filter(options, states=states))
    letters = sorted(found, key=lambda letter: letter.first_failed_at)
    if as_json:
        print_json([letter.as_json() for letter in letters])
    elif letters:
        rows = [_row(letter) for letter in letters]
        headings = ("ID", "REASON", "STATE", "RECORD", "LAST FAILED", "WHY")
        console().print(table(headings, rows, whole=headings[:-1]))
    else:
        click.echo("No dead letters match.", err=True)
    sys.exit(0 if letters else NOTHING_MATCHED)


def _row(letter: DeadLetter) -> tuple[str, ...]:
    record = letter.mailbox or f"(a {letter.source} body)"
    failed = iso(letter.last_failed_at)[:19] + "Z"
    return letter.id, letter.reason, letter.state, record, failed, letter.message


@dead_letters.command("show")
@click.argument("letter_id", metavar="ID")
@json_option
def show(*, letter_id: str, as_json: bool) -> None:
    """Show one: why, what was tried, what to do, and the changes as they came."""
    _, client = connect()
    found = list(find(client, Filter(ids=frozenset({letter_id}), states=EVERY_STATE)))
    if not found:
        click.echo(f"sync-worker: there is no dead letter {letter_id}", err=True)
        sys.exit(NOTHING_MATCHED)
    if as_json:
        print_json(found[0].as_json())
        return
    _print_letter(found[0])


def _print_letter(letter: DeadLetter) -> None:
    out = console()
    facts = [
        ("dead letter", f"{letter.id}, {letter.state}"),
        ("reason", letter.reason),
        ("record", letter.mailbox or f"none: a {letter.source} body that could not be read"),
        ("customers", ", ".join(map(str, letter.customer_ids)) or "none"),
        ("why", letter.message),
        ("what to do", letter.next_step),
        ("failed", f"first {iso(letter.first_failed_at)}, last {iso(letter.last_failed_at)}"),
    ]
    out.print(table(("", ""), facts))
    if letter.attempts:
        rows = [
            (iso(a.at), str(a.status or "no answer"), a.call, a.error or "")
            for a in letter.attempts
        ]
        out.print()
        out.print(table(("CALLED AT", "STATUS", "CALL", "ERROR"), rows))
    for pending in letter.changes:
        click.echo(f"\nchange {pending.seq}, received {iso(pending.received_at)}:")
        click.echo(pending.change.raw)
    if letter.raw is not None:
        click.echo("\nbody:")
        click.echo(letter.raw.decode("utf-8", "backslashreplace"))


@dead_letters.command("replay")
@filtered
@click.option("--id", "ids", multiple=True, metavar="ID", help="This one; may be repeated.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def replay_letters(*, ids: tuple[str, ...], yes: bool, as_json: bool, **options: Any) -> None:
    """Put them back to work: shows the plan, asks, and runs at a steady pace.

    Ctrl-C stops it; what was put back stays put back.
    """
    _, client = connect()
    states = EVERY_STATE if ids else frozenset({OPEN, REPLAYING})
    found = list(find(client, _filter(options, ids=frozenset(ids), states=states)))
    unknown = sorted(set(ids) - {letter.id for letter in found})
    for one in unknown:
        click.echo(f"sync-worker: no dead letter {one} matches", err=True)
    planned = replay.plan(found)
    if not planned.letters and not planned.skips:
        click.echo("No dead letters match.", err=True)
        sys.exit(NOTHING_MATCHED)
    if as_json and not yes:
        raise click.UsageError("--json does not ask, so it needs --yes")
    if not as_json:
        _print_plan(planned)
        if planned.letters and not yes and not click.confirm(f"Replay {len(planned.letters)}?"):
            click.echo("Nothing was replayed.")
            return
    with Progress(console=console(), disable=as_json or not sys.stdout.isatty()) as progress:
        bar = progress.add_task("replaying", total=len(planned.letters))
        done = replay.run(
            client,
            planned,
            wake=celery.publish_or_leave,
            on_progress=lambda n: progress.update(bar, completed=n),
        )
    if as_json:
        print_json(done)
    else:
        click.echo(
            f"{done.replay_id}: {done.replayed} of {done.planned} put back, "
            f"{len(done.skipped)} skipped{', stopped' if done.stopped else ''}; "
            "what fails again is in `dead-letters list`"
        )
    sys.exit(1 if done.stopped else 0)


def _print_plan(planned: replay.ReplayPlan) -> None:
    rows = [(reason, str(n)) for reason, n in sorted(planned.by_reason.items())]
    if rows:
        console().print(table(("REASON", "TO REPLAY"), rows))
    for skip in planned.skips:
        click.echo(f"skipped {skip.id}: {skip.why}")
