"""The JSON shapes, and change data capture (B2.6, B3.2).

A change event is the same payload in four wrappers: CometD's `{channel, data}`, the
`{schema, payload, event}` within it, EventBridge's `{detail}`, or none. Only EventBridge
names the organisation, in its `source`; an Apex author may add `organizationId`. Header fields
and change types are those of Salesforce's Change Data Capture guide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from sync_worker.domain import Record
from webhooks.sources import Decoded, Proof, Unauthenticated, UndecodableEvent
from webhooks.sources.reading import (
    Statement,
    Unreadable,
    epoch_ms,
    lenient_scalar,
    scalar,
    table,
    text_of,
    typed,
)
from webhooks.sources.salesforce import apex
from webhooks.sources.salesforce.accounts import (
    DELETED,
    RESTORED,
    TOUCHED,
    Accounts,
    Claim,
    account_id,
    canonical,
    hinted,
    linked,
    of_new,
    unlinked,
    without_session,
)

_HEADER = "ChangeEventHeader"
_WRAPPERS = ("payload", "data", "detail")
_DEEPEST_WRAPPING = 3
"""CometD's `data` holds a `payload`; nothing known wraps deeper."""

_PARTNER_SOURCE = re.compile(
    r"aws\.partner/salesforce\.com/([A-Za-z0-9]{15,18})(?:/.*)?", re.DOTALL
)
_ENTITIES = ("Account", "AccountChangeEvent")
_GAP = "GAP_"
_OVERFLOW = "GAP_OVERFLOW"
_WILDCARD = "*"
_BITMAP = re.compile(r"(?:[0-9]+-)?0x[0-9A-Fa-f]+")
"""How the Pub/Sub API writes changed fields: readable only with its Avro schema."""


class _Header(msgspec.Struct, rename="camel"):
    entity_name: Any = None
    record_ids: Any = None
    change_type: Any = None
    changed_fields: Any = None
    nulled_fields: Any = None
    transaction_key: msgspec.Raw = msgspec.Raw(b"null")
    sequence_number: msgspec.Raw = msgspec.Raw(b"null")
    commit_timestamp: msgspec.Raw = msgspec.Raw(b"null")


_header = msgspec.json.Decoder(_Header)


def read_event(
    raw: msgspec.Raw, accounts: Accounts, proof: Proof, request_id: str, into: Decoded
) -> None:
    """Read one JSON event of whichever shape. Raises Unreadable or Unauthenticated."""
    event = table(raw)
    payload = _payload(event)
    if payload is None and not ("new" in event or "old" in event):
        raise Unreadable("the event has none of the shapes that Salesforce sends")
    organisation = _organisation(event)
    if organisation is None and proof is Proof.URL_TOKEN:
        raise Unauthenticated("weak")
    if organisation is not None and not accounts.is_ours(organisation):
        into.foreign += 1
    elif payload is None:
        apex.read(event, accounts, request_id, into)
    else:
        _read_change(raw, payload, accounts, request_id, into)


def _payload(event: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw] | None:
    for _ in range(_DEEPEST_WRAPPING):
        if _HEADER in event:
            return event
        wrapper = next((name for name in _WRAPPERS if name in event), None)
        if wrapper is None:
            return None
        event = table(event[wrapper])
    return event if _HEADER in event else None


def _organisation(event: dict[str, msgspec.Raw]) -> str | None:
    """The organisation that an event names; None if it names none. Raises Unreadable."""
    if "organizationId" in event:
        return canonical(scalar(event["organizationId"], "organizationId"), "organizationId")
    if "detail" not in event or "source" not in event:
        return None
    found = _PARTNER_SOURCE.fullmatch(scalar(event["source"], "source") or "")
    if not found:
        raise Unreadable("source names no Salesforce organisation")
    return found[1]


def _read_change(
    event: msgspec.Raw,
    payload: dict[str, msgspec.Raw],
    accounts: Accounts,
    request_id: str,
    into: Decoded,
) -> None:
    header = typed(_header, payload[_HEADER])
    if not isinstance(header.entity_name, str) or not isinstance(header.change_type, str):
        raise Unreadable("entityName or changeType is missing")
    if header.entity_name not in _ENTITIES:
        into.ignored["other objects"] += 1
        return
    if header.change_type == _OVERFLOW:
        into.reconcile.append(_OVERFLOW)
        return
    found = _sorted_ids(header.record_ids)
    claims = list(_claims(header, payload, accounts))
    text = without_session(text_of(event).encode()).decode()
    kept = [text] if len(header.record_ids) == 1 else _apart(payload, found.accounts, accounts)
    statements = [
        _about(header, accounts.record(id_), request_id, raw)
        for id_, raw in zip(found.accounts, kept, strict=False)
    ]
    into.changes += [
        about.change(kind, aspect, **more) for about in statements for kind, aspect, more in claims
    ]
    if found.others:
        into.ignored["other objects"] += found.others
    if found.accounts and not claims:
        into.ignored["other fields"] += 1
    if found.wildcard:
        into.reconcile.append("recordIds wildcard")
    if found.faulty:
        why = "one of recordIds is not a Salesforce id"
        into.undecodable.append(UndecodableEvent(text.encode(), why))


class _Ids(msgspec.Struct):
    """The record ids of one event, sorted out."""

    accounts: list[str]
    others: int = 0
    wildcard: bool = False
    faulty: bool = False


def _sorted_ids(values: Any) -> _Ids:
    if not isinstance(values, list) or not values:
        raise Unreadable("recordIds is missing or empty")
    ids = _Ids([])
    for value in values:
        if isinstance(value, str) and value.endswith(_WILDCARD):
            ids.wildcard = True
            continue
        try:
            id_ = account_id(value if isinstance(value, str) else None)
        except Unreadable:
            ids.faulty = True
            continue
        if id_ is None:
            ids.others += 1
        else:
            ids.accounts.append(id_)
    return ids


def _about(header: _Header, record: Record, request_id: str, raw: str) -> Statement:
    key = lenient_scalar(header.transaction_key)
    sequence = lenient_scalar(header.sequence_number)
    return Statement(
        record=record,
        marks=(key, sequence, header.change_type) if key and sequence else None,
        occurred_at=epoch_ms(lenient_scalar(header.commit_timestamp)),
        event_id=key,
        request_id=request_id,
        raw=raw,
    )


def _apart(payload: dict[str, msgspec.Raw], ids: list[str], accounts: Accounts) -> Iterator[str]:
    """The event as if it named one record only, for each of its records, with our fields alone.

    A bulk change names thousands: keeping the whole list, or a long description, with each of
    them would multiply a body into gigabytes.
    """
    header = table(payload[_HEADER])
    ours = (accounts.link_field, accounts.reference_field, "LastModifiedDate")
    payload = {name: value for name, value in payload.items() if name in ours}
    for id_ in ids:
        header["recordIds"] = msgspec.Raw(msgspec.json.encode([id_]))
        alone = payload | {_HEADER: msgspec.Raw(msgspec.json.encode(header))}
        yield without_session(msgspec.json.encode(alone)).decode()


def _claims(
    header: _Header, payload: dict[str, msgspec.Raw], accounts: Accounts
) -> Iterable[Claim]:
    """What a change event says of each of its records; nothing if our fields did not change."""
    change_type: str = header.change_type
    if change_type.startswith(_GAP):
        return [TOUCHED]
    read = _READERS.get(change_type)
    if read is None:
        raise Unreadable("changeType is none that Salesforce documents")
    return read(header, payload, accounts)


def _created(_: _Header, payload: dict[str, msgspec.Raw], accounts: Accounts) -> Iterable[Claim]:
    return of_new(accounts.link(payload), accounts.reference(payload))


def _undeleted(_: _Header, payload: dict[str, msgspec.Raw], accounts: Accounts) -> Iterator[Claim]:
    yield RESTORED
    if link := accounts.link(payload):
        yield linked(link, evidence=False)
    if reference := accounts.reference(payload):
        yield hinted(reference)


def _deleted(*_: object) -> Iterable[Claim]:
    """A deletion and nothing else: enrichment puts fields on it that did not change."""
    return [DELETED]


def _updated(
    header: _Header, payload: dict[str, msgspec.Raw], accounts: Accounts
) -> Iterable[Claim]:
    """Only fields that the header names changed; enrichment adds others (B3.2)."""
    changed = _names(header.changed_fields, "changedFields")
    nulled = _names(header.nulled_fields, "nulledFields")
    named = changed | nulled
    if not named or any(map(_BITMAP.fullmatch, named)):
        return [TOUCHED]
    claims = []
    if accounts.link_field in named:
        claims.append(_updated_link(payload, nulled, accounts))
    if accounts.reference_field in named and (reference := accounts.reference(payload)):
        claims.append(hinted(reference))
    return claims


def _updated_link(
    payload: dict[str, msgspec.Raw], nulled: frozenset[str], accounts: Accounts
) -> Claim:
    """A field named as changed but not sent, as null or otherwise, takes a read to tell."""
    field = accounts.link_field
    if field in nulled:
        return unlinked(evidence=True)
    if field not in payload:
        return TOUCHED
    link = accounts.link(payload)
    return linked(link, evidence=True) if link else unlinked(evidence=True)


def _names(values: Any, what: str) -> frozenset[str]:
    if values is None:
        return frozenset()
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return frozenset(values)
    raise Unreadable(f"{what} is not a list of names")


_READERS: dict[str, Callable[[_Header, dict[str, msgspec.Raw], Accounts], Iterable[Claim]]] = {
    "CREATE": _created,
    "UPDATE": _updated,
    "DELETE": _deleted,
    "UNDELETE": _undeleted,
}
