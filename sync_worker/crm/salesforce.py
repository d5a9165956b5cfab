"""Reads Accounts of one Salesforce organisation, by a connected app's client credentials (B3.5).

One SOQL query a record, by `queryAll`, which shows deleted rows too. A merge leaves its loser as
a deleted row whose `MasterRecordId` names the survivor (`apex_triggers_merge_statements`).
simple-salesforce makes the queries. It cannot log in at an address of our choosing, nor does it
keep the answer's `id`, which tells the organisation, so the token is fetched here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from requests.auth import HTTPBasicAuth
from simple_salesforce.api import Salesforce
from simple_salesforce.exceptions import SalesforceError

from sync_worker.crm.errors import (
    CrmError,
    Forbidden,
    RateLimited,
    Unauthorized,
    Unavailable,
    is_outage,
)
from sync_worker.crm.login import SharedLogin
from sync_worker.domain import (
    Attempt,
    Presence,
    Record,
    RecordType,
    Source,
    Truth,
    salesforce_id_18,
    whole_number_text,
)
from sync_worker.http import FAILURES, SENDABLE, Connections

MAX_ANSWER_BYTES = 256 * 1024
"""An Account's few fields take less than 1 KB; a page of HTML in their place is longer."""

MAX_MERGES = 10
"""How many merges are followed from one record. Each takes a person; more is a broken answer."""

_TOKEN_PATH = "/services/oauth2/token"  # noqa: S105 - where tokens are given out
_ORGANISATION_QUERY = "SELECT Id FROM Organization"

_ACCOUNT_PREFIX = "001"
"""What the ids of Accounts start with (help 000385203)."""

_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
_VERSION = re.compile(r"[0-9]{2,3}\.0")
_CODE = re.compile(r"[A-Z]+(?:_[A-Z]+)*|[a-z]+(?:_[a-z]+)*")
"""An error's name, as in INVALID_FIELD or invalid_grant. Nothing else of an error is quoted."""
_IDENTITY = re.compile(r"/id/(00D[A-Za-z0-9]{12})(?:[A-Za-z0-9]{3})?/005[A-Za-z0-9]+$")
"""The end of a token answer's `id`: `https://login.salesforce.com/id/ORGANISATION/USER`."""

_CHECK_APP = (
    "check SALESFORCE_CLIENT_ID, SALESFORCE_CLIENT_SECRET and SALESFORCE_INSTANCE_URL, and that "
    "the app has the client credentials flow enabled with a user to run as"
)
_CHECK_ADDRESS = "check SALESFORCE_INSTANCE_URL and SALESFORCE_API_VERSION"

_REFUSALS = {
    "INVALID_TYPE": (
        "the integration user may not see Accounts",
        "grant that user read access to Accounts",
    ),
    "401": (
        "the session is refused",
        "give the app the scope `api`, and let its user log in from this network",
    ),
    "403": (
        "the integration user lacks a permission",
        "grant that user `API Enabled` and read access to Accounts",
    ),
}
"""What to say of a refused query, by error code or status."""

_PASSING = frozenset({"unknown_error", "server_error", "temporarily_unavailable"})
"""OAuth errors that say nothing about the credentials, though their status may be 400."""

_API_DISABLED = frozenset({"API_CURRENTLY_DISABLED", "API_DISABLED_FOR_ORG"})
"""A 403 that is about the whole access, not about one object."""

_LIMITS = frozenset({"REQUEST_LIMIT_EXCEEDED", "rate_limit_exceeded"})

_T = TypeVar("_T")


class SalesforceReader:
    """Reads Accounts of the organisation `org_id` (15 or 18 characters).

    `instance_url` is the organisation's own address (My Domain), which alone serves the client
    credentials flow; its scheme and port are used as given. `link_field` and `reference_field`
    are API names of Account fields. `read_timeout` is in seconds. `on_call` is told every call
    that was made, before `read` returns or raises. `clock` gives seconds since the epoch.

    May be shared by threads; make one per process, after a fork. Raises ValueError, without
    quoting credentials, for an argument that cannot be used.
    """

    source = Source.SALESFORCE

    def __init__(
        self,
        instance_url: str,
        client_id: str,
        client_secret: str,
        *,
        org_id: str,
        link_field: str,
        reference_field: str | None,
        api_version: str = "60.0",
        read_timeout: float = 30,
        on_call: Callable[[Attempt], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.on_call = on_call
        """Told every call that was made; may be set later, before the first call."""
        self._base_url = _base_url(instance_url)
        self._app = _App(client_id, client_secret)
        self._org_id = _organisation(org_id)
        self._link_field = _field(link_field)
        self._reference_field = None if reference_field is None else _field(reference_field)
        wanted = ("Id", "IsDeleted", "MasterRecordId", link_field, reference_field)
        # By lower-case name: one named twice, in whatever case, is an error in SOQL.
        self._fields = list({name.lower(): name for name in wanted if name is not None}.values())
        if not _VERSION.fullmatch(api_version):
            raise ValueError(f"{api_version!r} is not an API version such as 60.0")
        self._api_version = api_version
        self._data_path = f"/services/data/v{api_version}/"
        self._clock = clock
        self._http = Connections(auth=None, read_timeout=read_timeout, max_bytes=MAX_ANSWER_BYTES)
        self._login = SharedLogin()
        self._salesforce: Salesforce | None = None

    def __repr__(self) -> str:
        return f"SalesforceReader({urlsplit(self._base_url).hostname})"

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def read(self, record: Record) -> Truth:
        """Read an Account as it is now, or the one that it was merged into.

        Raises ValueError, and calls nothing, if the record is no Account of this organisation;
        else `errors.CrmError`. `link_set_at` is never told: field history needs a set-up of the
        organisation that cannot be assumed.
        """
        asked = self._account_id(record)
        id_, seen = asked, {asked}
        while True:
            account = self._account(id_)
            if account is None or not account.deleted or account.master is None:
                break
            if account.master in seen or len(seen) > MAX_MERGES:
                raise Unavailable(
                    f"{account.attempt.call} leads on to {account.master}: these merges go in a "
                    f"circle, or more than {MAX_MERGES} deep",
                    account.attempt,
                    outage=False,
                )
            id_ = account.master
            seen.add(id_)
        survivor = None if id_ == asked else msgspec.structs.replace(record, id=id_)
        if account is None or account.deleted:
            presence = Presence.ABSENT if account is None else Presence.DELETED
            return Truth(record=record, presence=presence, survivor=survivor)
        return Truth(
            record=record,
            presence=Presence.PRESENT,
            survivor=survivor,
            link=account.link,
            reference=account.reference or None,
        )

    def probe(self) -> None:
        """Prove that Salesforce answers, and that the credentials are good and of our
        organisation (B2.9, B6.3, B6.4). Raises `errors.CrmError`.

        Two calls: a login, whose session the reads go on with, and a query for the organisation,
        even if the login told it: only a query shows that the session may use the API.
        """
        self._salesforce = self._log_in(query=True)

    def _account_id(self, record: Record) -> str:
        """The record's id with 18 characters. Raises ValueError."""
        if (record.source, record.type) != (Source.SALESFORCE, RecordType.ACCOUNT):
            raise ValueError(f"{record.mailbox} is not a Salesforce Account")
        if record.tenant[:15] != self._org_id:
            raise ValueError(f"{record.mailbox} is not of the organisation {self._org_id}")
        id_ = salesforce_id_18(record.id)
        if not id_.startswith(_ACCOUNT_PREFIX):
            raise ValueError(
                f"{record.id!r} is not the id of an Account: those start with {_ACCOUNT_PREFIX}"
            )
        return id_

    def _account(self, id_: str) -> _Account | None:
        """One row, deleted ones included; None if there is none. Raises CrmError."""
        fields = ", ".join(self._fields)
        # Names and id were checked to be nothing but letters, digits and underscores.
        soql = f"SELECT {fields} FROM Account WHERE Id = '{id_}'"  # noqa: S608
        salesforce = self._logged_in()
        result = self._ask_account(salesforce, soql, id_)
        if isinstance(result, Unauthorized) and result.attempt.status == 401:
            salesforce = self._logged_in(instead_of=salesforce)
            result = self._ask_account(salesforce, soql, id_)
        if isinstance(result, CrmError):
            raise result
        return result

    def _ask_account(
        self, salesforce: Salesforce, soql: str, id_: str
    ) -> _Account | CrmError | None:
        def judge(case: _Case) -> _Account | CrmError | None:
            return self._query_error(case) or self._parse(case, id_)

        call = f"GET {self._data_path}queryAll/ {soql}"
        return self._made(call, lambda: self._query(salesforce, soql, deleted=True), judge)

    def _parse(self, case: _Case, id_: str) -> _Account | None:
        rows = _records(case.answer.payload)
        if not rows:
            return None
        row = _Row(rows)
        if row.id("Id") != id_:
            raise _Odd("that is another record")
        master = row.id("MasterRecordId")
        if master is not None and not master.startswith(_ACCOUNT_PREFIX):
            raise _Odd("MasterRecordId is not the id of an Account")
        return _Account(
            deleted=row.flag("IsDeleted"),
            master=master,
            link=row.text(self._link_field),
            reference=row.text(self._reference_field) if self._reference_field else "",
            attempt=case.attempt(),
        )

    def _query_error(self, case: _Case) -> CrmError | None:
        """What a query's answer says instead of rows, if it does."""
        if case.succeeded:
            return None
        if case.answer.fault is not None:
            return case.unavailable(case.answer.fault)
        if case.limited:
            return case.rate_limited()
        if "INVALID_FIELD" in case.codes:
            return case.forbidden(*self._invisible_field())
        for key in (*case.codes, str(case.answer.status)):
            if key in _REFUSALS:
                refuse = case.unauthorized if case.shut_out else case.forbidden
                return refuse(*_REFUSALS[key])
        return case.unavailable("Salesforce, or something before it, failed", _CHECK_ADDRESS)

    def _invisible_field(self) -> tuple[str, str]:
        names = f"{self._link_field} (SALESFORCE_FUSEBILL_ID_FIELD)"
        if self._reference_field:
            names += f" or {self._reference_field} (SALESFORCE_REFERENCE_FIELD)"
        return (
            f"Account has no field {names} that the integration user may see",
            "grant that user read access to the field, or correct the setting",
        )

    def _logged_in(self, *, instead_of: Salesforce | None = None) -> Salesforce:
        """A session; a new one if there is none, or if the one there is was just refused."""

        def log_in() -> Salesforce:
            if self._salesforce is None or self._salesforce is instead_of:
                self._salesforce = None
                self._salesforce = self._log_in()
            return self._salesforce

        return self._login.once(log_in)

    def _log_in(self, *, query: bool = False) -> Salesforce:
        """A session of the right organisation; with `query` it was seen to make queries. Raises
        CrmError.
        """
        grant = self._made(f"POST {_TOKEN_PATH}", self._ask_token, self._judge_token)
        if isinstance(grant, CrmError):
            raise grant
        salesforce = Salesforce(
            session_id=grant.token,
            instance_url=self._base_url,
            version=self._api_version,
            session=self._http.session,
            parse_float=str,
            object_pairs_hook=dict,
        )
        # The library takes host and port of `instance_url`, and https for granted.
        salesforce.base_url = self._base_url + self._data_path
        if query or not grant.checked:
            error = self._made(
                f"GET {self._data_path}query/ {_ORGANISATION_QUERY}",
                lambda: self._query(salesforce, _ORGANISATION_QUERY, deleted=False),
                self._judge_organisation,
            )
            if isinstance(error, Forbidden):
                # The session is good all the same; it is the organisation that stays unknown.
                error = None if grant.checked else Unauthorized(str(error), error.attempt)
            if error is not None:
                raise error
        return salesforce

    def _judge_token(self, case: _Case) -> _Grant | CrmError:
        if not case.succeeded:
            return _login_error(case)
        payload = case.answer.payload
        if not isinstance(payload, dict):
            raise _Odd("that is no access token")
        token, identity = payload.get("access_token"), _IDENTITY.search(str(payload.get("id")))
        if not isinstance(token, str) or not SENDABLE.fullmatch(token):
            raise _Odd("that is no access token")
        foreign = self._foreign(case, identity[1]) if identity else None
        return foreign or _Grant(token=token, checked=identity is not None)

    def _judge_organisation(self, case: _Case) -> CrmError | None:
        if not case.succeeded:
            return self._query_error(case)
        organisation = _Row(_records(case.answer.payload)).id("Id")
        if organisation is None:
            raise _Odd("Id is missing")
        return self._foreign(case, organisation[:15])

    def _foreign(self, case: _Case, organisation: str) -> Unauthorized | None:
        """The error that it is if the credentials belong to another organisation (B2.9)."""
        if organisation == self._org_id:
            return None
        return case.unauthorized(
            f"these credentials belong to the organisation {organisation}, not to {self._org_id}",
            "give the credentials of that one, or correct SALESFORCE_ORG_ID",
        )

    def _made(
        self,
        call: str,
        ask: Callable[[], _Answer],
        judge: Callable[[_Case], _T | CrmError],
    ) -> _T | CrmError:
        """Make one call and judge its answer; `on_call` is told."""
        at = int(self._clock() * 1000)
        try:
            answer = ask()
        except BaseException as error:
            # A time limit or a signal.
            self._tell(Attempt(at, call, error=f"interrupted: {type(error).__name__}"))
            raise
        case = _Case(call, at, answer)
        try:
            result = judge(case)
        except _Odd as odd:
            result = case.unavailable(str(odd), _CHECK_ADDRESS)
        self._tell(result.attempt if isinstance(result, CrmError) else case.attempt())
        return result

    def _tell(self, attempt: Attempt) -> None:
        if self.on_call is not None:
            self.on_call(attempt)

    def _ask_token(self) -> _Answer:
        return self._use(
            lambda hooks: self._http.session.post(
                self._base_url + _TOKEN_PATH,
                data={"grant_type": "client_credentials"},
                auth=self._app,
                hooks=hooks,
            ).json()
        )

    def _query(self, salesforce: Salesforce, soql: str, *, deleted: bool) -> _Answer:
        return self._use(lambda hooks: salesforce.query(soql, include_deleted=deleted, hooks=hooks))

    def _use(self, make: Callable[[dict[str, Any]], object]) -> _Answer:
        """What came of a call. `make` is handed hooks to make it with.

        Nothing of the libraries' exceptions is carried on: they hold the request, and with it
        credentials, or the answer's body.
        """
        statuses: list[int] = []
        hooks = {"response": lambda response, **_: statuses.append(response.status_code)}
        try:
            payload = make(hooks)
        except SalesforceError as error:
            return _Answer(error.status, error.content)
        except (ValueError, RecursionError) as error:
            if statuses:
                return _Answer(statuses[0])
            return _Answer(fault=f"no connection ({type(error).__name__})")
        except FAILURES as error:
            return _Answer(fault=self._http.fault(error))
        return _Answer(statuses[0], payload)


class _Odd(Exception):
    """An answer is not what was asked for; `str()` says in which way, quoting nothing."""


class _App(HTTPBasicAuth):
    """The connected app's credentials, out of what reprs and tracebacks show."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        if not SENDABLE.fullmatch(client_id) or ":" in client_id:
            raise ValueError("the client id is empty or holds characters that cannot be sent")
        if not SENDABLE.fullmatch(client_secret):
            raise ValueError("the client secret is empty or holds characters that cannot be sent")
        super().__init__(client_id, client_secret)

    def __repr__(self) -> str:
        return "_App(…)"


class _Grant(msgspec.Struct, frozen=True):
    """A token that Salesforce gave out."""

    token: str
    checked: bool
    """Whether its organisation is known to be ours."""

    def __repr__(self) -> str:
        return "_Grant(…)"


class _Account(msgspec.Struct, frozen=True):
    """One row, checked."""

    deleted: bool
    master: str | None
    """The Account that this one was merged into, with 18 characters."""
    link: str
    reference: str
    attempt: Attempt


_NOT_JSON = object()


class _Answer(msgspec.Struct, frozen=True):
    """What came back for a call: whole, broken or not at all."""

    status: int | None = None
    """HTTP status; None if no answer began, or it broke off."""
    payload: Any = _NOT_JSON
    """The JSON of the answer; of a refusal that is not JSON its text."""
    fault: str | None = None
    """Why no whole answer came, in a few words without secrets; None if one did."""

    def __repr__(self) -> str:
        return f"_Answer(status={self.status}, fault={self.fault!r})"


class _Case:
    """A call and its answer, and how errors about them are worded."""

    def __init__(self, call: str, at: int, answer: _Answer) -> None:
        self.answer = answer
        self.codes = _codes(answer.payload)
        self._call = call
        self._at = at

    @property
    def succeeded(self) -> bool:
        status = self.answer.status
        return self.answer.fault is None and status is not None and 200 <= status <= 299

    @property
    def outage(self) -> bool:
        """Whether it counts towards opening the circuit (B6.3)."""
        status = self.answer.status
        if self.answer.fault is not None or status is None:
            return True
        return is_outage(status) or not _PASSING.isdisjoint(self.codes)

    @property
    def shut_out(self) -> bool:
        """Whether a refused query means that every other is refused too (B6.4)."""
        return self.answer.status == 401 or not _API_DISABLED.isdisjoint(self.codes)

    @property
    def limited(self) -> bool:
        return self.answer.status == 429 or not _LIMITS.isdisjoint(self.codes)

    def attempt(self, error: str | None = None) -> Attempt:
        return Attempt(self._at, self._call, self.answer.status, error)

    def unavailable(self, cause: str, cure: str = "") -> Unavailable:
        return Unavailable(*self._told(cause, cure), outage=self.outage)

    def unauthorized(self, cause: str, cure: str) -> Unauthorized:
        return Unauthorized(*self._told(cause, cure))

    def forbidden(self, cause: str, cure: str) -> Forbidden:
        return Forbidden(*self._told(cause, cure))

    def rate_limited(self) -> RateLimited:
        told = self._told("the organisation's limit of API calls or logins is reached", "")
        # Calls are counted over the last 24 hours: no moment is named at which they are free.
        return RateLimited(*told, seconds=None)

    def _told(self, cause: str, cure: str) -> tuple[str, Attempt]:
        status = self.answer.status
        codes = "".join(f" {code}" for code in self.codes)
        outcome = "got no answer" if status is None else f"was answered {status}{codes}"
        message = f"{self._call} {outcome}: {cause}" + (f"; {cure}" if cure else "")
        return message, self.attempt(f"{codes.strip()}: {cause}" if codes else cause)


class _Row:
    """The fields of the one row of an answer, by name in any case.

    Salesforce spells a field in its answer as it was defined, not as it was asked for. The
    methods raise _Odd for a field that is missing or of another form.
    """

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        if len(rows) != 1:
            raise _Odd(f"that is {len(rows)} rows, not one")
        self._fields = {name.lower(): value for name, value in rows[0].items()}

    def _get(self, name: str) -> Any:
        try:
            return self._fields[name.lower()]
        except KeyError:
            raise _Odd(f"{name} is missing") from None

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._get(name)
        if not isinstance(value, bool):
            raise _Odd(f"{name} is neither true nor false")
        return value

    def id(self, name: str) -> str | None:
        """An id with 18 characters; None for null."""
        value = self._get(name)
        if value is None:
            return None
        try:
            return salesforce_id_18(value)
        except (ValueError, TypeError):
            raise _Odd(f"{name} is not a Salesforce id") from None

    def text(self, name: str) -> str:
        """Text or a number, without blanks around it; "" for null."""
        value = self._get(name)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise _Odd(f"{name} is neither text nor a number")
        return whole_number_text(str(value).strip())


def _login_error(case: _Case) -> CrmError:
    """What a refused login says (help page `remoteaccess_oauth_flow_errors`)."""
    if case.answer.fault is not None:
        return case.unavailable(case.answer.fault)
    if case.limited:
        return case.rate_limited()
    refused = case.answer.status == 400 and case.codes and _PASSING.isdisjoint(case.codes)
    if refused or case.answer.status in (401, 403):
        return case.unauthorized("Salesforce refuses the login", _CHECK_APP)
    return case.unavailable("Salesforce, or something before it, failed", _CHECK_ADDRESS)


def _codes(payload: Any) -> tuple[str, ...]:
    """The names of the errors in an answer.

    The REST API answers `[{"message": "…", "errorCode": "INVALID_FIELD"}]`, the token endpoint
    `{"error": "invalid_grant", "error_description": "…"}`.
    """
    if isinstance(payload, list):
        found = [error.get("errorCode") for error in payload if isinstance(error, dict)]
    else:
        found = [payload.get("error")] if isinstance(payload, dict) else []
    codes = [code for code in found if isinstance(code, str) and len(code) <= 60]
    return tuple(dict.fromkeys(code for code in codes if _CODE.fullmatch(code)))[:3]


def _records(payload: Any) -> list[dict[str, Any]]:
    """The rows of a query's answer, all of them. Raises _Odd."""
    if isinstance(payload, dict) and payload.get("done") is True:
        rows, size = payload.get("records"), payload.get("totalSize")
        if isinstance(rows, list) and size == len(rows) and all(type(row) is dict for row in rows):
            return rows
    raise _Odd("that is not the answer to a query")


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("the instance URL is not an address: write https://HOST")
    return text.rstrip("/")


def _field(name: str) -> str:
    if not _FIELD.fullmatch(name):
        raise ValueError(f"{name!r} is not the API name of a field, such as Fusebill_Id__c")
    return name


def _organisation(id_: str) -> str:
    if not id_.startswith("00D"):
        raise ValueError(f"{id_!r} is not the id of an organisation: those start with 00D")
    return salesforce_id_18(id_)[:15]
