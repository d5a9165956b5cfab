"""HubSpot's signature v3, checked as its guide has it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time

from flask import Request, abort

SECRET = os.environ.get("HUBSPOT_CLIENT_SECRET", "").encode()
PUBLIC_URL = os.environ.get("PUBLIC_URL", "")
SKEW_MS = 300_000


def verified(request: Request) -> bytes:
    """The body of a request that HubSpot signed; any other is refused."""
    body = request.get_data()
    timestamp = request.headers.get("X-HubSpot-Request-Timestamp", "0")
    if abs(time.time() * 1000 - int(timestamp)) > SKEW_MS:
        abort(401)
    signed = request.method.encode() + (PUBLIC_URL + request.path).encode() + body
    digest = hmac.digest(SECRET, signed + timestamp.encode(), hashlib.sha256)
    given = request.headers.get("X-HubSpot-Signature-v3", "")
    if not hmac.compare_digest(base64.b64encode(digest), given.encode()):
        abort(401)
    return body
