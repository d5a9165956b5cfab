"""sync-worker: keeps the CRM ids on Fusebill customers right."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sync-worker")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
