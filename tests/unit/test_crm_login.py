"""One log-in for all threads that wait for it (B3.5)."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

import pytest

from sync_worker.crm import login
from sync_worker.crm.errors import Unavailable
from sync_worker.crm.login import SharedLogin
from sync_worker.domain import Attempt

SECONDS = 10


SILENCE = Unavailable("no answer within 30 s", Attempt(0, "POST /token"), outage=True)


def fails() -> str:
    raise SILENCE


class Clock:
    """Moves on whenever it is looked at, and can be waited for."""

    def __init__(self) -> None:
        self._ticks = itertools.count()
        self._looks = threading.Semaphore(0)

    def monotonic(self) -> float:
        self._looks.release()
        return next(self._ticks)

    def await_look(self) -> None:
        assert self._looks.acquire(timeout=SECONDS)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(login, "time", made)
    return made


class Asker(threading.Thread):
    """Another thread that wants to be logged in."""

    def __init__(self, shared: SharedLogin, log_in: Callable[[], str]) -> None:
        super().__init__(daemon=True)
        self._shared = shared
        self._log_in = log_in
        self.got: str | Exception | None = None

    def run(self) -> None:
        try:
            self.got = self._shared.once(self._log_in)
        except Unavailable as error:
            self.got = error


def test_what_waited_for_a_log_in_that_fails_fails_with_it_and_asks_nobody(clock: Clock) -> None:
    shared, asked = SharedLogin(), threading.Event()

    def ask() -> str:
        asked.set()
        return "session"

    waiting = Asker(shared, ask)

    def fail() -> str:
        clock.await_look()  # our own
        waiting.start()
        clock.await_look()  # it has asked, and has to wait
        raise SILENCE

    with pytest.raises(Unavailable):
        shared.once(fail)
    waiting.join(SECONDS)
    assert waiting.got is SILENCE
    assert not asked.is_set()


def test_who_asks_after_a_log_in_failed_tries_again(clock: Clock) -> None:
    shared = SharedLogin()
    with pytest.raises(Unavailable):
        shared.once(fails)
    assert shared.once(lambda: "session") == "session"


def test_one_thread_logs_in_at_a_time() -> None:
    shared, begun, go_on = SharedLogin(), threading.Event(), threading.Event()
    under_way: list[int] = []
    most: list[int] = []

    def slow() -> str:
        under_way.append(1)
        begun.set()
        assert go_on.wait(SECONDS)
        most.append(len(under_way))
        under_way.pop()
        return "session"

    askers = [Asker(shared, slow) for _ in range(3)]
    for asker in askers:
        asker.start()
    assert begun.wait(SECONDS)
    go_on.set()
    for asker in askers:
        asker.join(SECONDS)
    assert [asker.got for asker in askers] == ["session"] * 3
    assert most == [1, 1, 1]
