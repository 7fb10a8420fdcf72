"""A registry whose process is killed by SIGKILL at a random moment of a change, and what may be left then."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from heartvoice.errors import InvalidRequestError
from heartvoice.voices.database import FILE
from heartvoice.voices.limits import Limits
from heartvoice.voices.registry import Registry
from tests.support.voices import OWNER, Says, ask, enrol

RECORDINGS = tuple(random.Random(seed).randbytes(400_000) for seed in (1, 2))
"""Phrase and reference. Large enough for the database to write many pages, without a byte pattern that repeats."""
PIECE = 24
_EVERY = 50_000
CHANGES: dict[str, Callable[[Registry, str], object]] = {
    "enrol": lambda registry, consent: registry.enrol(OWNER, consent, RECORDINGS[0], RECORDINGS[1:], Says()),
    "revoke": lambda registry, voice: registry.revoke(OWNER, voice),
    "purge": lambda registry, voice: registry.purge(OWNER, voice),
}
"""Takes a registry and the id of a consent or a voice."""
STATES = {"enrol": {"", "pending", "verified"}, "revoke": {"verified", "revoked"}, "purge": {"verified", "purged"}}
"""States of the voice that may be found after a killed change; "" is no voice."""
_CHANGING = """
import sys, time
from pathlib import Path
from heartvoice.voices.registry import Registry
from tests.support.killed_registry import CHANGES
with Registry(Path(sys.argv[1]) / "registry", keys=Path(sys.argv[1]) / "keys") as registry:
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    CHANGES[sys.argv[2]](registry, sys.argv[3])
    print(time.perf_counter() - began, flush=True)
"""


def opened(folder: Path, *, create: bool = False) -> Registry:
    """Open the registry of a folder, whose owners have no limits."""
    limits = Limits(10**9, 10**9)
    return Registry(folder / "registry", keys=folder / "keys", create=create, limits=limits)


def prepare(folder: Path, change: str) -> tuple[str, list[bytes]]:
    """Make a registry with a voice of somebody else's, and what the change takes.

    Returns:
        The id of the consent or voice, and the bytes that no file may have once that is purged.
    """
    with opened(folder, create=True) as registry:
        enrol(registry, "somebody")
        asked = ask(registry)
        subject = asked.id
        if change != "enrol":
            subject = registry.enrol(OWNER, asked.id, RECORDINGS[0], RECORDINGS[1:], Says()).status.id
        secrets = secrets_of(registry, subject)
    assert traces(folder, secrets) == [FILE], "they could be found"
    return subject, secrets


def secrets_of(registry: Registry, subject: str) -> list[bytes]:
    """Return a subject's key, wrapped and not, and pieces of what it sealed, sealed and not."""
    rows = registry._database.run("SELECT wrapped FROM keys WHERE subject = ?", subject)
    sealed = registry._database.run("SELECT content FROM sealed WHERE subject = ?", subject)
    whole = [registry._vault.key(subject), rows[0][0], *(row[0] for row in sealed), *RECORDINGS]
    return [each[at : at + PIECE] for each in whole for at in range(0, len(each) - PIECE + 1, _EVERY)]


def duration_s(folder: Path, change: str, subject: str) -> float:
    """Return the seconds that the change takes in a process of its own, undisturbed."""
    process = _start(folder, change, subject)
    said, complaint = process.communicate("go\n", timeout=120)
    assert process.returncode == 0, complaint
    return float(said)


def kill(folder: Path, change: str, subject: str, after_s: float) -> bool:
    """Begin the change in a process of its own, and kill it after a time; return whether it was still at it."""
    process = _start(folder, change, subject)
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    time.sleep(after_s)
    process.kill()
    said, _ = process.communicate(timeout=120)
    return not said


def _start(folder: Path, change: str, subject: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _CHANGING, str(folder), change, subject]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def check(folder: Path, change: str, secrets: list[bytes]) -> str:
    """Open what a killed change left: it has one of its states, sings by that alone, and can be purged without a trace.

    Returns:
        The state that was found.
    """
    with opened(folder) as registry:
        voices = registry.voices(OWNER)
        state = voices[0].state if voices else ""
        assert state in STATES[change]
        if state == "verified":
            assert registry.reference(OWNER, voices[0].id).file == RECORDINGS[1]
        elif voices:
            with pytest.raises(InvalidRequestError, match=f"is {state} and cannot sing"):
                registry.reference(OWNER, voices[0].id)
        if state == "purged":
            assert traces(folder, secrets) == []  # at once, without a later change that would tidy up
        for each in voices:
            secrets = [*secrets, *(secrets_of(registry, each.id) if each.state in ("verified", "revoked") else ())]
            assert registry.purge(OWNER, each.id).status.state == "purged"
        assert registry.voices("somebody")[0].state == "verified"
        if voices:
            assert traces(folder, secrets) == []
        else:
            ask(registry)  # a change takes away what the killed one had begun to write beside the database
    assert [path.name for path in (folder / "registry").iterdir()] == [FILE]
    return state


def traces(folder: Path, secrets: list[bytes]) -> list[str]:
    """Return the files that have one of these bytes."""
    files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return [name for name, content in files.items() if any(each in content for each in secrets)]
