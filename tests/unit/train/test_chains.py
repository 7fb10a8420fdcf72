"""Chains of commands: in order, side by side, and stopped together."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import pytest

from train.demo import everything
from train.demo.__main__ import parser
from train.frame.chains import Step, run_chains
from train.frame.command import PAUSED

WAIT = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
open(sys.argv[1], "w").close()  # blocks until somebody reads
signal.pause()
"""
READ_THEN = "import sys; open(sys.argv[1]).close(); {}"


def script(name: str, code: str, *arguments: object, result: Path | None = None) -> Step:
    command = (sys.executable, "-I", "-S", "-c", code, *map(str, arguments))
    return Step(name, command, result, (0, 1) if result else (0,))


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_chains_run_side_by_side_and_their_steps_in_order(tmp_path: Path, fifo: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    code, codes = run_chains([
        [script("writes", "import sys; open(sys.argv[1], 'w').close(); print(1)", fifo, result=first),
         script("misses", "import sys; print(open(sys.argv[1]).read() * 2); sys.exit(1)", first, result=second)],
        [script("reads", READ_THEN.format("pass"), fifo)],
    ])  # fmt: skip
    assert (code, codes) == (0, {"writes": 0, "misses": 1, "reads": 0})
    assert (first.read_text().split(), second.read_text().split()) == (["1"], ["1", "1"])


@pytest.mark.parametrize(("ends", "told"), [("sys.exit(2)", 2), ("import os; os.abort()", 128 + 6)])
def test_a_failure_stops_the_others_which_save(tmp_path: Path, fifo: Path, ends: str, told: int) -> None:
    later = tmp_path / "later.json"
    code, codes = run_chains([
        [script("training", WAIT, fifo), script("later", "print(1)", result=later)],
        [script("fails", READ_THEN.format(ends), fifo)],
    ])  # fmt: skip
    assert code == told
    assert codes["training"] == PAUSED
    assert not later.exists()


def test_a_signal_is_passed_on_once_and_no_step_begins_after_it(tmp_path: Path) -> None:
    counts = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
os.kill(os.getppid(), signal.SIGINT)
signal.pause()
"""
    unsaved = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"  # before its handlers are there
    later = tmp_path / "later.json"
    code, codes = run_chains([[script("training", counts), script("later", "print(1)", result=later)]])
    assert (code, codes) == (PAUSED, {"training": PAUSED})
    assert not later.exists()
    assert run_chains([[script("killed", unsaved)]])[0] == 128 + 15, "nobody had asked it to stop"


@pytest.fixture
def args(tmp_path: Path) -> argparse.Namespace:
    return parser().parse_args(["all", "--folder", str(tmp_path), "--steps", "2", "--minutes", "1.5", "--bf16"])


def test_the_commands_of_all_are_commands(args: argparse.Namespace, tmp_path: Path) -> None:
    chains = [*everything.trainings(args), *everything.evaluations(tmp_path)]
    assert [[step.name for step in chain] for chain in chains] == [
        ["lm"], ["decoder", "flow"], ["evaluate-lm"], ["evaluate-codec"]
    ]  # fmt: skip
    told = {step.name: parser().parse_args(list(step.command[3:])) for chain in chains for step in chain}
    for name in everything.TRAININGS:
        assert (told[name].state, told[name].steps, told[name].minutes) == (tmp_path / name, 2, 1.5)
        assert told[name].bf16
    assert told["flow"].decoder == told["evaluate-codec"].decoder == told["decoder"].state
    written = {told["lm"].output, told["flow"].output}
    assert written == {told["evaluate-lm"].weights, told["evaluate-codec"].weights} == {tmp_path / "weights"}


def test_what_was_made_says_sizes_seeds_and_what_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(1000))
    reports = {
        "training-lm": {"recipe": {"seed": 7}, "step": 5, "total": 5, "seconds": 9, "torch": "2"},
        "evaluation-lm": {"word_error": 0.2, "met": {"word_error": False, "tags": True}, "passed": False},
        "evaluation-codec": {"mean": {"flow_si_sdr_db": 15.0}, "missed": ["flow_si_sdr_db"]},
    }
    for name, report in reports.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    monkeypatch.setattr(everything, "LIMIT_BYTES", 1100)
    about = everything.made(tmp_path)
    size = 1000 + sum(len(json.dumps(report)) for report in reports.values())
    assert about["bytes"] == size
    assert about["missed"] == [
        "lm: word_error", "codec: flow_si_sdr_db", f"size: {size} bytes, the limit is 1100"
    ]  # fmt: skip
    assert about["trainings"] == {"lm": {"steps": 5, "of": 5, "seconds": 9, "seed": 7, "torch": "2"}}
    assert about["measured"]["codec"] == {"flow_si_sdr_db": 15.0}
    assert set(about["sha256"]) == {"weights.bin", *(f"{name}.json" for name in reports)}
