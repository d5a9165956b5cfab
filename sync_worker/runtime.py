"""Puts the parts of a process together from its settings."""

from __future__ import annotations

from functools import cache, partial

from sync_worker import settings, store
from sync_worker.converge import Converger
from sync_worker.fusebill.budget import tell_budget
from sync_worker.fusebill.client import FusebillClient
from sync_worker.inbox import Inbox
from sync_worker.links import LinkIndex
from sync_worker.settings import Settings, SettingsError


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


class WorkerRuntime:
    """What a worker process uses for all its tasks: one pooled connection to each side."""

    def __init__(self, current: Settings) -> None:
        self.settings = current
        self.redis = store.connect(current.redis_url.get_secret_value())
        self.inbox = Inbox.of(self.redis, current)
        self.converger = Converger(
            inbox=self.inbox,
            links=LinkIndex(self.redis, base_url=current.fusebill_base_url),
            fusebill=make_fusebill(current),
            settings=current,
            tell_limits=partial(tell_budget, self.redis),
        )


@cache
def worker_runtime() -> WorkerRuntime:
    """This process's own, made when its first task runs and so never shared over a fork."""
    return WorkerRuntime(settings.load())
