"""A process that is killed at any step of a change leaves the state before or after it."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from heartvoice.errors import InvalidRequestError
from heartvoice.secret_files import replace_secret
from heartvoice.voices.database import FILE, Database
from heartvoice.voices.limits import Limits
from heartvoice.voices.registry import Registry
from tests.support import killed_registry
from tests.support.voices import OWNER, PHRASE, REFERENCE, Says, ask, enrol

Change = Callable[[Registry, str], object]
"""Takes a registry and the id of a consent or a voice."""
CHANGES: dict[str, tuple[Change, set[str]]] = {
    "enrol": (lambda registry, consent: registry.enrol(OWNER, consent, PHRASE, [REFERENCE], Says()), {"", "pending"}),
    "approve": (lambda registry, voice: registry.approve(OWNER, voice, by="me", why="so"), {"unverified"}),
    "revoke": (lambda registry, voice: registry.revoke(OWNER, voice), {"verified"}),
    "purge": (lambda registry, voice: registry.purge(OWNER, voice), {"verified"}),
}
"""With the states in which a killed change may leave the voice, beside its own."""
AFTER = {"enrol": "verified", "approve": "verified", "revoke": "revoked", "purge": "purged"}
KILLED = """
import os, signal, sys
from pathlib import Path
from heartvoice.voices import keys
from heartvoice.voices.database import Database
from heartvoice.voices.registry import Registry
from tests.unit.voices.test_faults import CHANGES
folder, change, subject, after = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
registry, run, count = Registry(folder / "registry", keys=folder / "keys"), Database.run, 0
def counted(self, statement, *values):
    global count
    count += 1
    if count == after:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(self, statement, *values)
Database.run = counted
CHANGES[change][0](registry, subject)
print(count)
"""


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it and go on."""


def prepared(folder: Path, change: str) -> str:
    """Make a registry in a folder; return the id of what the change takes."""
    with Registry(folder / "registry", keys=folder / "keys", create=True, limits=Limits(10**6, 10**6)) as registry:
        if change == "enrol":
            return ask(registry).id
        return enrol(registry, words=None if change == "approve" else True).status.id


def check(folder: Path, change: str, subject: str, *, finished: bool) -> str:
    """Open the registry anew and check the voice's state, and that it sings by its state alone; return the state."""
    with Registry(folder / "registry", keys=folder / "keys") as registry:
        voices = registry.voices(OWNER)
        state = voices[0].state if voices else ""
        assert state in ({AFTER[change]} if finished else CHANGES[change][1] | {AFTER[change]})
        if voices:
            made = registry.voice(OWNER, voices[0].id)
            if state == "verified":
                assert registry.reference(OWNER, made.status.id).file == REFERENCE
            else:
                with pytest.raises(InvalidRequestError, match=f"is {state} and cannot sing"):
                    registry.reference(OWNER, made.status.id)
        rows = registry._database.run("SELECT subject FROM keys UNION SELECT subject FROM sealed")
        kept = {"": {subject}, "pending": set(), "purged": set()}.get(state, {voices[0].id} if voices else set())
        assert {row[0] for row in rows} == kept
        if change == "enrol" and state == "pending":  # the try is used up
            with pytest.raises(InvalidRequestError, match="was used"):
                CHANGES[change][0](registry, subject)
        elif state != AFTER[change]:
            CHANGES[change][0](registry, subject)
    return state


@pytest.mark.parametrize("change", CHANGES)
def test_every_statement_may_be_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    subject, run = prepared(tmp_path / "sound", change), Database.run
    steps, states = 0, set()

    def faulty(call: Callable[..., object]) -> Callable[..., object]:
        def stepped(*arguments: object) -> object:
            nonlocal steps
            steps -= 1
            if steps == 0:
                raise Killed
            return call(*arguments)

        return stepped

    for last in range(1, 100):
        shutil.copytree(tmp_path / "sound", tmp_path / "faulty")
        steps, finished = last, False
        registry = Registry(tmp_path / "faulty" / "registry", keys=tmp_path / "faulty" / "keys")
        with registry, monkeypatch.context() as patched:
            patched.setattr(Database, "run", faulty(run))
            patched.setattr("heartvoice.voices.keys.replace_secret", faulty(replace_secret))
            try:
                CHANGES[change][0](registry, subject)
                finished = True
            except Killed:
                pass
        states.add(check(tmp_path / "faulty", change, subject, finished=finished))
        shutil.rmtree(tmp_path / "faulty")
        if finished:
            break
    assert finished
    assert last > 5
    assert states == CHANGES[change][1] | {AFTER[change]}


@pytest.mark.parametrize(("change", "after"), [("enrol", 9), ("enrol", 24), ("purge", 9)])
def test_a_kill_leaves_a_registry_that_opens(tmp_path: Path, change: str, after: int) -> None:
    subject = prepared(tmp_path, change)
    command = [sys.executable, "-c", KILLED, str(tmp_path), change, subject, str(after)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    check(tmp_path, change, subject, finished=False)
    with Registry(tmp_path / "registry", keys=tmp_path / "keys") as registry:
        ask(registry)  # the next change takes the rest of the killed one away
    assert [path.name for path in (tmp_path / "registry").iterdir()] == [FILE]


@pytest.mark.parametrize("change", killed_registry.CHANGES)
def test_a_kill_at_a_random_moment_leaves_no_half_voice_and_no_trace(tmp_path: Path, change: str) -> None:
    # tests/nightly/voices/test_killed.py does this at 20 moments of each.
    subject, secrets = killed_registry.prepare(tmp_path, change)
    after_s = random.uniform(0.0, 0.05)
    killed_registry.kill(tmp_path, change, subject, after_s)
    killed_registry.check(tmp_path, change, secrets)
