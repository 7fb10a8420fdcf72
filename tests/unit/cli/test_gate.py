"""The gate's command: what it refuses before work, and how a run ends."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import heartvoice
from heartvoice.cli import gate as cli
from heartvoice.cli import gate_world
from heartvoice.cli.main import app
from heartvoice.contracts.network_names import NETWORKS
from heartvoice.errors import SetupError
from heartvoice.evaluation.gate.measures import Values
from heartvoice.evaluation.gate.world import GateCover, GateSong
from heartvoice.runtime.repository import FORMAT, INDEX

run = CliRunner()
SONGS = [GateSong(f"song {number}", "pop", "la", 9.0) for number in range(3)]
COVERS = [GateCover(f"cover {number}", "la") for number in range(2)]
WORLD = SimpleNamespace(identity="list 1", songs=lambda: SONGS, covers=lambda: COVERS)


def repository(folder: Path, *random: str, weights: str = "1") -> str:
    """An index of a repository, some of whose networks have random weights."""
    folder.mkdir(exist_ok=True)
    origins = {name: "random seed=0" if name in random else "official" for name in NETWORKS}
    index = {"format": FORMAT, "preset": "demo", "weights": "official", "origins": origins, "sources": {"lm": weights}}
    (folder / INDEX).write_text(json.dumps(index))
    return str(folder)


class Sound:
    """What the measured system is worth, and what was asked of it."""

    def __init__(self) -> None:
        self.si_sdr = 18.0
        self.asked: list[tuple[list[str], list[int]]] = []

    def runs(self, _world: Any, _serve: Path, listed: cli.Listed, seeds: range) -> dict[int, dict[str, Values]]:
        names = [song.name for song in listed.songs] + [cover.name for cover in listed.covers]
        self.asked.append((names, list(seeds)))
        return {seed: {name: {f"{name.split()[0]} loudness": self.si_sdr} for name in names} for seed in seeds}


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> Sound:
    made = Sound()
    monkeypatch.setattr(cli, "open_world", lambda: WORLD)
    monkeypatch.setattr(cli, "_runs", made.runs)
    return made


def gate(folder: Path, *options: str, weights: str = "1") -> Any:
    """Run the command over a repository."""
    fixed = ["--serve", repository(folder / "demo", weights=weights), "--baseline", str(folder / "gate.json")]
    return run.invoke(app, ["evaluate", "gate", *fixed, "--output", str(folder / "out"), *options])


def test_a_run_passes_or_fails_by_the_committed_numbers(sound: Sound, tmp_path: Path) -> None:
    done = gate(tmp_path, "--write", "--seeds", "3", "--seed", "5")
    assert done.exit_code == 0, done.output
    assert sound.asked == [(["song 0", "song 1", "song 2", "cover 0", "cover 1"], [5, 6, 7])]
    done = gate(tmp_path, "--songs", "1", "--covers", "1")
    assert done.exit_code == 0, done.output
    assert sound.asked[-1] == (["song 0", "cover 0"], [0])
    assert json.loads((tmp_path / "out/gate.json").read_text())["passed"] is True
    assert (tmp_path / "out/gate.png").exists()
    sound.si_sdr = 19.0
    done = gate(tmp_path, "--json")
    assert done.exit_code == 1
    assert "error: gate: worse than the baseline: song loudness, cover loudness" in done.stderr
    assert json.loads(done.stdout)["passed"] is False


def test_numbers_of_other_weights_hold_only_if_that_is_asked(sound: Sound, tmp_path: Path) -> None:
    gate(tmp_path, "--write", "--seeds", "3")
    done = gate(tmp_path, weights="2")
    assert done.exit_code == 1
    assert "made with another weights: lm; make it anew with --write" in done.output
    assert len(sound.asked) == 1, "it is said before work"
    assert gate(tmp_path, "--other-weights", weights="2").exit_code == 0


def test_without_numbers_nothing_is_compared(sound: Sound, tmp_path: Path) -> None:
    done = gate(tmp_path)
    assert done.exit_code == 1
    assert "gate.json: no such file" in done.output
    assert not sound.asked


@pytest.mark.parametrize(
    ("random", "options", "said"),
    [
        (("lm",), [], "expected trained weights, got random ones of language model"),
        (("svc_cfm",), ["--covers", "2"], "--covers: expected 0"),
        (("vocoder",), ["--songs", "0"], "expected something to measure, got nothing"),
        ((), ["--write", "--songs", "2"], "expected the whole list, got a part of it"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_work(
    sound: Sound, tmp_path: Path, random: tuple[str, ...], options: list[str], said: str
) -> None:
    fixed = ["--serve", repository(tmp_path / "demo", *random), "--baseline", str(tmp_path / "gate.json")]
    (tmp_path / "gate.json").write_text("{}")
    done = run.invoke(app, ["evaluate", "gate", *fixed, *options])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert not sound.asked


def test_covers_of_a_random_converter_are_left_out_and_that_is_said(sound: Sound, tmp_path: Path) -> None:
    fixed = ["--serve", repository(tmp_path / "demo", "svc_cfm"), "--baseline", str(tmp_path / "gate.json")]
    done = run.invoke(app, ["evaluate", "gate", *fixed, "--write"])
    assert done.exit_code == 0, done.output
    assert "not measured: covers: the converter's weights are random" in done.output
    assert sound.asked[0][0] == ["song 0", "song 1", "song 2"]


def test_an_installed_package_says_where_the_songs_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(heartvoice, "__file__", str(tmp_path / "site-packages/heartvoice/__init__.py"))
    with pytest.raises(SetupError, match=r"expected a checkout, got the package in .*site-packages"):
        gate_world.open_world()
