"""Trains htdemucs at demo size on the demo world's songs, whose stems are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demucs.htdemucs import HTDemucs
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from heartvoice.audio.dsp import resample
from heartvoice.config.presets import SeparatorConfig
from heartvoice.evaluation.measures import SI_SDR_LIMIT_DB, si_sdr_db
from heartvoice.models.demucs import KLASS, module_kwargs
from train.demo import layout
from train.demo.crops import Renderer
from train.demo.score import Codes
from train.frame.task import Group, Moment, Task
from train.frame.weights import halved, write

Samples = NDArray[np.float32]

PARTS_OF: dict[str, tuple[str, ...]] = {
    "drums": ("drum",), "bass": ("bass",), "other": ("chord", "lead"), "vocals": ("voice",),
}  # fmt: skip
"""The world's parts in each of the separator's sources."""
N_CROPS = 2
"""In a batch; each is as long as a segment of the separator."""
GAINS_DB = 6.0
"""Sources are up to so much louder or softer than in their song."""
ALONE = 0.1
"""Share of the sources that a crop lacks."""
LEVEL = 0.02
"""Mean magnitude of a source: the loss of silence is about 1."""
VOCALS_WEIGHT = 3.0
MUON, ADAM = 0.012, 1e-3
FOLDER, SIGNATURE = "demucs", "demo"


class SeparatorTask(Task):
    """The separator."""

    name = "separator"

    def __init__(
        self, sizes: SeparatorConfig, renderer: Renderer, songs: Sequence[Codes], held_out: Sequence[Codes],
        world: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Make the network with random weights.

        Args:
            sizes: of one network; its segment is a whole number of frames.
            renderer: makes the stems of songs.
            songs: codes [8, T] to train on; shorter ones than a segment are not used.
            held_out: codes [8, T] for `check`.
            world: hashes of what the renderer and the songs are made of.

        Raises:
            ValueError: the sizes do not fit, or no song is long enough.
        """
        if sizes.n_models != 1 or set(sizes.sources) != set(PARTS_OF):
            raise ValueError(f"sizes: expected one network for {', '.join(PARTS_OF)}, got {sizes.n_models} networks")
        self._frame = round(sizes.samplerate / layout.FRAME_HZ)
        self._n_frames, rest = divmod(sizes.segment_samples, self._frame)
        if rest:
            raise ValueError(f"segment: expected whole frames of {self._frame} samples, got {rest} samples more")
        self._songs = [song for song in songs if song.shape[1] > self._n_frames]
        if not self._songs:
            raise ValueError(f"songs: expected one of more than {self._n_frames} frames")
        self.sizes, self._renderer, self._world = sizes, renderer, world
        self.network = HTDemucs(**module_kwargs(sizes))
        self._held_out = [self._sources(song, max(0, song.shape[1] - self._n_frames) // 2) for song in held_out]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Sizes, rates, and the songs."""
        return {
            "world": dict(self._world), "sizes": asdict(self.sizes), "crops": N_CROPS, "gains_db": GAINS_DB,
            "alone": ALONE, "vocals_weight": VOCALS_WEIGHT, "rates": [MUON, ADAM], "songs": len(self._songs),
        }  # fmt: skip

    def groups(self) -> Sequence[Group]:
        """Muon for matrices and convolutions, Adam for the rest."""
        named = dict(self.network.named_parameters())
        matrices = [p for name, p in named.items() if p.ndim >= 2 and min(p.shape[:2]) > 1 and "emb" not in name]
        taken = {id(parameter) for parameter in matrices}
        rest = [parameter for parameter in named.values() if id(parameter) not in taken]
        return [Group(matrices, "muon", MUON), Group(rest, "adam", ADAM)]

    def compose(self, moment: Moment, rng: np.random.Generator) -> Tensor:  # noqa: ARG002 (as Task.compose)
        """Cut segments at random places, and mix their sources anew: float32 [B, source, 2, N]."""
        crops = []
        for index in rng.integers(0, len(self._songs), N_CROPS):
            song = self._songs[index]
            sources = self._sources(song, int(rng.integers(0, song.shape[1] - self._n_frames)))
            gains = 10 ** (rng.uniform(-GAINS_DB, GAINS_DB, len(sources)) / 20) * (rng.random(len(sources)) >= ALONE)
            crops.append(sources * gains[:, None, None].astype(np.float32))
        return torch.from_numpy(np.stack(crops))

    def loss(self, batch: Tensor, moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002 (as Task.loss)
        """Absolute error of each source; the vocals' counts more."""
        errors = (self.network(batch.sum(1)) - batch).abs().mean((0, 2, 3)) / LEVEL
        terms = dict(zip(self.sizes.sources, errors, strict=True))
        return errors.sum() + (VOCALS_WEIGHT - 1) * terms["vocals"], terms

    @torch.no_grad()
    def check(self) -> Mapping[str, float]:
        """SI-SDR of held-out vocals in dB, and of the mix that they were in."""
        self.network.eval()
        device = next(self.network.parameters()).device
        vocals = self.sizes.sources.index("vocals")
        found, before = [], []
        for sources in self._held_out:
            mix = sources.sum(0)
            made = self.network(torch.from_numpy(mix)[None].to(device))[0, vocals].cpu().numpy()
            found.append(_si_sdr(made, sources[vocals]))
            before.append(_si_sdr(mix, sources[vocals]))
        self.network.train()
        return {"si_sdr_db": float(np.mean(found)), "worst_db": float(np.min(found)), "mix_db": float(np.mean(before))}

    def write(self, folder: Path) -> Sequence[Path]:
        """Write `demucs/` as the package's safetensors, and the bag that names it."""
        half = halved(self.network.state_dict())
        kwargs = module_kwargs(self.sizes)
        segment = {"_type": "fraction", "numerator": kwargs["segment"].numerator,
                   "denominator": kwargs["segment"].denominator}  # fmt: skip
        metadata = {"klass": KLASS, "args": "[]", "kwargs": json.dumps(kwargs | {"segment": segment}, sort_keys=True)}
        return [
            write(folder / FOLDER / f"{SIGNATURE}.safetensors", save(half, metadata)),
            write(folder / FOLDER / f"{SIGNATURE}.yaml", f"models: ['{SIGNATURE}']\n".encode()),
        ]

    def _sources(self, song: Codes, start: int) -> Samples:
        """Render a segment's sources, [source, 2, N] at the separator's rate, from an even frame on."""
        start -= start % 2
        stems = self._renderer.stems(song[:, start : start + self._n_frames])
        sources = np.stack([np.sum([stems[part] for part in PARTS_OF[name]], axis=0) for name in self.sizes.sources])
        flat = resample(sources.reshape(-1, sources.shape[-1]), layout.SAMPLE_RATE_HZ, self.sizes.samplerate)
        made: Samples = flat.reshape(*sources.shape[:2], -1)
        return made


def _si_sdr(found: Samples, wanted: Samples) -> float:
    ratio = si_sdr_db(found, wanted)
    return -SI_SDR_LIMIT_DB if ratio is None else ratio
