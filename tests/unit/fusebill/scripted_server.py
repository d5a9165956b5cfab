"""A Fusebill on this machine that answers as it is told and keeps what it was sent."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "MDp1c2VycGFzc3dvcmQtb2YtdGhlLXRlc3RzLW5vdC1hLXJlYWwtb25l"
"""Base64 of `0:userpassword-of-the-tests-not-a-real-one`, the shape of a real key."""

EMAIL = "maren.oduya@northgate.example"


def customer_json(**changes: Any) -> dict[str, Any]:
    """A customer as the Geotab pages show one; `...` takes a key out."""
    shape: dict[str, Any] = {
        "firstName": "Maren",
        "middleName": None,
        "lastName": "Oduya",
        "companyName": "Northgate Haulage",
        "primaryEmail": EMAIL,
        "reference": "NG-0042",
        "status": "Active",
        "customerAccountStatus": "Good",
        "currency": "USD",
        "customerReference": {"reference1": None, "salesTrackingCodes": [], "id": 172677},
        "customerAcquisition": {"adContent": None, "id": 172677, "uri": "/customers/172677"},
        "monthlyRecurringRevenue": 49.5,
        "salesforceId": "0015g00001LwZ3k",
        "salesforceSynchStatus": "Enabled",
        "netsuiteId": None,
        "netsuiteSynchStatus": "Enabled",
        "hubSpotId": None,
        "hubSpotCompanyId": None,
        "geotabId": "0070441",
        "modifiedTimestamp": "2026-11-20T14:03:09.8536714Z",
        "createdTimestamp": "2024-02-07T12:59:17.793",
        "id": 8714402,
        "uri": "/customers/8714402",
    }
    shape.update(changes)
    return {key: value for key, value in shape.items() if value is not ...}


def envelope(status: int, *texts: str) -> bytes:
    """The documented shape of an error."""
    errors = [{"Key": "Api Error", "Value": text} for text in texts]
    return json.dumps({"ErrorId": 0, "HttpStatusCode": status, "Errors": errors}).encode()


@dataclass
class Seen:
    """One request, as it came over the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: Any


@dataclass
class Reply:
    """What to answer: a whole answer, or with `raw` whatever it writes before hanging up."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False
    raw: Callable[[Any], None] | None = None


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # clients that hang up are expected
            super().handle_error(*args)


class ScriptedServer:
    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.replies: deque[Reply] = deque()
        self.default = Reply(body=json.dumps(customer_json()).encode())
        self.hurry = threading.Event()
        """Set when the test is over: slow answers stop being slow."""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                owner._answer(self)

            def do_POST(self) -> None:
                owner._answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self._http = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def will(self, *replies: Reply) -> None:
        """Answer the next calls with these, then as by default."""
        self.replies.extend(replies)

    def close(self) -> None:
        self.hurry.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def pause(self, seconds: float) -> None:
        self.hurry.wait(seconds)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", 0))
        body = handler.rfile.read(length)
        self.seen.append(
            Seen(
                handler.command,
                handler.path,
                dict(handler.headers.items()),
                body,
                handler.client_address,
            )
        )
        reply = self.replies.popleft() if self.replies else self.default
        try:
            if reply.raw is not None:
                handler.close_connection = True
                reply.raw(handler)
            else:
                self._send(handler, reply)
        except OSError:
            handler.close_connection = True  # the client has gone, as some tests mean it to

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if reply.chunked:
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for start in range(0, len(reply.body), 100):
                part = reply.body[start : start + 100]
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.send_header("Content-Length", str(len(reply.body)))
            handler.end_headers()
            handler.wfile.write(reply.body)

    def trickle(self, handler: BaseHTTPRequestHandler) -> None:
        """A body of which one byte comes every 50 ms, and never all."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        until = time.monotonic() + 20
        while time.monotonic() < until and not self.hurry.is_set():
            handler.wfile.write(b" ")
            self.pause(0.05)
