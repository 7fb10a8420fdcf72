"""The engine over HeartMuLa's `ort` dialect, which writes keys and values in place.

The graph is `contracts.graphs.heartmula_step_ort`. Its cache inputs and outputs are bound once to the same memory. A
frame takes a few small arrays and returns eight codes for each song.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.config.presets import Preset, TransformerConfig
from heartvoice.contracts.constants import N_CODEBOOKS
from heartvoice.errors import EngineError
from heartvoice.runtime.engines import onnx_session
from heartvoice.stages.lm.cache import round_up
from heartvoice.stages.lm.engine import PROMPT_BLOCK, Codes, FrameInput, SongPrompt, check_complete, check_free

if TYPE_CHECKING:
    from onnxruntime import IOBinding


@dataclass
class _Slot:
    """An occupied slot."""

    prompt: SongPrompt
    codes: Codes
    """int64 [8]: the last ids that it made."""
    length: int
    """Cached positions."""
    rows: list[int] = field(default_factory=list)
    """Rows of its keys and values, the conditional one first. They need not be adjacent."""


class OrtEngine:
    """An `LmEngine` without copies of the cache. Every row is `max_positions` wide; attention reads the used part.

    Rows in use are always the first ones: when a song ends, the last rows take its place.
    """

    def __init__(
        self, path: Path, preset: Preset, *, n_slots: int = 1, kv_limit: int | None = None, threads: int | None = None
    ) -> None:
        """Load the graph and reserve the cache. The system allocates memory when it is first written.

        Args:
            path: the graph `heartmula_step_ort`.
            preset: its sizes.
            n_slots: greatest number of songs at once.
            kv_limit: bytes of the cache; the default has room for a guided song in every slot.
            threads: of the graph.

        Raises:
            EngineError: the graph does not load.
        """
        self._preset, self.n_slots = preset, n_slots
        self._row_bytes = preset.max_positions * position_bytes(preset.lm.backbone)
        self.kv_limit = 2 * n_slots * self._row_bytes if kv_limit is None else kv_limit
        self._step = SharedCacheStep(path, preset, n_rows=self.kv_limit // self._row_bytes, threads=threads)
        self._occupied: dict[int, _Slot] = {}
        self._owners: list[int] = []  # slot of each row in use

    def kv_bytes(self, songs: Iterable[SongPrompt]) -> int:
        """Bytes of the cache; every row is as wide as the longest possible song."""
        return sum(song.n_rows for song in songs) * self._row_bytes

    def prefill(self, slot: int, prompt: SongPrompt, frame: FrameInput) -> Codes:
        """Feed a prompt by itself; see `LmEngine.prefill`."""
        check_free(slot, self.n_slots, self._occupied)
        n_tokens, first = len(prompt.text_ids), len(self._owners)
        text_ids = np.zeros(min(round_up(n_tokens, PROMPT_BLOCK), self._preset.max_positions), np.int64)
        text_ids[:n_tokens] = prompt.text_ids
        song = _Slot(prompt, np.zeros(N_CODEBOOKS, np.int64), 0, list(range(prompt.n_rows)))
        inputs = self._inputs([song], [frame]) | {
            "text_ids": text_ids[None],
            "style": prompt.style[None],
            "style_index": np.array([prompt.style_index], np.int64),
            "n_new": np.array([n_tokens], np.int64),
        }
        (song.codes,) = self._step.run(inputs, first)
        song.length, song.rows = n_tokens, [first + row for row in song.rows]
        self._occupied[slot] = song
        self._owners += [slot] * prompt.n_rows
        return song.codes

    def pending(self, slot: int) -> int:  # noqa: ARG002 (the interface's)
        """Always 0: a step returns the frames that it makes."""
        return 0

    def step(self, frames: Mapping[int, FrameInput]) -> dict[int, Codes]:
        """Run the graph once for all songs; see `LmEngine.step`."""
        check_complete(frames, self._occupied)
        songs = list(self._occupied.values())
        made = self._step.run(self._inputs(songs, [frames[slot] for slot in self._occupied]))
        for song, codes in zip(songs, made, strict=True):
            song.codes, song.length = codes, song.length + 1
        return {slot: song.codes for slot, song in self._occupied.items()}

    def release(self, slot: int) -> None:
        """Free a slot. At most two rows move."""
        gone = self._occupied.pop(slot)
        for row in sorted(gone.rows, reverse=True):
            last, owner = len(self._owners) - 1, self._owners.pop()
            if row != last:
                song = self._occupied[owner]
                self._step.move(last, row, song.length)
                song.rows[song.rows.index(last)] = row
                self._owners[row] = owner

    def _inputs(self, songs: list[_Slot], frames: list[FrameInput]) -> dict[str, Array]:
        """A frame's inputs for songs that own all rows in use."""
        count, rows = len(songs), {row: index for index, song in enumerate(songs) for row in song.rows}
        row_song = np.array([rows[row] for row in range(len(rows))], np.int64)
        prompts, greedy = [song.prompt for song in songs], [song.prompt.greedy for song in songs]
        fed = [song.codes if frame.codes is None else frame.codes for song, frame in zip(songs, frames, strict=True)]
        # 0 selects the first of equally likely codes.
        draws = [frame.uniform * np.float32(not each) for frame, each in zip(frames, greedy, strict=True)]
        return {
            "text_ids": np.full((count, 1), -1, np.int64),
            "codes": np.stack(fed),
            "style": np.zeros((count, self._preset.lm.muq_dim), np.float32),
            "style_index": np.full(count, -1, np.int64),
            "n_new": np.ones(count, np.int64),
            "position": np.array([song.length for song in songs], np.int64)[row_song],
            "row_song": row_song,
            "cond_row": np.array([song.rows[0] for song in songs], np.int64),
            "uncond_row": np.array([song.rows[-1] for song in songs], np.int64),
            "temperature": np.array([1.0 if each.greedy else each.temperature for each in prompts], np.float32),
            "top_k": np.array([1 if each.greedy else each.top_k for each in prompts], np.int64),
            "cfg_scale": np.array([each.cfg_scale for each in prompts], np.float32),
            "uniform": np.stack(draws),
            "allow_eos": np.array([frame.allow_eos for frame in frames]),
        }


def position_bytes(sizes: TransformerConfig) -> int:
    """Bytes of one row's keys and values at one position, in all layers."""
    return 2 * sizes.num_layers * sizes.num_kv_heads * sizes.head_dim * np.dtype(np.float32).itemsize


class SharedCacheStep:
    """The graph with its cache: it reads and writes consecutive rows of one static buffer in place.

    A single row is computed twice, the second time into the row behind it. Kernels for one row may round differently
    from those for several (MatMulNBits with 4 bits on AVX2), and a song must not depend on the presence of another.
    """

    def __init__(self, path: Path, preset: Preset, *, n_rows: int, threads: int | None = None) -> None:
        """Load the graph and reserve `n_rows` rows of `max_positions`, and one spare row."""
        sizes = preset.lm.backbone
        shape = (n_rows + 1, sizes.num_kv_heads, preset.max_positions, sizes.head_dim)
        self._session = onnx_session(path, threads=threads)
        self._cache: dict[str, NDArray[np.float32]] = {
            f"{kind}_past_{layer}": np.zeros(shape, np.float32) for layer in range(sizes.num_layers) for kind in "kv"
        }
        self._bindings: dict[tuple[int, int, int], IOBinding] = {}

    def run(self, inputs: Mapping[str, Array], first: int = 0) -> Codes:
        """Run the graph once on consecutive rows.

        Args:
            inputs: all but the cache.
            first: row of the cache that is row 0 of the inputs.

        Returns:
            int64 [S, 8]: the next frame of every song.

        Raises:
            EngineError: the engine refused the inputs or failed.
        """
        single = len(inputs["row_song"]) == 1
        if single:
            twice = {name: np.repeat(value, 2, axis=0) for name, value in inputs.items()}
            inputs = twice | {name: np.arange(2) for name in ("row_song", "cond_row", "uncond_row")}
        n_rows, n_songs = len(inputs["row_song"]), len(inputs["n_new"])
        binding = self._binding(first, n_rows, n_songs)
        try:
            for name, value in inputs.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            self._session.run_with_iobinding(binding)
        except Exception as error:  # as in `OnnxEngine.run`
            raise EngineError(f"onnxruntime failed: {error}") from error
        # The binding owns the memory, and the next run overwrites it.
        codes: Codes = binding.get_outputs()[0].numpy().copy()
        return codes[:1] if single else codes

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` positions to another row."""
        for memory in self._cache.values():
            memory[target, :, :length] = memory[source, :, :length]

    def _binding(self, first: int, n_rows: int, n_songs: int) -> IOBinding:
        """The cache's binding, made once for each key. Outputs depend on the number of songs, so the key has it."""
        key = first, n_rows, n_songs
        if key not in self._bindings:
            n_cached = len(next(iter(self._cache.values())))
            if first + n_rows > n_cached:
                raise EngineError(
                    f"heartmula: cache: expected at most {n_cached} rows within the limit, got {first + n_rows}"
                )
            binding = self._session.io_binding()
            binding.bind_output("next_codes", "cpu")
            for name, memory in self._cache.items():
                rows = memory[first : first + n_rows]
                place = ("cpu", 0, np.float32, rows.shape, rows.ctypes.data)
                binding.bind_input(name, *place)
                binding.bind_output(name.replace("past", "present"), *place)
            self._bindings[key] = binding
        return self._bindings[key]
