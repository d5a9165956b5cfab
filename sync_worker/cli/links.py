"""`links`: which customers hold which records, as last seen."""

from __future__ import annotations

import sys

import click
import redis

from sync_worker import history
from sync_worker.cli.common import (
    NOTHING_MATCHED,
    connect,
    console,
    json_option,
    nothing_matched,
    print_json,
    table,
)
from sync_worker.cli.status import sweep_rows
from sync_worker.domain import Slot
from sync_worker.links import account_of

_MEANING = {"holds": "holds it", "released": "released by us", "gone": "gone by another hand"}


@click.group()
def links() -> None:
    """Which customers hold which records, as answers of Fusebill have told."""


@links.command("show")
@click.argument("record", required=False, metavar="[MAILBOX|ID]")
@click.option("--customer", type=int, metavar="ID", help="What this Fusebill customer holds.")
@json_option
def show(*, record: str | None, customer: int | None, as_json: bool) -> None:
    """Show the customers of a record, the records of a customer, or how many links are known.

    What is shown was true when it was last seen: it is looked up here, not at Fusebill.
    """
    if record is not None and customer is not None:
        raise click.UsageError("name a record or a --customer, not both")
    current, client = connect()
    account = account_of(current.fusebill_base_url)
    if record is not None:
        _show_record(client, account, record, as_json=as_json)
    elif customer is not None:
        _show_customer(client, account, customer, as_json=as_json)
    else:
        _show_summary(history.summary(client, account), as_json=as_json)


def _show_record(client: redis.Redis, account: str, record: str, *, as_json: bool) -> None:
    found = history.links_of(client, account, record)
    if as_json:
        print_json(found)
        sys.exit(0 if found else NOTHING_MATCHED)
    if not found:
        nothing_matched(f"No customer is known to hold {record} or to have held it.")
    rows = [
        (str(link.customer_id), link.slot, link.record_id, _MEANING.get(link.link, link.link))
        for link in found
    ]
    headings = ("CUSTOMER", "SLOT", "RECORD", "LINK")
    console().print(table(headings, rows, whole=headings[:2]))


def _show_customer(client: redis.Redis, account: str, customer: int, *, as_json: bool) -> None:
    found = history.held_by(client, account, customer)
    if as_json:
        print_json(found)
        sys.exit(0 if found else NOTHING_MATCHED)
    if found is None:
        nothing_matched(f"Customer {customer} was never seen.")
    rows = [
        (slot, (found.slots[slot] or "nothing") if slot in found.slots else "not known")
        for slot in Slot
    ]
    console().print(table(("SLOT", "HOLDS"), rows, whole=("SLOT",)))
    click.echo(f"last seen {found.seen_at}")


def _show_summary(found: history.Summary, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [("account", found.account), ("links known", str(found.links))]
    rows += sweep_rows(found.sweep) or [("last sweep", "none yet")]
    if found.blind:
        rows.append(("it could not see", ", ".join(found.blind)))
    console().print(table(("", ""), rows))
