"""From a due mailbox to the customer: real Redis, the real client, a simulated Fusebill over HTTP.

Everything of a worker but the process and Celery around it, so that each way a convergence can
end is seen quickly.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
import redis

from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from simulators.fusebill.server import SimulatedFusebill
from sync_worker import events, store
from sync_worker.converge import BUSY_SECONDS, Ended
from sync_worker.domain import Reason, Record, RecordType, Source
from sync_worker.fusebill import answers
from sync_worker.status import read_status
from tests.changes import (
    ACCOUNT,
    COMPANY,
    CONTACT,
    GEOTAB,
    NOW,
    associated,
    deleted,
    linked,
    touched,
    unlinked,
)
from tests.worlds import OTHER, N, World


@pytest.fixture
def world(client: redis.Redis, fusebill: SimulatedFusebill) -> Iterator[World]:
    fusebill.control.reset()
    fusebill.control.put_customers(Customer(id=N), Customer(id=OTHER))
    made = World(client, fusebill, hubspot_latch_company="property")
    yield made
    made.close()


CASES = {
    "contact": (CONTACT, "/v1/HubSpot/latchCustomer", "hub_spot_id", int(CONTACT.id)),
    "company": (COMPANY, "/v1/HubSpot/latchCustomer", "hub_spot_company_id", int(COMPANY.id)),
    "account": (ACCOUNT, "/v1/Salesforce/Latch", "salesforce_id", ACCOUNT.id[:15]),
    "geotab": (GEOTAB, "/v1/Geotab/LatchCustomer", "geotab_id", GEOTAB.id),
}


@pytest.mark.parametrize(("record", "path", "field", "value"), CASES.values(), ids=CASES)
def test_a_claim_is_latched_with_one_read_and_one_write(world, record, path, field, value):
    assert world.feed(linked(record)) is Ended.SETTLED
    assert world.last() == ("latched", f"customer {N}")
    assert [called for called, _ in world.writes()] == [path]
    assert world.reads() == 1
    assert str(getattr(world.customer(), field))[:15] == str(value)[:15]


@pytest.mark.parametrize(("record", "path", "field", "value"), CASES.values(), ids=CASES)
def test_b5_1_the_same_claim_again_costs_one_read_and_no_write(world, record, path, field, value):
    """With dedupe out of the way: correct without it (B2.11). Also our own write's echo."""
    world.feed(linked(record))
    world.control.clear_calls()
    world.feed(linked(record))
    assert world.last() == ("unchanged", "already latched")
    assert world.writes() == []
    assert world.reads() == 1


@pytest.mark.parametrize("record", [CONTACT, COMPANY, GEOTAB], ids=["contact", "company", "geotab"])
def test_an_unlink_finds_its_customer_by_the_link_index(world, record):
    world.feed(linked(record))
    world.control.clear_calls()
    assert world.feed(unlinked(record, occurred_at=NOW + 1)) is Ended.SETTLED
    assert world.last() == ("unlatched", f"customer {N}")
    assert len(world.writes()) == 1
    customer = world.customer()
    assert (customer.hub_spot_id, customer.hub_spot_company_id, customer.geotab_id) == (None,) * 3
    assert world.feed(unlinked(record, occurred_at=NOW + 2)) is Ended.POSTPONED
    world.sweep()  # a person may have latched it anywhere since (B4.5)
    world.converge(record)
    assert world.last() == ("unchanged", "no customer holds it")
    assert len(world.writes()) == 1


def test_b4_5_an_unlink_of_what_another_hand_moved_is_found_by_a_sweep(world):
    """The index knows whom it left, not where it went."""
    world.feed(linked(GEOTAB))
    world.control.edit_customer(N, geotab_id=None)
    world.control.edit_customer(OTHER, geotab_id=GEOTAB.id)
    for n in (1, 2):
        assert world.feed(unlinked(GEOTAB, occurred_at=NOW + n)) is Ended.POSTPONED
        assert world.waits_seconds(GEOTAB) > 60
    assert world.letters() == []
    assert world.customer(OTHER).geotab_id == GEOTAB.id
    assert world.sweep()
    assert world.converge(GEOTAB) is Ended.SETTLED
    assert world.last() == ("unlatched", f"customer {OTHER}")
    assert world.customer(OTHER).geotab_id is None


def test_b5_4_latch_and_release_keep_the_other_hub_spot_id(world):
    world.control.edit_customer(N, hub_spot_company_id=77)
    world.feed(linked(CONTACT))
    assert world.customer().hub_spot_company_id == 77
    world.feed(unlinked(CONTACT, occurred_at=NOW + 1))
    assert world.customer().hub_spot_company_id == 77
    assert world.customer().hub_spot_id is None
    assert world.writes()[-1] == (
        "/v1/HubSpot/latchCustomer",
        {"fusebillId": N, "hubSpotId": None, "hubSpotCompanyId": 77},
    )


def test_b5_4_a_read_that_took_long_is_made_again_before_the_other_id_is_kept(world):
    """The company slot changes by hand while a slow read is under way."""
    world.control.edit_customer(N, hub_spot_company_id=77)
    world.read_slowly(6, meanwhile={"hub_spot_company_id": 78})
    world.feed(linked(CONTACT))
    assert world.last() == ("latched", f"customer {N}")
    assert world.customer().hub_spot_company_id == 78
    assert [body["hubSpotCompanyId"] for _, body in world.writes()] == [78]


def test_b5_4_a_slow_read_is_not_unlatched_upon_either(world):
    world.feed(linked(CONTACT))
    world.control.clear_calls()
    world.read_slowly(6, meanwhile={"hub_spot_company_id": 78})
    world.feed(unlinked(CONTACT, occurred_at=NOW + 1))
    assert world.customer().hub_spot_company_id == 78
    assert world.customer().hub_spot_id is None


def test_b7_4_no_call_rests_on_an_old_read(world):
    """A person fills the slot during a read that took half a minute."""
    world.read_slowly(31, meanwhile={"geotab_id": "by hand"})
    world.feed(linked(GEOTAB))
    assert world.customer().geotab_id == "by hand"
    assert [letter.reason for letter in world.letters()] == [Reason.CONFLICT]


def test_a_fusebill_that_is_always_too_slow_is_waited_for(world):
    read = world.http.get_customer

    def slow(customer_id):
        world.now += 31
        return read(customer_id)

    world.http.get_customer = slow
    assert world.feed(linked(GEOTAB)) is Ended.POSTPONED
    assert world.writes() == []


def test_b3_3_an_account_comes_back_in_its_other_spelling_and_is_the_same(world):
    world.feed(linked(ACCOUNT))
    assert world.last()[0] == "latched"
    assert world.writes()[0][1]["salesforceId"] == ACCOUNT.id
    assert world.writes()[0][1]["forceLatch"] is False


def test_a_geotab_id_keeps_its_zeros(world):
    record = Record(Source.GEOTAB, "ACCT01", RecordType.CUSTOMER, "0909909")
    world.feed(linked(record))
    assert world.customer().geotab_id == "0909909"


@pytest.mark.parametrize("text", ["empty", "unknown"])
def test_a_geotab_id_may_read_like_a_state_of_a_slot(world, text):
    record = Record(Source.GEOTAB, "ACCT01", RecordType.CUSTOMER, text)
    world.feed(linked(record))
    assert world.customer().geotab_id == text
    world.feed(unlinked(record, occurred_at=NOW + 1))
    assert world.customer().geotab_id is None


def test_b3_9_a_burst_costs_one_read_and_one_write(world):
    world.feed(*(linked(occurred_at=NOW + n) for n in range(500)))
    assert (world.reads(), len(world.writes())) == (1, 1)
    assert sorted({outcome for outcome, _ in world.outcomes()}) == ["latched", "superseded"]


@pytest.mark.parametrize(("record", "path", "field", "value"), CASES.values(), ids=CASES)
def test_b5_5_an_occupied_slot_is_left_alone_and_a_person_asked(world, record, path, field, value):
    occupant = {"hub_spot_id": 9, "hub_spot_company_id": 9, "salesforce_id": "0015g00001LwZ4R"}
    world.control.edit_customer(N, **{field: occupant.get(field, "999")})
    world.feed(linked(record))
    assert world.writes() == []
    (letter,) = world.letters()
    assert letter.reason == Reason.CONFLICT
    assert letter.customer_ids == (N,)
    assert [attempt.status for attempt in letter.attempts] == [200]


def test_b3_7_without_evidence_nothing_is_displaced(world):
    world.control.edit_customer(N, geotab_id="999")
    world.feed(linked(GEOTAB, evidence=False))
    assert world.last() == ("unchanged", "claim is not newer than the latch")
    assert world.customer().geotab_id == "999"


def test_b5_6_a_salesforce_release_is_not_invented(world):
    world.feed(linked(ACCOUNT))
    world.feed(unlinked(ACCOUNT, occurred_at=NOW + 1))
    (letter,) = world.letters()
    assert letter.reason == Reason.UNLATCH_UNSUPPORTED
    assert len(world.writes()) == 1
    assert world.customer().salesforce_id is not None


def test_b5_6_a_salesforce_release_uses_the_path_that_is_set(world):
    world.control.set_options(salesforce_unlatch_path="/v1/Salesforce/Unlatch")
    world.use(fusebill_salesforce_unlatch_path="/v1/Salesforce/Unlatch")
    world.feed(linked(ACCOUNT))
    world.feed(unlinked(ACCOUNT, occurred_at=NOW + 1))
    assert world.writes()[-1] == ("/v1/Salesforce/Unlatch", {"fusebillId": N})
    assert world.customer().salesforce_id is None
    assert world.last()[0] == "unlatched"


def test_b3_4_an_unlink_that_names_a_customer_leaves_others_alone(world):
    world.control.edit_customer(OTHER, geotab_id=GEOTAB.id)
    world.feed(unlinked(GEOTAB, customer_id=str(N)))
    assert world.last() == ("unchanged", f"customer {N} does not hold it")
    assert world.customer(OTHER).geotab_id == GEOTAB.id


def test_b4_4_an_unknown_customer_is_waited_for_and_then_given_up(world):
    missing = 9999
    world.inbox.accept([linked(customer=str(missing))])
    for step in (5, 30, 120, 600, 1800):
        assert world.converge(CONTACT) is Ended.POSTPONED
        assert world.waits_seconds(CONTACT) == pytest.approx(step, abs=2)
        world.pass_time(CONTACT)
    assert world.converge(CONTACT) is Ended.SETTLED
    (letter,) = world.letters()
    assert letter.reason == Reason.CUSTOMER_NOT_FOUND
    assert letter.customer_ids == (missing,)
    assert [attempt.status for attempt in letter.attempts] == [404] * 6


def test_b4_4_a_customer_that_is_created_later_is_latched(world):
    world.feed(linked(customer="9999"))
    world.control.put_customers(Customer(id=9999))
    world.pass_time(CONTACT)
    world.converge(CONTACT)
    assert world.customer(9999).hub_spot_id == int(CONTACT.id)


def test_b4_4_an_id_that_is_no_number_calls_nobody(world):
    world.feed(linked(customer="NG-0042"))
    (letter,) = world.letters()
    assert letter.reason == Reason.CUSTOMER_NOT_FOUND
    assert "'NG-0042'" in letter.message
    assert world.control.calls() == []


TROUBLE = {
    "500": Fault(status=500, count=1),
    "503": Fault(status=503, count=1),
    "403": Fault(status=403, count=1),
    "redirect": Fault(status=302, count=1),
    "wrong address": Fault(status=404, count=1),
    "cut off": Fault(drop=True, count=1),
    "not a customer": Fault(not_a_customer="null", count=1),
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("fault", TROUBLE.values(), ids=TROUBLE)
def test_b6_1_trouble_that_may_pass_is_waited_out(world, fault, method):
    world.control.add_fault(msgspec.structs.replace(fault, method=method))
    assert world.feed(linked()) is Ended.POSTPONED
    assert world.waits_seconds(CONTACT) == pytest.approx(5, abs=2)
    assert world.letters() == []
    world.forget_suspicion()
    world.pass_time(CONTACT)
    world.converge(CONTACT)
    assert world.customer().hub_spot_id == int(CONTACT.id)
    assert world.last()[0] in ("latched", "unchanged")


def test_b5_3_a_lost_answer_is_read_before_anything_is_sent_again(world):
    """And once more when the lost call can land no more; nothing is settled before."""
    world.control.add_fault(Fault(method="POST", lose_answer=True, count=1))
    assert world.feed(linked()) is Ended.POSTPONED
    assert world.customer().hub_spot_id == int(CONTACT.id)
    world.pass_time(CONTACT)
    assert world.converge(CONTACT) is Ended.POSTPONED
    assert 80 < world.waits_seconds(CONTACT) <= 90
    assert world.outcomes() == []
    world.forget_suspicion()
    world.pass_time(CONTACT)
    world.converge(CONTACT)
    assert world.last() == ("unchanged", "already latched")
    assert len(world.writes()) == 1


def test_b5_3_a_write_that_lands_late_is_put_right(world):
    """The latch's answer is lost, an unlink finds nothing to do, then the latch lands after all."""
    world.control.add_fault(Fault(method="POST", drop=True, count=1))
    world.feed(linked(GEOTAB))
    assert world.feed(unlinked(GEOTAB, customer_id=str(N), occurred_at=NOW + 1)) is Ended.POSTPONED
    world.control.edit_customer(N, geotab_id=GEOTAB.id)
    world.forget_suspicion()
    world.pass_time(GEOTAB)
    world.converge(GEOTAB)
    assert world.customer().geotab_id is None
    assert world.last()[0] == "unlatched"


def test_b6_1_retries_come_to_an_end(world):
    world.use(retry_schedule_seconds=(1, 2), not_found_retries=2)
    world.control.add_fault(Fault(status=500, customer_id=N))
    world.inbox.accept([linked()])
    for _ in range(2):
        assert world.converge(CONTACT) is Ended.POSTPONED
        world.pass_time(CONTACT)
    assert world.converge(CONTACT) is Ended.SETTLED
    (letter,) = world.letters()
    assert letter.reason == Reason.RETRIES_EXHAUSTED
    assert [attempt.status for attempt in letter.attempts] == [500, 500, 500, 200]
    assert letter.attempts[-1].call.startswith("GET /v1/customers/?pageSize=1")


@pytest.mark.parametrize(
    ("record", "missing"),
    [
        (CONTACT, {"missing_hubspot_contacts": [int(CONTACT.id)]}),
        (ACCOUNT, {"missing_salesforce_accounts": [ACCOUNT.id]}),
    ],
    ids=["HubSpot", "Salesforce"],
)
def test_b6_1_a_relayed_not_found_is_tried_three_times_more(world, record, missing):
    world.control.set_options(**missing)
    world.inbox.accept([linked(record)])
    for _ in range(3):
        assert world.converge(record) is Ended.POSTPONED
        world.pass_time(record)
    assert world.converge(record) is Ended.SETTLED
    assert [letter.reason for letter in world.letters()] == [Reason.REJECTED]


def test_b6_5_a_409_is_read_again_before_it_is_final(world):
    """The slot came true while the call was on its way."""
    fault = Fault(method="POST", status=409, text="Already so.", applies=True)
    world.control.add_fault(fault)
    world.feed(linked())
    assert world.last() == ("unchanged", "already latched")
    assert world.letters() == []


def test_b6_5_a_customer_that_was_there_before_is_not_waited_for(world):
    world.feed(linked())
    world.control.delete_customer(N)
    world.feed(linked(COMPANY))
    (letter,) = world.letters()
    assert letter.reason == Reason.CUSTOMER_NOT_FOUND


def test_b6_5_what_cannot_be_helped_is_a_dead_letter_at_once(world):
    world.control.add_fault(Fault(method="POST", status=409, text="It breaks a business rule."))
    world.feed(linked())
    (letter,) = world.letters()
    assert letter.reason == Reason.REJECTED
    assert "business rule" in letter.message


def test_b6_2_a_rate_limit_uses_up_no_attempt(world):
    world.control.add_fault(Fault(status=429, count=1))
    assert world.feed(linked()) is Ended.POSTPONED
    assert 0 < world.waits_seconds(CONTACT) <= 61
    assert world.client.hget(f"sw:work:{CONTACT.mailbox}", "failures") == "0"


def test_b6_4_a_refused_key_uses_up_no_attempt_and_buries_nothing(world):
    world.control.add_fault(Fault(status=401, count=20))
    world.inbox.accept([linked()])
    assert world.converge(CONTACT) is Ended.POSTPONED
    for _ in range(19):
        world.probe()
        world.pass_time(CONTACT)
        assert world.converge(CONTACT) is Ended.NOT_DUE
    assert len(world.control.calls()) == 20
    assert world.letters() == []
    world.probe()
    world.converge(CONTACT)
    assert world.last()[0] == "latched"


def test_a_fault_of_our_own_loses_nothing(world, caplog):
    def broken(customer_id):
        raise KeyError("secret text")

    world.http.get_customer = broken
    assert world.feed(linked()) is Ended.POSTPONED
    assert "failed unexpectedly" in caplog.text
    del world.http.get_customer
    world.pass_time(CONTACT)
    world.converge(CONTACT)
    assert world.last()[0] == "latched"


@pytest.mark.parametrize("slot", ["hubSpotId", "hubSpotCompanyId"])
def test_b7_4_a_slot_missing_from_the_answer_is_not_written_over(world, slot, monkeypatch):
    whole = answers.parse_customer

    def without(payload):
        return whole({name: value for name, value in payload.items() if name != slot})

    monkeypatch.setattr(answers, "parse_customer", without)
    assert world.feed(linked()) is Ended.POSTPONED
    assert world.writes() == []


def test_a_write_that_had_no_effect_is_not_believed(world, monkeypatch):
    """B5.1: the customer that comes back is checked."""
    latch = world.http.latch_geotab
    monkeypatch.setattr(
        world.http, "latch_geotab", lambda customer_id, _: latch(customer_id, "something else")
    )
    assert world.feed(linked(GEOTAB)) is Ended.POSTPONED
    assert world.outcomes() == []


def test_b5_3_a_customer_that_another_mailbox_works_on_is_left_to_it(world):
    world.inbox.accept([linked(), linked(COMPANY)])
    claim = world.inbox.claim(CONTACT.mailbox)
    world.inbox.hold(claim, {N})
    assert world.converge(COMPANY) is Ended.BUSY
    assert world.control.calls() == []
    assert world.waits_seconds(COMPANY) <= BUSY_SECONDS
    world.inbox.postpone(claim, seconds=0, failures=0)
    world.pass_time(COMPANY)
    assert world.converge(COMPANY) is Ended.SETTLED


def test_b5_3_after_losing_its_lease_a_worker_sends_nothing_more(world):
    read = world.http.get_customer

    def meanwhile(customer_id):
        customer = read(customer_id)
        world.client.hset(f"sw:work:{CONTACT.mailbox}", "token", "another worker's")
        return customer

    world.http.get_customer = meanwhile
    assert world.feed(linked()) is Ended.LOST
    assert world.writes() == []
    assert world.outcomes() == []


def test_changes_that_come_meanwhile_are_worked_on_next(world):
    read = world.http.get_customer

    def meanwhile(customer_id):
        world.http.get_customer = read
        world.inbox.accept([unlinked(occurred_at=NOW + 1)])
        return read(customer_id)

    world.http.get_customer = meanwhile
    assert world.feed(linked()) is Ended.MORE
    assert world.converge(CONTACT) is Ended.SETTLED
    assert world.customer().hub_spot_id is None


def test_b3_8_a_late_old_change_regresses_nothing(world):
    world.feed(unlinked(GEOTAB, customer_id=str(N), occurred_at=NOW))
    world.feed(linked(GEOTAB, occurred_at=NOW - 1))
    assert world.last()[0] == "stale"
    assert world.customer().geotab_id is None


def test_b5_8_each_aspect_has_its_own_outcome(world):
    """The claim needs a person, what its company is does not."""
    world.use(hubspot_latch_company="primary")
    world.feed(linked(customer="oops"), associated("77"), touched())
    outcomes = {event.aspect: event.outcome for _, event in events.settled(world.client)}
    assert outcomes == {"link": "dead_letter", "company": "unchanged", "existence": "ignored"}
    assert world.letter().aspect == "link"


def test_b3_8_a_deletion_that_is_older_than_the_claim_is_overtaken_by_it(world):
    world.feed(linked(), deleted(occurred_at=NOW - 1))
    assert sorted(outcome for outcome, _ in world.outcomes()) == ["latched", "superseded"]
    assert world.customer().hub_spot_id == int(CONTACT.id)


def test_b3_7_a_soap_conflict_stays_a_conflict_however_often_it_comes(world):
    """Replayed or redelivered, the value no longer differs from the last one stored."""
    world.control.edit_customer(N, salesforce_id="0015g00001LwZ4R")
    world.feed(linked(ACCOUNT, customer=str(OTHER), evidence=None))
    world.feed(linked(ACCOUNT, evidence=None, occurred_at=NOW + 1))
    assert [letter.reason for letter in world.letters()] == [Reason.CONFLICT]
    world.feed(linked(ACCOUNT, evidence=None, occurred_at=NOW + 1))
    assert world.last() == ("dead_letter", "conflict")
    assert [(letter.id, letter.state) for letter in world.letters()] == [("1", "open")]
    world.replay()
    world.converge(ACCOUNT)
    assert [(letter.id, letter.state) for letter in world.letters()] == [("1", "open")]


def test_b3_7_the_first_soap_message_is_no_evidence(world):
    world.control.edit_customer(N, salesforce_id="0015g00001LwZ4R")
    world.feed(linked(ACCOUNT, evidence=None))
    assert world.last() == ("unchanged", "claim is not newer than the latch")
    assert world.customer().salesforce_id == "0015g00001LwZ4R"
    assert world.letters() == []


def test_b10_3_the_audit_and_the_log_quote_no_value_of_a_record(world, caplog):
    caplog.set_level("DEBUG")
    world.feed(linked(customer="jane.doe@northgate.example"))
    assert "northgate" in world.letters()[0].message
    assert "northgate" not in str(world.client.xrange("sw:audit"))
    assert "northgate" not in caplog.text


def test_b6_10_a_correction_closes_the_dead_letter(world):
    world.feed(linked(customer="oops"))
    assert len(world.letters()) == 1
    world.feed(linked(occurred_at=NOW + 1))
    assert world.letters() == []


def test_b7_1_the_limits_that_fusebill_tells_are_shown(world):
    world.control.set_options(minute_limit=50, day_limit=5000)  # a sandbox
    world.feed(linked())
    told = read_status(world.client, account=world.links.account, calls=(900, 150_000))
    assert told.budget["minute"]["limit"] == 50
    assert told.budget["minute"]["left"] == 48
    assert told.budget["day"] == {"limit": 5000, "left": 4998}


def test_a_store_that_fails_half_way_leaves_the_mailbox_to_its_lease(world, monkeypatch):
    def gone(*_, **__):
        raise store.StoreError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(world.inbox, "settle", gone)
        with pytest.raises(store.StoreError):
            world.feed(linked())
    world.client.hset(f"sw:work:{CONTACT.mailbox}", "until", 1)
    world.client.delete(f"sw:lease:{N}")
    world.pass_time(CONTACT)
    assert world.converge(CONTACT) is Ended.POSTPONED  # the write might have been a lost one
    world.forget_suspicion()
    world.pass_time(CONTACT)
    assert world.converge(CONTACT) is Ended.SETTLED
    assert world.last() == ("unchanged", "already latched")
