"""Runs scripts over a connection of the thread's own.

Taking a connection from the pool, looking whether it is sound, timing the command and giving the
connection back cost several times as much as sending and reading.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import redis
from redis.exceptions import ConnectionError, NoScriptError  # noqa: A004 - redis' own


class _Own(threading.local):
    """The connection of this thread, and the process that made it."""

    connection: Any = None
    pid = 0


_owns: weakref.WeakKeyDictionary[redis.ConnectionPool, _Own] = weakref.WeakKeyDictionary()
"""By the pool whose settings they have."""


class Direct:
    """One script on one server, for any number of threads; each keeps one connection for all.

    Like `store.connect`, it tries once more over a connection that turns out broken: after a
    restart of Redis all of them are.
    """

    def __init__(self, client: redis.Redis, text: str) -> None:
        self._pool = client.connection_pool
        self._own = _owns.setdefault(self._pool, _Own())
        self._text = text
        self.sha = client.register_script(text).sha

    def __call__(self, *, args: list[Any]) -> Any:
        """Run it. Raises what redis raises."""
        connection = self._connection()
        # What redis would write, had it not to look at each argument for what it is.
        parts = [
            b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n0" % (len(args) + 3, _bytes(self.sha))
        ]
        for argument in args:
            given = _bytes(argument)
            parts.append(b"$%d\r\n%b" % (len(given), given))
        try:
            return _ask(connection, [b"\r\n".join(parts) + b"\r\n"])
        except NoScriptError:
            return _ask(connection, connection.pack_command("EVAL", self._text, 0, *args))

    def _connection(self) -> Any:
        own = self._own
        if own.connection is None or own.pid != os.getpid():
            # Made as the pool makes its own, but not of it: it is closed when the thread has ended.
            own.connection = self._pool.connection_class(**self._pool.connection_kwargs)
            own.pid = os.getpid()
        return own.connection


def _bytes(argument: Any) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()


def _ask(connection: Any, command: list[bytes]) -> Any:
    try:
        connection.send_packed_command(command)
        return connection.read_response()
    except ConnectionError:  # by now it is closed, and is opened again by what is sent next
        connection.send_packed_command(command)
        return connection.read_response()
