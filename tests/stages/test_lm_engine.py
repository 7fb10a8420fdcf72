"""The engine over the portable graph: a song's codes are its own, whatever happens beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heartvoice.errors import EngineError
from heartvoice.stages.lm import LmSong
from heartvoice.stages.lm_cache import WIDTH_BLOCK
from heartvoice.stages.lm_engine import GraphEngine
from tests.fakes import BytesTokenizer
from tests.lm_songs import PRESET, REQUESTS, LmStage, codes_alone, graph_engine, song, tiny_graph

N_SLOTS = 4
ARRIVAL = st.tuples(st.integers(0, len(REQUESTS) - 1), st.integers(0, 8), st.integers(1, 9))
"""Which request, in which turn it comes, after how many of its frames it is cancelled."""


def run_schedule(arrivals: list[tuple[int, int, int]]) -> None:
    """Play a schedule as the scheduler would, and hold every frame against the song alone."""
    engine = graph_engine(N_SLOTS)
    coming = sorted(arrivals, key=lambda arrival: arrival[1])
    running: dict[int, tuple[LmSong, int, int]] = {}
    turn = 0

    def check(slot: int, ids: np.ndarray) -> None:
        wanted, index, patience = running[slot]
        frame, alone = wanted.take(ids), codes_alone(index)
        if frame is None:
            assert wanted.n_made == len(alone)
        else:
            np.testing.assert_array_equal(frame, alone[wanted.n_made - 1], strict=False)
        if wanted.over or wanted.n_made >= patience:
            engine.release(slot)
            del running[slot]

    while coming or running:
        free = set(range(N_SLOTS)) - running.keys()
        if coming and coming[0][1] <= turn and free:
            index, _, patience = coming.pop(0)
            slot = max(free)  # rows and slots in different orders
            running[slot] = LmSong(REQUESTS[index], BytesTokenizer(), PRESET), index, patience
            check(slot, engine.prefill(slot, running[slot][0].prompt, running[slot][0].next_input()))
        if running:
            for slot, ids in engine.step({slot: entry[0].next_input() for slot, entry in running.items()}).items():
                check(slot, ids)
        turn += 1


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ARRIVAL, min_size=3, max_size=6))
def test_codes_are_those_of_the_song_alone(arrivals: list[tuple[int, int, int]]) -> None:
    run_schedule(arrivals)


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ARRIVAL, min_size=2, max_size=16))
def test_codes_are_those_of_the_song_alone_in_many_schedules(arrivals: list[tuple[int, int, int]]) -> None:
    run_schedule(arrivals)


def test_the_stage_and_the_engine_make_the_same_song() -> None:
    stage = LmStage(tiny_graph(), BytesTokenizer(), PRESET)
    np.testing.assert_array_equal(np.stack(list(stage.frames(REQUESTS[0]))), codes_alone(0))


def test_songs_differ() -> None:
    """The comparisons of this file would hold nothing if all songs were one."""
    first_frames = {codes_alone(index)[0].tobytes() for index in range(len(REQUESTS))}
    assert len(first_frames) >= len(REQUESTS) - 1


def test_a_failed_step_changes_nothing() -> None:
    class Failing:
        failing = False

        def run(self, *args: object) -> object:
            if self.failing:
                raise EngineError("out of order")
            return tiny_graph().run(*args)  # type: ignore[arg-type]

    graph = Failing()
    engine = GraphEngine(graph, PRESET, n_slots=2)  # type: ignore[arg-type]
    wanted = LmSong(REQUESTS[0], BytesTokenizer(), PRESET)
    frames = [wanted.take(engine.prefill(0, wanted.prompt, wanted.next_input()))]
    graph.failing = True
    with pytest.raises(EngineError):
        engine.step({0: wanted.next_input()})
    with pytest.raises(EngineError):
        engine.prefill(1, song().prompt, song().next_input())
    graph.failing = False
    while not wanted.over:
        frames.append(wanted.take(engine.step({0: wanted.next_input()})[0]))
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
    with pytest.raises(AssertionError, match="within the limit"):
        engine.step({0: wanted.next_input()})
