"""Puts the parts of a process together from its settings."""

from __future__ import annotations

import contextlib
import logging

from pydantic import SecretStr

from sync_worker import settings, store
from sync_worker.batch import Batches
from sync_worker.calls import Account
from sync_worker.converge import Converger
from sync_worker.crm import Reader
from sync_worker.crm.hubspot import HubSpotReader
from sync_worker.crm.myadmin import MyAdminReader
from sync_worker.domain import Source
from sync_worker.durability import RestartWatch
from sync_worker.fusebill.budget import Budget
from sync_worker.fusebill.client import FusebillClient
from sync_worker.gates import Gates
from sync_worker.inbox import Inbox
from sync_worker.links import LinkIndex
from sync_worker.settings import Settings, SettingsError
from sync_worker.store import StoreError
from sync_worker.sweep import Sweeper
from sync_worker.together import Together

log = logging.getLogger(__name__)


def make_fusebill(current: Settings) -> FusebillClient:
    """A client of the Fusebill account these settings name.

    Raises SettingsError without a key that can be sent.
    """
    if current.fusebill_api_key is None:
        raise SettingsError(
            "FUSEBILL_API_KEY is not set: copy it from Fusebill, Settings, Integrations, API Key"
        )
    try:
        return FusebillClient(
            current.fusebill_base_url,
            current.fusebill_api_key.get_secret_value(),
            read_timeout=current.fusebill_read_timeout_seconds,
            salesforce_unlatch_path=current.fusebill_salesforce_unlatch_path,
        )
    except ValueError as error:
        raise SettingsError(f"FUSEBILL_API_KEY: {error}") from None


def make_readers(current: Settings, *, only: Source | None = None) -> dict[Source, Reader]:
    """The CRMs that these settings give read access to (B3.5), or that one of them.

    Raises SettingsError for credentials that cannot be sent.
    """
    makers = {
        Source.HUBSPOT: _read_hubspot,
        Source.SALESFORCE: _read_salesforce,
        Source.GEOTAB: _read_myadmin,
    }
    try:
        return {
            source: make(current)
            for source, make in makers.items()
            if current.reads(source) and only in (None, source)
        }
    except ValueError as error:
        raise SettingsError(f"read access: {error}") from None


def _read_hubspot(current: Settings) -> Reader:
    return HubSpotReader(
        current.hubspot_base_url,
        _secret(current.hubspot_access_token),
        portal_id=current.hubspot_portal_id or "",
        link_property=current.hubspot_fusebill_id_property,
        reference_property=current.hubspot_reference_property,
        primary_company=current.hubspot_latch_company == "primary",
        api_version=current.hubspot_api_version,
    )


def _read_salesforce(current: Settings) -> Reader:
    # Imported where it is needed: its library takes a third of a second to load.
    from sync_worker.crm.salesforce import SalesforceReader  # noqa: PLC0415

    return SalesforceReader(
        current.salesforce_instance_url or "",
        _secret(current.salesforce_client_id),
        _secret(current.salesforce_client_secret),
        org_id=current.salesforce_org_id or "",
        link_field=current.salesforce_fusebill_id_field,
        reference_field=current.salesforce_reference_field,
        api_version=current.salesforce_api_version,
    )


def _read_myadmin(current: Settings) -> Reader:
    return MyAdminReader(
        current.geotab_myadmin_url,
        _secret(current.geotab_myadmin_username),
        _secret(current.geotab_myadmin_password),
        account=current.geotab_account or "",
        id_attribute=current.geotab_id_attribute,
    )


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""


class WorkerRuntime:
    """What a worker process uses for all its tasks: one pooled connection to each side.

    Raises SettingsError for credentials that cannot be sent.
    """

    def __init__(self, current: Settings) -> None:
        self.redis = store.connect(current.redis_url.get_secret_value())
        self.gates = Gates(self.redis, breaker_failures=current.breaker_failures)
        with contextlib.suppress(StoreError):
            self.gates.note_renewed()
        self.settings = current = current.with_fresh_credentials()
        self.inbox = Inbox.of(self.redis, current)
        self.links = LinkIndex(self.redis, base_url=current.fusebill_base_url)
        self.fusebill = make_fusebill(current)
        self.readers = make_readers(current)
        self.budget = Budget.of(self.redis, current)
        account = Account.of(self.redis, self.fusebill, self.links, self.gates, self.budget)
        self.converger = Converger(self.inbox, account, current, self.readers)
        self.sweeper = Sweeper(self.redis, account, current.sweep_seconds)
        together = Together(
            self.redis, self.inbox, account, self.sweeper, current.fusebill_calls_per_minute
        )
        self.batches = Batches(self.converger, together)
        self.restarts = RestartWatch(self.redis, tuple(filter(current.serves, Source)))

    def close(self) -> None:
        """Close all connections."""
        self.batches.close()
        self.fusebill.close()
        for reader in self.readers.values():
            reader.close()
        self.redis.close()


class Runtimes:
    """Gives a process its runtime: made when first asked for, and so never shared over a fork, and
    anew when credentials were mended. For one thread.
    """

    def __init__(self) -> None:
        self._held: WorkerRuntime | None = None

    def __call__(self) -> WorkerRuntime:
        """The runtime to use now. Raises SettingsError if there was none before."""
        if self._held is None:
            self._held = WorkerRuntime(settings.load())
        held = self._held
        held.converger.hand_back()
        try:
            if held.gates.were_renewed():
                self._held = WorkerRuntime(held.settings)
                held.close()
        except StoreError as error:
            log.debug("whether credentials were renewed is not known: %s", error)
        except SettingsError as error:
            log.warning("goes on with the credentials it has: %s", error)
        return self._held


worker_runtime = Runtimes()
"""The runtime of this process's Celery tasks."""
