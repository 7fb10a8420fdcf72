"""Fixtures of the registry's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heartvoice.voices.registry import Registry
from tests.support.voices import Clock, no_waiting_for_disks


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting_for_disks(monkeypatch)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Registry]]:
    made: list[Registry] = []

    def open_it(**options: object) -> Registry:
        options = {"create": True, **options}
        made.append(Registry(tmp_path / "registry", keys=tmp_path / "keys", now=clock, **options))  # type: ignore[arg-type]
        return made[-1]

    yield open_it
    for registry in made:
        registry.close()


@pytest.fixture
def registry(opened: Callable[..., Registry]) -> Registry:
    return opened()
