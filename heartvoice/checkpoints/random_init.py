"""Random weights whose scales keep activations finite, neither vanishing nor saturated.

Every tensor depends only on seed, name and shape, so tensors can be drawn in any order. The distribution is uniform,
which is exact and fast: the full-size networks have 5.6e9 values.
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
    """Number of zeros at the end of `zero_axis`."""
    zero_axis: int = 0
    flag: bool = False
    """If True, the tensor is boolean and all true."""


InitFn = Callable[[str, tuple[int, ...]], InitSpec]
"""Maps a tensor's name and shape to its distribution."""


class RandomCheckpoint(TensorSource):
    """A checkpoint whose tensors are drawn on demand."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int, init: InitFn) -> None:
        """Store names and shapes; nothing is drawn yet."""
        self._shapes = dict(shapes)
        self._seed = seed
        self._init = init
        self.names = frozenset(shapes)

    def __str__(self) -> str:
        """Name for messages."""
        return f"random weights of seed {self._seed}"

    def where(self, name: str) -> str:
        """Seed and tensor, for messages."""
        return f"{self}: {name}"

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def _pieces(self, name: str) -> Iterator[Array]:
        shape = self._shapes[name]
        spec = self._init(name, shape)
        if spec.flag:
            yield np.ones(math.prod(shape), np.bool_)
            return
        generator, count = bits(self._seed, "weights", name), math.prod(shape)
        for start in range(0, max(count, 1), PIECE):
            piece = _draw(generator, min(PIECE, count - start), spec)
            if spec.n_zero:
                inner, size = math.prod(shape[spec.zero_axis + 1 :]), shape[spec.zero_axis]
                index = np.arange(start, start + piece.size) // inner % size
                piece[index >= size - spec.n_zero] = 0
            yield piece


def _draw(generator: np.random.Philox, count: int, spec: InitSpec) -> npt.NDArray[np.float32]:
    """Draw the next `count` values, float32 [count]; one rounding per step, so machines agree."""
    raw = np.asarray(generator.random_raw((count + 1) // 2), dtype="<u8").view("<u4")[:count]
    values = (raw >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    values *= np.float32(2 * math.sqrt(3) * spec.std)
    values += np.float32(spec.mean - math.sqrt(3) * spec.std)
    return values


def heartmula_init(sizes: HeartMuLaConfig) -> InitFn:
    """Initial scales of HeartMuLa: logits of deviation 2.

    Special ids have logits 0, so that short top-k lists never contain them.
    """

    def init(name: str, shape: tuple[int, ...]) -> InitSpec:
        if name.endswith(".scale"):
            return InitSpec(0.1, mean=1.0)
        if name == "codebook0_head.weight":
            return InitSpec(2 / math.sqrt(shape[1]), n_zero=sizes.num_special)
        if name == "audio_head":
            return InitSpec(2 / math.sqrt(shape[1]), n_zero=sizes.num_special, zero_axis=2)
        if name == "audio_embeddings.weight":
            return InitSpec(0.5)  # eight embeddings are summed, one is used alone
        if name.endswith("_embeddings.weight") or name == "unconditional_text_embedding.weight":
            return InitSpec(1.0)
        if name.endswith(".bias"):
            return InitSpec(0.5)
        return InitSpec(1 / math.sqrt(shape[1]))

    return init


def heartcodec_init(sizes: HeartCodecConfig) -> InitFn:  # noqa: C901 (one case a tensor)
    """Initial scales of HeartCodec: velocities of deviation near 1, audio of RMS near 0.1."""
    levels = sizes.num_quantizers
    last = f"scalar_model.decoder.{len(sizes.upsample_factors) + (2 if sizes.num_samples > 1 else 1)}."

    def init(name: str, shape: tuple[int, ...]) -> InitSpec:  # noqa: C901 (likewise)
        if name.startswith("scalar_model."):
            return _scalar_init(name, shape, sizes, AUDIO_GAIN if name.startswith(last) else 1.0)
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
            return InitSpec(0.5 / math.sqrt(shape[1]))  # plus the table: gates of deviation near 0.4
        if name.endswith("linear_1.weight"):
            return InitSpec(math.sqrt(2 / shape[1]))  # the mean square of sines and cosines is 1/2
        return InitSpec(1 / math.sqrt(shape[1]))  # the network divides a kernel of 3 by sqrt(3)

    return init


AUDIO_GAIN = 0.1
"""Gain of the decoder's last convolution."""
_BRANCH_GAIN = 0.5
_STAGE_GAIN = 0.77  # five residual units amplify by 1.3


def _scalar_init(name: str, shape: tuple[int, ...], sizes: HeartCodecConfig, last_gain: float) -> InitSpec:
    """Gains (`original0`) set the scale; directions (`original1`) set the direction only."""
    if "activation" in name:
        return InitSpec(0.05, mean=0.25)
    if name.endswith("original1"):
        return InitSpec(1.0)
    if name.endswith("original0"):
        gain = _BRANCH_GAIN if ".conv2." in name else last_gain
        if ".up_conv." in name:
            # Normalised per input channel over half as many outputs and twice the factor in taps; two taps sum into a
            # sample.
            stage = int(name.split(".")[2])
            gain = _STAGE_GAIN * math.sqrt(sizes.upsample_factors[stage - 1] / 2)
        return InitSpec(0.1 * gain, mean=gain)
    if name.endswith(".bias"):
        return InitSpec(0.02 * last_gain)
    return InitSpec(1 / math.sqrt(math.prod(shape[1:])))
