"""Which customers are read (B4.1)."""

from __future__ import annotations

from sync_worker.decide.fold import Latch, Release
from sync_worker.decide.match import customers_to_read
from tests.changes import CONTACT


def test_a_latch_reads_the_customer_that_is_named():
    assert customers_to_read(Latch(CONTACT, 5, evidence=True), {}) == {5}


def test_b4_5_a_latch_reads_the_known_holders_too():
    known = {4: "holds", 3: "gone", 5: "holds"}
    assert customers_to_read(Latch(CONTACT, 5, evidence=True), known) == {4, 5}


def test_b3_4_a_release_that_names_a_customer_touches_no_other():
    assert customers_to_read(Release(CONTACT, only=5), {4: "holds"}) == {5}


def test_a_release_reads_who_holds_the_record_else_who_held_it():
    assert customers_to_read(Release(CONTACT, None), {4: "holds", 3: "released"}) == {4}
    assert customers_to_read(Release(CONTACT, None), {3: "released", 2: "gone"}) == {2, 3}
    assert customers_to_read(Release(CONTACT, None), {}) == set()
