"""HeartMuLa on a GPU: the guided step in bf16, eager, as a CUDA graph, compiled; the prompt; songs side by side."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from heartvoice.benchmarks.costs import frame_bytes, prefill_flop
from heartvoice.benchmarks.gpu_device import Bench, errors, random_network
from heartvoice.models.heartmula import HeartMuLa, StepInputs, StepOutputs
from heartvoice.models.llama import KVCache
from heartvoice.presets import Preset

STEP, PROMPT, EXACT = "HeartMuLa step, bf16", "HeartMuLa prompt, bf16", "HeartMuLa bf16 against fp32, same weights"
PROFILE = "HeartMuLa step, profile"
POSITIONS = (500, 1500, 3500)
BLOCK = 256
"""The cache is read in whole blocks of positions, as the stage does."""
SONGS = 8
TOP_K = 50
PROMPT_TOKENS = 300
_CHECKED_FRAMES = 8
_DTYPE = torch.bfloat16


def step_inputs(preset: Preset, device: torch.device, *, songs: int, position: int, tokens: int = 0) -> StepInputs:
    """Inputs of guided songs: one frame behind `position` cached positions, or a prompt of so many tokens."""
    sizes = preset.lm
    generator = torch.Generator(device).manual_seed(songs)

    def whole(value: int, *shape: int) -> Tensor:
        return torch.full(shape, value, dtype=torch.int64, device=device)

    text = torch.randint(sizes.text_vocab_size, (songs, max(tokens, 1)), device=device, generator=generator)
    conditional = 2 * torch.arange(songs, device=device)
    return StepInputs(
        text_ids=text if tokens else whole(-1, songs, 1),
        codes=whole(0, songs, sizes.audio_num_codebooks),
        style=torch.zeros(songs, sizes.muq_dim, device=device),
        style_index=whole(7 if tokens else -1, songs),
        n_new=whole(max(tokens, 1), songs),
        position=whole(position, 2 * songs),
        row_song=torch.arange(songs, device=device).repeat_interleave(2),
        cond_row=conditional,
        uncond_row=conditional + 1,
        temperature=torch.ones(songs, device=device),
        top_k=whole(TOP_K, songs),
        cfg_scale=torch.full((songs,), 1.5, device=device),
        uniform=torch.zeros(songs, sizes.audio_num_codebooks, device=device),
        allow_eos=torch.zeros(songs, dtype=torch.bool, device=device),
    )


class Frames:
    """Frames at one position, made in buffers that never move, as a CUDA graph needs them."""

    def __init__(self, network: HeartMuLa, preset: Preset, cache: KVCache, *, songs: int, position: int) -> None:
        self.network, self.cache, self.eos_id = network, cache, preset.ids.audio_eos_id
        device = network.audio_head.device
        self.inputs = step_inputs(preset, device, songs=songs, position=position)
        block = min(BLOCK * math.ceil((position + 1) / BLOCK), cache.max_positions)
        self.past = cache.past(block, 2 * songs)
        generator = torch.Generator(device).manual_seed(0)
        shape = (64, *self.inputs.uniform.shape)
        self.draws = torch.rand(shape, device=device, generator=generator).clamp(max=1 - 2.0**-23)
        self.logits = torch.zeros(*self.inputs.codes.shape, preset.lm.audio_vocab_size, device=device)
        self.n_made = 0

    def frame(self) -> None:
        """One frame from the codes of the last one; nothing in it waits for the device."""
        outputs = self.network.step(self.inputs, self.past, eos_id=self.eos_id, max_top_k=TOP_K)
        self.cache.write(outputs.new, self.inputs.position)
        self.inputs.codes.copy_(outputs.codes)
        self.logits.copy_(outputs.logits)

    def next(self, frame: Callable[[], object]) -> Tensor:
        """A whole frame as a server makes it: fresh random numbers in, codes out to the host."""
        self.inputs.uniform.copy_(self.draws[self.n_made % len(self.draws)])
        frame()
        self.n_made += 1
        return self.inputs.codes.cpu()

    def first(self, frame: Callable[[], object]) -> tuple[Tensor, Tensor]:
        """Start over; return the first frames' codes [n, S, K] and the very first logits [S, V]."""
        self.inputs.codes.zero_()
        self.n_made = 0
        codes = [self.next(frame).clone()]  # on a CPU it is the buffer itself
        logits = self.logits[:, 0].clone()
        codes += [self.next(frame).clone() for _ in range(_CHECKED_FRAMES - 1)]
        return torch.stack(codes), logits


def measure(bench: Bench, preset: Preset) -> None:
    """Eager and as a CUDA graph; adds rows."""
    lm = _loaded(bench, preset)
    if lm is None:
        return
    bench.attempt(PROMPT, "eager", lm.prompt)
    for position in POSITIONS:
        bench.attempt(STEP, f"eager, past {position}", partial(lm.eager, position))
    for position in POSITIONS:
        bench.attempt(STEP, f"CUDA graph, past {position}", partial(lm.graph, "CUDA graph", position))
    for songs in (2, 4, SONGS):
        bench.attempt(STEP, f"CUDA graph, {songs} songs", partial(lm.songs, "CUDA graph", songs))
    bench.attempt(EXACT, "eager", lm.against_fp32)
    bench.attempt(PROFILE, "eager kernels", partial(lm.profile, "eager kernels"))


def measure_compiled(bench: Bench, preset: Preset) -> None:
    """Compiled, and then as a CUDA graph; adds rows. Last of all, since compiling takes minutes."""
    lm = _loaded(bench, preset)
    if lm is None:
        return
    middle = POSITIONS[1]
    bench.attempt(STEP, "eager again", partial(lm.eager, middle, "eager again"))
    for variant, needs_s, compiling in (
        ("compiled backbone", 60, lm.compile_backbone),
        ("compiled backbone and frame", 150, lm.compile_frame),
    ):
        name = variant + (", CUDA graph" if bench.on_gpu else "")
        bench.attempt(STEP, variant, compiling)
        for position in (middle, *(each for each in POSITIONS if each != middle)):
            bench.attempt(STEP, f"{name}, past {position}", partial(lm.graph, name, position), needs_s=needs_s)
            needs_s = 20  # the rest is compiled
        bench.attempt(PROFILE, variant, partial(lm.profile, variant))


def _loaded(bench: Bench, preset: Preset) -> _Lm | None:
    network = bench.attempt(STEP, "load", lambda: random_network(preset.lm, bench.device, _DTYPE))
    if network is None:
        return None
    assert isinstance(network, HeartMuLa)
    return _Lm(bench, preset, network)


class _Lm:
    """The network, and a cache filled with random numbers: zeros would be cheap to attend to."""

    def __init__(self, bench: Bench, preset: Preset, network: HeartMuLa) -> None:
        self.bench, self.preset, self.network = bench, preset, network
        self.cache = self._filled(2)
        self.eager_ms: dict[int, float] = {}
        self.eager_first: dict[int, tuple[Tensor, Tensor]] = {}

    def _filled(self, rows: int) -> KVCache:
        device = self.bench.device
        cache = KVCache(self.preset.lm.backbone, rows, self.preset.max_positions, dtype=_DTYPE, device=device)
        generator = torch.Generator(device).manual_seed(0)
        for pair in cache.layers:
            for tensor in pair:
                tensor.normal_(generator=generator)
        return cache

    def prompt(self) -> None:
        """A prompt of one guided song, its keys and values written, its first frame drawn."""
        inputs = step_inputs(self.preset, self.bench.device, songs=1, position=0, tokens=PROMPT_TOKENS)

        def run() -> None:
            outputs = self.network.step(inputs, None, eos_id=self.preset.ids.audio_eos_id, max_top_k=TOP_K)
            self.cache.write(outputs.new, inputs.position)

        timing, facts = self.bench.time(run, n=10)
        flop = prefill_flop(self.preset.lm, positions=PROMPT_TOKENS, rows=2)
        row = self.bench.run.add(PROMPT, "eager", timing, tokens=PROMPT_TOKENS, tflop_s=flop / timing.median / 1e12)
        row |= facts

    def compile_backbone(self) -> None:
        """Compile each layer of the backbone: one compilation serves all of them."""
        torch._dynamo.config.recompile_limit = 64
        for layer in self.network.backbone.layers:
            layer.compile(dynamic=False)

    def compile_frame(self) -> None:
        """Compile what follows the backbone as one: depth decoder, heads, sampler."""
        self.network.sample_frame = torch.compile(self.network.sample_frame, dynamic=False)  # type: ignore[method-assign]

    def eager(self, position: int, variant: str = "eager") -> None:
        """Eager frames."""
        frames = Frames(self.network, self.preset, self.cache, songs=1, position=position)
        self.eager_first[position] = frames.first(frames.frame)
        row = self._add(frames, frames.frame, f"{variant}, past {position}", position, n=30)
        self.eager_ms[position] = row["p50_ms"]

    def graph(self, variant: str, position: int) -> None:
        """The same frames replayed from a CUDA graph (on a CPU: called, if compiled)."""
        frames = Frames(self.network, self.preset, self.cache, songs=1, position=position)
        frame = self.bench.capture(frames.frame) if self.bench.on_gpu or "graph" in variant else frames.frame
        codes, logits = frames.first(frame)
        row = self._add(frames, frame, f"{variant}, past {position}", position, n=100)
        if position in self.eager_first:
            eager_codes, eager_logits = self.eager_first[position]
            row["codes_as_eager"] = float((codes == eager_codes).double().mean())
            row["logits_from_eager"] = errors(logits, eager_logits)["relative_error"]

    def profile(self, variant: str) -> None:
        """Which kernels a frame is made of."""
        frames = Frames(self.network, self.preset, self.cache, songs=1, position=POSITIONS[1])
        self.bench.run.add(PROFILE, variant).update(self.bench.profile(frames.frame))

    def songs(self, variant: str, count: int) -> None:
        """Several guided songs in one step."""
        position = POSITIONS[1]
        frames = Frames(self.network, self.preset, self._filled(2 * count), songs=count, position=position)
        frame = self.bench.capture(frames.frame)
        self._add(frames, frame, f"{variant}, {count} songs, past {position}", position, songs=count, n=50)

    def _add(
        self, frames: Frames, frame: Callable[[], object], variant: str, position: int, *, n: int, songs: int = 1
    ) -> dict[str, Any]:
        run = self.bench.run
        timing, facts = self.bench.time(lambda: frames.next(frame), n=n)
        read = frame_bytes(self.preset.lm, positions=position, rows=2 * songs, weight_bytes=2, cache_bytes=2).total
        roof_ms = read / max(run.rates["read_gb_s"], run.rates["copy_gb_s"]) / 1e6
        ms = timing.median * 1e3
        row = run.add(STEP, variant, timing, songs=songs, positions=position, rtf=ms / 80)
        row |= {"read_gb": read / 1e9, "roof_ms": roof_ms, "share_of_roof": roof_ms / ms, **facts}
        if position in self.eager_ms:
            row["times_eager"] = songs * self.eager_ms[position] / ms
        return row

    def against_fp32(self) -> None:
        """Logits of one step in bf16, against the same weights and cache computed in float32."""
        position = POSITIONS[0]
        inputs = step_inputs(self.preset, self.bench.device, songs=1, position=position)
        inputs = replace(inputs, uniform=torch.full_like(inputs.uniform, 0.5))
        small = self._step(self.network, inputs, self.cache.past(position))
        wide_network = copy.deepcopy(self.network).float()
        wide_past = [(key.float(), value.float()) for key, value in self.cache.past(position)]
        wide = self._step(wide_network, inputs, wide_past)
        again = self._step(wide_network, inputs, wide_past)
        first = errors(small.logits[:, 0], wide.logits[:, 0])  # later codebooks follow other codes
        row = self.bench.run.add(EXACT, "codebook 0", positions=position)
        row["codes_that_differ"] = int((small.codes != wide.codes).sum())
        row |= first | {"fp32_repeats": bool(torch.equal(wide.logits, again.logits))}
        del wide_network
        self.bench.release()

    def _step(self, network: HeartMuLa, inputs: StepInputs, past: list[tuple[Tensor, Tensor]]) -> StepOutputs:
        outputs: StepOutputs = network.step(inputs, past, eos_id=self.preset.ids.audio_eos_id, max_top_k=TOP_K)
        return outputs
