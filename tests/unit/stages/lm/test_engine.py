"""What the engine over the portable graph alone does: its memory, its failures. The rest is in test_lm_engines.py."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.errors import EngineError
from heartvoice.stages.lm.cache import WIDTH_BLOCK
from heartvoice.stages.lm.engine import GraphEngine
from heartvoice.stages.lm.song_state import SongState
from tests.fakes.networks import BytesTokenizer
from tests.support.lm_songs import PRESET, REQUESTS, LmStage, codes_alone, graph_engine, song, tiny_graph

N_SLOTS = 4


def test_the_stage_and_the_engine_make_the_same_song() -> None:
    stage = LmStage(tiny_graph(), BytesTokenizer(), PRESET)
    np.testing.assert_array_equal(np.stack(list(stage.frames(REQUESTS[0]))), codes_alone(0))


def test_a_failed_step_changes_nothing() -> None:
    class Failing:
        failing = False

        def run(self, *args: object) -> object:
            if self.failing:
                raise EngineError("out of order")
            return tiny_graph().run(*args)  # type: ignore[arg-type]

    graph = Failing()
    engine = GraphEngine(graph, PRESET, n_slots=2)  # type: ignore[arg-type]
    wanted = SongState(REQUESTS[0], BytesTokenizer(), PRESET)
    frames = [wanted.accept(engine.prefill(0, wanted.prompt, wanted.next_input()))]
    graph.failing = True
    with pytest.raises(EngineError):
        engine.step({0: wanted.next_input()})
    with pytest.raises(EngineError):
        engine.prefill(1, song().prompt, song().next_input())
    graph.failing = False
    while not wanted.finished:
        frames.append(wanted.accept(engine.step({0: wanted.next_input()})[0]))
    np.testing.assert_array_equal(np.stack([f for f in frames if f is not None]), codes_alone(0))


def test_memory_is_that_of_the_longest_song_in_every_row() -> None:
    engine = graph_engine(N_SLOTS)
    sizes = PRESET.lm.backbone
    per_position = 2 * sizes.num_layers * sizes.num_kv_heads * sizes.head_dim * 4
    assert engine.kv_limit == 2 * N_SLOTS * PRESET.max_positions * per_position
    short, long = song(10), song(200, cfg_scale=1.0, lyrics="a")
    assert short.prompt.n_rows == 2
    assert long.prompt.n_rows == 1
    assert 192 < long.prompt.n_positions <= 256
    assert engine.kv_bytes([short.prompt]) == 2 * 64 * per_position
    assert engine.kv_bytes([short.prompt, long.prompt]) == 3 * 256 * per_position


def test_a_song_fits_exactly_into_what_it_needs() -> None:
    wanted = song(60, cfg_scale=1.0, temperature=0.0)
    engine = graph_engine(1, kv_limit=graph_engine().kv_bytes([wanted.prompt]))
    engine.prefill(0, wanted.prompt, wanted.next_input())
    made = [engine.step({0: wanted.next_input()})[0] for _ in range(59)]
    assert len(made) == 59
    room = WIDTH_BLOCK - wanted.prompt.n_positions % WIDTH_BLOCK
    for _ in range(room + 1):
        engine.step({0: wanted.next_input()})
    with pytest.raises(EngineError, match="within the limit"):
        engine.step({0: wanted.next_input()})
