"""HeartMuLa's step: the exported graph, driven by the real stage, against PyTorch eager with a static cache.

Both draw from the same random numbers and are fed the same codes, frame by frame, so every frame must agree. (Fed its
own codes, a song that differs once differs for ever.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from heartvoice import noise
from heartvoice.benchmarks.costs import frame_bytes
from heartvoice.benchmarks.harness import Run, Timing, alternate, difference
from heartvoice.checkpoints import TensorSource, load_network
from heartvoice.contracts import FRAMES_PER_S
from heartvoice.engines import Array, Engine, OnnxEngine
from heartvoice.models.heartmula import HeartMuLa, StepInputs
from heartvoice.models.llama import KVCache
from heartvoice.models.prompt import build_prompt, load_tokenizer
from heartvoice.presets import Preset
from heartvoice.repository import Repository
from heartvoice.stages.lm import LmRequest, LmStage

CASE = "LM step"
EAGER, GRAPH = "eager fp32, static cache", "onnxruntime fp32, stage"
PAST = 512
"""Least cached positions at the first measured frame: what a song has after half a minute."""
LEAD = 1
"""Frames before each one that counts."""
BUDGET = 0.65
"""Of eager's time (design, section 4)."""
Codes = npt.NDArray[np.int64]


def request(preset: Preset, n_frames: int, tokens: int) -> LmRequest:
    """A guided request whose prompt has at least so many tokens (the random tokenizer gives one for each byte)."""
    seconds = (n_frames + 1) / FRAMES_PER_S
    return LmRequest(
        lyrics=("la " * tokens)[:tokens], tags="pop", duration_s=seconds, min_duration_s=seconds,
        seed=1, temperature=1.0, top_k=50, cfg_scale=1.5,
    )  # fmt: skip


class EagerSong:
    """One song in PyTorch with a static cache: the twin of what `LmStage.prepare` returns."""

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
        """Feed the prompt (None) or one frame [8]; return the next frame's ids."""
        text_ids = self.text_ids if codes is None else np.array([-1], np.int64)
        fed = np.zeros(self.preset.lm.audio_num_codebooks, np.int64) if codes is None else codes
        draws = noise.uniform(self.song.seed, "lm", self.n_made, (1, len(fed)))
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


class _Probe:
    """An engine that keeps the logits while asked to; untouched timing otherwise."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.probing = engine, False
        self.logits = np.empty(0, np.float32)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the graph once."""
        if not self.probing or outputs is None:
            return self.engine.run(inputs, outputs)
        results = self.engine.run(inputs, [*outputs, "logits"])
        self.logits = results["logits"].astype(np.float32)
        return results


class _Pair:
    """Both songs, fed the same frames of random codes, so that neither waits for what the other drew."""

    def __init__(self, eager: EagerSong, stage: LmStage) -> None:
        self.eager, self.graph = eager, stage.prepare(eager.song)
        self.made: dict[str, list[Codes]] = {"eager": [], "graph": []}

    def _fed(self, name: str) -> Codes | None:
        """What comes before the next frame: nothing before the first, which the prompt makes."""
        count, sizes = len(self.made[name]), self.eager.preset.lm
        draws = noise.uniform(0, "benchmark codes", count, (sizes.audio_num_codebooks,))
        return (draws * sizes.codebook_size).astype(np.int64) if count else None

    def run_eager(self) -> None:
        self.made["eager"].append(self.eager.next_frame(self._fed("eager")))

    def run_graph(self) -> None:
        self.made["graph"].append(self.graph.next_frame(self._fed("graph"), allow_eos=False))

    def frames_that_differ(self) -> int:
        return sum(not np.array_equal(a, b) for a, b in zip(self.made["eager"], self.made["graph"], strict=True))


def measure(run: Run, repository: Repository, source: TensorSource, *, n: int, tokens: int = PAST) -> bool:
    """Measure and add rows.

    Args:
        run: takes the rows.
        repository: holds the graph and its tokenizer.
        source: the weights that the graph was made from.
        n: measured frames.
        tokens: least length of the prompt.

    Returns:
        Whether every frame's codes were the same.
    """
    preset = repository.preset
    probe = _Probe(OnnxEngine(repository.graph("heartmula_step"), threads=run.threads))
    tokenizer = load_tokenizer(repository.root / "heartmula" / "1" / "tokenizer.json")
    song = request(preset, (1 + LEAD) * n + 4, tokens)  # the prompt, two warm-up rounds, the frame whose logits count
    network = load_network(preset.lm, source)
    assert isinstance(network, HeartMuLa)
    prompt = build_prompt(song.tags, song.lyrics, tokenizer, preset.ids)
    stage = LmStage(probe, tokenizer, preset)

    def eager_song() -> EagerSong:
        return EagerSong(network, preset, prompt.text_ids, prompt.style_index, song)

    prompts = alternate(
        {
            "eager": lambda: eager_song().next_frame(None),
            "graph": lambda: stage.prepare(song).next_frame(None, allow_eos=False),
        },
        n=max(3, n // 20),
        warmup=1,
    )
    pair = _Pair(eager_song(), stage)
    pair.run_eager()
    pair.run_graph()
    timings = alternate({"eager": pair.run_eager, "graph": pair.run_graph}, n=n, warmup=2, lead=LEAD)
    probe.probing = True
    pair.run_eager()
    pair.run_graph()
    differ = pair.frames_that_differ()
    positions = (len(prompt.text_ids) + pair.eager.position) // 2
    _add(run, preset, EAGER, timings["eager"], positions)
    row = _add(run, preset, GRAPH, timings["graph"], positions, timings["eager"])
    row |= difference(probe.logits, pair.eager.logits)
    row |= {"frames": len(pair.made["graph"]), "frames_that_differ": differ, "budget": BUDGET}
    run.add("LM prompt", EAGER, prompts["eager"], positions=len(prompt.text_ids))
    run.add("LM prompt", GRAPH, prompts["graph"], baseline=prompts["eager"], positions=len(prompt.text_ids))
    return differ == 0


def _add(
    run: Run, preset: Preset, variant: str, timing: Timing, positions: int, baseline: Timing | None = None
) -> dict[str, object]:
    """A row with its share of the bandwidth floor."""
    n_bytes = frame_bytes(preset.lm, positions=positions, rows=2).total
    floor_s = n_bytes / (run.rates["bandwidth_gb_s"] * 1e9)
    return run.add(
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
