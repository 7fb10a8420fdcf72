"""Compares HeartCodec's graphs with their PyTorch modules at several lengths and batch sizes."""

from __future__ import annotations

import numpy as np
import torch

from heartvoice.config.presets import Preset
from heartvoice.export.parity import Parity
from heartvoice.keyed_random import normal, uniform
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.runtime.engines import Engine

_BATCH_LENGTHS = ((1, 1), (2, 7), (1, 40))


@torch.inference_mode()
def compare_condition(engine: Engine, network: torch.nn.Module, preset: Preset, parity: Parity) -> None:
    """Compare conditions of codes, some of them -1."""
    assert isinstance(network, HeartCodec)
    sizes = preset.codec
    for index, (batch, length) in enumerate(_BATCH_LENGTHS):
        draw = uniform(0, "parity codes", index, (batch, sizes.num_quantizers, length))
        codes = (draw * (sizes.codebook_size + 1)).astype(np.int64) - 1
        want = network.flow_matching.condition(torch.from_numpy(codes))
        parity.add("mu", engine.run({"codes": codes.astype(np.int32)})["mu"], want.numpy())


@torch.inference_mode()
def compare_flow(engine: Engine, network: torch.nn.Module, preset: Preset, parity: Parity) -> None:
    """Compare velocities; each row has a different time."""
    assert isinstance(network, HeartCodec)
    sizes = preset.codec
    for index, (rows, length) in enumerate(((1, 2), (3, 33), (2, 96))):
        shapes = {"x": sizes.out_channels, "context": sizes.out_channels, "mu": sizes.dim}
        inputs = {name: normal(0, f"parity {name}", index, (rows, length, width)) for name, width in shapes.items()} | {
            "t": uniform(0, "parity t", index, (rows, 1))
        }
        joined = np.concatenate([inputs[name] for name in shapes], axis=2)
        want = network.flow_matching.estimator(torch.from_numpy(joined), torch.from_numpy(inputs["t"][:, 0]))
        parity.add("velocity", engine.run(inputs)["velocity"], want.numpy())


@torch.inference_mode()
def compare_decoder(engine: Engine, network: torch.nn.Module, preset: Preset, parity: Parity) -> None:
    """Compare audio of latents, some of them beyond 1."""
    assert isinstance(network, HeartCodec)
    for index, (batch, length) in enumerate(_BATCH_LENGTHS):
        latents = normal(0, "parity latents", index, (batch, preset.codec.latent_hidden_dim, length)) * np.float32(0.5)
        want = network.scalar_model.decode(torch.from_numpy(latents))
        parity.add("audio", engine.run({"latents": latents})["audio"], want.numpy())
