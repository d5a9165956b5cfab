"""Serves the application with gunicorn: processes of threads, behind whatever ends TLS.

Chosen by measurement and by need (docs/why.md): the signature of HubSpot covers the request
target as it was called, and gunicorn is the production server that hands it on undecoded.
"""

from __future__ import annotations

from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from sync_worker import celery, logs, store
from sync_worker.settings import Settings
from sync_worker.waker import Waker
from webhooks.app import create_app

PROCESSES = 2
THREADS = 8
"""A delivery waits for Redis most of its time, and a slow sender holds one thread."""

KEEP_ALIVE_SECONDS = 65
"""Longer than the idle time of common proxies, so that it is not we who cut a connection."""

GRACE_SECONDS = 20


class QuietLogger(Logger):
    """Hands gunicorn's own messages to our logs, which mask what must not be read."""

    def setup(self, cfg: Any) -> None:
        """Take gunicorn's handlers away."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class Server(BaseApplication):
    """gunicorn, configured from our settings and from nothing else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Set what gunicorn is to do."""
        options: dict[str, Any] = {
            "bind": self._settings.web_bind,
            "workers": PROCESSES,
            "threads": THREADS,
            "worker_class": "gthread",
            "keepalive": KEEP_ALIVE_SECONDS,
            "timeout": 60,
            "graceful_timeout": GRACE_SECONDS,
            "backlog": 1024,
            # Its own access log would name tokens that stand in paths (B10.4).
            "accesslog": None,
            "loglevel": "warning",
            "logger_class": "webhooks.server.QuietLogger",
            "proc_name": "sync-worker web",
        }
        if "control_socket_disable" in self.cfg.settings:  # where there is one to disable
            options["control_socket_disable"] = True
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Build the application, in each process after it was forked."""
        settings = self._settings
        logs.configure(settings.log_level, secrets=logs.secrets_of(settings))
        dsn = settings.sentry_dsn
        logs.start_sentry(dsn.get_secret_value() if dsn else None)
        client = store.connect(settings.redis_url.get_secret_value())
        return create_app(settings, client=client, wake=Waker(celery.publish).wake)
