"""The budget of Fusebill calls against model servers, by a clock that a test moves.

The scripts are those that ship, on a real server, but for its clock; so minutes pass in seconds.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from sync_worker import settings
from sync_worker.fusebill.budget import Budget, Exhausted, Priority
from sync_worker.fusebill.limits import RateLimits
from sync_worker.inbox import scripts

SCRIPTS = ("reserve", "ended", "outlook")

EPOCH = 1_800_000_000.0
"""When model time begins, a whole minute."""

_BY_THE_TEST = "now_us = function() return tonumber(ARGV[2]) end"


class Clock:
    """The time of a model, in seconds since the epoch; the store's is the same."""

    def __init__(self, now: float = EPOCH) -> None:
        self.now = now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Timed:
    """A script that takes the time from a clock."""

    script: scripts.Script
    clock: Clock

    @classmethod
    def of(cls, client: redis.Redis, name: str, clock: Clock) -> Timed:
        head, begins, body = scripts.source(name).rpartition("\n-- ARGV[1]")
        return cls(client.register_script(f"{head}\n{_BY_THE_TEST}{begins}{body}"), clock)

    def __call__(self, *, args: list[Any]) -> Any:
        return self.script(args=[*args, round(self.clock.now * 1e6)])


def make_budget(client: redis.Redis, clock: Clock | None = None, **given: object) -> Budget:
    """A budget that goes by this clock, or the store's."""
    made = Budget.of(client, settings.load(_env_file=None, **given))
    if clock is None:
        return made
    return Budget(made.packed, *(Timed.of(client, name, clock) for name in SCRIPTS))


@dataclass(kw_only=True)
class Server:
    """Counts calls as Fusebill does, by one of the ways it may; those it refuses do not count."""

    minute: int
    day: int = 10**9
    sliding: bool = False
    phase: float = 0.0
    """When its fixed minutes begin (s)."""
    ahead: float = 0.0
    """Its clock less ours (s)."""
    tells: Callable[[float], float | None] = lambda moment: float(math.ceil(moment))
    """What a reset reads as; None: not readable."""
    taken: deque[float] = field(default_factory=deque)
    day_taken: deque[float] = field(default_factory=deque)
    refusals: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    log: list[tuple[float, str]] = field(default_factory=list)
    """When, by its clock, it served whom."""

    def take(self, who: str, at: float) -> tuple[bool, RateLimits]:
        now = at + self.ahead
        minute = self._window(self.taken, now, 60.0)
        day = self._window(self.day_taken, now, 86400.0)
        ok = len(self.taken) < self.minute and len(self.day_taken) < self.day
        if ok:
            self.taken.append(now)
            self.day_taken.append(now)
            self.served[who] += 1
            self.log.append((now, who))
        else:
            self.refusals[who] += 1
        return ok, RateLimits(
            self.minute,
            self.minute - len(self.taken),
            self.tells(self._reset(self.taken, minute, now, 60.0)),
            self.day,
            self.day - len(self.day_taken),
            self.tells(self._reset(self.day_taken, day, now, 86400.0)),
        )

    def shares(self, begins: float, ends: float) -> tuple[int, int]:
        """How many calls of ours it served in this time by our clock, and how many others left to
        us; where its minutes are fixed, in the whole ones of that time.
        """
        begins, ends = begins + self.ahead, ends + self.ahead
        if not self.sliding:
            begins += (self.phase - begins) % 60
            ends -= (ends - self.phase) % 60
        served = Counter(who for at, who in self.log if begins <= at < ends)
        return served["us"], round(self.minute * (ends - begins) / 60) - served["foreign"]

    def _window(self, taken: deque[float], now: float, seconds: float) -> float:
        start = now - seconds if self.sliding else now - (now - self.phase) % seconds
        while taken and (taken[0] <= start if self.sliding else taken[0] < start):
            taken.popleft()
        return start

    def _reset(self, taken: deque[float], start: float, now: float, seconds: float) -> float:
        return ((taken[0] if taken else now) if self.sliding else start) + seconds


class Model:
    """Events in the order of their time."""

    def __init__(self, server: Server, *, seed: int = 0, starts: float = EPOCH) -> None:
        self.clock = Clock(starts)
        self.server = server
        self.random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.clock.now + seconds, what)

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.clock.now + seconds
        while self._events and self._events[0][0] <= end:
            when, _, what = heapq.heappop(self._events)
            self.clock.now = max(when, self.clock.now)
            what()
        self.clock.now = end

    def foreign(self, calls: int, *, at: float, over: float, again: float = 0.0) -> None:
        """Somebody else makes so many calls, evenly over so many seconds, each again after so many
        if it is refused, and for ten seconds.
        """
        tries = int(10 / again) if again else 1
        for i in range(calls):
            self.at(at + over * i / calls, lambda: self._foreign(tries, again))

    def _foreign(self, tries: int, again: float) -> None:
        ok, _ = self.server.take("foreign", self.clock.now)
        if not ok and tries > 1:
            self.after(again, lambda: self._foreign(tries - 1, again))


@dataclass
class Worker:
    """A process that makes calls as fast as the budget lets it, so many at a time."""

    model: Model
    budget: Budget
    priority: Priority = Priority.LIVE
    at_a_time: int = 20
    latency: Callable[[random.Random], float] = lambda rng: rng.uniform(0.02, 0.5)
    plan: Callable[[random.Random], int] = lambda rng: 1
    to_do: float = math.inf
    busy: int = 0
    asked: int = 0
    dies: bool = False
    _waits: bool = False
    _n: int = 0
    began: float = 0.0
    """When its first call was made."""

    def start(self) -> None:
        self._waits = False
        model = self.model
        while self.busy < self.at_a_time and self.to_do > 0 and not self.dies:
            self._n = self._n or self.plan(model.random)
            self.asked += 1
            try:
                first = self.budget.reserve(self._n, self.priority)
            except Exhausted as error:
                self._waits = True
                # As long as a worker or beat takes to come back to it.
                model.after(error.seconds + model.random.uniform(0, 0.02), self.start)
                return
            self.began = self.began or model.clock.now
            self.to_do -= self._n
            for call in range(first, first + self._n):
                self._call(call)
            self._n = 0

    def _call(self, call: int) -> None:
        model = self.model
        self.busy += 1
        takes = self.latency(model.random)
        counted = model.random.uniform(0, takes)
        answer: list[tuple[bool, RateLimits]] = []
        model.after(counted, lambda: answer.append(model.server.take("us", model.clock.now)))
        model.after(takes, lambda: self._end(call, *answer[0]))

    def _end(self, call: int, ok: bool, limits: RateLimits) -> None:
        if self.dies:
            return
        self.busy -= 1
        self.budget.ended(call, limits, refused=not ok)
        if not ok:
            self.to_do += 1
        if not self._waits:
            self.start()
