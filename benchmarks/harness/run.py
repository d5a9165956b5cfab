"""What a benchmark is given to run with."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.harness.fusebill import FIRST_CUSTOMER
from benchmarks.harness.vendors import Link

K = TypeVar("K")
T = TypeVar("T")


@dataclass
class Run:
    """How to measure, where to keep what that takes, and whom to tell how it goes."""

    folder: Path
    rounds: int
    quick: bool
    long: bool
    say: Callable[[str], None]
    _stores: Iterator[int] = field(default_factory=itertools.count)

    def new_folder(self, name: str) -> Path:
        """A folder for a store and the processes on it."""
        return self.folder / f"{name}-{next(self._stores)}"

    def either(self, full: T, quick: T) -> T:
        """The size of a load: the real one, or the smoke's."""
        return quick if self.quick else full


def interleaved(names: Sequence[T], round_number: int) -> list[T]:
    """The order of a round: each second one the other way round, so that a machine that slows
    down or speeds up favours nobody.
    """
    return list(names if round_number % 2 == 0 else reversed(names))


class Supply:
    """Links that were never told before. One for each store."""

    def __init__(self, customers: int = 1_000_000_000) -> None:
        self._customers = customers
        self._next = 0
        self._events = 0

    def take(self, count: int) -> list[Link]:
        """So many more records, each with the next customer."""
        first = self._next
        self._next += count
        return self.again(range(first, first + count))

    def again(self, records: range) -> list[Link]:
        """The same records and customers, told by new events."""
        made = [
            Link(record, FIRST_CUSTOMER + record % self._customers, self._events + place)
            for place, record in enumerate(records, start=1)
        ]
        self._events += len(made)
        return made


def side_by_side(items: Iterable[K], do: Callable[[K], T], most: int) -> list[T]:
    """Do this for each, so many at a time; results in the order of the items. The threads end with
    the process, so that Ctrl-C need not wait for them.
    """
    waiting = list(enumerate(items))[::-1]
    done: dict[int, T] = {}
    failed: list[BaseException] = []

    def work() -> None:
        while not failed:
            try:
                place, item = waiting.pop()
            except IndexError:
                return
            try:
                done[place] = do(item)
            except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
                failed.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(most)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)
            if failed:
                raise failed[0]
    if failed:
        raise failed[0]
    return [done[place] for place in sorted(done)]
