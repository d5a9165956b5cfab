"""Trouble at random moments: what is killed, cut off or made to lie while changes arrive.

All of it comes from the seed: what happens, in which order and when. What a process was doing at
that moment is up to the machine, which is the point.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from simulators.fusebill.faults import Fault
from sync_worker.celery import BEAT_QUEUE, KEY_PREFIX, LIVE_QUEUE
from tests.faults.orders import Orders
from tests.faults.sender import Delivery, Sender
from tests.processes import until, within
from tests.stack import Stack

CLOCK_SECONDS = 60.0

LOST_SHARE = 0.1
"""Of the writes, until so many answers were lost as are to be."""


@dataclass(frozen=True)
class Doses:
    """How much of each trouble."""

    workers: int
    """SIGKILL of the whole command, once in the middle of the outage."""
    children: int
    """SIGKILL of one process of its pool."""
    stores: int
    """SIGKILL of Redis, and its restart."""
    receivers: int
    queues: int
    """The broker's queues deleted, with every wake-up in them."""
    lost_answers: int
    """Writes that have their effect and are not answered, or have none either, by turns."""
    bursts: int
    """Of ten calls each, some of which are answered 5xx."""
    outage_seconds: float
    calls: int
    """Between two troubles at most, at random."""
    patience_seconds: float
    """How long the next one waits for them."""


SHORT = Doses(
    workers=3,
    children=3,
    stores=3,
    receivers=2,
    queues=2,
    lost_answers=10,
    bursts=3,
    outage_seconds=5,
    calls=30,
    patience_seconds=5,
)

LONG = Doses(
    workers=10,
    children=10,
    stores=10,
    receivers=5,
    queues=3,
    lost_answers=50,
    bursts=10,
    outage_seconds=60,
    calls=400,
    patience_seconds=40,
)


@dataclass
class Chaos:
    """Brings trouble over a stack."""

    stack: Stack
    orders: Orders
    doses: Doses
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    clock: str = ""
    _losing: set[int] = field(default_factory=set)

    def run(self, sender: Sender, deliveries: Sequence[Delivery]) -> None:
        """Have all of it sent, a part after each trouble; afterwards everything runs again.

        Between any two there is work done, so that each meets work under way.
        """
        self._lose_answers()
        acts = self._acts()
        begun = time.monotonic()
        for at, (name, act) in enumerate(acts):
            sender.offer(_part(deliveries, at, len(acts) + 1))
            self._wait_for_work()
            print(f"{time.monotonic() - begun:.1f} s: {name}")
            act()
            self.done[name] += 1
        sender.offer(_part(deliveries, len(acts), len(acts) + 1))

    def _acts(self) -> list[tuple[str, Callable[[], None]]]:
        """What happens, in this order."""
        doses = self.doses
        acts: list[tuple[str, Callable[[], None]]] = [
            *[("worker killed", self._kill_worker)] * (doses.workers - 1),
            *[("child killed", self._kill_child)] * doses.children,
            *[("Redis killed", self._kill_store)] * doses.stores,
            *[("receiver killed", self._kill_receiver)] * doses.receivers,
            *[("queue deleted", self._delete_queues)] * doses.queues,
            *[("burst of 5xx", self._burst)] * doses.bursts,
            ("outage", self._outage),
            ("clock put wrong", self._shift_clock),
        ]
        self.dice.shuffle(acts)
        return acts

    def _wait_for_work(self) -> None:
        """Until some more calls were made; not for ever, as there may be none to make."""
        wanted = self.stack.control.last_seq() + self.dice.randint(1, self.doses.calls)
        within(lambda: self.stack.control.last_seq() >= wanted, self.doses.patience_seconds)

    def _kill_worker(self) -> None:
        self.stack.kill("worker")
        self.stack.start("worker")

    def _kill_receiver(self) -> None:
        self.stack.kill("web")
        self.stack.start("web")

    def _kill_store(self) -> None:
        self.stack.redis.restart(kill=True)

    def _kill_child(self) -> None:
        pool: list[int] = []
        until(lambda: pool.extend(self.stack.pool()) or pool)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.dice.choice(pool), signal.SIGKILL)

    def _delete_queues(self) -> None:
        self.stack.client.delete(KEY_PREFIX + LIVE_QUEUE, KEY_PREFIX + BEAT_QUEUE)

    def _lose_answers(self) -> None:
        """Of writes now and then; half of these were lost on their way there."""
        half = self.doses.lost_answers // 2
        for landed in (True, False):
            seed = self.dice.randrange(2**31)
            fault = Fault(
                method="POST",
                lose_answer=landed,
                drop=not landed,
                count=half,
                probability=LOST_SHARE,
                seed=seed,
            )
            self._losing.add(self.stack.control.add_fault(fault))

    def _burst(self) -> None:
        status = self.dice.choice((500, 502, 503))
        dice = self.dice.randrange(2**31)
        fault = Fault(status=status, probability=0.5, seed=dice, count=10)
        self.stack.control.add_fault(fault)

    def _outage(self) -> None:
        """Nobody listens there, or a gateway answers for all. In the middle of it a worker dies."""
        refused = self.dice.random() < 0.5
        self.done["outage, refused" if refused else "outage, 503"] += 1
        with self._unreachable() if refused else self._unavailable():
            time.sleep(self.doses.outage_seconds / 2)
            self._kill_worker()
            self.done["worker killed"] += 1
            time.sleep(self.doses.outage_seconds / 2)

    @contextlib.contextmanager
    def _unreachable(self) -> Iterator[None]:
        self.stack.fusebill.stop()
        try:
            yield
        finally:
            self.stack.fusebill.start()

    @contextlib.contextmanager
    def _unavailable(self) -> Iterator[None]:
        fault = self.stack.control.add_fault(Fault(status=503))
        yield
        self.stack.control.remove_fault(fault)

    def _shift_clock(self) -> None:
        """From here on to the end."""
        process = self.dice.choice(("web", "worker", "beat"))
        seconds = self.dice.choice((-CLOCK_SECONDS, CLOCK_SECONDS))
        self.orders.set_clock(process, seconds)
        self.clock = f"{process} {seconds:+.0f} s"

    def end(self) -> None:
        """Have Fusebill work as it should from here on."""
        faults = self.stack.control.faults()
        self.done["answer lost"] = sum(one.used for one in faults if one.id in self._losing)
        self.stack.control.clear_faults()

    def rows(self) -> Iterable[tuple[str, object]]:
        """For the summary of a run."""
        yield from sorted(self.done.items())
        yield "clock off", self.clock


def _part(deliveries: Sequence[Delivery], at: int, of: int) -> Sequence[Delivery]:
    return deliveries[len(deliveries) * at // of : len(deliveries) * (at + 1) // of]
