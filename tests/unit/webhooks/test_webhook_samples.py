"""Samples: each is authentic to its reader and says what its name says."""

from __future__ import annotations

import json
from urllib.parse import unquote

import pytest

from sync_worker.domain import Aspect, Kind, Source
from tests.unit.webhooks.deliveries import NOW, SETTINGS, delivery, settings
from webhooks import samples
from webhooks.sources import Proof
from webhooks.sources.geotab import GeotabReader
from webhooks.sources.hubspot import HubSpotReader
from webhooks.sources.salesforce import SalesforceReader

READERS = {
    "hubspot": HubSpotReader,
    "salesforce": SalesforceReader,
    "geotab": GeotabReader,
}
LINK, HINT, EXISTENCE, COMPANY = Aspect.LINK, Aspect.HINT, Aspect.EXISTENCE, Aspect.COMPANY
LINKED, UNLINKED, DELETED = (Kind.LINKED, LINK), (Kind.UNLINKED, LINK), (Kind.DELETED, EXISTENCE)
TOUCHED, RESTORED = (Kind.TOUCHED, EXISTENCE), (Kind.RESTORED, EXISTENCE)
MERGED, HINTED = (Kind.MERGED, EXISTENCE), (Kind.LINKED, HINT)
ASSOCIATED, DISSOCIATED = (Kind.ASSOCIATED, COMPANY), (Kind.DISSOCIATED, COMPANY)
SAYS = {
    "hubspot.contact.linked": [LINKED],
    "hubspot.contact.unlinked": [UNLINKED],
    "hubspot.contact.email": [HINTED],
    "hubspot.contact.reference": [HINTED],
    "hubspot.contact.creation": [TOUCHED],
    "hubspot.contact.deletion": [DELETED],
    "hubspot.contact.privacyDeletion": [DELETED],
    "hubspot.contact.restore": [RESTORED],
    "hubspot.contact.merge": [MERGED],
    "hubspot.contact.association": [ASSOCIATED],
    "hubspot.contact.association.other": [ASSOCIATED],
    "hubspot.contact.dissociation": [DISSOCIATED],
    "hubspot.contact.dissociation.other": [DISSOCIATED],
    "hubspot.company.linked": [LINKED],
    "hubspot.company.unlinked": [UNLINKED],
    "hubspot.company.reference": [HINTED],
    "hubspot.company.creation": [TOUCHED],
    "hubspot.company.deletion": [DELETED],
    "hubspot.company.restore": [RESTORED],
    "hubspot.company.merge": [MERGED],
    "hubspot.company.association": [ASSOCIATED],
    "hubspot.company.dissociation": [DISSOCIATED],
    "hubspot.object.linked": [LINKED],
    "hubspot.object.deletion": [DELETED],
    "hubspot.object.association": [ASSOCIATED],
    "hubspot.object.dissociation": [DISSOCIATED],
    "hubspot.test": [],
    "salesforce.soap.linked": [LINKED],
    "salesforce.soap.unlinked": [UNLINKED],
    "salesforce.soap.touched": [TOUCHED],
    "salesforce.cdc.create": [LINKED],
    "salesforce.cdc.update": [LINKED],
    "salesforce.cdc.clear": [UNLINKED],
    "salesforce.cdc.delete": [DELETED],
    "salesforce.cdc.undelete": [RESTORED, LINKED],
    "salesforce.cdc.gap": [TOUCHED],
    "salesforce.cdc.overflow": [],
    "salesforce.bare.create": [LINKED],
    "salesforce.cometd.undelete": [RESTORED, LINKED],
    "salesforce.eventbridge.create": [LINKED],
    "salesforce.apex.insert": [LINKED],
    "salesforce.apex.update": [LINKED],
    "salesforce.apex.clear": [UNLINKED],
    "salesforce.apex.delete": [DELETED],
    "salesforce.apex.merge": [MERGED],
    "geotab.linked": [LINKED],
    "geotab.reference": [HINTED],
    "geotab.previous": [HINTED],
    "geotab.touched": [TOUCHED],
    "geotab.changed": [LINKED],
    "geotab.unlinked": [UNLINKED],
    "geotab.deactivated": [UNLINKED],
    "geotab.form.linked": [LINKED],
    "geotab.form.unlinked": [UNLINKED],
}


def read(request, current):
    """The proof of a sample and what it says, by the reader of its source."""
    _, _, source, *token = request.path.split("/")
    headers = {name.lower(): value for name, value in request.headers.items()}
    sent = delivery(
        request.body,
        headers=headers,
        media_type=headers["content-type"].partition(";")[0],
        path_token=unquote(token[0]) if token else None,
        target=request.path,
        method=request.method,
    )
    reader = READERS[source](current)
    assert sent.media_type in reader.media_types
    proof = reader.authenticate(sent)
    return proof, reader.decode(sent, proof)


def test_every_sample_is_listed_here_and_says_something():
    assert set(SAYS) == set(samples.NAMES)
    assert [name for name, _ in samples.listing()] == list(samples.NAMES)
    assert len({says for _, says in samples.listing()}) == len(samples.NAMES)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"salesforce_webhook_secret": (), "geotab_webhook_secret": ()},
        {"salesforce_webhook_token": (), "geotab_webhook_token": ()},
        {"public_url": "https://hooks.example.com/in"},
        {"salesforce_webhook_token": "a/b c?&ü"},
    ],
    ids=["secrets and tokens", "tokens", "secrets", "public path", "odd token"],
)
@pytest.mark.parametrize("name", samples.NAMES)
def test_samples_authenticate_and_decode(name, changes):
    current = settings(**changes)
    _, found = read(samples.build(name, current, now=NOW), current)
    assert [(change.kind, change.aspect) for change in found.changes] == SAYS[name]
    assert (found.foreign, found.undecodable) == (0, [])
    assert all(change.identity for change in found.changes)


@pytest.mark.parametrize("name", [name for name, says in SAYS.items() if says])
def test_samples_carry_what_they_are_given(name):
    ids = {
        "hubspot": ("501", "502", "77"),
        "salesforce": ("0015g00001LwZ3mAAF", "0015g00001LwZ3KAAV", "04l5g00000Qm8AaAAJ"),
        "geotab": ("007", "008", "e-1"),
    }
    record_id, other_id, event_id = ids[name.partition(".")[0]]
    current = settings()
    request = samples.build(
        name,
        current,
        now=NOW,
        record_id=record_id,
        other_id=other_id,
        customer_id="4242",
        reference="REF-1",
        email="a@b.example",
        occurred_at=1795000000123,
        event_id=event_id,
    )
    _, found = read(request, current)
    for change in found.changes:
        assert change.record.id == record_id
        assert change.customer_id in (None, "4242")
        assert change.reference in (None, "REF-1")
        assert change.email in (None, "a@b.example")
        assert change.event_id == (None if "apex" in name else event_id)
        assert change.occurred_at in (None, 1795000000123)
        assert change.merged_ids in ((), (other_id,))
        assert change.company_id in (None, other_id)
        assert change.previous_id in (None, other_id)


def test_the_same_sample_of_another_moment_is_another_event():
    current = settings()
    seen = set()
    for now in (NOW, NOW + 1):
        for name in samples.NAMES:
            request = samples.build(name, current, now=now)
            again = samples.build(name, current, now=now)
            assert request == again
            if SAYS[name]:
                seen.add(request.body)
    assert len(seen) == 2 * sum(bool(says) for says in SAYS.values())


@pytest.mark.parametrize("name", [name for name in SAYS if "ssociation" in name])
def test_an_association_says_whether_it_is_the_primary_one_and_who_tells_it(name):
    current = settings()
    request = samples.build(name, current, now=NOW)
    _, found = read(request, current)
    assert [change.primary for change in found.changes] == [not name.endswith(".other")]
    assert name.split(".")[1] in json.loads(request.body)[0]["subscriptionType"]


def test_the_sample_of_a_previous_id_names_no_other_way_to_the_customer():
    current = settings()
    _, found = read(samples.build("geotab.previous", current, now=NOW), current)
    (change,) = found.changes
    assert (change.customer_id, change.reference) == (None, None)
    assert change.previous_id == samples.OTHER_RESELLER_CUSTOMER_ID


def test_soap_carries_its_token_in_the_path_and_a_form_in_a_field():
    current = settings()
    proof, _ = read(samples.build("salesforce.soap.linked", current, now=NOW), current)
    assert proof is Proof.URL_TOKEN
    proof, _ = read(samples.build("geotab.form.unlinked", current, now=NOW), current)
    assert proof is Proof.FORM_TOKEN
    proof, _ = read(samples.build("geotab.linked", current, now=NOW), current)
    assert proof is Proof.SIGNATURE


def test_a_sample_may_be_sent_to_another_path():
    current = settings(public_url="https://hooks.example.com/in")
    request = samples.build(
        "hubspot.contact.linked", current, now=NOW, path="/in/webhooks/hubspot/?a=%28"
    )
    headers = {name.lower(): value for name, value in request.headers.items()}
    sent = delivery(request.body, headers=headers, target=request.path)
    assert HubSpotReader(current).authenticate(sent) is Proof.SIGNATURE


@pytest.mark.parametrize(
    ("name", "changes", "options", "said"),
    [
        ("hubspot.contact.vanished", {}, {}, "There is no sample called"),
        ("", {}, {}, "There is no sample called"),
        ("hubspot.contact.linked", {"hubspot_client_secret": ()}, {}, "HUBSPOT_CLIENT_SECRET"),
        (
            "salesforce.cdc.update",
            {"salesforce_webhook_token": (), "salesforce_webhook_secret": ()},
            {},
            "SALESFORCE_WEBHOOK_TOKEN",
        ),
        (
            "hubspot.contact.reference",
            {"hubspot_reference_property": None},
            {},
            "HUBSPOT_REFERENCE_PROPERTY",
        ),
        ("hubspot.contact.linked", {}, {"record_id": "abc"}, "is a number"),
        ("geotab.linked", {}, {"occurred_at": 10**18}, "too far off"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(name, changes, options, said):
    with pytest.raises(samples.NoSample, match=said) as error:
        samples.build(name, settings(**changes), now=NOW, **options)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_samples_are_of_the_tenants_in_the_settings():
    current = settings(
        hubspot_portal_id="62515", salesforce_org_id="00D5g000007Kp2q", geotab_account="B:1"[:1]
    )
    for source in Source:
        name = next(name for name in samples.NAMES if name.startswith(source))
        _, found = read(samples.build(name, current, now=NOW), current)
        assert found.changes[0].record.tenant == current.tenant(source)
        assert SETTINGS[
            {
                Source.HUBSPOT: "hubspot_portal_id",
                Source.SALESFORCE: "salesforce_org_id",
                Source.GEOTAB: "geotab_account",
            }[source]
        ] != current.tenant(source)
