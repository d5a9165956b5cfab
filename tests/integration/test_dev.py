"""`dev` as it is run: real processes among simulated systems, and its word on what happened."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from sync_worker.cli.tour import RIVAL, STEPS
from sync_worker.settings import Settings

WITH_A_WRONG_STEP = """
import dataclasses
from sync_worker.cli import cli, tour
first = dataclasses.replace(tour.STEPS[0], requests=("POST /v1/Geotab/LatchCustomer",))
tour.STEPS = (first, *tour.STEPS[1:])
cli()
"""


def dev(folder: Path, *python: str) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run it to its end, in a folder of its own; gives also the port it listened on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ours = {name.upper() for name in Settings.model_fields}
    env = {name: value for name, value in os.environ.items() if name not in ours}
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, *python, "dev", "--once", "--bind", f"127.0.0.1:{port}"],
        cwd=folder,
        env={**env, "PYTHONPATH": root, "FUSEBILL_API_KEY": "of a real account"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done, port


def test_b8_all_of_it_happens_and_nothing_is_left_behind(tmp_path):
    done, port = dev(tmp_path, "-m", "sync_worker")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    titles = [line.partition(". ")[2] for line in lines if re.match(r"[0-9]+\. ", line)]
    assert titles[: len(STEPS)] == [step.title for step in STEPS]
    assert len(titles) == len(STEPS) + 2
    assert f"{len(STEPS)} answered 2xx, {len(STEPS)} changes known already" in done.stdout
    assert "0 writes" in done.stdout
    assert f"contact {RIVAL} latched" in done.stdout
    assert "next step   Decide which of the two" in done.stdout
    assert lines[-1].startswith("All of it happened")
    assert "dev-salesforce-token" not in done.stdout
    assert [path.name for path in (tmp_path / ".sync-worker").iterdir()] == [f"dev-{port}.log"]
    log = (tmp_path / ".sync-worker" / f"dev-{port}.log").read_text()
    assert "Traceback" not in log


def test_b8_what_did_not_happen_is_named_and_ends_it_with_1(tmp_path):
    done, _ = dev(tmp_path, "-c", WITH_A_WRONG_STEP)
    assert done.returncode == 1
    assert f"“{STEPS[0].title}” should have ended latched" in done.stderr
    assert "The last lines of" in done.stderr
    assert "All of it happened" not in done.stdout
