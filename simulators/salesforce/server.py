"""The simulated organisation over HTTP: tokens, queries, and Salesforce's forms of error."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import threading
import time
from typing import Any
from urllib.parse import parse_qsl

from simulators.fusebill.messages import as_json
from simulators.http import Answer, Request, SimulatedServer
from simulators.salesforce.accounts import Accounts
from simulators.salesforce.soql import QueryRefused, run
from sync_worker.domain import salesforce_id_18

TOKEN_PATH = "/services/oauth2/token"  # noqa: S105 - where tokens are given out
USER_ID = "0055g000004bNvDAAU"

_QUERY_PATH = re.compile(r"/services/data/v(?P<version>[0-9]{2,3}\.0)/(?P<verb>query|queryAll)/?")


class SimulatedSalesforce(SimulatedServer):
    """One organisation, with a connected app that has the client credentials flow.

    >>> with SimulatedSalesforce() as salesforce:
    ...     salesforce.accounts.put("0015g00001LwZ3k", Fusebill_Id__c="8714402")
    ...     reader = SalesforceReader(
    ...         salesforce.url, salesforce.client_id, salesforce.client_secret, ...
    ...     )

    `fields` are the fields of Account besides Id, IsDeleted and MasterRecordId.
    """

    def __init__(
        self,
        *,
        org_id: str = "00D5g000007Kp2Q",
        client_id: str | None = None,
        client_secret: str | None = None,
        fields: tuple[str, ...] = ("Name", "AccountNumber", "Fusebill_Id__c"),
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host=host, port=port)
        self.org_id = salesforce_id_18(org_id)[:15]
        self.client_id = client_id or f"3MVG9.{secrets.token_hex(16)}"
        self.client_secret = client_secret or secrets.token_hex(32).upper()
        self.accounts = Accounts(fields)
        self.runs_as_a_user = True
        """False: the app has no user to run as, and the login is refused."""
        self.tells_identity = True
        """False: token answers carry no `id`, from which the organisation can be read."""
        self.calls_left: int | None = None
        """How many queries are left of the limit; None: as many as one likes."""
        self._sessions: set[str] = set()
        self._lock = threading.Lock()

    def expire_sessions(self) -> None:
        """End every session, as its time-out or an administrator does."""
        with self._lock:
            self._sessions.clear()

    def answer(self, request: Request) -> Answer:
        """The token endpoint, and queries."""
        if request.path == TOKEN_PATH:
            return self._token(request)
        found = _QUERY_PATH.fullmatch(request.path)
        if not found:
            return _error(404, "NOT_FOUND", "The requested resource does not exist")
        if request.method != "GET":
            return _error(405, "METHOD_NOT_ALLOWED", "HTTP Method not allowed. Allowed are GET")
        return self._refusal(request) or self._query(request, found["version"], found["verb"])

    def _token(self, request: Request) -> Answer:
        form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
        client_id, client_secret = _basic(request.authorization) or (
            form.get("client_id"),
            form.get("client_secret"),
        )
        if request.method != "POST":
            return _oauth_error("invalid_request", "must use HTTP POST")
        if form.get("grant_type") != "client_credentials":
            return _oauth_error("unsupported_grant_type", "grant type not supported")
        if client_id != self.client_id:
            return _oauth_error("invalid_client_id", "client identifier invalid")
        if client_secret != self.client_secret:
            return _oauth_error("invalid_client", "invalid client credentials")
        if not self.runs_as_a_user:
            return _oauth_error("invalid_grant", "no client credentials user enabled")
        return as_json(200, self._new_session())

    def _new_session(self) -> dict[str, Any]:
        token = f"{self.org_id}!{secrets.token_urlsafe(48)}"
        with self._lock:
            self._sessions.add(token)
        organisation = salesforce_id_18(self.org_id)
        identity = {"id": f"https://login.salesforce.com/id/{organisation}/{USER_ID}"}
        return {
            "access_token": token,
            "signature": base64.b64encode(secrets.token_bytes(32)).decode(),
            "scope": "api",
            "instance_url": self.url,
            "token_type": "Bearer",
            "issued_at": str(int(time.time() * 1000)),
        } | (identity if self.tells_identity else {})

    def _refusal(self, request: Request) -> Answer | None:
        """The answer to a call without a session, or beyond the limit."""
        token = (request.authorization or "").removeprefix("Bearer ")
        with self._lock:
            if token not in self._sessions:
                return _error(401, "INVALID_SESSION_ID", "Session expired or invalid")
            if self.calls_left is not None:
                if self.calls_left <= 0:
                    text = "TotalRequests Limit exceeded."
                    return _error(403, "REQUEST_LIMIT_EXCEEDED", text)
                self.calls_left -= 1
        return None

    def _query(self, request: Request, version: str, verb: str) -> Answer:
        organisation = salesforce_id_18(self.org_id)
        deleted = verb == "queryAll"
        try:
            rows = run(request.query.get("q", ""), self.accounts, organisation, deleted=deleted)
        except QueryRefused as refused:
            return _error(400, refused.code, refused.text)
        url = f"/services/data/v{version}/sobjects/Account"
        records = [
            {"attributes": {"type": "Account", "url": f"{url}/{row.get('Id', '')}"}, **row}
            for row in rows
        ]
        answer = as_json(200, {"totalSize": len(records), "done": True, "records": records})
        return answer.with_headers({"Sforce-Limit-Info": "api-usage=18/15000"})


def _basic(authorization: str | None) -> tuple[str, str] | None:
    if authorization is None or not authorization.startswith("Basic "):
        return None
    try:
        decoded = base64.b64decode(authorization.removeprefix("Basic "), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    client_id, _, client_secret = decoded.partition(":")
    return client_id, client_secret


def _error(status: int, code: str, text: str) -> Answer:
    """An error of the REST API: a list."""
    return as_json(status, [{"message": text, "errorCode": code}])


def _oauth_error(code: str, text: str) -> Answer:
    """An error of the token endpoint: an object."""
    return as_json(400, {"error": code, "error_description": text})
