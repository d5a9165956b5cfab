"""Gates: outages, refused credentials and an operator's pause (B6.3, B6.4), on a real Redis."""

from __future__ import annotations

import pytest

from simulators.control import Fault as CrmFault
from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from sync_worker import gates, store
from sync_worker.converge import Ended
from sync_worker.domain import Outcome, Source
from sync_worker.gates import FUSEBILL, OPERATOR, Gates, Turn, Verdict, look
from sync_worker.status import read_status
from tests.changes import ACCOUNT, COMPANY, CONTACT, GEOTAB, linked
from tests.processes import until
from tests.worlds import OTHER, THIRD, N


@pytest.fixture
def at(client):
    return Gates(client, breaker_failures=4)


def fail(at: Gates, *whom: str, gate: str = FUSEBILL) -> list[bool]:
    return [at.report(gate, Verdict.FAILED, whom=one, why="it timed out") for one in whom]


def breaker(at: Gates, gate: str = FUSEBILL) -> str:
    return look(at._client, gate)[0].breaker


def let_time_pass(client, gate: str = FUSEBILL, *, turn: bool = True) -> None:
    if turn:
        client.hset(f"sw:gate:{gate}", "probe_at", 1)


# --- the circuit


def test_b6_3_failures_in_a_row_from_three_customers_open_the_circuit(at, client):
    assert fail(at, "1", "2", "3") == [False] * 3
    assert breaker(at) == "closed"
    assert fail(at, "1") == [True]
    assert breaker(at) == "open"
    assert look(client, FUSEBILL)[0].open.text == "it timed out"


def test_b6_3_two_customers_that_always_fail_are_no_outage(at):
    assert not any(fail(at, *["1", "2"] * 50))
    assert breaker(at) == "closed"


def test_b6_3_a_list_is_no_customer_but_counts_as_a_failure(at):
    assert not any(fail(at, *[""] * 20, "1", "2"))
    assert fail(at, "3") == [True]


@pytest.mark.parametrize("verdict", [Verdict.ALIVE, Verdict.PROVEN])
def test_b6_3_any_other_answer_proves_life(at, verdict):
    fail(at, "1", "2", "3")
    at.report(FUSEBILL, verdict)
    assert not any(fail(at, "1", "2", "3"))
    assert fail(at, "4") == [True]
    assert at.report(FUSEBILL, verdict) is False
    assert breaker(at) == "closed"


def test_b6_3_a_new_streak_needs_three_customers_again(at):
    fail(at, "1", "2", "3")
    at.report(FUSEBILL, Verdict.ALIVE)
    assert not any(fail(at, *["1"] * 10))


def test_b6_3_each_remote_system_has_a_circuit_of_its_own(at):
    fail(at, "1", "2", "3", "4", gate=Source.HUBSPOT)
    assert [breaker(at, one) for one in (FUSEBILL, *Source)] == [
        *("closed", "open", "closed", "closed")
    ]


def test_b6_3_one_probe_at_a_time_and_one_each_so_many_seconds(at, client):
    assert at.to_probe() == []
    fail(at, "1", "2", "3", "4")
    assert at.to_probe() == []  # it has just failed
    assert at.take_turn(FUSEBILL, seconds=60) is None
    let_time_pass(client)
    assert at.to_probe() == [FUSEBILL]
    turn = at.take_turn(FUSEBILL, seconds=60)
    assert turn
    assert breaker(at) == "half-open"
    let_time_pass(client)
    assert at.to_probe() == []
    assert at.take_turn(FUSEBILL, seconds=60) is None  # the first is not over
    at.end_turn(Turn(FUSEBILL, "of another", 0))
    assert breaker(at) == "half-open"
    at.end_turn(turn)
    assert breaker(at) == "open"
    assert at.to_probe() == [FUSEBILL]
    assert at.take_turn(FUSEBILL, seconds=60)
    let_time_pass(client, turn=False)
    assert at.to_probe() == []


# --- refused credentials


def prove(at, client, gate=FUSEBILL):
    let_time_pass(client, gate)
    turn = at.take_turn(gate, seconds=60)
    shut = at.report(gate, Verdict.PROVEN, began=turn.began)
    at.end_turn(turn)
    return shut


def test_b6_4_refused_credentials_shut_the_gate_until_a_probe_succeeds(at, client):
    fail(at, "1", "2", "3")
    assert at.report(FUSEBILL, Verdict.REFUSED, why="401") is True
    assert at.report(FUSEBILL, Verdict.ALIVE) is True  # of a call that began before
    assert breaker(at) == "closed"
    assert at.to_probe() == []
    assert not at.were_renewed()
    assert prove(at, client) is False
    assert at.were_renewed()


def test_b6_4_the_first_refusal_is_the_one_that_is_told(at, client):
    at.report(FUSEBILL, Verdict.REFUSED, why="first")
    at.report(FUSEBILL, Verdict.REFUSED, why="second")
    assert look(client, FUSEBILL)[0].refused.text == "first"


def test_b6_4_a_success_that_began_before_the_refusal_lifts_nothing(at, client):
    """A probe of an open circuit is under way when the credentials are refused."""
    fail(at, "1", "2", "3", "4")
    let_time_pass(client)
    turn = at.take_turn(FUSEBILL, seconds=60)
    until(lambda: client.time()[1] // 1000 != turn.began % 1000)
    at.report(FUSEBILL, Verdict.REFUSED, why="401")
    assert at.report(FUSEBILL, Verdict.PROVEN, began=turn.began) is True
    assert look(client, FUSEBILL)[0].refused


def test_b6_4_who_still_has_the_old_credentials_does_not_stop_the_others_again(at, client):
    at.report(FUSEBILL, Verdict.REFUSED)
    assert prove(at, client) is False
    assert at.report(FUSEBILL, Verdict.REFUSED) is False  # of a call with the old ones
    at.note_renewed()
    assert at.report(FUSEBILL, Verdict.REFUSED) is True  # the new ones are no good either


def test_b6_4_credentials_that_were_read_while_two_systems_recovered_are_read_again(at, client):
    at.report(FUSEBILL, Verdict.REFUSED)
    at.report(Source.HUBSPOT, Verdict.REFUSED)
    prove(at, client)
    at.note_renewed()
    assert not at.were_renewed()
    prove(at, client, Source.HUBSPOT)
    assert at.were_renewed()


def test_an_outage_does_not_hasten_the_probe_of_refused_credentials(at, client):
    at.report(FUSEBILL, Verdict.REFUSED)
    later = client.hget(f"sw:gate:{FUSEBILL}", "probe_at")
    fail(at, "1", "2", "3", "4")
    assert client.hget(f"sw:gate:{FUSEBILL}", "probe_at") == later


# --- an operator's pause


def test_b6_4_only_resume_lifts_an_operators_pause(at, client):
    assert at.pause("moving | house") is True
    assert at.pause("again") is False
    for verdict in Verdict:
        at.report(FUSEBILL, verdict)
    assert look(client, OPERATOR)[0].paused.text == "moving | house"
    assert at.resume() is True
    assert at.resume() is False
    assert not at.is_shut(OPERATOR)


def test_resume_has_what_shut_by_itself_probed_at_once(at):
    at.report(FUSEBILL, Verdict.REFUSED)
    at.resume()
    assert at.to_probe() == [FUSEBILL]


def test_a_store_that_is_away_fails_no_call(client):
    away = Gates(store.connect("redis://127.0.0.1:1/0"), breaker_failures=4)
    assert away.report(FUSEBILL, Verdict.REFUSED) is False


# --- what waits


def test_b6_3_what_meets_a_shut_gate_is_parked_and_woken_when_it_opens(world, client):
    at = world.gates
    at.pause("")
    world.inbox.accept([linked(), linked(COMPANY)])
    due = client.zscore("sw:due", CONTACT.mailbox)
    assert world.converge(CONTACT) is Ended.NOT_DUE
    assert client.zscore("sw:wake", CONTACT.mailbox) is None
    assert client.zscore("sw:due", CONTACT.mailbox) == due  # the backlog's age stays true
    client.zadd("sw:wake", {COMPANY.mailbox: 1})
    assert world.inbox.wake(10, gates.ALL)[0] == [COMPANY.mailbox]
    at.resume()
    assert world.inbox.wake(10, gates.ALL)[0] == [CONTACT.mailbox]
    assert not client.exists(f"sw:parked:{OPERATOR}")
    assert world.converge(CONTACT) is Ended.SETTLED


def test_a_mailbox_that_is_not_due_any_more_is_not_woken_for_ever(world, client):
    world.inbox.accept([linked()])
    client.zadd("sw:due", {CONTACT.mailbox: world.store_ms() + 60_000})
    client.zadd("sw:wake", {CONTACT.mailbox: 1})
    assert world.converge(CONTACT) is Ended.NOT_DUE
    assert world.inbox.wake(10, gates.ALL)[0] == []


def test_b6_3_an_outage_uses_up_no_attempt_and_buries_nothing(world):
    """Even the first failures, by a schedule that one of them would exhaust."""
    world.use(retry_schedule_seconds=(1,), not_found_retries=1, breaker_failures=3)
    outage = world.control.add_fault(Fault(status=503))
    records = [CONTACT, GEOTAB, ACCOUNT]
    world.inbox.accept([linked(), linked(GEOTAB, str(OTHER))])
    world.inbox.accept([linked(ACCOUNT, str(THIRD))])
    for _ in range(4):
        for record in records:
            assert world.converge(record) in (Ended.POSTPONED, Ended.NOT_DUE)
            world.pass_time(record)
    assert read_status(world.client).breaker[FUSEBILL] == "open"
    calls = len(world.control.calls())
    for record in records:
        assert world.converge(record) is Ended.NOT_DUE
    assert len(world.control.calls()) == calls == 3
    assert (world.letters(), world.outcomes()) == ([], [])
    world.control.remove_fault(outage)
    world.probe()
    assert read_status(world.client).breaker[FUSEBILL] == "closed"
    for record in records:
        world.pass_time(record)
        world.converge(record)
    assert {outcome for outcome, _ in world.outcomes()} == {Outcome.LATCHED}


TROUBLE = {
    "an outage that one customer meets alone": Fault(status=503),
    "404 with Message": Fault(status=404),
    "redirect": Fault(status=302),
    "a page": Fault(not_a_customer="html"),
    "forbidden": Fault(status=403),
}


@pytest.mark.parametrize("fault", TROUBLE.values(), ids=TROUBLE)
def test_b6_1_nothing_is_given_up_before_fusebill_has_proved_itself(world, fault):
    """A wrong address, or an outage that opens no circuit: it waits, and nobody else with it."""
    world.use(retry_schedule_seconds=(60,), not_found_retries=1)
    wrong = world.control.add_fault(fault)
    world.inbox.accept([linked()])
    for _ in range(5):
        assert world.converge(CONTACT) is Ended.POSTPONED
        assert world.waits_seconds(CONTACT) > 50
        world.pass_time(CONTACT)
    assert (world.letters(), world.outcomes()) == ([], [])
    assert not world.gates.is_shut(FUSEBILL)
    (told,) = read_status(world.client).outages
    assert (told.owner, "GET /v1/customers/?pageSize=1" in told.why) == (FUSEBILL, True)
    world.control.remove_fault(wrong)
    assert world.converge(CONTACT) is Ended.SETTLED
    assert read_status(world.client).outages == []


def test_b6_4_who_meets_the_refusal_of_old_credentials_tries_again_soon(world, client):
    client.incr("sw:renewed")  # since this worker read its own
    world.control.add_fault(Fault(status=401, count=1))
    assert world.feed(linked()) is Ended.POSTPONED
    assert world.waits_seconds(CONTACT) <= 1
    assert read_status(client).paused == []


def test_b6_2_a_rate_limit_met_by_the_proof_is_no_reason_to_give_up(world):
    world.use(retry_schedule_seconds=(1,), not_found_retries=1)
    world.control.add_fault(Fault(status=500, customer_id=N))
    world.control.add_fault(Fault(status=429, path="pageSize=1|customers/$", count=1))
    world.inbox.accept([linked()])
    for _ in range(2):
        assert world.converge(CONTACT) is Ended.POSTPONED
        world.pass_time(CONTACT)
    assert world.letters() == []
    assert world.converge(CONTACT) is Ended.POOR  # nothing is called before the reset
    world.client.delete(f"sw:budget:{world.links.account}")
    assert world.converge(CONTACT) is Ended.SETTLED


def test_what_answers_in_another_tongue_is_no_end_of_an_outage(world):
    """A proxy's page where Fusebill should be, found by a probe."""
    at = world.gates
    for customer in "1234567890":
        at.report(FUSEBILL, Verdict.FAILED, whom=customer)
    page = world.control.add_fault(Fault(not_a_customer="html"))
    world.probe()
    assert at.is_shut(FUSEBILL)
    world.control.remove_fault(page)
    world.probe()
    assert not at.is_shut(FUSEBILL)


def test_b6_3_one_customer_that_always_fails_opens_no_circuit_and_ends(world):
    world.use(retry_schedule_seconds=(1, 1), not_found_retries=1, breaker_failures=3)
    world.control.add_fault(Fault(status=500, customer_id=N))
    world.inbox.accept([linked(), linked(GEOTAB, str(OTHER))])
    for _ in range(3):
        world.converge(CONTACT)
        world.pass_time(CONTACT)
    assert world.converge(GEOTAB) is Ended.SETTLED
    (letter,) = world.letters()
    assert letter.reason == "retries_exhausted"


def test_b6_4_status_says_who_refuses_and_what_to_do(world):
    world.control.add_fault(Fault(status=401))
    world.feed(linked())
    (told,) = read_status(world.client).paused
    assert told.owner == FUSEBILL
    assert "check FUSEBILL_API_KEY" in told.why


def test_b6_3_a_crm_that_is_away_stops_its_own_records_only(world, crms):
    world.use(Source.HUBSPOT, breaker_failures=3)
    crms.hubspot.control.add_fault(CrmFault(status=503))
    world.control.put_customers(Customer(id=OTHER))
    world.inbox.accept([linked(CONTACT), linked(COMPANY)])
    at = world.gates
    fail(at, "x", "y", gate=Source.HUBSPOT)
    world.converge(CONTACT)
    assert breaker(at, Source.HUBSPOT) == "open"
    assert world.converge(COMPANY) is Ended.NOT_DUE
    assert world.feed(linked(GEOTAB, str(OTHER))) is Ended.SETTLED
