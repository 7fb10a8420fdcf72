"""Small vocoders with random weights, and the golden ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from heartvoice.arrays import Array
from heartvoice.checkpoints.bigvgan import LOG_MEL_MEAN, LOG_MEL_STD, RandomBigvgan, read_sizes
from heartvoice.config.svc import BigvganConfig
from heartvoice.keyed_random import normal
from heartvoice.models.bigvgan import Bigvgan, bigvgan_manifest
from heartvoice.models.load import Checkpoint, TensorSource, load_module
from tests.support.golden_cases import GoldenFolder

SMALL = BigvganConfig(
    num_mels=8, upsample_rates=(4, 3), upsample_kernel_sizes=(8, 5), upsample_initial_channel=16,
    resblock_kernel_sizes=(3, 5), resblock_dilation_sizes=((1, 3), (2,)),
)  # fmt: skip


def random_source(sizes: BigvganConfig, seed: int = 0) -> RandomBigvgan:
    return RandomBigvgan(bigvgan_manifest(sizes), seed, sizes)


def vocoder(sizes: BigvganConfig, source: TensorSource | None = None) -> Bigvgan:
    with torch.device("meta"):
        network = Bigvgan(sizes)
    load_module(network, source or random_source(sizes))
    return network.eval()


def golden(folder: GoldenFolder) -> tuple[BigvganConfig, Checkpoint]:
    sizes = read_sizes(folder.config, folder.label)
    return sizes, Checkpoint.open(folder.path / "weights.safetensors")


def log_mel(sizes: BigvganConfig, n_frames: int, index: int = 0, batch: int = 1) -> np.ndarray:
    """Make frames at the level of music, float32 [B, M, T]."""
    values = normal(0, "log-mel", index, (batch, sizes.num_mels, n_frames))
    return values * np.float32(LOG_MEL_STD) + np.float32(LOG_MEL_MEAN)


def weight_norm_names(folded: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes as the official file has them: a gain for each entry of axis 0, and a direction."""
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in folded.items():
        if name.endswith(".weight"):
            found |= {f"{name}_g": (shape[0], 1, 1), f"{name}_v": shape}
        else:
            found[name] = shape
    return found


def write_config(folder: Path, sizes: BigvganConfig, **changes: object) -> None:
    """An official `config.json`."""
    import json

    values = {name: getattr(sizes, name) for name in BigvganConfig.__dataclass_fields__}
    form = {
        "resblock": "1", "activation": "snakebeta", "snake_logscale": True,
        "use_tanh_at_final": False, "use_bias_at_final": False, "sampling_rate": 44100,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(values | form | changes))


class OneNetwork:
    """A function from mel to audio as `networks.Networks` that records the requested lengths."""

    def __init__(self, run: Callable[[np.ndarray], np.ndarray]) -> None:
        self._run = run
        self.lengths: list[int] = []

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        assert name == "vocoder"
        self.lengths.append(inputs["mel"].shape[2])
        return {"audio": self._run(inputs["mel"])}
