"""`status`: how things stand."""

from __future__ import annotations

import click

from sync_worker.cli.common import connect, console, counted, json_option, print_json, table
from sync_worker.gates import OPERATOR
from sync_worker.links import account_of
from sync_worker.status import Status, Sweep, read_status


@click.command()
@json_option
def status(as_json: bool) -> None:  # noqa: FBT001 - click passes it
    """Show how things stand."""
    current, client = connect()
    now = read_status(
        client,
        account=account_of(current.fusebill_base_url),
        calls=(current.fusebill_calls_per_minute, current.fusebill_calls_per_day),
    )
    if as_json:
        print_json(now)
        return
    console().print(table(("", ""), _rows(now)))


def _rows(now: Status) -> list[tuple[str, str]]:
    letters = ", ".join(f"{n} {reason}" for reason, n in now.dead_letters.items())
    rows = [
        *(("paused", f"{_owner(one.owner)} since {one.since}: {one.why}") for one in now.paused),
        *(("outage", f"{_owner(one.owner)} since {one.since}: {one.why}") for one in now.outages),
        ("backlog", counted(now.backlog, "mailbox", "mailboxes")),
        ("oldest due", f"{now.oldest_due_seconds:.1f} s ago" if now.backlog else "nothing is due"),
        ("dead letters", letters or "none"),
    ]
    if now.releases_held:
        held = counted(now.releases_held, "mailbox", "mailboxes")
        how = "see `sync-worker releases list`, then `releases approve` or `releases discard`"
        rows.append(("releases held", f"{held}: {how}"))
    if now.would:
        how = "`sync-worker dead-letters replay --outcome 'would_*'` applies them"
        rows.append(("dry run kept", f"{counted(now.would, 'change')}: {how}"))
    if now.links is not None:
        rows.append(("links known", str(now.links)))
    if now.sweep is not None:
        rows += sweep_rows(now.sweep)
    rows += [("Redis is unsafe", point) for point in now.unsafe]
    if now.may_lose:
        rows.append(("Redis may lose", now.may_lose))
    rows += [
        ("reconcile owed", f"{owed.source} since {owed.since}: {owed.why}")
        for owed in now.reconcile_owed
    ]
    rows += [
        (f"Fusebill calls a {window}", f"{budget['left']} left of {budget['limit']}")
        for window, budget in now.budget.items()
    ]
    return rows


def _owner(owner: str) -> str:
    """Who a pause belongs to, with what ends it."""
    if owner == OPERATOR:
        return "by an operator (`sync-worker resume` ends it)"
    return owner


def sweep_rows(sweep: Sweep) -> list[tuple[str, str]]:
    """What to say of the sweeps of all customers (B4.5)."""
    rows = []
    if sweep.waiting:
        rows.append(("wait for a sweep", counted(sweep.waiting, "mailbox", "mailboxes")))
    if sweep.running:
        total = "" if sweep.running.total is None else f" of {sweep.running.total}"
        rows.append(("sweep runs", f"{sweep.running.seen}{total} customers seen"))
    if sweep.last_ended:
        seen = counted(sweep.customers or 0, "customer")
        rows.append(("last sweep", f"{sweep.last_begun} to {sweep.last_ended}, {seen}"))
    return rows
