"""What Apex triggers post: `{"new": [...], "old": [...]}`, records before and after (B3.2).

The shape is that of Trailhead's webhook class, which others copied. Null fields are left out
of such a record, so an absent field is an empty one. There is no retry behind it: what is lost
is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from sync_worker.domain import Aspect, Change, Kind, Record
from webhooks.sources import Decoded, UndecodableEvent
from webhooks.sources.reading import (
    Statement,
    Unreadable,
    epoch_or_iso_ms,
    lenient_scalar,
    scalar,
    table,
    text_of,
    typed,
)
from webhooks.sources.salesforce.accounts import (
    Accounts,
    Claim,
    account_id,
    hinted,
    linked,
    of_new,
    unlinked,
    without_session,
)


class _Attributes(msgspec.Struct):
    type: Any = None


_records = msgspec.json.Decoder(list[msgspec.Raw] | None)
_attributes = msgspec.json.Decoder(_Attributes | None)
_NOTHING = msgspec.Raw(b"null")


class _Version(msgspec.Struct):
    """One record as it was before or after what set the trigger off."""

    raw: msgspec.Raw
    fields: dict[str, msgspec.Raw]
    id: str | None
    """The canonical id; None if it is not an Account's."""


def read(event: dict[str, msgspec.Raw], accounts: Accounts, request_id: str, into: Decoded) -> None:
    """Read one trigger's records, each for itself. Raises Unreadable."""
    after = typed(_records, event.get("new", _NOTHING)) or []
    before = typed(_records, event.get("old", _NOTHING)) or []
    old = {version.id: version for version in map(_version, before if after else ())}
    for raw in after:
        _read_record(raw, old, accounts, request_id, into)
    for raw in () if after else before:
        _read_record(raw, None, accounts, request_id, into)
    if not after and not before:
        into.ignored["trigger without records"] += 1
    old.pop(None, None)
    into.undecodable += [
        UndecodableEvent(without_session(bytes(left.raw)), "a record is in old but not in new")
        for left in old.values()
    ]


def _read_record(
    raw: msgspec.Raw,
    old: dict[str | None, _Version] | None,
    accounts: Accounts,
    request_id: str,
    into: Decoded,
) -> None:
    """Read a record that was written, or one that was deleted: then there is no `old`."""
    try:
        version = _version(raw)
        if version.id is None:
            into.ignored["other objects"] += 1
            return
        record = accounts.record(version.id)
        if old is None:
            changes = [_deletion(version, record, accounts, request_id)]
        else:
            changes = _writing(version, old.pop(version.id, None), record, accounts, request_id)
    except Unreadable as fault:
        into.undecodable.append(UndecodableEvent(without_session(bytes(raw)), str(fault)))
        return
    into.changes += changes
    if not changes:
        into.ignored["other fields"] += 1


def _version(raw: msgspec.Raw) -> _Version:
    fields = table(raw)
    attributes = typed(_attributes, fields.get("attributes", _NOTHING))
    kind = (attributes and attributes.type) or "Account"
    id_ = account_id(scalar(fields.get("Id"), "Id")) if kind == "Account" else None
    return _Version(raw, fields, id_)


def _deletion(old: _Version, record: Record, accounts: Accounts, request_id: str) -> Change:
    """A record is gone, or was merged into another, which then carries on (B3.2).

    When, the trigger does not say: the record's last modification was before (B3.8).
    """
    master = scalar(old.fields.get("MasterRecordId"), "MasterRecordId")
    survivor = record
    if master:
        master_id = account_id(master)
        if master_id is None or master_id == record.id:
            raise Unreadable("MasterRecordId is no other Account")
        survivor = accounts.record(master_id)
    modified = lenient_scalar(old.fields.get("LastModifiedDate"))
    about = Statement(
        record=survivor,
        marks=(modified, record.id, accounts.link(old.fields)) if modified else None,
        occurred_at=None,
        event_id=None,
        request_id=request_id,
        raw=_pair(None, old),
    )
    if survivor == record:
        return about.change(Kind.DELETED, Aspect.EXISTENCE)
    return about.change(Kind.MERGED, Aspect.EXISTENCE, merged_ids=(record.id,))


def _writing(
    new: _Version, old: _Version | None, record: Record, accounts: Accounts, request_id: str
) -> list[Change]:
    """A record was made or changed; empty if none of our fields changed."""
    link, reference = accounts.link(new.fields), accounts.reference(new.fields)
    if old is None:
        claims = list(of_new(link, reference))
    else:
        claims = list(_differences(link, reference, old.fields, accounts))
    modified = lenient_scalar(new.fields.get("LastModifiedDate"))
    about = Statement(
        record=record,
        marks=(modified, link, reference) if modified else None,
        occurred_at=epoch_or_iso_ms(modified),
        event_id=None,
        request_id=request_id,
        raw=_pair(new, old),
    )
    return [about.change(kind, aspect, **more) for kind, aspect, more in claims]


def _differences(
    link: str, reference: str, old: dict[str, msgspec.Raw], accounts: Accounts
) -> Iterator[Claim]:
    if link != accounts.link(old):
        yield linked(link, evidence=True) if link else unlinked(evidence=True)
    if reference and reference != accounts.reference(old):
        yield hinted(reference)


def _pair(new: _Version | None, old: _Version | None) -> str:
    """The part of the event that is about one record."""
    after, before = (text_of(version.raw) if version else "" for version in (new, old))
    text = f'{{"new":[{after}],"old":[{before}]}}'
    return without_session(text.encode()).decode()
