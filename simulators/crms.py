"""`python -m simulators.crms`: simulated HubSpot, Salesforce and MyAdmin, as one process.

What people do in a CRM is done at a desk on a port of its own: `POST /hubspot/set_property` with
the arguments by name, as JSON, calls that method of the portal's records, and likewise
`/salesforce/…` of the Accounts and `/myadmin/…` of the contacts. The answer is what the method
gives. Bad input is 400, an unknown method or record 404, both with `{"error": "..."}`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

import msgspec

from simulators.fusebill.messages import Answer, Request, as_json
from simulators.http import LocalServer
from simulators.hubspot import SimulatedHubSpot
from simulators.myadmin.contacts import synthetic_contacts
from simulators.myadmin.server import SimulatedMyAdmin
from simulators.salesforce.server import SimulatedSalesforce

Address = tuple[str, int]

DEEDS = {
    "hubspot": frozenset(
        ("create", "set_property", "archive", "restore", "merge", "associate", "dissociate")
    ),
    "salesforce": frozenset(("put", "set_field", "delete", "undelete", "merge")),
    "myadmin": frozenset(("set", "deactivate", "clear_id", "delete")),
}
"""What may be done at the desk, by the names of the methods."""


class Desk(LocalServer):
    """The hand on the records of the three."""

    def __init__(self, records: dict[str, Any], *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host=host, port=port)
        self._records = records

    def serve(self, request: Request) -> Answer:
        """Do what is asked."""
        if request.method == "GET" and request.path == "/":
            return as_json(200, {name: sorted(deeds) for name, deeds in DEEDS.items()})
        system, _, deed = request.path.strip("/").partition("/")
        if request.method != "POST" or deed not in DEEDS.get(system, ()):
            return as_json(404, {"error": f"{request.method} {request.path} is nothing here"})
        try:
            named = msgspec.json.decode(request.body, type=dict[str, Any])
            return as_json(200, getattr(self._records[system], deed)(**named))
        except KeyError as error:
            return as_json(404, {"error": f"there is no {error}"})
        except (msgspec.DecodeError, TypeError, ValueError) as error:
            return as_json(400, {"error": str(error)})


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    given = _parser().parse_args(argv)
    hubspot = SimulatedHubSpot(
        portal_id=given.hubspot_portal,
        access_token=given.hubspot_token,
        **_at(given.hubspot_bind),
    )
    salesforce = SimulatedSalesforce(
        org_id=given.salesforce_org,
        client_id=given.salesforce_client_id,
        client_secret=given.salesforce_client_secret,
        **_at(given.salesforce_bind),
    )
    myadmin = SimulatedMyAdmin(
        synthetic_contacts(given.myadmin_contacts),
        username=given.myadmin_username,
        password=given.myadmin_password,
        account=given.myadmin_account,
        **_at(given.myadmin_bind),
    )
    records = {
        "hubspot": hubspot.world,
        "salesforce": salesforce.accounts,
        "myadmin": myadmin.contacts,
    }
    # The desk comes last: once it answers, all do.
    servers = (hubspot, salesforce, myadmin, Desk(records, **_at(given.bind)))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        for server in servers:
            server.start()
    except OSError as error:
        sys.stderr.write(f"cannot listen: {error}\n")
        return 1
    for server in servers:
        print(f"{type(server).__name__} listens on {server.url}", flush=True)
    stop.wait()
    for server in servers:
        server.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulators.crms", description=__doc__)
    usual: Address = ("127.0.0.1", 0)
    for name in ("", "hubspot-", "salesforce-", "myadmin-"):
        whose = name.rstrip("-") or "the desk"
        parser.add_argument(
            f"--{name}bind",
            type=_address,
            default=usual,
            metavar="HOST:PORT",
            help=f"where {whose} listens (any free port)",
        )
    parser.add_argument("--hubspot-portal", type=int, default=24681357, metavar="ID")
    parser.add_argument("--salesforce-org", default="00D5g000007Kp2Q", metavar="ID")
    parser.add_argument("--myadmin-account", default="ACCT01", metavar="ACCOUNT")
    parser.add_argument("--myadmin-username", default="erp-user@example.com", metavar="NAME")
    parser.add_argument(
        "--myadmin-contacts", type=int, default=2, metavar="N", help="contacts at the start (2)"
    )
    for secret in (
        *("hubspot-token", "salesforce-client-id"),
        *("salesforce-client-secret", "myadmin-password"),
    ):
        parser.add_argument(f"--{secret}", metavar="SECRET", help="a random one by default")
    return parser


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _at(address: Address) -> dict[str, Any]:
    host, port = address
    return {"host": host, "port": port}


if __name__ == "__main__":
    sys.exit(main())
