"""Keeps child processes running, and ends them in order.

`worker` and `beat` run Celery under it, because Celery exits on some Redis reconnects and on
garbage in a queue, and must be back within 30 s by itself (B6.7). `dev` runs everything under it.

A child that ends while nobody asked for it is started again, after a wait that doubles while it
keeps ending early. Whatever the ended child left running in its process group is killed first:
two generations of one worker must not work side by side for longer than a lease.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import FrameType, TracebackType
from typing import Self

from sync_worker import lifeline

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 0.5
"""Before the first restart."""

LONGEST_WAIT_SECONDS = 10.0
"""Doubling stops here: with a child's own start it stays within the 30 s of B6.7."""

HEALTHY_SECONDS = 30.0
"""A child that lived this long had started well: its next restart is a first one again."""

GRACE_SECONDS = 30.0
"""From SIGTERM to SIGKILL. Celery ends once its tasks have; most do far sooner than that, and the
others are interrupted and hand back what they have (`stopping.INTERRUPT_SECONDS`)."""

LONGEST_LINE_BYTES = 64 * 1024
"""A longer line of output is forwarded in pieces, so that none can fill the memory."""

LAST_LINES_SECONDS = 2.0
"""How long the end of a child waits for its last lines to be forwarded."""

OnLine = Callable[[str, str], None]
"""Called with a child's name and a line of its output, from a thread per child."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """A process to keep running. `env` is added to the environment of this process."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """How long to wait before a child is started again."""

    first_seconds: float = FIRST_WAIT_SECONDS
    longest_seconds: float = LONGEST_WAIT_SECONDS
    healthy_seconds: float = HEALTHY_SECONDS

    def wait(self, *, early_ends: int) -> float:
        """Seconds to wait after so many ends in a row, the last one counted, that came early."""
        doublings = min(max(early_ends - 1, 0), 32)
        return float(min(self.first_seconds * 2**doublings, self.longest_seconds))


class _Event(Enum):
    STOP = "stop"
    """`request_stop` was called."""
    HURRY = "hurry"
    """A signal came while the children were ending."""
    ENDED = "ended"
    """A child has ended and will not be started again."""


class _Keeper(threading.Thread):
    """Runs one child again and again until told to stop."""

    def __init__(
        self,
        child: Child,
        *,
        on_line: OnLine | None,
        restarts: Restarts,
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(name=f"keeper of {child.name}", daemon=True)
        self.child = child
        self.starts = 0
        self.ended = False
        self._on_line = on_line
        self._restarts = restarts
        self._on_end = on_end
        self._lock = threading.Lock()  # a child starts before a stop or not at all
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    def run(self) -> None:
        try:
            self._keep()
        finally:
            self.ended = True
            self._on_end()

    def terminate(self) -> None:
        """Ask the child to end; it will not be started again."""
        with self._lock:
            self._stopping.set()
            if self._process is not None:
                self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the child and all in its group at once; it will not be started again."""
        with self._lock:
            self._stopping.set()
            if self._process is not None:
                lifeline.kill(self._process)

    def _keep(self) -> None:
        early_ends = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            how = self._live_once()
            if self._stopping.is_set():
                break
            healthy = time.monotonic() - started >= self._restarts.healthy_seconds
            early_ends = 1 if healthy else early_ends + 1
            wait = self._restarts.wait(early_ends=early_ends)
            log.warning(
                "child ended unexpectedly, starting it again",
                extra={"child": self.child.name, "how": how, "in_seconds": wait},
            )
            self._stopping.wait(wait)

    def _live_once(self) -> str:
        """Start the child and stay until it has ended; say how it did."""
        try:
            process = self._start()
        except OSError as error:
            return f"could not be started: {error.strerror or error}"
        if process is None:
            return "not started"
        forwarder = self._forward(process)
        code = process.wait()
        with self._lock:
            self._process = None
            lifeline.reaped(process)
        if forwarder is not None:
            forwarder.join(LAST_LINES_SECONDS)
        return f"exit code {code}" if code >= 0 else f"signal {-code}"

    def _start(self) -> subprocess.Popen[bytes] | None:
        environment = {**os.environ, **self.child.env}
        output = None
        if self._on_line is not None:
            environment.setdefault("PYTHONUNBUFFERED", "1")  # lines come as they are written
            output = subprocess.PIPE
        with self._lock:
            if self._stopping.is_set():
                return None
            self._process = lifeline.spawn(
                self.child.argv,
                env=environment,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
            )
            self.starts += 1
            return self._process

    def _forward(self, process: subprocess.Popen[bytes]) -> threading.Thread | None:
        if self._on_line is None or process.stdout is None:
            return None
        thread = threading.Thread(
            target=self._forward_lines,
            args=(process, self._on_line),
            name=f"output of {self.child.name}",
            daemon=True,
        )
        thread.start()
        return thread

    def _forward_lines(self, process: subprocess.Popen[bytes], on_line: OnLine) -> None:
        if process.stdout is None:
            return
        with process.stdout as output:
            while line := output.readline(LONGEST_LINE_BYTES):
                try:
                    on_line(self.child.name, line.decode(errors="replace").rstrip("\r\n"))
                except Exception:  # unread, the pipe would fill up and stop the child
                    log.exception("a line was not forwarded", extra={"child": self.child.name})


class Supervisor:
    """Starts children in the order given, keeps them running, ends them in reverse.

    Either `run()`, which stays until a signal and returns the exit code, or `with` around code
    of one's own: SIGINT, SIGTERM and SIGHUP then raise KeyboardInterrupt in it, and leaving the
    block ends the children. While they end, a second signal kills them at once. Signals are
    handled only if the main thread does this; the other methods may be called from any thread.

    Without `on_line` the children write to the output of this process themselves. `on_stop` is
    called before the children are asked to end.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        on_line: OnLine | None = None,
        on_stop: Callable[[], object] = lambda: None,
        grace_seconds: float = GRACE_SECONDS,
        restarts: Restarts | None = None,
    ) -> None:
        self._on_stop = on_stop
        self._grace_seconds = grace_seconds
        # SimpleQueue.put may be called by a signal handler that interrupts a put or get.
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._signalled = False
        self._interrupting = False  # a signal raises KeyboardInterrupt in the caller's code
        self._stopping = False  # a signal means that the grace is over
        self._handlers = contextlib.ExitStack()
        self._keepers = [
            _Keeper(
                child,
                on_line=on_line,
                restarts=restarts or Restarts(),
                on_end=lambda: self._events.put(_Event.ENDED),
            )
            for child in children
        ]

    def run(self) -> int:
        """Keep the children running until a signal or `request_stop`; return the exit code."""
        with contextlib.suppress(KeyboardInterrupt), self:
            self.wait()
        return 0

    def wait(self) -> None:
        """Return on `request_stop`. In the main thread a signal raises KeyboardInterrupt."""
        while self._events.get() is not _Event.STOP:
            pass

    def request_stop(self) -> None:
        """Make `wait` and `run` return."""
        self._events.put(_Event.STOP)

    def start(self) -> None:
        """Start the children and return at once. A supervisor starts but once."""
        for keeper in self._keepers:
            keeper.start()

    def stop(self) -> None:
        """SIGTERM to all, the last one first; SIGKILL to those still there after the grace."""
        self._stopping = True
        self._on_stop()
        keepers = [keeper for keeper in reversed(self._keepers) if keeper.ident is not None]
        for keeper in keepers:
            keeper.terminate()
        if not self._all_end(keepers, time.monotonic() + self._grace_seconds):
            for keeper in keepers:
                if not keeper.ended:
                    log.warning("child did not end, killing it", extra={"child": keeper.child.name})
                keeper.kill()
        for keeper in keepers:
            keeper.join()

    def pid(self, name: str) -> int | None:
        """The process id of a child, or None while it is down."""
        return self._keeper(name).pid

    def starts(self, name: str) -> int:
        """How often a child has been started."""
        return self._keeper(name).starts

    def __enter__(self) -> Self:
        self._handlers.enter_context(self._signals())
        try:
            self.start()
            self._begin_interrupting()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._interrupting = False
        with self._handlers:
            self.stop()

    def _keeper(self, name: str) -> _Keeper:
        return next(keeper for keeper in self._keepers if keeper.child.name == name)

    def _all_end(self, keepers: Sequence[_Keeper], deadline: float) -> bool:
        """Whether all of these have ended by then, nobody asking for more haste."""
        while not all(keeper.ended for keeper in keepers):
            try:
                event = self._events.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                return False
            if event is _Event.HURRY:
                return False
        return True

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.getsignal(number)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        for number, handler in before.items():
            if number != signal.SIGHUP or handler is not signal.SIG_IGN:  # nohup stays nohup
                signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _begin_interrupting(self) -> None:
        self._interrupting = True
        if self._signalled:  # while the children were being started
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._signalled = True
        if self._interrupting:
            self._interrupting = False
            raise KeyboardInterrupt
        if self._stopping:
            self._events.put(_Event.HURRY)
