from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_worker.domain import Attempt, Customer
from sync_worker.fusebill import answers, errors
from sync_worker.fusebill.answers import (
    KEPT_CHARACTERS,
    Answer,
    Call,
    clean,
    read_customer,
    read_page,
)
from sync_worker.fusebill.customer import CustomerPage
from sync_worker.fusebill.errors import (
    CustomerNotFound,
    FusebillError,
    RateLimited,
    Rejected,
    RelayedNotFound,
    Transient,
    Unauthorized,
)
from sync_worker.fusebill.limits import RateLimits
from sync_worker.fusebill.transport import ApiKey
from tests.unit.fusebill.scripted_server import EMAIL, KEY, customer_json, envelope

ID = 8714402
READ = Call("GET", f"/v1/customers/{ID}", ID)
WRITE = Call("POST", "/v1/Geotab/UnlatchCustomer", ID, b'{"fusebillId":8714402}')
HTML = b"<!DOCTYPE html><html><body>HubSpot customer 8714402 not found</body></html>"
CUSTOMER = json.dumps(customer_json()).encode()
LIST = Call(
    "GET", "/v1/customers/", params=(("query", f"primaryEmail:*{EMAIL}*"), ("pageNumber", "0"))
)
UNKNOWN = "Customer with id 8714402 not found."
HUBSPOT_ABSENT = "The was an error getting the contact from HubSpot: resource not found"
SALESFORCE_ABSENT = "Salesforce Account 1 does not exist."
MALFORMED_KEY = "Authorization key is not in the correct format."


def classify(call: Call, answer: Answer, **options: Any) -> Customer | FusebillError:
    return answers.classify(call, answer, read_customer, **options)


def classify_list(answer: Answer, call: Call = LIST, **options: Any) -> Any:
    return answers.classify(call, answer, read_page, **{"at": 0, **options})


Row = tuple[Answer, type[FusebillError], bool | None, bool]


def row(
    status: int,
    body: bytes,
    kind: type[FusebillError],
    *,
    lost: bool | None = None,
    outage: bool = False,
) -> Row:
    return Answer(status, body), kind, lost, outage


TABLE: dict[str, Row] = {
    "nothing, not sent": (Answer(fault="no connection", sent=False), Transient, False, True),
    "nothing, sent": (Answer(fault="no answer within 60 s"), Transient, True, True),
    "nothing at all": (Answer(), Transient, True, True),
    "200 broken off": (Answer(200, fault="the connection broke"), Transient, True, True),
    "404 broken off": (Answer(404, fault="the connection broke"), Transient, True, True),
    "200 null": row(200, b"null", Transient, lost=True),
    "200 empty": row(200, b"", Transient, lost=True),
    "204": row(204, b"", Transient, lost=True),
    "200 HTML": row(200, HTML, Transient, lost=True),
    "200 list": row(200, b"[%s]" % CUSTOMER, Transient, lost=True),
    "200 envelope": row(200, envelope(404, UNKNOWN), Transient, lost=True),
    "200 cut short": row(200, CUSTOMER[:-1], Transient, lost=True),
    "200 no UTF": row(200, b'{"id": "\xff"}', Transient, lost=True),
    "200 too deep": row(200, b"[" * 200_000, Transient, lost=True),
    "200 endless number": row(200, b"9" * 5000, Transient, lost=True),
    "200 other customer": row(200, json.dumps(customer_json(id=9)).encode(), Transient, lost=True),
    "301": row(301, HTML, Transient, lost=False),
    "302": row(302, CUSTOMER, Transient, lost=False),
    "304": row(304, b"", Transient, lost=False),
    "307": row(307, b"", Transient, lost=False),
    "308": row(308, b"", Transient, lost=False),
    "400": row(400, envelope(400, "GeotabId is required."), Rejected),
    "400 empty": row(400, b"", Rejected),
    "400 HTML": row(400, HTML, Rejected),
    "400 names a field": row(400, envelope(400, "hubSpotId does not exist."), Rejected),
    "400 absent customer": row(400, envelope(400, UNKNOWN), Rejected),
    "400 key": row(400, envelope(400, MALFORMED_KEY), Unauthorized),
    "400 key, louder": row(400, envelope(400, MALFORMED_KEY.upper()), Unauthorized),
    "400 key in Message": row(400, b'{"Message": "%s"}' % MALFORMED_KEY.encode(), Unauthorized),
    "400 key, bare": row(400, MALFORMED_KEY.encode(), Unauthorized),
    "400 HubSpot not found": row(400, envelope(400, HUBSPOT_ABSENT), RelayedNotFound),
    "400 Salesforce not there": row(400, envelope(400, SALESFORCE_ABSENT), RelayedNotFound),
    "400 HUBSPOT NOT FOUND": row(400, envelope(400, HUBSPOT_ABSENT.upper()), RelayedNotFound),
    "400 HubSpot": row(400, envelope(400, "HubSpot: timeout"), Transient, lost=False),
    "400 Salesforce": row(400, envelope(400, "x", "Salesforce is busy"), Transient, lost=False),
    "400 HubSpot in Message": row(400, b'{"Message": "HubSpot?"}', Transient, lost=False),
    "400 HubSpot, JSON string": row(400, b'"HubSpot fell over"', Transient, lost=False),
    "401": row(401, envelope(401, "Unauthorized"), Unauthorized),
    "401 empty": row(401, b"", Unauthorized),
    "402": row(402, b"", Rejected),
    "403": row(403, envelope(403, UNKNOWN), Transient, lost=False),
    "403 HTML": row(403, HTML, Transient, lost=False),
    "404 customer": row(404, envelope(404, UNKNOWN), CustomerNotFound),
    "404 customer, among others": row(404, envelope(404, "Oh.", UNKNOWN), CustomerNotFound),
    "404 other customer": row(
        404, envelope(404, "Customer with id 87144021 not found."), Transient, lost=False
    ),
    "404 longer number": row(
        404, envelope(404, "Customer with id 18714402 not found."), Transient, lost=False
    ),
    "404 not of a customer": row(
        404, envelope(404, "HubSpot contact 8714402 not found."), Transient, lost=False
    ),
    "404 no text": row(404, envelope(404), Transient, lost=False),
    "404 Message": row(404, b'{"Message": "%s"}' % UNKNOWN.encode(), Transient, lost=False),
    "404 HTML": row(404, HTML, Transient, lost=False),
    "404 empty": row(404, b"", Transient, lost=False),
    "404 null": row(404, b"null", Transient, lost=False),
    "404 odd Errors": row(404, b'{"Errors": {"Value": 3}}', Transient, lost=False),
    "404 odd Values": row(404, b'{"Errors": [3, {"Value": 3}, null]}', Transient, lost=False),
    "405": row(405, HTML, Rejected),
    "408": row(408, b"", Transient, lost=True, outage=True),
    "409": row(409, envelope(409, "Salesforce Account is already latched."), Rejected),
    "415": row(415, b"", Rejected),
    "422": row(422, envelope(422, "no"), Rejected),
    "429": row(429, envelope(429, "Minute limit reached."), RateLimited),
    "429 HTML": row(429, HTML, RateLimited),
    "499": row(499, b"", Rejected),
    "500": row(500, envelope(500, HUBSPOT_ABSENT), Transient, lost=True, outage=True),
    "502": row(502, HTML, Transient, lost=True, outage=True),
    "503": row(503, b"", Transient, lost=True, outage=True),
    "504": row(504, HTML, Transient, lost=True, outage=True),
    "101": row(101, b"", Transient, lost=True, outage=True),
    "999": row(999, b"", Transient, lost=True, outage=True),
}


@pytest.mark.parametrize(("answer", "kind", "lost", "outage"), TABLE.values(), ids=TABLE.keys())
@pytest.mark.parametrize("call", [READ, WRITE], ids=["read", "write"])
def test_every_answer_has_its_class(
    call: Call, answer: Answer, kind: type[FusebillError], lost: bool | None, outage: bool
) -> None:
    """B6.1, B6.3."""
    error = classify(call, answer, at=1795183440000)
    assert type(error) is kind
    if isinstance(error, Transient):
        assert error.answer_lost is (lost and call.writes)
        assert error.outage is outage
    if isinstance(error, CustomerNotFound):
        assert error.customer_id == ID
    assert error.attempt.at == 1795183440000
    assert error.attempt.call == str(call)
    assert error.attempt.status == answer.status
    assert error.attempt.error
    message = str(error)
    assert message.startswith(f"{call} ")
    assert str(answer.status or "no answer") in message
    assert "\n" not in message
    assert "<" not in message


def test_every_class_of_error_is_in_the_table() -> None:
    classes = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, FusebillError)
    }
    assert {kind for _, kind, _, _ in TABLE.values()} == classes - {FusebillError}


@pytest.mark.parametrize("call", [READ, WRITE], ids=["read", "write"])
@pytest.mark.parametrize("status", [200, 201])
def test_the_customer_asked_for_is_the_answer(call: Call, status: int) -> None:
    customer = classify(call, Answer(status, CUSTOMER), at=0)
    assert isinstance(customer, Customer)
    assert customer.id == ID


def test_a_byte_order_mark_does_no_harm() -> None:
    assert isinstance(classify(READ, Answer(200, b"\xef\xbb\xbf" + CUSTOMER), at=0), Customer)


def test_a_429_says_until_when() -> None:
    limits = RateLimits(minute_left=0, minute_reset=1795183440.0)
    error = classify(READ, Answer(429, limits=limits), at=0)
    assert isinstance(error, RateLimited)
    assert error.reset_at == 1795183440.0
    unnamed = classify(READ, Answer(429), at=0)
    assert isinstance(unnamed, RateLimited)
    assert unnamed.reset_at is None


def test_a_sentence_names_the_call_the_status_the_cause_and_the_cure() -> None:
    error = classify(WRITE, Answer(400, envelope(400, MALFORMED_KEY)), at=0)
    assert str(error) == (
        'POST /v1/Geotab/UnlatchCustomer {"fusebillId":8714402} was answered 400: the API key '
        "is malformed (Authorization key is not in the correct format.); check FUSEBILL_API_KEY"
    )
    lost = classify(READ, Answer(fault="no whole answer within 60 s"), at=7)
    assert str(lost) == "GET /v1/customers/8714402 got no answer: no whole answer within 60 s"
    assert isinstance(lost, FusebillError)
    assert lost.attempt == Attempt(
        7, "GET /v1/customers/8714402", None, "no whole answer within 60 s"
    )


def test_an_attempt_keeps_the_words_of_fusebill() -> None:
    error = classify(WRITE, Answer(409, envelope(409, "First.", "Second.")), at=0)
    assert isinstance(error, FusebillError)
    assert error.attempt.error == "First.; Second."


def test_a_body_that_answers_nothing_is_not_quoted() -> None:
    error = classify(WRITE, Answer(200, json.dumps(customer_json(id=9)).encode()), at=0)
    assert isinstance(error, FusebillError)
    for word in (EMAIL, "Maren", "Northgate"):
        assert word not in f"{error} {error!r} {error.attempt}"
    assert "customer 9" in str(error)


def test_an_answer_does_not_show_its_body() -> None:
    assert EMAIL not in repr(Answer(200, CUSTOMER))


def test_a_key_that_fusebill_echoes_is_not_kept() -> None:
    raw = "0:userpassword-of-the-tests-not-a-real-one"
    text = f"Key '{KEY}' ({raw}, user 0, password {raw[2:]}) is not known"
    error = classify(READ, Answer(401, envelope(401, text)), at=0, hide=ApiKey(KEY).hide)
    assert isinstance(error, FusebillError)
    shown = f"{error} {error!r} {error.args} {error.attempt}"
    assert KEY not in shown
    assert raw[2:] not in shown
    assert "[key]" in shown


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Customer with id 123 not found.", "Customer with id 123 not found."),
        (f"<{EMAIL}> is taken, and by {EMAIL}!", "<[e-mail]> is taken, and by [e-mail]"),
        (f"primaryEmail:{EMAIL};b@y", "[e-mail];[e-mail]"),
        ("a+b%40northgate.example", "[e-mail]"),
        ("maren&#64;northgate.example", "[e-mail]"),
        ("maren\uff20northgate.example", "[e-mail]"),
        ("münchen@straße.example", "[e-mail]"),
        ("two\r\nlines\tand\x00more\u2028", "two lines and more"),
        ("\ud800", ""),
        ("x" * 400, "x" * (KEPT_CHARACTERS - 1) + "…"),
        ("x" * 300, "x" * 300),
    ],
)
def test_a_text_is_kept_short_on_one_line_and_without_addresses(text: str, kept: str) -> None:
    assert clean(text) == kept


def test_an_address_is_masked_before_the_text_is_cut() -> None:
    kept = clean("x" * 290 + " " + "m" * 50 + "@northgate.example")
    assert kept.endswith(" [e-mail]")
    assert "mmm" not in kept


@pytest.mark.timeout(10)
def test_a_very_long_text_is_cleaned_in_linear_time() -> None:
    assert len(clean("a." * 500_000)) == KEPT_CHARACTERS
    error = classify(READ, Answer(400, envelope(400, "a" * 1_000_000)), at=0)
    assert isinstance(error, FusebillError)
    assert len(error.attempt.error or "") == KEPT_CHARACTERS


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["Errors", "Message", "Value", "id"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.integers(min_value=-1, max_value=1200),
    st.binary() | json_values.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([READ, WRITE]),
)
def test_whatever_the_answer_it_is_a_customer_or_an_error(
    status: int, body: bytes, call: Call
) -> None:
    result: Any = classify(call, Answer(status, body), at=0)
    if isinstance(result, Customer):
        assert 200 <= status <= 299
        assert result.id == ID
    else:
        assert isinstance(result, FusebillError)
        assert "@" not in str(result)
        assert len(result.attempt.error or "") <= KEPT_CHARACTERS
        str(result).encode()


LIST_TABLE: dict[str, Row] = {
    name: line for name, line in TABLE.items() if not name.startswith(("200", "204", "400", "404"))
} | {
    "200 null": row(200, b"null", Transient),
    "200 empty": row(200, b"", Transient),
    "200 HTML": row(200, HTML, Transient),
    "200 one customer": row(200, CUSTOMER, Transient),
    "200 envelope": row(200, envelope(404, UNKNOWN), Transient),
    "200 list of ids": row(200, b"[8714402]", Transient),
    "200 list with a null": row(200, b"[%s, null]" % CUSTOMER, Transient),
    "200 cut short": row(200, b"[%s" % CUSTOMER, Transient),
    "200 broken off": (Answer(200, fault="the connection broke"), Transient, None, True),
    "204": row(204, b"", Transient),
    "400": row(400, envelope(400, "The query is not valid."), Rejected),
    "400 HubSpot": row(400, envelope(400, "HubSpot Id: not found"), Rejected),
    "400 key": row(400, envelope(400, MALFORMED_KEY), Unauthorized),
    "404": row(404, envelope(404, "Customers not found."), Transient),
    "404 customer": row(404, envelope(404, UNKNOWN), Transient),
    "404 Message": row(404, b'{"Message": "No resource."}', Transient),
}


@pytest.mark.parametrize(
    ("answer", "kind", "_", "outage"), LIST_TABLE.values(), ids=LIST_TABLE.keys()
)
def test_every_answer_to_a_list_has_its_class(
    answer: Answer, kind: type[FusebillError], _: object, outage: bool
) -> None:
    """B6.1, B6.3."""
    error = classify_list(answer)
    assert type(error) is kind
    if isinstance(error, Transient):
        assert not error.answer_lost
        assert error.outage is outage
    assert error.attempt.call == "GET /v1/customers/?query=primaryEmail:…&pageNumber=0"
    assert str(error).startswith(error.attempt.call + " ")
    assert EMAIL not in f"{error} {error!r} {error.args} {error.attempt}"


def test_a_list_answers_with_its_rows_and_their_count() -> None:
    rows = [customer_json(), customer_json(id="x"), {}, customer_json(id=9)]
    page = classify_list(Answer(200, json.dumps(rows).encode(), count=2500))
    assert isinstance(page, CustomerPage)
    assert [customer.id for customer in page.customers] == [ID, 9]
    assert (page.total, page.broken, page.rows) == (2500, 2, 4)
    assert classify_list(Answer(200, b"[]")) == CustomerPage((), None, 0)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("reference:NG-0042", "reference:…"),
        ("primaryEmail:a:b@x.example", "primaryEmail:…"),
        ("status:Active;lastName:Oduya", "status:…"),
        ("Oduya", "…"),
    ],
)
def test_a_call_shows_the_name_of_a_query_and_no_more(query: str, shown: str) -> None:
    call = Call("GET", "/v1/customers/", params=(("query", query), ("pageSize", "7")))
    assert str(call) == f"GET /v1/customers/?query={shown}&pageSize=7"
    assert repr(call) == f"Call({call})"


def test_a_target_is_encoded_whole() -> None:
    call = Call("GET", "/v1/customers/", params=(("query", "primaryEmail:*a+b&c/d?é%@x*"),))
    assert call.target == (
        "/v1/customers/?query=primaryEmail%3A%2Aa%2Bb%26c%2Fd%3F%C3%A9%25%40x%2A"
    )


@pytest.mark.parametrize("value", ["NG 0042", "Maren Oduya", "a.b*c(", f"*{EMAIL}*"])
def test_what_a_query_looks_for_is_not_kept_where_an_error_quotes_it(value: str) -> None:
    call = Call("GET", "/v1/customers/", params=(("query", f"reference:{value}"),))
    text = f"The query 'reference:{value.upper()}' is not valid."
    error = classify_list(Answer(400, envelope(400, text)), call)
    assert isinstance(error, Rejected)
    assert error.attempt.error == "The query 'reference:…' is not valid."
    assert value.upper() not in str(error)


@given(
    st.integers(min_value=-1, max_value=1200),
    st.binary() | st.lists(json_values).map(lambda value: json.dumps(value).encode()),
    st.none() | st.integers(min_value=0, max_value=5),
)
def test_whatever_the_answer_to_a_list_it_is_a_page_or_an_error(
    status: int, body: bytes, count: int | None
) -> None:
    result = classify_list(Answer(status, body, count=count))
    if isinstance(result, CustomerPage):
        assert 200 <= status <= 299
        assert result.rows == len(json.loads(body))
        assert result.total == count
    else:
        assert isinstance(result, FusebillError)
        assert "@" not in str(result)
