"""Workers that vanish: what they held is worked on alone, and set aside if it kills (B6.6)."""

from __future__ import annotations

from contextlib import contextmanager

import msgspec
import pytest
import redis

from sync_worker import stopping
from sync_worker.converge import Ended
from sync_worker.domain import Reason
from sync_worker.inbox import Inbox, LeaseLost
from sync_worker.inbox.inbox import TURN_MS
from sync_worker.store import StoreError, StoreFull, StoreRefused
from tests.changes import COMPANY, CONTACT, GEOTAB, linked, unlinked
from tests.mailboxes import BOX, claimed, expire_lease, settled
from tests.worlds import N

OTHER_BOX = COMPANY.mailbox


@pytest.fixture
def inbox(client):
    inbox = Inbox(client, dedupe_hours=72, audit_days=30, lease_seconds=90)
    inbox.accept([linked(), linked(COMPANY)])
    return inbox


def vanish(client, mailbox: str = BOX) -> None:
    """The worker that held it is gone: its leases have run out."""
    expire_lease(client, mailbox)
    client.delete("sw:alone")


def work(client, mailbox: str = BOX) -> dict[str, str]:
    return client.hgetall(f"sw:work:{mailbox}")


def test_a_worker_that_finishes_leaves_no_mark(inbox, client):
    settled(inbox, claimed(inbox))
    assert not client.exists(f"sw:work:{BOX}", "sw:alone")


def test_b6_6_the_first_death_counts_for_nothing_and_the_next_try_is_alone(inbox, client):
    claimed(inbox)
    assert "alone" not in work(client)
    vanish(client)
    again = claimed(inbox)
    assert again.crashes == ()
    assert "alone" in work(client)
    assert client.get("sw:alone") == again.token


def test_b6_6_only_deaths_while_alone_are_counted(inbox, client):
    for seen in range(4):
        claim = claimed(inbox)
        assert len(claim.crashes) == max(0, seen - 1)
        vanish(client)


def test_b6_6_one_at_a_time_is_worked_on_alone_and_the_others_wait_for_their_turn(inbox, client):
    for mailbox in (BOX, OTHER_BOX):
        claimed(inbox, mailbox)
        vanish(client, mailbox)
    first = claimed(inbox)
    assert inbox.claim(OTHER_BOX) is None
    assert "token" not in work(client, OTHER_BOX)
    soon = client.zscore("sw:wake", OTHER_BOX) - float(client.time()[0]) * 1000
    assert 0 < soon <= TURN_MS + 1000
    settled(inbox, first)
    second = claimed(inbox, OTHER_BOX)
    assert second.crashes == ()
    assert client.get("sw:alone") == second.token


def test_b6_6_what_was_not_in_the_dead_workers_hands_is_worked_on_beside_it(inbox, client):
    claimed(inbox)
    vanish(client)
    claimed(inbox)
    assert claimed(inbox, OTHER_BOX)


def test_the_turn_lasts_as_long_as_the_leases(inbox, client):
    claimed(inbox)
    vanish(client)
    claim = claimed(inbox)
    client.pexpire("sw:alone", 1000)
    inbox.hold(claim, {1})
    assert client.pttl("sw:alone") > 80_000
    inbox.postpone(claim, seconds=0, failures=0)
    assert not client.exists("sw:alone")


def test_a_worker_that_lost_its_turn_does_not_end_that_of_another(inbox, client):
    for mailbox in (BOX, OTHER_BOX):
        claimed(inbox, mailbox)
        vanish(client, mailbox)
    slow = claimed(inbox)
    client.delete("sw:alone")  # it ran out, while the mailbox's own lease just holds
    other = claimed(inbox, OTHER_BOX)
    inbox.hold(slow, {1})
    inbox.postpone(slow, seconds=0, failures=0)
    assert client.get("sw:alone") == other.token


def test_a_mailbox_that_was_only_in_the_way_is_worked_on_alone_and_not_blamed(inbox, client):
    pair = claimed(inbox)
    assert inbox.join(pair, [OTHER_BOX])
    for mailbox in (BOX, OTHER_BOX):
        vanish(client, mailbox)
    other = claimed(inbox, OTHER_BOX)
    assert other.crashes == ()
    assert "alone" in work(client, OTHER_BOX)


def test_b6_6_settling_clears_the_count_and_postponing_keeps_it(inbox, client):
    for _ in range(3):
        claimed(inbox)
        vanish(client)
    claim = claimed(inbox)
    assert len(claim.crashes) == 2
    inbox.postpone(claim, seconds=0, failures=0)
    claim = claimed(inbox)
    assert len(claim.crashes) == 2
    inbox.accept([linked(customer="9", identity="more")])
    settled(inbox, claim)
    assert claimed(inbox).crashes == ()
    assert "vanished" not in work(client)


def test_a_repeated_claim_of_the_same_worker_is_no_death(inbox, client):
    """redis-py repeats a script whose answer was lost; the lease is the same."""
    claim = claimed(inbox)
    wanted = [[BOX, claim.token, []]]
    again = inbox._claim(args=[msgspec.msgpack.encode([90_000, TURN_MS, True, [], 0, wanted])])
    assert again[4][0][0] == "claimed"
    assert "vanished" not in work(client)


def test_b6_6_what_kills_its_workers_becomes_a_dead_letter_and_is_not_touched_again(world, client):
    world.inbox.accept([linked()])
    for _ in range(4):
        claimed(world.inbox)
        vanish(client)
    assert world.converge(CONTACT) is Ended.SETTLED
    assert world.control.calls() == []
    (letter,) = world.letters()
    assert letter.reason == Reason.WORKER_CRASHED
    assert letter.message == "3 workers vanished while they worked on it alone."
    assert len(letter.attempts) == 3
    assert len(letter.changes) == 1
    assert world.last()[0] == "dead_letter"


def test_b6_11_a_crashed_change_can_be_replayed_and_starts_anew(world, client):
    world.inbox.accept([linked()])
    for _ in range(4):
        claimed(world.inbox)
        vanish(client)
    world.converge(CONTACT)
    world.replay()
    assert claimed(world.inbox).crashes == ()
    vanish(client)
    assert world.converge(CONTACT) is Ended.SETTLED
    assert world.last() == ("latched", f"customer {N}")
    assert world.letters() == []


def test_b6_8_a_change_that_comes_while_the_worker_dies_is_not_lost(world, client):
    world.inbox.accept([linked()])
    claimed(world.inbox)
    world.inbox.accept([linked(customer=str(N), identity="second")])
    vanish(client)
    assert world.converge(CONTACT) is Ended.SETTLED
    assert len(world.outcomes()) == 2


def test_b5_3_a_worker_that_was_thought_dead_settles_nothing(inbox, client):
    slow = claimed(inbox)
    vanish(client)
    claimed(inbox)
    with pytest.raises(LeaseLost):
        settled(inbox, slow)
    with pytest.raises(LeaseLost):
        inbox.postpone(slow, seconds=0, failures=0)


def test_a_shut_gate_keeps_the_mark_of_a_death(world, client):
    world.inbox.accept([linked(GEOTAB)])
    claimed(world.inbox, GEOTAB.mailbox)
    vanish(client, GEOTAB.mailbox)
    world.gates.pause("")
    assert world.converge(GEOTAB) is Ended.NOT_DUE
    world.gates.resume()
    claimed(world.inbox, GEOTAB.mailbox)
    assert "alone" in work(client, GEOTAB.mailbox)


def test_b6_6_a_restart_of_the_store_is_no_death_of_a_worker(inbox, client):
    """While it was away, nobody could give anything back."""
    for _ in range(4):
        claimed(inbox)
        client.hset(f"sw:work:{BOX}", "alone", "another run of the server")
        vanish(client)
    assert claimed(inbox).crashes == ()


# --- a worker that lives gives back what it could not finish


def break_store(world, monkeypatch, error: Exception) -> None:
    """The next reading of a customer meets it."""

    def broken(customer_id):
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(world.http, "get_customer", broken)


@pytest.mark.parametrize("error", [StoreError("away"), StoreRefused("not ours")])
def test_b6_6_what_a_store_that_was_away_left_in_our_hands_is_given_back(
    world, client, monkeypatch, error
):
    world.inbox.accept([linked()])
    break_store(world, monkeypatch, error)
    with pytest.raises(StoreError):
        world.converge(CONTACT)
    assert world.converge(CONTACT) is Ended.NOT_DUE  # its lease holds
    world.converger.hand_back()
    assert "vanished" not in work(client)
    assert not client.exists(f"sw:lease:{N}")
    assert world.converge(CONTACT) is Ended.SETTLED


def test_what_cannot_be_given_back_yet_is_given_back_later(world, client, monkeypatch):
    world.inbox.accept([linked()])
    break_store(world, monkeypatch, StoreError("away"))
    with pytest.raises(StoreError):
        world.converge(CONTACT)
    with monkeypatch.context() as away:
        away.setattr(world.inbox, "_postpone", raising(redis.ConnectionError()))
        world.converger.hand_back()
    assert "token" in work(client)
    world.converger.hand_back()
    assert "token" not in work(client)


def test_what_another_worker_took_over_is_left_to_it(world, client, monkeypatch):
    world.inbox.accept([linked()])
    break_store(world, monkeypatch, StoreError("away"))
    with pytest.raises(StoreError):
        world.converge(CONTACT)
    vanish(client)
    other = claimed(world.inbox)
    world.converger.hand_back()
    assert work(client)["token"] == other.token


def test_b6_7_an_interruption_while_it_settles_is_no_death(world, client, monkeypatch):
    world.inbox.accept([linked()])
    with monkeypatch.context() as interrupted:
        interrupted.setattr(world.inbox, "_settle", raising(stopping.Interrupted()))
        with pytest.raises(stopping.Interrupted):
            world.converge(CONTACT)
    assert "token" not in work(client)
    world.forget_suspicion()
    assert world.converge(CONTACT) is Ended.SETTLED
    assert world.last()[0] == "unchanged"


def raising(error: Exception):
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# --- a full store


def test_b6_12_what_waits_for_a_sweep_waits_in_a_full_store_too(world, client):
    world.inbox.accept([unlinked(GEOTAB)])
    with full(client):
        assert world.converge(GEOTAB) is Ended.POSTPONED
    assert "token" not in work(client, GEOTAB.mailbox)
    assert client.zscore("sw:sweep:waiting", GEOTAB.mailbox)


def test_b6_12_what_a_full_store_refuses_is_put_off_and_uses_up_no_attempt(
    world, client, monkeypatch
):
    world.inbox.accept([linked()])
    break_store(world, monkeypatch, StoreFull())
    assert world.converge(CONTACT) is Ended.POSTPONED
    assert 20 < world.waits_seconds(CONTACT) <= 30
    assert work(client)["failures"] == "0"


@contextmanager
def full(client):
    """No command may add anything, but for the scripts that make room."""
    client.config_set("maxmemory", client.info("memory")["used_memory"] - 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)
