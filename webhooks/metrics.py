"""Metrics for Prometheus, read from the store.

They are the same whichever process is asked, so one receiver is scraped, not each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sync_worker.gates import OPERATOR
from sync_worker.status import read_budgets, read_counters, read_status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The text format that every Prometheus reads, and that `generate_latest` writes."""

COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "accepted": ("Changes stored", ()),
    "duplicates": ("Changes dropped because they were stored before", ()),
    "ignored": ("Events the product has no use for", ("source", "why")),
    "foreign": ("Events of a tenant that is not ours", ("source",)),
    "undecodable": ("Bodies and events that could not be read", ("source",)),
    "refused": ("Deliveries refused", ("source", "why")),
    "settled": ("Changes settled", ("outcome",)),
    "dead_letters_written": ("Dead letters written", ("reason",)),
    "dead_letters_closed": ("Dead letters closed", ("state",)),
    "gates_shut": ("Outages, and refusals of credentials", ("remote", "why")),
}
"""What is counted in the store, and by which labels."""


class _Store(Collector):
    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def collect(self) -> Iterable[Metric]:
        yield from self._counters()
        yield from self._gauges()
        yield from self._budgets()

    def _counters(self) -> Iterator[Metric]:
        counters = read_counters(self._client)
        for name, (text, labels) in COUNTERS.items():
            family = CounterMetricFamily(f"sync_worker_{name}", text, labels=labels)
            if not labels:
                counters.setdefault(name, 0)  # a rate needs to see it start
            for key, value in counters.items():
                counted, *values = key.split("|", len(labels))
                if counted == name and len(values) == len(labels):
                    family.add_metric(values, value)
            yield family

    def _gauges(self) -> Iterator[Metric]:
        status = read_status(self._client)
        yield GaugeMetricFamily(
            "sync_worker_backlog", "Mailboxes that owe work", value=status.backlog
        )
        yield GaugeMetricFamily(
            "sync_worker_oldest_due_seconds",
            "How long the oldest of them has been due",
            value=status.oldest_due_seconds,
        )
        letters = GaugeMetricFamily(
            "sync_worker_dead_letters", "Dead letters that wait for a person", labels=["reason"]
        )
        for reason, n in status.dead_letters.items():
            letters.add_metric([reason], n)
        yield letters
        yield GaugeMetricFamily(
            "sync_worker_releases_held",
            "Mailboxes whose releases wait for a person's approval",
            value=status.releases_held,
        )
        yield GaugeMetricFamily(
            "sync_worker_would", "Changes that a dry run kept", value=status.would
        )
        shut = GaugeMetricFamily(
            "sync_worker_shut",
            "Whose work waits: open for an outage, refused for credentials, paused by an operator",
            labels=["owner", "why"],
        )
        for pause in status.outages:
            shut.add_metric([pause.owner, "open"], 1)
        for pause in status.paused:
            shut.add_metric([pause.owner, "paused" if pause.owner == OPERATOR else "refused"], 1)
        yield shut
        owed = GaugeMetricFamily(
            "sync_worker_reconcile_owed", "Sources that need a reconcile", labels=["source"]
        )
        for item in status.reconcile_owed:
            owed.add_metric([item.source], 1)
        yield owed

    def _budgets(self) -> Iterator[Metric]:
        labels = ["account", "window"]
        limits = GaugeMetricFamily(
            "sync_worker_fusebill_calls_limit",
            "Calls that Fusebill is asked at most",
            labels=labels,
        )
        left = GaugeMetricFamily(
            "sync_worker_fusebill_calls_left",
            "Calls of these that may still be made",
            labels=labels,
        )
        for account, windows in read_budgets(self._client).items():
            for window, calls in windows.items():
                limits.add_metric([account, window], calls["limit"])
                left.add_metric([account, window], calls["left"])
        yield limits
        yield left


def exposition(client: redis.Redis) -> tuple[bytes, str]:
    """The metrics as text, and its content type. Raises StoreError."""
    registry = CollectorRegistry()
    registry.register(_Store(client))
    return generate_latest(registry), CONTENT_TYPE
