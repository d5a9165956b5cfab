"""Geotab: events of this product's own shape, as JSON or as a form (B2.8, B3.4).

Geotab itself pushes no customer changes. What arrives here was written by a poller of
MyAdmin, an integration platform or a form template, so the shape is ours, and both an HMAC
and plain tokens are accepted. The reseller customer id is an opaque text with leading zeros
(`"0070441"`): as a number it is refused, because its zeros may already be gone.
"""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from sync_worker.domain import Aspect, Change, Kind, Record, RecordType, Source
from sync_worker.settings import Settings
from webhooks import signatures
from webhooks.sources import Decoded, Delivery, Proof, Unauthenticated, Undecodable
from webhooks.sources.reading import (
    Batch,
    Statement,
    Unreadable,
    any_time_ms,
    gather,
    lenient_scalar,
    scalar,
    split,
    table,
    text_of,
    whole,
)

FORM_TYPE = "application/x-www-form-urlencoded"

MAX_FORM_BYTES = 64 * 1024
"""A larger form is not read, not even for its token (B2.8)."""

_MAX_FORM_FIELDS = 100
_MAX_ID_CHARS = 255
"""What Fusebill's `geotabId` holds at most."""

_TOKEN = "token"  # noqa: S105 - the name of a field
_JSON_TOKEN = re.compile(rb'("token"\s*+:\s*+)"(?:[^"\\]++|\\.)*+("|\\?\Z)', re.DOTALL)

_LINKING = frozenset({"customer.linked", "customer.changed"})
_CHANGED = "customer.changed"
_UNLINKING = frozenset({"customer.unlinked", "customer.deactivated"})


class GeotabReader:
    """Reads the requests of one Geotab account."""

    source = Source.GEOTAB
    media_types = frozenset({"application/json", FORM_TYPE})

    def __init__(self, settings: Settings) -> None:
        self._secrets = signatures.secret_bytes(settings.geotab_webhook_secret)
        self._tokens = signatures.secret_bytes(settings.geotab_webhook_token)
        self._account = settings.geotab_account or ""

    def authenticate(self, delivery: Delivery) -> Proof:
        """Check the strongest proof that is present; a weaker one cannot save it (B2.4)."""
        if (signature := delivery.headers.get("x-signature")) is not None:
            fault = signatures.verify_x(signature, self._secrets, delivery.body, delivery.now)
            if fault:
                raise Unauthenticated(fault)
            return Proof.SIGNATURE
        tokens = (
            (Proof.HEADER_TOKEN, delivery.headers.get("x-webhook-token")),
            (Proof.FORM_TOKEN, _form_token(delivery)),
            (Proof.URL_TOKEN, delivery.path_token),
        )
        for proof, given in tokens:
            if given is None:
                continue
            if not signatures.is_one_of(given, self._tokens):
                raise Unauthenticated("wrong")
            return proof
        raise Unauthenticated("missing")

    def decode(self, delivery: Delivery, proof: Proof) -> Decoded:  # noqa: ARG002 - all proofs do
        """Read one event, an array, `{"events": [...]}` or a form. Raises Undecodable."""
        form = delivery.media_type == FORM_TYPE
        events = _form_event(delivery.body) if form else _json_events(delivery.body)

        def read(raw: msgspec.Raw, into: Decoded) -> None:
            self._read(raw, delivery.request_id, into)

        return gather(events, read, _without_token)

    def redacted(self, delivery: Delivery) -> bytes:
        """The body as it may be kept: without its token (B2.8)."""
        if delivery.media_type == FORM_TYPE:
            pairs = delivery.body.split(b"&")
            return b"&".join(pair for pair in pairs if not _names_token(pair))
        return _without_token(delivery.body)

    def _read(self, raw: msgspec.Raw, request_id: str, into: Decoded) -> None:
        event = table(raw)
        if _required(event, "account") != self._account:
            into.foreign += 1
            return
        event_type = _required(event, "event_type")
        if event_type not in _LINKING | _UNLINKING:
            into.ignored["other events"] += 1
            return
        if _TOKEN in event:
            del event[_TOKEN]
            raw = msgspec.Raw(msgspec.json.encode(event))
        into.changes.append(self._change(event, event_type, text_of(raw), request_id))

    def _change(
        self, event: dict[str, msgspec.Raw], event_type: str, raw: str, request_id: str
    ) -> Change:
        id_ = _opaque_id(event, "reseller_customer_id")
        if id_ is None:
            raise Unreadable("reseller_customer_id is missing")
        previous_id = _opaque_id(event, "previous_reseller_customer_id")
        if previous_id == id_:
            previous_id = None
        customer_id = whole(_optional(event, "fusebill_id") or "") or None
        reference = _optional(event, "reference")
        occurred_at = any_time_ms(lenient_scalar(event.get("occurred_at")))
        event_id = (lenient_scalar(event.get("event_id")) or "").strip() or None
        said = (event_type, previous_id, customer_id, reference)
        about = Statement(
            record=Record(Source.GEOTAB, self._account, RecordType.CUSTOMER, id_),
            marks=_marks(event_id, occurred_at, said),
            occurred_at=occurred_at,
            event_id=event_id,
            request_id=request_id,
            raw=raw,
        )
        if event_type in _UNLINKING:
            return about.change(
                Kind.UNLINKED,
                Aspect.LINK,
                customer_id=customer_id,
                previous_id=previous_id,
                evidence=True,
            )
        kind, aspect = _linking(customer_id, reference, previous_id)
        return about.change(
            kind,
            aspect,
            customer_id=customer_id,
            reference=reference,
            previous_id=previous_id,
            evidence=event_type == _CHANGED or previous_id is not None,
        )


def _linking(
    customer_id: str | None, reference: str | None, previous_id: str | None
) -> tuple[Kind, Aspect]:
    """What an event says that links.

    The previous id is a hint as a reference is: who holds it is the customer (B3.4). An event
    that gives no way to a customer only says: look.
    """
    if customer_id:
        return Kind.LINKED, Aspect.LINK
    if reference or previous_id:
        return Kind.LINKED, Aspect.HINT
    return Kind.TOUCHED, Aspect.EXISTENCE


def _marks(
    event_id: str | None, occurred_at: int | None, said: tuple[object, ...]
) -> tuple[object, ...] | None:
    """Identity (B2.11): the event's id, else all it says if that includes a time."""
    if event_id is not None:
        return ("id", event_id)
    return None if occurred_at is None else ("said", occurred_at, *said)


def _required(event: dict[str, msgspec.Raw], name: str) -> str:
    value = _text(event, name)
    if value is None:
        raise Unreadable(f"{name} is missing")
    return value


def _optional(event: dict[str, msgspec.Raw], name: str) -> str | None:
    return (scalar(event.get(name), name) or "").strip() or None


def _opaque_id(event: dict[str, msgspec.Raw], name: str) -> str | None:
    """An id exactly as sent; None if it is null, empty or left out."""
    value = _text(event, name)
    if value is None:
        return None
    if len(value) > _MAX_ID_CHARS:
        raise Unreadable(f"{name} has more than {_MAX_ID_CHARS} characters")
    if value != value.strip() or not value.isprintable():
        raise Unreadable(f"{name} has blanks around it or characters that cannot be printed")
    return value


def _text(event: dict[str, msgspec.Raw], name: str) -> str | None:
    """A text that may not come as a number; None if it is null, empty or left out."""
    raw = event.get(name)
    if raw is not None and bytes(raw)[:1] not in (b'"', b"n"):
        raise Unreadable(f"{name} is not a text")
    return scalar(raw, name) or None


def _json_events(body: bytes) -> Batch:
    batch = split(body)
    if not batch.alone:
        return batch
    try:
        event = table(batch.events[0])
    except Unreadable:
        return _wrapped_patiently(body) or batch
    return split(bytes(event["events"])) if "events" in event else batch


def _wrapped_patiently(body: bytes) -> Batch | None:
    """The events of an `{"events": [...]}` in which one is faulty; None if it is none.

    As in `split`, the standard library reads what msgspec refuses, and each event is then
    judged by itself.
    """
    try:
        events = json.loads(body.decode("utf-8", "surrogateescape"), strict=False)["events"]
        return split(json.dumps(events).encode())
    except (ValueError, KeyError, RecursionError):
        return None


def _form_event(body: bytes) -> Batch:
    """A form's one event as JSON, without the token. Raises Undecodable."""
    pairs = _form(body)
    event = dict(pairs)
    if len(event) != len(pairs):
        raise Undecodable("the form names a field twice")
    event.pop(_TOKEN, None)
    return Batch([msgspec.Raw(msgspec.json.encode(event))], alone=True)


def _form(body: bytes) -> list[tuple[str, str]]:
    if len(body) > MAX_FORM_BYTES:
        raise Undecodable("the form is larger than 64 KiB")
    try:
        return parse_qsl(
            body.decode("utf-8"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_FORM_FIELDS,
        )
    except ValueError:
        raise Undecodable("the form is not UTF-8 or has more than 100 fields") from None


def _form_token(delivery: Delivery) -> str | None:
    """The form's token, None if it has none, "" if it names two."""
    if delivery.media_type != FORM_TYPE:
        return None
    try:
        found = [value for name, value in _form(delivery.body) if name == _TOKEN]
    except Undecodable:
        return None
    if not found:
        return None
    return found[0] if len(found) == 1 else ""


def _names_token(pair: bytes) -> bool:
    name = unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" "))
    return name.strip().lower() == _TOKEN.encode()


def _without_token(body: bytes) -> bytes:
    return _JSON_TOKEN.sub(rb'\1""', body)
