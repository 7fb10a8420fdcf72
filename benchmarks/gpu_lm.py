"""HeartMuLa on a GPU: whole guided songs in `TorchEngine`, bf16, against eager steps of the same module.

Songs are generated as in a server: prompts one after another, then frames of all songs together, with random numbers
from the host and codes back to it. Lower bounds are the bytes that a frame reads over the measured bandwidth.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.arithmetic import frame_bytes, prefill_flop
from benchmarks.gpu_device import Bench, errors, random_network
from heartvoice import keyed_random
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import FRAMES_PER_S
from heartvoice.errors import EngineError
from heartvoice.loadtest.harness import Timing
from heartvoice.models.generate import generate
from heartvoice.models.heartmula import HeartMuLa, StepInputs, StepOutputs
from heartvoice.models.llama import KVCache
from heartvoice.stages.lm.engine import Codes, FrameInput, SongPrompt
from heartvoice.stages.lm.engine_torch import TorchEngine

SONG, STEP, PROMPT = "HeartMuLa songs, bf16", "HeartMuLa step, bf16", "HeartMuLa prompt, bf16"
EXACT, PROFILE = "HeartMuLa bf16 against fp32, same weights", "HeartMuLa step, profile"
SONGS = (1, 2, 4, 8, 16)
SECONDS, DRY_SECONDS = (30.0, 240.0), (1.0, 2.0)
LAG = 2
"""Number of steps by which codes arrive late."""
MIDDLE = 1500
"""Cached positions of the single measured step."""
BLOCK = 256
"""The module reads the cache in blocks of this many positions."""
TOP_K = 50
PROMPT_TOKENS = 300
_CHECKED_FRAMES = 8
_LEAST_S = 30
"""Least remaining time for starting the longest songs."""
_DTYPE = torch.bfloat16


def step_inputs(preset: Preset, device: torch.device, *, songs: int, position: int, tokens: int = 0) -> StepInputs:
    """Inputs of guided songs: one frame after `position` cached positions, or a prompt of `tokens` tokens."""
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
    """Frames at one position, in buffers with fixed addresses, as CUDA graphs require."""

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
        """Generate one frame from the previous codes, without synchronisation."""
        outputs = self.network.step(self.inputs, self.past, eos_id=self.eos_id, max_top_k=TOP_K)
        self.cache.write(outputs.new, self.inputs.position)
        self.inputs.codes.copy_(outputs.codes)
        self.logits.copy_(outputs.logits)

    def next(self, frame: Callable[[], object]) -> Tensor:
        """Generate one frame as a server does: random numbers to the device, codes back."""
        self.inputs.uniform.copy_(self.draws[self.n_made % len(self.draws)])
        frame()
        self.n_made += 1
        return self.inputs.codes.cpu()

    def first(self, frame: Callable[[], object]) -> tuple[Tensor, Tensor]:
        """Start over; return the first frames' codes [n, S, K] and the first logits [S, V]."""
        self.inputs.codes.zero_()
        self.n_made = 0
        codes = [self.next(frame).clone()]  # on a CPU `next` returns the buffer itself
        logits = self.logits[:, 0].clone()
        codes += [self.next(frame).clone() for _ in range(_CHECKED_FRAMES - 1)]
        return torch.stack(codes), logits


def measure(bench: Bench, preset: Preset) -> None:
    """Measure songs in the engine and eager steps of equal size and position; adds rows."""
    lm = _loaded(bench, preset)
    if lm is None:
        return
    bench.attempt(PROMPT, "eager", lm.prompt)
    bench.attempt(EXACT, "eager", lm.against_fp32)
    for seconds in SECONDS if bench.on_gpu else DRY_SECONDS:
        for songs in SONGS:
            variant = f"{songs} songs, {seconds:g} s"
            bench.attempt(STEP, f"eager, {variant}", partial(lm.eager, variant, songs, seconds))
            bench.attempt(SONG, variant, partial(lm.songs, variant, songs, seconds), needs_s=_LEAST_S)
            bench.release()
    bench.attempt(PROFILE, "eager", partial(lm.profile, "eager"))
    bench.attempt(PROFILE, "engine", lm.profile_engine)


def measure_compiled(bench: Bench, preset: Preset) -> None:
    """Measure the compiled module, also as a CUDA graph; adds rows.

    This runs last, because it takes minutes.
    """
    lm = _loaded(bench, preset)
    if lm is None:
        return
    for variant, needs_s, compiling in (
        ("compiled backbone", 60, lm.compile_backbone),
        ("compiled backbone and frame", 150, lm.compile_frame),
    ):
        name = variant + (", CUDA graph" if bench.on_gpu else "")
        bench.attempt(STEP, variant, compiling)
        bench.attempt(STEP, name, partial(lm.compiled, name), needs_s=needs_s)
        bench.attempt(PROFILE, variant, partial(lm.profile, variant))


def _loaded(bench: Bench, preset: Preset) -> _Lm | None:
    loaded = bench.attempt(STEP, "load", lambda: random_network(preset.lm, bench.device, _DTYPE))
    return None if loaded is None else _Lm(bench, preset, cast("HeartMuLa", loaded))


class Songs:
    """Guided, sampled songs of one length in an engine, scheduled as in a server, without EOS."""

    def __init__(self, engine: TorchEngine, preset: Preset, *, songs: int, n_frames: int) -> None:
        ids = (keyed_random.uniform(0, "prompt", 0, (PROMPT_TOKENS,)) * preset.lm.text_vocab_size).astype(np.int64)
        style = np.zeros(preset.lm.muq_dim, np.float32)
        self.prompt = SongPrompt(ids, style, 7, 1.0, TOP_K, 1.5, PROMPT_TOKENS + n_frames)
        self.engine, self.n_frames, self.books = engine, n_frames, preset.lm.audio_num_codebooks
        self.made = dict.fromkeys(range(songs), 0)

    def frame(self, slot: int) -> FrameInput:
        """Return the input of the next frame that is neither generated nor in flight."""
        index = self.made[slot] + (self.engine.pending(slot) if self.made[slot] else 0)
        return FrameInput(self.draws(slot, index), allow_eos=False)

    def draws(self, slot: int, index: int) -> NDArray[np.float32]:
        """Random numbers of a song's frame, float32 [K]."""
        return keyed_random.uniform(slot, "lm", index, (self.books,))

    def begin(self) -> Timing:
        """Process all prompts."""
        seconds = []
        for slot in self.made:
            start = time.perf_counter()
            self.engine.prefill(slot, self.prompt, self.frame(slot))
            seconds.append(time.perf_counter() - start)
            self.made[slot] = 1
        return Timing(tuple(seconds))

    def step(self) -> None:
        """Run one step of all songs."""
        for slot in self.engine.step({slot: self.frame(slot) for slot in self.made}):
            self.made[slot] += 1

    def finish(self) -> Timing:
        """Finish all songs; return the seconds between consecutive frames."""
        marks = [time.perf_counter()]
        while min(self.made.values()) < self.n_frames:
            self.step()
            marks.append(time.perf_counter())
        if set(self.made.values()) != {self.n_frames}:
            raise EngineError(f"songs: expected {self.n_frames} frames each, got {sorted(set(self.made.values()))}")
        return Timing(tuple(np.diff(marks)))


class _Lm:
    """The network, with caches of random numbers: attention over zeros would be faster."""

    def __init__(self, bench: Bench, preset: Preset, network: HeartMuLa) -> None:
        self.bench, self.preset, self.network = bench, preset, network
        self.eager_ms: dict[str, float] = {}
        self.alone_per_s: dict[float, float] = {}

    def _filled(self, rows: int) -> KVCache:
        device = self.bench.device
        cache = KVCache(self.preset.lm.backbone, rows, self.preset.max_positions, dtype=_DTYPE, device=device)
        generator = torch.Generator(device).manual_seed(0)
        for pair in cache.layers:
            for tensor in pair:
                tensor.normal_(generator=generator)
        return cache

    def prompt(self) -> None:
        """Measure the prompt of one guided song, including the cache writes and the first frame."""
        cache = KVCache(self.preset.lm.backbone, 2, PROMPT_TOKENS, dtype=_DTYPE, device=self.bench.device)
        inputs = step_inputs(self.preset, self.bench.device, songs=1, position=0, tokens=PROMPT_TOKENS)

        def run() -> None:
            outputs = self.network.step(inputs, None, eos_id=self.preset.ids.audio_eos_id, max_top_k=TOP_K)
            cache.write(outputs.new, inputs.position)

        timing, facts = self.bench.time(run, n=10)
        flop = prefill_flop(self.preset.lm, positions=PROMPT_TOKENS, rows=2)
        row = self.bench.run.add(PROMPT, "eager", timing, tokens=PROMPT_TOKENS, tflop_s=flop / timing.median / 1e12)
        row |= facts

    # ------------------------------------------------------------------------------------------------------- songs

    def songs(self, variant: str, songs: int, seconds: float) -> None:
        """Measure concurrent songs, from the first prompt to the last frame, with one slot each."""
        n_frames = round(seconds * FRAMES_PER_S)
        start = time.perf_counter()
        engine = TorchEngine(self.network, self.preset, n_slots=songs, lag=LAG, exact=False)
        engine.warm_up()
        warm_up_s = time.perf_counter() - start
        playing = Songs(engine, self.preset, songs=songs, n_frames=n_frames)
        (prompts, frames), memory = self.bench.peak(lambda: (playing.begin(), playing.finish()))
        per_s = songs / sum((*prompts.seconds, *frames.seconds))
        if songs == 1:
            self.alone_per_s[seconds] = per_s
        row = self.bench.run.add(SONG, variant, frames, songs=songs, positions=PROMPT_TOKENS + n_frames, lag=LAG)
        row |= self._roof(PROMPT_TOKENS + n_frames // 2, songs, sum(frames.seconds) / (n_frames - 1))
        row |= {"prompt_ms": prompts.median * 1e3, "songs_per_s": per_s, "rtf": 1 / (per_s * seconds)}
        row |= {"warm_up_s": warm_up_s, **memory}
        if seconds in self.alone_per_s:
            row["times_one"] = per_s / self.alone_per_s[seconds]
        if variant in self.eager_ms:
            row["of_eager"] = row["p50_ms"] / self.eager_ms[variant]

    def eager(self, variant: str, songs: int, seconds: float) -> None:
        """Measure eager steps of the module in the middle of such songs."""
        position = PROMPT_TOKENS + round(seconds * FRAMES_PER_S) // 2
        frames = Frames(self.network, self.preset, self._filled(2 * songs), songs=songs, position=position)
        self.eager_ms[variant] = self._add(frames, frames.frame, f"eager, {variant}", position, n=10)["p50_ms"]

    def _add(
        self, frames: Frames, frame: Callable[[], object], variant: str, position: int, *, n: int
    ) -> dict[str, Any]:
        timing, facts = self.bench.time(lambda: frames.next(frame), n=n)
        songs = len(frames.inputs.codes)
        row = self.bench.run.add(STEP, variant, timing, songs=songs, positions=position)
        row |= self._roof(position, songs, timing.median) | facts
        return row

    def _roof(self, position: int, songs: int, seconds: float) -> dict[str, float]:
        """Time for reading a frame's bytes at full bandwidth, and its ratio to `seconds`."""
        rates = self.bench.run.rates
        read = frame_bytes(self.preset.lm, positions=position, rows=2 * songs, weight_bytes=2, cache_bytes=2).total
        roof_ms = read / max(rates["read_gb_s"], rates["copy_gb_s"]) / 1e6
        return {"read_gb": read / 1e9, "roof_ms": roof_ms, "share_of_roof": roof_ms / (seconds * 1e3)}

    # ------------------------------------------------------------------------------------ the compiled module, profiles

    def compile_backbone(self) -> None:
        """Compile a layer of the backbone; all layers share the compilation."""
        torch._dynamo.config.recompile_limit = 64
        for layer in self.network.backbone.layers:
            layer.compile(dynamic=False)

    def compile_frame(self) -> None:
        """Compile depth decoder, heads and sampler as one function."""
        self.network.sample_frame = torch.compile(self.network.sample_frame, dynamic=False)  # type: ignore[method-assign]

    def compiled(self, variant: str) -> None:
        """Measure frames of the compiled module, on a GPU replayed from a CUDA graph."""
        frames = Frames(self.network, self.preset, self._filled(2), songs=1, position=MIDDLE)
        frame = self.bench.capture(frames.frame) if self.bench.on_gpu else frames.frame
        self._add(frames, frame, variant, MIDDLE, n=100)

    def profile(self, variant: str) -> None:
        """List the kernels of one frame of the module."""
        frames = Frames(self.network, self.preset, self._filled(2), songs=1, position=MIDDLE)
        self.bench.run.add(PROFILE, variant).update(self.bench.profile(frames.frame))

    def profile_engine(self) -> None:
        """List the kernels of the engine, early in a song."""
        playing = Songs(TorchEngine(self.network, self.preset), self.preset, songs=1, n_frames=9)
        playing.begin()
        playing.step()
        self.bench.run.add(PROFILE, "engine").update(self.bench.profile(playing.step))

    # --------------------------------------------------------------------------------------------------- precision

    def against_fp32(self) -> None:
        """Compare one bf16 step with float32, and the engine with the module in both precisions."""
        cache = self._filled(2)
        inputs = step_inputs(self.preset, self.bench.device, songs=1, position=MIDDLE)
        inputs = replace(inputs, uniform=torch.full_like(inputs.uniform, 0.5))
        small = self._step(self.network, inputs, cache.past(MIDDLE))
        wide_network = copy.deepcopy(self.network).float()
        wide_past = [(key.float(), value.float()) for key, value in cache.past(MIDDLE)]
        wide = self._step(wide_network, inputs, wide_past)
        again = self._step(wide_network, inputs, wide_past)
        first = errors(small.logits[:, 0], wide.logits[:, 0])  # later codebooks depend on earlier codes
        row = self.bench.run.add(EXACT, "codebook 0", positions=MIDDLE)
        row["codes_that_differ"] = int((small.codes != wide.codes).sum())
        row |= first | {"fp32_repeats": bool(torch.equal(wide.logits, again.logits))}
        for name, network in (("bf16", self.network), ("fp32", wide_network)):
            self.bench.run.add(EXACT, f"engine, {name}").update(self._agreement(network))
        del wide_network
        self.bench.release()

    def _step(self, network: HeartMuLa, inputs: StepInputs, past: list[tuple[Tensor, Tensor]]) -> StepOutputs:
        outputs: StepOutputs = network.step(inputs, past, eos_id=self.preset.ids.audio_eos_id, max_top_k=TOP_K)
        return outputs

    def _agreement(self, network: HeartMuLa) -> dict[str, float]:
        """Return the share of codes that engine and module draw alike, given the module's frames.

        A differing code changes the rest of its frame, so codebook 0 is also counted separately.
        """
        playing = Songs(TorchEngine(network, self.preset, n_slots=2), self.preset, songs=2, n_frames=_CHECKED_FRAMES)
        wanted = {slot: self._generated(network, playing, slot) for slot in playing.made}
        playing.begin()
        same = []
        for index in range(1, _CHECKED_FRAMES):
            fed = {slot: replace(playing.frame(slot), codes=codes[index - 1]) for slot, codes in wanted.items()}
            for slot, codes in playing.engine.step(fed).items():
                same.append(codes == wanted[slot][index])
                playing.made[slot] += 1
        return {"codes_as_module": float(np.mean(same)), "codebook_0_as_module": float(np.mean(same, axis=0)[0])}

    def _generated(self, network: HeartMuLa, songs: Songs, slot: int) -> Codes:
        """Generate a song by the module alone, int64 [T, K]."""
        prompt = songs.prompt
        codes = generate(
            network,
            prompt.text_ids,
            max_frames=songs.n_frames,
            min_frames=songs.n_frames,
            eos_id=self.preset.ids.audio_eos_id,
            uniform=partial(songs.draws, slot),
            style=prompt.style,
            style_index=prompt.style_index,
            cfg_scale=prompt.cfg_scale,
            top_k=prompt.top_k,
        )
        return codes.cpu().numpy().T.astype(np.int64)
