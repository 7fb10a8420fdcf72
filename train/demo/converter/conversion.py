"""Trains regulator and flow: what one singer sings, to the mel frames of another who sings the same.

Source and target are both rendered: same notes, perhaps an octave apart, and same words. The bands above all sound of
the world are noise for the vocoder: there the flow learns to stay where it begins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heartvoice.audio.dsp import resample
from heartvoice.audio.levels import at_level, loudness_levels, voice_level
from heartvoice.config.svc import SVC_HOP, SvcConfig
from heartvoice.contracts.constants import F0_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.models.load import load_module, random_checkpoint
from heartvoice.models.seed_vc.dit import TIME_WIDTH, Velocity
from heartvoice.models.seed_vc.regulator import Regulator
from heartvoice.models.seed_vc.whisper import ContentEncoder
from heartvoice.stages.svc.content import CONTENT_HOP
from heartvoice.stages.svc.flow import sample
from heartvoice.stages.svc.mel import log_mel
from heartvoice.stages.svc.pitch import pitch_bins, shifted
from heartvoice.stages.svc.stage import PROMPT_DBFS
from heartvoice.stages.svc.windows import nearest_index
from train.demo.converter.content import encoded, short_log_mel
from train.demo.converter.files import listed, write_seed_vc
from train.demo.converter.oscillators import HIGHEST_HZ, LOWEST_HZ, N_NOISE
from train.demo.converter.singers import HELD_OUT, STYLE_WIDTH, random_singer, style_of
from train.demo.converter.singing import SLOT, Line, excerpt, sing
from train.demo.slots import FADE_SAMPLES
from train.frame.task import Group, Moment, Task

SHAPES = ((0.85, 5, 40, 75), (0.15, 1, 250, 350))
"""Share of the steps, rows, slots of the prompt, and slots of the song."""
ALONE = 0.1
"""Share of rows without prompt, style and condition, for guidance."""
STYLE_NOISE = 0.25
"""Of the styles that are trained with, for the encoder's are not exact."""
PITCH_SLIPS = 0.02
"""Share of the values of a contour that are taken as unvoiced."""
MUON, ADAM = 0.012, 1e-3
CHECK_STEPS = 10
CHECK_SLOTS = (75, 100)
MEL_MEAN, MEL_DEVIATION = -6.0, 2.5
"""Of the world's log-mel."""


class Batch(NamedTuple):
    """Rows of one shape: P frames of prompt, T of the song."""

    mels: tuple[Tensor, Tensor]
    """Whisper's log-mel of prompt and source, [B, bands, 2 S]."""
    bins: tuple[Tensor, Tensor]
    """Pitch of prompt and target, int64 [B, P] and [B, T]."""
    prompt: Tensor
    """[B, P, M]."""
    target: Tensor
    """[B, T, M]."""
    style: Tensor
    """[B, STYLE_WIDTH]."""


class ConversionTask(Task):
    """Regulator and flow at demo size, over a trained content encoder."""

    name = "conversion"

    def __init__(
        self, sizes: SvcConfig, encoder: ContentEncoder, songs: Sequence[Line], held_out: Sequence[Line],
        world: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Draw the initial weights.

        Args:
            sizes: of the converter's networks.
            encoder: trained; it is not trained here.
            songs: to train on.
            held_out: for `check`.
            world: hashes of what the songs are made of.
        """
        if sizes.dit.style_dim != STYLE_WIDTH:
            raise ValueError(f"sizes: expected a style of {STYLE_WIDTH}, got {sizes.dit.style_dim}")
        self.sizes, self._songs, self._world = sizes, songs, world
        self._encoder = encoder.eval().requires_grad_(False)
        self.regulator, self.flow = Regulator(sizes.regulator), Velocity(sizes.dit)
        seed = int(torch.randint(2**31, ()))
        load_module(self.regulator, random_checkpoint(sizes.regulator, seed))
        load_module(self.flow, random_checkpoint(sizes.dit, seed))
        _begin(self.flow)
        self.network = nn.ModuleDict({"regulator": self.regulator, "cfm": self.flow}).requires_grad_(True)
        rng = np.random.default_rng(3)
        self._checks = [
            self._row([song], HELD_OUT + 2 * number, CHECK_SLOTS, rng) for number, song in enumerate(held_out)
        ]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Sizes, rates and data."""
        content = self._encoder.state_dict()["encoder.conv1.weight"].double().square().sum()
        return {
            "world": dict(self._world), "sizes": listed(asdict(self.sizes)), "songs": len(self._songs),
            "shapes": listed(SHAPES), "alone": ALONE, "style_noise": STYLE_NOISE, "slips": PITCH_SLIPS,
            "rates": [MUON, ADAM], "content": round(float(content), 6),
        }  # fmt: skip

    def groups(self) -> Sequence[Group]:
        """Muon for matrices and convolutions, Adam for the rest."""
        named = dict(self.network.named_parameters())
        matrices = [
            value for name, value in named.items()
            if value.ndim > 1 and "f0_embedding" not in name and "f0_mask" not in name and "final_mlp.2" not in name
        ]  # fmt: skip
        taken = {id(parameter) for parameter in matrices}
        return [
            Group(matrices, "muon", MUON),
            Group([value for value in named.values() if id(value) not in taken], "adam", ADAM),
        ]

    def compose(self, moment: Moment, rng: np.random.Generator) -> tuple[Any, ...]:  # noqa: ARG002
        """Sing rows of one shape by random singers: the fields of a `Batch`."""
        n_rows, *slots = SHAPES[int(rng.choice(len(SHAPES), p=[share for share, *_ in SHAPES]))][1:]
        rows = [self._row(self._songs, int(rng.integers(HELD_OUT)), (slots[0], slots[1]), rng) for _ in range(n_rows)]
        return tuple(_stacked(rows))

    def loss(self, batch: tuple[Any, ...], moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """Mean squared error of the velocity over the song's frames."""
        given = Batch(*batch)
        style = given.style + STYLE_NOISE * torch.randn_like(given.style)
        cond = self._condition(given)
        prompt = nn.functional.pad(given.prompt, (0, 0, 0, given.target.shape[1]))
        kept = (torch.rand(len(style), device=style.device) >= ALONE).float()
        begin = torch.randn_like(given.target)
        wanted = given.target - begin
        wanted[..., -N_NOISE:] = 0.0
        t = torch.rand(len(style), device=style.device)
        state = begin + t[:, None, None] * wanted
        head = given.prompt.shape[1]
        state = nn.functional.pad(state, (0, 0, head, 0))
        found = self.flow(state, prompt * kept[:, None, None], style * kept[:, None], cond * kept[:, None, None], t)[
            :, head:
        ]
        error = (found.float() - wanted).square()
        return error.mean(), {"sound": error[..., :-N_NOISE].mean(), "noise": error[..., -N_NOISE:].mean()}

    @torch.no_grad()
    def check(self) -> Mapping[str, float]:
        """Distance of held-out mel frames from the target's, and of the source's from it, in nats."""
        found, before = [], []
        for number, row in enumerate(self._checks):
            made = self.convert(row, CHECK_STEPS, torch.Generator().manual_seed(number))
            bands = slice(0, self.sizes.dit.in_channels - N_NOISE)
            found.append(float((made[..., bands] - row.target[..., bands]).abs().mean()))
            before.append(float((row.target[..., bands] - row.target[..., bands].mean(1, keepdim=True)).abs().mean()))
        return {"mel": float(np.mean(found)), "mean_frame": float(np.mean(before))}

    def convert(self, batch: Batch, steps: int, generator: torch.Generator, guidance: float = 0.0) -> Tensor:
        """Solve the flow for a batch: [B, T, M]."""
        head = batch.prompt.shape[1]
        noise = torch.randn(
            (len(batch.style), head + batch.target.shape[1], batch.target.shape[2]), generator=generator
        )

        def velocity(x: Tensor, prompt: Tensor, t: float, style: Tensor, cond: Tensor) -> Tensor:
            made: Tensor = self.flow(x, prompt, style, cond, torch.full((len(x),), t))
            return made

        cond = self._condition(batch)
        made: Tensor = sample(noise, batch.prompt, batch.style, cond, steps=steps, guidance=guidance, velocity=velocity)
        return made[:, head:]

    def write(self, folder: Path) -> Sequence[Path]:
        """Write `seed-vc/`."""
        sizes = (self.sizes.regulator, self.sizes.dit)
        return write_seed_vc(folder, sizes, self.regulator.state_dict(), self.flow.state_dict())

    def _condition(self, batch: Batch) -> Tensor:
        """Regulate prompt and song, each by itself: [B, P + T, D]."""
        made = []
        for mel, bins in zip(batch.mels, batch.bins, strict=True):
            with torch.no_grad():
                content = encoded(self._encoder, mel)
            index = torch.from_numpy(nearest_index(content.shape[1], bins.shape[1])).to(mel.device)
            made.append(self.regulator(content, index, bins))
        return torch.cat(made, 1)

    def _row(self, songs: Sequence[Line], singer: int, slots: tuple[int, int], rng: np.random.Generator) -> Batch:
        target = random_singer(singer)
        source = random_singer(singer + 1 if singer >= HELD_OUT else int(rng.integers(HELD_OUT)))
        prompt_line, line = (excerpt(songs, n, rng) for n in slots)
        higher = _octave(line, rng)
        prompt = sing(prompt_line, target, rng)
        level = voice_level(loudness_levels(_speech(prompt)))
        sung = at_level(sing(higher, target, rng), level, PROMPT_DBFS)
        prompt = at_level(prompt, level, PROMPT_DBFS)
        heard = sing(line, source, rng)
        bands, n_mels = self.sizes.whisper.num_mel_bins, self.sizes.dit.in_channels
        mels, bins = [], []
        for audio, of in ((prompt, prompt_line), (heard, higher)):
            speech = _speech(audio)
            mels.append(torch.from_numpy(short_log_mel(speech, len(speech) // CONTENT_HOP + 1, bands))[None])
            bins.append(torch.from_numpy(_bins(of, len(audio) // SVC_HOP, of is higher, rng))[None])
        return Batch(
            (mels[0], mels[1]), (bins[0], bins[1]), torch.from_numpy(log_mel(prompt, n_mels))[None],
            torch.from_numpy(log_mel(sung, n_mels))[None], torch.from_numpy(style_of(target))[None],
        )  # fmt: skip


def _begin(flow: Velocity) -> None:
    """Set what random weights should not be when they are trained: times, norms, scales of the mel, bands of noise."""
    estimator, n_mels, half = flow.estimator, flow.sizes.in_channels, TIME_WIDTH // 2
    with torch.no_grad():
        times = estimator.t_embedder.get_buffer("freqs")
        times.copy_(torch.exp(-math.log(10_000) * torch.arange(half) / half))
        for name, parameter in estimator.named_parameters():
            if name.endswith("project_layer.weight"):
                parameter.mul_(0.1)
            elif name.endswith("project_layer.bias"):
                width = len(parameter) // 2
                parameter[:width], parameter[width:] = 1.0, 0.0
            elif name.endswith(("wo.weight", "w2.weight")):
                parameter.mul_(0.3)
        named = dict(estimator.named_parameters())
        merge = named["cond_x_merge_linear.weight"]
        merge[:, :n_mels] /= MEL_DEVIATION / 2
        merge[:, n_mels : 2 * n_mels] /= MEL_DEVIATION
        named["final_mlp.2.weight"][-N_NOISE:] = 0
        named["final_mlp.2.bias"][:-N_NOISE], named["final_mlp.2.bias"][-N_NOISE:] = MEL_MEAN, 0


def _octave(line: Line, rng: np.random.Generator) -> Line:
    """Move a line by an octave, in two rows of five, if a voice reaches so far."""
    factor = float(rng.choice([0.5, 1.0, 1.0, 1.0, 2.0]))
    sung = line.hz[line.hz > 0]
    inside = len(sung) and factor * sung.min() >= LOWEST_HZ and factor * sung.max() <= HIGHEST_HZ
    return line.at(factor) if inside else line


def _bins(line: Line, n_frames: int, moved: bool, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the pitch bins of mel frames, int64 [n_frames], as a tracker and the regulator's inputs would."""
    n_values = len(line.hz) * SLOT * F0_RATE_HZ // STEM_RATE_HZ + 1
    places = np.arange(n_values) / F0_RATE_HZ * STEM_RATE_HZ - FADE_SAMPLES * STEM_RATE_HZ / 48_000 / 2
    slots = np.clip((places / SLOT).astype(int), 0, len(line.hz) - 1)
    contour = np.where(line.sounds[slots] > 0, line.hz[slots], 0.0)
    contour = np.where(rng.random(n_values) < PITCH_SLIPS, 0.0, contour)
    if moved:
        contour = shifted(contour, 0.0)
    made: NDArray[np.int64] = pitch_bins(contour)[nearest_index(n_values, n_frames)]
    return made


def _speech(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    return resample(audio, STEM_RATE_HZ, SPEECH_RATE_HZ)


def _stacked(rows: Sequence[Batch]) -> Batch:
    def joined(parts: Sequence[Any]) -> Any:
        return tuple(map(joined, zip(*parts, strict=True))) if isinstance(parts[0], tuple) else torch.cat(list(parts))

    return Batch(*(joined(parts) for parts in zip(*rows, strict=True)))
