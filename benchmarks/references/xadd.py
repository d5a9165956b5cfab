"""Reference B, the ceiling: verify, then keep the raw body with one XADD. It reads no event, so it
knows no duplicate, no record and no tenant.
"""

from __future__ import annotations

import os

import redis
from flask import Flask, request

from benchmarks.references.verify import verified

STREAM = "bodies"

store = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://"))
app = Flask(__name__)


@app.post("/webhooks/hubspot")
def take() -> tuple[dict[str, int], int]:
    """Keep the body."""
    store.xadd(STREAM, {"body": verified(request)})
    return {"accepted": 1}, 202
