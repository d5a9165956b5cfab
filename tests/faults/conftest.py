"""What tests of faults share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.verify import table


@pytest.fixture
def figures(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """Prints what a test has measured."""

    def show(*rows: tuple[str, object]) -> None:
        with capsys.disabled():
            print(table(request.node.name, rows))

    return show
