"""The API as a whole: fault, key, limit, route, log. One call at a time takes effect."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from simulators.fusebill import credentials, routes
from simulators.fusebill.calls import CallLog
from simulators.fusebill.faults import ActiveFault, Fault, FaultBook
from simulators.fusebill.limits import RateLimiter, Window
from simulators.fusebill.messages import Answer, Request, errors, message, no_such_route, page
from simulators.fusebill.options import Options
from simulators.fusebill.world import World


class Api:
    """Everything behind the HTTP edge. `handle` may be called from many threads."""

    def __init__(
        self,
        api_key: str,
        *,
        options: Options | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.api_key = api_key
        self.world = World(now_ns, options)
        self.faults = FaultBook()
        self.log = CallLog()
        self.limiter = RateLimiter(now_ns)
        self.lock = threading.Lock()
        """Held while a call takes effect and is logged, so the log has the order of effects;
        and by whoever touches `world` or `limiter` from elsewhere."""
        self.closing = threading.Event()
        """Set while the server stops: calls that wait then end without effect or answer."""
        self._now_ns = now_ns

    def handle(self, request: Request) -> Answer | None:
        """The answer, or None: close the connection without one."""
        at = self._now_ns() / 1e9
        body = _parsed(request.body)
        customer_id = routes.customer_named(request.path, body)
        active = self.faults.pick(request.method, request.path, customer_id)
        self._wait(active, "before")
        if self.closing.is_set():
            return None
        fault = active.fault if active else None
        with self.lock:
            before = self.world.changes
            answer = self._answer(request, body, fault)
            self.log.append(
                at=at,
                method=request.method,
                path=request.path,
                query=request.query,
                body=body,
                raw_body_length=len(request.body),
                content_length_header=request.content_length,
                customer_id=customer_id,
                status=answer.status if answer else None,
                applied=self.world.changes > before,
                fault=fault.label if fault else None,
            )
        self._wait(active, "after")
        return None if self.closing.is_set() else answer

    def _wait(self, active: ActiveFault | None, when: str) -> None:
        if active is None:
            return
        fault = active.fault
        delay_ms = fault.latency_ms if when == "before" else fault.answer_latency_ms
        if delay_ms:
            self.closing.wait(delay_ms / 1000)
        if fault.hold == when:
            active.hold()

    def _answer(self, request: Request, body: Any, fault: Fault | None) -> Answer | None:
        """The answer, spoiled by the fault if there is one. The caller holds the lock."""
        answer = None
        if fault is None or fault.takes_effect:
            answer = self._unspoiled(request, body)
        if fault is None or fault.drop or fault.lose_answer:
            return answer if fault is None else None
        if fault.not_a_customer is not None:
            return Answer(200, b"null") if fault.not_a_customer == "null" else page(200, "Sign in")
        if fault.status is not None:
            return self._failure(fault.status, fault.text, request)
        return answer

    def _unspoiled(self, request: Request, body: Any) -> Answer:
        options = self.world.options
        refused = credentials.refusal(request.authorization, self.api_key)
        if refused is not None:
            return errors(*refused).with_headers(self.limiter.headers(options))
        exhausted = self.limiter.take(options)
        if exhausted is not None:
            return self._too_many(exhausted)
        answer = routes.answer(self.world, request, body)
        return answer.with_headers(self.limiter.headers(options))

    def _too_many(self, window: Window, text: str | None = None) -> Answer:
        """429; "the body says which limit" (`ref/rate-limits`), its form is not documented."""
        answer = errors(429, text or f"API call limit per {window.lower()} exceeded.")
        return answer.with_headers(self.limiter.headers(self.world.options, exhausted=window))

    def _failure(self, status: int, text: str | None, request: Request) -> Answer:
        """What a fault with this status looks like."""
        if status == 429:
            return self._too_many("Minute", text)
        if text is None and 300 <= status < 400:
            return Answer(status, b"", headers={"Location": "/_elsewhere"})
        if text is None and status in (502, 503, 504):
            return page(status, f"{status} from a gateway")
        return _own_failure(status, text, request).with_headers(
            self.limiter.headers(self.world.options)
        )


def _own_failure(status: int, text: str | None, request: Request) -> Answer:
    if text is not None:
        return errors(status, text)
    if status == 404:
        return no_such_route(request.path)
    if status == 403:
        return message(403, "Forbidden")
    return errors(status, credentials.WRONG_KEY if status == 401 else "An error has occurred.")


def _parsed(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
