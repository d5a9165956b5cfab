"""What is true now in the CRMs: each module reads one of them (B3.5).

A reader is handed a record and gives a `Truth`, or raises one of `errors`. It never guesses: an
answer it cannot make sense of is `errors.Unavailable`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sync_worker.domain import Attempt, Record, Source, Truth


class Reader(Protocol):
    """Reads the records of one tenant of one CRM. May be shared by threads."""

    source: Source
    on_call: Callable[[Attempt], None] | None
    """Told every call; may be set later."""

    def read(self, record: Record) -> Truth:
        """Read a record as it is now. Raises `errors.CrmError`."""
        ...

    def probe(self) -> None:
        """Prove that the CRM answers, that it takes the credentials and that they are of our
        tenant, by calls made afresh (B2.9, B6.3, B6.4). Raises `errors.CrmError`.

        Afterwards the reader is ready to use, its session renewed.
        """
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
