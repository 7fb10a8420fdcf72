"""What every engine of the language model must do, over all of them: the portable graph, onnxruntime's, PyTorch's.

What only one of them does is in its own file.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.stages.lm.engine import FrameInput
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.lm.scheduler import LmScheduler
from heartvoice.stages.lm.song_state import SongState
from tests.fakes.networks import BytesTokenizer
from tests.support.lm_engine_kinds import (
    AHEAD,
    ON_CPU,
    ON_GPU,
    QUANTIZED,
    Player,
    alone,
    make,
    next_input,
    own_codes,
    play,
    play_at_random,
)
from tests.support.lm_songs import PRESET, REQUESTS, codes_alone, request, song, song_that_ends_itself, write

N_SLOTS = 4
ARRIVAL = st.tuples(st.integers(0, len(REQUESTS) - 1), st.integers(0, 4), st.integers(1, 9))
"""Which request, how many turns after the one before it comes, after how many of its frames it is cancelled."""


def engines(*, but: Collection[str] = ()) -> pytest.MarkDecorator:
    """Run the test over every engine but these."""
    marks = dict.fromkeys(ON_GPU, pytest.mark.gpu)
    kinds = [kind for kind in (*ON_CPU, *ON_GPU) if kind not in but]
    return pytest.mark.parametrize("kind", [pytest.param(kind, marks=marks.get(kind, ())) for kind in kinds])


@engines(but=QUANTIZED)
def test_songs_are_those_of_the_portable_graph(kind: str) -> None:
    lm = make(kind, N_SLOTS)
    for index, wanted in enumerate(REQUESTS):
        np.testing.assert_array_equal(alone(lm, wanted, index % N_SLOTS), codes_alone(index))


@engines(but=QUANTIZED)
def test_long_songs_are_those_of_the_portable_graph(kind: str) -> None:
    lm = make(kind, 2)
    for wanted, codes in long_songs():
        np.testing.assert_array_equal(alone(lm, wanted), codes)


@cache
def long_songs() -> list[tuple[LmRequest, np.ndarray]]:
    """Requests, and what the portable graph makes of them."""
    requests = request(60, seed=5), request(60, seed=6, temperature=0.0, cfg_scale=1.0)
    return [(wanted, write(SongState(wanted, BytesTokenizer(), PRESET))) for wanted in requests]


def test_songs_differ() -> None:
    """The comparisons of this file would hold nothing if all songs were one."""
    first_frames = {codes_alone(index)[0].tobytes() for index in range(len(REQUESTS))}
    assert len(first_frames) >= len(REQUESTS) - 1


@engines()
def test_many_songs_at_two_threads(kind: str) -> None:
    play_many(kind, n_rounds=1)


def play_many(kind: str, n_rounds: int) -> None:
    """Rounds of songs at random, one after the other on the same engine."""
    lm = make(kind, 8, threads=2)
    for seed in range(n_rounds):
        play_at_random(kind, lm, seed, n_songs=16)


def run_schedule(kind: str, arrivals: list[tuple[int, int, int]]) -> None:
    """Songs in rows and slots of different orders."""
    turns = iter([turn == gap for _, gap, _ in arrivals for turn in range(gap + 1)])
    songs = [(index, patience) for index, _, patience in arrivals]
    play(kind, make(kind, N_SLOTS), songs, joins=lambda: next(turns), slot_of=max)


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ARRIVAL, min_size=3, max_size=6))
def test_codes_are_those_of_the_song_alone(arrivals: list[tuple[int, int, int]]) -> None:
    run_schedule("standard", arrivals)


@pytest.mark.parametrize("kind", ON_CPU)
def test_codes_are_those_of_the_song_alone_in_any_schedule(kind: str) -> None:
    check_schedules(kind, 3)


def check_schedules(kind: str, examples: int) -> None:
    """Compare songs of random schedules with the songs alone."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(ARRIVAL, min_size=2, max_size=16))
    def check(arrivals: list[tuple[int, int, int]]) -> None:
        run_schedule(kind, arrivals)

    check()


@engines()
def test_the_scheduler_plays_it(kind: str) -> None:
    scheduler = LmScheduler(make(kind, 2), max_waiting=9)
    try:
        streams = [scheduler.submit(SongState(wanted, BytesTokenizer(), PRESET)) for wanted in REQUESTS]
        for index, stream in enumerate(streams):
            np.testing.assert_array_equal(np.stack(list(stream)), own_codes(kind, index))
    finally:
        scheduler.close()


@engines(but=QUANTIZED)
def test_eos_ends_a_song_and_leaves_nothing_to_the_next_one(kind: str) -> None:
    wanted, codes = song_that_ends_itself()
    lm = make(kind, 2)
    np.testing.assert_array_equal(alone(lm, wanted), codes)
    np.testing.assert_array_equal(alone(lm, REQUESTS[0]), codes_alone(0))


@engines(but=AHEAD)
def test_a_caller_may_feed_other_codes_than_were_made(kind: str) -> None:
    lm = make(kind, 3)
    player = Player(lm)
    for slot in range(3):
        player.join(slot, request(4))
    player.step()
    (own, *_), draws = player.made.values(), player.songs[0].next_input()
    codes = own[-1].astype(np.int64)
    same = FrameInput(draws.uniform, draws.allow_eos, codes=codes)
    other = FrameInput(draws.uniform, draws.allow_eos, codes=(codes + 1) % PRESET.lm.codebook_size)
    ids = lm.step({0: draws, 1: same, 2: other})
    np.testing.assert_array_equal(ids[0], ids[1])
    assert not np.array_equal(ids[0], ids[2])


@engines()
def test_by_default_there_is_room_for_a_full_song_in_every_slot(kind: str) -> None:
    lm = make(kind, 3)
    longest = replace(song().prompt, n_positions=PRESET.max_positions)
    assert longest.guided
    assert lm.kv_bytes([longest] * 3) <= lm.kv_limit < lm.kv_bytes([longest] * 4)
    assert 0 < lm.kv_bytes([longest]) <= lm.kv_bytes([longest, song(1).prompt])
    assert lm.kv_bytes([]) == 0


@engines()
def test_a_song_beyond_the_memory_is_refused_with_the_numbers(kind: str) -> None:
    one_row = make(kind, 1).kv_limit // 2
    scheduler = LmScheduler(make(kind, 2, kv_limit=one_row), max_waiting=2)
    try:
        with pytest.raises(InvalidRequestError, match=r"2 rows of \d+ positions need .* MB .* the limit is .* MB"):
            scheduler.submit(song(PRESET.max_positions - 30))
        unguided = song(2, cfg_scale=1.0)
        assert len(list(scheduler.submit(unguided))) == 2
    finally:
        scheduler.close()


@engines()
def test_after_a_failed_prompt_the_slot_is_free_and_songs_go_on(kind: str) -> None:
    player = Player(make(kind, 2))
    player.join(0, REQUESTS[0])
    wrong = song()
    wrong.prompt.text_ids[0] = PRESET.lm.text_vocab_size
    with pytest.raises(EngineError, match="failed"):
        player.lm.prefill(1, wrong.prompt, wrong.next_input())
    player.join(1, REQUESTS[2])
    made = player.finish()
    np.testing.assert_array_equal(made[0], own_codes(kind, 0))
    np.testing.assert_array_equal(made[1], own_codes(kind, 2))


@engines()
@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 9e-5])
def test_a_temperature_below_the_bound_is_greedy(kind: str, temperature: float) -> None:
    greedy, nearly = (request(3, temperature=value) for value in (0.0, temperature))
    lm = make(kind, 1)
    np.testing.assert_array_equal(alone(lm, nearly), alone(lm, greedy))


@engines()
@pytest.mark.parametrize("logits", ["NaN", "infinite"])
def test_a_song_whose_logits_are_not_finite_fails_alone(kind: str, logits: str) -> None:
    """A graph that draws code 0 for NaN would sing on, and nobody would know."""
    player = Player(make(kind, 2))
    player.join(0, REQUESTS[0])
    wanted = song(5)
    nan = replace(wanted.prompt, style=np.full_like(wanted.prompt.style, np.nan))
    broken = nan if logits == "NaN" else replace(wanted.prompt, cfg_scale=np.inf)
    ids = player.lm.prefill(1, broken, wanted.next_input())
    assert ids.tolist() == [-1] * 8
    with pytest.raises(EngineError, match="heartmula: frame 0: the network's logits are not finite"):
        wanted.accept(ids)
    for _ in range(2):  # an engine that works ahead has begun a frame
        codes = player.lm.step({0: next_input(player.songs[0], player.lm.pending(0)), 1: wanted.next_input()})
        if 0 in codes:
            player.take(0, codes[0])
    player.lm.release(1)
    np.testing.assert_array_equal(player.finish()[0], own_codes(kind, 0))
