"""How a change is written down in the store, with a version (B10.5)."""

from __future__ import annotations

import msgspec

from sync_worker.domain import Attempt, Change, Pending

VERSION = b"1"
"""Raised when an older worker could not read what a newer one writes."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Change)
_attempts = msgspec.json.Decoder(list[Attempt])


class NewerFormat(Exception):
    """A stored change is of a newer version: it is left for a worker that can read it."""


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
        raise NewerFormat(f"change {seq} is stored in format {version!r}")
    try:
        return Pending(int(seq), int(received), _decoder.decode(text))
    except msgspec.ValidationError as error:
        # The version is right but a value is of a newer kind, such as a record type.
        raise NewerFormat(f"change {seq} holds something this version does not know") from error


def encode_attempts(attempts: list[Attempt]) -> str:
    """Attempts as JSON."""
    return _encoder.encode(attempts).decode()


def decode_attempts(text: str | None) -> list[Attempt]:
    """Read `encode_attempts` back; nothing stored is no attempts."""
    return _attempts.decode(text) if text else []
