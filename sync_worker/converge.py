"""The one path every mailbox takes: claim, fold, match, read, plan, call, check, settle.

Webhooks are hints, mailboxes are what is owed, Fusebill is what is. A convergence reads the
customers concerned, makes at most one write, and settles what the mailbox held when it was
claimed. It may die between any two steps: the lease runs out, the mailbox is due again, and the
next convergence reads afresh and finds out what is still to be done.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from sync_worker.decide import fold as folding
from sync_worker.decide import plan as planning
from sync_worker.decide import retry
from sync_worker.decide.match import customers_to_read
from sync_worker.domain import Attempt, Customer, Outcome, Pending
from sync_worker.fusebill import errors
from sync_worker.fusebill.client import FusebillClient
from sync_worker.fusebill.limits import RateLimits
from sync_worker.inbox import Burial, Claim, Inbox, LeaseLost, Settlement, Suspect, Verdict
from sync_worker.inbox.codec import NewerFormat
from sync_worker.links import LinkIndex
from sync_worker.settings import Settings
from sync_worker.store import StoreError

log = logging.getLogger(__name__)

PRESERVE_SECONDS = 5.0
"""A slot that a call preserves was read at most this long before the call (B5.4)."""

SNAPSHOT_SECONDS = 30.0
"""What any other call rests on was read at most this long before it (B7.4)."""

READINGS = 3
"""How often customers are read because reading took longer than that, or a call met a conflict."""

CONFLICT = 409
"""Valid, but against a rule: the customer may have changed since it was read (ref/errors)."""

BUSY_SECONDS = 0.5
"""How soon a mailbox is tried again whose customer another mailbox is working on."""


class Ended(Enum):
    """How a convergence ended, for the caller that works through many."""

    SETTLED = "settled"
    MORE = "more"
    """Settled, but changes came meanwhile: it is due again now."""
    BUSY = "busy"
    """Another mailbox works on one of its customers: due again in BUSY_SECONDS."""
    POSTPONED = "postponed"
    NOT_DUE = "not_due"
    """Nothing to do: empty, in back-off, or another worker has it."""
    LOST = "lost"
    """The lease ran out under way: whoever has it now goes on."""


class CustomerBusy(Exception):
    """Another mailbox holds the lease of a customer that is needed."""


class Unmet(Exception):
    """An answer cannot be decided on, or a call did not have its effect; it may later."""


class GoneCustomer(Exception):
    """The customer that is named explicitly was there once and is not any more (B6.5)."""


class NoSuchCustomer(Exception):
    """The customer that is named explicitly is not there; it may be created later (B4.4)."""


@dataclass(slots=True)
class Converger:
    """What a convergence needs. Not to be shared between threads: it holds one client."""

    inbox: Inbox
    links: LinkIndex
    fusebill: FusebillClient
    settings: Settings
    tell_limits: Callable[[RateLimits], None]
    """Told what Fusebill's answers said of its rate limits."""
    monotonic: Callable[[], float] = time.monotonic
    clock: Callable[[], float] = time.time
    jitter: Callable[[], float] = field(default=partial(random.uniform, -1, 1))
    _attempts: list[Attempt] = field(default_factory=list)
    _limits: RateLimits = field(default_factory=RateLimits)

    def __post_init__(self) -> None:
        """Have the client's calls recorded."""
        self.fusebill.on_call = self._record

    def _record(self, attempt: Attempt) -> None:
        self._attempts.append(attempt)

    def converge(self, mailbox: str) -> Ended:
        """Converge one mailbox, if it is due and free.

        Raises StoreError when Redis cannot be used; the mailbox is then due again by itself when
        its lease runs out.
        """
        try:
            claim = self.inbox.claim(mailbox)
        except NewerFormat as error:
            log.warning("left for a newer version: %s", error, extra={"mailbox": mailbox})
            return Ended.POSTPONED
        if claim is None:
            return Ended.NOT_DUE
        self._attempts = claim.attempts
        try:
            ended = self._work(claim)
        except LeaseLost:
            log.warning("lease lost, left to its new holder", extra={"mailbox": mailbox})
            return Ended.LOST
        except Suspect as suspect:
            self.inbox.postpone(claim, seconds=suspect.seconds, failures=claim.failures)
            return Ended.POSTPONED
        self._report_limits()
        return ended

    def _report_limits(self) -> None:
        if self.fusebill.limits != self._limits:
            self._limits = self.fusebill.limits
            try:
                self.tell_limits(self._limits)
            except StoreError as error:  # a full store still drains (B6.12)
                log.debug("the rate limits could not be stored: %s", error)

    def _work(self, claim: Claim) -> Ended:
        folded = folding.fold(
            claim.pending,
            watermarks=claim.watermarks,
            last_claim=claim.last_claim,
            ended_at=claim.ended_at,
            company_policy=self.settings.hubspot_latch_company,
        )
        settlement = Settlement(
            [Verdict(told.pending, told.outcome, told.detail) for told in folded.told],
            [Burial(r.aspect, r.reason, r.message, r.next_step, r.pending) for r in folded.refused],
        )
        if folded.wanted is None or folded.by is None:
            return self._settle(claim, settlement)
        try:
            plan = self._carry_out(claim, folded.wanted)
        except CustomerBusy:
            self.inbox.postpone(claim, seconds=BUSY_SECONDS, failures=claim.failures)
            return Ended.BUSY
        except (LeaseLost, StoreError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever went wrong, nothing is lost
            decision = self._after(error, claim)
            lost = _answer_lost(error)
            if isinstance(decision, retry.Wait):
                self.inbox.postpone(
                    claim,
                    seconds=decision.seconds,
                    failures=decision.failures,
                    answer_lost=lost,
                )
                return Ended.POSTPONED
            settlement.answer_lost = lost
            plan = planning.Bury(
                decision.reason, _message(error), decision.next_step, _named(folded.wanted)
            )
        _add_outcome(settlement, folded.wanted, folded.by, plan, claim.attempts)
        return self._settle(claim, settlement)

    def _settle(self, claim: Claim, settlement: Settlement) -> Ended:
        left = self.inbox.settle(claim, settlement)
        for verdict in settlement.all_verdicts():
            log.info(
                "%s change %d of %s: %s",
                verdict.outcome,
                verdict.pending.seq,
                claim.mailbox,
                verdict.detail or "done",
            )
        return Ended.MORE if left else Ended.SETTLED

    def _carry_out(self, claim: Claim, wanted: folding.Wanted) -> planning.Settled:
        """Read the customers concerned, plan, and make the call if one is needed.

        It is read and planned anew where the reading took too long, and after a 409 (B6.5).
        """
        refused = False
        for _ in range(READINGS):
            plan, read_at = self._plan(claim, wanted)
            if not isinstance(plan, planning.Do):
                return plan
            sent_at = self._hold(claim, set(read_at), to_write=plan.call.customer_id)
            if self.monotonic() - read_at[plan.call.customer_id] > _freshness(plan.call):
                continue
            try:
                self._write(plan, sent_at)
            except errors.Rejected as error:
                if error.attempt.status != CONFLICT or refused:
                    raise
                refused = True
                continue
            return plan
        raise Unmet("Fusebill took too long for each read to write safely upon it")

    def _plan(
        self, claim: Claim, wanted: folding.Wanted
    ) -> tuple[planning.Settled, dict[int, float]]:
        """Read the customers concerned and plan; gives also when each was read."""
        known = self.links.known(wanted.record)
        to_read = customers_to_read(wanted, known)
        read_at: dict[int, float] = {}
        customers: dict[int, Customer | None] = {}
        for customer_id in sorted(to_read):
            read_at[customer_id] = self.monotonic()
            customers[customer_id] = self._read(claim, to_read, customer_id)
        plan = planning.plan(
            wanted,
            customers,
            ours=all(link == "released" for link in known.values()),
            salesforce_unlatch=self.settings.fusebill_salesforce_unlatch_path is not None,
        )
        if isinstance(plan, planning.Unknown):
            raise Unmet(plan.message)
        if isinstance(plan, planning.Missing):
            kind = GoneCustomer if self.links.seen(plan.customer_id) else NoSuchCustomer
            raise kind(f"Fusebill has no customer {plan.customer_id}.")
        return plan, read_at

    def _hold(self, claim: Claim, customers: set[int], *, to_write: int | None = None) -> int:
        """Take or renew all leases before a call, so that they outlive it (B5.3)."""
        held_at = self.inbox.hold(claim, customers, to_write=to_write)
        if held_at is None:
            raise CustomerBusy
        return held_at

    def _read(self, claim: Claim, leased: set[int], customer_id: int) -> Customer | None:
        sent_at = self._hold(claim, leased)
        try:
            customer = self.fusebill.get_customer(customer_id)
        except errors.CustomerNotFound:
            return None
        self.links.observe(customer, sent_at=sent_at)
        return customer

    def _write(self, do: planning.Do, sent_at: int) -> None:
        customer = self._issue(do.call)
        self.links.observe(customer, sent_at=sent_at, written=True)
        for slot, value in do.expect.items():
            if customer.slots[slot] != value:
                # The next try reads the customer: if it is as it should be, that settles it.
                raise Unmet(
                    f"Fusebill answered the call for customer {customer.id} with success, but its "
                    f"{slot} slot was not as it should be then"
                )

    def _issue(self, call: planning.Call) -> Customer:
        fusebill = self.fusebill
        match call:
            case planning.LatchHubSpot(customer_id, contact, company):
                return fusebill.latch_hubspot(customer_id, contact=contact, company=company)
            case planning.UnlatchHubSpot(customer_id):
                return fusebill.unlatch_hubspot(customer_id)
            case planning.LatchSalesforce(customer_id, account_id):
                # False: the slot was read empty, and nothing may be displaced unseen (B5.5).
                return fusebill.latch_salesforce(customer_id, account_id, force=False)
            case planning.UnlatchSalesforce(customer_id):
                return fusebill.unlatch_salesforce(customer_id)
            case planning.LatchGeotab(customer_id, geotab_id):
                return fusebill.latch_geotab(customer_id, geotab_id)
            case planning.UnlatchGeotab(customer_id):
                return fusebill.unlatch_geotab(customer_id)

    def _after(self, error: Exception, claim: Claim) -> retry.Wait | retry.GiveUp:
        trouble = _TROUBLE.get(type(error))
        if trouble is None:
            log.error("convergence of %s failed unexpectedly", claim.mailbox, exc_info=error)
            trouble = retry.Trouble.TRANSIENT
        reset_at = error.reset_at if isinstance(error, errors.RateLimited) else None
        decision = retry.after(
            trouble,
            failures=claim.failures,
            schedule=self.settings.retry_schedule_seconds,
            not_found_steps=self.settings.not_found_retries,
            jitter=self.jitter(),
            reset_seconds=reset_at - self.clock() if reset_at is not None else None,
        )
        if isinstance(decision, retry.Wait):
            log.warning("%s waits %.1f s: %s", claim.mailbox, decision.seconds, _message(error))
        else:
            log.error("%s becomes a dead letter: %s", claim.mailbox, _message(error))
        return decision


_TROUBLE = {
    errors.Transient: retry.Trouble.TRANSIENT,
    errors.RelayedNotFound: retry.Trouble.RELAYED_NOT_FOUND,
    errors.RateLimited: retry.Trouble.RATE_LIMITED,
    errors.Unauthorized: retry.Trouble.UNAUTHORIZED,
    errors.CustomerNotFound: retry.Trouble.MISSING_CUSTOMER,
    errors.Rejected: retry.Trouble.REJECTED,
    Unmet: retry.Trouble.TRANSIENT,
    GoneCustomer: retry.Trouble.GONE_CUSTOMER,
    NoSuchCustomer: retry.Trouble.MISSING_CUSTOMER,
}


def _answer_lost(error: Exception) -> bool:
    """Whether a write may have been sent and its effect be unknown."""
    if isinstance(error, errors.Transient):
        return error.answer_lost
    return type(error) not in _TROUBLE


def _message(error: Exception) -> str:
    """One sentence; the text of an unforeseen error may hold anything, so it stays in the log."""
    if type(error) in _TROUBLE:
        return str(error)
    return f"sync-worker itself failed with {type(error).__name__}: its log says where."


def _named(wanted: folding.Wanted) -> tuple[int, ...]:
    named = wanted.customer_id if isinstance(wanted, folding.Latch) else wanted.only
    return () if named is None else (named,)


def _freshness(call: planning.Call) -> float:
    """How old a read a call may rest on, in seconds."""
    hubspot = isinstance(call, planning.LatchHubSpot | planning.UnlatchHubSpot)
    return PRESERVE_SECONDS if hubspot else SNAPSHOT_SECONDS


def _add_outcome(
    settlement: Settlement,
    wanted: folding.Wanted,
    by: Pending,
    plan: planning.Settled,
    attempts: Sequence[Attempt],
) -> None:
    match plan:
        case planning.Do(call, _, outcome):
            customers = (call.customer_id,)
            settlement.verdicts.append(
                Verdict(by, outcome, f"customer {call.customer_id}", customers)
            )
        case planning.Leave(detail, customers, unmet):
            settlement.verdicts.append(
                Verdict(by, Outcome.UNCHANGED, detail, customers, unmet=unmet)
            )
        case planning.Bury(reason, message, next_step, customers):
            settlement.burials.append(
                Burial(
                    by.change.aspect,
                    reason,
                    message,
                    next_step,
                    (by,),
                    customers,
                    attempts=tuple(attempts),
                    evidence=isinstance(wanted, folding.Latch) and wanted.evidence,
                )
            )
