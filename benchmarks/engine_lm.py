"""HeartMuLa's step: both graph dialects in their engines, against PyTorch eager with a static cache.

All variants use the same random numbers and are fed the same codes, frame by frame, so all float32 frames must be
equal. (Songs that are fed their own codes stay different after the first difference.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.arithmetic import FrameBytes, frame_bytes
from heartvoice import keyed_random
from heartvoice.arrays import Array
from heartvoice.config.presets import HeartMuLaConfig, Preset
from heartvoice.contracts.constants import FRAMES_PER_S
from heartvoice.export.heartmula_ort import build_heartmula_ort
from heartvoice.export.quantize import NOTHING, PARTS, Quantization, stored_bytes
from heartvoice.export.quantize_quality import N_FRAMES, measure_quality
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.loadtest.harness import Run, Timing, alternate, difference
from heartvoice.models.heartmula import HeartMuLa, StepInputs
from heartvoice.models.llama import KVCache
from heartvoice.models.load import TensorSource, load_network
from heartvoice.models.prompt import build_prompt, load_tokenizer
from heartvoice.runtime.engines import Engine, OnnxEngine
from heartvoice.runtime.repository import Repository
from heartvoice.stages.lm.engine import GraphEngine, LmEngine
from heartvoice.stages.lm.engine_ort import OrtEngine
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.lm.song_state import SongState

CASE, PROMPT = "LM step", "LM prompt"
EAGER, STANDARD, ORT = "eager fp32, static cache", "standard, fp32", "ort, fp32"
QUANTIZED = {f"ort, {text}": Quantization.parse(text) for text in ("depth-int8", "int8", "depth-int4", "int4")}
PAST = 512
"""Least number of cached positions at the first measured frame, as after half a minute of a song."""
LEAD = 1
"""Uncounted frames before each counted one."""
BUDGETS = {STANDARD: 0.65, ORT: 0.65, "ort, int8": 0.32}
"""Allowed time relative to eager's (design, section 4)."""
Codes = npt.NDArray[np.int64]


def request(preset: Preset, n_frames: int, tokens: int) -> LmRequest:
    """Make a guided request with at least `tokens` tokens (the random tokenizer makes one per byte)."""
    seconds = (n_frames + 1) / FRAMES_PER_S
    return LmRequest(
        lyrics=("la " * tokens)[:tokens], tags="pop", duration_s=seconds, min_duration_s=seconds,
        seed=1, temperature=1.0, top_k=50, cfg_scale=1.5,
    )  # fmt: skip


class EagerSong:
    """One song in PyTorch with a static cache."""

    def __init__(self, network: HeartMuLa, preset: Preset, text_ids: Codes, style_index: int, song: LmRequest) -> None:
        """Allocate the cache of two rows."""
        self.network, self.preset, self.song = network, preset, song
        self.text_ids, self.style_index = text_ids, style_index
        self.cache = KVCache(preset.lm.backbone, 2, len(text_ids) + song.n_frames)
        self.position, self.n_made = 0, 0
        self.logits = np.empty(0, np.float32)
        self.fixed = {
            "style": torch.zeros(1, preset.lm.muq_dim),
            "row_song": torch.zeros(2, dtype=torch.int64),
            "cond_row": torch.tensor([0]),
            "uncond_row": torch.tensor([1]),
            "temperature": torch.tensor([song.temperature]),
            "top_k": torch.tensor([song.top_k]),
            "cfg_scale": torch.tensor([song.cfg_scale]),
            "allow_eos": torch.tensor([False]),
        }

    @torch.inference_mode()
    def next_frame(self, codes: Codes | None) -> Codes:
        """Process the prompt (None) or one frame [8]; return the next frame's ids."""
        text_ids = self.text_ids if codes is None else np.array([-1], np.int64)
        fed = np.zeros(self.preset.lm.audio_num_codebooks, np.int64) if codes is None else codes
        draws = keyed_random.uniform(self.song.seed, "lm", self.n_made, (1, len(fed)))
        inputs = StepInputs(
            text_ids=torch.from_numpy(text_ids)[None],
            codes=torch.from_numpy(fed)[None],
            style_index=torch.tensor([self.style_index if codes is None else -1]),
            n_new=torch.tensor([len(text_ids)]),
            position=torch.full((2,), self.position),
            uniform=torch.from_numpy(draws),
            **self.fixed,
        )
        past = self.cache.past(self.position) if self.position else None
        eos_id, top_k = self.preset.ids.audio_eos_id, self.song.top_k
        outputs = self.network.step(inputs, past, eos_id=eos_id, max_top_k=top_k)
        self.cache.write(outputs.new, inputs.position)
        self.position += len(text_ids)
        self.n_made += 1
        self.logits = outputs.logits.numpy()
        made: Codes = outputs.codes[0].numpy()
        return made


class EngineSong:
    """One song in an engine, with the interface of `EagerSong`."""

    def __init__(self, engine: LmEngine, song: SongState) -> None:
        """Start the song in slot 0."""
        self.engine, self.song = engine, song

    def next_frame(self, codes: Codes | None) -> Codes:
        """Process the prompt (None) or one frame [8]; return the next frame's ids."""
        frame = replace(self.song.next_input(), codes=codes, allow_eos=False)
        self.song.n_made += 1
        return self.engine.prefill(0, self.song.prompt, frame) if codes is None else self.engine.step({0: frame})[0]


class _Probe:
    """A graph that stores the logits while `probing`; otherwise it adds no work."""

    def __init__(self, graph: Engine) -> None:
        self.graph, self.probing = graph, False
        self.logits = np.empty(0, np.float32)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the graph once."""
        if not self.probing or outputs is None:
            return self.graph.run(inputs, outputs)
        results = self.graph.run(inputs, [*outputs, "logits"])
        self.logits = results["logits"].astype(np.float32)
        return results


class _ForcedSong:
    """A song that is fed random codes, equal for all variants, instead of its own."""

    def __init__(self, next_frame: Callable[[Codes | None], Codes], sizes: HeartMuLaConfig) -> None:
        self.next_frame, self.sizes = next_frame, sizes
        self.made: list[Codes] = []

    def run(self) -> None:
        """Generate one more frame; the prompt generates the first one."""
        draws = keyed_random.uniform(0, "benchmark codes", len(self.made), (self.sizes.audio_num_codebooks,))
        codes = (draws * self.sizes.codebook_size).astype(np.int64)
        self.made.append(self.next_frame(codes if self.made else None))


def measure(run: Run, repository: Repository, source: TensorSource, *, n: int, tokens: int = PAST) -> bool:
    """Measure all variants and add rows.

    Args:
        run: receives the rows.
        repository: contains the standard graph and the tokenizer.
        source: weights of the graph.
        n: measured frames.
        tokens: least length of the prompt.

    Returns:
        True if all frames of the unquantised graphs have eager's codes.
    """
    with TemporaryDirectory() as folder:
        bench = _Bench(run, repository, source, Path(folder))
        # One prompt, two warm-up rounds, and the frame whose logits are compared.
        song = request(repository.preset, (1 + LEAD) * n + 4, tokens)
        bench.prompts(song, max(3, n // 20))
        exact = bench.steps(song, n)
        bench.qualities(min(n, N_FRAMES))
    return exact


class _Bench:
    """Eager, and an engine for each graph."""

    def __init__(self, run: Run, repository: Repository, source: TensorSource, folder: Path) -> None:
        self.run, self.preset, self.source, self.folder = run, repository.preset, source, folder
        self.network = cast("HeartMuLa", load_network(self.preset.lm, source))
        self.tokenizer = load_tokenizer(repository.root / "heartmula" / "1" / "tokenizer.json")
        self.probe = _Probe(OnnxEngine(repository.graph("heartmula_step"), threads=run.threads))
        self.engines: dict[str, LmEngine] = {STANDARD: GraphEngine(self.probe, self.preset)}
        for name, choice in ({ORT: NOTHING} | QUANTIZED).items():
            self.engines[name] = OrtEngine(self._graph(choice), self.preset, threads=run.threads)

    def _graph(self, choice: Quantization, *, taught: bool = False) -> Path:
        folder = self.folder / f"{choice}-{taught}"
        folder.mkdir()
        write_graph(build_heartmula_ort(self.preset, self.source, choice, taught=taught), folder)
        return folder / GRAPH_FILE

    def _eager(self, song: LmRequest) -> EagerSong:
        prompt = build_prompt(song.tags, song.lyrics, self.tokenizer, self.preset.ids)
        return EagerSong(self.network, self.preset, prompt.text_ids, prompt.style_index, song)

    def _begin(self, engine: LmEngine, song: LmRequest) -> EngineSong:
        return EngineSong(engine, SongState(song, self.tokenizer, self.preset))

    def prompts(self, song: LmRequest, n: int) -> None:
        """Time the prompt."""

        def prefill(engine: LmEngine) -> None:
            self._begin(engine, song).next_frame(None)
            engine.release(0)

        variants: dict[str, Callable[[], object]] = {EAGER: lambda: self._eager(song).next_frame(None)}
        variants |= {name: partial(prefill, engine) for name, engine in self.engines.items()}
        timings = alternate(variants, n=n, warmup=1)
        for name, timing in timings.items():
            baseline = None if name == EAGER else timings[EAGER]
            self.run.add(PROMPT, name, timing, baseline=baseline, positions=len(self._eager(song).text_ids))

    def steps(self, song: LmRequest, n: int) -> bool:
        """Time frames; return True if every float32 graph's frames equal eager's."""
        eager = self._eager(song)
        songs = {EAGER: _ForcedSong(eager.next_frame, self.preset.lm)}
        for name, engine in self.engines.items():
            songs[name] = _ForcedSong(self._begin(engine, song).next_frame, self.preset.lm)
        for fed in songs.values():
            fed.run()
        timings = alternate({name: fed.run for name, fed in songs.items()}, n=n, warmup=2, lead=LEAD)
        self.probe.probing = True
        for fed in songs.values():
            fed.run()
        positions, exact, wanted = (len(eager.text_ids) + eager.position) // 2, True, songs[EAGER].made
        self._add(EAGER, timings[EAGER], positions)
        for name in self.engines:
            row = self._add(name, timings[name], positions, timings[EAGER])
            differ = sum(not np.array_equal(a, b) for a, b in zip(wanted, songs[name].made, strict=True))
            row |= {"frames": len(wanted), "frames_that_differ": differ}
            row |= {"budget": BUDGETS[name]} if name in BUDGETS else {}
            row |= difference(self.probe.logits, eager.logits) if name == STANDARD else {}
            exact = exact and (name in QUANTIZED or not differ)
        return exact

    def _add(self, variant: str, timing: Timing, positions: int, baseline: Timing | None = None) -> dict[str, object]:
        """Add a row with its ratio to the bandwidth bound."""
        n_bytes = read_bytes(self.preset.lm, QUANTIZED.get(variant, NOTHING), positions)
        floor_s = n_bytes / (self.run.rates["bandwidth_gb_s"] * 1e9)
        return self.run.add(
            CASE,
            variant,
            timing,
            baseline=baseline,
            positions=positions,
            rtf=timing.median * FRAMES_PER_S,
            read_mb=n_bytes / 1e6,
            read_gb_s=n_bytes / timing.median / 1e9,
            floor_ms=floor_s * 1e3,
            share_of_floor=floor_s / timing.median,
        )

    def qualities(self, n_frames: int) -> None:
        """Add the effect of each quantisation on the worst codebook."""
        exact = OnnxEngine(self._graph(NOTHING, taught=True), threads=self.run.threads)
        for name, choice in QUANTIZED.items():
            engine = OnnxEngine(self._graph(choice, taught=True), threads=self.run.threads)
            books = measure_quality(exact, engine, self.preset, n_frames)
            self.run.add(
                "LM quality",
                name,
                frames=n_frames,
                snr_db=min(book.snr_db for book in books),
                kl_nats=max(book.kl_nats for book in books),
                agreement=min(book.agreement for book in books),
            )


def read_bytes(sizes: HeartMuLaConfig, choice: Quantization, positions: int, rows: int = 2) -> int:
    """Bytes that a frame reads; one guided song has two rows."""

    def parts(bits: int | None) -> FrameBytes:
        weight_bytes = 4.0 if bits is None else stored_bytes(bits)
        return frame_bytes(sizes, positions=positions, rows=rows, weight_bytes=weight_bytes)

    backbone, depth, heads = (parts(choice.bits.get(part)) for part in PARTS)
    return backbone.backbone + depth.depth + heads.heads + backbone.cache
