"""Reading HubSpot over real HTTP, against the simulated portal (B3.5)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from simulators.http import _Handler
from simulators.hubspot import Fault, HubSpotWorld, SimulatedHubSpot, rate_limited
from sync_worker import __version__
from sync_worker.crm import Reader
from sync_worker.crm.errors import CrmError, Forbidden, RateLimited, Unauthorized, Unavailable
from sync_worker.crm.hubspot import HubSpotReader
from sync_worker.domain import Attempt, Presence, Record, RecordType, Source, Truth
from sync_worker.http import Connections

PORTAL = 24681357
EMAIL = "maren.oduya@northgate.example"
NOW = 1795012345.678


@pytest.fixture
def hubspot() -> Iterator[SimulatedHubSpot]:
    with SimulatedHubSpot(portal_id=PORTAL) as simulated:
        yield simulated


@pytest.fixture
def attempts() -> list[Attempt]:
    return []


MakeReader = Callable[..., HubSpotReader]


@pytest.fixture
def make(hubspot: SimulatedHubSpot, attempts: list[Attempt]) -> Iterator[MakeReader]:
    readers = []

    def make_reader(**changed: object) -> HubSpotReader:
        arguments: dict[str, object] = {
            "access_token": hubspot.access_token,
            "portal_id": str(PORTAL),
            "link_property": "fusebill_id",
            "reference_property": "fusebill_reference",
            "primary_company": True,
            "read_timeout": 5,
            "on_call": attempts.append,
            "clock": lambda: NOW,
        }
        reader = HubSpotReader(hubspot.url, **{**arguments, **changed})  # type: ignore[arg-type]
        readers.append(reader)
        return reader

    yield make_reader
    for reader in readers:
        reader.close()


@pytest.fixture
def reader(make: MakeReader) -> HubSpotReader:
    return make()


def contact(id_: int | str, tenant: str = str(PORTAL)) -> Record:
    return Record(Source.HUBSPOT, tenant, RecordType.CONTACT, str(id_))


def company(id_: int | str) -> Record:
    return Record(Source.HUBSPOT, str(PORTAL), RecordType.COMPANY, str(id_))


def answers(
    hubspot: SimulatedHubSpot, body: object, *, path: str = "/contacts/", **more: int
) -> None:
    """Let calls be answered 200 with this body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    hubspot.control.add_fault(Fault(path=path, status=200, body=raw, **more))  # type: ignore[arg-type]


class TestWhatIsTrue:
    def test_a_contact_is_read_with_link_history_hints_and_primary_company(
        self, hubspot: SimulatedHubSpot, reader: Reader
    ) -> None:
        """B3.5, B3.7, B5.7."""
        world = hubspot.world
        id_ = world.create(
            "contacts",
            {"fusebill_id": " 8714401 ", "fusebill_reference": "NG-0042", "email": EMAIL},
        )
        world.set_property("contacts", id_, "fusebill_id", "8714402 ", at=1795012401536)
        first, second = world.create("companies"), world.create("companies")
        world.associate(id_, first)
        world.associate(id_, second, primary=True)

        assert reader.read(contact(id_)) == Truth(
            record=contact(id_),
            presence=Presence.PRESENT,
            link="8714402",
            link_set_at=1795012401536,
            reference="NG-0042",
            email=EMAIL,
            company=str(second),
        )

    @pytest.mark.parametrize("version", ["v3", "2026-03", "2026-09"])
    def test_legacy_and_date_based_paths_read_alike(
        self, hubspot: SimulatedHubSpot, make: MakeReader, version: str
    ) -> None:
        id_ = hubspot.world.create("contacts", {"fusebill_id": "8714401"})
        owner = hubspot.world.create("companies")
        hubspot.world.associate(id_, owner, primary=True)

        truth = make(api_version=version).read(contact(id_))

        assert (truth.link, truth.company) == ("8714401", str(owner))
        folder = "/crm/v3/objects" if version == "v3" else f"/crm/objects/{version}"
        linked = "/crm/v4/objects" if version == "v3" else folder
        assert [call.path for call in hubspot.control.calls()] == [
            f"/account-info/{version}/details",
            f"{folder}/contacts/{id_}",
            f"{linked}/contacts/{id_}/associations/companies",
        ]

    def test_a_company_is_read_without_email_and_company(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        id_ = hubspot.world.create("companies", {"fusebill_id": "8714401", "name": "Northgate"})

        truth = reader.read(company(id_))

        assert (truth.link, truth.email, truth.company) == ("8714401", None, None)
        (call,) = hubspot.control.calls(path="/companies/")
        assert call.query["properties"] == "fusebill_id,fusebill_reference"
        assert call.query["propertiesWithHistory"] == "fusebill_id"

    def test_empty_null_and_unknown_properties_are_empty(
        self, hubspot: SimulatedHubSpot, make: MakeReader
    ) -> None:
        """B3.6: what silence means is decided elsewhere; it is never taken for a fault."""
        id_ = hubspot.world.create("contacts")
        assert make().read(contact(id_)).link == ""
        assert make().read(contact(id_)).reference is None
        assert make(link_property="no_such_property").read(contact(id_)).link == ""
        assert make(reference_property=None).read(contact(id_)).reference is None

    def test_the_time_of_a_cleared_link_is_told(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        """B3.7: history read from the CRM is evidence, also of an unlink."""
        id_ = hubspot.world.create("contacts", {"fusebill_id": "8714401"}, at=1_000)
        hubspot.world.set_property("contacts", id_, "fusebill_id", "", at=2_000)
        truth = reader.read(contact(id_))
        assert (truth.link, truth.link_set_at) == ("", 2_000)

    def test_a_value_that_came_back_counts_from_its_return(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        id_ = hubspot.world.create("contacts", {"fusebill_id": "1"}, at=1_000)
        hubspot.world.set_property("contacts", id_, "fusebill_id", "2", at=2_000)
        hubspot.world.set_property("contacts", id_, "fusebill_id", "1", at=3_000)
        assert reader.read(contact(id_)).link_set_at == 3_000

    @pytest.mark.parametrize(
        "history",
        [None, {}, {"fusebill_id": []}, {"fusebill_id": [{"value": "7", "timestamp": "lately"}]}],
    )
    def test_without_a_readable_history_there_is_no_evidence(
        self, hubspot: SimulatedHubSpot, make: MakeReader, history: object
    ) -> None:
        found = {"id": 5, "properties": {"fusebill_id": "7"}, "propertiesWithHistory": history}
        answers(hubspot, found)
        truth = make(primary_company=False).read(contact(5))
        assert (truth.link, truth.link_set_at, truth.survivor) == ("7", None, None)


class TestPresence:
    """B3.5: only the archive releases; "not found" alone is no reason for anything."""

    def test_an_archived_record_is_deleted(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader, attempts: list[Attempt]
    ) -> None:
        id_ = hubspot.world.create("contacts", {"fusebill_id": "8714401"})
        hubspot.world.archive("contacts", id_)

        truth = reader.read(contact(id_))

        assert (truth.presence, truth.link) == (Presence.DELETED, "8714401")
        assert truth.company is None
        path = f"GET /crm/objects/2026-03/contacts/{id_}"
        assert [(one.call, one.status) for one in attempts[1:]] == [
            (path, 404),
            (f"{path}?archived=true", 200),
        ]

    def test_a_plain_read_may_tell_of_it_too(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        answers(hubspot, {"id": "7", "properties": {}, "archived": True})
        assert reader.read(contact(7)).presence is Presence.DELETED

    def test_a_restored_record_is_present(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        id_ = hubspot.world.create("companies")
        hubspot.world.archive("companies", id_)
        hubspot.world.restore("companies", id_)
        assert reader.read(company(id_)).presence is Presence.PRESENT

    def test_an_unknown_record_is_absent(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        assert reader.read(contact(404)) == Truth(record=contact(404), presence=Presence.ABSENT)
        id_ = hubspot.world.create("contacts")
        hubspot.world.archive("contacts", id_)
        hubspot.world.purge("contacts", id_)
        assert reader.read(contact(id_)).presence is Presence.ABSENT

    @pytest.mark.parametrize(
        "body",
        [
            b"<html><title>Error 404</title></html>",
            b"",
            b'{"status": "error", "message": "no route", "category": "NOT_FOUND"}',
            b'{"category": "OBJECT_NOT_FOUND", "context": {"id": ["contacts"]}}',
        ],
    )
    @pytest.mark.parametrize("archive", [False, True])
    def test_a_404_that_does_not_speak_of_the_record_tells_nothing(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader, body: bytes, archive: bool
    ) -> None:
        path = f"archived={str(archive).lower()}"
        hubspot.control.add_fault(Fault(path=path, status=404, body=body))
        with pytest.raises(Unavailable, match=r"HUBSPOT_API_VERSION|OBJECT_NOT_FOUND") as caught:
            reader.read(contact(404))
        assert not caught.value.outage

    def test_an_archive_that_gives_a_living_record_tells_nothing(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        found = {"id": "404", "properties": {}, "archived": False}
        answers(hubspot, found, path="archived=true")
        with pytest.raises(Unavailable, match="not archived") as caught:
            reader.read(contact(404))
        assert not caught.value.outage


class TestMerges:
    """B3.5, B3.12."""

    def test_both_old_ids_lead_to_the_survivor(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        world = hubspot.world
        primary = world.create("contacts", {"fusebill_id": "8714401"})
        secondary = world.create("contacts", {"fusebill_id": "8714402", "email": EMAIL})
        owner = world.create("companies")
        world.associate(primary, owner, primary=True)
        survivor = world.merge("contacts", primary, secondary)

        assert survivor not in (primary, secondary)
        for old in (primary, secondary):
            truth = reader.read(contact(old))
            assert truth.record == contact(old)
            assert truth.survivor == contact(survivor)
            assert truth.presence is Presence.PRESENT
            assert (truth.link, truth.email, truth.company) == ("8714401", EMAIL, str(owner))
        assert {call.path for call in hubspot.control.calls(path="associations")} == {
            f"/crm/objects/2026-03/contacts/{survivor}/associations/companies"
        }
        assert reader.read(contact(survivor)).survivor is None

    def test_a_merge_may_keep_the_primary_id(self, make: MakeReader) -> None:
        world = HubSpotWorld(merge_makes_new_id=False)
        with SimulatedHubSpot(portal_id=PORTAL, world=world) as other:
            reader = HubSpotReader(
                other.url,
                other.access_token,
                portal_id=str(PORTAL),
                link_property="fusebill_id",
                reference_property=None,
                primary_company=False,
            )
            primary, secondary = world.create("companies"), world.create("companies")
            assert world.merge("companies", primary, secondary) == primary
            assert reader.read(company(primary)).survivor is None
            assert reader.read(company(secondary)).survivor == company(primary)
            reader.close()

    def test_a_deleted_survivor_is_deleted(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        world = hubspot.world
        old = world.create("contacts")
        survivor = world.merge("contacts", old, world.create("contacts"))
        world.archive("contacts", survivor)
        truth = reader.read(contact(old))
        assert (truth.presence, truth.survivor) == (Presence.DELETED, contact(survivor))


class TestPrimaryCompany:
    """B5.7."""

    def test_companies_without_a_primary_one_are_none(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        id_ = hubspot.world.create("contacts")
        assert reader.read(contact(id_)).company == ""
        hubspot.world.associate(id_, hubspot.world.create("companies"))
        assert reader.read(contact(id_)).company == ""

    @pytest.mark.parametrize("text_ids", [False, True])
    def test_pages_are_followed_to_the_primary_company(
        self,
        hubspot: SimulatedHubSpot,
        reader: HubSpotReader,
        monkeypatch: pytest.MonkeyPatch,
        text_ids: bool,
    ) -> None:
        monkeypatch.setattr("sync_worker.crm.hubspot.PAGE_SIZE", 2)
        hubspot.text_ids = text_ids
        id_ = hubspot.world.create("contacts")
        for _ in range(4):
            hubspot.world.associate(id_, hubspot.world.create("companies"))
        last = hubspot.world.create("companies")
        hubspot.world.associate(id_, last, primary=True)

        assert reader.read(contact(id_)).company == str(last)
        pages = hubspot.control.calls(path="associations")
        assert [call.query.get("after") for call in pages] == [None, "2", "4"]

    def test_pages_without_end_are_not_read_for_ever(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        id_ = hubspot.world.create("contacts")
        endless = {"results": [], "paging": {"next": {"after": "1"}}}
        answers(hubspot, endless, path="associations")
        with pytest.raises(Unavailable, match="more than 20 pages") as caught:
            reader.read(contact(id_))
        assert not caught.value.outage

    def test_a_custom_label_of_the_same_number_is_not_primary(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        id_ = hubspot.world.create("contacts")
        label = {"category": "USER_DEFINED", "typeId": 1, "label": "Biller"}
        listed = {"results": [{"toObjectId": 9, "associationTypes": [label]}]}
        answers(hubspot, listed, path="associations")
        assert reader.read(contact(id_)).company == ""

    def test_a_list_that_cannot_be_read_is_not_an_empty_one(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        id_ = hubspot.world.create("contacts")
        for broken in ({}, {"results": None}, {"results": [{"toObjectId": 9}]}):
            answers(hubspot, broken, path="associations", times=1)
            with pytest.raises(Unavailable):
                reader.read(contact(id_))

    def test_it_is_read_only_where_it_fills_the_slot(
        self, hubspot: SimulatedHubSpot, make: MakeReader
    ) -> None:
        id_ = hubspot.world.create("contacts")
        assert make(primary_company=False).read(contact(id_)).company is None
        assert not hubspot.control.calls(path="associations")


class TestTenant:
    """B2.9: a token of another portal must not decide about records of this one."""

    def test_the_portal_is_checked_once(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        id_ = hubspot.world.create("companies")
        reader.read(company(id_))
        reader.read(company(id_))
        assert len(hubspot.control.calls(path="account-info")) == 1

    def test_another_portal_is_refused_before_any_record_is_read(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        hubspot.portal_id = 11112222
        id_ = hubspot.world.create("contacts", {"fusebill_id": "8714401"})
        for _ in range(2):
            with pytest.raises(Unauthorized, match="portal 11112222, not to 24681357"):
                reader.read(contact(id_))
        assert not hubspot.control.calls(path="/crm/")

    @pytest.mark.parametrize(
        "body", [{}, {"portalId": None}, {"portalId": True}, {"portalId": "x"}, [], None]
    )
    def test_a_portal_that_is_not_told_is_not_believed(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader, body: object
    ) -> None:
        answers(hubspot, body, path="account-info")
        with pytest.raises(Unavailable):
            reader.read(contact(1))
        assert not hubspot.control.calls(path="/crm/")

    def test_it_is_checked_again_after_the_token_was_refused(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        id_ = hubspot.world.create("companies")
        reader.read(company(id_))
        hubspot.control.add_fault(Fault(status=401, times=1))
        with pytest.raises(Unauthorized):
            reader.read(company(id_))
        hubspot.portal_id = 11112222
        with pytest.raises(Unauthorized, match="11112222"):
            reader.read(company(id_))

    @pytest.mark.parametrize(
        "record",
        [
            contact(1, tenant="11112222"),
            Record(Source.HUBSPOT, str(PORTAL), RecordType.ACCOUNT, "1"),
            Record(Source.SALESFORCE, str(PORTAL), RecordType.CONTACT, "1"),
            *(
                contact(id_)
                for id_ in ("", "0", "01", "-1", "1.0", "1/../2", "1?a=b", "٣", "9" * 20)
            ),
        ],
    )
    def test_what_is_no_record_of_the_portal_is_refused_without_a_call(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader, record: Record
    ) -> None:
        with pytest.raises(ValueError, match=r"is no|is not"):
            reader.read(record)
        assert not hubspot.control.calls()


class TestRefusals:
    def test_a_wrong_token_is_unauthorized(
        self, hubspot: SimulatedHubSpot, make: MakeReader
    ) -> None:
        with pytest.raises(Unauthorized, match="check HUBSPOT_ACCESS_TOKEN"):
            make(access_token="pat-na1-wrong").read(contact(1))

    def test_a_missing_scope_is_named(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        hubspot.scopes = {"crm.objects.contacts.read"}
        id_ = hubspot.world.create("contacts")
        with pytest.raises(Forbidden, match=r"scopes crm\.objects\.companies\.read$"):
            reader.read(contact(id_))

    def test_a_missing_scope_concerns_its_own_records_only(
        self, hubspot: SimulatedHubSpot, make: MakeReader
    ) -> None:
        """B6.4: a pause for it would keep from being read what can be."""
        hubspot.scopes = {"crm.objects.contacts.read"}
        reader = make(primary_company=False)
        contact_id = hubspot.world.create("contacts", {"fusebill_id": "8714402"})
        for _ in range(2):
            with pytest.raises(Forbidden):
                reader.read(company(hubspot.world.create("companies")))
            assert reader.read(contact(contact_id)).link == "8714402"
        assert len(hubspot.control.calls(path="account-info")) == 1

    @pytest.mark.parametrize(
        ("path", "kind"), [("account-info", Unauthorized), ("/contacts/", Forbidden)]
    )
    def test_a_bare_403_names_the_scopes_that_are_needed(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader, path: str, kind: type[CrmError]
    ) -> None:
        """B6.4: whoever may not even know the portal has no access at all."""
        hubspot.control.add_fault(Fault(path=path, status=403, body=b"<html>no</html>"))
        scopes = r"crm\.objects\.contacts\.read and crm\.objects\.companies\.read$"
        with pytest.raises(kind, match=scopes) as caught:
            reader.read(contact(1))
        assert caught.value.attempt.status == 403

    @pytest.mark.parametrize(
        ("policy", "seconds"),
        [("TEN_SECONDLY_ROLLING", 10), ("SECONDLY", 1), ("DAILY", 3600), ("LUNAR", None)],
    )
    def test_a_limit_is_waited_for_by_its_name(
        self,
        hubspot: SimulatedHubSpot,
        reader: HubSpotReader,
        policy: str,
        seconds: float | None,
    ) -> None:
        """B6.2."""
        hubspot.control.add_fault(rate_limited(policy))
        with pytest.raises(RateLimited, match=policy) as caught:
            reader.read(contact(1))
        assert caught.value.seconds == seconds

    @pytest.mark.parametrize(
        ("retry_after", "seconds"),
        [
            ("7", 7),
            (" 2.5", 2.5),
            ("999999", 3600),
            (
                format_datetime(
                    datetime.fromtimestamp(NOW, UTC) + timedelta(minutes=1), usegmt=True
                ),
                60,
            ),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("-3", 10),
            ("soon", 10),
        ],
    )
    def test_a_retry_after_is_honoured_where_it_can_be_read(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader, retry_after: str, seconds: float
    ) -> None:
        """B6.2."""
        body = rate_limited().body
        hubspot.control.add_fault(
            Fault(status=429, body=body, headers={"Retry-After": retry_after})
        )
        with pytest.raises(RateLimited) as caught:
            reader.read(contact(1))
        assert caught.value.seconds == pytest.approx(seconds, abs=1)

    @pytest.mark.parametrize(
        ("status", "outage"),
        [
            *((status, False) for status in (201, 204, 302, 307, 400, 405, 414, 423, 477)),
            *((status, True) for status in (408, 500, 502, 503, 504, 524, 599, 600, 999)),
        ],
    )
    def test_anything_else_may_work_later(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader, status: int, outage: bool
    ) -> None:
        """B6.1, B6.3."""
        headers = {"Location": f"{hubspot.url}/elsewhere"} if status in (302, 307) else {}
        hubspot.control.add_fault(Fault(status=status, headers=headers))
        with pytest.raises(Unavailable) as caught:
            reader.read(contact(1))
        assert caught.value.attempt.status == status
        assert caught.value.outage is outage
        assert len(hubspot.control.calls()) == 1

    @pytest.mark.parametrize(
        "body",
        [
            b"<html>Sign in</html>",
            b"",
            b"\xff\xfe",
            b"null",
            b"[]",
            b"{}",
            b'{"id": "1"}',
            b'{"properties": {}}',
            b'{"id": "1", "properties": null}',
            b'{"id": true, "properties": {}}',
            b'{"id": 1.5, "properties": {}}',
            b'{"id": "abc", "properties": {}}',
            b'{"id": "1", "properties": {"fusebill_id": 8714401}}',
            b'{"id": "1", "properties": {}, "archived": "no"}',
            b"[" * 100_000,
        ],
    )
    def test_a_broken_answer_is_never_an_empty_record(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader, body: bytes
    ) -> None:
        """B6.3: nor a sign that HubSpot is down."""
        answers(hubspot, body)
        with pytest.raises(Unavailable) as caught:
            reader.read(contact(1))
        assert not caught.value.outage


class TestProbe:
    """B6.3, B6.4: what ends an outage or a pause."""

    def test_it_is_one_call_made_afresh(
        self, hubspot: SimulatedHubSpot, reader: Reader, attempts: list[Attempt]
    ) -> None:
        for _ in range(2):
            reader.probe()
        details = "/account-info/2026-03/details"
        assert [call.path for call in hubspot.control.calls()] == [details] * 2
        assert [(one.call, one.status) for one in attempts] == [(f"GET {details}", 200)] * 2

    def test_reads_go_on_with_what_it_proved(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        reader.probe()
        assert reader.read(contact(1)).presence is Presence.ABSENT
        assert len(hubspot.control.calls(path="account-info")) == 1

    def test_another_portal_is_found_whatever_was_read_before(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        """B2.9."""
        reader.read(contact(1))
        hubspot.portal_id = 11112222
        with pytest.raises(Unauthorized, match="portal 11112222, not to 24681357"):
            reader.probe()
        with pytest.raises(Unauthorized, match="11112222"):
            reader.read(contact(1))

    def test_a_missing_scope_does_not_keep_it_from_success(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        hubspot.scopes = set()
        reader.probe()
        with pytest.raises(Forbidden):
            reader.read(contact(1))

    @pytest.mark.parametrize(
        ("fault", "kind", "outage"),
        [
            (Fault(status=401), Unauthorized, None),
            (Fault(status=403), Unauthorized, None),
            (rate_limited(), RateLimited, None),
            (Fault(status=503), Unavailable, True),
            (Fault(drop=True), Unavailable, True),
            (Fault(status=404), Unavailable, False),
            (Fault(status=200, body=b"<html>Sign in</html>"), Unavailable, False),
        ],
        ids=lambda value: getattr(value, "__name__", None) or str(getattr(value, "status", value)),
    )
    def test_what_it_fails_of(
        self,
        hubspot: SimulatedHubSpot,
        reader: HubSpotReader,
        attempts: list[Attempt],
        fault: Fault,
        kind: type[CrmError],
        outage: bool | None,
    ) -> None:
        hubspot.control.add_fault(fault)
        with pytest.raises(CrmError) as caught:
            reader.probe()
        assert type(caught.value) is kind
        assert getattr(caught.value, "outage", None) is outage
        assert attempts == [caught.value.attempt]
        hubspot.control.clear_faults()
        reader.probe()


class TestTheWire:
    """B7.5."""

    def test_calls_share_a_connection_and_name_the_product(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        serve = _Handler._serve

        def watched(handler: _Handler) -> None:
            seen.append((handler.client_address, handler.headers["User-Agent"]))
            serve(handler)

        monkeypatch.setattr(_Handler, "_serve", watched)
        reader.read(contact(hubspot.world.create("contacts")))
        reader.read(contact(404))
        assert len(seen) == 5
        assert set(seen) == {(seen[0][0], f"sync-worker/{__version__}")}

    def test_a_netrc_takes_the_place_of_no_credentials(
        self,
        hubspot: SimulatedHubSpot,
        reader: HubSpotReader,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password other\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        seen = []
        monkeypatch.setattr(hubspot, "about", lambda request: seen.append(request.authorization))
        assert reader.read(contact(1)).presence is Presence.ABSENT
        bare = Connections(auth=None)
        answer = bare.exchange("GET", f"{hubspot.url}/anything")
        bare.close()
        assert answer.status == 401
        assert "INVALID_AUTHENTICATION" not in repr(answer)
        assert seen == [f"Bearer {hubspot.access_token}"] * 3 + [None]

    def test_a_dropped_connection_and_an_outage_may_pass(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader, attempts: list[Attempt]
    ) -> None:
        """B6.1, B6.3."""
        hubspot.control.add_fault(Fault(drop=True, times=1))
        with pytest.raises(Unavailable, match="got no answer: the connection broke") as broke:
            reader.read(contact(1))
        hubspot.stop()
        with pytest.raises(Unavailable, match="got no answer: no connection") as stopped:
            reader.read(contact(1))
        assert broke.value.outage
        assert stopped.value.outage
        hubspot.start()
        assert reader.read(contact(1)).presence is Presence.ABSENT
        assert [one.status for one in attempts[:2]] == [None, None]

    def test_a_silent_answer_is_given_up(self, hubspot: SimulatedHubSpot, make: MakeReader) -> None:
        fault = hubspot.control.add_fault(Fault(hold="after"))
        with pytest.raises(Unavailable, match=r"no whole answer within 0\.1 s") as caught:
            make(read_timeout=0.1).read(contact(1))
        assert caught.value.outage
        fault.release()

    def test_a_trickling_answer_is_given_up(
        self, hubspot: SimulatedHubSpot, make: MakeReader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sync_worker.http.CONNECT_TIMEOUT_SECONDS", 0.1)
        hubspot.control.add_fault(Fault(trickle_ms=20))
        with pytest.raises(Unavailable, match="no whole answer"):
            make(read_timeout=0.1).read(contact(1))

    def test_an_answer_without_end_does_not_fill_memory(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader
    ) -> None:
        answers(hubspot, b" " * (2 * 1024 * 1024 + 1))
        with pytest.raises(Unavailable, match="longer than 2097152 bytes"):
            reader.read(contact(1))


class TestSecrets:
    """B10.4: neither tokens nor people's data get into errors, attempts or reprs."""

    LEAK = json.dumps(
        {
            "message": EMAIL,
            "category": EMAIL,
            "policyName": EMAIL,
            "errors": [{"context": {"requiredGranularScopes": [EMAIL]}}],
            "context": {"id": [EMAIL]},
            "id": EMAIL,
            "portalId": EMAIL,
            "properties": {EMAIL: {EMAIL: EMAIL}},
        }
    ).encode()

    @pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 429, 500])
    @pytest.mark.parametrize("path", ["account-info", "/contacts/[0-9]+[?]", "associations"])
    def test_no_error_or_attempt_quotes_token_or_record(
        self,
        hubspot: SimulatedHubSpot,
        reader: HubSpotReader,
        attempts: list[Attempt],
        status: int,
        path: str,
    ) -> None:
        id_ = hubspot.world.create("contacts", {"email": EMAIL})
        hubspot.control.add_fault(Fault(path=path, status=status, body=self.LEAK))
        with pytest.raises(CrmError) as caught:
            reader.read(contact(id_))

        told = [str(caught.value), repr(caught.value.attempt), repr(reader), *map(repr, attempts)]
        assert caught.value.attempt == attempts[-1]
        for text in told:
            assert EMAIL not in text
            assert hubspot.access_token not in text
        assert caught.value.__cause__ is None
        assert hubspot.access_token not in repr(hubspot.control.calls())

    def test_a_token_that_cannot_be_sent_is_refused_unquoted(self, make: MakeReader) -> None:
        with pytest.raises(ValueError, match="without `Bearer`") as caught:
            make(access_token="Bearer pat-na1-secret")
        assert "secret" not in str(caught.value)

    def test_every_call_is_told_with_its_time(
        self, hubspot: SimulatedHubSpot, reader: HubSpotReader, attempts: list[Attempt]
    ) -> None:
        id_ = hubspot.world.create("companies")
        reader.read(company(id_))
        at = int(NOW * 1000)
        assert attempts == [
            Attempt(at, "GET /account-info/2026-03/details", 200),
            Attempt(at, f"GET /crm/objects/2026-03/companies/{id_}", 200),
        ]
        assert all(re.fullmatch(r"GET /[\w/.?=-]+", one.call) for one in attempts)
