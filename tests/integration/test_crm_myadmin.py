"""Reading Geotab customers from a simulated MyAdmin over real HTTP."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import msgspec
import pytest

from simulators.http import Fault
from simulators.myadmin import rpc
from simulators.myadmin.contacts import Company, Contact, synthetic_contacts
from simulators.myadmin.server import NO_LONGER, NOT_YET, SimulatedMyAdmin
from sync_worker.crm import Reader
from sync_worker.crm.errors import CrmError, RateLimited, Unauthorized, Unavailable
from sync_worker.crm.myadmin import OVER_LIMIT_SECONDS, PAGE_SIZE, MyAdminReader
from sync_worker.domain import Attempt, Presence, Record, RecordType, Source, Truth

NOW = 1_795_183_387.25
ID = "0070441"
V2_LOGIN = "POST /v2/MyAdminApi.ashx Authenticate"
V2_LIST = "POST /v2/MyAdminApi.ashx GetUserContacts"
V3_LIST = "POST /v3/MyAdminApi.ashx GetUserContacts"

MAREN = Contact(id=4711, reseller_customer_id=ID)
ILSE = Contact(id=4712, first_name="Ilse", reseller_customer_id=ID)
TOMAS = Contact(id=4820, user_company=Company(id=104), active=False)


@pytest.fixture
def myadmin() -> Iterator[SimulatedMyAdmin]:
    with SimulatedMyAdmin([MAREN, ILSE, TOMAS]) as simulated:
        yield simulated


@pytest.fixture
def v3() -> Iterator[SimulatedMyAdmin]:
    contacts = synthetic_contacts(2 * PAGE_SIZE + 50, first_id=1)
    with SimulatedMyAdmin(contacts, version="v3") as simulated:
        yield simulated


Make = Callable[..., MyAdminReader]


@pytest.fixture
def attempts() -> list[Attempt]:
    return []


@pytest.fixture
def make(attempts: list[Attempt]) -> Iterator[Make]:
    """Makes readers of a simulator, told their calls to `attempts`."""
    with ExitStack() as opened:

        def of(myadmin: SimulatedMyAdmin, **changed) -> MyAdminReader:
            given = {"url": myadmin.url, "username": myadmin.username, "account": myadmin.account}
            fixed = {"read_timeout": 10, "on_call": attempts.append, "clock": lambda: NOW}
            password = changed.pop("password", myadmin.password)
            reader = MyAdminReader(**{**given, **fixed, **changed}, password=password)
            opened.callback(reader.close)
            return reader

        yield of


@pytest.fixture
def reader(myadmin: SimulatedMyAdmin, make: Make) -> MyAdminReader:
    return make(myadmin)


def customer(id_: str = ID, account: str = "ACCT01") -> Record:
    return Record(Source.GEOTAB, account, RecordType.CUSTOMER, id_)


def presence(reader: MyAdminReader, id_: str = ID) -> Presence:
    return reader.read(customer(id_)).presence


def refused(reader: MyAdminReader, kind: type[CrmError], id_: str = ID) -> CrmError:
    """The error of a read; its attempt is the last one that was told."""
    told: list[Attempt] = []
    before, reader.on_call = reader.on_call, told.append
    with pytest.raises(CrmError) as caught:
        reader.read(customer(id_))
    reader.on_call = before
    assert isinstance(caught.value, kind), caught.value
    assert caught.value.attempt == told[-1]
    assert str(caught.value).startswith(told[-1].call)
    return caught.value


def outage(reader: MyAdminReader) -> bool:
    """Whether a read fails of what counts towards opening the circuit (B6.3)."""
    error = refused(reader, Unavailable)
    assert isinstance(error, Unavailable)
    return error.outage


def methods(myadmin: SimulatedMyAdmin) -> list[str]:
    return [call.about for call in myadmin.control.calls()]


# What a list says (B3.5)


def test_an_active_contact_with_the_id_is_a_customer_that_is_there(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader, attempts: list[Attempt]
) -> None:
    """B3.5. MyAdmin keeps no Fusebill id, so the link is unknown, not empty."""
    as_protocol: Reader = reader
    assert as_protocol.source is Source.GEOTAB
    assert as_protocol.read(customer()) == Truth(record=customer(), presence=Presence.PRESENT)
    at = int(NOW * 1000)
    assert attempts == [Attempt(at, V2_LOGIN, 200), Attempt(at, V2_LIST, 200)]
    assert methods(myadmin) == ["Authenticate", "GetUserContacts"]


@pytest.mark.parametrize("id_", ["70441", "00070441", "0070442", "104", "null", "None"])
def test_an_id_is_text_and_its_leading_zeros_count(reader: MyAdminReader, id_: str) -> None:
    """B3.4."""
    assert presence(reader, ID) is Presence.PRESENT
    assert presence(reader, id_) is Presence.DELETED


def test_one_of_two_contacts_with_one_id_keeps_the_customer(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader
) -> None:
    """B3.5: a release needs a list in which no active contact carries the id."""
    myadmin.contacts.deactivate(4711)
    assert presence(reader) is Presence.PRESENT
    myadmin.contacts.deactivate(4712)
    assert presence(reader) is Presence.DELETED
    myadmin.contacts.set(4711, active=True)
    assert presence(reader) is Presence.PRESENT


def test_a_customer_whose_contacts_lost_the_id_or_went_is_deleted(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader
) -> None:
    """B3.5."""
    myadmin.contacts.clear_id(4711)
    assert presence(reader) is Presence.PRESENT
    myadmin.contacts.delete(4712)
    assert presence(reader) is Presence.DELETED


def test_every_read_asks_anew(myadmin: SimulatedMyAdmin, reader: MyAdminReader) -> None:
    """B3.5: the list is read after the changes that it decides arrived."""
    assert presence(reader) is Presence.PRESENT
    assert presence(reader) is Presence.PRESENT
    assert methods(myadmin) == ["Authenticate", "GetUserContacts", "GetUserContacts"]


@pytest.mark.parametrize("said", [None, "false", 0, "", []])
def test_a_contact_that_does_not_say_that_it_is_inactive_counts_as_active(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader, said: object
) -> None:
    """B3.6."""
    myadmin.rewrite = lambda rows: [{**row, "active": said} for row in rows]
    assert presence(reader) is Presence.PRESENT
    myadmin.rewrite = lambda rows: [
        {name: value for name, value in row.items() if name != "active"} for row in rows
    ]
    assert presence(reader) is Presence.PRESENT


def test_blanks_around_an_id_are_not_a_part_of_it(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader
) -> None:
    """The door takes no id with blanks around it, so such a contact can mean no other record."""
    myadmin.contacts.delete(4712)
    myadmin.contacts.set(4711, reseller_customer_id=f" {ID} ")
    assert presence(reader) is Presence.PRESENT


def test_the_company_id_can_be_what_fusebill_holds(myadmin: SimulatedMyAdmin, make: Make) -> None:
    reader = make(myadmin, id_attribute="userCompany.id")
    assert presence(reader, "99") is Presence.PRESENT
    assert presence(reader, "104") is Presence.DELETED  # its only contact is inactive
    assert presence(reader, "099") is Presence.DELETED
    assert presence(reader, ID) is Presence.DELETED
    # More digits than a 64-bit number has, and text.
    myadmin.contacts.put(Contact(id=1, user_company=Company(id=10**25 + 1)))
    assert presence(reader, str(10**25 + 1)) is Presence.PRESENT
    myadmin.rewrite = lambda rows: [{**row, "userCompany": {"id": "0099"}} for row in rows]
    assert presence(reader, "0099") is Presence.PRESENT
    assert presence(reader, "99") is Presence.DELETED


@pytest.mark.parametrize(
    "record",
    [
        customer(account="OTHER"),
        customer(""),
        Record(Source.GEOTAB, "ACCT01", RecordType.COMPANY, ID),
        Record(Source.HUBSPOT, "ACCT01", RecordType.CUSTOMER, ID),
    ],
)
def test_what_is_no_customer_of_the_account_is_not_asked_for(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader, record: Record
) -> None:
    with pytest.raises(ValueError, match="not a customer of the Geotab account ACCT01"):
        reader.read(record)
    assert methods(myadmin) == []


# What is no answer (B3.5)


def test_an_empty_list_is_no_answer(
    myadmin: SimulatedMyAdmin, v3: SimulatedMyAdmin, make: Make
) -> None:
    """B3.5."""
    myadmin.list_nothing()
    assert not outage(make(myadmin))
    assert "empty list of contacts is no answer" in str(refused(make(myadmin), Unavailable))
    v3.list_nothing()
    assert "empty list of contacts is no answer" in str(refused(make(v3), Unavailable))
    with SimulatedMyAdmin(version="v3") as nobody:
        assert "empty list" in str(refused(make(nobody), Unavailable))


@pytest.mark.parametrize(
    ("rewritten", "told"),
    [
        ({"resellerCustomerId": 70441}, "resellerCustomerId is no text but int"),
        ({"resellerCustomerId": True}, "resellerCustomerId is no text but bool"),
        ({"userCompany": "Northgate Haulage"}, "not a list of contacts"),
    ],
)
def test_an_id_that_is_no_text_is_no_answer(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader, rewritten: dict[str, object], told: str
) -> None:
    """B3.4: a number has lost its leading zeros, so that nobody would carry the id."""
    myadmin.rewrite = lambda rows: [{**row, **rewritten} for row in rows]
    assert told in str(refused(reader, Unavailable))


@pytest.mark.parametrize("id_attribute", ["resellerCustomerId", "userCompany.id"])
def test_a_list_without_the_attribute_is_no_answer(
    myadmin: SimulatedMyAdmin, make: Make, id_attribute: str
) -> None:
    """B3.5: another spelling of a field must not read as all customers removed."""
    reader = make(myadmin, id_attribute=id_attribute)
    spelled = {"resellerCustomerId": "ResellerCustomerID", "userCompany": "company"}
    myadmin.rewrite = lambda rows: [
        {spelled.get(name, name): value for name, value in row.items()} for row in rows
    ]
    told = str(refused(reader, Unavailable))
    assert f"no contact has the attribute {id_attribute}" in told
    assert told.endswith("check GEOTAB_ID_ATTRIBUTE")


def test_a_list_in_which_every_id_is_null_has_the_attribute(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader
) -> None:
    """B3.5: the last id was cleared."""
    myadmin.contacts.clear_id(4711)
    myadmin.contacts.clear_id(4712)
    assert presence(reader) is Presence.DELETED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>Sign in</html>",
        b'{"result": null}',
        b'{"result": {}}',
        b'{"result": [null]}',
        b'{"result": [{"id": 1}',
        b'{"result": [{"id": "\xff"}]}',
        b'{"result": ' + b"[" * 100_000,
    ],
)
def test_what_is_not_a_list_is_no_answer(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader, body: bytes
) -> None:
    myadmin.fail(body, method="GetUserContacts")
    assert "check GEOTAB_MYADMIN_URL" in str(refused(reader, Unavailable))
    assert not outage(reader)


@pytest.mark.parametrize("session", [{}, {"userId": "u"}, {"userId": "", "sessionId": "s"}])
def test_what_is_not_a_session_is_no_answer(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader, session: dict[str, str]
) -> None:
    myadmin.fail(rpc.result(session), method="Authenticate")
    assert "not a session" in str(refused(reader, Unavailable))
    assert methods(myadmin) == ["Authenticate"]


# Version 3 gives pages


def test_a_v3_list_is_read_to_its_last_page(
    v3: SimulatedMyAdmin, make: Make, attempts: list[Attempt]
) -> None:
    """B3.5: a contact of any page counts."""
    reader = make(v3)
    assert presence(reader, "0070001") is Presence.PRESENT
    assert presence(reader, "0070250") is Presence.PRESENT
    assert presence(reader, "0070251") is Presence.DELETED
    pages = [f"GetUserContacts page {page}" for page in (1, 2, 3)]
    assert methods(v3) == ["Authenticate", *pages, *pages, *pages]
    assert [attempt.call for attempt in attempts[1:4]] == [V3_LIST] * 3


def test_a_v3_list_that_fits_its_pages_exactly_needs_no_empty_one(make: Make) -> None:
    contacts = synthetic_contacts(PAGE_SIZE)
    with SimulatedMyAdmin(contacts, version="v3") as myadmin:
        assert presence(make(myadmin), "0070100") is Presence.PRESENT
        assert methods(myadmin) == ["Authenticate", "GetUserContacts page 1"]


def test_pages_that_are_smaller_than_asked_for_are_read_on(
    v3: SimulatedMyAdmin, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulators.myadmin.server.MAX_PER_PAGE", 20)
    assert presence(make(v3), "0070250") is Presence.PRESENT
    assert methods(v3)[-1] == "GetUserContacts page 13"


def test_a_short_v3_list_is_no_answer(v3: SimulatedMyAdmin, make: Make) -> None:
    """B3.5: 247 of 250 contacts must not read as three customers removed."""
    v3.list_short()
    told = str(refused(make(v3), Unavailable))
    assert "247 contacts came, not the 250 that it states" in told
    assert methods(v3)[-1] == "GetUserContacts page 4"


def test_a_v2_list_that_states_another_total_is_no_answer(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader
) -> None:
    """B3.5: what v2 is not known to state is believed all the same."""
    rows = myadmin.contacts.rows(active_only=False)
    myadmin.fail(rpc.result(rows, {"total": 4}), method="GetUserContacts", times=1)
    assert "3 contacts came, not the 4" in str(refused(reader, Unavailable))
    myadmin.fail(rpc.result(rows, {"total": 3}), method="GetUserContacts", times=1)
    assert presence(reader) is Presence.PRESENT


@pytest.mark.parametrize("pagination", [None, {}, {"total": None}, {"total": -1}, {"total": "3"}])
def test_a_v3_list_without_a_total_is_no_answer(
    v3: SimulatedMyAdmin, make: Make, pagination: dict[str, object] | None
) -> None:
    """B3.5."""
    rows = v3.contacts.rows(active_only=False)[:3]
    v3.fail(json.dumps({"result": rows, "pagination": pagination}).encode(), method="page 1")
    assert "states no total" in str(refused(make(v3), Unavailable))


def test_pages_that_all_are_the_first_are_no_answer(v3: SimulatedMyAdmin, make: Make) -> None:
    """B3.5: a server that overlooks `pagination` gives its first page again and again."""
    rows = v3.contacts.rows(active_only=False)[:PAGE_SIZE]
    v3.fail(rpc.result(rows, {"total": 250}), method="GetUserContacts")
    assert "holds a contact twice" in str(refused(make(v3), Unavailable))
    assert methods(v3)[-1] == "GetUserContacts page 2"


def test_a_list_that_changes_while_it_is_read_is_no_answer(
    v3: SimulatedMyAdmin, make: Make
) -> None:
    """B3.5: with one contact fewer on page 1, one slips from page 2 to it, unseen."""
    reader = make(v3)
    held = v3.control.add_fault(Fault(path="page 2", hold="before"))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(refused, reader, Unavailable, "0070101")
        held.wait_held()
        v3.contacts.delete(1)
        held.release()
        assert "changed while it was read" in str(reading.result(timeout=10))
    assert presence(reader, "0070101") is Presence.PRESENT


# Sessions and credentials (B2.9, B6.4)


def test_a_session_is_used_until_it_expires(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader, attempts: list[Attempt]
) -> None:
    """Authenticate is rate-limited, so only `SessionExpiredException` is worth one."""
    assert presence(reader) is Presence.PRESENT
    myadmin.expire_sessions()
    assert presence(reader) is Presence.PRESENT
    expired = attempts[2]
    assert (expired.call, expired.status) == (V2_LIST, 200)
    assert expired.error == "the session has expired (SessionExpiredException)"
    assert [attempt.call for attempt in attempts[2:]] == [V2_LIST, V2_LOGIN, V2_LIST]
    for error in (rpc.over_limit(), rpc.error("DbUnavailableException", "later")):
        myadmin.fail(error, method="GetUserContacts", times=1)
        refused(reader, CrmError)
    assert presence(reader) is Presence.PRESENT
    assert methods(myadmin).count("Authenticate") == 2


def test_a_session_that_expires_between_pages_starts_the_list_anew(
    v3: SimulatedMyAdmin, make: Make
) -> None:
    """B3.5: half a list of then and half of now would be none."""
    v3.fail(rpc.error("SessionExpiredException", "log in"), method="page 3", times=1)
    assert presence(make(v3), "0070250") is Presence.PRESENT
    pages = [f"GetUserContacts page {page}" for page in (1, 2, 3)]
    assert methods(v3) == ["Authenticate", *pages, "Authenticate", *pages]


def test_a_read_renews_its_session_once(myadmin: SimulatedMyAdmin, reader: MyAdminReader) -> None:
    assert presence(reader) is Presence.PRESENT
    myadmin.control.clear_calls()
    myadmin.fail(rpc.error("SessionExpiredException", "log in"), method="GetUserContacts")
    assert "has expired" in str(refused(reader, Unavailable))
    assert methods(myadmin) == ["GetUserContacts", "Authenticate", "GetUserContacts"]
    assert not outage(reader)


def test_threads_log_in_once_between_them(myadmin: SimulatedMyAdmin, reader: MyAdminReader) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            assert set(pool.map(lambda _: presence(reader), range(16))) == {Presence.PRESENT}
            myadmin.expire_sessions()
    assert methods(myadmin).count("Authenticate") == 2


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"username": "nobody@example.com"}, "UnknownUser"),
        ({"password": "not-the-password"}, "InvalidUserException"),
    ],
)
def test_a_user_who_is_refused_is_told_with_the_cure(
    myadmin: SimulatedMyAdmin, make: Make, changed: dict[str, str], name: str
) -> None:
    """B6.4."""
    error = refused(make(myadmin, **changed), Unauthorized)
    assert name in str(error)
    assert "check GEOTAB_MYADMIN_USERNAME and GEOTAB_MYADMIN_PASSWORD" in str(error)
    assert error.attempt.call == V2_LOGIN


@pytest.mark.parametrize(
    "body",
    [
        rpc.error("SecurityException", "Invalid API Roles"),
        rpc.error("JSONRPCError", "Invalid API Roles"),
        rpc.data_error("InvalidUserException", "Incorrect login"),
        rpc.error("Exception", "Authentication failed"),
        b'{"error": "UnknownUser"}',
    ],
)
def test_refusals_are_found_in_every_shape_of_error(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader, body: bytes
) -> None:
    """B6.4."""
    myadmin.fail(body, times=1)
    refused(reader, Unauthorized)


def test_new_roles_are_seen_by_the_next_read(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader
) -> None:
    """B6.4: a session may keep the roles it began with; a pause must be able to end."""
    body = rpc.error("SecurityException", "Invalid API Roles")
    myadmin.fail(body, method="GetUserContacts", times=1)
    refused(reader, Unauthorized)
    assert presence(reader) is Presence.PRESENT
    assert methods(myadmin).count("Authenticate") == 2


def test_another_account_than_that_of_the_credentials_is_unauthorized(
    myadmin: SimulatedMyAdmin, make: Make
) -> None:
    """B2.9: MyAdmin names a wrong account `SecurityException: Invalid API Roles`."""
    reader = make(myadmin, account="OTHER")
    with pytest.raises(Unauthorized, match="GEOTAB_ACCOUNT"):
        reader.read(customer(account="OTHER"))


@pytest.mark.parametrize(
    ("account", "named"),
    [("ACCT02", "account ACCT02"), ("someone@example.com", "another account"), (7, "another")],
)
def test_a_contact_of_another_account_is_unauthorized(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader, account: str, named: str
) -> None:
    """B2.9, also if our own contacts are there too."""
    myadmin.contacts.put(Contact(id=9000, user_company=Company(account=account)))
    told = str(refused(reader, Unauthorized))
    assert f"a contact is of {named}" in told
    assert "not of ACCT01" in told
    assert "example.com" not in told


def test_contacts_that_name_no_account_are_taken(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader
) -> None:
    myadmin.rewrite = lambda rows: [{**row, "userCompany": None} for row in rows]
    assert presence(reader) is Presence.PRESENT


# Probes (B6.3, B6.4)


def test_a_probe_logs_in_anew_and_asks_for_the_account(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader, attempts: list[Attempt]
) -> None:
    as_protocol: Reader = reader
    for _ in range(2):
        as_protocol.probe()
    assert [(one.call, one.status) for one in attempts] == [(V2_LOGIN, 200), (V2_LIST, 200)] * 2


def test_a_probe_of_v3_takes_one_page(v3: SimulatedMyAdmin, make: Make) -> None:
    make(v3).probe()
    assert methods(v3) == ["Authenticate", "GetUserContacts page 1"]


def test_reads_go_on_with_the_session_of_a_probe(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader
) -> None:
    assert presence(reader) is Presence.PRESENT
    myadmin.expire_sessions()
    reader.probe()
    assert presence(reader) is Presence.PRESENT
    assert methods(myadmin).count("Authenticate") == 2


def test_a_probe_draws_nothing_from_who_is_in_the_list(
    myadmin: SimulatedMyAdmin, v3: SimulatedMyAdmin, make: Make
) -> None:
    """A list that no read would believe shows all the same that the account is open to us."""
    for one in (myadmin, v3):
        one.list_nothing()
        make(one).probe()
        one.rewrite = lambda rows: [{"id": 1}] * len(rows)
        make(one).probe()


@pytest.mark.parametrize(
    "changed", [{"password": "not-the-password"}, {"username": "nobody"}, {"account": "OTHER"}]
)
def test_a_probe_finds_wrong_credentials(
    myadmin: SimulatedMyAdmin, make: Make, changed: dict[str, str]
) -> None:
    """B2.9, B6.4: those of an account that is not ours too."""
    with pytest.raises(Unauthorized, match="GEOTAB_ACCOUNT"):
        make(myadmin, **changed).probe()


def test_a_probe_finds_contacts_of_another_account(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader
) -> None:
    """B2.9."""
    myadmin.contacts.put(Contact(id=1, user_company=Company(account="ACCT02")))
    with pytest.raises(Unauthorized, match="account ACCT02, not of ACCT01"):
        reader.probe()


@pytest.mark.parametrize("method", ["Authenticate", "GetUserContacts"])
@pytest.mark.parametrize(
    ("fault", "kind", "outage"),
    [
        (Fault(status=401), Unauthorized, None),
        (Fault(status=503), Unavailable, True),
        (Fault(drop=True), Unavailable, True),
        (Fault(status=200, body=rpc.error("DbUnavailableException", "x")), Unavailable, True),
        (Fault(status=200, body=rpc.error("SessionExpiredException", "x")), Unavailable, False),
        (Fault(status=200, body=b"<html>Sign in</html>"), Unavailable, False),
        (Fault(status=200, body=rpc.over_limit()), RateLimited, None),
    ],
    ids=["401", "503", "dropped", "down", "expired", "HTML", "over limit"],
)
def test_what_a_probe_fails_of(
    myadmin: SimulatedMyAdmin,
    reader: MyAdminReader,
    attempts: list[Attempt],
    method: str,
    fault: Fault,
    kind: type[CrmError],
    outage: bool | None,
) -> None:
    """B6.3, B6.4. A session that was good stays in use."""
    assert presence(reader) is Presence.PRESENT
    myadmin.control.add_fault(msgspec.structs.replace(fault, path=method, times=1))
    with pytest.raises(CrmError) as caught:
        reader.probe()
    assert isinstance(caught.value, kind)
    assert getattr(caught.value, "outage", None) is outage
    assert caught.value.attempt == attempts[-1]
    myadmin.control.clear_calls()
    assert presence(reader) is Presence.PRESENT
    assert methods(myadmin) == ["GetUserContacts"]


# Trouble (B6.1, B6.2)


@pytest.mark.parametrize("method", ["Authenticate", "GetUserContacts"])
@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        (None, OVER_LIMIT_SECONDS),
        ("17", 17),
        ("Fri, 20 Nov 2026 14:04:07 GMT", 59.75),
        ("Fri, 20 Nov 2026 14:00:00 GMT", 0),
        ("soon", OVER_LIMIT_SECONDS),
        ("-5", OVER_LIMIT_SECONDS),
    ],
)
def test_over_the_limit_says_how_long_to_wait(
    myadmin: SimulatedMyAdmin,
    reader: MyAdminReader,
    method: str,
    retry_after: str | None,
    seconds: float,
) -> None:
    """B6.2: inside HTTP 200, in the shape that has no `errors`."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    myadmin.fail(rpc.over_limit(), method=method, times=1, headers=headers)
    error = refused(reader, RateLimited)
    assert isinstance(error, RateLimited)
    assert error.seconds == pytest.approx(seconds)
    assert "OverLimitException" in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "outage"),
    [
        (429, RateLimited, None),
        (401, Unauthorized, None),
        (403, Unauthorized, None),
        (302, Unavailable, False),
        (404, Unavailable, False),
        (408, Unavailable, True),
        (500, Unavailable, True),
        (503, Unavailable, True),
        (999, Unavailable, True),
    ],
)
def test_a_status_of_http_decides_before_the_body(
    myadmin: SimulatedMyAdmin,
    reader: MyAdminReader,
    status: int,
    kind: type[CrmError],
    outage: bool | None,
) -> None:
    """B6.1 to B6.4."""
    headers = {"Location": "http://127.0.0.1:9/", "Retry-After": "9"}
    body = rpc.error("UnknownUser", "x")
    myadmin.control.add_fault(
        Fault(path="GetUserContacts", status=status, body=body, headers=headers)
    )
    error = refused(reader, kind)
    assert error.attempt.status == status
    assert getattr(error, "outage", None) is outage
    if isinstance(error, RateLimited):
        assert error.seconds == 9


@pytest.mark.parametrize("text", [NO_LONGER, NOT_YET])
def test_a_version_that_does_not_serve_the_method_is_told_with_the_cure(
    myadmin: SimulatedMyAdmin, make: Make, text: str
) -> None:
    """B6.1."""
    myadmin.withdraw("v2", text)
    assert not outage(make(myadmin))
    told = str(refused(make(myadmin), Unavailable))
    assert text.partition(" for ")[0] in told
    assert told.endswith("name another version in GEOTAB_MYADMIN_URL")
    myadmin.version = "v3"
    assert presence(make(myadmin)) is Presence.PRESENT


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (rpc.error("DbUnavailableException", "later"), "DbUnavailableException"),
        (rpc.data_error("DbUnavailableException", "later"), "DbUnavailableException"),
        (rpc.data_error("NullReferenceException", "x@y.example"), "NullReferenceException"),
        (rpc.error("Oops", "x@y.example"), "WebServerInvokerJSONException"),
        (b'{"error": {}}', "no name"),
        (b'{"error": [1]}', "no name"),
        (b'{"error": "x@y.example"}', "no name"),
        (b'{"error": false, "result": []}', "no name"),
    ],
)
def test_any_other_error_may_work_later(
    myadmin: SimulatedMyAdmin, reader: MyAdminReader, body: bytes, told: str
) -> None:
    """B6.1: only the name of an exception is told. B6.3: one of them says that MyAdmin is down."""
    myadmin.fail(body, method="GetUserContacts")
    error = refused(reader, Unavailable)
    assert isinstance(error, Unavailable)
    assert error.outage is (told == "DbUnavailableException")
    assert told in str(error)
    assert "example" not in str(error)


def test_no_answer_may_work_later(
    myadmin: SimulatedMyAdmin, make: Make, attempts: list[Attempt]
) -> None:
    """B6.1, B6.3, B7.5."""
    reader = make(myadmin, read_timeout=0.2)
    myadmin.control.add_fault(Fault(path="GetUserContacts", times=2, drop=True))
    assert refused(reader, Unavailable).attempt.status is None
    assert outage(reader)
    held = myadmin.control.add_fault(Fault(path="GetUserContacts", hold="before"))
    assert "no whole answer within 0.2 s" in str(refused(reader, Unavailable))
    held.release()
    assert presence(reader) is Presence.PRESENT
    myadmin.stop()
    assert "no connection" in str(refused(reader, Unavailable))
    assert outage(reader)
    myadmin.start()
    assert presence(reader) is Presence.PRESENT
    assert methods(myadmin).count("Authenticate") == 1


def test_an_interrupted_call_is_told(
    myadmin: SimulatedMyAdmin,
    reader: MyAdminReader,
    attempts: list[Attempt],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B6.9."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reader._http, "exchange", interrupt)
    with pytest.raises(KeyboardInterrupt):
        reader.read(customer())
    assert attempts == [Attempt(int(NOW * 1000), V2_LOGIN, error="interrupted: KeyboardInterrupt")]


def test_a_list_of_many_contacts_is_taken_whole(make: Make) -> None:
    """v2 gives thousands of contacts in one answer, of a few hundred bytes each."""
    contacts = synthetic_contacts(10_000)
    with SimulatedMyAdmin(contacts) as myadmin:
        assert len(msgspec.json.encode(contacts)) > 3_000_000
        assert presence(make(myadmin), "0080000") is Presence.PRESENT


# Nothing secret, nobody's data (B10.4)


def test_nothing_that_is_told_holds_credentials_or_contacts(
    myadmin: SimulatedMyAdmin, make: Make, attempts: list[Attempt]
) -> None:
    """B7.5, B10.4."""
    reader = make(myadmin)
    told = [repr(reader)]
    assert presence(reader) is Presence.PRESENT
    session = reader._session
    assert session is not None
    told += [repr(session), str(session)]
    secrets = [myadmin.username, myadmin.password, session.user_id, session.session_id]
    quoting = " ".join([*secrets, MAREN.contact_email, MAREN.display_name])
    bodies = [
        rpc.error("UnknownUser", quoting),
        rpc.error(quoting, quoting),
        rpc.data_error(quoting, quoting),
        quoting.encode(),
        rpc.result([quoting]),
        rpc.result([{"id": 1, "userCompany": {"account": quoting}}]),
        rpc.result([{"id": 1, "resellerCustomerId": [quoting]}]),
        rpc.result({quoting: quoting}),
    ]
    for method in ("Authenticate", "GetUserContacts"):
        for body in bodies:
            placed = myadmin.fail(body, method=method, times=1)
            myadmin.expire_sessions()
            with pytest.raises(CrmError) as caught:
                reader.read(customer())
            assert placed.used == 1
            told.append("".join(traceback.format_exception(caught.value)))
            told += [repr(caught.value), repr(caught.value.attempt)]
            reader._session = None if method == "Authenticate" else session
    told += [repr(attempts), repr(myadmin.control.calls())]
    for hidden in (*secrets, MAREN.contact_email, MAREN.display_name):
        assert hidden not in "\n".join(told)
