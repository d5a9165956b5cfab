"""Every setting: its name, type, default, and why (BEHAVIOUR B9).

A setting comes from an environment variable, from a `.env` file in the working directory,
or from the file that `NAME_FILE` names (Docker secrets); the first of these that holds it
wins. `load()` refuses a faulty set-up with every fault listed at once.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from redis import ConnectionPool, RedisError
from sentry_sdk.utils import BadDsn, Dsn

from sync_worker.domain import Source, salesforce_id_18

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 5
"""Time to open a connection to a remote system (B7.5)."""

LEASE_MARGIN_SECONDS = 5
"""What a lease must outlive a call's own timeouts by (B5.3)."""


_HOST_AND_PORT = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._~/@:+,=-]*")
"""What addresses consist of: no credentials, no escapes that could be spelled in two ways."""


TLS_OPTIONS = frozenset({"ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
"""Options of REDIS_URL that both of its readers know: redis-py, and kombu for Celery."""


_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")


CREDENTIALS = (
    "fusebill_api_key",
    "hubspot_access_token",
    "salesforce_client_id",
    "salesforce_client_secret",
    "geotab_myadmin_username",
    "geotab_myadmin_password",
)
"""The settings that are read afresh when a remote system refuses them (B6.4)."""


class SettingsError(Exception):
    """The settings are faulty; the message lists every fault, one a line, with its cure."""


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands for the value of a setting whose file cannot be read."""

    path: str
    why: str


class FileSource(PydanticBaseSettingsSource):
    """Reads `NAME_FILE`: the value of NAME is what that file holds, less trailing newlines.

    An empty file is as good as none, like an empty variable.
    """

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{field_name.upper()}_FILE")
        if not path:
            return None, field_name, False
        try:
            text = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            return _Unreadable(path, error.strerror or type(error).__name__), field_name, False
        except UnicodeDecodeError:
            return _Unreadable(path, "it is not UTF-8"), field_name, False
        return text or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, name)
            if value is not None:
                found[key] = value
        return found


Secrets = Annotated[tuple[SecretStr, ...], NoDecode]
"""One secret, or several separated by commas while one is being rotated (B2.4)."""


class Settings(BaseSettings):
    """The settings of one process, checked."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        ignored_types=(cached_property,),
    )

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """Broker and store. It must keep what it is given: AOF on, `noeviction` (B10.1)."""
    allow_unsafe_redis: bool = False
    """Start although Redis may lose or evict what it was given."""

    fusebill_base_url: str = "https://secure.fusebill.com"
    fusebill_api_key: SecretStr | None = None
    """As Fusebill shows it: it is already base64 and is sent as given (B7.5)."""
    fusebill_salesforce_unlatch_path: str | None = None
    """No such endpoint is documented; set it if your vendor named you one (B5.6)."""
    fusebill_read_timeout_seconds: float = Field(default=60, gt=0, le=600)
    """A latch makes Fusebill call HubSpot or Salesforce, so it may take this long (B7.5)."""
    fusebill_calls_per_minute: int = Field(default=900, ge=1, le=100_000)
    """Of the 1,000 of a live account, which all that use it share; less where the headers tell of
    less (B7.1)."""
    fusebill_calls_per_day: int = Field(default=150_000, ge=1, le=100_000_000)
    """Of the 180,000 of a live account (B7.1)."""
    live_reserve: float = Field(default=0.25, ge=0, lt=1)
    """The share of a minute's and a day's calls that background work leaves (B7.3)."""

    public_url: str | None = None
    """The address HubSpot was told to call, before `/webhooks/hubspot`: it is signed (B2.5)."""
    web_bind: str = "127.0.0.1:8000"
    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    dedupe_hours: int = Field(default=72, ge=0, le=24 * 90)
    """How long a change is remembered so that its repeats are dropped; 0 switches that off."""

    hubspot_client_secret: Secrets = ()
    hubspot_portal_id: str | None = None
    hubspot_allow_untimed_signatures: bool = False
    """Accept v1 and v2, which carry no time and can be replayed (B2.5)."""
    hubspot_fusebill_id_property: str = "fusebill_id"
    hubspot_reference_property: str | None = None
    hubspot_latch_company: Literal["primary", "property", "off"] = "primary"
    """Whose word fills the company slot (B5.7)."""
    hubspot_access_token: SecretStr | None = None
    """Read access: with it the record is read before deciding (B3.5)."""
    hubspot_base_url: str = "https://api.hubapi.com"
    hubspot_api_version: str = "2026-03"
    """`v3`, unsupported from September 2027, or the year and month of a date-based version."""

    salesforce_webhook_token: Secrets = ()
    salesforce_webhook_secret: Secrets = ()
    salesforce_org_id: str | None = None
    salesforce_fusebill_id_field: str = "Fusebill_Id__c"
    salesforce_reference_field: str | None = None
    salesforce_absent_means_cleared: bool = False
    """Take a link field that an Outbound Message leaves out for a cleared one (B3.2)."""
    salesforce_client_id: SecretStr | None = None
    """Read access, by a connected app's client credentials."""
    salesforce_client_secret: SecretStr | None = None
    salesforce_instance_url: str | None = None
    """The organisation's own address, such as https://northgate.my.salesforce.com."""
    salesforce_api_version: str = "60.0"

    geotab_webhook_token: Secrets = ()
    geotab_webhook_secret: Secrets = ()
    geotab_account: str | None = None
    geotab_myadmin_username: SecretStr | None = None
    """Read access, by an ERP user of MyAdmin."""
    geotab_myadmin_password: SecretStr | None = None
    geotab_myadmin_url: str = "https://myadminapi.geotab.com/v2/MyAdminApi.ashx"
    """The whole endpoint; its version is a part of it."""
    geotab_id_attribute: Literal["resellerCustomerId", "userCompany.id"] = "resellerCustomerId"
    """What of a MyAdmin contact is the id that Fusebill holds."""

    match_by: Annotated[tuple[Literal["id", "link", "reference", "email"], ...], NoDecode] = (
        "id",
        "link",
        "reference",
    )
    """How a record may find its customer (B4.1); `email` is opt-in and fills empty slots only."""
    match_statuses: Annotated[tuple[str, ...], NoDecode] = ("Draft", "Active", "Hold", "Suspended")
    """The customers that a reference or an email may find."""
    on_conflict: Literal["hold", "replace"] = "hold"
    """Whether a claim with evidence may displace an occupant (B5.5)."""
    release_grace_seconds: float = Field(default=30, ge=0, le=3600)
    """How long a release waits for the merge or association that may explain it (B3.12)."""
    sweep_seconds: float = Field(default=60, gt=0, le=86400)
    """At most one sweep of all customers each so many seconds (B4.5)."""
    max_releases_per_hour: int | None = Field(default=None, ge=0)
    """The brake (B5.10); unset: the larger of 50 and 2 % of the known links."""
    dry_run: bool = False
    """Do everything but the writes (B5.9)."""

    lease_seconds: float = Field(default=90, gt=0, le=3600)
    """How long a mailbox or customer stays taken when its worker vanishes (B5.3)."""
    late_write_seconds: float = Field(default=90, ge=1, le=3600)
    """How long a write whose answer was lost may still land: nothing is settled on that customer
    before it was read once more after this (B5.3)."""
    retry_schedule_seconds: Annotated[tuple[int, ...], NoDecode] = (
        5,
        30,
        120,
        600,
        1800,
        3600,
        7200,
        14400,
        28800,
    )
    """Waits between failed tries; after the last one a change becomes a dead letter (B6.1)."""
    not_found_retries: int = Field(default=5, ge=0)
    """Steps of that schedule before an unknown customer counts as not there (B4.4)."""
    breaker_failures: int = Field(default=10, ge=3)
    """Calls in a row that fail as in an outage, and open the circuit for all workers (B6.3)."""
    max_crashes: int = Field(default=3, ge=1)
    """Workers that may die of a mailbox before it becomes a dead letter (B6.6)."""
    audit_days: int = Field(default=30, ge=1)
    """How long the line that says how a change was settled is kept (B10.2)."""

    sentry_dsn: SecretStr | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, FileSource(settings_cls), dotenv_settings

    @field_validator("*", mode="before")
    @classmethod
    def _readable_file(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, _Unreadable):
            raise ValueError(  # noqa: TRY004 - what pydantic takes for a fault
                f"{str(info.field_name).upper()}_FILE names {value.path!r}, which cannot be read "
                f"({value.why}): correct the path or its permissions"
            )
        return value

    @field_validator(
        "hubspot_client_secret",
        "salesforce_webhook_token",
        "salesforce_webhook_secret",
        "geotab_webhook_token",
        "geotab_webhook_secret",
        mode="before",
    )
    @classmethod
    def _split_secrets(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("retry_schedule_seconds", "match_by", "match_statuses", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("retry_schedule_seconds")
    @classmethod
    def _positive_schedule(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or any(step <= 0 for step in value):
            raise ValueError("give one or more positive whole seconds, such as 5,30,120")
        return value

    @field_validator("redis_url")
    @classmethod
    def _known_store(cls, value: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(value.get_secret_value())
            options = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
            ConnectionPool.from_url(value.get_secret_value()).make_connection()  # connects nowhere
            known = parts.scheme in ("redis", "rediss") and options <= TLS_OPTIONS
        except (ValueError, TypeError, RedisError):  # whose words may quote the password
            known = False
        if not known:
            raise ValueError(
                "write redis://HOST:PORT/DB or rediss://…, with no options behind `?` but "
                + ", ".join(sorted(TLS_OPTIONS))
            )
        return value

    @field_validator("sentry_dsn")
    @classmethod
    def _sentry_address(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            if value is not None:
                Dsn(value.get_secret_value())
        except BadDsn:  # its own words quote it
            raise ValueError("copy it from Sentry: https://KEY@HOST/PROJECT") from None
        return value

    @field_validator(
        "fusebill_base_url", "hubspot_base_url", "salesforce_instance_url", "geotab_myadmin_url"
    )
    @classmethod
    def _no_key_in_the_clear(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "")
        if parts.scheme == "http" and not _LOOPBACK.fullmatch(parts.hostname or ""):
            raise ValueError("write https://HOST: the key must not cross a network in the clear")
        return value

    @field_validator("hubspot_api_version")
    @classmethod
    def _hubspot_version(cls, value: str) -> str:
        if not re.fullmatch(r"v3|20[0-9]{2}-[0-9]{2}", value):
            raise ValueError("write v3, or a date-based version such as 2026-03")
        return value

    @field_validator("salesforce_api_version")
    @classmethod
    def _salesforce_version(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9]{2,3}\.0", value):
            raise ValueError("write the version's number, such as 60.0")
        return value

    @field_validator("match_by", "match_statuses")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one")
        return value

    @field_validator("public_url")
    @classmethod
    def _without_the_route(cls, value: str | None) -> str | None:
        if value is not None and "/webhooks" in urlsplit(value).path:
            raise ValueError("leave /webhooks/hubspot off: write what stands before it")
        return value

    @field_validator(
        "fusebill_base_url",
        "public_url",
        "hubspot_base_url",
        "salesforce_instance_url",
        "geotab_myadmin_url",
    )
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if (
            parts.scheme not in ("http", "https")
            or not _HOST_AND_PORT.fullmatch(parts.netloc)
            or not _PLAIN_PATH.fullmatch(parts.path)
            or value != f"{parts.scheme}://{parts.netloc}{parts.path}"
        ):
            raise ValueError("write https://HOST, with a plain path if there is one")
        return value.rstrip("/")

    @field_validator("fusebill_salesforce_unlatch_path")
    @classmethod
    def _rooted_path(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("/"):
            raise ValueError("write the path from the root, such as /v1/…")
        return value

    @field_validator("web_bind")
    @classmethod
    def _address_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("write ADDRESS:PORT, such as 127.0.0.1:8000")
        return value

    @field_validator("hubspot_portal_id")
    @classmethod
    def _portal_number(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9]+", value):
            raise ValueError("write the number of the HubSpot account, such as 24681357")
        return value

    @field_validator("salesforce_org_id")
    @classmethod
    def _organisation(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith("00D"):
            raise ValueError("write the organisation's id, which starts with 00D")
        return salesforce_id_18(value)[:15]

    @field_validator("geotab_account")
    @classmethod
    def _account(cls, value: str | None) -> str | None:
        if value is not None and ":" in value:
            raise ValueError("an ERP account holds no colon")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        faults = []
        if self.hubspot_client_secret and not self.hubspot_portal_id:
            faults.append("HUBSPOT_CLIENT_SECRET needs HUBSPOT_PORTAL_ID: one portal may write")
        if self.hubspot_client_secret and not self.public_url:
            faults.append("HUBSPOT_CLIENT_SECRET needs PUBLIC_URL: HubSpot signs the address")
        if self.serves(Source.SALESFORCE) and not self.salesforce_org_id:
            faults.append("SALESFORCE_WEBHOOK_TOKEN or _SECRET needs SALESFORCE_ORG_ID")
        if self.serves(Source.GEOTAB) and not self.geotab_account:
            faults.append("GEOTAB_WEBHOOK_TOKEN or _SECRET needs GEOTAB_ACCOUNT")
        faults += self._read_access_faults()
        shortest = (
            CONNECT_TIMEOUT_SECONDS + self.fusebill_read_timeout_seconds + LEASE_MARGIN_SECONDS
        )
        if self.lease_seconds < shortest:
            faults.append(
                f"LEASE_SECONDS is {self.lease_seconds:g} but a call may take "
                f"{shortest:g} s: raise it, or lower FUSEBILL_READ_TIMEOUT_SECONDS"
            )
        if self.not_found_retries > len(self.retry_schedule_seconds):
            faults.append(
                f"NOT_FOUND_RETRIES is {self.not_found_retries} but RETRY_SCHEDULE_SECONDS has "
                f"{len(self.retry_schedule_seconds)} steps: lower one or lengthen the other"
            )
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _read_access_faults(self) -> list[str]:
        faults = []
        salesforce = {
            "SALESFORCE_CLIENT_ID": self.salesforce_client_id,
            "SALESFORCE_CLIENT_SECRET": self.salesforce_client_secret,
            "SALESFORCE_INSTANCE_URL": self.salesforce_instance_url,
        }
        geotab = {
            "GEOTAB_MYADMIN_USERNAME": self.geotab_myadmin_username,
            "GEOTAB_MYADMIN_PASSWORD": self.geotab_myadmin_password,
        }
        for part in (salesforce, geotab):
            missing = [name for name, value in part.items() if value is None]
            if missing and len(missing) < len(part):
                given = next(name for name, value in part.items() if value is not None)
                faults.append(f"{given} needs {' and '.join(missing)} for read access")
        tenants = (
            (self.hubspot_access_token, self.hubspot_portal_id, "HUBSPOT_PORTAL_ID"),
            (self.salesforce_client_id, self.salesforce_org_id, "SALESFORCE_ORG_ID"),
            (self.geotab_myadmin_username, self.geotab_account, "GEOTAB_ACCOUNT"),
        )
        faults += [
            f"read access needs {name}: it must be the tenant whose changes are taken"
            for credential, tenant, name in tenants
            if credential is not None and not tenant
        ]
        return faults

    def with_fresh_credentials(self) -> Settings:
        """The same, with the credentials as they stand in the environment, `.env` and files now
        (B6.4); as they are here if what stands there is faulty. Nothing else may change under a
        process that runs.
        """
        try:
            fresh = load()
        except SettingsError as error:
            log.warning("goes on with the credentials it has, as settings are faulty: %s", error)
            return self
        return self.model_copy(update={name: getattr(fresh, name) for name in CREDENTIALS})

    def reads(self, source: Source) -> bool:
        """Whether there is read access to a source (B3.5)."""
        return {
            Source.HUBSPOT: self.hubspot_access_token is not None,
            Source.SALESFORCE: self.salesforce_client_id is not None,
            Source.GEOTAB: self.geotab_myadmin_username is not None,
        }[source]

    def serves(self, source: Source) -> bool:
        """Whether a source has a secret; one without answers 404 (B2.4)."""
        return {
            Source.HUBSPOT: bool(self.hubspot_client_secret),
            Source.SALESFORCE: bool(self.salesforce_webhook_token)
            or bool(self.salesforce_webhook_secret),
            Source.GEOTAB: bool(self.geotab_webhook_token) or bool(self.geotab_webhook_secret),
        }[source]

    def tenant(self, source: Source) -> str | None:
        """The one tenant of a source that may write to slots (B2.9)."""
        return {
            Source.HUBSPOT: self.hubspot_portal_id,
            Source.SALESFORCE: self.salesforce_org_id,
            Source.GEOTAB: self.geotab_account,
        }[source]


def load(**overrides: Any) -> Settings:
    """Read and check the settings; `overrides` are field names in lower case.

    Raises SettingsError listing every fault with the name of its setting.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        fields, faults = _faults(error)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f".env cannot be read ({error}): mend or remove it") from None
    if fields:
        # Contradictions are looked for only among sound values: take the faulty ones out.
        sound = {name: Settings.model_fields[name].default for name in fields}
        try:
            Settings(**(overrides | sound))
        except ValidationError as error:
            named = {name.upper() for name in fields}
            faults += [
                fault for fault in _faults(error)[1] if named.isdisjoint(re.findall(r"\w+", fault))
            ]
    raise SettingsError("\n".join(dict.fromkeys(faults)))


_CURES = {
    "int_parsing": "write a whole number, such as 30",
    "float_parsing": "write a number, such as 30 or 2.5",
    "bool_parsing": "write true or false",
    "less_than": "write a number below {lt:g}",
    "less_than_equal": "write a number up to {le:g}",
    "greater_than": "write a number above {gt:g}",
    "greater_than_equal": "write a number from {ge:g} on",
    "literal_error": "write {expected}",
}
"""What the library says of these tells what it tried, not what to do."""


def _faults(error: ValidationError) -> tuple[set[str], list[str]]:
    """The fields that are faulty, and all that is wrong, one sentence each."""
    fields: set[str] = set()
    sentences: list[str] = []
    for fault in error.errors(include_url=False, include_input=False):
        cure = _CURES.get(fault["type"], "").format(**fault.get("ctx", {}))
        text = cure or fault["msg"].removeprefix("Value error, ")
        if fault["loc"]:
            name = str(fault["loc"][0])
            fields.add(name)
            sentences.append(f"{name.upper()}: {text}")
        else:
            sentences.extend(text.split("\n"))
    return fields, sentences
