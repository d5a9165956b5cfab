"""Traps that the vendors' systems lay, one by one: each ends with the right ids on the customers,
and with a person asked where nothing else is safe. Real HTTP on every side.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from simulators.fusebill import query as fusebill_query
from simulators.fusebill.customer import Customer
from sync_worker import events, replay
from sync_worker.converge import Ended
from sync_worker.domain import Reason, Record, RecordType, Source
from sync_worker.status import read_status
from tests import receiving
from tests.changes import (
    ACCOUNT,
    CONTACT,
    GEOTAB,
    NOW,
    deleted,
    hinted,
    linked,
    named,
    unlinked,
)
from tests.worlds import OTHER, THIRD, N, World

ELSE = named(CONTACT, "512340077990")
"""Another contact."""

OTHER_ACCOUNT = named(ACCOUNT, "0015g00001LwZ4RAAV")

UNLATCH = "/v1/Salesforce/Unlatch"


# --- Salesforce ids


@pytest.mark.parametrize("sent", [ACCOUNT.id, ACCOUNT.id[:15]], ids=["18", "15"])
@pytest.mark.parametrize("form", [15, 18, "both"])
def test_b3_3_an_account_is_the_same_in_15_and_18_characters(world, sent, form):
    """Told in either, answered in 15, asked for in both: one mailbox, one latch, one release."""
    world.control.set_options(salesforce_query_form=form, salesforce_unlatch_path=UNLATCH)
    world.use(fusebill_salesforce_unlatch_path=UNLATCH)
    world.deliver("salesforce.soap.linked", record_id=sent)
    world.deliver("salesforce.cdc.update", record_id=ACCOUNT.id)
    assert world.waiting() == {ACCOUNT.mailbox}
    world.work()
    assert [body["salesforceId"] for _, body in world.writes()] == [ACCOUNT.id]
    world.client.delete(*world.client.keys("sw:link:*"))  # a store that lost its tail
    world.deliver("salesforce.cdc.clear", record_id=sent)
    world.work()
    assert world.customer().salesforce_id is None
    assert len(world.writes()) == 2


def test_b3_3_ids_that_differ_in_case_alone_are_two_accounts(world):
    """15 characters tell them apart by case; 18 do so without."""
    upper, lower = "0015g00001LWZ3K", "0015g00001lwz3k"
    world.deliver("salesforce.cdc.update", record_id=upper)
    world.deliver("salesforce.cdc.update", record_id=lower, customer_id=str(OTHER))
    world.work()
    assert world.slots("salesforce_id", (N, OTHER)) == [upper, lower]


# --- a cleared field that SOAP leaves out (B3.2)


@pytest.mark.parametrize("seen", [True, False], ids=["definition seen", "never seen"])
@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_b3_2_a_link_field_that_soap_leaves_out(world, on, seen):
    """It means a cleared one only if the setting says so and this definition was seen with it."""
    world.control.set_options(salesforce_unlatch_path=UNLATCH)
    world.use(
        salesforce_absent_means_cleared=on, fusebill_salesforce_unlatch_path=UNLATCH, dedupe_hours=0
    )
    if seen:
        world.deliver("salesforce.soap.linked")
    else:
        world.deliver("salesforce.cdc.update")
    world.work()
    assert world.customer().salesforce_id == ACCOUNT.id[:15]
    world.deliver("salesforce.soap.touched")
    world.work()
    released = on and seen
    assert world.customer().salesforce_id == (None if released else ACCOUNT.id[:15])
    expected = ("unlatched", f"customer {N}") if released else ("ignored", "needs read access")
    assert world.last() == expected


def test_b3_2_a_field_left_out_of_a_record_that_never_had_it_releases_nobody(world):
    """A latch made by hand, and a message that is about something else."""
    world.use(salesforce_absent_means_cleared=True, fusebill_salesforce_unlatch_path=UNLATCH)
    world.deliver("salesforce.soap.linked", record_id=OTHER_ACCOUNT.id, customer_id=str(OTHER))
    world.work()
    world.control.edit_customer(N, salesforce_id=ACCOUNT.id)
    world.deliver("salesforce.soap.touched", event_id="04l5g00000Qm7XbAAJ")
    world.work()
    assert world.customer().salesforce_id == ACCOUNT.id[:15]
    assert world.last() == ("ignored", "the link field is not known to have been filled")


def test_b3_2_a_nil_field_is_a_cleared_one(world):
    world.control.set_options(salesforce_unlatch_path=UNLATCH)
    world.use(fusebill_salesforce_unlatch_path=UNLATCH)
    world.deliver("salesforce.soap.linked")
    world.work()
    world.deliver("salesforce.soap.unlinked", event_id="04l5g00000Qm7XbAAJ")
    world.work()
    assert world.customer().salesforce_id is None


# --- Geotab ids


@pytest.mark.parametrize("id_", ["0909909", "000", "1e5", "0x10", "12345678901234567890123"])
def test_b3_4_a_geotab_id_stays_the_text_it_is(world, id_):
    record = Record(Source.GEOTAB, "ACCT01", RecordType.CUSTOMER, id_)
    world.deliver("geotab.linked", record_id=id_)
    world.work()
    assert world.customer().geotab_id == id_
    assert world.writes() == [
        ("/v1/Geotab/LatchCustomer", {"fusebillId": N, "geotabId": id_}),
    ]
    assert world.outcomes_of(record) == ["latched"]
    world.deliver("geotab.unlinked", record_id=id_.lstrip("0") or "1")
    world.work()
    if id_.startswith("0") and id_ != "0x10":
        assert world.customer().geotab_id == id_  # without its zeros it is another one


def test_b3_4_a_geotab_id_that_comes_as_a_number_is_refused(world):
    body = msgspec.json.decode(world.sample("geotab.linked").body)
    body["events"][0]["reseller_customer_id"] = 909909
    world.send(receiving.geotab(body))
    world.work()
    assert world.letter().reason == Reason.UNDECODABLE
    assert world.control.calls() == []


# --- queries that find too many


REFERENCE = "NG-0042"


def test_b4_2_a_server_that_ignores_an_unknown_filter_finds_nobody(world, monkeypatch):
    """It returns everybody; each row is checked, so nobody is latched by chance."""
    monkeypatch.delitem(fusebill_query.QUERYABLE, "reference")
    world.feed(hinted(reference=REFERENCE))
    assert world.waits_seconds(CONTACT) == pytest.approx(5, abs=2)  # retried (B4.4)
    assert world.writes() == []
    world.control.edit_customer(OTHER, reference=REFERENCE)
    world.pass_time(CONTACT)
    world.work()
    assert world.contacts() == [None, int(CONTACT.id), None]


def test_b4_2_a_server_that_ignores_the_filter_on_salesforce_ids_releases_nobody(
    world, monkeypatch
):
    monkeypatch.delitem(fusebill_query.QUERYABLE, "salesforceid")
    world.control.set_options(salesforce_unlatch_path=UNLATCH)
    world.use(fusebill_salesforce_unlatch_path=UNLATCH)
    for customer in (N, OTHER):
        world.control.edit_customer(customer, salesforce_id=f"0015g00001LwZ{customer % 10}X")
    world.deliver("salesforce.cdc.clear")
    world.settle()
    assert world.last()[0] == "unchanged"
    assert world.writes() == []
    assert world.control.calls(path="/customers/[0-9]") == []  # nor is everybody read


def test_b4_2_a_reference_of_two_customers_is_ambiguous(world):
    for customer in (N, OTHER):
        world.control.edit_customer(customer, reference=REFERENCE)
    world.feed(hinted(reference=REFERENCE))
    letter = world.letter()
    assert (letter.reason, letter.customer_ids) == (Reason.AMBIGUOUS_MATCH, (N, OTHER))
    assert world.writes() == []
    world.feed(linked(occurred_at=NOW + 1))  # the cure that the letter names
    assert world.letters() == []
    assert world.contacts() == [int(CONTACT.id), None, None]


MAREN = "maren@northgate.example"
SHARED = {
    "the same": (MAREN, MAREN),
    "among others": (f"a@northgate.example; {MAREN}", f"{MAREN}, b@northgate.example"),
    "in other letters": (MAREN.upper(), MAREN),
}


@pytest.fixture
def by_email(world: World) -> World:
    world.use(match_by=("id", "link", "reference", "email"))
    return world


@pytest.mark.parametrize(("one", "other"), SHARED.values(), ids=SHARED)
def test_b4_2_an_email_of_two_customers_is_ambiguous(by_email, one, other):
    by_email.control.edit_customer(N, primary_email=one)
    by_email.control.edit_customer(OTHER, primary_email=other)
    by_email.deliver("hubspot.contact.email", email=MAREN)
    by_email.work()
    letter = by_email.letter()
    assert (letter.reason, letter.customer_ids) == (Reason.AMBIGUOUS_MATCH, (N, OTHER))
    assert by_email.writes() == []


@pytest.mark.parametrize("theirs", ["x" + MAREN, MAREN + ".example", "maren@northgate.exam"])
def test_b4_1_an_email_matches_whole_addresses_only(by_email, theirs):
    by_email.control.edit_customer(N, primary_email=f"a@b.example; {theirs}")
    by_email.deliver("hubspot.contact.email", email=MAREN)
    by_email.work()
    assert by_email.last() == ("ignored", "no customer has this email")
    by_email.control.edit_customer(N, primary_email=f"a@b.example; {MAREN.title()}")
    by_email.feed(hinted(email=MAREN, occurred_at=by_email.store_ms()))
    assert by_email.contacts() == [int(CONTACT.id), None, None]


def test_b4_1_a_cancelled_customer_shares_no_email(by_email):
    by_email.control.edit_customer(N, primary_email=MAREN)
    by_email.control.edit_customer(OTHER, primary_email=MAREN, status="Cancelled")
    by_email.deliver("hubspot.contact.email", email=MAREN)
    by_email.work()
    assert by_email.contacts() == [int(CONTACT.id), None, None]


def test_b4_1_an_email_displaces_nobody(by_email):
    by_email.control.edit_customer(N, primary_email=MAREN, hub_spot_id=9)
    by_email.deliver("hubspot.contact.email", email=MAREN)
    by_email.work()
    assert by_email.last() == ("unchanged", "claim is not newer than the latch")
    assert by_email.contacts() == [9, None, None]


def test_b3_8_after_an_unlink_no_email_latches_the_record_again(by_email):
    by_email.control.edit_customer(N, primary_email=MAREN)
    by_email.deliver("hubspot.contact.linked")
    by_email.work()
    by_email.deliver("hubspot.contact.unlinked")
    by_email.work()
    by_email.deliver("hubspot.contact.email", email=MAREN)
    by_email.work()
    assert by_email.contacts() == [None, None, None]
    assert by_email.last()[0] == "superseded"


@pytest.mark.parametrize("sign", [";", ":", ",", "*", "|"])
def test_b4_3_a_value_that_the_grammar_cannot_carry_is_asked_of_nobody(world, sign):
    world.feed(hinted(reference=f"NG{sign}0042"))
    assert world.letter().reason == Reason.CUSTOMER_NOT_FOUND
    assert world.control.calls() == []


# --- bursts and repeats


def test_b3_9_a_burst_of_500_changes_is_one_decision(world):
    """As the door takes it: one request, one read, one write."""
    built = msgspec.json.decode(world.sample("hubspot.contact.linked").body)[0]
    burst = [
        {**built, "eventId": n, "occurredAt": built["occurredAt"] + n, "propertyValue": str(value)}
        for n, value in enumerate([OTHER, THIRD] * 249 + [OTHER, N])
    ]
    assert world.send(receiving.hubspot(burst)).json["accepted"] == 500
    world.work()
    assert world.reads() <= 1
    assert len(world.writes()) == 1
    assert world.contacts() == [int(CONTACT.id), None, None]
    assert sorted(set(world.outcomes_of(CONTACT))) == ["latched", "superseded"]
    assert len(world.outcomes_of(CONTACT)) == 500


@pytest.fixture
def batch(world: World) -> Any:
    """A hundred contacts, each linked to a customer of its own, and all worked on."""
    world.use(dedupe_hours=0)
    numbers = range(100)
    world.control.put_customers(*(Customer(id=9_000_000 + n) for n in numbers))
    built = msgspec.json.decode(world.sample("hubspot.contact.linked").body)[0]
    sent = [
        {**built, "eventId": n, "objectId": 1000 + n, "propertyValue": str(9_000_000 + n)}
        for n in numbers
    ]
    world.send(receiving.hubspot(sent))
    world.work()
    assert len(world.writes()) == 100
    world.control.clear_calls()
    return sent


def test_b2_11_a_batch_that_is_sent_again_is_stored_once(world, batch):
    world.use()  # with dedupe
    world.send(receiving.hubspot(batch))
    world.work()
    again = world.send(receiving.hubspot(batch)).json
    assert (again["accepted"], again["duplicates"]) == (0, 100)
    assert world.waiting() == set()


def test_b2_11_a_batch_that_is_sent_again_costs_no_call_without_dedupe(world, batch):
    """What was settled for good is known by its identity, and is not even read."""
    assert world.send(receiving.hubspot(batch)).json["accepted"] == 100
    world.work()
    assert world.control.calls() == []
    assert [outcome for outcome, _ in world.outcomes()[-100:]] == ["unchanged"] * 100


def test_b3_6_what_a_person_undid_is_not_done_again_by_a_redelivery(world, batch):
    """The batch comes again hours later: what was changed since, stays."""
    world.control.edit_customer(9_000_000, hub_spot_id=None)
    world.send(receiving.hubspot(batch))
    world.work()
    assert world.customer(9_000_000).hub_spot_id is None


def test_b2_11_what_could_not_be_done_is_tried_again_when_it_is_sent_again(world):
    """A redelivery of a conflict is judged anew; it finds the slot free by now."""
    world.use(dedupe_hours=0)
    world.control.edit_customer(N, hub_spot_id=9)
    sent = world.sample("hubspot.contact.linked")
    world.send(sent)
    world.work()
    assert world.letter().reason == Reason.CONFLICT
    world.control.edit_customer(N, hub_spot_id=None)
    world.send(sent)
    world.work()
    assert world.contacts() == [int(CONTACT.id), None, None]
    assert world.letters() == []


# --- dry run (B5.9)


@pytest.fixture
def dry(world: World) -> World:
    """A latch, a release, a move and a conflict are due; nothing may be written."""
    world.feed(linked(GEOTAB))
    world.feed(linked(named(GEOTAB, "2"), customer=str(OTHER)))
    world.control.clear_calls()
    world.use(dry_run=True)
    world.inbox.accept(
        [
            linked(CONTACT),
            unlinked(GEOTAB, occurred_at=NOW + 1),
            linked(named(GEOTAB, "2"), customer=str(THIRD), occurred_at=NOW + 1),
            linked(ELSE, customer="oops"),
        ]
    )
    world.work()
    return world


def test_b5_9_a_dry_run_writes_nothing_and_says_what_it_would(dry):
    assert dry.writes() == []
    assert dry.reads() > 0
    latest = {event.record: event.outcome for _, event in events.settled(dry.client)}
    assert latest == {
        CONTACT.mailbox: "would_latch",
        GEOTAB.mailbox: "would_unlatch",
        named(GEOTAB, "2").mailbox: "would_move",
        ELSE.mailbox: "dead_letter",
    }
    assert dry.slots("geotab_id") == [GEOTAB.id, "2", None]
    assert dry.waiting() == set()
    assert read_status(dry.client).would == 3


def test_b5_9_a_dry_run_moves_no_watermark_and_counts_no_release(dry):
    assert dry.client.zcard("sw:releases") == 0
    assert not dry.client.exists(f"sw:mark:{CONTACT.mailbox}")
    assert dry.client.hget(f"sw:mark:{GEOTAB.mailbox}", "link") == str(NOW)


def test_b5_9_what_a_dry_run_kept_is_applied_later(dry):
    dry.use()
    done = dry.apply_dry_run()
    assert (done.planned, done.replayed, done.skipped) == (3, 3, [])
    dry.work()
    assert dry.slots("geotab_id") == [None, None, "2"]
    assert dry.contacts() == [int(CONTACT.id), None, None]
    assert dry.outcomes_of(GEOTAB)[-1] == "unlatched"
    assert dry.outcomes_of(CONTACT)[-1] == "latched"
    assert dry.outcomes_of(named(GEOTAB, "2"))[-1] == "moved"
    assert read_status(dry.client).would == 0
    assert dry.apply_dry_run().planned == 0


def test_b5_9_one_outcome_is_applied_by_itself(dry):
    dry.use()
    assert dry.apply_dry_run("would_latch").replayed == 1
    dry.work()
    assert dry.contacts() == [int(CONTACT.id), None, None]
    assert dry.slots("geotab_id") == [GEOTAB.id, "2", None]
    assert read_status(dry.client).would == 2


def test_b5_9_a_change_that_came_for_real_since_is_not_regressed(dry):
    """B6.10: a replay is judged like a change that arrives now with its old time."""
    dry.use()
    dry.feed(linked(CONTACT, customer=str(OTHER), occurred_at=NOW + 5))
    dry.apply_dry_run("would_latch")
    dry.work()
    assert dry.contacts() == [None, int(CONTACT.id), None]
    assert dry.outcomes_of(CONTACT)[-1] == "stale"


def test_b5_9_a_dead_letter_that_is_replayed_after_a_dry_run_is_no_longer_kept(world):
    world.refuse(N)
    world.feed(linked(GEOTAB))
    world.control.clear_faults()
    world.use(dry_run=True)
    world.replay()
    world.work()
    assert world.outcomes_of(GEOTAB)[-1] == "would_latch"
    assert read_status(world.client).would == 1
    world.use()
    world.replay()
    assert read_status(world.client).would == 0, "it is decided anew"
    assert world.client.keys("sw:would*") == []
    world.work()
    assert world.outcomes_of(GEOTAB)[-1] == "latched"
    assert world.letters("open", "replaying") == []


def test_b5_9_a_dry_run_in_a_dry_run_keeps_what_it_put_back(dry):
    assert dry.apply_dry_run().replayed == 3
    dry.work()
    assert dry.writes() == []
    assert read_status(dry.client).would == 3
    assert isinstance(replay.plan_dry_run(dry.client, replay.KeptFilter()), replay.DryRunPlan)


def test_b5_9_a_dry_run_closes_no_dead_letter(dry):
    dry.feed(linked(ELSE, occurred_at=NOW + 1))
    assert dry.last()[0] == "would_latch"
    assert [letter.mailbox for letter in dry.letters()] == [ELSE.mailbox]


def test_b3_12_a_release_that_is_asked_for_anew_waits_for_no_grace(world):
    """A person replays it: what might explain it has had its time."""
    world.feed(linked(ELSE))
    world.use(dry_run=True, release_grace_seconds=0)
    world.feed(deleted(ELSE, occurred_at=NOW + 1))
    assert world.last()[0] == "would_unlatch"
    world.use()
    world.apply_dry_run()
    assert world.converge(ELSE) is Ended.SETTLED
    assert world.contacts() == [None, None, None]
