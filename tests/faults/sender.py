"""Sends as HubSpot, Salesforce and Geotab do: in batches, and again until it is taken (B2.2).

HubSpot sends up to 100 events in a request and repeats it, with the same event ids and a higher
attempt number, on anything but a 2xx and after 5 s without an answer. Salesforce repeats an
Outbound Message, of several notifications, until it is acknowledged. Their waits of minutes are
fractions of a second here. What they repeat after an answer too, and in which order things arrive,
is up to the dice.
"""

from __future__ import annotations

import heapq
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import requests

from sync_worker.domain import RecordType
from sync_worker.settings import Settings
from tests.faults.world import Channel, News
from webhooks import samples
from webhooks.samples import SampleRequest

HUBSPOT_SECONDS = 5
"""How long HubSpot waits for an answer; the others are taken to be no more patient."""

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.2, 2.0
"""Between two attempts: it doubles."""

THREADS = 6

MOST_IN_A_BATCH = {
    Channel.HUBSPOT: 100,
    Channel.SOAP: 100,
    Channel.CDC: 1,
    Channel.GEOTAB: 20,
}

_NOTIFICATION = re.compile(rb"   <Notification>.*?</Notification>\n", re.DOTALL)


@dataclass
class Delivery:
    """A request, to be repeated until it is answered 2xx."""

    channel: Channel
    news: tuple[News, ...]
    attempts: int = 0


@dataclass
class Sent:
    """What was sent and what was said to it."""

    attempts: int = 0
    answered: Counter[int] = field(default_factory=Counter)
    """Change -> how many times it was answered 2xx."""
    failures: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    """What no real sender should ever be told of good requests."""


class Sender:
    """Sends deliveries from threads of its own."""

    def __init__(self, url: str, current: Settings) -> None:
        self._url = url
        self._settings = current
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, Delivery]] = []
        self._count = 0
        self._open = 0
        self._closed = False
        self.sent = Sent()

    def __enter__(self) -> Sender:
        for n in range(THREADS):
            threading.Thread(target=self._run, name=f"sender {n}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def offer(self, deliveries: Iterable[Delivery]) -> None:
        """Have these sent."""
        now = time.monotonic()
        with self._changed:
            for one in deliveries:
                self._open += 1
                self._push(now, one)
            self._changed.notify_all()

    def tell(self, *news: News) -> None:
        """Send these now, each kind in one request where it goes, and return when they were all
        answered 2xx.
        """
        for channel in Channel:
            mine = [one for one in news if one.member.channel is channel]
            most = MOST_IN_A_BATCH[channel]
            batches = (tuple(mine[at : at + most]) for at in range(0, len(mine), most))
            self.offer(Delivery(channel, batch) for batch in batches)
        self.wait()
        assert self.sent.complaints == []

    @property
    def open(self) -> int:
        """How many deliveries are not answered 2xx yet."""
        return self._open

    def wait(self, seconds: float = 60) -> None:
        """Return when every delivery was answered 2xx."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._open, seconds):
                raise AssertionError(
                    f"{self._open} deliveries are not answered 2xx after {seconds} s: "
                    f"{dict(self.sent.failures)} {self.sent.complaints[:3]}"
                )

    def _push(self, due: float, delivery: Delivery) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (due, self._count, delivery))

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while (delivery := self._next()) is not None:
                self._finish(delivery, self._attempt(session, delivery))

    def _next(self) -> Delivery | None:
        with self._changed:
            while not self._closed:
                wait = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._waiting)[2]
                self._changed.wait(wait)
        return None

    def _attempt(self, session: requests.Session, delivery: Delivery) -> str:
        """Send it once; gives what went wrong, "" if it was answered 2xx."""
        made = request(delivery, self._settings)
        try:
            answer = session.request(
                made.method,
                self._url + made.path,
                headers=made.headers,
                data=made.body,
                timeout=HUBSPOT_SECONDS,
            )
        except requests.RequestException as error:
            return type(error).__name__
        if not answer.ok:
            if answer.status_code < 500:
                self.sent.complaints.append(f"{answer.status_code} {answer.text[:200]}")
            return str(answer.status_code)
        self._check(delivery, answer)
        return ""

    def _check(self, delivery: Delivery, answer: requests.Response) -> None:
        """Every change of a delivery is ours, so every one must have been taken (B2.10)."""
        if delivery.channel is Channel.SOAP:
            taken = "Ack>true<" in answer.text
        else:
            told = answer.json()
            taken = told["accepted"] + told["duplicates"] == len(delivery.news)
        if not taken:
            self.sent.complaints.append(f"{answer.status_code} {answer.text[:200]}")

    def _finish(self, delivery: Delivery, wrong: str) -> None:
        with self._changed:
            self.sent.attempts += 1
            if wrong:
                self.sent.failures[wrong] += 1
                wait = min(FIRST_WAIT_SECONDS * 2**delivery.attempts, LONGEST_WAIT_SECONDS)
                delivery.attempts += 1
                self._push(time.monotonic() + wait, delivery)
            else:
                self.sent.answered.update(one.number for one in delivery.news)
                self._open -= 1
            self._changed.notify_all()


def request(delivery: Delivery, current: Settings) -> SampleRequest:
    """The request as the vendor would make it now, signed."""
    now = time.time()
    made = [_single(one, current, now) for one in delivery.news]
    first = made[0]
    match delivery.channel:
        case Channel.HUBSPOT:
            events = [event for one in made for event in msgspec.json.decode(one.body)]
            for event in events:
                event["attemptNumber"] = delivery.attempts
            sign, body = samples._sign_hubspot, msgspec.json.encode(events)
        case Channel.SOAP:
            notifications = b"".join(_NOTIFICATION.findall(b"".join(one.body for one in made)))
            sign = samples._sign_salesforce
            body = _NOTIFICATION.sub(lambda _: notifications, first.body, count=1)
        case Channel.GEOTAB:
            told = [event for one in made for event in msgspec.json.decode(one.body)["events"]]
            sign, body = samples._sign_geotab, msgspec.json.encode({"events": told})
        case Channel.CDC:
            (only,) = made
            return only
    return sign(current, first.headers["Content-Type"], body, now, None)


def _single(news: News, current: Settings, now: float) -> SampleRequest:
    """A request that tells one change alone."""
    return samples.build(
        _sample(news),
        current,
        now=now,
        record_id=news.member.record.id,
        other_id=news.member.record.id,  # Geotab: the id has not changed, its customer has
        customer_id=None if news.customer is None else str(news.customer),
        occurred_at=news.occurred_at,
        event_id=_event_id(news),
    )


def _sample(news: News) -> str:
    linked = news.customer is not None
    match news.member.channel:
        case Channel.HUBSPOT:
            contact = news.member.record.type is RecordType.CONTACT
            kind = "contact" if contact else "company"
            return f"hubspot.{kind}.{'linked' if linked else 'unlinked'}"
        case Channel.SOAP:
            return f"salesforce.soap.{'linked' if linked else 'unlinked'}"
        case Channel.CDC:
            return f"salesforce.cdc.{'update' if linked else 'clear'}"
        case Channel.GEOTAB:
            return f"geotab.{'changed' if linked else 'deactivated'}"


def _event_id(news: News) -> str:
    """The same each time it is sent."""
    if news.member.channel is Channel.HUBSPOT:
        return str(news.number)
    if news.member.channel is Channel.SOAP:
        return f"04l5g{news.number:010}AAA"
    return f"event-{news.number}"


def deliveries(
    dice: random.Random, news: Sequence[News], *, disorder: float, repeated: float = 0.1
) -> list[Delivery]:
    """The requests that bring these changes, in the order in which they are sent: out of order, in
    batches of all sizes, and some of them told once more after they were answered.

    `disorder` is how many other changes of its record a change may be late for, roughly.
    """
    each = len(news) / len({one.member.mailbox for one in news})
    spread = disorder / each
    arrival = {one.number: at / len(news) + dice.gauss(0, spread) for at, one in enumerate(news)}
    order = sorted(news, key=lambda one: arrival[one.number])
    placed: list[tuple[float, Delivery]] = []
    for channel in Channel:
        mine = [one for one in order if one.member.channel is channel]
        while mine:
            size = _size(dice, MOST_IN_A_BATCH[channel])
            batch, mine = tuple(mine[:size]), mine[size:]
            place = arrival[batch[-1].number]
            placed.append((place, Delivery(channel, batch)))
            if dice.random() < repeated:
                later = place + dice.random() * 0.2
                placed.append((later, Delivery(channel, batch, attempts=1)))
    return [delivery for _, delivery in sorted(placed, key=lambda one: one[0])]


def _size(dice: random.Random, most: int) -> int:
    return min(most, dice.choice((1, 1, 1, 3, 10, 30, 100)))
