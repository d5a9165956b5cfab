"""Serves the application with gunicorn: processes of threads, behind whatever ends TLS.

Chosen by measurement and by need (docs/why.md): the signature of HubSpot covers the request
target as it was called, and gunicorn is the production server that hands it on undecoded.
"""

from __future__ import annotations

import gc
import logging
import socket
import struct
import sys
from functools import partial
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from sync_worker import logs, store
from sync_worker.settings import Settings
from sync_worker.waker import Waker, is_behind, publish
from webhooks.app import create_app

PROCESSES = 2
THREADS = 8
"""A delivery waits for Redis most of its time, and a slow sender holds one thread."""

KEEP_ALIVE_SECONDS = 65
"""Longer than the idle time of common proxies, so that it is not we who cut a connection."""

GRACE_SECONDS = 20


SENDER_SECONDS = 5
"""How long a sender may be silent in mid-request. It holds a thread for that long, and by then
HubSpot would have given up on us."""

_SILENCE = struct.pack("@ll", SENDER_SECONDS, 0)


class Worker(ThreadWorker):
    """Gives up on senders that fall silent; without that, a few of them would occupy it."""

    def enqueue_req(self, conn: Any) -> None:
        """Take a connection that has something to say."""
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SILENCE)
        super().enqueue_req(conn)


class QuietLogger(Logger):
    """Hands gunicorn's own messages to our logs, which mask what must not be read."""

    def setup(self, cfg: Any) -> None:
        """Take gunicorn's handlers away."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log an error with where it came from; a sender that fell silent is none."""
        if isinstance(sys.exc_info()[1], BlockingIOError):
            self.debug("gave up on a sender that sent nothing for %d s", SENDER_SECONDS)
        else:
            super().exception(msg, *args, **kwargs)


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
            "worker_class": Worker,
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
        logs.start(settings)
        # What no line shows need not be found out for each (Python's logging HOWTO, Optimization).
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
        client = store.connect(settings.redis_url.get_secret_value())
        waker = Waker(publish, is_behind=partial(is_behind, client))
        app = create_app(settings, client=client, wake=waker.wake)
        # What is loaded by now stays: the collector of garbage need never walk through it again.
        gc.freeze()
        return app
