"""`releases` on a real Redis: what the brake holds is ruled on by a person (B5.10, B8)."""

from __future__ import annotations

import pytest
import redis

from sync_worker.domain import Record
from sync_worker.embedded_redis import EmbeddedRedis
from tests.changes import CONTACT, GEOTAB, unlinked
from tests.commands import Commands

N = 8714402


@pytest.fixture
def at(client: redis.Redis, shared_redis: EmbeddedRedis, monkeypatch, tmp_path) -> Commands:
    made = Commands(client, shared_redis, monkeypatch, tmp_path)
    for record in (CONTACT, GEOTAB):
        hold_back(made, record)
    return made


def hold_back(at: Commands, record: Record) -> None:
    """A release above the brake's limit."""
    at.inbox.accept([unlinked(record)])
    claim = at.claim(record.mailbox)
    assert not at.inbox.brake(claim, [(N, record.id)], limit=0)
    at.inbox.postpone(claim, seconds=3600, failures=0)


def brake(at: Commands, record: Record) -> str | None:
    """The ruling; behind it stand the releases that it is about."""
    return str(at.client.hget(f"sw:work:{record.mailbox}", "brake")).split()[0]


def is_due(at: Commands, record: Record) -> bool:
    seconds, _ = at.client.time()
    return at.client.zscore("sw:due", record.mailbox) <= seconds * 1000 + 1000


def test_b8_the_list_is_as_the_contract_says(at):
    first, second = at.json("releases", "list")
    assert {name: first[name] for name in ("id", "record", "customer_id", "slot")} == {
        "id": "1",
        "record": CONTACT.mailbox,
        "customer_id": N,
        "slot": "hubspot_contact",
    }
    assert first["since"].endswith("Z")
    assert set(first) == {"id", "record", "customer_id", "slot", "since"}
    assert second["record"] == GEOTAB.mailbox
    assert CONTACT.mailbox in at.run("releases", "list").stdout


def test_status_tells_what_frees_them(at):
    assert at.json("status")["releases_held"] == 2
    assert "sync-worker releases list" in at.run("status").stdout


@pytest.mark.parametrize(("command", "ruling"), [("approve", "approved"), ("discard", "discarded")])
def test_a_ruling_wakes_the_mailbox_with_it(at, command, ruling):
    told = at.run("releases", command, "2", "--yes")
    assert told.exit_code == 0
    assert f"1 release {ruling}" in told.stdout
    assert (brake(at, CONTACT), brake(at, GEOTAB)) == ("held", ruling)
    assert at.woken == [GEOTAB.mailbox]
    assert (is_due(at, CONTACT), is_due(at, GEOTAB)) == (False, True)
    assert [one["id"] for one in at.json("releases", "list")] == ["1"]


def test_all_of_them(at):
    assert at.run("releases", "approve", "--all", "--yes").exit_code == 0
    assert {brake(at, CONTACT), brake(at, GEOTAB)} == {"approved"}
    assert at.json("releases", "list", code=3) == []
    assert at.run("releases", "list").exit_code == 3


def test_a_ruling_is_asked_for(at):
    told = at.run("releases", "approve", "--all", given="n\n")
    assert (told.exit_code, at.woken) == (0, [])
    assert "Nothing was approved." in told.stdout
    assert brake(at, CONTACT) == "held"
    assert at.run("releases", "approve", "1", given="y\n").exit_code == 0
    assert brake(at, CONTACT) == "approved"


def test_an_id_that_is_not_held_is_exit_code_3(at):
    told = at.run("releases", "discard", "99", "--yes")
    assert told.exit_code == 3
    assert "no release 99 is held" in told.stderr


def test_an_unknown_id_beside_a_known_one_is_told_of(at):
    told = at.run("releases", "discard", "99", "1", "--yes")
    assert told.exit_code == 0
    assert "no release 99 is held" in told.stderr
    assert brake(at, CONTACT) == "discarded"


@pytest.mark.parametrize("arguments", [[], ["1", "--all"]])
def test_either_ids_or_all(at, arguments):
    assert at.run("releases", "approve", *arguments, "--yes").exit_code == 2
    assert brake(at, CONTACT) == "held"


def test_what_was_held_anew_since_it_was_shown_is_left(at, monkeypatch):
    def settle_and_hold_again(*_: object) -> bool:
        at.client.hdel("sw:held", CONTACT.mailbox)
        at.client.hdel(f"sw:work:{CONTACT.mailbox}", "brake")
        hold_back(at, CONTACT)
        return True

    monkeypatch.setattr("click.confirm", settle_and_hold_again)
    told = at.run("releases", "approve", "1")
    assert told.exit_code == 3
    assert "it is held no longer" in told.stderr
    assert brake(at, CONTACT) == "held"
