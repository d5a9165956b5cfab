"""The log of calls: what it finds, and how it waits."""

from __future__ import annotations

import threading

import pytest

from simulators.fusebill import calls as calls_module
from simulators.fusebill.calls import CallLog, Wanted


def entry(**fields) -> dict:
    plain = {
        "at": 0.0,
        "method": "GET",
        "path": "/v1/customers/7",
        "query": {},
        "body": None,
        "raw_body_length": 0,
        "content_length_header": None,
        "customer_id": 7,
        "status": 200,
        "applied": False,
        "fault": None,
    }
    return {**plain, **fields}


@pytest.fixture
def log() -> CallLog:
    log = CallLog()
    log.append(**entry())
    log.append(**entry(method="POST", path="/v1/Geotab/LatchCustomer", applied=True))
    log.append(**entry(customer_id=None, status=None))
    return log


@pytest.mark.parametrize(
    ("wanted", "seqs"),
    [
        (Wanted(), [1, 2, 3]),
        (Wanted(since=1), [2, 3]),
        (Wanted(since=9), []),
        (Wanted(method="POST"), [2]),
        (Wanted(path="geotab/"), [2]),
        (Wanted(customer_id=7), [1, 2]),
        (Wanted(status=200, applied=False), [1]),
        (Wanted(applied=True), [2]),
    ],
)
def test_calls_are_found_by_what_they_were(log, wanted, seqs):
    assert [call.seq for call in log.read(wanted)] == seqs


def test_clearing_keeps_counting(log):
    log.clear()
    assert log.read(Wanted()) == []
    log.append(**entry())
    assert [call.seq for call in log.read(Wanted(since=2))] == [4]
    assert log.last_seq == 4


def test_a_wait_ends_with_the_call_that_completes_it(log):
    found = []
    waiter = threading.Thread(
        target=lambda: found.extend(log.read(Wanted(method="POST"), wait_for=3, timeout=60))
    )
    waiter.start()
    for _ in range(2):
        log.append(**entry())
        log.append(**entry(method="POST"))
    waiter.join(timeout=30)
    assert [call.seq for call in found] == [2, 5, 7]


def test_a_wait_that_is_not_met_gives_what_there_is(log):
    assert len(log.read(Wanted(), wait_for=4, timeout=0.01)) == 3


def test_the_log_keeps_the_newest_calls_only(log, monkeypatch):
    monkeypatch.setattr(calls_module, "KEPT_CALLS", 10)
    for _ in range(100):
        log.append(**entry())
    kept = [call.seq for call in log.read(Wanted())]
    assert 10 <= len(kept) <= 11
    assert kept[-1] == 103
    assert [call.seq for call in log.read(Wanted(since=101))] == [102, 103]
