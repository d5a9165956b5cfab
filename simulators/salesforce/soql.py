"""Just enough SOQL: one Account by its id, and the organisation."""

from __future__ import annotations

import re
from typing import Any

from simulators.salesforce.accounts import Accounts
from sync_worker.domain import salesforce_id_18

_QUERY = re.compile(
    r"SELECT\s+(?P<fields>\w+(?:\s*,\s*\w+)*)\s+FROM\s+(?P<entity>\w+)"
    r"(?:\s+WHERE\s+Id\s*=\s*'(?P<id>\w*)')?",
    re.IGNORECASE | re.ASCII,
)


class QueryRefused(Exception):
    """A query is answered 400, with this error code and text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def run(
    query: str, accounts: Accounts, organisation: str, *, deleted: bool
) -> list[dict[str, Any]]:
    """The rows that a query finds, each with its fields spelled as they were defined.

    `organisation` is the organisation's id. Raises QueryRefused.
    """
    found = _QUERY.fullmatch(query.strip())
    if not found:
        raise QueryRefused("MALFORMED_QUERY", "unexpected token: this simulator knows less SOQL")
    entity, id_ = found["entity"], found["id"]
    asked = [field.strip() for field in found["fields"].split(",")]
    if entity.lower() == "organization" and id_ is None:
        _spelled(asked, lambda name: "Id" if name.lower() == "id" else None, "Organization")
        return [{"Id": organisation}]
    if entity.lower() != "account":
        raise QueryRefused("INVALID_TYPE", f"sObject type '{entity}' is not supported.")
    names = _spelled(asked, accounts.name_of, "Account")
    if id_ is None:
        raise QueryRefused("MALFORMED_QUERY", "this simulator finds Accounts by Id only")
    row = accounts.find(_valid(id_), deleted=deleted)
    return [] if row is None else [{name: row.get(name) for name in names}]


def _spelled(asked: list[str], name_of: Any, entity: str) -> list[str]:
    names: list[str] = []
    for field in asked:
        name = name_of(field)
        if name is None:
            raise QueryRefused("INVALID_FIELD", f"No such column '{field}' on entity '{entity}'.")
        if name in names:
            raise QueryRefused("INVALID_FIELD", f"duplicate field selected: {field}")
        names.append(name)
    return names


def _valid(id_: str) -> str:
    try:
        return salesforce_id_18(id_)
    except ValueError:
        text = f"invalid ID field: {id_}"
        raise QueryRefused("INVALID_QUERY_FILTER_OPERATOR", text) from None
