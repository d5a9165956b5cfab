"""Reads contacts and companies of one HubSpot portal (B3.5).

Paths, by `HUBSPOT_API_VERSION`. Those of `v3` and `2026-03` are documented: in HubSpot's API
reference, the date-based list of companies in the SDKs that HubSpot generates from its
specifications. Other dates are taken to follow the same pattern.

| what | `v3` | `YYYY-MM` |
|---|---|---|
| a record | `/crm/v3/objects/contacts/{id}` | `/crm/objects/YYYY-MM/contacts/{id}` |
| its companies | `/crm/v4/objects/contacts/{id}/associations/companies` | record + `/associations/companies` |
| the portal | `/account-info/v3/details` | `/account-info/YYYY-MM/details` |

`/crm/v4` ends on 2027-03-30 and `/crm/v3` in September 2027 (changelog 'Legacy APIs and legacy
apps').

| answer | means |
|---|---|
| 200 that is what was asked for | that |
| 404 of category `OBJECT_NOT_FOUND` about the id | not there |
| 401, the details of another portal, 403 instead of them | Unauthorized |
| any other 403 | Forbidden |
| 429 | RateLimited |
| none, a broken one, 408, 5xx, a status that HTTP does not know | Unavailable, an outage |
| any other | Unavailable |
"""  # noqa: E501 - a table

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
import requests
from requests.auth import AuthBase

from sync_worker.crm.errors import (
    CrmError,
    Forbidden,
    RateLimited,
    Unauthorized,
    Unavailable,
    is_outage,
)
from sync_worker.domain import Attempt, Presence, Record, RecordType, Source, Truth
from sync_worker.http import SENDABLE, Connections, HttpAnswer

PAGE_SIZE = 500
"""Associations per page: the most that HubSpot gives."""

MAX_PAGES = 20
"""A contact of more companies than these pages hold is not read: something is wrong."""

LONGEST_WAIT_SECONDS = 3600.0
"""To look again once an hour spends nothing, whatever wait an answer names."""

_WAIT_SECONDS = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0, "DAILY": 3600.0}
"""How long to wait by the `policyName` of a 429; a `Retry-After` is not documented."""

_PLURAL = {RecordType.CONTACT: "contacts", RecordType.COMPANY: "companies"}
_PRIMARY = ("HUBSPOT_DEFINED", "1")
"""Category and type id of a contact's association with its primary company."""

_ID = re.compile(r"[1-9][0-9]{0,18}")
_WORD = re.compile(r"[A-Z][A-Z0-9_]{0,59}")
_CHECK_ADDRESS = "check HUBSPOT_BASE_URL and HUBSPOT_API_VERSION"

_T = TypeVar("_T")


class HubSpotReader:
    """Reads the records of one portal. May be shared by threads; make one per process.

    `access_token` is that of a private app, a project app or a service key with the scopes
    `crm.objects.contacts.read` and `crm.objects.companies.read`. `link_property` and
    `reference_property` are internal names of properties; HubSpot silently leaves one that the
    portal does not have out of its answers, so it reads as empty. With `primary_company` a
    contact's primary company is read too. `read_timeout` is in seconds.

    `on_call` is told every call that was made, also one that failed; it should raise nothing.
    `clock` gives seconds since the epoch. Raises ValueError, without the token, if that cannot
    stand in a header.
    """

    source: Source = Source.HUBSPOT

    def __init__(
        self,
        base_url: str,
        access_token: str,
        *,
        portal_id: str,
        link_property: str,
        reference_property: str | None,
        primary_company: bool,
        api_version: str = "2026-03",
        read_timeout: float = 30,
        on_call: Callable[[Attempt], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.on_call = on_call
        """Told every call that was made; may be set later, before the first read."""
        self._base_url = base_url.rstrip("/")
        self._portal_id = portal_id
        self._link = link_property
        self._reference = reference_property
        self._primary_company = primary_company
        self._version = api_version
        self._clock = clock
        self._http = Connections(auth=_Bearer(access_token), read_timeout=read_timeout)
        self._portal_checked = False

    def __repr__(self) -> str:
        return f"HubSpotReader({urlsplit(self._base_url).hostname}, portal {self._portal_id})"

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def read(self, record: Record) -> Truth:
        """Read a contact or company as it is now.

        Of a merged record HubSpot gives the survivor, told by its id. `reference` and `email`
        are None where they are empty. Raises ValueError, and calls nothing, for what is no
        record of this portal; `errors.CrmError` if the answers do not tell.
        """
        self._check(record)
        if not self._portal_checked:
            self._check_portal()
        found = self._object(record, archived=False)
        if found is not None:
            return self._truth(record, found)
        # A plain read knows nothing of deleted records: only the archive tells that one is.
        found = self._object(record, archived=True)
        if found is None:
            return Truth(record=record, presence=Presence.ABSENT)
        return self._truth(record, found)

    def probe(self) -> None:
        """Prove that HubSpot answers, and that the token is good and of our portal (B2.9, B6.3,
        B6.4). Raises `errors.CrmError`.

        One call, for the portal's details.
        """
        self._check_portal()

    def _check(self, record: Record) -> None:
        if record.source is not Source.HUBSPOT or record.type not in _PLURAL:
            raise ValueError(f"{record.mailbox} is no contact or company of HubSpot")
        if record.tenant != self._portal_id:
            raise ValueError(f"{record.mailbox} is not of portal {self._portal_id}")
        if not _ID.fullmatch(record.id):
            raise ValueError(
                f"{record.id!r} is not a HubSpot id: it is a positive number in digits"
            )

    def _check_portal(self) -> None:
        """Believe nothing of another tenant (B2.9): record ids of two portals can be equal."""

        def check(body: bytes) -> None:
            theirs = str(msgspec.json.decode(body, type=_Details).portal_id)
            if not _ID.fullmatch(theirs):
                raise _NotIt("the portal's id is not a number")
            if theirs != self._portal_id:
                raise _NotIt(
                    f"HUBSPOT_ACCESS_TOKEN belongs to portal {theirs}, not to {self._portal_id}",
                    f"give a token of portal {self._portal_id}, or correct HUBSPOT_PORTAL_ID",
                    Unauthorized,
                )

        self._portal_checked = False
        try:
            self._get(f"/account-info/{self._version}/details", {}, check)
        except Forbidden as error:
            # The right scopes are no help to whoever may not even know the portal.
            raise Unauthorized(str(error), error.attempt) from None
        self._portal_checked = True

    def _object(self, record: Record, *, archived: bool) -> _Object | None:
        """The record, or the survivor it was merged into; None if there is none."""

        def parse(body: bytes) -> _Object:
            found = msgspec.json.decode(body, type=_Object)
            if not _ID.fullmatch(str(found.id)):
                raise _NotIt("its id is not a number")
            if archived and not found.archived:
                raise _NotIt("the archive gave a record that is not archived")
            return found

        names = [self._link, self._reference]
        if record.type is RecordType.CONTACT:
            names.append("email")
        query = {
            "properties": ",".join(name for name in names if name is not None),
            "propertiesWithHistory": self._link,
            "archived": str(archived).lower(),
        }
        path = f"{self._objects(record.type)}/{record.id}"
        try:
            return self._get(path, query, parse)
        except _Missing as missing:
            if missing.speaks_of(record.id):
                return None
            raise

    def _truth(self, record: Record, found: _Object) -> Truth:
        id_ = str(found.id)
        survivor = None if id_ == record.id else msgspec.structs.replace(record, id=id_)
        contact = record.type is RecordType.CONTACT
        link = found.value(self._link)
        company = None
        if contact and self._primary_company and not found.archived:
            company = self._company(survivor or record)
        return Truth(
            record=record,
            presence=Presence.DELETED if found.archived else Presence.PRESENT,
            survivor=survivor,
            link=link,
            link_set_at=found.set_at(self._link, link),
            reference=(found.value(self._reference) or None) if self._reference else None,
            email=(found.value("email") or None) if contact else None,
            company=company,
        )

    def _company(self, contact: Record) -> str:
        """The id of a contact's primary company, "" if it has none."""
        objects = (
            "/crm/v4/objects/contacts" if self._version == "v3" else self._objects(contact.type)
        )
        path = f"{objects}/{contact.id}/associations/companies"
        query = {"limit": str(PAGE_SIZE)}
        for _ in range(MAX_PAGES):
            page = self._get(path, query, _companies)
            if page.primary is not None or page.after is None:
                return page.primary or ""
            query["after"] = page.after
        cause = f"that is more than {MAX_PAGES} pages of companies"
        raise _useless(*_told(f"GET {path}", 200, cause, at=self._now()))

    def _objects(self, type_: RecordType) -> str:
        folder = "/crm/v3/objects" if self._version == "v3" else f"/crm/objects/{self._version}"
        return f"{folder}/{_PLURAL[type_]}"

    def _get(self, path: str, query: dict[str, str], parse: Callable[[bytes], _T]) -> _T:
        """Make one call and give what its answer holds. Raises CrmError."""
        call = f"GET {path}"
        if query.get("archived") == "true":
            call += "?archived=true"
        url = f"{self._base_url}{path}" + (f"?{urlencode(query)}" if query else "")
        at = self._now()
        try:
            answer = self._http.exchange("GET", url)
        except BaseException as error:
            self._tell(Attempt(at, call, error=f"interrupted: {type(error).__name__}"))
            raise
        try:
            held = _judge(call, answer, parse, at)
        except CrmError as error:
            if isinstance(error, Unauthorized):
                self._portal_checked = False
            self._tell(error.attempt)
            raise
        self._tell(Attempt(at, call, answer.status))
        return held

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _tell(self, attempt: Attempt) -> None:
        if self.on_call is not None:
            self.on_call(attempt)


class _Bearer(AuthBase):
    """The access token, out of what reprs and tracebacks show of a session (B10.4)."""

    def __init__(self, token: str) -> None:
        if not SENDABLE.fullmatch(token):
            raise ValueError(
                "the HubSpot access token is empty or holds spaces or other characters that "
                "cannot be sent: give the token alone, without `Bearer`"
            )
        self._token = token

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        r.headers["Authorization"] = f"Bearer {self._token}"
        return r

    def __repr__(self) -> str:
        return "_Bearer(…)"


def _useless(message: str, attempt: Attempt) -> Unavailable:
    """An answer that does not tell, but proves life (B6.3)."""
    return Unavailable(message, attempt, outage=False)


class _NotIt(Exception):
    """An answer is not what was asked for."""

    def __init__(
        self, cause: str, cure: str = "", kind: Callable[[str, Attempt], CrmError] = _useless
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.cure = cure
        self.kind = kind


class _Missing(Unavailable):
    """HubSpot's own word that there is no such object."""

    ids: tuple[str, ...] = ()
    """The ids that it names; none if it names none."""

    def speaks_of(self, id_: str) -> bool:
        """Whether it is about this id: an unknown path is told of in the same way, with a part
        of the path for an id (seen in practice).
        """
        return not self.ids or id_ in self.ids


class _Details(msgspec.Struct, rename="camel"):
    portal_id: int | str


class _HistoryItem(msgspec.Struct):
    value: str | None = None
    timestamp: str | None = None


class _Object(msgspec.Struct, rename="camel"):
    id: int | str
    properties: dict[str, str | None]
    archived: bool = False
    properties_with_history: dict[str, list[_HistoryItem]] | None = None

    def value(self, name: str) -> str:
        """A property's value without blanks around it; "" if it is empty, null or missing."""
        return (self.properties.get(name) or "").strip()

    def set_at(self, name: str, value: str) -> int | None:
        """When a property last got this value (ms since the epoch), if the history tells."""
        items = (self.properties_with_history or {}).get(name, [])
        times = [_ms(item.timestamp) for item in items if (item.value or "").strip() == value]
        return max((time_ for time_ in times if time_ is not None), default=None)


class _Type(msgspec.Struct, rename="camel"):
    category: str
    type_id: int | str


class _Association(msgspec.Struct, rename="camel"):
    to_object_id: int | str
    association_types: list[_Type]


class _Next(msgspec.Struct):
    after: str | int


class _Paging(msgspec.Struct):
    next: _Next | None = None


class _Associations(msgspec.Struct):
    results: list[_Association]
    paging: _Paging | None = None


class _Companies(msgspec.Struct):
    primary: str | None
    after: str | None


def _companies(body: bytes) -> _Companies:
    """The primary company on a page of associations, and where the next page begins."""
    page = msgspec.json.decode(body, type=_Associations)
    primary = None
    for one in page.results:
        if any((type_.category, str(type_.type_id)) == _PRIMARY for type_ in one.association_types):
            primary = str(one.to_object_id)
            if not _ID.fullmatch(primary):
                raise _NotIt("the id of a company is not a number")
            break
    following = page.paging.next if page.paging else None
    return _Companies(primary, str(following.after) if following else None)


def _judge(call: str, answer: HttpAnswer, parse: Callable[[bytes], _T], at: int) -> _T:
    """What an answer holds, by the table of this module. Raises CrmError."""
    if answer.status is None or answer.fault is not None:
        told = _told(call, answer.status, answer.fault or "nothing came", at=at)
        raise Unavailable(*told, outage=True)
    if answer.status != 200:
        raise _refusal(call, answer, answer.status, at)
    try:
        return parse(answer.body)
    except _NotIt as error:
        raise error.kind(*_told(call, 200, error.cause, error.cure, at=at)) from None
    except msgspec.ValidationError as error:
        # It names a place in the answer and types, no values.
        cause = f"that is not what was asked for: {error}"
    except (ValueError, RecursionError):
        cause = "that is not JSON"
    raise _useless(*_told(call, 200, cause, _CHECK_ADDRESS, at=at))


def _refusal(call: str, answer: HttpAnswer, status: int, at: int) -> CrmError:
    """What an answer other than 200 means.

    Of its body only words of HubSpot's own are told (`category`, `policyName`, scopes): its
    text may quote a record.
    """
    said = _Said(answer.body)
    if status == 401:
        cause = "the access token is invalid, expired or withdrawn"
        return Unauthorized(*_told(call, status, cause, "check HUBSPOT_ACCESS_TOKEN", said, at=at))
    if status == 403:
        cure = f"give the app of HUBSPOT_ACCESS_TOKEN the scopes {said.scopes}"
        cause = "the access token lacks a permission"
        return Forbidden(*_told(call, status, cause, cure, said, at=at))
    if status == 404:
        if said.category != "OBJECT_NOT_FOUND":
            cause = "that is no word of HubSpot about a record"
            return _useless(*_told(call, status, cause, _CHECK_ADDRESS, said, at=at))
        missing = _Missing(*_told(call, status, "not found", "", said, at=at), outage=False)
        missing.ids = said.ids
        return missing
    if status == 429:
        wait = _retry_after(answer, at)
        return RateLimited(
            *_told(call, status, "the limit of calls is reached", "", said, at=at),
            seconds=_WAIT_SECONDS.get(said.policy) if wait is None else wait,
        )
    cause = "HubSpot, or something before it, failed"
    cure = ""
    if 300 <= status <= 399:
        cause, cure = "redirects are not followed", _CHECK_ADDRESS
    elif status in (423, 477):
        cause = "HubSpot has it locked or is moving it"
    told = _told(call, status, cause, cure, said, at=at)
    return Unavailable(*told, outage=is_outage(status))


class _Said:
    """The words of HubSpot's error envelope; every one may be missing.

    `{"status": "error", "message": "...", "category": "...", "policyName": "...",
    "context": {"id": ["..."]}, "errors": [{"context": {"requiredGranularScopes": ["..."]}}]}`
    """

    def __init__(self, body: bytes) -> None:
        try:
            payload = msgspec.json.decode(body)
        except (ValueError, RecursionError):
            payload = None
        self._envelope: dict[str, Any] = payload if isinstance(payload, dict) else {}

    @property
    def category(self) -> str:
        return self._word("category")

    @property
    def policy(self) -> str:
        return self._word("policyName")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids that the envelope says it is about."""
        return tuple(_texts(self._envelope.get("context"), "id"))

    @property
    def scopes(self) -> str:
        """The scopes that are missing, else those that are needed at all."""
        errors = self._envelope.get("errors")
        named = [
            scope
            for error in (errors if isinstance(errors, list) else [])
            if isinstance(error, dict)
            for scope in _texts(error.get("context"), "requiredGranularScopes")
            if re.fullmatch(r"[a-z][a-z0-9._-]{0,63}", scope)
        ]
        needed = ["crm.objects.contacts.read", "crm.objects.companies.read"]
        return " and ".join(sorted(set(named)) or needed)

    def __str__(self) -> str:
        return ", ".join(word for word in (self.category, self.policy) if word)

    def _word(self, name: str) -> str:
        value = self._envelope.get(name)
        return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def _texts(context: object, name: str) -> list[str]:
    values = context.get(name) if isinstance(context, dict) else None
    return [v for v in values if isinstance(v, str)] if isinstance(values, list) else []


def _told(
    call: str, status: int | None, cause: str, cure: str = "", said: _Said | None = None, *, at: int
) -> tuple[str, Attempt]:
    """One sentence, and the attempt, about a call that did not tell the truth."""
    outcome = "got no answer" if status is None else f"was answered {status}"
    quote = f" ({said})" if said is not None and str(said) else ""
    message = f"{call} {outcome}: {cause}{quote}" + (f"; {cure}" if cure else "")
    return message, Attempt(at, call, status, f"{cause}{quote}")


def _retry_after(answer: HttpAnswer, at: int) -> float | None:
    """The seconds that a `Retry-After` asks for, at most `LONGEST_WAIT_SECONDS`; None without."""
    text = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        seconds = float(text)
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - at / 1000
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)


def _ms(text: str | None) -> int | None:
    """An ISO 8601 time as ms since the epoch, UTC if it names no zone; None if it is none."""
    try:
        time_ = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    aware = time_ if time_.tzinfo else time_.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
