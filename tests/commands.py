"""Runs commands of `sync-worker` in the test's own process, against a real Redis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from click.testing import CliRunner, Result

from sync_worker import celery
from sync_worker.cli import cli
from sync_worker.domain import Aspect, Attempt, Change, Customer, Outcome, Reason
from sync_worker.embedded_redis import EmbeddedRedis
from sync_worker.inbox import Burial, Claim, Inbox, Settlement, Verdict
from sync_worker.links import LinkIndex, account_of
from sync_worker.settings import Settings

FUSEBILL = "https://secure.fusebill.com"
ACCOUNT = account_of(FUSEBILL)


class Commands:
    """A store to fill and the commands that look at it."""

    def __init__(
        self, client: redis.Redis, server: EmbeddedRedis, patch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        self.client = client
        self.inbox = Inbox(client, dedupe_hours=72, audit_days=30, lease_seconds=90)
        self.links = LinkIndex(client, base_url=FUSEBILL)
        self.woken: list[str] = []
        self.folder = folder
        self._patch = patch
        for name in Settings.model_fields:
            patch.delenv(name.upper(), raising=False)
        patch.setenv("REDIS_URL", server.url)
        patch.chdir(folder)
        patch.setattr(celery, "publish_or_leave", self._wake)

    def _wake(self, mailboxes: Sequence[str], queue: str = celery.LIVE_QUEUE) -> None:
        self.woken += mailboxes

    def setting(self, name: str, value: str) -> None:
        """Set an environment variable."""
        self._patch.setenv(name, value)

    def run(self, *arguments: str, given: str | None = None) -> Result:
        """Run a command, with `given` typed at it; it must not end in a traceback."""
        result = CliRunner().invoke(cli, arguments, input=given, prog_name="sync-worker")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run it with --json and read what it prints."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == code, result.output
        return msgspec.json.decode(result.stdout)

    def claim(self, mailbox: str) -> Claim:
        """Take a mailbox, as a worker does, also one that is not due yet."""
        self.client.zadd("sw:due", {mailbox: 1})
        claim = self.inbox.claim(mailbox)
        assert claim is not None
        return claim

    def settle(self, change: Change, outcome: Outcome) -> None:
        """Have a change come in and end like that."""
        self.inbox.accept([change])
        claim = self.claim(change.record.mailbox)
        self.inbox.settle(
            claim, Settlement([Verdict(one, outcome) for one in claim.pending], dry_run=True)
        )

    def bury(
        self, change: Change, reason: Reason = Reason.CONFLICT, customers: tuple[int, ...] = (5,)
    ) -> None:
        """Have a change come in and end as a dead letter."""
        self.inbox.accept([change])
        claim = self.claim(change.record.mailbox)
        tried = (Attempt(1, "POST /v1/Geotab/LatchCustomer", 409, "taken"),)
        burial = Burial(
            Aspect.LINK, reason, "why", "do this", tuple(claim.pending), customers, attempts=tried
        )
        self.inbox.settle(claim, Settlement(burials=[burial]))

    def see(self, customer: Customer, *, sent_at: int) -> None:
        """Have an answer of Fusebill come in."""
        self.links.observe(customer, sent_at=sent_at)
