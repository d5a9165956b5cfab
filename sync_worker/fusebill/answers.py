"""What an answer of Fusebill means: one pure decision, `classify`.

Fusebill's errors carry no machine code and "not all errors map cleanly onto HTTP codes"
(vendor page 'Errors'), so the status and the text decide together:

| answer | means |
|---|---|
| none, or a broken one | Transient, an outage, lost if the call was sent |
| 2xx with the customer or the list asked for | that Customer or CustomerPage |
| any other 2xx | Transient, lost |
| 3xx, 403 | Transient |
| 400 "Authorization key is not in the correct format", 401 | Unauthorized |
| 400 that names HubSpot or Salesforce, `not found` or `does not exist` | RelayedNotFound |
| 400 that names HubSpot or Salesforce otherwise | Transient |
| the same of a list, which asks neither | Rejected |
| 404 whose `Errors` name the customer asked for | CustomerNotFound |
| any other 404 (`Message`: an unknown route) | Transient |
| 429 | RateLimited |
| any other 4xx | Rejected |
| 408, 5xx, and any status that HTTP does not know | Transient, an outage, lost |

"Lost" (`answer_lost`) is said of writes only: a read changes nothing, whatever became of it.
"An outage" (`outage`) may open the circuit; every other row proves that Fusebill lives (B6.3).
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from sync_worker.domain import Attempt, Customer
from sync_worker.fusebill.customer import CustomerPage, NotACustomer, parse_customer, parse_page
from sync_worker.fusebill.errors import (
    CustomerNotFound,
    FusebillError,
    RateLimited,
    Rejected,
    RelayedNotFound,
    Transient,
    Unauthorized,
)
from sync_worker.fusebill.limits import RateLimits

T = TypeVar("T")

KEPT_CHARACTERS = 300
"""How much of an error text is kept: a dead letter holds one for every attempt (B6.9)."""

_CHECK_ADDRESS = "check FUSEBILL_BASE_URL"
_MALFORMED_KEY = "authorization key is not in the correct format"
"""The vendor's own example of a 400 (page 'Errors'): a malformed key is not answered 401."""

_RELAY = re.compile(r"\b(hubspot|salesforce)\b", re.IGNORECASE)
"""Names one of the systems that Fusebill asks when it latches. Whole words only: a 400 about
the field `hubSpotId` or `salesforceId` is Fusebill's own judgement of the request."""

_RELAYED_ABSENCE = re.compile(r"not found|does not exist", re.IGNORECASE)
"""As in "... from HubSpot: resource not found" and "Salesforce Account 1 does not exist."
(vendor pages 'Latch Customer' of HubSpot and of Salesforce)."""

_WORD = re.compile(r"[^\s,;<>\"'()\[\]{}|]+")
_AT_SIGN = re.compile(r"@|%40|\uff20")


class Call(msgspec.Struct, frozen=True):
    """One request to Fusebill. `str()` gives it as an `Attempt` shows it."""

    method: str
    path: str
    customer_id: int | None = None
    """The customer that the call is about; None: it is about the list of them."""
    body: bytes | None = None
    """The JSON that is sent; it holds ids only, nothing secret and nobody's data."""
    params: tuple[tuple[str, str], ...] = ()
    """Names and values behind the path's `?`, not encoded. The value of `query` may hold an
    e-mail address, so what it looks for is never shown (B10.4)."""

    def __str__(self) -> str:
        shown = [f"{name}={self._shown(name, value)}" for name, value in self.params]
        path = f"{self.path}?{'&'.join(shown)}" if shown else self.path
        line = f"{self.method} {path}"
        return line if self.body is None else f"{line} {self.body.decode()}"

    def __repr__(self) -> str:
        return f"Call({self})"

    @staticmethod
    def _shown(name: str, value: str) -> str:
        if name != "query":
            return value
        field, colon, _ = value.partition(":")
        return f"{field}:…" if colon else "…"

    @property
    def target(self) -> str:
        """The path and what follows it, as sent: all is percent-encoded, as a bare `+` in an
        address would arrive as a blank.
        """
        if not self.params:
            return self.path
        return f"{self.path}?{urlencode(self.params, quote_via=quote, safe='')}"

    @property
    def writes(self) -> bool:
        """Whether the call may change the customer."""
        return self.method != "GET"

    def hide(self, text: str) -> str:
        """The text without what the query looks for, which an error may quote."""
        for name, value in self.params:
            sought = value.partition(":")[2] if name == "query" else ""
            if sought:
                text = re.sub(re.escape(sought), "…", text, flags=re.IGNORECASE)
        return text


class Answer(msgspec.Struct, frozen=True):
    """What came back for a call, whole, broken or not at all."""

    status: int | None = None
    """HTTP status; None if no answer began."""
    body: bytes = b""
    limits: RateLimits = RateLimits()
    count: int | None = None
    """`X-Count`, how many customers match on all pages of a list; None if it is missing or
    unreadable."""
    fault: str | None = None
    """Why no whole answer came, in a few words; None if one did."""
    sent: bool = True
    """False only if it is certain that the request never left: no connection was made."""

    def __repr__(self) -> str:
        # The body is a customer with names and addresses, and tracebacks show locals (B10.4).
        return f"Answer(status={self.status}, {len(self.body)} bytes, fault={self.fault!r})"


class Unread(Exception):
    """A 2xx is not what was asked for: `cause` says what it is instead, without its values, and
    `cure` what to do about it.
    """

    def __init__(self, cause: str, cure: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.cure = cure


def read_customer(call: Call, answer: Answer) -> Customer:
    """The customer that the call is about. Raises Unread for anything else: a success may be the
    literal `null`, or a page of something in between.
    """
    try:
        customer = parse_customer(_decode(answer.body))
    except NotACustomer as error:
        raise Unread(f"that is not a customer: {error}", _CHECK_ADDRESS) from None
    if customer.id != call.customer_id:
        raise Unread(f"that is customer {customer.id}, not {call.customer_id}")
    return customer


def read_page(_: Call, answer: Answer) -> CustomerPage:
    """The page of a list: a bare JSON array of objects. Raises Unread for anything else."""
    rows = _decode(answer.body)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Unread("that is not a list of customers", _CHECK_ADDRESS)
    return parse_page(rows, answer.count)


def classify(
    call: Call,
    answer: Answer,
    read: Callable[[Call, Answer], T],
    *,
    at: int,
    hide: Callable[[str], str] = str,
) -> T | FusebillError:
    """What `read` finds in an answer, or the error that the answer is: the table above.

    `read` is asked about a 2xx only, and raises Unread if that does not hold what was asked for.
    `at` is when the call was made (ms since the epoch), for the error's `Attempt`. `hide`
    takes secrets out of a text that Fusebill may have echoed. Pure: raises nothing.
    """
    case = _Case(call, answer, at, hide)
    if answer.status is None or answer.fault is not None:
        cause = answer.fault or "nothing came back"
        return case.transient(cause, lost=answer.sent, outage=True)
    if 200 <= answer.status <= 299:
        try:
            return read(call, answer)
        except Unread as unread:
            return case.transient(unread.cause, lost=True, cure=unread.cure)
    judge = _BY_STATUS.get(answer.status) or _BY_HUNDRED.get(answer.status // 100, _server_fault)
    return judge(case)


def clean(text: str) -> str:
    """A text fit to be kept: printable and on one line, e-mail addresses masked, cut to
    `KEPT_CHARACTERS`.

    Whole words are masked, not a pattern of addresses: it is linear in the text's length and
    errs towards masking too much.
    """
    # Masked before it is cut: a cut address might not look like one any more.
    masked = _WORD.sub(_mask, html.unescape(text))
    line = " ".join("".join(char if char.isprintable() else " " for char in masked).split())
    return line if len(line) <= KEPT_CHARACTERS else line[: KEPT_CHARACTERS - 1] + "…"


def _mask(word: re.Match[str]) -> str:
    return "[e-mail]" if _AT_SIGN.search(word[0]) else word[0]


class _Said(msgspec.Struct, frozen=True):
    """The text of an error answer, by where it stood."""

    errors: str = ""
    """The `Value`s of the documented envelope's `Errors`."""
    other: str = ""
    """A `Message`, a bare JSON string or plain text; an HTML page says nothing."""

    @property
    def text(self) -> str:
        return self.errors or self.other


class _Case:
    """A call and its answer, and how an error about them is worded."""

    def __init__(self, call: Call, answer: Answer, at: int, hide: Callable[[str], str]) -> None:
        self.call = call
        self.answer = answer
        self._at = at
        self._hide = hide

    @cached_property
    def said(self) -> _Said:
        return _read_error(self.answer.body)

    def transient(
        self, cause: str, *, lost: bool = False, outage: bool = False, cure: str = ""
    ) -> Transient:
        told = self.tell(cause, cure)
        return Transient(*told, answer_lost=lost and self.call.writes, outage=outage)

    def tell(self, cause: str, cure: str = "") -> tuple[str, Attempt]:
        """One sentence, and the attempt: Fusebill's own words where it has any, else ours."""
        status = self.answer.status
        kept = ""
        if self.answer.fault is None and status is not None and not 200 <= status <= 299:
            kept = clean(self.call.hide(self._hide(self.said.text)))
        outcome = "got no answer" if status is None else f"was answered {status}"
        quote = f" ({kept})" if kept else ""
        message = f"{self.call} {outcome}: {cause}{quote}" + (f"; {cure}" if cure else "")
        return message, Attempt(self._at, str(self.call), status, kept or clean(cause))


def _redirect(case: _Case) -> FusebillError:
    return case.transient("redirects are not followed", cure=_CHECK_ADDRESS)


def _bad_request(case: _Case) -> FusebillError:
    text = case.said.text
    if _MALFORMED_KEY in text.lower():
        return Unauthorized(*case.tell("the API key is malformed", "check FUSEBILL_API_KEY"))
    if case.call.customer_id is None or not _RELAY.search(text):
        return _rejected(case)
    if _RELAYED_ABSENCE.search(text):
        return RelayedNotFound(*case.tell("Fusebill was told that the record is not there"))
    return case.transient("the fault may lie with HubSpot or Salesforce behind Fusebill")


def _unauthorized(case: _Case) -> FusebillError:
    cause = "the API key is missing, invalid or of another environment"
    return Unauthorized(*case.tell(cause, "check FUSEBILL_API_KEY and FUSEBILL_BASE_URL"))


def _forbidden(case: _Case) -> FusebillError:
    return case.transient("access is forbidden", cure="if it stays, ask Stax Bill or your proxy")


def _not_found(case: _Case) -> FusebillError:
    id_ = case.call.customer_id
    if id_ is None:
        return case.transient("no list is there, not even an empty one", cure=_CHECK_ADDRESS)
    text = case.said.errors
    if "customer" in text.lower() and re.search(rf"(?<!\d){id_}(?!\d)", text):
        told = case.tell(f"Fusebill has no customer {id_}")
        return CustomerNotFound(*told, customer_id=id_)
    return case.transient(f"no word that customer {id_} is unknown", cure=_CHECK_ADDRESS)


def _rate_limited(case: _Case) -> FusebillError:
    told = case.tell("the account's rate limit is reached")
    return RateLimited(*told, reset_at=case.answer.limits.retry_at())


def _rejected(case: _Case) -> FusebillError:
    return Rejected(*case.tell("Fusebill refuses it, and would again"))


def _server_fault(case: _Case) -> FusebillError:
    return case.transient("Fusebill, or something before it, failed", lost=True, outage=True)


_BY_STATUS: dict[int, Callable[[_Case], FusebillError]] = {
    400: _bad_request,
    401: _unauthorized,
    403: _forbidden,
    404: _not_found,
    408: _server_fault,  # a proxy's, for a connection that lay idle
    429: _rate_limited,
}
_BY_HUNDRED: dict[int, Callable[[_Case], FusebillError]] = {
    3: _redirect,
    4: _rejected,
}


_NOT_JSON = object()


def _decode(body: bytes) -> object:
    """The JSON in a body; for anything else a value that is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _read_error(body: bytes) -> _Said:
    """The text of an error answer, from whatever shape it has.

    Documented: `{"ErrorId": 0, "HttpStatusCode": 404, "Errors": [{"Key": "Api Error",
    "Value": "..."}]}`. Seen in practice: `{"Message": "..."}` for a route that is unknown.
    """
    payload = _decode(body)
    if isinstance(payload, dict):
        keys = {str(key).lower(): value for key, value in payload.items()}
        message = keys.get("message")
        return _Said(
            errors="; ".join(_error_values(keys.get("errors"))),
            other=message if isinstance(message, str) else "",
        )
    if isinstance(payload, str):
        return _Said(other=payload)
    if payload is not _NOT_JSON:
        return _Said()
    text = body.decode("utf-8", "replace").strip()
    return _Said(other="" if text.startswith("<") else text)


def _error_values(errors: object) -> list[str]:
    if not isinstance(errors, list):
        return []
    values = [error.get("Value") if isinstance(error, dict) else error for error in errors]
    return [value for value in values if isinstance(value, str)]
