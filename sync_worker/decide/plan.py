"""From what records should be and what customers are to the writes that make it so (B5).

The whole plan is judged before its first write (B5.2): it takes in every record that stands in
the way and may itself be moving, and if it cannot finish it holds no write at all. What it must
know first it asks for, by its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from sync_worker.decide import order
from sync_worker.decide.fold import (
    Company,
    Fill,
    Find,
    Keep,
    Latch,
    Release,
    Wish,
    positive_integer,
)
from sync_worker.decide.match import Link, Query
from sync_worker.decide.order import Value, Write
from sync_worker.decide.subject import Policy, Subject
from sync_worker.domain import Customer, Outcome, Reason, Record, Slot, SlotState

MOST_PARTIES = 8
"""Records that one plan moves at most; a longer ring is a conflict (B5.2)."""

REPLACED_AGAIN_MS = 3_600_000
"""A slot that was replaced is not replaced again for so long (B5.5)."""

NOT_NEWER = "claim is not newer than the latch"
"""The detail of B3.7."""


@dataclass(frozen=True, slots=True)
class Party:
    """A record that takes part in a plan."""

    subject: Subject
    wish: Wish
    links: Mapping[int, Link]
    """What the link index says of it, and of those merged into it."""
    company: Company | None = None
    claims: str | None = None
    """What its link field says, as read or else as last told."""
    untraced: bool = False
    """It is being merged, and the index does not tell of each merged record who holds it."""
    unlinked: frozenset[str] = frozenset()
    """Ids that were unlinked before they were merged into it."""
    let_go: int | None = None
    """The customer that it holds in the place of one of those."""
    undecided: frozenset[int] = frozenset()
    """Customers that records merged into it had claimed, and were not put to yet."""

    @property
    def ids(self) -> frozenset[str]:
        """Every id under which a customer may rightly hold it."""
        return self.subject.ids - self.unlinked


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was found out so far."""

    customers: Mapping[int, Customer | None] = field(default_factory=dict)
    """As read; one that is not there is None."""
    company_links: Mapping[int, Link] = field(default_factory=dict)
    """What the link index says of the company concerned."""
    previous_links: Mapping[int, Link] = field(default_factory=dict)
    """What it says of the id that a Geotab customer had before (B3.4)."""
    found: Mapping[Query, tuple[int, ...] | None] = field(default_factory=dict)
    """The customers that a query found, each checked; None: it cannot be queried (B4.3)."""
    replaced: Mapping[int, int] = field(default_factory=dict)
    """When a customer's slot was replaced last (ms)."""
    now: int = 0
    swept: bool = False
    """A sweep that began after the newest change was received has found all holders (B4.5)."""
    refused: bool = False
    """Fusebill refused the latch, and a sweep has looked for the reason since (B4.5)."""


# --- what a plan says of one record


@dataclass(frozen=True, slots=True)
class Done:
    """The writes of the plan make it so."""

    outcome: Outcome
    detail: str
    customers: tuple[int, ...]
    took: tuple[str, int] | None = None
    """The merged record whose place it takes over, and at which customer."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing is written for it."""

    detail: str
    customers: tuple[int, ...] = ()
    unmet: bool = False
    """What it claims is not true all the same."""
    at: int | None = None
    """The customer that holds it."""
    outcome: Outcome = Outcome.UNCHANGED


@dataclass(frozen=True, slots=True)
class Bury:
    """It needs a person."""

    reason: Reason
    message: str
    next_step: str
    customers: tuple[int, ...]


Result = Done | Leave | Bury


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to write, in this order, and what becomes of each record then."""

    writes: tuple[Write, ...]
    results: Mapping[Record, Result]
    """The first party's, and those of the others that the writes move."""
    companies: Mapping[Record, Done | Leave]
    """What becomes of the companies of contacts."""
    brings: Mapping[Record, tuple[str, int]]
    """The company that is now latched through a contact, and to which customer."""
    releases: tuple[tuple[int, str], ...]
    """Customers and records that end latched nowhere: what the brake counts (B5.10)."""


# --- what a plan asks for


@dataclass(frozen=True, slots=True)
class ReadCustomers:
    """These must be read."""

    ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Join:
    """This record stands in the way: what it wants must be known."""

    record: Record


@dataclass(frozen=True, slots=True)
class Sweep:
    """Only a sweep can tell who holds the record, or that nobody does (B4.5)."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An answer left out what must be known: a missing key is not an empty slot (B7.4)."""

    message: str


@dataclass(frozen=True, slots=True)
class Missing:
    """The customer that is named explicitly is not there (B4.4)."""

    customer_id: int


@dataclass(frozen=True, slots=True)
class NoMatch:
    """Nobody is found by what the record says of its customer; one may come yet (B4.4)."""

    message: str


Need = ReadCustomers | Join | Query | Sweep | Unknown | Missing | NoMatch


def plan(parties: Sequence[Party], known: Known, policy: Policy) -> Plan | Need:
    """Plan for the first party, the others being those that stand in its way."""
    try:
        return _Planner(parties, known, policy).plan()
    except _Needed as needed:
        return needed.what


class _Needed(Exception):
    def __init__(self, what: Need) -> None:
        super().__init__()
        self.what = what


@dataclass(frozen=True, slots=True)
class _Go:
    """Where a record is to go, if nothing stands in the way."""

    to: int | None
    leaves: frozenset[int] = frozenset()
    """The customers that hold it now, `to` apart."""
    takes_over: frozenset[str] = frozenset()
    """Ids in the slot of `to` that are its own of before."""


class _Planner:
    def __init__(self, parties: Sequence[Party], known: Known, policy: Policy) -> None:
        self.parties = parties
        self.first = parties[0]
        self.slot: Slot = self.first.subject.record.slot
        self.known = known
        self.policy = policy

    def plan(self) -> Plan:
        intents = {party.subject.record: self._intend(party) for party in self.parties}
        self._judge(intents)
        mine = intents[self.first.subject.record]
        going = [p for p in self.parties if isinstance(intents[p.subject.record], _Go)]
        if isinstance(mine, Bury):
            return self._nothing(mine)
        if isinstance(mine, Leave):
            going = [self.first]
        goes = {p.subject.record: intents[p.subject.record] for p in going}
        target = self._targets(going, goes)
        companies, brings = self._companies(going, goes, target)
        writes = self._order(target)
        if self._cannot_release(writes):
            return self._nothing(self._unsupported(writes))
        return Plan(
            writes=writes,
            results={record: self._result(go) for record, go in goes.items()},
            companies=companies,
            brings=brings,
            releases=self._releases(target, going),
        )

    def _nothing(self, why: Bury) -> Plan:
        record = self.first.subject.record
        return Plan(writes=(), results={record: why}, companies={}, brings={}, releases=())

    # --- reading

    def _read(self, ids: Iterable[int]) -> None:
        missing = frozenset(ids) - self.known.customers.keys()
        if missing:
            raise _Needed(ReadCustomers(missing))

    def _customer(self, customer_id: int) -> Customer | None:
        customer = self.known.customers[customer_id]
        if customer is not None and customer.slots[self.slot] is SlotState.UNKNOWN:
            raise _Needed(_unknown(customer_id, self.slot))
        return customer

    def _value(self, customer_id: int) -> Value:
        customer = self._customer(customer_id)
        return SlotState.EMPTY if customer is None else customer.slots[self.slot]

    def _holders(self, party: Party) -> frozenset[int]:
        """The customers that hold a record, or one that was merged into it; all are read.

        Where none is known to, those that did are read: they may hold it again.
        """
        holding = {customer for customer, link in party.links.items() if link == "holds"}
        self._read(holding or party.links)
        self._read({party.let_go} if party.let_go is not None else ())
        ids = party.ids
        return frozenset(
            customer_id
            for customer_id in self.known.customers
            if self._value(customer_id) in ids and customer_id != party.let_go
        )

    # --- what each record is to do, by itself

    def _intend(self, party: Party) -> _Go | Leave | Bury:
        try:
            return self._without_unlinked(party, self._wished(party, party.wish))
        except _Needed as needed:
            if party is self.first or isinstance(needed.what, ReadCustomers):
                raise
            # What another record lacks is its own affair: here it stays where it is.
            return Leave("it waits for more", unmet=True)

    def _without_unlinked(self, party: Party, intent: _Go | Leave | Bury) -> _Go | Leave | Bury:
        """Besides, what was unlinked before it was merged is let go of, wherever it is."""
        if not party.unlinked or isinstance(intent, Bury):
            return intent
        own = party.subject.record.id
        held = {
            one
            for one in self.known.customers
            if self._value(one) in party.unlinked
            or (one == party.let_go and self._value(one) == own)
        }
        if not held:
            return intent
        if isinstance(intent, Leave) and intent.unmet:
            return _several_merged(party, frozenset(held))
        if isinstance(intent, Leave):
            return _Go(intent.at, frozenset(held))
        return _Go(
            intent.to, intent.leaves | (held - {intent.to}), intent.takes_over | party.unlinked
        )

    def _wished(self, party: Party, wish: Wish) -> _Go | Leave | Bury:
        if party.untraced and not self.known.swept:
            raise _Needed(Sweep())  # else a holder of a merged record may be overlooked (B3.12)
        match wish:
            case Latch():
                return self._latch(party, wish)
            case Fill():
                return self._fill(party, wish)
            case Find():
                return self._find(party, wish)
            case Release():
                return self._release(party, wish)
            case Keep():
                return self._keep(party, wish)

    def _latch(self, party: Party, wish: Latch) -> _Go | Leave | Bury:
        self._read({wish.customer_id})
        target = self._customer(wish.customer_id)
        if target is None:
            raise _Needed(Missing(wish.customer_id))
        holders = self._holders(party)
        former = party.ids - {party.subject.record.id}
        stale = frozenset(one for one in holders if self._value(one) in former)
        if len(holders) > 1 and stale and target.id not in holders | set(party.undecided):
            return _several_merged(party, holders)
        occupant = target.slots[self.slot]
        if occupant == wish.record.id:
            held = holders - stale - {target.id}
            moved = bool(held) and wish.evidence and self._is_move(party, wish, held)
            leaves = (stale - {target.id}) | (held if moved else frozenset())
            return _Go(target.id, leaves) if leaves else _is_there(target.id)
        return self._claim(party, wish, occupant, holders - {target.id}, stale)

    def _claim(
        self,
        party: Party,
        wish: Latch,
        occupant: Value,
        others: frozenset[int],
        stale: frozenset[int],
    ) -> _Go | Leave | Bury:
        """The record is not where it claims to be (B3.7, B5.5)."""
        own = party.ids | ({wish.succeeds} if wish.succeeds else set())
        go = _Go(wish.customer_id, others, own)
        free = occupant is SlotState.EMPTY or occupant in own
        held = others - stale
        if free and not held:
            return go
        if not wish.evidence:
            if stale:
                return self._keep(party, Keep(wish.record, NOT_NEWER))
            if not self.known.refused:
                at = min(held) if len(held) == 1 else None
                concerned = (wish.customer_id, *sorted(others))
                return Leave(NOT_NEWER, concerned, unmet=True, at=at)
            return _held(wish, held)
        if held and not self._is_move(party, wish, held) and not self.policy.replace:
            return _held(wish, held)
        return go

    def _is_move(self, party: Party, wish: Latch, held: frozenset[int]) -> bool:
        """The record's claim changed from the customer that holds it (B5.5).

        That customer may have got it by a change that is not settled yet: its worker vanished after
        the call. Where no other claim was ever known, whoever holds it got it before the claim
        changed (B4.5).
        """
        marks = party.subject.marks
        if len(held) > 1:
            return False
        (holder,) = held
        unknown = marks.home is None and marks.claim in (None, str(wish.customer_id))
        told = {one.change.customer_id for box in party.subject.boxes for one in box.pending}
        return unknown or str(holder) in {marks.home, marks.claim, *told}

    def _fill(self, party: Party, wish: Fill) -> _Go | Leave:
        self._read({wish.customer_id})
        target = self._customer(wish.customer_id)
        holders = self._holders(party)
        if wish.customer_id in holders:
            return _is_there(wish.customer_id)
        if holders:
            (first, *_) = sorted(holders)
            return Leave(f"customer {first} holds it", tuple(sorted(holders)), unmet=True, at=first)
        if target is None:
            return Leave(f"customer {wish.customer_id} is not there any more", unmet=True)
        if target.slots[self.slot] is not SlotState.EMPTY:
            return Leave(NOT_NEWER, (wish.customer_id,), unmet=True)
        return _Go(wish.customer_id)

    def _find(self, party: Party, wish: Find) -> _Go | Leave | Bury:
        """Look for the customer, strategy by strategy; several stop (B4.1, B4.2)."""
        wish = self._allowed(wish)
        holders = self._holders(party)
        if holders and "link" in self.policy.match_by:
            return self._keep(party, Keep(wish.record, "already latched"))
        if wish.previous and (taken_from := self._previous(wish.previous)):
            return self._succeed(party, taken_from, wish.previous)
        hints = [("reference", wish.reference), ("email", wish.email)]
        for kind, value in hints:
            if not value:
                continue
            query = Query(kind, value)
            if query not in self.known.found:
                raise _Needed(query)
            found = self.known.found[query]
            if found is None:
                return _cannot_query(wish.record, kind)
            if len(found) > 1:
                return _ambiguous(wish.record, kind, found)
            if found:
                return self._fill(party, Fill(wish.record, found[0]))
        return self._found_nobody(wish)

    def _succeed(self, party: Party, holders: tuple[int, ...], previous: str) -> _Go | Leave | Bury:
        """Take the place of the id that it had before (B3.4)."""
        record = party.subject.record
        if len(holders) > 1:
            return _ambiguous(record, "previous id", holders)
        return self._latch(party, Latch(record, holders[0], True, previous))  # noqa: FBT003

    def _allowed(self, wish: Find) -> Find:
        """What may be looked for of it: one change may name several ways (B4.1)."""
        names = self.policy.match_by
        return Find(
            wish.record,
            wish.reference if "reference" in names else None,
            wish.email if "email" in names else None,
            wish.previous if "link" in names else None,
        )

    def _found_nobody(self, wish: Find) -> Leave:
        if wish.previous and not self.known.swept:
            raise _Needed(Sweep())
        if wish.reference or wish.previous:
            hint = "reference" if wish.reference else "previous id"
            raise _Needed(NoMatch(f"No customer in Fusebill has the {hint} that the record names."))
        return Leave("no customer has this email", outcome=Outcome.IGNORED)

    def _previous(self, previous: str) -> tuple[int, ...]:
        """The customers that hold the id that the record had before."""
        self._read(one for one, link in self.known.previous_links.items() if link == "holds")
        holders = [one for one in self.known.customers if self._value(one) == previous]
        return tuple(sorted(holders))

    def _release(self, party: Party, wish: Release) -> _Go | Leave | Bury:
        if wish.only is not None:
            self._read({wish.only})
            if self._customer(wish.only) is None:
                raise _Needed(Missing(wish.only))
            if self._value(wish.only) in party.ids:
                return _Go(None, frozenset({wish.only}))
            return Leave(f"customer {wish.only} does not hold it", (wish.only,))
        holders = self._holders(party)
        if len(holders) > 1 and not party.subject.former:
            return _several_hold(wish.record, holders)
        if holders:
            return _Go(None, holders)
        return self._held_by_nobody(party, "no customer holds it")

    def _held_by_nobody(self, party: Party, detail: str) -> Leave:
        """Only a sweep makes that sure (B4.5): since we released it, a person may have latched it
        anywhere.
        """
        if not self.known.swept:
            raise _Needed(Sweep())
        return Leave(detail, tuple(sorted(party.links)))

    def _keep(self, party: Party, wish: Keep) -> _Go | Leave | Bury:
        """Where it is; where merged records are, it takes their place (B3.12)."""
        holders = self._holders(party)
        if not party.subject.former:
            return _stays(wish, holders)
        if not holders:
            return self._inherit(party, wish)
        to = min(holders)
        if len(holders) > 1:
            named = positive_integer(party.claims)
            if named not in holders:
                return _several_merged(party, holders)
            to = named
        leaves = holders - {to}
        if not leaves and self._value(to) == party.subject.record.id:
            return _stays(wish, holders)
        return _Go(to, leaves, party.ids)

    def _inherit(self, party: Party, wish: Keep) -> _Go | Leave:
        """Nobody holds it: a merged record's deletion may have come first and released it.

        Only a merge that is told now brings it back: whatever was done since stays (B3.6).
        """
        if not wish.merged:
            return Leave(wish.detail)
        left = {box.marks.ended_on for box in party.subject.boxes[1:]} - {None}
        customers = sorted(one for one in left if one is not None)
        self._read(customers)
        free = [one for one in customers if self._customer(one) and _is_empty(self._value(one))]
        if len(free) == 1:
            return _Go(free[0])
        if customers:
            return Leave(wish.detail)
        return self._held_by_nobody(party, wish.detail)

    # --- what they do to each other

    def _judge(self, intents: dict[Record, _Go | Leave | Bury]) -> None:
        """Stop whoever meets one that stays, until nobody more has to be stopped."""
        changed = True
        while changed:
            changed = False
            taken: dict[int, Party] = {}
            for party in self.parties:
                go = intents[party.subject.record]
                if not isinstance(go, _Go) or go.to is None:
                    continue
                stop = self._stopped(party, go, go.to, intents, taken)
                if stop is not None:
                    intents[party.subject.record] = stop
                    changed = True
                    break
                taken[go.to] = party

    def _stopped(
        self,
        party: Party,
        go: _Go,
        to: int,
        intents: Mapping[Record, _Go | Leave | Bury],
        taken: Mapping[int, Party],
    ) -> Bury | None:
        """Why a record cannot go where it is to go."""
        if to in taken:
            return _conflict(party.subject.record, to, taken[to].subject.record.id)
        occupant = self._value(to)
        if _is_empty(occupant) or occupant in go.takes_over or occupant in party.ids:
            return None
        other = next((p for p in self.parties if occupant in p.ids), None)
        if other is None:
            if len(self.parties) >= MOST_PARTIES:
                return _conflict(party.subject.record, to, str(occupant))
            raise _Needed(Join(_named(party.subject.record, str(occupant))))
        its = intents[other.subject.record]
        if isinstance(its, _Go) and to in its.leaves:
            return None
        if self.policy.replace and self._may_replace(other, to):
            return None
        return _conflict(party.subject.record, to, str(occupant))

    def _may_replace(self, occupant: Party, customer_id: int) -> bool:
        """Not if it still claims the customer, nor twice in an hour (B5.5)."""
        if positive_integer(occupant.claims) == customer_id:
            return False
        replaced = self.known.replaced.get(customer_id)
        return replaced is None or self.known.now - replaced >= REPLACED_AGAIN_MS

    # --- the customers afterwards

    def _targets(
        self, going: Sequence[Party], goes: Mapping[Record, _Go | Leave | Bury]
    ) -> dict[int, dict[Slot, Value]]:
        target: dict[int, dict[Slot, Value]] = {}
        for party in going:
            go = goes[party.subject.record]
            for customer_id in go.leaves if isinstance(go, _Go) else ():
                target[customer_id] = {self.slot: SlotState.EMPTY}
        for party in going:
            go = goes[party.subject.record]
            if isinstance(go, _Go) and go.to is not None:
                target[go.to] = {self.slot: party.subject.record.id}
        return target

    def _result(self, go: _Go | Leave | Bury) -> Result:
        if not isinstance(go, _Go):
            return go
        came_from = ", ".join(str(one) for one in sorted(go.leaves))
        if go.to is None:
            return Done(Outcome.UNLATCHED, f"customer {came_from}", tuple(sorted(go.leaves)))
        value = self._value(go.to)
        if go.leaves:
            customers = (go.to, *sorted(go.leaves))
            return Done(Outcome.MOVED, f"from customer {came_from} to {go.to}", customers)
        if not _is_empty(value) and value in go.takes_over:
            detail = f"in the place of {value} at customer {go.to}"
            return Done(Outcome.MOVED, detail, (go.to,), took=(str(value), go.to))
        detail = f"customer {go.to}" if _is_empty(value) else f"customer {go.to}, replacing {value}"
        return Done(Outcome.LATCHED, detail, (go.to,))

    def _releases(
        self, target: Mapping[int, Mapping[Slot, Value]], going: Sequence[Party]
    ) -> tuple[tuple[int, str], ...]:
        """Those that leave a customer and are put on none; what one was merged into is the same."""
        placed = {(slot, v) for after in target.values() for slot, v in after.items()}
        same = {
            (self.slot, id_): (self.slot, party.subject.record.id)
            for party in going
            for id_ in (*party.ids, *_succeeded(party))
        }
        released = []
        for customer_id, after in sorted(target.items()):
            customer = self.known.customers[customer_id]
            for slot in after:
                before = customer.slots[slot] if customer else SlotState.EMPTY
                if (
                    isinstance(before, str)
                    and same.get((slot, before), (slot, before)) not in placed
                ):
                    released.append((customer_id, before))
        return tuple(released)

    # --- the company beside a contact (B5.7)

    def _companies(
        self,
        going: Sequence[Party],
        goes: Mapping[Record, _Go | Leave | Bury],
        target: dict[int, dict[Slot, Value]],
    ) -> tuple[dict[Record, Done | Leave], dict[Record, tuple[str, int]]]:
        """Never displaces anybody and never stops the contact's latch."""
        results: dict[Record, Done | Leave] = {}
        brings: dict[Record, tuple[str, int]] = {}
        for party in going:
            if party.company is None:
                continue
            record = party.subject.record
            at = _ends_at(goes[record])
            if at is None:
                results[record] = Leave("it is remembered until the contact is latched")
                continue
            results[record] = self._company(party, party.company, at, target)
            if self._company_slot(at, target) == party.company.id:
                brings[record] = (party.company.id, at)
        return results, brings

    def _company(
        self, party: Party, company: Company, at: int, target: dict[int, dict[Slot, Value]]
    ) -> Done | Leave:
        held = self._company_slot(at, target)
        if held is SlotState.UNKNOWN:
            raise _Needed(_unknown(at, Slot.HUBSPOT_COMPANY))
        if company.id and held == company.id:
            return Leave(f"customer {at} holds company {company.id}", (at,))
        mine = {id_ for id_, customer in party.subject.brought if customer == at}
        replaceable = _is_empty(held) or held in company.drop or (company.firm and held in mine)
        if not company.id:
            if held not in company.drop:
                return Leave(f"customer {at} does not hold the company it left", (at,))
            self._set_company(at, SlotState.EMPTY, target)
            return Done(Outcome.UNLATCHED, f"company {held} from customer {at}", (at,))
        if not replaceable:
            return Leave(f"customer {at} holds company {held}", (at,))
        return self._bring(party, company.id, at, target)

    def _bring(
        self, party: Party, company: str, at: int, target: dict[int, dict[Slot, Value]]
    ) -> Done | Leave:
        """Put a company beside its contact, from where this contact had brought it to."""
        self._read(one for one, link in self.known.company_links.items() if link == "holds")
        holders = [
            one
            for one in self.known.customers
            if one != at and self._company_slot(one, target) == company
        ]
        for holder in holders:
            alone = _is_empty(self._contact_slot(holder, target))
            if (company, holder) not in party.subject.brought or not alone:
                return Leave(f"company held by {holder}", (at, holder))
        for holder in holders:
            self._set_company(holder, SlotState.EMPTY, target)
        self._set_company(at, company, target)
        if holders:
            return Done(Outcome.MOVED, f"company {company} to customer {at}", (at, *holders))
        return Done(Outcome.LATCHED, f"company {company}, customer {at}", (at,))

    def _company_slot(self, customer_id: int, target: Mapping[int, Mapping[Slot, Value]]) -> Value:
        return self._after(customer_id, Slot.HUBSPOT_COMPANY, target)

    def _contact_slot(self, customer_id: int, target: Mapping[int, Mapping[Slot, Value]]) -> Value:
        return self._after(customer_id, Slot.HUBSPOT_CONTACT, target)

    def _after(
        self, customer_id: int, slot: Slot, target: Mapping[int, Mapping[Slot, Value]]
    ) -> Value:
        if slot in target.get(customer_id, {}):
            return target[customer_id][slot]
        customer = self.known.customers[customer_id]
        return customer.slots[slot] if customer else SlotState.EMPTY

    def _set_company(
        self, customer_id: int, value: Value, target: dict[int, dict[Slot, Value]]
    ) -> None:
        target.setdefault(customer_id, {})[Slot.HUBSPOT_COMPANY] = value

    # --- the writes

    def _order(self, target: Mapping[int, Mapping[Slot, Value]]) -> tuple[Write, ...]:
        slots = order.SET_TOGETHER.get(self.slot, (self.slot,))
        for customer_id in target:
            customer = self.known.customers[customer_id]
            for slot in slots if customer else ():
                if customer and customer.slots[slot] is SlotState.UNKNOWN:
                    raise _Needed(_unknown(customer_id, slot))
        customers = [one for one in self.known.customers.values() if one is not None]
        return order.writes(customers, target, slots)

    def _cannot_release(self, writes: Iterable[Write]) -> bool:
        unsupported = self.slot is Slot.SALESFORCE_ACCOUNT and not self.policy.salesforce_unlatch
        return unsupported and any(_is_empty(write.after[self.slot]) for write in writes)

    def _unsupported(self, writes: Iterable[Write]) -> Bury:
        customers = [write.customer_id for write in writes if _is_empty(write.after[self.slot])]
        named = " and ".join(f"customer {one}" for one in customers)
        return Bury(
            Reason.UNLATCH_UNSUPPORTED,
            f"{self.first.subject.record.mailbox} is to be released from {named}, but Fusebill "
            "documents no call that unlatches Salesforce, so nothing was changed.",
            "Clear it with Fusebill's bulk job (sync-worker dead-letters export --salesforce-bulk "
            "writes its file), or set FUSEBILL_SALESFORCE_UNLATCH_PATH, and replay this.",
            tuple(customers),
        )


def _is_empty(value: Value) -> bool:
    return value is SlotState.EMPTY


def _is_there(customer_id: int) -> Leave:
    return Leave("already latched", (customer_id,), at=customer_id)


def _stays(wish: Keep, holders: frozenset[int]) -> Leave:
    at = min(holders) if len(holders) == 1 else None
    detail = wish.detail or (f"customer {at} holds it" if at else "")
    return Leave(detail, tuple(sorted(holders)), at=at)


def _ends_at(go: _Go | Leave | Bury) -> int | None:
    if isinstance(go, _Go):
        return go.to
    return go.at if isinstance(go, Leave) else None


def _succeeded(party: Party) -> tuple[str, ...]:
    wish = party.wish
    id_ = wish.succeeds if isinstance(wish, Latch) else None
    id_ = wish.previous if isinstance(wish, Find) else id_
    return (id_,) if id_ else ()


def _named(like: Record, id_: str) -> Record:
    """The record of that id in the same CRM: a slot holds no tenant (B2.9)."""
    return msgspec.structs.replace(like, id=id_)


def _unknown(customer_id: int, slot: Slot) -> Unknown:
    return Unknown(
        f"Fusebill's answer for customer {customer_id} leaves out its {slot} slot, so nothing was "
        "changed: check that the integration is switched on for this Fusebill account"
    )


def _listed(customers: Iterable[int]) -> str:
    return " and ".join(f"customer {one}" for one in sorted(customers))


def _conflict(record: Record, customer_id: int, occupant: str) -> Bury:
    return Bury(
        Reason.CONFLICT,
        f"{record.mailbox} names customer {customer_id}, whose {record.slot} slot holds "
        f"{occupant}.",
        f"Decide which of the two belongs to customer {customer_id}; unlatch {occupant} there "
        "and replay this, or correct the record's link field.",
        (customer_id,),
    )


def _held(wish: Latch, holders: frozenset[int]) -> Bury:
    held = _listed(holders)
    return Bury(
        Reason.CONFLICT,
        f"{wish.record.mailbox} names customer {wish.customer_id}, but {held} holds it.",
        f"If it belongs to customer {wish.customer_id}, unlatch it from {held} and replay this; "
        "if not, correct the record's link field.",
        (wish.customer_id, *sorted(holders)),
    )


def _several_merged(party: Party, holders: frozenset[int]) -> Bury:
    merged = ", ".join(record.id for record in party.subject.former)
    return Bury(
        Reason.CONFLICT,
        f"{merged} were merged into {party.subject.record.mailbox}, and {_listed(holders)} hold "
        "one each.",
        "Set the link field of the record that is left to the customer it belongs to, or unlatch "
        "the others in Fusebill and replay this.",
        tuple(sorted(holders)),
    )


def _ambiguous(record: Record, kind: str, found: tuple[int, ...]) -> Bury:
    return Bury(
        Reason.AMBIGUOUS_MATCH,
        f"{record.mailbox} names its customer by its {kind}, which several customers have: "
        f"{_listed(found)}.",
        "Write the Fusebill id of the right one into the record's link field; that closes this.",
        found,
    )


def _cannot_query(record: Record, kind: str) -> Bury:
    return Bury(
        Reason.CUSTOMER_NOT_FOUND,
        f"{record.mailbox} names its customer by a {kind} that Fusebill cannot be asked for: it "
        "holds a sign of the query grammar (; : , * |).",
        "Write the customer's Fusebill id into the record's link field; that closes this.",
        (),
    )


def _several_hold(record: Record, holders: frozenset[int]) -> Bury:
    return Bury(
        Reason.AMBIGUOUS_MATCH,
        f"{record.mailbox} is to be released, but several customers hold it: {_listed(holders)}.",
        "Unlatch it in Fusebill from those it does not belong to, then replay this.",
        tuple(sorted(holders)),
    )
