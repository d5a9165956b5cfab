"""What the documents promise is there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from sync_worker.cli import cli
from sync_worker.domain import Reason
from sync_worker.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")


def commands(group: click.Group) -> set[str]:
    """Every command and subcommand, as it is typed."""
    found = set()
    for name, command in group.commands.items():
        nested = commands(command) if isinstance(command, click.Group) else set()
        found |= {f"{name} {one}" for one in nested} | {name}
    return found


def test_b9_the_example_has_every_setting_and_no_other():
    named = set(re.findall(r"^#([A-Z_]+)=", EXAMPLE, re.MULTILINE))
    assert named == {name.upper() for name in Settings.model_fields}


def test_the_defaults_of_the_example_are_the_defaults(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    usual = Settings(_env_file=None)
    for name, text in re.findall(r"^#([A-Z_]+)=(\S+)$", EXAMPLE, re.MULTILINE):
        if name == "PUBLIC_URL":  # an example: it has no default
            continue
        given = Settings(_env_file=None, **{name.lower(): text})
        assert getattr(given, name.lower()) == getattr(usual, name.lower()), name


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/why.md"])
def test_every_command_that_a_document_names_exists(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    known = commands(cli)
    for typed in re.findall(r"sync-worker ((?:(?!does)[a-z][a-z-]+ ?)+)", text):
        words = typed.split()
        assert words[0] in known, typed


def test_every_link_of_the_readme_leads_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_reason_but_the_one_that_cannot_arise_is_explained():
    explained = set(re.findall(r"^\| `([a-z_]+)` \|", README, re.MULTILINE))
    assert explained == set(Reason) - {Reason.WORKER_CRASHED}
