"""Signatures: the published vectors, and hostile headers (B2.4, B2.5, B2.8)."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.unit.webhooks.deliveries import fixture
from webhooks.signatures import (
    is_one_of,
    secret_bytes,
    sign_hubspot_v1,
    sign_hubspot_v2,
    sign_hubspot_v3,
    sign_x,
    signed_uri,
    verify_hubspot_v1,
    verify_hubspot_v2,
    verify_hubspot_v3,
    verify_x,
)

S = b"yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy"
U = "https://www.example.com/webhook_uri"
T = b"autopilot-test-client-secret-0001"
V = "https://example.com/api/hubspot/webhooks"
B1 = (
    b'[{"eventId":1,"subscriptionId":12345,"portalId":62515,"occurredAt":1564113600000,'
    b'"subscriptionType":"contact.creation","attemptNumber":0,"objectId":123,'
    b'"changeSource":"CRM","changeFlag":"NEW","appId":54321}]'
)
B2 = b"{'example_field':'example_value'}"
B3 = b'{"example_field":"example_value"}'
B4 = (
    b'[{"eventId":4100000001,"subscriptionId":5100001,"portalId":12345678,"appId":7100001,'
    b'"occurredAt":1790000000000,"subscriptionType":"contact.creation","attemptNumber":0,'
    b'"objectId":901,"changeFlag":"NEW","changeSource":"FORM"},'
    b'{"eventId":4100000002,"subscriptionId":5100001,"portalId":12345678,"appId":7100001,'
    b'"occurredAt":1790000000500,"subscriptionType":"contact.creation","attemptNumber":0,'
    b'"objectId":902,"changeFlag":"NEW","changeSource":"CRM_UI"}]'
)
B5 = (
    '[{"appId":7100001,"eventId":4100000003,"subscriptionId":5100002,"portalId":12345678,'
    '"occurredAt":1790000002000,"subscriptionType":"object.creation","attemptNumber":1,'
    '"objectId":903,"objectTypeId":"0-1","changeSource":"FORM","note":"Zoë — café ☕"}]'
).encode()
QUERY = "?src=hs%3Aapp%2Fv3&x=%28a%29"
V10 = "G8ddQlikFQ0ScZOZn+MHQ0E3WCV7vOJTzKlvrkvbvuk="
V11 = "KKwrtu49d26FrUsDQdYcfAcwFssKn+cmyppOAUwOO/Q="

OWN_SECRET = b"test-client-secret-0001"
OWN_URI = "https://hooks.example.com/webhooks/hubspot"

G1 = fixture("geotab/customer.linked.json")
G2 = '{"reference":"Zoë — café ☕"}'.encode()
G_TIME = 1795183387


@pytest.mark.parametrize(
    ("secret", "body", "expected"),
    [
        (S, B1, "232db2615f3d666fe21a8ec971ac7b5402d33b9a925784df3ca654d05f4817de"),
        (S, B2, "69fc6631a867edd4f9e9e627fc5c1148e3fbdd8b21837b6d2b8901c1fa57f750"),
        (
            OWN_SECRET,
            fixture("hubspot/contact.creation.json"),
            "81ec416944f2cd9269b80d25f7f00383c11acbdda0055824305cab2a2fff3249",
        ),
    ],
    ids=["vector 1", "vector 2", "own"],
)
def test_b2_5_hubspot_v1_vectors(secret, body, expected):
    assert sign_hubspot_v1(secret, body) == expected
    assert verify_hubspot_v1(expected, [b"other", secret], body) is None
    assert verify_hubspot_v1(expected, [secret], body + b" ") == "wrong"


@pytest.mark.parametrize(
    ("secret", "method", "uri", "body", "expected"),
    [
        (S, "GET", U, b"", "eee2dddcc73c94d699f5e395f4b9d454a069a6855fbfa152e91e88823087200e"),
        (S, "POST", U, B3, "9569219f8ba981ffa6f6f16aa0f48637d35d728c7e4d93d0d52efaa512af7900"),
        (S, "POST", U, B2, "4fe4e3a7d3cf09db53be39d0a58130e2aaba074ec123a9e355b876a689a1c383"),
        (
            OWN_SECRET,
            "POST",
            OWN_URI,
            fixture("hubspot/contact.creation.json"),
            "5348e54db78415ce4b28389586298d24d4e9f7af06a669276bcd78787d58e527",
        ),
    ],
    ids=["vector 3", "vector 4", "vector 5", "own"],
)
def test_b2_5_hubspot_v2_vectors(secret, method, uri, body, expected):
    assert sign_hubspot_v2(secret, method, uri, body) == expected
    checked = {"uri": uri, "body": body}
    assert verify_hubspot_v2(expected, [b"other", secret], method=method, **checked) is None
    assert verify_hubspot_v2(expected, [secret], method="PUT", **checked) == "wrong"


@pytest.mark.parametrize(
    ("secret", "uri", "body", "timestamp", "expected"),
    [
        (S, U, B2, "1693657560000", "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y="),
        (S, U, B2, "1700000300000", "RnbPH7+UMKVkbV32P8bz450N4M56aPmcru1+D3kSDtw="),
        (T, V, B4, "1790000001000", "vc6X4JO1KMElXem9r7vSovD2GajkBW8j6R1JB/N89Rk="),
        (T, V, B5, "1790000003000", "iwUOcQxOJMXtoVai85f7uLyYuAp58oXpeyP5gPQKS2k="),
        (T, V + QUERY, b"[]", "1790000004000", V10),
        (
            OWN_SECRET,
            OWN_URI,
            fixture("hubspot/contact.creation.json"),
            "1795012346369",
            "SuidE5aqwcJ6/D1IIpCGy1AkfTK1MDhCXnsDCJAWUS8=",
        ),
    ],
    ids=["vector 6", "vector 7", "vector 8", "vector 9", "vector 10", "own"],
)
def test_b2_5_hubspot_v3_vectors(secret, uri, body, timestamp, expected):
    assert sign_hubspot_v3(secret, "POST", uri, body, timestamp) == expected
    checked = {"method": "POST", "uri": uri, "timestamp": timestamp, "now": int(timestamp) / 1000}
    assert verify_hubspot_v3(expected, [b"other", secret], body=body, **checked) is None
    assert verify_hubspot_v3(expected, [secret], body=body + b" ", **checked) == "wrong"


def test_b2_5_hubspot_v3_over_the_undecoded_query_is_wrong():
    """Vector 11: what an SDK without the documented decoding computes."""
    fault = verify_hubspot_v3(
        V11,
        [T],
        method="POST",
        uri=V + QUERY,
        body=b"[]",
        timestamp="1790000004000",
        now=1790000004,
    )
    assert fault == "wrong"


@pytest.mark.parametrize(
    ("escape", "char"),
    [
        ("%3A", ":"),
        ("%2F", "/"),
        ("%3F", "?"),
        ("%40", "@"),
        ("%21", "!"),
        ("%24", "$"),
        ("%27", "'"),
        ("%28", "("),
        ("%29", ")"),
        ("%2A", "*"),
        ("%2C", ","),
        ("%3B", ";"),
    ],
)
def test_b2_5_hubspot_v3_decodes_twelve_escapes(escape, char):
    def sign(query):
        return sign_hubspot_v3(S, "POST", f"{U}?x={query}", b"", "1")

    assert sign(escape) == sign(char)
    if escape != escape.lower():
        assert sign(escape.lower()) != sign(char)


@pytest.mark.parametrize("kept", ["%20", "%26", "%3D", "%25", "%3a", "%253A"])
def test_b2_5_hubspot_v3_decodes_nothing_else(kept):
    plain, escaped = (
        sign_hubspot_v3(S, "POST", f"{U}?x={text}", b"", "1") for text in (unquote(kept), kept)
    )
    assert plain != escaped


@pytest.mark.parametrize(
    ("public_url", "target", "expected"),
    [
        ("https://h.example", "/webhooks/hubspot", "https://h.example/webhooks/hubspot"),
        ("https://h.example/", "/webhooks/hubspot?a=1", "https://h.example/webhooks/hubspot?a=1"),
        ("https://h.example/in", "/webhooks/hubspot", "https://h.example/in/webhooks/hubspot"),
        ("https://h.example/in", "/in/webhooks/hubspot", "https://h.example/in/webhooks/hubspot"),
        ("https://h.example/in/", "/in?a=/in", "https://h.example/in?a=/in"),
        ("https://h.example/in", "/inner/hubspot", "https://h.example/in/inner/hubspot"),
        ("https://h.example/in", "/x?y=/in/z", "https://h.example/in/x?y=/in/z"),
        ("https://h.example/webhooks", "/webhooks/hubspot/", "https://h.example/webhooks/hubspot/"),
    ],
)
def test_b2_5_signed_uri_holds_the_public_path_once(public_url, target, expected):
    assert signed_uri(public_url, target) == expected


@pytest.mark.parametrize(
    ("off", "fault"), [(0, None), (300, None), (-300, None), (300.001, "stale"), (-301, "stale")]
)
def test_b2_5_five_minutes_both_ways(off, fault):
    timestamp = "1795012346000"
    given = sign_hubspot_v3(S, "POST", U, B2, timestamp)
    checked = {"method": "POST", "uri": U, "body": B2, "timestamp": timestamp}
    assert verify_hubspot_v3(given, [S], now=1795012346 + off, **checked) == fault
    assert verify_x(sign_x(S, B2, 1795012346), [S], B2, 1795012346 + off) == fault


@pytest.mark.parametrize(
    "timestamp", [None, "", "x", "-1", " 1", "1.5", "1e3", "9" * 5000, "١٧٩٥", "1\x00", "²"]
)
def test_b2_5_unreadable_time(timestamp):
    fault = verify_hubspot_v3(
        "x", [S], method="POST", uri=U, body=b"", timestamp=timestamp, now=1795012346
    )
    assert fault == "timestamp"
    assert verify_x(f"t={timestamp or ''},v1=00", [S], b"", 1795012346) == "timestamp"


@pytest.mark.parametrize(
    ("secret", "body", "digest"),
    [
        (
            b"geotab-test-secret-0001",
            G1,
            "9e2b3491bd6b08f6ba80acd5129fde5db38eec84cb057b3c0342ff3556018a45",
        ),
        (
            b"geotab-test-secret-0002",
            G1,
            "6a1bc4c3cdabc2c5956d41bf34adf6b3ac02b9ddd63ba3304a3ede80c0670bbc",
        ),
        (
            b"geotab-test-secret-0001",
            b"",
            "fe1f59cc0dc68a24c5ab73325a1ecad9e5075a02eb4d0673599d42bf67f18a6f",
        ),
        (
            b"geotab-test-secret-0001",
            G2,
            "4c5390e97a054a3af72dc2d25cdfd1a7f89673dc7eb3554aebffc2fb30c6f548",
        ),
    ],
)
def test_b2_8_x_signature_vectors(secret, body, digest):
    header = f"t={G_TIME},v1={digest}"
    assert sign_x(secret, body, G_TIME) == header
    assert verify_x(header, [b"other", secret], body, G_TIME) is None
    assert verify_x(header, [b"other"], body, G_TIME) == "wrong"


def test_b2_4_x_signature_may_carry_several_signatures_while_a_secret_is_rotated():
    old, new = (sign_x(key, b"{}", G_TIME).partition(",")[2] for key in (b"old", b"new"))
    assert verify_x(f"t={G_TIME}, {old}, {new}", [b"new"], b"{}", G_TIME) is None


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("", "wrong"),
        ("t=1795183387", "wrong"),
        ("v1=00", "timestamp"),
        ("t=1795183387,t=1795183387,v1=00", "timestamp"),
        ("t=1795183387,v1=", "wrong"),
        ("t=1795183387,v1=" + "é" * 64, "wrong"),
        ("t=1795183387,v1=\ud800", "wrong"),
        ("," * 100_000, "wrong"),
    ],
)
def test_b2_8_malformed_x_signature(header, fault):
    assert verify_x(header, [S], b"", G_TIME) == fault


def test_b2_4_tokens_are_compared_on_bytes():
    tokens = secret_bytes([SecretStr("tökén"), SecretStr(""), SecretStr("second")])
    assert tokens == ("tökén".encode(), b"second")
    assert is_one_of("tökén", tokens)
    assert is_one_of("second", tokens)
    assert not is_one_of("", tokens)
    assert not is_one_of("second ", tokens)
    assert not is_one_of("", ())


@examples(deadline=None)
@given(st.text(st.characters(), max_size=60), st.text(st.characters(), max_size=40), st.binary())
def test_b2_4_no_header_value_raises(given_value, timestamp, body):
    checked = {"method": given_value, "uri": timestamp + given_value, "body": body}
    assert verify_hubspot_v1(given_value, [S], body) == "wrong"
    assert verify_hubspot_v2(given_value, [S], **checked) == "wrong"
    assert verify_hubspot_v3(given_value, [S], timestamp=timestamp, now=0, **checked) is not None
    assert verify_x(given_value, [S], body, 0) is not None
    assert verify_x(f"t={timestamp},v1={given_value}", [S], body, 0) is not None
    assert not is_one_of(given_value, [S])
