"""Measures the error of quantisation: compares the quantised graph with float32 on the same songs.

The float32 graph generates songs from fixed prompts with fixed random numbers. The quantised graph gets the same codes,
in the depth decoder too, so each of its distributions is compared with the correct one. It keeps a separate cache, so
errors of earlier positions count, as they do in a song.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from heartvoice.arrays import Array
from heartvoice.config.presets import Preset
from heartvoice.errors import ExportError
from heartvoice.export.graph_builder import Graph
from heartvoice.export.heartmula_ort import build_heartmula_ort
from heartvoice.export.quantize import NOTHING, Quantization
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.keyed_random import normal, uniform
from heartvoice.models.load import TensorSource
from heartvoice.runtime.engines import Engine, OnnxEngine

MAX_KL_NATS = 0.05
"""Largest mean divergence of any codebook: perplexity grows by e^KL, so by 5 % at most. Random weights, the worst case
for few bits, stay at 0.006 with 8 bits and are at 0.07 to 0.35 with 4 (benchmarks/DIARY.md). Whether a listener hears
less than that, only `lyric_error_rates` on real weights can tell."""
N_FRAMES = 24
TOP_K = 50
_SEED = 0

Codes = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prompt:
    """The prompt of a song."""

    text_ids: Codes
    style_index: int
    cfg_scale: float
    style: npt.NDArray[np.float32]


@dataclass(frozen=True)
class BookQuality:
    """Error of one codebook over all songs and frames, after guidance and without special ids."""

    snr_db: float
    """Error of the logits without each frame's mean, because a common shift has no effect."""
    kl_nats: float
    """Mean Kullback-Leibler divergence of the quantised from the float32 distribution, at temperature 1."""
    agreement: float
    """Share of frames in which both have the same most probable code."""


Quality = tuple[BookQuality, ...]


def fixed_prompts(preset: Preset) -> list[Prompt]:
    """Make four prompts from a seed: several lengths, guided and not, with and without style."""
    prompts = []
    for index, (length, style_index, scale) in enumerate(((48, 11, 1.5), (20, 4, 1.0), (64, 0, 3.0), (33, -1, 1.5))):
        ids = uniform(_SEED, "quality text", index, (length,)) * preset.lm.text_vocab_size
        style = normal(_SEED, "quality style", index, (preset.lm.muq_dim,))
        prompts.append(Prompt(ids.astype(np.int64), style_index, scale, style))
    return prompts


def measure_quality(reference: Engine, quantised: Engine, preset: Preset, n_frames: int = N_FRAMES) -> Quality:
    """Compare two graphs made by `build_heartmula_ort(..., taught=True)`.

    Returns:
        One entry for each codebook.
    """
    prompts = fixed_prompts(preset)
    teacher, pupil = (Songs(engine, preset, prompts, _SEED) for engine in (reference, quantised))
    pairs = []
    for _ in range(n_frames):
        codes, wanted = teacher.next_frame()
        _, got = pupil.next_frame(codes)
        pairs.append((wanted, got))
    size = preset.lm.codebook_size
    wanted, got = (np.concatenate(logits)[..., :size].astype(np.float64) for logits in zip(*pairs, strict=True))
    return tuple(compare_logits(wanted[:, book], got[:, book]) for book in range(wanted.shape[1]))


def report(preset: Preset, source: TensorSource, quantization: Quantization, folder: Path) -> dict[str, Any]:
    """Measure a quantisation against float32 and refuse it if the error is too large.

    Args:
        preset: sizes and ids.
        source: the weights.
        quantization: weights to store in few bits.
        folder: for both graphs, temporarily.

    Returns:
        The manifest entry.

    Raises:
        ExportError: the error is too large (see `MAX_KL_NATS`), or the disk is too small for both graphs.
    """
    graphs = [build_heartmula_ort(preset, source, choice, taught=True) for choice in (NOTHING, quantization)]
    needed, free = sum(graph.nbytes for graph in graphs), shutil.disk_usage(folder).free
    if free < needed:
        raise ExportError(f"{folder.name}: comparing needs {needed / 1e9:.1f} GB on disk, {free / 1e9:.1f} GB are free")
    with TemporaryDirectory(dir=folder) as temporary:
        exact, quantised = (_open(graph, Path(temporary) / str(index)) for index, graph in enumerate(graphs))
        quality = measure_quality(exact, quantised, preset)
    check_quality(quality, str(quantization))
    return summary(quality)


def _open(graph: Graph, folder: Path) -> OnnxEngine:
    folder.mkdir()
    write_graph(graph, folder)
    return OnnxEngine(folder / GRAPH_FILE)


def compare_logits(wanted: npt.NDArray[np.float64], got: npt.NDArray[np.float64]) -> BookQuality:
    """Compare the logits [frames, V] of one codebook."""
    wanted, got = (logits - logits.mean(axis=1, keepdims=True) for logits in (wanted, got))
    error = float(np.linalg.norm(got - wanted))
    wanted_log, got_log = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)) for logits in (wanted, got))
    return BookQuality(
        snr_db=20 * math.log10(float(np.linalg.norm(wanted)) / error) if error else math.inf,
        kl_nats=float((np.exp(wanted_log) * (wanted_log - got_log)).sum(axis=1).mean()),
        agreement=float((wanted.argmax(axis=1) == got.argmax(axis=1)).mean()),
    )


def check_quality(quality: Quality, quantize: str) -> None:
    """Refuse a codebook with too large a divergence.

    Raises:
        ExportError: names the codebooks, their divergence and the limit.
    """
    failed = [
        f"codebook {book} {entry.kl_nats:.2f}"
        for book, entry in enumerate(quality)
        if not entry.kl_nats <= MAX_KL_NATS  # written so that NaN is refused
    ]
    if failed:
        raise ExportError(
            f"heartmula_step_ort: {quantize} weights change what is drawn by more than {MAX_KL_NATS:g} nats: "
            f"{', '.join(failed)}; choose more bits or fewer parts"
        )


def summary(quality: Quality, n_frames: int = N_FRAMES) -> dict[str, Any]:
    """Return the manifest entry, rounded to be equal on all machines."""
    return {
        "frames": n_frames,
        "max_kl_nats": MAX_KL_NATS,
        "codebooks": [
            {
                "snr_db": round(min(entry.snr_db, 999.0)),
                "kl_nats": float(f"{entry.kl_nats:.1e}"),
                "agreement": round(entry.agreement, 2),
            }
            for entry in quality
        ],
    }


# --------------------------------------------------------------------------------------------------- lyrics, by scorer

LyricScorer = Callable[[npt.NDArray[np.int32], str], float]
"""Returns the error rate of codes [8, T] against lyrics; it decodes and recognises the speech."""


def lyric_error_rates(
    engines: Mapping[str, Engine],
    preset: Preset,
    songs: Sequence[tuple[Prompt, str]],
    scorer: LyricScorer,
    *,
    n_frames: int,
    seed: int = _SEED,
) -> dict[str, float]:
    """Let every engine generate the same songs and score their lyrics. Valid for real weights only.

    Args:
        engines: graphs made with `taught=True`, by name, in float32 and quantised.
        preset: sizes and ids.
        songs: prompts and their lyrics.
        scorer: see `LyricScorer`.
        n_frames: longest song in frames; EOS ends one.
        seed: of the random numbers, the same for every engine.

    Returns:
        Each engine's mean error rate.
    """
    rates = {}
    for name, engine in engines.items():
        writer = Songs(engine, preset, [prompt for prompt, _ in songs], seed, allow_eos=True)
        frames = np.stack([writer.next_frame()[0] for _ in range(n_frames)], axis=2)  # [S, 8, T]
        scores = []
        for codes, (_, lyrics) in zip(frames, songs, strict=True):
            ends = np.flatnonzero((codes >= preset.ids.audio_eos_id).any(axis=0))
            scores.append(scorer(codes[:, : ends[0] if len(ends) else None].astype(np.int32), lyrics))
        rates[name] = float(np.mean(scores))
    return rates


class Songs:
    """A batch of unfinished songs on one engine."""

    def __init__(
        self, engine: Engine, preset: Preset, prompts: Sequence[Prompt], seed: int, *, allow_eos: bool = False
    ) -> None:
        """Start with the prompts."""
        self._engine, self._preset, self._seed = engine, preset, seed
        count = len(prompts)
        self._row_song = np.array([song for song, each in enumerate(prompts) for _ in range(1 + (each.cfg_scale > 1))])
        conditional = np.searchsorted(self._row_song, np.arange(count))
        scales = np.array([prompt.cfg_scale for prompt in prompts], np.float32)
        self._fixed: dict[str, Array] = {
            "style": np.stack([prompt.style for prompt in prompts]),
            "row_song": self._row_song,
            "cond_row": conditional,
            "uncond_row": conditional + (scales > 1),
            "temperature": np.ones(count, np.float32),
            "top_k": np.full(count, min(TOP_K, preset.lm.codebook_size)),
            "cfg_scale": scales,
            "allow_eos": np.full(count, allow_eos),
        }
        lengths = np.array([len(prompt.text_ids) for prompt in prompts])
        self._text = np.stack([np.pad(each.text_ids, (0, lengths.max() - len(each.text_ids))) for each in prompts])
        self._n_new, self._style_index = lengths, np.array([prompt.style_index for prompt in prompts])
        self._position = np.zeros(len(self._row_song), np.int64)
        self._codes = np.zeros((count, preset.lm.audio_num_codebooks), np.int64)
        self._n_made = 0
        backbone = preset.lm.backbone
        shape = (len(self._row_song), backbone.num_kv_heads, 0, backbone.head_dim)
        self._cache = {
            f"{kind}_past_{layer}": np.empty(shape, np.float32) for layer in range(backbone.num_layers) for kind in "kv"
        }

    def next_frame(self, teacher: Codes | None = None) -> tuple[Codes, Logits]:
        """Draw a frame of every song, or use the teacher's codes.

        Returns:
            The frame that the songs continue from, int64 [S, 8], and the logits [S, 8, V].
        """
        shape = self._codes.shape
        result = self._engine.run(
            {
                **self._fixed,
                **self._cache,
                "text_ids": self._text,
                "codes": self._codes,
                "style_index": self._style_index,
                "n_new": self._n_new,
                "position": self._position,
                "uniform": uniform(self._seed, "quality", self._n_made, shape),
                "teacher": np.full(shape, -1) if teacher is None else teacher,
            }
        )
        self._cache = {name: result[name.replace("past", "present")].astype(np.float32) for name in self._cache}
        self._position = self._position + self._n_new[self._row_song]
        count = len(self._codes)
        self._text, self._style_index = np.full((count, 1), -1), np.full(count, -1)
        self._n_new = np.ones(count, np.int64)
        self._n_made += 1
        drawn: Codes = result["next_codes"].astype(np.int64)
        self._codes = drawn if teacher is None else teacher
        return self._codes, result["logits"].astype(np.float32)
