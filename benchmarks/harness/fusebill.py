"""A Fusebill that costs little: `python -m benchmarks.harness.fusebill PORT`.

The simulator of the tests spells out every doubt about the vendor's API; this one answers only the
calls that the product makes for a link, as fast as asyncio goes, and looks the same on the wire:
customers with the simulator's field set, envelopes, page and rate-limit headers. Customers are
there without being stored: every id from `FIRST_CUSTOMER` on, `count` of them, with empty slots
until somebody latches one.

Behind `/_bench/` it is told what to do and tells what it was asked (`FusebillControl`).
"""

from __future__ import annotations

import asyncio
import http.client
import math
import signal
import sys
import time
from collections import deque
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from simulators.fusebill.credentials import fake_api_key
from simulators.fusebill.customer import Customer, encode, spell, spell_for_hubspot
from simulators.fusebill.options import Options

FIRST_CUSTOMER = 8_000_001
API_KEY = fake_api_key("bench")
OURS = b"sync-worker/"
"""How the product's User-Agent begins (B7.5): all others are foreign clients."""

_AUTHORIZATION = f"Authorization: Basic {API_KEY}".encode()

MAX_PAGE = 1_000
DEFAULT_PAGE = 20
MINUTE_SECONDS = 60.0

Kind = Literal["read", "list", "write"]


class Behaviour(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How this Fusebill behaves."""

    count: int = 5_000
    """Customers of the account."""
    latency_ms: float = 0.0
    """From request to answer."""
    honour_ids: bool = True
    """Whether `id:1,2,3` is a query; if not, it is an unknown name and everybody comes back."""
    minute_limit: int = 10_000_000
    window: Literal["fixed", "sliding"] = "fixed"
    occupant: int | None = None
    """A HubSpot contact of another record that every contact slot holds: this and the customer's
    place in the account, added up. None: the slots are empty."""


class Call(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One call, as it arrived."""

    at_ns: int
    """CLOCK_MONOTONIC, which all processes of a machine share."""
    kind: Kind
    customer: int
    """0 for a list."""
    rows: int
    status: int
    ours: bool
    record: str
    """What a write latched."""


class Counters(msgspec.Struct, frozen=True):
    """What arrived so far."""

    reads: int = 0
    lists: int = 0
    writes: int = 0
    """Of ours, answered 200."""
    refused: int = 0
    """Of ours, answered 429."""
    foreign: int = 0
    foreign_refused: int = 0
    other: int = 0
    """Of ours, answered anything else."""

    @property
    def calls(self) -> int:
        """All of ours that were let through."""
        return self.reads + self.lists + self.writes


class _Slots(msgspec.Struct, gc=False):
    salesforce: str | None = None
    contact: int | None = None
    company: int | None = None
    geotab: str | None = None


_ID, _CONTACT, _COMPANY = 987_654_321, 987_654_322, 987_654_323
_ACCOUNT, _GEOTAB = "0015g00009ZZZZZ", "SLOT-GEOTAB"


def _template(for_hubspot: bool) -> bytes:  # noqa: FBT001 - local
    """The simulator's spelling of a customer, with places for what differs."""
    sample = Customer(
        id=_ID,
        first_name="Maren",
        last_name="Oduya",
        company_name=f"Northgate Haulage {_ID}",
        primary_email=f"billing@northgate-{_ID}.example",
        reference=f"BENCH-{_ID}",
        hub_spot_id=_CONTACT,
        hub_spot_company_id=_COMPANY,
        salesforce_id=_ACCOUNT,
        geotab_id=_GEOTAB,
    )
    options = Options(hubspot_nested_ids_differ=False)
    spelled = spell_for_hubspot(sample, options) if for_hubspot else spell(sample)
    text = encode(spelled).replace(b"%", b"%%")
    for value, place in (
        (str(_ID), b"%(id)d"),
        (str(_CONTACT), b"%(contact)b"),
        (str(_COMPANY), b"%(company)b"),
        (f'"{_ACCOUNT}"', b"%(account)b"),
        (f'"{_GEOTAB}"', b"%(geotab)b"),
    ):
        text = text.replace(value.encode(), place)
    return text


_FULL, _OF_HUBSPOT = _template(for_hubspot=False), _template(for_hubspot=True)


class Account:
    """The customers, the limit and the log."""

    def __init__(self) -> None:
        self.clear(Behaviour())

    def clear(self, behaviour: Behaviour) -> None:
        """Begin anew."""
        self.behaviour = behaviour
        self.slots: dict[int, _Slots] = {}
        self.by_account: dict[str, int] = {}
        self.log: list[Call] = []
        self.counts: dict[str, int] = dict.fromkeys(Counters.__struct_fields__, 0)
        self.passed: deque[float] = deque()

    # The limit, as in simulators.fusebill.limits: refused calls do not count.

    def gauge(self) -> tuple[int, float]:
        """How many calls are left in the minute, and when it begins anew."""
        now = time.time()
        fixed = self.behaviour.window == "fixed"
        start = now - now % MINUTE_SECONDS if fixed else now - MINUTE_SECONDS
        passed = self.passed
        while passed and (passed[0] < start if fixed else passed[0] <= start):
            passed.popleft()
        oldest = start if fixed else (passed[0] if passed else now)
        return self.behaviour.minute_limit - len(passed), oldest + MINUTE_SECONDS

    def rate_headers(self, left: int, reset: float) -> bytes:
        """What every answer tells of the limits."""
        return (
            b"X-Rate-Limit-Limit-Minute: %d\r\nX-Rate-Limit-Remaining-Minute: %d\r\n"
            b"X-Rate-Limit-Reset-Minute: %d\r\nX-Rate-Limit-Limit-Day: 100000000\r\n"
            b"X-Rate-Limit-Remaining-Day: 100000000\r\nX-Rate-Limit-Reset-Day: %d\r\n"
        ) % (self.behaviour.minute_limit, max(0, left), math.ceil(reset), math.ceil(reset) + 86_400)

    # Customers.

    def known(self, customer: int) -> bool:
        """Whether there is such a customer."""
        return 0 <= customer - FIRST_CUSTOMER < self.behaviour.count

    def checked(self, customer: int) -> int:
        """The same id. Raises KeyError if there is no such customer."""
        if not self.known(customer):
            raise KeyError(customer)
        return customer

    def of(self, customer: int) -> _Slots:
        """What a customer's slots hold."""
        found = self.slots.get(customer)
        if found is None:
            occupant = self.behaviour.occupant
            contact = None if occupant is None else occupant + customer - FIRST_CUSTOMER
            found = _Slots(contact=contact)
        return found

    def spelled(self, customer: int, template: bytes = _FULL) -> bytes:
        """The customer as JSON."""
        slots = self.of(customer)
        return template % {
            b"id": customer,
            b"contact": _json(slots.contact),
            b"company": _json(slots.company),
            b"account": _json(slots.salesforce),
            b"geotab": _json(slots.geotab),
        }

    def page(self, target: str) -> tuple[bytes, bytes, int]:
        """A page of the list: JSON, headers, rows."""
        asked = {k.lower(): v for k, v in parse_qsl(urlsplit(target).query)}
        size = min(int(asked.get("pagesize", DEFAULT_PAGE)), MAX_PAGE)
        number = int(asked.get("pagenumber", 0))
        ids, total = self._matching(asked.get("query", ""), number * size, size)
        pages = -(-total // size)
        headers = (
            b"X-Count: %d\r\nX-MaxCount: %d\r\nX-CurrentPage: %d\r\nX-NextPage: %d\r\n"
            b"X-PreviousPage: %d\r\nX-PageSize: %d\r\nX-MaxPageIndex: %d\r\n"
            b"X-SortOrder: Ascending\r\nX-SortExpression: id\r\n"
        ) % (
            *(total, MAX_PAGE, number),
            *(number + 1 if number + 1 < pages else -1, number - 1, size, max(0, pages - 1)),
        )
        return b"[" + b",".join(map(self.spelled, ids)) + b"]", headers, len(ids)

    def _matching(self, query: str, start: int, size: int) -> tuple[list[int], int]:
        """The customers of one page, and how many match on all of them."""
        name, _, value = query.partition(":")
        name = name.strip().lower()
        if name == "id" and self.behaviour.honour_ids:
            wanted = sorted({int(one) for one in value.split(",") if one.strip().isdigit()})
            ids = [one for one in wanted if self.known(one)]
            return ids[start : start + size], len(ids)
        if name == "salesforceid":
            holder = self.by_account.get(value.lower()[:15]) if len(value) == 15 else None
            return ([] if holder is None else [holder]), int(holder is not None)
        if name in ("reference", "primaryemail"):
            return [], 0
        first, last = FIRST_CUSTOMER + start, FIRST_CUSTOMER + self.behaviour.count
        return list(range(first, min(first + size, last))), self.behaviour.count

    def write(self, path: str, body: bytes) -> tuple[int, bytes, str]:
        """Latch or unlatch: the customer, its JSON, and what was latched. Raises KeyError for a
        path or a customer that is not there.
        """
        if path.startswith("/v1/hubspot/unlatchcustomer/"):
            customer, slots = self._slots(int(path.rpartition("/")[2]))
            slots.contact = slots.company = None
            return customer, self.spelled(customer, _OF_HUBSPOT), ""
        said = {k.lower(): v for k, v in msgspec.json.decode(body).items()}
        customer, slots = self._slots(said["fusebillid"])
        template = _FULL
        match path:
            case "/v1/hubspot/latchcustomer":
                slots.contact, slots.company = said["hubspotid"], said["hubspotcompanyid"]
                record, template = slots.contact, _OF_HUBSPOT
            case "/v1/salesforce/latch":
                slots.salesforce = record = said["salesforceid"][:15]
                self.by_account[slots.salesforce.lower()] = customer
            case "/v1/geotab/latchcustomer":
                slots.geotab = record = said["geotabid"]
            case "/v1/geotab/unlatchcustomer":
                slots.geotab = record = None
            case _:
                raise KeyError(path)
        return customer, self.spelled(customer, template), str(record or "")

    def _slots(self, customer: int) -> tuple[int, _Slots]:
        slots = self.slots[self.checked(customer)] = self.of(customer)
        return customer, slots


def _json(value: int | str | None) -> bytes:
    if value is None:
        return b"null"
    return b"%d" % value if isinstance(value, int) else b'"%s"' % value.encode()


class _Connection(asyncio.Protocol):
    """One client; it sends its next request when it has the answer to the last."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lowered = head.lower()
        at = lowered.find(b"\r\ncontent-length:")
        length = int(lowered[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
        self._serve(method, target.decode(), head, lowered, rest[:length])

    def _serve(self, method: bytes, target: str, head: bytes, lowered: bytes, body: bytes) -> None:
        if target.startswith("/_bench/"):
            self._send(200, _desk(self._account, target, body))
            return
        account = self._account
        at_ns = time.monotonic_ns()
        ours = b"\r\nuser-agent: " + OURS in lowered
        left, reset = account.gauge()
        path = target.split("?", 1)[0].lower().rstrip("/")
        kind: Kind = "write" if method == b"POST" else "list" if path.endswith("rs") else "read"
        customer, rows, record, more = 0, 0, "", b""
        if _AUTHORIZATION not in head:
            status, answer = 401, _errors(401, "Authorization has been denied for this request.")
        elif left <= 0:
            status, answer = 429, _errors(429, "API call limit per minute exceeded.")
        else:
            account.passed.append(time.time())
            left -= 1
            status = 200
            try:
                if kind == "write":
                    customer, answer, record = account.write(path, body)
                elif kind == "list":
                    answer, more, rows = account.page(target)
                else:
                    customer = int(unquote(path.rpartition("/")[2]))
                    answer = account.spelled(account.checked(customer))
            except KeyError as unknown:
                status = 404
                answer = _errors(404, f"Customer with id {unknown} not found.")
        account.log.append(Call(at_ns, kind, customer, rows, status, ours, record))
        self._count(kind, status, ours)
        headers = more + account.rate_headers(left, reset)
        if account.behaviour.latency_ms:
            wait = account.behaviour.latency_ms / 1000
            asyncio.get_running_loop().call_later(wait, self._send, status, answer, headers)
        else:
            self._send(status, answer, headers)

    def _count(self, kind: Kind, status: int, ours: bool) -> None:  # noqa: FBT001 - local
        counts = self._account.counts
        if not ours:
            counts["foreign_refused" if status == 429 else "foreign"] += 1
        elif status == 200:
            counts[f"{kind}s"] += 1
        else:
            counts["refused" if status == 429 else "other"] += 1

    def _send(self, status: int, body: bytes, headers: bytes = b"") -> None:
        head = b"HTTP/1.1 %d x\r\nContent-Type: application/json; charset=utf-8\r\n" % status
        self._transport.write(head + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def _errors(status: int, text: str) -> bytes:
    said = {"ErrorId": 0, "HttpStatusCode": status, "Errors": [{"Key": "Api Error", "Value": text}]}
    return msgspec.json.encode(said)


def _desk(account: Account, target: str, body: bytes) -> bytes:
    """What `/_bench/` answers."""
    match urlsplit(target).path:
        case "/_bench/behave":
            behaviour = msgspec.json.decode(body, type=Behaviour)
            if target.endswith("?anew"):
                account.clear(behaviour)
            else:
                account.behaviour = behaviour
        case "/_bench/forget":
            account.log.clear()
            account.counts = dict.fromkeys(Counters.__struct_fields__, 0)
        case "/_bench/calls":
            return msgspec.json.encode(account.log)
        case "/_bench/counters":
            return msgspec.json.encode(account.counts)
    return b"{}"


class FusebillControl:
    """The hand on a running one."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def behave(self, behaviour: Behaviour, *, anew: bool = True) -> None:
        """Have it behave so; `anew` with nothing latched, logged or counted."""
        self._ask("behave" + ("?anew" if anew else ""), msgspec.json.encode(behaviour))

    def forget(self) -> None:
        """Forget what was asked so far; latched stays latched, and calls stay in the limit."""
        self._ask("forget")

    def counters(self) -> Counters:
        """What arrived since it began, or forgot."""
        return msgspec.json.decode(self._ask("counters"), type=Counters)

    def calls(self) -> list[Call]:
        """Every call since then."""
        return msgspec.json.decode(self._ask("calls"), type=list[Call])

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _ask(self, what: str, body: bytes = b"") -> bytes:
        self._connection.request("POST", f"/_bench/{what}", body)
        return self._connection.getresponse().read()


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    account = Account()
    server = await loop.create_server(lambda: _Connection(account), "127.0.0.1", port, backlog=1024)
    async with server:
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
