"""All engines of the language model by name, with equal weights, for their common tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from heartvoice.export.heartmula_ort import build_heartmula_ort
from heartvoice.export.quantize import Quantization
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.keyed_random import bits
from heartvoice.models.heartmula import HeartMuLa
from heartvoice.models.load import load_network, random_checkpoint
from heartvoice.stages.lm.engine import FrameInput, GraphEngine, LmEngine
from heartvoice.stages.lm.engine_ort import OrtEngine
from heartvoice.stages.lm.engine_torch import TorchEngine
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.lm.song_state import SongState
from tests.fakes.networks import BytesTokenizer
from tests.support.lm_songs import PRESET, REQUESTS, codes_alone, tiny_graph

SOURCE = random_checkpoint(PRESET.lm, 0)


def network(**options: Any) -> HeartMuLa:
    module = load_network(PRESET.lm, SOURCE, **options)
    assert isinstance(module, HeartMuLa)
    return module


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="heartvoice-engines-")


@cache
def ort_graph(quantize: str) -> Path:
    folder = Path(_folder().name) / quantize
    folder.mkdir()
    write_graph(build_heartmula_ort(PRESET, SOURCE, Quantization.parse(quantize)), folder)
    return folder / GRAPH_FILE


def _standard(**options: Any) -> LmEngine:
    options.pop("threads")
    return GraphEngine(tiny_graph(), PRESET, **options)


def _ort(quantize: str) -> Callable[..., LmEngine]:
    return lambda **options: OrtEngine(ort_graph(quantize), PRESET, **options)


def _torch(lag: int, device: str = "cpu", *, exact: bool = True) -> Callable[..., LmEngine]:
    def make(**options: Any) -> LmEngine:
        options.pop("threads")
        return TorchEngine(network(device=device), PRESET, lag=lag, exact=exact, **options)

    return make


_MAKERS: dict[str, Callable[..., LmEngine]] = {
    "standard": _standard,
    "ort": _ort("none"),
    "ort-int8": _ort("int8"),
    "ort-int4": _ort("int4"),
    "torch": _torch(0),
    "torch-lag": _torch(3),
    "torch-inexact": _torch(2, exact=False),
    "torch-cuda": _torch(0, "cuda"),
    "torch-cuda-lag": _torch(2, "cuda"),
}
ON_CPU = tuple(name for name in _MAKERS if "cuda" not in name)
ON_GPU = tuple(name for name in _MAKERS if "cuda" in name)
QUANTIZED = ("ort-int8", "ort-int4")
AHEAD = ("torch-lag", "torch-inexact", "torch-cuda-lag")
"""Engines that return a frame some steps after its request."""


def make(kind: str, n_slots: int = 4, *, kv_limit: int | None = None, threads: int = 1) -> LmEngine:
    """Make a new engine; only onnxruntime uses `threads`."""
    return _MAKERS[kind](n_slots=n_slots, kv_limit=kv_limit, threads=threads)


def next_input(wanted: SongState, ahead: int) -> FrameInput:
    """Input of the frame after the generated ones and `ahead` more."""
    wanted.n_made += ahead
    frame = wanted.next_input()
    wanted.n_made -= ahead
    return frame


class Player:
    """Runs songs in the slots of an engine, as the scheduler does."""

    def __init__(self, lm: LmEngine) -> None:
        self.lm = lm
        self.songs: dict[int, SongState] = {}
        self.made: dict[int, list[np.ndarray]] = {}

    def join(self, slot: int, wanted: LmRequest) -> None:
        song = SongState(wanted, BytesTokenizer(), PRESET)
        ids = self.lm.prefill(slot, song.prompt, song.next_input())
        self.songs[slot], self.made[slot] = song, []
        self.take(slot, ids)

    def step(self) -> None:
        ahead = {slot: next_input(wanted, self.lm.pending(slot)) for slot, wanted in self.songs.items()}
        for slot, ids in self.lm.step(ahead).items():
            self.take(slot, ids)

    def take(self, slot: int, ids: np.ndarray) -> None:
        frame = self.songs[slot].accept(ids)
        if frame is not None:
            self.made[slot].append(frame)

    def leave(self, slot: int) -> np.ndarray:
        self.lm.release(slot)
        del self.songs[slot]
        return np.stack(self.made.pop(slot))

    def finish(self) -> dict[int, np.ndarray]:
        """Run all songs to their end; return the codes of each slot."""
        whole = {}
        while self.songs:
            for slot in [slot for slot, song in self.songs.items() if song.finished]:
                whole[slot] = self.leave(slot)
            if self.songs:
                self.step()
        return whole


def alone(lm: LmEngine, wanted: LmRequest, slot: int = 0) -> np.ndarray:
    """Codes [T, 8] of a song that is generated alone."""
    player = Player(lm)
    player.join(slot, wanted)
    return player.finish()[slot]


@cache
def own_codes(kind: str, index: int) -> np.ndarray:
    """Codes of REQUESTS[index] alone: by this kind of engine if quantized, else by the portable graph."""
    return alone(make(kind, 1), REQUESTS[index]) if kind in QUANTIZED else codes_alone(index)


def play(
    kind: str,
    lm: LmEngine,
    arrivals: Iterable[tuple[int, int]],
    *,
    joins: Callable[[], bool],
    slot_of: Callable[[list[int]], int],
) -> None:
    """Run songs that start, end and are cancelled; compare every frame with the song alone.

    Args:
        kind: kind of the engine for the songs alone.
        lm: an engine of that kind.
        arrivals: in their order, which of REQUESTS, and after how many of its frames it is cancelled.
        joins: called in every step with a free slot and a waiting song; decides if it starts.
        slot_of: chooses one of the free slots.
    """
    player, coming, playing = Player(lm), deque(arrivals), dict[int, tuple[int, int]]()

    def end() -> None:
        for slot, (index, patience) in list(playing.items()):
            over = player.songs[slot].finished
            if over or len(player.made[slot]) >= patience:
                made, want = player.leave(slot), own_codes(kind, index)
                np.testing.assert_array_equal(made, want[: len(made)])
                assert not over or len(made) == len(want)
                del playing[slot]

    while coming or playing:
        free = [slot for slot in range(lm.n_slots) if slot not in playing]
        if coming and free and joins():
            slot, (index, patience) = slot_of(free), coming.popleft()
            playing[slot] = index, patience
            player.join(slot, REQUESTS[index])
            end()
        if playing:
            player.step()
            end()


def play_at_random(kind: str, lm: LmEngine, seed: int, n_songs: int) -> None:
    """Call `play` with random songs, slots and times; about every fourth song is cancelled."""
    random = np.random.Generator(bits(seed, "schedule", 0))
    arrivals = [(int(random.integers(len(REQUESTS))), int(random.integers(1, 20))) for _ in range(n_songs)]
    play(kind, lm, arrivals, joins=lambda: random.random() < 0.5, slot_of=lambda free: int(random.choice(free)))
