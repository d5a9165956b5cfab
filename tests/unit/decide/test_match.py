"""What the link index says of several ids of one record (B4.5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.decide.match import any_of

LINKS = st.dictionaries(st.integers(1, 4), st.sampled_from(["holds", "released", "gone"]))


@pytest.mark.parametrize(
    ("links", "says"),
    [
        ([], {}),
        ([{}], {}),
        ([{5: "holds"}, {6: "released"}], {5: "holds", 6: "released"}),
        ([{5: "holds"}, {5: "gone"}], {5: "holds"}),
        ([{5: "released"}, {5: "holds"}], {5: "holds"}),
        ([{5: "released"}, {5: "gone"}], {5: "gone"}),
        ([{5: "released"}, {5: "released"}], {5: "released"}),
    ],
)
def test_b4_5_whoever_holds_one_id_of_a_record_holds_it(links, says):
    """Taken away by another hand outranks let go of by us: it may be anywhere."""
    assert any_of(links) == says


@given(st.lists(LINKS, max_size=4))
def test_b4_5_the_order_of_the_ids_says_nothing(links):
    assert any_of(links) == any_of(links[::-1])
    assert any_of([*links, *links]) == any_of(links)
