"""The whole product as real processes: Redis, simulated Fusebill and CRMs, web, worker and beat."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import requests

from simulators.fusebill.customer import Customer
from simulators.fusebill.server import SimulatedFusebill
from sync_worker import dead_letters, events, lifeline, settings, store
from sync_worker.dead_letters import DeadLetter, Filter
from sync_worker.domain import Source
from sync_worker.embedded_redis import EmbeddedRedis
from sync_worker.events import Event
from sync_worker.settings import Settings
from sync_worker.status import read_status
from tests.processes import children, command_line, descendants, gone, until
from tests.worlds import Crms
from webhooks import samples

START_SECONDS = 60
"""Longest wait for a process to start on a busy machine."""

SETTLE_SECONDS = 60

PROCESSES = ("web", "worker", "beat")


class Stack:
    """Started with `with`; each process can be killed and started again by its name.

    With `crms` the product may read the simulated CRMs, which are in this process; without, the
    events decide. `environment` gives what a process has beside the settings, by its name.
    """

    def __init__(
        self,
        folder: Path,
        *,
        crms: bool = False,
        concurrency: int = 2,
        appendfsync: str = "everysec",
        environment: Callable[[str], Mapping[str, str]] = lambda _: {},
        **env: str,
    ) -> None:
        self.folder = folder
        self.redis = EmbeddedRedis(folder / "redis", appendfsync=appendfsync)
        self.fusebill = SimulatedFusebill(customers=[Customer(id=8714402), Customer(id=8714403)])
        self._crms = Crms() if crms else None
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._concurrency = concurrency
        self._environment = environment
        self._extra = env
        self._open = ExitStack()

    def __enter__(self) -> Stack:
        try:
            self._start_all()
        except BaseException:
            self._open.close()
            self.show_logs()
            raise
        return self

    def _start_all(self) -> None:
        (self.folder / "redis").mkdir(exist_ok=True)
        self._open.enter_context(self.redis)
        self._open.enter_context(self.fusebill)
        if self._crms is not None:
            self._open.enter_context(self._crms)
        self._open.callback(self._stop_processes)
        self.client = store.connect(self.redis.url)
        self._open.enter_context(closing(self.client))
        for name in PROCESSES:
            self.start(name)
        until(self._ready, START_SECONDS)

    def show_logs(self) -> None:
        """Print what the processes wrote last, so that a failed test tells why."""
        for name in PROCESSES:
            if self.log(name).exists():
                print(f"--- {name}\n{self.log(name).read_text(errors='replace')[-4000:]}")

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def control(self) -> Any:
        """The hand on the simulated Fusebill."""
        return self.fusebill.control

    @property
    def crms(self) -> Crms:
        """The simulated CRMs, of a stack that was made with them."""
        assert self._crms is not None
        return self._crms

    @property
    def env(self) -> dict[str, str]:
        """The settings of all processes."""
        return {
            "REDIS_URL": self.redis.url,
            "FUSEBILL_BASE_URL": self.fusebill.url,
            "FUSEBILL_API_KEY": self.fusebill.api_key,
            "FUSEBILL_READ_TIMEOUT_SECONDS": "3",
            "LEASE_SECONDS": "13",
            "LATE_WRITE_SECONDS": "3",
            "PUBLIC_URL": self.url,
            "WEB_BIND": f"127.0.0.1:{self.port}",
            "HUBSPOT_CLIENT_SECRET": "test-client-secret-0001",
            "HUBSPOT_PORTAL_ID": "24681357",
            "HUBSPOT_LATCH_COMPANY": "property",
            "RELEASE_GRACE_SECONDS": "1",
            "SALESFORCE_WEBHOOK_TOKEN": "test-salesforce-token-0001",
            "SALESFORCE_WEBHOOK_SECRET": "test-salesforce-secret-0001",
            "SALESFORCE_ORG_ID": "00D5g000007Kp2QEAS",
            "GEOTAB_WEBHOOK_TOKEN": "test-geotab-token-0001",
            "GEOTAB_WEBHOOK_SECRET": "test-geotab-secret-0001",
            "GEOTAB_ACCOUNT": "ACCT01",
            **self._access(),
            **self._extra,
        }

    def _access(self) -> dict[str, str]:
        if self._crms is None:
            return {}
        return {name.upper(): str(value) for name, value in self._crms.access(*Source).items()}

    @property
    def settings(self) -> Settings:
        """The same, read, for what is done in this process: it works on no mailbox."""
        fields = {name.lower(): value for name, value in self.env.items()}
        del fields["lease_seconds"]  # may be too short for the waits of this process
        return settings.load(_env_file=None, **fields)

    def start(self, name: str) -> None:
        """Start `web`, `worker` or `beat`, as its command does."""
        more = ("--concurrency", str(self._concurrency)) if name == "worker" else ()
        with self.log(name).open("ab") as log:
            self.processes[name] = lifeline.spawn(
                [sys.executable, "-m", "sync_worker", name, *more],
                env=self._environ(name),
                stdout=log,
                stderr=log,
            )

    def kill(self, name: str) -> None:
        """SIGKILL a process, and return when it and all it started are gone."""
        process = self.processes.pop(name)
        started = descendants(process.pid)
        lifeline.kill(process)
        process.wait()
        lifeline.reaped(process)
        until(lambda: all(gone(pid) for pid in started))

    def pool(self) -> list[int]:
        """The processes in which the worker converges: the children of Celery's main one."""
        if "worker" not in self.processes:
            return []
        kept = children(self.processes["worker"].pid)
        celery = [pid for pid in kept if "celery" in command_line(pid)]
        return [child for pid in celery for child in children(pid)]

    def _environ(self, name: str) -> dict[str, str]:
        return {**_without_settings(os.environ), **self.env, **self._environment(name)}

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self.folder / f"{name}.log"

    def sample(self, event: str, **values: Any) -> samples.SampleRequest:
        """A signed delivery."""
        return samples.build(event, self.settings, **{"now": time.time(), **values})

    def post(self, made: samples.SampleRequest) -> requests.Response:
        """Deliver it."""
        return requests.request(
            made.method, self.url + made.path, headers=made.headers, data=made.body, timeout=10
        )

    def send(self, event: str, **values: Any) -> requests.Response:
        """Sign and deliver; it must be taken."""
        answer = self.post(self.sample(event, **values))
        assert answer.ok, answer.text
        return answer

    def command(self, *arguments: str) -> Any:
        """Run `sync-worker` with these arguments and read the JSON it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "sync_worker", *arguments],
            env=self._environ("command"),
            capture_output=True,
            check=True,
            timeout=60,
        )
        return msgspec.json.decode(done.stdout)

    def events(self) -> list[Event]:
        """What was settled so far."""
        return [event for _, event in events.settled(self.client)]

    def wait_settled(self, count: int, seconds: float = SETTLE_SECONDS) -> list[Event]:
        """Return what was settled once it is so many changes."""
        until(lambda: len(self.events()) >= count, seconds)
        return self.events()

    def wait_drained(self, seconds: float = SETTLE_SECONDS) -> None:
        """Return once no mailbox owes work."""
        until(lambda: read_status(self.client).backlog == 0, seconds)

    def letters(self) -> list[DeadLetter]:
        """The dead letters that wait."""
        return list(dead_letters.find(self.client, Filter()))

    def _ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/readyz", timeout=2).ok
        except requests.RequestException:
            return False

    def _stop_processes(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for name in list(self.processes):
            process = self.processes[name]
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill(name)
            else:
                lifeline.reaped(process)


def running(folder: Path, **more: Any) -> Iterator[Stack]:
    """A fixture's body; shows what the processes wrote, so that a failed test tells why."""
    with Stack(folder, **more) as stack:
        try:
            yield stack
        finally:
            stack.show_logs()


def _without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    ours = {name.upper() for name in Settings.model_fields}
    return {
        name: value for name, value in environ.items() if name.removesuffix("_FILE") not in ours
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
