"""The command `sync-worker`: one file a command group, no logic of its own (B8).

Exit codes: 0 done, 1 failed, 2 called wrongly, 3 nothing matched.
"""

from __future__ import annotations

import sys

import click

from sync_worker import __version__
from sync_worker.cli.dead_letters import dead_letters
from sync_worker.cli.dev import dev
from sync_worker.cli.history import history
from sync_worker.cli.links import links
from sync_worker.cli.pause import pause, resume
from sync_worker.cli.releases import releases
from sync_worker.cli.run import beat, web, worker
from sync_worker.cli.send import send
from sync_worker.cli.status import status
from sync_worker.embedded_redis import NoServer, NotStarted
from sync_worker.mode import ModesDiffer
from sync_worker.settings import SettingsError
from sync_worker.store import StoreError, UnsafeStoreError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sync-worker")
def cli() -> None:
    """Keep the HubSpot, Salesforce and Geotab ids on Fusebill customers right.

    Settings are environment variables, a .env file, or files that NAME_FILE variables name.
    Start with `sync-worker dev`: everything on this machine, with a simulated Fusebill.
    """


for command in (
    *(dev, web, worker, beat, status, pause, resume),
    *(history, links, dead_letters, releases, send),
):
    cli.add_command(command)


def main() -> None:
    """Run a command; a foreseen failure is a sentence, not a traceback."""
    try:
        cli(prog_name="sync-worker")
    except (
        SettingsError,
        StoreError,
        UnsafeStoreError,
        ModesDiffer,
        NoServer,
        NotStarted,
    ) as error:
        for line in str(error).splitlines():
            click.echo(f"sync-worker: {line}", err=True)
        sys.exit(1)
