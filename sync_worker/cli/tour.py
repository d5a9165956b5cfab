"""The tour of `dev`: one signed change of each system, followed from delivery to the customer."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click
import requests

from sync_worker import events, store
from sync_worker.settings import Settings
from webhooks import samples

CONTACT, COMPANY = "512340077981", "330222354907"
ACCOUNT, GEOTAB = "0015g00001LwZ3kAAF", "0070441"

SETTLE_SECONDS = 30
"""Longest wait for a change to be settled: a lost wake-up is sent again within this (B6.7)."""

TIMEOUT_SECONDS = 10


class Stopped(Exception):
    """The tour did not see what it should have; the message says what."""


@dataclass(frozen=True, slots=True)
class Step:
    """One delivery, and what must come of it."""

    title: str
    event: str
    record: str
    customer: int
    outcome: str
    request: str
    """How the one write to Fusebill begins."""
    shows: dict[str, Any]
    """Fields of the customer after it."""


STEPS = (
    Step(
        "HubSpot contact linked",
        "hubspot.contact.linked",
        CONTACT,
        8714401,
        "latched",
        "POST /v1/HubSpot/latchCustomer",
        {"hubSpotId": int(CONTACT), "hubSpotCompanyId": None},
    ),
    Step(
        "HubSpot company linked",
        "hubspot.company.linked",
        COMPANY,
        8714401,
        "latched",
        "POST /v1/HubSpot/latchCustomer",
        {"hubSpotId": int(CONTACT), "hubSpotCompanyId": int(COMPANY)},
    ),
    Step(
        "HubSpot contact unlinked",
        "hubspot.contact.unlinked",
        CONTACT,
        8714401,
        "unlatched",
        "POST /v1/HubSpot/latchCustomer",
        {"hubSpotId": None, "hubSpotCompanyId": int(COMPANY)},
    ),
    Step(
        "HubSpot company unlinked",
        "hubspot.company.unlinked",
        COMPANY,
        8714401,
        "unlatched",
        "POST /v1/HubSpot/UnlatchCustomer/8714401",
        {"hubSpotId": None, "hubSpotCompanyId": None},
    ),
    Step(
        "Salesforce Account linked",
        "salesforce.soap.linked",
        ACCOUNT,
        8714402,
        "latched",
        "POST /v1/Salesforce/Latch",
        {"salesforceId": ACCOUNT[:15]},
    ),
    Step(
        "Geotab customer linked",
        "geotab.linked",
        GEOTAB,
        8714403,
        "latched",
        "POST /v1/Geotab/LatchCustomer",
        {"geotabId": GEOTAB},
    ),
    Step(
        "Geotab customer unlinked",
        "geotab.unlinked",
        GEOTAB,
        8714403,
        "unlatched",
        "POST /v1/Geotab/UnlatchCustomer",
        {"geotabId": None},
    ),
)


class Tour:
    """Walks through the steps against a running set-up with a simulated Fusebill."""

    def __init__(self, settings: Settings, receiver: str) -> None:
        self._settings = settings
        self._receiver = receiver
        self._redis = store.connect(settings.redis_url.get_secret_value())
        self._fusebill = settings.fusebill_base_url
        self._place = "-"
        self._http = requests.Session()

    def run(self) -> None:
        """Walk through all steps, then send each delivery once more. Raises Stopped."""
        with self._http, contextlib.closing(self._redis):
            sent = [self._walk(number, step) for number, step in enumerate(STEPS, start=1)]
            self._send_again(sent)

    def _walk(self, number: int, step: Step) -> samples.SampleRequest:
        seen = self._last_call()
        made = samples.build(
            step.event,
            self._settings,
            now=time.time(),
            record_id=step.record,
            customer_id=str(step.customer),
        )
        click.secho(f"{number}. {step.title}", bold=True)
        answer = self._deliver(made)
        event = self._settled()
        calls = self._calls(seen)
        customer = self._customer(step.customer)
        fields = ", ".join(f"{name} {json.dumps(customer.get(name))}" for name in step.shows)
        rows = [
            ("delivery", f"POST {_masked(made.path)} → {answer}"),
            *(("Fusebill", f"{_request(call)} → {call['status']}") for call in calls),
            ("outcome", f"{event.outcome}: {event.detail}"),
            ("customer", f"{step.customer}: {fields}"),
        ]
        _print(rows)
        writes = [_request(call) for call in calls if call["method"] != "GET"]
        _expect(step, event.outcome == step.outcome, f"it ended {event.outcome}")
        _expect(step, len(writes) == 1, f"{len(writes)} writes were made")
        _expect(step, writes[0].startswith(step.request), f"the write was {writes[0]}")
        wrong = {name: customer.get(name) for name in step.shows} != step.shows
        _expect(step, not wrong, f"the customer then had {fields}")
        return made

    def _send_again(self, sent: Sequence[samples.SampleRequest]) -> None:
        click.secho(f"{len(STEPS) + 1}. Every delivery once more, unchanged", bold=True)
        seen = self._last_call()
        before = self._counted("duplicates")
        answers = [self._deliver(made) for made in sent]
        duplicates = self._counted("duplicates") - before
        writes = [call for call in self._calls(seen) if call["method"] != "GET"]
        rows = [
            ("deliveries", f"{len(answers)} answered 2xx, {duplicates} changes known already"),
            ("Fusebill", f"{len(writes)} writes"),
        ]
        _print(rows)
        if duplicates != len(sent) or writes:
            raise Stopped("sending every delivery again should have made no write")

    def _deliver(self, made: samples.SampleRequest) -> str:
        answer = self._http.request(
            made.method,
            self._receiver + made.path,
            headers=made.headers,
            data=made.body,
            timeout=TIMEOUT_SECONDS,
        )
        if not answer.ok:
            raise Stopped(f"the receiver answered {answer.status_code}: {answer.text}")
        if "json" not in answer.headers["Content-Type"]:
            return f"{answer.status_code} Ack true"
        counts = answer.json()
        said = ", ".join(f"{n} {name}" for name, n in counts.items() if isinstance(n, int) and n)
        return f"{answer.status_code} {said}"

    def _settled(self) -> events.Event:
        def newest() -> events.Event | None:
            for place, event in events.settled(self._redis, after=self._place):
                self._place = place
                return event
            return None

        return _await(newest, "the change was not settled")

    def _counted(self, metric: str) -> int:
        return int(self._redis.hget("sw:count", metric) or 0)

    def _last_call(self) -> int:
        return int(self._simulator("calls", since=2**62)["last_seq"])

    def _calls(self, seen: int) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = self._simulator("calls", since=seen)["calls"]
        return calls

    def _customer(self, customer_id: int) -> dict[str, Any]:
        return self._simulator(f"customers/{customer_id}")

    def _simulator(self, what: str, **params: int) -> dict[str, Any]:
        answer = self._http.get(
            f"{self._fusebill}/_simulator/{what}", params=params, timeout=TIMEOUT_SECONDS
        )
        answer.raise_for_status()
        answered: dict[str, Any] = answer.json()
        return answered


def _print(rows: Sequence[tuple[str, str]]) -> None:
    for name, text in rows:
        click.echo(f"   {name:<12}{text}")


def _await(look: Callable[[], events.Event | None], otherwise: str) -> events.Event:
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.02)
    raise Stopped(f"{otherwise} within {SETTLE_SECONDS} s")


def _expect(step: Step, met: bool, instead: str) -> None:  # noqa: FBT001 - a condition
    if not met:
        raise Stopped(f"“{step.title}” should have {step.outcome} the record, but {instead}")


def _masked(path: str) -> str:
    """The path without the token that may stand in it."""
    return "/".join(["***" if place == 3 else part for place, part in enumerate(path.split("/"))])


def _request(call: dict[str, Any]) -> str:
    body = "" if call["body"] is None else " " + json.dumps(call["body"])
    return f"{call['method']} {call['path']}{body}"
