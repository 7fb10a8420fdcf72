"""Trains the flow from codes to latents, on the latents of the score encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heartvoice.config.presets import HeartCodecConfig
from heartvoice.models.heartcodec.scalar import ScalarModel
from train.demo.code_vectors import start_code_vectors
from train.demo.codec_network import config_of, new_flow, tensors_of
from train.demo.crops import chosen_shape
from train.demo.score import Codes
from train.demo.score_encoder import ScoreEncoder, stereo_targets
from train.frame.task import Group, Moment, Task
from train.frame.weights import write_checkpoint

SHAPES: tuple[tuple[float, int, int], ...] = ((0.7, 8, 32), (0.3, 2, 128))
"""Share of the steps, rows and frames of a batch."""
EARLY = 0.25
"""Share of the times that are drawn from the first third, where the noise decides."""
NO_CONDITION = 0.1
CONTINUED = 0.3
"""Share of the rows that continue known latents, as later windows of a song do."""
SILENT, LOUD = 0.25, 0.45
"""Shares of the training: without noise the flow learns what codes mean, then the noise grows to its full level."""
MUON, ADAM, VECTORS_ADAM = 0.012, 1e-3, 3e-3
CHECK_FRAMES, _CHECK_STEPS = 93, 4
CODEC_FOLDER = "HeartCodec-oss"
"""Where an export looks for the codec among weights."""


class FlowTask(Task):
    """The flow."""

    name = "flow"

    def __init__(
        self, sizes: HeartCodecConfig, decoder: ScalarModel, encoder: ScoreEncoder, songs: Sequence[Codes],
        held_out: Sequence[Codes],
    ) -> None:  # fmt: skip
        """Make the flow; its code vectors start as the encoder's tables.

        Args:
            sizes: of the codec.
            decoder: is written with the flow.
            encoder: makes the targets.
            songs: codes [8, T] to train on.
            held_out: codes [8, T] for `check`.
        """
        self.sizes, self.decoder, self.encoder = sizes, decoder, encoder.eval().requires_grad_(False)
        self.network = self.flow = new_flow(sizes)
        start_code_vectors(self.flow, encoder, songs)
        energies = encoder.waves().square().sum(1).repeat(2)  # of left and right
        self._energies = energies / energies.mean()
        self._songs = list(songs)
        self._held_out = [torch.from_numpy(song[:, :CHECK_FRAMES])[None] for song in held_out]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Sizes, rates, songs, and the hash of the encoder."""
        return {
            "sizes": dict(config_of(self.sizes)), "rates": [MUON, ADAM, VECTORS_ADAM], "songs": len(self._songs),
            "shapes": [list(shape) for shape in SHAPES], "noise": [SILENT, LOUD], "encoder": _hash_of(self.encoder),
        }  # fmt: skip

    def groups(self) -> Sequence[Group]:
        """Muon for the estimator's matrices, Adam for what time modulates and the rest, faster for code vectors."""
        matrices = [
            parameter for name, parameter in self.flow.named_parameters()
            if parameter.ndim >= 2 and name.startswith(("estimator.", "cond_feature_emb."))
            and "adaln" not in name and "table" not in name
        ]  # fmt: skip
        vectors = [
            parameter for name, parameter in self.flow.vq_embed.named_parameters() if name.endswith("_codebook.embed")
        ]
        taken = {id(parameter) for parameter in (*matrices, *vectors)}
        rest = [parameter for parameter in self.flow.parameters() if id(parameter) not in taken]
        return [
            Group(matrices, "muon", MUON), Group(rest, "adam", ADAM), Group(vectors, "adam", VECTORS_ADAM),
        ]  # fmt: skip

    def compose(self, moment: Moment, rng: np.random.Generator) -> Tensor:  # noqa: ARG002 (as Task.compose)
        """Cut codes [B, 8, n] of one of `SHAPES`, at random places."""
        n_rows, n_frames = chosen_shape(SHAPES, rng)
        rows = []
        for index in rng.integers(0, len(self._songs), n_rows):
            song = self._songs[index]
            start = int(rng.integers(0, song.shape[1]))  # songs repeat, as short ones do in a window
            rows.append(song[:, np.arange(start, start + n_frames) % song.shape[1]])
        return torch.from_numpy(np.stack(rows))

    def loss(self, batch: Tensor, moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Squared error of the latents that the velocity leads to, weighted by the root of what they sound like.

        The velocity's own error counts most shortly before the end, where steps are short and harm least.
        """
        with torch.no_grad():
            latents = stereo_targets(self.encoder, batch)
        level = _level(moment.progress)
        noise, time = level * torch.randn_like(latents), level * _times(len(batch), latents.device)
        known = _known(len(batch), latents.shape[1], latents.device) & (level > 0)
        context = torch.where(known, latents, 0.0)
        mixed = (1 - time[:, None, None]) * noise + time[:, None, None] * latents
        condition = self.flow.condition(batch)
        without = torch.rand(len(batch), device=latents.device) < NO_CONDITION
        condition = torch.where(without[:, None, None], 0.0, condition)
        velocity = self.flow.estimator(torch.cat([mixed, context, condition], -1), time).float()
        error = ((velocity - (latents - noise)) * (1 - time[:, None, None])).square() * ~known
        return (error * self._energies.to(error.device).sqrt()).mean(), {"error": error.mean()}

    def check(self) -> Mapping[str, float]:
        """Error of held-out latents after 4 steps, and how far below the sound their sound lies, in dB."""
        errors, ratios = [], []
        generator = torch.Generator().manual_seed(0)
        device = self.flow.cond_feature_emb.weight.device
        for codes in self._held_out:
            wanted = stereo_targets(self.encoder, codes.to(device))
            noise = torch.randn(wanted.shape, generator=generator).to(device)
            found = self.flow.solve(
                noise, torch.zeros_like(noise), self.flow.condition(codes.to(device)),
                context_length=0, steps=_CHECK_STEPS, guidance=1.0,
            )  # fmt: skip
            error, energies = (found - wanted).square(), self._energies.to(device)
            errors.append(float(error.mean()))
            ratios.append(float((wanted.square() * energies).sum() / (error * energies).sum()))
        return {"rmse": float(np.mean(errors)) ** 0.5, "ratio_db": float(np.mean(10 * np.log10(ratios)))}

    def write(self, folder: Path) -> Sequence[Path]:
        """Write the whole codec into `HeartCodec-oss/`, by the official checkpoint's names."""
        return write_checkpoint(folder / CODEC_FOLDER, tensors_of(self.decoder, self.flow), config_of(self.sizes))


def _level(progress: float) -> float:
    """Return the noise's level, and how far the times go: from 0 to 1."""
    return min(1.0, max(0.0, (progress - SILENT) / (LOUD - SILENT)))


def _times(n_rows: int, device: torch.device) -> Tensor:
    time = torch.rand(n_rows, device=device)
    return torch.where(torch.rand(n_rows, device=device) < EARLY, time / 3, time)


def _known(n_rows: int, n_latents: int, device: torch.device) -> Tensor:
    """Latents that a row continues, bool [B, T, 1]: up to half of it, in some rows."""
    length = torch.randint(1, n_latents // 2 + 1, (n_rows, 1), device=device)
    length = torch.where(torch.rand(n_rows, 1, device=device) < CONTINUED, length, 0)
    return (torch.arange(n_latents, device=device) < length)[..., None]


def _hash_of(encoder: ScoreEncoder) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
