"""How a change is written down in the store, with a version (B10.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from sync_worker.domain import Aspect, Attempt, Change, Marks, Pending

VERSION = b"1"
"""Raised when an older worker could not read what a newer one writes."""

_STAMP = VERSION + b":"

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Change)
_attempts = msgspec.json.Decoder(list[Attempt])


class NewerFormat(Exception):
    """Something stored is of a newer version: it is left for a worker that can read it."""


def encode_change(change: Change) -> bytes:
    """The stored form: the version, a colon, and the change as JSON."""
    return _STAMP + _encoder.encode(change)


def decode_pending(seq: str, stored: str) -> Pending:
    """Read "received|version:JSON" back.

    Raises NewerFormat if it is not of this version.
    """
    received, _, form = stored.partition("|")
    version, _, text = form.partition(":")
    if version.encode() != VERSION:
        raise NewerFormat(f"change {seq} is stored in format {version[:20]!r}")
    with newer_format(f"change {seq}"):
        return Pending(int(seq), int(received), _decoder.decode(text))


@contextmanager
def newer_format(what: str) -> Iterator[None]:
    """Take whatever cannot be read for something a newer version wrote: it must not be lost."""
    try:
        yield
    except (ValueError, msgspec.MsgspecError) as error:
        raise NewerFormat(f"{what} holds something this version cannot read") from error


def encode_attempt(attempt: Attempt) -> str:
    """One attempt as JSON."""
    return _encoder.encode(attempt).decode()


def encode_attempts(attempts: list[Attempt]) -> str:
    """Attempts as JSON."""
    return _encoder.encode(attempts).decode()


def decode_attempt(text: str) -> Attempt:
    """Read `encode_attempt` back."""
    return msgspec.json.decode(text, type=Attempt)


def decode_attempts(text: str | None) -> list[Attempt]:
    """Read `encode_attempts` back; nothing stored is no attempts."""
    return _attempts.decode(text) if text else []


def decode_marks(stored: dict[str, str]) -> Marks:
    """What is remembered of a record, from the fields of its hash."""
    fields = {
        name: read(stored[kept_as])
        for name, (kept_as, read, _) in _MARKS.items()
        if kept_as in stored
    }
    done = {a: frozenset(stored[f"{a}:done"].split()) for a in Aspect if f"{a}:done" in stored}
    return Marks(
        watermarks={aspect: int(stored[aspect]) for aspect in Aspect if aspect in stored},
        done=done,
        **fields,
    )


def changed_marks(before: Marks, after: Marks) -> tuple[list[str], list[str]]:
    """Flat field, value, ... to set, and the fields to remove."""
    old, new = _encode_marks(before), _encode_marks(after)
    changed = [part for item in new.items() if old.get(item[0]) != item[1] for part in item]
    return changed, [name for name in old if name not in new]


def _encode_marks(marks: Marks) -> dict[str, str]:
    fields = {str(aspect): str(at) for aspect, at in marks.watermarks.items()}
    fields |= {f"{aspect}:done": " ".join(sorted(ids)) for aspect, ids in marks.done.items() if ids}
    for name, (kept_as, _, write) in _MARKS.items():
        value = getattr(marks, name)
        if value is not None and value is not False:
            fields[kept_as] = write(value)
    return fields


def _read_place(text: str) -> tuple[str, int]:
    id_, _, customer = text.rpartition("@")
    return id_, int(customer)


_text: tuple[Callable[[str], Any], Callable[[Any], str]] = (
    lambda text: text.removeprefix("="),
    lambda value: f"={value}",
)
"""A value that may be empty, which is not the same as none."""
_number: tuple[Callable[[str], Any], Callable[[Any], str]] = (int, str)

_place: tuple[Callable[[str], Any], Callable[[Any], str]] = (
    _read_place,
    lambda value: f"{value[0]}@{value[1]}",
)
"""A record and a customer."""

_MARKS: dict[str, tuple[str, Callable[[str], Any], Callable[[Any], str]]] = {
    "claim": ("claim", *_text),
    "shown": ("shown", bool, lambda _: "1"),
    "home": ("home", *_text),
    "ended_at": ("ended_at", *_number),
    "ended_on": ("ended_on", *_number),
    "company": ("primary", *_text),
    "took": ("took", *_place),
    "brought": ("brought", *_place),
}
"""The field that each is kept in: not `company`, which is that aspect's watermark."""
