"""BigVGAN's fixed filter, its random weights and the check of published files. No torch."""

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
"""Taps of the filter around every activation."""
PRE_KERNEL = POST_KERNEL = 7
BETA_FLOOR = 1e-9
"""Added to the divisor of the Snake activation."""
FILTER = ".filter"
LOG_MEL_MEAN, LOG_MEL_STD = -5.0, 2.0
"""Mean and deviation that the random weights assume of log-mel frames."""
_CUTOFF, _HALF_WIDTH = 0.25, 0.3
_AUDIO_GAIN, _BRANCH_GAIN, _PRE_GAIN, _STAGE_GAIN = 0.1, 0.35, 0.2, 0.9
_REQUIRED: Mapping[str, object] = {
    "resblock": "1", "activation": "snakebeta", "snake_logscale": True,
    "use_tanh_at_final": False, "use_bias_at_final": False,
}  # fmt: skip
"""Required values of a configuration; other variants of the network are not implemented."""


def filter_taps() -> npt.NDArray[np.float32]:
    """Low-pass filter around each activation: a Kaiser-windowed sinc, float32 [12] with sum 1.

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
    """Read the sizes from a `config.json`.

    Args:
        config: content of the file; keys for training or the mel front end are ignored.
        where: name of the file, for messages.

    Raises:
        CheckpointError: a size is missing, or the network is an unsupported variant; the message names the key.
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
    """Check that the layers keep or multiply the length exactly.

    Raises:
        CheckpointError: the message gives key and value.
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
    """Check names and shapes of a file, with weight norm or folded; no value is read.

    Args:
        source: opened file.
        wanted: names and shapes of the folded network.

    Raises:
        CheckpointError: a tensor is missing, unknown or has the wrong shape.
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
    """Random weights around the real filter, which training does not change."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int, sizes: BigvganConfig) -> None:
        """Store names and shapes; weight norm may have either spelling."""
        super().__init__({canonical(name): shape for name, shape in shapes.items()}, seed, bigvgan_init(sizes))

    def _pieces(self, name: str) -> Iterator[Array]:
        if name.endswith(FILTER):
            yield filter_taps()
            return
        yield from super()._pieces(name)


def bigvgan_init(sizes: BigvganConfig) -> InitFn:
    """Initial scales of BigVGAN: audio of RMS near 0.1 from log-mel frames, far from the clamp."""
    stages = list(zip(sizes.upsample_rates, sizes.upsample_kernel_sizes, strict=True))

    def init(name: str, shape: tuple[int, ...]) -> InitSpec:
        if name.endswith((".alpha", ".beta")):
            return InitSpec(0.3)  # in the logarithm: frequencies and amplitudes from 0.5 to 2
        if name.endswith("original1"):
            return InitSpec(1.0)
        if name.endswith(".bias"):
            return InitSpec(0.02)
        gain, fan_in = _gain(name), float(math.prod(shape[1:]))
        if name.startswith("ups."):
            rate, kernel = stages[int(name.split(".")[1])]
            fan_in = shape[0] * kernel / rate  # number of products that sum into a sample
        if name.endswith("original0"):
            # The gain is the norm of the weights of one entry of axis 0.
            norm = gain * math.sqrt(stages[int(name.split(".")[1])][0] / 2 if name.startswith("ups.") else 1.0)
            return InitSpec(0.1 * norm, mean=norm)
        return InitSpec(gain / math.sqrt(fan_in))

    return init


def _gain(name: str) -> float:
    if name.startswith("conv_post"):
        return _AUDIO_GAIN
    if name.startswith("conv_pre"):
        return _PRE_GAIN  # log-mel frames have a mean far from zero
    if name.startswith("ups."):
        return _STAGE_GAIN
    return _BRANCH_GAIN if ".convs2." in name else 1.0
