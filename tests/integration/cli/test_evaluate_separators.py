"""`heartvoice evaluate separators`, with exports and songs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from heartvoice.cli.main import app
from tests.support.music import song


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One song of a second with its stems."""
    folder = tmp_path_factory.mktemp("songs")
    (folder / "one").mkdir()
    for name, samples in zip(("mix", "vocals", "instrumental"), song(1.0), strict=True):
        soundfile.write(folder / "one" / f"{name}.wav", np.asarray(samples).T, 44_100, subtype="FLOAT")
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", "separators", *map(str, arguments)], env={"COLUMNS": "160"})


def test_exports_are_compared_and_one_that_fails_is_named(repository: Path, songs: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(repository, broken)
    index = json.loads((broken / "repository.json").read_text())
    index["graphs"]["htdemucs"]["sha256"] = "0" * 64
    (broken / "repository.json").write_text(json.dumps(index))
    done = run(tmp_path, "--songs", songs, "--repository", repository, "--repository", tmp_path, "--threads", "1")
    assert done.exit_code == 1, done.output
    assert f"htdemucs ({repository.name})" in done.stdout
    assert "htdemucs (broken): failed: one: htdemucs:" in " ".join(done.stdout.split())
    assert "random weights" in done.stdout
    good, bad = json.loads((songs / "evaluation" / "separators.json").read_text())["separators"]
    assert good["random_weights"]
    assert set(good["mean_si_sdr_db"]) == {"vocals", "instrumental"}
    assert good["rtf"] > 0
    assert good["peak_mb"] > 50
    assert bad["songs"] == []


def test_what_is_missing_is_said(songs: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((tmp_path,), "expected a song or folders of songs, got none"),
        ((songs, "--repository", tmp_path), "expected an exported repository"),
        ((songs, "--songs", songs), "expected an exported repository"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2, done.output
        assert message in done.output
