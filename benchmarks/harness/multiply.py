"""Makes a large store of a small one that the product itself has left behind.

A million changes take a worker the better part of an hour, so some tens of thousands are really
accepted and settled, and what they left in Redis is then copied for other records: each key that
names a record or a customer under another name, each line, field and member of a shared key once
more, with the numbers of records and customers moved on. Members that name nobody, such as the
identities of changes seen before, are copied as random ones of the same length.

It knows no key of the product's, only how the numbers of the benchmark's records and customers
look. Numbers of changes are copied as they are.
"""

from __future__ import annotations

import itertools
import os
import re
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import redis

from benchmarks.harness.fusebill import FIRST_CUSTOMER
from benchmarks.harness.vendors import FIRST_RECORD

_NAMED = re.compile(rb"(?<!\d)(?:5120\d{8}|8\d{6})(?!\d)")
"""A HubSpot contact of ours, or a customer of the fast Fusebill's."""

_FIRST = {12: FIRST_RECORD, 7: FIRST_CUSTOMER}

_HEXADECIMAL = re.compile(rb"[0-9a-f]+")
_BATCH = 1_000
"""Commands sent before their answers are read."""
_MEMBERS = 200
"""Nameless members added by one command."""

Command = tuple[str | bytes, ...]


@dataclass
class Small:
    """What is there to copy."""

    own: dict[bytes, tuple[str, Any, int]] = field(default_factory=dict)
    """Keys that name somebody: type, content, milliseconds to live or -1."""
    lines: list[tuple[bytes, list[bytes]]] = field(default_factory=list)
    """Entries of streams: key, flat fields."""
    members: list[tuple[bytes, str, bytes, bytes]] = field(default_factory=list)
    """Of shared keys those that name somebody: key, type, member or field, value or score."""
    nameless: list[tuple[bytes, str, bytes, bytes]] = field(default_factory=list)
    """Of shared keys with about one for each change."""


def multiply(
    url: str,
    *,
    records: int,
    changes: int,
    copies: int,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Copy what `changes` of `records` left so many times."""
    with redis.Redis.from_url(url) as client:
        small = _read(client, records, changes)
        named = list(packed(_commands(small)))
        for copy in range(1, copies + 1):
            # All numbers keep their length, so that what is packed can be moved as it is.
            _send(client, ((count, moved(batch, copy * records)) for count, batch in named))
            _send(client, packed(_nameless(small)))
            say(f"copy {copy} of {copies}")


def _read(client: redis.Redis, records: int, changes: int) -> Small:
    small = Small()
    store: Any = client
    for key in store.scan_iter(count=1000):
        kind = store.type(key).decode()
        if _is_ours(key, records):
            small.own[key] = kind, _CONTENT[kind](store, key), int(store.pttl(key))
        elif kind == "stream":
            flat = [[part for pair in one.items() for part in pair] for _, one in store.xrange(key)]
            small.lines += [
                (key, parts) for parts in flat if any(_is_ours(part, records) for part in parts)
            ]
        elif kind in ("set", "hash", "zset"):
            _sort(small, key, kind, _pairs(_CONTENT[kind](store, key)), of=(records, changes))
    return small


def _pairs(content: Any) -> list[tuple[bytes, bytes]]:
    if isinstance(content, dict):
        return list(content.items())
    if isinstance(content, set):
        return [(member, b"") for member in content]
    return [(member, b"%.17g" % score) for member, score in content]


def _sort(
    small: Small,
    key: bytes,
    kind: str,
    pairs: list[tuple[bytes, bytes]],
    *,
    of: tuple[int, int],
) -> None:
    records, changes = of
    named = [pair for pair in pairs if _is_ours(pair[0], records)]
    small.members += [(key, kind, *pair) for pair in named]
    # What grows with the changes, not a handful of settings.
    if len(pairs) - len(named) >= changes / 10:
        known = {pair[0] for pair in named}
        small.nameless += [(key, kind, *pair) for pair in pairs if pair[0] not in known]


def _is_ours(text: bytes, records: int) -> bool:
    return any(
        0 <= int(found[0]) - _FIRST[len(found[0])] < records for found in _NAMED.finditer(text)
    )


def moved(text: bytes, by: int) -> bytes:
    """The same about other records and customers."""
    return _NAMED.sub(lambda found: b"%d" % (int(found[0]) + by), text)


def packed(commands: Iterable[Command]) -> Iterator[tuple[int, bytes]]:
    """Commands as they go over the wire, in batches, each with how many it holds."""
    waiting = iter(commands)
    while batch := list(itertools.islice(waiting, _BATCH)):
        yield len(batch), b"".join(map(_packed, batch))


def _packed(command: Command) -> bytes:
    parts = [part.encode() if isinstance(part, str) else part for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)


def _commands(small: Small) -> Iterator[Command]:
    """What makes once more all that names somebody."""
    for key, (kind, content, left_ms) in small.own.items():
        yield from _made(key, kind, content)
        if left_ms > 0:
            yield "PEXPIRE", key, str(left_ms)
    for key, fields in small.lines:
        yield "XADD", key, "*", *fields
    for key, kind, member, value in small.members:
        yield _ADD[kind][0], key, *_ADD[kind][1](member, value)


def _made(key: bytes, kind: str, content: Any) -> Iterator[Command]:
    if kind == "string":
        yield "SET", key, content
    elif kind == "list":
        yield "RPUSH", key, *content
    else:
        name, spell = _ADD[kind]
        yield name, key, *(part for pair in _pairs(content) for part in spell(*pair))


def _nameless(small: Small) -> Iterator[Command]:
    for key, kind in dict.fromkeys((key, kind) for key, kind, _, _ in small.nameless):
        name, spell = _ADD[kind]
        pairs = iter([pair[2:] for pair in small.nameless if pair[0] == key])
        while some := list(itertools.islice(pairs, _MEMBERS)):
            yield name, key, *(p for member, value in some for p in spell(_another(member), value))


def _another(member: bytes) -> bytes:
    """A random one that looks like it."""
    size = len(member)
    if _HEXADECIMAL.fullmatch(member):
        return os.urandom(size).hex()[:size].encode()
    if all(chr(byte) in string.printable for byte in member):
        letters = string.ascii_letters + string.digits
        return bytes(ord(letters[byte % len(letters)]) for byte in os.urandom(size))
    return os.urandom(size)


def _send(client: redis.Redis, batches: Iterable[tuple[int, bytes]]) -> None:
    pool: Any = client.connection_pool
    connection = pool.get_connection()
    try:
        for count, batch in batches:
            connection.send_packed_command([batch])
            for _ in range(count):
                connection.read_response()
    finally:
        pool.release(connection)


_CONTENT: dict[str, Callable[[Any, bytes], Any]] = {
    "string": lambda client, key: client.get(key),
    "list": lambda client, key: client.lrange(key, 0, -1),
    "set": lambda client, key: client.smembers(key),
    "hash": lambda client, key: client.hgetall(key),
    "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
}

_ADD: dict[str, tuple[str, Callable[[bytes, bytes], tuple[bytes, ...]]]] = {
    "set": ("SADD", lambda member, _: (member,)),
    "hash": ("HSET", lambda member, value: (member, value)),
    "zset": ("ZADD", lambda member, score: (score, member)),
}
"""How a member is added, and how it is spelled behind the key."""
