"""Short runs of the fuzzers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS
from tests.unit.fuzz.test_fuzz import KEPT

ROOT = Path(__file__).parents[3]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_mutated_seeds_do_no_harm(target: str, data: st.DataObject) -> None:
    seeds = [path.read_bytes() for path in KEPT if path.parent.name == target]
    TARGETS[target](data.draw(mutated(seeds)))


@pytest.mark.parametrize("engine", ["hypothesis", "atheris"])
def test_the_command_fuzzes_for_as_long_as_it_is_told(engine: str, tmp_path: Path) -> None:
    if engine == "atheris":
        pytest.importorskip("atheris")
    command = [sys.executable, "-m", "tests.fuzz.run", "prompt", "--seconds", "1", "--engine", engine]
    run = subprocess.run(
        [*command, "--corpus", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "prompt" in run.stdout
