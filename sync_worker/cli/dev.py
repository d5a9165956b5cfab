"""`dev`: everything on this machine, and a tour that shows it at work.

The simulators run as processes of their own, as the real systems do: nothing here imports them.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import click
import requests

from sync_worker import settings
from sync_worker.cli.tour import SPARE, Stopped, Tour
from sync_worker.embedded_redis import EmbeddedRedis
from sync_worker.settings import SettingsError
from sync_worker.supervise import Child, Supervisor

STATE = Path(".sync-worker")
"""Where a running `dev` leaves its log and the settings that other terminals need."""

START_SECONDS = 60
"""Longest wait for all of it to answer; a slow machine compiles everything first."""

GRACE_SECONDS = 15

FIRST_CUSTOMER = 8714401
"""Of the five customers that the simulated Fusebill starts with."""


@click.command()
@click.option("--once", is_flag=True, help="End after the tour; exit code 0 only if all worked.")
@click.option(
    "--bind",
    default="127.0.0.1:8000",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where the receiver listens.",
)
def dev(*, once: bool, bind: str) -> None:
    """Run everything here, and show it at work.

    Starts Redis, a simulated Fusebill and simulated CRMs, receiver, worker and beat, sends signed
    changes of each system, shows what became of them, and stays up. Settings of your own are not
    read: nothing here can reach a real account.
    """
    _require_free(bind)
    log = _Log(STATE / f"dev-{_port(bind)}.log")
    try:
        with log:
            _run(bind, log, once=once)
    except Stopped as error:
        click.echo(f"sync-worker: {error}", err=True)
        log.show_end()
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("\nStopped.")
        sys.exit(1 if once else 0)


def _run(bind: str, log: _Log, *, once: bool) -> None:
    started = time.monotonic()
    environment, desk = _environment(bind)
    with (
        tempfile.TemporaryDirectory(prefix="sync-worker-") as folder,
        EmbeddedRedis(folder) as redis,
    ):
        environment["REDIS_URL"] = redis.url
        for name in [name for name in os.environ if name.removesuffix("_FILE") in _NAMES]:
            del os.environ[name]
        os.environ.update(environment)
        supervisor = Supervisor(
            _children(environment, desk), on_line=log.line, grace_seconds=GRACE_SECONDS
        )
        with supervisor, _kept_running(redis), _environment_file(environment) as env_file:
            _wait_until_ready(environment, desk)
            click.echo(f"Everything is up after {time.monotonic() - started:.1f} s.\n")
            Tour(settings.load(_env_file=None), environment["PUBLIC_URL"], desk).run()
            click.echo(f"\nAll of it happened, {time.monotonic() - started:.1f} s in all.")
            if once:
                return
            _say_what_next(environment, env_file, desk)
            log.aloud = True
            supervisor.wait()


_NAMES = frozenset(name.upper() for name in settings.Settings.model_fields)


class _Log:
    """What the processes write: kept in a file, and shown as well once the tour is over."""

    def __init__(self, path: Path) -> None:
        self.aloud = False
        self._path = path

    def __enter__(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        self._file = self._path.open("w", encoding="utf-8")

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def line(self, child: str, text: str) -> None:
        """Take a line of a child."""
        shown = f"{child:>8} | {text}"
        with contextlib.suppress(ValueError):  # a last line after the file was closed
            self._file.write(f"{shown}\n")
            self._file.flush()
        if self.aloud:
            click.echo(shown)

    def show_end(self) -> None:
        """Show the last lines, for a start or tour that failed."""
        lines = self._path.read_text(encoding="utf-8").splitlines()
        click.echo(f"The last lines of {self._path}:", err=True)
        for line in lines[-30:]:
            click.echo(f"  {line}", err=True)


def _require_free(bind: str) -> None:
    host, _, port = bind.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535 or "[" in host:
        raise click.BadParameter(
            f"{bind!r} is not ADDRESS:PORT, such as 127.0.0.1:8000", param_hint="--bind"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except socket.gaierror:
            raise click.BadParameter(
                f"{host!r} is no address of this machine", param_hint="--bind"
            ) from None
        except OSError as error:
            raise SettingsError(
                f"{bind} cannot be listened on ({error.strerror}): "
                "end what listens there, or choose another with --bind"
            ) from None


def _free_addresses(count: int) -> list[str]:
    """So many that differ, each ADDRESS:PORT."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{probe.getsockname()[1]}" for probe in probes]


def _environment(bind: str) -> tuple[dict[str, str], str]:
    """The settings of all processes: made-up secrets for made-up accounts.

    And the address at which the simulated CRMs are changed by hand.
    """
    fusebill, hubspot, salesforce, myadmin, desk = _free_addresses(5)
    return {
        "FUSEBILL_BASE_URL": f"http://{fusebill}",
        "FUSEBILL_API_KEY": base64.b64encode(b"0:" + b"dev".ljust(64, b"0")).decode(),
        "WEB_BIND": bind,
        "PUBLIC_URL": f"http://{bind}",
        "HUBSPOT_CLIENT_SECRET": "dev-hubspot-client-secret",
        "HUBSPOT_PORTAL_ID": "24681357",
        "HUBSPOT_ACCESS_TOKEN": "dev-hubspot-access-token",
        "HUBSPOT_BASE_URL": f"http://{hubspot}",
        "SALESFORCE_WEBHOOK_TOKEN": "dev-salesforce-token",
        "SALESFORCE_WEBHOOK_SECRET": "dev-salesforce-secret",
        "SALESFORCE_ORG_ID": "00D5g000007Kp2QEAS",
        "SALESFORCE_CLIENT_ID": "dev-salesforce-client-id",
        "SALESFORCE_CLIENT_SECRET": "dev-salesforce-client-secret",
        "SALESFORCE_INSTANCE_URL": f"http://{salesforce}",
        "GEOTAB_WEBHOOK_TOKEN": "dev-geotab-token",
        "GEOTAB_WEBHOOK_SECRET": "dev-geotab-secret",
        "GEOTAB_ACCOUNT": "ACCT01",
        "GEOTAB_MYADMIN_USERNAME": "dev@example.com",
        "GEOTAB_MYADMIN_PASSWORD": "dev-geotab-password",
        "GEOTAB_MYADMIN_URL": f"http://{myadmin}/v2/MyAdminApi.ashx",
        "SWEEP_SECONDS": "5",
        "LOG_LEVEL": "INFO",
    }, f"http://{desk}"


def _children(environment: Mapping[str, str], desk: str) -> list[Child]:
    here = (sys.executable, "-m", "sync_worker")
    fusebill = (
        *(sys.executable, "-m", "simulators.fusebill"),
        *("--bind", _address(environment["FUSEBILL_BASE_URL"])),
        *("--api-key", environment["FUSEBILL_API_KEY"]),
        *("--customers", "5", "--first-id", str(FIRST_CUSTOMER)),
    )
    crms = (
        *(sys.executable, "-m", "simulators.crms"),
        *("--bind", _address(desk)),
        *("--hubspot-bind", _address(environment["HUBSPOT_BASE_URL"])),
        *("--hubspot-portal", environment["HUBSPOT_PORTAL_ID"]),
        *("--hubspot-token", environment["HUBSPOT_ACCESS_TOKEN"]),
        *("--salesforce-bind", _address(environment["SALESFORCE_INSTANCE_URL"])),
        *("--salesforce-org", environment["SALESFORCE_ORG_ID"]),
        *("--salesforce-client-id", environment["SALESFORCE_CLIENT_ID"]),
        *("--salesforce-client-secret", environment["SALESFORCE_CLIENT_SECRET"]),
        *("--myadmin-bind", _address(environment["GEOTAB_MYADMIN_URL"])),
        *("--myadmin-account", environment["GEOTAB_ACCOUNT"]),
        *("--myadmin-username", environment["GEOTAB_MYADMIN_USERNAME"]),
        *("--myadmin-password", environment["GEOTAB_MYADMIN_PASSWORD"]),
    )
    own = {"PYTHONUNBUFFERED": "1"}
    return [
        Child(name="fusebill", argv=fusebill, env=own),
        Child(name="crms", argv=crms, env=own),
        Child(name="web", argv=(*here, "web"), env=own),
        Child(name="worker", argv=(*here, "worker", "--concurrency", "2"), env=own),
        Child(name="beat", argv=(*here, "beat"), env=own),
    ]


def _address(url: str) -> str:
    return urlsplit(url).netloc


@contextlib.contextmanager
def _kept_running(redis: EmbeddedRedis) -> Iterator[None]:
    """Start Redis again when it ends, as any supervisor would; what it accepted is still there."""
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(0.5):
            if not redis.running:
                redis.start()

    keeper = threading.Thread(target=keep, name="keeper of Redis", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()


def _port(bind: str) -> str:
    return bind.rpartition(":")[2]


@contextlib.contextmanager
def _environment_file(environment: Mapping[str, str]) -> Iterator[Path]:
    path = STATE / f"dev-{_port(environment['WEB_BIND'])}.env"
    path.write_text(
        "".join(f"{name}={value}\n" for name, value in environment.items()), encoding="utf-8"
    )
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _wait_until_ready(environment: Mapping[str, str], desk: str) -> None:
    click.echo("Starting Redis, simulated Fusebill and CRMs, receiver, worker and beat …")
    urls = [
        f"{environment['PUBLIC_URL']}/readyz",
        f"{environment['FUSEBILL_BASE_URL']}/_simulator/options",
        desk,
    ]
    deadline = time.monotonic() + START_SECONDS
    while urls:
        if time.monotonic() > deadline:
            raise Stopped(f"{urls[0]} did not answer within {START_SECONDS} s")
        with contextlib.suppress(requests.RequestException):
            if requests.get(urls[0], timeout=2).ok:
                urls.pop(0)
                continue
        time.sleep(0.1)


def _say_what_next(environment: Mapping[str, str], env_file: Path, desk: str) -> None:
    command = Path(sys.executable).with_name("sync-worker")
    here = Path.cwd()
    shown = command.relative_to(here) if command.is_relative_to(here) else command
    claim = f'{{"type_": "contacts", "id_": {SPARE}, "name": "fusebill_id", "value": "8714402"}}'
    steps = (
        (f"set -a; . {env_file}; set +a", "point the commands at this set-up"),
        (f"{shown} send --list", "the events there are samples of"),
        (f"curl {desk}/hubspot/set_property -d '{claim}'", ""),
        (f"{shown} send hubspot.contact.linked --record {SPARE} --customer 8714402", ""),
        (f"{shown} status", "somebody else is there already"),
        (f"{shown} dead-letters list", ""),
        (f"{shown} history 8714402", ""),
        (f"curl {environment['PUBLIC_URL']}/metrics", ""),
    )
    click.echo("\nIt stays up; Ctrl-C ends it. In another terminal, in this folder, try:\n")
    for step, why in steps:
        click.echo(f"    {step:<44}  # {why}" if why else f"    {step}")
    click.echo("\nWhat the processes say from now on:\n")
