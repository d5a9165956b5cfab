"""Whatever happens, no customer is done wrong (B3.6, B3.7, B5).

Here several records may claim one customer, hands latch what they like at any moment, most CRMs
cannot be read, workers vanish and get in each other's way. There is no one right end; but every
write must have a reason in what was told, and every claim that is not true must wait for a person.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import ClassVar

import pytest
import redis
from hypothesis import given, note
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from simulators.fusebill.customer import Customer
from simulators.fusebill.options import Options
from sync_worker import events
from sync_worker.domain import Aspect, Kind, Record, RecordType, Slot, Source
from sync_worker.inbox import codec
from tests.properties.profile import EXAMPLES, TIMEOUT, at_most, try_worlds
from tests.properties.world import CUSTOMERS, RECORDS, Simulation

NOBODY = 99
"""A customer that is not there."""

SOURCES = tuple(Source)
COMPANIES = [one for one in RECORDS if one.type is RecordType.COMPANY]
CONTACTS = [one for one in RECORDS if one.type is RecordType.CONTACT]
CLAIMED = st.sampled_from([*CUSTOMERS[:8], NOBODY])
"""Few enough that claims meet."""


class Reasons:
    """What was told of each record, whether it has arrived or not: the reasons a write may have."""

    def __init__(self) -> None:
        self.claims: dict[tuple[Slot, str], set[int]] = defaultdict(set)
        self.shown: dict[tuple[Slot, str], set[int]] = defaultdict(set)
        """Claims with evidence that the link field changed to them."""
        self.ended: set[tuple[Slot, str]] = set()
        """Unlinked, deleted or merged."""
        self.root: dict[tuple[Slot, str], tuple[Slot, str]] = {}
        self.held: dict[tuple[Slot, str], set[int]] = defaultdict(set)
        """The customers that ever held it."""
        self.companies: dict[str, set[str]] = defaultdict(set)
        """Contact -> companies it was associated with."""
        self.left: set[str] = set()
        """Companies that some contact left."""

    def one(self, slot: Slot, id_: str) -> tuple[Slot, str]:
        """The record that is left of it."""
        key = (slot, id_)
        while key in self.root:
            key = self.root[key]
        return key

    def merge(self, slot: Slot, merged: str, survivor: str) -> None:
        """All that was a reason for one is one for the other."""
        old, new = self.one(slot, merged), self.one(slot, survivor)
        self.ended.add((slot, merged))
        if old != new:
            self.root[old] = new
            for told in (self.claims, self.shown, self.held):
                told[new] |= told[old]
            self.companies[new[1]] |= self.companies[old[1]]

    def check(self, held: dict[tuple[int, Slot], str], customer: int, before, after) -> None:
        """Every slot that a write has changed had a reason to change."""
        for slot in Slot:
            was, now = before.get(slot), after.get(slot)
            if was == now:
                continue
            if now is not None:
                self._latched(held, customer, slot, was, now)
            if was is not None:
                self._released(customer, slot, was, now)

    def _latched(self, held, customer, slot, was, now) -> None:
        where = [c for (c, s), id_ in held.items() if s is slot and id_ == now]
        assert where == [customer], f"{now} is on {where} (B5.2)"
        key = self.one(slot, now)
        derived = slot is Slot.HUBSPOT_COMPANY and self._is_derived(held, customer, now)
        known = customer in self.claims[key] | self.held[key]
        assert known or derived, f"{now} was never said to belong to {customer} (B1)"
        if was is not None and self.one(slot, was) != key and not derived:
            assert customer in self.shown[key], f"{was} was displaced without evidence (B3.7)"
        self.held[key].add(customer)

    def _is_derived(self, held, customer, company) -> bool:
        contact = held.get((customer, Slot.HUBSPOT_CONTACT))
        if contact is None:
            return False
        root = self.one(Slot.HUBSPOT_CONTACT, contact)[1]
        wanted = self.one(Slot.HUBSPOT_COMPANY, company)
        told = {self.one(Slot.HUBSPOT_COMPANY, one) for one in self.companies[root]}
        return wanted in told

    def _released(self, customer, slot, was, now) -> None:
        key = self.one(slot, was)
        moved = bool((self.claims[key] | self.held[key]) - {customer}) and bool(self.shown[key])
        displaced = now is not None and customer in self.shown[self.one(slot, now)]
        company = slot is Slot.HUBSPOT_COMPANY and (was in self.left or self._came_along(key))
        ended = (slot, was) in self.ended or key in self.ended
        assert ended or moved or displaced or company, f"{was} left {customer} for no cause (B3.6)"

    def _came_along(self, key) -> bool:
        """A company that some contact brought may move with it, or make room for its next one."""
        told = {self.one(Slot.HUBSPOT_COMPANY, c) for cs in self.companies.values() for c in cs}
        return key in told


class EveryWorld(RuleBasedStateMachine):
    """Everything at once."""

    client: ClassVar[redis.Redis]

    @initialize(
        reads=st.sets(st.sampled_from(SOURCES), max_size=1),
        held_elsewhere=st.sampled_from([400, 409]),
        replace=st.booleans(),
        company=st.sampled_from(["primary", "property", "off"]),
        unlatch=st.booleans(),
        seed=st.integers(0, 2**32),
    )
    def begin(self, reads, held_elsewhere, replace, company, unlatch, seed):
        self.sim = Simulation(
            self.client,
            reads=frozenset(reads),
            options=Options(
                held_elsewhere=held_elsewhere, salesforce_unlatch_path="/x" if unlatch else None
            ),
            hubspot_latch_company=company,
            on_conflict="replace" if replace else "hold",
            fusebill_salesforce_unlatch_path="/x" if unlatch else None,
        )
        self.reasons = Reasons()
        self.random = random.Random(seed)
        self.nested = False
        self.always: dict[Record, int] = {}
        self.changed: set[Record] = set()
        self.sim.fusebill.put([Customer(id=n, reference=f"R{min(8, n)}") for n in CUSTOMERS[:9]])
        self.sim.written = lambda *told: self.reasons.check(self.sim.held(), *told)
        for slot in Slot:
            records = [one for one in RECORDS if one.slot == slot]
            for customer in CUSTOMERS[:8:2]:
                self._by_hand(customer, slot, self.random.choice(records).id)

    def _by_hand(self, customer, slot, id_):
        where = [c for (c, s), held in self.sim.held().items() if s is slot and held == id_]
        if where:
            return  # Fusebill keeps a record on one customer
        self.sim.latch_by_hand(customer, slot, id_)
        self.reasons.held[self.reasons.one(slot, id_)].add(customer)

    def entry(self, record: Record):
        return self.sim.crm.entries[record]

    def is_live(self, record: Record) -> bool:
        return not self.entry(record).deleted and self.entry(record).survivor is None

    # --- the CRMs

    @rule(
        record=st.sampled_from(RECORDS),
        customer=CLAIMED,
        evidence=st.sampled_from([True, True, False, None]),
    )
    def claim(self, record, customer, evidence):
        if not self.is_live(record):
            return
        key = self.reasons.one(record.slot, record.id)
        if evidence is False:  # it says what it always said
            customer = self.always.setdefault(record, customer)
            if self.entry(record).link not in ("", str(customer)) or record in self.changed:
                return
        else:
            self.changed.add(record)
            self.reasons.shown[key].add(customer)
        self.entry(record).link = str(customer)
        self.reasons.claims[key].add(customer)
        self.sim.happen(
            record, Kind.LINKED, Aspect.LINK, customer_id=str(customer), evidence=evidence
        )

    @rule(record=st.sampled_from(RECORDS), number=st.integers(1, 9))
    def hint(self, record, number):
        if not self.is_live(record):
            return
        if number < 8:
            self.reasons.claims[self.reasons.one(record.slot, record.id)].add(number)
        self.sim.happen(record, Kind.LINKED, Aspect.HINT, reference=f"R{number}", evidence=False)

    @rule(record=st.sampled_from(RECORDS), evidence=st.sampled_from([True, None]))
    def clear(self, record, evidence):
        if not self.is_live(record):
            return
        self.entry(record).link = ""
        self.changed.add(record)
        self.reasons.ended.add((record.slot, record.id))
        self.sim.happen(record, Kind.UNLINKED, Aspect.LINK, evidence=evidence)

    @rule(record=st.sampled_from(RECORDS), back=st.booleans())
    def delete(self, record, back):
        if not self.is_live(record) or record.source is Source.GEOTAB:
            return
        self.reasons.ended.add((record.slot, record.id))
        self.sim.happen(record, Kind.DELETED, Aspect.EXISTENCE)
        if back:
            self.sim.happen(record, Kind.RESTORED, Aspect.EXISTENCE)
        else:
            self.entry(record).deleted = True

    @rule(data=st.data(), new=st.booleans())
    def merge(self, data, new):
        kind = data.draw(
            st.sampled_from([RecordType.CONTACT, RecordType.COMPANY, RecordType.ACCOUNT])
        )
        live = [r for r in self.sim.crm.entries if r.type is kind and self.is_live(r)]
        if len(live) < 8:
            return
        first, second = data.draw(st.permutations(live))[:2]
        survivor, losers = first, [second]
        if new and kind is not RecordType.ACCOUNT:
            survivor = Record(first.source, first.tenant, kind, str(900 + self.sim.number))
            self.sim.crm.entries[survivor] = type(self.entry(first))(survivor)
            self.entry(survivor).link = self.entry(first).link
            self.changed.add(survivor)
            losers = [first, second]
        for one in losers:
            self.entry(one).survivor = survivor
            self.reasons.merge(one.slot, one.id, survivor.id)
        merged = tuple(one.id for one in losers)
        self.sim.happen(survivor, Kind.MERGED, Aspect.EXISTENCE, merged_ids=merged)
        for one in losers:
            self.sim.happen(one, Kind.DELETED, Aspect.EXISTENCE)

    @rule(
        contact=st.sampled_from(CONTACTS),
        company=st.sampled_from(COMPANIES[:6]),
        joins=st.booleans(),
        primary=st.sampled_from([True, False, None]),
    )
    def associate(self, contact, company, joins, primary):
        if not (self.is_live(contact) and self.is_live(company)):
            return
        if joins:
            self.reasons.companies[contact.id].add(company.id)
            if primary:
                self.entry(contact).company = company.id
        else:
            self.reasons.left.add(company.id)
            if self.entry(contact).company == company.id:
                self.entry(contact).company = ""
        kind = Kind.ASSOCIATED if joins else Kind.DISSOCIATED
        self.sim.happen(
            contact, kind, Aspect.COMPANY, company_id=company.id, primary=primary, evidence=None
        )

    # --- hands

    @rule(customer=st.sampled_from(CUSTOMERS[:8]), slot=st.sampled_from(Slot), empty=st.booleans())
    def by_hand(self, customer, slot, empty):
        if empty:
            self.sim.latch_by_hand(customer, slot, None)
        else:
            records = [one for one in RECORDS if one.slot == slot]
            self._by_hand(customer, slot, self.random.choice(records).id)

    # --- events and workers

    @precondition(lambda self: self.sim.under_way)
    @rule(count=st.integers(1, 8), again=st.booleans())
    def deliver(self, count, again):
        many = self.random.sample(self.sim.under_way, min(count, len(self.sim.under_way)))
        if not again:
            self.sim.under_way = [one for one in self.sim.under_way if one not in many]
        self.sim.deliver(many)

    @precondition(lambda self: self.sim.due())
    @rule(
        count=st.integers(1, 4), lives=st.one_of(st.none(), st.integers(0, 8)), others=st.booleans()
    )
    def work(self, count, lives, others):
        self.sim.interrupt = self._interrupt if others else lambda: None
        for mailbox in self.random.sample(self.sim.due(), min(count, len(self.sim.due()))):
            self.sim.steps_to_live = lives
            self.sim.work(mailbox)
        self.sim.interrupt = lambda: None

    def _interrupt(self):
        """Another worker does something between two steps of this one."""
        if self.nested or not self.sim.at_work or self.random.random() < 0.5:
            return
        self.nested, lives = True, self.sim.steps_to_live
        self.sim.steps_to_live = None
        for mailbox in self.random.sample(self.sim.due(), min(2, len(self.sim.due()))):
            self.sim.work(mailbox)
        self.nested, self.sim.steps_to_live = False, lives

    @rule()
    def pass_time(self):
        self.sim.pass_time()
        self.sim.sweeper.run_if_due()

    def teardown(self):
        if not hasattr(self, "sim"):
            return
        self.random.shuffle(self.sim.under_way)
        self.sim.deliver(self.sim.under_way)
        self.sim.drain()
        for line in self.sim.told():
            note(line)
        self._all_is_accounted_for()
        self._feed()  # what hands have freed meanwhile may be taken now
        before = self.sim.held(), len(self.sim.writes)
        self._feed()
        assert (self.sim.held(), len(self.sim.writes)) == before

    def _feed(self):
        again = list(self.sim.sent)
        self.random.shuffle(again)
        self.sim.inbox.accept(again)
        self.sim.drain()

    def _all_is_accounted_for(self):
        settled = {event.id for _, event in events.settled(self.client)}
        assert settled == {str(n + 1) for n in range(int(self.client.get("sw:seq") or 0))}
        letters = self.sim.letters()
        keys = [(letter.mailbox, letter.aspect) for letter in letters]
        assert len(keys) == len(set(keys)), "two open dead letters of one aspect (B6.5)"
        waiting = {letter.mailbox for letter in letters if letter.aspect == Aspect.LINK}
        for record in self.sim.crm.entries:
            marks = codec.decode_marks(self.client.hgetall(f"sw:mark:{record.mailbox}"))
            if marks.shown and not self.client.exists(f"sw:alias:{record.mailbox}"):
                assert record.mailbox in waiting, f"{record.mailbox} claims {marks.claim} in vain"


@pytest.mark.timeout(TIMEOUT)
def test_no_customer_is_done_wrong(client):
    try_worlds(EveryWorld, client, steps=35)


@pytest.mark.timeout(TIMEOUT)
def test_dedupe_only_saves_work(client):
    """The same happenings, with dedupe and without, end alike (B2.11)."""

    @at_most(max(20, EXAMPLES // 5))
    @given(seed=st.integers(0, 2**32), reads=st.booleans())
    def ends_alike(seed, reads):
        assert end(client, seed, reads, 0) == end(client, seed, reads, 72)

    ends_alike()


SAME_SLOT = sorted(RECORDS[::3], key=lambda one: one.slot)


def end(client, seed, reads, dedupe_hours):
    """What customers hold at the end of a life that the seed decides."""
    pick = random.Random(seed)
    sim = Simulation(
        client,
        reads=frozenset(SOURCES if reads else ()),
        options=Options(salesforce_unlatch_path="/x"),
        hubspot_latch_company="property",
        dedupe_hours=dedupe_hours,
    )
    for _ in range(40):
        record = pick.choice(RECORDS[::3])
        customer = 4 * SAME_SLOT.index(record) % 28 + pick.randint(1, 4)  # its own: nobody competes
        entry = sim.crm.entries[record]
        if pick.random() < 0.7:
            entry.link = str(customer)
            sim.happen(record, Kind.LINKED, Aspect.LINK, customer_id=str(customer))
        else:
            entry.link = ""
            sim.happen(record, Kind.UNLINKED, Aspect.LINK)
        batch = pick.sample(sim.under_way, min(len(sim.under_way), 3))
        if pick.random() < 0.5:
            sim.under_way = [one for one in sim.under_way if one not in batch]
        sim.deliver(batch)
        if pick.random() < 0.5:
            sim.work(pick.choice(batch).record.mailbox)
        if pick.random() < 0.2:
            sim.drain()
    sim.deliver(sim.under_way)
    sim.drain()
    return sim.held()
