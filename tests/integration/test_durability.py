"""What a store may lose, and when it may just have (B10.1)."""

from __future__ import annotations

import pytest

from sync_worker import durability, store
from sync_worker.domain import Source
from sync_worker.durability import RestartWatch
from sync_worker.embedded_redis import EmbeddedRedis
from sync_worker.status import read_status

SOURCES = (Source.HUBSPOT, Source.GEOTAB)


@pytest.fixture
def server(tmp_path):
    with EmbeddedRedis(tmp_path) as server:
        yield server


@pytest.fixture
def client(server):
    with store.connect(server.url) as client:
        yield client


def owed(client) -> set[str]:
    return {one.source for one in read_status(client).reconcile_owed}


def test_a_restart_that_may_have_lost_something_owes_a_reconciliation(server, client):
    client.config_set("appendfsync", "everysec")
    assert RestartWatch(client, SOURCES).look() is False
    server.restart(kill=True)
    assert RestartWatch(client, SOURCES).look() is True  # of another process
    assert owed(client) == set(SOURCES)
    (first, _) = read_status(client).reconcile_owed
    assert "up to a second of changes" in first.why
    client.delete("sw:reconcile")
    assert RestartWatch(client, SOURCES).look() is False
    assert owed(client) == set()


def test_one_that_keeps_all_it_answers_for_owes_nothing(server, client):
    client.config_set("appendfsync", "always")
    watch = RestartWatch(client, SOURCES)
    watch.look()
    server.restart(kill=True)
    client.config_set("appendfsync", "everysec")  # how it ran before counts
    assert watch.look() is True
    assert owed(client) == set()


def test_one_that_comes_back_with_nothing_is_found_by_who_knew_it(server, client):
    client.config_set("appendfsync", "everysec")
    watch = RestartWatch(client, SOURCES)
    watch.look()
    client.flushall()
    server.restart(kill=True)
    assert watch.look() is True
    assert owed(client) == set(SOURCES)


def test_what_it_may_lose_is_looked_at_again(client):
    client.config_set("appendfsync", "always")
    watch = RestartWatch(client, SOURCES)
    watch.look()
    assert durability.read(client).window == ""
    client.config_set("appendfsync", "no")
    assert watch.look() is False
    assert "appendfsync no" in client.get(durability.RUN_KEY)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, ""),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "up to a second"),
        ({"appendonly": "yes", "appendfsync": "no"}, "whatever the system had not written"),
        ({"appendonly": "no", "appendfsync": "always"}, "everything"),
        ({}, "what is not known"),
    ],
)
def test_b10_1_the_loss_window_by_configuration(config, told):
    window = durability.fsync_window(config)
    assert window.startswith(told)
    assert bool(window) is bool(told)
