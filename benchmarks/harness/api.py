"""Calls to Fusebill as a bare client makes them: bytes, for `load.drive`."""

from __future__ import annotations

from benchmarks.harness.fusebill import API_KEY, FIRST_CUSTOMER
from benchmarks.harness.vendors import post

AGENT = "bench-foreign/1.0"

_HEADERS = (
    ("Authorization", f"Basic {API_KEY}"),
    ("User-Agent", AGENT),
    ("Content-Type", "application/json"),
)


def requests(count: int, *, first: int = 0) -> list[bytes]:
    """So many calls: a read and a latch of one customer after the other."""
    made = []
    for place in range(count // 2):
        customer = FIRST_CUSTOMER + first + place
        body = b'{"fusebillId":%d,"hubSpotId":%d,"hubSpotCompanyId":null}' % (customer, customer)
        made += [read(customer), post("/v1/HubSpot/latchCustomer", _HEADERS, body)]
    return made


def read(customer: int) -> bytes:
    """A read of one customer."""
    head = [f"GET /v1/customers/{customer} HTTP/1.1", "Host: 127.0.0.1"]
    head += [f"{name}: {value}" for name, value in _HEADERS]
    return "\r\n".join(head).encode() + b"\r\n\r\n"
