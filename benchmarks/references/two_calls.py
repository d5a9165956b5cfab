"""Reference D: the two calls of a change and nothing else, by `requests` as it comes, in twenty
threads: `python -m benchmarks.references.two_calls PORT KEY FIRST COUNT`.

Prints the CPU seconds that it took, without those of its start.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import requests

THREADS = 20


def main(port: int, key: str, first: int, count: int) -> float:
    """Read so many customers, from the first on, and latch each; the CPU seconds."""
    base, own = f"http://127.0.0.1:{port}/v1", threading.local()

    def change(customer: int) -> None:
        if not hasattr(own, "session"):
            own.session = requests.Session()
            own.session.headers["Authorization"] = f"Basic {key}"
        session: requests.Session = own.session
        read = session.get(f"{base}/customers/{customer}", timeout=(5, 30))
        read.raise_for_status()
        link = {"fusebillId": customer, "hubSpotId": customer, "hubSpotCompanyId": None}
        latched = session.post(f"{base}/HubSpot/latchCustomer", json=link, timeout=(5, 30))
        latched.raise_for_status()
        if latched.json()["id"] != read.json()["id"]:
            raise RuntimeError(f"customer {customer} was not answered for")

    begun = time.process_time()
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(change, range(first, first + count)):
            pass
    return time.process_time() - begun


if __name__ == "__main__":
    print(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
