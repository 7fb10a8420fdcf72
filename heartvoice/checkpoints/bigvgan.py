"""BigVGAN's fixed filter, its random weights and the check of published files. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from heartvoice.checkpoints.random_init import InitFn, InitSpec, RandomCheckpoint
from heartvoice.checkpoints.safetensors_reader import Array, TensorSource, canonical, listed
from heartvoice.config.svc import BigvganConfig
from heartvoice.errors import CheckpointError

TAPS = 12
"""Of the filter around every activation."""
PRE_KERNEL = POST_KERNEL = 7
BETA_FLOOR = 1e-9
"""Added to the amplitude's divisor."""
FILTER = ".filter"
LOG_MEL_MEAN, LOG_MEL_STD = -5.0, 2.0
"""What the random law takes log-mel frames for."""
_CUTOFF, _HALF_WIDTH = 0.25, 0.3
_AUDIO_GAIN, _BRANCH_GAIN, _PRE_GAIN, _STAGE_GAIN = 0.1, 0.35, 0.2, 0.9
_REQUIRED: Mapping[str, object] = {
    "resblock": "1", "activation": "snakebeta", "snake_logscale": True,
    "use_tanh_at_final": False, "use_bias_at_final": False,
}  # fmt: skip
"""What a configuration must say: no other form of the network is built here."""


def filter_taps() -> npt.NDArray[np.float32]:
    """The low pass before and after each activation: a sinc under a Kaiser window, float32 [12] of sum 1.

    Source: seed_vc spec, section 11; J. F. Kaiser, "Nonrecursive digital filter design using the I0-sinh window
    function", 1974, for the window's shape.
    """
    attenuation = 2.285 * (TAPS // 2 - 1) * math.pi * 4 * _HALF_WIDTH + 7.95
    window = np.kaiser(TAPS, 0.1102 * (attenuation - 8.7))
    at = np.arange(TAPS) - (TAPS - 1) / 2
    taps = 2 * _CUTOFF * window * np.sinc(2 * _CUTOFF * at)
    normalised: npt.NDArray[np.float32] = (taps / taps.sum()).astype(np.float32)
    return normalised


def read_sizes(config: Mapping[str, Any], where: str) -> BigvganConfig:
    """Sizes of a `config.json`.

    Args:
        config: its content; keys that only training or the mel front end read are ignored.
        where: names it in messages.

    Raises:
        CheckpointError: a size is missing, or the network is of a form that is not built here; names the key.
    """
    for key, expected in _REQUIRED.items():
        if config.get(key) != expected:
            raise CheckpointError(f"{where}: {key}: expected {expected!r}, got {config.get(key)!r}")
    names = BigvganConfig.__dataclass_fields__
    missing = [name for name in names if name not in config]
    if missing:
        raise CheckpointError(f"{where}: missing {listed(missing)}")
    sizes = BigvganConfig(**{name: _frozen(config[name]) for name in names})
    check_sizes(sizes, where)
    return sizes


def check_sizes(sizes: BigvganConfig, where: str) -> None:
    """Refuse sizes whose layers do not keep or multiply the length exactly.

    Raises:
        CheckpointError: names the key and its value.
    """
    problems = {
        "upsample_kernel_sizes": len(sizes.upsample_kernel_sizes) != len(sizes.upsample_rates)
        or any(k < u or (k - u) % 2 for k, u in zip(sizes.upsample_kernel_sizes, sizes.upsample_rates, strict=False)),
        "upsample_initial_channel": sizes.upsample_initial_channel % 2 ** len(sizes.upsample_rates) != 0,
        "resblock_kernel_sizes": any(kernel % 2 == 0 for kernel in sizes.resblock_kernel_sizes),
        "resblock_dilation_sizes": len(sizes.resblock_dilation_sizes) != len(sizes.resblock_kernel_sizes),
    }
    for key, wrong in problems.items():
        if wrong:
            raise CheckpointError(f"{where}: {key}: does not fit the other sizes: {getattr(sizes, key)!r}")


def _frozen(value: Any) -> Any:
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list) else value


def check_tensors(source: TensorSource, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Check names and shapes of a file, whose weights may be folded or gain and direction; no value is read.

    Args:
        source: the opened file.
        wanted: names and shapes of the folded network.

    Raises:
        CheckpointError: a tensor is missing, unknown or misshapen.
    """
    missing = [name for name in wanted if not source.parts(name)]
    if missing:
        raise CheckpointError(f"{source}: missing {listed(missing)}")
    unknown = sorted(source.names - {part for name in wanted for part in source.parts(name)})
    if unknown:
        raise CheckpointError(f"{source}: unknown {listed(unknown)}")
    for name, shape in wanted.items():
        if source.shape(name) != shape:
            where = source.where(source.parts(name)[-1])
            raise CheckpointError(f"{where}: expected shape {list(shape)}, got {list(source.shape(name))}")


# ------------------------------------------------------------------------------------------------------ random weights


class RandomBigvgan(RandomCheckpoint):
    """Random weights around the true filter: the one part of the network that no training changes."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int, sizes: BigvganConfig) -> None:
        """Keep names and shapes; either spelling of weight norm will do."""
        super().__init__({canonical(name): shape for name, shape in shapes.items()}, seed, bigvgan_law(sizes))

    def _pieces(self, name: str) -> Iterator[Array]:
        if name.endswith(FILTER):
            yield filter_taps()
            return
        yield from super()._pieces(name)


def bigvgan_law(sizes: BigvganConfig) -> InitFn:
    """Scales for BigVGAN: audio of RMS near 0.1 from log-mel frames, nowhere near the clamp."""
    stages = list(zip(sizes.upsample_rates, sizes.upsample_kernel_sizes, strict=True))

    def law(name: str, shape: tuple[int, ...]) -> InitSpec:
        if name.endswith((".alpha", ".beta")):
            return InitSpec(0.3)  # logarithms: frequencies and amplitudes from a half to two
        if name.endswith("original1"):
            return InitSpec(1.0)
        if name.endswith(".bias"):
            return InitSpec(0.02)
        gain, fan_in = _gain(name), float(math.prod(shape[1:]))
        if name.startswith("ups."):
            rate, kernel = stages[int(name.split(".")[1])]
            fan_in = shape[0] * kernel / rate  # this many products meet in a sample
        if name.endswith("original0"):
            # A gain is the norm of what one entry of axis 0 multiplies.
            norm = gain * math.sqrt(stages[int(name.split(".")[1])][0] / 2 if name.startswith("ups.") else 1.0)
            return InitSpec(0.1 * norm, mean=norm)
        return InitSpec(gain / math.sqrt(fan_in))

    return law


def _gain(name: str) -> float:
    if name.startswith("conv_post"):
        return _AUDIO_GAIN
    if name.startswith("conv_pre"):
        return _PRE_GAIN  # log-mel frames are far from zero
    if name.startswith("ups."):
        return _STAGE_GAIN
    return _BRANCH_GAIN if ".convs2." in name else 1.0
