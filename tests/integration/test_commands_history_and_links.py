"""`history`, `links show` and what `status` says of them, on a real Redis (B4.5, B8, B8.2)."""

from __future__ import annotations

import pytest
import redis

from sync_worker.embedded_redis import EmbeddedRedis
from sync_worker.inbox import Intent
from tests.changes import ACCOUNT as SALESFORCE
from tests.changes import CONTACT, GEOTAB, NOW, customer, linked
from tests.commands import ACCOUNT, Commands

N = 8714402
GEOTAB_SLOT = "geotab_customer"


@pytest.fixture
def at(client: redis.Redis, shared_redis: EmbeddedRedis, monkeypatch, tmp_path) -> Commands:
    return Commands(client, shared_redis, monkeypatch, tmp_path)


def test_history_tells_who_held_what_and_why(at):
    at.see(customer(N, geotab_customer="1"), sent_at=1)
    at.inbox.accept([linked(GEOTAB)])
    claim = at.claim(GEOTAB.mailbox)
    intent = Intent(N, f"{GEOTAB.mailbox}#12", {GEOTAB_SLOT: GEOTAB.id})
    at.inbox.hold(claim, [N], to_write=intent)
    at.links.observe(customer(N, geotab_customer=GEOTAB.id), sent_at=2, written=True)
    at.see(customer(N), sent_at=10**17)
    first, ours, other = at.json("history", str(N))
    assert (first["slot"], first["before"], first["after"]) == (GEOTAB_SLOT, None, "1")
    assert (first["by"], first["change"], first["record"]) == ("first_seen", None, None)
    assert (ours["before"], ours["after"], ours["by"]) == ("1", GEOTAB.id, "us")
    assert (ours["change"], ours["record"]) == ("12", GEOTAB.mailbox)
    assert (other["before"], other["after"], other["by"]) == (GEOTAB.id, None, "another_hand")
    assert first["at"].endswith("Z")
    lines = [line.rstrip() for line in at.run("history", str(N)).stdout.splitlines()]
    assert lines[0].split() == ["SINCE", "SLOT", "BEFORE", "AFTER", "WHY"]
    assert lines[1].endswith("first seen")
    assert lines[2].endswith(f"change 12 of {GEOTAB.mailbox}")
    assert lines[3].endswith("another hand")


def test_history_of_a_customer_that_never_held_anything(at):
    at.see(customer(N), sent_at=1)
    assert at.json("history", str(N), code=3) == []
    told = at.run("history", str(N))
    assert (told.exit_code, told.stdout) == (3, "")
    assert str(N) in told.stderr


def test_a_history_belongs_to_one_fusebill_account(at):
    at.see(customer(N, geotab_customer="1"), sent_at=1)
    at.setting("FUSEBILL_BASE_URL", "https://stg-secure.fusebill.com")
    assert at.json("history", str(N), code=3) == []


@pytest.mark.parametrize("named", [GEOTAB.mailbox, GEOTAB.id])
def test_b8_2_links_of_a_record_by_mailbox_and_by_bare_id(at, named):
    at.see(customer(5, geotab_customer=GEOTAB.id), sent_at=1)
    at.see(customer(5), sent_at=2)
    at.see(customer(N, geotab_customer=GEOTAB.id), sent_at=1)
    assert at.json("links", "show", named) == [
        {"customer_id": 5, "slot": GEOTAB_SLOT, "record_id": GEOTAB.id, "link": "gone"},
        {"customer_id": N, "slot": GEOTAB_SLOT, "record_id": GEOTAB.id, "link": "holds"},
    ]
    told = at.run("links", "show", named).stdout
    assert "gone by another hand" in told
    assert "holds it" in told


@pytest.mark.parametrize(
    "named",
    [SALESFORCE.id, SALESFORCE.id[:15], f"salesforce:00D5g000007Kp2Q:account:{SALESFORCE.id[:15]}"],
)
def test_b3_3_a_salesforce_id_is_found_in_both_spellings(at, named):
    at.see(customer(N, salesforce_account=SALESFORCE.id), sent_at=1)
    assert [link["customer_id"] for link in at.json("links", "show", named)] == [N]


def test_a_geotab_id_that_looks_like_a_mailbox_is_found(at):
    at.see(customer(N, geotab_customer="a:b:c:d"), sent_at=1)
    assert [link["customer_id"] for link in at.json("links", "show", "a:b:c:d")] == [N]


def test_a_mailbox_names_one_slot_and_a_bare_id_all(at):
    at.see(customer(5, hubspot_company=CONTACT.id), sent_at=1)
    assert at.json("links", "show", CONTACT.mailbox, code=3) == []
    assert [link["slot"] for link in at.json("links", "show", CONTACT.id)] == ["hubspot_company"]


def test_links_of_a_customer(at):
    at.client.hset(f"sw:customer:{ACCOUNT}:{N}", mapping={"at": NOW * 1000, GEOTAB_SLOT: "7"})
    at.client.hset(f"sw:customer:{ACCOUNT}:{N}", "hubspot_contact", "")
    at.client.hset(f"sw:customer:{ACCOUNT}:{N}", "replaced:geotab_customer", NOW)
    assert at.json("links", "show", "--customer", str(N)) == {
        "customer_id": N,
        "seen_at": "2026-11-20T14:03:07.000Z",
        "slots": {"hubspot_contact": None, GEOTAB_SLOT: "7"},
    }
    lines = [
        line.rstrip() for line in at.run("links", "show", "--customer", str(N)).stdout.splitlines()
    ]
    rows = [line.split(maxsplit=1) for line in lines]
    assert ["hubspot_contact", "nothing"] in rows
    assert ["hubspot_company", "not known"] in rows
    assert lines[-1] == "last seen 2026-11-20T14:03:07.000Z"


def test_a_record_or_customer_that_is_not_known_is_exit_code_3(at):
    for wanted in (["nobody"], ["--customer", "1"]):
        assert not at.json("links", "show", *wanted, code=3)
        assert at.run("links", "show", *wanted).exit_code == 3


def test_a_record_and_a_customer_at_once_are_refused(at):
    told = at.run("links", "show", "x", "--customer", "1")
    assert told.exit_code == 2
    assert "not both" in told.stderr


def swept(at: Commands, **fields: object) -> None:
    at.client.hset(f"sw:sweep:{ACCOUNT}", mapping={name: str(v) for name, v in fields.items()})


def test_the_summary_of_links_tells_of_sweeps(at):
    assert at.json("links", "show") == {
        "account": ACCOUNT,
        "links": 0,
        "sweep": {
            "waiting": 0,
            "last_begun": None,
            "last_ended": None,
            "customers": None,
            "running": None,
        },
        "blind": [],
    }
    at.see(customer(N, geotab_customer="1", hubspot_contact="2"), sent_at=1)
    swept(at, begun=NOW, ended=NOW + 2000, customers=1234, blind="geotab_customer hubspot_company")
    at.client.zadd("sw:sweep:waiting", {GEOTAB.mailbox: NOW})
    told = at.json("links", "show")
    assert told["links"] == 2
    assert told["blind"] == ["geotab_customer", "hubspot_company"]
    assert told["sweep"] == {
        "waiting": 1,
        "last_begun": "2026-11-20T14:03:07.000Z",
        "last_ended": "2026-11-20T14:03:09.000Z",
        "customers": 1234,
        "running": None,
    }
    shown = at.run("links", "show").stdout
    assert "1234 customers" in shown
    assert "geotab_customer, hubspot_company" in shown


def test_status_tells_how_far_a_sweep_has_come(at):
    swept(at, running="token", seen=100, total=500)
    at.client.set("sw:sweep:lease", "token")
    assert at.json("status")["sweep"]["running"] == {"seen": 100, "total": 500}
    assert "100 of 500 customers seen" in at.run("status").stdout
    at.client.hdel(f"sw:sweep:{ACCOUNT}", "total")
    assert at.json("status")["sweep"]["running"] == {"seen": 100, "total": None}


def test_a_sweep_whose_worker_died_does_not_run(at):
    swept(at, running="token", seen=100)
    assert at.json("status")["sweep"]["running"] is None


def test_b8_1_status_names_everything(at):
    assert set(at.json("status")) == {
        *("backlog", "oldest_due_seconds", "dead_letters", "breaker", "paused"),
        *("reconcile_owed", "budget", "releases_held", "sweep", "links", "would"),
        *("outages", "may_lose", "unsafe", "ticked_seconds"),
    }
    told = at.run("status")
    assert told.exit_code == 0
    assert "releases held" not in told.stdout
