"""Signatures and tokens: how a request is signed, and how that is checked.

Every `verify_…` mirrors a `sign_…`, answers None or why the request is refused, and raises
nothing whatever the headers hold. All comparisons take constant time, on bytes, and every
secret is tried, so that one can be rotated while requests come in (B2.4).

HubSpot's three versions are those of its guide "Validating requests"; `X-Signature` is this
product's own (B2.8), for senders that can compute an HMAC and have no scheme of their own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

SKEW_SECONDS = 5 * 60
"""How far a signed time may lie from our clock, before or behind it (B2.5, B2.8)."""

Fault = Literal["wrong", "stale", "timestamp"]
"""Why a signature is refused, in the words of `Unauthenticated`."""

_MAX_PARTS = 16
"""What stands behind so many commas in an `X-Signature` is not looked at."""

_SECONDS = re.compile(r"[0-9]{1,12}")
_MILLISECONDS = re.compile(r"[0-9]{1,15}")
"""ASCII digits only, and never so many that turning them into a number costs anything."""

_URI_ESCAPES = {
    "%3A": ":",
    "%2F": "/",
    "%3F": "?",
    "%40": "@",
    "%21": "!",
    "%24": "$",
    "%27": "'",
    "%28": "(",
    "%29": ")",
    "%2A": "*",
    "%2C": ",",
    "%3B": ";",
}
"""What HubSpot decodes before it signs with v3: these, in upper case, and nothing else."""

_URI_ESCAPE = re.compile("|".join(_URI_ESCAPES))


def secret_bytes(secrets: Iterable[SecretStr]) -> tuple[bytes, ...]:
    """Configured secrets as bytes; empty ones are no secrets."""
    values = (secret.get_secret_value() for secret in secrets)
    return tuple(value.encode("utf-8", "surrogateescape") for value in values if value)


def is_one_of(given: str, tokens: Sequence[bytes]) -> bool:
    """Whether a token is one of ours."""
    return _verdict([_same(given, token) for token in tokens]) is None


def signed_uri(public_url: str, target: str) -> str:
    """The address HubSpot called: `PUBLIC_URL` and the raw request target (B2.5).

    A proxy may pass the path of `PUBLIC_URL` on or strip it, so it is put in front only
    where the target does not already begin with it.
    """
    prefix = urlsplit(public_url).path.rstrip("/")
    path = target.partition("?")[0]
    if prefix and (path == prefix or path.startswith(prefix + "/")):
        return public_url.rstrip("/").removesuffix(prefix) + target
    return public_url.rstrip("/") + target


def sign_hubspot_v1(secret: bytes, body: bytes) -> str:
    """HubSpot's v1: the hash of secret and body; it carries no time and no address."""
    digest = hashlib.sha256(secret)
    digest.update(body)
    return digest.hexdigest()


def verify_hubspot_v1(given: str, secrets: Sequence[bytes], body: bytes) -> Fault | None:
    """Check a v1 signature; None if it holds."""
    return _verdict([_same(given, sign_hubspot_v1(key, body).encode()) for key in secrets])


def sign_hubspot_v2(secret: bytes, method: str, uri: str, body: bytes) -> str:
    """HubSpot's v2: adds method and address, the latter exactly as called."""
    digest = hashlib.sha256(secret)
    digest.update(_bytes(method + uri))
    digest.update(body)
    return digest.hexdigest()


def verify_hubspot_v2(
    given: str, secrets: Sequence[bytes], *, method: str, uri: str, body: bytes
) -> Fault | None:
    """Check a v2 signature; None if it holds."""
    return _verdict(
        [_same(given, sign_hubspot_v2(key, method, uri, body).encode()) for key in secrets]
    )


def sign_hubspot_v3(secret: bytes, method: str, uri: str, body: bytes, timestamp: str) -> str:
    """HubSpot's v3: an HMAC over method, address (twelve escapes decoded), body and time."""
    if "%" in uri:
        uri = _URI_ESCAPE.sub(lambda found: _URI_ESCAPES[found.group()], uri)
    digest = hmac.new(secret, _bytes(method + uri), hashlib.sha256)
    digest.update(body)
    digest.update(_bytes(timestamp))
    return base64.b64encode(digest.digest()).decode("ascii")


def verify_hubspot_v3(
    given: str,
    secrets: Sequence[bytes],
    *,
    method: str,
    uri: str,
    body: bytes,
    timestamp: str | None,
    now: float,
) -> Fault | None:
    """Check a v3 signature and its time in milliseconds; None if both hold.

    The signature is checked before the time's distance: a forgery is then reported as
    `wrong`, and `stale` means a replay, or a clock to set.
    """
    if timestamp is None or not _MILLISECONDS.fullmatch(timestamp):
        return "timestamp"
    genuine = [
        _same(given, sign_hubspot_v3(key, method, uri, body, timestamp).encode()) for key in secrets
    ]
    return _verdict(genuine) or _staleness(int(timestamp) / 1000, now)


def sign_x(secret: bytes, body: bytes, seconds: int) -> str:
    """The value of our own `X-Signature` header."""
    return f"t={seconds},v1={_x_digest(secret, str(seconds), body)}"


def verify_x(given: str, secrets: Sequence[bytes], body: bytes, now: float) -> Fault | None:
    """Check an `X-Signature: t=…,v1=…` header; None if it holds.

    Several `v1` parts may stand side by side while the sender rotates its secret; a header
    that names two times names none.
    """
    parts = [part.strip().partition("=") for part in given.split(",", _MAX_PARTS)]
    signatures = [value for name, _, value in parts if name == "v1"]
    times = [value for name, _, value in parts if name == "t"]
    if not signatures:
        return "wrong"
    if len(times) != 1 or not _SECONDS.fullmatch(times[0]):
        return "timestamp"
    expected = [_x_digest(key, times[0], body).encode() for key in secrets]
    genuine = [_same(signature, one) for signature in signatures for one in expected]
    return _verdict(genuine) or _staleness(int(times[0]), now)


def _x_digest(secret: bytes, seconds: str, body: bytes) -> str:
    digest = hmac.new(secret, f"{seconds}.".encode("ascii"), hashlib.sha256)
    digest.update(body)
    return digest.hexdigest()


def _verdict(genuine: Sequence[bool]) -> Fault | None:
    return None if any(genuine) else "wrong"


def _staleness(signed: float, now: float) -> Fault | None:
    return "stale" if abs(now - signed) > SKEW_SECONDS else None


def _same(given: str, expected: bytes) -> bool:
    return hmac.compare_digest(_bytes(given), expected)


def _bytes(text: str) -> bytes:
    """Text of a request as bytes, whatever it holds: lone surrogates must not raise."""
    return text.encode("utf-8", "surrogatepass")
