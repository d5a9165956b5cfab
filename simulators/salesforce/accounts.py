"""The Accounts of one organisation: fields, recycle bin and merges. No HTTP."""

from __future__ import annotations

import threading

from sync_worker.domain import salesforce_id_18

Value = str | float | bool | None
"""What a field holds; number fields hold floats, as in Salesforce."""

SYSTEM_FIELDS = ("Id", "IsDeleted", "MasterRecordId")
"""Fields that `put` and `set_field` leave alone."""


class Accounts:
    """Safe to use from any thread. Ids may have 15 or 18 characters everywhere.

    `fields` are the API names of the fields that there are besides `SYSTEM_FIELDS`. Methods
    that are given an id that is not there, or a field, raise KeyError.
    """

    def __init__(self, fields: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._names = {name.lower(): name for name in (*SYSTEM_FIELDS, *fields)}
        self._rows: dict[str, dict[str, Value]] = {}

    def put(self, id_: str, **fields: Value) -> None:
        """Make an Account, or one anew, that is in use."""
        key = salesforce_id_18(id_)
        system: dict[str, Value] = {"Id": key, "IsDeleted": False, "MasterRecordId": None}
        with self._lock:
            named = {self._names[name.lower()]: value for name, value in fields.items()}
            self._rows[key] = named | system

    def set_field(self, id_: str, name: str, value: Value) -> None:
        """Change one field."""
        with self._lock:
            self._rows[salesforce_id_18(id_)][self._names[name.lower()]] = value

    def delete(self, id_: str) -> None:
        """Into the recycle bin, where `queryAll` still finds it."""
        self._mark(id_, deleted=True, master=None)

    def undelete(self, id_: str) -> None:
        """Out of the recycle bin."""
        self._mark(id_, deleted=False, master=None)

    def merge(self, survivor: str, loser: str) -> None:
        """Merge one Account into another: the loser is deleted and names the survivor."""
        self._mark(loser, deleted=True, master=salesforce_id_18(survivor))

    def purge(self, id_: str) -> None:
        """Out of the recycle bin for good: no query finds it any more."""
        with self._lock:
            del self._rows[salesforce_id_18(id_)]

    def hide_field(self, name: str) -> None:
        """Take a field away, as removing it or the user's sight of it does."""
        with self._lock:
            del self._names[name.lower()]

    def show_field(self, name: str) -> None:
        """Add a field, or give it back."""
        with self._lock:
            self._names[name.lower()] = name

    def name_of(self, field: str) -> str | None:
        """How a field is spelled, whatever case it is asked for in; None if there is none."""
        with self._lock:
            return self._names.get(field.lower())

    def find(self, id_: str, *, deleted: bool) -> dict[str, Value] | None:
        """A copy of an Account, one in the recycle bin only if `deleted`."""
        with self._lock:
            row = self._rows.get(salesforce_id_18(id_))
            return dict(row) if row and (deleted or not row["IsDeleted"]) else None

    def _mark(self, id_: str, *, deleted: bool, master: str | None) -> None:
        with self._lock:
            row = self._rows[salesforce_id_18(id_)]
            row.update(IsDeleted=deleted, MasterRecordId=master)
