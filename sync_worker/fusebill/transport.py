"""One call to Fusebill as it goes over the wire: the key, and what an answer's headers say."""

from __future__ import annotations

import base64
import binascii
import re

import requests
from requests.auth import AuthBase

from sync_worker.fusebill.answers import Answer, Call
from sync_worker.fusebill.limits import read_limits
from sync_worker.http import SENDABLE, Connections

MAX_ANSWER_BYTES = 1024 * 1024
"""A customer takes about 2 KB: whatever is this long is broken, and must not fill memory."""

MAX_LIST_BYTES = 16 * 1024 * 1024
"""The same for a page of a list, of at most some thousand customers."""

_COUNT = re.compile(r"[0-9]{1,15}")


class ApiKey(AuthBase):
    """The key, as Fusebill shows it: it is base64 already and is sent as given (B7.5).

    Raises ValueError, without the key, if it cannot stand in a header.
    """

    def __init__(self, key: str) -> None:
        if not SENDABLE.fullmatch(key):
            raise ValueError(
                "the Fusebill API key is empty or holds spaces or other characters that cannot "
                "be sent: give the key alone, as Fusebill shows it, without `Basic`"
            )
        self._key = key
        self._hidden = sorted({key, *_parts(key)}, key=len, reverse=True)

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the key into a request that is about to be sent."""
        r.headers["Authorization"] = f"Basic {self._key}"
        return r

    def __repr__(self) -> str:
        return "ApiKey(…)"

    def hide(self, text: str) -> str:
        """The text without the key, also where it is quoted in its decoded form."""
        for part in self._hidden:
            text = text.replace(part, "[key]")
        return text


def _parts(key: str) -> set[str]:
    """What the key decodes to: `0:` and 64 characters (vendor page 'Authentication')."""
    try:
        decoded = base64.b64decode(key, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return set()
    # Shorter parts would be found, and hidden, in many a word.
    return {part for part in (decoded, decoded.partition(":")[2]) if len(part) >= 8}


class Transport:
    """The connections to Fusebill.

    May be shared by threads. Make one per process, after a fork.
    """

    def __init__(self, base_url: str, key: ApiKey, *, read_timeout: float, user_agent: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = Connections(auth=key, read_timeout=read_timeout, user_agent=user_agent)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def exchange(self, call: Call) -> Answer:
        """Make one call, bounded as in `Connections.exchange`. What failed is in the `fault`."""
        came = self._http.exchange(
            call.method,
            self._base_url + call.target,
            body=call.body,
            content_type="application/json" if call.writes else None,
            max_bytes=MAX_LIST_BYTES if call.customer_id is None else MAX_ANSWER_BYTES,
        )
        return Answer(
            came.status,
            came.body,
            limits=read_limits(came.headers),
            count=_count(came.headers.get("x-count", "")),
            fault=came.fault,
            sent=came.sent,
        )


def _count(text: str) -> int | None:
    text = text.strip()
    return int(text) if _COUNT.fullmatch(text) else None
