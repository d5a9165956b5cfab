"""Find out whether a remote system whose gate is shut is back, by one cheap read (B6.3, B6.4).

A probe reads the settings afresh, so that it finds the credentials that were mended in a file, and
makes a client of its own with them. Once it succeeds, all workers do the same (`runtime.py`).
"""

from __future__ import annotations

import logging
from contextlib import closing

from sync_worker import gates, settings, verdicts
from sync_worker.crm import errors as crm
from sync_worker.domain import Source
from sync_worker.fusebill import errors as fusebill
from sync_worker.gates import Gates, Verdict
from sync_worker.runtime import make_fusebill, make_readers
from sync_worker.settings import CONNECT_TIMEOUT_SECONDS, Settings, SettingsError

log = logging.getLogger(__name__)

CALLS = 3
"""How many calls a probe makes at most: a log-in, whose account it is, and a read."""


def run(gates_: Gates, name: str) -> None:
    """Probe a remote system if it is time and nobody else does. Raises StoreError."""
    current = _load()
    if current is None:
        return
    seconds = CALLS * (CONNECT_TIMEOUT_SECONDS + current.fusebill_read_timeout_seconds) + 5
    token = gates_.take_turn(name, seconds=seconds)
    if token is None:
        return
    try:
        verdict, why = probe(name, current)
        gates_.report(name, verdict, why=why)
    finally:
        gates_.end_turn(name, token)
    if verdict in (Verdict.PROVEN, Verdict.ALIVE):
        log.info("%s answers again: what waited for it goes on", name)
    else:
        log.warning("%s is still not usable: %s", name, why)


def probe(name: str, current: Settings) -> tuple[Verdict, str]:
    """What one probe with these settings tells, and why in a sentence."""
    try:
        if name == gates.FUSEBILL:
            with closing(make_fusebill(current)) as client:
                client.probe()
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
    return Verdict.PROVEN, ""


def _verdict(error: fusebill.FusebillError | crm.CrmError) -> Verdict:
    """Only what speaks as that system does proves that it is there: a page of something else at its
    address is no end of an outage.
    """
    if isinstance(error, crm.CrmError):
        heard = verdicts.of_crm(error)
        odd = isinstance(error, crm.Unavailable | crm.Forbidden)
    else:
        heard = verdicts.of_fusebill(error)
        odd = isinstance(error, fusebill.Transient)
    return Verdict.DOUBTED if odd and heard is Verdict.ALIVE else heard


def _load() -> Settings | None:
    try:
        return settings.load()
    except SettingsError as error:
        log.warning("nothing is probed: the settings, read afresh, are faulty: %s", error)
        return None
