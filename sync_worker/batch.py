"""Work through several mailboxes at once: their calls wait for the network together (B7.4)."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from sync_worker import stopping
from sync_worker.calls import Purse
from sync_worker.converge import Converger, Ended, Known
from sync_worker.crew import AT_ONCE, Crew
from sync_worker.inbox import Claim
from sync_worker.store import StoreError
from sync_worker.together import Together

log = logging.getLogger(__name__)


BEGIN_SECONDS = 30.0
"""How long after a claim its convergence is begun at the latest."""


@dataclass(slots=True)
class Worked:
    """What became of mailboxes; what is not named here has ended, or is due later."""

    again: list[str] = field(default_factory=list)
    """Those that are due again at once, or that a worker that ends did not begin."""
    busy: list[str] = field(default_factory=list)
    """Those that wait for a customer that another mailbox is about."""
    poor: list[str] = field(default_factory=list)
    """Those that there is no budget for."""
    seconds: float = 0
    """How long until there may be."""

    def note(self, mailbox: str, ended: Ended) -> None:
        """Note how a convergence ended; may be called by any thread."""
        lists = {Ended.MORE: self.again, Ended.BUSY: self.busy, Ended.POOR: self.poor}
        if ended in lists:
            lists[ended].append(mailbox)


@dataclass(slots=True)
class _Job:
    """Claims that concern the same customers: they are worked on one after the other."""

    claims: list[tuple[Claim, Known]]
    purse: Purse
    worked: Worked
    begin_by: float
    """Those that were not begun by then are given back: their leases do not last for ever."""


class Batches:
    """Works through batches of mailboxes. For one thread at a time."""

    def __init__(
        self,
        converger: Converger,
        together: Together,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._converger = converger
        self._together = together
        self._crew: Crew[_Job] = Crew(AT_ONCE, self._do)

    def close(self) -> None:
        """Let go of the threads. What they still do is nobody's any more: hand back first."""
        self._crew.close()

    def work_through(self, mailboxes: Sequence[str]) -> Worked:
        """Converge those that are due and free, and that there is budget for.

        Raises StoreError, and what a signal raises: what is in hand is given back by then, or by
        `Converger.hand_back` once the store takes it.
        """
        begin_by = self._monotonic() + BEGIN_SECONDS
        claims = self._converger.claim(mailboxes, calls=self._together.calls_each)
        worked = Worked(poor=claims.poor, seconds=claims.seconds)
        purse = Purse(self._converger.account.budget, claims.calls)
        try:
            if claims.taken:
                groups = self._together.prepare(claims.taken, purse)
                self._crew.run([_Job(group, purse, worked, begin_by) for group in groups])
            for mailbox in claims.alone:
                if self._is_too_late(begin_by):
                    worked.again.append(mailbox)
                else:
                    self._note(mailbox, worked, partial(self._converger.converge, mailbox))
        except StoreError:
            self._converger.hand_back()  # all threads have ended
            raise
        except BaseException:
            self._converger.give_up_on()
            raise
        finally:
            with contextlib.suppress(StoreError):
                purse.give_back()
        return worked

    def _do(self, job: _Job) -> None:
        for claim, known in job.claims:
            if self._is_too_late(job.begin_by):
                self._converger.hand_back(claim)
                job.worked.again.append(claim.mailbox)
            else:
                work = partial(self._converger.work_on, claim, job.purse, known)
                self._note(claim.mailbox, job.worked, work)

    def _is_too_late(self, begin_by: float) -> bool:
        return stopping.requested() or self._monotonic() > begin_by

    def _note(self, mailbox: str, worked: Worked, work: Callable[[], Ended]) -> None:
        try:
            worked.note(mailbox, work())
        except StoreError:
            raise
        except Exception:
            # It was handed back; the others of the batch must not wait for it.
            log.exception("convergence of %s ended unexpectedly", mailbox)
