"""Which WSGI server receives fastest: requests a second, as a ratio to gunicorn's sync workers.

An empty Flask view reads a body of 28 kB, the size of a HubSpot delivery of 100 events. Each round
runs every server in turn, so that they share whatever else the machine does; medians and spread
over the rounds are printed. Needs `wrk` on the PATH; servers that are not installed are left out.

    python benchmarks/wsgi_servers.py [ROUNDS]
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

SECONDS = 4
CONNECTIONS = 16
APP = """
from flask import Flask, request
app = Flask(__name__)

@app.post("/")
def take():
    request.get_data()
    return "", 202
"""
LOAD = """
wrk.method = "POST"
wrk.body = string.rep("x", 28000)
wrk.headers["Content-Type"] = "application/json"
"""
GUNICORN = "gunicorn --bind 127.0.0.1:{port} --workers 2"
SERVERS = {
    "gunicorn sync": f"{GUNICORN} app:app",
    "gunicorn gthread": f"{GUNICORN} --worker-class gthread --threads 8 app:app",
    "granian": "granian --interface wsgi --port {port} --workers 2 --no-access-log app:app",
    "waitress": "waitress --listen=127.0.0.1:{port} --threads=8 app:app",
}
REFERENCE = "gunicorn sync"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def measure(command: str, folder: str) -> float:
    """Requests a second of one server in one run."""
    port = free_port()
    argv = [sys.executable, "-m", *command.format(port=port).split()]
    server = subprocess.Popen(
        argv, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while not listening(port):
            if time.monotonic() > deadline:
                raise SystemExit(f"{command} did not start")
            time.sleep(0.05)
        time.sleep(0.5)
        load = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", "load.lua"]
        done = subprocess.run(
            [*load, f"http://127.0.0.1:{port}/"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        server.terminate()
        server.wait()
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if not found or "Non-2xx" in done.stdout:
        raise SystemExit(f"{command}: {done.stdout}")
    return float(found[1])


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not on the PATH: install it with your package manager")
    servers = {
        name: command
        for name, command in SERVERS.items()
        if importlib.util.find_spec(command.split()[0])
    }
    figures: dict[str, list[float]] = {name: [] for name in servers}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "app.py").write_text(APP)
        Path(folder, "load.lua").write_text(LOAD)
        for number in range(rounds):
            for name, command in servers.items():
                figures[name].append(measure(command, folder))
                print(f"round {number + 1}: {name} {figures[name][-1]:.0f}/s", file=sys.stderr)
    table = Table(title=f"empty view, 28 kB body, {CONNECTIONS} connections, {rounds} rounds")
    for heading in ("server", "requests/s", "spread", f"ratio to {REFERENCE}"):
        table.add_column(heading, justify="left" if heading == "server" else "right")
    reference = statistics.median(figures[REFERENCE])
    for name, runs in figures.items():
        median = statistics.median(runs)
        spread = (max(runs) - min(runs)) / median
        table.add_row(name, f"{median:.0f}", f"{spread:.0%}", f"{median / reference:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
