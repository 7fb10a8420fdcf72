"""A registry in a temporary folder, with checks and a clock that a test moves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from heartvoice.voices import database
from heartvoice.voices.records import Consent, Examination, Finding, VoiceRecord
from heartvoice.voices.registry import Registry

OWNER = "studio"
PHRASE, REFERENCE = b"RIFF" + b"the phrase, read aloud " * 9, b"fLaC" + b"a voice of one's own " * 300


def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let registries and their keys sync nothing: only a power failure would tell, and no test has one."""
    kept = [pragma for pragma in database._PRAGMAS if not pragma.startswith("synchronous")]
    monkeypatch.setattr(database, "_PRAGMAS", (*kept, "synchronous = OFF"))
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Says:
    """Checks that find what a test says, by check."""

    def __init__(self, **passed: bool | None) -> None:
        self._passed = passed or {"words": True}
        self.examined: list[Consent] = []

    def examine(self, consent: Consent, phrase: bytes, references: Sequence[bytes]) -> Examination:
        self.examined.append(consent)
        return Examination(tuple(Finding(name, said, "so it is", {}) for name, said in self._passed.items()), "hello")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def ask(registry: Registry, owner: str = OWNER) -> Consent:
    return registry.consent(owner, speaker="J. Doe", purpose="demos", service="Studio Hill")


def enrol(registry: Registry, owner: str = OWNER, **passed: bool | None) -> VoiceRecord:
    return registry.enrol(owner, ask(registry, owner).id, PHRASE, [REFERENCE], Says(**passed))


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """An empty registry whose keys the environment names."""
    no_waiting_for_disks(monkeypatch)
    monkeypatch.setenv("HEARTVOICE_REGISTRY_KEYS", str(tmp_path / "keys"))
    with Registry(tmp_path / "registry", create=True) as made:
        yield made
