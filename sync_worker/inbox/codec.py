"""How a change is written down in the store, with a version (B10.5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from sync_worker.domain import Attempt, Change, Pending

VERSION = b"1"
"""Raised when an older worker could not read what a newer one writes."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Change)
_attempts = msgspec.json.Decoder(list[Attempt])


class NewerFormat(Exception):
    """Something stored is of a newer version: it is left for a worker that can read it."""


def encode_change(change: Change) -> bytes:
    """The stored form: the version, a colon, and the change as JSON."""
    return VERSION + b":" + _encoder.encode(change)


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
