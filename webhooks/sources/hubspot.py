"""HubSpot: arrays of flat events about contacts and companies (B2.5, B3.1).

An event carries no more of its record than the one property that changed. Events come
unordered, repeated and in bursts that share one millisecond, and a 4xx makes HubSpot send the
whole array again: so each event stands by itself here, and one that cannot be read is set
aside. Classic (`contact.deletion`) and generic (`object.deletion` with `objectTypeId`) forms
mean the same. Shapes are those of HubSpot's webhooks guide and of captured traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from sync_worker.domain import Aspect, Change, Kind, Record, RecordType, Source
from sync_worker.settings import Settings
from webhooks import signatures
from webhooks.sources import Decoded, Delivery, Proof, Unauthenticated
from webhooks.sources.reading import (
    MAX_EPOCH_MS,
    MAX_ID,
    Unreadable,
    digest,
    digits,
    epoch_ms,
    gather,
    lenient_scalar,
    scalar,
    split,
    text_of,
    typed,
)

# Bound once: looking a member up in its enum costs more than most of what is done per event.
_HUBSPOT, _LINKED = Source.HUBSPOT, Kind.LINKED
_LINK, _HINT = Aspect.LINK, Aspect.HINT

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

_PROPERTY_CHANGES = {f"{noun}.propertyChange": record for noun, record in _CLASSIC.items()}
"""Of which record a property was changed, by subscription type."""

_EMAIL = "email"
"""HubSpot's own property, which is a hint."""

_TEST_OBJECT = (123, "123")
_TEST_EVENT = "100"
"""What the test button of HubSpot's user interface always sends (B2.12)."""


class _Event(msgspec.Struct, rename="camel", gc=False):
    """The fields that matter. None of their types is trusted: a wrong one in a field that
    is not needed must not spoil the event.

    Those that are text or number, and are kept as they stand in the body, have a type of their own
    in `_Plain` and `_Odd`.
    """

    portal_id: Any = None
    subscription_type: Any = None
    event_type: Any = None
    object_id: Any = None
    object_type_id: Any = None
    event_id: Any = None
    occurred_at: Any = None
    property_name: Any = None
    property_value: Any = None
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


class _Plain(_Event, rename="camel", gc=False):
    """An event as nearly all are: text and whole numbers, which can be decoded in the same step."""

    portal_id: int | str | None = None
    subscription_type: str | None = None
    object_id: int | str | None = None
    event_id: int | str | None = None
    occurred_at: int | str | None = None
    property_name: str | None = None
    property_value: int | str | None = None


class _Odd(_Event, rename="camel", gc=False):
    """Any other event. What these fields hold is looked at only where it is needed."""

    event_id: msgspec.Raw = _NULL
    occurred_at: msgspec.Raw = _NULL
    property_value: msgspec.Raw = _NULL


class _Tenant(msgspec.Struct, rename="camel"):
    """All that is read of an event which cannot be read as a whole."""

    portal_id: Any = None


_plain = msgspec.json.Decoder(_Plain)
_odd = msgspec.json.Decoder(_Odd)
_tenant = msgspec.json.Decoder(_Tenant)


class _Reading(msgspec.Struct, gc=False):
    """One event on its way to a change."""

    event: _Event
    raw: msgspec.Raw
    subscription: str
    tenant: str
    request_id: str

    def change(
        self,
        record: RecordType,
        id_: str,
        kind: Kind,
        aspect: Aspect,
        marks: tuple[object, ...] = (),
        *,
        customer_id: str | None = None,
        reference: str | None = None,
        email: str | None = None,
        company_id: str | None = None,
        primary: bool | None = None,
        merged_ids: tuple[str, ...] = (),
        evidence: bool | None = None,
    ) -> Change:
        """The change; `marks` are what tells it from others beside the fields that all events have
        (B2.11).
        """
        event, tenant = self.event, self.tenant
        event_id, occurred_at = lenient_scalar(event.event_id), epoch_ms(event.occurred_at)
        told = kind, aspect, record, self.subscription, event_id, occurred_at
        return Change(
            record=Record(_HUBSPOT, tenant, record, id_),
            kind=kind,
            aspect=aspect,
            occurred_at=occurred_at,
            identity=digest(_HUBSPOT, tenant, id_, *told, *marks),
            event_id=event_id,
            customer_id=customer_id,
            reference=reference,
            email=email,
            company_id=company_id,
            primary=primary,
            merged_ids=merged_ids,
            evidence=evidence,
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
        self._portal_id = int(self._portal or 0)
        self._link = settings.hubspot_fusebill_id_property
        self._reference = settings.hubspot_reference_property
        self._hints = {_EMAIL, self._reference}
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
        return gather(split(delivery.body), partial(self._read, delivery.request_id))

    def redacted(self, delivery: Delivery) -> bytes:
        """The body as it may be kept: HubSpot's carries no secret."""
        return delivery.body

    def _read(self, request_id: str, raw: msgspec.Raw, into: Decoded) -> None:
        event: _Event | None
        found: Change | str | None = None
        try:
            event = plain = _plain.decode(raw)
        except (ValueError, RecursionError):
            event = self._odd(raw)
        else:
            if plain.portal_id == self._portal_id:
                found = self._link_set(plain, raw, request_id)
            elif not self._is_ours(plain):
                event = None
        if event is None:
            into.foreign += 1
            return
        if found is None:
            found = self._judge(event, raw, request_id)
        if isinstance(found, Change):
            into.changes.append(found)
        else:
            into.ignored[found] += 1

    def _link_set(self, event: _Plain, raw: msgspec.Raw, request_id: str) -> Change | None:
        """The change that a plain event makes which sets the link field; None for any other event.

        An import sends these by the thousand, so they are read in one step, in half the time. What
        comes of them is what `_judge` makes of them.
        """
        record = _PROPERTY_CHANGES.get(event.subscription_type or "")
        if record is None or event.property_name != self._link:
            return None
        id_, event_id, occurred_at = event.object_id, event.event_id, event.occurred_at
        value = event.property_value
        if (
            type(id_) is not int
            or type(event_id) is not int
            or type(occurred_at) is not int
            or type(value) is not str
            or not _TEST_OBJECT[0] < id_ <= MAX_ID
            or not 0 <= occurred_at <= MAX_EPOCH_MS
            or not (value := value.strip())
        ):
            return None
        about, event_id, tenant = str(id_), str(event_id), self._tenant
        said = _LINKED, _LINK, record, event.subscription_type, event_id, occurred_at
        return Change(
            record=Record(_HUBSPOT, tenant, record, about),
            kind=_LINKED,
            aspect=_LINK,
            occurred_at=occurred_at,
            identity=digest(_HUBSPOT, tenant, about, *said, self._link, value),
            event_id=event_id,
            customer_id=value,
            evidence=True,
            request_id=request_id,
            raw=text_of(raw),
        )

    def _odd(self, raw: msgspec.Raw) -> _Event | None:
        """An event that is not plain; None if it is of another portal."""
        try:
            event = typed(_odd, raw)
        except Unreadable:
            if self._is_ours(typed(_tenant, raw)):
                raise
            return None
        return event if self._is_ours(event) else None

    def _is_ours(self, event: _Event | _Tenant) -> bool:
        return digits(event.portal_id, "portalId") == self._portal

    def _judge(self, event: _Event, raw: msgspec.Raw, request_id: str) -> Change | str:
        """The change that an event of our portal makes, or why it is ignored."""
        subscription = event.subscription_type or event.event_type
        if not isinstance(subscription, str):
            raise Unreadable("subscriptionType is missing")
        if event.object_id in _TEST_OBJECT and lenient_scalar(event.event_id) == _TEST_EVENT:
            return "test event"
        reading = _Reading(event, raw, subscription, self._tenant, request_id)
        noun, _, action = subscription.partition(".")
        if (record := _CLASSIC.get(noun)) is None and noun != "object":
            return "other objects"
        if (reader := self._readers.get(action)) is None:
            return _association(reading) if action == "associationChange" else "other events"
        record = record or _generic_type(event)
        return reader(reading, record) if record else "other objects"

    def _property(self, reading: _Reading, record: RecordType) -> Change | str:
        event = reading.event
        name = event.property_name
        if not isinstance(name, str):
            raise Unreadable("propertyName is missing")
        if name != self._link and name not in self._hints:
            return "other properties"
        value = (scalar(event.property_value, "propertyValue") or "").strip()
        if not value and name != self._link:
            return "empty hint"
        id_, marks = digits(event.object_id, "objectId"), (name, value)
        if name == self._link:
            if not value:
                return reading.change(record, id_, Kind.UNLINKED, _LINK, marks, evidence=True)
            return reading.change(
                record, id_, _LINKED, _LINK, marks, customer_id=value, evidence=True
            )
        if name == self._reference:
            return reading.change(
                record, id_, _LINKED, _HINT, marks, reference=value, evidence=False
            )
        return reading.change(record, id_, _LINKED, _HINT, marks, email=value, evidence=False)


def _generic_type(event: _Event) -> RecordType | None:
    if not isinstance(event.object_type_id, str):
        raise Unreadable("objectTypeId is missing")
    return _GENERIC.get(event.object_type_id)


def _touched(reading: _Reading, record: RecordType) -> Change:
    id_ = digits(reading.event.object_id, "objectId")
    return reading.change(record, id_, Kind.TOUCHED, Aspect.EXISTENCE)


def _deleted(reading: _Reading, record: RecordType) -> Change:
    id_ = digits(reading.event.object_id, "objectId")
    return reading.change(record, id_, Kind.DELETED, Aspect.EXISTENCE)


def _restored(reading: _Reading, record: RecordType) -> Change:
    id_ = digits(reading.event.object_id, "objectId")
    return reading.change(record, id_, Kind.RESTORED, Aspect.EXISTENCE)


def _merged(reading: _Reading, record: RecordType) -> Change:
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
    return reading.change(
        record, survivor, Kind.MERGED, Aspect.EXISTENCE, (merged,), merged_ids=merged
    )


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
    return reading.change(
        RecordType.CONTACT,
        contact,
        Kind.DISSOCIATED if removed else Kind.ASSOCIATED,
        Aspect.COMPANY,
        (company, contact_is_from, removed, primary),
        company_id=company,
        primary=primary,
    )


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
