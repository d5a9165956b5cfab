"""Which call meets which fault, and what contradicts itself."""

from __future__ import annotations

import pytest

from simulators.fusebill.faults import Fault, FaultBook


def met(book: FaultBook, *calls: tuple[str, str, int | None]) -> list[int | None]:
    return [active.id if (active := book.pick(*call)) else None for call in calls]


READ, LIST = ("GET", "/v1/customers/7", 7), ("GET", "/v1/customers/", None)
LATCH = ("POST", "/v1/HubSpot/latchCustomer", 7)


@pytest.mark.parametrize(
    ("fault", "reads", "lists", "latches"),
    [
        (Fault(drop=True), 1, 1, 1),
        (Fault(drop=True, method="post"), None, None, 1),
        (Fault(drop=True, path="hubspot/LATCH"), None, None, 1),
        (Fault(drop=True, path=r"customers/$"), None, 1, None),
        (Fault(drop=True, customer_id=7), 1, None, 1),
        (Fault(drop=True, customer_id=8), None, None, None),
        (Fault(drop=True, probability=0), None, None, None),
    ],
)
def test_a_fault_meets_the_calls_that_it_names(fault, reads, lists, latches):
    book = FaultBook()
    book.add(fault)
    assert met(book, READ, LIST, LATCH) == [reads, lists, latches]


def test_the_first_that_matches_happens_and_a_counted_one_gives_way():
    book = FaultBook()
    book.add(Fault(status=503, count=2))
    book.add(Fault(drop=True, method="POST"))
    assert met(book, LATCH, READ, LATCH, READ) == [1, 1, 2, None]
    assert [state.used for state in book.states()] == [2, 1]


def test_a_call_that_does_not_match_uses_up_no_count():
    book = FaultBook()
    book.add(Fault(drop=True, method="POST", count=1))
    assert met(book, READ, LATCH, LATCH) == [None, 1, None]


def test_the_same_seed_throws_the_same_dice():
    def run(seed: int) -> list[int | None]:
        book = FaultBook()
        book.add(Fault(drop=True, probability=0.3, seed=seed))
        return met(book, *[READ] * 200)

    assert run(1) == run(1) != run(2)
    assert 30 < run(1).count(1) < 90


def test_a_removed_or_released_fault_happens_no_more():
    book = FaultBook()
    first, second = book.add(Fault(drop=True)), book.add(Fault(status=500))
    book.release(first)
    assert met(book, READ) == [second]
    assert [state.id for state in book.states()] == [first, second]
    book.remove(second)
    assert met(book, READ) == [None]
    book.clear()
    assert book.states() == []
    for act in (book.remove, book.release):
        with pytest.raises(KeyError):
            act(second)


@pytest.mark.parametrize(
    ("fault", "takes_effect", "label"),
    [
        (Fault(latency_ms=1), True, "latency"),
        (Fault(hold="before"), True, "hold before"),
        (Fault(hold="after", lose_answer=True), True, "hold after, lose_answer"),
        (Fault(lose_answer=True), True, "lose_answer"),
        (Fault(drop=True), False, "drop"),
        (Fault(status=504), False, "status 504"),
        (Fault(status=504, applies=True), True, "status 504"),
        (Fault(not_a_customer="html"), False, "not_a_customer html"),
        (Fault(not_a_customer="null", applies=True), True, "not_a_customer null"),
    ],
)
def test_what_a_fault_lets_through_and_what_it_is_called(fault, takes_effect, label):
    assert fault.takes_effect is takes_effect
    assert fault.label == label


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"probability": 0.5},
        {"drop": True, "status": 500},
        {"lose_answer": True, "not_a_customer": "null"},
        {"text": "x", "drop": True},
        {"applies": True, "drop": True},
        {"drop": True, "path": "("},
    ],
)
def test_a_fault_that_contradicts_itself_is_refused(fields):
    with pytest.raises(ValueError, match=r"name|goes with|regular expression"):
        Fault(**fields)


def test_waiting_for_a_held_call_gives_up_in_time():
    book = FaultBook()
    fault_id = book.add(Fault(hold="before"))
    assert book.wait_holding(fault_id, 1, timeout=0.01).holding == 0
