"""The budget of Fusebill calls (B7.1 to B7.3) on a real store, by a clock that the test moves."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_worker.fusebill.budget import Budget, Exhausted, Priority
from sync_worker.fusebill.limits import RateLimits
from sync_worker.status import read_budget, read_budgets, read_status
from tests.budgets import EPOCH, Clock, Model, Server, Worker, make_budget
from webhooks.metrics import exposition

AFTER = 1.0
"""How long others are let go first when a window is over (s)."""

ACCOUNT = "secure.fusebill.com"
FIRST, LIVE, REPLAY, BACKGROUND = Priority
MINUTE = 60.06
"""How long a call counts after its end: a minute, and what two clocks may differ by in one (s)."""

slow = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Desk:
    """One budget, and the clock it goes by."""

    def __init__(self, client: redis.Redis, **given: Any) -> None:
        client.flushall()
        self.client = client
        self.clock = Clock()
        per_minute = {"fusebill_calls_per_minute": 60, **given}
        self.budget: Budget = make_budget(client, self.clock, **per_minute)

    def reserve(self, n: int = 1, priority: Priority = LIVE) -> int:
        return self.budget.reserve(n, priority)

    def refused(self, n: int = 1, priority: Priority = LIVE) -> float:
        """How many seconds a reservation has to wait."""
        with pytest.raises(Exhausted) as refusal:
            self.budget.reserve(n, priority)
        return refusal.value.seconds

    def call(self, n: int = 1, priority: Priority = LIVE, **told: Any) -> None:
        """Make calls that take no time, one after the other, of which the last tells something."""
        for i in range(n):
            id_ = self.reserve(1, priority)
            self.budget.ended(id_, RateLimits(**told) if i == n - 1 else None)

    def tell(self, id_: int, left: int, *, reset: float | None = 30.0, limit: int = 60) -> None:
        """A call is answered; the reset is so many seconds behind the beginning of the test."""
        moment = None if reset is None else EPOCH + reset
        self.budget.ended(
            id_, RateLimits(minute_limit=limit, minute_left=left, minute_reset=moment)
        )

    def told(self, left: int, **told: Any) -> None:
        self.tell(self.reserve(1, FIRST), left, **told)

    def free(self, priority: Priority = LIVE, within: float = 0.0) -> int:
        return self.budget.outlook(priority, within)

    def left(self, window: str = "minute") -> int:
        """What status tells of it."""
        _, _, minute, _, day = self.budget._outlook(
            args=[msgspec.msgpack.encode([self.budget.packed, LIVE, 0])]
        )
        return {"minute": minute, "day": day}[window]

    def know(self) -> None:
        """Have an answer tell that nobody else uses the account."""
        self.told(59)

    def share(self, left: int = 40) -> None:
        """Have an answer tell that others do."""
        self.told(left)


@pytest.fixture
def desk(client: redis.Redis) -> Desk:
    return Desk(client)


# ---- the minute, by our own log


def test_no_more_calls_than_the_setting_go_in_a_minute(desk):
    desk.know()  # the first call
    desk.reserve(59)
    assert desk.refused() > 0


def test_a_call_counts_until_a_minute_after_it_ended(desk):
    desk.know()
    calls = desk.reserve(59)
    desk.clock.pass_(30)
    for call in range(calls, calls + 59):
        desk.budget.ended(call)
    desk.clock.pass_(59.9)
    assert desk.left() == 1  # the one before
    desk.clock.pass_(MINUTE - 59.9)
    assert desk.left() == 60


def test_what_is_refused_is_told_when_enough_comes_free(desk):
    desk.know()
    desk.clock.pass_(10)
    for seconds in (0, 5, 5):
        desk.clock.pass_(seconds)
        desk.call(19, minute_limit=60, minute_left=20, minute_reset=EPOCH + 60)
    desk.clock.pass_(30)
    desk.reserve(2)
    assert desk.refused(1) == pytest.approx(MINUTE - 50, abs=0.01)
    assert desk.refused(2) == pytest.approx(MINUTE - 40, abs=0.01)
    assert desk.refused(21) == pytest.approx(MINUTE - 35, abs=0.01)


def test_the_calls_of_a_plan_are_reserved_together_or_not_at_all(desk):  # B7.2
    desk.know()
    desk.reserve(57)
    desk.refused(3)
    assert desk.reserve(2, FIRST) == 59


def test_ids_of_one_reservation_follow_each_other(desk):
    desk.know()
    assert (desk.reserve(3), desk.reserve(2), desk.reserve()) == (2, 5, 7)


def test_a_plan_longer_than_the_limit_goes_when_nothing_else_counts(desk):
    desk.know()
    assert desk.refused(200) == pytest.approx(MINUTE, abs=0.1)
    desk.clock.pass_(MINUTE)
    assert desk.reserve(200)


def test_calls_that_were_not_made_are_given_back(desk):
    desk.know()
    calls = desk.reserve(59)
    desk.budget.give_back([calls, calls + 7])
    desk.budget.give_back([calls, calls + 7])  # as a script may run twice
    assert desk.free() == 2
    assert desk.client.hgetall(f"sw:calls:{ACCOUNT}:day") == {str(int(EPOCH // 3600)): "58"}


def test_a_call_whose_worker_vanished_counts_as_if_it_took_as_long_as_it_may(desk):
    desk.know()
    desk.reserve(59)
    desk.clock.pass_(5 + 60 + 59)
    assert desk.left() == 1
    desk.clock.pass_(1)
    assert desk.left() == 60


def test_a_call_that_nobody_reserved_counts_too(desk):
    desk.know()
    desk.budget.ended(0, None)
    assert desk.free() == 58


def test_what_ends_twice_counts_once(desk):
    call = desk.reserve()
    desk.tell(call, 59)
    desk.tell(call, 59)
    assert desk.free() == 59


@slow
@given(data=st.data())
def test_no_minute_can_hold_more_calls_than_the_limit(client, data):  # B7.1
    """Whenever Fusebill counts a call between its start and its end."""
    desk = Desk(client, fusebill_calls_per_minute=10)
    rng = data.draw(st.randoms(use_true_random=False))
    under_way: dict[int, float] = {}
    calls: list[tuple[float, float]] = []
    for _ in range(150):
        desk.clock.pass_(rng.choice([0, 0.2, 1, 3, 20]))
        now = desk.clock.now
        for call in rng.sample(sorted(under_way), k=rng.randint(0, len(under_way))):
            calls.append((under_way.pop(call), now))
            desk.budget.ended(call, None)
        try:
            n = rng.randint(1, 4)
            first = desk.reserve(n, rng.choice([FIRST, LIVE, REPLAY]))
        except Exhausted:
            continue
        if rng.random() < 0.2:
            desk.budget.give_back(range(first, first + n))
        else:
            under_way |= dict.fromkeys(range(first, first + n), now)
            if rng.random() < 0.1:  # its worker dies, and the call takes as long as it may
                calls += [(now, now + 65)] * n
                for call in range(first, first + n):
                    del under_way[call]
    calls += [(start, desk.clock.now) for start in under_way.values()]
    for _, begins in calls:
        assert sum(start < begins + 60 and end >= begins for start, end in calls) <= 10


# ---- the day


def test_no_more_calls_than_the_setting_go_in_a_day(client):
    desk = Desk(client, fusebill_calls_per_day=100)
    for _ in range(4):
        desk.call(25)
        desk.clock.pass_(1800)
    assert desk.refused() == pytest.approx(23 * 3600, abs=10)
    desk.clock.pass_(22.9 * 3600)
    desk.refused()
    desk.clock.pass_(0.1 * 3600)
    desk.call(50)
    desk.refused()
    assert len(client.hgetall(f"sw:calls:{ACCOUNT}:day")) == 2


def test_a_days_limit_that_is_told_holds(desk):
    desk.call(day_limit=5000, day_left=2, day_reset=EPOCH + 40_000)
    desk.reserve(2)
    desk.refused()
    assert desk.left("day") == 0


def test_a_day_that_is_used_up_is_asked_about_every_hour(desk):
    call = desk.reserve()
    used_up = RateLimits(60, 40, EPOCH + 60, 5000, 0, EPOCH + 40_000)
    desk.budget.ended(call, used_up, refused=True)
    assert desk.refused() == pytest.approx(3600, abs=1)
    desk.clock.pass_(3600)
    desk.reserve()
    desk.refused()


# ---- what the headers tell


def test_a_lower_limit_that_is_told_holds(desk):
    desk.told(9, limit=10)
    desk.reserve(9)
    desk.refused()


def test_a_higher_limit_that_is_told_does_not(desk):
    desk.told(999, limit=1000)
    assert desk.free() == 59


def test_it_takes_no_telling_for_more_than_its_own_calls(desk):
    desk.know()
    desk.call(10, minute_limit=60, minute_left=49, minute_reset=EPOCH + 30)
    assert desk.free() == 49


def test_others_on_the_account_leave_less(desk):
    desk.share(left=12)
    assert 1 <= desk.free() <= 5
    for left in range(11, 0, -1):  # each of them when the one before has told
        desk.tell(desk.reserve(), left - 1)
    assert desk.refused() == pytest.approx(30 + AFTER, abs=0.1)


def test_within_a_window_what_is_left_only_falls(desk):  # B7.1
    first, second, third = desk.reserve(), desk.reserve(), desk.reserve()
    desk.tell(second, 5)
    desk.tell(first, 6)
    desk.tell(third, 40)
    assert desk.left() == 5
    desk.clock.pass_(0.5)
    desk.told(30)
    assert desk.left() == 5


def test_another_reset_is_another_window(desk):
    desk.share(left=0)
    desk.clock.pass_(30 + AFTER)
    desk.told(50, reset=90)
    assert desk.left() == 50


def test_an_answer_that_was_overtaken_does_not_bring_its_window_back(desk):
    late, call = desk.reserve(), desk.reserve()
    desk.clock.pass_(31)
    desk.tell(call, 59, reset=90)
    desk.tell(late, 3, reset=30)
    assert desk.left() == 58


def test_once_the_window_is_over_one_call_finds_out_what_is_left(desk):
    desk.share(left=0)
    seconds = desk.refused()
    assert seconds == pytest.approx(30 + AFTER, abs=0.1)
    desk.clock.pass_(seconds)
    call = desk.reserve()
    assert desk.refused() <= 0.1
    desk.tell(call, 45, reset=90)
    assert desk.free() > 5


def test_a_reset_that_cannot_be_read_is_taken_for_a_minute(desk):
    desk.told(0, reset=None)
    assert desk.refused() == pytest.approx(60 + AFTER, abs=0.1)


def test_without_a_reset_the_newer_answer_is_believed(desk):
    desk.told(0, reset=None)
    desk.clock.pass_(61)
    late = desk.reserve()
    desk.clock.pass_(2.1)
    desk.told(3, reset=None)
    desk.clock.pass_(2.1)
    desk.told(50, reset=None)  # its window has begun anew
    desk.tell(late, 1, reset=None)  # reserved before: it may have been counted before
    assert desk.left() == 1
    desk.clock.pass_(2.1)
    desk.told(49, reset=None)
    assert desk.left() == 49


def test_an_answer_that_never_comes_is_not_waited_for(desk):
    desk.share(left=0)
    desk.clock.pass_(30 + AFTER)
    desk.reserve()  # and its worker dies
    desk.refused()
    desk.clock.pass_(2)
    assert desk.reserve()


def test_what_was_told_is_asked_anew_before_many_go_beside_others(desk):
    desk.share(left=40)
    assert desk.free() > 5
    desk.clock.pass_(5)
    desk.reserve()
    desk.refused()


def test_others_are_forgotten_after_ten_minutes(desk):
    desk.share(left=12)
    assert desk.free() <= 5
    desk.clock.pass_(601)
    desk.told(59, reset=630)
    assert desk.free() == 59


# ---- refused


def test_after_a_429_nothing_goes_until_the_reset_that_it_names(desk):  # B6.2
    call = desk.reserve()
    desk.budget.ended(call, RateLimits(60, 0, EPOCH + 20), refused=True)
    for priority in Priority:
        assert desk.refused(priority=priority) == pytest.approx(20 + AFTER, abs=0.1)
    desk.clock.pass_(20 + AFTER)
    assert desk.reserve()


@pytest.mark.parametrize("reset", [-5.0, 0.0, 0.5])
def test_after_a_429_nothing_goes_for_a_second_at_least(reset, desk):
    call = desk.reserve()
    desk.budget.ended(call, RateLimits(60, 0, EPOCH + reset), refused=True)
    assert desk.refused() >= 1


@pytest.mark.parametrize("reset", [None, 10_000.0])
def test_after_a_429_nothing_waits_for_more_than_a_minute(reset, desk):
    call = desk.reserve()
    moment = None if reset is None else EPOCH + reset
    desk.budget.ended(call, RateLimits(60, 0, moment), refused=True)
    assert 59 < desk.refused() <= 61 + AFTER


def test_a_429_that_tells_nothing_is_waited_out(desk):
    desk.budget.ended(desk.reserve(), None, refused=True)
    assert 59 < desk.refused() <= 61 + AFTER


# ---- who comes first (B7.3)


def test_what_a_higher_class_was_refused_is_left_to_it(desk):
    desk.know()
    calls = desk.reserve(59)
    desk.refused(2, LIVE)
    desk.budget.give_back([calls, calls + 1])
    desk.refused(1, REPLAY)
    desk.refused(1, BACKGROUND)
    assert desk.reserve(2, LIVE)


def test_a_sweep_comes_before_live_changes(desk):
    desk.know()
    calls = desk.reserve(59)
    desk.refused(1, FIRST)
    desk.budget.give_back([calls])
    desk.refused(1, LIVE)
    assert desk.reserve(1, FIRST)


def test_it_is_not_left_for_ever(desk):
    desk.know()
    calls = desk.reserve(59)
    wait = desk.refused(2, LIVE)
    desk.budget.give_back([calls, calls + 1])
    desk.clock.pass_(wait + 1.6)
    assert desk.reserve(1, REPLAY)


def test_a_replay_leaves_live_changes_their_share_of_the_day(client):
    desk = Desk(client, fusebill_calls_per_day=40, live_reserve=0.25)
    desk.call(29)
    desk.clock.pass_(MINUTE)
    assert desk.reserve(1, REPLAY)
    desk.clock.pass_(MINUTE)
    assert desk.refused(1, REPLAY) > 60, "it is the day that it waits for"
    assert desk.reserve(10, LIVE)


def test_single_calls_do_not_take_what_a_plan_of_their_class_waits_for(desk):
    desk.know()
    calls = desk.reserve(59)
    desk.refused(3, LIVE)
    desk.budget.give_back([calls, calls + 1])
    desk.refused(1, LIVE)
    desk.budget.give_back([calls + 2])
    assert desk.reserve(3, LIVE)
    desk.budget.give_back([calls + 3])
    assert desk.reserve(1, LIVE)


def test_a_replay_is_spread_over_the_minute(desk):
    desk.know()
    gone = []
    for _ in range(10 * 60):
        desk.clock.pass_(0.1)
        try:
            desk.tell(desk.reserve(1, REPLAY), 30, reset=90)
        except Exhausted:
            continue
        gone.append(desk.clock.now)
    assert 58 <= len(gone) <= 59
    assert max(sum(at <= one < at + 5 for one in gone) for at in gone) <= 7
    assert desk.refused(1, REPLAY) > 0


def test_a_replay_is_told_when_its_turn_comes(desk):
    desk.know()
    desk.clock.pass_(0.1)
    desk.reserve(1, REPLAY)
    seconds = desk.refused(1, REPLAY)
    assert 0.5 < seconds <= 1
    desk.clock.pass_(seconds)
    assert desk.reserve(1, REPLAY)


@pytest.mark.parametrize("window", ["minute", "day"])
def test_background_work_leaves_a_share_to_live_changes(window, client):
    desk = Desk(client, live_reserve=0.25, **{f"fusebill_calls_per_{window}": 20})
    desk.know()
    desk.reserve(14, BACKGROUND)
    desk.refused(1, BACKGROUND)
    assert desk.reserve(5, LIVE)


def test_background_work_has_all_if_nothing_is_kept(client):
    desk = Desk(client, live_reserve=0)
    desk.know()
    assert desk.reserve(59, BACKGROUND)


# ---- foreseen


def test_the_outlook_tells_what_will_come_free(desk):
    desk.know()
    desk.clock.pass_(20)
    desk.call(29, minute_limit=60, minute_left=30, minute_reset=EPOCH + 60)
    desk.reserve(30)
    desk.clock.pass_(39)
    assert [desk.free(within=within) for within in (0, 1, 2, 20, 30)] == [0, 0, 1, 1, 30]


def test_the_outlook_of_a_replay_is_its_pace(desk):
    desk.know()
    desk.clock.pass_(1)
    assert desk.free(REPLAY, within=10) == 11  # with what may go at once


def test_the_outlook_is_empty_while_all_is_refused(desk):
    desk.budget.ended(desk.reserve(), RateLimits(60, 0, EPOCH + 20), refused=True)
    assert desk.free(within=19) == 0
    assert desk.free(within=21.1) > 1


def test_the_outlook_beside_others_is_what_they_left(desk):
    desk.share(left=20)
    assert desk.free(within=5) == 18
    assert desk.free(within=30 + AFTER) == 59


# ---- against model servers


def drained(
    client: redis.Redis,
    server: Server,
    *,
    minutes: float = 3,
    seed: int = 1,
    foreign: Callable[[Model], None] | None = None,
    starts: float = 7.3,
    **worker: Any,
) -> tuple[int, int]:
    """Two workers that always have work; gives how many calls were served, and how many were left
    to us.
    """
    client.flushall()
    model = Model(server, seed=seed, starts=EPOCH + starts)
    if foreign:
        foreign(model)
    budget = make_budget(client, model.clock, fusebill_calls_per_minute=server.minute)
    for _ in range(2):
        model.after(0, Worker(model, budget, **worker).start)
    model.run(minutes * 60)
    return server.shares(EPOCH + starts, model.clock.now)


def brisk(rng: random.Random) -> float:
    return rng.uniform(0.03, 0.08)


def bursts(calls: int, *, every: float, over: float, again: float = 0.0) -> Callable[[Model], None]:
    def start(model: Model) -> None:
        for i in range(40):
            model.foreign(calls, at=model.clock.now + i * every, over=over, again=again)

    return start


@pytest.mark.parametrize("sliding", [False, True])
@pytest.mark.parametrize("priority", [LIVE, REPLAY])
def test_alone_the_whole_budget_is_used_and_nothing_is_refused(priority, sliding, client):
    server = Server(minute=1200, sliding=sliding, phase=20)
    used, left = drained(client, server, priority=priority)
    assert server.refusals["us"] == 0
    assert used >= 0.97 * left


@pytest.mark.parametrize("sliding", [False, True])
def test_beside_others_what_they_leave_is_used_and_hardly_anything_refused(sliding, client):
    """They make 60 calls in a second, each ten seconds; what is refused again after a second."""
    server = Server(minute=1200, sliding=sliding, phase=20)
    foreign = bursts(60, every=10, over=1, again=1)
    used, left = drained(client, server, minutes=4, foreign=foreign, latency=brisk)
    assert server.refusals["us"] <= 4
    assert used >= 0.97 * left


@slow
@given(
    sliding=st.booleans(),
    phase=st.integers(0, 59),
    seed=st.integers(0, 1000),
    slowest=st.sampled_from([0.05, 0.5, 3]),
    at_a_time=st.sampled_from([3, 30]),
    ahead=st.sampled_from([0, 0, 31, -31]),
    limit=st.sampled_from([10, 50, 200]),
    read=st.sampled_from(["whole", "none", "rounded down"]),
    priority=st.sampled_from([LIVE, REPLAY]),
)
def test_alone_nothing_is_refused_whatever_the_server(
    client, sliding, phase, seed, slowest, at_a_time, ahead, limit, read, priority
):
    server = Server(minute=limit, sliding=sliding, phase=phase, ahead=ahead)
    if read != "whole":
        server.tells = {"none": lambda _: None, "rounded down": lambda at: float(int(at))}[read]
    used, left = drained(
        client,
        server,
        seed=seed,
        minutes=3,
        at_a_time=at_a_time,
        priority=priority,
        latency=lambda rng: rng.uniform(0, slowest),
        plan=lambda rng: rng.choice([1, 1, 1, 2, 3]),
    )
    assert server.refusals["us"] == 0
    if slowest < 1 and limit > 10:
        assert used >= 0.95 * left


@slow
@given(
    sliding=st.booleans(),
    phase=st.integers(0, 59),
    seed=st.integers(0, 1000),
    ahead=st.sampled_from([0, 0, 31, -31]),
    calls=st.sampled_from([10, 30, 60]),
    again=st.sampled_from([0, 1.0]),
    read=st.booleans(),
)
def test_beside_others_no_server_refuses_often(
    client, sliding, phase, seed, ahead, calls, again, read
):
    """Without a reset that can be read, they are met by waiting longer than it takes."""
    server = Server(minute=200, sliding=sliding, phase=phase, ahead=ahead)
    if not read:
        server.tells = lambda _: None
    used, left = drained(
        client,
        server,
        seed=seed,
        minutes=4,
        at_a_time=5,
        foreign=bursts(calls, every=calls, over=2, again=again),
    )
    assert server.refusals["us"] <= 4 * 3
    assert used >= (0.9 if read else 0.6) * left


def test_a_live_change_does_not_wait_for_a_replay(client):  # B7.3
    client.flushall()
    server = Server(minute=900, phase=20)
    model = Model(server)
    budget = make_budget(client, model.clock)
    for _ in range(2):
        model.after(0, Worker(model, budget, REPLAY, to_do=750).start)
    live = [Worker(model, budget, LIVE, to_do=3, plan=lambda _: 3) for _ in range(40)]
    for i, worker in enumerate(live):
        model.at(EPOCH + 50 + i, worker.start)
    model.run(120)
    waits = sorted(worker.began - (EPOCH + 50 + i) for i, worker in enumerate(live))
    assert waits[37] <= 0.5
    assert waits[-1] <= 1.5
    assert server.served["us"] == 1500 + 120
    assert server.refusals["us"] == 0


def test_workers_that_die_under_way_leave_the_rest_to_the_others(client):
    client.flushall()
    server = Server(minute=300, phase=20)
    model = Model(server)
    budget = make_budget(client, model.clock, fusebill_calls_per_minute=300)
    dying, living = Worker(model, budget), Worker(model, budget)
    model.after(0, dying.start)
    model.after(0.5, living.start)
    model.at(EPOCH + 2, lambda: setattr(dying, "dies", True))
    model.run(300)
    assert server.refusals["us"] == 0
    assert server.served["us"] >= 0.9 * 300 * 5


# ---- as it is told


def test_status_tells_of_the_budget_before_the_first_call(client):  # B8.1
    status = read_status(client, account=ACCOUNT, calls=(900, 150_000))
    assert status.budget == {
        "minute": {"limit": 900, "left": 900},
        "day": {"limit": 150_000, "left": 150_000},
    }
    assert read_status(client).budget == {}


def test_status_tells_what_is_left(desk):
    desk.call(3, minute_limit=50, minute_left=40, minute_reset=EPOCH + 30, day_limit=5000)
    assert desk.left() == 40
    assert desk.left("day") == 4997


def test_the_metrics_tell_what_is_left(client):
    budget = make_budget(client)
    budget.ended(budget.reserve(1, LIVE), RateLimits(50, 40, None, 5000, 3000, None))
    text = exposition(client)[0].decode()
    labels = f'{{account="{ACCOUNT}",window="minute"}}'
    assert f"sync_worker_fusebill_calls_limit{labels} 50.0" in text
    assert f"sync_worker_fusebill_calls_left{labels} 40.0" in text
    assert read_budgets(client)[ACCOUNT]["day"] == {"limit": 5000, "left": 3000}
    assert json.dumps(read_budgets(client))


# ---- on the store as it is


def test_it_goes_by_the_clock_of_the_store(client):  # B7.6
    budget = make_budget(client)
    calls = budget.reserve(2, LIVE)
    budget.ended(calls)
    seconds, _ = client.time()
    ended, under_way = (client.zscore(f"sw:calls:{ACCOUNT}", call) for call in (calls, calls + 1))
    assert ended == pytest.approx((seconds + 60) * 1000, abs=5000)
    assert under_way == pytest.approx((seconds + 125) * 1000, abs=5000)
    assert budget.outlook(LIVE) > 0


def test_it_works_in_a_full_store(client):  # B6.12
    budget = make_budget(client)
    try:
        client.config_set("maxmemory", 1)
        call = budget.reserve(1, LIVE)
        budget.ended(call, RateLimits(60, 59, EPOCH))
        budget.give_back([budget.reserve(1, LIVE)])
        assert read_budget(client, ACCOUNT, (60, 1000))["day"]["left"] == 999
    finally:
        client.config_set("maxmemory", 0)


def test_accounts_have_budgets_of_their_own(client):
    client.flushall()
    one, other = (
        make_budget(
            client, Clock(), fusebill_calls_per_minute=1, fusebill_base_url=f"https://{host}.test"
        )
        for host in ("one", "other")
    )
    one.reserve(1, LIVE)
    assert other.reserve(1, LIVE) == 1
    assert sorted(read_budgets(client)) == ["one.test", "other.test"]


def test_no_calls_cannot_be_reserved(desk):
    with pytest.raises(ValueError, match="1 or more"):
        desk.reserve(0)
