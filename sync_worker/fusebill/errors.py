"""What can come back from Fusebill instead of a customer or a list of them.

Fusebill's errors carry no machine code, only a status and a text, so both decide the class
(facts: ref/errors; B6.1 to B6.5). Each class says what may be done about it; `str()` of an
error is one sentence that names the call, the status and Fusebill's own text.
"""

from __future__ import annotations

from sync_worker.domain import Attempt


class FusebillError(Exception):
    """A call to Fusebill did not give what was asked for."""

    def __init__(self, message: str, attempt: Attempt) -> None:
        super().__init__(message)
        self.attempt = attempt


class Transient(FusebillError):
    """It may work later: no connection, time-out, 5xx, 403, a redirect, a 404 with `Message`
    (an unknown route), a 2xx that is not what was asked for, or a 400 that relays a failure of
    HubSpot or Salesforce (B6.1).

    `answer_lost` tells whether the call may have been carried out all the same (B5.3): never
    said of a read, nor of a call whose connection was not made.

    `outage` tells whether it counts towards opening the circuit (B6.3): no connection, a
    time-out, a broken answer or a 5xx. Any other answer proves life.
    """

    def __init__(self, message: str, attempt: Attempt, *, answer_lost: bool, outage: bool) -> None:
        super().__init__(message, attempt)
        self.answer_lost = answer_lost
        self.outage = outage


class RelayedNotFound(FusebillError):
    """A 400 that relays `not found` or `does not exist` from HubSpot or Salesforce: three
    spaced tries, then final (B6.1).
    """


class RateLimited(FusebillError):
    """429: wait for `reset_at` (seconds since the epoch, None if no header names it) (B6.2)."""

    def __init__(self, message: str, attempt: Attempt, *, reset_at: float | None) -> None:
        super().__init__(message, attempt)
        self.reset_at = reset_at


class Unauthorized(FusebillError):
    """401, or the 400 that says the key is malformed: the key or the environment is wrong
    (B6.4).
    """


class CustomerNotFound(FusebillError):
    """404 whose envelope names the customer (B6.5)."""

    def __init__(self, message: str, attempt: Attempt, *, customer_id: int) -> None:
        super().__init__(message, attempt)
        self.customer_id = customer_id


class Rejected(FusebillError):
    """Any other 4xx, such as a 400 or 409: repeating it unchanged cannot help (B6.5)."""


class Incomplete(Exception):
    """A list did not come whole, though each of its pages was answered: rows that cannot be read,
    rows that the count announced and no page had, or too many pages.

    Who is missing from such a list may be the very customer looked for, so it tells nothing. To
    be treated as `Transient` without a lost answer: customers that were added or taken out
    meanwhile are one cause. No `FusebillError`, as no call failed; it has no attempt of its own.
    """
