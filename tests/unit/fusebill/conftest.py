from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sync_worker.domain import Attempt
from sync_worker.fusebill.client import FusebillClient
from tests.unit.fusebill.scripted_server import KEY, ScriptedServer


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxies of the machine that runs the tests are not those of the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def attempts() -> list[Attempt]:
    return []


@pytest.fixture
def make(server: ScriptedServer, attempts: list[Attempt]) -> Iterator[Callable[..., Any]]:
    """Makes clients of the server, and closes them before it."""
    with ExitStack() as stack:

        def make(base_url: str | None = None, **options: Any) -> FusebillClient:
            key = options.pop("key", KEY)
            options.setdefault("read_timeout", 5)
            options.setdefault("on_call", attempts.append)
            client = FusebillClient(base_url or server.url, key, **options)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def client(make: Callable[..., FusebillClient]) -> FusebillClient:
    return make()
