"""Find out together what several mailboxes must know that are worked on at once (B7.4).

Customers are read by a list call with a set of ids, where a probe has shown that this account's
server honours one, or by a sweep of all of them where many mailboxes wait. What is read goes into
the link index, and is taken from there as a snapshot by each convergence that it is fresh enough
for; what cannot be had so is read singly. So nothing here has to succeed.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec
import redis

from sync_worker.calls import SEEN, Account, Calls, Purse, T
from sync_worker.converge import CALLS_EACH, Known
from sync_worker.decide.fold import positive_integer
from sync_worker.decide.match import Link
from sync_worker.decide.reading import MOST_IDS, Way, best_way
from sync_worker.domain import Aspect, Record, Source, claimed_value
from sync_worker.fusebill import errors
from sync_worker.fusebill.client import PAGE_SIZE
from sync_worker.fusebill.customer import CustomerPage
from sync_worker.gather import SNAPSHOT_SECONDS, reading_for
from sync_worker.inbox import Claim, Inbox, scripts
from sync_worker.inbox.inbox import WAKE_GRACE_MS
from sync_worker.inbox.reserve import Exhausted, Priority
from sync_worker.links import Swept
from sync_worker.store import StoreError, StoreFull, store_errors
from sync_worker.sweep import PATIENCE_SECONDS, Sweeper

log = logging.getLogger(__name__)

NO_CUSTOMER = 2_147_483_647
"""An id that no customer has, and that every server can read."""

PROVEN_SECONDS = 86_400
DENIED_SECONDS = 6 * 3600
"""How long it is remembered whether the server honours a set of ids."""

PROBE_MS = 5_000
"""How long at most one worker has the others wait for what it finds out."""

LOOK_SECONDS = 0.05
"""How often it is looked whether another worker's sweep or probe has ended."""


@dataclass(frozen=True, slots=True)
class _Survey:
    """How things stood for a batch at one moment."""

    at: int
    """The store's clock in microseconds."""
    links: list[dict[int, Link]]
    """Who holds each of its records, as the link index says."""
    swept: Swept
    has_set: bool | None
    """Whether the server honours a set of ids; None if that is not known."""
    due: int
    """Mailboxes that are due beside, those at a shut gate left out."""


@dataclass(slots=True)
class _Wanted:
    """A claim, and the customers that it will most likely have read."""

    claim: Claim
    known: Known
    customers: tuple[int, ...]

    @property
    def source(self) -> str:
        """The CRM that it comes from."""
        return self.claim.mailbox.partition(":")[0]


@dataclass(slots=True)
class Together:
    """Prepares the claims of one batch."""

    client: redis.Redis
    inbox: Inbox
    account: Account
    sweeper: Sweeper
    calls_per_minute: int
    calls_each: int = CALLS_EACH
    """How many calls a mailbox mostly takes, as the last batch has shown."""
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def prepare(self, claims: Sequence[Claim], purse: Purse) -> list[list[tuple[Claim, Known]]]:
        """Look up what the index knows, and read together what is worth it.

        Gives the claims with what is known of each, those together that concern the same
        customers: they are to be worked on one after the other. Raises StoreError.
        """
        survey, wanted = self._look_up(claims)
        groups = _of_same_customers(wanted)
        try:
            if self._read(survey, [group[0] for group in groups], purse):
                # What was read may show who holds what, and that nobody does.
                _, anew = self._look_up(claims)
                for one, newer in zip(wanted, anew, strict=True):
                    one.known = newer.known
        except (errors.FusebillError, Exhausted) as error:
            log.debug("customers are read singly: %s", error)
        except StoreError:
            raise
        except Exception:
            log.exception("customers are read singly")
        return [[(one.claim, one.known) for one in group] for group in groups]

    def _look_up(self, claims: Sequence[Claim]) -> tuple[_Survey, list[_Wanted]]:
        records = [claim.pending[0].change.record for claim in claims]
        survey = self._survey(records)
        wanted = []
        for claim, record, links in zip(claims, records, survey.links, strict=True):
            known = Known(record.slot, record.id, links, survey.swept.since(record.slot))
            named = (
                positive_integer(claimed_value(one.change))
                for one in claim.pending
                if one.change.aspect is Aspect.LINK
            )
            holders = (customer for customer, link in links.items() if link == "holds")
            customers = {one for one in (*named, *holders) if one is not None}
            wanted.append(_Wanted(claim, known, tuple(sorted(customers))))
        return survey, wanted

    def _survey(self, records: Sequence[Record]) -> _Survey:
        names = [part for record in records for part in (record.slot, record.id)]
        script = scripts.load(self.client, "survey")
        packed = msgspec.msgpack.encode([self.account.links.account, WAKE_GRACE_MS, *names])
        with store_errors():
            at, links, begun, blind, honours, due = script(args=[packed])
        return _Survey(
            at,
            [dict(zip(map(int, one[::2]), one[1::2], strict=True)) for one in links],
            Swept.of(begun, blind),
            honours == "yes" if honours else None,
            due,
        )

    def _read(self, survey: _Survey, wanted: list[_Wanted], purse: Purse) -> bool:
        """Read their customers in the best way; tells whether any were read together."""
        wanted = [one for one in wanted if one.customers]
        if len(wanted) < 2:
            return False
        self.calls_each = CALLS_EACH
        has_set = survey.has_set
        # A write to HubSpot's slots rests on a reading under its own lease (B5.4).
        swept = sum(one.source != Source.HUBSPOT for one in wanted)
        gain = self._gain(swept / len(wanted), survey.due + len(wanted))
        if has_set is False and gain < 2:
            return False
        missing = self._missing(wanted)
        if len(missing) < 2:
            self.calls_each = 1
            return False
        if has_set is None:
            has_set = self._has_set(missing, purse)
        most_pages = max(1, gain // 2)
        pages = self._pages() if swept else None
        if pages is not None and pages > most_pages:
            pages = None
        match best_way(len(missing), has_set=has_set, pages=pages, gain=gain):
            case Way.SET:
                is_read = self._read_set(missing, purse)
            case Way.SWEEP:
                newest = max(one.claim.received_at for one in wanted)
                is_read = self._sweep(newest, most_pages=most_pages)
            case Way.SINGLY:
                return False
        if is_read:
            self.calls_each = 1
        return is_read

    def _missing(self, wanted: list[_Wanted]) -> dict[int, int]:
        """The customers of whom there is no snapshot, each with when it was leased (us)."""
        account = self.account.links.account
        held_each = self.inbox.hold_each(
            (one.claim, reading_for(one.claim, one.customers, account=account)) for one in wanted
        )
        return {
            customer: held.at
            for one, held in zip(wanted, held_each, strict=True)
            if held is not None
            for customer in one.customers
            if customer not in held.snapshots
        }

    # --- a set of ids

    def _read_set(self, missing: dict[int, int], purse: Purse) -> bool:
        sent_at = max(missing.values())
        # What people write into a link field may be a number that the server cannot even read.
        ids = sorted(one for one in missing if one < NO_CUSTOMER)
        for start in range(0, len(ids), MOST_IDS):
            some = ids[start : start + MOST_IDS]
            try:
                honoured = _is_set(self._list(some, purse, sent_at=sent_at), some)
            except errors.Rejected:
                honoured = False
            if not honoured:
                log.warning("Fusebill does not honour a set of ids any more: read singly")
                self._note_set(honoured=False)
                return False
        return True

    def _list(self, ids: Iterable[int], purse: Purse, *, sent_at: int = 0) -> CustomerPage:
        query = f"id:{','.join(map(str, ids))}"
        client = self.account.client
        return self._make(
            lambda: client.list_customers(page=0, page_size=PAGE_SIZE, query=query),
            purse,
            sent_at=sent_at,
        )

    def _get(self, customer_id: int, purse: Purse, *, sent_at: int) -> None:
        client = self.account.client
        with contextlib.suppress(errors.CustomerNotFound):
            self._make(
                lambda: client.get_customer(customer_id), purse, whom=customer_id, sent_at=sent_at
            )

    def _make(
        self, what: Callable[[], T], purse: Purse, *, whom: int | None = None, sent_at: int
    ) -> T:
        calls = Calls(self.account, Priority.LIVE, purse)
        return calls.make(what, call=calls.reserve(), whom=whom, sent_at=sent_at)

    def _has_set(self, missing: dict[int, int], purse: Purse) -> bool:
        """Find out whether the server honours a set of ids (B7.4).

        If no two customers are known to be there, two of the missing are read by themselves first.
        """
        known = sorted(set(self.account.seen))
        if len(known) < SEEN and len(missing) > 2 * SEEN:
            for customer_id in sorted(missing)[:SEEN]:
                self._get(customer_id, purse, sent_at=missing.pop(customer_id))
            known = sorted(set(self.account.seen))
        if len(known) < SEEN:
            return False
        if not self._may_probe():
            return self._awaited_set()
        try:
            noted = self._survey(()).has_set
            return self._probe_set(known) if noted is None else noted
        finally:
            with contextlib.suppress(StoreError), store_errors():
                self.client.delete(self._probe_key)

    def _may_probe(self) -> bool:
        """Whether no other worker finds it out just now: one probe serves all."""
        try:
            with store_errors():
                return bool(self.client.set(self._probe_key, "1", nx=True, px=PROBE_MS))
        except StoreFull:  # it takes no note of that (B6.12)
            return True

    def _awaited_set(self) -> bool:
        """What another worker finds out; no, if that takes too long."""
        ends, noted = self.monotonic() + PATIENCE_SECONDS, None
        while noted is None and self.monotonic() < ends:
            self.sleep(LOOK_SECONDS)
            noted = self._survey(()).has_set
        return bool(noted)

    def _probe_set(self, known: list[int]) -> bool:
        try:
            page = self._list([*known, NO_CUSTOMER], Purse(self.account.budget))
        except errors.Rejected:
            honoured = False
        else:
            found = sorted(customer.id for customer in page.customers)
            honoured = found == known and page.total == len(known) and not page.broken
        log.info("Fusebill %s a set of ids", "honours" if honoured else "does not honour")
        self._note_set(honoured=honoured)
        return honoured

    def _note_set(self, *, honoured: bool) -> None:
        seconds = PROVEN_SECONDS if honoured else DENIED_SECONDS
        with contextlib.suppress(StoreError), store_errors():  # a full store takes none (B6.12)
            self.client.set(self._set_key, "yes" if honoured else "no", ex=seconds)

    @property
    def _set_key(self) -> str:
        return f"sw:idset:{self.account.links.account}"

    @property
    def _probe_key(self) -> str:
        return f"{self._set_key}:probe"

    # --- a sweep

    def _gain(self, share: float, due: int) -> int:
        """How many reads a sweep saves: its share of what is due, as much of it as can be written
        while what it showed is fresh.
        """
        can_be_written = self.calls_per_minute * SNAPSHOT_SECONDS / 60
        return int(share * min(due, can_be_written))

    def _pages(self) -> int:
        """How many pages a sweep takes, as far as is known."""
        return max(1, -(-self.sweeper.customers() // PAGE_SIZE))

    def _sweep(self, newest: int, *, most_pages: int) -> bool:
        """Sweep, or wait for the sweep of another worker; tells whether one has ended that began
        after the newest change was received (ms).
        """
        if self._is_swept(newest) or self.sweeper.run_for_batch(most_pages=most_pages):
            return True
        if not self.sweeper.is_running():
            return False
        ends = self.monotonic() + PATIENCE_SECONDS
        while self.sweeper.is_running() and self.monotonic() < ends:
            self.sleep(LOOK_SECONDS)
        return self._is_swept(newest)

    def _is_swept(self, newest: int) -> bool:
        survey = self._survey(())
        return survey.swept.begun > max(newest, survey.at / 1000 - SNAPSHOT_SECONDS * 1000)


def _is_set(page: CustomerPage, ids: Iterable[int]) -> bool:
    """Whether a page shows nobody but those that were asked for."""
    return not page.broken and {customer.id for customer in page.customers} <= set(ids)


def _of_same_customers(wanted: list[_Wanted]) -> list[list[_Wanted]]:
    """Those together that share a customer, also by way of others; in order."""
    groups: list[list[_Wanted]] = []
    group_of: dict[int, list[_Wanted]] = {}
    for one in wanted:
        joined = [group for group in groups if any(group_of.get(c) is group for c in one.customers)]
        group = joined[0] if joined else []
        for other in joined[1:]:
            group += other
            groups.remove(other)
        group.append(one)
        if not joined:
            groups.append(group)
        group_of |= {customer: group for each in group for customer in each.customers}
    return groups
