"""Geotab: proofs and events of our own shape (B2.8, B2.9, B2.10, B2.11, B3.4)."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from sync_worker.domain import Aspect, Kind, Source
from tests.unit.webhooks.deliveries import NOW, decoded, delivery, events, fixture, geotab
from webhooks import signatures
from webhooks.sources import Proof, Unauthenticated, Undecodable

FORM = "application/x-www-form-urlencoded"
TOKEN = "test-form-token-0001"
BODY = fixture("geotab/customer.linked.json")
SIGNED = signatures.sign_x(b"geotab-test-secret-0002", BODY, int(NOW))
FORM_BODY = (
    b"token=test-form-token-0001&event_type=customer.unlinked&reseller_customer_id=0070441"
    b"&occurred_at=2026-11-20T17%3A00%3A00Z&account=ACCT01&fusebill_id=8714402"
)


def event(**changes):
    fields = {
        "event_type": "customer.linked",
        "occurred_at": "2026-11-20T14:03:07Z",
        "account": "ACCT01",
        "reseller_customer_id": "0070441",
        "fusebill_id": 8714402,
    } | changes
    return {name: value for name, value in fields.items() if value != "left out"}


def one(body, media_type="application/json"):
    found = decoded(geotab(), body, media_type=media_type)
    assert (found.ignored, found.foreign, found.undecodable) == ({}, 0, [])
    (change,) = found.changes
    return change


# --- authentication


@pytest.mark.parametrize(
    ("headers", "body", "path_token", "proof"),
    [
        ({"x-signature": SIGNED}, BODY, None, Proof.SIGNATURE),
        ({"x-signature": SIGNED, "x-webhook-token": "no"}, BODY, "no", Proof.SIGNATURE),
        ({"x-webhook-token": TOKEN}, BODY, "no", Proof.HEADER_TOKEN),
        ({"x-webhook-token": TOKEN}, b"token=no", None, Proof.HEADER_TOKEN),
        ({}, FORM_BODY, "no", Proof.FORM_TOKEN),
        ({}, b"a=1&t%6Fken=test-form-token%2D0001", None, Proof.FORM_TOKEN),
        ({}, b"event_type=x", TOKEN, Proof.URL_TOKEN),
        ({}, BODY, TOKEN, Proof.URL_TOKEN),
    ],
)
def test_b2_8_proofs(headers, body, path_token, proof):
    media_type = "application/json" if body == BODY else FORM
    sent = delivery(body, headers=headers, media_type=media_type, path_token=path_token)
    assert geotab().authenticate(sent) is proof


@pytest.mark.parametrize(
    ("headers", "body", "path_token", "reason"),
    [
        ({}, BODY, None, "missing"),
        ({"authorization": f"Bearer {TOKEN}"}, BODY, None, "missing"),
        ({"x-signature": SIGNED}, BODY + b" ", TOKEN, "wrong"),
        ({"x-signature": SIGNED.replace("t=", "t=1")}, BODY, TOKEN, "wrong"),
        ({"x-signature": "v1=0", "x-webhook-token": TOKEN}, BODY, TOKEN, "timestamp"),
        ({"x-webhook-token": "no"}, FORM_BODY, TOKEN, "wrong"),
        ({}, b"token=no", TOKEN, "wrong"),
        ({}, b"token=", TOKEN, "wrong"),
        ({}, FORM_BODY + b"&token=test-form-token-0001", TOKEN, "wrong"),
        ({}, FORM_BODY + b"&x=" + b"y" * 65536, None, "missing"),
        ({}, FORM_BODY + b"&x" * 200, None, "missing"),
        ({}, b"\xff" + FORM_BODY, None, "missing"),
        ({}, BODY, "no", "wrong"),
    ],
)
def test_b2_4_a_stronger_proof_that_fails_is_final(headers, body, path_token, reason):
    media_type = "application/json" if body.startswith(BODY) else FORM
    sent = delivery(body, headers=headers, media_type=media_type, path_token=path_token)
    with pytest.raises(Unauthenticated) as refused:
        geotab().authenticate(sent)
    assert refused.value.reason == reason


def test_b2_8_a_json_field_called_token_proves_nothing():
    sent = delivery(json.dumps({"token": TOKEN}).encode())
    with pytest.raises(Unauthenticated):
        geotab().authenticate(sent)


# --- what events say


def test_b3_4_the_sample_of_three_events():
    found = decoded(geotab(), fixture("geotab/events.json"))
    linked, changed, deactivated = found.changes
    assert linked.record.mailbox == "geotab:ACCT01:customer:0070441"
    assert (linked.kind, linked.aspect) == (Kind.LINKED, Aspect.LINK)
    assert (linked.customer_id, linked.evidence, linked.previous_id) == ("8714402", False, None)
    assert linked.occurred_at == 1795183387000
    assert linked.event_id == "7c0e1a52-3f0b-4f0a-9d53-5b1f6f1f2a10"
    assert linked.request_id == "req-1"
    assert json.loads(linked.raw) == events("geotab/events.json")["events"][0]
    assert (changed.kind, changed.aspect) == (Kind.LINKED, Aspect.HINT)
    assert (changed.reference, changed.previous_id, changed.evidence) == (
        "NG-0042",
        "0070441",
        True,
    )
    assert (deactivated.kind, deactivated.aspect) == (Kind.UNLINKED, Aspect.LINK)
    assert (deactivated.customer_id, deactivated.evidence) == (None, True)


@pytest.mark.parametrize(
    "body",
    [
        event(),
        [event()],
        {"events": [event()]},
        {"events": event()},
        b" " + json.dumps(event()).encode() + b"\n",
    ],
)
def test_b2_8_shapes(body):
    assert one(body).customer_id == "8714402"


def test_b2_8_a_form():
    change = one(FORM_BODY, FORM)
    assert (change.kind, change.aspect, change.evidence) == (Kind.UNLINKED, Aspect.LINK, True)
    assert (change.record.id, change.customer_id) == ("0070441", "8714402")
    assert change.occurred_at == 1795194000000


def test_b2_8_the_token_is_kept_nowhere():
    assert TOKEN not in one(FORM_BODY, FORM).raw
    assert TOKEN not in one(event(token=TOKEN)).raw
    assert (
        TOKEN
        not in one(json.dumps(event(tok=TOKEN)).replace('"tok"', '"tok\\u0065n"').encode()).raw
    )
    found = decoded(geotab(), [event(token=TOKEN, account=7)])
    assert TOKEN.encode() not in found.undecodable[0].raw


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"a=1&token=SECRET&b=2", b"a=1&b=2"),
        (b"t%6Fken=SECRET&a=\xff", b"a=\xff"),
        (b"+Token =SECRET", b""),
        (b"a=1&token=SECR", b"a=1"),
    ],
)
def test_b2_8_what_is_kept_of_an_undecodable_form_has_no_token(body, kept):
    assert geotab().redacted(delivery(body, media_type=FORM)) == kept


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{"a":1,"token" : "SEC\\"RET","b"', b'{"a":1,"token" : "","b"'),
        (b'{"token":"SECR', b'{"token":""'),
    ],
)
def test_b2_8_what_is_kept_of_undecodable_json_has_no_token(body, kept):
    assert geotab().redacted(delivery(body)) == kept


@pytest.mark.parametrize(
    ("changes", "kind", "aspect", "evidence"),
    [
        ({}, Kind.LINKED, Aspect.LINK, False),
        ({"reference": "NG"}, Kind.LINKED, Aspect.LINK, False),
        ({"previous_reseller_customer_id": "0070440"}, Kind.LINKED, Aspect.LINK, True),
        ({"previous_reseller_customer_id": "0070441"}, Kind.LINKED, Aspect.LINK, False),
        ({"previous_reseller_customer_id": ""}, Kind.LINKED, Aspect.LINK, False),
        ({"event_type": "customer.changed"}, Kind.LINKED, Aspect.LINK, True),
        ({"fusebill_id": None, "reference": "NG"}, Kind.LINKED, Aspect.HINT, False),
        (
            {"fusebill_id": None, "previous_reseller_customer_id": "0070440"},
            Kind.LINKED,
            Aspect.HINT,
            True,
        ),
        (
            {"fusebill_id": None, "previous_reseller_customer_id": "0070441"},
            Kind.TOUCHED,
            Aspect.EXISTENCE,
            False,
        ),
        (
            {"fusebill_id": None, "event_type": "customer.changed"},
            Kind.TOUCHED,
            Aspect.EXISTENCE,
            True,
        ),
        ({"fusebill_id": None}, Kind.TOUCHED, Aspect.EXISTENCE, False),
        ({"fusebill_id": " ", "reference": ""}, Kind.TOUCHED, Aspect.EXISTENCE, False),
        ({"event_type": "customer.unlinked"}, Kind.UNLINKED, Aspect.LINK, True),
        ({"event_type": "customer.deactivated"}, Kind.UNLINKED, Aspect.LINK, True),
    ],
)
def test_b3_4_event_types(changes, kind, aspect, evidence):
    change = one(event(**changes))
    assert (change.kind, change.aspect, change.evidence) == (kind, aspect, evidence)


@pytest.mark.parametrize("event_type", ["customer.linked", "customer.changed"])
@pytest.mark.parametrize("reference", [None, "NG-0042"])
def test_b3_4_the_previous_id_is_a_way_to_find_the_customer(event_type, reference):
    change = one(
        event(
            event_type=event_type,
            fusebill_id=None,
            reference=reference,
            previous_reseller_customer_id="0070440",
        )
    )
    assert (change.kind, change.aspect, change.evidence) == (Kind.LINKED, Aspect.HINT, True)
    assert (change.record.id, change.customer_id) == ("0070441", None)
    assert (change.previous_id, change.reference) == ("0070440", reference)


@pytest.mark.parametrize("event_type", ["customer.linked", "customer.changed", "customer.unlinked"])
@pytest.mark.parametrize(
    ("sent", "kept"),
    [("0070440", "0070440"), ("70441", "70441"), ("0070441", None), ("", None), (None, None)],
)
def test_b3_4_a_previous_id_that_is_the_id_itself_is_none(event_type, sent, kept):
    change = one(event(event_type=event_type, previous_reseller_customer_id=sent))
    assert change.previous_id == kept


def test_b3_4_an_unlinking_that_names_a_customer_touches_only_that_one():
    assert one(event(event_type="customer.unlinked")).customer_id == "8714402"


@pytest.mark.parametrize(
    ("sent", "customer_id"),
    [
        (8714402, "8714402"),
        ("8714402", "8714402"),
        (" 8714402 ", "8714402"),
        (8714402.0, "8714402"),
        (10**30, "1" + "0" * 30),
        ("none", "none"),
    ],
)
def test_b3_4_a_fusebill_id_may_be_number_or_text(sent, customer_id):
    assert one(event(fusebill_id=sent)).customer_id == customer_id


@pytest.mark.parametrize("id_", ["0909909", "0", "a:b c/ü", "x" * 255, "字" * 255])
def test_b3_4_the_id_is_opaque(id_):
    assert one(event(reseller_customer_id=id_)).record.id == id_


@pytest.mark.parametrize(
    "id_",
    [
        "left out",
        None,
        "",
        " ",
        " 1",
        "1\n",
        "a\0b",
        "a\x1bb",
        "a\u200bb",
        "x" * 256,
        70441,
        7.5,
        True,
        ["0070441"],
        {},
    ],
)
def test_b3_4_an_id_that_may_have_lost_something_is_undecodable(id_):
    found = decoded(geotab(), [event(reseller_customer_id=id_), event()])
    assert (len(found.undecodable), len(found.changes)) == (1, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"previous_reseller_customer_id": 70440},
        {"fusebill_id": True},
        {"fusebill_id": []},
        {"reference": {}},
        {"event_type": None},
        {"event_type": 7},
        {"account": "left out"},
        {"account": ""},
        {"account": 7},
    ],
)
def test_b2_10_one_bad_event_spoils_no_other(changes):
    found = decoded(geotab(), [event(**changes), event()])
    assert (len(found.undecodable), len(found.changes), found.foreign) == (1, 1, 0)


def test_b2_9_another_account_is_foreign_whatever_else_it_holds():
    found = decoded(geotab(), [event(account="acct01", reseller_customer_id=7), event()])
    assert (found.foreign, len(found.changes)) == (1, 1)


def test_b2_12_other_event_types_are_ignored():
    assert decoded(geotab(), event(event_type="device.moved")).ignored == {"other events": 1}


@pytest.mark.parametrize(
    ("stated", "occurred_at"),
    [
        ("2026-11-20T14:03:07Z", 1795183387000),
        ("2026-11-20T14:03:07.123+00:00", 1795183387123),
        ("2026-11-20T09:03:07-0500", 1795183387000),
        (1795183387, 1795183387000),
        (1795183387.25, 1795183387250),
        ("1795183387", 1795183387000),
        (1795183387123, 1795183387123),
        (2**53 + 1, None),
        ("2026-11-20 14:03", None),
        ("2026-11-20T14:03:07", None),
        (-1, None),
        (True, None),
        ({}, None),
        ("", None),
        ("1795183387.x", None),
        ("9" * 5000, None),
    ],
)
def test_b3_4_spellings_of_time(stated, occurred_at):
    assert one(event(occurred_at=stated)).occurred_at == occurred_at


def test_b3_8_a_number_that_overflows_is_no_time():
    body = json.dumps(event(occurred_at=77)).replace("77", "1e400").encode()
    assert one(body).occurred_at is None


def test_b2_11_identity_is_the_event_id_else_what_it_says_if_it_carries_a_time():
    said = one(event())
    assert one(event(user_contact_id=4711)).identity == said.identity
    assert one(event(fusebill_id="8714402")).identity == said.identity
    assert one(event(fusebill_id=8714403)).identity != said.identity
    assert one(event(occurred_at=1795183388)).identity != said.identity
    assert one(event(occurred_at=None)).identity is None
    assert one(event(occurred_at="unclear")).identity is None
    named = one(event(event_id="e-1"))
    assert one(event(event_id="e-1", occurred_at=None)).identity == named.identity
    assert one(event(event_id="e-2")).identity != named.identity
    assert named.event_id == "e-1"
    assert one(event(event_id=7)).event_id == "7"


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"", "application/json"),
        (b"7", "application/json"),
        (b'{"events":7}', "application/json"),
        (b'{"events":null}', "application/json"),
        (b'{"events":[1,]}', "application/json"),
        (b"[" * 100_000, "application/json"),
        ("[]".encode("utf-16"), "application/json"),
        (b"a=1&a=2", FORM),
        (b"\xff=1", FORM),
        (b"a=%FF", FORM),
        (b"a=1&" * 200, FORM),
        (b"a=" + b"x" * 65536, FORM),
    ],
)
def test_b2_10_a_body_that_cannot_be_read_is_undecodable(body, media_type):
    with pytest.raises(Undecodable) as error:
        decoded(geotab(), body, media_type=media_type)
    assert len(str(error.value)) < 80


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"", FORM),
        (FORM_BODY.replace(b"ACCT01", b""), FORM),
        (FORM_BODY[:90], FORM),
        (b'{"event_type":"customer.linked"}', "application/json"),
        (b'{"events":{}}', "application/json"),
        (BODY.replace(b"ACCT01", b"\\ud800"), "application/json"),
    ],
)
def test_b2_10_a_body_that_is_one_unreadable_event_is_undecodable(body, media_type):
    """It may have been cut short, and its sender should hear of it."""
    with pytest.raises(Undecodable):
        decoded(geotab(), body, media_type=media_type)


@pytest.mark.parametrize(
    "bad", [b'{"account":"\\ud800"}', b'{"account":"\xff"}', b"NaN", b'"\n"', b"[]", b"1"]
)
def test_b2_10_a_bad_member_is_set_aside_alone(bad):
    found = decoded(geotab(), b'{"events":[' + bad + b"," + json.dumps(event()).encode() + b"]}")
    assert (len(found.undecodable), len(found.changes)) == (1, 1)


# --- anything at all

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["customer.linked", "customer.unlinked", "2026-11-20T14:03:07Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
_EVENTS = st.dictionaries(
    st.sampled_from(
        [
            "event_id",
            "event_type",
            "occurred_at",
            "account",
            "reseller_customer_id",
            "previous_reseller_customer_id",
            "fusebill_id",
            "reference",
            "token",
            "events",
        ]
    ),
    _VALUES,
).map(lambda extra: event(**extra))
_JSON = st.binary(max_size=100) | st.recursive(
    _EVENTS, lambda inner: st.lists(inner, max_size=3) | inner.map(lambda one: {"events": one})
).map(lambda body: json.dumps(body).encode())
_FORMS = st.binary(max_size=100) | _EVENTS.map(
    lambda fields: urlencode(fields, errors="replace").encode()
)


@examples(deadline=None, max_examples=400)
@given(
    st.tuples(st.just("application/json"), _JSON) | st.tuples(st.just(FORM), _FORMS),
    st.sampled_from(Proof),
    st.dictionaries(st.sampled_from(["x-signature", "x-webhook-token"]), st.text(st.characters())),
    st.none() | st.text(st.characters()),
)
def test_nothing_raises_but_the_two_refusals(content, proof, headers, path_token):
    media_type, body = content
    sent = delivery(body, headers=headers, media_type=media_type, path_token=path_token)
    reader = geotab()
    with pytest.raises(Unauthenticated):
        reader.authenticate(sent)
    kept = reader.redacted(sent)
    if media_type == FORM:
        assert "token" not in dict(parse_qsl(kept.decode("latin-1"), encoding="latin-1"))
    try:
        found = reader.decode(sent, proof)
    except Undecodable:
        return
    for change in found.changes:
        assert change.record.source is Source.GEOTAB
        assert msgspec.json.encode(change)
