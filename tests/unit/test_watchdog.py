"""When a worker is taken for deaf, and when it never is (B6.7)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker import watchdog
from sync_worker.watchdog import DEAF_SECONDS, MOST_GAP_SECONDS, Look, Watch


@dataclass(frozen=True)
class Second:
    """What a second brings."""

    waits: bool = True
    free: bool = True
    takes: int = 0
    lasts: float = 1.0


DEAF = Second()

RESCUES = {
    "the queues are empty, or Redis is away": Second(waits=False),
    "all children work": Second(free=False),
    "a message is taken": Second(takes=1),
    "the process itself stood still": Second(lasts=MOST_GAP_SECONDS + 0.1),
}


def deaf_at(seconds: list[Second]) -> float | None:
    """When the worker is taken for deaf, None if never."""
    watch, at, taken = Watch(), 0.0, 0
    for one in seconds:
        at, taken = at + one.lasts, taken + one.takes
        if watch.is_deaf(Look(at=at, waits=one.waits, free=one.free, taken=taken)):
            return at
    return None


def test_b6_7_a_worker_that_takes_nothing_is_deaf_after_the_time_and_not_before():
    enough = round(DEAF_SECONDS)
    assert deaf_at([DEAF] * enough) is None
    assert deaf_at([DEAF] * (enough + 1)) == DEAF_SECONDS + 1


@pytest.mark.parametrize("rescue", RESCUES.values(), ids=RESCUES)
def test_one_sign_of_life_begins_the_time_anew(rescue: Second):
    nearly = [DEAF] * (round(DEAF_SECONDS) - 1)
    assert deaf_at([*nearly, rescue, *nearly]) is None
    assert deaf_at([*nearly, rescue, *nearly, DEAF, DEAF]) is not None


def test_a_busy_worker_is_never_deaf_however_long_its_tasks_take():
    assert deaf_at([Second(free=False)] * 10_000) is None


def test_an_idle_worker_and_one_without_redis_are_never_deaf():
    assert deaf_at([Second(waits=False)] * 10_000) is None


seconds = st.builds(
    Second,
    waits=st.booleans() | st.just(True),
    free=st.booleans() | st.just(True),
    takes=st.sampled_from([0, 0, 0, 0, 1, 5]),
    lasts=st.sampled_from([1.0, 1.0, 1.0, 2.0, 3.5, 6.0]),
)


@given(st.lists(seconds | st.just(DEAF), max_size=120))
def test_it_is_deaf_exactly_when_one_unbroken_stretch_was_long_enough(course: list[Second]):
    """Against the rule in its plainest form: look back from every moment."""
    assert deaf_at(course) == expected(course)


def expected(course: list[Second]) -> float | None:
    at = 0.0
    times = [at := at + one.lasts for one in course]
    for end in range(len(course)):
        begin = end
        while begin >= 0 and course[begin].waits and course[begin].free:
            if times[end] - times[begin] >= DEAF_SECONDS:
                return times[end]
            if course[begin].takes or course[begin].lasts > MOST_GAP_SECONDS:
                break
            begin -= 1
    return None


def test_its_last_words_are_one_sentence_and_the_exit_code_is_its_own(
    caplog: pytest.LogCaptureFixture,
):
    codes: list[int] = []
    leave: Callable[[int], None] = codes.append
    watchdog._end(leave)
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL
    assert f"took no message for {DEAF_SECONDS:g} s" in record.getMessage()
    assert codes == [watchdog.EXIT_CODE]
