"""kill -9 at 20 random moments during each change of a registry: nothing half-done works, nothing purged is found."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.support.killed_registry import CHANGES, check, duration_s, kill, prepare

N_POINTS = 20
"""Kills during each change."""
MOST_POINTS = 200
_SEED = 17


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("change", CHANGES)
def test_a_kill_at_any_moment_leaves_the_state_before_or_after(tmp_path: Path, change: str) -> None:
    subject, secrets = prepare(tmp_path / "sound", change)
    shutil.copytree(tmp_path / "sound", tmp_path / "timed")
    whole_s = longest_s = duration_s(tmp_path / "timed", change, subject)
    moments = random.Random(_SEED)
    found: Counter[str] = Counter()
    n_during = 0
    for point in range(MOST_POINTS):
        folder = tmp_path / f"killed {point}"
        shutil.copytree(tmp_path / "sound", folder)
        after_s = moments.uniform(0.0, longest_s)
        if kill(folder, change, subject, after_s):
            n_during += 1
        else:
            longest_s = after_s  # it was done by then: on a busy machine the undisturbed change took longer
        found[check(folder, change, secrets)] += 1
        shutil.rmtree(folder)
        if n_during == N_POINTS:
            break
    print(f"{change}: {whole_s:.3f} s undisturbed, {n_during} killed during it, states {dict(found)}")
    assert n_during == N_POINTS, "the moments have missed the change"
