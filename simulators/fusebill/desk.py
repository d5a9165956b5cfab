"""What `/_simulator/` answers: the customers, the log, the faults and the options, by hand.

JSON both ways; shapes are those of `Customer`, `Call`, `Fault`, `FaultState` and `Options`.
`control.FusebillControl` has a method for each. Bad input is 400, an unknown id 404, both
with `{"error": "..."}`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from simulators.fusebill.api import Api
from simulators.fusebill.calls import Wanted
from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from simulators.fusebill.messages import Answer, Request, as_json
from simulators.fusebill.options import Options
from simulators.fusebill.world import Refused

PREFIX = "/_simulator/"

MAX_WAIT_SECONDS = 300.0
"""No long poll lasts longer, whatever it asks for."""


class _Poll(Wanted, kw_only=True, frozen=True, forbid_unknown_fields=True):
    wait_for: int = 0
    timeout: float = 0.0


class _Hold(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    holding: int = 0
    timeout: float = 0.0


class _Unknown(Exception):
    """There is nothing at this path, or nothing with this id."""


class Desk:
    """The hand on a running simulator."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._first_options = api.world.options

    def handle(self, request: Request) -> Answer:
        """Answer a request under `PREFIX`."""
        what, _, rest = request.path.removeprefix(PREFIX).strip("/").partition("/")
        handler = getattr(self, f"_{request.method.lower()}_{what}", None)
        if handler is None:
            return as_json(404, {"error": f"{request.method} {request.path} is nothing here"})
        try:
            return as_json(200, handler(rest, request))
        except _Unknown as unknown:
            return as_json(404, {"error": str(unknown)})
        except Refused as refused:
            return as_json(refused.status, {"error": str(refused)})
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
            return as_json(400, {"error": str(error)})

    def _get_health(self, _: str, __: Request) -> Any:
        return {"ok": True}

    def _post_reset(self, _: str, __: Request) -> Any:
        api = self._api
        api.faults.clear()
        with api.lock:
            api.world.clear()
            api.world.options = self._first_options
            api.limiter.clear()
            api.log.clear()
        return {"last_seq": api.log.last_seq}

    def _get_options(self, _: str, __: Request) -> Any:
        return self._api.world.options

    def _put_options(self, _: str, request: Request) -> Any:
        options = msgspec.json.decode(request.body, type=Options)
        with self._api.lock:
            self._api.world.options = options
        return options

    def _patch_options(self, _: str, request: Request) -> Any:
        named = msgspec.json.decode(request.body, type=dict[str, Any])
        with self._api.lock:
            now = msgspec.to_builtins(self._api.world.options)
            options = msgspec.convert({**now, **named}, Options)
            self._api.world.options = options
        return options

    def _get_customers(self, rest: str, _: Request) -> Any:
        with self._api.lock:
            return self._api.world.read(_id(rest)) if rest else self._api.world.all()

    def _put_customers(self, _: str, request: Request) -> Any:
        customers = msgspec.json.decode(request.body, type=list[Customer], strict=False)
        with self._api.lock:
            self._api.world.put(customers)
        return {"stored": len(customers)}

    def _patch_customers(self, rest: str, request: Request) -> Any:
        fields = msgspec.json.decode(request.body, type=dict[str, Any])
        with self._api.lock:
            return self._api.world.edit(_id(rest), fields)

    def _delete_customers(self, rest: str, _: Request) -> Any:
        with self._api.lock:
            if rest:
                self._api.world.delete(_id(rest))
            else:
                self._api.world.clear()
        return {}

    def _get_calls(self, _: str, request: Request) -> Any:
        poll = msgspec.convert(request.query, _Poll, strict=False)
        calls = self._api.log.read(poll, poll.wait_for, min(poll.timeout, MAX_WAIT_SECONDS))
        return {"calls": calls, "last_seq": self._api.log.last_seq}

    def _delete_calls(self, _: str, __: Request) -> Any:
        self._api.log.clear()
        return {"last_seq": self._api.log.last_seq}

    def _post_faults(self, rest: str, request: Request) -> Any:
        if not rest:
            fault = msgspec.json.decode(request.body, type=Fault)
            return {"id": self._api.faults.add(fault)}
        fault_id, _, verb = rest.partition("/")
        if verb != "release":
            raise _Unknown(f"{request.path} is nothing here")
        self._known(self._api.faults.release, fault_id)
        return {}

    def _get_faults(self, rest: str, request: Request) -> Any:
        if not rest:
            return self._api.faults.states()
        hold = msgspec.convert(request.query, _Hold, strict=False)
        timeout = min(hold.timeout, MAX_WAIT_SECONDS)
        return self._known(self._api.faults.wait_holding, rest, hold.holding, timeout)

    def _delete_faults(self, rest: str, _: Request) -> Any:
        if rest:
            self._known(self._api.faults.remove, rest)
        else:
            self._api.faults.clear()
        return {}

    def _known(self, act: Any, fault_id: str, *args: Any) -> Any:
        try:
            return act(_id(fault_id), *args)
        except KeyError:
            raise _Unknown(f"there is no fault {fault_id}") from None


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise _Unknown(f"{text!r} is no id")
    return int(text)
