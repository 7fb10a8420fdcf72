"""Trains the style encoder: a recording of a singer to where that singer stands among all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heartvoice.audio.dsp import resample
from heartvoice.checkpoints.official import CAMPPLUS
from heartvoice.config.presets import CampplusConfig
from heartvoice.contracts.constants import SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.models.campplus import Campplus
from heartvoice.models.load import load_module, random_checkpoint
from heartvoice.stages.speaker import campplus_features
from train.demo.converter.files import listed, write_torch
from train.demo.converter.singers import HELD_OUT, STYLE_WIDTH, random_singer, style_of
from train.demo.converter.singing import Line, excerpt, sing
from train.frame.task import Group, Moment, Task

N_SINGERS = 8
"""In a batch: its norms are over all of them."""
SLOTS = (60, 140)
"""Of a recording: 2.4 to 5.6 s."""
NOISE = 1e-4
"""Level of white noise: silence has some."""
MUON, ADAM = 0.012, 1.5e-3
N_CHECKS = 24


class StyleTask(Task):
    """CAMPPlus at demo size."""

    name = "style"

    def __init__(
        self, sizes: CampplusConfig, songs: Sequence[Line], held_out: Sequence[Line], world: Mapping[str, str]
    ) -> None:
        """Draw the initial weights.

        Args:
            sizes: of the encoder; its embedding has `STYLE_WIDTH` numbers.
            songs: to train on.
            held_out: for `check`.
            world: hashes of what the songs are made of.
        """
        if sizes.embedding != STYLE_WIDTH:
            raise ValueError(f"sizes: expected an embedding of {STYLE_WIDTH}, got {sizes.embedding}")
        self.sizes, self._songs, self._world = sizes, songs, world
        self.network: Campplus = Campplus(sizes)
        load_module(self.network, random_checkpoint(sizes, int(torch.randint(2**31, ()))))
        for parameter in self.network.parameters():
            parameter.requires_grad_(True)
        rng = np.random.default_rng(3)
        self._checks = [self._recording(held_out, HELD_OUT + number, 150, rng) for number in range(N_CHECKS)]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Sizes, rates and data."""
        return {
            "world": dict(self._world), "sizes": listed(asdict(self.sizes)), "songs": len(self._songs),
            "singers": N_SINGERS, "slots": list(SLOTS), "rates": [MUON, ADAM],
        }  # fmt: skip

    def groups(self) -> Sequence[Group]:
        """Muon for convolutions, Adam for the rest."""
        named = list(self.network.parameters())
        matrices = [value for value in named if value.ndim > 1 and min(value.shape[:2]) > 1]
        taken = {id(parameter) for parameter in matrices}
        return [
            Group(matrices, "muon", MUON),
            Group([value for value in named if id(value) not in taken], "adam", ADAM),
        ]

    def compose(self, moment: Moment, rng: np.random.Generator) -> tuple[Tensor, Tensor]:  # noqa: ARG002 (as Task)
        """Sing recordings of one length: features [B, T, bands] and styles [B, S]."""
        n_slots = int(rng.integers(*SLOTS))
        made = [self._recording(self._songs, int(rng.integers(HELD_OUT)), n_slots, rng) for _ in range(N_SINGERS)]
        features, styles = zip(*made, strict=True)
        return torch.stack(features), torch.stack(styles)

    def loss(self, batch: tuple[Tensor, Tensor], moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """Mean squared error of the styles' numbers, whose variance is about 1."""
        features, styles = batch
        error = (self.network(features) - styles).square().mean()
        return error, {"error": error}

    @torch.no_grad()
    def check(self) -> Mapping[str, float]:
        """Error on held-out singers, and the share of them whose style is nearest to their own."""
        found = torch.cat([self.network(features[None]) for features, _ in self._checks])
        wanted = torch.stack([style for _, style in self._checks])
        nearest = torch.cdist(found, wanted).argmin(1) == torch.arange(len(wanted))
        return {"error": float((found - wanted).square().mean()), "identified": float(nearest.float().mean())}

    def write(self, folder: Path) -> Sequence[Path]:
        """Write `campplus/campplus_cn_common.bin`."""
        return [write_torch(folder / CAMPPLUS, self.network.state_dict())]

    def _recording(
        self, songs: Sequence[Line], singer: int, n_slots: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        voice = random_singer(singer)
        audio = resample(sing(excerpt(songs, n_slots, rng), voice, rng), STEM_RATE_HZ, SPEECH_RATE_HZ)
        audio = audio + NOISE * rng.standard_normal(len(audio)).astype(np.float32)
        (features,) = campplus_features(audio, self.sizes.n_bands)
        return torch.from_numpy(features), torch.from_numpy(style_of(voice))
