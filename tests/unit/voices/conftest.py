"""Fixtures of the registry's tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heartvoice.voices import database
from heartvoice.voices.registry import Registry
from tests.support.voices import Clock


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a power failure tells whether data was synced; no test has one."""
    kept = [pragma for pragma in database._PRAGMAS if not pragma.startswith("synchronous")]
    monkeypatch.setattr(database, "_PRAGMAS", (*kept, "synchronous = OFF"))
    monkeypatch.setattr(os, "fsync", lambda _: None)


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
