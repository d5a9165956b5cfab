"""Carry out a plan: one call after the other, each checked by the answer it gets (B5.1, B5.4).

No call rests on a reading that is too old, and none is sent without every lease (B5.3). What a
plan lets go of is written down before, so that it can be put back if the rest is refused (B5.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from sync_worker.decide import order
from sync_worker.decide.order import Value, Write
from sync_worker.decide.plan import Plan
from sync_worker.domain import Customer, Slot, SlotState
from sync_worker.fusebill import errors
from sync_worker.fusebill.client import FusebillClient
from sync_worker.gather import SNAPSHOT_SECONDS, Busy, Gatherer
from sync_worker.inbox.inbox import Intent
from sync_worker.inbox.reserve import Exhausted

PRESERVE_SECONDS = 5.0
"""A slot that a call preserves was read at most this long before the call (B5.4)."""

_MAY_PASS = (Busy, Exhausted, errors.Transient, errors.RateLimited, errors.Unauthorized)
"""What stands in the way of putting something back for a while only."""

_REFUSALS = (errors.Rejected, errors.RelayedNotFound, errors.RateLimited, errors.Unauthorized)
"""Answers after which a write is known not to land."""


class Changed(Exception):
    """A customer is not as the plan takes it to be: plan anew."""


class Unmet(Exception):
    """An answer cannot be decided on, or a call did not have its effect; it may later."""


class LetGo(msgspec.Struct, frozen=True):
    """What a plan lets go of before it is put elsewhere."""

    customer: int
    slot: Slot
    id: str


@dataclass(slots=True)
class Writer:
    """Sends the writes of one convergence."""

    gatherer: Gatherer
    because: str
    """The change that brings them about: its mailbox and number."""
    _reserved: list[int] = field(default_factory=list)

    def carry_out(self, plan: Plan) -> None:
        """Send the writes of a plan in order; their calls are reserved together (B7.2).

        Raises Changed, Unmet, Busy, LeaseLost, Exhausted, and what the client raises.
        """
        first = {write.customer_id: write for write in reversed(plan.writes)}
        try:
            for write in first.values():
                self._check_fresh(write)
            for at, write in enumerate(plan.writes):
                self._send(write, undo=self._undo(plan, at), more=len(plan.writes) - at)
        finally:
            self._give_back()

    def _give_back(self) -> None:
        """Put back what was reserved and not made."""
        self.gatherer.calls.purse.put(self._reserved)
        self._reserved = []

    def _undo(self, plan: Plan, at: int) -> str:
        """What is let go of up to this write and put elsewhere after it, with that of before."""
        let_go = decode_undo(self.gatherer.claim.undo)
        later = {(s, v) for write in plan.writes for s, v in write.after.items()}
        for write in plan.writes[: at + 1]:
            let_go += [
                LetGo(write.customer_id, slot, before)
                for slot, before in write.before.items()
                if isinstance(before, str)
                and write.after[slot] != before
                and (slot, before) in later  # what is released for good is not put back
            ]
        return msgspec.json.encode(list(dict.fromkeys(let_go))).decode() if let_go else ""

    def _send(self, write: Write, *, undo: str, more: int = 1) -> None:
        """Send one of `more` writes that are still to be sent.

        With its call those of the others are reserved, and for each of these a reading: the one
        before may take so long that its customer has to be looked at again.
        """
        gatherer = self.gatherer
        limit = self._check_fresh(write)
        if SlotState.UNKNOWN in write.after.values():
            raise Unmet(f"Fusebill's answer for customer {write.customer_id} leaves out a slot")
        intent = Intent(
            write.customer_id,
            self.because,
            {slot: _text(value) for slot, value in write.after.items()},
            frozenset(write.displaces),
            undo,
        )
        held, self._reserved = gatherer.hold(
            [write.customer_id], to_write=intent, calls=2 * more - 1, having=self._reserved
        )
        gatherer.claim.undo = undo
        at = gatherer.monotonic()
        if at - gatherer.read_at[write.customer_id] > limit:
            raise Changed  # taking the leases took too long
        customer = self._issue(write, call=self._reserved.pop(), sent_at=held.at)
        gatherer.customers[customer.id] = customer
        gatherer.read_at[customer.id] = at
        for slot, value in write.after.items():
            if customer.slots[slot] != value:
                # The next try reads the customer: if it is as it should be, that settles it.
                raise Unmet(
                    f"Fusebill answered the call for customer {customer.id} with success, but its "
                    f"{slot} slot was not as it should be then"
                )

    def _issue(self, write: Write, *, call: int, sent_at: int) -> Customer:
        calls = self.gatherer.calls
        try:
            return calls.make(
                lambda: issue(calls.account.client, write),
                call=call,
                whom=write.customer_id,
                sent_at=sent_at,
                written=True,
            )
        except errors.FusebillError as error:
            if isinstance(error, _REFUSALS):
                self.gatherer.inbox.refused(write.customer_id)
            self.gatherer.since = sent_at + 1  # whatever it did, it is to be looked at
            raise

    def _check_fresh(self, write: Write) -> float:
        """Read again what was read too long ago; it must be as the plan takes it to be.

        Gives how old, in seconds, what the call rests on may be.
        """
        gatherer = self.gatherer
        preserves = Slot.HUBSPOT_CONTACT in write.after
        limit = PRESERVE_SECONDS if preserves else SNAPSHOT_SECONDS
        read_at = gatherer.read_at.get(write.customer_id)
        is_old = read_at is None or gatherer.monotonic() - read_at > limit
        if is_old or (preserves and write.customer_id not in gatherer.under_lease):
            paid, self._reserved = self._reserved[:1], self._reserved[1:]
            gatherer.read([write.customer_id], anew=True, paid=paid)
            if gatherer.monotonic() - gatherer.read_at[write.customer_id] > limit:
                raise Changed
        customer = gatherer.customers.get(write.customer_id)
        if customer is None or any(customer.slots[s] != v for s, v in write.before.items()):
            raise Changed
        return limit

    def put_back(self, *, last_try: bool) -> str:
        """Put back what was let go of, where its slot is still free (B5.2).

        Gives a sentence for the dead letter, "" if nothing was let go of. Raises LeaseLost, and
        unless this is the last try, what may pass: Busy, and the client's errors that do.
        """
        let_go = decode_undo(self.gatherer.claim.undo)
        try:
            told = [self._put_back(one, last_try=last_try) for one in reversed(let_go)]
        finally:
            self._give_back()
        return " ".join(sentence for sentence in told if sentence)

    def _put_back(self, one: LetGo, *, last_try: bool) -> str:
        where = f"{one.id} to customer {one.customer}"
        try:
            known = self.gatherer.customers  # also one whose answer was lost
            self.gatherer.read({one.customer, *known, *self._holders(one)}, anew=True)
            customer = self.gatherer.customers[one.customer]
            if any(c and c.slots[one.slot] == one.id for c in self.gatherer.customers.values()):
                return ""
            if customer is None or customer.slots[one.slot] is not SlotState.EMPTY:
                return f"Could not put back {where}: its place is taken."
            slots = order.SET_TOGETHER.get(one.slot, (one.slot,))
            target = {one.customer: {one.slot: one.id}}
            for write in order.writes([customer], target, slots):
                self._send(write, undo=self.gatherer.claim.undo)
        except (errors.FusebillError, Changed, Unmet, Busy, Exhausted) as error:
            if isinstance(error, _MAY_PASS) and not last_try:
                raise
            return f"Could not put back {where}: {error}"
        return f"Put back {where}, which was let go of for it."

    def _holders(self, one: LetGo) -> list[int]:
        links = self.gatherer.links.known(one.slot, [one.id])
        return [customer for customer, link in links.items() if link == "holds"]


def decode_undo(text: str) -> list[LetGo]:
    """Read back what `Intent.undo` carries."""
    return msgspec.json.decode(text, type=list[LetGo]) if text else []


def _text(value: Value) -> str:
    return "" if isinstance(value, SlotState) else value


def issue(fusebill: FusebillClient, write: Write) -> Customer:
    """Make the call that a write is (the table of B1, B5.4 to B5.6)."""
    after, customer_id = write.after, write.customer_id
    if Slot.HUBSPOT_CONTACT in after:
        return _issue_hubspot(fusebill, customer_id, after)
    ((slot, value),) = after.items()
    if slot is Slot.GEOTAB_CUSTOMER:
        if isinstance(value, str):
            return fusebill.latch_geotab(customer_id, value)
        return fusebill.unlatch_geotab(customer_id)
    if isinstance(value, str):
        # Nothing is displaced unseen: only an occupant that the plan names (B5.5).
        return fusebill.latch_salesforce(customer_id, value, force=bool(write.displaces))
    return fusebill.unlatch_salesforce(customer_id)


def _issue_hubspot(
    fusebill: FusebillClient, customer_id: int, after: Mapping[Slot, Value]
) -> Customer:
    contact, company = (
        value if isinstance(value := after[slot], str) else None
        for slot in (Slot.HUBSPOT_CONTACT, Slot.HUBSPOT_COMPANY)
    )
    if contact is None and company is None:
        return fusebill.unlatch_hubspot(customer_id)
    return fusebill.latch_hubspot(customer_id, contact=contact, company=company)
