"""Requests and settings for the tests of signatures, sources and samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sync_worker.settings import Settings, load
from webhooks.sources import Decoded, Delivery, Proof, SourceReader
from webhooks.sources.geotab import GeotabReader
from webhooks.sources.hubspot import HubSpotReader
from webhooks.sources.salesforce import SalesforceReader

FIXTURES = Path(__file__).parents[2] / "fixtures"

NOW = 1795183387.0
"""2026-11-20T14:03:07Z."""

SETTINGS: dict[str, Any] = {
    "public_url": "https://hooks.example.com",
    "hubspot_client_secret": "test-client-secret-0001",
    "hubspot_portal_id": "24681357",
    "hubspot_reference_property": "billing_reference",
    "salesforce_webhook_token": "sf-token-0001",
    "salesforce_webhook_secret": "sf-secret-0001",
    "salesforce_org_id": "00D5g000007Kp2QEAS",
    "salesforce_reference_field": "Billing_Reference__c",
    "geotab_webhook_token": "test-form-token-0001",
    "geotab_webhook_secret": "geotab-test-secret-0001,geotab-test-secret-0002",
    "geotab_account": "ACCT01",
}


def settings(**changes: Any) -> Settings:
    return load(**(SETTINGS | changes))


def hubspot(**changes: Any) -> HubSpotReader:
    return HubSpotReader(settings(**changes))


def salesforce(**changes: Any) -> SalesforceReader:
    return SalesforceReader(settings(**changes))


def geotab(**changes: Any) -> GeotabReader:
    return GeotabReader(settings(**changes))


def delivery(
    body: bytes = b"[]",
    *,
    headers: dict[str, str] | None = None,
    media_type: str = "application/json",
    path_token: str | None = None,
    target: str = "/webhooks/hubspot",
    now: float = NOW,
    method: str = "POST",
) -> Delivery:
    return Delivery(method, target, headers or {}, body, media_type, path_token, now, "req-1")


def fixture(name: str) -> bytes:
    """A payload of `tests/fixtures`, without the newline that ends the file."""
    return (FIXTURES / name).read_bytes().rstrip(b"\n")


def events(name: str) -> Any:
    return json.loads(fixture(name))


def decoded(
    reader: SourceReader,
    body: Any,
    *,
    proof: Proof = Proof.SIGNATURE,
    media_type: str = "application/json",
) -> Decoded:
    """Decode a body: bytes as they are, anything else as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return reader.decode(delivery(raw, media_type=media_type), proof)
