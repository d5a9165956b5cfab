"""The seam by which the fault suite reaches into the product's own processes.

Python imports a module of this name at the start of every interpreter that finds it on PYTHONPATH.
`tests.stack.Stack` puts it there; the product knows nothing of it. It patches modules as they are
imported, and obeys the JSON file that FAULT_ORDERS names (`tests.faults.orders` writes it):

- `constants`   module -> name -> value: the product's own waits, shortened together
- `sabotage`    the promises to break, by name
- `clocks`      process -> seconds by which its clocks are wrong
- `plans`       mailbox -> what happens at which boundary of its convergence
- `trace`       a file that is told of every boundary, or null

A boundary is the moment before or after a script or a remote call while a mailbox converges; they
are counted from 1 in each convergence. The first two take effect at start, the others at once.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOOK_SECONDS = 0.05
"""How often a process looks whether its orders have changed."""

SIGKILL = 9

_time, _time_ns, _monotonic, _sleep = time.time, time.time_ns, time.monotonic, time.sleep


class Orders:
    """What this process is to do, as the file says by now."""

    def __init__(self, path: Path, process: str) -> None:
        self.folder = path.parent
        self.process = process
        self._path = path
        self._looked = -LOOK_SECONDS
        self._written = 0
        self._read: dict[str, Any] = {}

    def now(self) -> dict[str, Any]:
        """The orders; read anew only if the file has changed."""
        moment = _monotonic()
        if moment - self._looked >= LOOK_SECONDS:
            self._looked = moment
            written = self._path.stat().st_mtime_ns
            if written != self._written:
                self._written, self._read = written, json.loads(self._path.read_bytes())
        return self._read

    def offset(self) -> float:
        """By how many seconds the clocks of this process are wrong."""
        return float(self.now()["clocks"].get(self.process, 0))

    def mark(self, name: str) -> bool:
        """Leave a mark that something happened; False if it was there already."""
        try:
            os.close(os.open(self.folder / name, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


class Steps(threading.local):
    """Where in which convergence this thread is."""

    mailbox: str | None = None
    at = 0

    def begin(self, mailbox: str) -> None:
        self.mailbox, self.at = mailbox, 0
        note("begins", "")

    def end(self, ended: str) -> None:
        note("ends", ended)
        self.mailbox = None

    def boundary(self, when: str, what: str) -> None:
        """A step is about to be taken, or was."""
        if self.mailbox is None:
            return
        self.at += 1
        note(when, what)
        for plan in orders.now()["plans"].get(self.mailbox, ()):
            if fits(plan, self.at, when, what) and (plan["every"] or orders.mark(plan["name"])):
                act(plan)


def fits(plan: dict[str, Any], at: int, when: str, what: str) -> bool:
    """Whether a plan means this boundary: by its number, or by what is done there."""
    if plan["boundary"] is not None:
        return bool(plan["boundary"] == at)
    return bool(plan["when"] == when and what.startswith(plan["what"]))


def act(plan: dict[str, Any]) -> None:
    """Die here, or stay here until the file comes that lets go."""
    if plan["act"] == "kill":
        note("dies", plan["name"])
        os.kill(os.getpid(), SIGKILL)
    note("stalls", plan["name"])
    free = orders.folder / f"{plan['name']}.free"
    while not free.exists():
        _sleep(LOOK_SECONDS)
    note("goes on", plan["name"])


def note(when: str, what: str) -> None:
    """Tell the trace; one write, so that lines of several processes do not mix."""
    path = orders.now()["trace"]
    if path is None:
        return
    line = [_monotonic(), os.getpid(), threading.get_ident(), steps.mailbox, steps.at, when, what]
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(out, json.dumps(line).encode() + b"\n")
    os.close(out)


# --- clocks


def shift_clocks() -> None:
    """Have `time` tell the time of a clock that is wrong; the monotonic one goes on as it did."""
    time.time = lambda: _time() + orders.offset()
    time.time_ns = lambda: _time_ns() + round(orders.offset() * 1e9)


def shift_datetime(module: Any) -> None:
    """The same for a module that asks `datetime`, which asks the system by itself."""
    plain = module.datetime
    import datetime as dt  # noqa: PLC0415 - needed by few processes

    class Likeness(type):
        def __instancecheck__(cls, one: object) -> bool:
            return isinstance(one, plain)

    class Shifted(plain, metaclass=Likeness):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return plain.now(tz) + dt.timedelta(seconds=orders.offset())

    module.datetime = Shifted


# --- boundaries


def watch_converge(module: Any) -> None:
    whole = module.Converger.work_on

    def work_on(self: Any, claim: Any, *others: Any) -> Any:
        steps.begin(claim.mailbox)
        ended = "raised"
        try:
            answer = whole(self, claim, *others)
            ended = answer.value
            return answer
        finally:
            steps.end(ended)

    module.Converger.work_on = work_on


def watch_scripts(module: Any) -> None:
    whole = module.Direct.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        what = f"script {getattr(self, 'called', '')}"
        steps.boundary("before", what)
        answer = whole(self, *args, **kwargs)
        steps.boundary("after", what)
        return answer

    module.Direct.__call__ = call


def name_scripts(module: Any) -> None:
    whole = module.load

    def load(client: Any, name: str) -> Any:
        script = whole(client, name)
        script.called = name
        return script

    module.load = load


def watch_calls(module: Any) -> None:
    whole = module.Connections.exchange

    def exchange(self: Any, method: str, url: str, **more: Any) -> Any:
        what = f"call {method} {url.partition('//')[2].partition('/')[2]} {named(more)}".rstrip()
        steps.boundary("before", what)
        answer = whole(self, method, url, **more)
        steps.boundary("after", what)
        return answer

    module.Connections.exchange = exchange


def named(more: dict[str, Any]) -> str:
    """The customer that the body of a call names."""
    body = more.get("body")
    return str(json.loads(body).get("fusebillId", "")) if body else ""


# --- sabotage: what the suite must notice


def break_script(name: str | None, before: str, after: str) -> Callable[[Any], None]:
    """Have a script loaded with other words; None: what all of them share."""

    def patch(module: Any) -> None:
        whole = module.source

        def source(called: str) -> str:
            text = str(whole(called))
            return replaced(text, before, after) if name in (None, called) else text

        module.source = source

    return patch


def replaced(text: str, before: str, after: str) -> str:
    """What is to be broken must be there: else the sabotage does nothing, and says so."""
    if before not in text:
        raise RuntimeError(f"nothing to sabotage: {before!r} is not in the script any more")
    orders.mark("sabotaged")
    return text.replace(before, after)


def break_sweep(module: Any) -> None:
    module.wake_due = lambda *_, **__: orders.mark("sabotaged") and 0


def break_lost_answer(module: Any) -> None:
    """A write whose answer was lost counts as if it had been answered with success."""
    import msgspec  # noqa: PLC0415 - the product has it

    whole = module.Writer._issue

    def issue(self: Any, write: Any) -> Any:
        try:
            return whole(self, write)
        except module.errors.Transient as error:
            if not error.answer_lost:
                raise
            orders.mark("sabotaged")
            before = self.gatherer.customers[write.customer_id]
            return msgspec.structs.replace(before, slots={**before.slots, **write.after})

    module.Writer._issue = issue


def break_renewal(module: Any) -> None:
    """What is held is held until its first lease ends, however often it is asked for again."""
    break_script("hold", "'PX', lease_ms) end", "'PX', lease_ms, 'NX') end")(module)
    break_script("hold", "redis.call('HSET', 'sw:work:' .. mailbox, 'until', ends)", "")(module)
    break_script("hold", "set_due(mailbox, ends, ends)", "")(module)


break_crash_counting = break_script(
    None, "redis.call('HSET', key, 'crashes',", "redis.call('HSET', key, 'not_counted',"
)

break_token = break_script("settle", "if lease_lost(box[1], token) then return {-1, 0} end", "")

SABOTAGE: dict[str, tuple[str, Callable[[Any], None]]] = {
    "crash_counting": ("sync_worker.inbox.scripts", break_crash_counting),
    "sweep": ("sync_worker.drain", break_sweep),
    "lease_renewal": ("sync_worker.inbox.scripts", break_renewal),
    "lost_answer": ("sync_worker.carry_out", break_lost_answer),
    "token": ("sync_worker.inbox.scripts", break_token),
}

PATCHES: dict[str, list[Callable[[Any], None]]] = {
    "sync_worker.converge": [watch_converge],
    "sync_worker.inbox.scripts": [name_scripts],
    "sync_worker.http": [watch_calls],
    "sync_worker.inbox.direct": [watch_scripts],
    "celery.app.base": [shift_datetime],
    "celery.worker.request": [shift_datetime],
    "celery.utils.time": [shift_datetime],
}


class Patcher:
    """Finds the modules that are to be patched, and does it when they were run."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in PATCHES:
            return None
        others = (one for one in sys.meta_path if one is not self)
        spec = next((found for one in others if (found := one.find_spec(name, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            for patch in PATCHES[name]:
                patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def set_constants(values: dict[str, Any]) -> Callable[[Any], None]:
    """Give a module's constants other values; they must be there."""

    def patch(module: Any) -> None:
        for name, value in values.items():
            if not hasattr(module, name):
                raise RuntimeError(f"{module.__name__} has no {name} any more")
            setattr(module, name, value)

    return patch


def begin() -> None:
    """Take the orders of the start, and have modules patched as they come."""
    start = orders.now()
    for name in start["sabotage"]:
        module, patch = SABOTAGE[name]
        PATCHES.setdefault(module, []).append(patch)
    for module, values in start["constants"].items():
        PATCHES.setdefault(module, []).insert(0, set_constants(values))
    shift_clocks()
    sys.meta_path.insert(0, Patcher())


if "FAULT_ORDERS" in os.environ:
    orders = Orders(Path(os.environ["FAULT_ORDERS"]), os.environ.get("FAULT_PROCESS", ""))
    steps = Steps()
    begin()
