"""`status`: how things stand."""

from __future__ import annotations

import click

from sync_worker.cli.common import connect, console, json_option, print_json, table
from sync_worker.status import Status, read_status


@click.command()
@json_option
def status(as_json: bool) -> None:  # noqa: FBT001 - click passes it
    """Show how things stand."""
    _, client = connect()
    now = read_status(client)
    if as_json:
        print_json(now)
        return
    console().print(table(("", ""), _rows(now)))


def _rows(now: Status) -> list[tuple[str, str]]:
    letters = ", ".join(f"{n} {reason}" for reason, n in now.dead_letters.items())
    rows = [
        ("backlog", f"{now.backlog} mailbox{'' if now.backlog == 1 else 'es'}"),
        ("oldest due", f"{now.oldest_due_seconds:.1f} s ago" if now.backlog else "nothing is due"),
        ("dead letters", letters or "none"),
    ]
    rows += [
        ("reconcile owed", f"{owed.source} since {owed.since}: {owed.why}")
        for owed in now.reconcile_owed
    ]
    rows += [
        (f"Fusebill calls a {window}", f"{budget['left']} left of {budget['limit']}")
        for window, budget in now.budget.items()
    ]
    return rows
