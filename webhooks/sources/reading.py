"""What the readers of all sources share: splitting a body, and turning hostile values into
safe ones.

Everything here assumes that a body was written by an enemy who knows the secret: a wrong
type, a number of 5,000 digits, half a surrogate pair or a nest 100,000 deep spoils the event
it stands in, never the process, and as far as the bytes can be told apart never its neighbours
(B2.10). Texts that leave here can be encoded as UTF-8: msgspec and expat refuse lone
surrogates, and form fields are decoded strictly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

import msgspec

from sync_worker.domain import Aspect, Change, Kind, Record, whole_number_text
from webhooks.sources import Decoded, Undecodable, UndecodableEvent

_T = TypeVar("_T")

whole = whole_number_text

MAX_EPOCH_MS = 2**53
"""A later time is no time: past it, JSON numbers stop being exact in most senders."""

_SECONDS_BELOW = 10**11
"""Epoch numbers below this are seconds (until the year 5138), above it milliseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MAX_ID_DIGITS = 20
MAX_ID = 10**_MAX_ID_DIGITS - 1
"""The largest number that is taken for an id."""

_MAX_TIME_DIGITS = 16
_MAX_TIME_CHARS = 40
_BLANKS = " \t\r\n"
"""What JSON allows between values; Python's own idea of blanks is wider."""

_raw = msgspec.json.Decoder(msgspec.Raw)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_table = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode
_unfed = blake2b(digest_size=16)
_scan = json.JSONDecoder(
    parse_int=str, parse_float=str, parse_constant=str, strict=False
).raw_decode


class Unreadable(ValueError):
    """One event cannot be read; the message says why and quotes none of it."""


class Statement(msgspec.Struct, frozen=True, gc=False):
    """What the changes that one event makes to one record have in common."""

    record: Record
    marks: tuple[object, ...] | None
    """What makes the event itself and no other (B2.11); None: never a duplicate."""
    occurred_at: int | None
    event_id: str | None
    request_id: str
    raw: str

    def change(self, kind: Kind, aspect: Aspect, **more: Any) -> Change:
        """One change; `more` are the fields of `Change` that this kind carries."""
        identity = None
        if self.marks is not None:
            record = self.record
            identity = digest(record.source, record.tenant, record.id, kind, aspect, *self.marks)
        return Change(
            record=self.record,
            kind=kind,
            aspect=aspect,
            occurred_at=self.occurred_at,
            identity=identity,
            event_id=self.event_id,
            request_id=self.request_id,
            raw=self.raw,
            **more,
        )


def digest(*fields: object) -> str:
    """A digest of fields in an encoding that no two different lists of fields share."""
    one = _unfed.copy()  # which takes half the time of making one
    one.update(_encode(fields))
    return one.hexdigest()


class Batch(NamedTuple):
    """The events of one body."""

    events: list[msgspec.Raw]
    alone: bool
    """The body is one event rather than an array: if that cannot be read, nor can the body."""


def split(body: bytes) -> Batch:
    """The events of a JSON body: the members of an array, or the one object it is.

    Raises Undecodable.
    """
    start = body.lstrip(_BLANKS.encode())[:1]
    try:
        if start == b"{":
            return Batch([_raw.decode(body)], alone=True)
        if start == b"[":
            return Batch(_raws.decode(body), alone=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _split_patiently(body)
    raise Undecodable("the body is neither a JSON array nor a JSON object")


def _split_patiently(body: bytes) -> Batch:
    """Split a body in which an event is faulty, such as by half a surrogate pair.

    The standard library's scanner tolerates what msgspec refuses, so it is used to find
    where events end; each is then judged by itself.
    """
    text = body.decode("utf-8", "surrogateescape").strip(_BLANKS)
    alone = text[0] != "["
    try:
        spans = [(0, _scan(text, 0)[1])] if alone else list(_members(text))
        rest = text[spans[-1][1] :].lstrip(_BLANKS)
    except (ValueError, RecursionError):
        raise Undecodable("the body is not JSON") from None
    if rest != ("" if alone else "]"):
        raise Undecodable("the body is not JSON")
    return Batch([_slice(text, start, end) for start, end in spans], alone)


def _members(text: str) -> Iterator[tuple[int, int]]:
    """Where the members of an array with at least one begin and end."""
    end = 0
    while end == 0 or text[end : end + 1] == ",":
        start = _skip_blanks(text, end + 1)
        _, stop = _scan(text, start)
        yield start, stop
        end = _skip_blanks(text, stop)


def _slice(text: str, start: int, end: int) -> msgspec.Raw:
    return msgspec.Raw(text[start:end].encode("utf-8", "surrogateescape"))


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at


def gather(
    batch: Batch,
    read: Callable[[msgspec.Raw, Decoded], None],
    scrub: Callable[[bytes], bytes] = bytes,
) -> Decoded:
    """Read events one by one, setting aside those that cannot be read (B2.10).

    `read` touches the `Decoded` it is given only once it can no longer fail. `scrub` takes
    secrets out of what is kept of an unreadable event. Raises Undecodable if the body is
    but one event and that cannot be read: it may have been cut short, and its sender should
    hear of it.
    """
    decoded = Decoded()
    for raw in batch.events:
        try:
            read(raw, decoded)
        except Unreadable as fault:
            if batch.alone:
                raise Undecodable(str(fault)) from None
            decoded.undecodable.append(UndecodableEvent(scrub(bytes(raw)), str(fault)))
    return decoded


def typed(decoder: msgspec.json.Decoder[_T], raw: msgspec.Raw) -> _T:
    """Decode a piece of JSON. Raises Unreadable."""
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("a field has a type or a value that this event never carries") from None


def table(raw: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, themselves still undecoded. Raises Unreadable."""
    return typed(_table, raw)


def text_of(raw: msgspec.Raw) -> str:
    """A piece of JSON as text. Raises Unreadable if it is not UTF-8."""
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise Unreadable("the event is not UTF-8") from None


def scalar(raw: msgspec.Raw | str | int | None, name: str) -> str | None:
    """The text of a JSON string or number as it stands there, also of one that is decoded already;
    None for null or nothing.

    Raises Unreadable for anything else. Numbers are not converted, so none can overflow or
    lose digits.
    """
    if raw is None or isinstance(raw, str):
        return raw
    if isinstance(raw, int):
        return str(raw)
    text = text_of(raw)
    first = text[:1]
    if first.isdigit() or first == "-":
        return text
    if first == '"':
        return typed(_string, raw)
    if text == "null":
        return None
    raise Unreadable(f"{name} is neither text nor a number")


def lenient_scalar(raw: msgspec.Raw | str | int | None) -> str | None:
    """As `scalar`, with None for what is neither text nor a number: for mere context."""
    if type(raw) is int:
        return str(raw)
    try:
        return scalar(raw, "")
    except Unreadable:
        return None


def digits(value: object, name: str) -> str:
    """A positive whole number, sent as a number or as text, in its one spelling.

    Raises Unreadable. Never a float: ids above 2^53 would lose digits.
    """
    if type(value) is int and 0 < value <= MAX_ID:
        return str(value)
    if isinstance(value, str) and len(value) <= _MAX_ID_DIGITS and value.isascii():
        number = value.lstrip("0")
        if number.isdigit():
            return number
    raise Unreadable(f"{name} is missing or not a positive whole number")


def epoch_ms(stated: msgspec.Raw | str | int | None) -> int | None:
    """Milliseconds since the epoch; None for what cannot be one (B3.8)."""
    if type(stated) is int:
        value = stated
    else:
        text = lenient_scalar(stated)
        if text is None or not _is_number(text):
            return None
        value = int(text)
    return value if 0 <= value <= MAX_EPOCH_MS else None


def epoch_or_iso_ms(text: str | None) -> int | None:
    """A time as ISO 8601 or as epoch milliseconds; None if it is neither."""
    if text is None:
        return None
    return epoch_ms(text) if text.isdigit() else _iso_ms(text)


def any_time_ms(text: str | None) -> int | None:
    """A time as ISO 8601, epoch seconds (decimals allowed) or epoch milliseconds."""
    if text is None:
        return None
    seconds, _, fraction = text.partition(".")
    if not _is_number(seconds):
        return _iso_ms(text)
    if fraction.strip("0123456789"):
        return None
    value = int(seconds)
    if value < _SECONDS_BELOW:
        value = value * 1000 + int(fraction[:3].ljust(3, "0"))
    return value if value <= MAX_EPOCH_MS else None


def _is_number(text: str) -> bool:
    """ASCII digits only, and never so many that turning them into a number costs anything."""
    return len(text) <= _MAX_TIME_DIGITS and text.isascii() and text.isdigit()


def _iso_ms(text: str) -> int | None:
    """ISO 8601 with an offset; a time that does not say its zone is no time."""
    if len(text) > _MAX_TIME_CHARS or not text.isascii():
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            return None
        value = (moment - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        return None
    return value if 0 <= value <= MAX_EPOCH_MS else None
