"""The HTTP API of the simulated HubSpot: reads only, in the legacy and the date-based spelling."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any, cast

from simulators.fusebill.messages import Answer, Request, as_json, page
from simulators.http import Fault, SimulatedServer
from simulators.hubspot.world import HubSpotWorld, ObjectType, Stored, iso

_VERSION = r"20[0-9]{2}-[0-9]{2}"
_ROUTES = (
    (re.compile(rf"/account-info/(?:v3|{_VERSION})/details"), "_details"),
    (
        re.compile(
            rf"/crm/(?:v4/objects|objects/{_VERSION})/contacts/(\d+)/associations/companies"
        ),
        "_companies",
    ),
    (
        re.compile(rf"/crm/(?:v3/objects|objects/{_VERSION})/(contacts|companies)/([^/]+)"),
        "_object",
    ),
)

_MOST_PER_PAGE = 500
_CORRELATION = "00000000-0000-4000-8000-000000000000"


class SimulatedHubSpot(SimulatedServer):
    """A simulated HubSpot portal in this process, on a port of its own.

    `scopes` are those of the token: a call that needs another is answered 403. With
    `text_ids` ids in associations are text, as the specification of 2026 has them; without,
    numbers, as the samples have them.
    """

    def __init__(
        self,
        *,
        portal_id: int = 24681357,
        access_token: str | None = None,
        world: HubSpotWorld | None = None,
        scopes: Iterable[str] = ("crm.objects.contacts.read", "crm.objects.companies.read"),
        text_ids: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host=host, port=port)
        self.portal_id = portal_id
        self.access_token = access_token or f"pat-na1-{secrets.token_hex(16)}"
        self.world = world or HubSpotWorld()
        """The records: tests and `dev` change them here."""
        self.scopes = set(scopes)
        self.text_ids = text_ids

    def answer(self, request: Request) -> Answer:
        """The answer to a call by the rules of HubSpot."""
        if request.authorization != f"Bearer {self.access_token}":
            return _error(401, "INVALID_AUTHENTICATION", "Authentication credentials not found.")
        if request.method != "GET":
            return page(405, "Error 405")
        for pattern, name in _ROUTES:
            if match := pattern.fullmatch(request.path):
                with self.world.lock:
                    return cast("Answer", getattr(self, name)(request, *match.groups()))
        return page(404, "Error 404 Not Found")

    def _details(self, _: Request) -> Answer:
        return as_json(
            200,
            {
                "portalId": self.portal_id,
                "accountType": "DEVELOPER_TEST",
                "timeZone": "US/Eastern",
                "companyCurrency": "USD",
                "additionalCurrencies": [],
                "utcOffset": "-05:00",
                "utcOffsetMilliseconds": -18000000,
                "uiDomain": "app.hubspot.com",
                "dataHostingLocation": "na1",
            },
        )

    def _object(self, request: Request, type_: ObjectType, id_: str) -> Answer:
        if missing := self._missing_scope(type_):
            return missing
        found = self.world.find(type_, int(id_)) if re.fullmatch("[0-9]{1,19}", id_) else None
        archived = request.query.get("archived") == "true"
        if found is None or (found.archived_at is not None) != archived:
            return _not_found(id_)
        return as_json(200, self._shown(found, request.query))

    def _shown(self, record: Stored, query: dict[str, str]) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": str(record.id),
            "properties": {
                "createdate": iso(record.created_at),
                "hs_object_id": str(record.id),
                "lastmodifieddate": iso(record.updated_at),
                **{name: record.value(name) for name in self._known(query, "properties")},
            },
            "createdAt": iso(record.created_at),
            "updatedAt": iso(record.updated_at),
            "archived": record.archived_at is not None,
        }
        if record.archived_at is not None:
            shown["archivedAt"] = iso(record.archived_at)
        if "propertiesWithHistory" in query:
            shown["propertiesWithHistory"] = {
                name: [
                    {"value": item.value, "timestamp": iso(item.at), "sourceType": item.source}
                    for item in record.history.get(name, [])
                ]
                for name in self._known(query, "propertiesWithHistory")
            }
        return shown

    def _known(self, query: dict[str, str], parameter: str) -> list[str]:
        """The properties asked for, without those that the portal does not have."""
        names = query.get(parameter, "").split(",")
        return [name for name in names if name in self.world.properties]

    def _companies(self, request: Request, id_: str) -> Answer:
        for type_ in ("contacts", "companies"):
            if missing := self._missing_scope(type_):
                return missing
        contact = self.world.find("contacts", int(id_))
        if contact is None or contact.archived_at is not None:
            return _not_found(id_)
        limit = min(int(request.query.get("limit", _MOST_PER_PAGE)), _MOST_PER_PAGE)
        after = int(request.query.get("after", 0))
        companies = sorted(contact.companies.items())
        answer: dict[str, Any] = {
            "results": [self._association(*one) for one in companies[after : after + limit]]
        }
        if len(companies) > after + limit:
            link = f"{self.url}{request.path}?after={after + limit}"
            answer["paging"] = {"next": {"after": str(after + limit), "link": link}}
        return as_json(200, answer)

    def _association(self, company: int, primary: bool) -> dict[str, Any]:  # noqa: FBT001
        types: list[dict[str, Any]] = [
            {"category": "HUBSPOT_DEFINED", "typeId": 279, "label": None}
        ]
        if primary:
            types.insert(0, {"category": "HUBSPOT_DEFINED", "typeId": 1, "label": "Primary"})
        return {"toObjectId": str(company) if self.text_ids else company, "associationTypes": types}

    def _missing_scope(self, type_: str) -> Answer | None:
        scope = f"crm.objects.{type_}.read"
        if scope in self.scopes:
            return None
        detail = {
            "message": "One or more of the following scopes are required.",
            "context": {"requiredGranularScopes": [scope]},
        }
        text = "This app hasn't been granted all required scopes to make this call."
        return _error(403, "MISSING_SCOPES", text, errors=[detail])


def rate_limited(policy: str = "TEN_SECONDLY_ROLLING", *, times: int | None = 1) -> Fault:
    """A fault that answers 429 as HubSpot does when the limit named `policy` is reached."""
    answer = _error(
        429,
        "RATE_LIMITS",
        "You have reached your limit.",
        errorType="RATE_LIMIT",
        policyName=policy,
    )
    return Fault(times=times, status=429, body=answer.body)


def _not_found(id_: str) -> Answer:
    text = "Object not found.  objectId are usually numeric."
    return _error(404, "OBJECT_NOT_FOUND", text, context={"id": [id_]})


def _error(status: int, category: str, text: str, **more: Any) -> Answer:
    return as_json(
        status,
        {
            "status": "error",
            "message": text,
            "correlationId": _CORRELATION,
            **more,
            "category": category,
        },
    )
