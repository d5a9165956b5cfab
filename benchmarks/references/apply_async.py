"""Reference A: what most would write. Verify, then one Celery `apply_async` for each event."""

from __future__ import annotations

import json
import os
from typing import Any

from celery import Celery
from flask import Flask, request

from benchmarks.references.verify import verified

QUEUE = "events"

celery = Celery("reference", broker=os.environ.get("REDIS_URL", ""))
celery.conf.task_ignore_result = True
app = Flask(__name__)


@celery.task(name="reference.converge")
def converge(event: dict[str, Any]) -> None:
    """Never runs: only the receiving is measured."""


@app.post("/webhooks/hubspot")
def take() -> tuple[dict[str, int], int]:
    """Hand every event to Celery."""
    events = json.loads(verified(request))
    for event in events:
        converge.apply_async(args=(event,), queue=QUEUE)
    return {"accepted": len(events)}, 202
