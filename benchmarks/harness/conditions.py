"""What the machine is, so that a figure can be judged."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from sync_worker.embedded_redis import find_server

PACKAGES = ("celery", "flask", "gunicorn", "redis", "hiredis", "msgspec", "requests")


def machine(folder: Path) -> dict[str, str]:
    """Size, software and state of this machine. `folder` is where the stores are kept."""
    version = importlib.metadata.version
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{os.cpu_count()} cores ({_processor()}), {_memory()} memory",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "store": _server(),
        "disk": f"fdatasync of 4 kB {_sync_ms(folder):.2f} ms (median of 50)",
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "busy before": f"load average {os.getloadavg()[0]:.2f}",
    }


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _memory() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{pages / 2**30:.0f} GiB"


def _server() -> str:
    said = subprocess.run(
        [str(find_server()), "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"\bv=([\d.]+)", said)
    name = "Valkey" if "alkey" in said else "Redis"
    return f"{name} {found[1] if found else said.strip()}"


def _sync_ms(folder: Path) -> float:
    """How long the disk takes to keep a little: what `appendfsync always` waits for."""
    path = folder / "sync"
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(bytes(4096))
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    path.unlink()
    return statistics.median(took) * 1000
