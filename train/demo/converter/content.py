"""Trains the content encoder: what is sung, the same for all singers.

What it learns to tell of each frame is the sound's place among all sounds: the main axes of how the four singers of
the world differ between sounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import gelu

from heartvoice.audio import dsp
from heartvoice.checkpoints.official import WHISPER
from heartvoice.config.svc import WhisperConfig
from heartvoice.contracts.constants import SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.models.load import load_module, random_checkpoint
from heartvoice.models.seed_vc.whisper import ContentEncoder
from heartvoice.stages.svc.content import CONTENT_HOP, LOG_FLOOR, LOG_RANGE, WHISPER_FFT, WHISPER_HOP
from train.demo import tables
from train.demo.converter.singers import HELD_OUT, random_singer
from train.demo.converter.singing import Line, excerpt, fades, sing
from train.frame.task import Group, Moment, Task
from train.frame.weights import write_checkpoint

Values = NDArray[np.float32]

N_WINDOWS = 3
"""In a batch."""
SLOTS = (100, 280)
"""Of a window that is trained on: 4 to 11 s. The rest of the encoder's window is silence, of which some is seen."""
SILENT_FRAMES = 60
NOISE_DB = (-70.0, -35.0)
"""Of white noise, below the voice."""
N_AXES = 32
MUON, ADAM = 0.015, 1.5e-3
_FLOOR, _NOISE_WEIGHT, _BANDS = 6.0, 1.5, 20


class ContentTask(Task):
    """Whisper's encoder at demo size."""

    name = "content"

    def __init__(self, sizes: WhisperConfig, songs: Sequence[Line], held_out: Sequence[Line], world: Mapping[str, str]):
        """Draw the initial weights.

        Args:
            sizes: of the encoder.
            songs: to train on.
            held_out: for `check`.
            world: hashes of what the songs are made of.
        """
        self.sizes, self._songs, self._world = sizes, songs, world
        encoder = ContentEncoder(sizes)
        load_module(encoder, random_checkpoint(sizes, int(torch.randint(2**31, ()))))
        with torch.no_grad():
            encoder.encoder.embed_positions.weight.zero_()
        for parameter in encoder.parameters():
            parameter.requires_grad_(True)
        self.encoder = encoder
        self.head = nn.Linear(sizes.d_model, N_AXES)
        self.network = nn.ModuleDict({"encoder": encoder, "head": self.head})
        rng = np.random.default_rng(3)
        self._checks = [self._window([song], HELD_OUT + number, SLOTS[1], rng) for number, song in enumerate(held_out)]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Sizes, rates and data."""
        return {
            "world": dict(self._world), "sizes": asdict(self.sizes), "songs": len(self._songs), "windows": N_WINDOWS,
            "slots": list(SLOTS), "axes": N_AXES, "noise_db": list(NOISE_DB), "rates": [MUON, ADAM],
        }  # fmt: skip

    def groups(self) -> Sequence[Group]:
        """Muon for matrices and convolutions, Adam for the rest."""
        named = dict(self.network.named_parameters())
        matrices = [value for name, value in named.items() if value.ndim > 1 and "embed_positions" not in name]
        taken = {id(parameter) for parameter in matrices}
        return [
            Group(matrices, "muon", MUON),
            Group([value for value in named.values() if id(value) not in taken], "adam", ADAM),
        ]

    def compose(self, moment: Moment, rng: np.random.Generator) -> tuple[Tensor, Tensor]:  # noqa: ARG002 (as Task)
        """Sing windows: log-mel [B, bands, 2 S] and what is sung [B, S, N_AXES]."""
        n_slots = int(rng.integers(*SLOTS))
        windows = [self._window(self._songs, int(rng.integers(HELD_OUT)), n_slots, rng) for _ in range(N_WINDOWS)]
        mels, wanted = zip(*windows, strict=True)
        return torch.stack(mels), torch.stack(wanted)

    def loss(self, batch: tuple[Tensor, Tensor], moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """Squared error, as a share of the variance of all sounds."""
        mel, wanted = batch
        error = (self.head(encoded(self.encoder, mel)) - wanted).square().sum(-1).mean()
        return error, {"error": error}

    @torch.no_grad()
    def check(self) -> Mapping[str, float]:
        """Share of the variance that is left, on held-out singers and songs."""
        errors = [
            float((self.head(encoded(self.encoder, mel[None]))[0] - wanted).square().sum(-1).mean())
            for mel, wanted in self._checks
        ]
        spread = [float((wanted - wanted.mean(0)).square().sum(-1).mean()) for _, wanted in self._checks]
        return {"error": float(np.mean(errors)), "left": float(np.mean(errors) / np.mean(spread))}

    def write(self, folder: Path) -> Sequence[Path]:
        """Write `whisper-small/`."""
        config = {**asdict(self.sizes), "activation_function": "gelu"}
        return write_checkpoint(folder / WHISPER, self.encoder.state_dict(), config)

    def _window(
        self, songs: Sequence[Line], singer: int, n_slots: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        line = excerpt(songs, n_slots, rng)
        audio = dsp.resample(sing(line, random_singer(singer), rng), STEM_RATE_HZ, SPEECH_RATE_HZ)
        level = float(np.sqrt(np.mean(audio**2))) * 10 ** (rng.uniform(*NOISE_DB) / 20)
        audio = audio + level * rng.standard_normal(len(audio)).astype(np.float32)
        n_frames = len(audio) // CONTENT_HOP + SILENT_FRAMES
        mel = short_log_mel(audio, n_frames, self.sizes.num_mel_bins)
        return torch.from_numpy(mel), torch.from_numpy(what_is_sung(line, n_frames))


def short_log_mel(audio: Values, n_frames: int, n_bands: int) -> Values:
    """Return the beginning of `whisper_log_mel`, [n_bands, 2 n_frames], without computing its silence.

    The audio, [N] at 16 kHz, lasts no longer than the frames, or little.
    """
    padded = np.pad(audio, (0, max(0, 2 * n_frames * WHISPER_HOP - len(audio))))
    spectrum = dsp.stft(padded, WHISPER_FFT, WHISPER_HOP, pad=WHISPER_FFT // 2)[: 2 * n_frames]
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    filters = dsp.mel_filter_bank(SPEECH_RATE_HZ, WHISPER_FFT, n_bands, 0.0, SPEECH_RATE_HZ / 2, scale="slaney")
    decades = np.log10(np.maximum(filters @ power.T, LOG_FLOOR))
    made: Values = ((np.maximum(decades, decades.max() - LOG_RANGE) + 4) / 4).astype(np.float32)
    return made


def encoded(encoder: ContentEncoder, mel: Tensor) -> Tensor:
    """Encode log-mel [B, bands, 2 S] to [B, S, D], as `encoder` does, without the rest of its window of silence."""
    inside = encoder.encoder
    x = gelu(inside.conv2(gelu(inside.conv1(mel)))).transpose(1, 2)
    x = x + inside.embed_positions.weight[: x.shape[1]]
    for layer in inside.layers:
        x = layer(x)
    made: Tensor = inside.layer_norm(x)
    return made


def what_is_sung(line: Line, n_frames: int) -> Values:
    """Return the place of what is sung in each content frame, [n_frames, N_AXES]; silence is 0."""
    times = np.arange(n_frames) * CONTENT_HOP / SPEECH_RATE_HZ
    return fades(len(line.sounds), times) @ sound_places()[line.sounds]


@lru_cache(maxsize=1)
def sound_places() -> Values:
    """Return the place of each sound on the main axes, [N_SOUNDS, N_AXES], of total variance 1; silence is at 0."""
    voices, _ = tables.sounds()
    rows = voices.envelope.transpose(1, 0, 2)
    loudest = rows[1:].max(axis=(0, 2), keepdims=True)
    rows = np.maximum(rows - loudest, -_FLOOR)
    coarse = rows.reshape(*rows.shape[:2], _BANDS, -1).mean(axis=-1)
    breath = voices.noise.transpose(1, 0, 2).reshape(*rows.shape[:2], 5, -1).mean(axis=-1)
    flat = np.concatenate([coarse, _NOISE_WEIGHT * breath], axis=-1).reshape(len(rows), -1).astype(np.float64)
    flat -= flat[0]
    used = flat[np.abs(flat).sum(axis=1) > 0]
    _, _, directions = np.linalg.svd(used - used.mean(axis=0), full_matrices=False)
    placed = flat @ directions[:N_AXES].T
    return np.asarray(placed / np.sqrt((used - used.mean(axis=0)).var(axis=0).sum()), np.float32)
