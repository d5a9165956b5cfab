"""Loads the Lua scripts, each with the shared functions in front."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Protocol, cast

import redis

MAY_RUN_WHEN_FULL = frozenset(
    {
        *("claim", "join", "hold", "brake", "settle", "postpone", "merge"),
        *("wake", "leave", "observe", "sweep", "swept", "report", "probe"),
    }
)
"""What drains a full store; accepting and replaying only fill it (B6.12)."""


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
    common = (folder / "common.lua").read_text(encoding="utf-8")
    return f"#!lua{flags}\n{common}\n" + (folder / f"{name}.lua").read_text(encoding="utf-8")


def load(client: redis.Redis, name: str) -> Script:
    """Prepare a script; it is sent by its hash, and in full to a server that lost it."""
    return cast("Script", client.register_script(source(name)))
