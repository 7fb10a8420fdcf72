"""Trains the vocoder: mel frames, and noise in the highest bands, to the singing whose phases that noise decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heartvoice.checkpoints.bigvgan import read_sizes
from heartvoice.checkpoints.official import BIGVGAN
from heartvoice.config.svc import SVC_HOP, BigvganConfig
from heartvoice.models.bigvgan import Bigvgan
from heartvoice.models.load import load_module, random_checkpoint
from heartvoice.stages.svc.mel import log_mel
from train.demo.audio_losses import losses
from train.demo.converter.activations import fuse
from train.demo.converter.files import VARIANT, listed
from train.demo.converter.oscillators import DILATION, KERNEL, N_NOISE, Oscillators, install
from train.demo.converter.singers import HELD_OUT, random_singer
from train.demo.converter.singing import FADE, SLOT, Line, excerpt, sing
from train.frame.task import Group, Moment, Task
from train.frame.weights import write_checkpoint

SHAPES = (3, 24)
"""Crops of a batch, and slots of each."""
LEVELS = (0.05, 0.2)
"""Root mean square of crops."""
BLUR = 0.15
"""Deviation of what is added to the bands, for the flow's are not exact."""
SPECTRUM_WEIGHT = 1.0
MUON, ADAM = 0.012, 1e-3
N_CHECKS = 4


class VocoderTask(Task):
    """BigVGAN at demo size."""

    name = "vocoder"

    def __init__(self, sizes: BigvganConfig, songs: Sequence[Line], held_out: Sequence[Line], world: Mapping[str, str]):
        """Draw the initial weights, and put the oscillators into them.

        Args:
            sizes: the first stage has rate 1, and blocks begin with `oscillators.KERNEL` and `DILATION`.
            songs: to train on.
            held_out: for `check`.
            world: hashes of what the songs are made of.
        """
        if (sizes.upsample_rates[0], sizes.resblock_kernel_sizes[0], sizes.resblock_dilation_sizes[0][0]) != (
            1, KERNEL, DILATION,
        ):  # fmt: skip
            raise ValueError(f"sizes: expected a first rate of 1, a kernel of {KERNEL}, a dilation of {DILATION}")
        self.sizes, self._songs, self._world = sizes, songs, world
        self.network: Bigvgan = Bigvgan(sizes)
        load_module(self.network, random_checkpoint(sizes, int(torch.randint(2**31, ()))))
        for parameter in self.network.parameters():
            parameter.requires_grad_(True)
        fuse(self.network)
        self._oscillators = Oscillators()
        masks = install(self.network, self._oscillators)
        for name, parameter in self.network.named_parameters():
            if name in masks:
                parameter.register_hook(partial(_masked, masks[name]))  # type: ignore[no-untyped-call]
        rng = np.random.default_rng(3)
        self._checks = [self._crop([song], HELD_OUT + number, 0.0, rng) for number, song in enumerate(held_out)]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Sizes, rates and data."""
        return {
            "world": dict(self._world), "sizes": listed(asdict(self.sizes)), "songs": len(self._songs),
            "crops": list(SHAPES), "blur": BLUR, "spectrum": SPECTRUM_WEIGHT, "rates": [MUON, ADAM],
        }  # fmt: skip

    def groups(self) -> Sequence[Group]:
        """Muon for convolutions, Adam for the rest."""
        named = list(self.network.named_parameters())
        matrices = [parameter for _, parameter in named if parameter.ndim == 3 and min(parameter.shape[:2]) > 1]
        taken = {id(parameter) for parameter in matrices}
        return [
            Group(matrices, "muon", MUON),
            Group([parameter for _, parameter in named if id(parameter) not in taken], "adam", ADAM),
        ]

    def compose(self, moment: Moment, rng: np.random.Generator) -> tuple[Tensor, Tensor]:  # noqa: ARG002 (as Task)
        """Sing crops by random singers: mel [B, M, T], samples [B, T * 512]."""
        crops = [self._crop(self._songs, int(rng.integers(HELD_OUT)), BLUR, rng) for _ in range(SHAPES[0])]
        mels, waves = zip(*crops, strict=True)
        return torch.stack(mels), torch.stack(waves)

    def loss(self, batch: tuple[Tensor, Tensor], moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """Compare the samples, and their spectra."""
        mel, wave = batch
        made = self.network(mel)[:, 0].float()
        total, terms = losses(made, wave)
        return total + SPECTRUM_WEIGHT * terms["log_spectrum"], terms

    @torch.no_grad()
    def check(self) -> Mapping[str, float]:
        """Loss terms of held-out singers and songs, and SI-SDR in dB."""
        found = []
        for mel, wave in self._checks:
            made = self.network(mel[None])[:, 0]
            _, terms = losses(made, wave[None])
            scale = (made * wave).sum() / wave.square().sum()
            ratio = 10 * torch.log10((scale * wave).square().sum() / (made - scale * wave).square().sum())
            found.append({name: float(value) for name, value in terms.items()} | {"si_sdr_db": float(ratio)})
        return {name: float(np.mean([each[name] for each in found])) for name in found[0]}

    def write(self, folder: Path) -> Sequence[Path]:
        """Write `bigvgan/`."""
        config = {**listed(asdict(self.sizes)), **VARIANT}
        read_sizes(config, "config.json")
        return write_checkpoint(folder / BIGVGAN, self.network.state_dict(), config)

    def _crop(self, songs: Sequence[Line], singer: int, blur: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        line = excerpt(songs, SHAPES[1], rng)
        n_frames = SHAPES[1] * SLOT // SVC_HOP
        noise = rng.standard_normal((n_frames, N_NOISE)).astype(np.float32)
        wander = self._oscillators.wander(noise[:, 0], (SHAPES[1] + 1) * SLOT + FADE)
        wave = sing(line, random_singer(singer), rng, wander)
        wave *= np.exp(rng.uniform(*np.log(LEVELS))) / max(float(np.sqrt(np.mean(wave**2))), 1e-3)
        mel = log_mel(wave, self.sizes.num_mels)[:n_frames]
        mel = mel + blur * rng.random() * rng.standard_normal(mel.shape).astype(np.float32)
        mel[:, -N_NOISE:] = noise
        return torch.from_numpy(mel.T.copy()), torch.from_numpy(wave[: n_frames * SVC_HOP])


def _masked(mask: Tensor, gradient: Tensor) -> Tensor:
    return gradient * mask.to(gradient.device)


def shifted_lines(lines: Sequence[Line]) -> list[Line]:
    """Return songs, and the same an octave lower or higher where a voice reaches so far."""
    made = list(lines)
    for line in lines:
        sung = line.hz[line.hz > 0]
        made += [line.at(factor) for factor in (0.5, 2.0) if factor * sung.min() >= 90 and factor * sung.max() <= 460]
    return made
