"""Every seed that was kept; slow tests mutate them for a moment, and `make fuzz` for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutated
from tests.fuzz.seeds import FOLDER, SEEDS
from tests.fuzz.targets import TARGETS

KEPT = sorted(path for path in FOLDER.rglob("*") if path.is_file())
ROOT = Path(__file__).parents[3]


def test_every_target_has_seeds() -> None:
    assert set(SEEDS) == set(TARGETS) == {path.parent.name for path in KEPT}
    assert sum(path.stat().st_size for path in KEPT) < 300_000


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_kept_seeds_do_no_harm(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    TARGETS[path.parent.name](path.read_bytes())
    assert list(tmp_path.iterdir()) == [], "a file was made: what it holds was run"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_mutated_seeds_do_no_harm(target: str, data: st.DataObject) -> None:
    seeds = [path.read_bytes() for path in KEPT if path.parent.name == target]
    TARGETS[target](data.draw(mutated(seeds)))


@pytest.mark.slow
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


def test_a_target_that_fails_keeps_what_it_failed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fuzz import run

    def fails(data: bytes) -> None:
        assert not data

    monkeypatch.setitem(TARGETS, "prompt", fails)
    assert run.with_hypothesis("prompt", 1.0, tmp_path) is False
    (crash,) = (tmp_path / "prompt").glob("crash-*")
    with pytest.raises(AssertionError):
        fails(crash.read_bytes())
