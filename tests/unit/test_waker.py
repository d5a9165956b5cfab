"""Wake-ups leave at once when few come, together when many do, and not while workers are behind."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import nullcontext

import pytest
import redis

from sync_worker import celery, waker
from sync_worker.waker import Waker

PATIENCE = 10


class Sender:
    """Takes names from a waker, whose sleeps end when they are told to."""

    def __init__(self, *, behind: int = 0) -> None:
        self.sent: deque[list[str]] = deque()
        self.paused: list[float] = []
        self.behind = behind
        self._gone = threading.Semaphore(0)
        self._go_on = threading.Semaphore(0)
        self.waker = Waker(self.publish, is_behind=self.is_behind, sleep=self.sleep)

    def publish(self, mailboxes):
        self.sent.append(list(mailboxes))
        self._gone.release()

    def is_behind(self):
        self.behind -= 1
        return self.behind >= 0

    def sleep(self, seconds):
        self.paused.append(seconds)
        self._go_on.acquire()

    def next(self) -> list[str]:
        assert self._gone.acquire(timeout=PATIENCE)
        return self.sent.popleft()

    def go_on(self) -> None:
        self._go_on.release()


def test_the_first_name_leaves_at_once_and_those_that_come_meanwhile_leave_together():
    sender = Sender()
    sender.waker.wake(["a"])
    assert sender.next() == ["a"]
    sender.waker.wake(["b", "c"])
    sender.waker.wake(["c", "d"])
    sender.go_on()
    assert sender.next() == ["b", "c", "d"]


def test_the_more_names_leave_the_longer_others_are_gathered():
    sender = Sender()
    for names in (1, 10, 1000):
        sender.waker.wake([f"{names}:{n}" for n in range(names)])
        sender.next()
        sender.go_on()
    sender.waker.wake(["last"])
    sender.next()
    few, some, many, *_ = sender.paused
    assert few < some < many == waker.LONGEST_PAUSE_SECONDS


def test_nothing_leaves_while_workers_are_behind():
    sender = Sender(behind=2)
    sender.waker.wake([f"{n}" for n in range(celery.BATCH + 1)])
    sender.go_on()
    assert not sender.sent
    sender.waker.wake(["one more"])
    sender.go_on()
    assert len(sender.next()) == celery.BATCH + 2


def test_a_few_names_leave_without_asking():
    sender = Sender(behind=1)
    sender.waker.wake(["a"])
    assert sender.next() == ["a"]
    assert sender.behind == 1


def test_so_many_names_leave_at_a_time():
    sender = Sender()
    names = [str(n) for n in range(waker.MOST_AT_A_TIME + 1)]
    sender.waker.wake(names)
    assert sender.next() == names[:-1]
    sender.go_on()
    assert sender.next() == names[-1:]


def test_no_more_names_are_held_than_a_slow_broker_is_worth(monkeypatch):
    monkeypatch.setattr(waker, "MOST_WAITING", 3)
    sender = Sender()
    sender.waker.wake(["a"])
    sender.next()
    sender.waker.wake(["b", "c", "d", "e"])
    sender.waker.wake(["f"])
    sender.go_on()
    assert sender.next() == ["b", "c", "d"]


@pytest.fixture
def messages(monkeypatch) -> list[list[str]]:
    sent: list[list[str]] = []
    monkeypatch.setattr(
        celery.app, "send_task", lambda _name, *, args, **_options: sent.append(args[0])
    )
    monkeypatch.setattr(celery.app, "producer_or_acquire", nullcontext)
    return sent


@pytest.mark.parametrize(
    ("names", "lengths"),
    [(1, [1]), (celery.BATCH + 1, [celery.BATCH, 1]), (1000, [250] * 4), (1002, [251] * 3 + [249])],
)
def test_many_names_make_longer_messages_not_more(messages, names, lengths):
    waker.publish([str(n) for n in range(names)])
    assert [len(message) for message in messages] == lengths
    assert [name for message in messages for name in message] == [str(n) for n in range(names)]


def test_a_broker_that_cannot_be_reached_leaves_it_to_beat(monkeypatch, caplog):
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(celery.app, "producer_or_acquire", refuse)
    waker.publish(["a", "b"])
    assert "2 wake-ups could not be sent" in caplog.text


class Queue:
    def __init__(self, length: int | None) -> None:
        self.length = length

    def llen(self, _key):
        if self.length is None:
            raise redis.ConnectionError
        return self.length


@pytest.mark.parametrize(
    ("length", "behind"),
    [(0, False), (waker.MOST_IN_QUEUE - 1, False), (waker.MOST_IN_QUEUE, True), (None, False)],
)
def test_workers_are_behind_while_many_messages_wait(length, behind):
    assert waker.is_behind(Queue(length)) is behind
