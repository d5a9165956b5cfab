"""The one path every mailbox takes: claim, read, fold, match, plan, call, check, settle.

Webhooks are hints, mailboxes are what is owed, Fusebill and the CRMs are what is. A convergence
reads all that it concerns, writes what differs, and settles what the mailbox held when it was
claimed. It may die between any two steps: the lease runs out, the mailbox is due again, and the
next convergence reads afresh and finds out what is still to be done.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from sync_worker import gates, outcome, stopping
from sync_worker.calls import Account, Calls, Purse, Recorder
from sync_worker.carry_out import Changed, Unmet, Writer
from sync_worker.crm import Reader
from sync_worker.crm import errors as crm
from sync_worker.decide import fold as folding
from sync_worker.decide import plan as planning
from sync_worker.decide import retry
from sync_worker.decide.match import Link, Query
from sync_worker.decide.sift import Sifted
from sync_worker.decide.subject import Box, Policy, Subject
from sync_worker.domain import (
    Aspect,
    Attempt,
    Change,
    Kind,
    Outcome,
    Reason,
    Slot,
    Source,
)
from sync_worker.fusebill import errors
from sync_worker.gather import Busy, Gatherer, Participant
from sync_worker.inbox import Claim, Claims, Inbox, LeaseLost, Settlement, Suspect
from sync_worker.inbox.codec import NewerFormat
from sync_worker.inbox.inbox import (
    HELD_SECONDS,
    UNREADABLE_SECONDS,
    Braking,
    SweepWanted,
    new_token,
)
from sync_worker.inbox.reserve import Exhausted
from sync_worker.links import LinkIndex
from sync_worker.settings import Settings
from sync_worker.store import StoreError, StoreFull

log = logging.getLogger(__name__)

READINGS = 3
"""How often customers are read because a call met something else than what was read."""

BAD_REQUEST = 400

CONFLICT = 409
"""Valid, but against a rule: the customer may have changed since it was read (ref/errors)."""

BUSY_SECONDS = 0.5
"""How soon a mailbox is tried again whose customer another mailbox is working on."""

FORBIDDEN_SECONDS = 60.0
"""How soon a CRM is asked again that forbade a record, or named no time for its limit."""

CRM_SECONDS = 30.0
"""How soon a read of a CRM that failed is tried again (B3.5)."""

FULL_SECONDS = 30.0
"""How soon a mailbox is tried again for which a store that was full could not take something."""

UNPROVEN_SECONDS = 600.0
"""How soon at most it is tried again, while Fusebill does not prove itself."""

EXHAUSTED_SECONDS = 60.0
"""How long it waits at most that met the end of the budget: somebody may raise it."""

SHUT_SECONDS = 1.0
"""How soon a mailbox is due again that met a gate just shut: it is parked there then."""

VANISHED = "the worker vanished while it worked on this mailbox alone"

CRASHED_NEXT_STEP = (
    "Find in the logs what ended the worker at these times (out of memory, a time limit, a crash), "
    "mend it, then replay this."
)

CALLS_EACH = 2
"""What a mailbox mostly takes: a read and a write. What is not needed is given back."""

MOST_QUESTIONS = 60
"""What a plan may ask before it is taken to have no end."""

_HELD_ELSEWHERE = re.compile(
    r"already|another customer|associated|in use|duplicate|exists", re.IGNORECASE
)
"""How a refusal may tell that another customer holds the record: its words are not documented, and
a sweep for nothing costs little (B4.5)."""


class Ended(Enum):
    """How a convergence ended, for the caller that works through many."""

    SETTLED = "settled"
    MORE = "more"
    """Settled, but changes came meanwhile: it is due again now."""
    BUSY = "busy"
    """Another mailbox works on one of its customers: due again in BUSY_SECONDS."""
    POSTPONED = "postponed"
    POOR = "poor"
    """There is no budget for it: it is woken when there is."""
    NOT_DUE = "not_due"
    """Nothing to do: empty, in back-off, or another worker has it."""
    LOST = "lost"
    """The lease ran out under way: whoever has it now goes on."""


@dataclass(frozen=True, slots=True)
class Known:
    """What was found out of a record together with others."""

    slot: Slot
    id: str
    links: dict[int, Link]
    """Which customers hold it, as the link index says."""
    swept: int
    """When the last sweep began that saw its slot of every customer (ms)."""


class GoneCustomer(Exception):
    """The customer that is named explicitly was there once and is not any more (B6.5)."""


class NoSuchCustomer(Exception):
    """The customer that is named is not there; it may be created later (B4.4)."""


class NoSuchRecord(Exception):
    """The CRM does not have the record, though nothing says it was deleted (B3.5)."""


class NeedsSweep(Exception):
    """Only a sweep of all customers can tell who holds the record (B4.5)."""

    def __init__(self, *, refused: bool = False) -> None:
        super().__init__("waits for a sweep of all customers")
        self.refused = refused


class Braked(Exception):
    """The brake holds the releases back until somebody approves them (B5.10)."""

    def __init__(self) -> None:
        super().__init__(
            "more releases in an hour than MAX_RELEASES_PER_HOUR allows: look at `sync-worker "
            "releases list`, and approve or discard them"
        )


@dataclass(slots=True)
class Converger:
    """What a convergence needs. For any thread."""

    inbox: Inbox
    account: Account
    settings: Settings
    readers: Mapping[Source, Reader] = field(default_factory=dict)
    """The CRMs that can be read (B3.5)."""
    monotonic: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = field(default=partial(random.uniform, -1, 1))
    _recorder: Recorder = field(default_factory=Recorder)
    _working_on: dict[str, Claim] = field(default_factory=dict)
    """What this process holds, by token: also what ended where the store could not be told."""
    _begun: set[str] = field(default_factory=set)
    """The tokens of what is being worked on."""
    _asked: dict[str, str] = field(default_factory=dict)
    """What was to be claimed and is not known to be, by mailbox: its tokens."""

    def __post_init__(self) -> None:
        """Have the calls of all clients recorded."""
        self.account.client.on_call = self._recorder
        for reader in self.readers.values():
            reader.on_call = self._recorder

    @property
    def links(self) -> LinkIndex:
        """Which customers hold what, as far as is known."""
        return self.account.links

    def claim(self, mailboxes: Iterable[str], *, alone: bool = False, calls: int = 0) -> Claims:
        """Claim those that are due and free, with so many calls reserved for each.

        Raises StoreError when Redis cannot be used.
        """
        tokens = {mailbox: new_token() for mailbox in mailboxes}
        # If the answer is lost, they may be leased all the same.
        self._asked |= tokens
        claims = self.inbox.claim_all(
            {mailbox: gates.passed_by(mailbox, self.readers) for mailbox in tokens},
            alone=alone,
            budget=self.account.budget.packed if calls else (),
            calls=calls,
            tokens=tokens,
        )
        self._working_on |= {claim.token: claim for claim in claims.taken}
        self._asked.clear()
        return claims

    def converge(self, mailbox: str) -> Ended:
        """Converge one mailbox, if it is due and free; nothing else is worked on meanwhile."""
        claims = self.claim([mailbox], alone=True, calls=CALLS_EACH)
        purse = Purse(self.account.budget, claims.calls)
        try:
            if claims.taken:
                return self.work_on(claims.taken[0], purse)
        finally:
            purse.give_back()
        return Ended.POOR if claims.poor else Ended.NOT_DUE

    def work_on(self, claim: Claim, purse: Purse, known: Known | None = None) -> Ended:
        """Converge a mailbox that was claimed, with these calls and with what is known of it.

        Raises StoreError when Redis cannot be used: `hand_back` returns the mailbox then, or it is
        due again by itself when its lease runs out.
        """
        self._recorder.attempts = claim.attempts
        self._begun.add(claim.token)
        gatherer = self._gatherer(claim, purse, known)
        crashed = len(claim.crashes) >= self.settings.max_crashes
        try:
            ended = self._bury_crashed(gatherer) if crashed else self._work(gatherer)
        except LeaseLost:
            log.warning("lease lost, left to its new holder", extra={"mailbox": claim.mailbox})
            ended = Ended.LOST
        except StoreError:
            raise
        except Exception:
            self.hand_back(claim)
            raise
        finally:
            self._recorder.attempts = None
            self._begun.discard(claim.token)
        self._working_on.pop(claim.token, None)
        return ended

    def give_up_on(self) -> None:
        """Give back all that is in hand while some of it is still under way and does not end: what
        that is, is next worked on alone (B6.6), where it is found out which one it is.
        """
        hung = set() if stopping.requested() else set(self._begun)
        for claim in list(self._working_on.values()):
            self._return(claim, vanished="1" if claim.token in hung else "")

    def hand_back(self, *claims: Claim) -> None:
        """Give back these, or all that an unforeseen end left in our hands, as soon as the store
        takes it: this worker has not vanished (B6.6). Nothing may be under way with them, but for
        a call that does not return.
        """
        if self._asked and not claims:
            try:
                asked = dict.fromkeys(self._asked, ())
                found = self.inbox.claim_all(asked, alone=True, tokens=self._asked)
            except StoreError as error:
                log.debug("what was claimed is given back later: %s", error)
                return
            self._working_on |= {claim.token: claim for claim in found.taken}
            self._asked.clear()
        for claim in claims or list(self._working_on.values()):
            self._return(claim, vanished="")

    def _return(self, claim: Claim, *, vanished: str) -> None:
        try:
            self.inbox.postpone(
                claim,
                seconds=0,
                failures=claim.failures,
                answer_lost=True,
                notes={"vanished": vanished},
            )
        except LeaseLost:
            log.debug("%s was taken over", claim.mailbox)
        except StoreError as error:
            log.debug("%s is given back later: %s", claim.mailbox, error)
            return
        self._working_on.pop(claim.token, None)

    def _work(self, gatherer: Gatherer) -> Ended:
        claim, lost = gatherer.claim, False
        try:
            plan = self._with_put_back(claim, gatherer, self._decide(claim, gatherer))
        except (LeaseLost, StoreError) as error:
            if isinstance(error, StoreFull):  # it still takes what makes room (B6.12)
                return self._postpone(claim, error, retry.Wait(FULL_SECONDS, claim.failures))
            raise
        except Exception as error:  # noqa: BLE001 - whatever went wrong, nothing is lost
            decision, lost = self._judge(gatherer, error), _answer_lost(error)
            if isinstance(decision, retry.Wait):
                return self._postpone(claim, error, decision)
            try:
                plan = self._give_up(claim, gatherer, error, decision)
            except (errors.FusebillError, Busy, Exhausted) as again:
                later = self._judge(gatherer, again)
                if isinstance(later, retry.Wait):
                    return self._postpone(claim, again, later)
                plan = self._give_up(claim, gatherer, error, decision, last_try=True)
        try:
            return self._settle(claim, gatherer, plan, answer_lost=lost)
        except Suspect as suspect:
            self.inbox.postpone(
                claim, seconds=suspect.seconds, failures=claim.failures, answer_lost=lost
            )
            return Ended.POSTPONED

    def _gatherer(self, claim: Claim, purse: Purse, known: Known | None) -> Gatherer:
        current = self.settings
        policy = Policy(
            company=current.hubspot_latch_company,
            match_by=frozenset(current.match_by),
            replace=current.on_conflict == "replace",
            salesforce_unlatch=current.fusebill_salesforce_unlatch_path is not None,
            grace_ms=round(current.release_grace_seconds * 1000),
            definitions=claim.definitions,
            tenants={source: t for source in Source if (t := current.tenant(source))},
        )
        gatherer = Gatherer(
            claim,
            self.inbox,
            self.links,
            Calls(self.account, claim.priority, purse),
            self.readers,
            policy,
            current.match_statuses,
            self.monotonic,
        )
        if known is not None:
            gatherer.index[known.slot, (known.id,)] = known.links
            gatherer.swept = known.swept
        return gatherer

    # --- deciding

    def _decide(self, claim: Claim, gatherer: Gatherer) -> planning.Plan | None:
        """Find out, plan and carry out; None if the mailbox alone settles it all."""
        first = gatherer.participate(claim.pending[0].change.record)
        if first.folded.absent:
            raise NoSuchRecord(f"{first.record.mailbox} is not found in its CRM.")
        if first.folded.wish is None:
            return None
        refused = owed = False
        for _ in range(READINGS):
            plan = self._plan(gatherer)
            if not plan.writes or self.settings.dry_run:
                return plan
            if not self._passes_brake(claim, plan):
                return _only(first, planning.Leave("release discarded", outcome=Outcome.IGNORED))
            owed = owed or self._owe_joined(gatherer, plan)
            try:
                Writer(gatherer, _because(first)).carry_out(plan)
            except Changed:
                gatherer.forget()
                continue
            except errors.FusebillError as error:
                if not _is_refusal(error):
                    raise
                refused = self._after_refusal(error, claim, gatherer, plan, again=refused)
                continue
            return plan
        raise Unmet("the customers changed each time between reading and writing")

    def _plan(self, gatherer: Gatherer) -> planning.Plan:
        """Ask and answer until the plan knows enough."""
        for _ in range(MOST_QUESTIONS):
            match gatherer.plan():
                case planning.Plan() as plan:
                    return plan
                case planning.ReadCustomers(ids):
                    gatherer.read(ids)
                case planning.Join(record):
                    gatherer.participate(record)
                case Query() as query:
                    gatherer.query(query)
                case planning.Sweep():
                    raise NeedsSweep
                case planning.Unknown(message):
                    raise Unmet(message)
                case planning.NoMatch(message):
                    raise NoSuchCustomer(message)
                case planning.Missing(customer_id):
                    kind = GoneCustomer if self.links.seen(customer_id) else NoSuchCustomer
                    raise kind(f"Fusebill has no customer {customer_id}.")
        raise Unmet("the plan asked too many questions")

    def _passes_brake(self, claim: Claim, plan: planning.Plan) -> bool:
        """False if the releases were discarded. Raises Braked while they are held (B5.10)."""
        if not plan.releases:
            return True
        limit = self.settings.max_releases_per_hour
        if limit is None:
            limit = max(50, self.links.count() // 50)
        braking = self.inbox.brake(claim, plan.releases, limit=limit)
        if braking is Braking.HELD:
            raise Braked
        return braking is Braking.FREE

    def _owe_joined(self, gatherer: Gatherer, plan: planning.Plan) -> bool:
        """A record that is only in the way and is moved by what was read of it is owed a look of
        its own, should this worker vanish between the two writes.
        """
        owed = [
            Change(record=one.record, kind=Kind.TOUCHED, aspect=Aspect.EXISTENCE, raw="{}")
            for one in gatherer.participants[1:]
            if one.record in plan.results and one.truth is not None and not one.sifted.fresh
        ]
        if owed:
            self.inbox.accept(owed)
        return bool(owed)

    def _after_refusal(
        self,
        error: errors.FusebillError,
        claim: Claim,
        gatherer: Gatherer,
        plan: planning.Plan,
        *,
        again: bool,
    ) -> bool:
        """What to try after Fusebill refused a call; raises the error if nothing is left."""
        if not again and error.attempt.status == CONFLICT:
            gatherer.forget()  # it may have changed since it was read (B6.5)
            return True
        if plan.companies and not gatherer.without_company and _sets_company(plan):
            log.warning("the contact goes on without its company: %s", error)
            gatherer.without_company = True
            gatherer.forget()
            return again
        swept = self.links.swept_since(gatherer.participants[0].record.slot)
        looked = bool(claim.refused_at) and swept > claim.refused_at
        if not looked and _HELD_ELSEWHERE.search(error.attempt.error or ""):
            raise NeedsSweep(refused=not claim.refused_at) from error
        raise error

    # --- what follows when it could not be done

    def _judge(self, gatherer: Gatherer, error: Exception) -> retry.Wait | retry.GiveUp:
        """How long to wait, or that a person is to be asked."""
        claim = gatherer.claim
        failures = claim.failures
        seconds = self._put_off(gatherer.calls, error)
        if seconds is not None:
            return retry.Wait(seconds, failures)
        trouble = _TROUBLE.get(type(error))
        if trouble is None:
            log.error("convergence of %s failed unexpectedly", claim.mailbox, exc_info=error)
            trouble = retry.Trouble.TRANSIENT
        reset_at = error.reset_at if isinstance(error, errors.RateLimited) else None
        decision = retry.after(
            trouble,
            failures=failures,
            schedule=self.settings.retry_schedule_seconds,
            not_found_steps=self.settings.not_found_retries,
            jitter=self.jitter(),
            reset_seconds=reset_at - claim.now / 1000 if reset_at is not None else None,
        )
        last_try = isinstance(error, errors.Transient) and isinstance(decision, retry.GiveUp)
        if last_try and not self._proves_itself(gatherer.calls):
            longest = min(self.settings.retry_schedule_seconds[-1], UNPROVEN_SECONDS)
            return retry.Wait(longest * (1 + retry.JITTER * self.jitter()), failures)
        return decision

    def _put_off(self, calls: Calls, error: Exception) -> float | None:
        """How long to wait for what uses up no attempt; None for what does."""
        if _is_foreign(error):
            # The worker ends: handed back at once, to another one (B6.7).
            return 0.0 if stopping.requested() else None
        if calls.shut and isinstance(error, errors.FusebillError | crm.CrmError):
            return SHUT_SECONDS  # an outage, or refused credentials (B6.3, B6.4)
        if isinstance(error, errors.Unauthorized | crm.Unauthorized):
            return SHUT_SECONDS  # ours are old: they were renewed meanwhile
        if isinstance(error, crm.CrmError):
            return _crm_seconds(error) * (1 + retry.JITTER * self.jitter())
        if isinstance(error, Exhausted):
            return min(error.seconds, EXHAUSTED_SECONDS)  # B6.2
        waits: dict[type[Exception], float] = {
            # Two that wait for each other must not come back at the same moment.
            Busy: BUSY_SECONDS * (1 - abs(self.jitter()) / 2),
            # Its end wakes who waits for it; this is for when none comes.
            NeedsSweep: max(120.0, 2 * self.settings.sweep_seconds),
            Braked: HELD_SECONDS,
            NewerFormat: UNREADABLE_SECONDS,  # of a joined mailbox (B10.5)
        }
        return waits.get(type(error))

    def _proves_itself(self, calls: Calls) -> bool:
        """Whether Fusebill works at all: before that is known, nothing is given up for what may be
        an outage that few customers met so far, or a wrong address (B6.1, B6.3).
        """
        try:
            calls.make(self.account.client.probe, call=calls.reserve())
        except (errors.FusebillError, Exhausted) as error:
            log.warning("nothing is given up, as Fusebill does not prove itself: %s", error)
            if not isinstance(error, errors.RateLimited | Exhausted):
                self.account.gates.doubt(gates.FUSEBILL, str(error))
            return False
        return True

    def _postpone(self, claim: Claim, error: Exception, wait: retry.Wait) -> Ended:
        notes: dict[str, str] = {}
        sweep: SweepWanted = ""
        if isinstance(error, NeedsSweep):
            sweep = "refused" if error.refused else "asked"
        if isinstance(error, Busy | Exhausted):
            log.debug("%s waits: %s", claim.mailbox, _message(error))
        else:
            notes["vanished"] = ""  # it was worked on alone, and its worker is still there
            log.warning("%s waits %.1f s: %s", claim.mailbox, wait.seconds, _message(error))
        self.inbox.postpone(
            claim,
            seconds=wait.seconds,
            failures=wait.failures,
            answer_lost=_answer_lost(error),
            notes=notes,
            sweep=sweep,
        )
        return Ended.BUSY if isinstance(error, Busy) else Ended.POSTPONED

    def _bury_crashed(self, gatherer: Gatherer) -> Ended:
        """Ask a person about what kills its workers, without touching it once more (B6.6)."""
        claim = gatherer.claim
        first = _first(gatherer, claim)
        claim.attempts += [Attempt(at, "(convergence)", error=VANISHED) for at in claim.crashes]
        message = f"{len(claim.crashes)} workers vanished while they worked on it alone."
        if claim.undo:
            message += " It had let go of what a plan was to put elsewhere, which is not put back."
        log.error("%s is given up: %s", claim.mailbox, message)
        why = planning.Bury(Reason.WORKER_CRASHED, message, CRASHED_NEXT_STEP, _named(first))
        return self._settle(claim, gatherer, _only(first, why), answer_lost=False)

    def _give_up(
        self,
        claim: Claim,
        gatherer: Gatherer,
        error: Exception,
        decision: retry.GiveUp,
        *,
        last_try: bool = False,
    ) -> planning.Plan:
        """Put back what was let go of, and have a person asked (B5.2, B6.5).

        Raises what kept it from being put back, if that may pass and this is not the last try.
        """
        log.error("%s is given up: %s", claim.mailbox, _message(error))
        first = _first(gatherer, claim)
        back = self._put_back(claim, gatherer, first, last_try=last_try)
        if isinstance(error, NoSuchRecord):
            absent = planning.Leave("record not found", outcome=Outcome.IGNORED)
            return _only(first, _saying(absent, back))
        message = f"{_message(error)} {back}".strip()
        concerned = tuple(sorted(gatherer.customers)) or _named(first)
        return _only(first, planning.Bury(decision.reason, message, decision.next_step, concerned))

    def _with_put_back(
        self, claim: Claim, gatherer: Gatherer, plan: planning.Plan | None
    ) -> planning.Plan | None:
        """The plan, with what an earlier try let go of put back if this one ends it (B5.2)."""
        first = _first(gatherer, claim)
        why = plan.results.get(first.record) if plan else None
        if plan is None or why is None or isinstance(why, planning.Done):
            return plan
        if isinstance(first.folded.wish, folding.Release):
            return plan
        back = self._put_back(claim, gatherer, first)
        return _only(first, _saying(why, back)) if back else plan

    def _put_back(
        self, claim: Claim, gatherer: Gatherer, first: Participant, *, last_try: bool = False
    ) -> str:
        if not claim.undo or self.settings.dry_run:
            return ""
        return Writer(gatherer, _because(first)).put_back(last_try=last_try)

    def _settle(
        self,
        claim: Claim,
        gatherer: Gatherer,
        plan: planning.Plan | None,
        *,
        answer_lost: bool,
    ) -> Ended:
        first = gatherer.participants[0]
        later = first.folded.wait_ms / 1000 if first.folded.waits else 0
        settlement = Settlement(answer_lost=answer_lost, dry_run=self.settings.dry_run, later=later)
        for one in gatherer.participants:
            if plan is None or one.record not in plan.results:
                if one is first:
                    outcome.add(settlement, one, None, dry_run=self.settings.dry_run)
                continue
            outcome.add(
                settlement,
                one,
                plan.results[one.record],
                company=plan.companies.get(one.record),
                brings=plan.brings.get(one.record),
                attempts=claim.attempts if one is first else (),
                dry_run=self.settings.dry_run,
            )
        left = self.inbox.settle(claim, settlement)
        for verdict in settlement.all_verdicts():
            log.info(
                "%s change %d of %s: %s",
                verdict.outcome,
                verdict.pending.seq,
                verdict.pending.change.record.mailbox,
                verdict.detail or "done",
            )
        if not left:
            return Ended.SETTLED
        return Ended.POSTPONED if left == len(first.folded.waits) else Ended.MORE


_TROUBLE = {
    errors.Transient: retry.Trouble.TRANSIENT,
    errors.Incomplete: retry.Trouble.TRANSIENT,
    errors.RelayedNotFound: retry.Trouble.RELAYED_NOT_FOUND,
    errors.RateLimited: retry.Trouble.RATE_LIMITED,
    errors.CustomerNotFound: retry.Trouble.MISSING_CUSTOMER,
    errors.Rejected: retry.Trouble.REJECTED,
    Unmet: retry.Trouble.TRANSIENT,
    GoneCustomer: retry.Trouble.GONE_CUSTOMER,
    NoSuchCustomer: retry.Trouble.MISSING_CUSTOMER,
    NoSuchRecord: retry.Trouble.MISSING_CUSTOMER,
}

_PUT_OFF = (
    Busy,
    Exhausted,
    NeedsSweep,
    Braked,
    NewerFormat,
    errors.Unauthorized,
    crm.CrmError,
    StoreFull,
)
"""What uses up no attempt."""


def _is_refusal(error: errors.FusebillError) -> bool:
    """Whether the call was judged, be it by HubSpot or Salesforce behind Fusebill: what that
    relays may be that another customer holds the record, or that there is no such company.
    """
    relayed = isinstance(error, errors.Transient) and error.attempt.status == BAD_REQUEST
    return relayed or isinstance(error, errors.Rejected | errors.RelayedNotFound)


def _answer_lost(error: Exception) -> bool:
    """Whether a write may have been sent and its effect be unknown."""
    if isinstance(error, errors.Transient):
        return error.answer_lost
    return _is_foreign(error)


def _is_foreign(error: Exception) -> bool:
    """Whether it is none of what a convergence raises: a bug, a time limit, the worker's end."""
    return type(error) not in _TROUBLE and not isinstance(error, _PUT_OFF)


def _message(error: Exception) -> str:
    """One sentence; the text of an unforeseen error may hold anything, so it stays in the log."""
    if not _is_foreign(error) or isinstance(error, stopping.Interrupted):
        return str(error)
    return f"sync-worker itself failed with {type(error).__name__}: its log says where."


def _crm_seconds(error: crm.CrmError) -> float:
    """No attempt is used: until it can be read, nothing is known (B3.5)."""
    if isinstance(error, crm.RateLimited) and error.seconds is not None:
        return min(max(error.seconds, 1.0), retry.LONGEST_RESET_SECONDS)
    if isinstance(error, crm.Unavailable):
        return CRM_SECONDS
    return FORBIDDEN_SECONDS


def _first(gatherer: Gatherer, claim: Claim) -> Participant:
    """The record that was claimed; if nothing could be found out of it, with all its changes."""
    if not gatherer.participants:
        box = Box(claim.pending[0].change.record, claim.marks, tuple(claim.pending))
        folded = folding.Folded(by=box.pending)
        gatherer.participants.append(Participant(Subject((box,)), Sifted(), None, folded))
    return gatherer.participants[0]


def _saying(why: planning.Leave | planning.Bury, more: str) -> planning.Leave | planning.Bury:
    """The same, and what was put back for it."""
    if not more:
        return why
    if isinstance(why, planning.Leave):
        return dataclasses.replace(why, detail=f"{why.detail}; {more}")
    return dataclasses.replace(why, message=f"{why.message} {more}")


def _only(one: Participant, result: planning.Result) -> planning.Plan:
    return planning.Plan(
        writes=(), results={one.record: result}, companies={}, brings={}, releases=()
    )


def _because(one: Participant) -> str:
    """The change that is behind it all, as the history names it."""
    by = one.folded.by or one.folded.company_by or one.subject.pending
    return f"{one.record.mailbox}#{by[0].seq}"


def _named(one: Participant) -> tuple[int, ...]:
    wish = one.folded.wish
    named = getattr(wish, "customer_id", None) or getattr(wish, "only", None)
    return () if named is None else (named,)


def _sets_company(plan: planning.Plan) -> bool:
    return any(isinstance(one, planning.Done) for one in plan.companies.values())
