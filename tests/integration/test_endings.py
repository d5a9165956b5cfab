"""How work ends that went wrong half-way: nothing forgotten, nothing for ever, nobody robbed."""

from __future__ import annotations

import msgspec

from simulators.fusebill.faults import Fault
from simulators.myadmin.contacts import Company, Contact
from sync_worker.converge import Ended
from sync_worker.domain import Reason, Source
from tests.changes import CONTACT, GEOTAB, NOW, deleted, linked, merged, named, restored, touched
from tests.mailboxes import claimed, write
from tests.worlds import OTHER, THIRD, N

LOSER = named(CONTACT, "512340077990")


def test_b5_3_a_customer_whose_lease_has_run_out_is_busy(world):
    """Another may have changed it since it was read: nothing is sent upon that."""
    world.inbox.accept([linked()])
    claim = claimed(world.inbox)
    assert world.inbox.hold(claim, {N})
    world.client.delete(f"sw:lease:{N}")
    assert world.inbox.hold(claim, {N}, to_write=write(N)) is None
    assert not world.client.exists(f"sw:suspect:{N}")


def test_b5_4_leases_that_are_slow_to_take_make_a_reading_old(world, monkeypatch):
    """What is preserved must have been read just before the call, not before a long wait."""
    hold = world.inbox.hold

    def slowly(claim, customers, *, to_write=None, **more):
        held = hold(claim, customers, to_write=to_write, **more)
        if to_write is not None and not world.writes():
            world.now += 60
            monkeypatch.setattr(world.inbox, "hold", hold)
            world.control.edit_customer(N, hub_spot_company_id=7)
        return held

    monkeypatch.setattr(world.inbox, "hold", slowly)
    assert world.feed(linked()) is Ended.SETTLED
    customer = world.customer()
    assert (customer.hub_spot_id, customer.hub_spot_company_id) == (int(CONTACT.id), 7)


def test_b5_2_what_was_let_go_of_is_put_back_if_the_record_is_not_found_any_more(world):
    world.use(Source.GEOTAB)
    world.crms.myadmin.contacts.put(carrying(1, GEOTAB.id), carrying(2, "another"))
    world.feed(linked(GEOTAB))
    world.control.add_fault(failing(OTHER))
    world.feed(linked(GEOTAB, customer=str(OTHER), occurred_at=NOW + 1))
    assert world.slots("geotab_id") == [None, None, None]
    world.crms.myadmin.contacts.delete(1)
    for _ in range(12):
        world.forget_suspicion()
        world.pass_time(GEOTAB)
        world.converge(GEOTAB)
    outcome, detail = world.last()
    assert outcome == "ignored"
    assert f"Put back {GEOTAB.id} to customer {N}" in detail
    assert world.slots("geotab_id") == [GEOTAB.id, None, None]


def test_b6_11_a_letter_about_a_merged_record_is_replayed_once(world):
    """Its change lies in what is left of the merge: there it is settled, and no more."""
    world.control.edit_customer(N, hub_spot_id=int(LOSER.id))
    world.control.edit_customer(OTHER, hub_spot_id=int(CONTACT.id))
    world.inbox.accept([linked(LOSER, customer=str(THIRD))])
    world.control.edit_customer(THIRD, hub_spot_id=99)
    world.inbox.accept([merged(CONTACT, LOSER.id, occurred_at=NOW + 1)])
    world.settle(CONTACT, LOSER)
    assert {letter.reason for letter in world.letters()} == {Reason.CONFLICT}
    for _ in range(2):
        world.replay()
        world.settle(CONTACT, LOSER)
    assert world.waiting() == set()
    assert {letter.state for letter in world.letters()} == {"open"}


def test_b6_10_a_replayed_letter_ends_whatever_its_change_ends_as(world):
    """A change of one aspect may have ended in a letter of another."""
    world.use(Source.HUBSPOT)
    contacts = world.crms.hubspot.world
    contacts.create("contacts", {"fusebill_id": str(N)}, id_=int(CONTACT.id))
    world.feed(linked())
    world.control.edit_customer(OTHER, hub_spot_id=99)
    contacts.set_property("contacts", int(CONTACT.id), "fusebill_id", str(OTHER))
    world.feed(touched(occurred_at=NOW + 1))
    assert world.letter().aspect == "link"
    contacts.set_property("contacts", int(CONTACT.id), "fusebill_id", "")
    world.replay()
    world.settle(CONTACT)
    assert world.letters() == []


def test_b2_9_a_change_of_a_former_tenant_writes_to_nobody(world):
    foreign = linked(msgspec.structs.replace(CONTACT, tenant="999"))
    world.feed(foreign)
    assert world.last() == ("ignored", "of another tenant")
    assert world.writes() == []


def test_b3_11_what_held_a_deleted_record_is_known_though_the_answer_was_lost(world):
    world.feed(linked())
    world.control.add_fault(failing(N, applies=True))
    world.inbox.accept([deleted(occurred_at=NOW + 1)])
    world.age(CONTACT, 60)
    world.converge(CONTACT)
    world.forget_suspicion()
    world.settle(CONTACT)
    assert world.last()[0] in ("unlatched", "unchanged")
    world.feed(restored(occurred_at=NOW + 2))
    assert world.customer().hub_spot_id == int(CONTACT.id)


def carrying(contact_id: int, id_: str) -> Contact:
    return Contact(
        id=contact_id,
        user_company=Company(id=99, name="Northgate Haulage", account=GEOTAB.tenant),
        reseller_customer_id=id_,
    )


def failing(customer: int, *, applies: bool = False) -> Fault:
    return Fault(method="POST", customer_id=customer, status=500, applies=applies, count=1)
