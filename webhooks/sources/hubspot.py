"""HubSpot: arrays of flat events about contacts and companies (B2.5, B3.1).

An event carries no more of its record than the one property that changed. Events come
unordered, repeated and in bursts that share one millisecond, and a 4xx makes HubSpot send the
whole array again: so each event stands by itself here, and one that cannot be read is set
aside. Classic (`contact.deletion`) and generic (`object.deletion` with `objectTypeId`) forms
mean the same. Shapes are those of HubSpot's webhooks guide and of captured traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sync_worker.domain import Aspect, Change, Kind, Record, RecordType, Source
from sync_worker.settings import Settings
from webhooks import signatures
from webhooks.sources import Decoded, Delivery, Proof, Unauthenticated
from webhooks.sources.reading import (
    Statement,
    Unreadable,
    digits,
    epoch_ms,
    gather,
    lenient_scalar,
    scalar,
    split,
    text_of,
    typed,
)

_NULL = msgspec.Raw(b"null")

_CLASSIC = {"contact": RecordType.CONTACT, "company": RecordType.COMPANY}
_GENERIC = {"0-1": RecordType.CONTACT, "0-2": RecordType.COMPANY}
"""What the first word of a subscription type, or `objectTypeId`, stands for."""

_CONTACT_IS_FROM = {
    "CONTACT_TO_COMPANY": True,
    "COMPANY_TO_CONTACT": False,
    ("0-1", "0-2"): True,
    ("0-2", "0-1"): False,
}
"""Which end of an association the contact is, by `associationType` or by both type ids."""

_TEST_OBJECT = (123, "123")
_TEST_EVENT = "100"
"""What the test button of HubSpot's user interface always sends (B2.12)."""


class _Event(msgspec.Struct, rename="camel", gc=False):
    """The fields that matter. None of their types is trusted: a wrong one in a field that
    is not needed must not spoil the event.
    """

    portal_id: Any = None
    subscription_type: Any = None
    event_type: Any = None
    object_id: Any = None
    object_type_id: Any = None
    event_id: msgspec.Raw = _NULL
    occurred_at: msgspec.Raw = _NULL
    property_name: Any = None
    property_value: msgspec.Raw = _NULL
    primary_object_id: Any = None
    merged_object_ids: Any = None
    new_object_id: Any = None
    association_type: Any = None
    from_object_id: Any = None
    to_object_id: Any = None
    from_object_type_id: Any = None
    to_object_type_id: Any = None
    association_removed: Any = None
    is_primary_association: Any = None


class _Tenant(msgspec.Struct, rename="camel"):
    """All that is read of an event which cannot be read as a whole."""

    portal_id: Any = None


_event = msgspec.json.Decoder(_Event)
_tenant = msgspec.json.Decoder(_Tenant)


class _Reading(msgspec.Struct, frozen=True, gc=False):
    """One event on its way to a change."""

    event: _Event
    raw: msgspec.Raw
    subscription: str
    tenant: str
    request_id: str

    def about(self, kind: RecordType, id_: str, *marks: object) -> Statement:
        """The record a change is about, and the fields of B2.11 that identify it."""
        event = self.event
        event_id = lenient_scalar(event.event_id)
        occurred_at = epoch_ms(lenient_scalar(event.occurred_at))
        return Statement(
            record=Record(Source.HUBSPOT, self.tenant, kind, id_),
            marks=(kind, self.subscription, event_id, occurred_at, *marks),
            occurred_at=occurred_at,
            event_id=event_id,
            request_id=self.request_id,
            raw=text_of(self.raw),
        )


class HubSpotReader:
    """Reads the requests of one HubSpot app."""

    source = Source.HUBSPOT
    media_types = frozenset({"application/json"})

    def __init__(self, settings: Settings) -> None:
        self._secrets = signatures.secret_bytes(settings.hubspot_client_secret)
        self._public_url = settings.public_url or ""
        self._untimed_allowed = settings.hubspot_allow_untimed_signatures
        self._tenant = settings.hubspot_portal_id or ""
        self._portal = self._tenant.lstrip("0")
        self._link = settings.hubspot_fusebill_id_property
        self._hints = {"email": "email"}
        if settings.hubspot_reference_property:
            self._hints[settings.hubspot_reference_property] = "reference"
        self._readers: dict[str, Callable[[_Reading, RecordType], Change | str]] = {
            "propertyChange": self._property,
            "creation": _touched,
            "deletion": _deleted,
            "privacyDeletion": _deleted,
            "restore": _restored,
            "merge": _merged,
        }

    def authenticate(self, delivery: Delivery) -> Proof:
        """Check the signature (B2.5): v3 wherever it is sent, else v2 or v1 if allowed.

        CRM webhooks carry v3 beside a version header that says v1, so that header never
        chooses v3.
        """
        headers = delivery.headers
        fault: str | None
        if (given := headers.get("x-hubspot-signature-v3")) is not None:
            fault = signatures.verify_hubspot_v3(
                given,
                self._secrets,
                method=delivery.method,
                uri=signatures.signed_uri(self._public_url, delivery.target),
                body=delivery.body,
                timestamp=headers.get("x-hubspot-request-timestamp"),
                now=delivery.now,
            )
        elif (given := headers.get("x-hubspot-signature")) is None:
            fault = "missing"
        elif not self._untimed_allowed:
            fault = "untimed"
        else:
            fault = self._verify_untimed(delivery, given)
        if fault:
            raise Unauthenticated(fault)
        return Proof.SIGNATURE

    def _verify_untimed(self, delivery: Delivery, given: str) -> str | None:
        version = delivery.headers.get("x-hubspot-signature-version", "").lower()
        if version == "v1":
            return signatures.verify_hubspot_v1(given, self._secrets, delivery.body)
        if version == "v2":
            return signatures.verify_hubspot_v2(
                given,
                self._secrets,
                method=delivery.method,
                uri=signatures.signed_uri(self._public_url, delivery.target),
                body=delivery.body,
            )
        return "wrong"

    def decode(self, delivery: Delivery, proof: Proof) -> Decoded:  # noqa: ARG002 - one proof
        """Read an array of events, or a single one. Raises Undecodable."""
        request_id = delivery.request_id

        def read(raw: msgspec.Raw, into: Decoded) -> None:
            self._read(raw, request_id, into)

        return gather(split(delivery.body), read)

    def redacted(self, delivery: Delivery) -> bytes:
        """The body as it may be kept: HubSpot's carries no secret."""
        return delivery.body

    def _read(self, raw: msgspec.Raw, request_id: str, into: Decoded) -> None:
        try:
            event = typed(_event, raw)
        except Unreadable:
            if digits(typed(_tenant, raw).portal_id, "portalId") == self._portal:
                raise
            into.foreign += 1
            return
        if digits(event.portal_id, "portalId") != self._portal:
            into.foreign += 1
            return
        found = self._judge(event, raw, request_id)
        if isinstance(found, str):
            into.ignored[found] += 1
        else:
            into.changes.append(found)

    def _judge(self, event: _Event, raw: msgspec.Raw, request_id: str) -> Change | str:
        """The change that an event of our portal makes, or why it is ignored."""
        subscription = event.subscription_type or event.event_type
        if not isinstance(subscription, str):
            raise Unreadable("subscriptionType is missing")
        if event.object_id in _TEST_OBJECT and lenient_scalar(event.event_id) == _TEST_EVENT:
            return "test event"
        reading = _Reading(event, raw, subscription, self._tenant, request_id)
        noun, _, action = subscription.partition(".")
        if noun not in _CLASSIC and noun != "object":
            return "other objects"
        if action == "associationChange":
            return _association(reading)
        reader = self._readers.get(action)
        if reader is None:
            return "other events"
        kind = _generic_type(event) if noun == "object" else _CLASSIC[noun]
        return "other objects" if kind is None else reader(reading, kind)

    def _property(self, reading: _Reading, kind: RecordType) -> Change | str:
        event = reading.event
        name = event.property_name
        if not isinstance(name, str):
            raise Unreadable("propertyName is missing")
        if name != self._link and name not in self._hints:
            return "other properties"
        value = (scalar(event.property_value, "propertyValue") or "").strip()
        if not value and name != self._link:
            return "empty hint"
        about = reading.about(kind, digits(event.object_id, "objectId"), name, value)
        if name != self._link:
            hint = {self._hints[name]: value}
            return about.change(Kind.LINKED, Aspect.HINT, evidence=False, **hint)
        if not value:
            return about.change(Kind.UNLINKED, Aspect.LINK, evidence=True)
        return about.change(Kind.LINKED, Aspect.LINK, customer_id=value, evidence=True)


def _generic_type(event: _Event) -> RecordType | None:
    if not isinstance(event.object_type_id, str):
        raise Unreadable("objectTypeId is missing")
    return _GENERIC.get(event.object_type_id)


def _touched(reading: _Reading, kind: RecordType) -> Change:
    about = reading.about(kind, digits(reading.event.object_id, "objectId"))
    return about.change(Kind.TOUCHED, Aspect.EXISTENCE)


def _deleted(reading: _Reading, kind: RecordType) -> Change:
    about = reading.about(kind, digits(reading.event.object_id, "objectId"))
    return about.change(Kind.DELETED, Aspect.EXISTENCE)


def _restored(reading: _Reading, kind: RecordType) -> Change:
    about = reading.about(kind, digits(reading.event.object_id, "objectId"))
    return about.change(Kind.RESTORED, Aspect.EXISTENCE)


def _merged(reading: _Reading, kind: RecordType) -> Change:
    """All merged ids into the survivor: usually a record that the merge made (B3.1)."""
    event = reading.event
    if not isinstance(event.merged_object_ids, list | None):
        raise Unreadable("mergedObjectIds is not a list")
    concerned = [digits(id_, "mergedObjectIds") for id_ in event.merged_object_ids or ()]
    if event.primary_object_id is not None:
        concerned.append(digits(event.primary_object_id, "primaryObjectId"))
    if event.new_object_id is not None:
        survivor = digits(event.new_object_id, "newObjectId")
    else:
        survivor = digits(event.primary_object_id, "primaryObjectId")
    merged = tuple(dict.fromkeys(id_ for id_ in concerned if id_ != survivor))
    if not merged:
        raise Unreadable("the merge names no record that was merged")
    about = reading.about(kind, survivor, merged)
    return about.change(Kind.MERGED, Aspect.EXISTENCE, merged_ids=merged)


def _association(reading: _Reading) -> Change | str:
    """A contact joined or left a company: told on the contact, whichever side sent it.

    The primary association also makes the plain one, and both are reported, so the two must
    not pass for one another's repeats.
    """
    event = reading.event
    contact_is_from = _contact_is_from(event)
    if contact_is_from is None:
        return "other associations"
    if not isinstance(event.association_removed, bool):
        raise Unreadable("associationRemoved is missing")
    removed = event.association_removed
    ends = digits(event.from_object_id, "fromObjectId"), digits(event.to_object_id, "toObjectId")
    contact, company = ends if contact_is_from else ends[::-1]
    primary = event.is_primary_association
    if not isinstance(primary, bool):
        primary = None
    about = reading.about(RecordType.CONTACT, contact, company, contact_is_from, removed, primary)
    kind = Kind.DISSOCIATED if removed else Kind.ASSOCIATED
    return about.change(kind, Aspect.COMPANY, company_id=company, primary=primary)


def _contact_is_from(event: _Event) -> bool | None:
    """Which end the contact is; None if the association is not contact with company."""
    if event.association_type is not None:
        key = event.association_type
    else:
        key = (event.from_object_type_id, event.to_object_type_id)
        if None in key:
            raise Unreadable("associationType is missing")
    try:
        return _CONTACT_IS_FROM.get(key)
    except TypeError:
        raise Unreadable("associationType is no text") from None
