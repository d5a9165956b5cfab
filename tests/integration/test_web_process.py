"""`sync-worker web` as a real process, spoken to over real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis

from sync_worker import lifeline, store
from sync_worker.embedded_redis import EmbeddedRedis
from sync_worker.settings import Settings
from tests.processes import descendants, gone, until
from tests.receiving import (
    GEOTAB_TOKEN,
    SALESFORCE_TOKEN,
    SECRETS,
    SETTINGS,
    Sent,
    contact_linked,
    customer_linked,
    form,
    geotab,
    hubspot,
    notification,
    outbound,
    soap,
)
from webhooks import server

PATIENCE = 30
"""Seconds for an answer on a busy machine."""

MOST = 8192
"""MAX_BODY_BYTES of the processes here."""


def environment(**changes: str) -> dict[str, str]:
    """All three sources configured, and nothing of this machine's own settings."""
    ours = {name.upper() for name in Settings.model_fields}
    rest = {
        name: value
        for name, value in os.environ.items()
        if name.upper().removesuffix("_FILE") not in ours
    }
    named = {name.upper(): str(value) for name, value in SETTINGS.items()}
    return {**rest, **named, "MAX_BODY_BYTES": str(MOST), **changes}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Web:
    """The process, started with `with`."""

    def __init__(self, folder: Path, redis_url: str, **env: str) -> None:
        self.folder = folder
        self.output = folder / "web.log"
        self.port = free_port()
        self._env = environment(
            REDIS_URL=redis_url, WEB_BIND=f"127.0.0.1:{self.port}", LOG_LEVEL="DEBUG", **env
        )

    def __enter__(self) -> Web:
        with self.output.open("ab") as output:
            self.process = lifeline.spawn(
                [sys.executable, "-m", "sync_worker", "web"],
                env={**self._env, "PYTHONPATH": str(Path.cwd())},
                stdout=output,
                stderr=output,
            )
        try:
            until(self._is_up, 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        lifeline.kill(self.process)
        self.process.wait()
        lifeline.reaped(self.process)
        print(self.said()[-4000:])

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.said()
        try:
            return self.request(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200
        except OSError:
            return False

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def request(self, raw: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send these bytes as they are, and read one answer."""
        with self.connect() as connection:
            connection.sendall(raw)
            return answer_on(connection)

    def send(self, sent: Sent) -> tuple[int, dict[str, str], bytes]:
        return self.request(written(sent))


def written(sent: Sent, *, length: int | None = None, **more: str) -> bytes:
    """A request as it goes over the wire; nothing in it is normalised."""
    headers: Mapping[str, str] = {
        "host": "hooks.example.com",
        "content-length": str(len(sent.body) if length is None else length),
        **sent.headers,
        **more,
    }
    lines = [f"{sent.method} {sent.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value]
    return "\r\n".join([*lines, "", ""]).encode() + sent.body


def chunked(sent: Sent, *sizes: int) -> bytes:
    """The same in chunks of these sizes, the last of them repeated until the body ends."""
    head, _, body = written(
        sent, **{"content-length": "", "transfer-encoding": "chunked"}
    ).partition(b"\r\n\r\n")
    pieces, steps = [], list(sizes)
    while body:
        size = steps.pop(0) if len(steps) > 1 else steps[0]
        piece, body = body[:size], body[size:]
        pieces.append(b"%x\r\n%s\r\n" % (len(piece), piece))
    return head + b"\r\n\r\n" + b"".join(pieces) + b"0\r\n\r\n"


def answer_on(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer: status, headers in lower case, body."""
    with connection.makefile("rb") as lines:
        first = lines.readline()
        if not first:
            raise ConnectionError("closed without an answer")
        headers = {}
        while (line := lines.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = lines.read(int(headers.get("content-length", 0)))
    return int(first.split()[1]), headers, body


@pytest.fixture(scope="module")
def server_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("web-redis")) as running:
        yield running


@pytest.fixture(scope="module")
def running(server_redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with Web(tmp_path_factory.mktemp("web"), server_redis.url) as web:
        yield web


@pytest.fixture
def held(server_redis: EmbeddedRedis) -> Iterator[redis.Redis]:
    """The store of the process, emptied."""
    with store.connect(server_redis.url) as client:
        client.flushall()
        yield client


def kept(held: redis.Redis) -> set[str]:
    """The keys of the store, but for wake-ups: those of an earlier test may still be on the way."""
    return {key for key in held.keys("*") if not key.startswith("sw:celery:")}


@pytest.fixture
def web(running: Web, held: redis.Redis) -> Web:
    return running


# ---- deliveries


def test_a_signed_delivery_is_stored_and_a_wake_up_sent(web, held):
    status, headers, body = web.send(hubspot([contact_linked()]))
    assert status == 202
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["accepted"] == 1
    assert held.zrange("sw:due", 0, -1) == ["hubspot:24681357:contact:512340077981"]
    until(lambda: held.llen("sw:celery:live"))


def test_soap_over_http(web, held):
    status, headers, body = web.send(soap(outbound(notification())))
    assert status == 200
    assert headers["content-type"] == "text/xml; charset=utf-8"
    assert b"<Ack>true</Ack>" in body
    assert held.zcard("sw:due") == 1


@pytest.mark.parametrize(
    ("target", "signed"),
    [
        ("/webhooks/hubspot?a=%2Fb%3Fc&d=%C3%A9+f", "/webhooks/hubspot?a=/b?c&d=%C3%A9+f"),
        ("/webhooks/hubspot?a=%2fb%20c", "/webhooks/hubspot?a=%2fb%20c"),
        ("/webhooks%2Fhubspot", "/webhooks/hubspot"),
        ("/web%68ooks/hubspot", "/web%68ooks/hubspot"),
        ("/webhooks/hubspot/?", "/webhooks/hubspot/?"),
    ],
)
def test_b2_5_the_target_is_signed_as_it_stands_in_the_request_line(target, signed, web):
    sent = hubspot([contact_linked()], target=target, signed=f"https://hooks.example.com{signed}")
    assert web.send(sent)[0] == 202


def test_b2_5_the_whole_address_in_the_request_line(web):
    sent = hubspot([contact_linked()])
    absolute = sent.but(target=f"http://127.0.0.1:{web.port}/webhooks/hubspot")
    assert web.send(absolute)[0] == 202


def test_b2_5_another_target_than_the_signed_one_is_refused(web):
    sent = hubspot([contact_linked()], target="/webhooks/hubspot?a=%26")
    assert web.send(sent)[0] == 202
    assert web.send(sent.but(target="/webhooks/hubspot?a=&"))[0] == 401


def test_b2_1_a_token_in_the_path_with_a_trailing_slash(web):
    sent = geotab(customer_linked(), proof="url")
    assert web.send(sent.but(target=sent.target + "/"))[0] == 202


def test_several_deliveries_on_one_connection(web):
    with web.connect() as connection:
        for number in range(3):
            connection.sendall(written(hubspot([contact_linked(eventId=number)])))
            assert answer_on(connection)[0] == 202


def test_a_chunked_body_is_read(web):
    assert web.request(chunked(hubspot([contact_linked()]), 7, 100))[0] == 202


# ---- limits


def test_b2_10_413_by_content_length(web, held):
    with web.connect() as connection:
        connection.sendall(written(Sent("/webhooks/hubspot", b"", {}), length=MOST + 1))
        status, headers, body = answer_on(connection)
    assert status == 413
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["type"] == "urn:sync-worker:problem:too-large"
    assert kept(held) == {"sw:count"}


@pytest.mark.parametrize("sizes", [(1000,), (MOST + 1,), (MOST, 1)])
def test_b2_10_413_when_chunked(sizes, web, held):
    """What fits is a whole form, authentic and of use; it must not be taken for the body."""
    body = (form(customer_linked()).body + b"&pad=").ljust(MOST + 1, b"x")
    sent = form(customer_linked()).but(body=body)
    status, headers, _ = web.request(chunked(sent, *sizes))
    assert status == 413
    assert headers["content-type"] == "application/problem+json"
    assert kept(held) == {"sw:count"}
    assert web.request(chunked(sent.but(body=body[:MOST]), *sizes))[0] == 202


# ---- senders that stop in the middle


def test_a_body_that_is_cut_off_is_not_taken(web, held):
    """Without its last digit the form names another customer."""
    sent = form(customer_linked())
    assert sent.body.endswith(b"fusebill_id=8714402")
    with web.connect() as connection:
        connection.sendall(written(sent)[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert answer_on(connection)[0] == 400
    assert not held.keys("sw:box:*")
    assert web.send(sent)[0] == 202


def test_chunks_that_are_cut_off_are_not_taken(web, held):
    whole = chunked(form(customer_linked()), 20)
    for end in (-5, -7, -20):  # without the last chunk, within its line, within a chunk
        with web.connect() as connection:
            connection.sendall(whole[:end])
            connection.shutdown(socket.SHUT_WR)
            assert answer_on(connection)[0] == 400
    assert not held.keys("sw:box:*")


@pytest.mark.parametrize("part", ["body", "headers"])
def test_slow_senders_do_not_keep_others_out(part, web, held):
    """More of them than there are threads, each silent in mid-request."""
    sent = hubspot([contact_linked()])
    whole = written(sent)
    cut = whole.index(b"\r\n\r\n") + (10 if part == "body" else -10)
    with ExitStack() as stack:
        for _ in range(server.PROCESSES * server.THREADS + 4):
            connection = stack.enter_context(closing(web.connect()))
            connection.sendall(whole[:cut])
        assert web.send(sent)[0] == 202
    assert held.zcard("sw:due") == 1


def test_a_sender_that_falls_silent_is_given_up_without_ado(web, held):
    whole = written(hubspot([contact_linked()]))
    before = len(web.said())
    with web.connect() as connection:
        connection.sendall(whole[:20])
        assert connection.recv(1) == b""
    with web.connect() as connection:
        connection.sendall(whole[:-5])
        assert answer_on(connection)[0] == 400
    assert not kept(held)
    assert "ERROR" not in web.said()[before:]


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /webhooks/hubspot HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /webhooks/hubspot HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n",
        b"POST /webhooks/hubspot HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n%b\r\n0\r\n\r\n"
        % b"Transfer-Encoding: chunked\r\n",
        b"POST /webhooks/hubspot HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n%b\r\nab"
        % b"Content-Length: 2\r\n",
        b"POST /webhooks/hubspot HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /webhooks/hubspot\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n\r\n\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_harms_nobody(raw, web, held):
    with web.connect() as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):  # closed without a word, which is as good
            assert answer_on(connection)[0] in {400, 501}
    assert not held.keys("sw:box:*")
    assert web.send(hubspot([contact_linked()]))[0] == 202


# ---- logs


def test_b2_8_tokens_in_paths_appear_in_no_line(web):
    wrong = "an-almost-right-token"
    for sent in (
        geotab(customer_linked(), proof="url"),
        geotab(customer_linked(), proof="url", token=wrong),
        geotab(b"{cut", proof="url"),
        soap(outbound(notification())),
        soap(b"<cut"),
        soap(outbound(notification()), token=wrong),
        geotab(customer_linked(), proof="url").but(method="GET"),
        form(customer_linked()),
    ):
        web.send(sent)
    for target in (f"/webhooks/geotab/{GEOTAB_TOKEN}", f"/webhooks/salesforce/{SALESFORCE_TOKEN}"):
        web.request(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n".encode())
        web.request(f"GET {target}\x01 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    until(lambda: "geotab delivery refused: UNAUTHENTICATED (wrong)" in web.said())
    for secret in (*SECRETS, wrong):
        assert secret not in web.said()
    assert "Traceback" not in web.said()


# ---- the store goes away and comes back


def test_redis_stopped_is_503_and_after_its_restart_the_retry_is_accepted(tmp_path):
    """As issue 2 has it: Redis stopped: 503; after restart the sender's retry is accepted."""
    with EmbeddedRedis(tmp_path / "redis") as own, Web(tmp_path, own.url) as web:
        kept, lost = geotab([customer_linked(event_id="kept")]), hubspot([contact_linked()])
        assert web.send(kept)[0] == 202
        own.stop()
        for _ in range(4):  # both processes notice
            status, headers, body = web.send(lost)
            assert status == 503
            assert int(headers["retry-after"]) > 0
            assert headers["content-type"] == "application/problem+json"
            assert json.loads(body)["type"] == "urn:sync-worker:problem:unavailable"
            assert web.request(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 503
            assert web.request(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200
        own.start()
        answers = [web.send(lost) for _ in range(4)]
        assert [status for status, _, _ in answers] == [202] * 4
        assert [json.loads(body)["accepted"] for _, _, body in answers] == [1, 0, 0, 0]
        with store.connect(own.url) as client:
            assert client.zcard("sw:due") == 2  # what was accepted before is still there


def test_it_starts_without_its_store_and_takes_deliveries_once_it_is_there(tmp_path):
    own = EmbeddedRedis(tmp_path / "redis")
    with own:
        pass  # it has chosen its port
    with Web(tmp_path, own.url) as web:
        sent = hubspot([contact_linked()])
        assert web.send(sent)[0] == 503
        with own:
            assert web.send(sent)[0] == 202
    assert "started without its store" in web.said()


# ---- starting and stopping


def test_sigterm_ends_it_with_code_0_within_the_grace(tmp_path, server_redis):
    with Web(tmp_path, server_redis.url) as web:
        web.send(hubspot([contact_linked()]))
        until(lambda: len(descendants(web.process.pid)) >= server.PROCESSES)
        started = descendants(web.process.pid)
        web.process.send_signal(signal.SIGTERM)
        assert web.process.wait(server.GRACE_SECONDS + 10) == 0
        until(lambda: all(gone(pid) for pid in started))
        assert "Traceback" not in web.said()


def test_sigterm_lets_a_delivery_that_is_under_way_finish(tmp_path, server_redis):
    with Web(tmp_path, server_redis.url) as web, web.connect() as connection:
        sent = hubspot([contact_linked()])
        whole = written(sent)
        connection.sendall(whole[:-5])
        # Another connection that was answered later shows that this one was taken up.
        assert web.send(sent.but(target="/webhooks/hubspot?x"))[0] == 401
        web.process.send_signal(signal.SIGTERM)
        connection.sendall(whole[-5:])
        assert answer_on(connection)[0] == 202
        assert web.process.wait(server.GRACE_SECONDS + 10) == 0


def test_a_killed_process_of_the_two_is_replaced(web):
    victim = descendants(web.process.pid)[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: gone(victim))
    until(lambda: len([p for p in descendants(web.process.pid) if not gone(p)]) >= server.PROCESSES)
    assert web.send(hubspot([contact_linked()]))[0] == 202


def run_web(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run it where it is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "sync_worker", "web", *arguments],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_b9_faulty_settings_end_it_with_one_line_a_fault():
    done = run_web(
        REDIS_URL="redis://:hush-hush@h:port/0",
        MAX_BODY_BYTES="8MiB",
        WEB_BIND="here",
        LOG_LEVEL="LOUD",
        HUBSPOT_PORTAL_ID="",
        GEOTAB_ACCOUNT="",
    )
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 6
    for name in (
        "REDIS_URL",
        "MAX_BODY_BYTES",
        "WEB_BIND",
        "LOG_LEVEL",
        "HUBSPOT_PORTAL_ID",
        "GEOTAB_ACCOUNT",
    ):
        assert len([line for line in lines if re.search(rf"\b{name}\b", line)]) == 1, name
    assert all(line.startswith("sync-worker: ") for line in lines)
    assert "Traceback" not in done.stderr
    for secret in (*SECRETS, "hush"):
        assert secret not in done.stderr


def test_a_port_that_is_taken_ends_it(server_redis):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_web("--bind", bind, REDIS_URL=server_redis.url)
    assert done.returncode == 1
    assert bind.rpartition(":")[2] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def unsafe(server_redis: EmbeddedRedis) -> Iterator[EmbeddedRedis]:
    with store.connect(server_redis.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            yield server_redis
        finally:
            client.config_set("maxmemory-policy", "noeviction")


def test_b10_1_an_unsafe_redis_is_refused(unsafe):
    done = run_web(REDIS_URL=unsafe.url)
    assert done.returncode == 1
    assert "maxmemory-policy noeviction" in done.stderr
    assert "ALLOW_UNSAFE_REDIS=true" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_b10_1_unless_it_is_allowed(unsafe, tmp_path):
    with Web(tmp_path, unsafe.url, ALLOW_UNSAFE_REDIS="true") as web:
        assert web.send(hubspot([contact_linked()]))[0] == 202
        assert "noeviction" in web.said()
