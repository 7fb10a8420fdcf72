from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.audio.limiter import TruePeak
from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.watermark import Detection, Marker, detect, mark
from heartvoice.watermark.embedding import MIN_SNR_DB, TILE
from heartvoice.watermark.layout import HOP, PERIOD_FRAMES

Samples = NDArray[np.float32]

KEY, OTHER_KEY, PAYLOAD = b"k" * 32, b"o" * 32, 0xC0FFEE42
SECONDS = 16
PERIOD = PERIOD_FRAMES * HOP


@lru_cache(maxsize=1)
def _music() -> Samples:
    """Chords of decaying partials twice a second over soft noise that beats, stereo."""
    rng = np.random.default_rng(5)
    length = SAMPLE_RATE_HZ // 2
    clock = np.arange(length) / SAMPLE_RATE_HZ
    audio = np.zeros((2, SECONDS * SAMPLE_RATE_HZ))
    for at in range(0, audio.shape[1], length):
        for pan in (0.3, 0.5, 0.8):
            hz = 110 * 2 ** (rng.integers(0, 24) / 12)
            wave = sum(np.sin(2 * np.pi * hz * n * clock + rng.uniform(0, 6)) / n for n in range(1, 12))
            audio[:, at : at + length] += np.outer((1 - pan, pan), wave * np.exp(-3 * clock))
        audio[:, at : at + length] += 0.3 * rng.standard_normal((2, length)) * np.exp(-9 * clock)
    return np.asarray(0.5 * audio / np.abs(audio).max(), np.float32)


@lru_cache(maxsize=1)
def _marked() -> Samples:
    return mark(_music(), KEY, PAYLOAD)


def _streamed(audio: Samples, lengths: list[int]) -> Samples:
    marker, done, at, index = Marker(KEY, PAYLOAD), list[Samples](), 0, 0
    while at < audio.shape[1]:
        length = lengths[index % len(lengths)]
        done.append(marker.push(audio[:, at : at + length]))
        at, index = at + length, index + 1
    return np.concatenate([*done, marker.finish()], axis=1)


@pytest.mark.parametrize("lengths", [[4001], [1, 30001, 0, 6143], [TILE], [TILE - 1, TILE + 1]], ids=str)
@pytest.mark.parametrize("n_samples", [TILE * 9, TILE * 9 + 1, 99_991])
def test_a_stream_has_the_samples_of_the_whole(lengths: list[int], n_samples: int) -> None:
    audio = _music()[:, :n_samples]
    assert np.array_equal(_streamed(audio, lengths), mark(audio, KEY, PAYLOAD))


@pytest.mark.parametrize("n_samples", [0, 1, HOP, TILE - HOP, TILE])
def test_the_output_is_as_long_as_the_input(n_samples: int) -> None:
    assert mark(_music()[:, :n_samples], KEY, PAYLOAD).shape == (2, n_samples)


def test_the_beginning_does_not_depend_on_what_follows() -> None:
    begin = mark(_music()[:, : 20 * TILE], KEY, PAYLOAD)
    assert np.array_equal(begin[:, : 17 * TILE], _marked()[:, : 17 * TILE])


def test_silence_stays_silent_within_a_song() -> None:
    audio = _music()[:, : 30 * TILE].copy()
    audio[:, 10 * TILE : 20 * TILE] = 0
    marked = mark(audio, KEY, PAYLOAD)
    assert not marked[:, 10 * TILE + 2 * HOP : 20 * TILE - 2 * HOP].any()
    assert not mark(np.zeros((2, 3 * TILE), np.float32), KEY, PAYLOAD).any()


def test_the_change_is_bounded_in_every_stretch() -> None:
    change = _marked() - _music()
    for at in range(0, change.shape[1], 10 * TILE):
        part = slice(at, at + 10 * TILE)
        snr_db = 10 * np.log10(np.square(_music()[:, part]).sum() / np.square(change[:, part]).sum())
        assert MIN_SNR_DB - 2 < snr_db < MIN_SNR_DB + 10


def test_both_channels_are_changed_alike() -> None:
    audio = _music()[:, : 20 * TILE].copy()
    audio[1] = -0.5 * audio[0]
    marked = mark(audio, KEY, PAYLOAD)
    assert np.allclose(marked[1], -0.5 * marked[0], atol=1e-6)


def test_the_true_peak_stays_below_the_ceiling() -> None:
    audio = np.asarray(np.clip(4 * _music()[:, : 40 * TILE], -0.88, 0.88), np.float32)
    marker = Marker(KEY, PAYLOAD)
    marked = np.concatenate([marker.push(audio), marker.finish()], axis=1)
    peak = TruePeak().push(np.pad(marked, ((0, 0), (0, -marked.shape[1] % 16 + 32)))).max()
    assert 20 * np.log10(peak) <= -1.0
    assert 0 < marker.reduction_db < 3


def test_a_mark_is_found_with_its_payload_and_its_place() -> None:
    found = detect(_marked(), SAMPLE_RATE_HZ, KEY)
    assert found.payload == PAYLOAD
    assert found.speed == 1.0
    assert min(found.start_s, PERIOD / SAMPLE_RATE_HZ - found.start_s) < 0.03
    assert found.score > found.threshold + 2


def test_other_payloads_are_told_apart() -> None:
    assert detect(mark(_music(), KEY, PAYLOAD ^ 1), SAMPLE_RATE_HZ, KEY).payload == PAYLOAD ^ 1


def test_a_wrong_key_finds_nothing() -> None:
    assert _nothing(detect(_marked(), SAMPLE_RATE_HZ, OTHER_KEY))
    assert _nothing(detect(_marked(), SAMPLE_RATE_HZ, b"k" * 31 + b"l", speeds=False))


def test_nothing_is_found_where_nothing_is() -> None:
    assert _nothing(detect(_music(), SAMPLE_RATE_HZ, KEY, speeds=False))


@pytest.mark.parametrize("n_samples", [0, 100, 3 * TILE])
def test_nothing_is_found_in_silence_or_in_very_little(n_samples: int) -> None:
    assert _nothing(detect(np.zeros((2, n_samples), np.float32), SAMPLE_RATE_HZ, KEY))
    assert _nothing(detect(_marked()[:, :n_samples], SAMPLE_RATE_HZ, KEY))


def test_samples_that_are_no_numbers_hide_nothing() -> None:
    audio = _marked().copy()
    audio[0, 1000:1010] = np.nan
    audio[1, 5000] = np.inf
    assert detect(audio, SAMPLE_RATE_HZ, KEY, speeds=False).payload == PAYLOAD


@pytest.mark.parametrize("rate_hz", [44_100, 32_000])
def test_a_mark_outlasts_another_rate(rate_hz: int) -> None:
    assert detect(resample(_marked(), SAMPLE_RATE_HZ, rate_hz), rate_hz, KEY, speeds=False).payload == PAYLOAD


@pytest.mark.parametrize("speed", [0.97, 1.0213])
def test_a_mark_is_found_at_another_speed(speed: float) -> None:
    played = resample(_marked(), SAMPLE_RATE_HZ, round(SAMPLE_RATE_HZ / speed))
    found = detect(played, SAMPLE_RATE_HZ, KEY)
    assert found.payload == PAYLOAD
    assert found.speed == pytest.approx(speed, abs=0.001)
    assert _nothing(detect(played, SAMPLE_RATE_HZ, KEY, speeds=False))


def _cut(audio: Samples) -> Samples:
    return audio[:, 70_001:]


def _quieter(audio: Samples) -> Samples:
    return np.asarray(0.1 * audio, np.float32)


def _left(audio: Samples) -> Samples:
    left: Samples = audio[0]
    return left


def _noisy(audio: Samples) -> Samples:
    noise = np.random.default_rng(1).standard_normal(audio.shape) * np.sqrt(np.square(audio).mean() / 1000)
    return np.asarray(audio + noise, np.float32)


@pytest.mark.parametrize("edit", [_cut, _quieter, _left, _noisy])
def test_a_mark_outlasts_edits(edit: Callable[[Samples], Samples]) -> None:
    assert detect(edit(_marked()), SAMPLE_RATE_HZ, KEY, speeds=False).payload == PAYLOAD


def test_a_marked_part_of_a_longer_file_is_found() -> None:
    noise = np.asarray(0.1 * np.random.default_rng(3).standard_normal((2, 22 * SAMPLE_RATE_HZ)), np.float32)
    before = noise[:, : 12 * SAMPLE_RATE_HZ]
    found = detect(np.concatenate([before, _marked(), noise], axis=1), SAMPLE_RATE_HZ, KEY, speeds=False)
    assert found.payload == PAYLOAD
    assert found.start_s == pytest.approx(12, abs=0.03)


def test_fields_of_a_result_are_plain_values() -> None:
    assert Detection(True, 20.123, 11.0, 0xBEEF, 1.02, 3.14159).as_fields() == {
        "found": True, "kind": "song", "payload": "0000beef", "score": 20.12, "threshold": 11.0, "speed": 1.02,
        "start_s": 3.142,
    }  # fmt: skip


def _nothing(result: Detection) -> bool:
    return not result.found and result.payload is None and result.score < result.threshold
