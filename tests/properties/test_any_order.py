"""Any order, duplication, batching and crash: the customers end as the CRMs say (B3.5, B3.8, B3.9).

The worlds here can be read, and no two records claim one slot at a time; so there is one right
end, told by a model of a few lines that never sees an event.
"""

from __future__ import annotations

import random
from typing import ClassVar

import pytest
import redis
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from simulators.fusebill.options import Options
from sync_worker.domain import Aspect, Kind, Record, Slot, Source
from tests.properties.profile import TIMEOUT, try_worlds
from tests.properties.world import CUSTOMERS, RECORDS, Simulation

HELD_ELSEWHERE = st.sampled_from([400, 409])


class Model:
    """Where each record belongs, by what its CRM says and what hands have done."""

    def __init__(self) -> None:
        self.at: dict[tuple[int, Slot], Record] = {}
        self.claimed_since: dict[tuple[int, Slot], int] = {}

    def of(self, record: Record) -> int | None:
        return next((c for (c, _), held in self.at.items() if held == record), None)

    def leave(self, record: Record) -> None:
        self.at = {place: held for place, held in self.at.items() if held != record}

    def put(self, record: Record, customer: int) -> None:
        self.leave(record)
        self.at[customer, record.slot] = record

    def is_free(self, record: Record, customer: int) -> bool:
        return self.at.get((customer, record.slot), record) == record


class ReadableWorlds(RuleBasedStateMachine):
    """Records change; their events wander; workers come and go."""

    client: ClassVar[redis.Redis]

    @initialize(held_elsewhere=HELD_ELSEWHERE, replace=st.booleans(), seed=st.integers(0, 2**32))
    def begin(self, held_elsewhere, replace, seed):
        self.sim = Simulation(
            self.client,
            reads=frozenset(Source),
            options=Options(held_elsewhere=held_elsewhere, salesforce_unlatch_path="/x"),
            hubspot_latch_company="property",
            on_conflict="replace" if replace else "hold",
        )
        self.model = Model()
        self.random = random.Random(seed)
        self.home: dict[Record, int] = {}
        self.chosen: set[Record] = set()
        """What is left of two records that two customers held: its link field chose one of them,
        which no event tells, so it must go on saying it.
        """
        self._latch_some_before()

    def _latch_some_before(self):
        """Half of the customers hold somebody: some by a claim, some by a hand."""
        for slot in Slot:
            records = [one for one in RECORDS if one.slot == slot]
            self.random.shuffle(records)
            for customer, record in zip(CUSTOMERS, records[: len(records) // 2], strict=False):
                self.sim.latch_by_hand(customer, slot, record.id)
                self.model.put(record, customer)
                if self.random.random() < 0.5 and record.source is not Source.GEOTAB:
                    self.sim.crm.entries[record].link = str(customer)

    def entry(self, record: Record):
        return self.sim.crm.entries[record]

    def is_live(self, record: Record) -> bool:
        return not self.entry(record).deleted and self.entry(record).survivor is None

    # --- what people do in the CRMs

    @rule(record=st.sampled_from(RECORDS), customer=st.sampled_from(CUSTOMERS))
    def claim(self, record, customer):
        if not self.is_live(record) or not self.model.is_free(record, customer):
            return
        if any(home == customer and r.slot == record.slot for r, home in self.home.items()):
            return
        if self.entry(record).link == str(customer) or record in self.chosen:
            return
        self.entry(record).link = str(customer)
        self.model.put(record, customer)
        self.sim.happen(record, Kind.LINKED, Aspect.LINK, customer_id=str(customer))

    @rule(record=st.sampled_from(RECORDS))
    def clear(self, record):
        if not self.is_live(record):
            return
        self.entry(record).link = ""
        self.model.leave(record)
        if record.source is Source.GEOTAB:
            self.entry(record).deleted = True
        self.sim.happen(record, Kind.UNLINKED, Aspect.LINK)

    @rule(record=st.sampled_from(RECORDS))
    def delete(self, record):
        if not self.is_live(record) or record.source is Source.GEOTAB:
            return
        home = self.model.of(record)
        if home is not None:
            self.home[record] = home
        self.entry(record).deleted = True
        self.model.leave(record)
        self.sim.happen(record, Kind.DELETED, Aspect.EXISTENCE)

    @rule(record=st.sampled_from(RECORDS))
    def restore(self, record):
        entry = self.entry(record)
        if not entry.deleted or record.source is Source.GEOTAB:
            return
        home = self.home.pop(record, None)
        if home is not None and not self.model.is_free(record, home):
            return
        if home is None and entry.link:
            return
        entry.deleted = False
        if home is not None:
            self.model.put(record, home)
        self.sim.happen(record, Kind.RESTORED, Aspect.EXISTENCE)

    @rule(first=st.sampled_from(RECORDS), second=st.sampled_from(RECORDS), primary=st.booleans())
    def merge(self, first, second, primary):
        """HubSpot makes a new record; Salesforce keeps the first."""
        if first == second or first.type != second.type or first.source is Source.GEOTAB:
            return
        if not (self.is_live(first) and self.is_live(second)):
            return
        held = {one for one in (self.model.of(first), self.model.of(second)) if one}
        winner = first if primary else second
        link = self.entry(winner).link
        if len(held) > 1 and link not in {str(one) for one in held}:
            return  # a conflict for a person (B3.12)
        if link and held and int(link) not in held:
            return
        if not link and (self.entry(first).link or self.entry(second).link):
            return  # a merge that empties the field tells so by an unlink beside it
        if {first, second} & self.chosen:
            return  # that its id named one of two was never told, and is forgotten with the record
        survivor, losers = self._merged(first, second)
        if len(held) > 1:
            self.chosen.add(survivor)
        self.entry(survivor).link = link
        for one in losers:
            self.entry(one).survivor = survivor
        for one in (first, second):
            self.model.leave(one)
        if held:
            self.model.put(survivor, int(link) if link else held.pop())
        elif link:
            self.model.put(survivor, int(link))
        merged = tuple(one.id for one in losers)
        self.sim.happen(survivor, Kind.MERGED, Aspect.EXISTENCE, merged_ids=merged)
        for one in losers:
            self.sim.happen(one, Kind.DELETED, Aspect.EXISTENCE)

    def _merged(self, first, second):
        if first.source is Source.SALESFORCE:
            return first, [second]
        survivor = Record(first.source, first.tenant, first.type, str(900 + self.sim.number))
        self.sim.crm.entries[survivor] = type(self.entry(first))(survivor)
        return survivor, [first, second]

    @rule(record=st.sampled_from(RECORDS))
    def touch(self, record):
        """Something else changed."""
        if self.is_live(record):
            self.sim.happen(record, Kind.TOUCHED, Aspect.EXISTENCE, evidence=None)

    # --- what becomes of the events

    @precondition(lambda self: self.sim.under_way)
    @rule(count=st.integers(1, 6), again=st.booleans())
    def deliver(self, count, again):
        many = self.random.sample(self.sim.under_way, min(count, len(self.sim.under_way)))
        if not again:
            self.sim.under_way = [one for one in self.sim.under_way if one not in many]
        self.sim.deliver(many)

    @precondition(lambda self: self.sim.due())
    @rule(count=st.integers(1, 4), lives=st.one_of(st.none(), st.integers(0, 8)))
    def work(self, count, lives):
        for mailbox in self.random.sample(self.sim.due(), min(count, len(self.sim.due()))):
            self.sim.steps_to_live = lives
            self.sim.work(mailbox)

    @rule()
    def pass_time(self):
        self.sim.pass_time()
        self.sim.sweeper.run_if_due()

    def teardown(self):
        if not hasattr(self, "sim"):
            return
        rest = [*self.sim.under_way, *self.random.sample(self.sim.sent, len(self.sim.sent) // 3)]
        self.random.shuffle(rest)
        while rest:
            batch = [rest.pop() for _ in range(min(len(rest), self.random.randint(1, 5)))]
            self.sim.deliver(batch)
            if self.random.random() < 0.5:
                self.sim.work(self.random.choice(batch).record.mailbox)
        self.sim.drain()
        wanted = {place: record.id for place, record in self.model.at.items()}
        for line in self.sim.told():
            note(line)
        for letter in self.sim.letters():
            note(f"open: {letter.message}")
        held = self.sim.held()
        wrong = {
            p: (held.get(p), wanted.get(p))
            for p in {*held, *wanted}
            if held.get(p) != wanted.get(p)
        }
        assert wrong == {}, "customer and slot: what it holds, and what it should"
        assert self.sim.letters() == []
        self._feed_again()

    def _feed_again(self):
        before, writes = self.sim.held(), len(self.sim.writes)
        again = list(self.sim.sent)
        self.random.shuffle(again)
        self.sim.deliver(again)
        self.sim.drain()
        assert (self.sim.held(), len(self.sim.writes)) == (before, writes)


@pytest.mark.timeout(TIMEOUT)
def test_any_order_ends_as_the_crms_say(client):
    try_worlds(ReadableWorlds, client)
