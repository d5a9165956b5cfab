"""Find out whether a remote system whose gate is shut is back, by one cheap read (B6.3, B6.4).

A probe reads the credentials afresh, so that it finds those that were mended in a file, and makes a
client of its own with them. Once it succeeds, all workers do the same (`runtime.py`).
"""

from __future__ import annotations

import logging
from contextlib import closing

from sync_worker import gates, verdicts
from sync_worker.crm import errors as crm
from sync_worker.domain import Source
from sync_worker.fusebill import errors as fusebill
from sync_worker.fusebill.budget import Budget
from sync_worker.fusebill.client import FusebillClient
from sync_worker.gates import Gates, Verdict
from sync_worker.inbox.reserve import Exhausted, Priority
from sync_worker.runtime import make_fusebill, make_readers
from sync_worker.settings import CONNECT_TIMEOUT_SECONDS, Settings, SettingsError

log = logging.getLogger(__name__)

CRM_CALLS = 3
"""How many calls a probe of a CRM makes at most: a log-in, whose account it is, and a read."""


def run(gates_: Gates, name: str, current: Settings, budget: Budget) -> None:
    """Probe a remote system if it is time and nobody else does. Raises StoreError."""
    calls = 1 if name == gates.FUSEBILL else CRM_CALLS
    longest = CONNECT_TIMEOUT_SECONDS + current.fusebill_read_timeout_seconds
    turn = gates_.take_turn(name, seconds=calls * longest + 5)
    if turn is None:
        return
    shut = True
    try:
        fresh = current.with_fresh_credentials()
        verdict, why = probe(name, fresh, budget)
        if verdict is not None:
            shut = gates_.report(name, verdict, why=why, began=turn.began)
    finally:
        gates_.end_turn(turn)
    if shut:
        log.warning("%s is still not usable: %s", name, why)
    else:
        log.info("%s answers again: what waited for it goes on", name)


def probe(name: str, current: Settings, budget: Budget) -> tuple[Verdict | None, str]:
    """What one probe with these settings tells, if anything, and why in a sentence.

    One of Fusebill counts in the budget, and comes before all others (B7.1). Raises StoreError.
    """
    try:
        if name == gates.FUSEBILL:
            with closing(make_fusebill(current)) as client:
                _probe_fusebill(client, budget)
        else:
            reader = make_readers(current, only=Source(name)).get(Source(name))
            if reader is None:  # its access was taken away: what waited is decided by its events
                return Verdict.PROVEN, ""
            with closing(reader):
                reader.probe()
    except (fusebill.FusebillError, crm.CrmError) as error:
        return _verdict(error), str(error)
    except SettingsError as error:
        return Verdict.REFUSED, str(error)
    except Exhausted as error:
        return None, str(error)
    return Verdict.PROVEN, ""


def _probe_fusebill(client: FusebillClient, budget: Budget) -> None:
    call, refused = budget.reserve(1, Priority.FIRST), False
    try:
        client.probe()
    except fusebill.RateLimited:
        refused = True
        raise
    finally:
        budget.ended(call, client.limits, refused=refused)


def _verdict(error: fusebill.FusebillError | crm.CrmError) -> Verdict | None:
    """Only what speaks as that system does proves that it is there: a page of something else at its
    address is no end of an outage.
    """
    if isinstance(error, crm.CrmError):
        heard = verdicts.of_crm(error)
        odd = isinstance(error, crm.Unavailable | crm.Forbidden)
    else:
        heard = verdicts.of_fusebill(error)
        odd = isinstance(error, fusebill.Transient)
    return None if odd and heard is Verdict.ALIVE else heard
