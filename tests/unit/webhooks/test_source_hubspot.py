"""HubSpot: what proves a delivery and what its events say (B2.5, B2.9, B2.11, B2.12, B3.1)."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from sync_worker.domain import Aspect, Kind, RecordType, Source
from tests.unit.webhooks.deliveries import NOW, decoded, delivery, events, fixture, hubspot
from webhooks import signatures
from webhooks.sources import Proof, Unauthenticated, Undecodable

SECRET = b"test-client-secret-0001"
URI = "https://hooks.example.com/webhooks/hubspot"
BODY = fixture("hubspot/contact.creation.json")
TIMESTAMP = str(int(NOW * 1000))
V1 = signatures.sign_hubspot_v1(SECRET, BODY)
V2 = signatures.sign_hubspot_v2(SECRET, "POST", URI, BODY)
V3 = signatures.sign_hubspot_v3(SECRET, "POST", URI, BODY, TIMESTAMP)


def event(**changes):
    """A change of the Fusebill id of a contact; None leaves a field out."""
    fields = {
        "eventId": 2611938405,
        "portalId": 24681357,
        "occurredAt": 1795012401536,
        "subscriptionType": "contact.propertyChange",
        "attemptNumber": 0,
        "objectId": 512340078112,
        "propertyName": "fusebill_id",
        "propertyValue": "8714402",
    } | changes
    return {name: value for name, value in fields.items() if value is not None}


def one(body):
    """The one change of a body that says nothing else."""
    found = decoded(hubspot(), body)
    assert (found.ignored, found.foreign, found.undecodable) == ({}, 0, [])
    (change,) = found.changes
    return change


def refusal(headers, **options):
    with pytest.raises(Unauthenticated) as refused:
        hubspot(**options).authenticate(delivery(BODY, headers=headers))
    return refused.value.reason


# --- authentication


def test_b2_5_a_captured_delivery_is_authentic_although_its_version_header_says_v1():
    headers = {
        "x-hubspot-request-timestamp": TIMESTAMP,
        "x-hubspot-signature": V1,
        "x-hubspot-signature-v3": V3,
        "x-hubspot-signature-version": "v1",
    }
    assert hubspot().authenticate(delivery(BODY, headers=headers)) is Proof.SIGNATURE


@pytest.mark.parametrize("target", ["/in/webhooks/hubspot/?a=%28", "/webhooks/hubspot/?a=%28"])
def test_b2_5_a_public_path_is_signed_whether_or_not_the_proxy_strips_it(target):
    public = "https://hooks.example.com/in"
    signed = signatures.sign_hubspot_v3(
        SECRET, "POST", f"{public}/webhooks/hubspot/?a=(", BODY, TIMESTAMP
    )
    headers = {"x-hubspot-signature-v3": signed, "x-hubspot-request-timestamp": TIMESTAMP}
    asked = delivery(BODY, headers=headers, target=target)
    assert hubspot(public_url=public).authenticate(asked) is Proof.SIGNATURE


def test_b2_4_either_of_two_secrets_signs():
    headers = {"x-hubspot-signature-v3": V3, "x-hubspot-request-timestamp": TIMESTAMP}
    reader = hubspot(hubspot_client_secret="new, test-client-secret-0001")
    assert reader.authenticate(delivery(BODY, headers=headers)) is Proof.SIGNATURE


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "missing"),
        ({"x-hubspot-signature": V1, "x-hubspot-signature-version": "v1"}, "untimed"),
        ({"x-hubspot-signature-v3": V3}, "timestamp"),
        ({"x-hubspot-signature-v3": "", "x-hubspot-request-timestamp": TIMESTAMP}, "wrong"),
        ({"x-hubspot-signature-v3": V3, "x-hubspot-request-timestamp": "1795183386000"}, "wrong"),
    ],
)
def test_b2_5_refusals(headers, reason):
    assert refusal(headers) == reason


def test_b2_5_a_replay_is_stale():
    timestamp = str(int(NOW * 1000) - 300_001)
    headers = {
        "x-hubspot-signature-v3": signatures.sign_hubspot_v3(SECRET, "POST", URI, BODY, timestamp),
        "x-hubspot-request-timestamp": timestamp,
    }
    assert refusal(headers) == "stale"


@pytest.mark.parametrize("timestamp", [TIMESTAMP, None])
def test_b2_4_a_failing_v3_is_final_even_if_v1_matches(timestamp):
    headers = {
        "x-hubspot-signature-v3": "bm8=",
        "x-hubspot-signature": V1,
        "x-hubspot-signature-version": "v1",
    }
    if timestamp:
        headers["x-hubspot-request-timestamp"] = timestamp
    reason = refusal(headers, hubspot_allow_untimed_signatures=True)
    assert reason == ("wrong" if timestamp else "timestamp")


@pytest.mark.parametrize(("version", "given"), [("v1", V1), ("v2", V2)])
def test_b2_5_untimed_signatures_count_only_if_allowed(version, given):
    headers = {"x-hubspot-signature": given, "x-hubspot-signature-version": version}
    reader = hubspot(hubspot_allow_untimed_signatures=True)
    assert reader.authenticate(delivery(BODY, headers=headers)) is Proof.SIGNATURE
    assert refusal(headers) == "untimed"


@pytest.mark.parametrize(("version", "given"), [("v1", V2), ("v2", V1), ("", V1), ("v4", V1)])
def test_b2_5_the_version_header_chooses_between_v1_and_v2(version, given):
    headers = {"x-hubspot-signature": given, "x-hubspot-signature-version": version}
    assert refusal(headers, hubspot_allow_untimed_signatures=True) == "wrong"


# --- what events say


def test_b3_1_a_fusebill_id_links_with_evidence():
    change = one([event()])
    assert change.record.mailbox == "hubspot:24681357:contact:512340078112"
    assert (change.kind, change.aspect) == (Kind.LINKED, Aspect.LINK)
    assert (change.customer_id, change.evidence) == ("8714402", True)
    assert (change.occurred_at, change.event_id) == (1795012401536, "2611938405")
    assert change.request_id == "req-1"
    assert json.loads(change.raw) == event()


@pytest.mark.parametrize("value", ["", "  ", None, "null"])
def test_b3_1_an_empty_value_unlinks_with_evidence(value):
    body = json.dumps([event(propertyValue=value)]).replace('"null"', "null").encode()
    change = one(body)
    assert (change.kind, change.aspect) == (Kind.UNLINKED, Aspect.LINK)
    assert (change.customer_id, change.evidence) == (None, True)


@pytest.mark.parametrize(
    ("value", "customer_id"), [(8714402, "8714402"), (" 8714402\n", "8714402"), ("no id", "no id")]
)
def test_b3_1_a_value_is_kept_as_text(value, customer_id):
    assert one([event(propertyValue=value)]).customer_id == customer_id


def test_b3_1_a_huge_number_is_kept_digit_by_digit():
    body = json.dumps([event(propertyValue=1)]).replace(": 1}", ": " + "9" * 5000 + "}")
    assert one(body.encode()).customer_id == "9" * 5000


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("email", "email", "m@x.example"), ("billing_reference", "reference", "NG-0042")],
)
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"subscriptionType": "company.propertyChange"},
        {"subscriptionType": "object.propertyChange", "objectTypeId": "0-1"},
    ],
)
def test_b3_1_email_and_reference_are_hints(name, field, value, form):
    change = one([event(propertyName=name, propertyValue=value, **form)])
    assert (change.kind, change.aspect) == (Kind.LINKED, Aspect.HINT)
    assert getattr(change, field) == value
    assert change.customer_id is None
    assert not change.evidence


def test_b3_1_an_empty_hint_is_ignored():
    body = [event(propertyName="email", propertyValue=""), event(propertyName="email") | {}]
    del body[1]["propertyValue"]
    assert decoded(hubspot(), body).ignored == {"empty hint": 2}


def test_b3_1_the_properties_are_settings():
    reader = hubspot(hubspot_fusebill_id_property="stax_id", hubspot_reference_property=None)
    found = decoded(
        reader,
        [
            event(),
            event(propertyName="stax_id", propertyValue="42"),
            event(propertyName="billing_reference"),
        ],
    )
    assert [(change.kind, change.customer_id) for change in found.changes] == [(Kind.LINKED, "42")]
    assert found.ignored == {"other properties": 2}


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("creation", Kind.TOUCHED),
        ("deletion", Kind.DELETED),
        ("privacyDeletion", Kind.DELETED),
        ("restore", Kind.RESTORED),
    ],
)
@pytest.mark.parametrize("noun", ["contact", "company"])
def test_b3_1_existence(action, kind, noun):
    change = one([event(subscriptionType=f"{noun}.{action}")])
    assert (change.kind, change.aspect) == (kind, Aspect.EXISTENCE)
    assert change.record.type == noun


@pytest.mark.parametrize("action", ["creation", "deletion", "restore", "merge"])
@pytest.mark.parametrize(("type_id", "noun"), [("0-1", "contact"), ("0-2", "company")])
def test_b3_1_the_generic_forms_of_existence_mean_what_the_classic_ones_do(action, type_id, noun):
    ids = {"primaryObjectId": 7, "mergedObjectIds": [8], "newObjectId": 9}
    generic = one([event(subscriptionType=f"object.{action}", objectTypeId=type_id, **ids)])
    classic = one([event(subscriptionType=f"{noun}.{action}", **ids)])
    assert generic.record == classic.record
    assert generic.record.type == noun
    assert (generic.kind, generic.aspect) == (classic.kind, classic.aspect)
    assert generic.merged_ids == classic.merged_ids


def test_b2_11_a_privacy_deletion_is_no_repeat_of_the_deletion():
    """The one erases what is stored of the record, the other does not (B10.3)."""
    plain = one([event(subscriptionType="contact.deletion")])
    private = one([event(subscriptionType="contact.privacyDeletion")])
    assert (plain.record, plain.kind, plain.occurred_at, plain.event_id) == (
        private.record,
        private.kind,
        private.occurred_at,
        private.event_id,
    )
    assert plain.identity != private.identity


@pytest.mark.parametrize(
    ("fixture_name", "kind"),
    [
        ("contact.restore", Kind.RESTORED),
        ("contact.privacyDeletion", Kind.DELETED),
        ("contact.creation", Kind.TOUCHED),
        ("object.deletion", Kind.DELETED),
    ],
)
def test_b3_1_fixtures(fixture_name, kind):
    assert one(fixture(f"hubspot/{fixture_name}.json")).kind is kind


@pytest.mark.parametrize(
    ("type_id", "record_type"), [("0-1", RecordType.CONTACT), ("0-2", RecordType.COMPANY)]
)
def test_b3_1_generic_and_classic_forms_mean_the_same(type_id, record_type):
    generic = one([event(subscriptionType="object.propertyChange", objectTypeId=type_id)])
    classic = one([event(subscriptionType=f"{record_type}.propertyChange")])
    assert (generic.record, generic.kind, generic.customer_id) == (
        classic.record,
        classic.kind,
        classic.customer_id,
    )


def test_b3_1_the_key_may_be_event_type():
    found = decoded(hubspot(), fixture("hubspot/event_type_key.json"))
    assert [change.kind for change in found.changes] == [Kind.LINKED, Kind.TOUCHED]


def test_b3_1_a_burst_of_one_record():
    found = decoded(hubspot(), fixture("hubspot/object.burst.json"))
    assert [(change.kind, change.aspect) for change in found.changes] == [
        (Kind.LINKED, Aspect.HINT),
        (Kind.TOUCHED, Aspect.EXISTENCE),
        (Kind.LINKED, Aspect.LINK),
    ]
    assert found.ignored == {"other properties": 5}
    assert len({change.record for change in found.changes}) == 1


def test_b3_1_a_burst_of_two_records():
    found = decoded(hubspot(), fixture("hubspot/contact.burst.json"))
    assert [(change.record.type, change.kind) for change in found.changes] == [
        ("contact", Kind.TOUCHED),
        ("contact", Kind.LINKED),
        ("contact", Kind.DELETED),
        ("company", Kind.TOUCHED),
        ("company", Kind.DELETED),
    ]
    assert found.ignored == {"other properties": 1}


def test_b3_1_old_shapes_without_app_or_source_are_read():
    found = decoded(hubspot(), fixture("hubspot/contact.old_shapes.json"))
    assert len(found.changes) == 3
    assert found.undecodable == []


@pytest.mark.parametrize(
    ("changes", "survivor", "merged"),
    [
        ({}, "512340091500", ("512340077990", "512340078003", "512340077981")),
        ({"newObjectId": None}, "512340077981", ("512340077990", "512340078003")),
        (
            {"newObjectId": 512340077981},
            "512340077981",
            ("512340077990", "512340078003"),
        ),
        ({"mergedObjectIds": ["7", 512340091500, 7]}, "512340091500", ("7", "512340077981")),
        ({"mergedObjectIds": None}, "512340091500", ("512340077981",)),
    ],
)
def test_b3_1_a_merge_is_one_change_of_the_survivor(changes, survivor, merged):
    change = one([events("hubspot/contact.merge.json")[0] | changes])
    assert (change.kind, change.aspect) == (Kind.MERGED, Aspect.EXISTENCE)
    assert change.record.id == survivor
    assert change.merged_ids == merged


@pytest.mark.parametrize(
    "changes",
    [
        {"mergedObjectIds": [], "newObjectId": None},
        {"primaryObjectId": None, "newObjectId": None},
        {"mergedObjectIds": "7;8"},
        {"mergedObjectIds": [True]},
        {"newObjectId": -1},
    ],
)
def test_b2_10_a_merge_that_names_no_pair_cannot_be_read(changes):
    found = decoded(hubspot(), [events("hubspot/contact.merge.json")[0] | changes])
    assert len(found.undecodable) == 1


@pytest.mark.parametrize("name", ["contact", "company", "object"])
@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("primary", [True, False, None])
def test_b3_1_an_association_is_told_on_the_contact_whichever_side_sent_it(name, removed, primary):
    sent = events(f"hubspot/{name}.associationChange.json")[0] | {"associationRemoved": removed}
    sent["isPrimaryAssociation"] = primary
    change = one([sent])
    assert change.record.mailbox == "hubspot:24681357:contact:512340077981"
    assert change.kind is (Kind.DISSOCIATED if removed else Kind.ASSOCIATED)
    assert (change.aspect, change.company_id) == (Aspect.COMPANY, "330222354907")
    assert change.primary is primary


def test_b3_1_a_generic_association_from_the_company_side():
    sent = events("hubspot/object.associationChange.json")[0]
    sent |= {
        "fromObjectTypeId": "0-2",
        "toObjectTypeId": "0-1",
        "fromObjectId": sent["toObjectId"],
        "toObjectId": sent["fromObjectId"],
    }
    change = one([sent])
    assert (change.record.id, change.company_id) == ("512340077981", "330222354907")


def test_b2_11_the_plain_association_is_no_repeat_of_the_primary_one():
    sent = events("hubspot/contact.associationChange.json")[0]
    plain = sent | {"isPrimaryAssociation": False}
    primary, other = decoded(hubspot(), [sent, plain]).changes
    assert primary.identity != other.identity


@pytest.mark.parametrize(
    "changes",
    [
        {"associationType": "CONTACT_TO_DEAL"},
        {"associationType": "CONTACT_TO_CONTACT"},
        {"subscriptionType": "object.associationChange", "associationType": None}
        | {"fromObjectTypeId": "0-1", "toObjectTypeId": "0-3"},
    ],
)
def test_b2_12_other_associations_are_ignored(changes):
    sent = events("hubspot/contact.associationChange.json")[0] | changes
    assert decoded(hubspot(), [sent]).ignored == {"other associations": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"associationType": None},
        {"associationType": {}},
        {"associationRemoved": None},
        {"associationRemoved": "false"},
        {"fromObjectId": None},
        {"toObjectId": 0},
    ],
)
def test_b2_10_a_maimed_association_cannot_be_read(changes):
    sent = events("hubspot/contact.associationChange.json")[0] | changes
    assert len(decoded(hubspot(), [sent]).undecodable) == 1


def test_b2_12_the_test_button_is_ignored():
    found = decoded(hubspot(), fixture("hubspot/test_button.json"))
    assert found.ignored == {"test event": 3}
    assert found.changes == []


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (event(subscriptionType="deal.propertyChange"), "other objects"),
        (event(subscriptionType="conversation.newMessage", objectId="thread"), "other objects"),
        (event(subscriptionType="object.deletion", objectTypeId="0-3"), "other objects"),
        (event(subscriptionType="object.creation", objectTypeId="2-117"), "other objects"),
        (event(subscriptionType="contact.somethingNew"), "other events"),
        (event(subscriptionType="contact"), "other events"),
        (event(propertyName="firstname", propertyValue={"any": ["thing"]}), "other properties"),
        (events("hubspot/deal.associationChange.json"), "other objects"),
        (events("hubspot/contact.propertyChange.sensitive.json"), "other properties"),
    ],
)
def test_b2_12_what_is_of_no_use_is_ignored(sent, why):
    found = decoded(hubspot(), [sent])
    assert found.ignored == {why: 1}
    assert (found.changes, found.undecodable) == ([], [])


# --- tenants


@pytest.mark.parametrize("portal", [62515, "62515", 10**19])
def test_b2_9_an_event_of_another_portal_is_foreign(portal):
    found = decoded(hubspot(), [event(portalId=portal), event()])
    assert (found.foreign, len(found.changes)) == (1, 1)


def test_b2_9_a_foreign_event_is_foreign_even_if_it_cannot_be_read():
    broken = json.dumps(event(portalId=62515, objectId=0)).replace(
        '"objectId": 0', '"objectId": 1e999'
    )
    found = decoded(hubspot(), f"[{broken}]".encode())
    assert (found.foreign, found.undecodable) == (1, [])


@pytest.mark.parametrize("portal", ["24681357", "024681357", 24681357])
def test_b2_9_the_portal_may_be_text(portal):
    assert one([event(portalId=portal)]).record.tenant == "24681357"


@pytest.mark.parametrize(
    "portal", [None, "", "x", True, 24681357.0, [], {}, -24681357, 0, " 24681357", "٢٤٦"]
)
def test_b2_10_a_missing_or_unreadable_portal_is_undecodable(portal):
    found = decoded(hubspot(), [event(portalId=portal), event()])
    assert (len(found.undecodable), found.foreign, len(found.changes)) == (1, 0, 1)


# --- identity


def test_b2_11_identity_leaves_out_delivery_counters():
    first = one([event()])
    again = one([event(attemptNumber=5, subscriptionId=9, appId=3, changeSource="API")])
    assert first.identity == again.identity


@pytest.mark.parametrize(
    "changes",
    [
        {"subscriptionType": "company.propertyChange"},
        {"objectId": 7},
        {"propertyName": "email"},
        {"propertyValue": "8714403"},
        {"propertyValue": ""},
        {"eventId": 1},
        {"occurredAt": 1795012401537},
    ],
)
def test_b2_11_identity_tells_events_apart(changes):
    assert one([event()]).identity != one([event(**changes)]).identity


def test_b2_11_identity_is_the_same_for_numbers_sent_as_text():
    assert one([event(objectId="512340078112")]).identity == one([event()]).identity


def test_b2_11_identity_has_no_seams():
    """Fields that concatenate to the same text are still different events."""
    first = one([event(propertyName="email", propertyValue="a1", eventId=1)])
    other = one([event(propertyName="email", propertyValue="a", eventId=11)])
    assert first.identity != other.identity


# --- values


@pytest.mark.parametrize(
    ("stated", "occurred_at"),
    [
        (1795012401536, 1795012401536),
        ("1795012401536", 1795012401536),
        (0, 0),
        (2**53, 2**53),
        (2**53 + 1, None),
        (-1, None),
        (None, None),
        ("soon", None),
        (True, None),
        (1.5, None),
        ([], None),
        ("9" * 5000, None),
        ("١٧٩٥", None),
    ],
)
def test_b3_8_a_time_that_cannot_be_is_no_time(stated, occurred_at):
    assert one([event(occurredAt=stated)]).occurred_at == occurred_at


@pytest.mark.parametrize("number", ["1e400", "9" * 5000, "-0.0"])
def test_b3_8_a_number_that_overflows_is_no_time(number):
    body = json.dumps([event(occurredAt=77)]).replace("77", number, 1).encode()
    assert one(body.replace(b"87144" + number.encode(), b"8714402")).occurred_at is None


@pytest.mark.parametrize("id_", [2**53 + 1, str(2**53 + 1), f"0{2**53 + 1}"])
def test_b3_1_ids_above_2_53_are_exact(id_):
    assert one([event(objectId=id_)]).record.id == "9007199254740993"


@pytest.mark.parametrize(
    "id_", [None, "", " ", " 1", "1 ", "1\n", "a", "٣", -1, 0, 1.5, True, [], {}, 10**20, "9" * 21]
)
def test_b2_10_an_id_that_cannot_be_is_undecodable(id_):
    found = decoded(hubspot(), [event(objectId=id_), event()])
    assert (len(found.undecodable), len(found.changes)) == (1, 1)
    assert json.loads(found.undecodable[0].raw) == event(objectId=id_)


@pytest.mark.parametrize(
    "changes",
    [
        {"subscriptionType": None},
        {"subscriptionType": 7},
        {"propertyName": None},
        {"propertyName": []},
        {"propertyValue": True},
        {"propertyValue": {}},
        {"subscriptionType": "object.creation"},
        {"subscriptionType": "object.creation", "objectTypeId": 1},
    ],
)
def test_b2_10_one_bad_event_spoils_no_other(changes):
    found = decoded(hubspot(), [event(**changes), event()])
    assert (len(found.undecodable), len(found.changes)) == (1, 1)


@pytest.mark.parametrize(
    "bad",
    [
        rb'{"portalId":24681357,"propertyValue":"\ud800"}',
        rb'{"portalId":24681357,"subscriptionType":"contact.deletion","objectId":7,"x":"\ud800"}',
        b'{"portalId":24681357,"subscriptionType":"contact.deletion","objectId":7,"x":"\xff"}',
        b'{"portalId":NaN}',
        b'{"portalId":24681357,"portalId":1e999}',
        b'{"a":"\n"}',
        b"7",
        b"null",
        b'"text"',
        b"[[]]",
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_b2_10_a_bad_member_is_set_aside_alone(bad, place):
    good = json.dumps(event()).encode()
    members = [good, good]
    members.insert(place, bad)
    found = decoded(hubspot(), b" [" + b" , ".join(members) + b" ] \n")
    assert [item.raw for item in found.undecodable] == [bad]
    assert len(found.changes) == 2


def test_b2_11_the_last_of_two_equal_keys_counts():
    body = json.dumps(event()).replace("{", '{"portalId": 1, ', 1).encode()
    assert one(b"[" + body + b"]").record.tenant == "24681357"


def test_b2_6_a_single_object_is_one_event():
    assert one(b" \n" + json.dumps(event()).encode() + b"\n").customer_id == "8714402"


def test_b2_10_an_empty_array_says_nothing():
    assert decoded(hubspot(), b"[]").changes == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"7",
        b"null",
        b"text",
        b"[",
        b"[1,]",
        b"[]]",
        b"[{}",
        b'[{"a":1} {"b":2}]',
        b"\xff",
        b"[" * 100_000 + b"]" * 100_000,
        b"\xef\xbb\xbf[]",
        "[]".encode("utf-16"),
        "[]".encode("utf-32"),
    ],
)
def test_b2_10_a_body_that_is_no_json_is_undecodable(body):
    with pytest.raises(Undecodable) as error:
        decoded(hubspot(), body)
    assert len(str(error.value)) < 80


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"portalId":24681357',
        b'{"portalId":24681357} {}',
        b'{"portalId":24681357,"subscriptionType":"\\ud800"}',
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
)
def test_b2_10_a_body_that_is_one_unreadable_event_is_undecodable(body):
    with pytest.raises(Undecodable):
        decoded(hubspot(), body)


def test_b10_4_what_is_said_of_a_bad_event_quotes_none_of_it():
    found = decoded(hubspot(), [event(objectId="4111-1111", propertyValue="secret")])
    assert "4111" not in found.undecodable[0].why


# --- anything at all

_FIELDS = (
    "portalId",
    "subscriptionType",
    "eventType",
    "objectId",
    "objectTypeId",
    "eventId",
    "occurredAt",
    "propertyName",
    "propertyValue",
    "primaryObjectId",
    "mergedObjectIds",
    "newObjectId",
    "associationType",
    "fromObjectId",
    "toObjectId",
    "fromObjectTypeId",
    "toObjectTypeId",
    "associationRemoved",
    "isPrimaryAssociation",
)
_LIKELY = st.sampled_from(
    [
        24681357,
        "24681357",
        "contact.propertyChange",
        "object.merge",
        "company.associationChange",
        "object.associationChange",
        "0-1",
        "0-2",
        "CONTACT_TO_COMPANY",
        "email",
        "fusebill_id",
        2**53,
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | _LIKELY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_EVENTS = st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=10).map(
    lambda extra: json.dumps({"portalId": 24681357, "objectId": 7} | extra).encode()
)
_BODIES = (
    st.binary(max_size=200)
    | _EVENTS
    | st.lists(_EVENTS | st.binary(max_size=20), max_size=4).map(
        lambda members: b"[" + b",".join(members) + b"]"
    )
)


@examples(deadline=None, max_examples=400)
@given(
    _BODIES,
    st.dictionaries(
        st.sampled_from(["x-hubspot-signature-v3", "x-hubspot-signature"]), st.text(st.characters())
    ),
)
def test_nothing_raises_but_the_two_refusals(body, headers):
    reader = hubspot()
    sent = delivery(body, headers=headers)
    with pytest.raises(Unauthenticated):
        reader.authenticate(sent)
    try:
        found = reader.decode(sent, Proof.SIGNATURE)
    except Undecodable:
        return
    for change in found.changes:
        assert change.record.source is Source.HUBSPOT
        assert msgspec.json.encode(change)
    assert reader.redacted(sent) == body


# --- one step for what nearly all events say


@given(
    st.fixed_dictionaries(
        {
            "subscriptionType": st.sampled_from(
                ["contact.propertyChange", "company.propertyChange", "object.propertyChange"]
            ),
            "objectTypeId": st.sampled_from(["0-1", "0-2", "0-3"]),
            "propertyName": st.sampled_from(["fusebill_id", "email", "city"]),
            "propertyValue": st.sampled_from(["8714402", " 8714402 ", "", "é", 8714402, None]),
            "objectId": st.sampled_from([1, 123, 124, 10**19, 10**20, "512340078112", "x"]),
            "eventId": st.sampled_from([100, 2611938405, "2611938405", None]),
            "occurredAt": st.sampled_from([0, 1795012401536, -1, 2**53 + 1, "1795012401536"]),
            "portalId": st.sampled_from([24681357, "24681357", "024681357", 7]),
        }
    )
)
def test_what_is_read_in_one_step_says_what_is_read_step_by_step(fields):
    """A number with decimals is of no plain event; `sourceId` is not looked at."""
    quick, slow = hubspot(), hubspot()
    slow._link_set = lambda *_: None
    body = [event(**fields)]
    assert decoded(quick, body) == decoded(slow, body)


@pytest.mark.parametrize("portal", [24681357.0, True, [24681357], {}])
def test_b2_9_a_portal_that_is_no_whole_number_is_not_ours(portal):
    found = decoded(hubspot(), [event(portalId=portal), event()])
    assert (len(found.changes), len(found.undecodable)) == (1, 1)


def test_a_number_is_kept_as_it_stands_in_the_body():
    body = b"[%s]" % json.dumps(event()).encode().replace(b'"8714402"', b"12345.0")
    assert one(body).customer_id == "12345.0"
    long = b"9" * 5000
    body = b"[%s]" % json.dumps(event()).encode().replace(b'"8714402"', long)
    assert one(body).customer_id == long.decode()
