"""The import rules bite: a tree that breaks one of them is refused, the tree as it is passes."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("sync_worker", "webhooks", "simulators")
SIMULATORS = ["import simulators", "def late() -> None:\n    import simulators.fusebill"]

spec = importlib.util.spec_from_file_location("check_pure", ROOT / "tools" / "check_pure.py")
assert spec is not None
assert spec.loader is not None
check_pure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_pure)

without_caches = shutil.ignore_patterns("__pycache__")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages and of the rules, to spoil."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=without_caches)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.fixture
def pure(tmp_path: Path) -> Path:
    """A copy of the code that decides."""
    decide = Path("sync_worker", "decide")
    shutil.copytree(ROOT / decide, tmp_path / decide, ignore=without_caches)
    shutil.copy(ROOT / "sync_worker" / "domain.py", tmp_path / "sync_worker")
    return tmp_path


def run(*argv: str, cwd: Path) -> tuple[int, str]:
    """A checker as CI runs it: its exit code and what it said."""
    answer = subprocess.run(
        [sys.executable, *argv],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.returncode, answer.stdout + answer.stderr


def lint_imports(tree: Path) -> tuple[int, str]:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return run("-c", command, "--no-cache", "--no-logo", cwd=tree)


def add(tree: Path, module: str, line: str) -> None:
    with (tree / module).open("a", encoding="utf-8") as file:
        file.write(f"\n\n{line}\n")


def test_the_tree_as_it_is_keeps_every_rule(tree: Path) -> None:
    code, said = lint_imports(tree)
    assert code == 0, said
    assert " 0 broken" in said
    assert run(str(ROOT / "tools" / "check_pure.py"), cwd=tree) == (0, "")


@pytest.mark.parametrize(
    ("contract", "module", "lines"),
    [
        (
            "Arrows run from the door to the worker",
            "sync_worker/store.py",
            ["import webhooks", "def late() -> None:\n    from webhooks import app"],
        ),
        ("Nothing in the product imports the simulators", "sync_worker/tasks.py", SIMULATORS),
        ("Nothing in the product imports the simulators", "webhooks/app.py", SIMULATORS),
        (
            "What decides is pure",
            "sync_worker/decide/fold.py",
            [
                *("import simulators", "import webhooks", "import requests", "import socket"),
                *("from sync_worker import settings", "import sync_worker.inbox"),
            ],
        ),
        (
            "What decides is pure",
            "sync_worker/domain.py",
            ["import redis", "from sync_worker import decide"],
        ),
    ],
)
def test_an_import_in_the_wrong_direction_is_refused(
    tree: Path, contract: str, module: str, lines: list[str]
) -> None:
    for line in lines:
        add(tree, module, line)
    code, said = lint_imports(tree)
    assert code == 1, said
    verdict = next(verdict for verdict in said.splitlines() if verdict.startswith(contract))
    assert "BROKEN" in verdict
    importer = module.removesuffix(".py").replace("/", ".")
    for line in lines:
        imported = ".".join(re.findall(r"(?:from|import) ([\w.]+)", line))
        assert f"{importer} -> {imported}" in said


@pytest.mark.parametrize(
    "line",
    [
        "import requests",
        "import socket",
        "import os.path",
        "import time",
        "import random",
        "import datetime",
        "from pathlib import Path",
        "def late() -> None:\n    import logging",
        "from sync_worker import settings",
        "from sync_worker import store as domain",
        "from sync_worker.inbox import Inbox",
        "import sync_worker",
        "from ..inbox import Inbox",
        "import webhooks",
        "import simulators",
        "with open('x') as file:\n    pass",
        "read = open",
        "print('decided')",
        "input()",
        "exec('x')",
        "eval('x')",
        "__import__('socket')",
        "__builtins__['open']",
        "fold.__globals__['x']",
        "def remember() -> None:\n    global memory",
    ],
)
@pytest.mark.parametrize("module", ["sync_worker/decide/fold.py", "sync_worker/domain.py"])
def test_whatever_reaches_outside_is_refused_in_code_that_decides(
    pure: Path, module: str, line: str
) -> None:
    add(pure, module, line)
    (fault,) = check_pure.check(pure)
    assert fault.startswith(f"{module}:")


@pytest.mark.parametrize(
    "line",
    [
        "from collections.abc import Iterable",
        "import msgspec",
        "import re, math",
        "from sync_worker import domain",
        "from sync_worker.domain import Slot",
        "from sync_worker.decide import plan",
        "reopen = 'print'",
    ],
)
def test_what_computes_only_is_allowed_in_code_that_decides(pure: Path, line: str) -> None:
    add(pure, "sync_worker/decide/fold.py", line)
    assert check_pure.check(pure) == []


def test_a_new_file_in_decide_is_checked_too(pure: Path) -> None:
    package = pure / "sync_worker" / "decide" / "deeper"
    package.mkdir()
    (package / "__init__.py").write_text("import socket\n", encoding="utf-8")
    code, said = run(str(ROOT / "tools" / "check_pure.py"), str(pure), cwd=pure)
    assert code == 1
    assert said.startswith("sync_worker/decide/deeper/__init__.py:1: imports socket")


def test_a_rule_whose_subject_moved_away_does_not_pass_silently(pure: Path) -> None:
    shutil.rmtree(pure / "sync_worker" / "decide")
    (fault,) = check_pure.check(pure)
    assert "sync_worker/decide: is not there" in fault


def test_ci_runs_these_checks() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\ntest: check " in makefile
    for command in ("lint-imports", "check_pure.py", "ruff format --check", "ruff check", "mypy"):
        assert command in makefile
