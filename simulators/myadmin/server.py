"""MyAdmin over HTTP: sessions, `Authenticate` and `GetUserContacts`, versions v2 and v3."""

from __future__ import annotations

import re
import secrets
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Literal

from simulators.http import Answer, Fault, PlacedFault, Request, SimulatedServer
from simulators.myadmin import rpc
from simulators.myadmin.contacts import ACCOUNT, Contact, Contacts

Version = Literal["v2", "v3"]

DEFAULT_PER_PAGE = 20
"""Contacts on a page of v3 if the call does not say."""

MAX_PER_PAGE = 100
"""The most that v3 gives; whether it refuses a greater number is unknown, here it is cut."""

NO_LONGER = "no longer available"
NOT_YET = "not yet available for that API version"
"""How a version words that it does not serve a method."""

_PATH = re.compile(r"/(v2|v3)/MyAdminApi\.ashx", re.IGNORECASE)

Rewrite = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


class SimulatedMyAdmin(SimulatedServer):
    """A simulated MyAdmin in this process, on a port of its own.

    >>> with SimulatedMyAdmin([Contact(id=4711, reseller_customer_id="0070441")]) as myadmin:
    ...     reader = MyAdminReader(
    ...         myadmin.url, myadmin.username, myadmin.password, account=myadmin.account
    ...     )

    `contacts` may be changed at any time; all of them are listed, also one whose company names
    another account. Faults and the log of `control` tell calls apart by method and page, as in
    `GetUserContacts page 2`; passwords and sessions are not in it.
    """

    def __init__(
        self,
        contacts: Iterable[Contact] = (),
        *,
        version: Version = "v2",
        username: str = "erp-user@example.com",
        password: str | None = None,
        account: str = ACCOUNT,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host=host, port=port)
        self.contacts = Contacts()
        self.contacts.put(*contacts)
        self.version: Version = version
        """That of `url`; both are served."""
        self.username = username
        self.password = password or secrets.token_urlsafe(16)
        self.account = account
        self.rewrite: Rewrite | None = None
        """Changes the rows of every list or page before they leave; `pagination.total` stays."""
        self._lock = threading.Lock()
        self._sessions: dict[str, str] = {}
        self._unserved: dict[str, str] = {}

    @property
    def url(self) -> str:
        """The whole endpoint, as GEOTAB_MYADMIN_URL takes it; known once started."""
        return f"{super().url}/{self.version}/MyAdminApi.ashx"

    def list_nothing(self) -> None:
        """Answer with empty lists from now on."""
        self.rewrite = lambda _: []

    def list_short(self) -> None:
        """Leave the last contact of every list or page out from now on."""
        self.rewrite = lambda rows: rows[:-1]

    def expire_sessions(self) -> None:
        """Let every session end; a call with one gets `SessionExpiredException`."""
        with self._lock:
            self._sessions.clear()

    def withdraw(self, version: Version, text: str = NO_LONGER) -> None:
        """Serve GetUserContacts in that version no more, or not yet."""
        self._unserved[version] = text

    def fail(
        self,
        body: bytes,
        *,
        method: str = "",
        times: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> PlacedFault:
        """Answer 200 with that body, one of `rpc`, to the next calls of a method."""
        fault = Fault(path=method, times=times, status=200, body=body, headers=headers or {})
        return self.control.add_fault(fault)

    def about(self, request: Request) -> str:
        """The method that is called, and the page."""
        try:
            call = rpc.read_call(request.body, request.content_type)
        except rpc.Refused:
            return ""
        page = (call.pagination or {}).get("page")
        return call.method if page is None else f"{call.method} page {page}"

    def answer(self, request: Request) -> Answer:
        """What MyAdmin says: HTTP 200, unless there is nothing at that path."""
        path = _PATH.fullmatch(request.path)
        if path is None or request.method != "POST":
            return Answer(404, b"Not Found", "text/plain")
        try:
            call = rpc.read_call(request.body, request.content_type)
            return Answer(200, self._call(path[1].lower(), call))
        except rpc.Refused as refused:
            return Answer(200, refused.body)

    def _call(self, version: str, call: rpc.Call) -> bytes:
        if call.method == "Authenticate":
            return self._authenticate(call.params)
        if call.method == "GetUserContacts":
            return self._get_user_contacts(version, call)
        raise rpc.Refused(rpc.error("MissingMethodException", call.method))

    def _authenticate(self, params: dict[str, Any]) -> bytes:
        username = params.get("username")
        if username != self.username:
            raise rpc.Refused(rpc.error("UnknownUser", str(username)))
        if params.get("password") != self.password:
            # How a wrong password is named is unknown.
            raise rpc.Refused(rpc.error("InvalidUserException", self.username))
        user_id, session_id = str(uuid.uuid4()), str(uuid.uuid4())
        with self._lock:
            self._sessions[session_id] = user_id
        return rpc.result(
            {
                "userId": user_id,
                "sessionId": session_id,
                "lastLogonDate": "2026-11-20T15:01:00.000Z",
                "roles": [{"comments": "ERP role", "name": "Third-Party-Integrator"}],
                "name": self.username,
            }
        )

    def _get_user_contacts(self, version: str, call: rpc.Call) -> bytes:
        params = call.params
        with self._lock:
            user_id = self._sessions.get(str(params.get("sessionId")))
        if user_id is None or user_id != params.get("apiKey"):
            raise rpc.Refused(rpc.error("SessionExpiredException", "log in again"))
        if version in self._unserved:
            text = f"{call.method} is {self._unserved[version]}"
            raise rpc.Refused(rpc.error("InvalidOperationException", text))
        if params.get("forAccount") != self.account:
            raise rpc.Refused(rpc.error("SecurityException", "Invalid API Roles"))
        rows = self.contacts.rows(active_only=params.get("activeOnly") is True)
        if version == "v2":
            return rpc.result(self._rewritten(rows))
        wanted = call.pagination or {}
        page = max(1, int(wanted.get("page", 1)))
        per_page = min(MAX_PER_PAGE, max(1, int(wanted.get("perPage", DEFAULT_PER_PAGE))))
        part = rows[(page - 1) * per_page : page * per_page]
        pagination = {"page": page, "perPage": per_page, "total": len(rows)}
        return rpc.result(self._rewritten(part), pagination)

    def _rewritten(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return rows if self.rewrite is None else self.rewrite(rows)
