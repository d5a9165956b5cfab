"""The door: every row of the table of B2.10, and what stands around it, on a real Redis."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest
import redis
from werkzeug.test import TestResponse

from sync_worker import store
from sync_worker.domain import Kind, Reason, Source
from sync_worker.embedded_redis import EmbeddedRedis
from sync_worker.inbox import Inbox
from tests.receiving import (
    ACCOUNT,
    FORM,
    GEOTAB_SECRET,
    GEOTAB_TOKEN,
    HUBSPOT_SECRET,
    JSON,
    ORG,
    OTHER_ORG,
    OTHER_PORTAL,
    PORTAL,
    SALESFORCE_SECRET,
    SALESFORCE_TOKEN,
    SECRETS,
    Door,
    Sent,
    account_created,
    contact_linked,
    customer_linked,
    form,
    geotab,
    hoard,
    hubspot,
    hubspot_v3,
    mailboxes,
    notification,
    now_ms,
    outbound,
    salesforce,
    settings,
    soap,
    x_signature,
)
from webhooks import samples
from webhooks.answers import Problem
from webhooks.sources.geotab import GeotabReader
from webhooks.sources.hubspot import HubSpotReader
from webhooks.sources.salesforce import SalesforceReader

ACK = b"""\
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/">
<soapenv:Body>
<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound">
<Ack>true</Ack>
</notificationsResponse>
</soapenv:Body>
</soapenv:Envelope>
"""
"""As Salesforce's help article 000381752 words it."""

SESSION = "00D5g000007Kp2Q!AQ8AQH0dMHZfz972Szmpkb58urFRkgeBGsxL_QJWwYMfAbUeeG7c1E6"

PROBLEMS = {
    400: "undecodable",
    401: "unauthenticated",
    403: "foreign-tenant",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
    503: "unavailable",
}

READERS = {
    Source.HUBSPOT: HubSpotReader,
    Source.SALESFORCE: SalesforceReader,
    Source.GEOTAB: GeotabReader,
}

BOXES = {
    "hubspot": f"hubspot:{PORTAL}:contact:512340077981",
    "salesforce": f"salesforce:{ORG[:15]}:account:0015g00001LwZ3kAAF",
    "geotab": f"geotab:{ACCOUNT}:customer:0070441",
}

GOOD: dict[str, Callable[[], Sent]] = {
    "hubspot": lambda: hubspot([contact_linked()]),
    "salesforce": lambda: salesforce(account_created()),
    "salesforce-header": lambda: salesforce(account_created(), proof="header"),
    "salesforce-bearer": lambda: salesforce(account_created(), proof="bearer"),
    "salesforce-url": lambda: salesforce(account_created(), proof="url"),
    "soap": lambda: soap(outbound(notification())),
    "soap-signed": lambda: soap(outbound(notification()), proof="signature"),
    "soap-header": lambda: soap(outbound(notification()), proof="header"),
    "geotab": lambda: geotab({"events": [customer_linked()]}),
    "geotab-header": lambda: geotab([customer_linked()], proof="header"),
    "geotab-url": lambda: geotab(customer_linked(), proof="url"),
    "geotab-form": lambda: form(customer_linked()),
}
"""One authentic delivery of one change, by every proof and shape."""

ONE_EACH = ("hubspot", "salesforce", "soap", "geotab", "geotab-form")

good_deliveries = pytest.mark.parametrize("name", GOOD)
one_of_each = pytest.mark.parametrize("name", ONE_EACH)


@pytest.fixture
def door(client: redis.Redis) -> Door:
    return Door(client)


@pytest.fixture
def own_redis(tmp_path) -> Iterator[EmbeddedRedis]:
    """A server of this test alone, to be stopped and started."""
    with EmbeddedRedis(tmp_path) as server:
        yield server


def source_of(name: str) -> str:
    return "salesforce" if name.startswith("soap") else name.partition("-")[0]


def is_soap(sent: Sent) -> bool:
    return "xml" in sent.headers.get("content-type", "")


def assert_leaks_nothing(answer: TestResponse, sent: Sent | None = None) -> None:
    text = answer.get_data(as_text=True)
    assert not [secret for secret in SECRETS if secret in text]
    assert "Traceback" not in text
    assert 'File "' not in text
    if sent is not None and len(sent.body) > 8:
        assert sent.body.decode("utf-8", "replace") not in text


def assert_refused(answer: TestResponse, status: int, sent: Sent) -> None:
    """A refusal in the words of B2.10: a problem from the closed list, or a Fault."""
    assert answer.status_code == status
    assert_leaks_nothing(answer, sent)
    if is_soap(sent) and "/webhooks/salesforce" in sent.target:
        assert answer.content_type == "text/xml; charset=utf-8"
        (fault,) = ET.fromstring(answer.data).iter(
            "{http://schemas.xmlsoap.org/soap/envelope/}Fault"
        )
        code = fault.findtext("faultcode")
        assert code == ("soapenv:Client" if status < 500 else "soapenv:Server")
        assert fault.findtext("faultstring")
        return
    assert answer.content_type == "application/problem+json"
    problem = answer.get_json(force=True)
    assert set(problem) == {"type", "title", "status", "request_id"}
    assert problem["type"] == f"urn:sync-worker:problem:{PROBLEMS[status]}"
    assert problem["status"] == status


def assert_taken(answer: TestResponse, sent: Sent, **counts: int) -> None:
    """202 with these counts and no others; for SOAP the Ack, which carries none."""
    assert_leaks_nothing(answer, sent)
    if is_soap(sent):
        assert answer.status_code == 200
        assert answer.data == ACK
        assert answer.mimetype == "text/xml"
        return
    assert answer.status_code == 202
    assert answer.content_type == JSON
    told = answer.get_json()
    assert told.pop("request_id")
    expected = {"accepted": 0, "duplicates": 0, "ignored": 0, "rejected": 0} | counts
    assert told == expected


# ---- accepted


@good_deliveries
def test_b2_3_accepted_means_stored_and_woken(name, door):
    sent = GOOD[name]()
    assert_taken(door.send(sent), sent, accepted=1)
    assert door.woken == [BOXES[source_of(name)]]
    (change,) = door.changes()
    assert change.record.mailbox == BOXES[source_of(name)]
    assert change.kind is Kind.LINKED
    assert change.customer_id == "8714402"
    assert door.counters()["accepted"] == 1


@good_deliveries
def test_b2_11_a_repeat_is_a_duplicate_and_wakes_nobody(name, door):
    sent = GOOD[name]()
    door.send(sent)
    door.woken.clear()
    assert_taken(door.send(sent), sent, duplicates=1)
    assert door.woken == []
    assert len(door.changes()) == 1
    assert door.counters()["duplicates"] == 1


def test_b2_3_the_request_id_of_the_answer_is_kept_with_the_change(door):
    answer = door.send(hubspot([contact_linked()]))
    (change,) = door.changes()
    assert change.request_id == answer.get_json()["request_id"]


def test_b2_3_a_request_of_many_records_wakes_each_of_them_once(door):
    events = [contact_linked(eventId=n, objectId=1000 + n // 2) for n in range(6)]
    sent = hubspot(events)
    assert_taken(door.send(sent), sent, accepted=6)
    assert sorted(door.woken) == [f"hubspot:{PORTAL}:contact:{n}" for n in (1000, 1001, 1002)]
    assert len(door.changes()) == 6


def test_b2_3_a_soap_message_of_many_notifications_is_stored_whole(door):
    ids = ["0015g00001LwZ3kAAF", "0015g00001LwZ4RAAV"]
    sent = soap(outbound(*(notification(f"04l5g00000Qm7X{n}AAJ", ids[n]) for n in (0, 1))))
    assert_taken(door.send(sent), sent)
    assert [change.record.id for change in door.changes()] == ids


@pytest.mark.parametrize("name", samples.NAMES)
def test_every_sample_is_taken(name, client):
    """What `send` and the tour send is what the door takes."""
    configured = settings(
        hubspot_reference_property="billing_reference", salesforce_reference_field="Ref__c"
    )
    door = Door(client, configured)
    request = samples.build(name, configured, now=now_ms() / 1000)
    headers = {key.lower(): value for key, value in request.headers.items()}
    answer = door.send(Sent(request.path, request.body, headers, request.method))
    if "soap" in name:
        assert (answer.status_code, answer.data) == (200, ACK)
    else:
        assert answer.status_code == 202
        assert answer.get_json()["rejected"] == 0
    assert door.letters() == []


@pytest.mark.parametrize("proof", ["url", "signature", "header"])
def test_b2_6_soap_success_is_exactly_the_ack_envelope(proof, door):
    answer = door.send(soap(outbound(notification()), proof=proof))
    assert answer.status_code == 200
    assert answer.content_type == "text/xml; charset=utf-8"
    assert answer.data == ACK


def test_b2_6_a_record_deleted_before_delivery_is_acknowledged(door):
    sent = soap(outbound("<Notification><Id>04l5g00000Qm7XaAAJ</Id></Notification>"))
    assert_taken(door.send(sent), sent)
    assert door.woken == []


def test_b2_12_the_test_button_of_hubspot_is_ignored(door):
    sent = hubspot([contact_linked(objectId=123, eventId=100)])
    assert_taken(door.send(sent), sent, ignored=1)
    assert door.counters()["ignored|hubspot|test event"] == 1
    assert door.changes() == []
    assert door.woken == []


def test_b2_12_what_is_of_no_use_is_counted_and_not_stored(door):
    events = [
        contact_linked(subscriptionType="deal.creation"),
        contact_linked(propertyName="firstname", propertyValue="Ada"),
        contact_linked(),
    ]
    sent = hubspot(events)
    assert_taken(door.send(sent), sent, accepted=1, ignored=2)
    assert len(door.changes()) == 1
    assert not [text for text in hoard(door.client) if "Ada" in text]


def test_b3_10_an_overflow_owes_a_reconcile(door):
    event = account_created()
    event["payload"]["ChangeEventHeader"] |= {"changeType": "GAP_OVERFLOW", "recordIds": []}
    sent = salesforce(event)
    assert_taken(door.send(sent), sent)
    assert "GAP_OVERFLOW" in door.client.hget("sw:reconcile", "salesforce")


# ---- row: no, wrong or stale signature or token -> 401, not kept, counted by reason


def untimed(version: str) -> Sent:
    return hubspot([contact_linked()]).but_headers(
        x_hubspot_signature_v3=None,
        x_hubspot_signature="0" * 64,
        x_hubspot_signature_version=version,
    )


UNAUTHENTICATED: dict[str, tuple[str, Callable[[], Sent]]] = {
    "hubspot, none": (
        "missing",
        lambda: hubspot([contact_linked()]).but_headers(x_hubspot_signature_v3=None),
    ),
    "hubspot, of another secret": (
        "wrong",
        lambda: hubspot([contact_linked()], secret="another-secret"),
    ),
    "hubspot, over another body": (
        "wrong",
        lambda: hubspot([contact_linked()]).but(body=b"[]"),
    ),
    "hubspot, over another address": (
        "wrong",
        lambda: hubspot([contact_linked()], signed="https://elsewhere.example/webhooks/hubspot"),
    ),
    "hubspot, for another time": (
        "wrong",
        lambda: hubspot([contact_linked()]).but_headers(
            x_hubspot_request_timestamp=str(now_ms() - 1000)
        ),
    ),
    "hubspot, six minutes old": (
        "stale",
        lambda: hubspot([contact_linked()], skew_seconds=-360),
    ),
    "hubspot, six minutes ahead": (
        "stale",
        lambda: hubspot([contact_linked()], skew_seconds=360),
    ),
    "hubspot, without a time": (
        "timestamp",
        lambda: hubspot([contact_linked()]).but_headers(x_hubspot_request_timestamp=None),
    ),
    "hubspot, with a time that is none": (
        "timestamp",
        lambda: hubspot([contact_linked()]).but_headers(x_hubspot_request_timestamp="soon"),
    ),
    "hubspot, v1": ("untimed", lambda: untimed("v1")),
    "hubspot, v2": ("untimed", lambda: untimed("v2")),
    "salesforce, none": ("missing", lambda: salesforce(account_created(), proof="none")),
    "salesforce, wrong token in the header": (
        "wrong",
        lambda: salesforce(account_created(), proof="header", token="guess"),
    ),
    "salesforce, wrong bearer": (
        "wrong",
        lambda: salesforce(account_created(), proof="bearer", token="guess"),
    ),
    "salesforce, wrong token in the path": (
        "wrong",
        lambda: salesforce(account_created(), proof="url", token="guess"),
    ),
    "salesforce, of another secret": (
        "wrong",
        lambda: salesforce(account_created(), secret="another"),
    ),
    "salesforce, six minutes old": (
        "stale",
        lambda: salesforce(account_created(), skew_seconds=-360),
    ),
    "salesforce, six minutes ahead": (
        "stale",
        lambda: salesforce(account_created(), skew_seconds=360),
    ),
    "salesforce, without a time": (
        "timestamp",
        lambda: salesforce(account_created()).but_headers(x_signature="v1=" + "0" * 64),
    ),
    "salesforce, URL token alone for a shape that names no organisation": (
        "weak",
        lambda: salesforce({"payload": account_created()["payload"]}, proof="url"),
    ),
    "soap, none": ("missing", lambda: soap(outbound(notification()), proof="none")),
    "soap, wrong token in the path": (
        "wrong",
        lambda: soap(outbound(notification()), token="guess"),
    ),
    "soap, of another secret": (
        "wrong",
        lambda: soap(outbound(notification()), proof="signature", secret="another"),
    ),
    "soap, six minutes old": (
        "stale",
        lambda: soap(outbound(notification()), proof="signature", skew_seconds=-360),
    ),
    "geotab, none": ("missing", lambda: geotab(customer_linked(), proof="none")),
    "geotab, wrong token in the header": (
        "wrong",
        lambda: geotab(customer_linked(), proof="header", token="guess"),
    ),
    "geotab, wrong token in the path": (
        "wrong",
        lambda: geotab(customer_linked(), proof="url", token="guess"),
    ),
    "geotab, wrong token in the form": ("wrong", lambda: form(customer_linked(), "guess")),
    "geotab, form without a token": ("missing", lambda: form(customer_linked(), None)),
    "geotab, empty token in the form": ("wrong", lambda: form(customer_linked(), "")),
    "geotab, of another secret": ("wrong", lambda: geotab(customer_linked(), secret="another")),
    "geotab, six minutes old": ("stale", lambda: geotab(customer_linked(), skew_seconds=-360)),
    "geotab, six minutes ahead": ("stale", lambda: geotab(customer_linked(), skew_seconds=360)),
    "geotab, without a time": (
        "timestamp",
        lambda: geotab(customer_linked()).but_headers(x_signature="v1=" + "0" * 64),
    ),
    # A stronger proof that is present and fails is final (B2.4).
    "salesforce, right token beside a wrong signature": (
        "wrong",
        lambda: salesforce(account_created(), proof="url").but_headers(
            x_signature=x_signature("another", b""), x_webhook_token=SALESFORCE_TOKEN
        ),
    ),
    "salesforce, right token in the path beside a wrong one in the header": (
        "wrong",
        lambda: salesforce(account_created(), proof="url").but_headers(x_webhook_token="guess"),
    ),
    "soap, right token in the path beside a wrong signature": (
        "wrong",
        lambda: soap(outbound(notification())).but_headers(x_signature=x_signature("another", b"")),
    ),
    "geotab, right token beside a wrong signature": (
        "wrong",
        lambda: geotab(customer_linked(), proof="url").but_headers(
            x_signature=x_signature("another", b""), x_webhook_token=GEOTAB_TOKEN
        ),
    ),
    "geotab, right token in the path beside a wrong one in the form": (
        "wrong",
        lambda: form(customer_linked(), "guess").but(target=f"/webhooks/geotab/{GEOTAB_TOKEN}"),
    ),
}


@pytest.mark.parametrize("name", UNAUTHENTICATED)
def test_b2_10_401_no_wrong_or_stale_proof(name, door):
    reason, make = UNAUTHENTICATED[name]
    sent = make()
    assert_refused(door.send(sent), 401, sent)
    source = source_of(name.partition(",")[0])
    assert door.counters() == {f"refused|{source}|{reason}": 1}
    assert door.kept_nothing()
    assert door.woken == []


@pytest.mark.parametrize("skew", [-290, 290])
@pytest.mark.parametrize(
    "make",
    [
        lambda skew: hubspot([contact_linked()], skew_seconds=skew),
        lambda skew: salesforce(account_created(), skew_seconds=skew),
        lambda skew: geotab(customer_linked(), skew_seconds=skew),
    ],
    ids=["hubspot", "salesforce", "geotab"],
)
def test_b2_5_clocks_may_differ_by_five_minutes(make, skew, door):
    sent = make(skew)
    assert_taken(door.send(sent), sent, accepted=1)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_b2_5_untimed_signatures_only_where_allowed(version, client):
    configured = settings(hubspot_allow_untimed_signatures=True)
    door = Door(client, configured)
    body = json.dumps([contact_linked()]).encode()
    base = body if version == "v1" else b"POSThttps://hooks.example.com/webhooks/hubspot" + body
    headers = {
        "content-type": JSON,
        "x-hubspot-signature": hashlib.sha256(HUBSPOT_SECRET.encode() + base).hexdigest(),
        "x-hubspot-signature-version": version,
    }
    sent = Sent("/webhooks/hubspot", body, headers)
    assert_taken(door.send(sent), sent, accepted=1)
    wrong = sent.but_headers(x_hubspot_signature="0" * 64)
    assert_refused(door.send(wrong), 401, wrong)


# ---- rows: foreign tenants

FOREIGN: dict[str, tuple[int, Callable[[], Sent]]] = {
    "hubspot": (2, lambda: hubspot([contact_linked(portalId=OTHER_PORTAL)] * 2)),
    "salesforce": (1, lambda: salesforce(account_created(organizationId=OTHER_ORG))),
    "soap": (2, lambda: soap(outbound(notification(), notification("x"), org=OTHER_ORG))),
    "soap-signed": (1, lambda: soap(outbound(notification(), org=OTHER_ORG), proof="signature")),
    "geotab": (3, lambda: geotab([customer_linked(account="OTHER")] * 3)),
    "geotab-form": (1, lambda: form(customer_linked(account="OTHER"))),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_b2_10_403_every_event_is_of_a_foreign_tenant(name, door, caplog):
    events, make = FOREIGN[name]
    sent = make()
    assert_refused(door.send(sent), 403, sent)
    source = source_of(name)
    assert door.counters() == {
        f"refused|{source}|foreign_tenant": 1,
        f"foreign|{source}": events,
    }
    assert door.kept_nothing()
    assert "foreign tenant" in caplog.text


MIXED: dict[str, Callable[[], Sent]] = {
    "hubspot": lambda: hubspot([contact_linked(portalId=OTHER_PORTAL), contact_linked()]),
    "salesforce": lambda: salesforce(
        [account_created(), account_created(organizationId=OTHER_ORG)], proof="url"
    ),
    "geotab": lambda: geotab([customer_linked(), customer_linked(account="acct01")]),
}


@pytest.mark.parametrize("name", MIXED)
def test_b2_10_202_some_events_are_of_a_foreign_tenant(name, door, caplog):
    sent = MIXED[name]()
    assert_taken(door.send(sent), sent, accepted=1, rejected=1)
    assert mailboxes(door.changes()) == [BOXES[name]]
    assert door.counters() == {"accepted": 1, "duplicates": 0, f"foreign|{name}": 1}
    assert door.letters() == []
    assert "foreign tenant" in caplog.text


def test_b2_9_organisations_are_compared_on_15_characters(door):
    sent = soap(outbound(notification(), org=ORG[:15]))
    assert_taken(door.send(sent), sent)
    assert len(door.changes()) == 1


# ---- row: source not configured -> 404

UNSET: dict[Source, dict[str, Any]] = {
    Source.HUBSPOT: {"hubspot_client_secret": ""},
    Source.SALESFORCE: {"salesforce_webhook_token": "", "salesforce_webhook_secret": ""},
    Source.GEOTAB: {"geotab_webhook_token": "", "geotab_webhook_secret": ""},
}


@pytest.mark.parametrize("method", ["POST", "GET", "HEAD", "OPTIONS", "PROPFIND"])
@good_deliveries
def test_b2_10_404_source_not_configured_whatever_the_method(name, method, client):
    """404 comes before 405 (B2.4): nothing tells that there could be something."""
    door = Door(client, settings(**UNSET[Source(source_of(name))]))
    sent = GOOD[name]().but(method=method)
    answer = door.send(sent)
    if method == "HEAD":
        assert answer.status_code == 404
    else:
        assert_refused(answer, 404, sent)
    assert "Allow" not in answer.headers
    assert not client.keys("*")


def test_b2_4_sources_are_configured_one_by_one(client):
    door = Door(client, settings(**UNSET[Source.HUBSPOT], **UNSET[Source.SALESFORCE]))
    assert door.send(GOOD["hubspot"]()).status_code == 404
    assert door.send(GOOD["geotab"]()).status_code == 202


@pytest.mark.parametrize(
    "path",
    ["/", "/webhooks", "/webhooks/", "/webhooks/stripe", "/webhooks/hubspot/x", "/webhooks//x"],
)
def test_there_is_nothing_elsewhere(path, door):
    sent = Sent(path, b"{}", {"content-type": JSON})
    assert_refused(door.send(sent), 404, sent)


# ---- row: wrong method -> 405


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
)
@good_deliveries
def test_b2_10_405_wrong_method(name, method, door):
    sent = GOOD[name]().but(method=method)
    answer = door.send(sent)
    if method == "HEAD":
        assert answer.status_code == 405
    else:
        assert_refused(answer, 405, sent)
    assert answer.headers["Allow"] == "POST"
    assert not door.client.keys("*")


# ---- row: body over MAX_BODY_BYTES -> 413, also when chunked


@pytest.fixture
def narrow(client: redis.Redis) -> Door:
    return Door(client, settings(max_body_bytes=2048))


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@good_deliveries
def test_b2_10_413_body_too_large(name, chunked, narrow, caplog):
    sent = GOOD[name]().but(body=b" " * 2049, chunked=chunked)
    assert_refused(narrow.send(sent), 413, sent)
    assert narrow.counters() == {f"refused|{source_of(name)}|too_large": 1}
    assert narrow.kept_nothing()
    assert [r.levelno for r in caplog.records if "TOO_LARGE" in r.message] == [logging.ERROR]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_b2_10_a_body_of_exactly_the_limit_is_taken(chunked, narrow):
    body = json.dumps([contact_linked()]).encode().ljust(2048)
    sent = hubspot(body).but(chunked=chunked)
    assert_taken(narrow.send(sent), sent, accepted=1)


@one_of_each
def test_b2_10_a_chunked_body_is_taken(name, door):
    sent = GOOD[name]().but(chunked=True)
    assert_taken(door.send(sent), sent, accepted=1)


def test_b2_10_413_by_the_length_alone_before_the_body_came(narrow):
    sent = GOOD["hubspot"]().but(body=b" " * 2049, cut_at=10)
    assert_refused(narrow.send(sent), 413, sent)


def test_b2_10_413_what_follows_the_limit_is_not_just_dropped(narrow):
    """The first 2,048 bytes are a whole form, authentic and of use."""
    whole = form(customer_linked()).body + b"&pad="
    long = Sent("/webhooks/geotab", whole.ljust(2048, b"x") + b"y", {"content-type": FORM})
    for sent in (long, long.but(chunked=True)):
        assert_refused(narrow.send(sent), 413, sent)
    assert narrow.kept_nothing()


# ---- row: content type that the source never sends -> 415

STRANGE_TYPES = {
    "hubspot": [
        None,
        "",
        "text/plain",
        "text/xml",
        FORM,
        "application/jsonp",
        "multipart/form-data",
    ],
    "salesforce": [None, "", "application/xml", "application/soap+xml", FORM, "text/html"],
    "geotab": [None, "", "text/xml", "text/plain", "multipart/form-data; boundary=x"],
}


@pytest.mark.parametrize(
    ("name", "content_type"),
    [(name, kind) for name, kinds in STRANGE_TYPES.items() for kind in kinds],
)
def test_b2_10_415_content_type_that_the_source_never_sends(name, content_type, door):
    sent = GOOD[name]().but_headers(content_type=content_type)
    answer = door.send(sent)
    assert answer.status_code == 415
    assert answer.content_type == "application/problem+json"
    assert answer.get_json(force=True)["type"].endswith(":unsupported-media-type")
    assert_leaks_nothing(answer, sent)
    assert door.counters() == {f"refused|{name}|media_type": 1}
    assert door.kept_nothing()


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8 "],
)
def test_content_types_are_compared_as_http_has_it(content_type, door):
    sent = GOOD["hubspot"]().but_headers(content_type=content_type)
    assert_taken(door.send(sent), sent, accepted=1)


# ---- order of checks (B2.4): 404, 405, 413, 415, 401, 400, 403


def test_b2_4_405_before_413(narrow):
    sent = GOOD["hubspot"]().but(method="PUT", body=b" " * 4096)
    assert_refused(narrow.send(sent), 405, sent)


def test_b2_4_413_before_415(narrow):
    sent = GOOD["hubspot"]().but(body=b" " * 4096).but_headers(content_type="text/plain")
    assert_refused(narrow.send(sent), 413, sent)


def test_b2_4_413_before_401(narrow):
    sent = Sent("/webhooks/geotab/guess", b" " * 4096, {"content-type": JSON})
    assert_refused(narrow.send(sent), 413, sent)


def test_b2_4_415_before_401(door):
    sent = Sent("/webhooks/geotab/guess", b"{}", {"content-type": "text/plain"})
    assert_refused(door.send(sent), 415, sent)


@one_of_each
def test_b2_4_401_before_400(name, door):
    sent = GOOD[name]().but(target=f"/webhooks/{source_of(name)}", body=b"\x00 nothing")
    sent = sent.but_headers(x_signature=None)
    assert_refused(door.send(sent), 401, sent)
    assert door.letters() == []


def test_b2_4_400_before_403(door):
    """A body that is cut short is not judged by the tenant it happens to name."""
    sent = geotab(b'{"account":"OTHER","event_type":', proof="url")
    assert_refused(door.send(sent), 400, sent)


# ---- rows: undecodable

UNREADABLE: dict[str, Callable[[str], Sent]] = {
    "hubspot": lambda text: hubspot(b"[{" + text.encode()),
    "salesforce": lambda text: salesforce(b"[{" + text.encode()),
    "soap-signed": lambda text: soap(b"<cut " + text.encode(), proof="signature"),
    "geotab": lambda text: geotab(b"[{" + text.encode()),
}

CUT_SHORT: dict[str, Callable[[str], Sent]] = {
    "salesforce-url": lambda text: salesforce(b"[{" + text.encode(), proof="url"),
    "salesforce-header": lambda text: salesforce(b"[{" + text.encode(), proof="header"),
    "salesforce-bearer": lambda text: salesforce(b"[{" + text.encode(), proof="bearer"),
    "soap-url": lambda text: soap(outbound(notification())[:200] + text.encode()),
    "soap-header": lambda text: soap(b"<cut " + text.encode(), proof="header"),
    "geotab-url": lambda text: geotab(b"[{" + text.encode(), proof="url"),
    "geotab-header": lambda text: geotab(b"[{" + text.encode(), proof="header"),
    "geotab-form": lambda text: form({"a": text}).but(
        body=f"token={GEOTAB_TOKEN}&account={ACCOUNT}&a={text}&a=again".encode()
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_b2_10_202_undecodable_under_a_signature_one_letter_per_body(name, door):
    for sent in (UNREADABLE[name]("one"), UNREADABLE[name]("one"), UNREADABLE[name]("two")):
        assert_taken(door.send(sent), sent, rejected=1)
    first, second = sorted(door.letters(), key=lambda letter: int(letter.id))
    assert first.raw == UNREADABLE[name]("one").body
    assert second.raw == UNREADABLE[name]("two").body
    assert first.reason == second.reason == Reason.UNDECODABLE
    assert first.source == source_of(name)
    assert door.counters()[f"undecodable|{source_of(name)}"] == 3
    assert door.counters()["dead_letters_written|undecodable"] == 2
    assert door.changes() == []
    assert door.woken == []


@pytest.mark.parametrize("name", CUT_SHORT)
def test_b2_10_400_undecodable_under_a_bare_token_with_the_same_letter(name, door):
    for sent in (CUT_SHORT[name]("one"), CUT_SHORT[name]("one"), CUT_SHORT[name]("two")):
        assert_refused(door.send(sent), 400, sent)
    first, second = sorted(door.letters(), key=lambda letter: int(letter.id))
    assert b"one" in (first.raw or b"")
    assert b"two" in (second.raw or b"")
    assert first.reason == second.reason == Reason.UNDECODABLE
    assert door.counters()[f"undecodable|{source_of(name)}"] == 3
    assert door.changes() == []


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE a [<!ENTITY b "c">]>',
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a.dtd">',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    ],
)
def test_b2_7_dtds_and_entities_are_refused(body, door):
    message = outbound(notification()).replace(b"?>", b"?>" + body, 1)
    sent = soap(message)
    assert_refused(door.send(sent), 400, sent)
    assert door.changes() == []


# ---- row: one event of an array undecodable

PARTLY: dict[str, tuple[bytes, Callable[[], Sent]]] = {
    "hubspot, no object": (
        b'"objectId": "none"',
        lambda: hubspot([contact_linked(objectId="none"), contact_linked()]),
    ),
    "hubspot, no tenant": (
        b'"portalId": null',
        lambda: hubspot([contact_linked(), contact_linked(portalId=None)]),
    ),
    "hubspot, a tenant that does not parse": (
        b'"portalId": "ours"',
        lambda: hubspot([contact_linked(), contact_linked(portalId="ours")]),
    ),
    "hubspot, no object at all": (b"17", lambda: hubspot([17, contact_linked()])),
    "hubspot, half a surrogate": (
        b"\\ud800",
        lambda: hubspot([contact_linked(), contact_linked(propertyValue="\ud800")]),
    ),
    "salesforce, no shape": (
        b'{"hello": 1}',
        lambda: salesforce([{"hello": 1}, account_created()]),
    ),
    "salesforce, a tenant that does not parse": (
        b'"ours"',
        lambda: salesforce([account_created(), account_created(organizationId="ours")]),
    ),
    "soap, a record id that is none": (
        b"not-an-id",
        lambda: soap(outbound(notification("x", "not-an-id"), notification())),
    ),
    "geotab, a number for an id": (
        b'"reseller_customer_id": 70441',
        lambda: geotab([customer_linked(reseller_customer_id=70441), customer_linked()]),
    ),
    "geotab, no tenant": (
        b'"account": null',
        lambda: geotab([customer_linked(account=None), customer_linked()], proof="url"),
    ),
}


@pytest.mark.parametrize("name", PARTLY)
def test_b2_10_202_one_event_undecodable_the_rest_accepted(name, door):
    piece, make = PARTLY[name]
    source = source_of(name.partition(",")[0])
    sent = make()
    assert_taken(door.send(sent), sent, accepted=1, rejected=1)
    assert mailboxes(door.changes()) == [BOXES[source]]
    (letter,) = door.letters()
    assert letter.reason == Reason.UNDECODABLE
    assert piece in (letter.raw or b"")
    assert BOXES[source].rpartition(":")[2].encode() not in (letter.raw or b"") or (
        "tenant" in name or "surrogate" in name
    )
    assert door.counters()[f"undecodable|{source}"] == 1


def test_b2_10_the_repeat_of_a_partly_undecodable_body_writes_no_second_letter(door):
    sent = PARTLY["hubspot, no object"][1]()
    door.send(sent)
    assert_taken(door.send(sent), sent, duplicates=1, rejected=1)
    assert len(door.letters()) == 1


@pytest.mark.parametrize(("distinct", "letters"), [(100, 100), (101, 1), (5000, 1)])
def test_b2_10_of_very_many_undecodable_events_the_body_is_kept_once(distinct, letters, door):
    """A letter for each would keep the store busy, and everybody else waiting."""
    sent = hubspot([*range(distinct), contact_linked()])
    assert_taken(door.send(sent), sent, accepted=1, rejected=distinct)
    assert len(door.letters()) == letters
    assert door.counters()["undecodable|hubspot"] == distinct
    if letters == 1:
        (letter,) = door.letters()
        assert letter.raw == sent.body
        assert f"{distinct} of its events" in letter.message


def test_b2_10_equal_undecodable_events_are_one_letter(door):
    sent = hubspot([17] * 5000)
    assert_taken(door.send(sent), sent, rejected=5000)
    (letter,) = door.letters()
    assert letter.raw == b"17"
    assert door.client.hlen(f"sw:dead:{letter.id}:changes") == 1


def test_b2_6_a_body_kept_whole_for_its_many_faults_is_redacted_too(door, caplog):
    odd = [{"SessionId": SESSION, "n": n} for n in range(200)]
    assert door.send(salesforce(odd)).status_code == 202
    assert len(door.letters()) == 1
    assert_nowhere(door, caplog, SESSION)


# ---- row: store unreachable, read-only, or above 90 % of its memory -> 503


def assert_unavailable(answer: TestResponse, sent: Sent) -> None:
    assert_refused(answer, 503, sent)
    assert int(answer.headers["Retry-After"]) > 0


ALL_WAYS_IN = [*GOOD, *UNREADABLE, *CUT_SHORT]


def any_delivery(name: str) -> Sent:
    return GOOD[name]() if name in GOOD else (UNREADABLE | CUT_SHORT)[name]("x")


@one_of_each
def test_b2_10_503_store_unreachable(name):
    with store.connect("redis://127.0.0.1:1/0") as nowhere:
        door = Door(nowhere)
        sent = GOOD[name]()
        assert_unavailable(door.send(sent), sent)
        assert door.woken == []


@pytest.mark.parametrize("name", [*UNREADABLE, *CUT_SHORT])
def test_b2_10_503_goes_for_what_cannot_be_read_too(name):
    """A 202 or 400 without its dead letter would lose the body."""
    with store.connect("redis://127.0.0.1:1/0") as nowhere:
        sent = any_delivery(name)
        assert_unavailable(Door(nowhere).send(sent), sent)


def test_b2_10_401_needs_no_store():
    with store.connect("redis://127.0.0.1:1/0") as nowhere:
        sent = hubspot([contact_linked()], secret="another")
        assert_refused(Door(nowhere).send(sent), 401, sent)


def test_b2_10_503_while_the_store_is_down_and_202_when_it_is_back(own_redis):
    with store.connect(own_redis.url) as client:
        door = Door(client)
        deliveries = [GOOD[name]() for name in ONE_EACH]
        door.send(hubspot([contact_linked(eventId=1)]))  # the connection is in use
        door.changes()
        own_redis.stop()
        for sent in deliveries:
            assert_unavailable(door.send(sent), sent)
        own_redis.start()
        for sent in deliveries:
            answer = door.send(sent)
            assert answer.status_code == (200 if is_soap(sent) else 202)
        assert len(door.woken) == 1 + 2  # HubSpot's was in work; both of Geotab's are of one
        assert client.hlen(f"sw:box:{BOXES['hubspot']}") == 2


@one_of_each
def test_b2_10_503_read_only_store(name, door):
    sent = GOOD[name]()
    door.client.replicaof("127.0.0.1", 1)
    try:
        assert_unavailable(door.send(sent), sent)
        assert not door.client.keys("*")
    finally:
        door.client.replicaof("NO", "ONE")
    assert_taken(door.send(sent), sent, accepted=1)


@pytest.fixture
def nearly_full(client: redis.Redis) -> Iterator[redis.Redis]:
    """The store at about 95 % of its memory."""
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] / 0.95))
    try:
        yield client
    finally:
        client.config_set("maxmemory", 0)


@one_of_each
def test_b2_10_503_above_90_percent_of_memory(name, nearly_full):
    door, sent = Door(nearly_full), GOOD[name]()
    assert_unavailable(door.send(sent), sent)
    assert not nearly_full.keys("*")
    assert door.woken == []
    nearly_full.config_set("maxmemory", 0)
    assert_taken(door.send(sent), sent, accepted=1)
    assert mailboxes(door.changes()) == [BOXES[source_of(name)]]


# ---- what goes wrong inside


@one_of_each
def test_an_unexpected_exception_is_503_and_the_retry_is_taken(name, door, monkeypatch, caplog):
    def broken(*_: Any) -> Any:
        raise RuntimeError("out of order")

    sent = GOOD[name]()
    reader = READERS[Source(source_of(name))]
    for step in ("authenticate", "decode"):
        with monkeypatch.context() as patch:
            patch.setattr(reader, step, broken)
            answer = door.send(sent)
        assert_unavailable(answer, sent)
        assert "out of order" not in answer.get_data(as_text=True)
        assert door.kept_nothing()
    assert [r.levelno for r in caplog.records if r.exc_info] == [logging.ERROR] * 2
    assert_taken(door.send(sent), sent, accepted=1)


def test_an_exception_in_accepting_is_503_too(door, monkeypatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise RecursionError

    sent = GOOD["hubspot"]()
    with monkeypatch.context() as patch:
        patch.setattr(Inbox, "accept", broken)
        assert_unavailable(door.send(sent), sent)
    assert_taken(door.send(sent), sent, accepted=1)


@one_of_each
def test_a_body_that_is_cut_off_is_not_taken(name, door):
    """A form without its last digit reads like a whole one, of another customer."""
    sent = GOOD[name]()
    sent = sent.but(cut_at=len(sent.body) - 1)
    answer = door.send(sent)
    assert answer.status_code == 400
    assert_leaks_nothing(answer, sent)
    assert not door.client.keys("*")


# ---- B2.1: routes


@pytest.mark.parametrize("method", ["POST", "GET"])
@good_deliveries
def test_b2_1_a_trailing_slash_is_served_never_redirected(name, method, door):
    with_slash = {
        "hubspot": lambda: hubspot([contact_linked()], target="/webhooks/hubspot/"),
    }.get(name)
    sent = with_slash() if with_slash else GOOD[name]()
    if not with_slash:
        sent = sent.but(target=sent.target + "/")
    answer = door.send(sent.but(method=method))
    assert "Location" not in answer.headers
    if method == "GET":
        assert answer.status_code == 405
    else:
        assert_taken(answer, sent, accepted=1)


@pytest.mark.parametrize(
    "token",
    ["a/b+c==", "/a//b", "a/b/", "/", "sp ace", "per%cent", "%2F", "übung-token", "q?u#e&r"],
)
def test_b2_1_any_token_may_stand_in_the_path(token, client):
    """Tokens made with base64 hold slashes: percent-encoded, they are found again."""
    door = Door(client, settings(geotab_webhook_token=token, salesforce_webhook_token=token))
    for sent in (
        geotab(customer_linked(), proof="url", token=token),
        soap(outbound(notification()), token=token),
    ):
        assert_taken(door.send(sent), sent, accepted=1)
        slash = sent.but(target=sent.target + "/")
        assert_taken(door.send(slash), slash, duplicates=1)


# ---- B2.5: the address that HubSpot signs


@pytest.mark.parametrize("target", ["/webhooks/hubspot", "/hooks/fb/webhooks/hubspot"])
@pytest.mark.parametrize(
    "public_url", ["https://a.example/hooks/fb", "https://a.example/hooks/fb/"]
)
def test_b2_5_a_path_in_public_url_is_served_with_and_without_it(public_url, target, client):
    door = Door(client, settings(public_url=public_url))
    signed = "https://a.example/hooks/fb/webhooks/hubspot"
    sent = hubspot([contact_linked()], target=target, signed=signed)
    assert_taken(door.send(sent), sent, accepted=1)
    doubled = hubspot(
        [contact_linked()],
        target="/hooks/fb/webhooks/hubspot",
        signed="https://a.example/hooks/fb/hooks/fb/webhooks/hubspot",
    )
    assert_refused(door.send(doubled), 401, doubled)


@one_of_each
def test_b2_5_all_routes_are_served_below_the_path_of_public_url(name, client):
    door = Door(client, settings(public_url="https://a.example/hooks"))
    if name == "hubspot":
        sent = hubspot(
            [contact_linked()],
            target="/hooks/webhooks/hubspot",
            signed="https://a.example/hooks/webhooks/hubspot",
        )
    else:
        sent = GOOD[name]()
        sent = sent.but(target="/hooks" + sent.target)
    assert_taken(door.send(sent), sent, accepted=1)
    unreadable = soap(b"<cut").but(target=f"/hooks/webhooks/salesforce/{SALESFORCE_TOKEN}")
    assert_refused(door.send(unreadable), 400, unreadable)  # a Fault there as well


@pytest.mark.parametrize(
    ("query", "signed_query"),
    [
        ("?tenant=7", "?tenant=7"),
        ("?a=%2Fb%3Fc", "?a=/b?c"),  # of the twelve that HubSpot decodes
        ("?a=%2fb", "?a=%2fb"),  # not in lower case
        ("?a=%20b&c=%C3%A9+d", "?a=%20b&c=%C3%A9+d"),
        ("?a=%26&b=%3D", "?a=%26&b=%3D"),
        ("?", "?"),
    ],
)
def test_b2_5_the_query_is_signed_as_it_was_called(query, signed_query, door):
    signed = f"https://hooks.example.com/webhooks/hubspot{signed_query}"
    sent = hubspot([contact_linked()], target="/webhooks/hubspot" + query, signed=signed)
    assert_taken(door.send(sent), sent, accepted=1)
    without = hubspot(
        [contact_linked()],
        target="/webhooks/hubspot" + query,
        signed="https://hooks.example.com/webhooks/hubspot",
    )
    assert_refused(door.send(without), 401, without)


def test_b2_5_a_whole_address_in_the_request_line_is_the_same_target(door):
    """Proxies may write `POST https://host/path`."""
    sent = hubspot([contact_linked()])
    answer = door.http.post(
        sent.target,
        data=sent.body,
        headers=dict(sent.headers),
        environ_overrides={"RAW_URI": "http://10.0.0.7:8000/webhooks/hubspot"},
    )
    assert_taken(answer, sent, accepted=1)


def test_b2_5_the_signature_does_not_cover_the_host_we_were_called_by(door):
    sent = hubspot([contact_linked()]).but_headers(host="internal:8000", x_forwarded_proto="http")
    assert_taken(door.send(sent), sent, accepted=1)


# ---- B2.4: rotation


@pytest.mark.parametrize(
    ("setting", "make"),
    [
        ("hubspot_client_secret", lambda key: hubspot([contact_linked()], secret=key)),
        ("salesforce_webhook_secret", lambda key: salesforce(account_created(), secret=key)),
        (
            "salesforce_webhook_token",
            lambda key: salesforce(account_created(), proof="header", token=key),
        ),
        ("salesforce_webhook_token", lambda key: soap(outbound(notification()), token=key)),
        ("geotab_webhook_secret", lambda key: geotab(customer_linked(), secret=key)),
        ("geotab_webhook_token", lambda key: geotab(customer_linked(), proof="url", token=key)),
        ("geotab_webhook_token", lambda key: form(customer_linked(), key)),
    ],
)
def test_b2_4_while_a_secret_is_rotated_both_are_taken(setting, make, client):
    door = Door(client, settings(**{setting: "old-secret, new-secret"}))
    for key in ("old-secret", "new-secret"):
        sent = make(key)
        answer = door.send(sent)
        assert answer.status_code == (200 if is_soap(sent) else 202)
    for key in ("older-secret", "old-secret, new-secret", ""):
        sent = make(key)
        assert door.send(sent).status_code == 401


# ---- B2.6, B2.8, B10.4: what is never stored or logged


def assert_nowhere(door: Door, caplog: pytest.LogCaptureFixture, *secrets: str) -> None:
    texts = list(hoard(door.client))
    assert texts  # there is something to search
    for secret in secrets:
        for spelling in (secret, quote(secret, safe="")):
            assert not [text for text in texts if spelling in text]
            assert spelling not in caplog.text
            assert not [record for record in caplog.records if spelling in str(record.args or "")]


@pytest.mark.parametrize("proof", ["url", "signature"])
@pytest.mark.parametrize("cut", [None, -40, 500], ids=["whole", "cut at its end", "cut early"])
def test_b2_6_the_session_id_is_kept_nowhere(cut, proof, door, caplog):
    caplog.set_level(logging.DEBUG)
    for session in (f"<SessionId>{SESSION}</SessionId>", f"<n:SessionId>{SESSION}</n:SessionId>"):
        body = outbound(notification(), session=session)
        cut_in = body.index(SESSION.encode()) + 60
        for sent in (body[:cut], body[:cut_in] if cut else body):
            door.send(soap(sent, proof=proof))
    assert_nowhere(door, caplog, SESSION, SESSION[:50], SESSION[20:50])


def test_b2_6_the_session_id_of_an_unreadable_notification_is_kept_nowhere(door, caplog):
    odd = notification("x", "not-an-id").replace(
        "</sf:Id>", f"</sf:Id><SessionId>{SESSION}</SessionId>"
    )
    assert door.send(soap(outbound(odd, notification()))).status_code == 200
    assert len(door.letters()) == 1
    assert_nowhere(door, caplog, SESSION)


def test_b2_6_the_session_id_in_json_is_kept_nowhere(door, caplog):
    caplog.set_level(logging.DEBUG)
    good = account_created()
    good["payload"]["SessionId"] = SESSION
    for event in (good, {"sessionId": SESSION}, [good, {"SessionId": SESSION}]):
        door.send(salesforce(event))
        door.send(salesforce(json.dumps(event).encode()[:-3]))
    assert door.letters()
    assert_nowhere(door, caplog, SESSION)


@pytest.mark.parametrize("authentic", [True, False])
def test_b2_8_tokens_are_kept_nowhere_and_logged_nowhere(authentic, door, caplog):
    caplog.set_level(logging.DEBUG)
    token = GEOTAB_TOKEN if authentic else "an-almost-right-token"
    other = SALESFORCE_TOKEN if authentic else "an-almost-right-token"
    tokened = customer_linked(token=token, event_id="evt-with-token")
    for sent in (
        form(customer_linked(), token),
        form({"account": ACCOUNT, "event_type": "customer.linked"}, token),
        form({}, token).but(body=f"a=1&to%6Ben={token}&a=1&token={token}".encode()),
        form({}, token).but(body=f"token={token}&a=%ff".encode()),
        geotab(customer_linked(), proof="url", token=token),
        geotab(b"{cut", proof="url", token=token),
        geotab([tokened, tokened | {"account": None}], proof="header", token=token),
        geotab(json.dumps(tokened).encode()[:-4], proof="header", token=token),
        salesforce(account_created(), proof="bearer", token=other),
        salesforce(b"{cut", proof="url", token=other),
        soap(outbound(notification()), token=other),
        soap(b"<cut", token=other),
        geotab(customer_linked(), proof="url", token=token).but(method="GET"),
        geotab(customer_linked(), proof="url", token=token).but_headers(content_type="a/b"),
    ):
        assert_leaks_nothing(door.send(sent))
    assert bool(door.letters()) == authentic
    assert_nowhere(door, caplog, token, other)


def test_b2_8_secrets_and_signatures_are_kept_nowhere(door, caplog):
    caplog.set_level(logging.DEBUG)
    deliveries = [GOOD[name]() for name in ("hubspot", "salesforce", "geotab")]
    for sent in deliveries:
        door.send(sent)
        door.send(sent.but(body=sent.body + b" "))
    signatures = [
        value for sent in deliveries for name, value in sent.headers.items() if "signature" in name
    ]
    assert len(signatures) == 3
    assert_nowhere(door, caplog, *SECRETS, *signatures)


def test_b10_4_bodies_are_not_logged(door, caplog):
    caplog.set_level(logging.DEBUG)
    events = [
        contact_linked(propertyName="email", propertyValue="ada@example.com"),
        contact_linked(propertyName="email", propertyValue=["ada@example.com"]),
        contact_linked(portalId=OTHER_PORTAL, propertyValue="ada@example.com"),
    ]
    door.send(hubspot(events))
    door.send(hubspot(b"[ada@example.com"))
    assert "hubspot" in caplog.text
    assert "ada@" not in caplog.text


# ---- B2.8: Geotab's forms


def test_b2_8_a_form_over_64_kib_is_not_read_for_its_token(door):
    sent = form(customer_linked(pad="x" * 65536))
    assert_refused(door.send(sent), 401, sent)


def test_b2_8_the_token_of_a_form_that_names_two_is_wrong(door):
    body = f"token={GEOTAB_TOKEN}&token=guess&account={ACCOUNT}".encode()
    sent = Sent("/webhooks/geotab", body, {"content-type": FORM})
    assert_refused(door.send(sent), 401, sent)


# ---- answers


def test_b2_10_the_problem_types_are_a_closed_list():
    """Each row above checks its own; here, that there are no more."""
    assert {problem.value[1] for problem in Problem} == set(PROBLEMS.values())
    assert {problem.status for problem in Problem} == set(PROBLEMS)


def test_every_answer_has_its_own_request_id_and_the_log_names_it(door, caplog):
    caplog.set_level(logging.INFO)
    ids = set()
    for sent in (GOOD["hubspot"](), hubspot([contact_linked()], secret="x")):
        told = door.send(sent).get_json(force=True)
        ids.add(told["request_id"])
        assert told["request_id"] in caplog.text
    assert len(ids) == 2


def test_salesforce_secret_and_token_are_told_apart(door):
    """The HMAC key is no token, nor the other way round."""
    for sent in (
        salesforce(account_created(), proof="header", token=SALESFORCE_SECRET),
        salesforce(account_created(), secret=SALESFORCE_TOKEN),
        geotab(customer_linked(), proof="header", token=GEOTAB_SECRET),
        geotab(customer_linked(), secret=GEOTAB_TOKEN),
    ):
        assert_refused(door.send(sent), 401, sent)


def test_one_source_does_not_take_what_proves_another(door):
    sent = geotab(customer_linked(), proof="url", token=SALESFORCE_TOKEN)
    assert_refused(door.send(sent), 401, sent)
    body = json.dumps([contact_linked()]).encode()
    sent = Sent("/webhooks/hubspot", body, {"content-type": JSON, "x-webhook-token": GEOTAB_TOKEN})
    assert_refused(door.send(sent), 401, sent)
    stamp = str(now_ms())
    signed = hubspot_v3("https://hooks.example.com/webhooks/geotab", body, stamp)
    sent = Sent(
        "/webhooks/geotab",
        body,
        {"content-type": JSON, "x-hubspot-signature-v3": signed},
    )
    assert_refused(door.send(sent), 401, sent)
