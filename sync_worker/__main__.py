"""`python -m sync_worker` is `sync-worker`."""

from __future__ import annotations

from sync_worker.cli import main

main()
