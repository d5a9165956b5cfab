"""Correctly signed requests for any event of any source: for `send`, `dev` and tests.

`build("hubspot.contact.linked", settings, now=time.time())` gives the request that the
vendor would send, signed with the secrets and naming the tenant in the settings. `NAMES` lists
all events. Shapes are those that the readers in `sources` read; ids and values are made up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode
from uuid import NAMESPACE_URL, uuid5
from xml.sax.saxutils import escape

import msgspec

from sync_worker.domain import Source, salesforce_id_18
from sync_worker.settings import Settings
from webhooks import signatures

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_XML = "text/xml; charset=UTF-8"

CUSTOMER_ID = "8714402"
REFERENCE = "NG-0042"
EMAIL = "billing@northgate.example"
CONTACT_ID = "512340077981"
OTHER_CONTACT_ID = "512340077990"
COMPANY_ID = "330222354907"
OTHER_COMPANY_ID = "330222354999"
ACCOUNT_ID = "0015g00001LwZ3kAAF"
OTHER_ACCOUNT_ID = "0015g00001LwZ4RAAV"
RESELLER_CUSTOMER_ID = "0070441"
OTHER_RESELLER_CUSTOMER_ID = "0070442"


class NoSample(Exception):
    """A sample cannot be built; the message says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """A request, ready to be sent."""

    method: str
    path: str
    """The request target: path and token, percent-encoded."""
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Values:
    """What goes into an event."""

    record_id: str
    other_id: str
    """The record merged away, the company of an association, or the previous id."""
    customer_id: str
    reference: str
    email: str
    occurred_at: int
    event_id: str | None
    unique: str
    """A text that differs from one moment and event to the next."""


@dataclass(frozen=True, slots=True)
class _Sample:
    says: str
    """The event in a few words, for people."""
    media_type: str
    record_id: str
    other_id: str
    body: Callable[[_Values, Settings], bytes]


def listing() -> list[tuple[str, str]]:
    """Every sample's name, and what its event says."""
    return [(name, sample.says) for name, sample in SAMPLES.items()]


def build(
    name: str,
    settings: Settings,
    *,
    now: float,
    record_id: str | None = None,
    other_id: str | None = None,
    customer_id: str | None = None,
    reference: str | None = None,
    email: str | None = None,
    occurred_at: int | None = None,
    event_id: str | None = None,
    path: str | None = None,
) -> SampleRequest:
    """Build and sign the sample called `name`.

    `occurred_at` is in milliseconds and `now` in seconds since the epoch. `other_id` is the
    record that a merge swallowed, the company of an association, or the id that a Geotab
    customer had before. `path` is where the request will be sent if not to the usual route.
    Raises NoSample.
    """
    sample = SAMPLES.get(name)
    if sample is None:
        raise NoSample(f"There is no sample called {name!r}: the names are {', '.join(NAMES)}.")
    source = Source(name.partition(".")[0])
    if not settings.serves(source):
        raise NoSample(f"{_SECRET_NAMES[source]} is not set, so nothing from {source} is signed.")
    values = _Values(
        record_id=record_id or sample.record_id,
        other_id=other_id or sample.other_id,
        customer_id=customer_id or CUSTOMER_ID,
        reference=reference or REFERENCE,
        email=email or EMAIL,
        occurred_at=int(now * 1000) if occurred_at is None else occurred_at,
        event_id=event_id,
        unique=str(uuid5(NAMESPACE_URL, f"{name}:{now}")),
    )
    body = sample.body(values, settings)
    return _SIGNERS[source](settings, sample.media_type, body, now, path)


_SECRET_NAMES = {
    Source.HUBSPOT: "HUBSPOT_CLIENT_SECRET",
    Source.SALESFORCE: "SALESFORCE_WEBHOOK_TOKEN or SALESFORCE_WEBHOOK_SECRET",
    Source.GEOTAB: "GEOTAB_WEBHOOK_TOKEN or GEOTAB_WEBHOOK_SECRET",
}


def _sign_hubspot(
    settings: Settings, media_type: str, body: bytes, now: float, path: str | None
) -> SampleRequest:
    """As HubSpot signs: v3, and beside it the older v1 that the version header speaks of."""
    secret = signatures.secret_bytes(settings.hubspot_client_secret)[0]
    path = path or "/webhooks/hubspot"
    uri = signatures.signed_uri(settings.public_url or "", path)
    timestamp = str(int(now * 1000))
    headers = {
        "Content-Type": media_type,
        "X-HubSpot-Request-Timestamp": timestamp,
        "X-HubSpot-Signature": signatures.sign_hubspot_v1(secret, body),
        "X-HubSpot-Signature-Version": "v1",
        "X-HubSpot-Signature-v3": signatures.sign_hubspot_v3(secret, "POST", uri, body, timestamp),
    }
    return SampleRequest("POST", path, headers, body)


def _sign_salesforce(
    settings: Settings, media_type: str, body: bytes, now: float, path: str | None
) -> SampleRequest:
    """SOAP can carry a token in the path only; JSON is signed, or has the token in a header."""
    secrets = signatures.secret_bytes(settings.salesforce_webhook_secret)
    tokens = signatures.secret_bytes(settings.salesforce_webhook_token)
    path = path or "/webhooks/salesforce"
    headers = {"Content-Type": media_type}
    if media_type == _XML:
        headers["SOAPAction"] = '""'
    if media_type == _XML and tokens:
        path = f"{path}/{quote(tokens[0], safe='')}"
    elif secrets:
        headers["X-Signature"] = signatures.sign_x(secrets[0], body, int(now))
    else:
        headers["X-Webhook-Token"] = tokens[0].decode()
    return SampleRequest("POST", path, headers, body)


def _sign_geotab(
    settings: Settings, media_type: str, body: bytes, now: float, path: str | None
) -> SampleRequest:
    """A form carries the token as a field, as MyGeotab's web requests do; JSON is signed."""
    secrets = signatures.secret_bytes(settings.geotab_webhook_secret)
    tokens = signatures.secret_bytes(settings.geotab_webhook_token)
    headers = {"Content-Type": media_type}
    if media_type == _FORM and tokens:
        body = urlencode({"token": tokens[0]}).encode() + b"&" + body
    elif secrets:
        headers["X-Signature"] = signatures.sign_x(secrets[0], body, int(now))
    else:
        headers["X-Webhook-Token"] = tokens[0].decode()
    return SampleRequest("POST", path or "/webhooks/geotab", headers, body)


_SIGNERS = {
    Source.HUBSPOT: _sign_hubspot,
    Source.SALESFORCE: _sign_salesforce,
    Source.GEOTAB: _sign_geotab,
}


def _hubspot(
    values: _Values,
    settings: Settings,
    *,
    event: str,
    more: Callable[[_Values, Settings], dict[str, Any]] | None = None,
) -> bytes:
    fields = {
        "eventId": _number(values.event_id, "event") or int(values.unique[:8], 16),
        "subscriptionId": 5120344,
        "portalId": _number(settings.hubspot_portal_id, "portal"),
        "appId": 8123456,
        "occurredAt": values.occurred_at,
        "subscriptionType": event,
        "attemptNumber": 0,
        "changeSource": "CRM_UI",
        "sourceId": "userId:61520904",
    }
    if not event.endswith("associationChange"):
        fields["objectId"] = _number(values.record_id, "record")
    return msgspec.json.encode([fields | (more(values, settings) if more else {})])


def _number(text: str | None, what: str) -> int | None:
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise NoSample(f"A HubSpot {what} id is a number, not {text!r}.") from None


def _property(name: str, value: str) -> dict[str, Any]:
    return {"propertyName": name, "propertyValue": value}


def _link(values: _Values, settings: Settings) -> dict[str, Any]:
    return _property(settings.hubspot_fusebill_id_property, values.customer_id)


def _unlink(_: _Values, settings: Settings) -> dict[str, Any]:
    return _property(settings.hubspot_fusebill_id_property, "")


def _reference(values: _Values, settings: Settings) -> dict[str, Any]:
    if not settings.hubspot_reference_property:
        raise NoSample("HUBSPOT_REFERENCE_PROPERTY is not set, so no reference is sent.")
    return _property(settings.hubspot_reference_property, values.reference)


def _email(values: _Values, _: Settings) -> dict[str, Any]:
    return _property("email", values.email)


def _merge(values: _Values, _: Settings) -> dict[str, Any]:
    """A merge of the other record into the record."""
    return {
        "primaryObjectId": _number(values.record_id, "record"),
        "mergedObjectIds": [_number(values.other_id, "record")],
        "newObjectId": _number(values.record_id, "record"),
        "numberOfPropertiesMoved": 14,
    }


def _association(
    values: _Values, _: Settings, *, removed: bool, primary: bool = True, by_company: bool = False
) -> dict[str, Any]:
    """The record, a contact, and the other, a company; `by_company` tells which of them says so."""
    ends = _number(values.record_id, "record"), _number(values.other_id, "record")
    from_id, to_id = ends[::-1] if by_company else ends
    return {
        "associationType": "COMPANY_TO_CONTACT" if by_company else "CONTACT_TO_COMPANY",
        "fromObjectId": from_id,
        "toObjectId": to_id,
        "associationRemoved": removed,
        "isPrimaryAssociation": primary,
    }


def _generic_association(values: _Values, settings: Settings, *, removed: bool) -> dict[str, Any]:
    event = _association(values, settings, removed=removed)
    del event["associationType"]
    return event | {"fromObjectTypeId": "0-1", "toObjectTypeId": "0-2", "associationTypeId": 1}


def _of_type(
    values: _Values,
    settings: Settings,
    *,
    more: Callable[[_Values, Settings], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    return {"objectTypeId": "0-1"} | (more(values, settings) if more else {})


def _test_button(*_: object) -> dict[str, Any]:
    return {"eventId": 100, "objectId": 123, "changeSource": "CRM", "changeFlag": "NEW"}


def _contact(says: str, event: str, more: Any = None, other_id: str = OTHER_CONTACT_ID) -> _Sample:
    return _Sample(says, _JSON, CONTACT_ID, other_id, partial(_hubspot, event=event, more=more))


def _company(says: str, event: str, more: Any = None) -> _Sample:
    return _Sample(
        says, _JSON, COMPANY_ID, OTHER_COMPANY_ID, partial(_hubspot, event=event, more=more)
    )


def _soap(values: _Values, settings: Settings, *, link: str | None) -> bytes:
    """`link` is the element that stands for the Fusebill id; None leaves it out."""
    field = settings.salesforce_fusebill_id_field
    element = "" if link is None else link.format(field=field, value=escape(values.customer_id))
    modified = escape(_iso(values.occurred_at))
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" \
xmlns:xsd="http://www.w3.org/2001/XMLSchema" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
 <soapenv:Body>
  <notifications xmlns="http://soap.sforce.com/2005/09/outbound">
   <OrganizationId>{salesforce_id_18(settings.salesforce_org_id or "")}</OrganizationId>
   <ActionId>04k5g0000008Rt1AAE</ActionId>
   <SessionId xsi:nil="true"/>
   <Notification>
    <Id>{escape(values.event_id or "04l5g00000Qm7XaAAJ")}</Id>
    <sObject xsi:type="sf:Account" xmlns:sf="urn:sobject.enterprise.soap.sforce.com">
     <sf:Id>{escape(values.record_id)}</sf:Id>
     {element}
     <sf:LastModifiedDate>{modified}</sf:LastModifiedDate>
    </sObject>
   </Notification>
  </notifications>
 </soapenv:Body>
</soapenv:Envelope>
""".encode()


def _payload(
    values: _Values,
    settings: Settings,
    *,
    change_type: str,
    link: bool = True,
    changed: bool = False,
) -> dict[str, Any]:
    """A change event; `link` sends the Fusebill id, `changed` names it as changed."""
    field = settings.salesforce_fusebill_id_field
    header = {
        "entityName": "Account",
        "recordIds": [] if change_type == "GAP_OVERFLOW" else [values.record_id],
        "changeType": change_type,
        "changeOrigin": "",
        "transactionKey": values.event_id or values.unique,
        "sequenceNumber": 1,
        "commitTimestamp": values.occurred_at,
        "commitNumber": 74487690213,
        "commitUser": "0055g000004bNvDAAU",
        "changedFields": [field, "LastModifiedDate"] if changed else [],
    }
    if change_type.startswith("GAP_"):
        return {"ChangeEventHeader": header}
    return {
        "ChangeEventHeader": header,
        "LastModifiedDate": values.occurred_at,
        field: values.customer_id if link else None,
    }


def _bare(values: _Values, settings: Settings, **more: Any) -> bytes:
    return msgspec.json.encode(_payload(values, settings, **more))


def _cdc(values: _Values, settings: Settings, **more: Any) -> bytes:
    return msgspec.json.encode(_streamed(values, settings, **more))


def _streamed(values: _Values, settings: Settings, **more: Any) -> dict[str, Any]:
    return {
        "schema": "Qm3-xTzvKs8wLpYBr2nfeg",
        "payload": _payload(values, settings, **more),
        "event": {"replayId": 4471},
    }


def _cometd(values: _Values, settings: Settings, **more: Any) -> bytes:
    data = _streamed(values, settings, **more)
    return msgspec.json.encode({"channel": "/data/AccountChangeEvent", "data": data})


def _eventbridge(values: _Values, settings: Settings, **more: Any) -> bytes:
    organisation = salesforce_id_18(settings.salesforce_org_id or "")
    return msgspec.json.encode(
        {
            "version": "0",
            "id": values.unique,
            "detail-type": "AccountChangeEvent",
            "source": f"aws.partner/salesforce.com/{organisation}/0YL5g000000Gd4fGAC",
            "detail": {"payload": _payload(values, settings, **more)},
        }
    )


def _apex(
    values: _Values, settings: Settings, *, old: bool | None, new: bool | None, merge: bool = False
) -> bytes:
    """`old` and `new` tell whether that version holds the Fusebill id; None: there is none."""
    field = settings.salesforce_fusebill_id_field

    def versions(holds: bool | None) -> list[dict[str, Any]]:  # noqa: FBT001 - local
        if holds is None:
            return []
        record_id = values.other_id if merge else values.record_id
        record = {
            "attributes": {"type": "Account"},
            "Id": record_id,
            "LastModifiedDate": _iso(values.occurred_at).replace("Z", "+0000"),
        }
        if merge:
            record["MasterRecordId"] = values.record_id
        return [record | ({field: values.customer_id} if holds else {})]

    event = {"new": versions(new), "old": versions(old), "userId": "0055g000004bNvDAAU"}
    return msgspec.json.encode(event)


def _iso(occurred_at: int) -> str:
    try:
        moment = datetime.fromtimestamp(occurred_at / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise NoSample("The time is too far off to be written as a date.") from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _account(says: str, body: Callable[..., bytes], **more: Any) -> _Sample:
    media_type = _XML if body is _soap else _JSON
    return _Sample(says, media_type, ACCOUNT_ID, OTHER_ACCOUNT_ID, partial(body, **more))


def _geotab_event(
    values: _Values, settings: Settings, *, event: str, names: tuple[str, ...] = ()
) -> dict[str, str]:
    """`names` lists the fields beyond those that every event has."""
    found = {
        "previous_reseller_customer_id": values.other_id,
        "fusebill_id": values.customer_id,
        "reference": values.reference,
    }
    return {
        "event_id": values.event_id or values.unique,
        "event_type": f"customer.{event}",
        "occurred_at": _iso(values.occurred_at),
        "account": settings.geotab_account or "",
        "reseller_customer_id": values.record_id,
        **{name: found[name] for name in names},
    }


def _geotab_json(values: _Values, settings: Settings, **more: Any) -> bytes:
    return msgspec.json.encode({"events": [_geotab_event(values, settings, **more)]})


def _geotab_form(values: _Values, settings: Settings, **more: Any) -> bytes:
    return urlencode(_geotab_event(values, settings, **more)).encode()


def _geotab(says: str, event: str, *names: str) -> _Sample:
    body = partial(_geotab_json, event=event, names=names)
    return _Sample(says, _JSON, RESELLER_CUSTOMER_ID, OTHER_RESELLER_CUSTOMER_ID, body)


def _form(says: str, event: str, *names: str) -> _Sample:
    body = partial(_geotab_form, event=event, names=names)
    return _Sample(says, _FORM, RESELLER_CUSTOMER_ID, OTHER_RESELLER_CUSTOMER_ID, body)


_JOINED = partial(_association, removed=False)
_LEFT = partial(_association, removed=True)

SAMPLES: Mapping[str, _Sample] = {
    "hubspot.contact.linked": _contact(
        "the Fusebill id of a contact was set", "contact.propertyChange", _link
    ),
    "hubspot.contact.unlinked": _contact(
        "the Fusebill id of a contact was cleared", "contact.propertyChange", _unlink
    ),
    "hubspot.contact.email": _contact(
        "the email of a contact changed", "contact.propertyChange", _email
    ),
    "hubspot.contact.reference": _contact(
        "the reference of a contact changed", "contact.propertyChange", _reference
    ),
    "hubspot.contact.creation": _contact("a contact was made", "contact.creation"),
    "hubspot.contact.deletion": _contact("a contact was deleted", "contact.deletion"),
    "hubspot.contact.privacyDeletion": _contact(
        "a contact was erased for privacy", "contact.privacyDeletion"
    ),
    "hubspot.contact.restore": _contact("a deleted contact was restored", "contact.restore"),
    "hubspot.contact.merge": _contact(
        "another contact was merged into a contact", "contact.merge", _merge
    ),
    "hubspot.contact.association": _contact(
        "a contact joined its primary company", "contact.associationChange", _JOINED, COMPANY_ID
    ),
    "hubspot.contact.association.other": _contact(
        "a contact joined a company that is not its primary one",
        "contact.associationChange",
        partial(_JOINED, primary=False),
        COMPANY_ID,
    ),
    "hubspot.contact.dissociation": _contact(
        "a contact left its primary company", "contact.associationChange", _LEFT, COMPANY_ID
    ),
    "hubspot.contact.dissociation.other": _contact(
        "a contact left a company that was not its primary one",
        "contact.associationChange",
        partial(_LEFT, primary=False),
        COMPANY_ID,
    ),
    "hubspot.company.linked": _company(
        "the Fusebill id of a company was set", "company.propertyChange", _link
    ),
    "hubspot.company.unlinked": _company(
        "the Fusebill id of a company was cleared", "company.propertyChange", _unlink
    ),
    "hubspot.company.reference": _company(
        "the reference of a company changed", "company.propertyChange", _reference
    ),
    "hubspot.company.creation": _company("a company was made", "company.creation"),
    "hubspot.company.deletion": _company("a company was deleted", "company.deletion"),
    "hubspot.company.restore": _company("a deleted company was restored", "company.restore"),
    "hubspot.company.merge": _company(
        "another company was merged into a company", "company.merge", _merge
    ),
    "hubspot.company.association": _contact(
        "a contact joined its primary company (told by the company)",
        "company.associationChange",
        partial(_JOINED, by_company=True),
        COMPANY_ID,
    ),
    "hubspot.company.dissociation": _contact(
        "a contact left its primary company (told by the company)",
        "company.associationChange",
        partial(_LEFT, by_company=True),
        COMPANY_ID,
    ),
    "hubspot.object.linked": _contact(
        "the Fusebill id of a contact was set (generic form)",
        "object.propertyChange",
        partial(_of_type, more=_link),
    ),
    "hubspot.object.deletion": _contact(
        "a contact was deleted (generic form)", "object.deletion", _of_type
    ),
    "hubspot.object.association": _contact(
        "a contact joined its primary company (generic form)",
        "object.associationChange",
        partial(_generic_association, removed=False),
        COMPANY_ID,
    ),
    "hubspot.object.dissociation": _contact(
        "a contact left its primary company (generic form)",
        "object.associationChange",
        partial(_generic_association, removed=True),
        COMPANY_ID,
    ),
    "hubspot.test": _contact("HubSpot's test button was pressed", "contact.creation", _test_button),
    "salesforce.soap.linked": _account(
        "an Account holds a Fusebill id", _soap, link="<sf:{field}>{value}</sf:{field}>"
    ),
    "salesforce.soap.unlinked": _account(
        "an Account holds no Fusebill id", _soap, link='<sf:{field} xsi:nil="true"/>'
    ),
    "salesforce.soap.touched": _account(
        "an Account changed; its Fusebill id is not sent", _soap, link=None
    ),
    "salesforce.cdc.create": _account(
        "an Account was made with a Fusebill id", _cdc, change_type="CREATE"
    ),
    "salesforce.cdc.update": _account(
        "the Fusebill id of an Account was set", _cdc, change_type="UPDATE", changed=True
    ),
    "salesforce.cdc.clear": _account(
        "the Fusebill id of an Account was cleared",
        _cdc,
        change_type="UPDATE",
        changed=True,
        link=False,
    ),
    "salesforce.cdc.delete": _account("an Account was deleted", _cdc, change_type="DELETE"),
    "salesforce.cdc.undelete": _account(
        "a deleted Account was restored", _cdc, change_type="UNDELETE"
    ),
    "salesforce.cdc.gap": _account(
        "an Account changed; the event could not be written", _cdc, change_type="GAP_UPDATE"
    ),
    "salesforce.cdc.overflow": _account(
        "too many Accounts changed to tell which", _cdc, change_type="GAP_OVERFLOW"
    ),
    "salesforce.bare.create": _account(
        "an Account was made (payload alone)", _bare, change_type="CREATE"
    ),
    "salesforce.cometd.undelete": _account(
        "a deleted Account was restored (CometD)", _cometd, change_type="UNDELETE"
    ),
    "salesforce.eventbridge.create": _account(
        "an Account was made (EventBridge)", _eventbridge, change_type="CREATE"
    ),
    "salesforce.apex.insert": _account(
        "an Account was made with a Fusebill id (trigger)", _apex, old=None, new=True
    ),
    "salesforce.apex.update": _account(
        "the Fusebill id of an Account was set (trigger)", _apex, old=False, new=True
    ),
    "salesforce.apex.clear": _account(
        "the Fusebill id of an Account was cleared (trigger)", _apex, old=True, new=False
    ),
    "salesforce.apex.delete": _account(
        "an Account was deleted (trigger)", _apex, old=True, new=None
    ),
    "salesforce.apex.merge": _account(
        "another Account was merged into an Account (trigger)",
        _apex,
        old=True,
        new=None,
        merge=True,
    ),
    "geotab.linked": _geotab("a customer was linked to a Fusebill id", "linked", "fusebill_id"),
    "geotab.reference": _geotab("a customer was linked to a reference", "linked", "reference"),
    "geotab.previous": _geotab(
        "the id of a customer changed; to what it is linked, it does not say",
        "changed",
        "previous_reseller_customer_id",
    ),
    "geotab.touched": _geotab("a customer was linked; to what, it does not say", "linked"),
    "geotab.changed": _geotab(
        "the id of a customer changed", "changed", "fusebill_id", "previous_reseller_customer_id"
    ),
    "geotab.unlinked": _geotab("a customer was unlinked", "unlinked", "fusebill_id"),
    "geotab.deactivated": _geotab("a customer was deactivated", "deactivated"),
    "geotab.form.linked": _form(
        "a customer was linked to a Fusebill id (form)", "linked", "fusebill_id"
    ),
    "geotab.form.unlinked": _form("a customer was unlinked (form)", "unlinked", "fusebill_id"),
}
"""Every sample by name: `source`, then what happened."""

NAMES = tuple(SAMPLES)
