"""The whole chain of the demo preset's trainings, at one step each, interrupted nowhere and called twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heartvoice.config.presets import PRESETS
from heartvoice.export.weights import song_weights


def run_all(folder: Path) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "train.demo", "all", "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--steps", "1", "--songs", "2", "--no-evaluation"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made, done.stderr


@pytest.mark.timeout(600)
def test_the_chain_makes_weights_that_an_export_takes_and_goes_on_where_it_was(tmp_path: Path) -> None:
    made, told = run_all(tmp_path)
    told_of = {name: (each["steps"], each["of"], each["seed"]) for name, each in made["trainings"].items()}
    assert told_of == dict.fromkeys(("lm", "decoder", "flow"), (1, 1, 0))
    assert made["bytes"] < made["limit_bytes"]
    assert made["missed"] == []
    assert all(f"{name}: step 0 of 1" in told for name in made["trainings"])
    weights = song_weights(tmp_path / "weights", PRESETS["demo"], 0)
    assert weights.origin_of("codec") == "demo weights: a small procedural world, not HeartMuLa's"
    assert weights.preset.ids.first_word_id is not None
    again, told = run_all(tmp_path)
    assert all(f"{name}: step 1 of 1" in told for name in made["trainings"])
    assert again["sha256"] == made["sha256"]
