"""HeartCodec's graphs: reference vectors, then their modules at other settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartvoice.config.presets import HeartCodecConfig
from heartvoice.errors import EngineError
from heartvoice.export.decoder_graph import build_heartcodec_decoder
from heartvoice.export.emulate import compare, emulate
from heartvoice.export.flow_graph import build_heartcodec_condition, build_heartcodec_flow
from heartvoice.export.writer import GRAPH_FILE
from heartvoice.keyed_random import normal, uniform
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.load import Checkpoint, TensorSource, load_network, random_checkpoint
from heartvoice.runtime.engines import OnnxEngine
from tests.support.golden_cases import Golden, GoldenFolder, assert_close, folder_params, tensor_params
from tests.support.graphs import TINY, Arrays, engine_of, flow_inputs, relative_error

KIND = "heartcodec"
BUILDERS = {
    "condition": build_heartcodec_condition,
    "flow": build_heartcodec_flow,
    "decoder": build_heartcodec_decoder,
}


def network_of(sizes: HeartCodecConfig) -> HeartCodec:
    module = load_network(sizes, random_checkpoint(sizes, 2), decode_only=True)
    assert isinstance(module, HeartCodec)
    return module


def torch_velocity(network: HeartCodec, inputs: Arrays) -> Any:
    joined = np.concatenate([inputs["x"], inputs["context"], inputs["mu"]], axis=2)
    with torch.inference_mode():
        return network.flow_matching.estimator(torch.from_numpy(joined), torch.from_numpy(inputs["t"][:, 0])).numpy()


# ------------------------------------------------------------------------------------------------- reference vectors


@pytest.mark.parametrize("folder", folder_params(KIND))
def test_condition_is_the_references(folder: GoldenFolder, tmp_path: Path) -> None:
    sizes = HeartCodecConfig.from_config(folder.config)
    source = Checkpoint.open(folder.path / "weights.safetensors")
    engine = engine_of(build_heartcodec_condition(sizes, source), tmp_path)
    codes = folder.io["rvq.indices"].transpose(0, 2, 1).astype(np.int32)
    assert_close(engine.run({"codes": codes})["mu"], folder.io["rvq.cond_upsampled"], 1e-5)


@pytest.mark.parametrize("folder", folder_params(KIND))
def test_velocity_is_the_references(folder: GoldenFolder, tmp_path: Path) -> None:
    sizes = HeartCodecConfig.from_config(folder.config)
    source, width = Checkpoint.open(folder.path / "weights.safetensors"), sizes.out_channels
    engine = engine_of(build_heartcodec_flow(sizes, source), tmp_path)
    compared = 0
    for name, x in folder.io.items():
        if not (name.startswith("estimator_") and name.endswith(".x")):
            continue
        base = name.removesuffix(".x")
        inputs = {"x": x[..., :width], "context": x[..., width : 2 * width], "mu": x[..., 2 * width :]}
        for index in range(len(folder.io)):
            if f"{base}.y{index}" not in folder.io:
                break
            t = folder.io[f"{base}.t{index}"][:, None]
            assert_close(engine.run({**inputs, "t": t})["velocity"], folder.io[f"{base}.y{index}"], 1e-4)
            compared += 1
    assert compared


class Prefixed(TensorSource):
    """The tensors of a checkpoint under a prefix."""

    def __init__(self, source: TensorSource, prefix: str) -> None:
        self._source, self._prefix = source, prefix
        self.names = frozenset(name.removeprefix(prefix) for name in source.names if name.startswith(prefix))

    def where(self, name: str) -> str:
        return self._source.where(self._prefix + name)

    def _stored_shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(self._prefix + name)

    def _pieces(self, name: str) -> Any:
        return self._source.pieces(self._prefix + name)


@pytest.mark.parametrize("golden", tensor_params(KIND, r"(scalar\w+)\.z"))
def test_audio_is_the_references(golden: Golden, tmp_path: Path) -> None:
    sizes = HeartCodecConfig.from_config({**golden.folder.config, **golden.args})
    source: TensorSource = Checkpoint.open(golden.folder.path / "weights.safetensors")
    if any(name.startswith(f"{golden.name}/") for name in source.names):
        source = Prefixed(source, f"{golden.name}/")
    engine = engine_of(build_heartcodec_decoder(sizes, source), tmp_path)
    wanted = golden["wav_decoded" if "wav_decoded" in golden else "wav"]
    assert_close(engine.run({"latents": golden["z"]})["audio"], wanted, 1e-5)
    for precision, least_db in (("bf16", 30), ("fp16", 45)):
        half: Any = emulate(tmp_path / GRAPH_FILE, precision, threads=1)  # type: ignore[arg-type]
        error = compare(half.run({"latents": golden["z"]}), {"audio": wanted})["audio"]
        assert error.snr_db > least_db, (precision, error)


# --------------------------------------------------------------------------------------------------- other settings


@pytest.mark.parametrize(
    "changes",
    [{}, {"codebook_dim": TINY.codec.dim}],
    ids=["plain", "no projection"],
)
def test_condition_is_pytorchs(changes: dict[str, Any], tmp_path: Path) -> None:
    sizes = replace(TINY.codec, **changes)
    engine = engine_of(build_heartcodec_condition(sizes, random_checkpoint(sizes, 2)), tmp_path)
    codes = (uniform(0, "codes", 0, (2, sizes.num_quantizers, 9)) * (sizes.codebook_size + 1)).astype(np.int64) - 1
    want = network_of(sizes).flow_matching.condition(torch.from_numpy(codes))
    assert relative_error(engine.run({"codes": codes.astype(np.int32)})["mu"], want.detach().numpy()) < 1e-6


@pytest.mark.parametrize("code", [TINY.codec.codebook_size, -2, 2**31 - 1])
def test_codes_out_of_range_fail(code: int, tmp_path: Path) -> None:
    engine = engine_of(build_heartcodec_condition(TINY.codec, random_checkpoint(TINY.codec, 2)), tmp_path)
    codes = np.zeros((1, 8, 3), np.int32)
    codes[0, 2, 1] = code
    with pytest.raises(EngineError):
        engine.run({"codes": codes})


@pytest.mark.parametrize("changes", [{}, {"norm_type": "none"}], ids=["modulated", "unmodulated"])
def test_velocity_is_pytorchs(changes: dict[str, Any], tmp_path: Path) -> None:
    sizes = replace(TINY.codec, **changes)
    engine, network = engine_of(build_heartcodec_flow(sizes, random_checkpoint(sizes, 2)), tmp_path), network_of(sizes)
    for rows, length in ((1, 1), (3, 17), (2, 80)):
        inputs = flow_inputs(sizes, rows, length)
        assert relative_error(engine.run(inputs)["velocity"], torch_velocity(network, inputs)) < 1e-5


DECODERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "not causal": {"causal": False},
    "no repetition": {"num_samples": 1},
    "three repetitions": {"num_samples": 3, "default_kernel_size": 5},
    "not causal, four": {"causal": False, "num_samples": 4},
}


@pytest.mark.parametrize("changes", DECODERS.values(), ids=DECODERS)
def test_audio_is_pytorchs(changes: dict[str, Any], tmp_path: Path) -> None:
    sizes = replace(TINY.codec, upsample_factors=(4, 3), upsample_kernel_sizes=(8, 6), **changes)
    sizes = replace(sizes, downsample_factors=(3, 4), downsample_kernel_sizes=(6, 8))
    engine, network = (
        engine_of(build_heartcodec_decoder(sizes, random_checkpoint(sizes, 2)), tmp_path),
        network_of(sizes),
    )
    for batch, length in ((1, 1), (2, 9)):
        latents = normal(0, "latents", length, (batch, sizes.latent_hidden_dim, length))
        with torch.inference_mode():
            want = network.scalar_model.decode(torch.from_numpy(latents)).numpy()
        assert relative_error(engine.run({"latents": latents})["audio"], want) < 1e-5


def test_latents_round_halves_to_even_and_are_not_clamped(tmp_path: Path) -> None:
    engine = engine_of(build_heartcodec_decoder(TINY.codec, random_checkpoint(TINY.codec, 2)), tmp_path)
    levels = np.array([0.5, 1.5, -0.5, 2.5, 17.5, -9.5, 30.4], np.float32)
    rounded = np.array([0, 2, 0, 2, 18, -10, 30], np.float32)
    shape = (1, TINY.codec.latent_hidden_dim, len(levels))
    audio = [engine.run({"latents": np.broadcast_to(x / np.float32(9), shape)})["audio"] for x in (levels, rounded)]
    assert np.array_equal(audio[0], audio[1])


def test_rows_are_bit_exact_whatever_is_beside_them(tmp_path: Path) -> None:
    sizes, source = TINY.codec, random_checkpoint(TINY.codec, 2)
    batches: dict[str, Arrays] = {
        "condition": {"codes": (uniform(0, "codes", 0, (4, 8, 12)) * sizes.codebook_size).astype(np.int32)},
        "flow": flow_inputs(sizes, 4, 24),
        "decoder": {"latents": normal(0, "latents", 0, (4, sizes.latent_hidden_dim, 12))},
    }
    for name, inputs in batches.items():
        engine = engine_of(BUILDERS[name](sizes, source), tmp_path / name)
        (together,) = engine.run(inputs).values()
        for row in range(4):
            (alone,) = engine.run({key: value[row : row + 1] for key, value in inputs.items()}).values()
            assert np.array_equal(alone[0], together[row]), name


@pytest.mark.parametrize("name", BUILDERS)
def test_half_precision_stays_near(name: str, tmp_path: Path) -> None:
    sizes, source = TINY.codec, random_checkpoint(TINY.codec, 2)
    inputs: Arrays = {
        "condition": {"codes": np.arange(48, dtype=np.int32).reshape(1, 8, 6) - 1},
        "flow": flow_inputs(sizes, 2, 16),
        "decoder": {"latents": normal(0, "latents", 0, (1, sizes.latent_hidden_dim, 6))},
    }[name]
    results = []
    for precision in ("fp32", "fp16"):
        engine: OnnxEngine = engine_of(BUILDERS[name](sizes, source, precision), tmp_path / precision)
        results.append(next(iter(engine.run(inputs).values())))
    assert results[1].dtype == np.float32
    assert 1e-6 < relative_error(results[1], results[0]) < 1e-2
