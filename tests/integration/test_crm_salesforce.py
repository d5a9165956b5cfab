"""Reading Accounts (B3.5) from the simulated Salesforce over real HTTP."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from simulators.http import Fault
from simulators.salesforce.server import TOKEN_PATH, SimulatedSalesforce
from sync_worker.crm import Reader
from sync_worker.crm.errors import CrmError, Forbidden, RateLimited, Unauthorized, Unavailable
from sync_worker.crm.salesforce import MAX_ANSWER_BYTES, MAX_MERGES, SalesforceReader
from sync_worker.domain import (
    Attempt,
    Presence,
    Record,
    RecordType,
    Source,
    Truth,
    salesforce_id_18,
)
from tests.processes import until

ORG = "00D5g000007Kp2Q"
SANDBOX = "00D5g000009Zz9Z"
ONE, TWO = "0015g00001LwZ3kAAF", "0015g00001LwZ4RAAV"
LINK = "Fusebill_Id__c"
QUERY = "queryAll"
SELECT = "SELECT Id, IsDeleted, MasterRecordId, Fusebill_Id__c FROM Account"


def record(id_: str = ONE) -> Record:
    return Record(Source.SALESFORCE, ORG, RecordType.ACCOUNT, id_)


def refusal(code: str, text: str = "") -> bytes:
    return json.dumps([{"message": text, "errorCode": code}]).encode()


@pytest.fixture
def salesforce() -> Iterator[SimulatedSalesforce]:
    with SimulatedSalesforce(org_id=ORG) as simulated:
        simulated.accounts.put(ONE, Fusebill_Id__c="8714402", AccountNumber="NG-17")
        yield simulated


@pytest.fixture
def attempts() -> list[Attempt]:
    return []


@pytest.fixture
def make(salesforce, attempts):
    """Makes readers, and closes them."""
    readers = []

    def make(**changes) -> SalesforceReader:
        arguments = {
            "instance_url": salesforce.url,
            "client_id": salesforce.client_id,
            "client_secret": salesforce.client_secret,
            "org_id": ORG,
            "link_field": LINK,
            "reference_field": None,
            "on_call": attempts.append,
        }
        readers.append(SalesforceReader(**(arguments | changes)))
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()


@pytest.fixture
def reader(make) -> SalesforceReader:
    return make()


def logins(salesforce: SimulatedSalesforce) -> int:
    return len(salesforce.control.calls(path=TOKEN_PATH))


def queries(salesforce: SimulatedSalesforce) -> list[str]:
    return [call.query["q"] for call in salesforce.control.calls(path=QUERY)]


class TestTruth:
    """What is read of an Account (B3.5)."""

    def test_an_account_that_is_there(self, reader):
        assert reader.read(record()) == Truth(
            record=record(), presence=Presence.PRESENT, link="8714402"
        )

    def test_a_reference_is_read_where_there_is_a_field_for_it(self, make):
        truth = make(reference_field="AccountNumber").read(record())
        assert (truth.link, truth.reference) == ("8714402", "NG-17")

    def test_an_empty_reference_is_none(self, make, salesforce):
        salesforce.accounts.set_field(ONE, "AccountNumber", None)
        assert make(reference_field="AccountNumber").read(record()).reference is None

    @pytest.mark.parametrize(
        ("held", "link"),
        [
            (None, ""),
            ("", ""),
            ("  8714402 ", "8714402"),
            (8714402.0, "8714402"),
            (8.714402e22, "87144020000000000000000"),
            ("8714402.0", "8714402"),
            ("1.2345678E7", "12345678"),
            (8714402.5, "8714402.5"),
            ("acme", "acme"),
        ],
    )
    def test_what_the_link_field_holds(self, reader, salesforce, held, link):
        """A number field arrives as a double (B3.2)."""
        salesforce.accounts.set_field(ONE, LINK, held)
        assert reader.read(record()).link == link

    def test_a_number_as_salesforce_writes_it(self, reader, salesforce):
        row = {"Id": ONE, "IsDeleted": False, "MasterRecordId": None, LINK: 0}
        body = json.dumps({"totalSize": 1, "done": True, "records": [row]})
        for written, link in (("8714402.0", "8714402"), ("1.8714402E7", "18714402"), ("7", "7")):
            answer = body.replace(f'"{LINK}": 0', f'"{LINK}": {written}').encode()
            salesforce.control.add_fault(Fault(path=QUERY, status=200, body=answer, times=1))
            assert reader.read(record()).link == link

    @pytest.mark.parametrize("id_", [ONE, ONE[:15], ONE.lower(), ONE.upper()])
    def test_every_spelling_of_an_id_is_asked_with_18_characters(self, reader, salesforce, id_):
        """B3.3."""
        truth = reader.read(record(id_))
        assert (truth.presence, truth.survivor, truth.record) == ("present", None, record(id_))
        assert queries(salesforce) == [f"{SELECT} WHERE Id = '{ONE}'"]

    def test_an_answer_may_spell_an_id_with_15_characters(self, reader, salesforce):
        row = {"Id": ONE[:15], "IsDeleted": False, "MasterRecordId": None, LINK: "1"}
        body = json.dumps({"totalSize": 1, "done": True, "records": [row]}).encode()
        salesforce.control.add_fault(Fault(path=QUERY, status=200, body=body))
        assert reader.read(record()).link == "1"

    def test_ids_that_differ_only_in_case_are_two_records(self, reader, salesforce):
        other = salesforce_id_18("0015g00001LwZ3K")
        salesforce.accounts.put(other, Fusebill_Id__c="9")
        assert (reader.read(record()).link, reader.read(record(other)).link) == ("8714402", "9")

    def test_a_field_is_found_in_whatever_case_it_is_spelled(self, make):
        """Salesforce answers with a field's own spelling."""
        assert make(link_field="fusebill_id__C").read(record()).link == "8714402"

    def test_one_field_may_serve_as_link_and_reference(self, make, salesforce):
        truth = make(reference_field="fusebill_id__c").read(record())
        assert (truth.link, truth.reference) == ("8714402", "8714402")

    def test_a_deleted_account_is_told_positively(self, reader, salesforce):
        salesforce.accounts.delete(ONE)
        assert reader.read(record()) == Truth(record=record(), presence=Presence.DELETED)

    def test_an_undeleted_account_is_back(self, reader, salesforce):
        salesforce.accounts.delete(ONE)
        salesforce.accounts.undelete(ONE)
        assert reader.read(record()).presence is Presence.PRESENT

    def test_a_purged_account_is_absent(self, reader, salesforce):
        salesforce.accounts.delete(ONE)
        salesforce.accounts.purge(ONE)
        assert reader.read(record()) == Truth(record=record(), presence=Presence.ABSENT)

    def test_an_account_that_never_was_is_absent(self, reader):
        assert reader.read(record(TWO)) == Truth(record=record(TWO), presence=Presence.ABSENT)


class TestMerges:
    """A merged id resolves to its survivor (B3.5, B3.12)."""

    @pytest.fixture
    def chain(self, salesforce) -> list[str]:
        """Accounts, each merged into the next; the last one is in use."""
        ids = [salesforce_id_18(f"0015g00001Chn{n:02}") for n in range(MAX_MERGES + 2)]
        for n, id_ in enumerate(ids):
            salesforce.accounts.put(id_, Fusebill_Id__c=str(n))
        for loser, survivor in itertools.pairwise(ids):
            salesforce.accounts.merge(survivor, loser)
        return ids

    def test_the_survivor_is_read(self, reader, salesforce):
        salesforce.accounts.put(TWO, Fusebill_Id__c="8714519")
        salesforce.accounts.merge(TWO, ONE)
        assert reader.read(record()) == Truth(
            record=record(), presence=Presence.PRESENT, survivor=record(TWO), link="8714519"
        )

    def test_merges_are_followed_ten_deep(self, reader, chain):
        truth = reader.read(record(chain[1]))
        assert (truth.survivor, truth.link) == (record(chain[-1]), str(MAX_MERGES + 1))

    def test_and_no_deeper(self, reader, chain, salesforce):
        with pytest.raises(Unavailable, match="more than 10 deep"):
            reader.read(record(chain[0]))
        assert len(queries(salesforce)) == MAX_MERGES + 1

    def test_a_circle_is_not_followed_for_ever(self, reader, salesforce):
        salesforce.accounts.put(TWO)
        salesforce.accounts.merge(TWO, ONE)
        salesforce.accounts.merge(ONE, TWO)
        with pytest.raises(Unavailable, match="in a circle") as caught:
            reader.read(record())
        assert not caught.value.outage

    def test_an_account_merged_into_itself(self, reader, salesforce):
        salesforce.accounts.merge(ONE, ONE)
        with pytest.raises(Unavailable, match="in a circle"):
            reader.read(record())

    def test_a_survivor_that_was_deleted_later(self, reader, salesforce):
        salesforce.accounts.put(TWO, Fusebill_Id__c="8714519")
        salesforce.accounts.merge(TWO, ONE)
        salesforce.accounts.delete(TWO)
        assert reader.read(record()) == Truth(
            record=record(), presence=Presence.DELETED, survivor=record(TWO)
        )

    def test_a_survivor_that_cannot_be_found(self, reader, salesforce):
        salesforce.accounts.merge(TWO, ONE)
        assert reader.read(record()) == Truth(
            record=record(), presence=Presence.ABSENT, survivor=record(TWO)
        )


class TestOrganisation:
    """The credentials' own organisation is checked (B2.9)."""

    @pytest.mark.parametrize("tells", [True, False])
    def test_credentials_of_another_organisation(self, make, salesforce, tells):
        """Read off the token's answer, or asked for where that does not tell."""
        salesforce.tells_identity = tells
        reader = make(org_id=SANDBOX)
        foreign = Record(Source.SALESFORCE, SANDBOX, RecordType.ACCOUNT, ONE)
        for _ in range(2):
            with pytest.raises(Unauthorized) as caught:
                reader.read(foreign)
            assert ORG in str(caught.value)
            assert SANDBOX in str(caught.value)
            assert "SALESFORCE_ORG_ID" in str(caught.value)
        assert queries(salesforce) == []

    def test_an_organisation_that_must_be_asked_for(self, reader, salesforce, attempts):
        salesforce.tells_identity = False
        assert reader.read(record()).link == "8714402"
        assert reader.read(record()).link == "8714402"
        assert [attempt.call.split()[1] for attempt in attempts] == [
            TOKEN_PATH,
            "/services/data/v60.0/query/",
            *["/services/data/v60.0/queryAll/"] * 2,
        ]

    @pytest.mark.parametrize("identity", [None, 7, "", "https://x/id/00D/005", "/id/001/005"])
    def test_an_identity_that_tells_nothing_is_no_proof(self, reader, salesforce, identity):
        body = json.dumps({"access_token": "made-up", "id": identity}).encode()
        salesforce.control.add_fault(Fault(path=TOKEN_PATH, status=200, body=body))
        with pytest.raises(Unauthorized, match="query/ SELECT Id FROM Organization"):
            reader.read(record())
        assert queries(salesforce) == []

    @pytest.mark.parametrize(
        "rows", [[], [{"Id": None}], [{"Id": "x"}], [{}], [{"Id": SANDBOX}, {"Id": ORG}]]
    )
    def test_an_organisation_that_is_not_told_is_not_believed(self, reader, salesforce, rows):
        salesforce.tells_identity = False
        body = json.dumps({"totalSize": len(rows), "done": True, "records": rows}).encode()
        salesforce.control.add_fault(Fault(path="/query/", status=200, body=body))
        with pytest.raises(Unavailable) as caught:
            reader.read(record())
        assert not caught.value.outage
        assert queries(salesforce) == []

    def test_an_organisation_that_may_not_be_asked_for_is_not_believed(self, reader, salesforce):
        """B6.4: while it is unknown nothing can be read."""
        salesforce.tells_identity = False
        body = refusal("INVALID_TYPE")
        salesforce.control.add_fault(Fault(path="/query/", status=400, body=body))
        with pytest.raises(Unauthorized, match="Organization was answered 400 INVALID_TYPE"):
            reader.read(record())
        assert queries(salesforce) == []


class TestSessions:
    def test_one_login_serves_many_reads(self, reader, salesforce):
        for _ in range(3):
            reader.read(record())
        assert (logins(salesforce), len(queries(salesforce))) == (1, 3)

    def test_an_expired_session_is_replaced(self, reader, salesforce, attempts):
        reader.read(record())
        salesforce.expire_sessions()
        assert reader.read(record()).link == "8714402"
        assert [attempt.status for attempt in attempts] == [200, 200, 401, 200, 200]
        assert attempts[2].error == "INVALID_SESSION_ID: the session is refused"

    def test_but_only_once_a_read(self, reader, salesforce):
        """A session without the scope `api` is refused in the same words for ever."""
        body = refusal("INVALID_SESSION_ID")
        salesforce.control.add_fault(Fault(path=QUERY, status=401, body=body))
        with pytest.raises(Unauthorized, match=r"401 INVALID_SESSION_ID.*scope"):
            reader.read(record())
        assert (logins(salesforce), len(queries(salesforce))) == (2, 2)

    def test_threads_share_one_login(self, reader, salesforce):
        with ThreadPoolExecutor(8) as pool:
            links = {truth.link for truth in pool.map(reader.read, [record()] * 24)}
        assert (links, logins(salesforce)) == ({"8714402"}, 1)

    def test_threads_share_the_login_after_an_expiry(self, reader, salesforce):
        reader.read(record())
        salesforce.expire_sessions()
        # All are refused before the first of them may log in anew.
        held = salesforce.control.add_fault(Fault(path=QUERY, hold="after", times=4))
        with ThreadPoolExecutor(4) as pool:
            reads = [pool.submit(reader.read, record()) for _ in range(4)]
            held.wait_held(4)
            held.release()
            assert {read.result().link for read in reads} == {"8714402"}
        assert logins(salesforce) == 2

    def test_a_failed_login_is_tried_anew_by_the_next_read(self, reader, salesforce):
        salesforce.control.add_fault(Fault(path=TOKEN_PATH, status=503, times=1))
        with pytest.raises(Unavailable):
            reader.read(record())
        assert reader.read(record()).link == "8714402"

    def test_the_calls_are_told(self, make, attempts):
        make(clock=lambda: 1795189317.0).read(record())
        path = "/services/data/v60.0/queryAll/"
        assert attempts == [
            Attempt(1795189317000, f"POST {TOKEN_PATH}", 200),
            Attempt(1795189317000, f"GET {path} {SELECT} WHERE Id = '{ONE}'", 200),
        ]

    def test_one_connection_is_kept_alive(self, reader, salesforce):
        """B7.5."""
        for _ in range(3):
            reader.read(record())
        assert len(salesforce._server._open) == 1
        reader.close()
        until(lambda: not salesforce._server._open)

    def test_nobody_needs_to_be_told(self, make):
        assert make(on_call=None).read(record()).link == "8714402"

    def test_another_api_version(self, make, salesforce):
        make(api_version="65.0").read(record())
        assert len(salesforce.control.calls(path="/v65.0/queryAll/")) == 1

    def test_an_address_may_end_in_a_slash(self, make, salesforce):
        assert make(instance_url=f"{salesforce.url}/").read(record()).link == "8714402"

    def test_a_netrc_is_not_read(self, reader, monkeypatch, tmp_path):
        """It would replace the token in every query."""
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        assert reader.read(record()).link == "8714402"


class TestProbe:
    """What ends an outage or a pause (B6.3, B6.4)."""

    ASKED = (
        f"POST {TOKEN_PATH}",
        "GET /services/data/v60.0/query/ SELECT Id FROM Organization",
    )

    @pytest.mark.parametrize("tells", [True, False])
    def test_it_logs_in_anew_and_asks_for_the_organisation(
        self, reader: Reader, salesforce, attempts, tells
    ):
        salesforce.tells_identity = tells
        for _ in range(2):
            reader.probe()
        assert [(one.call, one.status) for one in attempts] == [
            (call, 200) for call in self.ASKED * 2
        ]

    def test_reads_go_on_with_its_session(self, reader, salesforce):
        reader.read(record())
        salesforce.expire_sessions()
        reader.probe()
        assert reader.read(record()).link == "8714402"
        assert (logins(salesforce), len(queries(salesforce))) == (2, 2)

    def test_another_organisation_is_found_whatever_was_read_before(self, reader, salesforce):
        """B2.9."""
        reader.read(record())
        salesforce.org_id = SANDBOX
        with pytest.raises(Unauthorized, match=f"organisation {SANDBOX}, not to {ORG}"):
            reader.probe()

    @pytest.mark.parametrize(
        ("status", "body"),
        [(401, refusal("INVALID_SESSION_ID")), (403, refusal("API_DISABLED_FOR_ORG"))],
    )
    def test_a_login_that_does_not_reach_the_api_is_none(self, reader, salesforce, status, body):
        """Else every pause for it would end at once."""
        salesforce.control.add_fault(Fault(path="/data/", status=status, body=body))
        for act in (reader.probe, lambda: reader.read(record())):
            with pytest.raises(Unauthorized, match=str(status)):
                act()

    def test_an_organisation_that_may_not_be_asked_for_is_no_obstacle(self, reader, salesforce):
        """Where the login told it: the session makes queries."""
        body = refusal("INVALID_TYPE")
        salesforce.control.add_fault(Fault(path="/query/", status=400, body=body))
        reader.probe()
        assert reader.read(record()).link == "8714402"
        salesforce.tells_identity = False
        with pytest.raises(Unauthorized, match="INVALID_TYPE"):
            reader.probe()

    def test_a_hidden_field_does_not_keep_it_from_success(self, reader, salesforce):
        salesforce.accounts.hide_field(LINK)
        reader.probe()
        with pytest.raises(Forbidden):
            reader.read(record())

    @pytest.mark.parametrize("path", [TOKEN_PATH, "/query/"])
    @pytest.mark.parametrize(
        ("fault", "kind", "outage"),
        [
            (Fault(status=401), Unauthorized, None),
            (Fault(status=429), RateLimited, None),
            (Fault(status=503), Unavailable, True),
            (Fault(drop=True), Unavailable, True),
            (Fault(status=404), Unavailable, False),
            (Fault(status=200, body=b"<html>log in</html>"), Unavailable, False),
        ],
        ids=["401", "429", "503", "dropped", "404", "200"],
    )
    def test_what_it_fails_of(self, reader, salesforce, attempts, path, fault, kind, outage):
        """A session that was good stays in use."""
        reader.read(record())
        salesforce.control.add_fault(msgspec.structs.replace(fault, path=path))
        with pytest.raises(CrmError) as caught:
            reader.probe()
        assert type(caught.value) is kind
        assert getattr(caught.value, "outage", None) is outage
        assert caught.value.attempt is attempts[-1]
        assert reader.read(record()).link == "8714402"


class TestRefusals:
    """What is refused pauses until a person mends it (B6.4), or, where it may concern one field
    or object only, waits alone.
    """

    def test_a_wrong_secret(self, make):
        with pytest.raises(Unauthorized, match=r"400 invalid_client: .*SALESFORCE_CLIENT_SECRET"):
            make(client_secret="WRONG").read(record())

    def test_a_wrong_client_id(self, make):
        with pytest.raises(Unauthorized, match="400 invalid_client_id"):
            make(client_id="wrong").read(record())

    def test_an_app_without_a_user_to_run_as(self, reader, salesforce):
        salesforce.runs_as_a_user = False
        with pytest.raises(Unauthorized, match=r"400 invalid_grant: .*user to run as"):
            reader.read(record())

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_login_refused_by_status(self, reader, salesforce, status):
        salesforce.control.add_fault(Fault(path=TOKEN_PATH, status=status, body=b"no"))
        with pytest.raises(Unauthorized, match=f"{status}: Salesforce refuses the login"):
            reader.read(record())

    @pytest.mark.parametrize("error", ["unknown_error", "temporarily_unavailable", None])
    def test_a_login_that_fails_for_no_fault_of_the_credentials(self, reader, salesforce, error):
        body = json.dumps({"error": error}).encode()
        salesforce.control.add_fault(Fault(path=TOKEN_PATH, status=400, body=body))
        with pytest.raises(Unavailable, match="400") as caught:
            reader.read(record())
        assert caught.value.outage is (error is not None)

    def test_a_link_field_that_is_missing_or_not_visible(self, reader, salesforce, attempts):
        salesforce.accounts.hide_field(LINK)
        with pytest.raises(Forbidden) as caught:
            reader.read(record())
        assert "400 INVALID_FIELD" in str(caught.value)
        assert "Fusebill_Id__c (SALESFORCE_FUSEBILL_ID_FIELD)" in str(caught.value)
        assert caught.value.attempt is attempts[-1]

    def test_a_missing_reference_field_is_named_too(self, make):
        with pytest.raises(Forbidden, match=r"Ref__c \(SALESFORCE_REFERENCE_FIELD\)"):
            make(reference_field="Ref__c").read(record())

    def test_accounts_that_may_not_be_seen(self, reader, salesforce):
        body = refusal("INVALID_TYPE", "sObject type 'Account' is not supported.")
        salesforce.control.add_fault(Fault(path=QUERY, status=400, body=body))
        with pytest.raises(Forbidden, match=r"400 INVALID_TYPE: .*read access to Accounts"):
            reader.read(record())

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (refusal("API_DISABLED_FOR_ORG"), Unauthorized),
            (refusal("API_CURRENTLY_DISABLED"), Unauthorized),
            (refusal("INSUFFICIENT_ACCESS"), Forbidden),
            (b"<html>no</html>", Forbidden),
        ],
    )
    def test_a_missing_permission(self, reader, salesforce, body, kind):
        salesforce.control.add_fault(Fault(path=QUERY, status=403, body=body))
        with pytest.raises(kind, match=r"403.*lacks a permission; grant"):
            reader.read(record())
        assert logins(salesforce) == 1

    def test_the_limit_of_calls(self, reader, salesforce):
        """B6.2; the answer names no time."""
        salesforce.calls_left = 1
        reader.read(record())
        with pytest.raises(RateLimited, match="403 REQUEST_LIMIT_EXCEEDED") as caught:
            reader.read(record())
        assert caught.value.seconds is None

    @pytest.mark.parametrize("path", [TOKEN_PATH, QUERY])
    @pytest.mark.parametrize(
        ("status", "body"), [(429, b""), (403, refusal("REQUEST_LIMIT_EXCEEDED"))]
    )
    def test_other_limits(self, reader, salesforce, path, status, body):
        salesforce.control.add_fault(Fault(path=path, status=status, body=body))
        with pytest.raises(RateLimited):
            reader.read(record())


class TestTrouble:
    """What may work later (B6.1, B7.5): nothing is guessed from it."""

    OUTAGES = (
        Fault(status=408),
        Fault(status=500),
        Fault(status=503, body=refusal("SERVER_UNAVAILABLE")),
        Fault(status=502, body=b"<html>gateway</html>", content_type="text/html"),
        Fault(status=500, body=b"\xff\xfe" * 1000),
        Fault(status=999),
        Fault(status=200, body=b'"' + b"x" * MAX_ANSWER_BYTES + b'"'),
        Fault(drop=True),
    )
    SIGNS_OF_LIFE = (
        Fault(status=300, body=b"[]"),
        Fault(status=302, headers={"Location": "/elsewhere"}),
        Fault(status=302, headers={"Location": "http://[broken"}),
        Fault(status=404, body=refusal("NOT_FOUND")),
        Fault(status=400, body=b"<html>proxy</html>"),
        Fault(status=200, body=b"<html>log in</html>", content_type="text/html"),
        Fault(status=200, body=b"[" * 100_000),
        Fault(status=200, body=b"null"),
        Fault(status=200, body=b"[]"),
        Fault(status=200, body=b"{}"),
        Fault(status=204),
    )

    @pytest.mark.parametrize("path", [TOKEN_PATH, QUERY])
    @pytest.mark.parametrize(
        "fault", OUTAGES + SIGNS_OF_LIFE, ids=lambda fault: f"{fault.status}-{fault.body[:12]!r}"
    )
    def test_answers_that_say_nothing(self, reader, salesforce, attempts, path, fault):
        """B6.3: which of them are an outage."""
        kept = {name: getattr(fault, name) for name in fault.__struct_fields__}
        salesforce.control.add_fault(Fault(**(kept | {"path": path})))
        with pytest.raises(Unavailable) as caught:
            reader.read(record())
        assert caught.value.attempt is attempts[-1]
        assert caught.value.outage is (fault in self.OUTAGES)
        assert len(salesforce.control.calls(path=path)) == 1
        assert salesforce.control.calls(path="elsewhere") == []

    @pytest.mark.parametrize(
        ("rows", "says"),
        [
            ([{"Id": TWO}], "another record"),
            ([{"Id": None}], "another record"),
            ([{"Id": 7}], "Id is not a Salesforce id"),
            ([{"IsDeleted": None}], "IsDeleted is neither"),
            ([{"MasterRecordId": "x", "IsDeleted": True}], "MasterRecordId is not"),
            ([{"MasterRecordId": ORG, "IsDeleted": True}], "MasterRecordId is not the id of an A"),
            ([{LINK: {"a": 1}}], "Fusebill_Id__c is neither"),
            ([{LINK: True}], "Fusebill_Id__c is neither"),
            ([{}, {}], "2 rows, not one"),
        ],
    )
    def test_rows_are_checked(self, reader, salesforce, rows, says):
        sound = {"Id": ONE, "IsDeleted": False, "MasterRecordId": None, LINK: "1"}
        records = [sound | row for row in rows]
        body = {"totalSize": len(records), "done": True, "records": records}
        salesforce.control.add_fault(Fault(path=QUERY, status=200, body=json.dumps(body).encode()))
        with pytest.raises(Unavailable, match=says) as caught:
            reader.read(record())
        assert not caught.value.outage

    @pytest.mark.parametrize("name", ["Id", "IsDeleted", "MasterRecordId", LINK])
    def test_a_missing_field_is_not_an_empty_one(self, reader, salesforce, name):
        row = {"Id": ONE, "IsDeleted": False, "MasterRecordId": None, LINK: "1"}
        del row[name]
        body = json.dumps({"totalSize": 1, "done": True, "records": [row]}).encode()
        salesforce.control.add_fault(Fault(path=QUERY, status=200, body=body))
        with pytest.raises(Unavailable, match=f"{name} is missing"):
            reader.read(record())

    @pytest.mark.parametrize(
        "changes", [{"done": False}, {"totalSize": 1}, {"records": None}, {"records": ["x"]}]
    )
    def test_an_empty_answer_must_be_whole_to_mean_absent(self, reader, salesforce, changes):
        body = json.dumps({"totalSize": 0, "done": True, "records": []} | changes).encode()
        salesforce.control.add_fault(Fault(path=QUERY, status=200, body=body))
        with pytest.raises(Unavailable, match="not the answer to a query"):
            reader.read(record())

    @pytest.mark.parametrize("path", [TOKEN_PATH, QUERY])
    def test_silence_ends_after_the_read_timeout(self, make, salesforce, attempts, path):
        held = salesforce.control.add_fault(Fault(path=path, hold="before"))
        with pytest.raises(
            Unavailable, match=r"no answer: no whole answer within 0\.05 s"
        ) as caught:
            make(read_timeout=0.05).read(record())
        held.release()
        assert caught.value.outage
        assert attempts[-1].status is None

    def test_an_answer_that_trickles_ends_too(self, make, salesforce, monkeypatch):
        monkeypatch.setattr("sync_worker.http.CONNECT_TIMEOUT_SECONDS", 0.1)
        salesforce.control.add_fault(Fault(path=QUERY, status=200, body=b" " * 400, trickle_ms=10))
        started = time.monotonic()
        with pytest.raises(Unavailable, match="no whole answer"):
            make(read_timeout=0.1).read(record())
        assert time.monotonic() - started < 2

    def test_an_answer_without_end_does_not_fill_memory(self, reader, salesforce):
        body = b" " * (MAX_ANSWER_BYTES + 1)
        salesforce.control.add_fault(Fault(path=QUERY, status=200, body=body))
        with pytest.raises(Unavailable, match="the answer is longer than 262144 bytes"):
            reader.read(record())

    def test_nobody_listens(self, reader, salesforce):
        salesforce.stop()
        with pytest.raises(Unavailable, match="no connection") as caught:
            reader.read(record())
        assert caught.value.outage
        salesforce.start()
        assert reader.read(record()).link == "8714402"

    def test_a_host_that_cannot_be_named(self, make):
        with pytest.raises(Unavailable, match="got no answer: no connection") as caught:
            make(instance_url=f"http://{'x' * 70}.invalid").read(record())
        assert caught.value.outage

    def test_an_interrupted_call_is_told(self, reader, salesforce, attempts, monkeypatch):
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        reader.read(record())
        monkeypatch.setattr(reader._salesforce, "query", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reader.read(record())
        assert attempts[-1].error == "interrupted: KeyboardInterrupt"
        assert not reader._login._lock.locked()


class TestSecrets:
    """No secret, token or body in anything that is shown or raised (B10.4)."""

    @pytest.fixture
    def secrets(self, salesforce) -> list[str]:
        return [salesforce.client_secret, "made-up-token", "quoted@example.com"]

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(path=TOKEN_PATH, status=400),
            Fault(path=TOKEN_PATH, status=401),
            Fault(path=TOKEN_PATH, status=500),
            Fault(path=TOKEN_PATH, drop=True),
            Fault(path=QUERY, status=400),
            Fault(path=QUERY, status=401),
            Fault(path=QUERY, status=403),
            Fault(path=QUERY, status=404),
            Fault(path=QUERY, status=500),
            Fault(path=QUERY, status=200),
            Fault(path=QUERY, drop=True),
        ],
        ids=lambda fault: f"{fault.path.rpartition('/')[2]}-{fault.status}",
    )
    def test_not_even_where_an_answer_quotes_them(
        self, reader, salesforce, attempts, secrets, fault
    ):
        login = {"access_token": "made-up-token", "id": f"https://x/id/{ORG}/0055g000004bNvD"}
        if fault.path == QUERY:
            salesforce.control.add_fault(
                Fault(path=TOKEN_PATH, status=200, body=json.dumps(login).encode())
            )
        keys = ("error", "error_description", "errorCode", "message")
        quoting = [dict.fromkeys(keys, said) for said in (*secrets, " ".join(secrets))]
        body = json.dumps(quoting[0] if fault.path == TOKEN_PATH else quoting).encode()
        kept = {name: getattr(fault, name) for name in fault.__struct_fields__}
        salesforce.control.add_fault(Fault(**(kept | {"body": body})))
        with pytest.raises(CrmError) as caught:
            reader.read(record())
        error = caught.value
        assert (error.__cause__, error.__context__) == (None, None)
        shown = [str(error), repr(error), repr(attempts), repr(reader), repr(error.attempt)]
        assert [secret for secret in secrets for text in shown if secret in text] == []

    def test_objects_hide_them(self, reader, salesforce):
        reader.read(record())
        shown = repr([reader, reader._app, reader._salesforce, *vars(reader).values()])
        tokens = salesforce._sessions
        assert [text for text in (salesforce.client_secret, *tokens) if text in shown] == []

    @pytest.mark.parametrize("secret", ["", "two words", "tab\tbed", "naïve-secret"])
    @pytest.mark.parametrize("argument", ["client_id", "client_secret"])
    def test_credentials_that_cannot_be_sent(self, make, argument, secret):
        with pytest.raises(ValueError, match="cannot be sent") as caught:
            make(**{argument: secret})
        assert not secret or secret not in str(caught.value)

    def test_the_simulators_log_has_none(self, reader, salesforce):
        reader.read(record())
        logged = repr(salesforce.control.calls())
        assert [x for x in (salesforce.client_secret, *salesforce._sessions) if x in logged] == []


class TestArguments:
    """What cannot be right is refused before any call."""

    @pytest.mark.parametrize(
        "wrong",
        [
            record("0035g00001TtYqPAAV"),
            record("0015g00001LwZ3kAAA"),
            record("0015g00001LwZ3"),
            record("0015g00001LwZ3'"),
            record(""),
            Record(Source.SALESFORCE, SANDBOX, RecordType.ACCOUNT, ONE),
            Record(Source.HUBSPOT, ORG, RecordType.ACCOUNT, ONE),
            Record(Source.SALESFORCE, ORG, RecordType.CONTACT, ONE),
        ],
    )
    def test_no_account_of_this_organisation(self, reader, salesforce, wrong):
        with pytest.raises(ValueError, match="is not"):
            reader.read(wrong)
        assert salesforce.control.calls() == []

    @pytest.mark.parametrize(
        "changes",
        [
            {"link_field": "Id FROM User"},
            {"link_field": "Parent.Name"},
            {"link_field": "1x"},
            {"link_field": ""},
            {"reference_field": "a,b"},
            {"reference_field": ""},
            {"org_id": ONE},
            {"org_id": "00D"},
            {"api_version": "v60.0"},
            {"api_version": "60"},
            {"instance_url": "northgate.my.salesforce.com"},
            {"instance_url": "ftp://northgate.my.salesforce.com"},
            {"instance_url": "https://user:pw@northgate.my.salesforce.com"},
            {"client_id": "a:b"},
        ],
    )
    def test_settings_that_cannot_be_used(self, make, changes):
        with pytest.raises(ValueError, match=r"is not|cannot be sent"):
            make(**changes)

    def test_an_organisation_may_have_18_characters(self, make):
        assert make(org_id=salesforce_id_18(ORG)).read(record()).link == "8714402"


class TestSimulator:
    """Answers that the reader does not lead to."""

    @pytest.fixture
    def ask(self, reader, salesforce):
        reader.read(record())
        session = reader._http.session
        headers = dict(reader._salesforce.headers)

        def ask(query: str, verb: str = "query", version: str = "60.0"):
            url = f"{salesforce.url}/services/data/v{version}/{verb}"
            response = session.get(url, params={"q": query}, headers=headers)
            answer = response.json()
            return answer[0]["errorCode"] if isinstance(answer, list) else answer["records"]

        return ask

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("", "MALFORMED_QUERY"),
            ("SELECT FROM Account", "MALFORMED_QUERY"),
            ("SELECT Id FROM Account", "MALFORMED_QUERY"),
            (f"SELECT Id FROM Account WHERE Id = '{ONE}' OR Id = '{TWO}'", "MALFORMED_QUERY"),
            (f"SELECT Nope__c FROM Account WHERE Id = '{ONE}'", "INVALID_FIELD"),
            (f"SELECT Id, id FROM Account WHERE Id = '{ONE}'", "INVALID_FIELD"),
            (f"SELECT Id FROM Nope__c WHERE Id = '{ONE}'", "INVALID_TYPE"),
            ("SELECT Id FROM Account WHERE Id = 'x'", "INVALID_QUERY_FILTER_OPERATOR"),
            ("SELECT Nope FROM Organization", "INVALID_FIELD"),
        ],
    )
    def test_queries_that_are_refused(self, ask, query, code):
        assert ask(query) == code

    def test_deleted_rows_are_shown_by_query_all_only(self, ask, salesforce):
        salesforce.accounts.delete(ONE)
        query = f"SELECT Id FROM Account WHERE Id = '{ONE}'"
        assert ask(query) == []
        assert [row["Id"] for row in ask(query, "queryAll")] == [ONE]

    def test_a_field_comes_back(self, reader, salesforce):
        salesforce.accounts.hide_field(LINK)
        with pytest.raises(Forbidden):
            reader.read(record())
        salesforce.accounts.show_field(LINK)
        assert reader.read(record()).link == "8714402"

    def test_an_unknown_path(self, ask):
        assert ask("SELECT Id FROM Organization", "search") == "NOT_FOUND"
