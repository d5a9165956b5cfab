"""Salesforce: proofs, Outbound Messages and five JSON shapes (B2.6, B2.7, B2.9 to B2.11, B3.2)."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from sync_worker.domain import Aspect, Kind, Source
from tests.unit.webhooks.deliveries import NOW, decoded, delivery, events, fixture, salesforce
from webhooks import signatures
from webhooks.sources import Proof, Unauthenticated, Undecodable

XML = "text/xml"
ACCOUNT = "0015g00001LwZ3kAAF"
ACTION = "04k5g0000008Rt1AAE"
OTHER = "0015g00001LwZ4RAAV"
LINK = "Fusebill_Id__c"
REFERENCE = "Billing_Reference__c"
CREATED = fixture("salesforce/outbound.created.xml")
BODY = b"{}"
SIGNED = signatures.sign_x(b"sf-secret-0001", BODY, int(NOW))
TOKEN = "sf-token-0001"


def soap(body, **options):
    return decoded(salesforce(**options), body, media_type=XML)


def edited(*replacements):
    body = CREATED.decode()
    for old, new in replacements:
        assert old in body
        body = body.replace(old, new)
    return body.encode()


def cdc(change_type="UPDATE", *, fields=None, **header):
    return {
        "schema": "s",
        "payload": {
            "ChangeEventHeader": {
                "entityName": "Account",
                "recordIds": [ACCOUNT],
                "changeType": change_type,
                "changedFields": [],
                "transactionKey": "0006f2a1-7c51",
                "sequenceNumber": 1,
                "commitTimestamp": 1795189317000,
            }
            | header,
            **(fields or {}),
        },
        "event": {"replayId": 1},
    }


def record(id_=ACCOUNT, **fields):
    return {"attributes": {"type": "Account"}, "Id": id_} | fields


def claims(found):
    """What the changes say, without whose and when."""
    assert (found.foreign, found.undecodable) == (0, [])
    return [
        (change.kind, change.aspect, change.customer_id or change.reference, change.evidence)
        for change in found.changes
    ]


def one(found):
    (change,) = found.changes
    return change


# --- authentication


@pytest.mark.parametrize(
    ("headers", "path_token", "proof"),
    [
        ({"x-signature": SIGNED}, None, Proof.SIGNATURE),
        ({"x-signature": SIGNED, "x-webhook-token": "no"}, "no", Proof.SIGNATURE),
        ({"authorization": f"Bearer {TOKEN}"}, None, Proof.HEADER_TOKEN),
        ({"authorization": f"bearer {TOKEN}"}, "no", Proof.HEADER_TOKEN),
        ({"x-webhook-token": TOKEN}, None, Proof.HEADER_TOKEN),
        ({"x-webhook-token": TOKEN, "authorization": "Bearer gateway"}, None, Proof.HEADER_TOKEN),
        ({"authorization": "Basic eDp5"}, TOKEN, Proof.URL_TOKEN),
        ({}, TOKEN, Proof.URL_TOKEN),
    ],
)
def test_b2_6_proofs(headers, path_token, proof):
    sent = delivery(BODY, headers=headers, path_token=path_token)
    assert salesforce().authenticate(sent) is proof


@pytest.mark.parametrize(
    ("headers", "path_token", "reason"),
    [
        ({}, None, "missing"),
        ({"authorization": "Basic eDp5"}, None, "missing"),
        ({}, "", "wrong"),
        ({}, "nö", "wrong"),
        ({"authorization": "Bearer"}, TOKEN, "wrong"),
        ({"authorization": "Bearer no"}, TOKEN, "wrong"),
        ({"x-webhook-token": ""}, TOKEN, "wrong"),
        ({"x-signature": SIGNED.replace("v1=", "v1=0"), "x-webhook-token": TOKEN}, TOKEN, "wrong"),
        ({"x-signature": "", "x-webhook-token": TOKEN}, TOKEN, "wrong"),
        ({"x-signature": "v1=00"}, None, "timestamp"),
        ({"x-signature": signatures.sign_x(b"sf-secret-0001", BODY, 1)}, None, "stale"),
    ],
)
def test_b2_4_a_stronger_proof_that_fails_is_final(headers, path_token, reason):
    with pytest.raises(Unauthenticated) as refused:
        salesforce().authenticate(delivery(BODY, headers=headers, path_token=path_token))
    assert refused.value.reason == reason


def test_b2_4_a_signature_nobody_can_check_is_no_proof():
    sent = delivery(BODY, headers={"x-signature": SIGNED}, path_token=TOKEN)
    with pytest.raises(Unauthenticated):
        salesforce(salesforce_webhook_secret=()).authenticate(sent)


# --- Outbound Messages


def test_b3_2_soap_a_field_that_is_sent_links():
    change = one(soap(CREATED))
    assert change.record.mailbox == f"salesforce:00D5g000007Kp2Q:account:{ACCOUNT}"
    assert (change.kind, change.aspect, change.customer_id) == (Kind.LINKED, Aspect.LINK, "8714402")
    assert change.evidence is None
    assert change.occurred_at == 1795183387000
    assert change.event_id == "04l5g00000Qm7XaAAJ"
    assert change.request_id == "req-1"
    assert "8714402" in change.raw
    assert "SessionId" not in change.raw
    assert "OrganizationId" not in change.raw


def test_b3_2_soap_a_batch_of_records_that_differ_in_case_only():
    found = soap(fixture("salesforce/outbound.updates.xml"))
    assert claims(found) == [
        (Kind.LINKED, Aspect.LINK, "8714402", None),
        (Kind.TOUCHED, Aspect.EXISTENCE, None, None),
        (Kind.LINKED, Aspect.LINK, "8714519", None),
    ]
    assert [change.record.id for change in found.changes] == [ACCOUNT, "0015g00001LwZ3KAAV", OTHER]
    assert len({change.identity for change in found.changes}) == 3


@pytest.mark.parametrize(
    ("element", "said"),
    [
        (f"<sf:{LINK}> 8714402 </sf:{LINK}>", (Kind.LINKED, Aspect.LINK, "8714402", None)),
        (f"<sf:{LINK}>8714402.0</sf:{LINK}>", (Kind.LINKED, Aspect.LINK, "8714402", None)),
        (f"<sf:{LINK}>1.8714402E7</sf:{LINK}>", (Kind.LINKED, Aspect.LINK, "18714402", None)),
        (f"<sf:{LINK}>0042</sf:{LINK}>", (Kind.LINKED, Aspect.LINK, "0042", None)),
        (f"<sf:{LINK}>12.5</sf:{LINK}>", (Kind.LINKED, Aspect.LINK, "12.5", None)),
        (f"<{LINK}>7</{LINK}>", (Kind.LINKED, Aspect.LINK, "7", None)),
        (f'<sf:{LINK} xsi:nil="true"/>', (Kind.UNLINKED, Aspect.LINK, None, None)),
        (f'<sf:{LINK} xsi:nil="1">7</sf:{LINK}>', (Kind.UNLINKED, Aspect.LINK, None, None)),
        (f"<sf:{LINK}/>", (Kind.UNLINKED, Aspect.LINK, None, None)),
        (f"<sf:{LINK}>  </sf:{LINK}>", (Kind.UNLINKED, Aspect.LINK, None, None)),
        ("", (Kind.TOUCHED, Aspect.EXISTENCE, None, None)),
        ("<!-- nothing -->", (Kind.TOUCHED, Aspect.EXISTENCE, None, None)),
    ],
)
def test_b3_2_soap_what_the_link_field_says(element, said):
    body = edited((f"<sf:{LINK}>8714402</sf:{LINK}>", element))
    assert claims(soap(body)) == [said]


@pytest.mark.parametrize(
    ("action", "definition"),
    [
        (f"<ActionId>{ACTION}</ActionId>", ACTION),
        (f"<ActionId> {ACTION[:15]}\n</ActionId>", ACTION),
        ("", None),
        ("<ActionId/>", None),
        ('<ActionId xsi:nil="true"/>', None),
        ("<ActionId>04k</ActionId>", None),
        ("<ActionId>04k5g0000008Rt1AAA</ActionId>", None),
        ("<ActionId>04k5g0000008Rt_</ActionId>", None),
    ],
)
@pytest.mark.parametrize("cleared", [False, True])
def test_b3_2_soap_every_change_names_its_message_definition(action, definition, cleared):
    body = fixture("salesforce/outbound.updates.xml").decode()
    body = body.replace(f"<ActionId>{ACTION}</ActionId>", action)
    body = body.replace("<sf:LastM", f"<sf:{REFERENCE}>NG</sf:{REFERENCE}><sf:LastM")
    found = soap(body.encode(), salesforce_absent_means_cleared=cleared)
    assert [change.definition for change in found.changes] == [definition] * 6
    assert found.undecodable == []


LEFT_OUT = (f"<sf:{LINK}>8714402</sf:{LINK}>", "")
WITH_REFERENCE = ("<sf:LastM", f"<sf:{REFERENCE}>NG-0042</sf:{REFERENCE}><sf:LastM")
NO_DEFINITION = (f"<ActionId>{ACTION}</ActionId>", "")


@pytest.mark.parametrize(
    ("cleared", "edits", "said"),
    [
        (False, [LEFT_OUT], (Kind.TOUCHED, Aspect.EXISTENCE, None, None)),
        (True, [LEFT_OUT], (Kind.UNLINKED, Aspect.LINK, None, None)),
        (True, [LEFT_OUT, NO_DEFINITION], (Kind.TOUCHED, Aspect.EXISTENCE, None, None)),
    ],
)
@pytest.mark.parametrize("hint", [False, True])
def test_b3_2_soap_a_link_field_that_is_left_out(cleared, edits, said, hint):
    body = edited(*edits, *([WITH_REFERENCE] if hint else []))
    found = soap(body, salesforce_absent_means_cleared=cleared)
    assert claims(found) == [said, (Kind.LINKED, Aspect.HINT, "NG-0042", False)][: 1 + hint]
    assert [change.left_out for change in found.changes] == [
        said[0] is Kind.UNLINKED,
        *([False] if hint else []),
    ]
    assert len({change.identity for change in found.changes}) == len(found.changes)


@pytest.mark.parametrize(
    ("element", "kind"),
    [
        (f'<sf:{LINK} xsi:nil="true"/>', Kind.UNLINKED),
        (f"<sf:{LINK}/>", Kind.UNLINKED),
        (f"<sf:{LINK}>7</sf:{LINK}>", Kind.LINKED),
    ],
)
@pytest.mark.parametrize("cleared", [False, True])
def test_b3_2_soap_a_link_field_that_is_there_is_not_left_out(element, kind, cleared):
    body = edited((LEFT_OUT[0], element))
    change = one(soap(body, salesforce_absent_means_cleared=cleared))
    assert (change.kind, change.aspect, change.evidence) == (kind, Aspect.LINK, None)
    assert not change.left_out


@pytest.mark.parametrize("reference", ["12345.0", "1.2345E4", " 12345 "])
def test_b3_2_soap_a_number_is_a_reference_without_decimals(reference):
    body = edited(("<sf:LastM", f"<sf:{REFERENCE}>{reference}</sf:{REFERENCE}><sf:LastM"))
    assert soap(body).changes[1].reference == "12345"


def test_b3_2_soap_a_reference_is_a_hint_beside_the_link():
    body = edited(("<sf:LastM", f"<sf:{REFERENCE}>NG-0042</sf:{REFERENCE}><sf:LastM"))
    found = soap(body)
    assert claims(found) == [
        (Kind.LINKED, Aspect.LINK, "8714402", None),
        (Kind.LINKED, Aspect.HINT, "NG-0042", False),
    ]
    assert found.changes[0].identity != found.changes[1].identity


def test_b3_2_soap_other_objects_are_ignored():
    found = soap(fixture("salesforce/outbound.contacts_with_session.xml"))
    assert (found.ignored, found.changes) == ({"other objects": 2}, [])


def test_b3_2_soap_an_account_by_name_with_another_prefix_is_ignored():
    assert soap(edited((ACCOUNT, "0035g00001TtYqPAAV"))).ignored == {"other objects": 1}


def test_b3_2_soap_another_object_is_ignored_whatever_its_id():
    assert soap(edited(("sf:Account", "sf:Contact"))).ignored == {"other objects": 1}


def test_b3_2_soap_a_notification_without_data_names_no_record():
    found = soap(
        fixture("salesforce/outbound.deleted_before_delivery.xml"),
        salesforce_absent_means_cleared=True,
    )
    assert found.ignored == {"record deleted before delivery": 2}
    assert (found.changes, found.undecodable) == ([], [])


def test_b3_3_soap_an_id_of_15_characters_is_the_same_record():
    assert one(soap(edited((ACCOUNT, ACCOUNT[:15])))).record.id == ACCOUNT


@pytest.mark.parametrize("id_", ["", "001", "0015g00001LwZ3kAAA", "0015g00001LwZ3k&#10;"])
def test_b2_10_soap_a_bad_id_spoils_its_notification_only(id_):
    body = fixture("salesforce/outbound.updates.xml").decode().replace(ACCOUNT, id_)
    found = soap(body.encode())
    if id_.endswith(";"):
        assert len(found.changes) == 3
        return
    assert (len(found.changes), len(found.undecodable)) == (2, 1)
    assert b"04l5g00000Qm8AaAAJ" in found.undecodable[0].raw
    assert id_ == "" or id_ not in found.undecodable[0].why


@pytest.mark.parametrize("organisation", ["00D5g000007Kp2QEAS", "00D5g000007Kp2Q"])
def test_b2_9_the_organisation_is_compared_on_15_characters(organisation):
    assert len(soap(edited(("00D5g000007Kp2QEAS", organisation))).changes) == 1


def test_b2_9_a_foreign_organisation_is_counted_by_notification():
    body = fixture("salesforce/outbound.updates.xml").replace(
        b"00D5g000007Kp2QEAS", b"00D5g000007Kp2q"
    )
    found = soap(body)
    assert (found.foreign, found.changes, found.undecodable) == (3, [], [])


@pytest.mark.parametrize("organisation", ["", "00D", "x" * 18])
def test_b2_10_an_unreadable_organisation_is_undecodable(organisation):
    with pytest.raises(Undecodable):
        soap(edited(("00D5g000007Kp2QEAS", organisation)))


def test_b2_11_soap_identity_is_notification_and_last_modified():
    first = one(soap(CREATED)).identity
    assert one(soap(edited(("04k5g0000008Rt1AAE", "04k5g0000008Rt2AAE")))).identity == first
    assert one(soap(edited(("Qm7XaAAJ", "Qm7XbAAJ")))).identity != first
    old = "03:07.000Z</sf:Last"
    assert one(soap(edited((old, "03:08.000Z</sf:Last")))).identity != first
    assert one(soap(edited(("<Id>04l5g00000Qm7XaAAJ</Id>", "")))).identity is None


@pytest.mark.parametrize(
    ("text", "occurred_at"),
    [
        ("2026-11-20T14:03:07.000Z", 1795183387000),
        ("2026-11-20T14:03:07Z", 1795183387000),
        ("2026-11-20T14:03:07.250+0000", 1795183387250),
        ("2026-11-20T09:03:07-05:00", 1795183387000),
        ("1795183387000", 1795183387000),
        ("2026-11-20T14:03:07", None),
        ("1600-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("yesterday", None),
        ("", None),
        ("9" * 5000, None),
    ],
)
def test_b3_8_soap_spellings_of_time(text, occurred_at):
    body = edited(("2026-11-20T14:03:07.000Z</sf:Last", f"{text}</sf:Last"))
    assert one(soap(body)).occurred_at == occurred_at


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<",
        b"not xml",
        b"{}",
        b"<a/>",
        b"\xff\xfe",
        b"<a>\0</a>",
        b'<?xml version="1.0" encoding="no-such"?><a/>',
        b'<?xml version="1.0" encoding="utf-7"?><a/>',
        CREATED[:400],
        CREATED.replace(b"notifications", b"results"),
        CREATED.replace(b"soapenv:Body", b"soapenv:Torso"),
        CREATED.replace(b"Envelope", b"Postcard"),
        b"<a>" * 100_000 + b"</a>" * 100_000,
        b'<!DOCTYPE a SYSTEM "http://evil.example/a.dtd"><a/>',
        b"<!DOCTYPE a><a/>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    ],
)
def test_b2_7_what_is_no_plain_message_is_undecodable(body):
    with pytest.raises(Undecodable) as error:
        soap(body)
    assert len(str(error.value)) < 80


def test_b2_7_a_message_with_a_dtd_is_refused():
    with pytest.raises(Undecodable):
        soap(edited(("<soapenv:Envelope ", "<!DOCTYPE x><soapenv:Envelope ")))


def test_b2_10_soap_a_notification_nested_too_deep_spoils_no_other():
    deep = "<x>" * 50_000 + "</x>" * 50_000
    body = fixture("salesforce/outbound.updates.xml").decode()
    body = body.replace("<sf:CreatedDate>", f"{deep}<sf:CreatedDate>", 1)
    found = soap(body.encode())
    assert (len(found.changes), len(found.undecodable)) == (2, 1)


def test_b2_6_utf_16_is_xml_too():
    body = CREATED.decode().replace("UTF-8", "UTF-16").encode("utf-16")
    assert len(soap(body).changes) == 1


def test_b2_6_session_ids_are_kept_nowhere():
    secret = "00D5g000007Kp2Q!MADE-UP-NOT-A-CREDENTIAL"
    body = fixture("salesforce/outbound.contacts_with_session.xml").replace(
        b"sf:Contact", b"sf:Account"
    )
    body = body.replace(b"<sf:Title>", f"<sf:SessionId>{secret}</sf:SessionId><sf:Title>".encode())
    found = soap(body)
    found.changes += soap(body.replace(b"003", b"001").replace(b"TtYqPAAV", b"TtYqP")).changes
    assert secret.encode() not in msgspec.json.encode(found.changes)
    assert all(secret.encode() not in item.raw for item in found.undecodable)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"<a><SessionId>SECRET</SessionId><b/>", b"<a><SessionId></SessionId><b/>"),
        (b"<s:SessionId x='1'>SECRET</s:SessionId>", b"<s:SessionId x='1'></s:SessionId>"),
        (b"<SessionId><![CDATA[SECRET]]></SessionId>", b"<SessionId></SessionId>"),
        (b"<SessionId>SECR", b"<SessionId>"),
        (b"<SessionId nil='true'/><b>kept</b>", b"<SessionId nil='true'/><b>kept</b>"),
        (b'{"SessionId": "SEC\\"RET", "b": 1', b'{"SessionId": "", "b": 1'),
        (b'{"sessionId":"SECR', b'{"sessionId":""'),
        (b'{"sessionId":"SECR\\', b'{"sessionId":""'),
        ("<SessionId>SECRET</SessionId>".encode("utf-16"), b""),
    ],
)
def test_b2_6_what_is_kept_of_an_undecodable_body_has_no_session(body, kept):
    assert salesforce().redacted(delivery(body)) == kept


# --- the fields that count


@pytest.mark.parametrize("reference", ["Ref__c", None])
def test_b3_2_the_fields_are_settings(reference):
    """In every shape; the fields of the default names are then nobody's."""
    reader = salesforce(
        salesforce_fusebill_id_field="Stax__c", salesforce_reference_field=reference
    )
    sent = {LINK: "6", REFERENCE: "NG", "Stax__c": "7", "Ref__c": "R"}
    elements = "".join(f"<sf:{name}>{value}</sf:{name}>" for name, value in sent.items())
    message = edited((f"<sf:{LINK}>8714402</sf:{LINK}>", elements))
    said = [("7", None)] + ([(None, "R")] if reference else [])
    for found in (
        decoded(reader, message, media_type=XML),
        decoded(reader, cdc("UPDATE", fields=sent, changedFields=[*sent])),
        decoded(reader, cdc("CREATE", fields=sent)),
        decoded(reader, {"new": [record(**sent)], "old": [record()]}),
    ):
        assert [(change.customer_id, change.reference) for change in found.changes] == said


# --- JSON: change data capture


def test_b3_2_cdc_an_update_counts_only_named_fields():
    found = decoded(salesforce(), fixture("salesforce/cdc.update.json"))
    assert (found.ignored, found.changes) == ({"other fields": 1}, [])


@pytest.mark.parametrize(
    ("header", "fields", "said"),
    [
        (
            {"changedFields": [LINK]},
            {LINK: "8714402"},
            [(Kind.LINKED, Aspect.LINK, "8714402", True)],
        ),
        (
            {"changedFields": [LINK]},
            {LINK: 8714402.0},
            [(Kind.LINKED, Aspect.LINK, "8714402", True)],
        ),
        ({"changedFields": [LINK]}, {LINK: None}, [(Kind.UNLINKED, Aspect.LINK, None, True)]),
        ({"changedFields": [LINK]}, {LINK: " "}, [(Kind.UNLINKED, Aspect.LINK, None, True)]),
        ({"nulledFields": [LINK]}, {}, [(Kind.UNLINKED, Aspect.LINK, None, True)]),
        ({"nulledFields": [LINK]}, {LINK: "7"}, [(Kind.UNLINKED, Aspect.LINK, None, True)]),
        ({"changedFields": ["Name"]}, {LINK: "7", REFERENCE: "NG"}, []),
        ({"nulledFields": ["Name"]}, {LINK: None}, []),
        ({"changedFields": [LINK]}, {}, [(Kind.TOUCHED, Aspect.EXISTENCE, None, None)]),
        (
            {"changedFields": ["0x400100"]},
            {LINK: "7"},
            [(Kind.TOUCHED, Aspect.EXISTENCE, None, None)],
        ),
        ({"nulledFields": ["4-0x01"]}, {LINK: "7"}, [(Kind.TOUCHED, Aspect.EXISTENCE, None, None)]),
        ({"changedFields": None}, {LINK: "7"}, [(Kind.TOUCHED, Aspect.EXISTENCE, None, None)]),
        (
            {"changedFields": [REFERENCE]},
            {LINK: "7", REFERENCE: "NG"},
            [(Kind.LINKED, Aspect.HINT, "NG", False)],
        ),
        (
            {"changedFields": [REFERENCE, LINK]},
            {LINK: "7", REFERENCE: "NG"},
            [(Kind.LINKED, Aspect.LINK, "7", True), (Kind.LINKED, Aspect.HINT, "NG", False)],
        ),
        ({"changedFields": [REFERENCE]}, {REFERENCE: None}, []),
    ],
)
def test_b3_2_cdc_update(header, fields, said):
    assert claims(decoded(salesforce(), cdc("UPDATE", fields=fields, **header))) == said


@pytest.mark.parametrize(
    ("change_type", "fields", "said"),
    [
        ("CREATE", {LINK: "7"}, [(Kind.LINKED, Aspect.LINK, "7", False)]),
        ("CREATE", {LINK: None}, [(Kind.TOUCHED, Aspect.EXISTENCE, None, None)]),
        ("CREATE", {}, [(Kind.TOUCHED, Aspect.EXISTENCE, None, None)]),
        ("CREATE", {REFERENCE: "NG"}, [(Kind.LINKED, Aspect.HINT, "NG", False)]),
        (
            "UNDELETE",
            {LINK: 7},
            [
                (Kind.RESTORED, Aspect.EXISTENCE, None, None),
                (Kind.LINKED, Aspect.LINK, "7", False),
            ],
        ),
        ("UNDELETE", {LINK: None}, [(Kind.RESTORED, Aspect.EXISTENCE, None, None)]),
        (
            "UNDELETE",
            {REFERENCE: "NG"},
            [
                (Kind.RESTORED, Aspect.EXISTENCE, None, None),
                (Kind.LINKED, Aspect.HINT, "NG", False),
            ],
        ),
        (
            "DELETE",
            {LINK: "7", REFERENCE: "NG"},
            [(Kind.DELETED, Aspect.EXISTENCE, None, None)],
        ),
        ("GAP_CREATE", {}, [(Kind.TOUCHED, Aspect.EXISTENCE, None, None)]),
        ("GAP_UPDATE", {LINK: "7"}, [(Kind.TOUCHED, Aspect.EXISTENCE, None, None)]),
        ("GAP_UNDELETE", {LINK: "7"}, [(Kind.TOUCHED, Aspect.EXISTENCE, None, None)]),
        ("GAP_DELETE", {}, [(Kind.TOUCHED, Aspect.EXISTENCE, None, None)]),
    ],
)
def test_b3_2_cdc_other_changes(change_type, fields, said):
    found = decoded(salesforce(), cdc(change_type, fields=fields))
    assert claims(found) == said
    assert len({change.identity for change in found.changes}) == len(said)
    assert all(change.occurred_at == 1795189317000 for change in found.changes)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("cdc.delete", [Kind.DELETED]),
        ("cdc.gap_update", [Kind.TOUCHED]),
        ("eventbridge.create", [Kind.TOUCHED, Kind.TOUCHED]),
        ("bare.create", [Kind.TOUCHED]),
        ("cometd.undelete", [Kind.RESTORED]),
        ("apex.update", [Kind.LINKED]),
        ("apex.merge", [Kind.MERGED]),
    ],
)
def test_b2_6_json_shapes(name, kinds):
    found = decoded(salesforce(), fixture(f"salesforce/{name}.json"), proof=Proof.HEADER_TOKEN)
    assert [change.kind for change in found.changes] == kinds
    assert found.undecodable == []


def test_b2_6_an_array_of_shapes():
    names = ("cdc.update", "bare.create", "cometd.undelete", "eventbridge.create", "apex.merge")
    body = [events(f"salesforce/{name}.json") for name in names]
    found = decoded(salesforce(), body)
    assert [change.kind for change in found.changes] == [
        Kind.TOUCHED,
        Kind.RESTORED,
        Kind.TOUCHED,
        Kind.TOUCHED,
        Kind.MERGED,
    ]
    assert found.ignored == {"other fields": 1}


def test_b3_10_an_overflow_owes_a_reconcile():
    found = decoded(salesforce(), fixture("salesforce/cdc.gap_overflow.json"))
    assert (found.reconcile, found.changes) == (["GAP_OVERFLOW"], [])


def test_b3_2_only_soap_leaves_a_link_field_out():
    """Of a record in JSON it is known which fields changed, whatever the setting."""
    reader = salesforce(salesforce_absent_means_cleared=True)
    for body in (cdc("CREATE"), cdc("GAP_UPDATE"), {"new": [record()], "old": []}):
        change = one(decoded(reader, body))
        assert (change.kind, change.left_out, change.definition) == (Kind.TOUCHED, False, None)


def test_b3_10_a_wildcard_owes_a_reconcile_and_named_records_still_count():
    found = decoded(salesforce(), cdc("DELETE", recordIds=["001*", ACCOUNT]))
    assert found.reconcile == ["recordIds wildcard"]
    assert [change.kind for change in found.changes] == [Kind.DELETED]


def test_b3_2_many_record_ids_are_many_changes_that_each_keep_their_own():
    found = decoded(
        salesforce(), cdc("CREATE", fields={LINK: "7"}, recordIds=[ACCOUNT[:15], OTHER])
    )
    assert [change.record.id for change in found.changes] == [ACCOUNT, OTHER]
    assert len({change.identity for change in found.changes}) == 2
    for change in found.changes:
        (again,) = decoded(salesforce(), change.raw.encode()).changes
        assert (again.record, again.identity) == (change.record, change.identity)


def test_a_bulk_change_is_not_multiplied_by_its_records():
    body = cdc(
        "CREATE", fields={LINK: "7", "Description": "x" * 50_000}, recordIds=[ACCOUNT, OTHER]
    )
    kept = [change.raw for change in decoded(salesforce(), body).changes]
    assert len(kept) == 2
    assert sum(map(len, kept)) < 5_000


def test_b2_10_cdc_one_bad_id_spoils_no_other():
    found = decoded(
        salesforce(), cdc("DELETE", recordIds=[ACCOUNT, "nonsense", None, "0035g00001TtYqPAAV"])
    )
    assert len(found.changes) == 1
    assert found.ignored == {"other objects": 1}
    assert len(found.undecodable) == 1
    assert "nonsense" not in found.undecodable[0].why


@pytest.mark.parametrize("entity", ["Contact", "ContactChangeEvent", "Lead"])
def test_b3_2_cdc_of_other_objects_is_ignored(entity):
    assert decoded(salesforce(), cdc(entityName=entity)).ignored == {"other objects": 1}


def test_b3_2_cdc_the_channel_name_counts_as_the_object():
    assert len(decoded(salesforce(), cdc("DELETE", entityName="AccountChangeEvent")).changes) == 1


@pytest.mark.parametrize(
    "event",
    [
        cdc("EXPLODE"),
        cdc(None),
        cdc(entityName=None),
        cdc(recordIds=[]),
        cdc(recordIds=None),
        cdc(recordIds=ACCOUNT),
        cdc(changedFields="all"),
        cdc(changedFields=[1]),
        cdc("CREATE", fields={LINK: {"a": 1}}),
        cdc("CREATE", fields={LINK: True}),
        {"payload": {}},
        {"payload": 7},
        {"detail": {"detail": {"detail": {"detail": {}}}}},
        {"ChangeEventHeader": []},
        {},
        7,
        None,
        [],
    ],
)
def test_b2_10_json_one_bad_event_spoils_no_other(event):
    found = decoded(salesforce(), [event, cdc("DELETE")])
    assert (len(found.undecodable), len(found.changes)) == (1, 1)


def test_b2_11_cdc_identity_is_transaction_sequence_and_record():
    def identity(**header):
        return one(decoded(salesforce(), cdc("DELETE", **header))).identity

    first = identity()
    assert identity(commitNumber=2) == first
    assert identity(sequenceNumber=2) != first
    assert identity(transactionKey="other") != first
    assert identity(recordIds=[OTHER]) != first
    assert identity(transactionKey=None) is None
    assert identity(sequenceNumber=None) is None


# --- JSON: the organisation


@pytest.mark.parametrize("name", ["cdc.delete", "bare.create", "cometd.undelete", "apex.update"])
def test_b2_6_a_shape_without_organisation_needs_more_than_a_url_token(name):
    body = fixture(f"salesforce/{name}.json")
    with pytest.raises(Unauthenticated) as refused:
        decoded(salesforce(), body, proof=Proof.URL_TOKEN)
    assert refused.value.reason == "weak"
    assert decoded(salesforce(), body, proof=Proof.HEADER_TOKEN).changes


def test_b2_6_eventbridge_names_its_organisation_so_a_url_token_will_do():
    body = fixture("salesforce/eventbridge.create.json")
    assert len(decoded(salesforce(), body, proof=Proof.URL_TOKEN).changes) == 2


def test_b2_9_eventbridge_of_another_organisation_is_foreign():
    event = events("salesforce/eventbridge.create.json")
    event["source"] = "aws.partner/salesforce.com/00D5g000007Kp2q/0YL5g000000Gd4fGAC"
    found = decoded(salesforce(), event)
    assert (found.foreign, found.changes) == (1, [])


@pytest.mark.parametrize("source", ["", "aws.partner/salesforce.com/", "acme", 7, None, {}])
def test_b2_10_an_unreadable_organisation_spoils_the_event(source):
    event = events("salesforce/eventbridge.create.json") | {"source": source}
    assert len(decoded(salesforce(), [event]).undecodable) == 1


@pytest.mark.parametrize("organisation", ["00D5g000007Kp2QEAS", "00D5g000007Kp2Q"])
def test_b2_9_an_apex_author_may_name_the_organisation(organisation):
    event = events("salesforce/apex.update.json") | {"organizationId": organisation}
    assert len(decoded(salesforce(), event, proof=Proof.URL_TOKEN).changes) == 1
    event["organizationId"] = "00D5g000007Kp2q"
    assert decoded(salesforce(), event).foreign == 1


# --- JSON: Apex


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        ({LINK: "7"}, {}, [(Kind.LINKED, Aspect.LINK, "7", True)]),
        ({LINK: "7"}, {LINK: "6"}, [(Kind.LINKED, Aspect.LINK, "7", True)]),
        ({LINK: "7"}, {LINK: 7.0}, []),
        ({}, {LINK: "7"}, [(Kind.UNLINKED, Aspect.LINK, None, True)]),
        ({LINK: None}, {LINK: 7}, [(Kind.UNLINKED, Aspect.LINK, None, True)]),
        ({"Name": "a"}, {"Name": "b"}, []),
        ({REFERENCE: "NG"}, {}, [(Kind.LINKED, Aspect.HINT, "NG", False)]),
        ({}, {REFERENCE: "NG"}, []),
        ({REFERENCE: "NG"}, {REFERENCE: "NG"}, []),
        ({REFERENCE: "NH"}, {REFERENCE: "NG"}, [(Kind.LINKED, Aspect.HINT, "NH", False)]),
        ({LINK: "7"}, None, [(Kind.LINKED, Aspect.LINK, "7", False)]),
        ({}, None, [(Kind.TOUCHED, Aspect.EXISTENCE, None, None)]),
        (None, {LINK: "7"}, [(Kind.DELETED, Aspect.EXISTENCE, None, None)]),
    ],
)
@pytest.mark.parametrize("nothing", [None, []])
def test_b3_2_apex_compares_old_and_new(new, old, said, nothing):
    event = {
        "new": nothing if new is None else [record(**new)],
        "old": nothing if old is None else [record(ACCOUNT[:15], **old)],
    }
    found = decoded(salesforce(), event)
    assert claims(found) == said
    assert found.ignored == ({} if said else {"other fields": 1})


def test_b3_2_apex_a_merged_record_is_a_change_of_its_master():
    change = one(decoded(salesforce(), fixture("salesforce/apex.merge.json")))
    assert (change.kind, change.record.id) == (Kind.MERGED, ACCOUNT)
    assert change.merged_ids == (OTHER,)


def test_b3_8_an_apex_delete_does_not_say_when():
    event = {"new": [], "old": [record(LastModifiedDate="2026-11-20T14:03:07.000+0000")]}
    change = one(decoded(salesforce(), event))
    assert change.occurred_at is None
    assert change.identity is not None


def test_b3_2_apex_records_are_paired_by_id_and_kept_with_their_pair():
    event = {
        "new": [record(LINK=1, **{LINK: "7"}), record(OTHER, **{LINK: "8"})],
        "old": [record(OTHER[:15], **{LINK: "8"}), record(**{LINK: "6"})],
    }
    found = decoded(salesforce(), event)
    change = one(found)
    assert (change.record.id, change.customer_id) == (ACCOUNT, "7")
    assert json.loads(change.raw) == {"new": [event["new"][0]], "old": [event["old"][1]]}
    assert found.ignored == {"other fields": 1}


@pytest.mark.parametrize(
    "event",
    [
        {"new": [record("nonsense"), record(**{LINK: "7"})], "old": []},
        {"new": [7, record(**{LINK: "7"})]},
        {"new": [record(OTHER, **{LINK: {}}), record(**{LINK: "7"})]},
        {"new": [], "old": [record(OTHER, MasterRecordId="x"), record()]},
        {"new": [], "old": [record(OTHER, MasterRecordId=OTHER[:15]), record()]},
        {"new": [], "old": [record(OTHER, MasterRecordId="0035g00001TtYqPAAV"), record()]},
        {"new": [record(**{LINK: "7"})], "old": [record(), record(OTHER)]},
    ],
)
def test_b2_10_apex_one_bad_record_spoils_no_other(event):
    found = decoded(salesforce(), event)
    assert (len(found.undecodable), len(found.changes)) == (1, 1)


@pytest.mark.parametrize("event", [{"new": 7}, {"old": {}}, {"new": [record()], "old": [{}]}])
def test_b2_10_apex_that_is_no_pair_of_lists_is_undecodable(event):
    assert len(decoded(salesforce(), [event]).undecodable) == 1
    with pytest.raises(Undecodable):
        decoded(salesforce(), event)


@pytest.mark.parametrize(
    "other", [record(attributes={"type": "Contact"}), record("0035g00001TtYqPAAV")]
)
def test_b3_2_apex_other_objects_are_ignored(other):
    assert decoded(salesforce(), {"new": [other], "old": [other]}).ignored == {"other objects": 1}


def test_b3_2_apex_attributes_may_be_missing():
    event = {"new": [{"Id": ACCOUNT, LINK: "7"}], "old": None}
    assert one(decoded(salesforce(), event)).customer_id == "7"


def test_b2_11_apex_identity_is_record_time_and_mapped_fields():
    def identity(date="2026-11-20T15:41:57.000+0000", **fields):
        new = record(**fields) | ({"LastModifiedDate": date} if date else {})
        return one(decoded(salesforce(), {"new": [new], "old": [record()]})).identity

    first = identity(**{LINK: "7"})
    assert identity(Name="other", **{LINK: "7.0"}) == first
    assert identity(**{LINK: "8"}) != first
    assert identity("2026-11-20T15:41:58.000+0000", **{LINK: "7"}) != first
    assert identity(None, **{LINK: "7"}) is None


def test_b2_11_an_apex_delete_is_no_repeat_of_the_insert_before():
    same = [record(LastModifiedDate="2026-11-20T14:03:07.000Z")]
    made = one(decoded(salesforce(), {"new": same, "old": []}))
    gone = one(decoded(salesforce(), {"new": [], "old": same}))
    assert made.aspect is gone.aspect
    assert made.identity != gone.identity


def test_b2_6_apex_session_ids_are_kept_nowhere():
    event = {"new": [record(SessionId="SECRET", **{LINK: "7"}), record("x", sessionid="SECRET")]}
    found = decoded(salesforce(), event)
    assert "SECRET" not in one(found).raw
    assert b"SECRET" not in found.undecodable[0].raw


@pytest.mark.parametrize(
    "body", [b"", b"7", b"[", b"\xff", b"[" * 100_000, "[]".encode("utf-16"), b"<a/>"]
)
def test_b2_10_a_body_that_is_no_json_is_undecodable(body):
    with pytest.raises(Undecodable):
        decoded(salesforce(), body)


# --- anything at all

_TEXTS = st.text(st.characters()) | st.sampled_from([ACCOUNT, "001*", "0x1", LINK, "GAP_UPDATE"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)


def _some(names, values):
    return st.dictionaries(st.sampled_from(names), values, max_size=6)


_HEADERS = _some(
    ["recordIds", "changeType", "changedFields", "nulledFields", "commitTimestamp", "entityName"],
    _VALUES | st.lists(_TEXTS, max_size=3),
).map(
    lambda extra: {"entityName": "Account", "recordIds": [ACCOUNT], "changeType": "UPDATE"} | extra
)
_PAYLOADS = st.tuples(_HEADERS, _some([LINK, REFERENCE], _VALUES)).map(
    lambda parts: {"ChangeEventHeader": parts[0]} | parts[1]
)
_RECORDS = _some(
    ["Id", "attributes", "MasterRecordId", "LastModifiedDate", LINK, REFERENCE], _VALUES
)
_EVENTS = st.one_of(
    _PAYLOADS,
    st.tuples(st.sampled_from(["payload", "detail", "data"]), _PAYLOADS | _VALUES).map(
        lambda pair: {pair[0]: pair[1]}
    ),
    st.dictionaries(
        st.sampled_from(["new", "old"]),
        st.lists(_RECORDS.map(lambda extra: {"Id": ACCOUNT} | extra), max_size=3) | _VALUES,
    ),
    _VALUES,
)
_JSON = _EVENTS.map(lambda event: json.dumps(event).encode()) | st.binary(max_size=100)
_NAMES = ["Id", "sObject", "sf:Id", f"sf:{LINK}", "Notification", "x"]
_ELEMENTS = st.recursive(
    st.text(st.characters(codec="utf-8"), max_size=10),
    lambda inner: st.tuples(st.sampled_from(_NAMES), st.lists(inner, max_size=4)).map(
        lambda parts: f"<{parts[0]}>{''.join(parts[1])}</{parts[0]}>"
    ),
)
_XML = st.binary(max_size=100) | _ELEMENTS.map(
    lambda text: (
        CREATED.replace(b"   </Notification>", text.encode() + b"   </Notification>")
        if len(text) % 2
        else CREATED.replace(b"<sf:Created", text.encode() + b"<sf:Created")
    )
)


@examples(deadline=None, max_examples=400)
@given(
    st.tuples(st.just("application/json"), _JSON) | st.tuples(st.just(XML), _XML),
    st.sampled_from(Proof),
    st.dictionaries(
        st.sampled_from(["x-signature", "authorization", "x-webhook-token"]),
        st.text(st.characters()),
    ),
    st.none() | st.text(st.characters()),
)
def test_nothing_raises_but_the_two_refusals(content, proof, headers, path_token):
    media_type, body = content
    sent = delivery(body, headers=headers, media_type=media_type, path_token=path_token)
    reader = salesforce()
    with pytest.raises(Unauthenticated):
        reader.authenticate(sent)
    assert isinstance(reader.redacted(sent), bytes)
    try:
        found = reader.decode(sent, proof)
    except (Undecodable, Unauthenticated):
        return
    for change in found.changes:
        assert change.record.source is Source.SALESFORCE
        assert msgspec.json.encode(change)
