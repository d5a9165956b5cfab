"""`pause` and `resume`: have all work wait for a person (B6.4)."""

from __future__ import annotations

import sys

import click
import redis

from sync_worker.cli.common import NOTHING_MATCHED, connect
from sync_worker.gates import FUSEBILL, Gates, look
from sync_worker.settings import Settings


@click.command()
@click.option("--why", default="no reason given", metavar="TEXT", help="Shown by `status`.")
def pause(why: str) -> None:
    """Have all work wait until `resume`. Webhooks are received and stored all the while."""
    current, client = connect()
    if not _gates(client, current).pause(" ".join(why.split())):
        click.echo("Already paused; `sync-worker status` says since when and why.")
        return
    click.echo("Paused: what is begun is finished, nothing else until `sync-worker resume`.")


@click.command()
def resume() -> None:
    """End a pause, and try at once again what waits for an outage or for refused credentials."""
    current, client = connect()
    lifted = _gates(client, current).resume()
    shut = [gate for gate in look(client) if gate.open or gate.refused]
    if lifted:
        click.echo("Resumed: what waited goes on within seconds.")
    for gate in shut:
        what = "refuses the credentials" if gate.refused else "is not usable"
        system = "Fusebill" if gate.name == FUSEBILL else gate.name
        click.echo(f"{system} {what}, as last seen; it is probed now: see `sync-worker status`.")
    if not lifted and not shut:
        click.echo("Nothing was paused.")
        sys.exit(NOTHING_MATCHED)


def _gates(client: redis.Redis, current: Settings) -> Gates:
    return Gates(client, breaker_failures=current.breaker_failures)
