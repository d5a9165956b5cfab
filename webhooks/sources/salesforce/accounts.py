"""What all Salesforce shapes share: whose Accounts matter, their ids, and their two fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from sync_worker.domain import Aspect, Kind, Record, RecordType, Source, salesforce_id_18
from webhooks.sources.reading import Unreadable, scalar, whole

ACCOUNT_PREFIX = "001"
ORGANISATION_PREFIX = "00D"
"""Record ids begin with their object's key prefix (help article 000385203)."""

Claim = tuple[Kind, Aspect, dict[str, Any]]
"""A kind of change, its aspect, and the further fields of `Change` that go with it."""

_XML_SESSION = re.compile(
    rb"(<(?:[\w.\-]++:)?SessionId\b[^<>]*+(?<!/)>).*?(?=</(?:[\w.\-]++:)?SessionId\b|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_JSON_SESSION = re.compile(
    rb'("sessionid"\s*+:\s*+)"(?:[^"\\]++|\\.)*+("|\\?\Z)', re.DOTALL | re.IGNORECASE
)
"""Neither ever looks at a byte more than a few times, whatever the body holds."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The one organisation whose Accounts are ours, and the fields of theirs that matter."""

    tenant: str
    """The first 15 characters of the organisation's id (B2.9)."""
    link_field: str
    reference_field: str | None
    absent_means_cleared: bool
    """Whether a link field that an Outbound Message leaves out may be an empty one (B3.2)."""

    def is_ours(self, organisation: str) -> bool:
        """Whether an organisation's id is that of our tenant. Raises Unreadable."""
        id_ = canonical(organisation, "the organisation's id")
        if not id_.startswith(ORGANISATION_PREFIX):
            raise Unreadable("the organisation's id is that of another object")
        return id_[:15] == self.tenant

    def record(self, id_: str) -> Record:
        """The record of an Account, by its canonical id."""
        return Record(Source.SALESFORCE, self.tenant, RecordType.ACCOUNT, id_)

    def link(self, fields: dict[str, msgspec.Raw]) -> str:
        """The Fusebill id in a JSON record; "" if it is empty or not there."""
        return _value(fields, self.link_field)

    def reference(self, fields: dict[str, msgspec.Raw]) -> str:
        """The hint in a JSON record; "" if it is empty, not there, or not asked for."""
        return _value(fields, self.reference_field) if self.reference_field else ""


def canonical(text: str | None, what: str) -> str:
    """The 18 characters of an id (B3.3). Raises Unreadable, without quoting it."""
    try:
        return salesforce_id_18(text or "")
    except ValueError:
        raise Unreadable(f"{what} is missing or not a Salesforce id") from None


def account_id(text: str | None) -> str | None:
    """The canonical id of an Account; None if it is that of another object."""
    id_ = canonical(text, "a record id")
    return id_ if id_.startswith(ACCOUNT_PREFIX) else None


def linked(value: str, *, evidence: bool | None) -> Claim:
    """The link field holds a value."""
    return Kind.LINKED, Aspect.LINK, {"customer_id": value, "evidence": evidence}


def unlinked(*, evidence: bool | None) -> Claim:
    """The link field was emptied."""
    return Kind.UNLINKED, Aspect.LINK, {"evidence": evidence}


def hinted(reference: str) -> Claim:
    """The reference field holds a value."""
    return Kind.LINKED, Aspect.HINT, {"reference": reference, "evidence": False}


TOUCHED: Claim = (Kind.TOUCHED, Aspect.EXISTENCE, {})
DELETED: Claim = (Kind.DELETED, Aspect.EXISTENCE, {})
RESTORED: Claim = (Kind.RESTORED, Aspect.EXISTENCE, {})


def of_new(link: str, reference: str) -> Iterator[Claim]:
    """What a record that was just made says. Its making is no evidence (B3.7)."""
    if link:
        yield linked(link, evidence=False)
    if reference:
        yield hinted(reference)
    if not link and not reference:
        yield TOUCHED


def without_session(body: bytes) -> bytes:
    """A body, or a part of one, with every `SessionId` in it emptied (B2.6).

    It may be cut short or malformed. One in an encoding that hides the name, such as
    UTF-16, is not kept at all.
    """
    if b"\0" in body:
        return b""
    body = _XML_SESSION.sub(rb"\1", body)
    return _JSON_SESSION.sub(rb'\1""', body)


def _value(fields: dict[str, msgspec.Raw], name: str) -> str:
    return whole((scalar(fields.get(name), name) or "").strip())
