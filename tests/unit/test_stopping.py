"""What a worker that is asked to end still does (B6.7)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from sync_worker.batch import Worked
from sync_worker.converge import Ended
from sync_worker.crew import AT_ONCE
from sync_worker.drain import drain
from sync_worker.sweep import PATIENCE_SECONDS


class Boxes:
    """Answers for each mailbox what its convergences end with, and counts them. One at a time: a
    batch is worked on as far as the worker goes on.
    """

    def __init__(self, **ends: list[Ended]) -> None:
        self.ends = ends
        self.seen: list[str] = []

    def work_through(self, mailboxes: Sequence[str]) -> Worked:
        worked = Worked()
        for mailbox in mailboxes:
            self.seen.append(mailbox)
            rest = self.ends.get(mailbox, [])
            worked.note(mailbox, rest.pop(0) if rest else Ended.SETTLED)
        return worked


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


NAMES = [f"mailbox {number}" for number in range(3 * AT_ONCE)]


@pytest.mark.parametrize("batches", range(4))
def test_once_it_ends_no_further_mailbox_is_begun_and_the_rest_is_given_back(batches: int):
    boxes = Boxes()
    begun = batches * AT_ONCE
    assert drained(boxes, *NAMES, after=begun) == NAMES[begun:]
    assert boxes.seen == NAMES[:begun]


def test_a_mailbox_that_is_due_again_at_once_is_given_back_too():
    boxes = Boxes(a=[Ended.MORE, Ended.MORE])
    assert drained(boxes, "a", *NAMES, after=1) == ["a", *NAMES[AT_ONCE - 1 :]]


def test_what_waits_for_another_mailbox_is_left_to_beat():
    """It is due in half a second only; who takes it up sooner would find it early."""
    boxes = Boxes(a=[Ended.BUSY] * 3)
    assert drained(boxes, "a", after=1) == []
    assert boxes.seen == ["a"]


def test_a_worker_that_goes_on_leaves_nothing():
    boxes = Boxes(a=[Ended.MORE], b=[Ended.BUSY])
    assert drained(boxes, "a", "b", "a", after=99) == []
    assert boxes.seen == ["a", "b", "a", "b"]


def test_b7_2_what_there_is_no_budget_for_holds_up_the_worker_for_a_second_at_most():
    boxes = Boxes(a=[Ended.POOR] * 99)
    slept: list[float] = []
    left = drain(["a", "b"], boxes, seconds=60, stop=lambda: False, sleep=slept.append)
    assert left == []
    assert boxes.seen.count("b") == 1
    assert 0 < sum(slept) <= PATIENCE_SECONDS


def test_b7_2_what_there_is_budget_for_a_moment_later_is_done_at_once():
    boxes = Boxes(a=[Ended.POOR])
    drain(["a"], boxes, seconds=60, stop=lambda: False, sleep=lambda _: None)
    assert boxes.seen == ["a", "a"]


def test_after_its_time_it_gives_back_what_it_did_not_begin():
    clock = iter(range(100))
    boxes = Boxes()
    left = drain(NAMES, boxes, seconds=2, monotonic=lambda: float(next(clock)))
    assert boxes.seen == NAMES[:AT_ONCE]
    assert left == NAMES[AT_ONCE:]


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
