"""Redis, a fast Fusebill and the product's processes, as they are started in production.

Everything ends with the `with` block, or with this process, however that ends. Processes are run
in a folder of their own, so that no `.env` is read, and see nothing of the caller's environment
but what a Python process needs.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import redis

from benchmarks.harness import cpu, load, vendors
from benchmarks.harness.fusebill import API_KEY, FusebillControl
from benchmarks.harness.vendors import Link, Vendor
from sync_worker import lifeline
from sync_worker.embedded_redis import EmbeddedRedis

ROOT = Path(__file__).parents[2]
"""Where the packages are."""

START_SECONDS = 60
DRAIN_SECONDS = 600
STOP_SECONDS = 20

FEED_CONNECTIONS = 4

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
_REFERENCE_CONFIG = Path(__file__).parents[1] / "references" / "server.py"

UNLIMITED = {"FUSEBILL_CALLS_PER_MINUTE": "100000", "FUSEBILL_CALLS_PER_DAY": "100000000"}
"""The most that the settings take: no budget to speak of."""


class Stuck(Exception):
    """Something that had to happen did not; the message says what, and what the processes said."""


class Stack:
    """Redis from the start; all else is started by its name."""

    def __init__(self, folder: Path, *, appendfsync: str = "everysec", **env: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.redis = EmbeddedRedis(folder / "redis", appendfsync=appendfsync)
        self.port = free_port()
        self.fusebill_port = free_port()
        self._env = env
        self._open = ExitStack()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._control: FusebillControl | None = None

    def __enter__(self) -> Stack:
        (self.folder / "redis").mkdir(exist_ok=True)
        self._open.enter_context(self.redis)
        self._open.callback(self.kill_all)
        self.client = redis.Redis.from_url(self.redis.url, decode_responses=True)
        self._open.enter_context(closing(self.client))
        return self

    def __exit__(self, *_: object) -> None:
        if self._control is not None:
            self._control.close()
        self._open.close()

    @property
    def url(self) -> str:
        """The address that senders are told, which HubSpot signs."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        """Where the receiver, or the reference in its place, listens."""
        return "127.0.0.1", self.port

    @property
    def fusebill(self) -> FusebillControl:
        """The hand on the fast Fusebill, which starts with its first use."""
        if self._control is None:
            argv = ["-m", "benchmarks.harness.fusebill", str(self.fusebill_port)]
            self._spawn("fusebill", [sys.executable, *argv])
            self._until(lambda: listens(self.fusebill_port), "Fusebill listens")
            self._control = FusebillControl(self.fusebill_port)
        return self._control

    @property
    def env(self) -> dict[str, str]:
        """What all processes are told."""
        return {
            **{name: os.environ[name] for name in _KEPT if name in os.environ},
            "PYTHONPATH": str(ROOT_OF_RUN),
            "REDIS_URL": self.redis.url,
            "FUSEBILL_BASE_URL": f"http://127.0.0.1:{self.fusebill_port}",
            "FUSEBILL_API_KEY": API_KEY,
            "PUBLIC_URL": self.url,
            "WEB_BIND": f"127.0.0.1:{self.port}",
            "LOG_LEVEL": "WARNING",
            **vendors.SETTINGS,
            **UNLIMITED,
            **self._env,
        }

    def start(self, command: str, *options: str, name: str = "") -> None:
        """Start `sync-worker COMMAND`; of `web`, return when it can accept."""
        argv = [sys.executable, "-m", "sync_worker", command, *options]
        self._spawn(name or command, argv)
        if command == "web":
            self._until(self._ready, "web is ready")

    def start_reference(self, module: str) -> None:
        """Serve a reference in the receiver's place."""
        app = f"benchmarks.references.{module}:app"
        argv = [sys.executable, "-m", "gunicorn", "--config", str(_REFERENCE_CONFIG)]
        self._spawn(module, [*argv, "--bind", f"127.0.0.1:{self.port}", app])
        self._until(lambda: listens(self.port), f"{module} listens")

    def set(self, **env: str) -> None:
        """Tell the processes that are started from now on something else."""
        self._env.update(env)

    def command(self, *arguments: str, seconds: float = 60) -> str:
        """Run `sync-worker ARGUMENTS` to its end; what it printed."""
        argv = self._in_folder([sys.executable, "-m", "sync_worker", *arguments])
        done = subprocess.run(
            argv, env=self.env, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            raise Stuck(f"sync-worker {' '.join(arguments)}: {done.stdout} {done.stderr}")
        return done.stdout

    def pid(self, name: str) -> int:
        """The process started under that name; "redis" is the server."""
        if name == "redis":
            if self.redis.pid is None:
                raise Stuck("Redis is down")
            return self.redis.pid
        return self._running[name].pid

    def cpu(self, *names: str) -> float:
        """CPU seconds of these and all that they started."""
        return cpu.seconds(*map(self.pid, names))

    def stop(self, name: str) -> None:
        """End one in order."""
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            lifeline.kill(process)
            process.wait()
        lifeline.reaped(process)

    def kill_all(self) -> None:
        """End all processes at once: nobody needs them any more."""
        for name, process in list(self._running.items()):
            # The worker's and beat's Celery lead groups of their own, which die with their parent's
            # guard only after a moment: take the whole tree.
            for pid in cpu.tree(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            lifeline.reaped(process)
            del self._running[name]

    @contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """Hold processes still (SIGSTOP) while work is put before them."""
        pids = cpu.tree(*map(self.pid, names))
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def feed(self, vendor: Vendor, links: Sequence[Link], *, batch: int = vendors.BATCH) -> None:
        """Deliver these to the receiver, which must take them."""
        requests = vendors.requests(vendor, links, public_url=self.url, batch=batch)
        load.drive(self.address, requests, connections=FEED_CONNECTIONS)

    def owed(self) -> int:
        """How many mailboxes owe work."""
        return int(self.client.zcard("sw:due"))

    def counted(self, metric: str) -> int:
        """One of the product's own counts."""
        return int(self.client.hget("sw:count", metric) or 0)

    def drained(self, seconds: float = DRAIN_SECONDS) -> float:
        """Wait until no mailbox owes work; when that was seen, by CLOCK_MONOTONIC."""
        self._until(lambda: not self.owed(), "all is settled", seconds)
        return time.monotonic()

    def used_memory(self) -> int:
        """Bytes that the data occupies in Redis: all but buffers and what is kept of scripts."""
        told = self.client.info("memory")
        others = ("mem_clients_normal", "mem_aof_buffer", "used_memory_vm_total")
        return int(told["used_memory"]) - sum(int(told.get(name, 0)) for name in others)

    def settle_file(self) -> None:
        """Have Redis rewrite its file now, so that it does not begin to while we measure."""
        self._until(lambda: not self._rewriting(), "Redis has rewritten its file", DRAIN_SECONDS)
        self.client.bgrewriteaof()
        self._until(lambda: not self._rewriting(), "Redis has rewritten its file", DRAIN_SECONDS)

    def _rewriting(self) -> bool:
        told = self.client.info("persistence")
        names = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
        return any(told[name] for name in names)

    def last_words(self) -> str:
        """What the processes wrote last."""
        said = []
        for path in sorted(self.folder.glob("*.log")):
            text = path.read_text(errors="replace")[-2000:].strip()
            said += [f"--- {path.stem}", text] if text else []
        return "\n".join(said)

    def _until(
        self, holds: Callable[[], object], what: str, seconds: float = START_SECONDS
    ) -> None:
        ends = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > ends:
                raise Stuck(f"after {seconds:g} s still not: {what}\n{self.last_words()}")
            time.sleep(0.02)

    def _ready(self) -> bool:
        if self._running["web"].poll() is not None:
            raise Stuck(f"web ended while starting\n{self.last_words()}")
        connection = http.client.HTTPConnection(*self.address, timeout=2)
        with suppress(OSError, http.client.HTTPException), closing(connection):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        return False

    def _spawn(self, name: str, argv: Sequence[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = lifeline.spawn(
                self._in_folder(argv), env=self.env, stdout=log.fileno(), stderr=log.fileno()
            )

    def _in_folder(self, argv: Sequence[str]) -> list[str]:
        return ["env", "-C", str(self.folder), *argv]


ROOT_OF_RUN = Path.cwd() if (Path.cwd() / "sync_worker").is_dir() else ROOT
"""The tree that is measured: the one that this was started in."""


_ports_lock = threading.Lock()
_last_port = 21_000 + os.getpid() % 250 * 40


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to clients; another one each
    time, as what it is for does not listen yet.
    """
    global _last_port  # noqa: PLW0603 - what was handed out is a fact about this process
    with _ports_lock:
        while True:
            _last_port += 1
            if not listens(_last_port):
                return _last_port


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
