"""The closed list of answers a sender can get (B2.10)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from xml.sax.saxutils import escape

import msgspec

SOAP_TYPE = "text/xml"

ACK = (
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/">\n'
    "<soapenv:Body>\n"
    '<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound">\n'
    "<Ack>true</Ack>\n"
    "</notificationsResponse>\n"
    "</soapenv:Body>\n"
    "</soapenv:Envelope>\n"
)
"""The one body that stops Salesforce from sending again (help article 000381752, B2.6)."""

_FAULT = (
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/">'
    "<soapenv:Body><soapenv:Fault><faultcode>soapenv:{code}</faultcode>"
    "<faultstring>{text}</faultstring></soapenv:Fault></soapenv:Body></soapenv:Envelope>\n"
)

RETRY_AFTER_SECONDS = 30
"""What a sender is told to wait; HubSpot and Salesforce choose for themselves."""


class Problem(Enum):
    """Why a delivery was not taken: status, `type`, and what to tell the sender."""

    NOT_FOUND = (404, "not-found", "There is nothing at this address.")
    METHOD = (405, "method-not-allowed", "Deliveries are sent with POST.")
    TOO_LARGE = (413, "too-large", "The body is larger than MAX_BODY_BYTES allows.")
    MEDIA_TYPE = (415, "unsupported-media-type", "This source does not send that content type.")
    UNAUTHENTICATED = (401, "unauthenticated", "No valid signature or token came with this.")
    UNDECODABLE = (400, "undecodable", "The body cannot be read as what this source sends.")
    FOREIGN_TENANT = (403, "foreign-tenant", "Nothing in it is of the tenant configured here.")
    UNAVAILABLE = (503, "unavailable", "It cannot be stored now; send it again.")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the sender."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str] = field(default_factory=dict)


def taken(
    *, accepted: int, duplicates: int, ignored: int, rejected: int, request_id: str, soap: bool
) -> Answer:
    """The delivery is ours and stored (B2.2)."""
    if soap:
        return Answer(200, ACK.encode(), "text/xml; charset=utf-8")
    counts = {
        "accepted": accepted,
        "duplicates": duplicates,
        "ignored": ignored,
        "rejected": rejected,
        "request_id": request_id,
    }
    return Answer(202, msgspec.json.encode(counts) + b"\n", "application/json")


def refused(problem: Problem, *, request_id: str, soap: bool = False) -> Answer:
    """The delivery was not taken."""
    status, name, text = problem.value
    headers = {}
    if problem is Problem.METHOD:
        headers["Allow"] = "POST"
    if problem is Problem.UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if problem is Problem.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Signature"
    if soap:
        code = "Client" if status < 500 else "Server"
        body = _FAULT.format(code=code, text=escape(text))
        return Answer(status, body.encode(), "text/xml; charset=utf-8", headers)
    document = {
        "type": f"urn:sync-worker:problem:{name}",
        "title": text,
        "status": status,
        "request_id": request_id,
    }
    return Answer(
        status, msgspec.json.encode(document) + b"\n", "application/problem+json", headers
    )
