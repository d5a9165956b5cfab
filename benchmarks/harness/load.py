"""Sends requests over kept-alive connections, cheaply: the requests are bytes already, one thread
sends them all with epoll, and of an answer only status and length are read.

Closed: every connection sends its next request when it has the answer to the last; so many
connections, so many requests in flight. Open: requests are sent at a fixed rate, whatever the
answers do, and one that finds no free connection waits for it; that wait is part of its latency.
"""

from __future__ import annotations

import select
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

TIMEOUT_SECONDS = 60
"""Without any answer for so long, the load is given up."""

_BUFFER = 512 * 1024
"""What a socket takes at once: more than any request here, so that a send is one call."""


class Refused(Exception):
    """A server did not answer as it should; the message holds its answer's beginning."""


@dataclass(slots=True)
class Measured:
    """How a load went. Times are of CLOCK_MONOTONIC, in seconds."""

    started: float
    sent: list[float]
    """When each request was sent."""
    finished: list[float]
    """When its answer was there, in the order of sending."""
    due: list[float]
    """When each should have been sent: open loop only, else as `sent`."""
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        """From the first request to the last answer."""
        return max(self.finished) - self.started

    @property
    def latencies(self) -> list[float]:
        """From when each was due to its answer."""
        return [end - begin for begin, end in zip(self.due, self.finished, strict=True)]

    def rate(self, connections: int) -> float:
        """Requests a second while all connections were busy: without the first answer of each, and
        only until the last request was sent, so that the ends do not count. Too short a load for
        that is taken as a whole.
        """
        begin = sorted(self.finished)[min(connections, len(self.finished)) - 1]
        end = max(self.sent)
        within = sum(begin < at <= end for at in self.finished)
        if within < connections or end <= begin:
            return len(self.finished) / self.seconds
        return within / (end - begin)


class _Connection:
    __slots__ = ("index", "received", "sock", "unsent")

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=TIMEOUT_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self.sock.settimeout(0)
        self.received = b""
        self.unsent = memoryview(b"")
        self.index = -1


def drive(
    address: tuple[str, int],
    requests: Sequence[bytes],
    *,
    connections: int = 16,
    rate: float | None = None,
    accept: Sequence[int] = (200, 202),
) -> Measured:
    """Send all of these, closed or, with a `rate` a second, open. Raises Refused.

    Connections are opened before the clock starts.
    """
    many = [_Connection(address) for _ in range(min(connections, len(requests)))]
    try:
        return _Engine(many, requests, rate, frozenset(accept)).run()
    finally:
        for one in many:
            one.sock.close()


class _Engine:
    def __init__(
        self,
        connections: list[_Connection],
        requests: Sequence[bytes],
        rate: float | None,
        accept: frozenset[int],
    ) -> None:
        self._requests = requests
        self._gap = 0.0 if rate is None else 1 / rate
        self._open_loop = rate is not None
        self._accept = accept
        self._free = deque(connections)
        self._by_fd = {one.sock.fileno(): one for one in connections}
        self._poll = select.epoll()
        for fd in self._by_fd:
            self._poll.register(fd, select.EPOLLIN)
        self._next = 0
        self._left = len(requests)
        count = len(requests)
        self._result = Measured(0.0, [0.0] * count, [0.0] * count, [0.0] * count)

    def run(self) -> Measured:
        result = self._result
        result.started = time.monotonic()
        with self._poll:
            while self._left:
                wait = self._send_what_is_due()
                events = self._poll.poll(TIMEOUT_SECONDS if wait is None else wait)
                if not events and wait is None:
                    raise Refused(f"no answer came for {TIMEOUT_SECONDS} s")
                for fd, event in events:
                    self._on_event(self._by_fd[fd], event)
        if not self._open_loop:
            result.due = result.sent
        return result

    def _send_what_is_due(self) -> float | None:
        """Send what can be sent; tells how long the next one has to wait, None: for an answer."""
        while self._free and self._next < len(self._requests):
            if self._open_loop:
                due = self._result.started + self._next * self._gap
                wait = due - time.monotonic()
                if wait > 0:
                    return wait
                self._result.due[self._next] = due
            one = self._free.popleft()
            one.index = self._next
            one.unsent = memoryview(self._requests[self._next])
            self._result.sent[self._next] = time.monotonic()
            self._next += 1
            self._flush(one)
        return None

    def _flush(self, one: _Connection) -> None:
        with suppress(BlockingIOError):
            one.unsent = one.unsent[one.sock.send(one.unsent) :]
        more = select.EPOLLOUT if one.unsent else 0
        self._poll.modify(one.sock.fileno(), select.EPOLLIN | more)

    def _on_event(self, one: _Connection, event: int) -> None:
        if event & select.EPOLLOUT:
            self._flush(one)
        if event & ~select.EPOLLOUT:
            data = one.sock.recv(65536)
            if not data:
                raise Refused(f"the connection was closed: {one.received[:300]!r}")
            one.received = one.received + data if one.received else data
            if (status := self._answered(one)) is not None:
                self._finish(one, status)

    def _answered(self, one: _Connection) -> int | None:
        """The status of an answer that is there as a whole."""
        head, found, body = one.received.partition(b"\r\n\r\n")
        if not found:
            return None
        status = int(head[9:12])
        if len(body) < content_length(head):
            return None
        if status not in self._accept:
            raise Refused(one.received[:500].decode(errors="replace"))
        return status

    def _finish(self, one: _Connection, status: int) -> None:
        result = self._result
        result.finished[one.index] = time.monotonic()
        result.statuses[status] += 1
        self._left -= 1
        one.received = b""
        self._free.append(one)


def content_length(head: bytes) -> int:
    """How long the body behind these headers is. Raises Refused if they do not tell."""
    lowered = head.lower()
    at = lowered.find(b"content-length:")
    if at < 0:
        raise Refused(f"an answer without Content-Length: {head[:300]!r}")
    return int(lowered[at + 15 :].split(b"\r\n", 1)[0])
