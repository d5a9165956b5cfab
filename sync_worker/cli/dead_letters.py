"""`dead-letters`: read what waits for a person, put it back to work, or let go of it."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable
from functools import partial, reduce
from pathlib import Path
from typing import Any

import click
import msgspec
import redis
from rich.progress import Progress

from sync_worker import celery, history, replay
from sync_worker.cli.common import (
    NOTHING_MATCHED,
    F,
    connect,
    console,
    counted,
    fail,
    json_option,
    moment,
    nothing_matched,
    print_json,
    table,
)
from sync_worker.dead_letters import (
    BULK_COLUMNS,
    BULK_ROWS,
    EVERY_STATE,
    OPEN,
    WAITING,
    BulkJob,
    DeadLetter,
    Filter,
    Skip,
    bulk_job,
    by_reason,
    discard,
    find,
)
from sync_worker.domain import Reason, Slot, Source
from sync_worker.links import account_of
from sync_worker.settings import Settings
from sync_worker.status import iso

EVERY_OUTCOME = "would_*"
"""Stands for all that a dry run keeps."""

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

_ids_option = click.option(
    "--id", "ids", multiple=True, metavar="ID", help="This one; may be repeated."
)
_yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


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
    states = EVERY_STATE if closed_too else WAITING
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
    out.print(table(("", ""), [fact for fact in facts if fact[1]]))
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
@_ids_option
@click.option(
    "--outcome",
    type=click.Choice([*sorted(replay.EVERY_OUTCOME), EVERY_OUTCOME]),
    help="Apply what a dry run kept instead; --since and --until then mean when it was received.",
)
@_yes_option
@json_option
def replay_letters(
    *, ids: tuple[str, ...], outcome: str | None, yes: bool, as_json: bool, **options: Any
) -> None:
    """Put them back to work: shows the plan, asks, and runs at a steady pace.

    Ctrl-C stops it; what was put back stays put back.
    """
    if as_json and not yes:
        raise click.UsageError("--json does not ask, so it needs --yes")
    current, client = connect()
    planned: replay.ReplayPlan | replay.DryRunPlan
    if outcome:
        planned = _plan_dry_run(current, client, outcome, ids, options)
    else:
        planned = replay.plan(_chosen(client, ids, options))
    if not planned.size and not planned.skips:
        nothing_matched("No kept changes match." if outcome else "No dead letters match.")
    if not as_json:
        _print_plan(planned)
        if planned.size and not yes and not click.confirm(f"Replay {planned.size}?"):
            click.echo("Nothing was replayed.")
            return
    done = _replay(client, planned, quiet=as_json)
    if as_json:
        print_json(done)
    else:
        click.echo(
            f"{done.replay_id}: {done.replayed} of {done.planned} put back, "
            f"{len(done.skipped)} skipped{', stopped' if done.stopped else ''}; "
            "what fails again is in `dead-letters list`"
        )
    sys.exit(1 if done.stopped else 0)


def _chosen(client: redis.Redis, ids: tuple[str, ...], options: dict[str, Any]) -> list[DeadLetter]:
    """The dead letters meant, closed ones only by their ids; says which ids are of none."""
    states = EVERY_STATE if ids else WAITING
    found = list(find(client, _filter(options, ids=frozenset(ids), states=states)))
    for one in sorted(set(ids) - {letter.id for letter in found}):
        click.echo(f"sync-worker: no dead letter {one} matches", err=True)
    return found


def _plan_dry_run(
    current: Settings,
    client: redis.Redis,
    outcome: str,
    ids: tuple[str, ...],
    options: dict[str, Any],
) -> replay.DryRunPlan:
    if ids or options["reason"] or options["customer"] is not None:
        raise click.UsageError("--outcome takes no --id, --reason or --customer")
    if current.dry_run:
        fail("DRY_RUN=true would keep them again: unset it, restart the workers, and repeat this")
    return replay.plan_dry_run(
        client,
        replay.KeptFilter(
            outcomes=replay.EVERY_OUTCOME if outcome == EVERY_OUTCOME else frozenset({outcome}),
            source=options["source"],
            record=options["record"],
            since=moment(options["since"]),
            until=moment(options["until"]),
        ),
    )


def _print_plan(planned: replay.ReplayPlan | replay.DryRunPlan) -> None:
    if isinstance(planned, replay.ReplayPlan):
        _print_counts("REASON", "TO REPLAY", planned.by_reason)
    else:
        _print_counts("OUTCOME", "TO APPLY", planned.by_outcome)
    _print_skips(planned.skips)


def _print_counts(of: str, what: str, counts: dict[str, int]) -> None:
    rows = [(name, str(n)) for name, n in sorted(counts.items())]
    if rows:
        console().print(table((of, what), rows))


def _print_skips(skips: Iterable[Skip], *, err: bool = False) -> None:
    for skip in skips:
        click.echo(f"skipped {skip.id}: {skip.why}", err=err)


def _replay(
    client: redis.Redis, planned: replay.ReplayPlan | replay.DryRunPlan, *, quiet: bool
) -> replay.Replayed:
    with Progress(console=console(), disable=quiet or not sys.stdout.isatty()) as progress:
        bar = progress.add_task("replaying", total=planned.size)
        return replay.run(
            client,
            planned,
            wake=partial(celery.publish_or_leave, queue=celery.REPLAY_QUEUE),
            on_progress=lambda n: progress.update(bar, completed=n),
        )


@dead_letters.command("discard")
@filtered
@_ids_option
@_yes_option
def discard_letters(*, ids: tuple[str, ...], yes: bool, **options: Any) -> None:
    """Close them without applying them: shows the plan, and asks.

    Kept of each are its reason, record, customers, message and times; what its changes said is
    gone for good.
    """
    _, client = connect()
    found = _chosen(client, ids, options)
    if not found:
        nothing_matched("No dead letters match.")
    taken = [letter for letter in found if letter.state == OPEN]
    skips = [Skip(one.id, f"it is {one.state}") for one in found if one.state != OPEN]
    _print_counts("REASON", "TO DISCARD", by_reason(taken))
    _print_skips(skips)
    if not taken:
        return
    if not yes and not click.confirm(f"Discard {len(taken)}?"):
        click.echo("Nothing was discarded.")
        return
    left = discard(client, taken)
    _print_skips(left)
    click.echo(
        f"{len(taken) - len(left)} of {len(taken)} discarded, {len(skips) + len(left)} skipped"
    )


@dead_letters.command("export")
@filtered
@_ids_option
@click.option("--all", "closed_too", is_flag=True, help="Also those that are closed.")
@click.option(
    "--salesforce-bulk",
    is_flag=True,
    help="The file of Fusebill's bulk job that clears the Salesforce id of customers.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write there instead of to standard output.",
)
def export(
    *,
    ids: tuple[str, ...],
    closed_too: bool,
    salesforce_bulk: bool,
    output: Path | None,
    **options: Any,
) -> None:
    """Write them out whole, one JSON object a line.

    With --salesforce-bulk: the customers that open `unlatch_unsupported` letters would release,
    as CSV for Fusebill's import *Customer, Manage Salesforce*. Compare its headings with those of
    the job's own starting file, and the number of records it validates with the one told here.
    """
    current, client = connect()
    if salesforce_bulk:
        _export_bulk(_bulk_job(current, client, ids, options, closed_too=closed_too), output)
        return
    states = EVERY_STATE if closed_too or ids else WAITING
    found = list(find(client, _filter(options, ids=frozenset(ids), states=states)))
    if not found:
        nothing_matched("No dead letters match.")
    lines = (msgspec.json.encode(letter.as_json()).decode() + "\n" for letter in found)
    _write(["".join(lines)], output)
    click.echo(f"{counted(len(found), 'dead letter')} written", err=True)


def _bulk_job(
    current: Settings,
    client: redis.Redis,
    ids: tuple[str, ...],
    options: dict[str, Any],
    *,
    closed_too: bool,
) -> BulkJob:
    only = {"reason": str(Reason.UNLATCH_UNSUPPORTED), "source": str(Source.SALESFORCE)}
    if closed_too or any(options[name] not in (None, value) for name, value in only.items()):
        raise click.UsageError(
            "--salesforce-bulk is for open letters of Salesforce with the reason "
            f"{Reason.UNLATCH_UNSUPPORTED}: leave out --all, --reason and --source"
        )
    wanted = _filter({**options, **only}, ids=frozenset(ids), states=frozenset({OPEN}))
    letters = list(find(client, wanted))
    customers = {customer for letter in letters for customer in letter.customer_ids}
    account = account_of(current.fusebill_base_url)
    held = history.slots_of(client, account, Slot.SALESFORCE_ACCOUNT, sorted(customers))
    return bulk_job(letters, held)


def _export_bulk(job: BulkJob, output: Path | None) -> None:
    _print_skips(job.skips, err=True)
    if not job.customers:
        nothing_matched("No customers are to be cleared.")
    files = job.files()
    if len(files) > 1 and output is None:
        raise click.UsageError(
            f"{len(job.customers)} customers need {len(files)} files, as the job takes "
            f"{BULK_ROWS} rows: name the first with --output"
        )
    for path in _write([_csv(rows) for rows in files], output):
        click.echo(f"wrote {path}", err=True)
    click.echo(f"{counted(len(job.customers), 'customer')} to clear", err=True)


def _csv(rows: Iterable[tuple[str, ...]]) -> str:
    made = io.StringIO()
    writer = csv.writer(made)
    writer.writerow(BULK_COLUMNS)
    writer.writerows(rows)
    return made.getvalue()


def _write(texts: list[str], output: Path | None) -> list[Path]:
    """Write each text to a file of its own: FILE.csv, FILE-2.csv, ...; gives their names.

    What is there stays: an older FILE-2.csv must not pass for a part of this.
    """
    if output is None:
        click.echo(texts[0], nl=False)
        return []
    more = [output.with_stem(f"{output.stem}-{n}") for n in range(2, len(texts) + 1)]
    paths = [output, *more]
    for path in paths:
        if path.exists():
            fail(f"{path} is there already: move it away, or name another --output")
    try:
        for path, text in zip(paths, texts, strict=True):
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
    except OSError as error:
        fail(f"{path} cannot be written ({error.strerror}): name another --output")
    return paths
