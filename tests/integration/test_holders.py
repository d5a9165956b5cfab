"""Who holds a record: moves, sweeps for an unknown holder, conflicts until they end (B4.5, B5.5).

As `test_converge`: a real Redis, the real client, a simulated Fusebill over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
import redis

from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from simulators.fusebill.server import SimulatedFusebill
from sync_worker.converge import Ended
from sync_worker.domain import Reason, Record, RecordType, Source
from sync_worker.fusebill import answers
from sync_worker.fusebill import customer as fusebill_customer
from sync_worker.status import read_status
from tests.changes import (
    ACCOUNT,
    COMPANY,
    CONTACT,
    GEOTAB,
    NOW,
    linked,
    named,
    unlinked,
)
from tests.worlds import OTHER, THIRD, N, World

SECOND = named(CONTACT, "512340077990")
"""Another contact."""


@pytest.fixture
def world(client: redis.Redis, fusebill: SimulatedFusebill) -> Iterator[World]:
    fusebill.control.reset()
    fusebill.control.put_customers(Customer(id=N), Customer(id=OTHER))
    made = World(client, fusebill, hubspot_latch_company="property")
    yield made
    made.close()


# --- moves, and holders that are not known


MOVES = {
    "contact": (CONTACT, "hub_spot_id", int(CONTACT.id)),
    "company": (COMPANY, "hub_spot_company_id", int(COMPANY.id)),
    "geotab": (GEOTAB, "geotab_id", GEOTAB.id),
}


@pytest.mark.parametrize(("record", "field", "value"), MOVES.values(), ids=MOVES)
def test_b5_5_a_claim_that_changed_from_its_holder_moves_the_record(world, record, field, value):
    world.feed(linked(record))
    assert world.feed(linked(record, customer=str(OTHER), occurred_at=NOW + 1)) is Ended.SETTLED
    assert world.last() == ("moved", f"from customer {N} to {OTHER}")
    assert getattr(world.customer(N), field) is None
    assert getattr(world.customer(OTHER), field) == value
    assert world.letters() == []
    assert read_status(world.client).releases_held == 0  # a move is no release (B5.10)


def test_b5_6_an_account_is_moved_only_where_it_can_be_released(world):
    """Nothing of the plan is written while it cannot be finished (B5.2)."""
    world.feed(linked(ACCOUNT))
    moved = linked(ACCOUNT, customer=str(OTHER), occurred_at=NOW + 1)
    world.feed(moved)
    letter = world.letter()
    assert (letter.reason, letter.customer_ids) == (Reason.UNLATCH_UNSUPPORTED, (N,))
    assert len(world.writes()) == 1
    world.control.set_options(salesforce_unlatch_path="/v1/Salesforce/Unlatch")
    world.use(fusebill_salesforce_unlatch_path="/v1/Salesforce/Unlatch")
    world.replay()
    world.work()
    assert world.slots("salesforce_id", (N, OTHER)) == [None, ACCOUNT.id[:15]]
    assert world.letters() == []


def test_b5_5_a_record_that_another_hand_latched_elsewhere_is_a_conflict(world):
    """Its known home is N, and why it is at THIRD nobody knows here."""
    world.control.put_customers(Customer(id=THIRD))
    world.feed(linked(GEOTAB))
    world.control.edit_customer(N, geotab_id=None)
    world.control.edit_customer(THIRD, geotab_id=GEOTAB.id)
    assert world.feed(linked(GEOTAB, customer=str(OTHER), occurred_at=NOW + 1)) is Ended.POSTPONED
    world.sweep()
    assert world.converge(GEOTAB) is Ended.SETTLED
    letter = world.letter()
    assert (letter.reason, letter.customer_ids) == (Reason.CONFLICT, (OTHER, THIRD))
    assert world.slots("geotab_id") == [None, None, GEOTAB.id]


@pytest.mark.parametrize(("record", "field", "value"), MOVES.values(), ids=MOVES)
def test_b4_5_an_unknown_holder_shows_as_a_refusal_and_a_sweep_finds_it(
    world, record, field, value
):
    """With evidence, and no claim known from before, it is a move."""
    world.control.edit_customer(OTHER, **{field: value})
    assert world.feed(linked(record)) is Ended.POSTPONED
    assert world.client.hget(f"sw:work:{record.mailbox}", "failures") == "0"
    assert world.sweep()
    assert world.converge(record) is Ended.SETTLED
    assert world.last() == ("moved", f"from customer {OTHER} to {N}")
    assert getattr(world.customer(N), field) == value
    assert getattr(world.customer(OTHER), field) is None


@pytest.mark.parametrize(("record", "field", "value"), MOVES.values(), ids=MOVES)
def test_b4_5_an_unknown_holder_is_a_conflict_without_evidence(world, record, field, value):
    world.control.edit_customer(OTHER, **{field: value})
    world.feed(linked(record, evidence=False))
    world.sweep()
    world.converge(record)
    letter = world.letter()
    assert (letter.reason, letter.customer_ids) == (Reason.CONFLICT, (N, OTHER))
    assert getattr(world.customer(OTHER), field) == value


def test_b4_5_an_unknown_holder_of_an_account_is_found_by_a_sweep_too(world):
    """That Salesforce is named in a refusal does not make it one of Salesforce's (B6.1)."""
    world.control.set_options(salesforce_unlatch_path="/v1/Salesforce/Unlatch")
    world.use(fusebill_salesforce_unlatch_path="/v1/Salesforce/Unlatch")
    world.control.edit_customer(OTHER, salesforce_id=ACCOUNT.id)
    assert world.feed(linked(ACCOUNT)) is Ended.POSTPONED
    world.sweep()
    world.converge(ACCOUNT)
    assert world.last() == ("moved", f"from customer {OTHER} to {N}")


def test_b6_5_a_refusal_that_no_sweep_explains_is_final(world):
    text = "Geotab id 0070441 is already associated to customer 1."
    world.control.add_fault(Fault(method="POST", status=400, text=text))
    world.feed(linked(GEOTAB))
    world.sweep()
    world.converge(GEOTAB)
    assert world.letter().reason == Reason.REJECTED
    assert len(world.writes()) == 2


# --- sweeps


@pytest.mark.parametrize("record", [CONTACT, COMPANY, GEOTAB], ids=["contact", "company", "geotab"])
def test_b4_5_an_unlink_of_an_unknown_holder_waits_for_a_sweep(world, record):
    """No attempt is used up, and only a sweep that began later tells that nobody holds it."""
    assert world.feed(unlinked(record)) is Ended.POSTPONED
    assert world.control.calls() == []
    assert world.client.hget(f"sw:work:{record.mailbox}", "failures") == "0"
    assert read_status(world.client, account=world.links.account).sweep.waiting == 1
    assert world.sweep()
    assert not world.sweep()  # nobody waits for another
    assert world.converge(record) is Ended.SETTLED
    assert world.last() == ("unchanged", "no customer holds it")
    assert world.writes() == []
    assert world.letters() == []


def test_b4_5_a_sweep_that_began_before_the_change_proves_nothing(world):
    world.feed(unlinked(CONTACT))
    world.sweep()
    world.converge(CONTACT)
    world.control.edit_customer(OTHER, hub_spot_id=int(SECOND.id))
    assert world.feed(unlinked(SECOND)) is Ended.POSTPONED
    world.sweep()
    world.converge(SECOND)
    assert world.customer(OTHER).hub_spot_id is None


@pytest.mark.parametrize("singly", [True, False])
def test_b4_5_a_sweep_that_cannot_see_a_slot_proves_nothing_of_it(world, monkeypatch, singly):
    """B7.4: a key missing from a row is unknown, not empty; a read of its own may tell it."""
    whole = fusebill_customer.parse_customer

    def without(payload):
        return whole({name: value for name, value in payload.items() if name != "hubSpotId"})

    world.control.edit_customer(OTHER, hub_spot_id=int(CONTACT.id))
    world.feed(unlinked(CONTACT))
    with monkeypatch.context() as patch:
        patch.setattr(fusebill_customer, "parse_customer", without)
        if not singly:
            patch.setattr(answers, "parse_customer", without)
        assert world.sweep()
    if not singly:
        assert world.converge(CONTACT) is Ended.POSTPONED
        assert world.outcomes() == []
        assert world.sweep()
    world.converge(CONTACT)
    assert world.last() == ("unlatched", f"customer {OTHER}")


NOT_WHOLE = {
    "a row is missing": {"customers": 1, "times": 1},
    "a row came twice": {"customers": 1, "times": 2},
    "a row cannot be read": {"customers": 1, "times": 1, "broken": 1},
}


@pytest.mark.parametrize("rows", NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_b4_5_a_list_that_is_not_whole_is_no_sweep(world, monkeypatch, rows):
    """The customer who is not seen may be the very one."""
    world.feed(unlinked(CONTACT))
    read = world.http.list_customers

    def short(**asked):
        page = read(**asked)
        customers = page.customers[: rows["customers"]] * rows["times"]
        broken = rows.get("broken", 0)
        return msgspec.structs.replace(page, customers=customers, broken=broken)

    with monkeypatch.context() as patch:
        patch.setattr(world.http, "list_customers", short)
        assert not world.sweep()
    assert world.waits_seconds(CONTACT) > 60
    assert world.sweep()


def test_b4_5_a_sweep_reads_every_page(world):
    """The holder is on the last one; a thousand customers are a page."""
    last = 9_002_400
    world.control.put_customers(
        *(Customer(id=one) for one in range(9_000_000, last)),
        Customer(id=last, hub_spot_id=int(CONTACT.id)),
    )
    world.feed(unlinked(CONTACT))
    assert world.sweep()
    assert len(world.control.calls(path="/v1/customers/$")) == 3
    world.converge(CONTACT)
    assert world.customer(last).hub_spot_id is None
    assert read_status(world.client, account=world.links.account).sweep.customers == 2403


def test_b4_5_at_most_one_sweep_in_sweep_seconds_serves_all_that_wait(world):
    world.feed(unlinked(CONTACT))
    world.feed(unlinked(GEOTAB))
    world.sweeper.every_seconds = 60
    assert world.sweep()
    assert len(world.control.calls(path="/v1/customers/$")) == 1
    for record in (CONTACT, GEOTAB):
        assert world.converge(record) is Ended.SETTLED
    world.feed(unlinked(COMPANY))
    assert not world.sweep()
    world.sweeper.every_seconds = 0
    assert world.sweep()


# --- a conflict, and how it ends


@pytest.fixture
def conflict(world):
    """GEOTAB claims N, where 999 is."""
    world.control.edit_customer(N, geotab_id="999")
    world.feed(linked(GEOTAB))
    assert world.letter().reason == Reason.CONFLICT
    world.control.clear_calls()
    return world


def test_a_conflict_is_judged_again_when_the_slot_is_seen_to_be_free(conflict):
    """Whoever clears it: here our own release of the occupant."""
    occupant = Record(Source.GEOTAB, "ACCT01", RecordType.CUSTOMER, "999")
    conflict.feed(unlinked(occupant, customer_id=str(N)))
    assert [letter.state for letter in conflict.letters()] == ["replaying"]
    conflict.work()
    assert conflict.customer().geotab_id == GEOTAB.id
    assert [letter.state for letter in conflict.letters("resolved")] == ["resolved"]
    assert conflict.waiting() == set()


def test_a_conflict_is_judged_again_when_any_read_sees_the_slot_free(conflict):
    """Here a person in Fusebill, and a change of another slot of that customer."""
    conflict.control.edit_customer(N, geotab_id=None)
    conflict.feed(linked(CONTACT))
    conflict.work()
    assert conflict.customer().geotab_id == GEOTAB.id
    assert conflict.letters() == []


def test_a_record_held_elsewhere_is_judged_again_when_that_customer_lets_go(world):
    """The conflict names both customers, and either may end it."""
    world.control.edit_customer(OTHER, geotab_id=GEOTAB.id)
    world.feed(linked(GEOTAB, evidence=False))
    world.sweep()
    world.converge(GEOTAB)
    assert world.letter().reason == Reason.CONFLICT
    world.control.edit_customer(OTHER, geotab_id=None)
    world.feed(linked(CONTACT, customer=str(OTHER)))
    world.work()
    assert world.customer().geotab_id == GEOTAB.id
    assert world.letters() == []


def test_a_conflict_that_is_still_one_stays_the_same_letter(conflict):
    """The occupant goes and another comes at once."""
    conflict.control.edit_customer(N, geotab_id=None)
    conflict.feed(linked(CONTACT))
    conflict.control.edit_customer(N, geotab_id="998")
    conflict.work()
    assert [(letter.id, letter.state) for letter in conflict.letters()] == [("1", "open")]
    assert conflict.customer().geotab_id == "998"
    conflict.control.edit_customer(N, geotab_id=None)
    conflict.feed(linked(CONTACT, occurred_at=NOW + 1))
    conflict.work()
    assert conflict.customer().geotab_id == GEOTAB.id


def test_clearing_the_link_field_after_a_conflict_closes_it(conflict):
    conflict.feed(unlinked(GEOTAB, occurred_at=NOW + 1))
    conflict.sweep()
    conflict.work()
    assert conflict.last() == ("unchanged", "no customer holds it")
    assert conflict.letters() == []
    assert [letter.state for letter in conflict.letters("superseded")] == ["superseded"]
    assert conflict.customer().geotab_id == "999"


def test_b6_10_a_newer_claim_that_fails_too_takes_the_place_of_the_older_letter(conflict):
    """A record has one claim: whoever looks sees what it claims now."""
    conflict.feed(linked(GEOTAB, customer="oops", occurred_at=NOW + 1))
    assert conflict.letter().reason == Reason.CUSTOMER_NOT_FOUND
    assert [letter.reason for letter in conflict.letters("superseded")] == [Reason.CONFLICT]
    conflict.feed(linked(GEOTAB, customer=str(OTHER), occurred_at=NOW + 2))
    assert conflict.letters() == []
    assert conflict.slots("geotab_id", (N, OTHER)) == ["999", GEOTAB.id]


def test_what_blocked_a_letter_that_was_closed_since_wakes_nobody(conflict):
    conflict.feed(linked(GEOTAB, customer=str(OTHER), occurred_at=NOW + 1))
    conflict.control.edit_customer(N, geotab_id=None)
    conflict.feed(linked(CONTACT))
    assert conflict.waiting() == set()
    assert conflict.customer(N).geotab_id is None
