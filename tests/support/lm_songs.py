"""Songs and engines for the tests of the language model's stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import FRAMES_PER_S
from heartvoice.errors import RequestCancelledError
from heartvoice.export.heartmula_graph import build_heartmula_step
from heartvoice.models.load import random_checkpoint
from heartvoice.models.prompt import Tokenizer
from heartvoice.runtime.engines import Engine
from heartvoice.stages.lm.cache import cache_bytes
from heartvoice.stages.lm.engine import Codes, FrameInput, GraphEngine, SongPrompt
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.lm.song_state import SongState
from tests.fakes.networks import BytesTokenizer, tiny
from tests.support.graphs import engine_of

PRESET = tiny()


def request(n_frames: int = 5, **changes: object) -> LmRequest:
    """Make a request of exactly `n_frames` frames; `changes` override it."""
    seconds = n_frames / FRAMES_PER_S
    values = {"lyrics": "La la", "tags": "pop", "duration_s": seconds, "min_duration_s": seconds, "seed": 7}
    values |= {"temperature": 1.0, "top_k": 50, "cfg_scale": 1.5}
    return LmRequest(**(values | changes))  # type: ignore[arg-type]


def song(n_frames: int = 5, **changes: object) -> SongState:
    return SongState(request(n_frames, **changes), BytesTokenizer(), PRESET)


REQUESTS = (
    request(6, seed=1),
    request(5, seed=2, temperature=0.0),
    request(4, seed=3, cfg_scale=1.0, lyrics="x"),
    request(6, seed=4, cfg_scale=1.0, temperature=0.0, lyrics="plain and greedy " * 4),
    request(3, seed=5, cfg_scale=4.0, top_k=1000, lyrics="long " * 30),
    request(6, seed=6, temperature=3.0, top_k=3, lyrics="word " * 9),  # 45 bytes: the first frames cross a block
    request(1, seed=7),
    request(6, seed=8, min_duration_s=0.0, temperature=10.0, top_k=1000, cfg_scale=1.0),  # may meet EOS
)
"""Guided and not, greedy and sampled, short and long."""


@cache
def tiny_graph() -> Engine:
    """The exported graph at the tiny preset, on one thread."""
    with TemporaryDirectory() as folder:
        return engine_of(build_heartmula_step(PRESET, random_checkpoint(PRESET.lm, 0)), Path(folder))


def graph_engine(n_slots: int = 1, kv_limit: int | None = None) -> GraphEngine:
    return GraphEngine(tiny_graph(), PRESET, n_slots=n_slots, kv_limit=kv_limit)


@cache
def codes_alone(index: int) -> np.ndarray:
    """Codes [T, 8] of REQUESTS[index], generated alone in a new engine."""
    return write(SongState(REQUESTS[index], BytesTokenizer(), PRESET))


def write(wanted: SongState) -> np.ndarray:
    """Codes [T, 8] of a song that is generated alone."""
    engine = graph_engine()
    frames = [wanted.accept(engine.prefill(0, wanted.prompt, wanted.next_input()))]
    while not wanted.finished:
        frames.append(wanted.accept(engine.step({0: wanted.next_input()})[0]))
    return np.stack([frame for frame in frames if frame is not None])


@cache
def song_that_ends_itself() -> tuple[LmRequest, np.ndarray]:
    """A request that EOS ends early, and its codes in the portable graph."""
    for seed in range(20):
        wanted = request(40, seed=seed, min_duration_s=0.0, temperature=10.0, top_k=1000)
        codes = write(SongState(wanted, BytesTokenizer(), PRESET))
        if 5 < len(codes) < 35:
            return wanted, codes
    raise AssertionError("no song ends itself")


class CountingEngine:
    """An engine without a network: codes are the prompt's length and the frame's number."""

    def __init__(self, n_slots: int = 4, kv_limit: int = 10**9) -> None:
        self.n_slots, self.kv_limit = n_slots, kv_limit
        self.prompts: dict[int, SongPrompt] = {}
        self.made: dict[int, int] = {}
        self.log: list[str] = []
        """`prefill` and `step` in the order of the calls."""
        self.admitted: list[int] = []
        """Lengths of the prompts in order of arrival."""

    def kv_bytes(self, songs: Iterable[SongPrompt]) -> int:
        return sum(song.n_rows * song.n_positions for song in songs)

    def prefill(self, slot: int, prompt: SongPrompt, frame: FrameInput) -> Codes:
        assert slot not in self.prompts
        self.log.append("prefill")
        self.admitted.append(len(prompt.text_ids))
        self.prompts[slot], self.made[slot] = prompt, 0
        assert self.kv_bytes(self.prompts.values()) <= self.kv_limit
        return self._codes(slot)

    def pending(self, slot: int) -> int:
        return 0

    def step(self, frames: Mapping[int, FrameInput]) -> dict[int, Codes]:
        assert frames.keys() == self.prompts.keys()
        self.log.append("step")
        return {slot: self._codes(slot) for slot in frames}

    def release(self, slot: int) -> None:
        del self.prompts[slot]

    def _codes(self, slot: int) -> Codes:
        self.made[slot] += 1
        return np.array(
            [len(self.prompts[slot].text_ids) % 256, self.made[slot] % PRESET.lm.codebook_size, *[0] * 6], np.int64
        )


class LmStage:
    """Generates one song at a time in a plain loop: the reference for the scheduler's songs."""

    def __init__(self, graph: Engine, tokenizer: Tokenizer, preset: Preset) -> None:
        self._graph, self._tokenizer, self._preset = graph, tokenizer, preset

    def frames(self, request: LmRequest, cancelled: Callable[[], bool] = lambda: False) -> Iterator[NDArray[np.int32]]:
        song = SongState(request, self._tokenizer, self._preset)
        prompt, sizes = song.prompt, self._preset.lm.backbone
        kv_limit = cache_bytes(sizes, rows=prompt.n_rows, positions=prompt.n_positions)
        engine = GraphEngine(self._graph, self._preset, n_slots=1, kv_limit=kv_limit)
        while not song.finished:
            if cancelled():
                raise RequestCancelledError(f"heartmula: cancelled at frame {song.n_made}")
            wanted = song.next_input()
            ids = engine.step({0: wanted})[0] if song.n_made else engine.prefill(0, prompt, wanted)
            frame = song.accept(ids)
            if frame is not None:
                yield frame
