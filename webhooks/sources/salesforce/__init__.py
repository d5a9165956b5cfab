"""Salesforce: SOAP Outbound Messages, and the JSON of triggers and change events (B2.6, B3.2).

Only Accounts matter. `soap` reads Outbound Messages; `events` finds out which of five JSON
shapes an event has and reads change data capture; `apex` reads what triggers post; `accounts`
holds what they share.
"""

from __future__ import annotations

import msgspec

from sync_worker.domain import Source
from sync_worker.settings import Settings
from webhooks import signatures
from webhooks.sources import Decoded, Delivery, Proof, Unauthenticated
from webhooks.sources.reading import gather, split
from webhooks.sources.salesforce import soap
from webhooks.sources.salesforce.accounts import Accounts, without_session
from webhooks.sources.salesforce.events import read_event

SOAP_TYPE = "text/xml"


class SalesforceReader:
    """Reads the requests of one Salesforce organisation."""

    source = Source.SALESFORCE
    media_types = frozenset({SOAP_TYPE, "application/json"})

    def __init__(self, settings: Settings) -> None:
        self._secrets = signatures.secret_bytes(settings.salesforce_webhook_secret)
        self._tokens = signatures.secret_bytes(settings.salesforce_webhook_token)
        self._accounts = Accounts(
            tenant=settings.salesforce_org_id or "",
            link_field=settings.salesforce_fusebill_id_field,
            reference_field=settings.salesforce_reference_field,
            absent_means_cleared=settings.salesforce_absent_means_cleared,
        )

    def authenticate(self, delivery: Delivery) -> Proof:
        """Check the strongest proof that is present; a weaker one cannot save it (B2.4)."""
        headers = delivery.headers
        if (signature := headers.get("x-signature")) is not None:
            fault = signatures.verify_x(signature, self._secrets, delivery.body, delivery.now)
            if fault:
                raise Unauthenticated(fault)
            return Proof.SIGNATURE
        given = [headers[name] for name in ("x-webhook-token",) if name in headers]
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            given.append(credentials.strip())
        proof = Proof.HEADER_TOKEN
        if not given and delivery.path_token is not None:
            given, proof = [delivery.path_token], Proof.URL_TOKEN
        if not given:
            raise Unauthenticated("missing")
        if not any(signatures.is_one_of(token, self._tokens) for token in given):
            raise Unauthenticated("wrong")
        return proof

    def decode(self, delivery: Delivery, proof: Proof) -> Decoded:
        """Read an Outbound Message, or one JSON event or an array of them.

        Raises Undecodable, or Unauthenticated for an event that names no organisation and
        came with nothing but a URL token (B2.6).
        """
        if delivery.media_type == SOAP_TYPE:
            return soap.read(delivery.body, self._accounts, delivery.request_id)

        def read(raw: msgspec.Raw, into: Decoded) -> None:
            read_event(raw, self._accounts, proof, delivery.request_id, into)

        return gather(split(delivery.body), read, without_session)

    def redacted(self, delivery: Delivery) -> bytes:
        """The body as it may be kept: without a session id (B2.6)."""
        return without_session(delivery.body)
