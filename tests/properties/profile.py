"""How many worlds are tried: 300 in `make test`, 10,000 in `make worlds`."""

from __future__ import annotations

import os

import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

EXAMPLES = int(os.environ.get("WORLDS", "300"))

TIMEOUT = 0 if EXAMPLES > 1000 else 900
"""Seconds for one test; 0 is none."""

_PHASES = [phase for phase in Phase if phase is not Phase.shrink or "NOSHRINK" not in os.environ]
"""Making a failure small takes minutes: `NOSHRINK=1` shows it as it was found."""

_FIXED = {
    "deadline": None,
    "phases": _PHASES,
    "suppress_health_check": list(HealthCheck),
    # The short form is the same each time; the long one looks for worlds that nobody has seen.
    "derandomize": EXAMPLES <= 300,
}


def at_most(examples: int) -> settings:
    """Settings for a test of single examples."""
    return settings(max_examples=examples, **_FIXED)


def try_worlds(
    machine: type[RuleBasedStateMachine], client: redis.Redis, *, steps: int = 50
) -> None:
    """Live through so many worlds, on an empty store each, up to so many steps in one."""
    machine.client = client
    run_state_machine_as_test(
        machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=steps, **_FIXED)
    )
