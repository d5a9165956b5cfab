"""Accounts for every change that was answered 2xx, and compares Fusebill with the model (B6).

What it looks at is outside of the product, or is what a person would look at: what the sender was
answered, the audit, mailboxes and dead letters, the simulated Fusebill's customers and its log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from simulators.fusebill.calls import Call
from sync_worker import events
from sync_worker.inbox import codec
from tests.faults.orders import Convergence, Step, convergences
from tests.faults.sender import Sender
from tests.faults.world import News, Slots, expected, held
from tests.stack import Stack

READ_SECONDS = 3.0
"""How long a write whose worker died is taken to be under way still: its own time-out."""


@dataclass
class Writes:
    """What the log of the simulated Fusebill tells of writes."""

    all: int = 0
    changed: int = 0
    """Those that changed a slot."""
    unanswered: int = 0
    """Those whose answer was lost, or was an error on the way."""
    refused: int = 0
    again: int = 0
    """Those that repeat one which had no effect: its answer was lost, and a read showed it."""
    needless: list[str] = field(default_factory=list)
    """Those that found everything as they wanted it: done twice."""


@dataclass
class Account:
    """What became of everything."""

    offered: int
    answered: int
    settled: int
    waiting: int
    dead: Counter[str]
    lost: list[News]
    settled_twice: list[tuple[str, int]]
    wrong: list[str]
    writes: Writes
    overlaps: list[str]
    longest_wait: float
    """From receipt to settlement, of the change that waited longest."""

    @property
    def faults(self) -> list[str]:
        """Each broken promise in a line."""
        found = [f"not answered 2xx: {self.offered - self.answered}"] * (
            self.answered < self.offered
        )
        found += [f"lost: {one.member.mailbox} {one.occurred_at}" for one in self.lost]
        found += [f"settled twice: {mailbox} {at}" for mailbox, at in self.settled_twice]
        found += [f"wrong: {one}" for one in self.wrong]
        found += [f"dead letter: {reason} x{n}" for reason, n in sorted(self.dead.items())]
        found += [f"needless write: {one}" for one in self.writes.needless]
        found += [f"two writers: {one}" for one in self.overlaps]
        found += [f"still waiting: {self.waiting}"] * bool(self.waiting)
        return found

    def rows(self) -> list[tuple[str, object]]:
        """For the summary of a run."""
        writes = self.writes
        return [
            ("changes offered", self.offered),
            ("answered 2xx", self.answered),
            ("settled", self.settled),
            ("waiting", self.waiting),
            ("dead letters", sum(self.dead.values())),
            ("lost", len(self.lost)),
            ("settled twice", len(self.settled_twice)),
            ("wrong slots", len(self.wrong)),
            ("writes", f"{writes.all}, {writes.changed} changed a slot"),
            ("writes unanswered", f"{writes.unanswered}, refused {writes.refused}"),
            ("writes repeated", f"{writes.again} that had had no effect"),
            ("needless writes", len(writes.needless)),
            ("two writers", len(self.overlaps)),
            ("longest wait", f"{self.longest_wait:.1f} s from receipt to settlement"),
        ]


def account(stack: Stack, news: Sequence[News], sender: Sender, steps: Sequence[Step]) -> Account:
    """Account for it all, once nothing is under way."""
    settled = list(events.settled(stack.client))
    in_audit = Counter((one.record, one.occurred_at) for _, one in settled)
    letters = stack.letters()
    buried = {_key(pending) for letter in letters for pending in letter.changes}
    waiting = set(_waiting(stack))
    taken = [one for one in news if sender.sent.answered[one.number]]
    known = {key for keys in (in_audit, buried, waiting) for key in keys}
    return Account(
        offered=len(news),
        answered=len(taken),
        settled=sum(1 for one in taken if one.key in in_audit),
        waiting=len(waiting),
        dead=Counter(letter.reason for letter in letters),
        lost=[one for one in taken if one.key not in known],
        settled_twice=[key for key, n in in_audit.items() if n > 1],
        wrong=differences(expected(news), held(stack.control.customers())),
        writes=judge(stack.control.calls(method="POST")),
        overlaps=overlaps(convergences(steps)),
        longest_wait=max(
            ((settled_at(place) - one.received_at) / 1000 for place, one in settled), default=0.0
        ),
    )


def settled_at(place: str) -> int:
    """When a change was settled, in ms by the store's clock: its place in the audit tells."""
    return int(place.partition("-")[0])


def _key(pending: codec.Pending) -> tuple[str, int]:
    return pending.change.record.mailbox, pending.occurred_at


def _waiting(stack: Stack) -> Iterable[tuple[str, int]]:
    """The changes that lie in mailboxes."""
    for box in stack.client.scan_iter("sw:box:*", count=1000):
        for seq, stored in stack.client.hgetall(box).items():
            yield _key(codec.decode_pending(seq, stored))


def differences(model: Slots, found: Slots) -> list[str]:
    """Where Fusebill is not as the model has it."""
    return [
        f"customer {customer} {slot} holds {found.get((customer, slot))}, "
        f"not {model.get((customer, slot))}"
        for customer, slot in sorted(model.keys() | found.keys())
        if model.get((customer, slot)) != found.get((customer, slot))
    ]


def judge(posts: Iterable[Call]) -> Writes:
    """Tell the writes apart. A write that changes nothing was done before: its worker did not look,
    or did not look long enough (B5.1, B5.3).
    """
    writes = Writes()
    before: dict[tuple[int | None, str], tuple[str, bool]] = {}
    for call in posts:
        writes.all += 1
        writes.changed += call.applied
        if call.status is not None and 400 <= call.status < 500:
            writes.refused += 1
            continue
        spoiled = call.fault is not None
        writes.unanswered += spoiled
        reached = not spoiled or call.applied or (call.fault or "").startswith("lose_answer")
        slot = (call.customer_id, _system(call.path))
        effect = f"{call.path} {call.body}"
        if reached and not call.applied:
            writes.needless.append(f"#{call.seq} {effect}")
        writes.again += before.get(slot) == (effect, False)
        before[slot] = (effect, reached)
    return writes


def _system(path: str) -> str:
    return path.split("/")[2].lower()


def overlaps(found: Iterable[Convergence]) -> list[str]:
    """Writes to one customer by two workers at one time: a lease did not hold (B5.3)."""
    by_customer: dict[str, list[tuple[float, float, Convergence]]] = {}
    for one in found:
        for customer, begun, ended in _writes(one):
            by_customer.setdefault(customer, []).append((begun, ended, one))
    met = []
    for customer, spans in by_customer.items():
        spans.sort(key=lambda span: span[0])
        for (_, ended, one), (begun, _, other) in pairwise(spans):
            if begun < ended:
                met.append(f"customer {customer}: {one.mailbox} and {other.mailbox} at {begun:.3f}")
    return met


def _writes(one: Convergence) -> Iterable[tuple[str, float, float]]:
    """Customer, begin and end of each write; one that its worker did not live to see has no end."""
    steps = one.steps
    for at, step in enumerate(steps):
        if step.when != "before" or not step.what.startswith("call POST"):
            continue
        after = next(
            (s for s in steps[at + 1 :] if s.when == "after" and s.what == step.what), None
        )
        died = any(s.when == "dies" for s in steps[at + 1 : at + 2])  # before it was sent
        end = step.at if died else (after.at if after else step.at + READ_SECONDS)
        yield step.what.rpartition("/")[2].rpartition(" ")[2], step.at, end


def table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """A summary for people."""
    lines = [f"  {name:<20} {value}" for name, value in rows]
    return "\n".join([f"\n=== {title}", *lines])
