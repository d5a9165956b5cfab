"""What the simulators have in common: a real HTTP server; those of CRMs also faults and a log.

HTTP/1.1 with kept-alive connections, a thread for each. The standard library's server, because a
fault must be able to close a connection without an answer, and because it serves well over a
thousand calls a second on one core.

A simulated CRM subclasses `SimulatedServer` and says in `answer` what it answers; requests and
answers are the plain values of `simulators.fusebill.messages`. Faults and the log are those of
`simulators.control`, named here too so that one import serves.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from simulators.control import Call, Control, Fault, PlacedFault
from simulators.fusebill.messages import Answer, Request

__all__ = [
    "Answer",
    "Call",
    "Control",
    "Fault",
    "LocalServer",
    "PlacedFault",
    "Request",
    "SimulatedServer",
]

IDLE_SECONDS = 120.0
"""A connection without a request for so long is closed; longer than any client's pause."""

STOP_SECONDS = 5.0
"""How long `stop` waits for connections to end after it closed them."""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Room for a control call that puts a hundred thousand customers."""


class LocalServer:
    """A server in this process, on a port of its own.

    `stop` and `start` play an outage: the port refuses connections in between, and all else is
    there again afterwards.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._address = (host, port)
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end; known once started."""
        host, port = self._address
        if host in ("", "0.0.0.0"):  # noqa: S104 - everywhere is here too
            host = "127.0.0.1"
        return f"http://{host}:{port}"

    def serve(self, request: Request) -> Answer | None:
        """The answer; None: close the connection without one. Called by many threads at once."""
        raise NotImplementedError

    def unreadable(self, status: int, text: str) -> Answer:
        """The answer to a request whose body cannot be read."""
        return Answer(status, text.encode(), "text/plain")

    def let_go(self) -> None:
        """Release what waits in `serve`: the server stops."""

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        if self._server is None:
            self._server = _Server(self._address, self)
            self._address = (self._address[0], self._server.server_address[1])
            threading.Thread(
                target=self._server.serve_forever,
                kwargs={"poll_interval": 0.02},
                name=type(self).__name__,
                daemon=True,
            ).start()

    def stop(self) -> None:
        """Stop listening, let go what waits and cut every connection."""
        if self._server is not None:
            self.let_go()
            self._server.stop()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class SimulatedServer(LocalServer):
    """A simulated CRM in this process, on a port of its own."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host=host, port=port)
        self.control = Control()

    def answer(self, request: Request) -> Answer:
        """What is answered to a request. Called by many threads at once."""
        raise NotImplementedError

    def about(self, request: Request) -> str:  # noqa: ARG002 - for subclasses
        """What tells calls to one path apart, for faults and the log; no secrets."""
        return ""

    def let_go(self) -> None:
        """Release the calls that faults hold."""
        self.control.let_go()

    def serve(self, request: Request) -> Answer | None:
        """The answer, spoiled by the fault that the request meets; None: close the connection."""
        about = self.about(request)
        query = "&".join(f"{name}={value}" for name, value in request.query.items())
        placed = self.control.pick(request.method, f"{request.path}?{query} {about}")
        fault = placed.fault
        time.sleep(fault.latency_ms / 1000)
        placed.hold("before")
        answer: Answer | None
        if fault.drop:
            answer = None
        elif fault.status is not None:
            answer = Answer(fault.status, fault.body, fault.content_type, fault.headers)
        else:
            answer = self.answer(request)
        self.control.log(
            Call(
                at=time.time(),
                method=request.method,
                path=request.path,
                query=request.query,
                about=about,
                status=answer.status if answer else None,
            )
        )
        placed.hold("after")
        return None if answer is None else answer._replace(trickle_ms=fault.trickle_ms)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], simulated: LocalServer) -> None:
        self.simulated = simulated
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks up the host's full name, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that was killed, or that gave up waiting, is what tests are made of.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        with self._changed:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # The other side was faster.
            self._changed.wait_for(lambda: not self._open, timeout=STOP_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    wbufsize = -1
    """Buffered, so that head and body leave in one packet."""

    def __getattr__(self, name: str) -> Any:
        # The base class looks for `do_GET` and so on: one path serves every method.
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        body = self._body()
        if isinstance(body, Answer):
            self.close_connection = True
            self._send(body)
            return
        target = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=unquote(target.path),
            query=dict(parse_qsl(target.query, keep_blank_values=True)),
            body=body,
            content_type=self.headers.get("Content-Type", ""),
            content_length=self.headers.get("Content-Length"),
            authorization=self.headers.get("Authorization"),
            client=self.client_address[0],
        )
        answer = self.server.simulated.serve(request)
        if answer is None:
            self.close_connection = True
        else:
            self._send(answer)

    def _body(self) -> bytes | Answer:
        """The body, or the answer to a request whose body cannot be read."""
        unreadable = self.server.simulated.unreadable
        if self.headers.get("Transfer-Encoding"):
            return unreadable(411, "Length Required")
        text = self.headers.get("Content-Length", "0").strip()
        if not (text.isascii() and text.isdigit()):
            return unreadable(400, "Content-Length is not a number.")
        if int(text) > MAX_BODY_BYTES:
            return unreadable(413, "Request entity too large.")
        return self.rfile.read(int(text))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        if not answer.trickle_ms:
            self.wfile.write(answer.body)
            return
        for byte in answer.body:
            self.wfile.flush()
            time.sleep(answer.trickle_ms / 1000)
            self.wfile.write(bytes([byte]))

    def handle_expect_100(self) -> bool:
        # The writer is buffered: without this the client waits for leave to send its body.
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def version_string(self) -> str:
        return type(self.server.simulated).__name__

    def log_message(self, *_: Any) -> None:
        """Say nothing: the log of calls is the log."""
