"""A stack with the seam in it, and the seeds that everything random comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.orders import BRISK, BRISK_SETTINGS, Orders
from tests.faults.world import UNLATCH_PATH
from tests.stack import Stack, running

SEED = int(os.environ.get("FAULT_SEED", "1"))

LONG_RUN = os.environ.get("FAULTS") == "long"

SABOTAGE = tuple(name for name in os.environ.get("FAULT_SABOTAGE", "").split(",") if name)

SETTINGS = {
    "FUSEBILL_SALESFORCE_UNLATCH_PATH": UNLATCH_PATH,
    "RETRY_SCHEDULE_SECONDS": "1,1,1,2,2",
    "LATE_WRITE_SECONDS": "2",
    "MAX_RELEASES_PER_HOUR": "1000000",
    "SWEEP_SECONDS": "0.5",
    "MAX_CRASHES": "3",
    "FUSEBILL_CALLS_PER_MINUTE": "100000",
    "FUSEBILL_CALLS_PER_DAY": "100000000",
}
"""No limit of calls; short waits; a schedule that an outage would use up if it counted (B6.3)."""


@contextmanager
def staged(
    folder: Path, *, brisk: bool = True, concurrency: int = 4, **more: str
) -> Iterator[tuple[Stack, Orders]]:
    """All processes with the seam in them; `brisk` shortens the product's own waits."""
    print(f"FAULT_SEED={SEED}")
    orders = Orders(folder / "orders", constants=BRISK if brisk else {}, sabotage=SABOTAGE)
    pace = BRISK_SETTINGS if brisk else {}
    for stack in running(
        folder,
        concurrency=concurrency,
        appendfsync="always",
        environment=orders.environment,
        **{**SETTINGS, **pace, **more},
    ):
        stack.control.delete_customers()
        stack.control.set_options(
            minute_limit=None, day_limit=None, salesforce_unlatch_path=UNLATCH_PATH
        )
        yield stack, orders
