"""`send`: a correctly signed sample of any event to any URL."""

from __future__ import annotations

import sys
import time

import click
import requests

from sync_worker import settings
from sync_worker.cli.common import console, json_option, print_json, table
from webhooks import samples

TIMEOUT_SECONDS = 10


@click.command()
@click.argument("event", required=False)
@click.option("--list", "list_events", is_flag=True, help="List the events there are samples of.")
@click.option("--to", metavar="URL", help="The receiver's address; PUBLIC_URL if left out.")
@click.option("--record", metavar="ID", help="The record's id.")
@click.option("--customer", metavar="ID", help="The Fusebill id in its link field.")
@click.option("--event-id", metavar="ID", help="The event's own id.")
@json_option
def send(
    *,
    event: str | None,
    list_events: bool,
    to: str | None,
    record: str | None,
    customer: str | None,
    event_id: str | None,
    as_json: bool,
) -> None:
    """Send a signed sample of an EVENT.

    It is signed with the secrets in the settings, as the real sender would.
    """
    if list_events:
        console().print(table(("EVENT", "WHAT IT SAYS"), samples.listing()))
        return
    if event is None:
        raise click.UsageError("name an event, or --list them")
    current = settings.load()
    base = to or current.public_url or f"http://{current.web_bind}"
    if not base.startswith(("http://", "https://")):
        raise click.UsageError(f"{base!r} is no address: write http://HOST:PORT or https://HOST")
    try:
        made = samples.build(
            event,
            current,
            now=time.time(),
            record_id=record,
            customer_id=customer,
            event_id=event_id,
        )
    except samples.NoSample as error:
        raise click.UsageError(str(error)) from None
    try:
        answer = requests.request(
            made.method,
            base.rstrip("/") + made.path,
            headers=made.headers,
            data=made.body,
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        click.echo(
            f"sync-worker: {base} did not answer ({type(error).__name__}): "
            "check the address and that the receiver runs",
            err=True,
        )
        sys.exit(1)
    if as_json:
        print_json({"status": answer.status_code, "answer": answer.text})
    else:
        click.echo(f"{answer.status_code} {answer.reason}\n{answer.text.rstrip()}")
    sys.exit(0 if answer.ok else 1)
