"""A record as it is decided about: itself, what was merged into it, and what is known of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sync_worker.domain import Marks, Pending, Record, Source

CompanyPolicy = Literal["primary", "property", "off"]


@dataclass(frozen=True, slots=True)
class Box:
    """One mailbox as it was claimed."""

    record: Record
    marks: Marks
    pending: tuple[Pending, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """A record and those that were merged into it: they are one (B3.12)."""

    boxes: tuple[Box, ...]
    """The record's own first."""

    @property
    def record(self) -> Record:
        """The record that is left."""
        return self.boxes[0].record

    @property
    def marks(self) -> Marks:
        """What is remembered of it."""
        return self.boxes[0].marks

    @property
    def former(self) -> tuple[Record, ...]:
        """The records that were merged into it."""
        return tuple(box.record for box in self.boxes[1:])

    @property
    def ids(self) -> frozenset[str]:
        """Every id under which a customer may hold it."""
        return frozenset(box.record.id for box in self.boxes)

    @property
    def pending(self) -> tuple[Pending, ...]:
        """The changes of all its mailboxes."""
        return tuple(one for box in self.boxes for one in box.pending)

    @property
    def brought(self) -> frozenset[tuple[str, int]]:
        """The companies that were latched through it, each with its customer (B5.7)."""
        return frozenset(box.marks.brought for box in self.boxes if box.marks.brought)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the settings say about deciding."""

    company: CompanyPolicy = "primary"
    match_by: frozenset[str] = frozenset({"id", "link", "reference"})
    replace: bool = False
    """ON_CONFLICT=replace (B5.5)."""
    salesforce_unlatch: bool = False
    """A path to unlatch Salesforce is set (B5.6)."""
    grace_ms: int = 30_000
    """RELEASE_GRACE_SECONDS (B3.12)."""
    tenants: Mapping[Source, str] = field(default_factory=dict)
    """The one tenant of each source that may write (B2.9); one that is not named may."""
    definitions: frozenset[str] = frozenset()
    """Salesforce message definitions that were seen carrying the link field (B3.2)."""


def newest(changes: Iterable[Pending]) -> Pending:
    """The newest by its own time; of equals, the one that arrived last (B3.8)."""
    return max(changes, key=lambda each: (each.occurred_at, each.seq))
