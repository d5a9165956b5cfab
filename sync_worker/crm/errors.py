"""What can come back from a CRM instead of the truth.

Each says what may be done about it; `str()` of an error is one sentence that names the call, what
came back and, where there is one, the cure. None of them uses up an attempt (B3.5).
"""

from __future__ import annotations

from sync_worker.domain import Attempt


class CrmError(Exception):
    """A read did not tell the truth."""

    def __init__(self, message: str, attempt: Attempt) -> None:
        super().__init__(message)
        self.attempt = attempt


class Unavailable(CrmError):
    """It may work later: no connection, a time-out, 5xx, a redirect, or an answer that is not what
    was asked for.
    """


class RateLimited(CrmError):
    """The CRM's limit is reached: wait `seconds`, None if it names no time."""

    def __init__(self, message: str, attempt: Attempt, *, seconds: float | None) -> None:
        super().__init__(message, attempt)
        self.seconds = seconds


class Unauthorized(CrmError):
    """The credentials are refused, lack a permission, or belong to another tenant (B2.9)."""
