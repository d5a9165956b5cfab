"""Has the product's processes probe more often, for the short forms of the fault tests.

Python imports a module of this name at the start of every interpreter that finds it on PYTHONPATH.
"""

from __future__ import annotations

import os

if "QUICK_PROBE_SECONDS" in os.environ:
    from sync_worker import gates

    gates.PROBE_SECONDS = int(os.environ["QUICK_PROBE_SECONDS"])
