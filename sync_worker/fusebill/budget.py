"""What Fusebill last told of its rate limits, shared by all processes (facts: ref/rate-limits)."""

from __future__ import annotations

import msgspec
import redis

from sync_worker.fusebill.limits import RateLimits
from sync_worker.status import BUDGET_KEY
from sync_worker.store import store_errors

KEPT_SECONDS = 86_400
"""A day's limit means nothing on the next."""


def tell_budget(client: redis.Redis, limits: RateLimits) -> None:
    """Remember what the headers of the last answer said, in the form of B8.1."""
    windows = {
        "minute": (limits.minute_limit, limits.minute_left),
        "day": (limits.day_limit, limits.day_left),
    }
    budget = {
        name: {"limit": limit, "left": left}
        for name, (limit, left) in windows.items()
        if limit is not None
    }
    with store_errors():
        client.set(BUDGET_KEY, msgspec.json.encode(budget), ex=KEPT_SECONDS)
