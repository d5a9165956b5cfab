"""What an answer tells of the system that gave it, whatever it was asked (B6.3, B6.4)."""

from __future__ import annotations

from sync_worker.crm import errors as crm
from sync_worker.fusebill import errors
from sync_worker.gates import Verdict


def of_fusebill(error: errors.FusebillError | None) -> Verdict:
    """What an answer of Fusebill, or the error that it was, tells of Fusebill itself."""
    match error:
        case None:
            return Verdict.SOUND
        case errors.Transient(outage=True):
            return Verdict.FAILED
        case errors.Unauthorized():
            return Verdict.REFUSED
        case _:
            return Verdict.ALIVE


def of_crm(error: crm.CrmError | None) -> Verdict:
    """What an answer of a CRM, or the error that it was, tells of that CRM itself."""
    match error:
        case None:
            return Verdict.SOUND
        case crm.Unavailable(outage=True):
            return Verdict.FAILED
        case crm.Unauthorized():
            return Verdict.REFUSED
        case _:
            return Verdict.ALIVE
