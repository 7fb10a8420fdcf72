"""HeartCodec on a GPU: time and error of a window's flow and scalar decoder in several precisions."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.arithmetic import decoder_flop, flow_flop
from benchmarks.gpu_device import Bench, errors, random_network, use_tf32
from heartvoice.config.presets import HeartCodecConfig, Preset
from heartvoice.contracts.constants import DECODER_HISTORY, DECODER_LOOKAHEAD, SAMPLE_RATE_HZ
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.heartcodec.estimator import Estimator
from heartvoice.models.heartcodec.scalar import ScalarModel, quantize

FLOW, DECODER = "HeartCodec flow, one window", "HeartCodec scalar decoder, one window"
PROFILE = "HeartCodec flow, profile of one evaluation"
FRAMES, CONTEXT, STEPS, GUIDANCE = 744, 104, 10, 1.25
DRY_FRAMES = 62
CHUNK = 248
_COMPILE_S = 60
Solve = Callable[[], Tensor]


def measure(bench: Bench, preset: Preset) -> None:
    """Measure flow and decoder in every precision; adds rows."""
    network = _loaded(bench, preset)
    if network is None:
        return
    frames = FRAMES if bench.on_gpu else DRY_FRAMES
    flow = _Flow(bench, preset.codec, network, frames)
    flow.run()
    latents, scalar = flow.reference, network.scalar_model
    del network, flow
    bench.release()
    if latents is None:
        latents = torch.randn(1, frames, preset.codec.out_channels, device=bench.device) * 0.5
    _Decoder(bench, preset.codec, scalar, latents).run(VARIANTS)


def measure_compiled(bench: Bench, preset: Preset) -> None:
    """Measure the compiled flow blocks and decoder in bf16; adds rows."""
    network = _loaded(bench, preset)
    if network is None:
        return
    flow = _Flow(bench, preset.codec, network, FRAMES if bench.on_gpu else DRY_FRAMES)
    latents = bench.attempt(FLOW, "fp32 again", flow.run_compiled, needs_s=_COMPILE_S)
    if latents is not None:
        _Decoder(bench, preset.codec, network.scalar_model, latents).run(COMPILED_VARIANTS)


def _loaded(bench: Bench, preset: Preset) -> HeartCodec | None:
    loaded = bench.attempt(FLOW, "load", lambda: random_network(preset.codec, bench.device, torch.float32))
    if loaded is None:
        return None
    network = cast("HeartCodec", loaded)
    network.fold_weight_norm()
    return network


# ---------------------------------------------------------------------------------------------------------------- flow


class _Flow:
    """One window: ten guided Euler steps over all latent frames, continuing the previous window."""

    def __init__(self, bench: Bench, sizes: HeartCodecConfig, network: HeartCodec, frames: int) -> None:
        self.bench, self.sizes, self.network, self.frames = bench, sizes, network, frames
        generator = torch.Generator(bench.device).manual_seed(0)
        shape = (1, sizes.num_quantizers, frames // 2)
        self.codes = torch.randint(sizes.codebook_size, shape, device=bench.device, generator=generator)
        shape = (1, frames, sizes.out_channels)
        self.noise, self.known = (torch.randn(shape, device=bench.device, generator=generator) for _ in range(2))
        self.reference: Tensor | None = None
        self.reference_ms = 0.0

    def run(self) -> None:
        """Measure all precisions, the exact one first."""
        attempt, estimator = self.bench.attempt, self.network.flow_matching.estimator
        attempt(FLOW, "fp32", lambda: self.add("fp32", self.solver(estimator)))
        attempt(FLOW, "tf32", lambda: self.add("tf32", self.solver(estimator, tf32=True)))
        for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
            autocast, matrices = f"{name} autocast", f"{name} matrices"
            attempt(FLOW, autocast, partial(self.autocast, autocast, estimator, dtype))
            attempt(FLOW, matrices, partial(self.matrices, matrices, estimator, dtype))

    def autocast(self, name: str, estimator: Estimator, dtype: torch.dtype) -> None:
        """Measure `torch.autocast`."""
        self.add(name, self.solver(estimator, around=lambda: torch.autocast(self.bench.device.type, dtype)))

    def matrices(self, name: str, estimator: Estimator, dtype: torch.dtype) -> None:
        """Measure half-precision linear layers: eager, as a CUDA graph, and compiled."""
        half = copy.deepcopy(estimator)
        half.cast_linears(dtype)
        self.add(name, self.solver(half))
        self.bench.attempt(PROFILE, name, lambda: self.profile(name, half))
        graph = f"{name}, CUDA graph"
        self.bench.attempt(FLOW, graph, lambda: self.add(graph, self.solver(self.captured(half))))

    def run_compiled(self) -> Tensor:
        """Measure the reference again, then the compiled blocks; return the reference."""
        estimator = self.network.flow_matching.estimator
        self.add("fp32 again", self.solver(estimator))
        if self.reference is None:
            raise RuntimeError("reference: expected latents of the first variant, got none")
        estimator.cast_linears(torch.bfloat16)
        for stack in (estimator.transformer_blocks, estimator.transformer_blocks_2):
            for block in stack:
                block.compile(dynamic=False)
        name = "bf16 matrices, compiled blocks" + (", CUDA graph" if self.bench.on_gpu else "")
        evaluate = self.captured(estimator) if self.bench.on_gpu else estimator
        self.bench.attempt(FLOW, name, lambda: self.add(name, self.solver(evaluate)))
        self.bench.attempt(PROFILE, name, lambda: self.profile(name, estimator))
        return self.reference

    def profile(self, name: str, estimator: Estimator) -> None:
        """List the kernels of one evaluation."""
        x = torch.randn(2, self.frames, self.sizes.in_channels, device=self.bench.device)
        t = torch.full((2,), 0.5, device=self.bench.device)
        self.bench.run.add(PROFILE, name).update(self.bench.profile(lambda: estimator(x, t)))

    def captured(self, estimator: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """Capture one evaluation of two rows as a CUDA graph."""
        x = torch.randn(2, self.frames, self.sizes.in_channels, device=self.bench.device)
        t = torch.full((2,), 0.5, device=self.bench.device)
        kept: list[Tensor] = []

        def evaluate() -> None:
            kept[:] = [estimator(x, t)]

        replay = self.bench.capture(evaluate)

        def run(new_x: Tensor, new_t: Tensor) -> Tensor:
            x.copy_(new_x)
            t.copy_(new_t)
            replay()
            return kept[0]  # read before the next evaluation overwrites it

        return run

    def solver(
        self,
        estimator: Callable[[Tensor, Tensor], Tensor],
        *,
        tf32: bool = False,
        around: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> Solve:
        """Return a function that computes a whole window's latents with this velocity network."""

        def solve() -> Tensor:
            use_tf32(tf32)
            with around():
                latents: Tensor = self.network.flow_matching.inference_codes(
                    self.codes,
                    self.known,
                    self.noise,
                    latent_length=self.frames,
                    context_length=min(CONTEXT, self.frames // 4),
                    steps=STEPS,
                    guidance=GUIDANCE,
                    estimator=estimator,
                )
            use_tf32(False)
            return latents.float()

        return solve

    def add(self, name: str, solve: Solve) -> None:
        """Measure one variant; the first is the reference."""
        latents = solve()
        if self.reference is None:
            self.reference = latents.clone()
        timing, facts = self.bench.time(solve, n=10)
        ms = timing.median * 1e3
        self.reference_ms = self.reference_ms or ms
        flop = STEPS * flow_flop(self.sizes, frames=self.frames, rows=2)
        rates = {"tflop_s": flop / timing.median / 1e12, "times_fp32": self.reference_ms / ms}
        rates["rtf"] = timing.median / (self.frames * self.sizes.latent_hop / SAMPLE_RATE_HZ)
        row = self.bench.run.add(FLOW, name, timing, frames=self.frames)
        row |= rates | errors(latents, self.reference) | facts
        self.bench.release()


# ------------------------------------------------------------------------------------------------------------- decoder


@dataclass(frozen=True)
class _DecoderVariant:
    """A decoding variant."""

    dtype: torch.dtype = torch.float32
    tf32: bool = False
    searched: bool = False
    """If True, cuDNN benchmarks its algorithms and uses the fastest."""
    chunk: int = 0
    compiled: bool = False


VARIANTS = {
    "fp32": _DecoderVariant(),
    "fp32, cuDNN searched": _DecoderVariant(searched=True),
    "tf32": _DecoderVariant(tf32=True),
    "tf32, cuDNN searched": _DecoderVariant(tf32=True, searched=True),
    f"fp32, chunks of {CHUNK}": _DecoderVariant(chunk=CHUNK),
    "bf16": _DecoderVariant(torch.bfloat16),
    "bf16, cuDNN searched": _DecoderVariant(torch.bfloat16, searched=True),
    f"bf16, chunks of {CHUNK}": _DecoderVariant(torch.bfloat16, chunk=CHUNK),
    "fp16, cuDNN searched": _DecoderVariant(torch.float16, searched=True),
}
COMPILED_VARIANTS = {
    "fp32 again": _DecoderVariant(),
    "bf16, compiled": _DecoderVariant(torch.bfloat16, searched=True, compiled=True),
}


class _Decoder:
    """Decodes both channels of one window."""

    def __init__(self, bench: Bench, sizes: HeartCodecConfig, scalar: ScalarModel, latents: Tensor) -> None:
        self.bench, self.sizes, self.scalar = bench, sizes, scalar
        self.frames = latents.shape[1]
        self.latents = latents.reshape(self.frames, 2, -1).permute(1, 2, 0).contiguous()  # [2, L / 2, T]
        self.reference: Tensor | None = None
        self.reference_ms = 0.0

    def run(self, variants: Mapping[str, _DecoderVariant]) -> None:
        """Measure these variants; the first is the reference."""
        for name, variant in variants.items():
            needs_s = _COMPILE_S if variant.compiled else 0
            self.bench.attempt(DECODER, name, partial(self.add, name, variant), needs_s=needs_s)

    def add(self, name: str, variant: _DecoderVariant) -> None:
        """Measure one variant; the first is the reference."""
        decoder: nn.Module = self.scalar.decoder
        if variant.dtype is not torch.float32:
            decoder = copy.deepcopy(decoder).to(variant.dtype)
        if variant.compiled:
            decoder.compile(dynamic=False)
        torch.backends.cudnn.benchmark = variant.searched
        use_tf32(variant.tf32)
        try:
            audio = self.decode(variant, decoder)
            if self.reference is None:
                self.reference = audio
            timing, facts = self.bench.time(lambda: self.decode(variant, decoder), n=20)
        finally:
            torch.backends.cudnn.benchmark = False
            use_tf32(False)
        ms = timing.median * 1e3
        self.reference_ms = self.reference_ms or ms
        flop = decoder_flop(self.sizes, frames=self.frames)
        rates = {"tflop_s": flop / timing.median / 1e12, "times_fp32": self.reference_ms / ms}
        rates["rtf"] = timing.median / (self.frames * self.sizes.latent_hop / SAMPLE_RATE_HZ)
        row = self.bench.run.add(DECODER, name, timing, frames=self.frames)
        row |= rates | errors(audio, self.reference) | facts
        self.bench.release()

    def decode(self, variant: _DecoderVariant, decoder: nn.Module) -> Tensor:
        """Return audio, float32 [2, N]. Latents are rounded in float32: half precision could change a level."""
        latents = quantize(self.latents).to(variant.dtype)
        pieces, hop, step = [], self.sizes.latent_hop, variant.chunk or self.frames
        for start in range(0, self.frames, step):
            end, first = min(start + step, self.frames), max(0, start - DECODER_HISTORY)
            audio = decoder(latents[:, :, first : end + DECODER_LOOKAHEAD])
            pieces.append(audio[:, 0, (start - first) * hop : (end - first) * hop].float())
        return torch.cat(pieces, dim=1)
