"""How customers are read with the fewest calls (B7.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.reading import MOST_IDS, Way, best_way

SINGLY, SET, SWEEP = Way.SINGLY, Way.SET, Way.SWEEP

CASES = {
    "nothing to read": (0, {"has_set": True, "pages": 1, "gain": 450}, SINGLY),
    "one customer costs a call in any way": (
        1,
        {"has_set": True, "pages": None, "gain": 0},
        SINGLY,
    ),
    "two in a set": (2, {"has_set": True, "pages": None, "gain": 0}, SET),
    "two without one": (2, {"has_set": False, "pages": None, "gain": 0}, SINGLY),
    "as many as one call asks for": (MOST_IDS, {"has_set": True, "pages": 2, "gain": 100}, SET),
    "a set beats a sweep that few gain by": (20, {"has_set": True, "pages": 5, "gain": 20}, SET),
    "a sweep that many gain by beats a set": (
        20,
        {"has_set": True, "pages": 5, "gain": 450},
        SWEEP,
    ),
    "a sweep without a set": (20, {"has_set": False, "pages": 5, "gain": 20}, SWEEP),
    "a sweep that costs what it saves": (20, {"has_set": False, "pages": 20, "gain": 20}, SINGLY),
    "a sweep that costs more": (20, {"has_set": False, "pages": 21, "gain": 20}, SINGLY),
    "a sweep that may not be used": (20, {"has_set": False, "pages": None, "gain": 450}, SINGLY),
    "a sweep that nobody gains by": (20, {"has_set": False, "pages": 1, "gain": 0}, SINGLY),
    "a set and a sweep that cost the same": (20, {"has_set": True, "pages": 1, "gain": 20}, SET),
}


@pytest.mark.parametrize(("reads", "given", "way"), CASES.values(), ids=CASES)
def test_b7_4_the_cheapest_way_is_taken(reads, given, way):
    assert best_way(reads, **given) is way


@given(
    reads=st.integers(0, 300),
    has_set=st.booleans(),
    pages=st.none() | st.integers(1, 300),
    gain=st.integers(-1, 500),
)
def test_no_way_takes_more_calls_than_reading_singly(reads, has_set, pages, gain):
    way = best_way(reads, has_set=has_set, pages=pages, gain=gain)
    if way is SET:
        assert has_set
        assert -(-reads // MOST_IDS) < reads
    if way is SWEEP:
        assert pages is not None
        assert pages < gain
    if way is SINGLY and has_set:
        assert reads < 2


@given(st.integers(2, 300), st.integers(1, 300), st.integers(1, 500), st.integers(1, 500))
def test_the_more_gain_by_a_sweep_the_rather_it_is_made(reads, pages, gain, more):
    if best_way(reads, has_set=True, pages=pages, gain=gain) is SWEEP:
        assert best_way(reads, has_set=True, pages=pages, gain=gain + more) is SWEEP
