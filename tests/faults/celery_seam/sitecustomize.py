"""What the tests of Celery's own faults add to the seam (`../seam/sitecustomize.py`).

Each is asked for by a file in the folder of the orders, which is taken away when it happens:

- `raise`      the next task fails before it has done anything
- `stubborn`   the next task does not hear Celery's soft time limit
- `deafen`     Celery's main process takes no message from then on, and does not know
"""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

SEAM = Path(__file__).parents[1] / "seam" / "sitecustomize.py"

LOOK_SECONDS = 0.05

spec = importlib.util.spec_from_file_location("seam", SEAM)
assert spec is not None
assert spec.loader is not None
seam = importlib.util.module_from_spec(spec)
spec.loader.exec_module(seam)


def asked(name: str) -> bool:
    """Whether this is asked for now, by nobody before."""
    try:
        (seam.orders.folder / name).unlink()
    except FileNotFoundError:
        return False
    return True


def spoil_tasks(module: Any) -> None:
    whole = module.drain

    def drain(*args: Any, **kwargs: Any) -> Any:
        if asked("raise"):
            raise RuntimeError("a fault of the task itself")
        if asked("stubborn"):
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        return whole(*args, **kwargs)

    module.drain = drain


def spoil_worker(module: Any) -> None:
    whole = module.Worker.on_consumer_ready

    def on_consumer_ready(self: Any, consumer: Any) -> None:
        whole(self, consumer)
        threading.Thread(target=deafen_when_asked, args=(consumer,), daemon=True).start()

    module.Worker.on_consumer_ready = on_consumer_ready


def deafen_when_asked(consumer: Any) -> None:
    while not asked("deafen"):
        time.sleep(LOOK_SECONDS)
    consumer.hub.call_soon(consumer.task_consumer.cancel)


if "FAULT_ORDERS" in os.environ:
    seam.PATCHES["sync_worker.drain"] = [spoil_tasks]
    seam.PATCHES["celery.apps.worker"] = [spoil_worker]
