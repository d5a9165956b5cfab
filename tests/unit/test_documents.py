"""What the documents promise is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from sync_worker.cli import cli
from sync_worker.dead_letters import EVERY_STATE
from sync_worker.domain import Reason
from sync_worker.settings import Settings

ROOT = Path(__file__).parents[2]
HOW_TO = sorted((ROOT / "docs" / "how-to").glob("*.md"))
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
        *sorted((ROOT / "docs").glob("*.md")),
        *HOW_TO,
    )
}
README = PAGES["README.md"]
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")

LONGEST_HOW_TO = 60
"""Lines: one is read while something waits."""

WHOLE_LINE = re.compile(r"^(?:\S*/)?sync-worker ([a-z][^#\n]*)", re.MULTILINE)
IN_A_LINE = re.compile(r"`sync-worker ([a-z][^`]*)`")
NAME = re.compile(r"\b[A-Z][A-Z]*(?:_[A-Z]+)+\b")

NO_SETTINGS = frozenset(
    {"NAME_FILE", "GAP_CREATE", "GAP_UPDATE", "GAP_DELETE", "GAP_UNDELETE", "GAP_OVERFLOW"}
)
"""Names in the documents that look like one."""


def commands(group: click.Group) -> set[str]:
    """Every command and subcommand, as it is typed."""
    found = set()
    for name, command in group.commands.items():
        nested = commands(command) if isinstance(command, click.Group) else set()
        found |= {f"{name} {one}" for one in nested} | {name}
    return found


def code(text: str) -> str:
    """What stands in blocks of code."""
    return "\n".join(re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL))


def typed() -> list[Any]:
    """Every command that a page tells to type, with the page it is of."""
    found = []
    for page, text in PAGES.items():
        block = re.sub(r"^ +", "", code(text), flags=re.MULTILINE)
        lines = [*WHOLE_LINE.findall(block), *IN_A_LINE.findall(text)]
        found += [pytest.param(line, id=f"{page}: {line.strip()}") for line in lines]
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


@pytest.mark.parametrize("document", PAGES)
def test_every_command_that_a_document_names_exists(document):
    known = commands(cli)
    for line in re.findall(r"sync-worker ((?:(?!does)[a-z][a-z-]+ ?)+)", PAGES[document]):
        words = line.split()
        assert words[0] in known, line


@pytest.mark.parametrize("line", typed())
def test_every_command_can_be_typed_as_it_is_written(line):
    """Its options exist and take what they are given; nothing is carried out."""
    words = shlex.split(line)
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        command = command.commands[words.pop(0)]
    if words or not isinstance(command, click.Group):
        command.make_context(command.name or "", words)


@pytest.mark.parametrize(
    "line",
    [
        "history",
        "links show",
        "releases list",
        "releases approve",
        "releases discard",
        "dead-letters list",
        "dead-letters show",
        "dead-letters replay",
        "dead-letters replay --outcome",
        "dead-letters discard",
        "dead-letters export --output",
        "dead-letters export --salesforce-bulk",
        "send --list",
        "status",
        "web",
        "worker",
        "beat",
        "dev",
    ],
)
def test_the_readme_tells_of_every_command(line):
    assert re.search(rf"(sync-worker |`){re.escape(line)}\b", README)


def test_the_list_above_leaves_out_no_command():
    text = README.replace("`releases", "sync-worker releases")
    left_out = {one for one in commands(cli) if f"sync-worker {one}" not in text}
    assert not left_out


@pytest.mark.parametrize("document", PAGES)
def test_every_link_of_a_document_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[document]):
        assert ((ROOT / document).parent / target).exists(), target


def test_every_heading_that_another_page_links_to_is_there():
    for document, text in PAGES.items():
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
            path = ((ROOT / document).parent / target).resolve() if target else ROOT / document
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
            assert anchor in slugs, (document, anchor)


@pytest.mark.parametrize("document", [name for name in PAGES if name != "CONTRIBUTING.md"])
def test_every_setting_that_a_document_names_exists(document):
    known = {name.upper() for name in Settings.model_fields}
    spans = " ".join(re.findall(r"`([^`]+)`", PAGES[document]))
    named = set(NAME.findall(spans + code(PAGES[document])))
    assert named - known <= NO_SETTINGS


def test_the_readme_names_the_settings_of_every_group():
    groups = ("fusebill", "hubspot", "salesforce", "geotab")
    credentials = {
        name
        for name, one in Settings.model_fields.items()
        if name.startswith(groups) and "Secret" in str(one.annotation)
    }
    tenants = {"hubspot_portal_id", "salesforce_org_id", "geotab_account"}
    decides = {
        *("hubspot_latch_company", "match_by", "match_statuses", "on_conflict"),
        *("release_grace_seconds", "sweep_seconds", "max_releases_per_hour", "dry_run"),
    }
    assert decides < set(Settings.model_fields)
    for name in credentials | tenants | decides:
        assert f"{name.upper()}" in README, name


def test_the_defaults_that_the_readme_tells_are_the_defaults():
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", README, re.MULTILINE)
    assert len(rows) > 5
    usual = Settings(_env_file=None)
    for name, text in rows:
        given = Settings(_env_file=None, **{name.lower(): text})
        default = Settings.model_fields[name.lower()].default
        assert getattr(given, name.lower()) == default == getattr(usual, name.lower()), name


def test_every_reason_is_explained():
    explained = set(re.findall(r"^\| `([a-z_]+)` \|", README, re.MULTILINE))
    assert explained == set(Reason)


def test_every_state_of_a_dead_letter_is_explained():
    paragraph = README[README.index("A dead letter is `open`") :].partition("\n\n")[0]
    explained = set(re.findall(r"`([a-z]+)`", paragraph))
    assert explained == EVERY_STATE


@pytest.mark.parametrize("path", HOW_TO, ids=lambda path: path.name)
def test_a_how_to_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_HOW_TO


@pytest.mark.parametrize("path", HOW_TO, ids=lambda path: path.name)
def test_the_readme_leads_to_every_how_to(path):
    assert f"(docs/how-to/{path.name})" in README


def logged() -> list[Any]:
    found = []
    for system in ("hubspot", "salesforce", "geotab"):
        text = PAGES[f"docs/how-to/read-{system}.md"]
        table = text[text.index("| the log says | do |") :]
        for said in re.findall(r"^\| `([^`]+)`", table, re.MULTILINE):
            found += [pytest.param(system, part, id=part) for part in said.split(" … ")]
    return found


SOURCES = {"hubspot": "hubspot", "salesforce": "salesforce", "geotab": "myadmin"}


@pytest.mark.parametrize(("system", "said"), logged())
def test_what_a_how_to_says_is_logged_is_what_the_code_says(system, said):
    names = (f"crm/{SOURCES[system]}.py", "converge.py")
    source = "".join((ROOT / "sync_worker" / one).read_text(encoding="utf-8") for one in names)
    plain = re.sub(r"\{[^{}\n]*\}", " ", re.sub(r'"\s+f?"', "", source))
    for part in re.split(r"…|\(…\)|\b401\b|\b403\b|\bint\b|\bno longer available\b", said):
        words = part.strip(" ()")
        assert words in plain, words
