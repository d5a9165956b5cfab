"""The HTTP edge: HTTP/1.1 with kept-alive connections, a thread for each.

The standard library's server, because a fault must be able to close a connection without an
answer, and because it serves well over a thousand calls a second on one core.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from simulators.fusebill.api import Api
from simulators.fusebill.control import FusebillControl
from simulators.fusebill.credentials import fake_api_key
from simulators.fusebill.customer import Customer
from simulators.fusebill.desk import PREFIX, Desk
from simulators.fusebill.messages import Answer, Request, as_json, message
from simulators.fusebill.options import Options

IDLE_SECONDS = 120.0
"""A connection without a request for so long is closed; longer than any client's pause."""

STOP_SECONDS = 5.0
"""How long `stop` waits for connections to end after it closed them."""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Room for a control call that puts a hundred thousand customers."""


class SimulatedFusebill:
    """A simulated Fusebill in this process, on a port of its own.

    >>> with SimulatedFusebill(customers=[Customer(id=8714401)]) as fusebill:
    ...     requests.get(f"{fusebill.url}/v1/customers/8714401", headers=fusebill.headers)

    `stop` and `start` play an outage: the port refuses connections in between, and customers,
    faults and log are there again afterwards.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        customers: Iterable[Customer] = (),
        options: Options | None = None,
        control_from_anywhere: bool = False,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.api_key = api_key or fake_api_key()
        self._api = Api(self.api_key, options=options, now_ns=now_ns)
        self._api.world.put(customers)
        self._desk = Desk(self._api)
        self._host = host
        self._port = port
        self._control_from_anywhere = control_from_anywhere
        self._server: _Server | None = None
        self._control: FusebillControl | None = None

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end; known once started."""
        host = "127.0.0.1" if self._host in ("", "0.0.0.0") else self._host  # noqa: S104
        return f"http://{host}:{self._port}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers that authorise a call."""
        return {"Authorization": f"Basic {self.api_key}"}

    @property
    def control(self) -> FusebillControl:
        """The hand on it, over HTTP."""
        if self._control is None:
            self._control = FusebillControl(self.url)
        return self._control

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        if self._server is not None:
            return
        self._api.closing.clear()
        self._server = _Server(
            (self._host, self._port), self._api, self._desk, self._control_from_anywhere
        )
        self._port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="simulated-fusebill",
            daemon=True,
        ).start()

    def stop(self) -> None:
        """Stop listening and cut every connection; calls that wait end without effect."""
        if self._server is None:
            return
        self._api.closing.set()
        self._api.faults.let_go()
        self._server.stop()
        self._server = None

    def __enter__(self) -> SimulatedFusebill:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        address: tuple[str, int],
        api: Api,
        desk: Desk,
        control_from_anywhere: bool,  # noqa: FBT001
    ) -> None:
        self.api = api
        self.desk = desk
        self.control_from_anywhere = control_from_anywhere
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
                _cut(connection)
            self._changed.wait_for(lambda: not self._open, timeout=STOP_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    wbufsize = -1
    """Buffered, so that head and body leave in one packet."""

    def _serve(self) -> None:
        body = self._body()
        if isinstance(body, Answer):
            self.close_connection = True
            self._send(body)
            return
        request = self._request(body)
        if request.path.startswith(PREFIX):
            answer: Answer | None = self._control(request)
        else:
            answer = self.server.api.handle(request)
        if answer is None:
            self.close_connection = True
        else:
            self._send(answer)

    def __getattr__(self, name: str) -> Any:
        # The base class looks for `do_GET` and so on: one path serves every method.
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _body(self) -> bytes | Answer:
        """The body, or the answer to a request whose body cannot be read."""
        if self.headers.get("Transfer-Encoding"):
            return message(411, "Length Required")
        text = self.headers.get("Content-Length", "0").strip()
        if not (text.isascii() and text.isdigit()):
            return message(400, "Content-Length is not a number.")
        if int(text) > MAX_BODY_BYTES:
            return message(413, "Request entity too large.")
        return self.rfile.read(int(text))

    def _request(self, body: bytes) -> Request:
        target = urlsplit(self.path)
        return Request(
            method=self.command,
            path=unquote(target.path),
            query=dict(parse_qsl(target.query, keep_blank_values=True)),
            body=body,
            content_type=self.headers.get("Content-Type", ""),
            content_length=self.headers.get("Content-Length"),
            authorization=self.headers.get("Authorization"),
        )

    def _control(self, request: Request) -> Answer:
        near = ipaddress.ip_address(self.client_address[0]).is_loopback
        if not (near or self.server.control_from_anywhere):
            return as_json(403, {"error": "control answers to this machine only"})
        return self.server.desk.handle(request)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def handle_expect_100(self) -> bool:
        # The writer is buffered: without this the client waits for leave to send its body.
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def version_string(self) -> str:
        return "SimulatedFusebill"

    def log_message(self, *_: Any) -> None:
        """Say nothing: the log of calls is the log."""


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # The other side was faster.
