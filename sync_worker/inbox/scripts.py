"""Loads the Lua scripts, each with the shared functions in front."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Protocol

import redis

from sync_worker.inbox.direct import Direct

MAY_RUN_WHEN_FULL = frozenset(
    {
        *("claim", "join", "hold", "brake", "settle", "postpone", "merge"),
        *("wake", "leave", "observe", "sweep", "swept", "report", "heard", "probe"),
        *("reserve", "ended"),
    }
)
"""What drains a full store; accepting and replaying only fill it (B6.12)."""

ONLY_READ = frozenset({"outlook", "survey"})
"""What runs on a replica too, and in a full store: `status` tells of both, a batch begins in it."""

LIBRARIES = {
    "claim": ("budget",),
    "hold": ("budget", "index"),
    "heard": ("budget", "index", "gates"),
    "observe": ("index",),
    "report": ("gates",),
    "reserve": ("budget",),
    "ended": ("budget",),
    "outlook": ("budget",),
}
"""What stands in front of a script beside `common`."""


class Script(Protocol):
    """A script on one server."""

    def __call__(self, *, args: list[Any]) -> Any:
        """Run it."""
        ...


@cache
def source(name: str) -> str:
    """The whole text of a script as Redis gets it."""
    folder = files("sync_worker.inbox") / "lua"
    flags = " flags=allow-oom" if name in MAY_RUN_WHEN_FULL else ""
    flags = " flags=no-writes" if name in ONLY_READ else flags
    parts = ("common", *LIBRARIES.get(name, ()), name)
    texts = [(folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts]
    return "\n".join([f"#!lua{flags}", *texts])


def load(client: redis.Redis, name: str) -> Script:
    """Prepare a script; it is sent by its hash, and in full to a server that lost it."""
    return Direct(client, source(name))
