"""Send generated requests through the application, and check every answer against B2.10.

`python -m tests.fuzz.webhooks --examples 100000` sends that many to each route, on a Redis of
its own, and prints how often each status came. It ends with code 1 if any answer lies outside
the contract, and says how to make that request again.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree as ET

import msgspec
import redis

from sync_worker import store
from sync_worker.embedded_redis import EmbeddedRedis
from sync_worker.status import read_counters
from tests.fuzz.generate import ROUTES, Generator, Request, fuzz_settings
from tests.fuzz.mutate import SESSION
from tests.receiving import SECRETS
from webhooks.answers import ACK
from webhooks.app import create_app

ROUND = 1_000
"""Requests between two looks into the store, which is emptied then."""

HANG_SECONDS = 60
"""A request that takes longer ends the run, with a traceback that shows where it is."""

MOST_SHOWN = 20
"""Violations that are told in full."""

PROBLEMS = {
    400: "undecodable",
    401: "unauthenticated",
    403: "foreign-tenant",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
}

COUNTS = {"accepted", "duplicates", "ignored", "rejected"}

FORBIDDEN = (*(secret.encode() for secret in SECRETS), SESSION.encode(), b"Traceback", b'File "')


@dataclass
class Result:
    """What became of the requests to one route."""

    statuses: Counter[int] = field(default_factory=Counter)
    accepted: int = 0
    undecodable: int = 0
    seconds: float = 0.0
    slowest_ms: float = 0.0
    violations: list[str] = field(default_factory=list)


class Overheard(logging.Handler):
    """Listens to the application's log: for secrets, and for what went wrong inside."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            self.faults.append(f"logged an exception: {record.exc_info[1]!r}")
        if any(word.decode() in text for word in FORBIDDEN):
            self.faults.append("logged a secret")


@contextmanager
def overheard() -> Iterator[Overheard]:
    log = logging.getLogger("webhooks")
    before = log.level, log.propagate
    handler = Overheard()
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield handler
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before


def environ_of(sent: Request) -> dict[str, Any]:
    """The request as gunicorn would hand it on."""
    path, _, query = sent.target.partition("?")
    body = sent.body if sent.cut_at is None else sent.body[: sent.cut_at]
    environ: dict[str, Any] = {
        "REQUEST_METHOD": sent.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": sent.target,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:8000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if sent.chunked:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    else:
        environ["CONTENT_LENGTH"] = str(len(sent.body))
    for name, value in sent.headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    return environ


def faults_of(sent: Request, status: int, content_type: str, body: bytes) -> Iterator[str]:
    """What about an answer is outside the contract."""
    if status not in sent.allowed:
        yield f"status {status} is none of {sorted(sent.allowed)}"
    if any(word in body for word in FORBIDDEN):
        yield "the answer holds a secret or a traceback"
    if sent.method == "HEAD":
        return
    try:
        yield from _wording(sent, status, content_type, body)
    except (msgspec.DecodeError, ET.ParseError, KeyError, TypeError) as error:
        yield f"the answer cannot be read: {error!r}"


def _wording(sent: Request, status: int, content_type: str, body: bytes) -> Iterator[str]:
    if sent.soap and status != 404:
        if content_type != "text/xml; charset=utf-8":
            yield f"content type {content_type} for SOAP"
        if status == 200 and body != ACK.encode():
            yield "not the Ack"
        if status != 200 and ET.fromstring(body)[0][0].tag.rpartition("}")[2] != "Fault":
            yield "not a Fault"
    elif status == 202:
        told = msgspec.json.decode(body)
        if content_type != "application/json" or set(told) != COUNTS | {"request_id"}:
            yield f"not an answer of B2.10: {content_type} {body!r}"
        if any(type(told[name]) is not int or told[name] < 0 for name in COUNTS):
            yield f"odd counts: {body!r}"
    else:
        told = msgspec.json.decode(body)
        kind = f"urn:sync-worker:problem:{PROBLEMS.get(status)}"
        if content_type != "application/problem+json" or told["type"] != kind:
            yield f"not a problem of the closed list: {content_type} {body!r}"
        if set(told) != {"type", "title", "status", "request_id"} or told["status"] != status:
            yield f"odd problem: {body!r}"


class Run:
    """Sends the requests of one route; the store is its own, and is emptied on the way."""

    def __init__(self, route: str, seed: int, client: redis.Redis) -> None:
        self.result = Result()
        self._generator = Generator(route, seed)
        self._client = client
        self._apps = [
            create_app(fuzz_settings(dedupe_hours=hours), client=client, wake=_nobody).wsgi_app
            for hours in (72, 0)
        ]
        """By turns: most generated changes repeat one another, and shall be stored as well."""
        self._told = 0
        self._rounds = 0
        self._last = 0

    def go(self, numbers: Iterable[int], each: Callable[[], None] = lambda: None) -> Result:
        """Send the requests of these numbers; `each` is called before every one."""
        started = time.perf_counter()
        with overheard() as log:
            self._begin()
            for count, number in enumerate(numbers, start=1):
                each()
                self._send(number, log)
                if count % ROUND == 0:
                    self._compare(number)
                    self._begin()
                    self._rounds += 1
            self._compare(self._last)
        self.result.seconds = time.perf_counter() - started
        return self.result

    def _begin(self) -> None:
        self._client.flushall()
        self._told = 0

    def _send(self, number: int, log: Overheard) -> None:
        self._last = number
        sent = self._generator.request(number)
        answer: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], *_: object) -> None:
            answer["status"] = int(status[:3])
            answer["type"] = dict(headers).get("Content-Type", "")

        before = self._counted() if sent.soap else 0
        began = time.perf_counter()
        try:
            body = b"".join(self._apps[self._rounds % 2](environ_of(sent), start))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a violation
            self._violated(number, sent, f"raised {error!r}")
            return
        took = (time.perf_counter() - began) * 1000
        self.result.slowest_ms = max(self.result.slowest_ms, took)
        self.result.statuses[answer["status"]] += 1
        for fault in faults_of(sent, answer["status"], answer["type"], body):
            self._violated(number, sent, fault)
        for fault in log.faults:
            self._violated(number, sent, fault)
        log.faults.clear()
        if answer["status"] == 202:
            self._told += msgspec.json.decode(body)["accepted"]
        elif sent.soap and answer["status"] == 200:
            self._told += self._counted() - before

    def _counted(self) -> int:
        """What the store counted as accepted: the Ack does not say."""
        return int(self._client.hget("sw:count", "accepted") or 0)

    def _compare(self, number: int) -> None:
        """What was answered to be stored is what is stored."""
        boxes = list(self._client.scan_iter("sw:box:*", count=1000))
        pipe = self._client.pipeline(transaction=False)
        for box in boxes:
            pipe.hlen(box)
        held = sum(pipe.execute())
        if held != self._told:
            text = f"up to number {number}: {self._told} told as accepted, {held} stored"
            self.result.violations.append(text)
        if len(boxes) != self._client.zcard("sw:due"):
            self.result.violations.append(f"up to number {number}: not every mailbox is due")
        counters = read_counters(self._client)
        self.result.accepted += held
        self.result.undecodable += counters.get("dead_letters_written|undecodable", 0)

    def _violated(self, number: int, sent: Request, fault: str) -> None:
        again = (
            f"python -m tests.fuzz.webhooks --route {self._generator.route!r}"
            f" --seed {self._generator.seed} --only {number}"
        )
        self.result.violations.append(
            f"{self._generator.route} number {number}: {fault}\n"
            f"    {sent.method} {sent.target[:200]} {sent.notes}\n"
            f"    { ({name: value[:120] for name, value in sent.headers.items()}) }\n"
            f"    {sent.body[:600]!r}\n"
            f"    again: {again}"
        )


def _nobody(_: Iterable[str]) -> None:
    """Wake nobody."""


def table(results: dict[str, Result]) -> str:
    """Routes by statuses."""
    statuses = sorted({status for result in results.values() for status in result.statuses})
    heads = ["route", *map(str, statuses), "stored", "letters", "slowest ms", "seconds"]
    rows = [
        [
            route,
            *(f"{result.statuses[status]:,}" for status in statuses),
            f"{result.accepted:,}",
            f"{result.undecodable:,}",
            f"{result.slowest_ms:.0f}",
            f"{result.seconds:.0f}",
        ]
        for route, result in results.items()
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [heads, *rows]
    ]
    return "\n".join(lines)


def _watched() -> None:
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)


def _with_progress(route: str, examples: int) -> Iterator[int]:
    """The numbers of a run, telling how far it is: in place on a terminal, else in lines."""
    started = time.monotonic()
    terminal = sys.stderr.isatty()
    step = max(1, examples // (100 if terminal else 10))
    for number in range(examples):
        if number % step == 0:
            elapsed = time.monotonic() - started
            text = f"{route}: {number:,} of {examples:,}, {elapsed:.0f} s"
            print(text, end="\r" if terminal else "\n", file=sys.stderr, flush=True)
        yield number
    if terminal:
        print(" " * 79, end="\r", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.webhooks", description=__doc__)
    parser.add_argument("--examples", type=int, default=100_000, help="requests to each route")
    parser.add_argument("--seed", type=int, help="what they are drawn from; default: by chance")
    parser.add_argument("--route", choices=ROUTES, action="append", help="this route alone")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this one request, shown")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    routes = arguments.route or ROUTES
    print(f"seed {seed}", file=sys.stderr)
    results: dict[str, Result] = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedRedis(directory, extra=("--appendonly", "no")) as server,
        store.connect(server.url) as client,
    ):
        for route in routes:
            if arguments.only is None:
                numbers: Iterable[int] = _with_progress(route, arguments.examples)
            else:
                print(Generator(route, seed).request(arguments.only))
                numbers = [arguments.only]
            results[route] = Run(route, seed, client).go(numbers, _watched)
    faulthandler.cancel_dump_traceback_later()
    print(table(results))
    violations = [text for result in results.values() for text in result.violations]
    for text in violations[:MOST_SHOWN]:
        print(f"\nVIOLATION {text}")
    total = sum(result.statuses.total() for result in results.values())
    print(f"\n{total:,} requests, seed {seed}, {len(violations):,} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
