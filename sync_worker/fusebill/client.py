"""The calls to Fusebill (now Stax Bill), one method each.

Paths and bodies are those of the vendor pages, each named at its method; a name's spelling,
capitals included, differs from one page to the next and is kept. Every write gives back the
customer as Fusebill's answer shows it, to be checked by the caller (B5.1).
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

from sync_worker.domain import Attempt, Customer, salesforce_id_18
from sync_worker.fusebill.answers import Answer, Call, classify, read_customer, read_page
from sync_worker.fusebill.customer import CustomerPage
from sync_worker.fusebill.errors import FusebillError
from sync_worker.fusebill.limits import RateLimits
from sync_worker.fusebill.transport import ApiKey, Transport
from sync_worker.http import USER_AGENT

T = TypeVar("T")

GEOTAB_ID_CHARACTERS = 255
"""The longest `geotabId` (vendor page 'Latch Customer' of Geotab)."""

PAGE_SIZE = 1000
"""Rows of a list's page: the server's cap varies and is "never below 1,000" (vendor page
'Pagination')."""

_HUBSPOT_ID = re.compile(r"[1-9][0-9]{0,18}")
"""A positive number of at most 64 bits, without leading zeros: with them it would never equal
what Fusebill answers."""


class FusebillClient:
    """Speaks to one Fusebill account.

    Makes each call once: no retries, no redirects. May be shared by threads; make one per
    process, after a fork. Close it, or use it as a context manager.

    `api_key` is sent as given. `read_timeout` is in seconds. `on_call` is told every call that
    was made, also one that failed, before its method returns or raises; what it raises itself
    goes on to the caller, so it should not. `clock` gives seconds since the epoch.

    Every method raises ValueError, and calls nothing, for an argument that is no id; else a
    FusebillError of `errors` if the answer is not what was asked for. Raises ValueError itself
    if the key cannot be sent.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        read_timeout: float,
        salesforce_unlatch_path: str | None = None,
        user_agent: str = USER_AGENT,
        on_call: Callable[[Attempt], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._told = threading.local()
        self.on_call = on_call
        """Told every call that was made; may be set later, before the first call."""
        self._host = urlsplit(base_url).hostname
        self._key = ApiKey(api_key)
        self._salesforce_unlatch_path = salesforce_unlatch_path
        self._clock = clock
        self._transport = Transport(
            base_url, self._key, read_timeout=read_timeout, user_agent=user_agent
        )

    def __repr__(self) -> str:
        return f"FusebillClient({self._host})"

    def __enter__(self) -> FusebillClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def limits(self) -> RateLimits:
        """The rate limits as the last answer in this thread stated them."""
        limits: RateLimits = getattr(self._told, "limits", RateLimits())
        return limits

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def get_customer(self, customer_id: int) -> Customer:
        """Read a customer ('Read Customer'): `GET /v1/customers/{id}`."""
        _check_customer(customer_id)
        return self._make(Call("GET", f"/v1/customers/{customer_id}", customer_id), read_customer)

    def list_customers(
        self, *, page: int, page_size: int = PAGE_SIZE, query: str | None = None
    ) -> CustomerPage:
        """Read one page of the customers that match ('List Customers'): `GET /v1/customers/`.

        `page` counts from 0. `query` is in Fusebill's grammar (`name:value`) and is sent as it
        is, percent-encoded; without one all customers match. A server may ignore a name that it
        does not know, so every row is to be checked (B4.2). Attempts and errors show of it the
        name of its first field only.

        No order is asked for: which names a sort takes is not documented, and one that is refused
        or ignored would be worse than the server's own order. So customers that come or go between
        two calls may move a row from one page to the next: whoever needs all of them has to
        compare what he got with `total`.
        """
        if page < 0 or page_size < 1:
            raise ValueError(f"there is no page {page} of {page_size} rows: they count from 0")
        place = (("pageSize", str(page_size)), ("pageNumber", str(page)))
        params = (("query", query), *place) if query else place
        return self._make(Call("GET", "/v1/customers/", params=params), read_page)

    def probe(self) -> CustomerPage:
        """Prove that Fusebill answers and that the key is good (B6.3, B6.4).

        One call, the cheapest list read: a page of one customer, whoever that is.
        """
        return self.list_customers(page=0, page_size=1)

    def latch_hubspot(
        self, customer_id: int, *, contact: str | None, company: str | None
    ) -> Customer:
        """Set both HubSpot slots ('Latch Customer' of HubSpot).

        None clears a slot, and so would leaving it out: the page gives null as the default
        and as the word for "remove". So both are always sent (B5.4), as JSON numbers or null.
        """
        body = {
            "hubSpotId": _hubspot_number(contact),
            "hubSpotCompanyId": _hubspot_number(company),
        }
        return self._post("/v1/HubSpot/latchCustomer", customer_id, body)

    def unlatch_hubspot(self, customer_id: int) -> Customer:
        """Clear both HubSpot slots ('Unlatch Customer' of HubSpot): id in the path, no body."""
        _check_customer(customer_id)
        call = Call("POST", f"/v1/HubSpot/UnlatchCustomer/{customer_id}", customer_id)
        return self._make(call, read_customer)

    def latch_salesforce(self, customer_id: int, account_id: str, *, force: bool) -> Customer:
        """Set the Salesforce slot ('Latch Customer' of Salesforce).

        With `force` an Account that the customer holds is dropped for this one; without, that
        is an error. It is always sent: what leaving it out means is not documented (B5.5).
        """
        body = {"salesforceId": salesforce_id_18(account_id), "forceLatch": force}
        return self._post("/v1/Salesforce/Latch", customer_id, body)

    def unlatch_salesforce(self, customer_id: int) -> Customer:
        """Clear the Salesforce slot, at the path that the settings name (B5.6).

        Raises RuntimeError without one: no endpoint is documented and none is invented, so
        the caller must have found this release unsupported before.
        """
        if self._salesforce_unlatch_path is None:
            raise RuntimeError(
                "unlatch_salesforce needs FUSEBILL_SALESFORCE_UNLATCH_PATH: the caller must "
                "settle a Salesforce release as unlatch_unsupported when it is not set"
            )
        return self._post(self._salesforce_unlatch_path, customer_id, {})

    def latch_geotab(self, customer_id: int, geotab_id: str) -> Customer:
        """Set the Geotab slot ('Latch Customer' of Geotab); the id is sent as it is."""
        if not 1 <= len(geotab_id) <= GEOTAB_ID_CHARACTERS:
            raise ValueError(
                f"a Geotab id has 1 to {GEOTAB_ID_CHARACTERS} characters, not {len(geotab_id)}"
            )
        return self._post("/v1/Geotab/LatchCustomer", customer_id, {"geotabId": geotab_id})

    def unlatch_geotab(self, customer_id: int) -> Customer:
        """Clear the Geotab slot ('Unlatch Customer' of Geotab): id in the body."""
        return self._post("/v1/Geotab/UnlatchCustomer", customer_id, {})

    def _post(self, path: str, customer_id: int, body: Mapping[str, object]) -> Customer:
        _check_customer(customer_id)
        sent = json.dumps({"fusebillId": customer_id, **body}, separators=(",", ":")).encode()
        return self._make(Call("POST", path, customer_id, sent), read_customer)

    def _make(self, call: Call, read: Callable[[Call, Answer], T]) -> T:
        at = int(self._clock() * 1000)
        self._told.limits = RateLimits()
        try:
            answer = self._transport.exchange(call)
        except BaseException as error:
            # A time limit or a signal: the call may have been carried out, so it is told.
            self._tell(Attempt(at, str(call), error=f"interrupted: {type(error).__name__}"))
            raise
        self._told.limits = answer.limits
        result = classify(call, answer, read, at=at, hide=self._key.hide)
        if isinstance(result, FusebillError):
            self._tell(result.attempt)
            raise result
        self._tell(Attempt(at, str(call), answer.status))
        return result

    def _tell(self, attempt: Attempt) -> None:
        if self.on_call is not None:
            self.on_call(attempt)


def _check_customer(customer_id: int) -> None:
    if type(customer_id) is not int or customer_id <= 0:
        raise ValueError(f"{customer_id!r} is not a Fusebill customer id: it is a positive number")


def _hubspot_number(id_: str | None) -> int | None:
    if id_ is None:
        return None
    if not _HUBSPOT_ID.fullmatch(id_):
        raise ValueError(f"{id_!r} is not a HubSpot id: it is a positive number in digits")
    return int(id_)
