"""Outbound Messages: SOAP 1.1, up to 100 notifications in one message (B2.6, B2.7).

The message names its organisation and its definition once. A null field is left out of it, and
so is one that the definition does not list: an absent link field says nothing, unless the
settings take it for a cleared one. Whether the definition was ever seen carrying the field is
judged where changes are decided, because nothing is looked up here (B2.2). Elements are matched
by local name and by `xsi:type`: messages in the partner namespace are possible, though none was
ever seen. Shapes are those of Salesforce's outbound messaging WSDL and of captured messages.

A notification without an sObject (its record was deleted before delivery) names no record, so
no change can be made of it: it is acknowledged and counted as ignored.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, ParseError, tostring

from defusedxml import ElementTree

from sync_worker.domain import Aspect, Kind
from webhooks.sources import Decoded, Undecodable, UndecodableEvent
from webhooks.sources.reading import Statement, Unreadable, epoch_or_iso_ms, whole
from webhooks.sources.salesforce.accounts import (
    TOUCHED,
    Accounts,
    Claim,
    account_id,
    canonical,
    hinted,
    linked,
    unlinked,
    without_session,
)

_XSI = "{http://www.w3.org/2001/XMLSchema-instance}"
_NIL = frozenset({"true", "1"})

_LEFT_OUT: Claim = (Kind.UNLINKED, Aspect.LINK, {"evidence": None, "left_out": True})


def read(body: bytes, accounts: Accounts, request_id: str) -> Decoded:
    """Read a message. Raises Undecodable."""
    message = _message(body)
    named = _texts(message)
    notifications = [child for child in message if _name(child) == "Notification"]
    decoded = Decoded()
    try:
        ours = accounts.is_ours(named.get("OrganizationId") or "")
    except Unreadable as fault:
        raise Undecodable(str(fault)) from None
    if not ours:
        decoded.foreign = max(1, len(notifications))
        return decoded
    definition = _definition(named.get("ActionId"))
    for notification in notifications:
        raw = ""
        try:
            raw = _raw(notification)
            _read_notification(
                notification, raw, accounts, decoded, definition=definition, request_id=request_id
            )
        except Unreadable as fault:
            decoded.undecodable.append(UndecodableEvent(raw.encode(), str(fault)))
    return decoded


def _message(body: bytes) -> Element:
    """The `notifications` element of the envelope. Raises Undecodable."""
    try:
        element: Element | None = ElementTree.fromstring(
            body, forbid_dtd=True, forbid_entities=True, forbid_external=True
        )
    except (ParseError, ElementTree.ParseError, ValueError, LookupError, RecursionError):
        raise Undecodable("the body is not XML, or holds a DTD or entities") from None
    if element is not None and _name(element) == "Envelope":
        for name in ("Body", "notifications"):
            element = _child(element, name)
        if element is not None:
            return element
    raise Undecodable("the body is not a Salesforce Outbound Message")


def _definition(action_id: str | None) -> str | None:
    """Which message definition a message is of; None if it does not say so in a readable way."""
    try:
        return canonical(action_id, "ActionId")
    except Unreadable:
        return None


def _read_notification(
    notification: Element,
    raw: str,
    accounts: Accounts,
    into: Decoded,
    *,
    definition: str | None,
    request_id: str,
) -> None:
    sobject = _child(notification, "sObject")
    if sobject is None or not len(sobject):
        into.ignored["record deleted before delivery"] += 1
        return
    kind = sobject.get(f"{_XSI}type", "Account").rpartition(":")[2]
    fields = _texts(sobject)
    id_ = account_id(fields.get("Id")) if kind == "Account" else None
    if id_ is None:
        into.ignored["other objects"] += 1
        return
    notification_id = _texts(notification).get("Id") or None
    modified = fields.get("LastModifiedDate")
    link = fields.get(accounts.link_field)
    reference = whole(fields.get(accounts.reference_field or "") or "")
    about = Statement(
        record=accounts.record(id_),
        marks=notification_id and (notification_id, modified, link, reference),
        occurred_at=epoch_or_iso_ms(modified),
        event_id=notification_id,
        request_id=request_id,
        raw=raw,
    )
    claims = [_link_claim(fields, definition, accounts)]
    if reference:
        claims.append(hinted(reference))
    into.changes += [
        about.change(kind, aspect, definition=definition, **more) for kind, aspect, more in claims
    ]


def _link_claim(fields: dict[str, str], definition: str | None, accounts: Accounts) -> Claim:
    """What the link field says. Whether it changed, only the last value stored can tell."""
    if accounts.link_field not in fields:
        return _LEFT_OUT if accounts.absent_means_cleared and definition else TOUCHED
    value = whole(fields[accounts.link_field])
    return linked(value, evidence=None) if value else unlinked(evidence=None)


def _texts(element: Element) -> dict[str, str]:
    """The texts of an element's children by local name; "" for an empty or nil one."""
    return {
        _name(child): ""
        if child.get(f"{_XSI}nil", "").strip() in _NIL
        else (child.text or "").strip()
        for child in element
    }


def _child(element: Element | None, name: str) -> Element | None:
    if element is None:
        return None
    return next((child for child in element if _name(child) == name), None)


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _raw(notification: Element) -> str:
    """A notification as XML again. Raises Unreadable if it is nested too deep to write."""
    try:
        text = tostring(notification, encoding="unicode")
    except RecursionError:
        raise Unreadable("the notification is nested too deep") from None
    return without_session(text.encode("utf-8", "replace")).decode("utf-8")
