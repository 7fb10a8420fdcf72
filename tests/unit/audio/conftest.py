from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Libraries that decode must not write to the caller's terminal."""
    yield
    assert capfd.readouterr() == ("", "")
