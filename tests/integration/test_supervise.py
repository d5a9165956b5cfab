"""Children come back by themselves (B6.7), end in order, and never outlive their parent."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync_worker import lifeline
from sync_worker.supervise import Child, Restarts, Supervisor
from tests.processes import gone, until

QUICK = Restarts(first_seconds=0.01, longest_seconds=0.05)

FOREVER = "import threading; print('up', flush=True); threading.Event().wait()"

POLITE = """
import os, signal, sys, threading
def end(*_):
    print("ending", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
while True:
    signal.pause()
"""

STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    signal.pause()
"""

PARENT_OF_STUBBORN = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def python(name: str, script: str, **env: str) -> Child:
    return Child(name=name, argv=[sys.executable, "-c", script], env=env)


class Lines:
    """The lines that came, from any thread."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.seen.append((name, line))

    def wait_for(self, name: str, line: str, times: int = 1) -> None:
        until(lambda: self.seen.count((name, line)) >= times)

    def number(self, name: str) -> int:
        until(lambda: [line for at, line in self.seen if at == name])
        return int(next(line for at, line in self.seen if at == name))


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_child_that_exits_comes_back(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    script = "import os; print('one life', os.getpid()); raise SystemExit(1)"
    with Supervisor([python("beat", script)], on_line=lines, restarts=QUICK) as supervisor:
        until(lambda: supervisor.starts("beat") >= 3)
    assert len({line for _, line in lines.seen}) >= 2
    assert {record.__dict__["how"] for record in caplog.records} == {"exit code 1"}


def test_a_killed_child_comes_back_and_what_it_left_running_is_killed_first(lines: Lines) -> None:
    with Supervisor(
        [python("worker", PARENT_OF_STUBBORN)], on_line=lines, restarts=QUICK
    ) as supervisor:
        left = lines.number("worker")
        pid = supervisor.pid("worker")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: supervisor.starts("worker") == 2)
        until(lambda: gone(left))


def test_a_child_that_cannot_be_started_is_tried_again(
    tmp_path: Path, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    program = tmp_path / "late"
    child = Child(name="late", argv=[str(program)])
    with Supervisor([child], on_line=lines, restarts=QUICK):
        until(lambda: caplog.records)
        assert "could not be started" in caplog.records[0].__dict__["how"]
        draft = tmp_path / "draft"
        draft.write_text("#!/bin/sh\necho here\nexec sleep 1000\n", encoding="utf-8")
        draft.chmod(0o755)
        draft.rename(program)
        lines.wait_for("late", "here")


def test_waits_double_up_to_the_longest() -> None:
    restarts = Restarts()
    assert [restarts.wait(early_ends=count) for count in (1, 2, 3, 4, 5, 6, 7, 10_000)] == [
        *(0.5, 1, 2, 4, 8, 10, 10, 10)
    ]


def waits(caplog: pytest.LogCaptureFixture) -> list[float]:
    return [record.__dict__["in_seconds"] for record in caplog.records]


@pytest.mark.parametrize(
    ("healthy_seconds", "expected"),
    [(0.0, [0.001, 0.001, 0.001]), (3600.0, [0.001, 0.002, 0.004])],
    ids=["long lives", "short lives"],
)
def test_a_long_life_makes_the_next_wait_a_first_one(
    caplog: pytest.LogCaptureFixture, healthy_seconds: float, expected: list[float]
) -> None:
    caplog.set_level(logging.WARNING)
    restarts = Restarts(first_seconds=0.001, healthy_seconds=healthy_seconds)
    with Supervisor([Child(name="x", argv=["true"])], restarts=restarts):
        until(lambda: len(waits(caplog)) >= 3)
    assert waits(caplog)[:3] == expected


def test_both_streams_are_forwarded_with_the_childs_name_and_environment(lines: Lines) -> None:
    script = (
        "import os, sys, threading\n"
        "print(os.environ['GREETING'])\n"
        "print('oops', file=sys.stderr)\n"
        "sys.stdout.buffer.write(b'\\xff bytes\\r\\n')\n"
        "threading.Event().wait()\n"
    )
    children = [python("one", script, GREETING="hello"), python("two", script, GREETING="hi")]
    with Supervisor(children, on_line=lines):
        for expected in [("one", "hello"), ("two", "hi"), ("one", "oops"), ("one", "\ufffd bytes")]:
            lines.wait_for(*expected)


def test_a_callback_that_fails_does_not_block_the_child(
    lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    def fails_once(name: str, line: str) -> None:
        if not lines.seen:
            lines(name, "failed")
            raise OSError("disk full")
        lines(name, line)

    script = "print('x\\n' * 100_000, flush=True); " + FOREVER
    with Supervisor([python("loud", script)], on_line=fails_once):
        lines.wait_for("loud", "up")
    assert "a line was not forwarded" in caplog.text


def test_all_are_asked_to_end_the_last_one_first_and_none_comes_back(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    send_signal = subprocess.Popen.send_signal

    def recording(process: subprocess.Popen[bytes], number: int) -> None:
        sent.append((process.pid, number))
        send_signal(process, number)

    monkeypatch.setattr(subprocess.Popen, "send_signal", recording)
    names = ["redis", "web", "worker"]
    with Supervisor([python(name, POLITE) for name in names], on_line=lines) as supervisor:
        for name in names:
            lines.wait_for(name, "up")
        pids = [supervisor.pid(name) for name in names]
    assert sent == [(pid, signal.SIGTERM) for pid in reversed(pids)]
    assert all((name, "ending") in lines.seen for name in names)
    assert [supervisor.starts(name) for name in names] == [1, 1, 1]
    assert [supervisor.pid(name) for name in names] == [None, None, None]


def test_what_is_to_stop_beside_the_children_is_told_before_they_are(lines: Lines) -> None:
    def note() -> None:
        lines("me", "stopping")

    with Supervisor([python("polite", POLITE)], on_line=lines, on_stop=note):
        lines.wait_for("polite", "up")
        assert ("me", "stopping") not in lines.seen
    assert lines.seen[-2:] == [("me", "stopping"), ("polite", "ending")]


def test_after_the_grace_the_whole_group_is_killed(
    lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with Supervisor(
        [python("deaf", STUBBORN), python("family", PARENT_OF_STUBBORN)],
        on_line=lines,
        grace_seconds=0.2,
    ) as supervisor:
        lines.wait_for("deaf", "up")
        deaf, grandchild = supervisor.pid("deaf"), lines.number("family")
    assert deaf is not None
    until(lambda: gone(deaf))
    until(lambda: gone(grandchild))
    assert "child did not end, killing it" in caplog.text


def test_stopping_does_not_wait_for_a_restart_that_is_due() -> None:
    restarts = Restarts(first_seconds=1000, longest_seconds=1000)
    with Supervisor([Child(name="short", argv=["true"])], restarts=restarts) as supervisor:
        until(lambda: supervisor.starts("short") == 1 and supervisor.pid("short") is None)
        began = time.monotonic()
    assert time.monotonic() - began < 10


def test_request_stop_ends_run_from_another_thread(lines: Lines) -> None:
    supervisor = Supervisor([python("polite", POLITE)], on_line=lines)
    threading.Thread(
        target=lambda: (lines.wait_for("polite", "up"), supervisor.request_stop())
    ).start()
    assert supervisor.run() == 0
    assert ("polite", "ending") in lines.seen


def test_run_outside_the_main_thread_leaves_signals_alone(lines: Lines) -> None:
    supervisor = Supervisor([python("polite", POLITE)], on_line=lines)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(supervisor.run()))
    thread.start()
    lines.wait_for("polite", "up")
    supervisor.request_stop()
    thread.join()
    assert codes == [0]


def test_an_error_in_the_block_ends_the_children_and_is_not_swallowed(lines: Lines) -> None:
    def fail() -> None:
        with Supervisor([python("polite", POLITE)], on_line=lines):
            lines.wait_for("polite", "up")
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fail()
    assert ("polite", "ending") in lines.seen


# The following run a supervisor in a process of its own, as a terminal or a platform would.

SUPERVISING = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
from sync_worker.supervise import Child, Supervisor
children = [Child(name=str(n), argv=[sys.executable, "-c", script])
            for n, script in enumerate(sys.argv[1:])]
supervisor = Supervisor(children, on_line=lambda name, line: print(name, line, flush=True))
sys.exit(supervisor.run())
"""


def supervising(*scripts: str) -> subprocess.Popen[str]:
    """A supervisor in a process of its own, with the signal handlers of a foreground one."""
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISING, *scripts],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def line(parent: subprocess.Popen[str]) -> str:
    assert parent.stdout is not None
    return parent.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_children_in_order_and_the_exit_code_is_0(number: int) -> None:
    with supervising(POLITE) as parent:
        assert line(parent) == "0 up"
        parent.send_signal(number)
        assert line(parent) == "0 ending"
        assert parent.wait() == 0


def test_ctrl_c_at_a_terminal_reaches_only_the_parent() -> None:
    with supervising(POLITE.replace("SIGTERM", "SIGINT", 1)) as parent:
        assert line(parent) == "0 up"
        os.killpg(parent.pid, signal.SIGINT)  # what a terminal does
        assert line(parent) == ""  # the child saw no SIGINT and was ended by SIGTERM
        assert parent.wait() == 0


def test_a_second_ctrl_c_kills_at_once() -> None:
    with supervising(STUBBORN, POLITE) as parent:
        assert {line(parent), line(parent)} == {"0 up", "1 up"}
        began = time.monotonic()
        parent.send_signal(signal.SIGINT)
        assert line(parent) == "1 ending"  # so the first signal has been taken
        parent.send_signal(signal.SIGINT)
        assert parent.wait() == 0
        assert time.monotonic() - began < 10


def test_killing_the_supervisor_leaves_no_orphan() -> None:
    with supervising(PARENT_OF_STUBBORN) as parent:
        grandchild = int(line(parent).removeprefix("0 "))
        assert not gone(grandchild)
        parent.kill()
    until(lambda: gone(grandchild))


def test_killing_a_supervisor_of_supervisors_leaves_no_orphan() -> None:
    inner = f"import sys; sys.argv[1:] = [{PARENT_OF_STUBBORN!r}]\n{SUPERVISING}"
    with supervising(inner) as parent:
        grandchild = int(line(parent).removeprefix("0 0 "))
        assert not gone(grandchild)
        parent.kill()
    until(lambda: gone(grandchild))


def test_a_guard_that_was_killed_is_replaced_and_knows_the_children() -> None:
    script = f"""
import os, signal, sys, threading
from sync_worker import lifeline
first = lifeline.spawn([sys.executable, "-c", {STUBBORN!r}], stdout=-1)
first.stdout.readline()
os.kill(lifeline._guard._process.pid, signal.SIGKILL)
lifeline._guard._process.wait()
second = lifeline.spawn([sys.executable, "-c", {STUBBORN!r}], stdout=-1)
second.stdout.readline()
print(first.pid, second.pid, flush=True)
threading.Event().wait()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        pids = [int(pid) for pid in line(parent).split()]
        parent.kill()
    assert len(pids) == 2
    until(lambda: all(gone(pid) for pid in pids))


def test_a_forked_copy_of_the_parent_keeps_no_child_alive() -> None:
    script = f"""
import os, sys, threading
from sync_worker import lifeline
child = lifeline.spawn([sys.executable, "-c", {STUBBORN!r}], stdout=-1)
child.stdout.readline()
copy = os.fork()
if copy == 0:
    threading.Event().wait()
print(child.pid, copy, flush=True)
threading.Event().wait()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        child, copy = (int(pid) for pid in line(parent).split())
        parent.kill()
        until(lambda: gone(child))
        assert not gone(copy)
        os.kill(copy, signal.SIGKILL)


def test_children_that_were_never_stopped_end_when_the_process_exits() -> None:
    script = f"""
import sys
from sync_worker import lifeline
child = lifeline.spawn([sys.executable, "-c", {STUBBORN!r}], stdout=-1)
child.stdout.readline()
print(child.pid, flush=True)
"""
    answer = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script], capture_output=True, text=True, check=True
    )
    until(lambda: gone(int(answer.stdout)))


def test_a_process_that_cannot_be_held_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def refuse(group: int) -> None:
        held.append(group)
        raise OSError("no more processes")

    monkeypatch.setattr(lifeline._guard, "hold", refuse)
    with pytest.raises(OSError, match="no more processes"):
        lifeline.spawn([sys.executable, "-c", FOREVER])
    assert gone(held[0])
