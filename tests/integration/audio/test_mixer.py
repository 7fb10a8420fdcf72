from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartvoice.audio.dsp import resample
from heartvoice.audio.limiter import CEILING_DBTP
from heartvoice.audio.mixer import FADE, MAX_SHORTFALL, Mixer, MixPiece, mid_channel
from heartvoice.audio.polarity import PolarityFollower, turned
from tests.support.music import room, singer, true_peak_dbtp
from tests.unit.audio.test_mixer import Streams, alike, another_voice, joined, mixed, reported, sides, streams


def aligned_mid(vocals: np.ndarray) -> np.ndarray:
    """What the converter hears."""
    return mid_channel(turned(vocals, PolarityFollower().push(vocals)))


PLACES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "in a room": lambda voice: voice,
    "mono": lambda voice: np.stack([voice[0], voice[0]]),
    "left alone": lambda voice: np.stack([voice[0], np.zeros_like(voice[0])]),
    "opposite phases": lambda voice: np.stack([voice[0], -voice[0]]),
    "silent": np.zeros_like,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_converter_that_returns_its_input_gives_the_recording_back(place: str) -> None:
    recording, vocals, _ = streams()
    vocals = np.ascontiguousarray(PLACES[place](vocals))
    assert true_peak_dbtp(recording) <= CEILING_DBTP
    piece, report = reported(recording, vocals, aligned_mid(vocals))
    assert piece.audio.shape == recording.shape
    assert np.abs(piece.audio - recording).max() < 1e-6
    assert np.abs(piece.instrumental + piece.vocals - piece.audio).max() < 1e-6
    assert (report.loudness_gain_db, report.limiter_reduction_db) == ((0.0, 0.0), 0.0)
    assert report.true_peak_dbtp == pytest.approx(true_peak_dbtp(recording), abs=0.05)


@lru_cache
def chunked_inputs() -> tuple[Streams, MixPiece]:
    """Streams that need the limiter and end unevenly, and their mix in one go."""
    recording, vocals, _ = streams(2.0)
    inputs = (recording * np.float32(1.4), vocals, another_voice(2.0)[: vocals.shape[1] - 100])
    return inputs, mixed(*inputs)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60_000)), max_size=40))
def test_the_samples_do_not_depend_on_the_chunks(pushes: list[tuple[int, int]]) -> None:
    inputs, whole = chunked_inputs()
    names, at, pieces = ("recording", "vocals", "converted"), [0, 0, 0], []
    mixer = Mixer()
    for which, n in [*pushes, *((index, 10**9) for index in range(3))]:
        chunk = inputs[which][..., at[which] : at[which] + n]
        at[which] += chunk.shape[-1]
        pieces.append(mixer.push(**{names[which]: chunk}))
    pieces.append(mixer.finish())
    streamed = joined([piece for piece in pieces if piece is not None])
    assert np.array_equal(streamed.audio, whole.audio)
    assert np.array_equal(streamed.vocals, whole.vocals)


def test_kept_arrays_are_not_written_to() -> None:
    """The converter reads the same vocals later."""
    recording, vocals, converted = (stream.copy() for stream in streams())
    expected = mixed(recording, vocals, converted).audio
    for stream in (recording, vocals, converted):
        stream.flags.writeable = False
    mixer = Mixer()
    pieces = [mixer.push(recording, vocals, converted[:1000]), mixer.push(converted=converted[1000:]), mixer.finish()]
    assert np.array_equal(joined([piece for piece in pieces if piece is not None]).audio, expected)
    for stream, same in zip((recording, vocals, converted), streams(), strict=True):
        assert np.array_equal(stream, same)


def test_converted_vocals_may_be_shorter_and_then_fade_out() -> None:
    recording, vocals, converted = streams()
    silent = np.zeros_like(recording)
    short = mixed(silent, vocals, converted[:-MAX_SHORTFALL]).vocals
    full = mixed(silent, vocals, converted).vocals
    n = full.shape[1]
    fade_start = n - round((MAX_SHORTFALL + FADE) * 48_000 / 44_100)
    before = slice(0, fade_start - 4800)  # the image and the resampler's filter reach back from the fade
    assert np.abs(short[:, before] - full[:, before]).max() < 5e-4  # the end has a small part in the gain before it
    mono = np.repeat(vocals[:1], 2, axis=0)
    ended = mixed(silent, mono, vocals[0, :-MAX_SHORTFALL] * 0 + np.float32(0.1)).vocals
    assert np.abs(ended[:, -300:]).max() < 1e-3
    assert np.abs(np.diff(ended[0, fade_start - 100 :])).max() < 0.005 * np.abs(ended).max()  # no click


def test_new_vocals_become_as_loud_as_the_old_ones_and_gain_is_added_to_that() -> None:
    _, vocals, _ = streams(6)
    vocals = vocals * np.float32(0.25)  # so that the limiter has no part in this
    silent = np.zeros((2, 6 * 48_000), np.float32)

    def lufs(audio: np.ndarray) -> float:
        return float(pyloudnorm.Meter(48_000).integrated_loudness(audio.mean(axis=0)))

    def level(gain: float, gain_db: float = 0.0) -> float:
        piece, report = reported(silent, vocals, another_voice(6) * np.float32(gain), gain_db)
        assert report.limiter_reduction_db == 0.0
        return lufs(piece.vocals)

    assert level(0.2) == pytest.approx(level(0.4), abs=0.01)
    assert level(0.2) == pytest.approx(lufs(resample(vocals, 44_100, 48_000)), abs=1.0)
    assert level(0.2, -9.0) == pytest.approx(level(0.2) - 9.0, abs=0.05)


def test_nothing_of_the_old_voice_stays_in_the_room_and_the_room_stays_wide() -> None:
    vocals = room(singer(6), wet=0.4)
    converted = another_voice(6)
    old_side, new_side = sides(vocals, converted)
    unrelated = alike(old_side, resample(converted, 44_100, 48_000))
    assert alike(old_side, new_side) < unrelated + 0.02
    assert abs(20 * np.log10(np.linalg.norm(new_side) / np.linalg.norm(old_side))) < 4.0
    assert alike(old_side, sides(vocals, mid_channel(vocals))[1]) > 0.99
