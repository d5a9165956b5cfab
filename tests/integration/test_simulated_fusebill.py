"""The simulated Fusebill over real HTTP: endpoints, errors, limits, faults, control, process."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import requests

from simulators.fusebill.control import ControlRefused, FusebillControl, Waited
from simulators.fusebill.credentials import fake_api_key
from simulators.fusebill.customer import Customer
from simulators.fusebill.faults import Fault
from simulators.fusebill.options import Options
from simulators.fusebill.server import SimulatedFusebill
from simulators.fusebill.synthetic import synthetic_customers
from tests.processes import until

ONE, TWO = 8714401, 8714402
ACCOUNT_18 = "0015g00001LwZ3kAAF"
READ = f"/v1/customers/{ONE}"
GEOTAB_LATCH = "/v1/Geotab/LatchCustomer"


@pytest.fixture(scope="module")
def running() -> Iterator[SimulatedFusebill]:
    with SimulatedFusebill() as fusebill:
        yield fusebill


@pytest.fixture
def fusebill(running) -> SimulatedFusebill:
    running.control.reset()
    running.control.put_customers(*synthetic_customers(5, first_id=ONE))
    return running


@pytest.fixture
def control(fusebill) -> FusebillControl:
    return fusebill.control


class Caller:
    """Calls the simulator as a client of Fusebill would: one kept-alive session."""

    def __init__(self, fusebill: SimulatedFusebill) -> None:
        self._base = fusebill.url
        self._session = requests.Session()
        self._session.headers.update(fusebill.headers)

    def get(self, path: str, **fields) -> requests.Response:
        return self._send("GET", path, **fields)

    def post(self, path: str, body=None, **fields) -> requests.Response:
        return self._send("POST", path, json=body, **fields)

    def _send(self, method: str, path: str, **fields) -> requests.Response:
        fields = {"timeout": 30, "allow_redirects": False, **fields}
        return self._session.request(method, self._base + path, **fields)

    def close(self) -> None:
        self._session.close()


@pytest.fixture
def caller(fusebill) -> Iterator[Caller]:
    caller = Caller(fusebill)
    yield caller
    caller.close()


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def envelope(status: int, text: str) -> dict:
    return {
        "ErrorId": 0,
        "HttpStatusCode": status,
        "Errors": [{"Key": "Api Error", "Value": text}],
    }


class TestEndpoints:
    def test_a_customer_is_read(self, caller):
        for path in (READ, f"{READ}/", READ.upper()):
            answer = caller.get(path)
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
            assert answer.json()["id"] == ONE
            assert answer.json()["createdTimestamp"] == "2024-02-07T12:59:17.793"

    @pytest.mark.parametrize("path", ["/v1/HubSpot/latchCustomer", "/v1/hubspot/LATCHcustomer/"])
    def test_hubspot_latch_and_unlatch(self, caller, control, path):
        sent = {"fusebillId": ONE, "hubSpotId": 512340077000, "hubSpotCompanyId": 202}
        answer = caller.post(path, sent)
        assert answer.status_code == 200
        assert answer.json()["hubSpotId"] == 512340077000
        assert answer.json()["hubSpotCompanyId"] == 202
        assert "geotabId" not in answer.json()
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z", answer.json()["modifiedTimestamp"]
        )
        assert control.customer(ONE).hub_spot_id == 512340077000
        answer = caller.post(f"/v1/HubSpot/UnlatchCustomer/{ONE}")
        assert answer.status_code == 200
        assert answer.json()["hubSpotId"] is answer.json()["hubSpotCompanyId"] is None

    def test_geotab_latch_and_unlatch(self, caller):
        answer = caller.post(GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": "0070441"})
        assert (answer.status_code, answer.json()["geotabId"]) == (200, "0070441")
        answer = caller.post("/v1/Geotab/UnlatchCustomer", {"fusebillId": ONE})
        assert (answer.status_code, answer.json()["geotabId"]) == (200, None)

    def test_salesforce_latch(self, caller):
        sent = {"FUSEBILLID": ONE, "salesforceID": ACCOUNT_18, "forceLatch": False}
        answer = caller.post("/v1/Salesforce/Latch/", sent)
        assert (answer.status_code, answer.json()["salesforceId"]) == (200, ACCOUNT_18[:15])
        moved = {"fusebillId": ONE, "salesforceId": "0014100000JJ3wt"}
        assert (
            caller.post("/v1/Salesforce/Latch", {**moved, "forceLatch": False}).status_code == 400
        )
        assert caller.post("/v1/Salesforce/Latch", {**moved, "forceLatch": True}).status_code == 200

    def test_salesforce_unlatch_exists_only_where_an_option_puts_it(self, caller, control):
        control.edit_customer(ONE, salesforce_id=ACCOUNT_18)
        path = "/v1/Salesforce/SomeUnlatch"
        assert list(caller.post(path, {"fusebillId": ONE}).json()) == ["Message"]
        control.set_options(salesforce_unlatch_path=path)
        answer = caller.post(path.lower(), {"fusebillId": ONE})
        assert (answer.status_code, answer.json()["salesforceId"]) == (200, None)

    def test_status_of_a_write_is_an_option(self, caller, control):
        control.set_options(write_status=201)
        assert caller.post(f"/v1/HubSpot/UnlatchCustomer/{ONE}").status_code == 201
        assert caller.post("/v1/Geotab/UnlatchCustomer", {"fusebillId": ONE}).status_code == 201
        assert caller.get(READ).status_code == 200

    def test_32_bit_hubspot_ids_are_an_option(self, caller, control):
        control.set_options(hubspot_64_bit_ids=False)
        latch = "/v1/HubSpot/latchCustomer"
        most = {"fusebillId": ONE, "hubSpotId": 2**31 - 1, "hubSpotCompanyId": None}
        assert caller.post(latch, most).status_code == 200
        answer = caller.post(latch, {**most, "hubSpotId": 2**31})
        assert answer.json() == envelope(400, "hubSpotId is not a valid number.")


class TestList:
    def test_pages_are_bare_arrays_with_their_place_in_headers(self, caller):
        answer = caller.get("/v1/customers/?pageSize=2&pageNumber=1")
        assert [row["id"] for row in answer.json()] == [ONE + 2, ONE + 3]
        headers = {name: value for name, value in answer.headers.items() if _is_paging(name)}
        assert headers == {
            "X-Count": "5",
            "X-MaxCount": "1000",
            "X-CurrentPage": "1",
            "X-NextPage": "2",
            "X-PreviousPage": "0",
            "X-PageSize": "2",
            "X-MaxPageIndex": "2",
            "X-SortOrder": "Ascending",
            "X-SortExpression": "id",
        }

    @pytest.mark.parametrize(
        ("page", "ids", "following", "previous"),
        [(0, [ONE, ONE + 1], "1", "-1"), (2, [ONE + 4], "-1", "1"), (3, [], "-1", "2")],
    )
    def test_the_first_the_last_and_beyond(self, caller, page, ids, following, previous):
        answer = caller.get(f"/v1/customers?pageSize=2&pageNumber={page}")
        assert [row["id"] for row in answer.json()] == ids
        assert answer.headers["X-NextPage"] == following
        assert answer.headers["X-PreviousPage"] == previous

    def test_numbers_of_pages_are_options(self, caller, control):
        control.set_options(default_page_size=3, max_page_size=4, max_page_index="page_count")
        assert len(caller.get("/v1/customers/").json()) == 3
        answer = caller.get("/v1/customers/?pageSize=100")
        assert len(answer.json()) == 4
        assert (answer.headers["X-PageSize"], answer.headers["X-MaxPageIndex"]) == ("4", "2")

    def test_a_query_and_a_sort(self, caller, control):
        control.edit_customer(TWO, status="Draft", primary_email="a+b@x.example")
        params = {"query": "Status:Active", "sortOrder": "Descending", "sortExpression": "id"}
        rows = caller.get("/v1/customers/", params=params).json()
        assert [row["id"] for row in rows] == [ONE + 4, ONE + 3, ONE + 2, ONE]
        rows = caller.get("/v1/customers/", params={"query": "primaryEmail:a+b@x.example"}).json()
        assert [row["id"] for row in rows] == [TWO]
        rows = caller.get(f"/v1/customers/?query=id:{TWO},{ONE},1").json()
        assert [row["id"] for row in rows] == [ONE, TWO]

    @pytest.mark.parametrize(
        "query", ["pageSize=0", "pageSize=x", "pageNumber=-1", "query=id:x", "pageSize=" + "9" * 30]
    )
    def test_what_cannot_be_read_is_400(self, caller, query):
        answer = caller.get(f"/v1/customers/?{query}")
        assert answer.status_code == answer.json()["HttpStatusCode"] == 400

    def test_an_unknown_name_follows_its_option(self, caller, control):
        path = "/v1/customers/?query=hubSpotId:101"
        assert len(caller.get(path).json()) == 5
        control.set_options(unknown_query_name="empty")
        assert caller.get(path).json() == []
        control.set_options(unknown_query_name="error")
        assert caller.get(path).status_code == 400


def _is_paging(name: str) -> bool:
    return name.startswith("X-") and not name.startswith("X-Rate-Limit")


class TestErrors:
    def test_an_unknown_customer_has_errors_and_an_unknown_route_a_message(self, caller):
        expected = envelope(404, "Customer with id 123 not found.")
        answers = [
            caller.get("/v1/customers/123"),
            caller.post("/v1/HubSpot/UnlatchCustomer/123"),
            caller.post("/v1/Geotab/UnlatchCustomer", {"fusebillId": 123}),
        ]
        assert [(each.status_code, each.json()) for each in answers] == [(404, expected)] * 3
        for path in ("/v1/nosuch", "/v1/customers/abc", "/", "/v1/Salesforce/LatchCustomer"):
            answer = caller.get(path)
            assert (answer.status_code, list(answer.json())) == (404, ["Message"])

    def test_a_wrong_method_is_405_with_a_message(self, caller):
        for answer in (caller.get(GEOTAB_LATCH), caller.post(READ)):
            assert (answer.status_code, list(answer.json())) == (405, ["Message"])

    @pytest.mark.parametrize(
        ("header", "status"),
        [
            (None, 401),
            (f"Basic {fake_api_key('another')}", 401),
            ("Basic not-a-key", 400),
            ("Basic ", 400),
            (f"Bearer {fake_api_key()}", 400),
            (f"Basic {base64.b64encode(fake_api_key().encode()).decode()}", 400),
        ],
    )
    def test_a_malformed_key_is_400_and_a_wrong_one_401(self, fusebill, header, status):
        headers = {"Authorization": header} if header is not None else {}
        answer = requests.get(fusebill.url + READ, headers=headers, timeout=30)
        assert (answer.status_code, answer.json()["HttpStatusCode"]) == (status, status)
        text = answer.json()["Errors"][0]["Value"]
        assert (text == "Authorization key is not in the correct format.") == (status == 400)

    def test_a_fake_key_has_the_documented_form(self):
        key = fake_api_key("demo")
        assert len(key) == 88
        raw = base64.b64decode(key)
        assert raw.startswith(b"0:demo-simulated-not-a-secret")
        assert len(raw) == 66

    def test_hubspot_and_salesforce_are_relayed(self, caller, control):
        control.set_options(
            missing_hubspot_contacts=[101], missing_salesforce_accounts=[ACCOUNT_18]
        )
        answer = caller.post("/v1/HubSpot/latchCustomer", {"fusebillId": ONE, "hubSpotId": 101})
        text = "The was an error getting the contact from HubSpot: resource not found"
        assert (answer.status_code, answer.json()) == (400, envelope(400, text))
        answer = caller.post("/v1/Salesforce/Latch", {"fusebillId": ONE, "salesforceId": "1"})
        text = "Salesforce Account 1 does not exist."
        assert (answer.status_code, answer.json()) == (400, envelope(400, text))

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            (GEOTAB_LATCH, {"geotabId": "1"}),
            (GEOTAB_LATCH, {"fusebillId": ONE}),
            (GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": 70441}),
            (GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": "x" * 256}),
            (GEOTAB_LATCH, {"fusebillId": str(ONE), "geotabId": "1"}),
            (GEOTAB_LATCH, [1]),
            ("/v1/HubSpot/latchCustomer", {"fusebillId": ONE, "hubSpotId": "101"}),
            ("/v1/HubSpot/latchCustomer", {"fusebillId": ONE, "hubSpotCompanyId": True}),
            ("/v1/HubSpot/latchCustomer", {"fusebillId": ONE, "hubSpotId": 2**63}),
            ("/v1/Salesforce/Latch", {"fusebillId": ONE}),
            (
                "/v1/Salesforce/Latch",
                {"fusebillId": ONE, "salesforceId": ACCOUNT_18, "forceLatch": "no"},
            ),
        ],
    )
    def test_a_body_that_does_not_fit_is_400_and_changes_nothing(self, caller, control, path, body):
        before = control.customers()
        answer = caller.post(path, body)
        assert (answer.status_code, answer.json()["HttpStatusCode"]) == (400, 400)
        assert control.customers() == before

    def test_invalid_json_an_empty_body_and_another_media_type(self, caller):
        as_json = {"Content-Type": "application/json"}
        for data in (b"", b"{fusebillId:1}", b"\xff"):
            assert caller.post(GEOTAB_LATCH, data=data, headers=as_json).status_code == 400
        answer = caller.post(GEOTAB_LATCH, data=b"a=b", headers={"Content-Type": "text/plain"})
        assert (answer.status_code, list(answer.json())) == (415, ["Message"])

    def test_255_characters_fit(self, caller):
        answer = caller.post(GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": "x" * 255})
        assert answer.status_code == 200

    def test_another_holder_follows_its_option(self, caller, control):
        control.edit_customer(ONE, geotab_id="0070441")
        latch = {"fusebillId": TWO, "geotabId": "0070441"}
        assert caller.post(GEOTAB_LATCH, latch).status_code == 400
        control.set_options(held_elsewhere=409)
        answer = caller.post(GEOTAB_LATCH, latch)
        assert (answer.status_code, answer.json()["HttpStatusCode"]) == (409, 409)
        control.set_options(held_elsewhere="steal")
        assert caller.post(GEOTAB_LATCH, latch).status_code == 200
        assert control.customer(ONE).geotab_id is None


class TestLimits:
    def test_every_call_tells_of_the_limits(self, caller):
        answers = [caller.get(READ), caller.get("/v1/customers/1"), caller.get("/v1/nosuch")]
        for answer in answers:
            for window in ("Minute", "Day"):
                for what in ("Limit", "Remaining", "Reset"):
                    assert answer.headers[f"X-Rate-Limit-{what}-{window}"].isdigit()
        left = [int(answer.headers["X-Rate-Limit-Remaining-Day"]) for answer in answers]
        assert left == [left[0], left[0] - 1, left[0] - 2]

    def test_429_says_which_limit_and_nothing_is_applied(self, caller, control):
        control.set_options(day_limit=2)
        assert [caller.get(READ).status_code for _ in range(2)] == [200, 200]
        answer = caller.post(GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": "1"})
        assert answer.status_code == answer.json()["HttpStatusCode"] == 429
        assert "day" in answer.json()["Errors"][0]["Value"]
        assert answer.headers["X-Rate-Limit-Remaining-Day"] == "0"
        assert int(answer.headers["X-Rate-Limit-Reset-Day"]) > time.time()
        assert control.customer(ONE).geotab_id is None

    def test_resets_can_be_iso(self, caller, control):
        control.set_options(reset_header="iso")
        text = caller.get(READ).headers["X-Rate-Limit-Reset-Minute"]
        reset = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        assert 0 <= reset.timestamp() - time.time() <= 61


class TestEdge:
    def test_a_connection_is_kept(self, fusebill):
        connection = http.client.HTTPConnection(fusebill.url.removeprefix("http://"), timeout=30)
        connection.request("GET", READ, headers=fusebill.headers)
        connection.getresponse().read()
        first = connection.sock
        connection.request("GET", "/v1/nosuch", headers=fusebill.headers)
        connection.getresponse().read()
        assert connection.sock is first is not None
        connection.close()

    def test_expect_continue_is_granted_before_the_body(self, fusebill):
        body = json.dumps({"fusebillId": ONE, "geotabId": "1"}).encode()
        head = (
            f"POST {GEOTAB_LATCH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Basic {fusebill.api_key}\r\nExpect: 100-continue\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        with _dial(fusebill) as dialled:
            dialled.sendall(head.encode())
            assert dialled.recv(1000).startswith(b"HTTP/1.1 100 ")
            dialled.sendall(body)
            assert b"HTTP/1.1 200 " in _all_of(dialled)

    def test_a_post_without_a_length_is_411(self, fusebill):
        with _dial(fusebill) as dialled:
            dialled.sendall(
                f"POST /v1/HubSpot/UnlatchCustomer/{ONE} HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Basic {fusebill.api_key}\r\nConnection: close\r\n\r\n".encode()
            )
            assert b" 411 " in _all_of(dialled)
        assert fusebill.control.calls()[-1].content_length_header is None

    @pytest.mark.parametrize(
        ("header", "status"),
        [("Content-Length: x", 400), ("Transfer-Encoding: chunked", 411)],
    )
    def test_a_body_that_cannot_be_read_ends_the_connection(self, fusebill, header, status):
        with _dial(fusebill) as dialled:
            dialled.sendall(f"POST /v1/nosuch HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())
            assert f" {status} ".encode() in _all_of(dialled)

    def test_a_newline_in_a_query_does_not_become_a_header(self, caller):
        answer = caller.get(
            "/v1/customers/?sortExpression=id%0d%0aX-Forged:%201&sortOrder=Ascending"
        )
        assert answer.headers["X-SortExpression"] == "idX-Forged: 1"
        assert "X-Forged" not in answer.headers

    def test_more_than_500_calls_a_second(self, fusebill):
        fusebill.control.set_options(minute_limit=None, day_limit=None)
        connection = http.client.HTTPConnection(fusebill.url.removeprefix("http://"), timeout=30)
        best = 0.0
        for _ in range(5):
            started = time.perf_counter()
            for _ in range(200):
                connection.request("GET", READ, headers=fusebill.headers)
                assert connection.getresponse().read()
            best = max(best, 200 / (time.perf_counter() - started))
        connection.close()
        assert best > 500


def _dial(fusebill: SimulatedFusebill) -> socket.socket:
    host, _, port = fusebill.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def _all_of(dialled: socket.socket) -> bytes:
    return b"".join(iter(lambda: dialled.recv(65_536), b""))


class TestLog:
    def test_a_call_is_logged_as_sent_and_as_decided(self, caller, control):
        started = time.time()
        caller.post(GEOTAB_LATCH + "/?a=b", {"fusebillId": ONE, "geotabId": "1"})
        (call,) = control.calls()
        assert started - 1 <= call.at <= time.time() + 1
        assert (call.method, call.path, call.query) == ("POST", GEOTAB_LATCH + "/", {"a": "b"})
        assert call.body == {"fusebillId": ONE, "geotabId": "1"}
        assert str(call.raw_body_length) == call.content_length_header
        assert (call.customer_id, call.status, call.applied, call.fault) == (ONE, 200, True, None)

    def test_an_empty_body_and_its_header(self, caller, control):
        caller.post(f"/v1/HubSpot/UnlatchCustomer/{ONE}")
        (call,) = control.calls()
        assert (call.body, call.raw_body_length, call.content_length_header) == (None, 0, "0")
        assert (call.customer_id, call.applied) == (ONE, False)

    def test_the_key_is_nowhere_in_it(self, fusebill, caller):
        caller.get(READ)
        caller.post(GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": "1"})
        text = requests.get(f"{fusebill.url}/_simulator/calls", timeout=30).text
        assert GEOTAB_LATCH in text
        assert fusebill.api_key not in text
        assert "Basic" not in text

    def test_control_is_not_logged_and_clearing_keeps_counting(self, caller, control):
        control.customers()
        assert control.calls() == []
        caller.get(READ)
        mark = control.last_seq()
        control.clear_calls()
        assert control.calls() == []
        caller.get(READ)
        assert [call.seq for call in control.calls(since=mark)] == [mark + 1]

    def test_waiting_ends_with_the_call_that_was_waited_for(self, caller, control, background):
        waiting = background.submit(
            control.wait_for_calls, 2, timeout=30, method="POST", path="geotab", applied=True
        )
        for value in ("1", "1", "2"):
            caller.post(GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": value})
        assert [call.body["geotabId"] for call in waiting.result(30)] == ["1", "2"]

    def test_waiting_in_vain_says_what_came_instead(self, caller, control):
        caller.get(READ)
        with pytest.raises(Waited, match=r"0 of 1 calls .*\n.*customers/8714401"):
            control.wait_for_calls(timeout=0.05, method="POST")


class TestFaults:
    @pytest.mark.parametrize("status", [401, 403, 409, 500, 502, 503, 504])
    def test_a_status_is_answered_and_nothing_applied(self, caller, control, status):
        control.add_fault(Fault(status=status, count=1))
        answer = caller.post(GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": "1"})
        assert answer.status_code == status
        (call,) = control.calls()
        assert (call.status, call.applied, call.fault) == (status, False, f"status {status}")
        assert control.customer(ONE).geotab_id is None
        assert caller.get(READ).status_code == 200

    def test_forms_of_answers(self, caller, control):
        control.add_fault(Fault(status=404, count=1))
        control.add_fault(Fault(status=302, count=1))
        control.add_fault(Fault(status=503, count=1))
        control.add_fault(Fault(status=429, count=1))
        control.add_fault(Fault(status=400, text="HubSpot is down", count=1))
        assert list(caller.get(READ).json()) == ["Message"]
        assert "Location" in caller.get(READ).headers
        assert caller.get(READ).headers["Content-Type"].startswith("text/html")
        limited = caller.get(READ)
        assert limited.headers["X-Rate-Limit-Remaining-Minute"] == "0"
        assert "minute" in limited.json()["Errors"][0]["Value"]
        assert caller.get(READ).json() == envelope(400, "HubSpot is down")

    @pytest.mark.parametrize("applies", [False, True])
    def test_what_is_not_a_customer(self, caller, control, applies):
        control.add_fault(Fault(not_a_customer="null", count=1, applies=applies))
        control.add_fault(Fault(not_a_customer="html", count=1))
        answer = caller.post(GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": "1"})
        assert (answer.status_code, answer.text) == (200, "null")
        assert control.customer(ONE).geotab_id == ("1" if applies else None)
        answer = caller.get(READ)
        assert (answer.status_code, answer.text[:5]) == (200, "<!DOC")

    def test_a_status_that_lies_can_apply(self, caller, control):
        control.add_fault(Fault(status=504, applies=True, count=1))
        answer = caller.post(GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": "1"})
        assert answer.status_code == 504
        assert control.customer(ONE).geotab_id == "1"

    @pytest.mark.parametrize(
        ("fault", "applied"), [(Fault(lose_answer=True), True), (Fault(drop=True), False)]
    )
    def test_a_closed_connection(self, caller, control, fault, applied):
        fault_id = control.add_fault(fault)
        with pytest.raises(requests.ConnectionError):
            caller.post(GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": "1"})
        (call,) = control.calls()
        assert (call.status, call.applied, call.fault) == (None, applied, fault.label)
        assert control.customer(ONE).geotab_id == ("1" if applied else None)
        control.remove_fault(fault_id)
        assert caller.get(READ).status_code == 200

    def test_latency_lands_after_an_impatient_client_left(self, caller, control):
        control.add_fault(Fault(latency_ms=1_500, count=1))
        with pytest.raises(requests.ReadTimeout):
            caller.post(GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": "1"}, timeout=0.05)
        assert control.customer(ONE).geotab_id is None
        control.wait_for_calls(applied=True)
        assert control.customer(ONE).geotab_id == "1"

    def test_latency_of_the_answer_comes_after_the_effect(self, caller, control):
        control.add_fault(Fault(answer_latency_ms=60_000, count=1))
        with pytest.raises(requests.ReadTimeout):
            caller.post(GEOTAB_LATCH, {"fusebillId": ONE, "geotabId": "1"}, timeout=0.1)
        control.wait_for_calls(applied=True)
        assert control.customer(ONE).geotab_id == "1"

    @pytest.mark.parametrize(("hold", "while_held"), [("before", None), ("after", "1")])
    def test_a_call_is_held_until_released(self, caller, control, background, hold, while_held):
        fault_id = control.add_fault(Fault(hold=hold, method="POST", customer_id=ONE))
        body = {"fusebillId": ONE, "geotabId": "1"}
        held = background.submit(caller.post, GEOTAB_LATCH, body)
        control.wait_held(fault_id)
        assert control.fault(fault_id).holding == 1
        assert control.customer(ONE).geotab_id == while_held
        assert not held.done()
        control.release_fault(fault_id)
        assert held.result(30).json()["geotabId"] == "1"
        assert (control.fault(fault_id).holding, control.fault(fault_id).used) == (0, 1)

    def test_removing_clearing_and_resetting_let_go(self, fusebill, control, background):
        for let_go in (control.clear_faults, control.reset):
            fault_id = control.add_fault(Fault(hold="before"))
            url, headers = fusebill.url + READ, fusebill.headers
            held = background.submit(requests.get, url, headers=headers, timeout=30)
            control.wait_held(fault_id)
            let_go()
            assert held.result(30).status_code in (200, 404)
            assert control.faults() == []

    def test_waiting_for_a_hold_in_vain(self, control):
        fault_id = control.add_fault(Fault(hold="before"))
        with pytest.raises(Waited, match="holds 0 of 1"):
            control.wait_held(fault_id, timeout=0.05)

    def test_only_the_named_customer_is_hit(self, caller, control):
        control.add_fault(Fault(status=500, customer_id=TWO))
        assert caller.get(READ).status_code == 200
        assert caller.get(f"/v1/customers/{TWO}").status_code == 500
        assert caller.post(f"/v1/hubspot/unlatchcustomer/{TWO}").status_code == 500
        latch = {"fusebillid": TWO, "geotabId": "1"}
        assert caller.post(GEOTAB_LATCH, latch).status_code == 500
        assert control.faults()[0].used == 3


class TestControl:
    def test_customers_come_back_as_they_were_put(self, control):
        customer = Customer(
            id=7, first_name="Änne", salesforce_id=ACCOUNT_18, geotab_id="007", status="Hold"
        )
        control.put_customers(customer)
        assert control.customer(7) == customer
        assert control.customers()[0] == customer
        control.put_customers(Customer(id=7))
        assert control.customer(7) == Customer(id=7)
        control.delete_customer(7)
        with pytest.raises(ControlRefused, match="Customer with id 7 not found"):
            control.customer(7)
        control.delete_customers()
        assert control.customers() == []

    def test_an_edit_goes_by_the_names_of_customer(self, control):
        assert control.edit_customer(ONE, hub_spot_id=5, geotab_id="9").hub_spot_id == 5
        assert control.customer(ONE).geotab_id == "9"
        with pytest.raises(ControlRefused, match="400"):
            control.edit_customer(ONE, nosuch=1)

    def test_options_change_by_name_are_replaced_whole_and_reset(self, control):
        control.set_options(held_elsewhere="steal")
        changed = control.set_options(missing_hubspot_contacts=[1])
        expected = Options(held_elsewhere="steal", missing_hubspot_contacts=frozenset({1}))
        assert changed == control.options() == expected
        control.replace_options(Options(write_status=201))
        assert control.options() == Options(write_status=201)
        control.reset()
        assert control.options() == Options()
        for named in ({"nosuch": 1}, {"held_elsewhere": 500}):
            with pytest.raises(ControlRefused, match="400"):
                control.set_options(**named)

    def test_reset_forgets_customers_calls_and_used_up_limits(self, fusebill, caller, control):
        control.set_options(minute_limit=1)
        assert [caller.get(READ).status_code for _ in range(2)] == [200, 429]
        control.reset()
        assert (control.customers(), control.calls(), control.faults()) == ([], [], [])
        control.set_options(minute_limit=1)
        assert caller.get(READ).status_code == 404

    def test_what_is_not_there_is_refused(self, fusebill, control):
        for act in (control.fault, control.release_fault, control.remove_fault):
            with pytest.raises(ControlRefused, match="there is no fault 999"):
                act(999)
        assert requests.get(f"{fusebill.url}/_simulator/nosuch", timeout=30).status_code == 404
        answer = requests.post(f"{fusebill.url}/_simulator/faults", data=b"{", timeout=30)
        assert (answer.status_code, list(answer.json())) == (400, ["error"])


def test_control_answers_to_this_machine_only(monkeypatch):
    monkeypatch.setattr(
        "http.server.BaseHTTPRequestHandler.setup", _as_seen_from_afar(), raising=True
    )
    with SimulatedFusebill() as near, SimulatedFusebill(control_from_anywhere=True) as open_:
        url = "{}/_simulator/health"
        assert requests.get(url.format(near.url), timeout=30).status_code == 403
        assert requests.get(url.format(open_.url), timeout=30).status_code == 200
        answer = requests.get(near.url + READ, headers=near.headers, timeout=30)
        assert answer.status_code == 404


def _as_seen_from_afar():
    plain = http.server.BaseHTTPRequestHandler.setup

    def setup(handler) -> None:
        handler.client_address = ("192.0.2.1", 1)
        plain(handler)

    return setup


class TestOutage:
    def test_stop_refuses_connections_and_start_has_everything_again(self):
        with SimulatedFusebill(customers=[Customer(id=ONE, geotab_id="1")]) as fusebill:
            url = fusebill.url
            fusebill.control.add_fault(Fault(status=500, count=1))
            fusebill.stop()
            fusebill.stop()
            with pytest.raises(requests.ConnectionError):
                requests.get(url + READ, headers=fusebill.headers, timeout=30)
            fusebill.start()
            fusebill.start()
            assert fusebill.url == url
            answers = [
                requests.get(url + READ, headers=fusebill.headers, timeout=30) for _ in range(2)
            ]
            assert [answer.status_code for answer in answers] == [500, 200]
            assert answers[1].json()["geotabId"] == "1"

    def test_stop_cuts_kept_connections(self):
        with SimulatedFusebill() as fusebill:
            address = fusebill.url.removeprefix("http://")
            kept = http.client.HTTPConnection(address, timeout=30)
            kept.request("GET", READ, headers=fusebill.headers)
            kept.getresponse().read()
            fusebill.stop()
            assert kept.sock.recv(1) == b""
            kept.close()

    @pytest.mark.parametrize(
        ("fault", "after"),
        [
            (Fault(hold="before"), None),
            (Fault(hold="after"), "1"),
            (Fault(latency_ms=60_000), None),
        ],
    )
    def test_stop_cuts_calls_that_wait(self, background, fault, after):
        customer = Customer(id=ONE)
        with SimulatedFusebill(customers=[customer]) as fusebill:
            fault_id = fusebill.control.add_fault(fault)
            caller = Caller(fusebill)
            body = {"fusebillId": ONE, "geotabId": "1"}
            waiting: Future = background.submit(caller.post, GEOTAB_LATCH, body)
            if fault.hold:
                fusebill.control.wait_held(fault_id)
            else:
                until(lambda: fusebill.control.fault(fault_id).used)
            fusebill.stop()
            with pytest.raises(requests.ConnectionError):
                waiting.result(30)
            caller.close()
            fusebill.start()
            assert fusebill.control.customer(ONE).geotab_id == after
            assert fusebill.control.fault(fault_id).holding == 0


def test_latches_from_many_threads_keep_one_holder(fusebill, background):
    fusebill.control.set_options(held_elsewhere="steal", minute_limit=None)
    start = threading.Barrier(4)

    def latch(place: int) -> None:
        caller = Caller(fusebill)
        start.wait(30)
        for _ in range(25):
            sent = {"fusebillId": ONE + place, "geotabId": "0070441"}
            assert caller.post(GEOTAB_LATCH, sent).status_code == 200
        caller.close()

    for done in [background.submit(latch, place) for place in range(4)]:
        done.result(60)
    holders = [c.id for c in fusebill.control.customers() if c.geotab_id == "0070441"]
    calls = fusebill.control.calls()
    assert len(calls) == 100
    assert [call.seq for call in calls] == sorted({call.seq for call in calls})
    assert holders == [calls[-1].customer_id]


class TestProcess:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_says_where_it_listens_serves_and_ends_cleanly(self, number):
        key = fake_api_key("process")
        command = [sys.executable, "-m", "simulators.fusebill", "--bind", "127.0.0.1:0"]
        command += ["--api-key", key, "--customers", "3", "--first-id", "500"]
        command += ["--option", "held_elsewhere=steal", "--option", "minute_limit=null"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                line = process.stdout.readline()
                url = re.fullmatch(r"simulated Fusebill listens on (http://\S+:\d+)\n", line)[1]
                answer = requests.get(
                    f"{url}/v1/customers/502", headers={"Authorization": f"Basic {key}"}, timeout=30
                )
                assert answer.json()["primaryEmail"].endswith(".example")
                with FusebillControl(url) as control:
                    assert [customer.id for customer in control.customers()] == [500, 501, 502]
                    assert control.options() == Options(held_elsewhere="steal", minute_limit=None)
                process.send_signal(number)
                rest, errors = process.communicate(timeout=30)
            finally:
                process.kill()
        assert (process.returncode, rest, errors) == (0, "", "")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--bind", "nowhere"], "is not HOST:PORT"),
            (["--api-key", "x"], "not a key"),
            (["--option", "nosuch=1"], "unknown field `nosuch`"),
            (["--option", "nosuch"], "is not NAME=VALUE"),
        ],
    )
    def test_a_mistake_gets_one_sentence(self, arguments, said):
        done = _run(*arguments)
        assert done.returncode == 2
        assert said in done.stderr.splitlines()[-1]

    def test_a_taken_port_is_told(self, running):
        address = running.url.removeprefix("http://")
        done = _run("--bind", address)
        assert done.returncode == 1
        assert done.stderr.startswith(f"cannot listen on {address}: ")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simulators.fusebill", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
