"""Every row of the tables in docs/decisions.md, asked of the code.

A row is built into the situation that it describes: events are decoded, mailboxes sifted and
folded, plans made with the customers that it names. So a row that is wrong fails, and so does a
rule that changes without its row. Code spans are what is compared; a cell of plain words is the key
of a situation that is built here.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from sync_worker import carry_out, converge, gates, outcome
from sync_worker.crm import errors as crm
from sync_worker.decide import fold as folding
from sync_worker.decide import order, retry
from sync_worker.decide import plan as planning
from sync_worker.decide.fold import Fill, Find, Folded, Keep, Latch, Release
from sync_worker.decide.match import Query
from sync_worker.decide.sift import sift
from sync_worker.decide.subject import Box, CompanyPolicy, Policy, Subject
from sync_worker.domain import (
    DECIDED,
    IN_DRY_RUN,
    SATISFIED,
    SLOT_OF,
    URGENT_ASPECTS,
    Aspect,
    Attempt,
    Change,
    Customer,
    Kind,
    Marks,
    Outcome,
    Pending,
    Presence,
    Reason,
    Record,
    RecordType,
    Slot,
    SlotState,
    Source,
    Truth,
)
from sync_worker.fusebill import answers, errors
from sync_worker.fusebill.client import FusebillClient
from sync_worker.gather import Busy, Participant
from sync_worker.inbox import Claim, Settlement
from sync_worker.inbox.codec import NewerFormat
from sync_worker.inbox.inbox import ALIAS_MS, HELD_SECONDS, TURN_MS, UNREADABLE_SECONDS, Braking
from sync_worker.inbox.reserve import Exhausted
from sync_worker.settings import Settings
from sync_worker.store import StoreFull
from tests.changes import (
    ACCOUNT,
    COMPANY,
    CONTACT,
    GEOTAB,
    NOW,
    associated,
    customer,
    deleted,
    dissociated,
    hinted,
    linked,
    merged,
    named,
    party,
    restored,
    touched,
    truth,
    unlinked,
)
from tests.unit.webhooks import deliveries
from webhooks import samples
from webhooks.sources import Decoded, Proof
from webhooks.sources import geotab as geotab_source
from webhooks.sources.salesforce import events as change_events

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")

N, OTHER, THIRD = 8714402, 8714401, 8714403
"""The customers of the page."""

MINUTE = 60_000
LATER = NOW + 60 * MINUTE
"""The time of deciding: every grace is over."""

FORMER = named(CONTACT, "512340077990")
"""A record that is merged into the contact."""

ANOTHER = named(CONTACT, "512340077999")
"""A record in the way."""

OTHER_COMPANY = samples.OTHER_COMPANY_ID
REFERENCE, EMAIL, PREVIOUS = samples.REFERENCE, samples.EMAIL, "0070440"


# --- the page


@dataclass(frozen=True)
class Row:
    table: str
    number: int
    cells: Mapping[str, str]

    def __getitem__(self, heading: str) -> str:
        return self.cells[heading]

    def spans(self, heading: str) -> list[str]:
        """The code spans of a cell."""
        return re.findall(r"`([^`]+)`", self.cells[heading])

    def span(self, heading: str) -> str:
        """The one code span of a cell, "" if there is none."""
        found = self.spans(heading)
        assert len(found) < 2, (heading, found)
        return found[0] if found else ""

    def plain(self, heading: str) -> str:
        """The cell without the signs of its code spans."""
        return self.cells[heading].replace("`", "").strip()

    def __str__(self) -> str:
        return f"{self.table}-{self.number}"


def rows_of(text: str) -> dict[str, list[Row]]:
    """The tables of a page that a comment names."""
    tables = {}
    for name, lines in re.findall(r"<!-- table: (\w+) -->\n\n((?:\|.*\n)+)", text):
        head, _, *body = [cells(line) for line in lines.splitlines()]
        assert all(len(line) == len(head) for line in body), name
        tables[name] = [
            Row(name, n, dict(zip(head, line, strict=True))) for n, line in enumerate(body, 1)
        ]
    return tables


def cells(line: str) -> list[str]:
    """The cells of a line; a sign of the table within a code span is escaped as in `\\|`."""
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


TABLES = rows_of(PAGE)


def each(*tables: str) -> Any:
    """One test a row."""
    rows = [row for table in tables for row in TABLES[table]]
    return pytest.mark.parametrize("row", rows, ids=str)


def column(table: str, heading: str) -> set[str]:
    return {span for row in TABLES[table] for span in row.spans(heading)}


def test_every_table_of_the_page_is_tested():
    source = Path(__file__).read_text(encoding="utf-8")
    asked = set(re.findall(r'(?:each|column)\(([^)]*)\)|TABLES\["(\w+)"\]', source))
    asked_names = {name for pair in asked for part in pair for name in re.findall(r"\w+", part)}
    assert set(TABLES) <= asked_names
    assert PAGE.count("<!-- table:") == len(TABLES)


def test_every_link_of_the_page_leads_somewhere():
    headings = {slug(text) for text in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        if path:
            assert (ROOT / "docs" / path).exists(), target
        else:
            assert anchor in headings, target


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# --- 1: what an event says

LINK, HINT = "Fusebill_Id__c", "Billing_Reference__c"


def hubspot(subscription: str, **more: Any) -> tuple[Source, Any]:
    event = {
        "portalId": 24681357,
        "subscriptionType": subscription,
        "objectId": int(CONTACT.id),
        "eventId": 7,
        "occurredAt": NOW,
    }
    return Source.HUBSPOT, [event | more]


def soap(body: str, *, kind: str = "sf:Account") -> tuple[Source, bytes]:
    sobject = f'<sObject xsi:type="{kind}" xmlns:sf="urn:x">{body}</sObject>' if body else ""
    return Source.SALESFORCE, (
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>'
        '<notifications xmlns="http://soap.sforce.com/2005/09/outbound">'
        "<OrganizationId>00D5g000007Kp2QEAS</OrganizationId><ActionId>04k5g0000008Rt1AAE</ActionId>"
        f"<Notification><Id>04l5g00000Qm7XaAAJ</Id>{sobject}</Notification>"
        "</notifications></soapenv:Body></soapenv:Envelope>"
    ).encode()


SOAP_ID = f"<sf:Id>{ACCOUNT.id}</sf:Id>"


def cdc(change_type: str, fields: Mapping[str, Any] = {}, **header: Any) -> tuple[Source, Any]:
    usual = {
        "entityName": "Account",
        "recordIds": [ACCOUNT.id],
        "changeType": change_type,
        "commitTimestamp": NOW,
    }
    return Source.SALESFORCE, {"ChangeEventHeader": usual | header, **fields}


def apex(new: Mapping[str, Any] | None, old: Mapping[str, Any] | None) -> tuple[Source, Any]:
    versions = [[] if one is None else [{"Id": ACCOUNT.id, **one}] for one in (new, old)]
    return Source.SALESFORCE, {"new": versions[0], "old": versions[1]}


def geotab(event_type: str, **more: str) -> tuple[Source, Any]:
    event = {"event_type": event_type, "account": "ACCT01", "reseller_customer_id": GEOTAB.id}
    return Source.GEOTAB, event | more


WITHOUT_SAMPLE: dict[str, tuple[Source, Any]] = {
    "hubspot empty hint": hubspot("contact.propertyChange", propertyName="email", propertyValue=""),
    "hubspot other property": hubspot(
        "contact.propertyChange", propertyName="phone", propertyValue="1"
    ),
    "hubspot other association": hubspot(
        "contact.associationChange", associationType="CONTACT_TO_DEAL", associationRemoved=False
    ),
    "hubspot deal": hubspot("deal.creation"),
    "hubspot other event": hubspot("contact.newConversation"),
    "soap left out": soap(SOAP_ID),
    "soap reference": soap(f"{SOAP_ID}<sf:{LINK}>8714402</sf:{LINK}><sf:{HINT}>NG</sf:{HINT}>"),
    "soap without sobject": soap(""),
    "soap other object": soap("<sf:Id>0035g00001LwZ3kAAF</sf:Id>", kind="sf:Contact"),
    "cdc create without fields": cdc("CREATE", {"Name": "Northgate"}),
    "cdc nulled": cdc("UPDATE", nulledFields=[LINK]),
    "cdc named but not sent": cdc("UPDATE", changedFields=[LINK]),
    "cdc bitmap": cdc("UPDATE", {LINK: "8714402"}, changedFields=["0x400000"]),
    "cdc no names": cdc("UPDATE", {LINK: "8714402"}, changedFields=[]),
    "cdc reference": cdc("UPDATE", {HINT: REFERENCE}, changedFields=[HINT]),
    "cdc other field": cdc("UPDATE", {LINK: "8714402"}, changedFields=["Name"]),
    "cdc wildcard": cdc("UPDATE", recordIds=["001*"], changedFields=["Name"]),
    "cdc other object": cdc("CREATE", entityName="Contact", recordIds=["0035g00001LwZ3kAAF"]),
    "apex insert without fields": apex({"Name": "Northgate"}, None),
    "apex reference": apex({HINT: REFERENCE}, {}),
    "apex other field": apex({LINK: "8714402", "Name": "a"}, {LINK: "8714402", "Name": "b"}),
    "geotab linked, previous id": geotab(
        "customer.linked", fusebill_id="8714402", previous_reseller_customer_id=PREVIOUS
    ),
    "geotab other event": geotab("customer.created"),
}
"""Events that `send` has no sample of."""

NOT_YET = {
    "soap without sobject": "B3.2 says `touched`; without an sObject no record is named, so the "
    "decoder can make no change of it and counts it as ignored"
}
"""Where the code does not do what the contract says."""


def read_event(name: str, row: Row) -> Decoded:
    cleared = "SALESFORCE_ABSENT_MEANS_CLEARED=true" in row.cells[next(iter(row.cells))]
    current = deliveries.settings(salesforce_absent_means_cleared=cleared)
    readers = {
        Source.HUBSPOT: deliveries.HubSpotReader,
        Source.SALESFORCE: deliveries.SalesforceReader,
        Source.GEOTAB: deliveries.GeotabReader,
    }
    if name in WITHOUT_SAMPLE:
        source, body = WITHOUT_SAMPLE[name]
        media_type = "text/xml" if isinstance(body, bytes) else "application/json"
    else:
        request = samples.build(name, current, now=deliveries.NOW)
        source, body = Source(name.partition(".")[0]), request.body
        media_type = request.headers["Content-Type"].partition(";")[0]
    return deliveries.decoded(
        readers[source](current), body, proof=Proof.SIGNATURE, media_type=media_type
    )


def event_cases() -> Iterator[Any]:
    for table in ("hubspot", "salesforce", "geotab"):
        for row in TABLES[table]:
            for name in row.spans("sample"):
                marks = [pytest.mark.xfail(reason=NOT_YET[name])] if name in NOT_YET else []
                yield pytest.param(row, name, id=name, marks=marks)


EVIDENCE = {"yes": True, "no": False, "by comparison": None}


@pytest.mark.parametrize(("row", "name"), list(event_cases()))
def test_1_what_an_event_says(row, name):
    decoded = read_event(name, row)
    said = row.spans("kind")
    if said[0].startswith("ignored: "):
        assert dict(decoded.ignored) == {said[0].removeprefix("ignored: "): 1}
        assert not decoded.changes
        return
    if said[0].startswith("reconcile owed: "):
        assert decoded.reconcile == [said[0].removeprefix("reconcile owed: ")]
        assert not decoded.changes
        return
    changes = decoded.changes
    assert [one.kind for one in changes] == said
    assert [one.aspect for one in changes] == row.spans("aspect")
    shown = [one.evidence for one in changes if one.aspect in (Aspect.LINK, Aspect.HINT)]
    assert shown == [EVIDENCE[word] for word in row.spans("evidence")]
    for change in changes:
        assert change.record.id == its_record(name)
        check_mailbox(change, row["mailbox of"])


def its_record(name: str) -> str:
    if name in WITHOUT_SAMPLE:
        source, _ = WITHOUT_SAMPLE[name]
        return {Source.HUBSPOT: CONTACT.id, Source.SALESFORCE: ACCOUNT.id}.get(source, GEOTAB.id)
    return samples.SAMPLES[name].record_id


def check_mailbox(change: Change, word: str) -> None:
    if word == "the survivor":
        assert change.merged_ids
        assert change.record.id not in change.merged_ids
    elif word == "the contact":
        assert change.record.type is RecordType.CONTACT
        assert change.company_id == samples.COMPANY_ID
    else:
        assert word == "the record"
        assert not change.merged_ids
        assert change.company_id is None


def test_1_every_sample_and_every_other_event_has_a_row():
    named_ones = [
        name
        for table in ("hubspot", "salesforce", "geotab")
        for row in TABLES[table]
        for name in row.spans("sample")
    ]
    assert sorted(named_ones) == sorted([*samples.NAMES, *WITHOUT_SAMPLE])


def test_1_every_event_that_a_decoder_knows_has_a_row():
    sent = "HubSpot sends"
    known = {*deliveries.hubspot()._readers, "associationChange"}
    assert known <= column("hubspot", sent)
    changes = column("salesforce", "Salesforce sends, of an Account")
    assert set(change_events._READERS) <= changes
    assert {one for one in changes if one.startswith(change_events._GAP)} == {
        *(change_events._GAP + one for one in change_events._READERS),
        change_events._OVERFLOW,
    }
    types = {one for one in column("geotab", "Geotab's sender sends") if "customer." in one}
    assert types == geotab_source._LINKING | geotab_source._UNLINKING


def test_1_every_kind_and_every_aspect_has_a_row():
    tables = ("hubspot", "salesforce", "geotab")
    assert set(Kind) <= set().union(*(column(table, "kind") for table in tables))
    assert set(Aspect) == set().union(*(column(table, "aspect") for table in tables))
    assert {RecordType(record) for _, record in SLOT_OF} == set(RecordType)


def test_1_a_time_that_is_not_believed_is_that_of_receipt():
    minutes = int(re.search(r"more than (\d+) minutes ahead", PAGE)[1])
    for ahead, doubted in ((minutes * MINUTE, False), (minutes * MINUTE + 1, True)):
        assert Pending(1, NOW, linked(occurred_at=NOW + ahead)).clock_doubted is doubted
    assert Pending(1, NOW, linked(occurred_at=None)).occurred_at == NOW


# --- mailboxes in words


@dataclass
class Mailbox:
    """What a row says is in a mailbox, and what is remembered of its record."""

    record: Record = CONTACT
    changes: list[Change] = field(default_factory=list)
    marks: Marks = field(default_factory=Marks)
    former: bool = False
    policy: Policy = field(default_factory=Policy)

    def subject(self) -> Subject:
        pending = [Pending(n, NOW, change) for n, change in enumerate(self.changes, 1)]
        records = [self.record, *([FORMER] if self.former else [])]
        boxes = [
            Box(
                record,
                self.marks if record == self.record else Marks(),
                tuple(one for one in pending if one.change.record == record),
            )
            for record in records
        ]
        return Subject(tuple(boxes))


def add_change(box: Mailbox, words: str, at: int) -> None:
    record = box.record
    kind, *more = [part.strip() for part in words.split(",")]
    evidence = {"no evidence": False, "by comparison": None}
    given: dict[str, Any] = {"occurred_at": at}
    for word in more:
        if word in evidence:
            given["evidence"] = evidence[word]
        elif word in ("primary", "not primary"):
            given["primary"] = word == "primary"
        else:
            assert word == "of a merged record", word
            record, box.former = FORMER, True
    if kind == "merged":
        box.former = True
        box.changes.append(merged(record, FORMER.id, **given))
        return
    name, _, value = kind.partition(" ")
    box.changes.append(MAKERS[name](record, value, given))


def _linked(record: Record, value: str, given: dict[str, Any]) -> Change:
    hints = {
        "by reference": {"reference": REFERENCE},
        "by email": {"email": EMAIL},
        "by previous id": {"previous_id": PREVIOUS},
    }
    if value in hints:
        return hinted(record, **{**given, **hints[value]})
    return linked(record, value, **given)


def _unlinked(record: Record, value: str, given: dict[str, Any]) -> Change:
    only = value.removeprefix("from ") or None
    return unlinked(record, customer_id=only, **given)


def _simple(make: Callable[..., Change]) -> Callable[..., Change]:
    def made(record: Record, value: str, given: dict[str, Any]) -> Change:
        assert not value, value
        # Only what the link field says can be evidence.
        return make(record=record, **{"evidence": None, **given})

    return made


MAKERS: dict[str, Callable[..., Change]] = {
    "linked": _linked,
    "unlinked": _unlinked,
    "deleted": _simple(deleted),
    "restored": _simple(restored),
    "touched": _simple(touched),
    "associated": _simple(associated),
    "dissociated": _simple(dissociated),
}


def remember(box: Mailbox, words: str) -> None:
    if words.startswith("MATCH_BY="):
        ways = frozenset(words.removeprefix("MATCH_BY=").split(","))
        box.policy = Policy(match_by=ways)
    elif words == "an unlink":
        box.marks = Marks(claim="", home="", watermarks={Aspect.LINK: NOW - MINUTE})
    elif words == "a claim that is newer":
        box.marks = Marks(claim=str(N), home=str(N), watermarks={Aspect.LINK: LATER})
    elif words.startswith("claim "):
        box.marks = Marks(claim=words.removeprefix("claim "))
    elif found := re.fullmatch(r"held by (\d+) when deleted", words):
        box.marks = Marks(ended_on=int(found[1]))
    else:
        assert not words, words


def mailbox(row: Row, record: Record = CONTACT) -> Mailbox:
    box = Mailbox(record)
    for n, words in enumerate(row.spans("in the mailbox")):
        add_change(box, words, NOW + n * 1000)
    remember(box, row.span("remembered") if "remembered" in row.cells else "")
    return box


def fold(box: Mailbox, read: Truth | None) -> Folded:
    subject = box.subject()
    sifted = sift(subject, box.policy, reads=read is not None)
    return folding.fold(subject, sifted, box.policy, now=LATER, truth=read)


def wished(folded: Folded) -> str:
    """A wish in the words of the page."""
    if folded.absent:
        return "waits: record not found"
    if folded.refused:
        return f"dead_letter: {folded.refused[0].reason}"
    match folded.wish:
        case Latch(_, customer_id, evidence):
            return f"latch {customer_id}, {'with' if evidence else 'no'} evidence"
        case Fill(_, customer_id):
            return f"fill {customer_id}"
        case Find(_, reference, email, previous):
            ways = {"reference": reference, "email": email, "previous id": previous}
            return f"find by {' and '.join(name for name, value in ways.items() if value)}"
        case Release(_, only):
            return f"release from {only} only" if only else "release"
        case Keep(_, _, merged):
            return "keep, take over" if merged else "keep"
    (told,) = folded.told
    return f"{told.outcome}: {told.detail}"


# --- 2: what is dropped

LINK_AT = {Aspect.LINK: NOW}
DEFINITION = "04k5g0000008Rt1AAE"
LEFT_OUT = unlinked(ACCOUNT, left_out=True, definition=DEFINITION, evidence=None, identity="d")


def without(*names: str) -> Policy:
    return Policy(match_by=frozenset({"id", "link", "reference", "email"} - set(names)))


DROPPED: dict[str, tuple[Change, Marks, Policy]] = {
    "is older than the newest of its aspect that was decided": (
        linked(occurred_at=NOW - 1),
        Marks(watermarks=LINK_AT),
        Policy(),
    ),
    "is older, but the evidence that the remembered claim still lacks": (
        linked(occurred_at=NOW - 1),
        Marks(watermarks=LINK_AT, claim=str(N)),
        Policy(),
    ),
    "is as old as the newest that was decided, and another one": (
        linked(identity="b"),
        Marks(watermarks=LINK_AT, done={Aspect.LINK: frozenset({"a"})}),
        Policy(),
    ),
    "is the very change that was settled last": (
        linked(identity="a"),
        Marks(watermarks=LINK_AT, done={Aspect.LINK: frozenset({"a"})}),
        Policy(),
    ),
    "is that, put back by a replay": (
        linked(identity="a", replay_id="replay-1"),
        Marks(watermarks=LINK_AT, done={Aspect.LINK: frozenset({"a"})}),
        Policy(),
    ),
    "is touched, and its CRM cannot be read": (touched(), Marks(), Policy()),
    "has a Fusebill id, and MATCH_BY leaves out id": (linked(), Marks(), without("id")),
    "has an email, and MATCH_BY leaves out email": (
        hinted(email=EMAIL),
        Marks(),
        without("email"),
    ),
    "has a reference, and MATCH_BY leaves out reference": (
        hinted(reference=REFERENCE),
        Marks(),
        without("reference"),
    ),
    "has a previous id, and MATCH_BY leaves out link": (
        hinted(GEOTAB, previous_id=PREVIOUS),
        Marks(),
        without("link"),
    ),
    "leaves out the link field, and its message definition was never seen carrying it": (
        LEFT_OUT,
        Marks(),
        Policy(),
    ),
    "leaves out the link field, and its message definition was seen carrying it": (
        LEFT_OUT,
        Marks(),
        Policy(definitions=frozenset({DEFINITION})),
    ),
}


@each("dropped")
def test_2_what_is_dropped(row):
    change, marks, policy = DROPPED[row.plain("the change")]
    subject = Subject((Box(change.record, marks, (Pending(1, NOW, change),)),))
    sifted = sift(subject, policy, reads=False)
    if not row.spans("outcome"):
        assert row["outcome"] == "it is decided"
        assert (sifted.told, len(sifted.of(change.aspect))) == ([], 1)
        return
    (told,) = sifted.told
    assert f"{told.outcome}: {told.detail}" == row.span("outcome")
    assert not sifted.fresh


def test_2_for_how_long_repeats_are_known():
    assert f"`DEDUPE_HOURS` ({DEFAULT['dedupe_hours']})" in PAGE


def test_2_every_situation_has_a_row():
    assert [row.plain("the change") for row in TABLES["dropped"]] == list(DROPPED)


# --- 3: what is wished


def read_of(words: str) -> Truth:
    if words in ("deleted", "not found"):
        presence = Presence.DELETED if words == "deleted" else Presence.ABSENT
        return truth(link="" if words == "deleted" else None, presence=presence)
    given: dict[str, Any] = {}
    for part in words.split(", "):
        name, _, value = part.partition(" ")
        if name == "link":
            given["link"] = "" if value == "empty" else value
        elif part == "set since":
            given["link_set_at"] = NOW
        else:
            given[name] = value
    return truth(**given)


@each("read")
def test_3_what_is_wished_with_read_access(row):
    assert wished(fold(mailbox(row), read_of(row.span("the CRM says now")))) == row.span("wished")


@each("myadmin")
def test_3_what_is_wished_with_myadmin(row):
    there = {"yes": Presence.PRESENT, "no": Presence.DELETED}
    read = truth(GEOTAB, None, there[row.span("an active contact carries the id")])
    assert wished(fold(mailbox(row, GEOTAB), read)) == row.span("wished")


@each("unread")
def test_3_what_is_wished_without_read_access(row):
    folded = fold(mailbox(row), None)
    told = [one for one in folded.told if one.pending.seq == len(row.spans("in the mailbox"))]
    folded.told = told or folded.told[-1:]
    assert wished(folded) == row.span("wished")


def test_3_for_how_long_a_merged_id_stands_for_the_survivor():
    days = int(re.search(r"for (\d+) days the\s+merged id", PAGE)[1])
    assert days * 24 * 60 * MINUTE == ALIAS_MS


def test_3_every_kind_has_a_row():
    of_records = set(Kind) - {Kind.ASSOCIATED, Kind.DISSOCIATED}
    for table in ("read", "unread"):
        words = {one.partition(" ")[0].rstrip(",") for one in column(table, "in the mailbox")}
        assert words == of_records
    words = {one.partition(",")[0] for one in column("company", "in the mailbox")}
    assert {Kind.ASSOCIATED, Kind.DISSOCIATED} <= words


def test_3_every_wish_is_explained_and_arises():
    explained = set(re.findall(r"^\| (\w+) \| ", PAGE, re.MULTILINE)) & {
        "latch",
        "fill",
        "find",
        "release",
        "keep",
    }
    assert explained == {one.__name__.lower() for one in get_args(folding.Wish)}
    arise = {
        one.partition(" ")[0].rstrip(",")
        for table in ("read", "unread", "myadmin")
        for one in column(table, "wished")
    }
    assert explained <= arise


@pytest.mark.parametrize(
    ("change", "waits"),
    [
        (deleted(), True),
        (deleted(ACCOUNT), True),
        (dissociated(COMPANY.id), True),
        (unlinked(), False),
        (unlinked(GEOTAB), False),
    ],
)
def test_3_what_waits_for_an_explanation(change, waits):
    box = Mailbox(change.record, [change])
    sifted = sift(box.subject(), box.policy, reads=False)
    folded = folding.fold(box.subject(), sifted, box.policy, now=NOW, truth=None)
    assert bool(folded.waits) is waits
    assert folded.wait_ms == (box.policy.grace_ms if waits else 0)
    assert Policy().grace_ms == Settings.model_fields["release_grace_seconds"].default * 1000


# --- customers in words


def answered(
    parties: Sequence[planning.Party],
    world: Iterable[Customer],
    policy: Policy,
    others: Mapping[Record, planning.Party] = {},
    **known: Any,
) -> planning.Plan | planning.Need:
    """Plan, giving what is asked for: customers, and records that are in the way."""
    there = {one.id: one for one in world}
    read: dict[int, Customer | None] = {}
    joined = list(parties)
    for _ in range(20):
        what = planning.plan(joined, planning.Known(customers=read, **known), policy)
        if isinstance(what, planning.ReadCustomers):
            read |= {one: there.get(one) for one in what.ids}
        elif isinstance(what, planning.Join):
            joined.append(others.get(what.record) or bystander(what.record, there.values()))
        else:
            return what
    raise AssertionError("it asks without end")


def bystander(record: Record, world: Iterable[Customer], **more: Any) -> planning.Party:
    return party(Keep(record, ""), holders(record, world), **more)


def holders(record: Record, world: Iterable[Customer]) -> dict[int, Any]:
    return {one.id: "holds" for one in world if one.slots[record.slot] == record.id}


def outcome_of(what: planning.Plan | planning.Need, record: Record) -> str:
    """What becomes of a record, in the words of the page."""
    match what:
        case planning.Missing() | planning.NoMatch():
            return "waits: customer_not_found"
        case planning.Sweep():
            return "waits: a sweep"
        case planning.Plan():
            return in_words(what.results[record])
    raise AssertionError(what)


def in_words(result: planning.Result) -> str:
    match result:
        case planning.Bury(reason):
            return f"dead_letter: {reason}"
        case planning.Done(outcome):
            return str(outcome)
        case planning.Leave(detail, outcome=outcome):
            return f"{outcome}: {detail}"


def wish_of(words: str, record: Record) -> folding.Wish:
    if found := re.fullmatch(r"latch (\d+), (with|no) evidence", words):
        return Latch(record, int(found[1]), found[2] == "with")
    if found := re.fullmatch(r"fill (\d+)", words):
        return Fill(record, int(found[1]))
    if found := re.fullmatch(r"release(?: from (\d+) only)?", words):
        return Release(record, int(found[1]) if found[1] else None)
    return {
        "find by reference": Find(record, reference=REFERENCE),
        "find by email": Find(record, email=EMAIL),
        "find by previous id": Find(record, previous=PREVIOUS),
        "keep": Keep(record, ""),
        "keep, take over": Keep(record, "", merged=True),
    }[words]


def customers_of(words: Iterable[str], record: Record) -> tuple[list[Customer], bool]:
    world: list[Customer] = []
    swept = False
    held = {
        "is free": SlotState.EMPTY,
        "holds it": record.id,
        "holds another": ANOTHER.id,
        "holds the previous id": PREVIOUS,
        "holds the merged record": FORMER.id,
    }
    for one in words:
        if one == "a sweep found nobody":
            swept = True
            continue
        id_, _, state = one.partition(" ")
        if state != "is not there":
            world.append(customer(int(id_), **{record.slot: held[state]}))
    return world, swept


# --- 4: which customer


@each("customer")
def test_4_which_customer(row):
    words = row.span("wished")
    record = GEOTAB if "previous" in words else CONTACT
    wish = wish_of(words, record)
    world, swept = customers_of(row.spans("customers"), record)
    former = "take over" in words or any("merged" in one for one in row.spans("customers"))
    links = holders(record, world)
    if former:
        links |= holders(FORMER, world)
    found = {"nobody": (), "it cannot be asked": None}
    hits = row.spans("the query finds")
    result = found[hits[0]] if hits and hits[0] in found else tuple(int(one) for one in hits)
    query = Query("email" if "email" in words else "reference", EMAIL if "email" in words else "")
    if "reference" in words:
        query = Query("reference", REFERENCE)
    what = answered(
        [party(wish, links, former=[FORMER] if former else [])],
        world,
        without(),
        found={query: result},
        swept=swept,
        previous_links=holders(named(GEOTAB, PREVIOUS), world),
    )
    assert outcome_of(what, record) == row.span("outcome")


def test_4_the_defaults_that_it_names():
    fields = Settings.model_fields
    default = ",".join(fields["match_by"].default)
    assert f"`MATCH_BY` (default `{default}`)" in PAGE
    order_named = [
        "the Fusebill id in the link field",
        "holds the record",
        "whose `reference`",
        "email",
    ]
    places = [PAGE.index(words, PAGE.index("## 4")) for words in order_named]
    assert places == sorted(places)


def test_4_an_explicit_id_is_final():
    """A change that names a customer and a reference is a latch, and nothing looks further."""
    box = Mailbox(changes=[linked(reference=REFERENCE)])
    assert wished(fold(box, None)) == f"latch {N}, with evidence"
    what = answered([party(Latch(CONTACT, N, True))], [], Policy())
    assert outcome_of(what, CONTACT) == "waits: customer_not_found"


@pytest.mark.parametrize("sign", re.findall(r"`(.)`", PAGE[PAGE.index("query grammar (") :][:60]))
def test_4_what_cannot_be_asked(sign):
    from sync_worker.fusebill import find  # noqa: PLC0415 - this test alone needs it

    assert not find.queryable(f"NG{sign}42")


def test_4_all_that_cannot_be_asked_is_named():
    from sync_worker.fusebill import find  # noqa: PLC0415 - this test alone needs it

    listed = re.findall(r"`(.)`", PAGE[PAGE.index("query grammar (") :][:60])
    assert set(listed) == find._SIGNS


# --- 5: taken slots


@dataclass
class Taken:
    """A row of table 5: who holds what, and who is in the way."""

    record: Record = CONTACT
    slot: str | SlotState = SlotState.EMPTY
    marks: Marks = field(default_factory=Marks)
    changes: tuple[Change, ...] = ()
    held: list[int] = field(default_factory=list)
    others: dict[Record, planning.Party] = field(default_factory=dict)
    former: bool = False
    known: dict[str, Any] = field(default_factory=dict)
    succeeds: str | None = None

    def plan(self, *, evidence: bool, policy: Policy) -> planning.Plan | planning.Need:
        slot = self.record.slot
        world = [customer(N, **{slot: self.slot}), customer(THIRD), customer(OTHER)]
        world = [one for one in world if one.id not in self.held]
        world += [customer(one, **{slot: self.record.id}) for one in self.held]
        links = holders(self.record, world)
        former = [FORMER] if self.former else []
        if former:
            links |= holders(FORMER, world)
        wish = Latch(self.record, N, evidence, self.succeeds)
        first = party(wish, links, marks=self.marks, former=former, changes=self.changes)
        return answered([first], world, policy, self.others, **self.known)


AT_HOME = Marks(home=str(OTHER), claim=str(OTHER))
ELSEWHERE = Marks(home=str(THIRD), claim=str(THIRD))


def in_the_way(wish: folding.Wish, **more: Any) -> dict[Record, planning.Party]:
    return {ANOTHER: party(wish, {N: "holds"}, **more)}


SLOT_WORDS: dict[str, Callable[[Taken], None]] = {
    "nothing": lambda one: None,
    "another": lambda one: put(one, ANOTHER.id),
    "another, which claims 8714402": lambda one: put(
        one, ANOTHER.id, others=in_the_way(Keep(ANOTHER, ""), claims=str(N))
    ),
    "another, put there by a replacement 59 minutes ago": lambda one: put(
        one, ANOTHER.id, known={"replaced": {N: LATER - 59 * MINUTE}, "now": LATER}
    ),
    "another, put there by a replacement 61 minutes ago": lambda one: put(
        one, ANOTHER.id, known={"replaced": {N: LATER - 61 * MINUTE}, "now": LATER}
    ),
    "another, which is released now": lambda one: put(
        one, ANOTHER.id, others=in_the_way(Release(ANOTHER, None))
    ),
    "another, which moves to 8714403 now": lambda one: put(
        one,
        ANOTHER.id,
        others=in_the_way(Latch(ANOTHER, THIRD, True), marks=Marks(home=str(N), claim=str(N))),
    ),
    "another, which moves to 8714401 in exchange": lambda one: put(
        one,
        ANOTHER.id,
        others=in_the_way(Latch(ANOTHER, OTHER, True), marks=Marks(home=str(N), claim=str(N))),
    ),
    "a record that was merged into it": lambda one: put(one, FORMER.id, former=True),
    "the id that it had before (Geotab)": lambda one: put(
        one, PREVIOUS, record=GEOTAB, succeeds=PREVIOUS
    ),
}

HOLDER_WORDS: dict[str, Callable[[Taken], None]] = {
    "nobody": lambda one: None,
    "8714401, which it claimed before": lambda one: hold(one, AT_HOME, OTHER),
    "8714401, which an earlier change names that is not settled yet": lambda one: hold(
        one, ELSEWHERE, OTHER, changes=(linked(CONTACT, str(OTHER)), linked(CONTACT, str(N)))
    ),
    "8714401, and it never was anywhere by its claim": lambda one: hold(one, Marks(), OTHER),
    "8714401, where another hand put it": lambda one: hold(one, ELSEWHERE, OTHER),
    "8714401 and 8714403": lambda one: hold(one, AT_HOME, OTHER, THIRD),
    "8714401, found by the sweep after Fusebill refused the latch": lambda one: hold(
        one, Marks(), OTHER, refused=True
    ),
}


def put(one: Taken, slot: str, **more: Any) -> None:
    one.slot = slot
    for name, value in more.items():
        setattr(one, name, value)


def hold(
    one: Taken, marks: Marks, *held: int, changes: tuple[Change, ...] = (), **known: Any
) -> None:
    one.marks, one.held, one.changes = marks, list(held), changes
    one.known = one.known | known


@each("taken")
@pytest.mark.parametrize("conflict", get_args(Settings.model_fields["on_conflict"].annotation))
def test_5_taken_slots(row, conflict):
    one = Taken()
    SLOT_WORDS[row["the slot of 8714402 holds"]](one)
    HOLDER_WORDS[row["the record is held by"]](one)
    policy = Policy(replace=conflict == "replace")
    what = one.plan(evidence=row.span("evidence") == "yes", policy=policy)
    said = row.span(f"`ON_CONFLICT={conflict}`")
    assert outcome_of(what, one.record) == said
    if not said.startswith(("latched", "moved")):
        assert what.writes == ()


def test_5_every_situation_has_a_row():
    rows = TABLES["taken"]
    assert {row["the slot of 8714402 holds"] for row in rows} == set(SLOT_WORDS)
    assert {row["the record is held by"] for row in rows} == set(HOLDER_WORDS)


def test_5_the_numbers_that_it_names():
    assert planning.REPLACED_AGAIN_MS == 60 * MINUTE
    assert f"A plan moves up to {planning.MOST_PARTIES} records" in PAGE


# --- 6: the company slot


def company_case(row: Row) -> tuple[Mailbox, list[Customer]]:
    words = row["in the mailbox"]
    own = "of the company itself" in words
    box = Mailbox(COMPANY if own else CONTACT, policy=Policy(company=row.span("policy")))
    add_change(box, row.span("in the mailbox"), NOW)
    if "whose company is remembered" in words:
        box.marks = Marks(company=COMPANY.id)
    if "came with it to 8714401" in words:
        home = str(OTHER)
        box.marks = Marks(company=COMPANY.id, brought=(COMPANY.id, OTHER), home=home, claim=home)
    return box, company_world(box, row["the company slot of 8714402 holds"], words)


def company_world(box: Mailbox, holds: str, words: str) -> list[Customer]:
    holds, _, beyond = holds.partition("; ")
    slots = {
        "nothing": SlotState.EMPTY,
        "it": COMPANY.id,
        "one that came through this contact": OTHER_COMPANY,
        "one that came otherwise": OTHER_COMPANY,
    }
    if holds == "one that came through this contact":
        box.marks = Marks(brought=(OTHER_COMPANY, N), company=OTHER_COMPANY)
    contact = CONTACT.id
    if beyond == "no customer holds the contact" or "8714401" in words or box.record == COMPANY:
        contact = SlotState.EMPTY
    world = [customer(N, hubspot_contact=contact, hubspot_company=slots[holds])]
    if beyond == "8714403 holds the company":
        world.append(customer(THIRD, hubspot_company=COMPANY.id))
    if "8714401" in words:
        world.append(customer(OTHER, hubspot_contact=CONTACT.id, hubspot_company=COMPANY.id))
    return world


def settle(box: Mailbox, world: list[Customer]) -> tuple[Settlement, planning.Plan | None]:
    """All that a convergence decides, without its calls."""
    subject = box.subject()
    sifted = sift(subject, box.policy, reads=False)
    folded = folding.fold(subject, sifted, box.policy, now=LATER, truth=None)
    one = Participant(subject, sifted, None, folded)
    settlement = Settlement()
    if folded.wish is None:
        outcome.add(settlement, one, None)
        return settlement, None
    first = planning.Party(
        subject, folded.wish, holders(box.record, world), folded.company, one.claims
    )
    links = holders(COMPANY, world)
    plan = answered([first], world, box.policy, company_links=links, swept=True)
    assert isinstance(plan, planning.Plan), plan
    outcome.add(
        settlement,
        one,
        plan.results[box.record],
        company=plan.companies.get(box.record),
        brings=plan.brings.get(box.record),
    )
    return settlement, plan


@each("company")
def test_6_the_company_slot(row):
    box, world = company_case(row)
    settlement, plan = settle(box, world)
    (verdict,) = settlement.verdicts
    becomes = row["what becomes of it"]
    if becomes == "it stays":
        assert verdict.outcome == Outcome.UNLATCHED
        assert plan.writes[0].after[Slot.HUBSPOT_COMPANY] == COMPANY.id
        return
    said, _, detail = row.span("what becomes of it").partition(": ")
    told_by_contact = verdict.pending.change.aspect is not Aspect.COMPANY and box.record == CONTACT
    assert becomes.endswith("with the contact") is told_by_contact
    if told_by_contact:
        assert plan.companies[CONTACT].outcome == said
        assert plan.writes[-1].after[Slot.HUBSPOT_COMPANY] == COMPANY.id
        return
    assert verdict.outcome == said
    if said in ("unchanged", "ignored"):
        assert verdict.detail == detail
    assert bool(plan and plan.writes) is (said in ("latched", "unlatched", "moved"))


def test_6_every_policy_has_a_row():
    assert column("company", "policy") == set(get_args(CompanyPolicy))
    assert Settings.model_fields["hubspot_latch_company"].default == "primary"


# --- 7: calls


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    """An address at which nobody listens: a call is made out, told, and goes nowhere."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


UNLATCH_PATH = "/v1/Salesforce/TheirUnlatch"


def value(text: str) -> str | SlotState:
    return SlotState.EMPTY if text in ("", "nothing") else text


@each("calls")
def test_7_calls(row, nobody):
    slot = Slot(row.span("slot")) if row.span("slot") else Slot.GEOTAB_CUSTOMER
    before, after = (value(row.plain(name)) for name in ("before", "after"))
    beside = {
        Slot.HUBSPOT_CONTACT: Slot.HUBSPOT_COMPANY,
        Slot.HUBSPOT_COMPANY: Slot.HUBSPOT_CONTACT,
    }.get(slot)
    there = customer(N, **{slot: before})
    if beside:
        there = customer(N, **{slot: before, beside: value(row.plain("beside it"))})
    slots = order.SET_TOGETHER.get(slot, (slot,))
    writes = order.writes([there], {N: {slot: after}}, slots)
    if "unlatch_unsupported" in row["call"]:
        wish = Release(ACCOUNT, None)
        what = answered([party(wish, holders(ACCOUNT, [there]))], [there], Policy())
        assert outcome_of(what, ACCOUNT) == f"dead_letter: {Reason.UNLATCH_UNSUPPORTED}"
        assert what.writes == ()
        assert row["body"] == "none"
    elif row["call"] == "no call":
        assert writes == ()
        assert row["body"] == "none"
    else:
        (write,) = writes
        path = UNLATCH_PATH if row["call"].startswith("the path") else None
        call = row.span("call") if path is None else f"POST {path}"
        body = row.span("body")
        assert sent(nobody, write, path) == (f"{call} {body}" if body else call)


def sent(base_url: str, write: order.Write, path: str | None) -> str:
    calls: list[Attempt] = []
    client = FusebillClient(
        base_url,
        "MDpkZXY=",
        read_timeout=1,
        salesforce_unlatch_path=path,
        on_call=calls.append,
    )
    with client, pytest.raises(errors.Transient):
        carry_out.issue(client, write)
    (call,) = calls
    return call.call


def test_7_every_slot_has_its_calls():
    assert column("calls", "slot") == set(Slot)
    seconds = int(re.search(r"read at most (\d+) seconds before", PAGE)[1])
    assert seconds == carry_out.PRESERVE_SECONDS


X, Y = named(GEOTAB, "X"), named(GEOTAB, "Y")
ORDERS = {
    "X moves from 8714401 to 8714402": ({OTHER: "X", N: ""}, {OTHER: "", N: "X"}),
    "X moves from 8714401 to 8714402, Y from 8714402 to 8714403": (
        {OTHER: "X", N: "Y", THIRD: ""},
        {OTHER: "", N: "X", THIRD: "Y"},
    ),
    "X of 8714401 and Y of 8714402 change places": ({OTHER: "X", N: "Y"}, {OTHER: "Y", N: "X"}),
    "X takes the place of Y at 8714402": ({N: "Y"}, {N: "X"}),
}


@each("order")
def test_7_the_order_of_calls(row):
    before, after = ORDERS[row["plan"]]
    slot = Slot.GEOTAB_CUSTOMER
    there = [customer(id_, **{slot: value(held)}) for id_, held in before.items()]
    target = {id_: {slot: value(held)} for id_, held in after.items()}
    made = order.writes(there, target, (slot,))
    said = [
        f"{one.customer_id}: {held if isinstance(held := one.after[slot], str) else 'nothing'}"
        for one in made
    ]
    assert said == row.spans("calls, in this order")


# --- 8: what Fusebill answers

CALL = answers.Call("POST", "/v1/HubSpot/latchCustomer", N, b"{}")
FOLLOWS: dict[str, type[errors.FusebillError]] = {
    "tried again": errors.Transient,
    "tried 3 times more, then rejected": errors.RelayedNotFound,
    "waits for the key": errors.Unauthorized,
    "customer_not_found": errors.CustomerNotFound,
    "rejected": errors.Rejected,
    "read and planned again once, then rejected": errors.Rejected,
    "waits for the limit": errors.RateLimited,
}


@each("answers")
def test_8_what_fusebill_answers(row):
    text = row.span("text") if row["text"].startswith("`") else "No HTTP resource was found"
    body = json.dumps({"ErrorId": 0, "Errors": [{"Key": "Api Error", "Value": text}]}).encode()
    if row["text"].startswith("any other"):
        body = json.dumps({"Message": text}).encode()
    status = row.span("status")
    answer = answers.Answer(int(status), body) if status else answers.Answer(fault="time-out")
    error = answers.classify(CALL, answer, answers.read_customer, at=NOW)
    assert type(error) is FOLLOWS[row.plain("what follows")]
    assert type(error) in {*converge._TROUBLE, *converge._PUT_OFF}
    again = row["what follows"].startswith("read and planned again once")
    assert again is (status == str(converge.CONFLICT))


def test_8_what_may_have_changed_meanwhile_is_read_again_once():
    error = errors.Rejected("", attempt(converge.CONFLICT))
    gatherer = SimpleNamespace(
        forget=lambda: None, without_company=False, participants=[SimpleNamespace(record=CONTACT)]
    )
    plan = planning.Plan(writes=(), results={}, companies={}, brings={}, releases=())
    links = SimpleNamespace(swept_since=lambda slot: 0)
    claim = Claim(CONTACT.mailbox, "token")
    assert worker(links=links)._after_refusal(error, claim, gatherer, plan, again=False)
    with pytest.raises(errors.Rejected):
        worker(links=links)._after_refusal(error, claim, gatherer, plan, again=True)


@pytest.mark.parametrize("text", ["already latched", "in use by another customer", "duplicate"])
def test_8_a_refusal_that_names_another_holder_asks_for_one_sweep(text):
    refused = errors.Rejected("", Attempt(NOW, "POST /", 400, text))
    gatherer = SimpleNamespace(
        without_company=False, participants=[SimpleNamespace(record=CONTACT)]
    )
    plan = planning.Plan(writes=(), results={}, companies={}, brings={}, releases=())
    cases = ((0, 9, converge.NeedsSweep), (5, 4, converge.NeedsSweep), (5, 6, errors.Rejected))
    for refused_at, swept, error in cases:
        links = SimpleNamespace(swept_since=lambda slot, swept=swept: swept)
        claim = Claim(CONTACT.mailbox, "token", refused_at=refused_at)
        with pytest.raises(error):
            worker(links=links)._after_refusal(refused, claim, gatherer, plan, again=False)


def test_8_everything_that_may_follow_has_a_row():
    assert {row.plain("what follows") for row in TABLES["answers"]} == set(FOLLOWS)
    assert set(FOLLOWS.values()) == set(errors.FusebillError.__subclasses__())


# --- 9 and 10: outcomes and dead letters


@each("outcomes")
def test_9_what_an_outcome_does(row):
    told = Outcome(row.span("outcome"))
    assert row.span("true now") == ("yes" if told in SATISFIED else "no")
    assert row.span("decided") == ("yes" if told in DECIDED else "no")
    if told in IN_DRY_RUN.values():
        real = next(name for name, dry in IN_DRY_RUN.items() if dry is told)
        assert row.spans("means")[-1] == real


def test_9_every_outcome_has_one_row():
    assert [row.span("outcome") for row in TABLES["outcomes"]].count("latched") == 1
    assert len(TABLES["outcomes"]) == len(column("outcomes", "outcome"))
    assert column("outcomes", "outcome") == set(Outcome)


DEFAULT = {name: one.default for name, one in Settings.model_fields.items()}


def tries_more(trouble: retry.Trouble) -> tuple[int, retry.GiveUp]:
    """How often it is tried again, and what then."""
    failures, more = 0, 0
    while True:
        decision = retry.after(
            trouble,
            failures=failures,
            schedule=DEFAULT["retry_schedule_seconds"],
            not_found_steps=DEFAULT["not_found_retries"],
            jitter=0,
        )
        if isinstance(decision, retry.GiveUp):
            return more, decision
        failures, more = decision.failures, more + 1


COMES = {
    Reason.CUSTOMER_NOT_FOUND: retry.Trouble.MISSING_CUSTOMER,
    Reason.RETRIES_EXHAUSTED: retry.Trouble.TRANSIENT,
    Reason.REJECTED: retry.Trouble.REJECTED,
}
AT_ONCE = {Reason.AMBIGUOUS_MATCH, Reason.CONFLICT, Reason.UNLATCH_UNSUPPORTED, Reason.UNDECODABLE}


@each("reasons")
def test_10_how_soon_a_dead_letter_comes(row):
    reason = Reason(row.span("reason"))
    if reason is Reason.WORKER_CRASHED:
        assert row["comes"] == f"after `{DEFAULT['max_crashes']}` crashes"
        return
    more = 0
    if reason in COMES:
        more, given_up = tries_more(COMES[reason])
        assert given_up.reason is reason
    else:
        assert reason in AT_ONCE
    assert row["comes"] == (f"after `{more}` tries more" if more else "at once")


def test_10_every_reason_has_one_row():
    assert [row.span("reason") for row in TABLES["reasons"]] == list(Reason)


# --- 11: what waits


def seconds_of(words: str) -> float:
    """A time of the page in seconds."""
    unit = {"s": 1, "min": 60, "h": 3600}
    return sum(float(n) * unit[name] for n, name in re.findall(r"([\d.]+) (s|min|h)\b", words))


@each("schedule")
def test_11_the_schedule(row):
    *steps, whole = [seconds_of(cell) for head, cell in row.cells.items() if head != "step"]
    assert tuple(steps) == DEFAULT["retry_schedule_seconds"]
    assert whole == sum(steps) // 60 * 60
    assert round(retry.JITTER * 100) == 20
    assert PAGE.count("±20 %") > 1


TRIES = {
    "Fusebill: a connection, a time-out, a 5xx and the like": errors.Transient,
    "Fusebill relays a not found of HubSpot or Salesforce": errors.RelayedNotFound,
    "the customer that is named is not there, or nobody has the reference": (
        converge.NoSuchCustomer
    ),
    "the record is not found in its CRM, and nothing says that it was deleted": (
        converge.NoSuchRecord
    ),
    "the customer that is named was there before and is gone": converge.GoneCustomer,
    "Fusebill refuses it": errors.Rejected,
}


@each("tries")
def test_11_what_walks_the_schedule(row):
    error = TRIES[row["what failed"].replace("*", "")]
    more, given_up = tries_more(converge._TROUBLE[error])
    assert str(more) == row.span("tries more")
    if error is not converge.NoSuchRecord:
        assert given_up.reason == row.span("then")


def test_11_a_record_that_is_not_found_ends_as_the_table_says():
    (row,) = [one for one in TABLES["tries"] if "not found in its CRM" in one["what failed"]]
    box = Mailbox(changes=[linked()])
    one = Participant(box.subject(), sift(box.subject(), box.policy, reads=True), None, Folded())
    given_up = tries_more(retry.Trouble.MISSING_CUSTOMER)[1]
    gatherer = SimpleNamespace(participants=[one])
    error = converge.NoSuchRecord("")
    plan = worker()._give_up(Claim(CONTACT.mailbox, "token"), gatherer, error, given_up)
    assert in_words(plan.results[CONTACT]) == row.span("then")
    assert plan.writes == ()


def attempt(status: int | None = None) -> Attempt:
    return Attempt(NOW, "GET /", status)


def worker(jitter: float = 0, inbox: Any = None, links: Any = None) -> converge.Converger:
    """One that is asked what it would do, and so speaks to nobody."""
    account: Any = SimpleNamespace(client=SimpleNamespace(), links=links)
    settings = Settings(_env_file=None)
    return converge.Converger(inbox, account, settings, jitter=lambda: jitter)


def judged(error: Exception, jitter: float = 0) -> float:
    """How long a mailbox waits after an error; no try may be used up."""
    claim = Claim("hubspot:1:contact:1", "token", now=NOW, failures=2)
    gatherer: Any = SimpleNamespace(claim=claim, calls=SimpleNamespace(shut=False))
    wait = worker(jitter)._judge(gatherer, error)
    assert isinstance(wait, retry.Wait)
    assert wait.failures == 2
    return wait.seconds


def limited(reset_in: float | None) -> errors.RateLimited:
    reset_at = None if reset_in is None else NOW / 1000 + reset_in
    return errors.RateLimited("", attempt(429), reset_at=reset_at)


def default_of(name: str) -> Callable[[], list[float]]:
    return lambda: [float(DEFAULT[name])]


WAITS: dict[str, Callable[[], list[float]]] = {
    "Fusebill's rate limit, whose reset is named": lambda: [
        judged(limited(-5)),
        judged(limited(86_400)),
    ],
    "Fusebill's rate limit, whose reset is not named": lambda: [judged(limited(None))],
    "the budget of Fusebill calls": lambda: [judged(Exhausted(1.5))],
    "the CRM: no answer, or none that can be believed": lambda: [
        judged(crm.Unavailable("", attempt(), outage=True))
    ],
    "the CRM's rate limit": lambda: [judged(crm.RateLimited("", attempt(429), seconds=None))],
    "the CRM: it forbids this record or field": lambda: [judged(crm.Forbidden("", attempt(403)))],
    "the end of an outage of Fusebill or of the CRM": lambda: [gates.PROBE_SECONDS],
    "credentials that Fusebill or the CRM takes": lambda: [gates.REFUSED_PROBE_SECONDS],
    "room in the store, which is full": lambda: [converge.FULL_SECONDS],
    "an operator who has paused everything": list,
    "its turn to be worked on alone, as its worker vanished": lambda: [TURN_MS / 1000],
    "another worker that has one of its customers or records": lambda: [
        judged(Busy(), 1),
        judged(Busy()),
    ],
    "a sweep of all customers": lambda: [judged(converge.NeedsSweep())],
    "approval of releases": lambda: [judged(converge.Braked())],
    "the merge or association that may explain a release": default_of("release_grace_seconds"),
    "a write whose answer was lost, which may yet land": default_of("late_write_seconds"),
    "the end of the lease of a worker that vanished": default_of("lease_seconds"),
    "a newer version, as this one cannot read the change": lambda: [UNREADABLE_SECONDS],
}

JITTERED: dict[str, Callable[[], Exception]] = {
    "the CRM: no answer, or none that can be believed": lambda: crm.Unavailable(
        "", attempt(), outage=True
    ),
    "the CRM's rate limit": lambda: crm.RateLimited("", attempt(429), seconds=None),
    "the CRM: it forbids this record or field": lambda: crm.Forbidden("", attempt(403)),
}


@each("waits")
def test_11_how_long_it_waits(row):
    what = row["it waits for"]
    stated = [seconds_of(span) for span in row.spans("for") if re.match(r"[\d.]+ ", span)]
    assert stated == WAITS[what]()
    jittered = "±20 %" in row["for"]
    assert jittered is (what in JITTERED)
    if jittered:
        assert judged(JITTERED[what](), 1) == pytest.approx(stated[-1] * 1.2)
    assert ("what it names" in row["for"]) is (what == "the CRM's rate limit")
    assert ("until then" in row["for"]) is what.endswith("is named")
    for setting in row.spans("setting"):
        assert setting.lower() in Settings.model_fields


def test_11_every_wait_has_a_row():
    assert [row["it waits for"] for row in TABLES["waits"]] == list(WAITS)
    assert set(crm.CrmError.__subclasses__()) == {
        crm.Unavailable,
        crm.RateLimited,
        crm.Unauthorized,
        crm.Forbidden,
    }
    put_off = {Busy, converge.NeedsSweep, converge.Braked, NewerFormat, crm.CrmError, StoreFull}
    put_off |= {errors.Unauthorized, Exhausted}
    assert put_off == set(converge._PUT_OFF)
    assert set(retry.Trouble) == {converge._TROUBLE[error] for error in TRIES.values()} | {
        retry.Trouble.RATE_LIMITED
    }


def test_11_what_news_makes_a_mailbox_due_at_once():
    assert "News of the record's link or existence makes a mailbox in" in PAGE
    assert {Aspect.LINK, Aspect.EXISTENCE} == URGENT_ASPECTS


def test_11_what_a_crm_names_is_waited_for():
    assert judged(crm.RateLimited("", attempt(429), seconds=7)) == 7


def test_11_the_brake():
    assert HELD_SECONDS == 3600
    assert DEFAULT["max_releases_per_hour"] is None
    assert "the larger of 50 and 2 %" in PAGE.replace("\n", " ")
    assert [limit_with(links) for links in (0, 2_500, 2_550, 10_000)] == [50, 50, 51, 200]


def limit_with(known_links: int) -> int:
    """How many releases an hour may hold with so many links known."""
    limits: list[int] = []

    def brake(claim: Claim, releases: Any, *, limit: int) -> Braking:
        limits.append(limit)
        return Braking.FREE

    links = SimpleNamespace(count=lambda: known_links)
    plan = planning.Plan(
        writes=(), results={}, companies={}, brings={}, releases=((N, CONTACT.id),)
    )
    one = worker(inbox=SimpleNamespace(brake=brake), links=links)
    assert one._passes_brake(Claim(CONTACT.mailbox, "token"), plan)
    return limits[0]
