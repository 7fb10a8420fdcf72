"""Trainings in several processes, and the language model's first steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heartvoice.config.presets import DEMO_IDS, DEMO_LM, TransformerConfig
from heartvoice.keyed_random import bits
from tests.support.small_training import Fit, options_of
from train.demo.lm.batches import batch_of
from train.demo.lm.examples import words_alone
from train.demo.lm.task import LmTask
from train.frame.loop import Options, train
from train.frame.state import load_state
from train.frame.task import Moment

SMALL = replace(
    DEMO_LM, backbone=TransformerConfig(2, 2, 1, 64, 96, 4096), decoder=TransformerConfig(1, 1, 1, 32, 48, 2048)
)


class Both(Fit):
    """What two processes do together, in one: the mean of their losses."""

    def compose(self, moment: Moment, rng: np.random.Generator) -> Any:
        keys = (f"fit/{rank}" for rank in (0, 1))
        return [super(Both, self).compose(moment, np.random.Generator(bits(0, key, moment.step))) for key in keys]

    def loss(self, batch: Any, moment: Moment) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        return torch.stack([super(Both, self).loss(part, moment)[0] for part in batch]).mean(), {}

    def check(self) -> Mapping[str, float]:
        return {}


def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    train(partial(Fit, dropout=0.0), options_of(tmp_path / "two", steps=3, processes=2))
    train(partial(Both, dropout=0.0), options_of(tmp_path / "one", steps=3))
    two, one = load_state(tmp_path / "two"), load_state(tmp_path / "one")
    assert two is not None
    assert one is not None
    torch.testing.assert_close(two.network, one.network, rtol=1e-3, atol=1e-3)  # Muon widens roundings


def test_copying_is_learnt_in_a_few_steps(tmp_path: Path) -> None:
    class Few(LmTask):
        def compose(self, moment: Moment, rng: np.random.Generator) -> dict[str, torch.Tensor]:
            examples = [words_alone(rng, 4) for _ in range(8)]
            return batch_of(examples, rng, eos_id=DEMO_IDS.audio_eos_id, blank=0.0)

        def check(self) -> dict[str, float]:
            return {}

    assert train(lambda: Few(SMALL, songs=2), Options(tmp_path, steps=12, log_steps=4))
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [entry["word"] for entry in entries if entry["event"] == "train"]
    assert losses[-1] < 0.9 * losses[0]
