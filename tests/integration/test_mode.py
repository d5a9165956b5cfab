"""Processes that disagree on DRY_RUN refuse to start (B5.9)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from sync_worker import mode
from tests.processes import until


def test_b5_9_a_process_in_the_other_mode_refuses_to_start(client):
    mode.join(client, dry_run=False)
    mode.join(client, dry_run=False)
    with pytest.raises(mode.ModesDiffer, match=r"DRY_RUN is true here.*DRY_RUN=false"):
        mode.join(client, dry_run=True)
    assert not client.exists("sw:mode:dry")  # the one that was refused bars nobody


def test_b5_9_one_that_is_gone_is_forgotten(client):
    mode.join(client, dry_run=True)
    assert 0 < client.ttl("sw:mode:dry") <= mode.KNOWN_SECONDS
    client.delete("sw:mode:dry")
    mode.join(client, dry_run=False)


def test_b5_9_it_is_said_again_and_again(client, monkeypatch):
    monkeypatch.setattr(mode, "SAID_EVERY_SECONDS", 0.01)
    stop = threading.Event()
    thread = threading.Thread(
        target=mode.keep_saying, args=(client,), kwargs={"dry_run": True, "stop": stop}
    )
    thread.start()
    until(lambda: client.exists("sw:mode:dry"))
    client.delete("sw:mode:dry")
    until(lambda: client.exists("sw:mode:dry"))
    stop.set()
    thread.join()


@pytest.mark.parametrize("command", ["worker", "beat", "web"])
def test_b5_9_a_command_says_so_in_one_line(client, shared_redis, command):
    mode.join(client, dry_run=True)
    done = subprocess.run(
        [sys.executable, "-m", "sync_worker", command],
        env={**os.environ, "REDIS_URL": shared_redis.url, "FUSEBILL_API_KEY": "a-key"},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "DRY_RUN is false here" in done.stderr
    assert "Traceback" not in done.stderr
