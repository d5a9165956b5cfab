"""Find out what a convergence must know: mailboxes, what the CRM says, customers (B5.1, B5.2).

Everything that is read is held first, all or nothing (B5.3); a plan asks, and this answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sync_worker.calls import Calls
from sync_worker.crm import Reader
from sync_worker.crm.errors import CrmError
from sync_worker.decide import fold as folding
from sync_worker.decide import plan as planning
from sync_worker.decide.match import Link, Query
from sync_worker.decide.sift import Sifted, before_merge, sift
from sync_worker.decide.subject import Box, Policy, Subject
from sync_worker.domain import Customer, Kind, Marks, Pending, Record, Slot, Source, Truth
from sync_worker.fusebill import errors, find
from sync_worker.fusebill.client import PAGE_SIZE
from sync_worker.fusebill.customer import CustomerPage
from sync_worker.inbox import Claim, Inbox
from sync_worker.inbox.inbox import Held, Intent, Reading, Snapshot
from sync_worker.inbox.reserve import Reserve
from sync_worker.links import LinkIndex

SNAPSHOT_SECONDS = 30.0
"""What is decided on was read at most this long before (B7.4)."""


class Busy(Exception):
    """Another worker holds a mailbox or a customer that is needed."""


@dataclass(slots=True)
class Participant:
    """A record that takes part, and what was found out about it."""

    subject: Subject
    sifted: Sifted
    truth: Truth | None
    folded: folding.Folded

    @property
    def record(self) -> Record:
        """The record that is left of it."""
        return self.subject.record

    @property
    def is_merging(self) -> bool:
        """Whether a merge is told now, or a change of a merged record shows it first."""
        former = {one.seq for box in self.subject.boxes[1:] for one in box.pending}
        fresh = [one for many in self.sifted.fresh.values() for one in many]
        return any(one.change.kind is Kind.MERGED or one.seq in former for one in fresh)

    @property
    def claims(self) -> str | None:
        """What its link field says, as read or else as last told."""
        if self.truth is not None and self.truth.link is not None:
            return self.truth.link
        return self.folded.claim or self.subject.marks.claim


@dataclass(slots=True)
class Gatherer:
    """What one convergence knows. Lives as long as the claim it works for."""

    claim: Claim
    inbox: Inbox
    links: LinkIndex
    calls: Calls
    readers: Mapping[Source, Reader]
    policy: Policy
    statuses: Sequence[str]
    monotonic: Callable[[], float] = time.monotonic
    participants: list[Participant] = field(default_factory=list)
    customers: dict[int, Customer | None] = field(default_factory=dict)
    read_at: dict[int, float] = field(default_factory=dict)
    """When the request of each customer's last answer was sent, by the local clock."""
    under_lease: set[int] = field(default_factory=set)
    """The customers whose last answer was asked for under the lease that is held (B5.4)."""
    since: int = 0
    """No reading will do that was asked for before (us, store's clock)."""
    found: dict[Query, tuple[int, ...] | None] = field(default_factory=dict)
    index: dict[tuple[Slot, tuple[str, ...]], dict[int, Link]] = field(default_factory=dict)
    """What the link index said; what is read since shows in `customers`."""
    swept: int | None = None
    """When the last complete sweep began, as it was when this convergence first asked (ms)."""
    without_company: bool = False
    """Fusebill refused a company: the contact's latch goes on without it (B5.7)."""

    # --- records

    def participate(self, record: Record) -> Participant:
        """Take a record in, with all that was merged into it and what its CRM says.

        Raises Busy, LeaseLost, what the CRM's reader raises.
        """
        first = not self.participants
        subject = self._subject(record.mailbox, record)
        reader = self.readers.get(record.source)
        reads = reader is not None
        sifted = sift(subject, self.policy, reads=reads)
        truth = None
        if reader is not None and (sifted.fresh or not first):
            truth = self._read_truth(reader, subject.record)
            if truth.survivor is not None and truth.survivor != subject.record:
                self.inbox.note_merge(subject.record, truth.survivor)
                subject = self._subject(truth.survivor.mailbox, truth.survivor)
                sifted = sift(subject, self.policy, reads=reads)
        if earlier := before_merge(subject, sifted):
            subject, sifted = earlier, sift(earlier, self.policy, reads=reads)
        folded = folding.fold(
            subject, sifted, self.policy, now=self.claim.now, truth=truth, joined=not first
        )
        if folded.wish is None and not first and not folded.absent and not _tells_link(truth):
            folded.wish = _standing_claim(subject)
        participant = Participant(subject, sifted, truth, folded)
        self.participants.append(participant)
        return participant

    def _read_truth(self, reader: Reader, record: Record) -> Truth:
        self.hold()
        try:
            truth = reader.read(record)
        except CrmError as error:
            self.calls.heard_crm(record, error)
            raise
        self.calls.heard_crm(record, None)
        return truth

    def _subject(self, mailbox: str, like: Record) -> Subject:
        """The record of a mailbox, or what is left of it, with all that was merged into that."""
        claim = self.claim
        self._join([mailbox])
        survivor, merged = self._group(mailbox)
        self._join([survivor])
        if survivor != mailbox:
            _, merged = self._group(survivor)
        self._join(merged)
        held = {claim.mailbox: (claim.marks, claim.pending)}
        held |= {one.mailbox: (one.marks, one.pending) for one in claim.joined.values()}
        names = dict.fromkeys([survivor, *merged])
        return Subject(tuple(_box(name, like, *held[name]) for name in names))

    def _group(self, mailbox: str) -> tuple[str, tuple[str, ...]]:
        if mailbox == self.claim.mailbox:
            return self.claim.survivor, self.claim.merged
        joined = self.claim.joined[mailbox]
        return joined.survivor, joined.merged

    def _join(self, mailboxes: Iterable[str]) -> None:
        if not self.inbox.join(self.claim, mailboxes):
            raise Busy

    # --- customers

    def hold(
        self,
        more: Iterable[int] = (),
        *,
        to_write: Intent | None = None,
        read: Sequence[int] = (),
        calls: int = 0,
        having: Sequence[int] = (),
    ) -> tuple[Held, list[int]]:
        """Take or renew all leases before a call, so that they outlive it (B5.3).

        Gives also the calls that were reserved: `calls` and one for each customer of `read` of
        whom there is no snapshot; `having` are those of them that were reserved before.
        Raises Busy, LeaseLost, Exhausted.
        """
        wanted, purse = calls + len(read), self.calls.purse
        taken = purse.take(max(0, wanted - len(having)))
        in_hand = [*having, *taken]
        reading = reserve = None
        if read:
            reading = reading_for(self.claim, read, account=self.links.account, since=self.since)
        if wanted:
            budget = self.calls.account.budget.packed
            reserve = Reserve(budget, self.calls.priority, calls, in_hand, purse.is_old)
        held = None
        try:
            held = self.inbox.hold(
                self.claim,
                {*self.claim.customers, *self.customers, *more},
                to_write=to_write,
                reading=reading,
                reserve=reserve,
            )
        finally:
            if held is None:
                purse.put(taken)
        if held is None:
            raise Busy
        reserved = [*in_hand, *held.calls]
        needed = wanted - len(held.snapshots)
        purse.put(reserved[needed:])
        return held, reserved[:needed]

    def read(self, ids: Iterable[int], *, anew: bool = False, paid: Sequence[int] = ()) -> None:
        """Have customers read, each under its lease; `anew`: no snapshot will do. `paid` are calls
        that are reserved for it already.

        Raises what `hold` and the client raise.
        """
        wanted, calls, asked = sorted(ids), list(paid), self.monotonic()
        try:
            held, calls = self.hold(
                wanted, read=() if anew else wanted, calls=len(wanted) * anew, having=calls
            )
            for customer_id, snapshot in held.snapshots.items():
                self._take(customer_id, snapshot, asked - (held.at - snapshot.sent_at) / 1e6)
            missing = [one for one in wanted if one not in held.snapshots]
            for place, customer_id in enumerate(missing):
                if place:
                    held, calls = self.hold(wanted, calls=len(calls), having=calls)
                self._get(customer_id, calls.pop(0), held.at)
        finally:
            self.calls.purse.put(calls)

    def _get(self, customer_id: int, call: int, sent_at: int) -> None:
        self.read_at[customer_id] = self.monotonic()
        self.under_lease.add(customer_id)
        client = self.calls.account.client
        try:
            self.customers[customer_id] = self.calls.make(
                lambda: client.get_customer(customer_id),
                call=call,
                whom=customer_id,
                sent_at=sent_at,
            )
        except errors.CustomerNotFound:
            self.customers[customer_id] = None

    def _take(self, customer_id: int, snapshot: Snapshot, read_at: float) -> None:
        """Take what somebody has just read; of it only the slots are known."""
        self.customers[customer_id] = Customer(customer_id, "", None, dict(snapshot.slots))
        self.read_at[customer_id] = read_at
        if snapshot.sent_at >= self.claim.leased_at[customer_id]:
            self.under_lease.add(customer_id)
        else:
            self.under_lease.discard(customer_id)

    def forget(self) -> None:
        """Have everything of Fusebill read anew; the leases stay."""
        self.distrust()
        self.customers.clear()
        self.read_at.clear()
        self.found.clear()
        self.index.clear()

    def distrust(self) -> None:
        """Have no snapshot do that was taken before now."""
        self.since = self.hold()[0].at + 1

    def list_customers(
        self, *, page: int, page_size: int = PAGE_SIZE, query: str | None = None
    ) -> CustomerPage:
        """Read a page of the customers that match (see the client).

        Raises what `hold` and the client raise.
        """
        held, (call,) = self.hold(calls=1)
        client = self.calls.account.client
        return self.calls.make(
            lambda: client.list_customers(page=page, page_size=page_size, query=query),
            call=call,
            sent_at=held.at,
        )

    def query(self, query: Query) -> None:
        """Ask for the customers that have this reference or email."""
        if not find.queryable(query.value):
            self.found[query] = None
            return
        by = find.by_reference if query.kind == "reference" else find.by_email
        rows = by(self, query.value, statuses=self.statuses)
        self.found[query] = tuple(row.id for row in rows)

    # --- the plan

    def plan(self) -> planning.Plan | planning.Need:
        """Plan with what is known so far."""
        parties = [self._party(one) for one in self.participants]
        first = parties[0]
        slot = first.subject.record.slot
        return planning.plan(parties, self._known(first, slot), self.policy)

    def _party(self, one: Participant) -> planning.Party:
        links = dict(self._links(one.record.slot, sorted(one.subject.ids)))
        merging = one.subject.former and one.is_merging
        untraced = merging and not self._traced(one)
        if "holds" not in links.values():
            links |= self._asked_by_salesforce_id(one)
        company = None if self.without_company else one.folded.company
        wish = one.folded.wish or folding.Keep(one.record, "")
        return planning.Party(
            one.subject,
            wish,
            links,
            company,
            one.claims,
            untraced=bool(untraced),
            unlinked=one.folded.unlinked,
            let_go=one.folded.let_go,
            undecided=one.folded.undecided,
        )

    def _traced(self, one: Participant) -> bool:
        """Whether it is known of each merged record who holds it, or that we released it."""
        return all(
            any(
                link in ("holds", "released")
                for link in self._links(one.record.slot, [id_]).values()
            )
            for id_ in sorted(one.subject.ids - {one.record.id})
        )

    def _links(self, slot: Slot, ids: Sequence[str]) -> dict[int, Link]:
        key = (slot, tuple(ids))
        if key not in self.index:
            self.index[key] = self.links.known(slot, ids) if ids else {}
        return self.index[key]

    def _asked_by_salesforce_id(self, one: Participant) -> dict[int, Link]:
        """An Account's holder can be asked for, where the index does not know it (B4.1)."""
        wish = one.folded.wish
        looks = isinstance(wish, folding.Release | folding.Find) or (
            isinstance(wish, folding.Keep) and wish.merged
        )
        if one.record.slot is not Slot.SALESFORCE_ACCOUNT or not looks:
            return {}
        answer: dict[int, Link] = {}
        for id_ in sorted(one.subject.ids):
            query = Query("salesforceId", id_)
            if query not in self.found:
                rows = find.by_salesforce_id(self, id_)
                self.found[query] = tuple(row.id for row in rows)
            answer |= dict.fromkeys(self.found[query] or (), "holds")
        return answer

    def _known(self, first: planning.Party, slot: Slot) -> planning.Known:
        wish, company = first.wish, first.company
        previous = getattr(wish, "previous", None)
        companies = [company.id] if company is not None and company.id else []
        since = self._received()
        if self.swept is None:
            self.swept = self.links.swept_since(slot)
        swept = self.swept
        return planning.Known(
            customers=self.customers,
            company_links=self._links(Slot.HUBSPOT_COMPANY, companies),
            previous_links=self._links(slot, [previous] if previous else []),
            found=self.found,
            replaced=self._replaced(slot),
            now=self.claim.now,
            swept=bool(swept) and swept > since,
            refused=bool(self.claim.refused_at) and swept > self.claim.refused_at,
        )

    def _received(self) -> int:
        """When the newest change was received, or put back by a replay: a sweep begins later."""
        received = [one.received_at for one in self.participants[0].subject.pending]
        return max([*received, self.claim.replayed_at])

    def _replaced(self, slot: Slot) -> dict[int, int]:
        if not self.policy.replace:
            return {}
        at = {one: self.links.replaced_at(one, slot) for one in self.customers}
        return {customer: moment for customer, moment in at.items() if moment is not None}


def reading_for(claim: Claim, customers: Iterable[int], *, account: str, since: int = 0) -> Reading:
    """What will do for customers that a claim needs: a snapshot asked for after all that is held
    was received, and not before `since` (us, store's clock) (B7.4).
    """
    received_by = 1000 * (claim.received_at + 1)
    oldest_us = round(SNAPSHOT_SECONDS * 1e6)
    return Reading(account, tuple(customers), max(since, received_by), oldest_us)


def _tells_link(truth: Truth | None) -> bool:
    return truth is not None and truth.link is not None


def _standing_claim(subject: Subject) -> folding.Latch | None:
    """What a record that is in the way claims since a change that could not be done yet.

    Two records that change places are seldom told of at once: the first ends as a conflict, and the
    second makes room for it (B5.2).
    """
    marks = subject.marks
    customer_id = folding.positive_integer(marks.claim)
    if customer_id is None or not marks.shown:
        return None
    return folding.Latch(subject.record, customer_id, evidence=True)


def _box(mailbox: str, like: Record, marks: Marks, pending: Sequence[Pending]) -> Box:
    record = Record(like.source, like.tenant, like.type, mailbox.split(":", 3)[3])
    return Box(record, marks, tuple(pending))
