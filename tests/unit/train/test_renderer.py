"""The sound of the demo world: locked to the frames, the sum of its parts, and silent for codes that mean nothing."""

from __future__ import annotations

import numpy as np
import pytest

from train.demo import harmony, layout, tables
from train.demo.band import BandTables
from train.demo.layout import ATOM_1, ATOM_2, CHORD, FRAME_SAMPLES, LOW, N_BOOKS, NOTE
from train.demo.renderer import Renderer
from train.demo.songs import held_out_song
from train.demo.voice import VoiceTables

VOWEL = tables.spellings()["me"][0]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    return held_out_song(0).codes[:, 20:60]


def _held(book: int, code: int, frames: int = 8) -> np.ndarray:
    codes = np.zeros((N_BOOKS, frames), np.int64)
    codes[book] = code
    codes[[ATOM_1, ATOM_2]] = np.array(VOWEL.nucleus[VOWEL.held])[:, None]
    return codes


def _frames(wave: np.ndarray) -> np.ndarray:
    return wave.reshape(-1, FRAME_SAMPLES)[1:]  # the first one fades in


@pytest.mark.parametrize(("singer", "pitch"), [(0, 2), (1, 4), (2, 0), (3, 3)])
def test_a_held_note_is_the_same_in_every_frame_of_its_parity(renderer: Renderer, singer: int, pitch: int) -> None:
    note = layout.note_id(layout.SungNote(singer, pitch, 1))
    frames = _frames(renderer.parts(_held(NOTE, note))["voice"])
    assert np.abs(frames).max() > 0.01
    assert np.array_equal(frames[2:], frames[:-2])
    is_whole = (harmony.singer_hz(singer, pitch) / layout.FRAME_HZ).is_integer()
    assert np.array_equal(frames[1:], frames[:-1]) == is_whole


@pytest.mark.parametrize("chord", range(len(layout.CHORDS)))
def test_a_held_chord_and_bass_are_the_same_in_every_second_frame(renderer: Renderer, chord: int) -> None:
    last = layout.chord_id(layout.Played(2, chord, 99))
    bass = layout.low_id(layout.Low(chord, 99, 0))
    for book, code, part in ((CHORD, last, "chord"), (LOW, bass, "bass")):
        frames = _frames(renderer.parts(_held(book, code))[part])
        assert np.abs(frames).max() > 0.01
        np.testing.assert_allclose(frames[2:], frames[:-2], atol=1e-6)


def test_the_stems_add_up_to_the_mix_and_equal_codes_sound_equal(renderer: Renderer, song: np.ndarray) -> None:
    stems, mix = renderer.stems(song), renderer.mix(song)
    assert mix.shape == (2, song.shape[1] * FRAME_SAMPLES)
    assert 0.1 < np.abs(mix).max() < 1
    np.testing.assert_allclose(sum(stems.values()), mix, atol=1e-6)
    assert np.array_equal(Renderer().mix(song), mix)
    assert all(np.abs(stem).max() > 0.01 for name, stem in stems.items() if name != "lead")


def test_a_part_of_a_song_sounds_as_in_the_song(renderer: Renderer, song: np.ndarray) -> None:
    whole, part = renderer.mix(song), renderer.mix(song[:, 8:20])
    np.testing.assert_allclose(part[:, FRAME_SAMPLES:], whole[:, 9 * FRAME_SAMPLES : 20 * FRAME_SAMPLES], atol=1e-6)


def test_codes_that_mean_nothing_are_silent(renderer: Renderer) -> None:
    nothing = np.full((N_BOOKS, 3), 7000)
    assert not renderer.mix(nothing).any()
    assert not renderer.mix(-nothing).any()
    sung = _held(NOTE, layout.note_id(layout.SungNote(0, 0, 1)))
    sung[[ATOM_1, ATOM_2]] = 7000
    assert not renderer.mix(sung).any()


def test_the_voice_follows_envelope_and_pitch() -> None:
    bands_hz = np.array([0.0, 1000.0, 2000.0, 12_000.0])
    envelope = np.full((4, layout.N_SOUNDS, 4), -25.0, np.float32)
    envelope[:, [1, layout.N_ATOMS + 1], 0] = 0.0  # all power below 1 kHz
    voices = VoiceTables(bands_hz, envelope, np.zeros_like(envelope))
    codes = _held(NOTE, layout.note_id(layout.SungNote(2, 2, 1)))
    codes[[ATOM_1, ATOM_2]] = 1
    wave = Renderer((voices, BandTables({}, {}))).parts(codes)["voice"][FRAME_SAMPLES : 3 * FRAME_SAMPLES]
    spectrum = np.abs(np.fft.rfft(wave))
    hz = np.fft.rfftfreq(len(wave), 1 / layout.SAMPLE_RATE_HZ)
    assert hz[spectrum.argmax()] == harmony.singer_hz(2, 2) == 150.0
    assert spectrum[hz > 1200].max() < 1e-3 * spectrum.max()
