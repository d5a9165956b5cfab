"""Runs scripts with little of what redis-py does around a command.

Wrapping each argument, timing the command and counting its tries cost several times as much as
sending it and reading the answer.
"""

from __future__ import annotations

from typing import Any

import redis
from redis.exceptions import ConnectionError, NoScriptError  # noqa: A004 - redis' own


class Direct:
    """One script on one server, for any number of threads.

    Like `store.connect`, it tries once more over a connection that turns out broken: after a
    restart of Redis all of them are.
    """

    def __init__(self, client: redis.Redis, text: str) -> None:
        self._pool = client.connection_pool
        self._text = text
        self._sha = client.register_script(text).sha.encode()

    def __call__(self, *, args: list[Any]) -> Any:
        """Run it. Raises what redis raises."""
        # What redis would write, had it not to look at each argument for what it is.
        parts = [b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n0" % (len(args) + 3, self._sha)]
        for argument in args:
            given = argument if isinstance(argument, bytes) else str(argument).encode()
            parts.append(b"$%d\r\n%b" % (len(given), given))
        connection: Any = self._pool.get_connection()
        try:
            return _ask(connection, [b"\r\n".join(parts) + b"\r\n"])
        except NoScriptError:
            return _ask(connection, connection.pack_command("EVAL", self._text, 0, *args))
        finally:
            self._pool.release(connection)


def _ask(connection: Any, command: list[bytes]) -> Any:
    try:
        connection.send_packed_command(command)
        return connection.read_response()
    except ConnectionError:  # by now it is closed, and is opened again by what is sent next
        connection.send_packed_command(command)
        return connection.read_response()
