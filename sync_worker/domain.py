"""The words of the product (BEHAVIOUR B1) as types.

Nothing here does I/O or knows a framework. Every other module speaks in these types:
a *record* is one object in a CRM, a *change* says something about one record, a *slot*
is the place on a Fusebill customer that holds a record's id.
"""

from __future__ import annotations

import re
from enum import Enum, StrEnum

import msgspec

FIVE_MINUTES_MS = 5 * 60 * 1000
"""A stated time further ahead of the store's clock than this is not believed (B3.8)."""


class Source(StrEnum):
    """A system that sends us changes."""

    HUBSPOT = "hubspot"
    SALESFORCE = "salesforce"
    GEOTAB = "geotab"


class RecordType(StrEnum):
    """The kinds of CRM record that a Fusebill customer can be latched to."""

    CONTACT = "contact"
    COMPANY = "company"
    ACCOUNT = "account"
    CUSTOMER = "customer"


class Slot(StrEnum):
    """A place on a Fusebill customer that holds one record's id."""

    HUBSPOT_CONTACT = "hubspot_contact"
    HUBSPOT_COMPANY = "hubspot_company"
    SALESFORCE_ACCOUNT = "salesforce_account"
    GEOTAB_CUSTOMER = "geotab_customer"


SLOT_OF = {
    (Source.HUBSPOT, RecordType.CONTACT): Slot.HUBSPOT_CONTACT,
    (Source.HUBSPOT, RecordType.COMPANY): Slot.HUBSPOT_COMPANY,
    (Source.SALESFORCE, RecordType.ACCOUNT): Slot.SALESFORCE_ACCOUNT,
    (Source.GEOTAB, RecordType.CUSTOMER): Slot.GEOTAB_CUSTOMER,
}
"""Which slot holds which record (the table of B1)."""


class Kind(StrEnum):
    """What a change says happened to its record (B3)."""

    LINKED = "linked"
    UNLINKED = "unlinked"
    DELETED = "deleted"
    RESTORED = "restored"
    MERGED = "merged"
    ASSOCIATED = "associated"
    DISSOCIATED = "dissociated"
    TOUCHED = "touched"


class Aspect(StrEnum):
    """The part of a record's state that a change speaks of (B1).

    Order and watermarks are kept per aspect (B3.8): news about one never makes news about
    another stale.
    """

    LINK = "link"
    HINT = "hint"
    EXISTENCE = "existence"
    COMPANY = "company"


URGENT_ASPECTS = frozenset({Aspect.LINK, Aspect.EXISTENCE})
"""A new change of these makes a mailbox that waits in back-off due at once (B6.8)."""


class Outcome(StrEnum):
    """How a change was settled (B5.8)."""

    LATCHED = "latched"
    UNLATCHED = "unlatched"
    MOVED = "moved"
    """Taken from the customer that held it, or from the record that was merged into it."""
    WOULD_LATCH = "would_latch"
    WOULD_UNLATCH = "would_unlatch"
    WOULD_MOVE = "would_move"
    """What a dry run would have called (B5.9)."""
    UNCHANGED = "unchanged"
    IGNORED = "ignored"
    STALE = "stale"
    SUPERSEDED = "superseded"
    DEAD_LETTER = "dead_letter"


SATISFIED = frozenset({Outcome.LATCHED, Outcome.UNLATCHED, Outcome.MOVED, Outcome.UNCHANGED})
"""Outcomes that show an aspect is true now; they close older dead letters of it (B6.10)."""

DECIDED = SATISFIED | {Outcome.DEAD_LETTER}
"""Outcomes that move the watermark (B3.8). What was ignored has decided nothing."""


IN_DRY_RUN = {
    Outcome.LATCHED: Outcome.WOULD_LATCH,
    Outcome.UNLATCHED: Outcome.WOULD_UNLATCH,
    Outcome.MOVED: Outcome.WOULD_MOVE,
}
"""What the outcome of a write is called when nothing is written."""


class Reason(StrEnum):
    """Why a change waits for a person: the closed list of B6.9."""

    UNDECODABLE = "undecodable"
    CUSTOMER_NOT_FOUND = "customer_not_found"
    AMBIGUOUS_MATCH = "ambiguous_match"
    CONFLICT = "conflict"
    UNLATCH_UNSUPPORTED = "unlatch_unsupported"
    REJECTED = "rejected"
    RETRIES_EXHAUSTED = "retries_exhausted"
    WORKER_CRASHED = "worker_crashed"


class Record(msgspec.Struct, frozen=True, order=True, gc=False):
    """One object in a CRM.

    `id` is the vendor's own id as text in its canonical spelling: HubSpot and Geotab as
    sent, Salesforce with 18 characters (B3.3). `tenant` is the HubSpot portal, the 15
    characters of the Salesforce organisation, or the Geotab account.
    """

    source: Source
    tenant: str
    type: RecordType
    id: str

    @property
    def mailbox(self) -> str:
        """The name of this record's mailbox: `source:tenant:type:id` (B1)."""
        # Each change needs it, and formatting enums takes three times as long.
        return ":".join((self.source, self.tenant, self.type, self.id))  # noqa: FLY002

    @property
    def slot(self) -> Slot:
        """The slot of a Fusebill customer that holds this record."""
        return SLOT_OF[self.source, self.type]


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One normalised event about one record (B1), as decoded and as stored.

    `raw` is the event as it came, kept until the change is settled and in dead letters
    (B6.9); secrets were taken out by the decoder.
    """

    record: Record
    kind: Kind
    aspect: Aspect
    occurred_at: int | None = None
    """Milliseconds since the epoch as the sender states them; None if missing or unreadable."""
    identity: str | None = None
    """Digest of what makes this change itself and no other (B2.11); None: never a duplicate."""
    event_id: str | None = None
    """The sender's own id of the event, to search by."""
    customer_id: str | None = None
    """The Fusebill id the link field holds, as text; not checked to be a number (B4.4)."""
    reference: str | None = None
    email: str | None = None
    previous_id: str | None = None
    """Geotab: the reseller customer id this record had before (B3.4)."""
    company_id: str | None = None
    """HubSpot: the company a contact was associated with or dissociated from."""
    primary: bool | None = None
    """HubSpot: whether that association is the primary one; None if the event does not say."""
    merged_ids: tuple[str, ...] = ()
    """The records that were merged into this one."""
    definition: str | None = None
    """Salesforce: which message definition (ActionId) an Outbound Message is of (B3.2)."""
    left_out: bool = False
    """Salesforce: the link field is not in the message, which may mean that it is empty (B3.2)."""
    evidence: bool | None = None
    """Whether the event shows that the link field itself changed (B3.7); None: only a
    comparison with the last value stored for this record can tell (SOAP)."""
    request_id: str | None = None
    replay_id: str | None = None
    """Set when the change was put back by a replay (B6.11)."""
    raw: str = ""


def claimed_value(change: Change) -> str:
    """What the link field holds according to a link change: "" if it is empty.

    An unlink may name a customer all the same (Geotab): the one it was unlinked from.
    """
    return "" if change.kind is Kind.UNLINKED else change.customer_id or ""


class Pending(msgspec.Struct, frozen=True):
    """A stored change together with what the store said when it took it in."""

    seq: int
    """Order of arrival in the whole store; also the change's id towards people."""
    received_at: int
    """Milliseconds since the epoch by the store's clock (B7.6)."""
    change: Change

    @property
    def clock_doubted(self) -> bool:
        """The sender's time is missing or lies too far ahead (B3.8)."""
        stated = self.change.occurred_at
        return stated is None or stated > self.received_at + FIVE_MINUTES_MS

    @property
    def occurred_at(self) -> int:
        """When the change happened: as stated, else the time of receipt (B3.8)."""
        stated = self.change.occurred_at
        if stated is None or self.clock_doubted:
            return self.received_at
        return stated


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a record for as long as there is a store (B3.8)."""

    watermarks: dict[Aspect, int] = {}
    """The newest `occurred_at` decided, dead letters included."""
    done: dict[Aspect, frozenset[str]] = {}
    """Identities of the changes that were settled for good at that very time: told again, by a
    sender that repeats itself, they are no news."""
    claim: str | None = None
    """The last value of the link field: "" if it was emptied, None if none was ever seen."""
    shown: bool = False
    """That claim is not true yet, though its field is known to have changed to it (B3.7)."""
    home: str | None = None
    """The customer by whose id the record was latched last, "" after an unlink (B5.5: a move)."""
    ended_at: int | None = None
    """When the record was deleted (ms since the epoch), if that is known."""
    ended_on: int | None = None
    """The customer that held it then (B3.11)."""
    company: str | None = None
    """A contact's primary company as last told, "" for none (B5.7)."""
    took: tuple[str, int] | None = None
    """The merged record whose place it took over, and at which customer (B3.12)."""
    brought: tuple[str, int] | None = None
    """The company that was latched through this contact, and to which customer (B5.7)."""


class Presence(StrEnum):
    """Whether a CRM has a record (B3.5)."""

    PRESENT = "present"
    DELETED = "deleted"
    """Told positively: by the archive, an `IsDeleted` row, or a list without an active contact."""
    ABSENT = "absent"
    """Not found, which may mean not yet: by itself it is no reason for anything."""


class Truth(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What a CRM says of a record now (B3.5), read after the changes that it decides arrived.

    Where `survivor` is set, the record was merged into it, and all else speaks of the survivor.
    """

    record: Record
    """The record that was asked for."""
    presence: Presence
    survivor: Record | None = None
    link: str | None = None
    """What the link field holds, "" if it is empty; None: this CRM does not keep one (MyAdmin)."""
    link_set_at: int | None = None
    """When it got that value (ms since the epoch), if the CRM keeps a history of it (B3.7)."""
    reference: str | None = None
    email: str | None = None
    company: str | None = None
    """HubSpot contacts: the primary company, "" if there is none; None: not asked for."""


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call to a remote system, as a dead letter and `send` show it (B6.9)."""

    at: int
    """Milliseconds since the epoch, local clock of the worker."""
    call: str
    """Method and path, with the request body behind them where there is one."""
    status: int | None = None
    """HTTP status; None if no answer came."""
    error: str | None = None


class SlotState(Enum):
    """What an answer of Fusebill tells of a slot when it does not hold an id.

    Not text: a Geotab id may well read "empty".
    """

    EMPTY = "empty"
    UNKNOWN = "unknown"
    """The key was missing from the answer: unknown is not empty (B7.4)."""


class Customer(msgspec.Struct, frozen=True):
    """A Fusebill customer, as far as this product looks at it.

    `slots` maps every slot to the id it holds, canonical as in `Record.id`, or to a
    `SlotState`.
    """

    id: int
    status: str
    reference: str | None
    slots: dict[Slot, str | SlotState]
    emails: tuple[str, ...] = ()
    """The addresses of `primaryEmail`, which may hold several, each once and case folded."""

    def __repr__(self) -> str:
        # Tracebacks and test reports show it, and addresses are personal data (B10.4).
        return (
            f"Customer(id={self.id}, status={self.status!r}, reference={self.reference!r}, "
            f"slots={self.slots!r})"
        )

    def holds(self, record: Record) -> bool:
        """Whether this customer's slot holds the record."""
        return self.slots[record.slot] == record.id


_SALESFORCE_SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


def salesforce_id_18(text: str) -> str:
    """The 18-character spelling of a 15- or 18-character Salesforce id (B3.3).

    The suffix spells which of the first 15 characters are upper case. An 18-character id
    whose case was lost (all lower or upper) is repaired from its suffix.
    Raises ValueError for anything that is not such an id.
    """
    if len(text) not in (15, 18) or not (text.isascii() and text.isalnum()):
        raise ValueError(f"{text!r} is not a Salesforce id: it has 15 or 18 letters and digits")
    if len(text) == 15:
        return text + _suffix(text)
    if _suffix(text[:15]) == text[15:]:
        return text
    if text[:15] not in (text[:15].lower(), text[:15].upper()):
        raise ValueError(f"{text!r} is not a Salesforce id: its last three characters are wrong")
    return _repaired(text)


def _suffix(base: str) -> str:
    chunks = (base[0:5], base[5:10], base[10:15])
    return "".join(
        _SALESFORCE_SUFFIX[sum(1 << bit for bit, char in enumerate(chunk) if "A" <= char <= "Z")]
        for chunk in chunks
    )


def _repaired(text: str) -> str:
    suffix = text[15:].upper()
    if any(char not in _SALESFORCE_SUFFIX for char in suffix):
        raise ValueError(f"{text!r} is not a Salesforce id: its last three characters are wrong")
    masks = [_SALESFORCE_SUFFIX.index(char) for char in suffix]
    base = "".join(
        char.upper() if masks[place // 5] >> (place % 5) & 1 else char.lower()
        for place, char in enumerate(text[:15])
    )
    if _suffix(base) != suffix:
        raise ValueError(f"{text!r} is not a Salesforce id: its last three characters are wrong")
    return base + suffix


_DECIMAL = re.compile(r"([0-9]{1,20})\.([0-9]{1,20})(?:[eE]\+?([0-9]{1,2}))?")


def whole_number_text(text: str) -> str:
    """A number that was sent with decimals, `12345.0` or `1.2345E4`, without them (B3.2).

    Salesforce sends number fields as doubles. What is not a whole number stays as it is.
    """
    found = _DECIMAL.fullmatch(text)
    if not found:
        return text
    integer, fraction, exponent = found.groups()
    shift = int(exponent or 0)
    if fraction[shift:].strip("0"):
        return text
    return (integer + fraction[:shift].ljust(shift, "0")).lstrip("0") or "0"
