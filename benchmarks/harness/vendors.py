"""Webhook requests as the vendors send them, signed, as bytes that are ready to go.

Of the things said here only one matters to the benchmarks: a record now names a customer. Every
record and every event is another one, so nothing can be spared by knowing it already.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

HUBSPOT_SECRET = "bench-client-secret-0001"
HUBSPOT_PORTAL = "24681357"
SALESFORCE_TOKEN = "bench-salesforce-token-0001"
SALESFORCE_ORG = "00D5g000007Kp2QEAS"
GEOTAB_SECRET = "bench-geotab-secret-0001"
GEOTAB_ACCOUNT = "ACCT01"

BATCH = 100
"""Events in a request: the most that HubSpot and Salesforce put into one."""

FIRST_RECORD = 512_000_000_000
"""HubSpot ids in use today have twelve digits."""


class Vendor(StrEnum):
    """Who sends."""

    HUBSPOT = "hubspot"
    SALESFORCE = "salesforce"
    GEOTAB = "geotab"


class Link(msgspec.Struct, frozen=True, gc=False):
    """Record number so and so now names a customer."""

    record: int
    customer: int
    event: int
    """Numbers the event among all that are ever sent to one store."""


SETTINGS = {
    "HUBSPOT_CLIENT_SECRET": HUBSPOT_SECRET,
    "HUBSPOT_PORTAL_ID": HUBSPOT_PORTAL,
    "SALESFORCE_WEBHOOK_TOKEN": SALESFORCE_TOKEN,
    "SALESFORCE_ORG_ID": SALESFORCE_ORG,
    "GEOTAB_WEBHOOK_SECRET": GEOTAB_SECRET,
    "GEOTAB_ACCOUNT": GEOTAB_ACCOUNT,
}
"""What a receiver must be told to take what is made here."""


def record_id(vendor: Vendor, record: int) -> int | str:
    """What the vendor calls that record."""
    if vendor is Vendor.HUBSPOT:
        return FIRST_RECORD + record
    if vendor is Vendor.SALESFORCE:
        return f"0015g0{record:09d}"
    return f"G{record:09d}"


def requests(
    vendor: Vendor, links: Sequence[Link], *, public_url: str, batch: int = BATCH
) -> list[bytes]:
    """The requests that say this, signed now: good for five minutes."""
    say = {Vendor.HUBSPOT: _hubspot, Vendor.SALESFORCE: _salesforce, Vendor.GEOTAB: _geotab}[vendor]
    return [say(links[at : at + batch], public_url) for at in range(0, len(links), batch)]


def post(path: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


_HUBSPOT_EVENT = (
    '{"eventId":%d,"subscriptionId":5120344,"portalId":' + HUBSPOT_PORTAL + ',"appId":8123456,'
    '"occurredAt":%d,"subscriptionType":"contact.propertyChange","attemptNumber":0,'
    '"changeSource":"CRM_UI","sourceId":"userId:61520904","objectId":%d,'
    '"propertyName":"fusebill_id","propertyValue":"%d"}'
)


def hubspot_body(links: Sequence[Link], now_ms: int) -> bytes:
    """An array of events, each of about 280 bytes, as HubSpot spells them."""
    events = [
        _HUBSPOT_EVENT % (one.event, now_ms, FIRST_RECORD + one.record, one.customer)
        for one in links
    ]
    return ("[" + ",".join(events) + "]").encode()


def hubspot_signature(method: str, uri: str, body: bytes, timestamp: str) -> str:
    """HubSpot's v3."""
    signed = method.encode() + uri.encode() + body + timestamp.encode()
    digest = hmac.digest(HUBSPOT_SECRET.encode(), signed, hashlib.sha256)
    return base64.b64encode(digest).decode()


def _hubspot(links: Sequence[Link], public_url: str) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    body = hubspot_body(links, now_ms)
    path = "/webhooks/hubspot"
    signature = hubspot_signature("POST", public_url + path, body, str(now_ms))
    headers = (
        ("Content-Type", "application/json"),
        ("X-HubSpot-Request-Timestamp", str(now_ms)),
        ("X-HubSpot-Signature-v3", signature),
    )
    return post(path, headers, body)


_SOAP_HEAD = f"""<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" \
xmlns:xsd="http://www.w3.org/2001/XMLSchema" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
 <soapenv:Body>
  <notifications xmlns="http://soap.sforce.com/2005/09/outbound">
   <OrganizationId>{SALESFORCE_ORG}</OrganizationId>
   <ActionId>04k5g0000008Rt1AAE</ActionId>
   <SessionId xsi:nil="true"/>
"""
_SOAP_NOTIFICATION = """   <Notification>
    <Id>04l5g%010dAAA</Id>
    <sObject xsi:type="sf:Account" xmlns:sf="urn:sobject.enterprise.soap.sforce.com">
     <sf:Id>%s</sf:Id>
     <sf:Fusebill_Id__c>%d</sf:Fusebill_Id__c>
     <sf:LastModifiedDate>%s</sf:LastModifiedDate>
    </sObject>
   </Notification>
"""
_SOAP_TAIL = """  </notifications>
 </soapenv:Body>
</soapenv:Envelope>
"""


def _salesforce(links: Sequence[Link], _: str) -> bytes:
    now = _iso_now()
    said = [
        _SOAP_NOTIFICATION
        % (one.event, record_id(Vendor.SALESFORCE, one.record), one.customer, now)
        for one in links
    ]
    body = (_SOAP_HEAD + "".join(said) + _SOAP_TAIL).encode()
    headers = (("Content-Type", "text/xml; charset=UTF-8"), ("SOAPAction", '""'))
    return post(f"/webhooks/salesforce/{SALESFORCE_TOKEN}", headers, body)


def _geotab(links: Sequence[Link], _: str) -> bytes:
    now = _iso_now()
    events = [
        {
            "event_id": f"event-{one.event}",
            "event_type": "customer.linked",
            "occurred_at": now,
            "account": GEOTAB_ACCOUNT,
            "reseller_customer_id": record_id(Vendor.GEOTAB, one.record),
            "fusebill_id": str(one.customer),
        }
        for one in links
    ]
    body = msgspec.json.encode({"events": events})
    seconds = int(time.time())
    signed = f"{seconds}.".encode() + body
    digest = hmac.digest(GEOTAB_SECRET.encode(), signed, hashlib.sha256).hex()
    headers = (
        ("Content-Type", "application/json"),
        ("X-Signature", f"t={seconds},v1={digest}"),
    )
    return post("/webhooks/geotab", headers, body)


def _iso_now() -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return now.replace("+00:00", "Z")
