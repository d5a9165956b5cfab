"""The budget of calls to one Fusebill account, shared by all processes (B7.1 to B7.3).

It is kept in the store: a log of the calls of the last minute, a count of those of the last day,
and what the headers of the answers told (vendor page 'Rate Limits'). Each step is one script over
`inbox/lua/budget.lua`, which says how they bind together; other scripts take and end calls as part
of what they do, given `packed` and `told`.

Every call is reserved before it is made, and ended once its answer is there or given up: it counts
until a minute after that, so that no minute of Fusebill's clock ever holds more than ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
import redis

from sync_worker.fusebill.limits import RateLimits
from sync_worker.inbox import scripts
from sync_worker.inbox.reserve import Exhausted, Priority
from sync_worker.inbox.scripts import Script
from sync_worker.links import account_of
from sync_worker.settings import CONNECT_TIMEOUT_SECONDS, Settings
from sync_worker.store import store_errors

LOST_CALL_SECONDS = 60
"""A call that nobody ended counts for so long after it must have: as one that was (B7.1)."""

UNKNOWN = -1
"""Stands, in scripts, for what an answer did not tell."""

_pack = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget of one account, as one process uses it. Safe for any thread.

    Raises StoreError when the store cannot be used: then no call is made.
    """

    packed: tuple[str, int, int, float, int]
    """As scripts take it: account, calls a minute, calls a day, share kept for live work, ms until
    a reserved call that nobody ended counts no more."""
    _reserve: Script = field(repr=False)
    _ended: Script = field(repr=False)
    _outlook: Script = field(repr=False)

    @classmethod
    def of(cls, client: redis.Redis, current: Settings) -> Budget:
        """The budget of the account that these settings name."""
        longest = CONNECT_TIMEOUT_SECONDS + current.fusebill_read_timeout_seconds
        return cls(
            (
                account_of(current.fusebill_base_url),
                current.fusebill_calls_per_minute,
                current.fusebill_calls_per_day,
                current.live_reserve,
                round((longest + LOST_CALL_SECONDS) * 1000),
            ),
            *(scripts.load(client, name) for name in ("reserve", "ended", "outlook")),
        )

    def reserve(self, n: int, priority: Priority) -> int:
        """Reserve `n` calls, all or none (B7.2); gives the id of the first, the others follow it.

        Raises Exhausted if they cannot all go now.
        """
        if n < 1:
            raise ValueError(f"{n} calls cannot be reserved: it is 1 or more")
        with store_errors():
            first, wait_ms = self._reserve(args=[_pack([self.packed, n, priority])])
        if not first:
            raise Exhausted(wait_ms / 1000)
        return int(first)

    def ended(self, id_: int, limits: RateLimits | None = None, *, refused: bool = False) -> None:
        """A call has ended: its answer is there, or given up. 0 stands for one not reserved.

        `limits` is what its headers told, None if there was no answer; `refused`: it was a 429.
        """
        with store_errors():
            self._ended(args=[_pack([self.packed, [id_], told(limits, refused=refused), []])])

    def give_back(self, calls: Iterable[int]) -> None:
        """Give back reserved calls that were not made."""
        unmade = list(calls)
        if unmade:
            with store_errors():
                self._ended(args=[_pack([self.packed, [], [], unmade])])

    def outlook(self, priority: Priority, within_seconds: float = 0.0) -> int:
        """How many calls may go within that time, those that may go now included, as far as can be
        foreseen.
        """
        with store_errors():
            within_ms = round(within_seconds * 1000)
            return int(self._outlook(args=[_pack([self.packed, priority, within_ms])])[0])


def told(limits: RateLimits | None, *, refused: bool = False) -> list[int]:
    """What an answer told, as `end_call` of budget.lua takes it."""
    if limits is None and not refused:
        return []
    stated = limits or RateLimits()
    return [
        _known(stated.minute_limit),
        _known(stated.minute_left),
        _milliseconds(stated.minute_reset),
        _known(stated.day_limit),
        _known(stated.day_left),
        _milliseconds(stated.day_reset),
        int(refused),
    ]


def _known(calls: int | None) -> int:
    return UNKNOWN if calls is None else calls


def _milliseconds(moment: float | None) -> int:
    return UNKNOWN if moment is None else round(moment * 1000)
