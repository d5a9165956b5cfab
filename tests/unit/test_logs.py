"""Nothing that leaves the process by a log or by Sentry names a secret or a person (B10.4)."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import flask
import pytest
import sentry_sdk
from hypothesis import given
from hypothesis import strategies as st
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from sync_worker import logs
from sync_worker.logs import LineFormatter, configure, know_secrets, mask, start_sentry
from sync_worker.settings import load

TOKEN = "tok-4f9a1c77d2e8"
EMAIL = "ada.lovelace@customer.example"


@pytest.fixture(autouse=True)
def no_known_secrets() -> Iterator[None]:
    yield
    know_secrets(())


@pytest.mark.parametrize(
    "text",
    [
        f"POST /webhooks/geotab/{TOKEN}",
        f"POST /webhooks/salesforce/{TOKEN}/ HTTP/1.1",
        f"POST /webhooks/salesforce//{TOKEN}",
        f"https://hooks.example.com/fusebill/webhooks/geotab/{TOKEN}?x=1",
        f"%2Fwebhooks%2Fgeotab%2F{TOKEN}",
        f"%252fwebhooks%252fsalesforce%252f{TOKEN}",
        f"/%77ebhooks/geot%61b/{TOKEN}",
        f"/WEBHOOKS/Geotab/{TOKEN}",
        f"{{'path': '/webhooks/geotab/{TOKEN}'}}",
        rf'{{"path": "\/webhooks\/geotab\/{TOKEN}"}}',
        f"Authorization: Basic {TOKEN}",
        f"{{'Authorization': 'Bearer {TOKEN}'}}",
        f"X-Webhook-Token: {TOKEN}",
        f"account=acme&token={TOKEN}&reseller=7",
        f'{{"token": "{TOKEN}"}}',
        f"cannot connect to redis://:{TOKEN}@store.example.com:6379/0",
        f"rediss://worker:{TOKEN}@10.0.0.7:6380",
        f"HUBSPOT_CLIENT_SECRET={TOKEN}",
        f"<sessionId>x</sessionId> SessionId: {TOKEN}",
    ],
)
def test_a_secret_is_masked_wherever_its_place_gives_it_away(text: str) -> None:
    assert TOKEN not in mask(text)
    assert "***" in mask(text)


@pytest.mark.parametrize(
    "text",
    [
        EMAIL,
        f"customer {EMAIL}: not found",
        "to=<ada@customer.example>",
        "PrimaryEmail:ada%40customer.example",
        "PrimaryEmail%3Aada%2Bbilling%2540customer.example",
        "ada+billing@customer.example",
        "o'ada@customer.example",
        '"ada lovelace"@customer.example',
        "ada@kundin.müller.example",
        "ÄDA@customer.example".replace("ÄDA", "äda"),
        "ada;bob@customer.example,ada@customer.example",
    ],
)
def test_an_email_address_is_masked(text: str) -> None:
    masked = mask(text.replace("ada;bob", "bob"))
    assert "***@***" in masked
    for part in ("ada", "bob", "customer.example", "müller", "lovelace"):
        assert part not in masked


@pytest.mark.parametrize(
    "text",
    [
        "drain hubspot:24681357:contact:51 latched customer=12345 slot=hubspot_contact",
        "POST /webhooks/hubspot 202 in 3 ms",
        "POST /webhooks/geotab 401",
        "GET /v1/Customers/12345 -> 404: no customer with id 12345 found",
        "celery@localhost ready",
        "redis://127.0.0.1:6379/0 answers",
        "40 changes accepted, 0 duplicates",
        "salesforce:00D000000000001:account:0010000000000AAAAA superseded",
    ],
)
def test_what_an_operator_needs_is_left_as_it_is(text: str) -> None:
    assert mask(text) == text


def test_a_known_secret_is_masked_in_every_spelling_and_place() -> None:
    know_secrets(["p/ss w+rd!", "s€cret-ü", "tiny"])
    said = mask("p/ss w+rd! p%2Fss%20w%2Brd%21 p/ss%20w%2Brd%21 p%2Fss+w%2Brd%21 s€cret-ü tiny")
    assert said == "*** *** *** *** *** tiny"


@given(
    st.text("abcXYZ019-._~!$&()*+,;=:@%", min_size=1),
    st.sampled_from(["/webhooks/geotab/", "/x/webhooks/salesforce/", "%2Fwebhooks%2Fgeotab%2F"]),
)
def test_no_spelling_of_a_token_survives_in_a_path(token: str, prefix: str) -> None:
    assert mask(f"POST {prefix}{token} HTTP/1.1").endswith("*** HTTP/1.1")


@given(st.text())
def test_masking_never_fails_and_masks_no_more_the_second_time(text: str) -> None:
    assert mask(mask(text)) == mask(text)


@pytest.mark.parametrize("unit", ["a", "@", "a@", "%40", "/webhooks/", "://a@", "token=", '"', "."])
def test_masking_a_huge_text_is_quick(unit: str) -> None:
    began = time.process_time()
    assert len(mask(unit * 1_000_000)) < 10 * logs.LONGEST_TEXT
    assert time.process_time() - began < 5


class Logged:
    """A logger of its own whose lines can be read."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(LineFormatter())
        self.log = logging.Logger("sync_worker.converge")  # noqa: LOG001 - in no hierarchy
        self.log.addHandler(handler)

    @property
    def line(self) -> str:
        text = self.stream.getvalue()
        assert text.endswith("\n")
        assert len(text.splitlines()) == 1
        return text.rstrip("\n")


@pytest.fixture
def logged() -> Logged:
    return Logged()


def test_a_line_is_time_level_logger_message_and_pairs(logged: Logged) -> None:
    logged.log.info(
        "settled",
        extra={
            "mailbox": "hubspot:1:contact:51",
            "outcome": "latched",
            "customer": 7,
            "detail": "claim is not newer",
            "nothing": "",
        },
    )
    moment, rest = logged.line.split(" ", 1)
    assert time.strptime(moment, "%Y-%m-%dT%H:%M:%S.%fZ")
    assert rest == (
        "INFO sync_worker.converge settled mailbox=hubspot:1:contact:51 outcome=latched "
        'customer=7 detail="claim is not newer" nothing=""'
    )


def test_message_arguments_extras_and_exceptions_are_masked(logged: Logged) -> None:
    try:
        raise ValueError(f"no such path: /webhooks/geotab/{TOKEN}\nsecond line for {EMAIL}")
    except ValueError:
        logged.log.exception(
            "failed for %s\nat /webhooks/salesforce/%s",
            EMAIL,
            TOKEN,
            stack_info=True,
            extra={"who": EMAIL, "api_key": "short", "path": f"/webhooks/geotab/{TOKEN}"},
        )
    assert TOKEN not in logged.line
    assert EMAIL not in logged.line
    assert "api_key=***" in logged.line
    assert "Traceback" in logged.line
    assert "second line" in logged.line


def test_a_broken_log_call_still_leaves_a_line(logged: Logged) -> None:
    logged.log.info("%d changes", "many")
    assert "%d changes [TypeError in this log call]" in logged.line


def test_a_line_has_an_end(logged: Logged) -> None:
    logged.log.info("x" * 1_000_000)
    assert len(logged.line) <= logs.LONGEST_LINE + 1


@pytest.fixture
def logging_is_put_back() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, [*root.handlers], logging.raiseExceptions)
    hooks = (sys.excepthook, threading.excepthook)
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    logging.raiseExceptions = before[2]
    sys.excepthook, threading.excepthook = hooks


@pytest.mark.usefixtures("logging_is_put_back")
def test_configuring_twice_logs_once_and_leaves_other_handlers(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    configure("INFO")
    configure("WARNING", secrets=["hunter-two"])
    log = logging.getLogger("sync_worker.test")
    log.info("not shown")
    log.warning("shown once, hunter-two")
    shown = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 1)[1] for line in shown] == ["WARNING sync_worker.test shown once, ***"]
    assert "hunter-two" in caplog.text


@pytest.mark.parametrize("where", ["main", "thread"])
def test_an_uncaught_exception_is_one_masked_line(where: str) -> None:
    script = f"""
import threading
from sync_worker.logs import configure
configure("INFO", secrets=["hunter-two"])
def fail():
    raise ValueError("hunter-two and {EMAIL}")
if {where!r} == "main":
    fail()
thread = threading.Thread(target=fail)
thread.start()
thread.join()
"""
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert len(answer.stderr.splitlines()) == 1
    assert "CRITICAL" in answer.stderr
    assert "hunter-two" not in answer.stderr
    assert EMAIL not in answer.stderr


def test_the_secrets_of_the_settings_are_all_of_them() -> None:
    found = logs.secrets_of(
        load(
            fusebill_api_key="the-api-key",
            hubspot_client_secret="old-secret,new-secret",
            hubspot_portal_id="1",
            public_url="https://hooks.example.com",
            geotab_webhook_token="geotab-token",
            geotab_account="acme",
            sentry_dsn="https://public@sentry.example/1",
            redis_url="redis://store.example.com:6379/0",
        )
    )
    assert sorted(found) == [
        "geotab-token",
        "https://public@sentry.example/1",
        "new-secret",
        "old-secret",
        "the-api-key",
    ]


class Outbox(Transport):
    """Keeps what would have been sent."""

    def __init__(self) -> None:
        super().__init__()
        self.envelopes: list[Envelope] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)

    @property
    def sent(self) -> str:
        return b"\n".join(envelope.serialize() for envelope in self.envelopes).decode()

    @property
    def event(self) -> dict[str, Any]:
        (envelope,) = self.envelopes
        event = envelope.get_event()
        assert event is not None
        return json.loads(json.dumps(event))


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    outbox = Outbox()
    with sentry_sdk.isolation_scope():
        start_sentry("https://public@sentry.example/1", "sync-worker@0.1.0", transport=outbox)
        yield outbox
        sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


SECRETS = [
    TOKEN,
    EMAIL,
    "lovelace",
    "body-of-a-request",
    "cookie-value",
    "query-value",
    "local-value",
]


def test_an_error_in_a_request_is_sent_without_anything_of_it(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["sync-worker", "send", "--with", "argument-value"])
    app = flask.Flask("door")

    @app.post("/webhooks/geotab/<token>")
    def receive(token: str) -> str:
        secret_local = "local-value"
        body = flask.request.get_data(as_text=True)
        logging.getLogger("door").warning("got %s from %s", body and TOKEN and EMAIL, EMAIL)
        sentry_sdk.add_breadcrumb(
            category="httplib",
            type="http",
            message=f"/webhooks/geotab/{TOKEN}",
            data={
                "url": f"https://crm.example/webhooks/salesforce/{TOKEN}?q=query-value",
                "http.query": "q=query-value",
                "status_code": 200,
            },
        )
        raise ValueError(f"cannot handle /webhooks/geotab/{token} of {EMAIL} {len(secret_local)}")

    answer = app.test_client().post(
        f"/webhooks/geotab/{TOKEN}?email={EMAIL}&q=query-value",
        json={"text": "body-of-a-request", "email": EMAIL, "token": TOKEN},
        headers={
            "Authorization": f"Basic {TOKEN}",
            "X-Webhook-Token": TOKEN,
            "X-Signature": f"t=1,v1={TOKEN}",
            "Cookie": "session=cookie-value",
            "X-Forwarded-For": "203.0.113.9",
        },
    )
    assert answer.status_code == 500
    for secret in [*SECRETS, "203.0.113.9", "127.0.0.1", "argument-value"]:
        assert secret not in outbox.sent
    event = outbox.event
    assert event["request"] == {
        "method": "POST",
        "url": "http://localhost/webhooks/geotab/***",
    }
    assert event["release"] == "sync-worker@0.1.0"
    (error,) = event["exception"]["values"]
    assert error["type"] == "ValueError"
    assert error["value"].startswith("cannot handle /webhooks/geotab/***")
    assert "server_name" not in event
    assert not any("vars" in frame for frame in error["stacktrace"]["frames"])
    assert not any("context_line" in frame for frame in error["stacktrace"]["frames"])
    assert event["breadcrumbs"]["values"]


def test_an_error_that_is_logged_is_sent_masked(outbox: Outbox) -> None:
    know_secrets(["hunter-two"])
    with sentry_sdk.new_scope() as scope:
        scope.set_user({"email": EMAIL, "ip_address": "203.0.113.9"})
        scope.set_extra("raw", {"who": [f"to {EMAIL}"], "password": "pw"})
        scope.set_tag("who", EMAIL)
        scope.set_context("call", {"headers": {"X-Any": TOKEN}, "Cookie": "cookie-value"})
        scope.add_attachment(bytes=b"body-of-a-request", filename="body.json")
        logging.getLogger("worker").error(
            "call failed with hunter-two for %s", EMAIL, extra={"path": f"/webhooks/geotab/{TOKEN}"}
        )
    for secret in [*SECRETS, "hunter-two", "203.0.113.9", '"pw"']:
        assert secret not in outbox.sent
    assert "user" not in outbox.event


def test_breadcrumbs_of_calls_and_tasks_carry_no_query(outbox: Outbox) -> None:
    sentry_sdk.add_breadcrumb(
        message="GET https://secure.fusebill.com/v1/customers?query=name:query-value done"
    )
    sentry_sdk.capture_message("stopped")
    assert "query-value" not in outbox.sent
    assert "https://secure.fusebill.com/v1/customers done" in outbox.sent


def test_an_event_that_cannot_be_cleaned_is_not_sent(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str) -> str:
        raise RuntimeError("broken")

    monkeypatch.setattr(logs, "mask", fail)
    sentry_sdk.capture_message(f"for {EMAIL}")
    assert outbox.envelopes == []


def test_a_structure_without_end_is_cut_not_sent() -> None:
    deep: dict[str, Any] = {}
    at = deep
    for _ in range(1000):
        at["next"] = {}
        at = at["next"]
    at["end"] = EMAIL
    assert EMAIL not in json.dumps(logs._cleaned(deep))


def test_calls_carry_no_tracing_headers_of_sentry(outbox: Outbox) -> None:
    client = sentry_sdk.get_client()
    assert client.options["trace_propagation_targets"] == []
    assert client.options["traces_sample_rate"] is None
    assert client.should_send_default_pii() is False
    assert client.options["max_request_body_size"] == "never"
    assert client.options["include_local_variables"] is False
    assert client.options["include_source_context"] is False


@pytest.mark.parametrize("dsn", [None, ""])
def test_without_a_dsn_nothing_is_started(dsn: str | None) -> None:
    start_sentry(dsn, "sync-worker@0.1.0", transport=Outbox())
    assert not sentry_sdk.is_initialized()
