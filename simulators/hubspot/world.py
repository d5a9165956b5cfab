"""The records of one portal, and what people and apps do to them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

ObjectType = Literal["contacts", "companies"]

FIRST_ID = 512340077981
"""Ids of today lie above 2^32 (seen in practice)."""


class PropertyValue(msgspec.Struct, frozen=True):
    """What a property was set to, and when."""

    value: str
    at: int
    """Milliseconds since the epoch."""
    source: str
    """An entry of HubSpot's open list, such as `CRM_UI` or `MERGE_OBJECTS`."""


class Stored(msgspec.Struct):
    """One record; `history` holds every value of each property, newest first."""

    id: int
    created_at: int
    updated_at: int
    history: dict[str, list[PropertyValue]]
    archived_at: int | None = None
    companies: dict[int, bool] = {}
    """Of a contact: its companies, by id, and whether it is the primary one."""

    def value(self, name: str) -> str | None:
        """What a property holds; None if it was never set."""
        items = self.history.get(name)
        return items[0].value if items else None


class HubSpotWorld:
    """Contacts and companies. Safe to use from any thread; unknown ids raise KeyError.

    `properties` are those that the portal has beside the standard ones: the API leaves others
    out of its answers. With `merge_makes_new_id` a merge makes a third record, as HubSpot does
    since 2025; without, the primary record stays, as before.
    """

    def __init__(
        self,
        *,
        properties: tuple[str, ...] = ("fusebill_id", "fusebill_reference"),
        merge_makes_new_id: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.properties = {"email", "firstname", "lastname", "name", "domain", *properties}
        self.merge_makes_new_id = merge_makes_new_id
        self.lock = threading.RLock()
        """Held while the world is changed or read."""
        self._now = now
        self._next_id = FIRST_ID
        self._records: dict[ObjectType, dict[int, Stored]] = {"contacts": {}, "companies": {}}
        self._survivors: dict[ObjectType, dict[int, int]] = {"contacts": {}, "companies": {}}

    def create(
        self,
        type_: ObjectType,
        properties: Mapping[str, str] | None = None,
        *,
        id_: int | None = None,
        at: int | None = None,
    ) -> int:
        """Make a record; returns its id. `at` is in ms since the epoch, now by default."""
        with self.lock:
            if id_ is None:
                id_ = self._next_id
            self._next_id = max(self._next_id, id_) + 1
            at = self._at(at)
            self._records[type_][id_] = Stored(id_, at, at, {}, companies={})
            for name, value in (properties or {}).items():
                self.set_property(type_, id_, name, value, at=at)
            return id_

    def set_property(
        self,
        type_: ObjectType,
        id_: int,
        name: str,
        value: str,
        *,
        at: int | None = None,
        source: str = "CRM_UI",
    ) -> None:
        """Set a property; "" clears it. A value that it holds already makes no history."""
        with self.lock:
            record = self._record(type_, id_)
            if (record.value(name) or "") == value:
                return
            at = self._at(at)
            record.history.setdefault(name, []).insert(0, PropertyValue(value, at, source))
            record.updated_at = at

    def archive(self, type_: ObjectType, id_: int) -> None:
        """Delete a record: it moves to the recycling bin, and its associations end."""
        with self.lock:
            record = self._record(type_, id_)
            record.archived_at = self._at(None)
            record.companies.clear()
            if type_ == "companies":
                for contact in self._records["contacts"].values():
                    contact.companies.pop(record.id, None)

    def restore(self, type_: ObjectType, id_: int) -> None:
        """Bring a record back from the recycling bin."""
        with self.lock:
            self._record(type_, id_).archived_at = None

    def purge(self, type_: ObjectType, id_: int) -> None:
        """Forget a record for good, as HubSpot does 90 days after it was deleted."""
        with self.lock:
            del self._records[type_][self._record(type_, id_).id]

    def merge(self, type_: ObjectType, primary: int, secondary: int) -> int:
        """Merge a record into another; returns the survivor's id.

        The primary's values win where it has any. The survivor has the companies of both, and
        the primary company of `primary` only.
        """
        with self.lock:
            winner, loser = self._record(type_, primary), self._record(type_, secondary)
            if winner is loser:
                raise ValueError("a record cannot be merged with itself")
            at = self._at(None)
            survivor = Stored(winner.id, winner.created_at, at, winner.history)
            if self.merge_makes_new_id:
                survivor.id = self._next_id
                self._next_id += 1
                survivor.created_at = at
            for name, items in loser.history.items():
                if not winner.value(name) and items[0].value:
                    taken = PropertyValue(items[0].value, at, "MERGE_OBJECTS")
                    survivor.history.setdefault(name, []).insert(0, taken)
            survivor.companies = {**dict.fromkeys(loser.companies, False), **winner.companies}
            self._replace(type_, winner.id, survivor)
            self._replace(type_, loser.id, survivor)
            return survivor.id

    def associate(self, contact: int, company: int, *, primary: bool = False) -> None:
        """Associate a contact with a company; a new primary one takes the place of the old."""
        with self.lock:
            companies = self._record("contacts", contact).companies
            id_ = self._record("companies", company).id
            if primary:
                companies.update(dict.fromkeys(companies, False))
            companies[id_] = primary

    def dissociate(self, contact: int, company: int) -> None:
        """End the association of a contact with a company."""
        with self.lock:
            del self._record("contacts", contact).companies[self._record("companies", company).id]

    def find(self, type_: ObjectType, id_: int) -> Stored | None:
        """The record that an id leads to, archived or not; None if there is none."""
        with self.lock:
            survivors = self._survivors[type_]
            while id_ in survivors:
                id_ = survivors[id_]
            return self._records[type_].get(id_)

    def _record(self, type_: ObjectType, id_: int) -> Stored:
        found = self.find(type_, id_)
        if found is None:
            raise KeyError(f"no {type_} {id_}")
        return found

    def _replace(self, type_: ObjectType, old: int, survivor: Stored) -> None:
        """Let an id lead to the survivor, also where associations name it."""
        records = self._records[type_]
        del records[old]
        records[survivor.id] = survivor
        if old == survivor.id:
            return
        self._survivors[type_][old] = survivor.id
        if type_ == "companies":
            for contact in self._records["contacts"].values():
                if old in contact.companies:
                    primary = contact.companies.pop(old)
                    companies = contact.companies
                    companies[survivor.id] = companies.get(survivor.id, False) or primary

    def _at(self, at: int | None) -> int:
        return int(self._now() * 1000) if at is None else at


def iso(ms: int) -> str:
    """A time as HubSpot writes it: `2026-11-19T10:12:13.456Z`."""
    second = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{second:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"
