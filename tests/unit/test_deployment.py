"""What is shipped for running the service holds what the service relies on (B10.1, B6.7)."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from sync_worker import cli
from sync_worker.supervise import GRACE_SECONDS

ROOT = Path(__file__).parents[2]
PROCESSES = ("web", "worker", "beat")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return services


def commands() -> set[str]:
    return set(cli.cli.commands)


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text[:-1])


def test_compose_runs_the_store_and_the_three_processes(services: dict[str, Any]) -> None:
    assert set(services) == {"redis", *PROCESSES}
    for name in PROCESSES:
        assert services[name]["command"] == [name]
        assert name in commands()
        assert services[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_compose_starts_a_redis_that_keeps_what_it_is_given(services: dict[str, Any]) -> None:
    server, *arguments = services["redis"]["command"]
    assert server == "valkey-server"
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert options == {
        "--appendonly": "yes",
        "--appendfsync": "always",
        "--save": "",
        "--maxmemory-policy": "noeviction",
        "--maxmemory": "512mb",
    }
    assert services["redis"]["volumes"] == ["redis:/data"]


def test_everything_in_compose_comes_back_and_says_how_it_is(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        kind, *command = service["healthcheck"]["test"]
        assert kind in ("CMD", "CMD-SHELL"), name
        assert command, name
        assert seconds(service["healthcheck"]["timeout"]) > 0


def test_processes_get_longer_to_end_than_they_take(services: dict[str, Any]) -> None:
    for name in ("worker", "beat"):
        assert seconds(services[name]["stop_grace_period"]) > GRACE_SECONDS


def test_nothing_in_compose_listens_to_other_machines(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_web_is_healthy_when_it_can_accept(services: dict[str, Any]) -> None:
    assert "/readyz" in services["web"]["healthcheck"]["test"][-1]


WAITS = {"owner": "fusebill", "why": "", "since": ""}


def calls(minute: int, day: int) -> dict[str, Any]:
    """So many calls are left."""
    limits = {"minute": (900, minute), "day": (150_000, day)}
    return {name: {"limit": limit, "left": left} for name, (limit, left) in limits.items()}


@pytest.mark.parametrize(
    ("oldest", "waits", "healthy"),
    [
        (0.0, {}, True),
        (119.5, {}, True),
        (121.0, {}, False),
        (121.0, {"outages": [WAITS]}, True),
        (121.0, {"paused": [WAITS]}, True),
        (121.0, {"budget": calls(89, 9)}, True),
        (121.0, {"budget": calls(90, 9)}, False),
        (121.0, {"budget": calls(900, 0)}, True),
        (0.0, {"budget": calls(0, 0)}, True),
        (0.0, {"ticked_seconds": 121.0}, False),
        (0.0, {"ticked_seconds": None}, False),
        (121.0, {"outages": [WAITS], "ticked_seconds": 121.0}, False),
    ],
)
@pytest.mark.parametrize("name", ["worker", "beat"])
def test_worker_and_beat_are_healthy_while_due_work_gets_done(
    services: dict[str, Any], name: str, oldest: float, waits: dict[str, Any], healthy: bool
) -> None:
    line = services[name]["healthcheck"]["test"][-1]
    status, judge = line.split(" | ")
    assert status == "sync-worker status --json"
    assert "status" in commands()
    program, *arguments = shlex.split(judge)
    assert program == "python"
    nothing = {"outages": [], "paused": [], "budget": {}}
    told = {"oldest_due_seconds": oldest, "ticked_seconds": 2.0, **nothing}
    answer = subprocess.run(
        [sys.executable, *arguments],
        input=json.dumps(told | waits),
        text=True,
        check=False,
    )
    assert (answer.returncode == 0) is healthy


def test_a_status_that_cannot_be_had_is_not_healthy(services: dict[str, Any]) -> None:
    judge = shlex.split(services["worker"]["healthcheck"]["test"][-1].split(" | ")[1])
    answer = subprocess.run(
        [sys.executable, *judge[1:]], input="", text=True, capture_output=True, check=False
    )
    assert answer.returncode != 0


def test_procfile_names_commands_that_exist() -> None:
    lines = (ROOT / "Procfile").read_text(encoding="utf-8").splitlines()
    found = dict(line.split(": ", 1) for line in lines)
    assert set(found) == set(PROCESSES)
    for name, command in found.items():
        assert command.split()[:2] == ["sync-worker", name]
        assert name in commands()
    assert found["web"].endswith("--bind 0.0.0.0:$PORT")


def dockerfile() -> list[str]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_runs_as_nobody_in_particular_and_says_how_it_is() -> None:
    lines = dockerfile()
    last = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    final = "\n".join(lines[last:])
    assert "\nUSER 10001" in final
    assert "WEB_BIND=0.0.0.0:8000" in final
    assert "\nHEALTHCHECK " in final
    assert "/healthz" in final
    assert "\nSTOPSIGNAL SIGTERM" in final
    assert 'ENTRYPOINT ["sync-worker"]' in final
    assert "dev" not in final.replace("/dev/", "")


def test_the_image_is_built_from_every_package_and_from_nothing_secret() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    copied = [line.split() for line in dockerfile() if line.startswith("COPY ")]
    sources = {source for line in copied for source in line[1:-1] if "--from" not in line[1]}
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert sources == allowed
    assert {package.rstrip("*") for package in packages} <= sources
    assert ".env" not in allowed
    assert all((ROOT / source).exists() for source in sources)


def test_the_ci_script_is_sound_and_can_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert text.index("make test") < text.index("ONCE=1 make run")


def plan(target: str, **env: str) -> list[str]:
    """What make would do; these tests may themselves run under `make test`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    answer = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target],
        cwd=ROOT,
        env={**inherited, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.splitlines()


@pytest.mark.parametrize(
    "target", ["help", "run", "test", "check", "format", "fuzz", "lowest", "clean"]
)
def test_every_target_of_make_can_be_planned_and_help_names_it(target: str) -> None:
    assert plan(target)
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"make {target} " in listed.stdout


@pytest.mark.parametrize(("once", "passed"), [("", False), ("0", False), ("1", True)])
def test_once_is_passed_on(once: str, passed: bool) -> None:
    assert plan("run", ONCE=once)[-1].endswith("--once") is passed
