"""Random weights with scales that keep a network alive: finite, neither vanishing nor saturated.

Every tensor depends on (seed, its name, its shape) alone, so any of them can be made at any time. Values are uniform,
which is exact and fast: the full-size networks have 5.6 thousand million of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from heartvoice.checkpoints.safetensors_reader import PIECE, Array, TensorSource
from heartvoice.config.presets import HeartCodecConfig, HeartMuLaConfig
from heartvoice.keyed_random import bits


@dataclass(frozen=True)
class InitSpec:
    """Distribution of one tensor's values."""

    std: float
    mean: float = 0.0
    n_zero: int = 0
    """Entries at the end of `zero_axis` that are zero."""
    zero_axis: int = 0
    flag: bool = False
    """A boolean tensor, all true."""


InitFn = Callable[[str, tuple[int, ...]], InitSpec]
"""Name and shape of a tensor to its law."""


class RandomCheckpoint(TensorSource):
    """A checkpoint whose tensors are drawn on demand."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int, law: InitFn) -> None:
        """Keep names and shapes; nothing is drawn yet."""
        self._shapes = dict(shapes)
        self._seed = seed
        self._law = law
        self.names = frozenset(shapes)

    def __str__(self) -> str:
        """What messages call it."""
        return f"random weights of seed {self._seed}"

    def where(self, name: str) -> str:
        """Seed and name."""
        return f"{self}: {name}"

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def _pieces(self, name: str) -> Iterator[Array]:
        shape = self._shapes[name]
        law = self._law(name, shape)
        if law.flag:
            yield np.ones(math.prod(shape), np.bool_)
            return
        generator, count = bits(self._seed, "weights", name), math.prod(shape)
        for start in range(0, max(count, 1), PIECE):
            piece = _draw(generator, min(PIECE, count - start), law)
            if law.n_zero:
                inner, size = math.prod(shape[law.zero_axis + 1 :]), shape[law.zero_axis]
                index = np.arange(start, start + piece.size) // inner % size
                piece[index >= size - law.n_zero] = 0
            yield piece


def _draw(generator: np.random.Philox, count: int, law: InitSpec) -> npt.NDArray[np.float32]:
    """The next `count` values, float32 [count]; each step is one rounding, the same on any machine."""
    raw = np.asarray(generator.random_raw((count + 1) // 2), dtype="<u8").view("<u4")[:count]
    values = (raw >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    values *= np.float32(2 * math.sqrt(3) * law.std)
    values += np.float32(law.mean - math.sqrt(3) * law.std)
    return values


def heartmula_law(sizes: HeartMuLaConfig) -> InitFn:
    """Scales for HeartMuLa: logits of deviation 2, special ids at 0 so that short top-k lists never hold them."""

    def law(name: str, shape: tuple[int, ...]) -> InitSpec:
        if name.endswith(".scale"):
            return InitSpec(0.1, mean=1.0)
        if name == "codebook0_head.weight":
            return InitSpec(2 / math.sqrt(shape[1]), n_zero=sizes.num_special)
        if name == "audio_head":
            return InitSpec(2 / math.sqrt(shape[1]), n_zero=sizes.num_special, zero_axis=2)
        if name == "audio_embeddings.weight":
            return InitSpec(0.5)  # eight are summed, one is read alone
        if name.endswith("_embeddings.weight") or name == "unconditional_text_embedding.weight":
            return InitSpec(1.0)
        if name.endswith(".bias"):
            return InitSpec(0.5)
        return InitSpec(1 / math.sqrt(shape[1]))

    return law


def heartcodec_law(sizes: HeartCodecConfig) -> InitFn:
    """Scales for HeartCodec: velocities of deviation near 1, audio of RMS near 0.1."""
    levels = sizes.num_quantizers
    last = f"scalar_model.decoder.{len(sizes.upsample_factors) + (2 if sizes.num_samples > 1 else 1)}."

    def law(name: str, shape: tuple[int, ...]) -> InitSpec:
        if name.startswith("scalar_model."):
            return _scalar_law(name, shape, sizes, AUDIO_GAIN if name.startswith(last) else 1.0)
        if name.endswith("initted"):
            return InitSpec(0.0, flag=True)
        if name.endswith("cluster_size"):
            return InitSpec(0.1, mean=1.0)
        if "_codebook." in name or name.endswith("zero_cond_embedding1"):
            return InitSpec(1.0)
        if name.endswith("project_out.weight"):
            return InitSpec(1 / math.sqrt(levels * shape[1]))
        if "scale_shift_table" in name:
            return InitSpec(0.3)
        if name.endswith("_norm.weight"):
            return InitSpec(0.1, mean=1.0)
        if name.endswith(".bias"):
            return InitSpec(0.05)
        if re.search(r"adaln_single(_2)?\.linear\.weight$", name):
            return InitSpec(0.5 / math.sqrt(shape[1]))  # with the table: gates of deviation near 0.4
        if name.endswith("linear_1.weight"):
            return InitSpec(math.sqrt(2 / shape[1]))  # sines and cosines have mean square 1/2
        return InitSpec(1 / math.sqrt(shape[1]))  # a kernel of 3 is divided by sqrt(3) in the network

    return law


AUDIO_GAIN = 0.1
"""Gain of the decoder's last convolution."""
_BRANCH_GAIN = 0.5
_STAGE_GAIN = 0.77  # five residual units grow what they get by 1.3


def _scalar_law(name: str, shape: tuple[int, ...], sizes: HeartCodecConfig, last_gain: float) -> InitSpec:
    """Gains (`original0`) set the scale; directions (`original1`) only their direction."""
    if "activation" in name:
        return InitSpec(0.05, mean=0.25)
    if name.endswith("original1"):
        return InitSpec(1.0)
    if name.endswith("original0"):
        gain = _BRANCH_GAIN if ".conv2." in name else last_gain
        if ".up_conv." in name:
            # Normalised for each input channel over half as many outputs and twice the factor in taps, of which two
            # meet in a sample.
            stage = int(name.split(".")[2])
            gain = _STAGE_GAIN * math.sqrt(sizes.upsample_factors[stage - 1] / 2)
        return InitSpec(0.1 * gain, mean=gain)
    if name.endswith(".bias"):
        return InitSpec(0.02 * last_gain)
    return InitSpec(1 / math.sqrt(math.prod(shape[1:])))
