"""Runs a script over a connection of the thread's own.

Where one script is run per request, taking a connection from the pool, looking whether it is sound,
timing the command and giving the connection back cost several times as much as sending and reading.
"""

from __future__ import annotations

import threading
from typing import Any

import redis
from redis.exceptions import ConnectionError, NoScriptError  # noqa: A004 - redis' own

from sync_worker.inbox import scripts


class Direct:
    """One script on one server, for any number of threads; each keeps a connection.

    Like `store.connect`, it tries once more over a connection that turns out broken: after a
    restart of Redis all of them are.
    """

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._pool = client.connection_pool
        self._text = scripts.source(name)
        sha = client.register_script(self._text).sha
        # What redis would write, had it not to look at each argument for what it is.
        self._head = f"*4\r\n$7\r\nEVALSHA\r\n${len(sha)}\r\n{sha}\r\n$1\r\n0\r\n".encode()
        self._own = threading.local()

    def __call__(self, packed: bytes) -> Any:
        """Run it with one argument. Raises what redis raises."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            # Made as the pool makes its own, but not of it: it is closed when the thread has ended.
            connection = self._pool.connection_class(**self._pool.connection_kwargs)
            self._own.connection = connection
        command = b"%b$%d\r\n%b\r\n" % (self._head, len(packed), packed)
        try:
            return _ask(connection, [command])
        except NoScriptError:
            return _ask(connection, connection.pack_command("EVAL", self._text, 0, packed))


def _ask(connection: Any, command: list[bytes]) -> Any:
    try:
        connection.send_packed_command(command)
        return connection.read_response()
    except ConnectionError:  # by now it is closed, and is opened again by what is sent next
        connection.send_packed_command(command)
        return connection.read_response()
