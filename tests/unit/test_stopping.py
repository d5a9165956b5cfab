"""What a worker that is asked to end still does (B6.7)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sync_worker.converge import Ended
from sync_worker.drain import drain


class Boxes:
    """Answers for each mailbox what its convergences end with, and counts them."""

    def __init__(self, **ends: list[Ended]) -> None:
        self.ends = ends
        self.seen: list[str] = []

    def converge(self, mailbox: str) -> Ended:
        self.seen.append(mailbox)
        rest = self.ends.get(mailbox, [])
        return rest.pop(0) if rest else Ended.SETTLED


def drained(boxes: Boxes, *names: str, after: int) -> list[str]:
    """Drain these; the worker is asked to end after so many convergences."""
    return drain(
        names,
        boxes,
        seconds=60,
        stop=lambda: len(boxes.seen) >= after,
        monotonic=lambda: 0.0,
        sleep=lambda _: None,
    )


@pytest.mark.parametrize("after", range(5))
def test_once_it_ends_no_further_mailbox_is_begun_and_the_rest_is_given_back(after: int):
    boxes = Boxes()
    assert drained(boxes, "a", "b", "c", "d", after=after) == ["a", "b", "c", "d"][after:]
    assert boxes.seen == ["a", "b", "c", "d"][:after]


def test_a_mailbox_that_is_due_again_at_once_is_given_back_too():
    boxes = Boxes(a=[Ended.MORE, Ended.MORE])
    assert drained(boxes, "a", "b", after=1) == ["a", "b"]


def test_what_waits_for_another_mailbox_is_left_to_beat():
    """It is due in half a second only; who takes it up sooner would find it early."""
    boxes = Boxes(a=[Ended.BUSY] * 3)
    assert drained(boxes, "a", after=1) == []
    assert boxes.seen == ["a"]


def test_a_worker_that_goes_on_leaves_nothing():
    boxes = Boxes(a=[Ended.MORE], b=[Ended.BUSY])
    assert drained(boxes, "a", "b", "a", after=99) == []
    assert boxes.seen == ["a", "a", "b", "b"]


def test_after_its_time_it_gives_back_what_it_did_not_begin():
    clock = iter(range(100))
    boxes = Boxes()
    left = drain(["a", "b", "c"], boxes, seconds=2, monotonic=lambda: float(next(clock)))
    assert boxes.seen == ["a"]
    assert left == ["b", "c"]


CHILD = """
import os, signal, sys, time
from sync_worker import stopping
stopping.INTERRUPT_SECONDS = 0.05
stopping.listen()
assert not stopping.requested()
os.kill(os.getpid(), signal.SIGUSR2)
assert stopping.requested()
time.sleep(0.2)  # the alarm comes while nothing may be interrupted, as in an idle child
print("idle: unharmed", flush=True)
os.kill(os.getpid(), signal.SIGUSR2)
try:
    with stopping.interruptible():
        time.sleep(60)
except stopping.Interrupted as error:
    print(error, flush=True)
"""


def test_a_child_is_interrupted_where_it_may_be_and_nowhere_else():
    """In a process of its own: signals and their handlers are one a process."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "idle: unharmed",
        "the worker ends: handed back to the next one",
    ]


STARTING = """
import os, signal, subprocess, sys
from sync_worker import stopping
stopping.ignore()
child = subprocess.Popen([sys.executable, "-c", "input(); print('lives')"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
stopping.pass_on([child.pid, 2**22 + 1])  # the second is gone already
print(child.communicate("\\n")[0], stopping.requested())
"""


def test_a_child_that_does_not_listen_yet_survives_the_signal():
    done = subprocess.run(
        [sys.executable, "-c", STARTING], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.split() == ["lives", "True"], done.stderr
