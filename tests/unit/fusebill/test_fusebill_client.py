from __future__ import annotations

import gzip
import json
import socket
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_worker import __version__
from sync_worker.domain import Attempt, Slot, SlotState
from sync_worker.fusebill.client import FusebillClient
from sync_worker.fusebill.errors import (
    CustomerNotFound,
    FusebillError,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
)
from sync_worker.fusebill.limits import RateLimits
from sync_worker.fusebill.transport import MAX_ANSWER_BYTES, MAX_LIST_BYTES
from tests.unit.fusebill.scripted_server import (
    EMAIL,
    KEY,
    Reply,
    ScriptedServer,
    customer_json,
    envelope,
)

ID = 8714402
ACCOUNT = "0015g00001LwZ3kAAF"
Make = Callable[..., FusebillClient]

CALLS: dict[str, tuple[Callable[[FusebillClient], Any], str, str, bytes]] = {
    "get": (lambda c: c.get_customer(ID), "GET", "/v1/customers/8714402", b""),
    "hubspot both": (
        lambda c: c.latch_hubspot(ID, contact="9007199254740993", company="202"),
        "POST",
        "/v1/HubSpot/latchCustomer",
        b'{"fusebillId":8714402,"hubSpotId":9007199254740993,"hubSpotCompanyId":202}',
    ),
    "hubspot contact": (
        lambda c: c.latch_hubspot(ID, contact="101", company=None),
        "POST",
        "/v1/HubSpot/latchCustomer",
        b'{"fusebillId":8714402,"hubSpotId":101,"hubSpotCompanyId":null}',
    ),
    "hubspot neither": (
        lambda c: c.latch_hubspot(ID, contact=None, company=None),
        "POST",
        "/v1/HubSpot/latchCustomer",
        b'{"fusebillId":8714402,"hubSpotId":null,"hubSpotCompanyId":null}',
    ),
    "hubspot unlatch": (
        lambda c: c.unlatch_hubspot(ID),
        "POST",
        "/v1/HubSpot/UnlatchCustomer/8714402",
        b"",
    ),
    "salesforce": (
        lambda c: c.latch_salesforce(ID, ACCOUNT, force=False),
        "POST",
        "/v1/Salesforce/Latch",
        b'{"fusebillId":8714402,"salesforceId":"0015g00001LwZ3kAAF","forceLatch":false}',
    ),
    "salesforce forced, 15 characters": (
        lambda c: c.latch_salesforce(ID, ACCOUNT[:15], force=True),
        "POST",
        "/v1/Salesforce/Latch",
        b'{"fusebillId":8714402,"salesforceId":"0015g00001LwZ3kAAF","forceLatch":true}',
    ),
    "salesforce unlatch": (
        lambda c: c.unlatch_salesforce(ID),
        "POST",
        "/v1/Vendor/Named",
        b'{"fusebillId":8714402}',
    ),
    "geotab": (
        lambda c: c.latch_geotab(ID, "0070441"),
        "POST",
        "/v1/Geotab/LatchCustomer",
        b'{"fusebillId":8714402,"geotabId":"0070441"}',
    ),
    "geotab unlatch": (
        lambda c: c.unlatch_geotab(ID),
        "POST",
        "/v1/Geotab/UnlatchCustomer",
        b'{"fusebillId":8714402}',
    ),
}


@pytest.mark.parametrize(("do", "method", "path", "body"), CALLS.values(), ids=CALLS.keys())
def test_a_call_is_on_the_wire_as_the_vendor_page_shows_it(
    make: Make,
    server: ScriptedServer,
    attempts: list[Attempt],
    do: Callable[[FusebillClient], Any],
    method: str,
    path: str,
    body: bytes,
) -> None:
    client = make(salesforce_unlatch_path="/v1/Vendor/Named", clock=lambda: 1795183440.1239)
    assert do(client).id == ID
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.body) == (method, path, body)
    expected = {
        "Host": server.url.removeprefix("http://"),
        "User-Agent": f"sync-worker/{__version__}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Connection": "keep-alive",
        "Authorization": f"Basic {KEY}",
    }
    if method == "POST":
        expected |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    assert seen.headers == expected
    call = f"{method} {path}" + (f" {body.decode()}" if body else "")
    assert attempts == [Attempt(1795183440123, call, 200)]


def test_a_write_gives_the_customer_of_the_answer(
    client: FusebillClient, server: ScriptedServer
) -> None:
    answer = customer_json(hubSpotId=101, hubSpotCompanyId=202, geotabId=...)
    server.will(Reply(body=json.dumps(answer).encode()))
    customer = client.latch_hubspot(ID, contact="101", company="202")
    assert customer.slots[Slot.HUBSPOT_CONTACT] == "101"
    assert customer.slots[Slot.HUBSPOT_COMPANY] == "202"
    assert customer.slots[Slot.GEOTAB_CUSTOMER] == SlotState.UNKNOWN


def test_a_base_url_may_have_a_path(make: Make, server: ScriptedServer) -> None:
    make(server.url + "/stax/").get_customer(ID)
    assert server.seen[0].path == "/stax/v1/customers/8714402"


@pytest.mark.parametrize(
    "do",
    [
        lambda c: c.get_customer(0),
        lambda c: c.get_customer(-1),
        lambda c: c.get_customer(True),
        lambda c: c.get_customer("8714402"),
        lambda c: c.unlatch_hubspot("1/../2"),
        lambda c: c.unlatch_geotab(0),
        lambda c: c.latch_geotab(0, "x"),
        lambda c: c.latch_geotab(ID, ""),
        lambda c: c.latch_geotab(ID, "x" * 256),
        lambda c: c.latch_hubspot(ID, contact="abc", company=None),
        lambda c: c.latch_hubspot(ID, contact="", company=None),
        lambda c: c.latch_hubspot(ID, contact="0", company=None),
        lambda c: c.latch_hubspot(ID, contact="007", company=None),
        lambda c: c.latch_hubspot(ID, contact=None, company="1.5"),
        lambda c: c.latch_hubspot(ID, contact=None, company="-1"),
        lambda c: c.latch_hubspot(ID, contact=None, company="١٢"),
        lambda c: c.latch_hubspot(ID, contact=None, company="12\n"),
        lambda c: c.latch_hubspot(ID, contact=None, company="9" * 20),
        lambda c: c.latch_salesforce(ID, "1", force=False),
    ],
)
def test_what_is_no_id_is_refused_before_any_call(
    client: FusebillClient,
    server: ScriptedServer,
    attempts: list[Attempt],
    do: Callable[[FusebillClient], Any],
) -> None:
    with pytest.raises(ValueError, match="id"):
        do(client)
    assert not server.seen
    assert not attempts


def test_a_salesforce_release_without_an_endpoint_is_a_fault_of_the_caller(
    client: FusebillClient, server: ScriptedServer, attempts: list[Attempt]
) -> None:
    with pytest.raises(RuntimeError, match="FUSEBILL_SALESFORCE_UNLATCH_PATH"):
        client.unlatch_salesforce(ID)
    assert not server.seen
    assert not attempts


@pytest.mark.parametrize("chunked", [False, True])
def test_one_connection_serves_many_calls(
    client: FusebillClient, server: ScriptedServer, chunked: bool
) -> None:
    body = json.dumps(customer_json()).encode()
    server.will(
        Reply(body=body, chunked=chunked),
        Reply(404, envelope(404, "Customer with id 8714402 not found."), chunked=chunked),
        Reply(302, b"moved", {"Location": "/elsewhere"}, chunked=chunked),
        Reply(204),
        Reply(body=body, chunked=chunked),
    )
    for _ in range(5):
        with suppress(FusebillError):
            client.get_customer(ID)
    assert len(server.seen) == 5
    assert len({seen.connection for seen in server.seen}) == 1


def test_threads_may_share_a_client(
    client: FusebillClient, server: ScriptedServer, attempts: list[Attempt]
) -> None:
    with ThreadPoolExecutor(8) as threads:
        customers = list(threads.map(client.get_customer, [ID] * 40))
    assert {customer.id for customer in customers} == {ID}
    assert len(attempts) == 40
    assert len({seen.connection for seen in server.seen}) <= 8


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(
    client: FusebillClient, server: ScriptedServer
) -> None:
    def answer_and_hang_up(handler: Any) -> None:
        body = server.default.body
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    server.will(Reply(raw=answer_and_hang_up))
    client.get_customer(ID)
    time.sleep(0.1)
    client.get_customer(ID)
    assert len({seen.connection for seen in server.seen}) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/v1/customers/8714402", "http://[", ""])
def test_redirects_are_not_followed(
    client: FusebillClient,
    server: ScriptedServer,
    attempts: list[Attempt],
    status: int,
    location: str,
) -> None:
    server.will(Reply(status, server.default.body, {"Location": location}))
    with pytest.raises(Transient, match="FUSEBILL_BASE_URL") as caught:
        client.unlatch_geotab(ID)
    assert not caught.value.answer_lost
    assert len(server.seen) == 1
    assert [attempt.status for attempt in attempts] == [status]


def test_cookies_do_not_tie_calls_together(client: FusebillClient, server: ScriptedServer) -> None:
    server.will(Reply(body=server.default.body, headers={"Set-Cookie": "ASP.NET_SessionId=x"}))
    client.get_customer(ID)
    client.get_customer(ID)
    assert "Cookie" not in server.seen[1].headers


def test_a_netrc_entry_does_not_replace_the_key(
    make: Make, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    make().get_customer(ID)
    assert server.seen[0].headers["Authorization"] == f"Basic {KEY}"


def test_a_proxy_of_the_environment_is_used(
    make: Make, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    make("http://fusebill.invalid").get_customer(ID)
    assert server.seen[0].path == "http://fusebill.invalid/v1/customers/8714402"


def failing(do: Callable[[], Any], attempts: list[Attempt]) -> FusebillError:
    """The error of a call that fails, after what holds for every failure."""
    before = len(attempts)
    with pytest.raises(FusebillError) as caught:
        do()
    error = caught.value
    assert attempts[before:] == [error.attempt]
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(
        traceback.TracebackException.from_exception(error, capture_locals=True).format()
    )
    for text in (shown, str(error), repr(error), repr(error.args), repr(vars(error))):
        assert KEY not in text
        assert EMAIL not in text
        assert "Oduya" not in text
    return error


def hang_up(handler: Any) -> None:
    pass


def cut_short(handler: Any) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id": 8714402,')


def cut_short_chunk(handler: Any) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"id": 8')


def no_http(handler: Any) -> None:
    handler.wfile.write(b"220 mail.northgate.example ESMTP\r\n")


def reset(handler: Any) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def bad_gzip(handler: Any) -> None:
    handler.wfile.write(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"
    )


def endless(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    for _ in range(200):
        handler.wfile.write(b" " * 65536)


def long_header(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")


@pytest.mark.parametrize(
    "raw",
    [
        hang_up,
        cut_short,
        cut_short_chunk,
        no_http,
        reset,
        bad_gzip,
        endless,
        long_header,
    ],
)
def test_a_write_whose_answer_is_broken_may_have_been_carried_out(
    client: FusebillClient, server: ScriptedServer, attempts: list[Attempt], raw: Any
) -> None:
    server.will(Reply(raw=raw))
    error = failing(lambda: client.unlatch_geotab(ID), attempts)
    assert isinstance(error, Transient)
    assert error.answer_lost
    assert error.outage
    assert len(server.seen) == 1, "a write is never made twice"
    assert client.get_customer(ID).id == ID, "the next call is not disturbed"


def test_a_read_whose_answer_is_broken_has_changed_nothing(
    client: FusebillClient, server: ScriptedServer, attempts: list[Attempt]
) -> None:
    server.will(Reply(raw=hang_up))
    error = failing(lambda: client.get_customer(ID), attempts)
    assert isinstance(error, Transient)
    assert not error.answer_lost
    assert len(server.seen) == 1


@pytest.mark.parametrize("compressed", [False, True])
def test_an_answer_that_is_too_long_is_not_taken_in(
    client: FusebillClient, server: ScriptedServer, attempts: list[Attempt], compressed: bool
) -> None:
    body = server.default.body + b" " * MAX_ANSWER_BYTES * 40
    headers = {"Content-Encoding": "gzip"} if compressed else {}
    server.will(Reply(body=gzip.compress(body) if compressed else body, headers=headers))
    error = failing(lambda: client.unlatch_geotab(ID), attempts)
    assert isinstance(error, Transient)
    assert error.answer_lost
    assert str(MAX_ANSWER_BYTES) in str(error)
    assert error.attempt.status == 200


def test_a_compressed_answer_is_read(client: FusebillClient, server: ScriptedServer) -> None:
    body = gzip.compress(server.default.body)
    server.will(Reply(body=body, headers={"Content-Encoding": "gzip"}))
    assert client.get_customer(ID).id == ID


def test_an_answer_as_long_as_allowed_is_read(
    client: FusebillClient, server: ScriptedServer
) -> None:
    server.will(Reply(body=server.default.body.ljust(MAX_ANSWER_BYTES)))
    assert client.get_customer(ID).id == ID


def test_a_slow_answer_is_given_up(
    make: Make, server: ScriptedServer, attempts: list[Attempt]
) -> None:
    server.will(Reply(raw=lambda handler: server.pause(20)))
    client = make(read_timeout=0.2)
    begun = time.monotonic()
    error = failing(lambda: client.unlatch_geotab(ID), attempts)
    assert time.monotonic() - begun < 3
    assert isinstance(error, Transient)
    assert error.answer_lost
    assert error.outage
    assert "0.2 s" in str(error)
    assert len(server.seen) == 1


def test_a_body_that_stalls_is_given_up(
    make: Make, server: ScriptedServer, attempts: list[Attempt]
) -> None:
    def stall(handler: Any) -> None:
        cut_short(handler)
        server.pause(20)

    server.will(Reply(raw=stall))
    begun = time.monotonic()
    error = failing(lambda: make(read_timeout=0.2).unlatch_geotab(ID), attempts)
    assert time.monotonic() - begun < 3
    assert isinstance(error, Transient)
    assert error.answer_lost
    assert error.attempt.status == 200


def test_a_body_that_trickles_is_given_up_too(
    make: Make,
    server: ScriptedServer,
    attempts: list[Attempt],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sync_worker.http.CONNECT_TIMEOUT_SECONDS", 0.5)
    server.will(Reply(raw=server.trickle))
    begun = time.monotonic()
    error = failing(lambda: make(read_timeout=0.5).unlatch_geotab(ID), attempts)
    assert time.monotonic() - begun < 3
    assert isinstance(error, Transient)
    assert error.answer_lost
    assert "no whole answer" in str(error)


def test_a_short_wait_for_a_body_does_not_shorten_the_next_call(
    make: Make, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The body of a late answer may take what is left of the call's time: here 0.3 s.
    monkeypatch.setattr("sync_worker.http.CONNECT_TIMEOUT_SECONDS", 0.1)

    def late(handler: Any) -> None:
        server.pause(0.8)
        handler.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(server.default.body)
        )
        handler.wfile.write(server.default.body)
        handler.close_connection = False

    client = make(read_timeout=1)
    server.will(Reply(raw=late), Reply(raw=late))
    client.get_customer(ID)
    client.get_customer(ID)
    assert len({seen.connection for seen in server.seen}) == 1


def listed(*rows: Any, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(body=json.dumps(rows).encode(), headers=named)


@pytest.mark.parametrize(
    ("asked", "target", "shown"),
    [
        (
            {"page": 0},
            "/v1/customers/?pageSize=1000&pageNumber=0",
            "/v1/customers/?pageSize=1000&pageNumber=0",
        ),
        (
            {"page": 2, "page_size": 100, "query": "reference:NG 0042&x=1#"},
            "/v1/customers/?query=reference%3ANG%200042%26x%3D1%23&pageSize=100&pageNumber=2",
            "/v1/customers/?query=reference:…&pageSize=100&pageNumber=2",
        ),
        (
            {"page": 0, "query": "primaryEmail:*ma+ren@x.example*"},
            "/v1/customers/?query=primaryEmail%3A%2Ama%2Bren%40x.example%2A&pageSize=1000&pageNumber=0",
            "/v1/customers/?query=primaryEmail:…&pageSize=1000&pageNumber=0",
        ),
    ],
)
def test_a_list_is_on_the_wire_as_the_vendor_page_shows_it(
    client: FusebillClient,
    server: ScriptedServer,
    attempts: list[Attempt],
    asked: dict[str, Any],
    target: str,
    shown: str,
) -> None:
    server.will(listed(customer_json(), customer_json(id=9), {"id": None}, X_Count="2500"))
    page = client.list_customers(**asked)
    assert [customer.id for customer in page.customers] == [ID, 9]
    assert (page.total, page.broken) == (2500, 1)
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.body) == ("GET", target, b"")
    assert [(attempt.call, attempt.status) for attempt in attempts] == [(f"GET {shown}", 200)]


def test_a_probe_is_one_small_list_read(
    client: FusebillClient, server: ScriptedServer, attempts: list[Attempt]
) -> None:
    """B6.3, B6.4: also an account without customers proves that Fusebill lives."""
    server.will(listed(customer_json(), X_Count="2500"), listed())
    client.probe()
    client.probe()
    target = "/v1/customers/?pageSize=1&pageNumber=0"
    assert [(seen.method, seen.path) for seen in server.seen] == [("GET", target)] * 2
    assert [(attempt.call, attempt.status) for attempt in attempts] == [(f"GET {target}", 200)] * 2


@pytest.mark.parametrize(
    ("reply", "kind", "outage"),
    [
        (Reply(raw=hang_up), Transient, True),
        (Reply(503), Transient, True),
        (Reply(403), Transient, False),
        (Reply(200, b"<html>Maintenance</html>"), Transient, False),
        (Reply(401), Unauthorized, None),
        (Reply(429), RateLimited, None),
    ],
)
def test_a_probe_that_fails_says_how(
    client: FusebillClient,
    server: ScriptedServer,
    attempts: list[Attempt],
    reply: Reply,
    kind: type[FusebillError],
    outage: bool | None,
) -> None:
    """B6.3, B6.4."""
    server.will(reply)
    error = failing(client.probe, attempts)
    assert type(error) is kind
    assert getattr(error, "outage", None) is outage
    assert len(server.seen) == 1


@pytest.mark.parametrize("count", ["", "many", "-1", "1.5", "9" * 30, "5, 5", "٣"])
def test_a_count_that_cannot_be_read_is_none(
    client: FusebillClient, server: ScriptedServer, count: str
) -> None:
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nX-Count: {count}\r\nContent-Length: 2\r\n"
    body = f"{head}\r\n[]".encode()
    server.will(Reply(raw=lambda handler: handler.wfile.write(body)), listed())
    assert client.list_customers(page=0).total is None
    assert client.list_customers(page=0).total is None, "nor is a missing one"


@pytest.mark.parametrize(("page", "size"), [(-1, 1000), (0, 0)])
def test_a_page_that_cannot_be_is_refused_before_any_call(
    client: FusebillClient, server: ScriptedServer, page: int, size: int
) -> None:
    with pytest.raises(ValueError, match="page"):
        client.list_customers(page=page, page_size=size)
    assert not server.seen


def test_a_page_may_be_longer_than_a_customer_but_not_endless(
    client: FusebillClient, server: ScriptedServer
) -> None:
    body = json.dumps([customer_json()] * 1000).encode()
    assert len(body) < MAX_LIST_BYTES / 8
    server.will(Reply(body=body.ljust(MAX_LIST_BYTES)), Reply(body=body.ljust(MAX_LIST_BYTES + 1)))
    assert client.list_customers(page=0).rows == 1000
    with pytest.raises(Transient, match=str(MAX_LIST_BYTES)):
        client.list_customers(page=0)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(raw=hang_up), Transient),
        (Reply(raw=cut_short), Transient),
        (Reply(200, json.dumps({"primaryEmail": EMAIL}).encode()), Transient),
        (Reply(302, b"", {"Location": f"/?query={EMAIL}"}), Transient),
        (Reply(400, envelope(400, f"'primaryEmail:*{EMAIL}*' is not valid")), Rejected),
        (Reply(401, envelope(401, f"Key {KEY} may not look for {EMAIL}")), Unauthorized),
        (Reply(404, envelope(404, f"Customer {EMAIL} not found.")), Transient),
        (Reply(429, envelope(429, "Minute limit reached.")), RateLimited),
        (Reply(503, EMAIL.encode()), Transient),
    ],
)
def test_no_error_of_a_list_shows_whom_it_looked_for(
    client: FusebillClient,
    server: ScriptedServer,
    attempts: list[Attempt],
    reply: Reply,
    kind: type[FusebillError],
) -> None:
    server.will(reply)
    with pytest.raises(FusebillError) as caught:
        client.list_customers(page=0, query=f"primaryEmail:*{EMAIL}*")
    error = caught.value
    assert type(error) is kind
    assert attempts == [error.attempt]
    assert error.__cause__ is None
    assert error.__context__ is None
    for text in (str(error), repr(error), repr(error.args), repr(vars(error)), repr(attempts)):
        assert EMAIL not in text
        assert KEY not in text


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_refused_connection_has_sent_nothing(make: Make, attempts: list[Attempt]) -> None:
    client = make(f"http://127.0.0.1:{closed_port()}")
    error = failing(lambda: client.unlatch_geotab(ID), attempts)
    assert isinstance(error, Transient)
    assert not error.answer_lost
    assert error.outage
    assert "Connection refused" in str(error)
    assert error.attempt.status is None


def test_a_name_that_does_not_resolve_has_sent_nothing(
    make: Make, attempts: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_such_name(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    error = failing(lambda: make("https://fusebill.invalid").unlatch_geotab(ID), attempts)
    assert isinstance(error, Transient)
    assert not error.answer_lost
    assert "Name or service not known" in str(error)


def test_a_connection_that_does_not_open_in_time_has_sent_nothing(
    make: Make, attempts: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync_worker.http.CONNECT_TIMEOUT_SECONDS", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        # A full backlog leaves the next connection unanswered.
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            client = make(f"http://127.0.0.1:{port}")
            error = failing(lambda: client.unlatch_geotab(ID), attempts)
        finally:
            for filler in fillers:
                filler.close()
    assert isinstance(error, Transient)
    assert not error.answer_lost
    assert "no connection within 0.2 s" in str(error)


def test_a_proxy_that_cannot_be_reached_has_sent_nothing(
    make: Make, attempts: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://user:hush@127.0.0.1:{closed_port()}")
    error = failing(lambda: make("http://fusebill.invalid").unlatch_geotab(ID), attempts)
    assert isinstance(error, Transient)
    assert not error.answer_lost
    assert "proxy" in str(error)
    assert "hush" not in str(error)


def test_an_error_that_our_caller_handles_does_not_colour_ours(
    client: FusebillClient, server: ScriptedServer, attempts: list[Attempt]
) -> None:
    server.will(Reply(raw=hang_up))
    try:
        raise ConnectionRefusedError(111, "Connection refused")
    except ConnectionRefusedError:
        with pytest.raises(Transient) as caught:
            client.unlatch_geotab(ID)
    assert caught.value.answer_lost
    assert "refused" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(401, envelope(401, f"Key {KEY} of {EMAIL} is unknown")), Unauthorized),
        (Reply(400, envelope(400, f"{EMAIL} is not valid")), Rejected),
        (Reply(404, envelope(404, "Customer with id 8714402 not found.")), CustomerNotFound),
        (Reply(200, json.dumps(customer_json(id=9)).encode()), Transient),
        (Reply(200, json.dumps(customer_json(id=EMAIL)).encode()), Transient),
        (Reply(503, b"<html>" + EMAIL.encode()), Transient),
    ],
)
def test_no_error_shows_the_key_or_a_person(
    client: FusebillClient,
    server: ScriptedServer,
    attempts: list[Attempt],
    reply: Reply,
    kind: type[FusebillError],
) -> None:
    server.will(reply)
    assert type(failing(lambda: client.unlatch_geotab(ID), attempts)) is kind


def test_the_client_does_not_show_its_key(make: Make, server: ScriptedServer) -> None:
    host = server.url.removeprefix("http://")
    client = make(f"http://user:hush@{host}")
    shown = f"{client!r} {client} {vars(client)} {vars(client._transport)} {client._key}"
    shown += f" {vars(client._transport._http)} {vars(client._transport._http.session)}"
    assert KEY not in shown
    assert "hush" not in repr(client)


@pytest.mark.parametrize("key", ["", "Basic abc", "abc\n", "clé", "a\0b"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="Fusebill API key") as caught:
        FusebillClient("https://fusebill.invalid", key, read_timeout=1)
    assert not key or key not in str(caught.value)


def test_a_key_that_is_not_base64_is_sent_as_given(make: Make, server: ScriptedServer) -> None:
    make(key="not+base64!").get_customer(ID)
    assert server.seen[0].headers["Authorization"] == "Basic not+base64!"


def test_limits_are_those_last_stated(client: FusebillClient, server: ScriptedServer) -> None:
    assert client.limits == RateLimits()
    server.will(
        Reply(body=server.default.body, headers={"X-Rate-Limit-Remaining-Minute": "41"}),
        Reply(502, b"<html>"),
        Reply(
            429,
            envelope(429, "Minute limit reached."),
            {"x-rate-limit-remaining-minute": "0", "x-rate-limit-reset-minute": "1795183440"},
        ),
    )
    client.get_customer(ID)
    assert client.limits.minute_left == 41
    with pytest.raises(Transient):
        client.get_customer(ID)
    assert client.limits == RateLimits(), "a page of a proxy states no limits"
    with pytest.raises(RateLimited) as caught:
        client.get_customer(ID)
    assert caught.value.reset_at == 1795183440.0
    assert client.limits.minute_left == 0


def test_a_call_that_is_interrupted_is_told_and_the_interrupt_goes_on(
    make: Make, attempts: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(clock=lambda: 1.0)

    class TimeLimit(BaseException):
        pass

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise TimeLimit

    monkeypatch.setattr(client._transport._http._adapter, "ask", interrupted)
    with pytest.raises(TimeLimit):
        client.get_customer(ID)
    assert attempts == [Attempt(1000, "GET /v1/customers/8714402", error="interrupted: TimeLimit")]


def test_a_listener_may_come_later(make: Make) -> None:
    heard: list[Attempt] = []
    client = make(on_call=None)
    client.on_call = heard.append
    client.get_customer(ID)
    assert [attempt.status for attempt in heard] == [200]


def test_nobody_needs_to_listen(make: Make) -> None:
    assert make(on_call=None).get_customer(ID).id == ID


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.binary(max_size=200),
    st.sampled_from(
        [
            b"",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, deflate\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: ",
            b"HTTP/1.1 200 OK\r\nContent-Length: ",
            b"HTTP/1.1 ",
        ]
    ),
)
def test_whatever_comes_back_only_errors_of_fusebill_are_raised(
    make: Make, server: ScriptedServer, garbage: bytes, head: bytes
) -> None:
    server.will(Reply(raw=lambda handler: handler.wfile.write(head + garbage)))
    client = make(read_timeout=2)
    with client, suppress(FusebillError):
        client.unlatch_geotab(ID)
