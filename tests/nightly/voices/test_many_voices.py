"""10,000 enrolments: each costs what the first ones cost, owners stay apart, and a purged voice leaves nothing.

The checks of the recordings are faked here, and disks are not waited for; all else is the real registry.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path

import pytest

from heartvoice.errors import InvalidRequestError
from tests.support.killed_registry import PIECE, opened, traces
from tests.support.voices import PHRASE, Says, ask, no_waiting_for_disks

N_VOICES, N_OWNERS, N_PURGED = 10_000, 100, 50
MOST_GROWTH = 3.0
"""How much longer than the first thousand enrolments the last thousand may take, in CPU time."""
MOST_OPENING_S = 30.0
"""CPU seconds in which the log of all is read and checked."""


def reference(number: int) -> bytes:
    """A voice of its own for each number: no two share a byte pattern of `PIECE`."""
    return b"fLaC" + random.Random(number).randbytes(3000)


@pytest.mark.timeout(3600)
def test_ten_thousand_voices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_waiting_for_disks(monkeypatch)
    voices: list[str] = []
    seconds: list[float] = []
    with opened(tmp_path, create=True) as registry:
        for number in range(N_VOICES):
            owner = f"owner {number % N_OWNERS}"
            began = time.process_time()
            made = registry.enrol(owner, ask(registry, owner).id, PHRASE, [reference(number)], Says())
            seconds.append(time.process_time() - began)
            voices.append(made.status.id)
    assert len(set(voices)) == N_VOICES
    first, last = (statistics.mean(part) for part in (seconds[:1000], seconds[-1000:]))
    began = time.process_time()
    with opened(tmp_path) as registry:
        opening_s = time.process_time() - began
        print(
            f"{N_VOICES} enrolments: {1e3 * statistics.mean(seconds):.1f} ms of CPU time each, the first thousand "
            f"{1e3 * first:.1f} ms, the last {1e3 * last:.1f} ms; opened in {opening_s:.1f} s"
        )
        assert last < MOST_GROWTH * first
        assert opening_s < MOST_OPENING_S
        chosen = random.Random(3).sample(range(N_VOICES), 2 * N_PURGED)
        kept, gone = chosen[:N_PURGED], chosen[N_PURGED:]
        secrets = []
        for number in gone:
            owner = f"owner {number % N_OWNERS}"
            secrets += [registry._vault.key(voices[number]), reference(number)[4 : 4 + PIECE]]
            secrets += [
                row[0][:PIECE]
                for row in registry._database.run("SELECT content FROM sealed WHERE subject = ?", voices[number])
            ]
            registry.purge(owner, voices[number])
        for number in kept:
            owner = f"owner {number % N_OWNERS}"
            assert registry.reference(owner, voices[number]).file == reference(number)
            with pytest.raises(InvalidRequestError, match="there is none"):
                registry.reference(f"owner {(number + 1) % N_OWNERS}", voices[number])
        assert len(registry.voices("owner 0")) == N_VOICES // N_OWNERS
    assert traces(tmp_path, secrets) == []
