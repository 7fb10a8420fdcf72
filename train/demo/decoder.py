"""Trains the scalar decoder on the latents of the score encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heartvoice.config.presets import HeartCodecConfig
from heartvoice.evaluation.measures import SI_SDR_LIMIT_DB, si_sdr_db
from train.demo import layout, polyphase
from train.demo.audio_losses import losses
from train.demo.codec_network import config_of, new_decoder
from train.demo.crops import Crops, Renderer, chosen_shape, cut, mix
from train.demo.decoder_start import start_as_synthesis
from train.demo.score import Codes
from train.demo.score_encoder import SLOTS, ScoreEncoder, flipped, rounded
from train.frame.errors import TrainingError
from train.frame.task import Group, Moment, Task

SHAPES: tuple[tuple[float, int, int], ...] = ((0.3, 6, 6), (0.4, 2, 16), (0.3, 1, 32))
"""Share of the steps, crops and frames of a batch: short ones for variety, long ones beyond the decoder's memory."""
FLIPS = 0.2
"""Share of latents that are a level off."""
MUON, ADAM = 0.002, 3e-4
_BETAS = (0.8, 0.99)
_CLIP = 5.0
CHECK_FRAMES = 48


class DecoderTask(Task):
    """The decoder; the state has the score encoder, too."""

    name = "decoder"
    clip = _CLIP

    def __init__(
        self, sizes: HeartCodecConfig, renderer: Renderer, songs: Sequence[Codes], held_out: Sequence[Codes],
        world: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Make the encoder, and a decoder that begins as a linear synthesis.

        Args:
            sizes: of the codec; its latents are those of `SLOTS`.
            renderer: makes the sound of songs.
            songs: codes [8, T] to train on.
            held_out: codes [8, T] for `check`.
            world: hashes of what the renderer and the songs are made of.

        Raises:
            ValueError: the sizes do not fit the score encoder or the layout.
        """
        if sizes.latent_hidden_dim != sum(SLOTS.values()) or sizes.frame_hop != layout.FRAME_SAMPLES:
            raise ValueError(
                f"sizes: expected {sum(SLOTS.values())} latents and frames of {layout.FRAME_SAMPLES} samples, got "
                f"{sizes.latent_hidden_dim} and {sizes.frame_hop}"
            )
        self.sizes, self._renderer, self._songs, self._world = sizes, renderer, songs, dict(world)
        self.decoder, self.encoder = new_decoder(sizes), ScoreEncoder()
        self.encoder.start_from(renderer, songs)
        start_as_synthesis(self.decoder, self.encoder.waves())
        self.network = nn.ModuleDict({"decoder": self.decoder, "encoder": self.encoder})
        self._held_out = [_held_out(song, renderer, index % 2) for index, song in enumerate(held_out)]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Sizes, rates, and the songs."""
        return {
            "world": self._world, "sizes": dict(config_of(self.sizes)), "slots": SLOTS, "layout": list(layout.SIZES),
            "shapes": [list(shape) for shape in SHAPES],
            "flips": FLIPS, "rates": [MUON, ADAM], "songs": len(self._songs),
            "frames": sum(song.shape[1] for song in self._songs),
        }  # fmt: skip

    def groups(self) -> Sequence[Group]:
        """Muon for convolutions, Adam for the rest."""
        convolutions = [
            parameter for name, parameter in self.decoder.named_parameters()
            if parameter.ndim == 3 and parameter.shape[0] > 1 and not name.endswith("original0")
        ]  # fmt: skip
        taken = {id(parameter) for parameter in convolutions}
        rest = [parameter for parameter in self.decoder.parameters() if id(parameter) not in taken]
        return [Group(convolutions, "muon", MUON), Group(rest, "adam", ADAM, betas=_BETAS)]

    def compose(self, moment: Moment, rng: np.random.Generator) -> dict[str, Tensor]:  # noqa: ARG002 (as Task.compose)
        """Cut crops of one of `SHAPES`."""
        return _tensors(cut(self._songs, self._renderer, chosen_shape(SHAPES, rng), rng))

    def loss(self, batch: dict[str, Tensor], moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002 (as Task.loss)
        """Decode the score's latents; the first latent, which lacks its past, does not count."""
        with torch.no_grad():
            latents = flipped(rounded(self.encoder(batch["codes"], batch["channel"])), FLIPS)
        decoded = polyphase.decode(self.decoder, latents).float()
        return losses(decoded[:, layout.ATOM_SAMPLES :], batch["audio"][:, layout.ATOM_SAMPLES :])

    def check(self) -> Mapping[str, float]:
        """SI-SDR of held-out crops in dB, and the loss."""
        found, total = [], []
        device = next(self.decoder.parameters()).device
        for crop in self._held_out:
            batch = {name: tensor.to(device) for name, tensor in _tensors(crop).items()}
            decoded = self.decoder.decode(self.encoder(batch["codes"], batch["channel"]))[:, 0]
            counted = slice(layout.ATOM_SAMPLES, None)
            ratio = si_sdr_db(decoded[:, counted].cpu().numpy(), crop.audio[:, counted])
            found.append(-SI_SDR_LIMIT_DB if ratio is None else ratio)
            total.append(float(losses(decoded[:, counted], batch["audio"][:, counted])[0]))
        return {"si_sdr_db": float(np.median(found)), "worst_db": float(np.min(found)), "loss": float(np.mean(total))}

    def write(self, folder: Path) -> Sequence[Path]:  # noqa: ARG002 (as Task.write)
        """Refuse: a decoder without a flow is no checkpoint.

        Raises:
            TrainingError: always.
        """
        raise TrainingError("--output: the decoder's weights are written together with the flow's, by `flow --output`")


def _held_out(song: Codes, renderer: Renderer, channel: int) -> Crops:
    """Take the middle of a song, from an even frame on."""
    start = max(0, song.shape[1] - CHECK_FRAMES) // 4 * 2
    codes = song[:, start : start + CHECK_FRAMES]
    return Crops(codes[None], np.array([channel]), mix(renderer.stems(codes))[None, channel])


def _tensors(crops: Crops) -> dict[str, Tensor]:
    return {name: torch.from_numpy(getattr(crops, name)) for name in ("codes", "channel", "audio")}
