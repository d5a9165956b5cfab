"""The simulated Fusebill as a server."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable

from simulators.fusebill.api import Api
from simulators.fusebill.control import FusebillControl
from simulators.fusebill.credentials import fake_api_key
from simulators.fusebill.customer import Customer
from simulators.fusebill.desk import PREFIX, Desk
from simulators.fusebill.messages import Answer, Request, as_json, message
from simulators.fusebill.options import Options
from simulators.http import LocalServer


class SimulatedFusebill(LocalServer):
    """A simulated Fusebill in this process, on a port of its own.

    >>> with SimulatedFusebill(customers=[Customer(id=8714401)]) as fusebill:
    ...     requests.get(f"{fusebill.url}/v1/customers/8714401", headers=fusebill.headers)

    `stop` and `start` play an outage: the port refuses connections in between, and customers,
    faults and log are there again afterwards.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        customers: Iterable[Customer] = (),
        options: Options | None = None,
        control_from_anywhere: bool = False,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(host=host, port=port)
        self.api_key = api_key or fake_api_key()
        self._api = Api(self.api_key, options=options, now_ns=now_ns)
        self._api.world.put(customers)
        self._desk = Desk(self._api)
        self._control_from_anywhere = control_from_anywhere
        self._control: FusebillControl | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that authorise a call."""
        return {"Authorization": f"Basic {self.api_key}"}

    @property
    def control(self) -> FusebillControl:
        """The hand on it, over HTTP."""
        if self._control is None:
            self._control = FusebillControl(self.url)
        return self._control

    def serve(self, request: Request) -> Answer | None:
        """What the API answers, or the desk, which is open to this machine only by default."""
        if not request.path.startswith(PREFIX):
            return self._api.handle(request)
        if self._control_from_anywhere or ipaddress.ip_address(request.client).is_loopback:
            return self._desk.handle(request)
        return as_json(403, {"error": "control answers to this machine only"})

    def unreadable(self, status: int, text: str) -> Answer:
        """In the envelope of the framework beneath."""
        return message(status, text)

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._api.closing.clear()
        super().start()

    def let_go(self) -> None:
        """End the calls that wait, without an answer; those held before it also without effect."""
        self._api.closing.set()
        self._api.faults.let_go()

    def __exit__(self, *_: object) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        super().__exit__()
