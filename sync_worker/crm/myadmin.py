"""Reads Geotab customers from MyAdmin, Geotab's reseller system.

MyAdmin has no call for one customer: every read takes the whole list of an account's user
contacts (`GetUserContacts`), and only a list that is known to be whole is believed, because
whoever is missing from it may lose a latch (B3.5). What is documented, and how surely, stands in
the project's facts about Geotab.

Errors arrive with HTTP 200, as `{"error": ...}` in one of two shapes, so the exception that one
names decides:

| answer | means |
|---|---|
| none, a broken one, 408, 5xx, a status that HTTP does not know | Unavailable, an outage |
| any other status than 2xx, or no JSON-RPC | Unavailable |
| 429, `OverLimitException` | RateLimited |
| 401, 403, `UnknownUser`, `SecurityException`, `Invalid API Roles` and the like | Unauthorized |
| a contact of another account | Unauthorized |
| `DbUnavailable` | Unavailable, an outage |
| "no longer available", "not yet available" | Unavailable: another version serves the method |
| any other error | Unavailable |
| a list that is empty, short, or without the attribute that holds the id | Unavailable |

Nothing is Forbidden: every read is the same call about the same account, so a role that is missing
concerns all of them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from sync_worker.crm.errors import (
    CrmError,
    RateLimited,
    Unauthorized,
    Unavailable,
    is_outage,
)
from sync_worker.crm.login import SharedLogin
from sync_worker.domain import Attempt, Presence, Record, RecordType, Source, Truth
from sync_worker.http import Connections, HttpAnswer

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Version 2 gives every contact in one answer, of about 500 bytes each."""

PAGE_SIZE = 100
"""The most contacts that version 3 gives on a page."""

OVER_LIMIT_SECONDS = 60.0
"""How long to stay away where the answer does not say."""

IdAttribute = Literal["resellerCustomerId", "userCompany.id"]
"""What of a contact may hold the id that Fusebill knows."""

_FORM = "application/x-www-form-urlencoded"
_URL = "GEOTAB_MYADMIN_URL"
_CREDENTIALS = "GEOTAB_MYADMIN_USERNAME and GEOTAB_MYADMIN_PASSWORD"

_VERSION = re.compile(r"/v([0-9]+)/", re.IGNORECASE)
_EXPIRED = re.compile(r"SessionExpired(?:Exception)?")
_OVER_LIMIT = re.compile(r"OverLimit(?:Exception)?")
_DOWN = re.compile(r"DbUnavailable(?:Exception)?")
_RETIRED = re.compile(r"no longer available|not yet available", re.IGNORECASE)
_REFUSED = re.compile(
    r"UnknownUser|InvalidUser(?:Exception)?|SecurityException|Invalid API Roles"
    r"|authenticat(?:ion|e)?|credentials|password",
    re.IGNORECASE,
)
_PLAIN_NAME = re.compile(r"[A-Za-z]{1,60}")
_PLAIN_ACCOUNT = re.compile(r"[A-Za-z0-9._-]{1,64}")

T = TypeVar("T")


class MyAdminReader:
    """Reads the customers of one ERP account. A `crm.Reader`.

    May be shared by threads; make one per process, after a fork. Close it.

    `url` is the whole endpoint, and the version in it decides how a list is read: up to v2 in
    one answer, from v3 on in pages. `username` and `password` are those of an ERP user;
    `account` is the only account whose contacts are taken. `id_attribute` names what of a
    contact is compared with a record's id. `read_timeout` is in seconds, for each call: a read
    makes one, one for every page, or up to two more to log in. `on_call` is told every call
    that was made, also one that failed, before `read` returns or raises. `clock` gives seconds
    since the epoch.
    """

    source = Source.GEOTAB

    def __init__(
        self,
        url: str,
        username: str,
        password: str,
        *,
        account: str,
        id_attribute: IdAttribute = "resellerCustomerId",
        read_timeout: float = 60,
        on_call: Callable[[Attempt], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.on_call = on_call
        """Told every call that was made; may be set later, before the first read."""
        self._url = url
        self._username = username
        self._password = password
        self._account = account
        self._id_attribute = id_attribute
        self._clock = clock
        version = _VERSION.search(urlsplit(url).path)
        self._paged = version is not None and int(version[1]) >= 3
        self._http = Connections(auth=None, read_timeout=read_timeout, max_bytes=MAX_ANSWER_BYTES)
        self._session: _Session | None = None
        self._login = SharedLogin()

    def __repr__(self) -> str:
        return f"MyAdminReader({urlsplit(self._url).hostname}, {self._account})"

    def close(self) -> None:
        """Close all connections. The session is left to expire: there is no call to end it."""
        self._http.close()

    def read(self, record: Record) -> Truth:
        """Whether an active contact carries the record's id now.

        PRESENT: an active one does. DELETED: none does, in a list that is whole. ABSENT is
        never said. All else of the Truth is None: MyAdmin keeps no Fusebill id.

        Raises `crm.errors.CrmError`, or ValueError, without a call, for a record that is no
        customer of this account.
        """
        customer = (Source.GEOTAB, self._account, RecordType.CUSTOMER)
        if (record.source, record.tenant, record.type) != customer or not record.id:
            raise ValueError(f"{record} is not a customer of the Geotab account {self._account}")
        session = self._log_in(stale=None)
        try:
            contacts = self._list(session)
        except _SessionExpired:
            # From the first page on: a list half of then and half of now may miss someone.
            contacts = self._list(self._log_in(stale=session))
        present = any(contact.active and contact.holds == record.id for contact in contacts)
        return Truth(record=record, presence=Presence.PRESENT if present else Presence.DELETED)

    def probe(self) -> None:
        """Prove that MyAdmin answers, and that the user is good and let into our account (B2.9,
        B6.3, B6.4). Raises `crm.errors.CrmError`.

        Two calls: Authenticate, whose session the reads go on with, and GetUserContacts, as a
        log-in tells nothing of the account. From v3 on that is one page; up to v2 there is no
        less than the whole list. Nothing is concluded from who is in it, so it may be empty.
        """
        session = self._authenticate()
        contacts = _ContactList(self._account, self._id_attribute, paged=self._paged)
        self._ask(session, contacts.rows, page=1)
        self._session = session

    def _log_in(self, *, stale: _Session | None) -> _Session:
        """The session; a new one only if there is none but `stale`: Authenticate is limited."""

        def log_in() -> _Session:
            if self._session is None or self._session is stale:
                self._session = self._authenticate()
            return self._session

        return self._login.once(log_in)

    def _authenticate(self) -> _Session:
        params = {"username": self._username, "password": self._password}
        return self._make("Authenticate", params, _session)

    def _list(self, session: _Session) -> list[_Contact]:
        """Every contact of the account."""
        contacts = _ContactList(self._account, self._id_attribute, paged=self._paged)
        page = 0
        try:
            while not contacts.whole:
                page += 1
                self._ask(session, contacts.add, page)
        except Unauthorized:
            # A session may keep the roles it began with: the next read must see new ones.
            if self._session is session:
                self._session = None
            raise
        return contacts.contacts

    def _ask(self, session: _Session, take: Callable[[_Case], T], page: int) -> T:
        """One page of contacts; up to v2 all of them."""
        params = {
            "apiKey": session.user_id,
            "sessionId": session.session_id,
            "forAccount": self._account,
            "filter": "",
            "activeOnly": False,
        }
        return self._make("GetUserContacts", params, take, page if self._paged else None)

    def _make(
        self,
        method: str,
        params: Mapping[str, object],
        take: Callable[[_Case], T],
        page: int | None = None,
    ) -> T:
        """Make one call and give what `take` makes of its answer. Raises CrmError."""
        at = int(self._clock() * 1000)
        call = f"POST {urlsplit(self._url).path} {method}"
        try:
            body = _form(method, params, page)
            answer = self._http.exchange("POST", self._url, body=body, content_type=_FORM)
        except BaseException as error:
            self._tell(Attempt(at, call, error=f"interrupted: {type(error).__name__}"))
            raise
        try:
            taken = take(_Case(call, at, answer, self._clock))
        except CrmError as error:
            self._tell(error.attempt)
            raise
        self._tell(Attempt(at, call, answer.status))
        return taken

    def _tell(self, attempt: Attempt) -> None:
        if self.on_call is not None:
            self.on_call(attempt)


class _SessionExpired(Unavailable):
    """The one error that a new session may cure."""


class _Session(msgspec.Struct, frozen=True, rename="camel"):
    """What Authenticate gives. `user_id` is what other methods call `apiKey`."""

    user_id: str
    session_id: str

    def __repr__(self) -> str:
        return "_Session(…)"


class _Company(msgspec.Struct, frozen=True):
    id: Any = msgspec.UNSET
    account: Any = None


class _Row(msgspec.Struct, frozen=True, rename="camel"):
    """What is looked at of an `ApiUserContact`; the rest of it is people's data."""

    id: Any = None
    user_company: _Company | None = None
    reseller_customer_id: Any = msgspec.UNSET
    active: Any = None


class _Contact(msgspec.Struct, frozen=True):
    holds: str | None
    active: bool


class _Reply(msgspec.Struct, frozen=True):
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None
    pagination: Any = None


class _Case:
    """A call and its answer, and how an error about them is worded.

    What an answer says is not quoted: contacts are people, and errors name the user.
    """

    def __init__(self, call: str, at: int, answer: HttpAnswer, clock: Callable[[], float]) -> None:
        self._call = call
        self._at = at
        self._answer = answer
        self._clock = clock

    def reply(self) -> _Reply:
        """The JSON-RPC reply, if it is no error. Raises CrmError."""
        status = self._answer.status
        if status is None or self._answer.fault is not None:
            raise self.unavailable(self._answer.fault or "nothing came back", outage=True)
        if status == 429:
            raise self._limited("too many calls")
        if status in (401, 403):
            raise self._refused("access is refused")
        if not 200 <= status <= 299:
            redirect = 300 <= status <= 399
            cause = "redirects are not followed" if redirect else "that is no answer of MyAdmin"
            cure = "" if status >= 500 else f"check {_URL}"
            raise self.unavailable(cause, cure, outage=is_outage(status))
        reply = self.decode(self._answer.body, _Reply, "JSON-RPC")
        if reply.error is not None:
            raise self._error(reply.error)
        return reply

    def decode(self, body: bytes | msgspec.Raw, type_: type[T], what: str) -> T:
        """JSON as a value of that type. Raises Unavailable saying it is not `what`."""
        try:
            return msgspec.json.decode(body, type=type_)
        except (ValueError, RecursionError):
            raise self.unavailable(f"that is not {what}", f"check {_URL}") from None

    def unavailable(self, cause: str, cure: str = "", *, outage: bool = False) -> Unavailable:
        return Unavailable(*self._told(cause, cure), outage=outage)

    def unauthorized(self, cause: str, cure: str) -> Unauthorized:
        return Unauthorized(*self._told(cause, cure))

    def _error(self, error: object) -> CrmError:
        """The error that a JSON-RPC `error` means. The first that fits, from top to bottom."""
        texts = _texts(error)
        said = "\n".join(texts)
        if found := _EXPIRED.search(said):
            told = self._told(f"the session has expired ({found[0]})")
            return _SessionExpired(*told, outage=False)
        if found := _OVER_LIMIT.search(said):
            return self._limited(f"the limit of calls is reached ({found[0]})")
        if found := _DOWN.search(said):
            cause = f"MyAdmin's database is not there ({found[0]})"
            return self.unavailable(cause, outage=True)
        if found := _RETIRED.search(said):
            cause = f"the method is {found[0].lower()} in this version of the API"
            return self.unavailable(cause, f"name another version in {_URL}")
        if found := _REFUSED.search(said):
            return self._refused(f"the user is refused ({found[0]})")
        name = next((text for text in texts if _PLAIN_NAME.fullmatch(text)), "no name")
        return self.unavailable(f"MyAdmin failed ({name})")

    def _refused(self, cause: str) -> Unauthorized:
        return self.unauthorized(
            cause, f"check {_CREDENTIALS}, and the user's API roles for GEOTAB_ACCOUNT"
        )

    def _limited(self, cause: str) -> RateLimited:
        stated = self._answer.headers.get("retry-after", "").strip()
        return RateLimited(*self._told(cause), seconds=_seconds(stated, self._clock()))

    def _told(self, cause: str, cure: str = "") -> tuple[str, Attempt]:
        status = self._answer.status
        outcome = "got no answer" if status is None else f"was answered {status}"
        message = f"{self._call} {outcome}: {cause}" + (f"; {cure}" if cure else "")
        return message, Attempt(self._at, self._call, status, cause)


class _ContactList:
    """The contacts of an account, as they come in one answer or page by page."""

    def __init__(self, account: str, id_attribute: IdAttribute, *, paged: bool) -> None:
        self.contacts: list[_Contact] = []
        self.whole = False
        self._account = account
        self._id_attribute = id_attribute
        self._paged = paged
        self._total: int | None = None
        self._distinct: set[str] = set()
        self._attribute_seen = False

    def rows(self, case: _Case) -> tuple[list[_Row], int | None]:
        """The contacts of an answer, none of another account, and how many it says there are.
        Raises CrmError.
        """
        reply = case.reply()
        rows = case.decode(reply.result, list[_Row], "a list of contacts")
        for row in rows:
            self._check_account(case, row)
        return rows, _total(reply.pagination)

    def add(self, case: _Case) -> None:
        """Take in an answer. Raises CrmError, also if the list that ends here is not whole."""
        rows, total = self.rows(case)
        if self._paged and total is None:
            raise case.unavailable("it states no total, so nothing shows that the list is whole")
        if self._total not in (None, total):
            raise case.unavailable("the list changed while it was read")
        self._total = total
        for row in rows:
            holds = self._id_of(case, row)
            # Silence about `active` releases nothing: only false is inactive.
            self.contacts.append(_Contact(holds, row.active is not False))
            self._distinct.add(repr(row.id))
        self._check_count(case, exhausted=not (self._paged and rows))
        if self.whole and not self._attribute_seen:
            cause = f"no contact has the attribute {self._id_attribute}"
            raise case.unavailable(cause, "check GEOTAB_ID_ATTRIBUTE")

    def _check_count(self, case: _Case, *, exhausted: bool) -> None:
        """Raises Unavailable for a list that is empty, short or longer than it says."""
        count, total = len(self.contacts), self._total
        # A page that came twice, or a contact that moved between pages, hides another one.
        if self._paged and len(self._distinct) != count:
            raise case.unavailable("the list holds a contact twice, so another may be missing")
        if total is not None and count < total and not exhausted:
            return
        if not count:
            raise case.unavailable("an empty list of contacts is no answer")
        if total is not None and count != total:
            raise case.unavailable(f"{count} contacts came, not the {total} that it states")
        self.whole = True

    def _check_account(self, case: _Case, row: _Row) -> None:
        account = None if row.user_company is None else row.user_company.account
        if account is None or account == self._account:
            return
        plain = isinstance(account, str) and _PLAIN_ACCOUNT.fullmatch(account)
        named = f"account {account}" if plain else "another account"
        raise case.unauthorized(
            f"a contact is of {named}, not of {self._account}",
            f"GEOTAB_ACCOUNT and {_CREDENTIALS} must be of one account",
        )

    def _id_of(self, case: _Case, row: _Row) -> str | None:
        """The id that a contact carries, None if it carries none."""
        if self._id_attribute == "resellerCustomerId":
            value = row.reseller_customer_id
            # A number has lost the leading zeros that count: it may be anybody's.
            fits = isinstance(value, str)
        else:
            value = msgspec.UNSET if row.user_company is None else row.user_company.id
            fits = isinstance(value, str) or type(value) is int
        if value is msgspec.UNSET:
            return None
        self._attribute_seen = True
        if value is None:
            return None
        if not fits:
            kind = type(value).__name__
            raise case.unavailable(f"a contact's {self._id_attribute} is no text but {kind}")
        # No id that was taken in has blanks around it, so they are not a part of this one.
        return str(value).strip()


def _session(case: _Case) -> _Session:
    session = case.decode(case.reply().result, _Session, "a session")
    if not (session.user_id and session.session_id):
        raise case.unavailable("that is not a session: it is blank")
    return session


def _form(method: str, params: Mapping[str, object], page: int | None) -> bytes:
    """A call as MyAdmin takes it: JSON-RPC 1.0 in a form field.

    `pagination` stands beside `params`; inside, it would be ignored.
    """
    call: dict[str, object] = {"id": -1, "method": method, "params": params}
    if page is not None:
        call["pagination"] = {"page": page, "perPage": PAGE_SIZE}
    return urlencode({"JSON-RPC": json.dumps(call)}).encode()


def _texts(error: object) -> list[str]:
    """The texts of a JSON-RPC error, the innermost names first.

    Documented: `{"name", "message", "errors": [{"name", "message"}]}`, and
    `{"message", "code", "data": {"type"}}` for a limit that is reached.
    """
    if not isinstance(error, dict):
        return [error] if isinstance(error, str) else []
    inner = error.get("errors")
    parts = [error.get("data"), *(inner if isinstance(inner, list) else []), error]
    return [
        text
        for key in ("type", "name", "message")
        for part in parts
        if isinstance(part, dict) and isinstance(text := part.get(key), str)
    ]


def _total(pagination: object) -> int | None:
    total = pagination.get("total") if isinstance(pagination, dict) else None
    return total if type(total) is int and total >= 0 else None


def _seconds(stated: str, now: float) -> float:
    """A Retry-After, which is seconds or a date; `OVER_LIMIT_SECONDS` if it is neither."""
    if re.fullmatch(r"[0-9]{1,9}", stated):
        return float(stated)
    try:
        moment = parsedate_to_datetime(stated)
    except ValueError:
        return OVER_LIMIT_SECONDS
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)
