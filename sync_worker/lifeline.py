"""Child processes that do not outlive this one, however it ends.

A second, tiny process (the guard: this very file, run as a script) holds the reading end of a
pipe whose writing end only we hold. The system closes that pipe when we end, by whatever cause,
and the guard then kills the process groups it was told of.

Tried and dropped: Linux' parent-death signal. It fires when the *thread* that started the child
ends, reaches one process and not what that one started in turn (Celery's pool), is unknown to
macOS, and setting it takes `preexec_fn`, which may deadlock where there are threads.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

GUARD_EXIT_SECONDS = 5
"""How long our own end waits for the guard's; it only has to send its signals."""


class _Guard:
    """Our side of the guard: starts it when first needed, again if it was killed.

    Safe to use from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()

    def hold(self, group: int) -> None:
        """Have a process group killed when this process ends."""
        with self._lock:
            self._groups.add(group)
            self._tell(f"+{group}\n")

    def release(self, group: int) -> None:
        """Take a hold back: the group has ended, and its number may come to belong to others."""
        with self._lock:
            if group in self._groups:
                self._groups.remove(group)
                self._tell(f"-{group}\n")

    def close(self) -> None:
        """End the guard, and with it every group still held."""
        with self._lock:
            process, self._process = self._process, None
            self._groups.clear()
            if process is not None and process.stdin is not None:
                process.stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GUARD_EXIT_SECONDS)

    def forked(self) -> None:
        """In a forked copy of this process: the children are not its own, nor is the guard."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        self._groups = set()
        if process is not None and process.stdin is not None:
            process.returncode = 0  # the parent waits for it, not we
            process.stdin.close()

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # somebody killed the guard: start another
                self._process.stdin.write(line.encode())
                return
            self._process.wait()
            self._process.stdin.close()
        self._process = subprocess.Popen(  # noqa: S603 - our own file, no input
            [sys.executable, "-I", "-S", str(Path(__file__).resolve())],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if self._process.stdin is not None:
            for group in self._groups:
                self._process.stdin.write(f"+{group}\n".encode())


_guard = _Guard()
atexit.register(_guard.close)
os.register_at_fork(after_in_child=_guard.forked)


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, to be killed when this process ends.

    In its own session a Ctrl-C at the terminal does not reach it: who started it decides when
    and in which order it ends. Its input is empty. Call `reaped` once it has been waited for.
    """
    process = subprocess.Popen(  # noqa: S603 - callers give their own argv
        list(argv),
        env=None if env is None else dict(env),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        _guard.hold(process.pid)
    except BaseException:
        kill(process)
        process.wait()
        raise
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything in its group, at once."""
    # macOS says "not permitted" where every member of a group is a zombie.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def reaped(process: subprocess.Popen[bytes]) -> None:
    """Clear up after a process that has been waited for: end what it left running, forget it."""
    kill(process)
    _guard.release(process.pid)


def _be_the_guard() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        if line.startswith("+"):
            groups.add(int(line[1:]))
        else:
            groups.discard(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    _be_the_guard()
