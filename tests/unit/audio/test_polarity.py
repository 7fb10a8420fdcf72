"""Channels that cancel each other: found, followed through a stream, and turned back."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.audio.polarity import PolarityFollower, cancelled_side, turned
from heartvoice.audio.recordings import Recording
from heartvoice.audio.stereo_image import mid_channel
from tests.support.music import room, singer, speaker

RATE_HZ = 44_100
HOP = 4410


def panned(left: float, right: float, seconds: float = 3.0) -> np.ndarray:
    voice = singer(seconds)
    return np.asarray(np.stack([left * voice, right * voice]), np.float32)


def level_db(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64)) + 1e-20))


def noisy(stereo: np.ndarray, db: float = -25.0) -> np.ndarray:
    """Its channels cancel nearly, not exactly: each has a room of its own."""
    noise = np.random.default_rng(0).standard_normal(stereo.shape)
    return np.asarray(stereo + noise * 10 ** ((level_db(stereo) + db) / 20), np.float32)


@pytest.mark.parametrize("gain", [1.0, 1e-3, 30.0])
@pytest.mark.parametrize("offset", [0.0, 0.2])
@pytest.mark.parametrize(("left", "right", "side"), [(1.0, -0.95, 0), (0.8, -1.0, 1), (-1.0, 0.6, 0), (1.0, 1.0, None)])
def test_channels_that_cancel_are_found_at_any_level_and_offset(
    left: float, right: float, side: int | None, gain: float, offset: float
) -> None:
    stereo = (gain * noisy(panned(left, right))).astype(np.float32) + np.float32(offset * gain)
    assert cancelled_side(stereo, RATE_HZ) == side


@pytest.mark.parametrize(("left", "right"), [(1.0, 0.0), (1.0, 0.3), (1.0, -0.2), (0.0, 0.0)])
def test_a_voice_beside_the_centre_does_not_cancel(left: float, right: float) -> None:
    assert cancelled_side(panned(left, right), RATE_HZ) is None
    follower = PolarityFollower()
    assert follower.push(panned(left, right)) is None
    assert follower.warnings() == []


def test_a_room_does_not_cancel() -> None:
    assert cancelled_side(room(singer(3), wet=0.7), RATE_HZ) is None
    assert PolarityFollower().push(room(singer(3), wet=0.7)) is None


def test_a_recording_whose_channels_cancel_for_a_part_of_it_is_its_louder_channel() -> None:
    audio = np.concatenate([panned(1, 1, 6), panned(1, -0.9, 2)], axis=1)
    recording = Recording(audio, RATE_HZ)
    assert recording.cancels
    assert np.array_equal(recording.mono(), audio[0])
    assert recording.mono_warnings == ("channels: they cancel each other, so only the left one is used",)


@pytest.mark.parametrize("right", [-1.0, -0.8, -1.3])
def test_vocals_whose_channels_cancel_keep_their_voice(right: float) -> None:
    stereo = noisy(panned(1.0, right))
    follower = PolarityFollower()
    mid = mid_channel(turned(stereo, follower.push(stereo)))
    assert level_db(mid_channel(stereo)) < level_db(stereo[0]) - 15
    assert level_db(mid[2 * HOP :]) == pytest.approx(level_db(stereo[0]), abs=1.6)
    assert follower.inverted_s > 2.5
    seconds = f"{follower.inverted_s:.1f} s in all"
    assert follower.warnings() == [
        f"vocals: left and right cancel each other, for {seconds}; there their difference was converted, not their sum"
    ]


def test_who_knows_that_the_recording_cancels_loses_nothing_of_its_first_word() -> None:
    stereo = panned(1.0, -1.0)
    mid = mid_channel(turned(stereo, PolarityFollower(inverted=True).push(stereo)))
    assert np.array_equal(mid, stereo[0])


def test_a_chorus_that_cancels_in_the_middle_of_a_song_is_followed_there_and_back() -> None:
    stereo = np.concatenate([panned(1, 1), panned(1, -1), panned(1, 1)], axis=1)
    n = stereo.shape[1] // 3
    signs = PolarityFollower().push(stereo)
    assert signs is not None
    assert (signs[:n] == 1).all()
    assert (signs[n + 5 * HOP : 2 * n] == -1).all()
    assert (signs[2 * n + 5 * HOP :] == 1).all()
    assert np.count_nonzero(np.diff(signs)) == 2


def test_rests_and_silence_change_nothing() -> None:
    silence = np.zeros((2, RATE_HZ), np.float32)
    band = (1e-3 * np.random.default_rng(0).standard_normal(6 * RATE_HZ)).astype(np.float32)  # leaks, in phase
    stereo = np.concatenate([silence, panned(1, -1, 1), np.stack([band, band]), panned(1, -1, 1)], axis=1)
    signs = PolarityFollower().push(stereo)
    assert signs is not None
    assert (signs[: RATE_HZ + HOP] == 1).all()
    assert (signs[RATE_HZ + 2 * HOP :] == -1).all()


@pytest.mark.parametrize("lengths", [[49], [HOP], [777, 10_000], [HOP - 1, 1, 2 * HOP + 3]])
def test_the_signs_do_not_depend_on_how_the_stream_is_cut(lengths: list[int]) -> None:
    stereo = np.concatenate([panned(1, 1, 0.4), panned(1, -1, 0.8), panned(1, 1, 0.6)], axis=1)
    whole, follower = PolarityFollower().push(stereo), PolarityFollower()
    pieces, at = list[np.ndarray](), 0
    while at < stereo.shape[1]:
        piece = stereo[:, at : at + lengths[len(pieces) % len(lengths)]]
        at += piece.shape[1]
        found = follower.push(piece)
        pieces.append(np.ones(piece.shape[1], np.float32) if found is None else found)
    assert whole is not None
    assert np.array_equal(np.concatenate(pieces), whole)


def test_a_stream_that_is_spoken_beside_noise_in_phase_is_followed() -> None:
    hum = 1e-3 * np.sin(2 * np.pi * 50 * np.arange(3 * RATE_HZ) / RATE_HZ)
    stereo = (np.stack([speaker(3), -speaker(3)]) + hum).astype(np.float32)
    signs = PolarityFollower().push(stereo)
    assert signs is not None
    assert signs[-1] == -1
