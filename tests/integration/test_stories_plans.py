"""The stories in which a careless synchroniser does harm, go on: several writes that belong
together, what other hands do meanwhile, and waves of releases.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest

from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from sync_worker import releases
from sync_worker.converge import Ended
from sync_worker.domain import Reason, Record, Source
from sync_worker.fusebill import answers
from sync_worker.status import read_status
from tests import receiving
from tests.changes import (
    ACCOUNT,
    COMPANY,
    CONTACT,
    GEOTAB,
    NOW,
    linked,
    named,
    touched,
    unlinked,
)
from tests.worlds import OTHER, THIRD, N, World

ELSE = named(CONTACT, "512340077990")
"""Another contact."""

SECOND, FIRST = named(GEOTAB, "0070442"), named(GEOTAB, "0070440")

UNLATCH = "/v1/Salesforce/Unlatch"


# --- what happens between a read and a write


@pytest.fixture
def held_read(world: World) -> Iterator[tuple[World, threading.Thread]]:
    """A contact's claim is being worked on: Fusebill's answer to the read is on its way."""
    world.control.edit_customer(N, hub_spot_company_id=77)
    world.inbox.accept([linked()])
    fault = world.control.add_fault(Fault(method="GET", hold="after", count=1))
    worker = threading.Thread(target=world.converge, args=[CONTACT])
    worker.start()
    world.control.wait_held(fault)
    yield world, worker
    world.control.release_fault(fault)
    worker.join(10)


def let_on(held_read: tuple[World, threading.Thread], *, seconds: float) -> World:
    """The answer took so long."""
    world, worker = held_read
    world.now += seconds
    world.control.release_fault(world.control.faults()[0].id)
    worker.join(10)
    assert not worker.is_alive()
    return world


def test_b5_4_a_company_that_a_person_sets_while_we_read_is_kept(held_read):
    world, _ = held_read
    world.control.edit_customer(N, hub_spot_company_id=78)
    let_on(held_read, seconds=5.1)
    assert world.customer().hub_spot_company_id == 78
    assert world.customer().hub_spot_id == int(CONTACT.id)
    assert [body["hubSpotCompanyId"] for _, body in world.writes()] == [78]


def test_b5_5_a_contact_that_a_person_sets_while_we_read_is_kept(held_read):
    world, _ = held_read
    world.control.edit_customer(N, hub_spot_id=9)
    let_on(held_read, seconds=5.1)
    assert world.customer().hub_spot_id == 9
    assert world.letter().reason == Reason.CONFLICT


def test_b5_3_what_is_asked_of_the_customer_meanwhile_waits(held_read):
    """The same customer, by another record: it is not even read."""
    world, _ = held_read
    assert world.feed(linked(COMPANY), touched(COMPANY)) in (Ended.BUSY, Ended.SETTLED)
    assert world.feed(linked(GEOTAB)) is Ended.BUSY
    assert world.writes() == []
    let_on(held_read, seconds=0)
    assert world.outcomes_of(CONTACT) == ["latched"]
    world.pass_time(GEOTAB)
    world.work()
    assert world.customer().geotab_id == GEOTAB.id


def test_an_answer_that_is_held_past_the_lease_writes_nothing(held_read):
    """B5.3: another worker took over while the answer was under way."""
    world, _ = held_read
    world.client.hset(f"sw:work:{CONTACT.mailbox}", "token", "another worker's")
    let_on(held_read, seconds=0)
    assert world.writes() == []
    assert world.outcomes() == []


# --- answers that leave things out (B7.4)


KEYS = {
    "hubSpotId": CONTACT,
    "hubSpotCompanyId": CONTACT,
    "salesforceId": ACCOUNT,
    "geotabId": GEOTAB,
}


@pytest.mark.parametrize(("key", "record"), KEYS.items(), ids=KEYS)
@pytest.mark.parametrize("make", [linked, unlinked], ids=["latch", "release"])
def test_a_slot_key_that_is_missing_from_an_answer_is_not_an_empty_slot(
    world, monkeypatch, key, record, make
):
    """Nothing is written over what cannot be seen; once it is seen again, it is kept."""
    world.use(fusebill_salesforce_unlatch_path=UNLATCH)
    world.control.set_options(salesforce_unlatch_path=UNLATCH)
    whole = answers.parse_customer
    world.control.edit_customer(N, hub_spot_company_id=77)
    if make is unlinked:
        world.feed(linked(record))
        world.control.clear_calls()
    with monkeypatch.context() as patch:
        patch.setattr(
            answers,
            "parse_customer",
            lambda payload: whole({k: v for k, v in payload.items() if k != key}),
        )
        assert world.feed(make(record, occurred_at=NOW + 1)) is Ended.POSTPONED
        assert world.writes() == []
    world.pass_time(record)
    world.work()
    assert len(world.writes()) == 1
    assert world.customer().hub_spot_company_id == 77
    assert world.last()[0] == ("latched" if make is linked else "unlatched")


# --- plans of several writes (B5.2)


class Killed(BaseException):
    """What stops a worker that nobody asked."""


def die_at(world: World, write: int) -> None:
    """Have the worker vanish as it is about to make its so-manieth write from now on."""
    post, left = world.http._make, [write]

    def make(call: Any, read: Any) -> Any:
        left[0] -= call.writes
        if not left[0]:
            world.http._make = post
            raise Killed
        return post(call, read)

    world.http._make = make


MOVES = {
    "contact": (CONTACT, "hub_spot_id", int(CONTACT.id)),
    "company": (COMPANY, "hub_spot_company_id", int(COMPANY.id)),
    "geotab": (GEOTAB, "geotab_id", GEOTAB.id),
}


@pytest.mark.parametrize(("record", "field", "value"), MOVES.values(), ids=MOVES)
def test_a_latch_that_is_refused_after_the_release_is_put_back(world, record, field, value):
    """And the dead letter says so: nothing is lost while a person looks into it."""
    world.use(hubspot_latch_company="property")
    world.feed(linked(record))
    world.refuse(OTHER)
    world.feed(linked(record, customer=str(OTHER), occurred_at=NOW + 1))
    letter = world.letter()
    assert letter.reason == Reason.REJECTED
    assert "business rule" in letter.message
    assert f"Put back {record.id} to customer {N}" in letter.message
    assert world.slots(field) == [value, None, None]
    assert len(world.writes()) == 4  # latch, release, the latch that was refused, put back
    world.control.clear_faults()
    world.replay()
    world.work()
    assert world.slots(field) == [None, value, None]


def test_what_is_released_is_put_back_only_where_its_place_is_free(world):
    """A person took it meanwhile: between the release and the refusal."""
    world.feed(linked(GEOTAB))
    text = "It breaks a business rule."
    fault = world.control.add_fault(
        Fault(method="POST", customer_id=OTHER, status=400, text=text, hold="before", count=1)
    )
    change = linked(GEOTAB, customer=str(OTHER), occurred_at=NOW + 1)
    worker = threading.Thread(target=world.feed, args=[change])
    worker.start()
    world.control.wait_held(fault)
    world.control.edit_customer(N, geotab_id="by hand")
    world.control.release_fault(fault)
    worker.join(10)
    assert "its place is taken" in world.letter().message
    assert world.slots("geotab_id") == ["by hand", None, None]


def test_a_worker_that_vanishes_between_release_and_latch_leaves_a_way_back(world):
    """The next one reads, goes on, is refused, and still knows what to put back."""
    world.feed(linked(GEOTAB))

    die_at(world, 2)
    with pytest.raises(Killed):
        world.feed(linked(GEOTAB, customer=str(OTHER), occurred_at=NOW + 1))
    assert world.slots("geotab_id") == [None, None, None]
    world.client.hset(f"sw:work:{GEOTAB.mailbox}", "until", 1)
    world.client.delete(f"sw:lease:{N}", f"sw:lease:{OTHER}")
    world.forget_suspicion()
    world.pass_time(GEOTAB)
    world.refuse(OTHER)
    world.converge(GEOTAB)
    assert f"Put back {GEOTAB.id} to customer {N}" in world.letter().message
    assert world.slots("geotab_id") == [GEOTAB.id, None, None]


def test_what_was_let_go_of_is_put_back_if_the_next_try_ends_in_a_conflict(world):
    """The latch failed for a moment, and when it was tried again the slot was taken."""
    world.feed(linked(GEOTAB))
    fault = Fault(method="POST", path="/LatchCustomer", customer_id=OTHER, status=503, count=1)
    world.control.add_fault(fault)
    moved = linked(GEOTAB, customer=str(OTHER), occurred_at=NOW + 1)
    assert world.feed(moved) is Ended.POSTPONED
    assert world.slots("geotab_id") == [None, None, None]
    world.control.edit_customer(OTHER, geotab_id="by hand")
    world.forget_suspicion()
    world.pass_time(GEOTAB)
    world.converge(GEOTAB)
    letter = world.letter()
    assert letter.reason == Reason.CONFLICT
    assert "holds by hand" in letter.message
    assert f"Put back {GEOTAB.id} to customer {N}" in letter.message
    assert world.slots("geotab_id") == [GEOTAB.id, "by hand", None]


def test_a_worker_that_vanishes_between_two_records_leaves_the_other_one_owed(world):
    """Y, of which nothing is pending, made room for X; where Y goes is told by its field alone."""
    world.use(Source.HUBSPOT)
    hubspot = world.crms.hubspot.world
    hubspot.create("contacts", {"fusebill_id": str(N)}, id_=int(CONTACT.id), at=NOW)
    hubspot.create("contacts", {"fusebill_id": str(OTHER)}, id_=int(ELSE.id), at=NOW)
    world.feed(linked(CONTACT))
    world.feed(linked(ELSE, customer=str(OTHER)))
    hubspot.set_property("contacts", int(CONTACT.id), "fusebill_id", str(OTHER))
    hubspot.set_property("contacts", int(ELSE.id), "fusebill_id", str(THIRD))
    die_at(world, 3)
    with pytest.raises(Killed):
        world.feed(linked(CONTACT, customer=str(OTHER), occurred_at=NOW + 1))
    assert world.slots("hub_spot_id")[2] is None
    for record in (CONTACT, ELSE):
        world.client.hset(f"sw:work:{record.mailbox}", "until", 1)
    world.client.delete(*(f"sw:lease:{one}" for one in (N, OTHER, THIRD)))
    world.forget_suspicion()
    world.pass_time(CONTACT, ELSE)
    world.work()
    assert world.slots("hub_spot_id") == [None, int(CONTACT.id), int(ELSE.id)]
    assert world.letters() == []


EXCHANGES = {
    "contact": (CONTACT, ELSE, "hub_spot_id", int),
    "geotab": (GEOTAB, SECOND, "geotab_id", str),
}


@pytest.mark.parametrize(("one", "two", "field", "as_"), EXCHANGES.values(), ids=EXCHANGES)
def test_two_records_that_change_places_are_one_plan(world, one, two, field, as_):
    """X to where Y is, Y to where X is: three writes, and no moment with one on two customers."""
    world.feed(linked(one))
    world.feed(linked(two, customer=str(OTHER)))
    world.control.clear_calls()
    world.inbox.accept(
        [
            linked(one, customer=str(OTHER), occurred_at=NOW + 1),
            linked(two, customer=str(N), occurred_at=NOW + 1),
        ]
    )
    world.work()
    assert world.slots(field, (N, OTHER)) == [as_(two.id), as_(one.id)]
    assert world.outcomes_of(one)[-1] == world.outcomes_of(two)[-1] == "moved"
    assert len(world.writes()) == 3
    assert world.letters() == []
    assert world.client.zcard("sw:releases") == 0  # nobody ends without a customer (B5.10)


def test_a_ring_of_three_is_one_plan(world):
    records = (GEOTAB, SECOND, FIRST)
    customers = (N, OTHER, THIRD)
    for record, customer in zip(records, customers, strict=True):
        world.feed(linked(record, customer=str(customer)))
    world.control.clear_calls()
    world.inbox.accept(
        [
            linked(record, customer=str(customer), occurred_at=NOW + 1)
            for record, customer in zip(records, (OTHER, THIRD, N), strict=True)
        ]
    )
    world.work()
    assert world.slots("geotab_id") == [FIRST.id, GEOTAB.id, SECOND.id]
    assert len(world.writes()) == 4
    assert world.letters() == []


def test_several_workers_at_once_make_one_plan_of_a_ring(world, client, fusebill):
    """Each starts with another record of it; whoever comes second waits, and finds it done."""
    records, customers = (GEOTAB, SECOND, FIRST), (N, OTHER, THIRD)
    workers = [World(client, fusebill) for _ in range(4)]
    for turn in range(5):
        for place, record in enumerate(records):
            world.feed(linked(record, customer=str(customers[place]), occurred_at=NOW + 2 * turn))
        world.work()
        assert world.slots("geotab_id") == [record.id for record in records]
        world.inbox.accept(
            [
                linked(record, customer=str(customers[place - 1]), occurred_at=NOW + 2 * turn + 1)
                for place, record in enumerate(records)
            ]
        )
        threads = [
            threading.Thread(target=work_on, args=[worker, records[place % 3 :] + records])
            for place, worker in enumerate(workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert world.slots("geotab_id") == [SECOND.id, FIRST.id, GEOTAB.id]
    assert {call.status for call in world.control.calls(method="POST")} == {200}
    assert world.letters() == []
    for worker in workers:
        worker.close()


def work_on(worker: World, records: Iterable[Record]) -> None:
    """Converge these until nothing of them is owed, without waiting for one that was busy."""
    while worker.waiting():
        for record in records:
            worker.pass_time(record)
            worker.converge(record)


def test_half_an_exchange_writes_nothing(world):
    """Only X's claim has changed so far: a conflict, and both stay until Y's has too."""
    world.feed(linked(GEOTAB))
    world.feed(linked(SECOND, customer=str(OTHER)))
    world.control.clear_calls()
    world.feed(linked(GEOTAB, customer=str(OTHER), occurred_at=NOW + 1))
    assert world.letter().reason == Reason.CONFLICT
    assert world.writes() == []
    world.feed(linked(SECOND, customer=str(N), occurred_at=NOW + 1))
    world.work()
    assert world.slots("geotab_id", (N, OTHER)) == [SECOND.id, GEOTAB.id]
    assert [letter.state for letter in world.letters("superseded")] == ["superseded"]
    assert world.letters() == []
    world.feed(linked(GEOTAB, customer=str(OTHER), occurred_at=NOW + 2))
    assert world.last() == ("unchanged", "already latched")


# --- chains that come in reverse


def test_a_rename_chain_that_comes_in_reverse_ends_at_its_newest_id(world):
    """B3.4: 0070440 became 0070441 became 0070442; the newest change is told first."""
    world.control.edit_customer(N, geotab_id=FIRST.id)
    world.deliver("geotab.previous", record_id=SECOND.id, other_id=GEOTAB.id)
    world.work()
    world.sweep()
    world.work()
    assert world.customer().geotab_id == FIRST.id  # nobody has 0070441: it may come yet
    assert world.letters() == []
    world.deliver("geotab.previous", record_id=GEOTAB.id, other_id=FIRST.id)
    world.work()
    assert world.customer().geotab_id == GEOTAB.id
    world.pass_time(SECOND)
    world.work()
    assert world.customer().geotab_id == SECOND.id
    assert world.outcomes_of(SECOND) == ["moved"]
    assert world.letters() == []
    assert world.slots("geotab_id") == [SECOND.id, None, None]


def test_a_rename_touches_nobody_but_the_holder_of_the_previous_id(world):
    """B3.4: a way to find the customer, never a reason to touch another one."""
    world.control.edit_customer(OTHER, geotab_id=FIRST.id)
    world.deliver("geotab.changed", record_id=GEOTAB.id, other_id=FIRST.id, customer_id=str(N))
    world.work()
    assert world.slots("geotab_id") == [GEOTAB.id, FIRST.id, None]


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "at once"])
def test_moves_in_a_chain_that_come_in_reverse(world, together):
    """Y goes from B to C, X from A to B, and X's is told first."""
    x, y = GEOTAB, SECOND
    world.feed(linked(x, customer=str(N)))
    world.feed(linked(y, customer=str(OTHER)))
    world.control.clear_calls()
    second = linked(x, customer=str(OTHER), occurred_at=NOW + 2)
    first = linked(y, customer=str(THIRD), occurred_at=NOW + 1)
    if together:
        world.inbox.accept([second, first])
    else:
        world.feed(second)
        assert world.letter().reason == Reason.CONFLICT
        assert world.writes() == []
        world.feed(first)
    world.work()
    assert world.slots("geotab_id") == [None, x.id, y.id]
    assert world.letters() == []
    assert world.waiting() == set()
    assert len(world.writes()) <= 4


def test_a_chain_that_cannot_be_finished_says_who_lost_its_place(world):
    """Y's new customer refuses it after X took Y's place: a person must know of both."""
    world.feed(linked(GEOTAB, customer=str(N)))
    world.feed(linked(SECOND, customer=str(OTHER)))
    world.refuse(THIRD)
    world.inbox.accept(
        [
            linked(GEOTAB, customer=str(OTHER), occurred_at=NOW + 1),
            linked(SECOND, customer=str(THIRD), occurred_at=NOW + 1),
        ]
    )
    world.work()
    assert world.slots("geotab_id") == [None, GEOTAB.id, None]
    said = " ".join(letter.message for letter in world.letters())
    assert f"Could not put back {SECOND.id} to customer {OTHER}: its place is taken" in said
    assert {letter.mailbox for letter in world.letters()} >= {SECOND.mailbox}


# --- a wave of releases (B5.10)


@pytest.fixture
def wave(world: World) -> World:
    """Four customers lose their link within an hour, two more than is allowed."""
    fourth = N + 3
    world.control.put_customers(Customer(id=fourth))
    world.use(max_releases_per_hour=2)
    for place, customer in enumerate((N, OTHER, THIRD, fourth)):
        world.feed(linked(named(GEOTAB, str(place)), customer=str(customer)))
    for place in range(4):
        world.feed(unlinked(named(GEOTAB, str(place)), occurred_at=NOW + 1))
    return world


def test_a_wave_of_releases_is_stopped_and_asks_for_a_person(wave):
    assert wave.slots("geotab_id", range(N, N + 4)) == [None, None, "2", "3"]
    status = read_status(wave.client)
    assert (status.releases_held, status.backlog) == (2, 2)
    assert wave.letters() == []
    for place in (2, 3):
        held = named(GEOTAB, str(place))
        assert wave.waits_seconds(held) > 3000
        assert wave.client.hget(f"sw:work:{held.mailbox}", "failures") == "0"
    shown = [(one.record, one.customer_id, one.slot) for one in releases.held(wave.client)]
    assert shown == [
        (named(GEOTAB, str(place)).mailbox, N + place, "geotab_customer") for place in (2, 3)
    ]


def test_an_approved_release_is_made_and_a_discarded_one_settled(wave):
    assert wave.rule(named(GEOTAB, "2"), "approved")
    assert wave.rule(named(GEOTAB, "3"), "discarded")
    wave.work()
    assert wave.slots("geotab_id", range(N, N + 4)) == [None, None, None, "3"]
    assert wave.outcomes_of(named(GEOTAB, "2"))[-1] == "unlatched"
    assert wave.last() == ("ignored", "release discarded")
    assert read_status(wave.client).releases_held == 0
    assert wave.waiting() == set()


def test_the_brake_holds_no_latch_and_no_move(wave):
    """B5.10: a record that stays latched elsewhere is not released."""
    fifth = named(GEOTAB, "5")
    wave.feed(linked(fifth))
    wave.feed(linked(fifth, customer=str(OTHER), occurred_at=NOW + 1))
    assert wave.slots("geotab_id", (N, OTHER)) == [None, fifth.id]
    assert read_status(wave.client).releases_held == 2


def test_a_held_release_is_overtaken_by_a_newer_claim(wave):
    record = named(GEOTAB, "3")
    wave.feed(linked(record, customer=str(N + 3), occurred_at=NOW + 2))
    assert wave.outcomes_of(record)[-2:] == ["superseded", "unchanged"]
    assert read_status(wave.client).releases_held == 1


@pytest.mark.parametrize(("known", "released"), [(0, 50), (2805, 55)])
def test_a_bulk_clear_in_hubspot_is_stopped_too(world, known, released):
    """One request clears sixty contacts: 50 may go, or 2 % of the links that are known."""
    customers = range(9_000_000, 9_000_060)
    world.control.put_customers(*(Customer(id=one, hub_spot_id=one) for one in customers))
    built = msgspec.json.decode(world.sample("hubspot.contact.unlinked").body)[0]
    cleared = [built | {"eventId": one, "objectId": one} for one in customers]
    world.send(receiving.hubspot(cleared))
    world.work()
    world.sweep()  # nothing was known of these contacts
    world.client.hset(f"sw:index:{world.links.account}", "links", max(known, len(customers)))
    world.work()
    left = sum(one.hub_spot_id is not None for one in world.control.customers())
    assert left == 60 - released
    assert read_status(world.client).releases_held == 60 - released


def test_what_a_displacement_releases_counts_too(world):
    """B5.5, B5.10: under `replace` the occupant ends nowhere."""
    world.use(on_conflict="replace", max_releases_per_hour=0)
    world.control.edit_customer(N, geotab_id="999")
    world.feed(linked(GEOTAB))
    assert world.customer().geotab_id == "999"
    assert world.rule(GEOTAB, "approved")
    world.work()
    assert world.customer().geotab_id == GEOTAB.id


def test_the_index_holds_what_the_stories_say(world):
    """The history of a customer names who did what, for the person who has to clean up."""
    world.control.edit_customer(N, geotab_id="by hand")
    world.feed(unlinked(named(GEOTAB, "by hand"), customer_id=str(N)))
    world.feed(linked(GEOTAB))
    world.control.edit_customer(N, geotab_id=None)
    world.feed(linked(GEOTAB, occurred_at=NOW + 1))
    shown = [(turn.before, turn.after, turn.by) for turn in world.turns()]
    assert shown == [
        (None, "by hand", "first_seen"),
        ("by hand", None, "us"),
        (None, GEOTAB.id, "us"),
        (GEOTAB.id, None, "another_hand"),
        (None, GEOTAB.id, "us"),
    ]
