"""What the tests of trouble with remote systems and with the store share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sync_worker import gates
from tests.faults.scene import LONG_RUN
from tests.stack import Stack

PROBE_SECONDS = gates.PROBE_SECONDS if LONG_RUN else 2

QUICK = Path(__file__).parent / "quick"


def quick(_: str) -> dict[str, str]:
    """What has a process probe as often as these tests want it."""
    if LONG_RUN:
        return {}
    return {"PYTHONPATH": str(QUICK), "QUICK_PROBE_SECONDS": str(PROBE_SECONDS)}


def command(stack: Stack, *arguments: str, code: int = 0) -> str:
    """Run `sync-worker`, as a person does; gives what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "sync_worker", *arguments],
        env=stack._environ("command"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
