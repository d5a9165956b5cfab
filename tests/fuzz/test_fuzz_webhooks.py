"""A short run of `tests.fuzz.webhooks`, the same each time, and proof that it would tell."""

from __future__ import annotations

import pytest
import redis

from sync_worker.inbox import Accepted, Inbox
from tests.fuzz.generate import ROUTES, Generator
from tests.fuzz.webhooks import Run, faults_of
from tests.receiving import GEOTAB_TOKEN
from webhooks.sources.hubspot import HubSpotReader

EXAMPLES = 2_000
SEED = 20261120


@pytest.mark.timeout(60)
@pytest.mark.parametrize("route", ROUTES)
def test_b2_10_generated_requests_are_answered_as_the_table_says(route, client):
    result = Run(route, SEED, client).go(range(EXAMPLES))
    assert result.violations == []
    assert result.statuses.total() == EXAMPLES
    taken = result.statuses[200] + result.statuses[202]
    assert taken > EXAMPLES / 3  # else the decoders were hardly reached
    assert result.accepted > EXAMPLES / 20
    assert {401, 405, 413, 415} <= set(result.statuses)


def test_a_request_can_be_made_again():
    for route in ROUTES:
        first, second = (Generator(route, 7).request(11) for _ in range(2))
        assert (first.body, first.notes, first.method) == (second.body, second.notes, second.method)


def test_it_tells_an_exception_in_a_reader(client: redis.Redis, monkeypatch):
    def broken(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(HubSpotReader, "decode", broken)
    result = Run("/webhooks/hubspot", SEED, client).go(range(20))
    assert any("status 503" in text for text in result.violations)
    assert any("logged an exception" in text for text in result.violations)
    assert any(f"--seed {SEED} --only" in text for text in result.violations)


def test_it_tells_a_change_that_was_acknowledged_and_not_stored(client, monkeypatch):
    monkeypatch.setattr(Inbox, "accept", lambda self, changes, **_: Accepted(len(changes), 0, []))
    result = Run("/webhooks/hubspot", SEED, client).go(range(50))
    assert any("told as accepted, 0 stored" in text for text in result.violations)


def test_it_tells_answers_outside_the_contract():
    sent = next(
        found
        for number in range(100)
        if 202 in (found := Generator("/webhooks/geotab", 7).request(number)).allowed
    )
    good = b'{"accepted":1,"duplicates":0,"ignored":0,"rejected":0,"request_id":"x"}'
    assert list(faults_of(sent, 202, "application/json", good)) == []
    for status, kind, body in (
        (500, "application/json", good),
        (202, "text/html", good),
        (202, "application/json", b"{}"),
        (202, "application/json", b""),
        (202, "application/json", good.replace(b"1", b"-1")),
        (202, "application/json", good.replace(b"x", GEOTAB_TOKEN.encode())),
        (400, "application/json", b'{"type":"about:blank"}'),
    ):
        assert list(faults_of(sent, status, kind, body))
