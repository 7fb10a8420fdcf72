"""The protocol of HeartMuLa's engines, and the engine over the portable graph.

Source: heartmula spec, sections 5 to 9; design decisions 12 and 13; the graph is `contracts.graphs.heartmula_step`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import GREEDY_BELOW, N_CODEBOOKS
from heartvoice.errors import EngineError
from heartvoice.runtime.engines import Engine
from heartvoice.stages.lm.cache import RowCache, cache_bytes, round_up

Codes = NDArray[np.int64]

PROMPT_BLOCK = 32
"""Prompts are padded to multiples of this many tokens, because onnxruntime keeps a memory plan for every shape."""


@dataclass(frozen=True)
class SongPrompt:
    """A song's prompt and sampling settings, as an engine needs them."""

    text_ids: Codes
    """int64 [P], P at least 1."""
    style: NDArray[np.float32]
    """[muq_dim]."""
    style_index: int
    """The prompt position that the style overwrites."""
    temperature: float
    """Greedy below `GREEDY_BELOW`."""
    top_k: int
    cfg_scale: float
    n_positions: int
    """Greatest number of positions of the song: prompt and frames."""

    @property
    def greedy(self) -> bool:
        """True if every code is the likeliest one."""
        return self.temperature < GREEDY_BELOW

    @property
    def guided(self) -> bool:
        """True if the song also has an unconditional row."""
        return self.cfg_scale > 1

    @property
    def n_rows(self) -> int:
        """The song's rows in the batch."""
        return 2 if self.guided else 1


@dataclass(frozen=True)
class FrameInput:
    """Random draws and EOS rule of one song's next frame."""

    uniform: NDArray[np.float32]
    """[8] in [0, 1): one draw for each codebook. Greedy songs do not use them."""
    allow_eos: bool
    codes: Codes | None = None
    """int64 [8], the frame before this one; None for the last frame that the slot made."""


class LmEngine(Protocol):
    """Makes frames for the songs in its slots, all of them together. Used by one thread.

    A song's codes depend on its prompt and the inputs of its frames alone, bit for bit on CPUs. They do not depend on
    its slot, on the other songs, or on when those begin and end.
    """

    @property
    def n_slots(self) -> int:
        """Greatest number of songs at once."""
        ...

    @property
    def kv_limit(self) -> int:
        """Bytes for keys and values, allocated when the engine is made."""
        ...

    def kv_bytes(self, songs: Iterable[SongPrompt]) -> int:
        """Bytes of the keys and values of these songs at their greatest length. May be called by any thread."""
        ...

    def prefill(self, slot: int, prompt: SongPrompt, frame: FrameInput) -> Codes:
        """Feed a prompt into a free slot; returns the first frame's ids, int64 [8], -1 if its logits are not finite.

        The caller keeps the songs in all slots within `kv_limit`. After an error the slot is free.
        """
        ...

    def pending(self, slot: int) -> int:
        """Frames of a slot that are not yet returned. The next step's input belongs to the frame after them."""
        ...

    def step(self, frames: Mapping[int, FrameInput]) -> dict[int, Codes]:
        """Begin the next frame of every occupied slot; returns ids int64 [8] by slot. An error changes nothing.

        Without `pending` frames the result has every slot. A song's ids are -1 if its logits are not finite. An engine
        that works ahead returns what is ready.
        """
        ...

    def release(self, slot: int) -> None:
        """Free a slot."""
        ...


def check_free(slot: int, n_slots: int, occupied: Container[int]) -> None:
    """Refuse a prompt for a slot that does not exist or is in use: a fault of the scheduler.

    Raises:
        EngineError: names the slot.
    """
    if not 0 <= slot < n_slots or slot in occupied:
        raise EngineError(f"heartmula: expected a free slot of {n_slots}, got slot {slot}")


def check_complete(frames: Mapping[int, FrameInput], occupied: Mapping[int, object]) -> None:
    """Refuse a step that has not an input for every occupied slot: a fault of the scheduler.

    Raises:
        EngineError: names the slots.
    """
    if frames.keys() != occupied.keys():
        raise EngineError(f"heartmula: expected inputs for slots {sorted(occupied)}, got {sorted(frames)}")


@dataclass
class _Slot:
    """An occupied slot: its prompt, and the last ids that it made."""

    prompt: SongPrompt
    codes: Codes


class GraphEngine:
    """Runs the `standard` dialect on any `Engine`; the host keeps the cache and writes each frame's keys and values.

    The songs' rows are contiguous, in the order in which the songs began, and padded to a block of the longest song's
    length. Why that is exact in onnxruntime: docs/decisions/0004-continuous-batching.md.
    """

    def __init__(self, graph: Engine, preset: Preset, *, n_slots: int = 1, kv_limit: int | None = None) -> None:
        """Allocate the cache.

        Args:
            graph: the graph `heartmula_step`.
            preset: its sizes.
            n_slots: greatest number of songs at once.
            kv_limit: bytes of the cache; the default has room for guided songs of `max_positions` in every slot.
        """
        self._graph, self._preset, self._sizes = graph, preset, preset.lm.backbone
        self.n_slots = n_slots
        longest = cache_bytes(self._sizes, rows=2 * n_slots, positions=preset.max_positions)
        self.kv_limit = longest if kv_limit is None else kv_limit
        self._cache = RowCache(self._sizes, self.kv_limit)
        self._occupied: dict[int, _Slot] = {}  # in the order of their rows
        self._constant: dict[str, Array] = {}

    def kv_bytes(self, songs: Iterable[SongPrompt]) -> int:
        """Bytes of the cache; all rows are as wide as the longest song."""
        songs = list(songs)
        positions = max((song.n_positions for song in songs), default=0)
        return cache_bytes(self._sizes, rows=sum(song.n_rows for song in songs), positions=positions)

    def prefill(self, slot: int, prompt: SongPrompt, frame: FrameInput) -> Codes:
        """Feed a prompt by itself; see `LmEngine.prefill`."""
        check_free(slot, self.n_slots, self._occupied)
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

    def pending(self, slot: int) -> int:  # noqa: ARG002 (the interface's)
        """Always 0: a step returns the frames that it makes."""
        return 0

    def step(self, frames: Mapping[int, FrameInput]) -> dict[int, Codes]:
        """Run the graph once for all songs; see `LmEngine.step`."""
        check_complete(frames, self._occupied)
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
        """Free a slot and remove its rows from the cache."""
        first = 0
        for other, song in self._occupied.items():
            if other == slot:
                break
            first += song.prompt.n_rows
        self._cache.remove_rows(first, self._occupied.pop(slot).prompt.n_rows)
        self._songs_changed()

    def _songs_changed(self) -> None:
        """Prepare the inputs that stay the same until a song begins or ends."""
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
    """Rows and sampling settings of these songs. The two rows of a guided song are adjacent."""
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
    """Draws and EOS rule. Greedy songs draw 0, which selects the first of equally likely codes."""
    draws = [
        np.zeros(N_CODEBOOKS, np.float32) if prompt.greedy else frame.uniform
        for frame, prompt in zip(frames, prompts, strict=True)
    ]
    return {"uniform": np.stack(draws), "allow_eos": np.array([frame.allow_eos for frame in frames])}
