"""Threads that work through jobs together (B7.4), and what becomes of them when one fails."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from sync_worker.crew import Crew

SECONDS = 10
"""How long what must happen is waited for; nothing here takes long unless it fails."""


class Broken(Exception):
    """A job failed."""


class Signal(BaseException):
    """What a signal's handler raises in the main thread."""


def threads_of(crew: Crew) -> set[threading.Thread]:
    return {
        one
        for one in threading.enumerate()
        if getattr(getattr(one, "_target", None), "__self__", None) is crew
    }


class Jobs:
    """Jobs by name: they are noted, and may wait at a gate or fail."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.fails: dict[str, Exception] = {}
        self.gates: dict[str, threading.Event] = {}
        self.changed = threading.Condition()

    def __call__(self, name: str) -> None:
        with self.changed:
            self.begun.append(name)
            self.threads.add(threading.current_thread())
            self.changed.notify_all()
        if name in self.gates:
            assert self.gates[name].wait(SECONDS)
        with self.changed:
            self.ended.append(name)
            self.changed.notify_all()
        if name in self.fails:
            raise self.fails[name]

    def gate(self, *names: str) -> threading.Event:
        gate = threading.Event()
        self.gates |= dict.fromkeys(names, gate)
        return gate

    def await_begun(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, SECONDS)

    def await_ended(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.ended) >= count, SECONDS)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def crew(jobs: Jobs) -> Iterator[Crew[str]]:
    made = Crew(3, jobs)
    yield made
    for gate in jobs.gates.values():
        gate.set()
    made.close()


def test_it_returns_when_every_job_has_ended(crew, jobs):
    names = [f"job {n}" for n in range(10)]
    crew.run(names)
    assert sorted(jobs.ended) == sorted(names)


def test_threads_start_when_they_are_needed_and_no_more_than_that(crew, jobs):
    """A process may fork before its first batch; a thread does not survive that."""
    assert threads_of(crew) == set()
    crew.run([])
    assert threads_of(crew) == set()
    crew.run(["a"])
    assert len(threads_of(crew)) == 1
    crew.run(["a", "b"])
    assert len(threads_of(crew)) == 2
    crew.run("abcdefgh")
    assert len(threads_of(crew)) == 3
    assert jobs.threads <= threads_of(crew)


def test_the_threads_keep_no_process_alive(crew):
    crew.run("abc")
    assert all(one.daemon for one in threads_of(crew))
    assert threading.main_thread() not in threads_of(crew)


def test_jobs_are_worked_on_at_the_same_time_as_many_as_there_are_threads(crew, jobs):
    gate = jobs.gate(*"abcd")
    run = threading.Thread(target=crew.run, args=["abcd"])
    run.start()
    jobs.await_begun(3)
    assert len(jobs.begun) == 3
    gate.set()
    run.join(SECONDS)
    assert sorted(jobs.ended) == list("abcd")


def test_a_job_that_fails_does_not_stop_the_others_and_is_told_once_all_have_ended(crew, jobs):
    jobs.fails["b"] = Broken("b")
    with pytest.raises(Broken, match="b"):
        crew.run("abcdef")
    assert sorted(jobs.ended) == list("abcdef")


def test_of_several_that_fail_the_first_is_told(jobs):
    jobs.fails = {name: Broken(name) for name in "bcd"}
    alone = Crew(1, jobs)  # one after the other: which is first is certain
    with pytest.raises(Broken, match="b"):
        alone.run("abcde")
    assert jobs.ended == list("abcde")
    alone.close()


def test_also_what_ends_a_thread_elsewhere_only_fails_its_job(crew, jobs):
    def work(name: str) -> None:
        raise SystemExit(name)

    crew = Crew(1, work)
    with pytest.raises(SystemExit):
        crew.run("a")
    with pytest.raises(SystemExit):
        crew.run("b")  # its thread is still there
    crew.close()


def test_a_run_that_failed_leaves_nothing_to_the_next(crew, jobs):
    jobs.fails["a"] = Broken("a")
    with pytest.raises(Broken):
        crew.run("ab")
    crew.run("cd")
    assert sorted(jobs.ended) == list("abcd")
    assert jobs.threads <= threads_of(crew)


def interrupted(jobs: Jobs) -> Iterator[str]:
    """More jobs, of which the main thread does not come to the end."""
    yield from "ab"
    raise Signal


@pytest.fixture
def signalled() -> Iterator[None]:
    """SIGUSR1 raises in the main thread."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        raise Signal

    before = signal.signal(signal.SIGUSR1, on_signal)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_b6_7_what_a_signal_raises_leaves_at_once(crew, jobs, signalled):
    gate = jobs.gate(*"abcdef")

    def interrupt() -> None:
        jobs.await_begun(3)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(Signal):
        crew.run("abcdef")
    sender.join(SECONDS)
    assert jobs.ended == []

    given_up = threads_of(crew)
    gate.set()
    for one in given_up:
        one.join(SECONDS)
        assert not one.is_alive()
    assert len(jobs.begun) == 3, "what was not begun must not be begun after that"

    crew.run(["later"])
    assert "later" in jobs.ended
    assert not threads_of(crew) & given_up


def test_a_signal_before_all_jobs_are_handed_out_leaves_none_behind(crew, jobs):
    with pytest.raises(Signal):
        crew.run(interrupted(jobs))
    assert jobs.begun == []
    crew.run("cd")
    assert sorted(jobs.ended) == list("cd")


def test_a_thread_that_cannot_start_is_none_that_is_waited_for(crew, jobs, monkeypatch):
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            crew.run("ab")
    crew.run("cd")
    assert sorted(jobs.ended) == list("cd")


def test_once_it_is_closed_its_threads_end(crew, jobs):
    crew.run("abc")
    threads = threads_of(crew)
    crew.close()
    for one in threads:
        one.join(SECONDS)
        assert not one.is_alive()
    crew.run("d")  # and it may be used again
    assert "d" in jobs.ended
