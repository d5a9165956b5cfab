"""The vendor's endpoints: from a request to the rule of the world that answers it.

Paths and the names in bodies and queries compare without case (the vendor's own pages vary);
a trailing slash makes no difference. Bodies must be valid JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from simulators.fusebill.customer import Customer, spell, spell_for_hubspot
from simulators.fusebill.messages import Answer, Request, as_json, errors, message, no_such_route
from simulators.fusebill.options import Options, SlotField
from simulators.fusebill.query import QueryRefused
from simulators.fusebill.world import Refused, World

GEOTAB_ID_MAX_LENGTH = 255
"""Characters of a Geotab id (seed 001)."""

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

Body = Mapping[str, Any]
"""A JSON object with its names in lower case."""

_READ = re.compile(r"/v1/customers/(\d{1,18})")
_UNLATCH_HUBSPOT = re.compile(r"/v1/hubspot/unlatchcustomer/(\d{1,18})")


def customer_named(path: str, body: Any) -> int | None:
    """The customer that a call is about: in its path, or in its body's `fusebillId`."""
    normal = _normal(path)
    found = _READ.fullmatch(normal) or _UNLATCH_HUBSPOT.fullmatch(normal)
    if found:
        return int(found[1])
    named = _lowered(body).get("fusebillid")
    return named if isinstance(named, int) and not isinstance(named, bool) else None


def answer(world: World, request: Request, body: Any) -> Answer:
    """What the vendor answers to an authorised call. `body` is its parsed JSON, or None."""
    route = _route(_normal(request.path), world.options)
    if route is None:
        return no_such_route(request.path)
    unfit = _unfit(route, request, body)
    if unfit is not None:
        return unfit
    try:
        return route.act(world, request, _lowered(body))
    except Refused as refused:
        return errors(refused.status, str(refused))
    except QueryRefused as refused:
        return errors(400, str(refused))


class _Route(NamedTuple):
    method: str
    act: Callable[[World, Request, Body], Answer]
    takes_body: bool = False


def _route(path: str, options: Options) -> _Route | None:
    if path == "/v1/customers":
        return _Route("GET", lambda world, request, _: _list(world, request.query))
    if found := _READ.fullmatch(path):
        read_id = int(found[1])
        return _Route("GET", lambda world, _, __: as_json(200, spell(world.read(read_id))))
    if found := _UNLATCH_HUBSPOT.fullmatch(path):
        latched_id = int(found[1])
        return _Route(
            "POST", lambda world, _, __: _hubspot(world, world.unlatch_hubspot(latched_id))
        )
    unlatch = options.salesforce_unlatch_path
    if unlatch is not None and path == _normal(unlatch):
        write: Callable[[World, Body], Answer] | None = _unlatch_salesforce
    else:
        write = _WRITES.get(path)
    if write is None:
        return None
    return _Route("POST", lambda world, _, body: write(world, body), takes_body=True)


def _normal(path: str) -> str:
    return path.lower().rstrip("/")


def _lowered(body: Any) -> Body:
    if not isinstance(body, dict):
        return {}
    return {name.lower(): value for name, value in body.items()}


def _unfit(route: _Route, request: Request, body: Any) -> Answer | None:
    """What is wrong with the request before anybody looks at the customer."""
    if request.method != route.method:
        return message(
            405, f"The requested resource does not support http method '{request.method}'."
        )
    if route.method == "POST" and request.content_length is None:
        # IIS asks for it, which is why the vendor's samples send `Content-Length: 0`.
        return message(411, "Length Required")
    if not route.takes_body:
        return None
    if request.body and not request.content_type.lower().startswith("application/json"):
        return message(
            415,
            f"The request entity's media type '{request.content_type}' is not supported "
            "for this resource.",
        )
    return None if isinstance(body, dict) else errors(400, "The body is not a JSON object.")


def _latch_salesforce(world: World, body: Body) -> Answer:
    account = body.get("salesforceid")
    if not isinstance(account, str) or not account:
        raise Refused(400, "salesforceId is required.")
    force = body.get("forcelatch")
    if force is not None and not isinstance(force, bool):
        raise Refused(400, "forceLatch is not a boolean.")
    return _written(world, world.latch_salesforce(_fusebill_id(body), account, force=force))


def _unlatch_salesforce(world: World, body: Body) -> Answer:
    return _written(world, world.unlatch_salesforce(_fusebill_id(body)))


def _latch_hubspot(world: World, body: Body) -> Answer:
    largest = INT64_MAX if world.options.hubspot_64_bit_ids else INT32_MAX
    names: tuple[SlotField, ...] = ("hubSpotId", "hubSpotCompanyId")
    sent = {
        name: _whole_number(name, body[name.lower()], largest)
        for name in names
        if name.lower() in body
    }
    return _hubspot(world, world.latch_hubspot(_fusebill_id(body), sent))


def _latch_geotab(world: World, body: Body) -> Answer:
    geotab_id = body.get("geotabid")
    if not isinstance(geotab_id, str) or not geotab_id:
        raise Refused(400, "geotabId is required and is a string.")
    if len(geotab_id) > GEOTAB_ID_MAX_LENGTH:
        raise Refused(400, f"geotabId is longer than {GEOTAB_ID_MAX_LENGTH} characters.")
    return _written(world, world.latch_geotab(_fusebill_id(body), geotab_id))


def _unlatch_geotab(world: World, body: Body) -> Answer:
    return _written(world, world.unlatch_geotab(_fusebill_id(body)))


_WRITES: dict[str, Callable[[World, Body], Answer]] = {
    "/v1/salesforce/latch": _latch_salesforce,
    "/v1/hubspot/latchcustomer": _latch_hubspot,
    "/v1/geotab/latchcustomer": _latch_geotab,
    "/v1/geotab/unlatchcustomer": _unlatch_geotab,
}


def _written(world: World, customer: Customer) -> Answer:
    return as_json(world.options.write_status, spell(customer))


def _hubspot(world: World, customer: Customer) -> Answer:
    return as_json(world.options.write_status, spell_for_hubspot(customer, world.options))


def _fusebill_id(body: Body) -> int:
    number = _whole_number("fusebillId", body.get("fusebillid"), INT64_MAX)
    if number is None:
        raise Refused(400, "fusebillId is required.")
    return number


def _whole_number(name: str, value: Any, largest: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > largest:
        raise Refused(400, f"{name} is not a valid number.")
    return value


def _list(world: World, query: Mapping[str, str]) -> Answer:
    """A page of the customers that match, bare, with its place in headers (`ref/pagination`)."""
    asked = {name.lower(): value for name, value in query.items()}
    options = world.options
    size = min(_page_number(asked, "pageSize", options.default_page_size, 1), options.max_page_size)
    number = _page_number(asked, "pageNumber", 0, 0)
    expression, order = asked.get("sortexpression", ""), asked.get("sortorder", "")
    rows = world.find(asked.get("query", ""), expression, order)
    pages = -(-len(rows) // size)
    headers: dict[str, int | str] = {
        "X-Count": len(rows),
        "X-MaxCount": options.max_page_size,
        "X-CurrentPage": number,
        "X-NextPage": number + 1 if number + 1 < pages else -1,
        "X-PreviousPage": number - 1,
        "X-PageSize": size,
        "X-MaxPageIndex": pages if options.max_page_index == "page_count" else max(0, pages - 1),
        "X-SortOrder": order or "Ascending",
        "X-SortExpression": expression or "id",
    }
    found = as_json(200, [spell(row) for row in rows[number * size : (number + 1) * size]])
    return found.with_headers({name: _printable(value) for name, value in headers.items()})


def _page_number(asked: Mapping[str, str], name: str, default: int, least: int) -> int:
    text = asked.get(name.lower(), str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
        raise Refused(400, f"{name} is not a valid number.")
    return int(text)


def _printable(value: int | str) -> str:
    """A header's value: what the caller sent comes back in it, without what would end it."""
    return "".join(char for char in str(value) if " " <= char <= "~")
