"""What can come back from a CRM instead of the truth.

Each says what may be done about it; `str()` of an error is one sentence that names the call, what
came back and, where there is one, the cure. None of them uses up an attempt (B3.5).
"""

from __future__ import annotations

from http import HTTPStatus

from sync_worker.domain import Attempt


class CrmError(Exception):
    """A read did not tell the truth."""

    def __init__(self, message: str, attempt: Attempt) -> None:
        super().__init__(message)
        self.attempt = attempt


class Unavailable(CrmError):
    """It may work later: no connection, a time-out, 5xx, a redirect, or an answer that is not what
    was asked for.

    `outage` tells whether it counts towards opening the circuit (B6.3): no connection, a
    time-out, a broken answer, `is_outage` of its status, or the CRM's own word that it is down.
    Any other answer proves life.
    """

    def __init__(self, message: str, attempt: Attempt, *, outage: bool) -> None:
        super().__init__(message, attempt)
        self.outage = outage


class RateLimited(CrmError):
    """The CRM's limit is reached: wait `seconds`, None if it names no time."""

    def __init__(self, message: str, attempt: Attempt, *, seconds: float | None) -> None:
        super().__init__(message, attempt)
        self.seconds = seconds


class Unauthorized(CrmError):
    """Nothing can be read: the credentials are refused, have no access at all, or belong to
    another tenant (B2.9, B6.4). A `probe` finds it too.
    """


class Forbidden(CrmError):
    """The credentials are good, but lack the permission to read this: records of this type, or
    a field. Others may be readable.
    """


def is_outage(status: int) -> bool:
    """Whether a status means that nobody answers for the CRM (B6.3): 5xx, one that HTTP does not
    know, or 408, a proxy's for a connection that lay idle.
    """
    return status == HTTPStatus.REQUEST_TIMEOUT or not 200 <= status <= 499
