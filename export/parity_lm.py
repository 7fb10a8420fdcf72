"""Compares HeartMuLa's graph with `HeartMuLa.step`, for single songs and batches of songs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from heartvoice.arrays import Array
from heartvoice.config.presets import Preset
from heartvoice.export.parity import Parity
from heartvoice.keyed_random import normal, uniform
from heartvoice.models.heartmula import HeartMuLa, StepInputs, StepOutputs
from heartvoice.models.llama import KVCache
from heartvoice.runtime.engines import Engine

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Song:
    """One song of a scenario."""

    n_prompt: int
    style_index: int
    cfg_scale: float
    """Guidance scale; 1 is unguided, with one row."""


SCENARIOS: tuple[tuple[int, tuple[Song, ...]], ...] = (
    (3, (Song(9, 4, 1.5), Song(14, 7, 1.0), Song(5, -1, 3.0))),
    (1, (Song(40, 0, 1.0),)),
    (1, (Song(1, -1, 2.0),)),
)
"""Frames after the prompt, and the songs of the batch. Their rows are at different positions."""
_SPARE = 6
"""Unused positions at the end of the cache."""


@torch.inference_mode()
def compare_heartmula(engine: Engine, network: torch.nn.Module, preset: Preset, parity: Parity) -> None:
    """Run every scenario greedily through both. Both get PyTorch's codes and keep separate caches."""
    assert isinstance(network, HeartMuLa)
    for index, (n_frames, songs) in enumerate(SCENARIOS):
        _Scenario(engine, network, preset, parity, songs, index).run(n_frames)


def compare_heartmula_ort(engine: Engine, network: torch.nn.Module, preset: Preset, parity: Parity) -> None:
    """Run every scenario for the `ort` dialect."""
    compare_heartmula(_NewPositions(engine), network, preset, parity)


class _NewPositions:
    """Wraps an `ort` engine to return only new keys and values, as the `standard` dialect does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:  # noqa: ARG002 (as Engine.run)
        """Run the graph once; return all outputs."""
        results = self._engine.run(inputs)
        steps = np.arange(inputs["text_ids"].shape[1])
        new = inputs["position"].astype(np.int64)[:, None] + steps  # [R, T]
        rows = np.arange(len(new))[:, None]
        return {
            name.replace("_present_", "_new_"): value[rows, :, new].swapaxes(1, 2) if "_present_" in name else value
            for name, value in results.items()
        }


class _Scenario:
    """A batch of songs in PyTorch and in the engine."""

    def __init__(
        self, engine: Engine, network: HeartMuLa, preset: Preset, parity: Parity, songs: tuple[Song, ...], index: int
    ) -> None:
        self.engine, self.network, self.preset, self.parity = engine, network, preset, parity
        self.songs, self.index = songs, index
        self.rows = [song for song, each in enumerate(songs) for _ in range(2 if each.cfg_scale > 1 else 1)]
        cond = [self.rows.index(song) for song in range(len(songs))]
        uncond = [row + (songs[song].cfg_scale > 1) for song, row in enumerate(cond)]
        count = len(songs)
        self.fixed: Arrays = {
            "style": normal(0, "parity style", index, (count, preset.lm.muq_dim)),
            "row_song": np.array(self.rows),
            "cond_row": np.array(cond),
            "uncond_row": np.array(uncond),
            "temperature": np.ones(count, np.float32),
            "top_k": np.ones(count, np.int64),
            "cfg_scale": np.array([song.cfg_scale for song in songs], np.float32),
            "uniform": np.zeros((count, preset.lm.audio_num_codebooks), np.float32),
            "allow_eos": np.arange(count) % 2 == 0,
        }
        self.prompts = np.array([song.n_prompt for song in songs])
        positions = int(self.prompts.max()) + 8
        self.torch_cache = KVCache(preset.lm.backbone, len(self.rows), positions)
        self.cache: Arrays = {}
        for layer, (key, _) in enumerate(self.torch_cache.layers):
            self.cache |= {f"{kind}_past_{layer}": np.zeros(key.shape, np.float32) for kind in "kv"}

    def run(self, n_frames: int) -> None:
        """Compare the prompt, then the frames."""
        longest = int(self.prompts.max())
        ids = uniform(0, "parity text", self.index, (len(self.songs), longest)) * self.preset.lm.text_vocab_size
        inputs: Arrays = {
            "text_ids": ids.astype(np.int64),
            "codes": np.zeros((len(self.songs), self.preset.lm.audio_num_codebooks), np.int64),
            "style_index": np.array([song.style_index for song in self.songs]),
            "n_new": self.prompts,
            "position": np.zeros(len(self.rows), np.int64),
        }
        codes = self._step(inputs, "prompt", n_past=0)
        position = self.prompts[self.rows]
        for frame in range(n_frames):
            inputs = {
                "text_ids": np.full((len(self.songs), 1), -1),
                "codes": codes,
                "style_index": np.full(len(self.songs), -1),
                "n_new": np.ones(len(self.songs), np.int64),
                "position": position + frame,
            }
            codes = self._step(inputs, "frame", n_past=int(inputs["position"].max()) + (_SPARE if frame else 0))
        return

    def _step(self, inputs: Arrays, what: str, *, n_past: int) -> npt.NDArray[np.int64]:
        """Run both and compare; return PyTorch's codes."""
        inputs = inputs | self.fixed
        n_past = min(n_past, self.torch_cache.max_positions)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
        past = self.torch_cache.past(n_past) if n_past else None
        want = self.network.step(StepInputs(**tensors), past, eos_id=self.preset.ids.audio_eos_id)
        used = {name: np.ascontiguousarray(value[:, :, :n_past]) for name, value in self.cache.items()}
        got = self.engine.run(inputs | used)
        self._frames(what, got["next_codes"], got["logits"], want)
        self._caches(what, inputs, got, want)
        codes: npt.NDArray[np.int64] = want.codes.numpy()
        return codes

    def _frames(self, what: str, codes: npt.NDArray[Any], logits: npt.NDArray[Any], want: StepOutputs) -> None:
        """Compare logits up to the first codebook with a different code, which only a near tie may cause."""
        want_codes, want_logits = want.codes.numpy(), want.logits.numpy()
        for song in range(len(self.songs)):
            differs = np.flatnonzero(codes[song] != want_codes[song])
            known = int(differs[0]) + 1 if len(differs) else codes.shape[1]
            self.parity.add(f"{what} logits", logits[song, :known], want_logits[song, :known])
            if not len(differs):
                continue
            book = known - 1
            row, want_row = logits[song, book], want_logits[song, book]
            margin = float(want_row[want_codes[song, book]] - want_row[codes[song, book]])
            if not 0 <= margin <= 2 * float(np.abs(row - want_row).max()):
                self.parity.misses.append(
                    f"{what}: codebook {book}: code {codes[song, book]}, PyTorch {want_codes[song, book]}"
                )

    def _caches(self, what: str, inputs: Arrays, got: Arrays, want: StepOutputs) -> None:
        """Compare new keys and values at real positions, then append them to each cache."""
        lengths = inputs["n_new"][self.rows]
        for layer, pair in enumerate(want.new):
            for kind, tensor in zip("kv", pair, strict=True):
                new, want_new = got[f"{kind}_new_{layer}"], tensor.numpy()
                cache = self.cache[f"{kind}_past_{layer}"]
                for row, (start, length) in enumerate(zip(inputs["position"], lengths, strict=True)):
                    self.parity.add(f"{what} {kind} cache", new[row, :, :length], want_new[row, :, :length])
                    cache[row, :, start : start + length] = new[row, :, :length]
        self.torch_cache.write(want.new, torch.from_numpy(inputs["position"]), torch.from_numpy(lengths))
