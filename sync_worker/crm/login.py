"""One log-in for all threads that wait for it, and one failure (B3.5)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sync_worker.crm.errors import CrmError

T = TypeVar("T")


class SharedLogin:
    """Lets one thread log in at a time; what comes of it is so for all that waited meanwhile.

    Else each of them would wait for the same silence, one after the other, longer than its lease
    lasts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed: tuple[float, CrmError] | None = None
        """When a log-in failed last, by the monotonic clock, and how."""

    def once(self, log_in: Callable[[], T]) -> T:
        """What `log_in` gives; it is called by one thread at a time, and is to give at once what
        another has got meanwhile.

        Raises what it raises; and what a log-in raised that failed while this one waited.
        """
        asked = time.monotonic()
        with self._lock:
            if self._failed is not None and self._failed[0] > asked:
                raise self._failed[1]
            try:
                return log_in()
            except CrmError as error:
                self._failed = time.monotonic(), error
                raise
