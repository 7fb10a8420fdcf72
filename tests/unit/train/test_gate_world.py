"""The gate's list: what is in it, and that its sounds are what they are called."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest

from heartvoice.cli.gate_world import open_world
from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.evaluation.gate.world import SongOrder
from tests.support.gate_maker import SONG, small_world
from train.demo import gate, layout
from train.demo.gate import DemoWorld
from train.demo.harmony import gender, singer_hz


@pytest.fixture(scope="module")
def world() -> DemoWorld:
    return DemoWorld()


@pytest.fixture(scope="module")
def small() -> DemoWorld:
    return small_world()


def test_the_list_has_twenty_songs_and_covers_of_all_singers_and_tempi(world: DemoWorld) -> None:
    tags = [score.tags for score in world.scores.values()]
    assert Counter(each.singer for each in tags) == dict.fromkeys(range(4), 5)
    assert min(Counter(each.tempo for each in tags).values()) >= 6
    assert len(tags) == len(world.songs()) == 20
    assert len({song.lyrics for song in world.songs()}) == 20
    pairs = Counter((cover.score.tags.singer, cover.target) for cover in world.cover_list)
    assert sum(pairs.values()) == len(world.covers()) == 20
    assert all(singer != target for singer, target in pairs)
    assert {gender(singer) == gender(target) for singer, target in pairs} == {True, False}
    assert len(pairs) == 8
    assert all(cover.reference.tags.singer == cover.target for cover in world.cover_list)


def test_the_list_is_the_same_every_time_and_names_its_parts(world: DemoWorld, small: DemoWorld) -> None:
    assert world.identity != small.identity
    assert small.identity == small_world().identity
    assert DemoWorld(small.scores, ()).identity != small.identity


def test_the_oracle_is_the_sound_of_any_codes_and_reads_them(small: DemoWorld) -> None:
    score, song = small.scores[SONG], small.songs()[0]
    oracle = small.oracle(score.codes.astype(np.int32))
    n_frames = score.codes.shape[1]
    assert oracle.mix.shape == oracle.voice.shape == (2, n_frames * layout.FRAME_SAMPLES)
    assert len(oracle.pitch_hz) == n_frames * 8 + 1
    alone = small.oracle(small.voice_alone(score.codes))
    np.testing.assert_allclose(alone.mix, oracle.voice, atol=1e-6)
    figures = small.read(song, score.codes)
    assert (figures.word_error, figures.tags, figures.consistent) == (0.0, 1.0, 1.0)
    silent = small.read(song, np.zeros((8, 20), np.int32))
    assert silent.word_error == 1.0
    assert silent.tags < 1
    assert silent.consistent < 1


def test_a_cover_s_sounds_are_one_song_by_two_singers(small: DemoWorld) -> None:
    cover = small.cover_list[0]
    sounds = small.cover_sounds(small.covers()[0])
    np.testing.assert_allclose(sounds.recording, small.oracle(cover.score.codes).mix, atol=1e-6)
    assert not sounds.same_pitches  # a man's song by a woman
    assert sounds.wanted.shape == sounds.vocals.shape
    assert np.abs(sounds.wanted - sounds.vocals).max() > 0.01
    assert 3.0 <= len(sounds.reference) / SAMPLE_RATE_HZ <= gate.REFERENCE_S
    assert np.abs(sounds.reference[: SAMPLE_RATE_HZ // 2]).max() > 0.01, "it begins with singing"


def test_another_singer_sings_the_same_notes(small: DemoWorld) -> None:
    codes = small.scores[SONG].codes
    made = gate.sung_by(codes, 0)
    assert np.array_equal(np.delete(made, layout.NOTE, 0), np.delete(codes, layout.NOTE, 0))
    for before, after in zip(codes[layout.NOTE], made[layout.NOTE], strict=True):
        one, other = layout.read_note(int(before)), layout.read_note(int(after))
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (other.singer, other.pitch, other.remaining) == (0, one.pitch, one.remaining)
            assert singer_hz(0, other.pitch) > singer_hz(one.singer, one.pitch)


def test_the_command_finds_the_list_without_a_path_to_it(monkeypatch: pytest.MonkeyPatch, world: DemoWorld) -> None:
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    opened = open_world()
    assert opened.identity == world.identity
    assert SongOrder("", "", opened.settings).settings["codec_window"] % 93 == 0
