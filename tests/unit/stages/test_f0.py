"""The F0 stage: accuracy of swift-f0 on voices of known pitch, and RMVPE's mathematics.

RMVPE has random weights here, so that nothing is said of its accuracy: only that the stage computes what its
specification does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from heartvoice.arrays import Array
from heartvoice.config.presets import F0S
from heartvoice.errors import EngineError, InvalidRequestError, RequestCancelledError
from heartvoice.keyed_random import normal
from heartvoice.loadtest.signals import glide, notes, score, vibrato
from heartvoice.models.load import Checkpoint, random_checkpoint
from heartvoice.stages.f0 import (
    F0Stage,
    decode_salience,
    heard_contour,
    median_hz,
    onto_grid,
    pieces,
    rmvpe_log_mel,
    shift_semitones,
    swings,
)
from tests.support.cancelling import networks_until
from tests.support.f0_engines import SMALL, SWIFT, OneNetwork, f0_engine, golden_sizes, swift_engine
from tests.support.golden_cases import GoldenFolder, folder_params

MARGIN = 5
"""50 ms beside the ends of notes: swift-f0's frames are 16 ms apart and hear 128 ms."""


def swift() -> F0Stage:
    return F0Stage(OneNetwork(swift_engine()), SWIFT)


@lru_cache(maxsize=1)
def small_rmvpe() -> OneNetwork:
    return OneNetwork(f0_engine(SMALL, random_checkpoint(SMALL, 0)))


def single(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def hiss(n_samples: int, level: float = 0.1) -> np.ndarray:
    return normal(0, "hiss", 0, (n_samples,)) * np.float32(level)


# ---------------------------------------------------------------------------------------------- accuracy of swift-f0


def test_notes_change_within_two_frames() -> None:
    voice = notes((220, 440, 880, 110))
    contour = swift().track(voice.audio)
    wrong = np.flatnonzero(np.abs(np.log2(np.maximum(contour, 1) / voice.contour)) > 50 / 1200)
    distance = np.abs(wrong[:, None] - np.array([0, 50, 100, 150, 200])).min(axis=1)
    assert distance.max() <= 4


@pytest.mark.parametrize(
    ("level_db", "offset"), [(0, 0.0), (-20, 0.0), (-40, 0.2), (-58, 0.0), (-75, -0.01), (20, 0.0)]
)
def test_level_and_offset_do_not_matter(level_db: float, offset: float) -> None:
    voice = glide(80, 800)
    contour = swift().track(voice.audio * np.float32(2 * 10 ** (level_db / 20)) + np.float32(offset))
    found = score(contour, voice.contour, MARGIN)
    assert found.rpa > 0.995
    assert found.median_cents < 5.0


@pytest.mark.parametrize("level", [0.0, 1e-4, 1e-2, 0.3, 1.0])
def test_silence_and_noise_are_unvoiced(level: float) -> None:
    contour = swift().track(hiss(5 * 16_000, level))
    assert (contour > 0).mean() < 0.01


@pytest.mark.parametrize(("level_db", "offset"), [(0, 0.0), (-58, 0.0), (-20, 0.1)])
def test_a_voice_that_is_digitally_silent_has_no_pitch(level_db: float, offset: float) -> None:
    voice = vibrato(220)
    with_gap = np.concatenate([voice.audio, np.zeros(16_000, np.float32), voice.audio])
    contour = swift().track(with_gap * np.float32(2 * 10 ** (level_db / 20)) + np.float32(offset))
    assert (contour[10:290] > 0).all()
    assert not contour[310:390].any()


def mains(n_samples: int, hz: float, dbfs: float) -> np.ndarray:
    """Hum and its overtones, float32 [N]."""
    time = np.arange(n_samples) / 16_000
    wave = sum((np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 8)), np.zeros(n_samples))
    made: np.ndarray = (wave * 10 ** (dbfs / 20) / np.sqrt(np.mean(wave**2))).astype(np.float32)
    return made


@pytest.mark.parametrize(("hz", "dbfs"), [(50, -50), (60, -45), (50, -40), (100, -45)])
def test_hum_in_pauses_does_not_move_the_median(hz: float, dbfs: float) -> None:
    """12 s with 7 s of pauses, whose plain median is the hum's."""
    voice = notes((220, 253, 294, 253, 247, 262, 253, 278, 253, 240))
    rest = np.zeros(56_000, np.float32)
    audio = np.concatenate([rest, voice.audio, rest])
    audio += mains(len(audio), hz, dbfs)
    contour = swift().track(audio)
    assert median_hz(contour) == pytest.approx(hz, rel=0.02)
    assert median_hz(heard_contour(contour, audio)) == pytest.approx(253, rel=0.01)
    soft = audio * np.float32(0.005) + np.float32(0.003)
    assert median_hz(heard_contour(swift().track(soft), soft)) == pytest.approx(253, rel=0.01)


def test_range_is_that_of_the_engine() -> None:
    low, high = glide(30, 44, 2.0), glide(2200, 3000, 2.0)
    for contour in (swift().track(low.audio), swift().track(high.audio)):
        voiced = contour[contour > 0]
        assert ((voiced >= 46.8) & (voiced <= 2094)).all()


# ------------------------------------------------------------------------------------------------------- any length


@pytest.mark.parametrize("n_samples", [1, 2, 159, 160, 161, 255, 256, 511, 512, 513, 1024, 4000])
def test_any_length_gives_a_value_every_10_ms(n_samples: int) -> None:
    for stage in (swift(), F0Stage(small_rmvpe(), SMALL)):
        contour = stage.track(hiss(n_samples))
        assert contour.shape == (n_samples // 160 + 1,)
        assert contour.dtype == np.float32
        assert np.isfinite(contour).all()
        assert (contour >= 0).all()


# -------------------------------------------------------------------------------------------------------- the grid


def test_interpolation_is_in_cents_between_voiced_frames() -> None:
    hz = single([100, 112, 110])
    contour = onto_grid(hz, np.ones(3, bool), 2.0, 6)
    np.testing.assert_allclose(contour, [100, (100 * 112) ** 0.5, 112, (112 * 110) ** 0.5, 110, 110], rtol=1e-6)


def test_nothing_is_interpolated_across_a_gap() -> None:
    hz = single([100, 101, 300, 200, 201])
    contour = onto_grid(hz, np.array([True, True, False, True, True]), 4.0, 17)
    assert set(contour[5:6]) == {101}
    assert not contour[6:10].any()  # nearer to the unvoiced frame, the middle included
    assert contour[10:13].tolist() == [200, 200, 200]


def test_a_leap_is_a_step() -> None:
    contour = onto_grid(single([220, 440]), np.ones(2, bool), 4.0, 5)
    assert contour.tolist() == [220, 220, 440, 440, 440]


def test_swings_are_those_of_whole_hops_and_know_no_offset() -> None:
    audio = single([0, -3, 1, 2, 9])
    assert swings(audio, 2).tolist() == [1.5, 0.5]
    assert swings(audio[:1], 2).tolist() == [0]
    assert swings(audio + np.float32(4), 8).tolist() == [6]


# ------------------------------------------------------------------------------------------------------------ RMVPE


def salience_of(*frames: dict[int, float]) -> np.ndarray:
    salience = np.zeros((len(frames), 360), np.float32)
    for row, frame in zip(salience, frames, strict=True):
        for index, value in frame.items():
            row[index] = value
    return salience


def hz_of(index: float) -> float:
    return float(10 * 2 ** ((1997.3794084376191 + 20 * index) / 1200))


def test_a_pitch_is_the_weighted_mean_of_nine_bins() -> None:
    decoded = decode_salience(
        salience_of({100: 0.9}, {100: 0.6, 101: 0.6}, {100: 0.9, 105: 0.8}, {100: 0.6, 96: 0.3, 104: 0.3})
    )
    np.testing.assert_allclose(decoded, [hz_of(100), hz_of(100.5), hz_of(100), hz_of(100)], rtol=1e-12)


def test_bins_beyond_the_ends_do_not_count() -> None:
    decoded = decode_salience(salience_of({0: 0.5, 2: 0.5}, {359: 0.5}, {355: 0.4, 359: 0.5}))
    np.testing.assert_allclose(decoded, [hz_of(1), hz_of(359), hz_of(355 + 4 * 5 / 9)], rtol=1e-6)
    assert hz_of(0) == pytest.approx(31.70, abs=0.01)
    assert hz_of(359) == pytest.approx(2005.5, abs=0.5)


def test_salience_must_exceed_the_threshold() -> None:
    at = np.float32(0.03)
    salience = salience_of({10: float(np.nextafter(at, np.float32(1)))}, {10: float(at)}, {10: 0.02}, {})
    assert (decode_salience(salience, float(at)) > 0).tolist() == [True, False, False, False]
    assert (decode_salience(salience, 0.5) > 0).sum() == 0
    assert (decode_salience(salience, 0.0) > 0).sum() == 3


@pytest.mark.parametrize("folder", folder_params("seed_vc/rmvpe"))
def test_contour_is_the_references(folder: GoldenFolder) -> None:
    sizes, io = golden_sizes(folder), folder.io
    network = OneNetwork(f0_engine(sizes, Checkpoint.open(folder.path / "weights.safetensors")))
    np.testing.assert_allclose(F0Stage(network, sizes).track(io["wave_16k"]), io["f0"], atol=2e-3)
    high = F0Stage(network, sizes, threshold=0.5).track(io["wave_16k"])
    np.testing.assert_allclose(high, io["f0_thred_0.5"], atol=2e-3)


def test_log_mel_reflects_the_ends_and_has_a_floor() -> None:
    assert np.array_equal(rmvpe_log_mel(np.zeros(1600, np.float32), 128), np.full((128, 11), np.float32(np.log(1e-5))))
    audio = hiss(4000)
    mirrored = np.concatenate([audio[512:0:-1], audio, audio[-2:-514:-1]])
    shifted = rmvpe_log_mel(np.concatenate([np.zeros(128, np.float32), mirrored]), 128)  # 512 + 128 are 4 hops
    np.testing.assert_allclose(shifted[:, 4 : 4 + 26], rmvpe_log_mel(audio, 128), atol=1e-6)


@pytest.mark.parametrize(("n_frames", "longest", "context"), [(1, 96, 32), (96, 96, 32), (97, 96, 32), (1000, 192, 64)])
def test_pieces_cover_everything_once_on_the_pooling_grid(n_frames: int, longest: int, context: int) -> None:
    cut = list(pieces(n_frames, longest, context))
    assert [start for start, _, _, _ in cut] == [0, *(end for _, end, _, _ in cut[:-1])]
    assert cut[-1][1] == n_frames
    for start, end, first, last in cut:
        assert first % 32 == 0
        assert first <= start < end <= last <= n_frames
        assert last - first <= longest
        assert first == max(0, start - context)
        assert end == n_frames or last == end + context
        assert last == n_frames or last % 32 == 0


@pytest.mark.parametrize(
    "options", [{"whole_frames": 100}, {"context_frames": 33}, {"whole_frames": 640, "context_frames": 320}]
)
def test_pieces_off_the_pooling_grid_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="whole_frames, context_frames: expected multiples of 32"):
        F0Stage(small_rmvpe(), SMALL, **options)


# ------------------------------------------------------------------------------------------------ errors and reports


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(0, np.float32), r"audio: expected float32 \[N\], at least one sample, got float32 \[0\]"),
        (np.zeros((1, 9), np.float32), r"got float32 \[1, 9\]"),
        (np.zeros(9), r"got float64 \[9\]"),
        (single([0, np.nan]), "NaN or Inf"),
        (single([np.inf]), "NaN or Inf"),
    ],
)
def test_bad_audio_is_refused(audio: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        F0Stage(small_rmvpe(), SMALL).track(audio)


def test_cancel_is_looked_at_before_every_call() -> None:
    network = small_rmvpe()
    network.shapes.clear()
    networks = networks_until(network, lambda: len(network.shapes) == 2)
    with pytest.raises(RequestCancelledError):
        F0Stage(networks, SMALL, whole_frames=96, context_frames=32).track(hiss(48_000))
    assert len(network.shapes) == 2


def test_another_engine_s_network_is_an_error() -> None:
    class Fixed:
        def run(self, name: str, inputs: object, outputs: object = None) -> dict[str, Array]:
            return {"activations": np.zeros((1, 64, 7), np.float32)}

    for sizes in F0S.values():
        with pytest.raises(EngineError, match=r"expected activations \[1, T, \d+\], got \[1, 64, 7\]"):
            F0Stage(Fixed(), sizes).track(hiss(1600))


def test_median_is_the_lower_one_of_voiced_values() -> None:
    contour = np.array([0, 0, 100, 400, 0.5, 200, 300], np.float64)
    assert median_hz(contour) == 200
    assert median_hz(contour[:3]) == 100
    assert median_hz(np.array([0.0, 1.0])) == 0
    assert shift_semitones(contour, contour * 2) == pytest.approx(12)
    assert shift_semitones(contour, contour / 2 ** (3 / 12)) == pytest.approx(-3)
    assert shift_semitones(contour, np.zeros(4)) is None
    assert shift_semitones(np.zeros(4), contour) is None
