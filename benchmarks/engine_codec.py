"""HeartCodec's networks: the flow's velocity in every engine, and the scalar decoder whole and in chunks."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.arithmetic import decoder_flop, flow_flop
from heartvoice import keyed_random
from heartvoice.config.presets import HeartCodecConfig
from heartvoice.contracts.constants import DECODER_HISTORY, DECODER_LOOKAHEAD, SAMPLE_RATE_HZ
from heartvoice.loadtest.harness import Run, Timing, alternate, difference
from heartvoice.loadtest.machine import peak_in_child
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.load import TensorSource, load_network, random_checkpoint
from heartvoice.runtime.engines import Engine, OnnxEngine, OpenVinoEngine
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.stages.codec import DECODER_CHUNK, CodecStage

Floats = npt.NDArray[np.float32]
FRAMES = 744
"""Latent frames of a whole window."""
FLOW_BUDGETS = {"onnxruntime fp32": 1.05, "openvino fp32": 0.8, "openvino bf16": 0.3}
DECODER_BUDGET = 0.85
HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
NO_OPENVINO = "openvino is not installed"


def load_codec(sizes: HeartCodecConfig, source: TensorSource) -> HeartCodec:
    """Load the parts for decoding, with weight norm folded."""
    network = cast("HeartCodec", load_network(sizes, source, decode_only=True))
    network.fold_weight_norm()
    return network


# ---------------------------------------------------------------------------------------------------------------- flow


def measure_flow(run: Run, repository: Repository, network: HeartCodec, *, n: int, frames: int, limit_s: float) -> None:
    """Measure one guided evaluation of the velocity (two rows) in every engine; adds rows."""
    sizes = repository.preset.codec
    shapes = {"x": sizes.out_channels, "context": sizes.out_channels, "mu": sizes.dim}
    inputs = {
        name: keyed_random.normal(0, f"benchmark {name}", 0, (2, frames, width)) for name, width in shapes.items()
    }
    time = np.full((2, 1), 0.3, np.float32)
    tensors, torch_time = [torch.from_numpy(value) for value in inputs.values()], torch.from_numpy(time[:, 0])
    estimator = network.flow_matching.estimator

    @torch.inference_mode()
    def eager() -> Floats:
        velocity: Floats = estimator(torch.cat(tensors, dim=-1), torch_time).numpy()
        return velocity

    def eager_bf16() -> Floats:
        with torch.autocast("cpu", torch.bfloat16):
            return eager()

    def over(engine: Engine) -> Callable[[], Floats]:
        return lambda: engine.run({**inputs, "t": time})["velocity"].astype(np.float32, copy=False)

    graph = repository.graph("heartcodec_flow")
    variants: dict[str, Callable[[], Floats]] = {"eager fp32": eager, "eager bf16 autocast": eager_bf16}
    variants["onnxruntime fp32"] = over(OnnxEngine(graph, threads=run.threads))
    if HAS_OPENVINO:
        for precision, name in (("f32", "fp32"), ("bf16", "bf16")):
            variants[f"openvino {name}"] = over(OpenVinoEngine(graph, threads=run.threads, precision=precision))
    reference = eager()
    errors = {name: difference(variant(), reference) for name, variant in variants.items()}
    timings = alternate(variants, n=n, warmup=1, limit_s=limit_s)
    flop = flow_flop(sizes, frames=frames, rows=2)
    for name, timing in timings.items():
        row = run.add("flow step", name, timing, baseline=None if name == "eager fp32" else timings["eager fp32"])
        row |= {"frames": frames, "gflop_s": flop / timing.median / 1e9, **errors[name]}
        if name in FLOW_BUDGETS:
            row["budget"] = FLOW_BUDGETS[name]
    if not HAS_OPENVINO:
        run.add("flow step", "openvino", failed=NO_OPENVINO)


# ------------------------------------------------------------------------------------------------------------- decoder


@dataclass(frozen=True)
class DecoderVariant:
    """A decoding variant; picklable, so that a child process can build it."""

    engine: Literal["eager", "onnxruntime", "openvino"]
    chunk: int
    """Latent frames per call without history and look-ahead; 0 decodes all at once."""

    def __str__(self) -> str:
        """Name in tables."""
        return f"{self.engine}, {f'chunks of {self.chunk}' if self.chunk else 'one shot'}"


def in_chunks(decode: Callable[[Floats], Floats], latents: Floats, chunk: int, hop: int) -> Floats:
    """Decode [2, L / 2, T] to [2, T * hop] in chunks with history and look-ahead, as the stage does."""
    pieces = []
    n_frames = latents.shape[2]
    for start in range(0, n_frames, chunk or n_frames):
        end = min(start + (chunk or n_frames), n_frames)
        first = max(0, start - DECODER_HISTORY)
        audio = decode(np.ascontiguousarray(latents[:, :, first : end + DECODER_LOOKAHEAD]))
        pieces.append(audio[:, 0, (start - first) * hop : (end - first) * hop])
    return np.concatenate(pieces, axis=1)


def _decode(
    variant: DecoderVariant, path: Path, network: HeartCodec | None, threads: int
) -> Callable[[Floats], Floats]:
    if variant.engine == "eager":
        if network is None:
            raise ValueError("network: expected the module for the engine eager, got none")
        scalar = network.scalar_model

        @torch.inference_mode()
        def eager(latents: Floats) -> Floats:
            audio: Floats = scalar.decode(torch.from_numpy(latents)).numpy()
            return audio

        return eager
    engine = (
        OnnxEngine(path, threads=threads) if variant.engine == "onnxruntime" else OpenVinoEngine(path, threads=threads)
    )
    return lambda latents: engine.run({"latents": latents})["audio"].astype(np.float32, copy=False)


def decoder_latents(sizes: HeartCodecConfig, frames: int) -> Floats:
    """Make latents with the flow's deviation of about 0.5: [2, L / 2, T]."""
    return keyed_random.normal(0, "benchmark latents", 0, (2, sizes.latent_hidden_dim, frames)) * np.float32(0.5)


def build_decoder(variant: DecoderVariant, root: Path, seed: int, frames: int, threads: int) -> Callable[[], object]:
    """Load one variant in a new process; return a function that decodes once."""
    torch.set_num_threads(threads)
    repository = Repository(root)
    sizes = repository.preset.codec
    network = load_codec(sizes, random_checkpoint(sizes, seed)) if variant.engine == "eager" else None
    decode = _decode(variant, repository.graph("heartcodec_decoder"), network, threads)
    latents = decoder_latents(sizes, frames)
    return lambda: in_chunks(decode, latents, variant.chunk, sizes.latent_hop)


def measure_decoder(
    run: Run,
    repository: Repository,
    network: HeartCodec,
    *,
    seed: int,
    n: int,
    frames: int,
    chunks: tuple[int, ...],
    limit_s: float,
    memory: bool = True,
) -> None:
    """Measure the scalar decoder over a window, whole and in chunks, in every engine; adds rows.

    Args:
        run: receives the rows.
        repository: contains the graph.
        network: the module with the same weights.
        seed: seed of those weights, for the child processes that measure memory.
        n: measured rounds.
        frames: latent frames of the window.
        chunks: chunk lengths to measure, including the stage's own.
        limit_s: soft limit of the rounds.
        memory: measure the memory of each variant in a separate process.
    """
    sizes = repository.preset.codec
    engines: list[Literal["eager", "onnxruntime", "openvino"]] = ["eager", "onnxruntime"]
    if HAS_OPENVINO:
        engines.append("openvino")
    variants = [DecoderVariant(engine, 0) for engine in engines]
    variants += [DecoderVariant("onnxruntime", chunk) for chunk in chunks]
    variants += [DecoderVariant(engine, DECODER_CHUNK) for engine in engines if engine != "onnxruntime"]
    latents, path = decoder_latents(sizes, frames), repository.graph("heartcodec_decoder")
    decoders = {variant.engine: _decode(variant, path, network, run.threads) for variant in variants}

    def over(variant: DecoderVariant) -> Callable[[], Floats]:
        return lambda: in_chunks(decoders[variant.engine], latents, variant.chunk, sizes.latent_hop)

    runs = {str(variant): over(variant) for variant in variants}
    stage = CodecStage(LocalNetworks(repository, threads=run.threads), sizes)
    by_frame = np.ascontiguousarray(latents.transpose(2, 0, 1)).reshape(frames, -1)
    runs["onnxruntime, the stage"] = lambda: stage.decode_latents(by_frame)
    baseline = str(variants[0])
    reference = runs[baseline]()
    errors = {name: difference(decode(), reference) for name, decode in runs.items()}
    timings = alternate(runs, n=n, warmup=0, limit_s=limit_s)
    peaks = {
        str(variant): peak_in_child(build_decoder, variant, repository.root, seed, frames, run.threads).growth / 1e6
        for variant in variants
        if memory
    }
    for name, timing in timings.items():
        row = _add(run, name, timing, None if name == baseline else timings[baseline], sizes, frames)
        row |= errors[name] | ({"run_mb": peaks[name]} if name in peaks else {})
    if not HAS_OPENVINO:
        run.add("scalar decoder", "openvino", failed=NO_OPENVINO)


def _add(
    run: Run, name: str, timing: Timing, baseline: Timing | None, sizes: HeartCodecConfig, frames: int
) -> dict[str, object]:
    row = run.add("scalar decoder", name, timing, baseline=baseline)
    row["frames"] = frames
    row["rtf"] = timing.median / (frames * sizes.latent_hop / SAMPLE_RATE_HZ)
    row["gflop_s"] = decoder_flop(sizes, frames=frames) / timing.median / 1e9
    if baseline is not None and name == "onnxruntime, one shot":
        row["budget"] = DECODER_BUDGET
    return row
