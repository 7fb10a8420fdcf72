"""Every seed that was kept; slow tests mutate them for a moment, and `make fuzz` for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.seeds import FOLDER, SEEDS
from tests.fuzz.targets import TARGETS

KEPT = sorted(path for path in FOLDER.rglob("*") if path.is_file())


def test_every_target_has_seeds() -> None:
    assert set(SEEDS) == set(TARGETS) == {path.parent.name for path in KEPT}
    assert sum(path.stat().st_size for path in KEPT) < 300_000


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_kept_seeds_do_no_harm(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    TARGETS[path.parent.name](path.read_bytes())
    assert list(tmp_path.iterdir()) == [], "a file was made: what it holds was run"


def test_a_target_that_fails_keeps_what_it_failed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fuzz import run

    def fails(data: bytes) -> None:
        assert not data

    monkeypatch.setitem(TARGETS, "prompt", fails)
    assert run.with_hypothesis("prompt", 1.0, tmp_path) is False
    (crash,) = (tmp_path / "prompt").glob("crash-*")
    with pytest.raises(AssertionError):
        fails(crash.read_bytes())
