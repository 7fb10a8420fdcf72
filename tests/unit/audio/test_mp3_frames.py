"""MP3 streams: counted frame by frame, and read to their end."""

from __future__ import annotations

import io
import os
import struct

import numpy as np
import pytest
import soundfile

from heartvoice.audio.decode import SoundFile, decode
from heartvoice.audio.mp3_frames import mp3_parts
from heartvoice.audio.quiet_mpg123 import quiet_mpg123
from heartvoice.errors import InvalidRequestError
from tests.support.music import band, encode, lame

SWELL = np.concatenate([0.003 * band(2), band(2)], axis=1)
"""Soft and then loud: by its beginning a variable bit rate promises a short file."""


def read(data: bytes, max_s: float = 600.0) -> SoundFile:
    return decode(data, field="file", max_s=max_s)


def samples_of(data: bytes) -> np.ndarray:
    """What libsndfile reads of an ordinary file: float32 [C, N]."""
    audio: np.ndarray = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T
    return audio


def delay(audio: np.ndarray, original: np.ndarray) -> int:
    """Samples by which `audio` lags behind."""
    size = 1 << 19
    product = np.fft.rfft(audio[0], size) * np.conj(np.fft.rfft(original[0], size))
    return int(np.argmax(np.fft.irfft(product)))


VARIABLE, CONSTANT = lame(SWELL), lame(SWELL, variable=False)
TAGGED = encode(SWELL, format="MP3")


@pytest.mark.parametrize(("rate_hz", "channels"), [(44_100, 2), (48_000, 1), (32_000, 2), (22_050, 2), (16_000, 1)])
def test_a_variable_bit_rate_without_a_header_is_read_to_its_end(rate_hz: int, channels: int) -> None:
    swell = np.concatenate([0.003 * band(2, rate_hz), band(2, rate_hz)], axis=1)[:channels]
    sound = read(lame(swell, rate_hz))
    lag = delay(sound.audio, swell)
    n = swell.shape[1]
    assert 0 <= lag < 3000
    assert sound.audio.shape[1] >= n + lag  # all of it, and the encoder's delay, which nothing states
    assert np.corrcoef(sound.audio[0, lag : lag + n], swell[0])[0, 1] > 0.95
    assert sound.warnings == ()


def test_the_samples_are_those_that_libsndfile_reads_where_it_reads_them_all() -> None:
    assert np.array_equal(read(CONSTANT).audio, samples_of(CONSTANT))
    assert np.array_equal(read(TAGGED).audio, samples_of(TAGGED))
    assert read(TAGGED).audio.shape == SWELL.shape  # without delay and padding
    few = samples_of(VARIABLE)
    assert few.shape[1] < 0.6 * SWELL.shape[1]
    assert np.array_equal(read(VARIABLE).audio[:, : few.shape[1]], few)


def with_count(data: bytes, n_frames: int) -> bytes:
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    return data[:at] + struct.pack(">I", n_frames) + data[at + 4 :]


@pytest.mark.parametrize("stated", [0, 10, 2**31 - 1, 2**32 - 1])
def test_a_header_that_lies_about_the_length_does_no_harm(stated: int) -> None:
    sound = read(with_count(TAGGED, stated))
    assert np.array_equal(sound.audio, samples_of(TAGGED))
    assert sound.warnings == ()
    with pytest.raises(InvalidRequestError, match=r"expected at most 3\.5 s, got 4 s"):
        read(with_count(TAGGED, stated), max_s=3.5)


def test_a_stated_length_that_is_not_there_is_a_warning() -> None:
    (warning,) = read(with_count(TAGGED, 250)).warnings
    assert warning.startswith("cut short: ")
    (warning,) = read(VARIABLE[:-200]).warnings
    assert warning == "cut short: the file ends within an MP3 frame"


@pytest.mark.parametrize("tags", [b"", b"TAG" + bytes(125) + b"ID3\4\0\0\0\0\2\12" + bytes(266)], ids=["bare", "tags"])
def test_joined_files_are_each_read_without_their_delay_and_padding(tags: bytes) -> None:
    parts = [TAGGED, VARIABLE, TAGGED, CONSTANT]
    sound = read(tags.join(parts))
    apart = np.concatenate([read(part).audio for part in parts], axis=1)
    assert np.array_equal(sound.audio, apart)
    assert sound.warnings == ()


@pytest.mark.parametrize("other", [encode(band(1, 22_050), 22_050, "MP3"), encode(band(1)[0], format="MP3")])
def test_joined_files_of_different_formats_are_refused(other: bytes) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"got MP3 joined of files with 44100 Hz, 2 channels and .*; convert it"
    ):
        read(TAGGED + other)


def test_zeros_and_half_a_frame_may_come_first() -> None:
    assert np.array_equal(read(bytes(5000) + TAGGED).audio, samples_of(TAGGED))
    assert read(bytes(5000) + TAGGED).warnings == ()
    for data in (CONSTANT, VARIABLE):
        whole = read(data).audio
        begun = read(data[700:])
        n = begun.audio.shape[1]
        assert 0 < whole.shape[1] - n <= 5 * 1152
        assert np.array_equal(begun.audio[:, 5 * 1152 :], whole[:, -n + 5 * 1152 :])
        assert begun.warnings[0].endswith("bytes before the first whole MP3 frame are no sound")


def test_garbage_within_is_passed_with_a_warning() -> None:
    middle = len(CONSTANT) // 2
    sound = read(CONSTANT[:middle] + b"garbage \xff\xfb\x90 and more" * 40 + CONSTANT[middle:])
    assert 0 <= samples_of(CONSTANT).shape[1] - sound.audio.shape[1] <= 2 * 1152
    assert sound.warnings == ("damaged: the MP3 decoder skipped or muted parts of it",)


def test_a_damaged_frame_is_muted_with_a_warning() -> None:
    data = bytearray(encode(band(4), format="MP3"))
    at = len(data) // 2 + 100
    data[at : at + 4] = bytes(255 - value for value in data[at : at + 4])
    assert read(bytes(data)).warnings == ("damaged: the MP3 decoder skipped or muted parts of it",)


def test_what_looks_like_headers_is_not_tried_for_ever() -> None:
    with pytest.raises(InvalidRequestError, match="few MP3 frames"):
        read(b"\xff\xfb\x90\x00" * 30_000)


def test_a_header_by_fraunhofer_is_no_sound() -> None:
    first = bytearray(CONSTANT[: len(mp3_parts(CONSTANT, 0).parts[0].head) + 417])
    first[4:] = bytes(len(first) - 4)
    first[36:40] = b"VBRI"
    assert np.array_equal(read(bytes(first) + CONSTANT).audio, read(CONSTANT).audio)


def test_other_threads_keep_their_standard_error_while_an_mp3_is_read(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_mpg123() as status:
        os.write(2, b"a log line\nNote: Trying to resync...\n[src/libmpg123/layer3.c:f():1] error: bad\nmore\n")
    assert status.damaged
    assert capfd.readouterr().err == "a log line\nmore\n"
