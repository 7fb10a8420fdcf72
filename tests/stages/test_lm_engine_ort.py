"""The engine over the `ort` dialect: the same songs as the portable graph, whoever is beside them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from heartvoice.checkpoints import random_checkpoint
from heartvoice.engines import OnnxEngine
from heartvoice.errors import EngineError
from heartvoice.export.heartmula_graph import build_heartmula_step
from heartvoice.export.heartmula_ort import build_heartmula_ort
from heartvoice.export.quantize import Quantization
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.noise import bits, normal, uniform
from heartvoice.presets import PRESETS
from heartvoice.stages.lm_engine import Codes, FrameInput, GraphEngine, LmEngine, SongPrompt
from heartvoice.stages.lm_engine_ort import OrtEngine, position_bytes

PRESET = PRESETS["tiny"]
SOURCE = random_checkpoint(PRESET.lm, 3)
GraphOf = Callable[[str], Path]


@pytest.fixture(scope="module")
def graph_of(tmp_path_factory: pytest.TempPathFactory) -> GraphOf:
    @lru_cache
    def written(quantize: str) -> Path:
        folder = tmp_path_factory.mktemp("graph")
        if quantize == "standard":
            write_graph(build_heartmula_step(PRESET, SOURCE), folder)
        else:
            write_graph(build_heartmula_ort(PRESET, SOURCE, Quantization.parse(quantize)), folder)
        return folder / GRAPH_FILE

    return written


def engine(path: Path, n_slots: int = 4) -> OrtEngine:
    return OrtEngine(path, PRESET, n_slots=n_slots, threads=1)


def prompt(seed: int) -> SongPrompt:
    """Songs of which two in three are guided and one in four is greedy."""
    length = 3 + 7 * seed % 41
    return SongPrompt(
        text_ids=(uniform(seed, "text", 0, (length,)) * PRESET.lm.text_vocab_size).astype(np.int64),
        style=normal(seed, "style", 0, (PRESET.lm.muq_dim,)),
        style_index=seed % length,
        temperature=(1.0, 0.8, 0.0, 1.2)[seed % 4],
        top_k=(50, 5, 1000)[seed % 3],
        cfg_scale=(1.5, 1.0, 3.0)[seed % 3],
        n_positions=100,
    )


def frame(seed: int, index: int) -> FrameInput:
    return FrameInput(uniform(seed, "lm", index, (8,)), allow_eos=index % 2 == 1)


def alone(lm: LmEngine, seed: int, n_frames: int) -> list[Codes]:
    frames = [lm.prefill(0, prompt(seed), frame(seed, 0))]
    frames += [lm.step({0: frame(seed, index)})[0] for index in range(1, n_frames)]
    lm.release(0)
    return frames


def schedule(lm: LmEngine, seed: int, n_songs: int) -> dict[int, list[Codes]]:
    """Songs that come and go at random; each one's frames."""
    random = np.random.Generator(bits(seed, "schedule", 0))
    made: dict[int, list[Codes]] = {}
    playing: dict[int, int] = {}  # slot to song
    waiting = list(range(n_songs))
    while waiting or playing:
        free = [slot for slot in range(lm.n_slots) if slot not in playing]
        if waiting and free and random.random() < 0.5:
            slot = int(random.choice(free))
            playing[slot] = song = waiting.pop(0)
            made[song] = [lm.prefill(slot, prompt(song), frame(song, 0))]
        if playing:
            codes = lm.step({slot: frame(song, len(made[song])) for slot, song in playing.items()})
            for slot, song in playing.items():
                made[song].append(codes[slot])
        for slot in [slot for slot in playing if random.random() < 0.15]:
            lm.release(slot)
            del playing[slot]
    return made


@pytest.mark.parametrize("seed", [1, 2])  # one row; two rows, greedy
def test_songs_are_those_of_the_portable_graph(graph_of: GraphOf, seed: int) -> None:
    portable = GraphEngine(OnnxEngine(graph_of("standard"), threads=1), PRESET)
    assert np.array_equal(alone(engine(graph_of("none")), seed, 10), alone(portable, seed, 10))


@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
def test_a_song_is_the_same_whoever_comes_and_goes(graph_of: GraphOf, quantize: str) -> None:
    lm = engine(graph_of(quantize))
    for song, frames in schedule(lm, 0, 5).items():
        assert np.array_equal(frames, alone(lm, song, len(frames)))


@pytest.mark.slow
def test_long_songs_are_those_of_the_portable_graph(graph_of: GraphOf) -> None:
    portable = GraphEngine(OnnxEngine(graph_of("standard"), threads=1), PRESET)
    lm = engine(graph_of("none"))
    for seed in range(8):
        assert np.array_equal(alone(lm, seed, 60), alone(portable, seed, 60))


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["none", "int8", "depth-int4"])
def test_many_schedules_at_two_threads(graph_of: GraphOf, quantize: str) -> None:
    lm = OrtEngine(graph_of(quantize), PRESET, n_slots=8, threads=2)
    for seed in range(6):
        for song, frames in schedule(lm, seed, 16).items():
            assert np.array_equal(frames, alone(lm, song, len(frames)))


def test_a_caller_may_feed_other_codes_than_were_made(graph_of: GraphOf) -> None:
    lm = engine(graph_of("none"), n_slots=2)
    for slot in range(2):
        lm.prefill(slot, prompt(4), frame(4, 0))
    own = lm.step({slot: frame(4, 1) for slot in range(2)})
    fed = FrameInput(uniform(4, "lm", 2, (8,)), allow_eos=True, codes=(own[0] + 1) % PRESET.lm.codebook_size)
    made = lm.step({0: frame(4, 2), 1: fed})
    assert np.array_equal(own[0], own[1])
    assert not np.array_equal(made[0], made[1])


def test_cache_is_never_copied(graph_of: GraphOf) -> None:
    lm = engine(graph_of("none"), n_slots=2)
    memory = lm._step._cache["k_past_0"]
    lm.prefill(0, prompt(1), frame(1, 0))
    length = len(prompt(1).text_ids)
    before = memory.copy()
    lm.step({0: frame(1, 1)})
    changed = np.flatnonzero((memory != before).any(axis=(0, 1, 3)))
    assert changed.tolist() == [length]
    assert not memory[1:].any()


def test_memory_is_counted_in_whole_rows(graph_of: GraphOf) -> None:
    row = PRESET.max_positions * position_bytes(PRESET.lm.backbone)
    lm = engine(graph_of("none"), n_slots=3)
    assert lm.kv_limit == 6 * row
    assert lm.kv_bytes([prompt(0), prompt(1)]) == 3 * row
    assert lm._step._cache["v_past_2"].nbytes * 2 * PRESET.lm.backbone.num_layers == lm.kv_limit


def test_after_an_error_the_slot_is_free_and_songs_go_on(graph_of: GraphOf) -> None:
    lm = engine(graph_of("none"), n_slots=2)
    made = [lm.prefill(0, prompt(1), frame(1, 0))]
    wrong = prompt(2)
    wrong.text_ids[0] = PRESET.lm.text_vocab_size
    with pytest.raises(EngineError, match="onnxruntime failed"):
        lm.prefill(1, wrong, frame(2, 0))
    made.append(lm.step({0: frame(1, 1)})[0])
    lm.release(0)
    assert np.array_equal(made, alone(lm, 1, 2))


def test_a_damaged_graph_is_named(tmp_path: Path) -> None:
    path = tmp_path / "heartmula_step_ort" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"heartmula_step_ort: model\.onnx does not load"):
        OrtEngine(path, PRESET)
