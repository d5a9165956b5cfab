"""`pause`, `resume`, and what `status` says of what waits (B6.4, B8.1, B10.1)."""

from __future__ import annotations

import pytest

from sync_worker.gates import FUSEBILL, OPERATOR, Gates, Verdict
from tests.commands import Commands


@pytest.fixture
def at(client, shared_redis, monkeypatch, tmp_path):
    return Commands(client, shared_redis, monkeypatch, tmp_path)


@pytest.fixture
def gates(client):
    return Gates(client, breaker_failures=3)


def test_b8_1_a_pause_shows_its_owner_reason_and_time(at):
    assert at.json("status")["paused"] == []
    done = at.run("pause", "--why", "moving  the\norganisation")
    assert done.exit_code == 0
    assert "sync-worker resume" in done.output
    (told,) = at.json("status")["paused"]
    assert (told["owner"], told["why"]) == (OPERATOR, "moving the organisation")
    assert told["since"].endswith("Z")
    assert "by an operator (`sync-worker resume` ends it)" in " ".join(
        at.run("status").output.split()
    )


def test_a_second_pause_changes_nothing(at):
    at.run("pause", "--why", "first")
    again = at.run("pause", "--why", "second")
    assert (again.exit_code, "Already paused" in again.output) == (0, True)
    assert at.json("status")["paused"][0]["why"] == "first"


def test_b6_4_resume_ends_it_and_says_so(at):
    at.run("pause")
    done = at.run("resume")
    assert (done.exit_code, "goes on" in done.output) == (0, True)
    assert at.json("status")["paused"] == []


def test_resume_with_nothing_paused_matches_nothing(at):
    done = at.run("resume")
    assert (done.exit_code, done.output) == (3, "Nothing was paused.\n")


def test_b6_4_resume_has_refused_credentials_tried_and_names_them(at, gates):
    gates.report(FUSEBILL, Verdict.REFUSED, why="401; check FUSEBILL_API_KEY")
    gates.report("hubspot", Verdict.REFUSED, why="401; check HUBSPOT_ACCESS_TOKEN")
    assert gates.to_probe() == []
    done = at.run("resume")
    assert done.exit_code == 0
    assert "Fusebill refuses the credentials" in done.output
    assert "hubspot refuses the credentials" in done.output
    assert gates.to_probe() == [FUSEBILL, "hubspot"]
    assert {one["owner"] for one in at.json("status")["paused"]} == {FUSEBILL, "hubspot"}


def test_b8_1_status_names_every_circuit_and_why_one_is_open(at, gates):
    assert set(at.json("status")["breaker"].values()) == {"closed"}
    for customer in "123":
        gates.report(FUSEBILL, Verdict.FAILED, whom=customer, why="it got no answer")
    told = at.json("status")
    assert told["breaker"] == {
        "fusebill": "open",
        "hubspot": "closed",
        "salesforce": "closed",
        "geotab": "closed",
    }
    assert told["outages"][0]["why"] == "it got no answer"
    assert "it got no answer" in at.run("status").output


def test_b10_1_status_says_what_the_store_may_lose(at, client):
    client.config_set("appendfsync", "always")
    assert at.json("status")["may_lose"] == ""
    assert "may lose" not in at.run("status").output
    client.config_set("appendfsync", "everysec")
    assert (
        at.json("status")["may_lose"]
        == "up to a second of changes, on power loss (appendfsync everysec)"
    )
    assert "Redis may lose" in at.run("status").output


def test_b10_1_status_says_what_is_unsafe(at, client):
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert at.json("status")["unsafe"] == [
            "it evicts keys when full: set maxmemory-policy noeviction"
        ]
        assert "Redis is unsafe" in at.run("status").output
    finally:
        client.config_set("maxmemory-policy", "noeviction")
