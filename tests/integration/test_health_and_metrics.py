"""`/healthz`, `/readyz` and `/metrics` (B2.1), on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from sync_worker import store
from sync_worker.domain import Outcome, Reason
from sync_worker.embedded_redis import EmbeddedRedis
from sync_worker.gates import FUSEBILL, Gates
from sync_worker.gates import Verdict as Heard
from sync_worker.inbox import Burial, Settlement, Verdict
from tests.receiving import (
    OTHER_PORTAL,
    SECRETS,
    Door,
    contact_linked,
    customer_linked,
    form,
    geotab,
    hubspot,
    notification,
    outbound,
    salesforce,
    soap,
)

Sample = tuple[str, frozenset[tuple[str, str]]]


@pytest.fixture
def door(client: redis.Redis) -> Door:
    return Door(client)


@pytest.fixture
def nowhere() -> Iterator[Door]:
    with store.connect("redis://127.0.0.1:1/0") as client:
        yield Door(client)


def scrape(door: Door) -> dict[Sample, float]:
    answer = door.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.mimetype == "text/plain"
    assert "version" in answer.mimetype_params
    found: dict[Sample, float] = {}
    for family in text_string_to_metric_families(answer.get_data(as_text=True)):
        assert family.documentation
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def read(found: dict[Sample, float], name: str, **labels: str) -> float | None:
    return found.get((f"sync_worker_{name}", frozenset(labels.items())))


# ---- /healthz: the process is up, whatever its store does


@pytest.mark.parametrize("path", ["/healthz", "/healthz/"])
def test_healthz_needs_no_store(path, nowhere):
    answer = nowhere.http.get(path)
    assert (answer.status_code, answer.data) == (200, b"ok\n")


# ---- /readyz: can accept now


@pytest.mark.parametrize("path", ["/readyz", "/readyz/"])
def test_readyz_says_ready(path, door):
    answer = door.http.get(path)
    assert (answer.status_code, answer.data) == (200, b"ready\n")
    assert answer.mimetype == "text/plain"


def assert_not_ready(door: Door, why: str) -> None:
    answer = door.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.mimetype == "text/plain"
    text = answer.get_data(as_text=True)
    assert why in text
    assert text.count("\n") == 1
    assert "redis://" not in text  # an address may hold a password


def test_readyz_says_that_the_store_cannot_be_reached(nowhere):
    assert_not_ready(nowhere, "Redis cannot be reached")


def test_readyz_says_that_the_store_is_read_only(door):
    door.client.replicaof("127.0.0.1", 1)
    try:
        assert_not_ready(door, "read-only")
    finally:
        door.client.replicaof("NO", "ONE")
    assert door.http.get("/readyz").status_code == 200


@pytest.mark.parametrize("share", [0.95, 1.2], ids=["above 90 %", "above all of it"])
def test_readyz_says_that_the_store_is_full(share, door):
    used = door.client.info("memory")["used_memory"]
    door.client.config_set("maxmemory", int(used / share))
    try:
        assert_not_ready(door, "Redis is full")
    finally:
        door.client.config_set("maxmemory", 0)
    assert door.http.get("/readyz").status_code == 200


def test_readyz_follows_the_store_down_and_up(tmp_path):
    with EmbeddedRedis(tmp_path) as server, store.connect(server.url) as client:
        door = Door(client)
        assert door.http.get("/readyz").status_code == 200
        server.stop()
        assert_not_ready(door, "Redis cannot be reached")
        assert door.http.get("/metrics").status_code == 503
        server.start()
        assert door.http.get("/readyz").status_code == 200
        assert door.http.get("/metrics").status_code == 200


def test_readyz_changes_nothing_that_lasts(door):
    door.http.get("/readyz")
    assert not [key for key in door.client.keys("*") if door.client.pttl(key) < 0]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_b2_1_they_are_read_not_written(path, door):
    answer = door.http.post(path)
    assert answer.status_code == 405
    assert answer.content_type == "application/problem+json"
    assert "GET" in answer.headers["Allow"].split(", ")
    assert "POST" not in answer.headers["Allow"].split(", ")


# ---- /metrics


def test_an_empty_store_has_metrics_already(door):
    """Counters without labels begin at 0: a rate needs to see the first step."""
    found = scrape(door)
    assert read(found, "accepted_total") == 0
    assert read(found, "duplicates_total") == 0
    assert read(found, "backlog") == 0
    assert read(found, "oldest_due_seconds") == 0
    assert read(found, "releases_held") == 0
    assert read(found, "would") == 0


def test_what_the_door_counts(door):
    ours, theirs = contact_linked(), contact_linked(portalId=OTHER_PORTAL)
    useless = contact_linked(propertyName="firstname")
    test_event = contact_linked(objectId=123, eventId=100)
    mixed = hubspot([ours, theirs, useless, useless, test_event, {"portalId": None}])
    door.send(mixed)
    door.send(mixed)
    door.send(hubspot([theirs, theirs]))
    door.send(hubspot([ours], secret="another"))
    door.send(hubspot([ours], secret="another"))
    door.send(hubspot([ours], skew_seconds=-400))
    door.send(hubspot([ours]).but_headers(content_type="text/plain"))
    door.send(hubspot(b" " * (8 * 1024 * 1024 + 1)))
    door.send(soap(outbound(notification())))
    door.send(soap(b"<cut"))
    door.send(salesforce(b"[cut"))
    door.send(geotab([customer_linked()]))
    door.send(form(customer_linked(), "guess"))

    found = scrape(door)
    assert read(found, "accepted_total") == 3
    assert read(found, "duplicates_total") == 1
    assert read(found, "ignored_total", source="hubspot", why="other properties") == 4
    assert read(found, "ignored_total", source="hubspot", why="test event") == 2
    assert read(found, "foreign_total", source="hubspot") == 1 + 1 + 2
    assert read(found, "undecodable_total", source="hubspot") == 2
    assert read(found, "undecodable_total", source="salesforce") == 2
    assert read(found, "refused_total", source="hubspot", why="wrong") == 2
    assert read(found, "refused_total", source="hubspot", why="stale") == 1
    assert read(found, "refused_total", source="hubspot", why="foreign_tenant") == 1
    assert read(found, "refused_total", source="hubspot", why="media_type") == 1
    assert read(found, "refused_total", source="hubspot", why="too_large") == 1
    assert read(found, "refused_total", source="geotab", why="wrong") == 1
    assert read(found, "dead_letters_written_total", reason="undecodable") == 3
    assert read(found, "dead_letters", reason="undecodable") == 3
    assert read(found, "backlog") == 3
    age = read(found, "oldest_due_seconds")
    assert age is not None
    assert age >= 0


def test_what_the_worker_counts(door):
    door.send(hubspot([contact_linked()]))
    door.send(geotab([customer_linked()]))
    first, second = sorted(door.client.zrange("sw:due", 0, -1))
    claim = door.inbox.claim(first)
    assert claim is not None
    burial = Burial(
        claim.pending[0].change.aspect, Reason.CONFLICT, "why", "do", tuple(claim.pending)
    )
    door.inbox.settle(claim, Settlement(burials=[burial]))
    claim = door.inbox.claim(second)
    assert claim is not None
    door.inbox.settle(claim, Settlement([Verdict(claim.pending[0], Outcome.LATCHED)]))

    found = scrape(door)
    assert read(found, "settled_total", outcome="latched") == 1
    assert read(found, "settled_total", outcome="dead_letter") == 1
    assert read(found, "dead_letters_written_total", reason="conflict") == 1
    assert read(found, "dead_letters", reason="conflict") == 1
    assert read(found, "backlog") == 0


def test_b3_10_an_owed_reconcile_shows(door):
    door.client.hset("sw:reconcile", "salesforce", "1795183387000|GAP_OVERFLOW")
    assert read(scrape(door), "reconcile_owed", source="salesforce") == 1


def test_it_tells_whose_work_waits_and_why(door):
    gates = Gates(door.client, breaker_failures=3)
    assert read(scrape(door), "shut", owner="fusebill", why="open") is None
    for customer in "123":
        gates.report(FUSEBILL, Heard.FAILED, whom=customer, why="it timed out")
    gates.report("hubspot", Heard.REFUSED, why="401")
    gates.pause("moving house")
    found = scrape(door)
    assert read(found, "shut", owner="fusebill", why="open") == 1
    assert read(found, "shut", owner="hubspot", why="refused") == 1
    assert read(found, "shut", owner="operator", why="paused") == 1
    assert read(found, "gates_shut_total", remote="fusebill", why="open") == 1


def test_b5_10_releases_that_are_held_show(door):
    door.send(hubspot([contact_linked(), contact_linked(objectId=2)]))
    for mailbox in door.client.zrange("sw:due", 0, -1):
        claim = door.inbox.claim(mailbox)
        assert claim is not None
        assert not door.inbox.brake(claim, ((1, "2"),), limit=0)
        door.inbox.postpone(claim, seconds=60, failures=0)
    assert read(scrape(door), "releases_held") == 2


def test_b5_9_what_a_dry_run_kept_shows(door):
    door.send(hubspot([contact_linked()]))
    (mailbox,) = door.client.zrange("sw:due", 0, -1)
    claim = door.inbox.claim(mailbox)
    assert claim is not None
    would = Verdict(claim.pending[0], Outcome.WOULD_LATCH)
    door.inbox.settle(claim, Settlement([would], dry_run=True))
    assert read(scrape(door), "would") == 1


def test_they_are_the_same_whichever_process_is_asked(door):
    door.send(hubspot([contact_linked()]))
    other = Door(door.client)
    assert read(scrape(other), "accepted_total") == 1


def test_b10_4_metrics_name_no_record_and_no_secret(door):
    door.send(hubspot([contact_linked(propertyName="email", propertyValue="ada@example.com")]))
    door.send(geotab(customer_linked(), proof="url", token="guess"))
    text = door.http.get("/metrics").get_data(as_text=True)
    for word in (*SECRETS, "ada@", "512340077981", "guess"):
        assert word not in text


def test_metrics_of_a_store_that_is_down_are_503(nowhere):
    answer = nowhere.http.get("/metrics")
    assert answer.status_code == 503
    assert "Redis cannot be reached" in answer.get_data(as_text=True)
