"""The command `sync-worker`, also as `python -m sync_worker`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run it; a Ctrl-C that comes while it still loads is no traceback either."""
    try:
        from sync_worker.cli import main as run  # noqa: PLC0415 - it is the import that takes time
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
