"""Customers that several mailboxes need are read together (B7.4), and never wrongly so.

Real Redis, the real client, a simulated Fusebill over HTTP with its log of calls.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import pytest

from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from sync_worker import sweep, together
from sync_worker.calls import Purse
from sync_worker.domain import Reason, Record, SlotState
from sync_worker.fusebill import find
from sync_worker.fusebill.customer import CustomerPage
from sync_worker.sweep import BATCH_SECONDS
from sync_worker.together import DENIED_SECONDS, NO_CUSTOMER, PROVEN_SECONDS
from tests.changes import ACCOUNT, COMPANY, CONTACT, GEOTAB, NOW, linked, named, unlinked
from tests.worlds import OTHER, THIRD, N, World, numbered

KINDS = {"contact": CONTACT, "company": COMPANY, "account": ACCOUNT, "geotab": GEOTAB}
FIELDS = {
    "contact": "hub_spot_id",
    "company": "hub_spot_company_id",
    "account": "salesforce_id",
    "geotab": "geotab_id",
}

SECONDS = 10


@pytest.fixture
def world(world: World) -> World:
    world.use(hubspot_latch_company="property")
    return world


# --- what the tests look at


def lists(world: World) -> list[str | None]:
    """What each list call asked for."""
    calls = world.control.calls(method="GET", path="^/v1/customers/?$")
    return [call.query.get("query") for call in calls]


def sets(world: World) -> list[set[int]]:
    """The ids that each call for a set asked for."""
    asked = [query for query in lists(world) if query]
    return [set(map(int, query.removeprefix("id:").split(","))) for query in asked]


def singles(world: World) -> list[int | None]:
    """The customers that were read by themselves."""
    calls = world.control.calls(method="GET", path=r"^/v1/customers/\d+")
    return [call.customer_id for call in calls]


def has_set(world: World) -> bool:
    """Whether the server honours a set of ids, as noted or as a probe tells."""
    found = world.together._survey(()).has_set
    return world.together._has_set({}, Purse(world.budget)) if found is None else found


def latched(world: World, crowd: Mapping[int, Record], field: str = "geotab_id") -> bool:
    """Whether each customer holds its record and nothing else is amiss."""
    held = {n: str(getattr(world.customer(n), field)) for n in crowd}
    wanted = {
        n: record.id[:15] if field == "salesforce_id" else record.id for n, record in crowd.items()
    }
    return held == wanted and not world.letters()


def noted(world: World) -> str | None:
    """What is noted of the server's set of ids."""
    return world.client.get(world.together._set_key)


def prove(world: World, *, honours: bool = True) -> None:
    """Have the probe made."""
    world.account.seen.extend((N, OTHER))
    assert has_set(world) is honours
    world.control.clear_calls()


def alter(world: World, change: Callable[[CustomerPage], CustomerPage]) -> None:
    """Have the server's lists be otherwise."""
    listed = world.http.list_customers
    world.http.list_customers = lambda **named: change(listed(**named))  # type: ignore[method-assign]


def age_snapshot(world: World, customer: int, seconds: float) -> None:
    """As if its last answer had been asked for so much earlier."""
    key = f"sw:customer:{world.links.account}:{customer}"
    for name in ("at", "sent"):
        world.client.hincrby(key, name, -round(seconds * 1e6))


# --- the probe


def test_b7_4_the_probe_asks_for_two_known_customers_and_one_that_cannot_be(world):
    assert not has_set(world), "nobody was seen yet"
    assert world.control.calls() == []
    world.account.seen.extend((N, OTHER))
    assert has_set(world)
    assert sets(world) == [{N, OTHER, NO_CUSTOMER}]
    assert 0 < world.client.ttl(world.together._set_key) <= PROVEN_SECONDS
    assert has_set(world)
    assert len(world.control.calls()) == 1


def without_count(page: CustomerPage) -> CustomerPage:
    return msgspec.structs.replace(page, total=None)


def counting_all(page: CustomerPage) -> CustomerPage:
    return msgspec.structs.replace(page, total=3)


def with_broken(page: CustomerPage) -> CustomerPage:
    return msgspec.structs.replace(page, broken=1)


def without_first(page: CustomerPage) -> CustomerPage:
    return msgspec.structs.replace(page, customers=page.customers[1:])


def same(page: CustomerPage) -> CustomerPage:
    return page


DISHONOURING: dict[str, tuple[dict[str, Any], Callable[[CustomerPage], CustomerPage]]] = {
    "ignores the filter": ({"id_queryable": False, "unknown_query_name": "ignore"}, same),
    "finds nobody": ({"id_queryable": False, "unknown_query_name": "empty"}, same),
    "refuses the name": ({"id_queryable": False, "unknown_query_name": "error"}, same),
    "lacks the count": ({}, without_count),
    "counts others": ({}, counting_all),
    "has a row that is no customer": ({}, with_broken),
    "leaves out a row": ({}, without_first),
}


@pytest.mark.parametrize(("options", "change"), DISHONOURING.values(), ids=DISHONOURING)
def test_b7_4_a_server_that_does_not_honour_a_set_is_asked_for_each_by_itself(
    world, options, change
):
    world.control.set_options(**options)
    alter(world, change)
    prove(world, honours=False)
    assert noted(world) == "no"
    assert 0 < world.client.ttl(world.together._set_key) <= DENIED_SECONDS
    crowd = world.crowd(CONTACT, 5)  # of HubSpot: no sweep serves them
    worked = world.work_together(*crowd.values())
    assert (worked.again, worked.busy, worked.poor) == ([], [], [])
    assert lists(world) == []
    assert sorted(singles(world)) == sorted(crowd)
    assert latched(world, crowd, "hub_spot_id")


def test_b7_4_a_probe_that_was_not_answered_notes_nothing(world):
    world.account.seen.extend((N, OTHER))
    world.control.add_fault(Fault(method="GET", path="customers/?$", status=503, count=1))
    crowd = world.crowd(GEOTAB, 3)
    world.work_together(*crowd.values())
    assert noted(world) is None
    assert latched(world, crowd)
    more = world.crowd(GEOTAB, 3, first=2001)
    world.work_together(*more.values())
    assert noted(world) == "yes"
    assert latched(world, more)


def test_b7_4_what_one_worker_proved_serves_all(world, client, fusebill):
    prove(world)
    other = World(client, fusebill)
    crowd = other.crowd(GEOTAB, 4)
    other.work_together(*crowd.values())
    assert sets(other) == [set(crowd)]
    assert singles(other) == []
    other.close()


def test_b7_4_of_workers_that_begin_together_one_probes(world, client, fusebill):
    others = [World(client, fusebill) for _ in range(3)]
    crowds = [
        worker.crowd(GEOTAB, 3, first=1001 + 100 * place)
        for place, worker in enumerate([world, *others])
    ]
    start = threading.Barrier(len(crowds))

    def work(worker: World, crowd: Mapping[int, Record]) -> None:
        worker.account.seen.extend((N, OTHER))
        start.wait(SECONDS)
        worker.work_together(*crowd.values())

    threads = [
        threading.Thread(target=work, args=pair)
        for pair in zip([world, *others], crowds, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    probes = [asked for asked in sets(world) if together.NO_CUSTOMER in asked]
    assert len(probes) == 1
    assert singles(world) == []
    assert latched(world, {n: record for crowd in crowds for n, record in crowd.items()})
    assert not client.exists(world.together._probe_key)
    for worker in others:
        worker.close()


def test_b7_4_a_probe_that_another_worker_does_not_end_is_not_waited_for(world):
    world.account.seen.extend((N, OTHER))
    world.client.set(world.together._probe_key, "1", px=60_000)
    crowd = world.crowd(CONTACT, 3)
    world.work_together(*crowd.values())
    assert lists(world) == []
    assert latched(world, crowd, "hub_spot_id")


# --- a set of ids


@pytest.mark.parametrize("kind", KINDS)
def test_b7_4_a_batch_takes_one_list_call_and_its_writes(world, kind):
    prove(world)
    crowd = world.crowd(KINDS[kind], 20)
    worked = world.work_together(*crowd.values())
    assert (worked.again, worked.busy, worked.poor) == ([], [], [])
    assert sets(world) == [set(crowd)]
    assert singles(world) == []
    assert len(world.writes()) == 20
    assert {outcome for outcome, _ in world.outcomes()} == {"latched"}
    assert latched(world, crowd, FIELDS[kind])


def test_b7_4_the_first_batch_of_all_is_read_singly_and_the_next_one_together(world):
    """As it comes about by itself: the first shows customers to probe with."""
    first = world.crowd(CONTACT, 3)
    world.work_together(*first.values())
    assert sorted(singles(world)) == sorted(first)
    world.control.clear_calls()
    second = world.crowd(CONTACT, 20, first=2001)
    world.work_together(*second.values())
    probe, asked = sets(world)
    assert NO_CUSTOMER in probe
    assert probe - {NO_CUSTOMER} < set(first)
    assert asked == set(second)
    assert singles(world) == []
    assert latched(world, first | second, "hub_spot_id")


def test_b5_1_the_same_changes_again_cost_no_write_and_nearly_no_read(world):
    prove(world)
    crowd = world.crowd(GEOTAB, 20)
    world.work_together(*crowd.values())
    world.control.clear_calls()
    world.tell(crowd)
    world.work_together(*crowd.values())
    assert world.writes() == []
    assert sets(world) == [set(crowd)]
    assert singles(world) == []


def test_a_mailbox_by_itself_is_read_singly(world):
    prove(world)
    crowd = world.crowd(GEOTAB, 1)
    world.work_together(*crowd.values())
    assert (lists(world), singles(world)) == ([], [*crowd])


def test_b7_4_rows_that_nobody_asked_for_end_the_use_of_the_set(world):
    prove(world)
    listed = world.http.list_customers

    def with_another(**named: Any) -> CustomerPage:
        page = listed(**named)
        (other,) = listed(page=0, query=f"id:{THIRD}").customers
        return msgspec.structs.replace(page, customers=(*page.customers, other))

    world.http.list_customers = with_another
    crowd = world.crowd(CONTACT, 5)
    world.work_together(*crowd.values())
    assert noted(world) == "no"
    world.control.clear_calls()
    more = world.crowd(CONTACT, 5, first=2001)
    world.work_together(*more.values())
    assert lists(world) == []
    assert sorted(singles(world)) == sorted(more)
    assert latched(world, crowd | more, "hub_spot_id")
    assert world.customer(THIRD) == Customer(id=THIRD)


def test_b7_4_a_set_that_is_suddenly_refused_ends_its_use(world):
    prove(world)
    world.control.set_options(id_queryable=False, unknown_query_name="error")
    crowd = world.crowd(CONTACT, 5)
    world.work_together(*crowd.values())
    assert noted(world) == "no"
    assert latched(world, crowd, "hub_spot_id")


@pytest.mark.parametrize("change", [without_first, with_broken])
def test_b7_4_a_row_that_is_missing_from_the_list_is_read_by_itself(world, change):
    prove(world)
    alter(world, change)
    crowd = world.crowd(GEOTAB, 5)
    world.work_together(*crowd.values())
    if change is without_first:
        assert singles(world) == [min(crowd)]
    assert latched(world, crowd)


def test_b7_4_a_customer_that_is_not_there_is_found_out_by_a_read_of_its_own(world):
    """A row missing from a list is never absence."""
    prove(world)
    crowd = world.crowd(GEOTAB, 5)
    world.control.delete_customer(1003)
    world.work_together(*crowd.values())
    assert singles(world) == [1003]
    assert world.waiting() == {crowd[1003].mailbox}
    assert world.letters() == []


@pytest.mark.parametrize("number", [NO_CUSTOMER, 10**17])
def test_a_number_that_no_customer_has_does_not_spoil_the_set_for_others(world, number):
    """People write anything into a link field."""
    prove(world)
    crowd = world.crowd(GEOTAB, 5)
    odd = named(GEOTAB, "odd")
    world.inbox.accept([linked(odd, str(number))])
    world.pass_a_moment()
    world.work_together(odd, *crowd.values())
    assert sets(world) == [set(crowd)]
    assert singles(world) == [number]
    assert noted(world) == "yes"
    assert latched(world, crowd)


def blind(page: CustomerPage) -> CustomerPage:
    """The first row lacks a key."""
    first, *rest = page.customers
    slots = {**first.slots, GEOTAB.slot: SlotState.UNKNOWN}
    partly = msgspec.structs.replace(first, slots=slots)
    return msgspec.structs.replace(page, customers=(partly, *rest))


@pytest.mark.parametrize("kind", ["geotab", "account"])
def test_b7_4_a_key_that_is_missing_is_unknown_and_its_customer_is_read_by_itself(world, kind):
    prove(world)
    alter(world, blind)
    crowd = world.crowd(KINDS[kind], 5, geotab_id="by hand" if kind == "account" else None)
    world.work_together(*crowd.values())
    assert singles(world) == [min(crowd)]
    assert latched(world, crowd, FIELDS[kind])


def test_b7_4_a_key_missing_in_the_answer_to_a_write_is_no_empty_slot(world):
    """HubSpot's answers have no `geotabId` (seeds 002 and 004)."""
    prove(world)
    crowd = world.crowd(CONTACT, 3, geotab_id="by hand")
    world.work_together(*crowd.values())
    world.control.clear_calls()
    boxes = {n: named(GEOTAB, f"other {n}") for n in crowd}
    world.tell(boxes, evidence=False)
    world.work_together(*boxes.values())
    assert sets(world) == [set(crowd)]
    assert world.writes() == []
    assert [world.customer(n).geotab_id for n in crowd] == ["by hand"] * 3


@pytest.mark.parametrize("full", [True, False])
def test_b7_4_what_a_write_answered_in_full_is_as_good_as_a_read(world, full):
    """Nothing arrived since, so a second mailbox of the same customers needs no read."""
    world.control.set_options(hubspot_answers_full=full)
    prove(world)
    contacts = {n: numbered(CONTACT, n) for n in range(1001, 1006)}
    world.control.put_customers(*(Customer(id=n) for n in contacts))
    boxes = {n: numbered(GEOTAB, n) for n in contacts}
    world.tell(boxes)
    world.tell(contacts)
    world.work_together(*contacts.values())
    world.control.clear_calls()
    world.work_together(*boxes.values())
    assert sets(world) == ([] if full else [set(boxes)])
    assert singles(world) == []
    assert latched(world, boxes)


# --- what a snapshot may decide


def read_all(world: World, *customers: int) -> None:
    """Somebody reads these, with a complete answer."""
    for one in customers:
        at = int(world.store_ms() * 1000)
        world.links.observe(world.http.get_customer(one), sent_at=at)
    world.control.clear_calls()
    world.pass_a_moment()


def test_b7_4_a_snapshot_that_is_newer_than_the_change_stands_for_a_read(world):
    world.inbox.accept([linked(GEOTAB)])
    world.pass_a_moment()
    read_all(world, N)
    world.work_together(GEOTAB)
    assert world.reads() == 0
    assert world.customer().geotab_id == GEOTAB.id


def test_b7_4_a_snapshot_from_before_the_newest_change_does_not(world):
    """The customer may have been made ready in between."""
    world.inbox.accept([linked(GEOTAB)])
    world.pass_a_moment()
    read_all(world, N)
    world.control.edit_customer(N, geotab_id=GEOTAB.id)
    world.inbox.accept([linked(GEOTAB, occurred_at=NOW + 1)])
    world.pass_a_moment()
    world.work_together(GEOTAB)
    assert singles(world) == [N]
    assert world.writes() == []


def test_b7_4_a_snapshot_from_before_a_replay_does_not(world):
    world.refuse(N)
    world.feed(linked(GEOTAB))
    world.control.clear_faults()
    read_all(world, N)
    world.replay()
    world.pass_a_moment()
    world.work_together(GEOTAB)
    assert singles(world) == [N]
    assert world.customer().geotab_id == GEOTAB.id


@pytest.mark.parametrize(("seconds", "reads"), [(29, 0), (31, 1)])
def test_b7_4_a_snapshot_is_used_for_half_a_minute(world, seconds, reads):
    world.inbox.accept([linked(GEOTAB)])
    world.age(GEOTAB, 60)
    read_all(world, N)
    age_snapshot(world, N, seconds)
    world.work_together(GEOTAB)
    assert world.reads() == reads
    assert world.customer().geotab_id == GEOTAB.id


def test_b7_4_no_write_rests_on_a_snapshot_that_grew_old_meanwhile(world):
    """It was just young enough when it was taken; then the worker was kept up."""
    world.inbox.accept([linked(GEOTAB)])
    world.age(GEOTAB, 60)
    read_all(world, N)
    age_snapshot(world, N, 25)
    clock = itertools.chain([1000.0], itertools.repeat(1006.0))
    world.converger.monotonic = lambda: next(clock)
    world.work_together(GEOTAB)
    assert singles(world) == [N]
    assert world.customer().geotab_id == GEOTAB.id


def test_b5_3_no_snapshot_of_a_customer_on_whom_a_write_may_yet_land(world):
    prove(world)
    crowd = world.crowd(GEOTAB, 4)
    world.control.add_fault(Fault(method="POST", customer_id=1002, drop=True, count=1))
    world.work_together(*crowd.values())
    world.control.clear_calls()
    accounts = {n: numbered(ACCOUNT, n) for n in crowd}
    world.tell(accounts)
    world.work_together(*accounts.values())
    assert singles(world) == [1002]
    held = [world.customer(n).salesforce_id for n in crowd]
    assert held == [record.id[:15] for record in accounts.values()]
    assert world.waiting() >= {crowd[1002].mailbox, accounts[1002].mailbox}, "looked at once more"


def test_b6_5_after_a_refusal_that_may_pass_the_customer_is_read_anew(world):
    prove(world)
    crowd = world.crowd(GEOTAB, 3)
    fault = Fault(method="POST", customer_id=1002, status=409, text="Try that again.", count=1)
    world.control.add_fault(fault)
    world.work_together(*crowd.values())
    assert sets(world) == [set(crowd)]
    assert singles(world) == [1002]
    assert len(world.writes()) == 4
    assert latched(world, crowd)


def test_b6_5_after_a_refusal_for_good_the_next_change_reads_anew(world):
    world.refuse(N)
    world.inbox.accept([linked(GEOTAB)])
    world.pass_a_moment()
    read_all(world, N)
    world.work_together(GEOTAB)
    assert world.letter().reason == Reason.REJECTED
    world.control.clear_faults()
    world.control.edit_customer(N, geotab_id="by hand")
    world.inbox.accept([linked(GEOTAB, occurred_at=NOW + 1, evidence=False)])
    world.pass_a_moment()
    world.work_together(GEOTAB)
    assert singles(world) == [N]
    assert world.customer().geotab_id == "by hand"


# --- HubSpot: what is preserved is read under the customer's own lease (B5.4)


@pytest.mark.parametrize("age", [0, 3, 20])
def test_b5_4_no_hub_spot_write_rests_on_what_a_sweep_saw(world, age):
    """It was read under nobody's lease, and another hand was there since."""
    world.control.edit_customer(N, hub_spot_company_id=77)
    world.inbox.accept([linked(CONTACT)])
    world.age(CONTACT, 60)
    world.sweep_all()
    age_snapshot(world, N, age)
    world.control.clear_calls()
    world.control.edit_customer(N, hub_spot_company_id=78)
    world.work_together(CONTACT)
    assert singles(world)[-1] == N
    assert [body["hubSpotCompanyId"] for _, body in world.writes()] == [78]
    assert world.customer().hub_spot_id == int(CONTACT.id)


def test_b5_4_what_differs_from_the_sweep_is_planned_anew(world):
    """A person latched another contact by hand since: nothing displaces it unseen."""
    world.inbox.accept([linked(CONTACT)])
    world.pass_a_moment()
    world.sweep_all()
    world.control.edit_customer(N, hub_spot_id=99)
    world.control.clear_calls()
    world.work_together(CONTACT)
    assert world.letter().reason == Reason.CONFLICT
    assert world.writes() == []
    assert world.customer().hub_spot_id == 99


def test_b5_4_a_set_that_is_read_under_the_leases_serves_hub_spot_for_five_seconds(
    world, monkeypatch
):
    prove(world)
    crowd = world.crowd(CONTACT, 3)
    for n in crowd:
        world.control.edit_customer(n, hub_spot_company_id=n)
    gatherer = type(world.converger)._gatherer

    def slow(*args: Any) -> Any:
        """Each takes its snapshot, and is kept up for six seconds."""
        made = gatherer(*args)
        clock = itertools.chain([1000.0], itertools.repeat(1006.0))
        made.monotonic = lambda: next(clock)
        return made

    monkeypatch.setattr(type(world.converger), "_gatherer", slow)
    world.work_together(*crowd.values())
    assert sets(world) == [set(crowd)]
    assert sorted(singles(world)) == sorted(crowd), "too old by then"
    assert all(body["hubSpotCompanyId"] == body["fusebillId"] for _, body in world.writes())
    assert latched(world, crowd, "hub_spot_id")


def test_b5_4_the_set_is_asked_for_with_every_customer_leased(world):
    prove(world)
    crowd = world.crowd(CONTACT, 4)
    held: list[set[str]] = []

    def look(page: CustomerPage) -> CustomerPage:
        held.append(set(world.client.keys("sw:lease:*")))
        return page

    alter(world, look)
    world.work_together(*crowd.values())
    assert held == [{f"sw:lease:{n}" for n in crowd}]
    assert world.client.keys("sw:lease:*") == []


# --- a sweep


@pytest.fixture
def swept(world: World) -> World:
    """A server that honours no set of ids, so that a sweep is what can serve many."""
    world.control.set_options(id_queryable=False)
    prove(world, honours=False)
    return world


def first_of(crowd: Mapping[int, Record], count: int) -> tuple[list[Record], list[Record]]:
    records = list(crowd.values())
    return records[:count], records[count:]


@pytest.mark.parametrize("kind", ["account", "geotab"])
def test_b7_4_a_sweep_serves_its_batch_and_those_after_it(swept, kind):
    crowd = swept.crowd(KINDS[kind], 30)
    first, second = first_of(crowd, 20)
    swept.work_together(*first)
    assert lists(swept) == [None]
    swept.work_together(*second)
    assert lists(swept) == [None]
    assert singles(swept) == []
    assert len(swept.writes()) == 30
    assert latched(swept, crowd, FIELDS[kind])


def test_b7_4_a_sweep_serves_other_workers_too(swept, client, fusebill):
    crowd = swept.crowd(GEOTAB, 30)
    first, second = first_of(crowd, 20)
    swept.work_together(*first)
    other = World(client, fusebill)
    other.work_together(*second)
    assert lists(swept) == [None]
    assert singles(swept) == []
    assert latched(swept, crowd)
    other.close()


def test_b7_4_what_came_after_the_sweep_is_read_for_itself(swept):
    crowd = swept.crowd(GEOTAB, 20)
    swept.work_together(*crowd.values())
    swept.control.clear_calls()
    more = swept.crowd(GEOTAB, 20, first=2001)
    swept.work_together(*more.values())
    assert lists(swept) == [None], "another sweep: the first knows nothing of them"
    assert latched(swept, crowd | more)


def test_b7_4_where_the_set_is_cheaper_nobody_sweeps(world):
    prove(world)
    crowd = world.crowd(GEOTAB, 5)
    world.work_together(*crowd.values())
    assert lists(world) == [f"id:{','.join(map(str, crowd))}"]


def test_b7_4_where_very_many_wait_a_sweep_beats_the_set(world):
    prove(world)
    crowd = world.crowd(GEOTAB, 60)
    records = list(crowd.values())
    for start in range(0, 60, 20):
        world.work_together(*records[start : start + 20])
    assert lists(world) == [None]
    assert singles(world) == []
    assert latched(world, crowd)


def test_b5_4_nobody_sweeps_for_hub_spot(swept):
    """Its customers would have to be read singly all the same."""
    crowd = swept.crowd(CONTACT, 20)
    swept.work_together(*crowd.values())
    assert lists(swept) == []
    assert len(singles(swept)) == 20
    assert latched(swept, crowd, "hub_spot_id")


def small_pages(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Have a page of the list take so many rows."""
    for module in (sweep, together, find):
        monkeypatch.setattr(module, "PAGE_SIZE", rows)


def test_b6_3_what_waits_at_a_shut_gate_is_no_reason_to_sweep(swept, monkeypatch):
    """It will not be worked off while what a sweep shows is fresh."""
    small_pages(monkeypatch, 4)
    waiting = swept.crowd(ACCOUNT, 40, first=3001)
    swept.client.hset("sw:gate:salesforce", "open", f"{swept.store_ms()}|It is down.")
    swept.inbox.claim_all({record.mailbox: ["salesforce"] for record in waiting.values()})
    assert swept.client.zcard("sw:parked:salesforce") == 40
    crowd = swept.crowd(GEOTAB, 3)
    swept.work_together(*crowd.values())
    assert lists(swept) == [None], "one page of twelve: that tells how many there are"


def test_b4_5_a_sweep_for_a_batch_is_not_the_turn_of_what_waits_for_one(swept):
    swept.client.zadd("sw:sweep:waiting", {GEOTAB.mailbox: swept.store_ms()})
    swept.sweeper.every_seconds = 600
    assert not swept.sweeper.run_for_batch(most_pages=0)
    assert swept.sweeper.is_due()
    assert swept.sweeper.run_if_due()


@pytest.mark.parametrize("change", [same, without_count])
def test_b7_4_a_sweep_that_takes_more_than_it_saves_is_not_begun_twice(swept, monkeypatch, change):
    """How many customers there are is found out by a page, and remembered."""
    small_pages(monkeypatch, 1)
    alter(swept, change)
    most = 10 if change is without_count else 1
    crowd = swept.crowd(GEOTAB, 20)
    swept.work_together(*crowd.values())
    assert len(lists(swept)) == most
    assert latched(swept, crowd)
    swept.control.clear_calls()
    more = swept.crowd(GEOTAB, 20, first=2001)
    swept.work_together(*more.values())
    assert lists(swept) == []
    assert len(singles(swept)) == 20
    assert latched(swept, more)


def test_b7_4_how_many_customers_there_are_is_known_from_the_last_whole_sweep(swept, monkeypatch):
    small_pages(monkeypatch, 1)
    crowd = swept.crowd(GEOTAB, 3)
    assert swept.sweeper.customers() == 0
    assert not swept.sweeper.run_for_batch(most_pages=1)
    assert swept.sweeper.customers() == 6
    swept.control.delete_customer(THIRD)
    swept.control.delete_customer(1003)
    swept.sweep_all()
    assert swept.sweeper.customers() == len(crowd) + 1


def test_b4_5_what_a_batch_swept_is_known_to_the_mailboxes_beside_it(swept):
    """An unlink that names nobody: the sweep of its batch shows who holds the record."""
    lost, nowhere = named(GEOTAB, "lost"), named(GEOTAB, "nowhere")
    swept.control.edit_customer(THIRD, geotab_id=lost.id)
    crowd = swept.crowd(GEOTAB, 18)
    swept.inbox.accept([unlinked(lost), unlinked(nowhere)])
    swept.pass_a_moment()
    swept.work_together(lost, nowhere, *crowd.values())
    assert lists(swept) == [None]
    assert swept.outcomes_of(lost) == ["unlatched"]
    assert swept.outcomes_of(nowhere) == ["unchanged"]
    assert swept.customer(THIRD).geotab_id is None
    assert swept.waiting() == set()


def test_b4_5_a_set_that_shows_the_holder_makes_it_a_move(world):
    """What the batch reads for one shows who holds the record of another: no latch is tried that
    Fusebill would refuse.
    """
    prove(world)
    boxes = {1001: numbered(GEOTAB, 1), 1002: numbered(ACCOUNT, 2), 1003: numbered(GEOTAB, 3)}
    world.control.put_customers(*(Customer(id=n) for n in boxes))
    world.control.edit_customer(1002, geotab_id=boxes[1001].id)
    world.tell(boxes)
    world.work_together(*boxes.values())
    world.pass_time(boxes[1001])  # it may have had to wait for the other mailbox of that customer
    world.work()
    assert world.outcomes_of(boxes[1001]) == ["moved"]
    assert world.control.calls(status=400) == []
    assert world.slots("geotab_id", boxes) == [boxes[1001].id, None, boxes[1003].id]


def test_b7_4_while_another_worker_sweeps_its_end_is_waited_for(swept, client, fusebill):
    crowd = swept.crowd(GEOTAB, 30)
    first, second = first_of(crowd, 15)
    fault = swept.control.add_fault(Fault(method="GET", path="customers/?$", hold="after", count=1))
    one = threading.Thread(target=swept.work_together, args=first)
    one.start()
    swept.control.wait_held(fault)
    other = World(client, fusebill)
    other.together.sleep = lambda _: swept.control.release_fault(fault) if one.is_alive() else None
    other.together.monotonic = lambda: 0.0
    other.work_together(*second)
    one.join(SECONDS)
    assert lists(swept) == [None]
    assert singles(swept) == []
    assert latched(swept, crowd)
    other.close()


def test_b7_2_the_sweep_of_another_worker_holds_nobody_up_for_longer_than_a_second(
    swept, client, fusebill
):
    crowd = swept.crowd(GEOTAB, 4)
    client.set("sw:sweep:lease", "another", px=60_000)
    clock = itertools.count()
    swept.together.monotonic = lambda: next(clock) * 0.3
    slept: list[float] = []
    swept.together.sleep = slept.append
    swept.work_together(*crowd.values())
    assert 0 < len(slept) <= 4
    assert sorted(singles(swept)) == sorted(crowd)
    assert latched(swept, crowd)


def test_b7_4_a_sweep_that_fails_leaves_each_to_a_read_of_its_own(swept):
    swept.control.add_fault(Fault(method="GET", path="customers/?$", status=500, count=1))
    crowd = swept.crowd(GEOTAB, 4)
    swept.work_together(*crowd.values())
    assert sorted(singles(swept)) == sorted(crowd)
    assert latched(swept, crowd)


# --- what else a batch is prepared with


def test_mailboxes_that_concern_the_same_customers_are_told_apart_from_others(world):
    one, two, three, four = (named(GEOTAB, str(n)) for n in range(4))
    world.control.edit_customer(OTHER, geotab_id=two.id)
    world.sweep_all()  # who holds what is known
    world.inbox.accept([linked(one, str(N)), linked(two, str(N)), linked(three, str(OTHER))])
    world.inbox.accept([linked(four, str(THIRD))])
    claims = world.inbox.claim_all({record.mailbox: () for record in (one, four, three, two)})
    groups = world.together.prepare(claims.taken, Purse(world.budget))
    names = [[claim.mailbox for claim, _ in group] for group in groups]
    assert names == [[one.mailbox, three.mailbox, two.mailbox], [four.mailbox]]


@pytest.fixture(autouse=True)
def nothing_is_left_held(world: World) -> Iterator[None]:
    """Whatever a batch did, no lease of a customer and no mailbox is left in its hands."""
    yield
    assert world.client.keys("sw:lease:[0-9]*") == [] or world.converger._working_on == {}


def test_b5_3_a_sweep_that_takes_longer_than_a_batch_waits_is_left_and_not_begun_again(
    swept, monkeypatch
):
    small_pages(monkeypatch, 1)
    clock = [0.0]
    swept.sweeper.monotonic = lambda: clock[0]
    crowd = swept.crowd(GEOTAB, 3)
    swept.control.clear_calls()
    read = sweep.Sweeper._now

    def slow(sweeper: sweep.Sweeper) -> int:
        clock[0] += BATCH_SECONDS
        return read(sweeper)

    monkeypatch.setattr(sweep.Sweeper, "_now", slow)
    assert not swept.sweeper.run_for_batch(most_pages=99)
    begun = len(lists(swept))
    assert 0 < begun < len(crowd)
    assert not swept.sweeper.run_for_batch(most_pages=99)
    assert len(lists(swept)) == begun
    assert swept.sweeper.run()  # what waits for a sweep has the patience
