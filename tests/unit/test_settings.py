"""Where settings come from, and what is refused (B9), always with every fault at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from sync_worker.domain import Source
from sync_worker.settings import Settings, SettingsError, load

HUBSPOT = {
    "HUBSPOT_CLIENT_SECRET": "topsecret",
    "HUBSPOT_PORTAL_ID": "24681357",
    "PUBLIC_URL": "https://hooks.example.com",
}
SALESFORCE = {"SALESFORCE_WEBHOOK_TOKEN": "topsecret", "SALESFORCE_ORG_ID": "00D5g000007Kp2QEAS"}
GEOTAB = {"GEOTAB_WEBHOOK_SECRET": "topsecret", "GEOTAB_ACCOUNT": "ACCT01"}

READ_HUBSPOT = {"HUBSPOT_ACCESS_TOKEN": "topsecret", "HUBSPOT_PORTAL_ID": "24681357"}
READ_SALESFORCE = {
    "SALESFORCE_CLIENT_ID": "topsecret",
    "SALESFORCE_CLIENT_SECRET": "topsecret",
    "SALESFORCE_INSTANCE_URL": "https://northgate.my.salesforce.com",
    "SALESFORCE_ORG_ID": "00D5g000007Kp2QEAS",
}
READ_GEOTAB = {
    "GEOTAB_MYADMIN_USERNAME": "erp-user@northgate.example",
    "GEOTAB_MYADMIN_PASSWORD": "topsecret",
    "GEOTAB_ACCOUNT": "ACCT01",
}

Monkey = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: Monkey) -> None:
    """No settings but those of the test: not of this machine, nor of a `.env` here."""
    ours = {name.upper() for name in Settings.model_fields}
    for name in os.environ:
        if name.upper().removesuffix("_FILE") in ours:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def given(monkeypatch: Monkey, **env: str) -> Settings:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return load()


def faults(monkeypatch: Monkey, **env: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        given(monkeypatch, **env)
    return str(caught.value).splitlines()


# ---- where they come from


def test_without_any_there_are_defaults_and_no_source_is_served():
    current = load()
    assert current.redis_url.get_secret_value() == "redis://127.0.0.1:6379/0"
    assert current.fusebill_base_url == "https://secure.fusebill.com"
    assert current.web_bind == "127.0.0.1:8000"
    assert current.max_body_bytes == 8 * 1024 * 1024
    assert current.dedupe_hours == 72
    assert current.retry_schedule_seconds == (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800)
    assert not current.hubspot_allow_untimed_signatures
    assert not current.allow_unsafe_redis
    assert not any(current.serves(source) for source in Source)
    assert not any(current.reads(source) for source in Source)


def test_without_any_nothing_is_guessed_and_nothing_displaced():
    current = load()
    assert current.match_by == ("id", "link", "reference")
    assert current.match_statuses == ("Draft", "Active", "Hold", "Suspended")
    assert current.on_conflict == "hold"
    assert current.hubspot_latch_company == "primary"
    assert current.release_grace_seconds == 30
    assert current.sweep_seconds == 60
    assert current.max_releases_per_hour is None
    assert not current.salesforce_absent_means_cleared
    assert not current.dry_run


def test_from_the_environment(monkeypatch):
    assert given(monkeypatch, MAX_BODY_BYTES="2048").max_body_bytes == 2048


def test_from_a_env_file(monkeypatch):
    Path(".env").write_text("# ours\nMAX_BODY_BYTES=2048\nGEOTAB_ACCOUNT='ACCT01'\n")
    current = load()
    assert (current.max_body_bytes, current.geotab_account) == (2048, "ACCT01")


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_from_the_file_that_a_variable_names(end, monkeypatch):
    Path("secret").write_bytes(b"hush, new-one" + end.encode())
    current = given(
        monkeypatch, **GEOTAB | {"GEOTAB_WEBHOOK_SECRET": ""}, GEOTAB_WEBHOOK_SECRET_FILE="secret"
    )
    values = [secret.get_secret_value() for secret in current.geotab_webhook_secret]
    assert values == ["hush", "new-one"]


def test_a_file_keeps_its_inner_newlines_and_blanks(monkeypatch):
    Path("key").write_text(" a\nb \n")
    current = given(monkeypatch, FUSEBILL_API_KEY_FILE="key")
    assert current.fusebill_api_key is not None
    assert current.fusebill_api_key.get_secret_value() == " a\nb "


@pytest.mark.parametrize("text", ["", "\n"])
def test_what_is_empty_is_not_set(text, monkeypatch):
    Path("empty").write_text(text)
    current = given(monkeypatch, MAX_BODY_BYTES="", HUBSPOT_PORTAL_ID="", PUBLIC_URL_FILE="empty")
    assert current.max_body_bytes == 8 * 1024 * 1024
    assert current.hubspot_portal_id is None
    assert current.public_url is None


def test_the_environment_goes_before_a_file_and_a_file_before_dot_env(monkeypatch):
    Path(".env").write_text("GEOTAB_ACCOUNT=dotenv\n")
    assert load().geotab_account == "dotenv"
    Path("account").write_text("file")
    monkeypatch.setenv("GEOTAB_ACCOUNT_FILE", "account")
    assert load().geotab_account == "file"
    monkeypatch.setenv("GEOTAB_ACCOUNT", "environment")
    assert load().geotab_account == "environment"
    assert load(geotab_account="argument").geotab_account == "argument"


def test_a_file_that_is_not_needed_is_not_missed(monkeypatch):
    current = given(monkeypatch, GEOTAB_ACCOUNT="ACCT01", GEOTAB_ACCOUNT_FILE="/not/there")
    assert current.geotab_account == "ACCT01"


def test_what_is_not_ours_is_left_alone(monkeypatch):
    Path(".env").write_text("SOME_OTHER_PROGRAM=1\n")
    assert given(monkeypatch, SOME_OTHER_PROGRAM_FILE="/not/there") == load()


@pytest.mark.parametrize("make", [lambda: Path("secret").mkdir(), lambda: None])
def test_an_unreadable_file_is_a_fault_that_names_variable_and_path(make, monkeypatch):
    make()
    (fault,) = faults(monkeypatch, GEOTAB_ACCOUNT_FILE="secret")
    assert fault.startswith("GEOTAB_ACCOUNT: GEOTAB_ACCOUNT_FILE names 'secret'")


def test_a_file_that_is_no_text_is_a_fault_that_quotes_nothing(monkeypatch):
    Path("secret").write_bytes(b"topsecret\xff")
    (fault,) = faults(monkeypatch, FUSEBILL_API_KEY_FILE="secret")
    assert "FUSEBILL_API_KEY_FILE" in fault
    assert "topsecret" not in fault


def test_a_dot_env_that_cannot_be_read_is_a_fault(monkeypatch):
    Path(".env").write_bytes(b"GEOTAB_ACCOUNT=topsecret\xff\xfe")
    (fault,) = faults(monkeypatch)
    assert ".env" in fault
    assert "topsecret" not in fault


# ---- every fault at once


def test_every_fault_is_listed_with_its_setting(monkeypatch):
    found = faults(
        monkeypatch,
        REDIS_URL="http://h",
        PUBLIC_URL="hooks.example.com",
        MAX_BODY_BYTES="8MiB",
        DEDUPE_HOURS="-1",
        HUBSPOT_PORTAL_ID="ours",
        SALESFORCE_ORG_ID="0015g00001LwZ3kAAF",
        GEOTAB_ACCOUNT="a:b",
        WEB_BIND="here",
        LOG_LEVEL="LOUD",
        HUBSPOT_LATCH_COMPANY="yes",
        ALLOW_UNSAFE_REDIS="perhaps",
        RETRY_SCHEDULE_SECONDS="5,soon,late",
        FUSEBILL_SALESFORCE_UNLATCH_PATH="v1/x",
        AUDIT_DAYS="0",
        HUBSPOT_API_VERSION="v4",
        SALESFORCE_INSTANCE_URL="northgate.my.salesforce.com",
        GEOTAB_ID_ATTRIBUTE="id",
        MATCH_BY="id,name",
        ON_CONFLICT="ask",
        SWEEP_SECONDS="0",
        MAX_RELEASES_PER_HOUR="many",
        DRY_RUN="perhaps",
    )
    assert [fault.partition(":")[0] for fault in found] == [
        name for name in (field.upper() for field in Settings.model_fields) if name in os.environ
    ]
    assert len(found) == 22


def test_contradictions_are_listed_beside_faulty_values(monkeypatch):
    found = faults(
        monkeypatch,
        MAX_BODY_BYTES="8MiB",
        HUBSPOT_CLIENT_SECRET="topsecret",
        SALESFORCE_WEBHOOK_SECRET="topsecret",
        GEOTAB_WEBHOOK_TOKEN="topsecret",
        LEASE_SECONDS="30",
        NOT_FOUND_RETRIES="99",
        SALESFORCE_CLIENT_SECRET="topsecret",
        GEOTAB_MYADMIN_PASSWORD="topsecret",
        HUBSPOT_ACCESS_TOKEN="topsecret",
    )
    wanted = (
        "MAX_BODY_BYTES",
        "HUBSPOT_PORTAL_ID",
        "PUBLIC_URL",
        "SALESFORCE_ORG_ID",
        "GEOTAB_ACCOUNT",
        "SALESFORCE_CLIENT_ID and SALESFORCE_INSTANCE_URL",
        "GEOTAB_MYADMIN_USERNAME",
        "read access needs HUBSPOT_PORTAL_ID",
        "LEASE_SECONDS",
        "NOT_FOUND_RETRIES",
    )
    assert len(found) == len(wanted)
    for name, fault in zip(wanted, found, strict=True):
        assert name in fault


def test_a_faulty_value_is_not_called_missing_as_well(monkeypatch):
    (fault,) = faults(monkeypatch, **HUBSPOT | {"HUBSPOT_PORTAL_ID": "ours"})
    assert fault.startswith("HUBSPOT_PORTAL_ID: ")


def test_an_unreadable_file_hides_no_other_fault(monkeypatch):
    found = faults(monkeypatch, GEOTAB_ACCOUNT_FILE="/a", SENTRY_DSN_FILE="/b", AUDIT_DAYS="x")
    assert len(found) == 3


def test_arguments_are_checked_like_all_others():
    with pytest.raises(SettingsError, match="WEB_BIND"):
        load(web_bind="here")


# ---- each check

GOOD: list[tuple[str, str, Any]] = [
    ("REDIS_URL", "rediss://:pass@h:6380/1?ssl_cert_reqs=none", None),
    ("REDIS_URL", "redis://[::1]:6379", None),
    ("PUBLIC_URL", "https://h.example/a/b-c_d.e~f/", "https://h.example/a/b-c_d.e~f"),
    ("PUBLIC_URL", "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ("PUBLIC_URL", "https://[::1]:8443", "https://[::1]:8443"),
    ("FUSEBILL_BASE_URL", "http://127.0.0.1:9/", "http://127.0.0.1:9"),
    ("FUSEBILL_SALESFORCE_UNLATCH_PATH", "/v1/x", "/v1/x"),
    ("WEB_BIND", "0.0.0.0:80", "0.0.0.0:80"),
    ("WEB_BIND", "[::]:8000", "[::]:8000"),
    ("MAX_BODY_BYTES", "1024", 1024),
    ("DEDUPE_HOURS", "0", 0),
    ("HUBSPOT_PORTAL_ID", "24681357", "24681357"),
    ("SALESFORCE_ORG_ID", "00D5g000007Kp2QEAS", "00D5g000007Kp2Q"),
    ("SALESFORCE_ORG_ID", "00D5g000007Kp2Q", "00D5g000007Kp2Q"),
    ("GEOTAB_ACCOUNT", "ACCT01", "ACCT01"),
    ("RETRY_SCHEDULE_SECONDS", "1, 2,3,4,5", (1, 2, 3, 4, 5)),
    ("HUBSPOT_ALLOW_UNTIMED_SIGNATURES", "true", True),
    ("HUBSPOT_LATCH_COMPANY", "off", "off"),
    ("LEASE_SECONDS", "70", 70.0),
    ("FUSEBILL_READ_TIMEOUT_SECONDS", "0.5", 0.5),
    ("FUSEBILL_CALLS_PER_MINUTE", "1", 1),
    ("FUSEBILL_CALLS_PER_DAY", "500", 500),
    ("LIVE_RESERVE", "0", 0.0),
    ("NOT_FOUND_RETRIES", "9", 9),
    ("LOG_LEVEL", "DEBUG", "DEBUG"),
    ("HUBSPOT_API_VERSION", "v3", "v3"),
    ("HUBSPOT_API_VERSION", "2026-09", "2026-09"),
    ("HUBSPOT_BASE_URL", "http://[::1]:9/", "http://[::1]:9"),
    ("SALESFORCE_API_VERSION", "60.0", "60.0"),
    ("SALESFORCE_ABSENT_MEANS_CLEARED", "true", True),
    ("SALESFORCE_API_VERSION", "101.0", "101.0"),
    ("GEOTAB_MYADMIN_URL", "http://127.0.0.1:9/v3/Api.ashx", "http://127.0.0.1:9/v3/Api.ashx"),
    ("GEOTAB_ID_ATTRIBUTE", "userCompany.id", "userCompany.id"),
    ("MATCH_BY", "id, link ,reference,email,", ("id", "link", "reference", "email")),
    ("MATCH_BY", "link", ("link",)),
    ("MATCH_STATUSES", "Active, Hold", ("Active", "Hold")),
    ("ON_CONFLICT", "replace", "replace"),
    ("RELEASE_GRACE_SECONDS", "0", 0.0),
    ("SWEEP_SECONDS", "0.5", 0.5),
    ("MAX_RELEASES_PER_HOUR", "0", 0),
    ("DRY_RUN", "true", True),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_good_values_are_taken(name, text, value, monkeypatch):
    found = getattr(given(monkeypatch, **{name: text}), name.lower())
    if isinstance(found, SecretStr):
        found, value = found.get_secret_value(), text
    assert found == value


BAD: list[tuple[str, str]] = [
    ("REDIS_URL", "localhost:6379"),
    ("REDIS_URL", "amqp://h"),
    ("REDIS_URL", "unix:///run/redis.sock"),
    ("REDIS_URL", "redis://h:port/0"),
    ("REDIS_URL", "redis://h:99999999/0"),
    ("REDIS_URL", "redis://[::1/0"),
    ("REDIS_URL", "redis://h/0?db=first"),
    ("REDIS_URL", "redis://h/0?no_such_option=1"),
    ("REDIS_URL", "rediss://h/0?ssl_cert_reqs=CERT_MAYBE"),
    ("PUBLIC_URL", "hooks.example.com"),
    ("PUBLIC_URL", "ftp://hooks.example.com"),
    ("PUBLIC_URL", "https://"),
    ("PUBLIC_URL", "https://h/?a=b"),
    ("PUBLIC_URL", "https://h/#a"),
    ("PUBLIC_URL", "https://h?"),
    ("PUBLIC_URL", "https://user:hush@h/"),
    ("PUBLIC_URL", "https://h/<source>"),
    ("PUBLIC_URL", "https://h/a%20b"),
    ("PUBLIC_URL", "https://h/a b"),
    ("PUBLIC_URL", " https://h"),
    ("PUBLIC_URL", "https://[::1"),
    ("FUSEBILL_BASE_URL", "secure.fusebill.com"),
    ("FUSEBILL_SALESFORCE_UNLATCH_PATH", "v1/Salesforce/Unlatch"),
    ("WEB_BIND", "8000"),
    ("WEB_BIND", ":8000"),
    ("WEB_BIND", "0.0.0.0:"),
    ("WEB_BIND", "0.0.0.0:http"),
    ("WEB_BIND", "0.0.0.0:65536"),
    ("WEB_BIND", "0.0.0.0:²"),
    ("MAX_BODY_BYTES", "1023"),
    ("MAX_BODY_BYTES", "8MiB"),
    ("MAX_BODY_BYTES", "1e6x"),
    ("DEDUPE_HOURS", "-1"),
    ("DEDUPE_HOURS", "2161"),
    ("HUBSPOT_PORTAL_ID", "ours"),
    ("HUBSPOT_PORTAL_ID", "-1"),
    ("HUBSPOT_PORTAL_ID", "\uff11\uff12"),
    ("SALESFORCE_ORG_ID", "0015g00001LwZ3kAAF"),
    ("SALESFORCE_ORG_ID", "00D5g000007Kp2"),
    ("SALESFORCE_ORG_ID", "00D5g000007Kp2QAAA"),
    ("GEOTAB_ACCOUNT", "a:b"),
    ("RETRY_SCHEDULE_SECONDS", ","),
    ("RETRY_SCHEDULE_SECONDS", "5,0"),
    ("RETRY_SCHEDULE_SECONDS", "5,-1"),
    ("RETRY_SCHEDULE_SECONDS", "5,1.5"),
    ("RETRY_SCHEDULE_SECONDS", "5;30"),
    ("HUBSPOT_ALLOW_UNTIMED_SIGNATURES", "sometimes"),
    ("ALLOW_UNSAFE_REDIS", "2"),
    ("HUBSPOT_LATCH_COMPANY", "always"),
    ("LEASE_SECONDS", "0"),
    ("LEASE_SECONDS", "nan"),
    ("LEASE_SECONDS", "4000"),
    ("FUSEBILL_READ_TIMEOUT_SECONDS", "0"),
    ("FUSEBILL_READ_TIMEOUT_SECONDS", "601"),
    ("FUSEBILL_CALLS_PER_MINUTE", "0"),
    ("FUSEBILL_CALLS_PER_MINUTE", "100001"),
    ("FUSEBILL_CALLS_PER_MINUTE", "15.5"),
    ("FUSEBILL_CALLS_PER_DAY", "0"),
    ("LIVE_RESERVE", "1"),
    ("LIVE_RESERVE", "-0.1"),
    ("LIVE_RESERVE", "25%"),
    ("NOT_FOUND_RETRIES", "-1"),
    ("AUDIT_DAYS", "0"),
    ("LOG_LEVEL", "debug me"),
    ("HUBSPOT_API_VERSION", "3"),
    ("HUBSPOT_API_VERSION", "v4"),
    ("HUBSPOT_API_VERSION", "2026-3"),
    ("HUBSPOT_API_VERSION", "2026-03/../v3"),
    ("HUBSPOT_BASE_URL", "api.hubapi.com"),
    ("HUBSPOT_BASE_URL", "http://api.hubapi.com"),
    ("HUBSPOT_BASE_URL", "https://token:hush@api.hubapi.com"),
    ("SALESFORCE_ABSENT_MEANS_CLEARED", "sometimes"),
    ("SALESFORCE_INSTANCE_URL", "northgate.my.salesforce.com"),
    ("SALESFORCE_INSTANCE_URL", "http://northgate.my.salesforce.com"),
    ("SALESFORCE_INSTANCE_URL", "http://127.0.0.1.example.com"),
    ("SALESFORCE_API_VERSION", "v60.0"),
    ("SALESFORCE_API_VERSION", "60"),
    ("SALESFORCE_API_VERSION", "60.1"),
    ("GEOTAB_MYADMIN_URL", "http://myadminapi.geotab.com/v2/MyAdminApi.ashx"),
    ("GEOTAB_MYADMIN_URL", "https://myadminapi.geotab.com/v2/MyAdminApi.ashx?a=b"),
    ("GEOTAB_ID_ATTRIBUTE", "resellercustomerid"),
    ("MATCH_BY", ","),
    ("MATCH_BY", "id,name"),
    ("MATCH_BY", "ID"),
    ("MATCH_BY", "id;link"),
    ("MATCH_STATUSES", ","),
    ("ON_CONFLICT", "ask"),
    ("RELEASE_GRACE_SECONDS", "-1"),
    ("RELEASE_GRACE_SECONDS", "3601"),
    ("RELEASE_GRACE_SECONDS", "half a minute"),
    ("SWEEP_SECONDS", "0"),
    ("SWEEP_SECONDS", "86401"),
    ("MAX_RELEASES_PER_HOUR", "-1"),
    ("MAX_RELEASES_PER_HOUR", "2 %"),
    ("MAX_RELEASES_PER_HOUR", "1.5"),
    ("DRY_RUN", "maybe"),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_bad_values_are_refused_by_name(name, text, monkeypatch):
    for fault in faults(monkeypatch, **{name: text}):
        assert fault.startswith(f"{name}: ") or (name == "LEASE_SECONDS" and name in fault)
        assert len(fault) > len(name) + 10


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"LEASE_SECONDS": "69"}, "LEASE_SECONDS"),
        ({"FUSEBILL_READ_TIMEOUT_SECONDS": "81"}, "FUSEBILL_READ_TIMEOUT_SECONDS"),
        ({"RETRY_SCHEDULE_SECONDS": "1,2"}, "NOT_FOUND_RETRIES"),
        (HUBSPOT | {"HUBSPOT_PORTAL_ID": ""}, "HUBSPOT_PORTAL_ID"),
        (HUBSPOT | {"PUBLIC_URL": ""}, "PUBLIC_URL"),
        (SALESFORCE | {"SALESFORCE_ORG_ID": ""}, "SALESFORCE_ORG_ID"),
        (
            {"SALESFORCE_WEBHOOK_SECRET": "topsecret"},
            "SALESFORCE_ORG_ID",
        ),
        (GEOTAB | {"GEOTAB_ACCOUNT": ""}, "GEOTAB_ACCOUNT"),
        ({"GEOTAB_WEBHOOK_TOKEN": "topsecret"}, "GEOTAB_ACCOUNT"),
    ],
)
def test_b2_9_contradictions_name_what_to_set(env, named, monkeypatch):
    (fault,) = faults(monkeypatch, **env)
    assert named in fault


# ---- read access (B3.5)


@pytest.mark.parametrize(
    ("env", "source"),
    [
        (READ_HUBSPOT, Source.HUBSPOT),
        (READ_SALESFORCE, Source.SALESFORCE),
        (READ_GEOTAB, Source.GEOTAB),
    ],
)
def test_b3_5_a_crm_is_read_once_all_of_its_credentials_are_there(env, source, monkeypatch):
    current = given(monkeypatch, **env)
    assert [found for found in Source if current.reads(found)] == [source]
    assert not any(current.serves(found) for found in Source)


@pytest.mark.parametrize(
    "missing", ["SALESFORCE_CLIENT_ID", "SALESFORCE_CLIENT_SECRET", "SALESFORCE_INSTANCE_URL"]
)
def test_a_part_of_the_credentials_of_salesforce_is_a_fault_that_names_the_rest(
    missing, monkeypatch
):
    (fault,) = faults(monkeypatch, **{k: v for k, v in READ_SALESFORCE.items() if k != missing})
    assert f"needs {missing} for read access" in fault


@pytest.mark.parametrize("missing", ["GEOTAB_MYADMIN_USERNAME", "GEOTAB_MYADMIN_PASSWORD"])
def test_a_part_of_the_credentials_of_myadmin_is_a_fault_that_names_the_rest(missing, monkeypatch):
    (fault,) = faults(monkeypatch, **{k: v for k, v in READ_GEOTAB.items() if k != missing})
    assert f"needs {missing} for read access" in fault


def test_one_of_three_names_both_of_the_others(monkeypatch):
    (fault,) = faults(
        monkeypatch, SALESFORCE_CLIENT_ID="topsecret", SALESFORCE_ORG_ID="00D5g000007Kp2Q"
    )
    assert "needs SALESFORCE_CLIENT_SECRET and SALESFORCE_INSTANCE_URL" in fault
    assert "topsecret" not in fault


@pytest.mark.parametrize(
    ("env", "tenant"),
    [
        (READ_HUBSPOT, "HUBSPOT_PORTAL_ID"),
        (READ_SALESFORCE, "SALESFORCE_ORG_ID"),
        (READ_GEOTAB, "GEOTAB_ACCOUNT"),
    ],
)
def test_b2_9_read_access_needs_the_tenant_it_is_for(env, tenant, monkeypatch):
    (fault,) = faults(monkeypatch, **env | {tenant: ""})
    assert f"needs {tenant}" in fault


@pytest.mark.parametrize(
    ("given_", "missing", "read"),
    [
        ("SALESFORCE_WEBHOOK_TOKEN", "SALESFORCE_ORG_ID", READ_SALESFORCE),
        ("GEOTAB_WEBHOOK_TOKEN", "GEOTAB_ACCOUNT", READ_GEOTAB),
    ],
)
def test_b2_9_receiving_and_reading_each_say_that_the_tenant_is_missing(
    given_, missing, read, monkeypatch
):
    found = faults(monkeypatch, **read | {given_: "topsecret", missing: ""})
    assert len(found) == 2
    assert all(missing in fault for fault in found)


@pytest.mark.parametrize(
    "name",
    ["FUSEBILL_BASE_URL", "HUBSPOT_BASE_URL", "SALESFORCE_INSTANCE_URL", "GEOTAB_MYADMIN_URL"],
)
def test_b10_4_no_key_crosses_a_network_in_the_clear(name, monkeypatch):
    rest = {key: value for key, value in READ_SALESFORCE.items() if key != name}
    (fault,) = faults(monkeypatch, **rest | {name: "http://10.0.0.7:8900"})
    assert fault.startswith(f"{name}: write https://")
    for local in ("http://127.0.0.1:8900", "http://localhost:8900", "http://[::1]:8900"):
        assert getattr(given(monkeypatch, **rest | {name: local}), name.lower()) == local


# ---- sources


@pytest.mark.parametrize(
    ("env", "source", "tenant"),
    [
        (HUBSPOT, Source.HUBSPOT, "24681357"),
        (SALESFORCE, Source.SALESFORCE, "00D5g000007Kp2Q"),
        (
            {"SALESFORCE_WEBHOOK_SECRET": "x", "SALESFORCE_ORG_ID": "00D5g000007Kp2Q"},
            Source.SALESFORCE,
            "00D5g000007Kp2Q",
        ),
        (GEOTAB, Source.GEOTAB, "ACCT01"),
        ({"GEOTAB_WEBHOOK_TOKEN": "x", "GEOTAB_ACCOUNT": "ACCT01"}, Source.GEOTAB, "ACCT01"),
    ],
)
def test_b2_4_a_source_is_served_once_it_has_a_secret(env, source, tenant, monkeypatch):
    current = given(monkeypatch, **env)
    assert [found for found in Source if current.serves(found)] == [source]
    assert current.tenant(source) == tenant


def test_b2_4_several_secrets_are_split_at_commas(monkeypatch):
    current = given(monkeypatch, **HUBSPOT | {"HUBSPOT_CLIENT_SECRET": " old ,,new=one, "})
    values = [secret.get_secret_value() for secret in current.hubspot_client_secret]
    assert values == ["old", "new=one"]


def test_b2_4_commas_alone_are_no_secret(monkeypatch):
    assert not given(monkeypatch, HUBSPOT_CLIENT_SECRET=" , ").serves(Source.HUBSPOT)


# ---- secrets stay secret

HUSH = "hush-hush-4711"
SECRET_FIELDS = (
    "HUBSPOT_CLIENT_SECRET",
    "SALESFORCE_WEBHOOK_TOKEN",
    "SALESFORCE_WEBHOOK_SECRET",
    "GEOTAB_WEBHOOK_TOKEN",
    "GEOTAB_WEBHOOK_SECRET",
    "FUSEBILL_API_KEY",
    "SENTRY_DSN",
    "HUBSPOT_ACCESS_TOKEN",
    "SALESFORCE_CLIENT_ID",
    "SALESFORCE_CLIENT_SECRET",
    "GEOTAB_MYADMIN_USERNAME",
    "GEOTAB_MYADMIN_PASSWORD",
)
ALL_SECRET = {
    **dict.fromkeys(SECRET_FIELDS, HUSH),
    "SENTRY_DSN": f"https://{HUSH}@sentry.example/1",
    "REDIS_URL": f"redis://:{HUSH}@127.0.0.1:1/0",
    "HUBSPOT_PORTAL_ID": "1",
    "PUBLIC_URL": "https://h",
    "SALESFORCE_ORG_ID": "00D5g000007Kp2Q",
    "SALESFORCE_INSTANCE_URL": "https://h",
    "GEOTAB_ACCOUNT": "ACCT01",
}


def test_secrets_are_in_no_text_of_the_settings(monkeypatch):
    current = given(monkeypatch, **ALL_SECRET)
    assert current.fusebill_api_key is not None
    assert current.fusebill_api_key.get_secret_value() == HUSH
    for text in (repr(current), str(current), str(current.model_dump()), current.model_dump_json()):
        assert HUSH not in text
        assert "ACCT01" in text


@pytest.mark.parametrize("name", [*SECRET_FIELDS, "REDIS_URL"])
def test_no_field_that_holds_a_secret_is_plain_text(name):
    assert "SecretStr" in str(Settings.model_fields[name.lower()].annotation)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{HUSH}@h:port/0",
        f"redis://:{HUSH}@h\u2100/0",
        f"redis://:a/{HUSH}@h:1/0",
        f"redis://:a#{HUSH}@h:1/0?db=x",
        f"redis://h/0?password={HUSH}&db=x",
        f"{HUSH}://h",
    ],
)
def test_secrets_are_in_no_error(url, monkeypatch):
    found = faults(monkeypatch, **ALL_SECRET | {"REDIS_URL": url, "MAX_BODY_BYTES": HUSH})
    assert len(found) == 2
    assert HUSH not in "\n".join(found)


def test_secrets_are_in_no_error_of_the_library_underneath(monkeypatch):
    for name, value in (ALL_SECRET | {"REDIS_URL": f"{HUSH}://h"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert HUSH not in str(caught.value)
    assert HUSH not in repr(caught.value)


def test_a_settings_error_carries_no_cause_that_a_traceback_would_show(monkeypatch):
    with pytest.raises(SettingsError) as caught:
        given(monkeypatch, **ALL_SECRET | {"MAX_BODY_BYTES": "x"})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SENTRY_DSN", "foo"),
        ("FUSEBILL_BASE_URL", "http://secure.fusebill.com"),
        ("PUBLIC_URL", "https://h/webhooks/hubspot"),
    ],
)
def test_addresses_that_could_never_work_are_refused(name, value, monkeypatch):
    (found,) = faults(monkeypatch, **{name: value})
    assert found.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("AUDIT_DAYS", "whole number"),
        ("RETRY_SCHEDULE_SECONDS", "whole number"),
        ("LEASE_SECONDS", "a number"),
        ("ALLOW_UNSAFE_REDIS", "true or false"),
    ],
)
def test_a_fault_says_what_to_write(name, cure, monkeypatch):
    (found,) = faults(monkeypatch, **{name: "abc"})
    assert found.startswith(f"{name}: write")
    assert cure in found


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("LIVE_RESERVE", "1", "below 1"),
        ("LIVE_RESERVE", "-0.1", "from 0 on"),
        ("FUSEBILL_CALLS_PER_DAY", "0", "from 1 on"),
        ("ON_CONFLICT", "both", "'hold' or 'replace'"),
    ],
)
def test_a_value_out_of_bounds_is_told_what_they_are(name, value, cure, monkeypatch):
    (found,) = faults(monkeypatch, **{name: value})
    assert found.startswith(f"{name}: write")
    assert found.endswith(cure)


def test_a_simulated_fusebill_on_this_machine_needs_no_tls(monkeypatch):
    assert given(monkeypatch, FUSEBILL_BASE_URL="http://127.0.0.1:8900")


def test_settings_do_not_change(monkeypatch):
    current = load()
    with pytest.raises(ValidationError):
        current.web_bind = "0.0.0.0:80"  # type: ignore[misc]
