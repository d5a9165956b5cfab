"""Reference C: an empty Flask view that reads the body, and no more."""

from __future__ import annotations

from flask import Flask, request

app = Flask(__name__)


@app.post("/webhooks/hubspot")
def take() -> tuple[dict[str, int], int]:
    """Read the body."""
    request.get_data()
    return {"accepted": 1}, 202
