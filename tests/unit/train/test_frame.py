"""The training frame: it goes on exactly where it ended, and keeps what it had."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from heartvoice.checkpoints.file_hash import sha256
from tests.support.small_training import Fit, options_of
from train.frame import state as states
from train.frame.command import PAUSED, Command, add_training, run
from train.frame.errors import TrainingError
from train.frame.loop import train
from train.frame.muon import Muon, orthogonalise
from train.frame.optimisers import Optimisers
from train.frame.schedule import FLOOR, rate_factor
from train.frame.state import load_state
from train.frame.task import Group
from train.frame.weights import write_checkpoint


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / states.LOG).read_text().splitlines()]


def same(one: states.State | None, other: states.State | None) -> bool:
    assert one is not None
    assert other is not None
    return all(torch.equal(value, other.network[name]) for name, value in one.network.items())


@pytest.mark.parametrize("workers", [0, 1])
def test_two_sittings_of_five_steps_make_the_weights_of_ten(tmp_path: Path, workers: int) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(Fit, options_of(whole))
    assert not train(partial(Fit, stop_at=4), options_of(halves, workers=workers))
    paused = load_state(halves)
    assert paused is not None
    assert paused.step == 5
    assert train(Fit, options_of(halves))
    assert same(load_state(whole), load_state(halves))
    kept = [(entry["event"], entry["step"]) for entry in log_of(halves)]
    assert [step for event, step in kept if event == "train"] == [2, 4, 6, 8, 10]
    assert [(e, s) for e, s in kept if e != "train"] == [
        ("start", 0), ("check", 4), ("pause", 5), ("start", 5), ("check", 8), ("check", 10), ("end", 10)
    ]  # fmt: skip


def test_the_loss_falls(tmp_path: Path) -> None:
    train(Fit, options_of(tmp_path, steps=240, log_steps=40, check_steps=1000))
    errors = [entry["error"] for entry in log_of(tmp_path) if entry["event"] == "train"]
    assert errors[-1] < 0.75 * errors[0]


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(partial(Fit, stop_at=4), options_of(tmp_path))
    before = (tmp_path / states.FILE).read_bytes()

    def killed(value: object, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(OSError, match="No space left"):
        train(Fit, options_of(tmp_path))
    assert (tmp_path / states.FILE).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [states.LOCK, states.LOG, states.FILE]
    monkeypatch.undo()
    assert train(Fit, options_of(tmp_path))
    assert [entry["step"] for entry in log_of(tmp_path) if entry["event"] == "train"] == [2, 4, 6, 8, 10]


def test_what_a_killed_save_has_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".{states.FILE}.0123abcd.part").write_bytes(b"half")
    train(Fit, options_of(tmp_path, steps=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [states.LOCK, states.LOG, states.FILE]


def test_a_state_belongs_to_one_training_at_a_time(tmp_path: Path) -> None:
    with states.owned(tmp_path), pytest.raises(TrainingError, match="another training runs in"):
        train(Fit, options_of(tmp_path))


@pytest.mark.parametrize(
    ("make_task", "changes", "message"),
    [
        (partial(Fit, width=9), {}, "width is 8 in the state and 9 now"),
        (Fit, {"seed": 1}, "seed is 0 in the state and 1 now"),
        (Fit, {"steps": 4}, "has 5 steps already, got 4"),
    ],
)
def test_a_state_of_another_training_is_refused(
    tmp_path: Path, make_task: Any, changes: dict[str, Any], message: str
) -> None:
    train(partial(Fit, stop_at=4), options_of(tmp_path))
    with pytest.raises(TrainingError, match=message):
        train(make_task, options_of(tmp_path, **changes))


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / states.FILE).write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(TrainingError, match=r"state\.pt: not a training state"):
        train(Fit, options_of(tmp_path))


def test_a_gradient_that_is_not_finite_keeps_the_state(tmp_path: Path) -> None:
    train(partial(Fit, stop_at=4), options_of(tmp_path))
    before = (tmp_path / states.FILE).read_bytes()
    with pytest.raises(TrainingError, match="step 7: the gradient is not finite"):
        train(partial(Fit, poison=7), options_of(tmp_path))
    assert (tmp_path / states.FILE).read_bytes() == before


def test_the_rate_warms_up_stays_and_falls() -> None:
    factors = [rate_factor(step, 1000) for step in range(1000)]
    assert factors[0] == pytest.approx(0.01)
    assert set(factors[99:199]) == {1.0}
    assert np.all(np.diff(factors[200:]) < 0)
    assert factors[-1] == pytest.approx(FLOOR)
    assert factors[:190] == [rate_factor(step, 5000) for step in range(190)]  # a longer training begins alike


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (6, 4, 5)])
def test_a_step_of_muon_is_relative_to_the_weight(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    before = weight.detach().clone()
    weight.grad = 1e-6 * torch.randn(shape)
    Muon([weight], lr=0.01).step()
    moved = (weight.detach() - before).flatten(1)
    tall = max(1.0, moved.shape[0] / moved.shape[1]) ** 0.5
    assert float(moved.norm() / before.norm() / tall) == pytest.approx(0.01, rel=0.2)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(9, 30)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_every_parameter_is_in_one_group() -> None:
    network = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="bias and 0 more parameters are in no group"):
        Optimisers(network, [Group([*network.parameters()][:1], "muon", 0.1)])
    with pytest.raises(ValueError, match="at least two axes"):
        Optimisers(network, [Group(list(network.parameters()), "muon", 0.1)])


def test_weights_too_large_for_float16_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="w: a weight is too large for float16"):
        write_checkpoint(tmp_path, {"w": torch.tensor([1e6])}, {})
    files = write_checkpoint(tmp_path, {"w": torch.tensor([1.5]), "n": torch.tensor([3])}, {"a": 1})
    first = files[0].read_bytes()
    write_checkpoint(tmp_path, {"n": torch.tensor([3]), "w": torch.tensor([1.5])}, {"a": 1})
    assert files[0].read_bytes() == first


# --------------------------------------------------------------------------------------------------------- commands


def run_command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_training(parser, Command(lambda _args: Fit(), steps=10))
    return run(parser, [*arguments])


def test_a_sitting_whose_time_is_over_goes_on_and_writes_its_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, output = tmp_path / "state", tmp_path / "weights"
    assert run_command("--state", str(state), "--minutes", "0") == PAUSED
    assert "run the same command again" in capsys.readouterr().err
    assert run_command("--state", str(state), "--output", str(output)) == 0
    printed = json.loads(capsys.readouterr().out)
    about = json.loads((output / "training-fit.json").read_text())
    assert about["step"] == about["total"] == 10
    assert about["recipe"] == {"bf16": False, "processes": 1, "seed": 0, "task": "fit", "width": 8}
    assert about["sha256"] == printed["sha256"]
    assert set(about["sha256"]) == {"config.json", "model.safetensors"}
    assert about["sha256"]["model.safetensors"] == sha256(output / "model.safetensors")
    assert (output / "training-fit.jsonl").read_text() == (state / states.LOG).read_text()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--device", "abacus", "--device: expected cpu, cuda or cuda:N, got 'abacus'"),
        ("--device", "mps", "--device: expected cpu, cuda or cuda:N, got 'mps'"),
        ("--seed", "1", "seed is 0 in the state and 1 now; use another --state"),
    ],
)
def test_a_wrong_option_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    run_command("--state", str(tmp_path), "--minutes", "0")
    capsys.readouterr()
    assert run_command("--state", str(tmp_path), option, value) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
