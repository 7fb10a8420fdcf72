"""HeartMuLa behind one protocol: slots, prompts in, frames out; and its first engine, the portable graph.

Source: heartmula spec, sections 5 to 9; design decisions 12 and 13; the graph is `contracts.graphs.heartmula_step`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import N_CODEBOOKS
from heartvoice.runtime.engines import Engine
from heartvoice.stages.lm.cache import RowCache, cache_bytes, round_up

Codes = NDArray[np.int64]

PROMPT_BLOCK = 32
"""Prompts are padded to multiples of this many tokens: onnxruntime keeps a memory plan for every shape it has seen."""


@dataclass(frozen=True)
class SongPrompt:
    """What an engine must know of a song before its first frame."""

    text_ids: Codes
    """int64 [P], P at least 1."""
    style: NDArray[np.float32]
    """[muq_dim]."""
    style_index: int
    """The prompt position that the style overwrites."""
    temperature: float
    """0 is greedy."""
    top_k: int
    cfg_scale: float
    n_positions: int
    """Most positions that the song can fill: prompt and frames."""

    @property
    def greedy(self) -> bool:
        """Whether every code is the likeliest one."""
        return self.temperature == 0

    @property
    def guided(self) -> bool:
        """Whether the song has an unconditional row, too."""
        return self.cfg_scale > 1

    @property
    def n_rows(self) -> int:
        """Rows of the batch that the song takes."""
        return 2 if self.guided else 1


@dataclass(frozen=True)
class FrameInput:
    """What one song's next frame is drawn with."""

    uniform: NDArray[np.float32]
    """[8] in [0, 1): one draw for each codebook; a greedy song's are not looked at."""
    allow_eos: bool
    codes: Codes | None = None
    """int64 [8], the frame before; None is the one that the slot made last."""


class LmEngine(Protocol):
    """Makes frames for the songs in its slots, all of them together. For one thread.

    A song's codes depend on its prompt and its frames' inputs alone, bit for bit on CPUs: not on its slot, on the
    songs beside it, or on when they came and went.
    """

    @property
    def n_slots(self) -> int:
        """Songs at a time."""
        ...

    @property
    def kv_limit(self) -> int:
        """Bytes that keys and values may take; allocated when the engine is made."""
        ...

    def kv_bytes(self, songs: Iterable[SongPrompt]) -> int:
        """Bytes that the keys and values of these songs take together when all are at their longest; for any thread."""
        ...

    def prefill(self, slot: int, prompt: SongPrompt, frame: FrameInput) -> Codes:
        """Feed a prompt into a free slot; returns the first frame's ids, int64 [8].

        The caller sees to it that the songs in all slots stay within `kv_limit`. After an error the slot is free.
        """
        ...

    def pending(self, slot: int) -> int:
        """Frames of a slot that are under way: the next step's input is that of the frame behind them."""
        ...

    def step(self, frames: Mapping[int, FrameInput]) -> dict[int, Codes]:
        """Begin the next frame of every occupied slot; ids int64 [8] by slot. After an error nothing has changed.

        Without `pending` frames the result has every slot; an engine that works ahead returns what is ready.
        """
        ...

    def release(self, slot: int) -> None:
        """Free a slot."""
        ...


@dataclass
class _Slot:
    """A slot in use: its song, and the ids that it made last."""

    prompt: SongPrompt
    codes: Codes


class GraphEngine:
    """The `standard` dialect over any `Engine`: the host keeps the cache and writes each frame's keys and values.

    The songs' rows lie next to each other without gaps, in the order in which they came, padded to the longest song's
    length rounded up to a block. What makes that exact in onnxruntime is in docs/decisions/0004-continuous-batching.md.
    """

    def __init__(self, graph: Engine, preset: Preset, *, n_slots: int = 1, kv_limit: int | None = None) -> None:
        """Allocate the cache.

        Args:
            graph: the graph `heartmula_step`.
            preset: its sizes.
            n_slots: songs at a time.
            kv_limit: bytes of the cache; default is room for guided songs of `max_positions` in every slot.
        """
        self._graph, self._preset, self._sizes = graph, preset, preset.lm.backbone
        self.n_slots = n_slots
        longest = cache_bytes(self._sizes, rows=2 * n_slots, positions=preset.max_positions)
        self.kv_limit = longest if kv_limit is None else kv_limit
        self._cache = RowCache(self._sizes, self.kv_limit)
        self._occupied: dict[int, _Slot] = {}  # in the order of their rows
        self._constant: dict[str, Array] = {}

    def kv_bytes(self, songs: Iterable[SongPrompt]) -> int:
        """All rows are as wide as the longest song's."""
        songs = list(songs)
        positions = max((song.n_positions for song in songs), default=0)
        return cache_bytes(self._sizes, rows=sum(song.n_rows for song in songs), positions=positions)

    def prefill(self, slot: int, prompt: SongPrompt, frame: FrameInput) -> Codes:
        """Feed a prompt by itself, whatever else is under way; see `LmEngine.prefill`."""
        assert slot in range(self.n_slots)
        assert slot not in self._occupied
        n_tokens = len(prompt.text_ids)
        text_ids = np.zeros(round_up(n_tokens, PROMPT_BLOCK), np.int64)
        text_ids[:n_tokens] = prompt.text_ids
        result = self._graph.run(
            {
                **_constant_inputs([prompt]),
                **self._cache.empty(prompt.n_rows),
                **_drawing_inputs([frame], [prompt]),
                "text_ids": text_ids[None],
                "codes": np.zeros((1, N_CODEBOOKS), np.int64),
                "style": prompt.style[None],
                "style_index": np.array([prompt.style_index], np.int64),
                "n_new": np.array([n_tokens], np.int64),
                "position": np.zeros(prompt.n_rows, np.int64),
            },
            ["next_codes", *self._cache.new_names],
        )
        self._cache.append_rows(result, n_tokens)
        codes: Codes = result["next_codes"][0].astype(np.int64)
        self._occupied[slot] = _Slot(prompt, codes)
        self._songs_changed()
        return codes

    def pending(self, slot: int) -> int:
        """None: a step returns what it makes."""
        return 0

    def step(self, frames: Mapping[int, FrameInput]) -> dict[int, Codes]:
        """One run of the graph for all songs; see `LmEngine.step`."""
        assert frames.keys() == self._occupied.keys(), (sorted(frames), sorted(self._occupied))
        ordered = [frames[slot] for slot in self._occupied]
        songs = self._occupied.values()
        fed = [song.codes if frame.codes is None else frame.codes for frame, song in zip(ordered, songs, strict=True)]
        result = self._graph.run(
            {
                **self._constant,
                **self._cache.arrays,
                **_drawing_inputs(ordered, [song.prompt for song in songs]),
                "codes": np.stack(fed),
                "position": self._cache.lengths,
            },
            ["next_codes", *self._cache.new_names],
        )
        self._cache.append_position(result)
        for song, codes in zip(songs, result["next_codes"].astype(np.int64), strict=True):
            song.codes = codes
        return {slot: song.codes for slot, song in self._occupied.items()}

    def release(self, slot: int) -> None:
        """Close the gap that the slot's rows leave."""
        first = 0
        for other, song in self._occupied.items():
            if other == slot:
                break
            first += song.prompt.n_rows
        self._cache.remove_rows(first, self._occupied.pop(slot).prompt.n_rows)
        self._songs_changed()

    def _songs_changed(self) -> None:
        """Everything that stays the same from frame to frame until a song comes or goes."""
        prompts = [song.prompt for song in self._occupied.values()]
        count = len(prompts)
        self._constant = {
            **_constant_inputs(prompts),
            "text_ids": np.full((count, 1), -1, np.int64),
            "style": np.zeros((count, self._preset.lm.muq_dim), np.float32),
            "style_index": np.full(count, -1, np.int64),
            "n_new": np.ones(count, np.int64),
        }


def _constant_inputs(prompts: list[SongPrompt]) -> dict[str, Array]:
    """Rows and sampling of these songs; a guided song's rows are adjacent."""
    rows = np.array([prompt.n_rows for prompt in prompts], np.int64)
    last = np.cumsum(rows) - 1
    return {
        "row_song": np.repeat(np.arange(len(prompts)), rows),
        "cond_row": last - (rows - 1),
        "uncond_row": last,
        "temperature": np.array([1.0 if prompt.greedy else prompt.temperature for prompt in prompts], np.float32),
        "top_k": np.array([1 if prompt.greedy else prompt.top_k for prompt in prompts], np.int64),
        "cfg_scale": np.array([prompt.cfg_scale for prompt in prompts], np.float32),
    }


def _drawing_inputs(frames: list[FrameInput], prompts: list[SongPrompt]) -> dict[str, Array]:
    """Draws and EOS rule. Greedy songs draw 0, which among equally likely codes takes the first."""
    draws = [
        np.zeros(N_CODEBOOKS, np.float32) if prompt.greedy else frame.uniform
        for frame, prompt in zip(frames, prompts, strict=True)
    ]
    return {"uniform": np.stack(draws), "allow_eos": np.array([frame.allow_eos for frame in frames])}
