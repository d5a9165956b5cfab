"""The tour of `dev`: what happens in each system, followed from the delivery to the customer.

Each step first changes the simulated CRM, as a person there would, and then sends the signed
webhook that the vendor would send.
"""

from __future__ import annotations

import contextlib
import json
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import requests

from sync_worker import dead_letters, events, history, store
from sync_worker.dead_letters import DeadLetter, Filter
from sync_worker.links import account_of
from sync_worker.settings import Settings
from webhooks import samples

CONTACT, DOUBLE, RIVAL, SPARE = 512340077981, 512340077990, 512340077985, 512340077986
MERGED = 512340077992
"""The id that the simulated HubSpot gives to what is left of the first two."""
COMPANY = 330222354907
ACCOUNT, BY_HAND = "0015g00001LwZ3kAAF", "0015g00001LwZ4RAAV"
GEOTAB, MYADMIN_CONTACT = "0070441", 4711

SETTLE_SECONDS = 30
"""Longest wait for a change to be settled: a lost wake-up is sent again within this (B6.7)."""

TIMEOUT_SECONDS = 10
WIDTH = 88
"""Sentences are broken to be no wider."""

SYSTEMS = {
    "hubspot": "HubSpot",
    "salesforce": "Salesforce",
    "myadmin": "MyAdmin",
    "fusebill": "Fusebill",
}


class Stopped(Exception):
    """The tour did not see what it should have; the message says what."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Something done in a simulated system by hand."""

    system: str
    says: str
    """In a few words; "" to say nothing of it."""
    method: str
    values: Mapping[str, Any]
    gives: Any = None
    """What the system must answer; None: anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens in a CRM, the delivery that tells of it, and what must come of that."""

    title: str
    deeds: tuple[Deed, ...] = ()
    event: str
    record: int | str
    other: int | str | None = None
    customer: int = 0
    outcomes: tuple[str, ...]
    """Of the change, and of those that it makes possible."""
    requests: tuple[str, ...] = ()
    """How the writes to Fusebill begin, in order."""
    shows: Mapping[int, Mapping[str, Any]]
    """Fields of customers after it."""


def _set(contact: int, value: str) -> Mapping[str, Any]:
    return {"type_": "contacts", "id_": contact, "name": "fusebill_id", "value": value}


PREPARED = (
    Deed("hubspot", "", "create", {"type_": "contacts", "id_": CONTACT}),
    Deed("hubspot", "", "create", {"type_": "contacts", "id_": RIVAL}),
    Deed("hubspot", "", "create", {"type_": "contacts", "id_": SPARE}),
    Deed("hubspot", "", "create", {"type_": "contacts", "id_": DOUBLE}),
    Deed("hubspot", "", "create", {"type_": "companies", "id_": COMPANY}),
)
"""What is there before the tour."""

LATCH_HUBSPOT = "POST /v1/HubSpot/latchCustomer"

STEPS = (
    Step(
        title="HubSpot contact linked; its primary company comes along",
        deeds=(
            Deed(
                "hubspot",
                f"contact {CONTACT} joins its primary company {COMPANY}",
                "associate",
                {"contact": CONTACT, "company": COMPANY, "primary": True},
            ),
            Deed(
                "hubspot",
                f"fusebill_id of contact {CONTACT} is set to 8714401",
                "set_property",
                _set(CONTACT, "8714401"),
            ),
        ),
        event="hubspot.contact.linked",
        record=CONTACT,
        customer=8714401,
        outcomes=("latched",),
        requests=(LATCH_HUBSPOT,),
        shows={8714401: {"hubSpotId": CONTACT, "hubSpotCompanyId": COMPANY}},
    ),
    Step(
        title="HubSpot contact has a new email: of no concern here",
        deeds=(
            Deed(
                "hubspot",
                f"email of contact {CONTACT} changes",
                "set_property",
                {**_set(CONTACT, samples.EMAIL), "name": "email"},
            ),
        ),
        event="hubspot.contact.email",
        record=CONTACT,
        outcomes=("ignored",),
        shows={8714401: {"hubSpotId": CONTACT}},
    ),
    Step(
        title="HubSpot contact merged: the latch moves to the new id",
        deeds=(
            Deed(
                "hubspot",
                f"contacts {CONTACT} and {DOUBLE} become {MERGED}",
                "merge",
                {"type_": "contacts", "primary": CONTACT, "secondary": DOUBLE},
                gives=MERGED,
            ),
        ),
        event="hubspot.contact.merge",
        record=MERGED,
        other=CONTACT,
        outcomes=("moved",),
        requests=(LATCH_HUBSPOT,),
        shows={8714401: {"hubSpotId": MERGED, "hubSpotCompanyId": COMPANY}},
    ),
    Step(
        title="HubSpot tells that the old id is deleted: the merge explains it",
        event="hubspot.contact.deletion",
        record=CONTACT,
        outcomes=("superseded",),
        shows={8714401: {"hubSpotId": MERGED, "hubSpotCompanyId": COMPANY}},
    ),
    Step(
        title="HubSpot contact moved to another customer: released, then latched",
        deeds=(
            Deed(
                "hubspot",
                f"fusebill_id of contact {MERGED} is set to 8714402",
                "set_property",
                _set(MERGED, "8714402"),
            ),
        ),
        event="hubspot.contact.linked",
        record=MERGED,
        customer=8714402,
        outcomes=("moved",),
        requests=("POST /v1/HubSpot/UnlatchCustomer/8714401", LATCH_HUBSPOT),
        shows={
            8714401: {"hubSpotId": None, "hubSpotCompanyId": None},
            8714402: {"hubSpotId": MERGED, "hubSpotCompanyId": COMPANY},
        },
    ),
    Step(
        title="Another HubSpot contact claims that customer: held for a person",
        deeds=(
            Deed(
                "hubspot",
                f"fusebill_id of contact {RIVAL} is set to 8714402",
                "set_property",
                _set(RIVAL, "8714402"),
            ),
        ),
        event="hubspot.contact.linked",
        record=RIVAL,
        customer=8714402,
        outcomes=("dead_letter",),
        shows={8714402: {"hubSpotId": MERGED}},
    ),
    Step(
        title="HubSpot contact unlinked: the company stays, and who waited for the place gets it",
        deeds=(
            Deed(
                "hubspot",
                f"fusebill_id of contact {MERGED} is cleared",
                "set_property",
                _set(MERGED, ""),
            ),
        ),
        event="hubspot.contact.unlinked",
        record=MERGED,
        outcomes=("unlatched", "latched"),
        requests=(LATCH_HUBSPOT, LATCH_HUBSPOT),
        shows={8714402: {"hubSpotId": RIVAL, "hubSpotCompanyId": COMPANY}},
    ),
    Step(
        title="HubSpot company deleted",
        deeds=(
            Deed(
                "hubspot",
                f"company {COMPANY} goes to the recycling bin",
                "archive",
                {"type_": "companies", "id_": COMPANY},
            ),
        ),
        event="hubspot.company.deletion",
        record=COMPANY,
        outcomes=("unlatched",),
        requests=(LATCH_HUBSPOT,),
        shows={8714402: {"hubSpotId": RIVAL, "hubSpotCompanyId": None}},
    ),
    Step(
        title="Salesforce Account linked",
        deeds=(
            Deed(
                "salesforce",
                f"Fusebill_Id__c of Account {ACCOUNT} is set to 8714403",
                "put",
                {"id_": ACCOUNT, "Fusebill_Id__c": "8714403"},
            ),
        ),
        event="salesforce.soap.linked",
        record=ACCOUNT,
        customer=8714403,
        outcomes=("latched",),
        requests=("POST /v1/Salesforce/Latch",),
        shows={8714403: {"salesforceId": ACCOUNT[:15]}},
    ),
    Step(
        title="Salesforce Account that was latched by hand changes: its latch is left alone",
        deeds=(
            Deed(
                "fusebill",
                f"somebody latches Account {BY_HAND} to customer 8714404",
                "customers/8714404",
                {"salesforceId": BY_HAND[:15]},
            ),
            Deed(
                "salesforce",
                "its name changes; its Fusebill_Id__c is empty",
                "put",
                {"id_": BY_HAND, "Name": "Larkfield Tools"},
            ),
        ),
        event="salesforce.soap.touched",
        record=BY_HAND,
        outcomes=("unchanged",),
        shows={8714404: {"salesforceId": BY_HAND[:15]}},
    ),
    Step(
        title="Geotab customer linked",
        deeds=(
            Deed(
                "myadmin",
                f"an active contact gets the id {GEOTAB}",
                "set",
                {"contact_id": MYADMIN_CONTACT, "reseller_customer_id": GEOTAB},
            ),
        ),
        event="geotab.linked",
        record=GEOTAB,
        customer=8714405,
        outcomes=("latched",),
        requests=("POST /v1/Geotab/LatchCustomer",),
        shows={8714405: {"geotabId": GEOTAB}},
    ),
    Step(
        title="Geotab customer unlinked",
        deeds=(
            Deed(
                "myadmin",
                "that contact becomes inactive",
                "deactivate",
                {"contact_id": MYADMIN_CONTACT},
            ),
        ),
        event="geotab.unlinked",
        record=GEOTAB,
        customer=8714405,
        outcomes=("unlatched",),
        requests=("POST /v1/Geotab/UnlatchCustomer",),
        shows={8714405: {"geotabId": None}},
    ),
)

REMEMBERED = 8714401
"""The customer whose history is shown at the end."""

_Row = tuple[str, str]
_T = TypeVar("_T")


class Tour:
    """Walks through the steps against a running set-up with a simulated Fusebill and CRMs.

    `desk` is the address of the desk of `simulators.crms`.
    """

    def __init__(self, settings: Settings, receiver: str, desk: str) -> None:
        self._settings = settings
        self._receiver = receiver
        self._desk = desk
        self._redis = store.connect(settings.redis_url.get_secret_value())
        self._fusebill = settings.fusebill_base_url
        self._place = "-"
        self._http = requests.Session()

    def run(self) -> None:
        """Walk through all steps, then send each delivery once more. Raises Stopped."""
        with self._http, contextlib.closing(self._redis):
            for deed in PREPARED:
                self._do(deed)
            sent = [self._walk(number, step) for number, step in enumerate(STEPS, start=1)]
            self._send_again(sent)
            self._tell_history()

    def _walk(self, number: int, step: Step) -> samples.SampleRequest:
        click.secho(f"{number}. {step.title}", bold=True)
        for deed in step.deeds:
            self._do(deed)
        seen = self._last_call()
        made = samples.build(
            step.event,
            self._settings,
            now=time.time(),
            record_id=str(step.record),
            other_id=None if step.other is None else str(step.other),
            customer_id=str(step.customer),
        )
        answer = self._deliver(made)
        settled = [self._settled() for _ in step.outcomes]
        calls = self._calls(seen)
        held = [event for event in settled if event.outcome == "dead_letter"]
        letters = [letter for event in held for letter in self._letters(event)]
        fields = {customer: self._fields(customer, names) for customer, names in step.shows.items()}
        rows: list[_Row] = [(SYSTEMS[deed.system], deed.says) for deed in step.deeds]
        rows.append(("delivery", f"POST {_masked(made.path)} → {answer}"))
        rows += [("Fusebill", f"{_request(call)} → {call['status']}") for call in calls]
        rows += [("outcome", f"{event.outcome}: {event.detail}") for event in settled[:1]]
        rows += [("then", f"{_short(e.record)} {e.outcome}: {e.detail}") for e in settled[1:]]
        for letter in letters:
            rows += [("dead letter", f"{letter.reason}: {letter.message}")]
            rows += [("next step", letter.next_step)]
        rows += [("customer", f"{customer}: {_said(found)}") for customer, found in fields.items()]
        _print(rows)
        writes = [_request(call) for call in calls if call["method"] != "GET"]
        as_meant = len(writes) == len(step.requests) and all(
            map(str.startswith, writes, step.requests)
        )
        outcomes = tuple(event.outcome for event in settled)
        _expect(step, outcomes == step.outcomes, f"it ended {', '.join(outcomes)}")
        _expect(step, as_meant, f"these writes were made: {', '.join(writes) or 'none'}")
        _expect(step, fields == step.shows, f"the customers then were {fields}")
        _expect(step, len(letters) == len(held), f"{len(letters)} dead letters were there")
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

    def _tell_history(self) -> None:
        """Who held what of one customer (`sync-worker history`)."""
        click.secho(f"{len(STEPS) + 2}. The history of customer {REMEMBERED}", bold=True)
        turns = history.of_customer(self._redis, account_of(self._fusebill), REMEMBERED)
        for turn in turns:
            change = f"{turn.before or '-'} → {turn.after or '-'}"
            why = f"change {turn.change} of {turn.record}" if turn.by == "us" else turn.by
            click.echo(f"   {turn.at[11:-1]}  {turn.slot:<16} {change:<28} {why}")
        if [turn.by for turn in turns].count("us") < 2:
            raise Stopped(f"the history of customer {REMEMBERED} should have told of these changes")

    def _do(self, deed: Deed) -> None:
        if deed.system == "fusebill":
            url, ask = f"{self._fusebill}/_simulator/{deed.method}", self._http.patch
        else:
            url, ask = f"{self._desk}/{deed.system}/{deed.method}", self._http.post
        answer = ask(url, json=dict(deed.values), timeout=TIMEOUT_SECONDS)
        if not answer.ok or deed.gives not in (None, answer.json()):
            raise Stopped(f"the simulated {SYSTEMS[deed.system]} answered {answer.text}")

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

    def _letters(self, event: events.Event) -> list[DeadLetter]:
        return list(dead_letters.find(self._redis, Filter(record=event.record)))

    def _counted(self, metric: str) -> int:
        return int(self._redis.hget("sw:count", metric) or 0)

    def _last_call(self) -> int:
        return int(self._simulator("calls", since=2**62)["last_seq"])

    def _calls(self, seen: int) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = self._simulator("calls", since=seen)["calls"]
        return calls

    def _fields(self, customer_id: int, names: Mapping[str, Any]) -> dict[str, Any]:
        customer = self._simulator(f"customers/{customer_id}")
        return {name: customer.get(name) for name in names}

    def _simulator(self, what: str, **params: int) -> dict[str, Any]:
        answer = self._http.get(
            f"{self._fusebill}/_simulator/{what}", params=params, timeout=TIMEOUT_SECONDS
        )
        answer.raise_for_status()
        answered: dict[str, Any] = answer.json()
        return answered


def _print(rows: Iterable[_Row]) -> None:
    for name, text in rows:
        sentence = name in ("dead letter", "next step")
        first, *more = textwrap.wrap(text, WIDTH, break_on_hyphens=False) if sentence else [text]
        click.echo(f"   {name:<12}{first}")
        for line in more:
            click.echo(f"   {'':<12}{line}")


def _await(look: Callable[[], _T | None], otherwise: str) -> _T:
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.02)
    raise Stopped(f"{otherwise} within {SETTLE_SECONDS} s")


def _expect(step: Step, met: bool, instead: str) -> None:  # noqa: FBT001 - a condition
    if not met:
        raise Stopped(
            f"“{step.title}” should have ended {' and '.join(step.outcomes)}, but {instead}"
        )


def _said(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in fields.items())


def _short(mailbox: str) -> str:
    """A record in two words: its type and id."""
    _, _, type_, id_ = mailbox.split(":", 3)
    return f"{type_} {id_}"


def _masked(path: str) -> str:
    """The path without the token that may stand in it."""
    return "/".join(["***" if place == 3 else part for place, part in enumerate(path.split("/"))])


def _request(call: dict[str, Any]) -> str:
    body = "" if call["body"] is None else " " + json.dumps(call["body"])
    return f"{call['method']} {call['path']}{body}"
