"""`web`, `worker` and `beat`: the three processes of a deployment."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable

import click

from sync_worker import drain, mode, settings, stopping, store
from sync_worker.celery import BEAT_QUEUE, LIVE_QUEUE, REPLAY_QUEUE, WAKE_PERIOD_SECONDS
from sync_worker.cli.common import configure_logs
from sync_worker.domain import Source
from sync_worker.runtime import Runtimes
from sync_worker.settings import Settings
from sync_worker.supervise import GRACE_SECONDS, Child, Supervisor

log = logging.getLogger(__name__)

CELERY = (sys.executable, "-m", "celery", "--quiet", "-A", "sync_worker.celery")


@click.command()
@click.option("--bind", metavar="ADDRESS:PORT", help="Where to listen (WEB_BIND).")
def web(bind: str | None) -> None:
    """Receive webhooks."""
    current = settings.load(**({"web_bind": bind} if bind else {}))
    configure_logs(current)
    _check_store(current)
    served = ", ".join(f"{one} {'on' if current.serves(one) else 'off'}" for one in Source)
    log.info("listens on http://%s: %s", current.web_bind, served)
    from webhooks.server import Server  # noqa: PLC0415 - gunicorn is of use to this command alone

    Server(current).run()


@click.command()
@click.option(
    "--concurrency",
    type=click.IntRange(1, 500),
    default=4,
    show_default=True,
    help="Processes; each works on up to 20 mailboxes at a time.",
)
def worker(concurrency: int) -> None:
    """Converge due mailboxes."""
    current = settings.load()
    configure_logs(current)
    runtime = Runtimes()
    runtime()  # a missing key is told here, not by every child again
    _check_store(current)
    _keep_saying_mode(current)
    relief = _Relief(runtime)
    relief.start()
    _keep_running(
        "worker",
        "worker",
        *("--pool", "prefork", "--concurrency", str(concurrency)),
        *("--queues", f"{BEAT_QUEUE},{LIVE_QUEUE},{REPLAY_QUEUE}"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        on_stop=relief.stop,
    )
    relief.wait()


@click.command()
def beat() -> None:
    """Wake what is due and was not woken. More than one does no harm."""
    current = settings.load()
    configure_logs(current)
    _check_store(current)
    _keep_saying_mode(current)
    log.info("looks for due work every %g s", WAKE_PERIOD_SECONDS)
    scheduler = "sync_worker.beat:WakeScheduler"
    _keep_running("beat", "beat", "--scheduler", scheduler, "--pidfile", "")


class _Relief(threading.Thread):
    """Makes room in a full store, where Celery cannot (B6.12)."""

    def __init__(self, runtime: Runtimes) -> None:
        super().__init__(name="relief", daemon=True)
        self._runtime = runtime
        self._stopped = threading.Event()
        self._ends = time.monotonic()

    def run(self) -> None:
        drain.relieve(self._runtime, stop=self._stopped)

    def stop(self) -> None:
        """Have it begin nothing more."""
        stopping.request()
        self._ends = time.monotonic() + GRACE_SECONDS
        self._stopped.set()

    def wait(self) -> None:
        """Wait for its end as long as for Celery's; leases cover the rest."""
        self.join(max(0.0, self._ends - time.monotonic()))


def _keep_running(name: str, *arguments: str, on_stop: Callable[[], object] = lambda: None) -> None:
    """Run Celery as a child until a signal: it exits on some reconnects and must come back (B6.7).

    `on_stop` is called when the signal has come, before Celery is asked to end.
    """
    Supervisor([Child(name=name, argv=(*CELERY, *arguments))], on_stop=on_stop).run()


def _keep_saying_mode(current: Settings) -> None:
    """Have it known in which mode this process runs, until it ends (B5.9)."""
    client = store.connect(current.redis_url.get_secret_value())
    threading.Thread(
        target=mode.keep_saying,
        args=(client,),
        kwargs={"dry_run": current.dry_run, "stop": threading.Event()},
        name="mode",
        daemon=True,
    ).start()


def _check_store(current: Settings) -> None:
    """Refuse a store that may lose changes (B10.1), or one that others use in the other mode
    (B5.9); wait for one that is not there yet.
    """
    client = store.connect(current.redis_url.get_secret_value())
    try:
        for point in store.require_safe(client, allow_unsafe=current.allow_unsafe_redis):
            log.warning("Redis is not safe to hold changes: %s", point)
        mode.join(client, dry_run=current.dry_run)
    except store.StoreRefused:
        raise
    except store.StoreError as error:
        log.warning("started without its store, and waits for it: %s", error)
    finally:
        client.close()
