"""The client of `/_simulator/`: for tests and `sync-worker dev` to drive a simulated Fusebill.

>>> control = FusebillControl("http://127.0.0.1:8900")
>>> control.put_customers(Customer(id=8714401, reference="NG-0042"))
>>> control.add_fault(Fault(path="/Geotab/", status=503, count=3))
>>> control.wait_for_calls(1, method="POST", customer_id=8714401)
"""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

import msgspec
import requests

from simulators.fusebill.calls import Call
from simulators.fusebill.customer import Customer
from simulators.fusebill.desk import PREFIX
from simulators.fusebill.faults import Fault, FaultState
from simulators.fusebill.options import Options

DEFAULT_WAIT_SECONDS = 10.0
"""How long the waiting methods wait unless told otherwise."""

ANSWER_SECONDS = 30.0
"""How long an answer may take beyond the wait that it asks for."""


class ControlRefused(Exception):
    """The simulator does not do what control asks; the message says why."""


class Waited(AssertionError):
    """What was waited for did not happen in time; the message says what did."""


class Matching(TypedDict, total=False):
    """Which calls of the log; what is left out matches all (`calls.Wanted`)."""

    since: int
    """Only calls with a greater `seq`."""
    method: str
    path: str
    """A regular expression, searched without case."""
    customer_id: int
    status: int
    applied: bool


class FusebillControl:
    """The hand on a simulated Fusebill, over HTTP."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._session = requests.Session()
        # A proxy of the environment has no business between a test and loopback.
        self._session.trust_env = False

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def __enter__(self) -> FusebillControl:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Customers.

    def put_customers(self, *customers: Customer) -> None:
        """Create these customers, or replace those that have their ids."""
        self._send("PUT", "customers", customers)

    def customers(self) -> list[Customer]:
        """Every customer, by id."""
        return msgspec.json.decode(
            self._send("GET", "customers"), type=list[Customer], strict=False
        )

    def customer(self, customer_id: int) -> Customer:
        """One customer. Raises ControlRefused if there is none."""
        answer = self._send("GET", f"customers/{customer_id}")
        return msgspec.json.decode(answer, type=Customer, strict=False)

    def edit_customer(self, customer_id: int, **fields: Any) -> Customer:
        """Change fields as a person would in the user interface, named as in `Customer`.

        Slots too, past every rule; `modified_timestamp` moves unless it is given.
        """
        names = {field.name: field.encode_name for field in msgspec.structs.fields(Customer)}
        named = {names.get(name, name): value for name, value in fields.items()}
        answer = self._send("PATCH", f"customers/{customer_id}", named)
        return msgspec.json.decode(answer, type=Customer, strict=False)

    def delete_customer(self, customer_id: int) -> None:
        """Take a customer out. Raises ControlRefused if there is none."""
        self._send("DELETE", f"customers/{customer_id}")

    def delete_customers(self) -> None:
        """Take every customer out."""
        self._send("DELETE", "customers")

    # The log of calls.

    def calls(self, **matching: Unpack[Matching]) -> list[Call]:
        """The calls that match, in the order in which they took effect."""
        return self._poll(matching, wait_for=0, timeout=0)

    def wait_for_calls(
        self, count: int = 1, *, timeout: float = DEFAULT_WAIT_SECONDS, **matching: Unpack[Matching]
    ) -> list[Call]:
        """The calls that match, as soon as there are at least `count`.

        Raises Waited after `timeout` seconds.
        """
        found = self._poll(matching, wait_for=count, timeout=timeout)
        if len(found) < count:
            lines = "\n".join(f"  {call}" for call in self.calls()[-20:])
            raise Waited(
                f"{len(found)} of {count} calls {matching} came in {timeout} s; "
                f"the last calls of all:\n{lines or '  none'}"
            )
        return found

    def last_seq(self) -> int:
        """The `seq` of the newest call, to pass as `since`."""
        answer = msgspec.json.decode(self._send("GET", "calls", params={"since": 2**62}))
        return int(answer["last_seq"])

    def clear_calls(self) -> None:
        """Forget the calls so far; `seq` goes on."""
        self._send("DELETE", "calls")

    # Faults.

    def add_fault(self, fault: Fault) -> int:
        """Put a fault in place, behind those that are there; returns its id."""
        return int(msgspec.json.decode(self._send("POST", "faults", fault))["id"])

    def faults(self) -> list[FaultState]:
        """The faults in place, in the order in which they are tried."""
        return msgspec.json.decode(self._send("GET", "faults"), type=list[FaultState])

    def fault(self, fault_id: int) -> FaultState:
        """One fault in place. Raises ControlRefused if there is none."""
        return msgspec.json.decode(self._send("GET", f"faults/{fault_id}"), type=FaultState)

    def wait_held(
        self, fault_id: int, count: int = 1, *, timeout: float = DEFAULT_WAIT_SECONDS
    ) -> None:
        """Return as soon as the fault keeps `count` calls. Raises Waited."""
        params = {"holding": count, "timeout": timeout}
        answer = self._send("GET", f"faults/{fault_id}", params=params, wait=timeout)
        state = msgspec.json.decode(answer, type=FaultState)
        if state.holding < count:
            raise Waited(f"fault {fault_id} holds {state.holding} of {count} after {timeout} s")

    def release_fault(self, fault_id: int) -> None:
        """Let go what a fault holds; it happens no more, and stays to be looked at."""
        self._send("POST", f"faults/{fault_id}/release")

    def remove_fault(self, fault_id: int) -> None:
        """Let go what a fault holds, and forget it."""
        self._send("DELETE", f"faults/{fault_id}")

    def clear_faults(self) -> None:
        """Let go and forget every fault."""
        self._send("DELETE", "faults")

    # Options, and everything.

    def options(self) -> Options:
        """The options in force."""
        return msgspec.json.decode(self._send("GET", "options"), type=Options)

    def set_options(self, **named: Any) -> Options:
        """Change the options that are named; the others stay."""
        return msgspec.json.decode(self._send("PATCH", "options", named), type=Options)

    def replace_options(self, options: Options) -> None:
        """Put these options in force, whole."""
        self._send("PUT", "options", options)

    def reset(self) -> None:
        """No customers, calls, faults or used-up limits, and the options of the start."""
        self._send("POST", "reset")

    def _poll(self, matching: Matching, *, wait_for: int, timeout: float) -> list[Call]:
        params = {**matching, "wait_for": wait_for, "timeout": timeout}
        answer = self._send("GET", "calls", params=params, wait=timeout)
        return msgspec.json.decode(answer, type=_Calls).calls

    def _send(
        self,
        method: str,
        what: str,
        content: Any = None,
        *,
        params: dict[str, Any] | None = None,
        wait: float = 0,
    ) -> bytes:
        answer = self._session.request(
            method,
            f"{self.base_url}{PREFIX}{what}",
            params=params,
            data=None if content is None else msgspec.json.encode(content),
            timeout=wait + ANSWER_SECONDS,
        )
        if answer.status_code != 200:
            raise ControlRefused(f"{method} {what}: {answer.status_code} {answer.text}")
        return answer.content


class _Calls(msgspec.Struct):
    calls: list[Call]
    last_seq: int
