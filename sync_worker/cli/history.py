"""`history`: who held what of a customer, since when and why."""

from __future__ import annotations

import sys

import click

from sync_worker import history as log
from sync_worker.cli.common import (
    NOTHING_MATCHED,
    connect,
    console,
    json_option,
    nothing_matched,
    print_json,
    table,
)
from sync_worker.links import account_of


@click.command()
@click.argument("customer_id", type=int)
@json_option
def history(*, customer_id: int, as_json: bool) -> None:
    """Show who held what of a Fusebill customer, since when and why, oldest first."""
    current, client = connect()
    turns = log.of_customer(client, account_of(current.fusebill_base_url), customer_id)
    if as_json:
        print_json(turns)
        sys.exit(0 if turns else NOTHING_MATCHED)
    if not turns:
        nothing_matched(f"Nothing is known of what customer {customer_id} held.")
    rows = [
        (turn.at, turn.slot, turn.before or "-", turn.after or "-", _why(turn)) for turn in turns
    ]
    headings = ("SINCE", "SLOT", "BEFORE", "AFTER", "WHY")
    console().print(table(headings, rows, whole=headings[:2]))


def _why(turn: log.Turn) -> str:
    if turn.by == "us":
        return f"change {turn.change} of {turn.record}"
    return "first seen" if turn.by == "first_seen" else "another hand"
