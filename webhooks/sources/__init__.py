"""What a source is: how its requests prove themselves, and how they become changes.

Each vendor has one module here with one class that implements `SourceReader`. A reader is
pure: it sees a `Delivery` and the settings, calls nothing, and looks nothing up (B2.2), so
the whole of a source can be tested without a server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sync_worker.domain import Change, Source


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as it arrived, free of any web framework."""

    method: str
    target: str
    """The raw request target, undecoded: path and, behind `?`, the query."""
    headers: Mapping[str, str]
    """Header names in lower case."""
    body: bytes
    media_type: str
    """Content type in lower case without its parameters; "" if none was sent."""
    path_token: str | None
    """The token that stood in the path, percent-decoded."""
    now: float
    """Seconds since the epoch, local clock: for signature skew and nothing else (B7.6)."""
    request_id: str


class Proof(StrEnum):
    """What showed that a delivery is authentic, strongest first."""

    SIGNATURE = "signature"
    """An HMAC over the body."""
    HEADER_TOKEN = "header_token"
    FORM_TOKEN = "form_token"
    URL_TOKEN = "url_token"


class Unauthenticated(Exception):
    """The delivery did not prove itself (401); `reason` is one of a closed list of words.

    `missing`: no signature or token · `wrong`: it does not match · `stale`: its time is more
    than five minutes off · `timestamp`: its time is missing or unreadable · `untimed`: v1 or
    v2 while those are switched off · `weak`: a URL token for a shape that names no tenant.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Undecodable(Exception):
    """The whole body cannot be read; the message says why without quoting it."""


@dataclass(frozen=True, slots=True)
class UndecodableEvent:
    """One event of a body that cannot be read while others can (B2.10)."""

    raw: bytes
    why: str


@dataclass(slots=True)
class Decoded:
    """What a body says."""

    changes: list[Change] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    """Events that the product has no use for, counted by why (B2.12)."""
    foreign: int = 0
    """Events of a tenant that is not ours (B2.9)."""
    undecodable: list[UndecodableEvent] = field(default_factory=list)
    reconcile: list[str] = field(default_factory=list)
    """Why events cannot tell what changed, such as `GAP_OVERFLOW` (B3.10)."""


class SourceReader(Protocol):
    """How the requests of one source are read."""

    source: Source
    media_types: frozenset[str]
    """The content types that this source sends; any other is 415."""

    def authenticate(self, delivery: Delivery) -> Proof:
        """Tell what proves the delivery. Raises Unauthenticated."""
        ...

    def decode(self, delivery: Delivery, proof: Proof) -> Decoded:
        """Read an authentic body. Raises Undecodable, or Unauthenticated for a shape that
        needs a stronger proof than it came with (B2.6).
        """
        ...

    def redacted(self, delivery: Delivery) -> bytes:
        """The body with every secret taken out: what may be kept of one that is undecodable
        (B2.6, B2.8). Never raises.
        """
        ...
