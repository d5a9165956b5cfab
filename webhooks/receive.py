"""The one path every delivery takes: authenticate, decode, accept, answer (B2.4).

Nothing is looked up and no remote system is called before the answer (B2.2).
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sync_worker.domain import Source
from sync_worker.inbox import Inbox, Undecoded
from sync_worker.store import StoreError
from webhooks.answers import Answer, Problem, refused, taken
from webhooks.sources import (
    Decoded,
    Delivery,
    Proof,
    SourceReader,
    Unauthenticated,
    Undecodable,
    UndecodableEvent,
)

log = logging.getLogger(__name__)

MOST_LETTERS = 100
"""Unreadable events of one body that get a dead letter each. A body of a million of them would
keep the store busy for seconds, and nobody reads that many letters."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Takes deliveries of the sources that have a secret; the others are not there (B2.4)."""

    readers: Mapping[Source, SourceReader]
    inbox: Inbox
    wake: Callable[[Iterable[str]], None]

    def receive(self, source: Source, delivery: Delivery, *, soap: bool = False) -> Answer:
        """Take one delivery, already checked for route, method and size.

        `soap` is whether the sender reads SOAP and nothing else.
        """
        reader = self.readers[source]
        refuse = partial(self.refuse, source, request_id=delivery.request_id, soap=soap)
        if delivery.media_type not in reader.media_types:
            return refuse(Problem.MEDIA_TYPE, delivery.media_type[:80])
        try:
            proof = reader.authenticate(delivery)
            return self._take(source, delivery, proof, soap=soap)
        except Unauthenticated as error:
            return refuse(Problem.UNAUTHENTICATED, error.reason)
        except StoreError as error:
            return refuse(Problem.UNAVAILABLE, str(error))

    def _take(self, source: Source, delivery: Delivery, proof: Proof, *, soap: bool) -> Answer:
        try:
            decoded = self.readers[source].decode(delivery, proof)
        except Undecodable as error:
            return self._keep_unread(source, delivery, proof, str(error), soap=soap)
        ignored, unread = decoded.ignored.total(), decoded.undecodable
        if decoded.foreign:
            log.warning(
                "%d events of %s are of a foreign tenant [%s]",
                decoded.foreign,
                source,
                delivery.request_id,
            )
        if decoded.foreign and not (decoded.changes or ignored or unread or decoded.reconcile):
            self._count(f"foreign|{source}", decoded.foreign)
            return self.refuse(
                source,
                Problem.FOREIGN_TENANT,
                "all events",
                request_id=delivery.request_id,
                soap=soap,
            )
        accepted = self.inbox.accept(
            decoded.changes,
            undecoded=self._letters(source, delivery, unread),
            reconcile=_owed(source, decoded),
            counts=_counts(source, decoded),
        )
        self.wake(accepted.wake)
        rejected = decoded.foreign + len(unread)
        log.info(
            "%s delivery: %d accepted, %d duplicates, %d ignored, %d rejected [%s]",
            source,
            accepted.accepted,
            accepted.duplicates,
            ignored,
            rejected,
            delivery.request_id,
        )
        return taken(
            accepted=accepted.accepted,
            duplicates=accepted.duplicates,
            ignored=ignored,
            rejected=rejected,
            request_id=delivery.request_id,
            soap=soap,
        )

    def _letters(
        self, source: Source, delivery: Delivery, unread: Sequence[UndecodableEvent]
    ) -> list[Undecoded]:
        """A dead letter for each distinct event; of very many, one for the whole body."""
        distinct = {event.raw: event.why for event in unread}
        if len(distinct) <= MOST_LETTERS:
            return [_undecoded(source, raw, why, told_by=raw) for raw, why in distinct.items()]
        kept = self.readers[source].redacted(delivery)
        why = f"{len(unread)} of its events cannot be read, the first because {unread[0].why}"
        return [_undecoded(source, kept, why, told_by=kept or delivery.body)]

    def _keep_unread(
        self, source: Source, delivery: Delivery, proof: Proof, why: str, *, soap: bool
    ) -> Answer:
        """Keep an authentic body that cannot be read; it may be cut short unless signed."""
        kept = self.readers[source].redacted(delivery)
        self.inbox.accept(
            [],
            undecoded=[_undecoded(source, kept, why, told_by=kept or delivery.body)],
            counts={f"undecodable|{source}": 1},
        )
        log.error("%s sent what cannot be read: %s [%s]", source, why, delivery.request_id)
        if proof is not Proof.SIGNATURE:
            return refused(Problem.UNDECODABLE, request_id=delivery.request_id, soap=soap)
        return taken(
            accepted=0,
            duplicates=0,
            ignored=0,
            rejected=1,
            request_id=delivery.request_id,
            soap=soap,
        )

    def refuse(
        self, source: Source, problem: Problem, why: str, *, request_id: str, soap: bool
    ) -> Answer:
        """Refuse a delivery, and count it."""
        if problem is not Problem.UNAVAILABLE:  # there would be nothing to count in
            label = why if problem is Problem.UNAUTHENTICATED else problem.name.lower()
            self._count(f"refused|{source}|{label}", 1)
        # Nothing that is too large will ever get through: a person must know (B2.10).
        level = logging.ERROR if problem is Problem.TOO_LARGE else logging.WARNING
        log.log(level, "%s delivery refused: %s (%s) [%s]", source, problem.name, why, request_id)
        return refused(problem, request_id=request_id, soap=soap)

    def _count(self, metric: str, n: int) -> None:
        """Count what is not stored; the answer stands even where that fails."""
        try:
            self.inbox.count(metric, n)
        except StoreError:
            log.debug("a refusal could not be counted")


def _undecoded(source: Source, kept: bytes, why: str, *, told_by: bytes) -> Undecoded:
    """`told_by` tells one body from another where the same is kept of both."""
    digest = hashlib.blake2b(told_by, digest_size=16).hexdigest()
    return Undecoded(source, digest, kept, why)


def _owed(source: Source, decoded: Decoded) -> dict[Source, str] | None:
    if not decoded.reconcile:
        return None
    return {source: ", ".join(dict.fromkeys(decoded.reconcile))}


def _counts(source: Source, decoded: Decoded) -> Counter[str]:
    counts = Counter({f"ignored|{source}|{why}": n for why, n in decoded.ignored.items()})
    if decoded.foreign:
        counts[f"foreign|{source}"] = decoded.foreign
    if decoded.undecodable:
        counts[f"undecodable|{source}"] = len(decoded.undecodable)
    return counts
