"""HeartMuLa's engine over PyTorch: a static cache, and on GPUs one CUDA graph for each batch size.

A frame needs nothing from the host but its random numbers, so that frames can be requested ahead. With `lag` n, `step`
returns the frames of n steps before, and the GPU has work while the host checks for EOS. Frames beyond a song's end
are dropped.

The GPU part (`torch_device`) has not been run yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heartvoice.config.presets import Preset
from heartvoice.errors import EngineError
from heartvoice.models.heartmula import HeartMuLa, StepInputs
from heartvoice.models.llama import KVCache
from heartvoice.models.load import TensorSource, load_network
from heartvoice.stages.lm.cache import round_up
from heartvoice.stages.lm.engine import Codes, FrameInput, SongPrompt, check_complete, check_free
from heartvoice.stages.lm.torch_device import FrameBlock, Recorder, Return
from heartvoice.stages.lm.torch_network import FrameInputs, FrameNetwork

POSITION_BLOCK = 512
"""Attention reads a multiple of this many cached positions. There is a CUDA graph for each multiple."""
TOP_K_BLOCK = 64
"""A frame samples from a multiple of this many likeliest codes. There is a CUDA graph for each multiple."""


@dataclass
class _Song:
    """An occupied slot."""

    prompt: SongPrompt
    length: int
    """Cached positions, including those of pending frames."""
    rows: list[int]
    """Rows of its keys and values, the conditional one first. They need not be adjacent."""
    n_pending: int = 0
    """Frames that are computed but not yet returned."""

    @property
    def complete(self) -> bool:
        """True if all its frames are made or pending. The last one is never fed."""
        return self.length >= self.prompt.n_positions - 1


@dataclass
class _Batch:
    """A pending frame: its songs in the order of their places."""

    songs: dict[int, _Song]
    codes: Return


@dataclass
class _Buffers:
    """Buffers of one pending frame."""

    block: FrameBlock
    codes: Return
    arrays: dict[str, NDArray[np.generic]] = field(init=False)
    """The block's inputs, to be written."""

    def __post_init__(self) -> None:
        self.arrays = {name: tensor.numpy() for name, tensor in vars(self.block.inputs).items()}


class TorchEngine:
    """An `LmEngine` for GPUs that also runs on CPUs. Every row is as wide as the longest possible song.

    Rows in use are always the first ones: when a song ends, the last rows take its place. A frame is computed
    for the next power of two of rows. Other rows may then differ in the last bits, which in half precision can be
    another code, unless the engine is `exact`.
    """

    def __init__(
        self,
        network: HeartMuLa,
        preset: Preset,
        *,
        n_slots: int = 1,
        kv_limit: int | None = None,
        lag: int = 0,
        exact: bool | None = None,
    ) -> None:
        """Allocate the cache and pack the weights, which stay usable as `network`.

        Args:
            network: loaded; its device and dtype are the engine's.
            preset: its sizes.
            n_slots: greatest number of songs at once.
            kv_limit: bytes of the cache; the default has room for a guided song in every slot.
            lag: steps that pass before a frame is returned. If it is not 0, a step's result lacks slots whose frame is
                pending, and the input of a slot's next frame belongs to the frame after all pending ones.
            exact: always compute all rows and positions, so that a song does not depend on the others; the default
                on CPUs.
        """
        self._network, self._preset, self._eos_id = network, preset, preset.ids.audio_eos_id
        self.n_slots, self.lag = n_slots, lag
        sizes, books = preset.lm.backbone, preset.lm.audio_num_codebooks
        self._device, dtype = network.audio_head.device, network.audio_head.dtype
        self._exact = self._device.type == "cpu" if exact is None else exact
        self._positions = round_up(preset.max_positions, POSITION_BLOCK)
        per_position = 2 * sizes.num_layers * sizes.num_kv_heads * sizes.head_dim * dtype.itemsize
        self._row_bytes = self._positions * per_position
        self.kv_limit = 2 * n_slots * self._row_bytes if kv_limit is None else kv_limit
        self._n_rows = self.kv_limit // self._row_bytes
        with _failures("allocating the cache"):
            self._cache = KVCache(sizes, self._n_rows, self._positions, dtype=dtype, device=self._device)
            self._frames = FrameNetwork(network, self._cache, self._eos_id)
            self._inputs = FrameBlock(self._n_rows, books, self._device)
            # One slot more: whatever places without a song make.
            self._last = torch.zeros(n_slots + 1, books, dtype=torch.int64, device=self._device)
            self._made = torch.zeros(self._n_rows, books, dtype=torch.int64, device=self._device)
            pinned = self._device.type == "cuda"
            self._ring = deque(
                _Buffers(FrameBlock(self._n_rows, books, pinned=pinned), Return(self._n_rows, books, self._device))
                for _ in range(lag + 1)
            )
        self._recorder = Recorder(self._device)
        self._recorded: dict[tuple[int, int, int], Callable[[], object]] = {}
        self._songs: dict[int, _Song] = {}
        self._owners: list[int] = []  # slot of each row in use
        self._under_way: deque[_Batch] = deque()

    @classmethod
    def load(  # noqa: PLR0913 (an engine's options)
        cls,
        source: TensorSource,
        preset: Preset,
        *,
        device: torch.device | str = "cuda",
        dtype: torch.dtype = torch.bfloat16,
        n_slots: int = 1,
        kv_limit: int | None = None,
        lag: int = 0,
        exact: bool | None = None,
    ) -> TorchEngine:
        """Read a checkpoint piece by piece onto the device; arguments as for the engine itself.

        Raises:
            CheckpointError: a tensor is missing, misshapen or not finite.
            EngineError: weights or cache do not fit.
        """
        with _failures("loading the weights"):
            network = load_network(preset.lm, source, dtype=dtype, device=device)
        return cls(cast(HeartMuLa, network), preset, n_slots=n_slots, kv_limit=kv_limit, lag=lag, exact=exact)

    def kv_bytes(self, songs: Iterable[SongPrompt]) -> int:
        """Bytes of the cache; every row is as wide as the longest possible song."""
        return sum(song.n_rows for song in songs) * self._row_bytes

    def pending(self, slot: int) -> int:
        """Frames of the slot's song that are not yet returned."""
        return self._songs[slot].n_pending

    @torch.inference_mode()
    def warm_up(self, top_k: int = TOP_K_BLOCK) -> None:
        """Record every batch size now, for songs up to this `top_k`, so that no song waits for it later.

        Raises:
            EngineError: it failed, a slot is in use, or there is not enough memory.
        """
        if self._songs:
            raise EngineError(f"heartmula: warm-up: expected free slots, got songs in {sorted(self._songs)}")
        sizes = {self._batch_rows(rows) for rows in range(1, self._n_rows + 1)}
        widths = {self._batch_width(length) for length in range(0, self._positions, POSITION_BLOCK)}
        with _failures("recording a frame"):
            for rows in sorted(sizes, reverse=True):  # the largest first: the others fit into its memory
                for width in sorted(widths, reverse=True):
                    self._recording(rows, width, round_up(top_k, TOP_K_BLOCK))

    @torch.inference_mode()
    def prefill(self, slot: int, prompt: SongPrompt, frame: FrameInput) -> Codes:
        """Feed a prompt by itself and wait for its frame; see `LmEngine.prefill`."""
        check_free(slot, self.n_slots, self._songs)
        first, length = len(self._owners), len(prompt.text_ids)
        rows = slice(first, first + prompt.n_rows)
        if rows.stop > self._n_rows:
            raise EngineError(
                f"heartmula: cache: expected at most {self._n_rows} rows within the limit, got {rows.stop}"
            )
        with _failures("a prompt"):
            inputs = self._prompt_inputs(prompt, frame)
            outputs = self._network.step(inputs, None, eos_id=self._eos_id, max_top_k=prompt.top_k)
            for (keys, values), (key, value) in zip(self._cache.layers, outputs.new, strict=True):
                keys[rows, :, :length], values[rows, :, :length] = key, value
            self._last[slot] = outputs.codes[0]
            codes: Codes = outputs.codes[0].cpu().numpy()
        self._songs[slot] = _Song(prompt, length, list(range(rows.start, rows.stop)))
        self._owners += [slot] * prompt.n_rows
        return codes

    @torch.inference_mode()
    def step(self, frames: Mapping[int, FrameInput]) -> dict[int, Codes]:
        """Begin the next frame of every incomplete song; return the frame of `lag` steps before.

        If all songs are complete, every step returns one more of their frames. See `LmEngine.step`.
        """
        check_complete(frames, self._songs)
        songs = {slot: song for slot, song in self._songs.items() if not song.complete}
        with _failures("a frame"):
            if songs:
                self._begin(songs, frames)
            if len(self._under_way) <= (self.lag if songs else 0):
                return {}
            return self._arrive()

    def release(self, slot: int) -> None:
        """Free a slot and drop its pending frames. At most two rows move."""
        gone = self._songs.pop(slot)
        for row in sorted(gone.rows, reverse=True):
            last, owner = len(self._owners) - 1, self._owners.pop()
            if row != last:
                song = self._songs[owner]
                for pair in self._cache.layers:
                    for memory in pair:
                        memory[row, :, : song.length] = memory[last, :, : song.length]
                song.rows[song.rows.index(last)] = row
                self._owners[row] = owner

    # ------------------------------------------------------------------------------------------------------ frames

    def _begin(self, songs: dict[int, _Song], frames: Mapping[int, FrameInput]) -> None:
        """Begin one frame of these songs."""
        buffers = self._ring[0]
        self._write(buffers.arrays, songs, frames)
        rows = self._batch_rows(len(self._owners))
        width = self._batch_width(max(song.length for song in songs.values()))
        top_k = round_up(max(song.prompt.top_k for song in songs.values()), TOP_K_BLOCK)
        self._inputs.copy_from(buffers.block)
        self._recording(rows, width, top_k)()
        self._last.index_copy_(0, self._inputs.inputs.slot[:rows], self._made[:rows])
        buffers.codes.send(self._made)
        self._ring.rotate(-1)
        self._under_way.append(_Batch(songs, buffers.codes))
        for song in songs.values():
            song.length += 1
            song.n_pending += 1

    def _arrive(self) -> dict[int, Codes]:
        """Wait for the oldest pending frame. Codes of released songs are dropped."""
        batch = self._under_way.popleft()
        made = zip(batch.songs.items(), batch.codes.wait(), strict=False)  # there are more places than songs
        arrived = {slot: codes for (slot, song), codes in made if self._songs.get(slot) is song}
        for slot in arrived:
            self._songs[slot].n_pending -= 1
        return arrived

    def _recording(self, rows: int, width: int, top_k: int) -> Callable[[], object]:
        """The recorded frame of so many rows, positions and candidates."""
        key = rows, width, top_k
        if key not in self._recorded:
            action = partial(self._frame, self._inputs.inputs.first(rows), self._made[:rows], width, top_k)
            self._recorded[key] = self._recorder.record(action)
        return self._recorded[key]

    def _frame(self, inputs: FrameInputs, made: Tensor, width: int, top_k: int) -> None:
        made.copy_(self._frames.frame(inputs, self._last, width=width, max_top_k=top_k))

    def _batch_rows(self, rows: int) -> int:
        """The rows that a frame computes if `rows` are in use."""
        return self._n_rows if self._exact else min(1 << (rows - 1).bit_length(), self._n_rows)

    def _batch_width(self, length: int) -> int:
        """The positions that a frame reads if the longest song has `length` cached ones."""
        return self._positions if self._exact else round_up(length + 1, POSITION_BLOCK)

    # ------------------------------------------------------------------------------------------------------ inputs

    def _write(
        self, arrays: Mapping[str, NDArray[np.generic]], songs: Mapping[int, _Song], frames: Mapping[int, FrameInput]
    ) -> None:
        """Write a frame's inputs. Unused rows are at position 0 of songs whose codes are dropped."""
        for name, array in arrays.items():
            array[:] = {"slot": self.n_slots, "top_k": 1, "temperature": 1}.get(name, 0)
        for place, (slot, song) in enumerate(songs.items()):
            prompt, frame = song.prompt, frames[slot]
            values = {
                "given": -1 if frame.codes is None else frame.codes,
                "slot": slot,
                "allow_eos": frame.allow_eos,
                "cond_row": song.rows[0],
                "uncond_row": song.rows[-1],
                "cfg_scale": prompt.cfg_scale,
                "temperature": 1 if prompt.greedy else prompt.temperature,
                "top_k": 1 if prompt.greedy else prompt.top_k,
                "uniform": 0 if prompt.greedy else frame.uniform,  # 0 selects the first of equally likely codes
            }
            for name, value in values.items():
                arrays[name][place] = value
            arrays["position"][song.rows] = song.length
            arrays["row_song"][song.rows] = place

    def _prompt_inputs(self, prompt: SongPrompt, frame: FrameInput) -> StepInputs:
        """A prompt and the settings of its first frame."""

        def tensor(value: object, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.as_tensor(np.asarray(value), dtype=dtype, device=self._device)

        greedy, last_row = prompt.greedy, prompt.n_rows - 1
        return StepInputs(
            text_ids=tensor(prompt.text_ids[None]),
            codes=tensor(np.zeros((1, self._preset.lm.audio_num_codebooks))),
            style=tensor(prompt.style[None], torch.float32),
            style_index=tensor([prompt.style_index]),
            n_new=tensor([len(prompt.text_ids)]),
            position=tensor([0] * prompt.n_rows),
            row_song=tensor([0] * prompt.n_rows),
            cond_row=tensor([0]),
            uncond_row=tensor([last_row]),
            temperature=tensor([1 if greedy else prompt.temperature], torch.float32),
            top_k=tensor([1 if greedy else prompt.top_k]),
            cfg_scale=tensor([prompt.cfg_scale], torch.float32),
            uniform=tensor(frame.uniform[None] * np.float32(not greedy), torch.float32),
            allow_eos=tensor([frame.allow_eos]),
        )


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Raise PyTorch's errors as EngineError, with the action that failed."""
    try:
        yield
    except (RuntimeError, IndexError) as error:  # out of memory is a RuntimeError, an id without an embedding the other
        raise EngineError(f"PyTorch failed at {what}: {error}") from error
