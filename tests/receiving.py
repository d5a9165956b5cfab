"""What tests of the receiver share: an application on a real store, and requests to send it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlencode

import redis
from werkzeug.test import TestResponse

from sync_worker import dead_letters
from sync_worker.dead_letters import DeadLetter, Filter
from sync_worker.domain import Change
from sync_worker.inbox import Inbox
from sync_worker.settings import Settings, load
from sync_worker.status import read_counters
from webhooks.app import create_app

PORTAL = 24681357
OTHER_PORTAL = 99999999
ORG = "00D5g000007Kp2QEAS"
OTHER_ORG = "00D5g000007Kp9ZEAS"
ACCOUNT = "ACCT01"

HUBSPOT_SECRET = "hubspot-client-secret-4711"
SALESFORCE_TOKEN = "salesforce-url-token-4712"
SALESFORCE_SECRET = "salesforce-hmac-secret-4713"
GEOTAB_TOKEN = "geotab-form-token-4714"
GEOTAB_SECRET = "geotab-hmac-secret-4715"
SECRETS = (HUBSPOT_SECRET, SALESFORCE_TOKEN, SALESFORCE_SECRET, GEOTAB_TOKEN, GEOTAB_SECRET)

PUBLIC_URL = "https://hooks.example.com"

SETTINGS: dict[str, Any] = {
    "public_url": PUBLIC_URL,
    "hubspot_client_secret": HUBSPOT_SECRET,
    "hubspot_portal_id": str(PORTAL),
    "salesforce_webhook_token": SALESFORCE_TOKEN,
    "salesforce_webhook_secret": SALESFORCE_SECRET,
    "salesforce_org_id": ORG,
    "geotab_webhook_token": GEOTAB_TOKEN,
    "geotab_webhook_secret": GEOTAB_SECRET,
    "geotab_account": ACCOUNT,
}

JSON = "application/json"
XML = "text/xml; charset=UTF-8"
FORM = "application/x-www-form-urlencoded"


def settings(**changes: Any) -> Settings:
    """Settings with all three sources configured, but for `changes`."""
    return load(**(SETTINGS | changes))


@dataclass(frozen=True)
class Sent:
    """A request. `target` is the request line's, undecoded."""

    target: str
    body: bytes
    headers: Mapping[str, str]
    method: str = "POST"
    chunked: bool = False
    cut_at: int | None = None
    """Where the body ends although its length says otherwise."""

    def but(self, **changes: Any) -> Sent:
        return replace(self, **changes)

    def but_headers(self, **changes: str | None) -> Sent:
        """With headers added, replaced or (None) taken out; `_` stands for `-`."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        for name, value in changes.items():
            spelled = name.lower().replace("_", "-")
            headers.pop(spelled, None)
            if value is not None:
                headers[spelled] = value
        return replace(self, headers=headers)


@dataclass
class Door:
    """An application with its store, and the mailboxes it woke."""

    client: redis.Redis
    settings: Settings = field(default_factory=settings)
    woken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        app = create_app(self.settings, client=self.client, wake=self.woken.extend)
        self.http = app.test_client()

    def send(self, sent: Sent) -> TestResponse:
        """Send it as gunicorn would hand it on."""
        environ: dict[str, Any] = {"RAW_URI": sent.target, "wsgi.input_terminated": True}
        if sent.chunked:
            environ |= {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
        if sent.cut_at is not None:
            environ["wsgi.input"] = io.BytesIO(sent.body[: sent.cut_at])
        return self.http.open(
            sent.target,
            method=sent.method,
            headers=dict(sent.headers),
            data=sent.body,
            environ_overrides=environ,
        )

    @property
    def inbox(self) -> Inbox:
        return Inbox.of(self.client, self.settings)

    def changes(self) -> list[Change]:
        """What the mailboxes hold; claims all of them."""
        found: list[Change] = []
        for mailbox in sorted(self.client.zrange("sw:due", 0, -1)):
            claim = self.inbox.claim(mailbox)
            if claim is not None:
                found += [pending.change for pending in claim.pending]
        return found

    def letters(self) -> list[DeadLetter]:
        return list(dead_letters.find(self.client, Filter()))

    def counters(self) -> dict[str, int]:
        return read_counters(self.client)

    def kept_nothing(self) -> bool:
        """Whether nothing but counters is in the store."""
        return set(self.client.keys("*")) <= {"sw:count", "sw:probe", "sw:room"}


def hoard(client: redis.Redis) -> Iterator[str]:
    """Every text in the store: keys, fields, values, and bodies that are stored encoded."""
    for key in client.scan_iter():
        yield key
        match client.type(key):
            case "string":
                yield str(client.get(key))
            case "hash":
                for name, value in client.hgetall(key).items():
                    yield name
                    yield value
            case "set":
                yield from client.smembers(key)
            case "zset":
                yield from client.zrange(key, 0, -1)
            case "list":
                yield from client.lrange(key, 0, -1)
            case "stream":
                for _, fields in client.xrange(key):
                    yield from fields.values()
            case "none":
                pass  # it has just expired
            case other:
                raise AssertionError(f"look into {other} too")
    for letter in dead_letters.find(client, Filter()):
        yield (letter.raw or b"").decode("utf-8", "replace")


def now_ms() -> int:
    return int(time.time() * 1000)


def hubspot_v3(uri: str, body: bytes, timestamp: str, secret: str = HUBSPOT_SECRET) -> str:
    """HubSpot's v3 as its guide words it; `uri` is what it signs, decoded as documented."""
    base = b"POST" + uri.encode() + body + timestamp.encode()
    return base64.b64encode(hmac.new(secret.encode(), base, hashlib.sha256).digest()).decode()


def hubspot(
    events: Any,
    *,
    target: str = "/webhooks/hubspot",
    signed: str | None = None,
    secret: str = HUBSPOT_SECRET,
    skew_seconds: float = 0,
) -> Sent:
    """`signed` is the address that HubSpot signs, where it is not PUBLIC_URL and target."""
    body = events if isinstance(events, bytes) else json.dumps(events).encode()
    timestamp = str(int(now_ms() + skew_seconds * 1000))
    signature = hubspot_v3(signed or PUBLIC_URL + target, body, timestamp, secret)
    headers = {
        "content-type": JSON,
        "x-hubspot-request-timestamp": timestamp,
        "x-hubspot-signature-v3": signature,
    }
    return Sent(target, body, headers)


def x_signature(secret: str, body: bytes, skew_seconds: int = 0) -> str:
    """`X-Signature` as B2.8 words it."""
    seconds = int(time.time()) + skew_seconds
    mac = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256)
    return f"t={seconds},v1={mac.hexdigest()}"


def salesforce(
    event: Any,
    *,
    proof: str = "signature",
    token: str = SALESFORCE_TOKEN,
    secret: str = SALESFORCE_SECRET,
    skew_seconds: int = 0,
    content_type: str = JSON,
) -> Sent:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    headers = {"content-type": content_type}
    target = "/webhooks/salesforce"
    match proof:
        case "signature":
            headers["x-signature"] = x_signature(secret, body, skew_seconds)
        case "header":
            headers["x-webhook-token"] = token
        case "bearer":
            headers["authorization"] = f"Bearer {token}"
        case "url":
            target += "/" + quote(token, safe="")
    return Sent(target, body, headers)


def soap(body: bytes, *, proof: str = "url", **more: Any) -> Sent:
    return salesforce(body, proof=proof, content_type=XML, **more)


def geotab(
    events: Any,
    *,
    proof: str = "signature",
    token: str = GEOTAB_TOKEN,
    secret: str = GEOTAB_SECRET,
    skew_seconds: int = 0,
) -> Sent:
    body = events if isinstance(events, bytes) else json.dumps(events).encode()
    headers = {"content-type": JSON}
    target = "/webhooks/geotab"
    match proof:
        case "signature":
            headers["x-signature"] = x_signature(secret, body, skew_seconds)
        case "header":
            headers["x-webhook-token"] = token
        case "url":
            target += "/" + quote(token, safe="")
    return Sent(target, body, headers)


def form(event: Mapping[str, str], token: str | None = GEOTAB_TOKEN) -> Sent:
    fields = ({} if token is None else {"token": token}) | dict(event)
    return Sent("/webhooks/geotab", urlencode(fields).encode(), {"content-type": FORM})


def contact_linked(**more: Any) -> dict[str, Any]:
    """HubSpot: the Fusebill id of a contact was set."""
    return {
        "eventId": 3181526813,
        "subscriptionId": 5120344,
        "portalId": PORTAL,
        "appId": 8123456,
        "occurredAt": now_ms(),
        "subscriptionType": "contact.propertyChange",
        "attemptNumber": 0,
        "objectId": 512340077981,
        "propertyName": "fusebill_id",
        "propertyValue": "8714402",
    } | more


def account_created(**more: Any) -> dict[str, Any]:
    """Salesforce: change data capture of a new Account, naming its organisation."""
    header = {
        "entityName": "Account",
        "recordIds": ["0015g00001LwZ3kAAF"],
        "changeType": "CREATE",
        "transactionKey": "00051c25-27f7-8aed-d2b1",
        "sequenceNumber": 1,
        "commitTimestamp": now_ms(),
    }
    payload = {"ChangeEventHeader": header, "Fusebill_Id__c": "8714402"}
    return {"organizationId": ORG, "payload": payload} | more


def customer_linked(**more: Any) -> dict[str, Any]:
    """Geotab: a reseller customer was linked."""
    return {
        "event_id": "evt-0001",
        "event_type": "customer.linked",
        "occurred_at": "2026-11-20T14:03:07Z",
        "account": ACCOUNT,
        "reseller_customer_id": "0070441",
        "fusebill_id": "8714402",
    } | more


def outbound(
    *notifications: str, org: str = ORG, session: str = '<SessionId xsi:nil="true"/>'
) -> bytes:
    """A SOAP Outbound Message."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>'
        '<notifications xmlns="http://soap.sforce.com/2005/09/outbound">'
        f"<OrganizationId>{org}</OrganizationId><ActionId>04k5g0000008Rt1AAE</ActionId>"
        f"{session}{''.join(notifications)}"
        "</notifications></soapenv:Body></soapenv:Envelope>"
    ).encode()


def notification(
    id_: str = "04l5g00000Qm7XaAAJ", account: str = "0015g00001LwZ3kAAF", customer: str = "8714402"
) -> str:
    return (
        f'<Notification><Id>{id_}</Id><sObject xsi:type="sf:Account"'
        ' xmlns:sf="urn:sobject.enterprise.soap.sforce.com">'
        f"<sf:Id>{account}</sf:Id><sf:Fusebill_Id__c>{customer}</sf:Fusebill_Id__c>"
        "<sf:LastModifiedDate>2026-11-20T14:03:07.000Z</sf:LastModifiedDate>"
        "</sObject></Notification>"
    )


def mailboxes(changes: Iterable[Change]) -> list[str]:
    return sorted(change.record.mailbox for change in changes)
