"""API keys as Fusebill makes them, and what it says of a wrong one (`ref/authentication`)."""

from __future__ import annotations

import base64
import binascii
import hmac
import itertools

RAW_KEY_LENGTH = 64
"""Characters of a key behind its `0:`; with it base64 makes 88 of them."""

MALFORMED_KEY = "Authorization key is not in the correct format."
"""The 400 of a key that is none (`ref/errors`, the page's own example)."""

WRONG_KEY = "Authorization has been denied for this request."
"""The 401 of a missing or unknown key; its text is not documented."""


def fake_api_key(label: str = "test") -> str:
    """A key in the right form that plainly is none: base64 of `0:` and 64 readable characters.

    Different labels give different keys; a label has at most 32 characters.
    """
    if not label.isascii() or not 0 < len(label) <= RAW_KEY_LENGTH // 2:
        raise ValueError(f"{label!r} is no label: 1 to {RAW_KEY_LENGTH // 2} ASCII characters")
    filler = itertools.cycle("-simulated-not-a-secret")
    raw = label + "".join(itertools.islice(filler, RAW_KEY_LENGTH - len(label)))
    return base64.b64encode(f"0:{raw}".encode()).decode()


def well_formed(key: str) -> bool:
    """Whether the text is base64 of `0:` and 64 characters."""
    try:
        raw = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        return False
    return raw.startswith(b"0:") and len(raw) == 2 + RAW_KEY_LENGTH


def refusal(header: str | None, api_key: str) -> tuple[int, str] | None:
    """Status and text that refuse an `Authorization` header, or None if it is right."""
    if not header:
        return 401, WRONG_KEY
    scheme, _, key = header.partition(" ")
    if scheme.lower() != "basic" or not well_formed(key.strip()):
        return 400, MALFORMED_KEY
    if not hmac.compare_digest(key.strip().encode(), api_key.encode()):
        return 401, WRONG_KEY
    return None
