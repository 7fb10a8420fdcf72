from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartvoice.audio import decode
from heartvoice.audio.recordings import Recording, read_recording
from heartvoice.contracts.constants import (
    MAX_FILE_BYTES,
    MAX_INPUT_RATE_HZ,
    MAX_RECORDING_S,
    MIN_INPUT_RATE_HZ,
    MIN_RECORDING_S,
)
from heartvoice.contracts.field_checks import RecordingInputs
from heartvoice.errors import InvalidRequestError
from tests.support.music import band, encode

FORMATS = [
    ("WAV", "PCM_U8", 0.02), ("WAV", "PCM_16", 1e-4), ("WAV", "PCM_24", 1e-6), ("WAV", "PCM_32", 1e-6),
    ("WAV", "FLOAT", 0.0), ("WAV", "DOUBLE", 0.0), ("WAVEX", "PCM_24", 1e-6), ("FLAC", "PCM_16", 1e-4),
    ("FLAC", "PCM_24", 1e-6), ("OGG", "VORBIS", 0.3), ("OGG", "OPUS", 0.3), ("MP3", "MPEG_LAYER_III", 0.3),
]  # fmt: skip
RATE_HZ = 48_000


def bytes_input(data: bytes) -> np.ndarray:
    return np.array([data], np.object_)


def from_file(data: bytes, *, min_s: float = MIN_RECORDING_S, max_s: float = MAX_RECORDING_S) -> Recording:
    return read_recording({"file": bytes_input(data)}, RecordingInputs(limits_s=(min_s, max_s)))


def refusal(data: bytes, **limits: float) -> str:
    with pytest.raises(InvalidRequestError) as error:
        from_file(data, **limits)
    assert str(error.value).startswith("file: expected ")
    assert len(str(error.value)) < 250
    return str(error.value)


@pytest.fixture(autouse=True)
def nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


# -------------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(("container", "subtype", "tolerance"), FORMATS)
def test_every_allowed_format_is_read(container: str, subtype: str, tolerance: float) -> None:
    audio = band(2, RATE_HZ)
    recording = from_file(encode(audio, RATE_HZ, container, subtype))
    assert recording.audio.shape == audio.shape
    assert recording.audio.dtype == np.float32
    assert recording.audio.flags.c_contiguous
    assert (recording.sample_rate_hz, recording.duration_s, recording.warnings) == (RATE_HZ, 2.0, ())
    assert np.abs(recording.audio - audio).max() <= tolerance


@pytest.mark.parametrize(
    ("container", "name"), [("AIFF", "AIFF"), ("CAF", "CAF"), ("AU", "AU"), ("RF64", "RF64"), ("W64", "W64")]
)
def test_other_containers_are_refused_by_name(container: str, name: str) -> None:
    message = refusal(encode(band(2), format=container, subtype="PCM_16"))
    assert message == f"file: expected WAV (PCM or float), FLAC, OGG (Vorbis or Opus) or MP3, got {name}"


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "IMA_ADPCM", "GSM610"])
def test_other_encodings_inside_wav_are_refused_by_name(subtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(band(2)[0], 8000, "WAV", subtype)
    monkeypatch.delattr(decode, "_read")  # before libsndfile sees them
    assert refusal(data).endswith(f"got WAV with {subtype}")


def test_a_wav_of_nothing_but_chunks_is_not_walked_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    walked = []
    chunks = decode._wav_chunks

    def seen(data: bytes) -> Iterator[tuple[bytes, int, int]]:
        for chunk in chunks(data):
            walked.append(chunk)
            yield chunk

    monkeypatch.setattr(decode, "_wav_chunks", seen)
    assert refusal(b"RIFF\0\0\0\0WAVE" + bytes(1_000_000)).endswith("got WAV with 1000 chunks before its sound")
    assert len(walked) == 1001


@pytest.mark.parametrize(("magic", "order"), [(b"RIFF", "little"), (b"RIFX", "big")])
def test_a_wav_that_names_its_encoding_in_the_extension_is_judged_by_that(
    magic: bytes, order: Literal["little", "big"], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wav(sub_format: int) -> bytes:
        fmt = (0xFFFE).to_bytes(2, order) + bytes(22) + sub_format.to_bytes(2, order) + bytes(14)
        odd = b"junk" + (3).to_bytes(4, order) + bytes(4)  # with its byte of padding
        return magic + bytes(4) + b"WAVE" + odd + b"fmt " + (40).to_bytes(4, order) + fmt

    monkeypatch.setattr(decode, "_read", lambda *_: (np.ones((1, 2), np.float32), 8000))
    assert decode.decode(wav(3), field="file", max_s=1.0).audio.shape == (1, 2)
    assert refusal(wav(0x11)).endswith("got WAV with IMA_ADPCM")
    assert refusal(wav(0x1234)).endswith("got WAV with 0x1234")


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"", "got an empty file"),
        (b"hello, this is not audio at all" * 100, "got data that begins with b'hello, t'"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), "got an image"),
        (b"\x00\x00\x00\x20ftypM4A " + bytes(1000), "got MP4"),
        (bytes(100_000), "got data that begins with"),
        (b"\xff", "got data that begins with"),
        (b"RIFF\x24\x00\x00\x00WAVE", "got a file that is damaged or cut short"),
        (b"fLaC", "got a file that is damaged or cut short"),
        (b"OggS", "got a file that is damaged or cut short"),
        (b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(300), "got a file that is damaged or cut short"),
        (b"\xff\xfb\x90\x64" + bytes(5000), "got"),
    ],
)
def test_what_is_not_audio_is_refused(data: bytes, got: str) -> None:
    assert got in refusal(data)


def test_one_channel_and_two_are_read_and_eight_are_refused_with_their_number() -> None:
    assert from_file(encode(band(2)[0])).audio.shape == (1, 88_200)
    eight = np.tile(band(2), (4, 1))
    assert refusal(encode(eight, 44_100, "WAVEX", "PCM_16")) == "file: expected 1 or 2 channels, got 8"


@pytest.mark.parametrize("rate_hz", [1000, MIN_INPUT_RATE_HZ - 1, MAX_INPUT_RATE_HZ + 1, 2**31 - 1])
def test_absurd_rates_are_refused(rate_hz: int) -> None:
    expected = f"expected a sample rate of 8000 to 192000 Hz, got {rate_hz} Hz"
    assert refusal(encode(band(2), rate_hz, "WAV", "PCM_16")) == f"file: {expected}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_samples_are_refused(value: float) -> None:
    audio = band(2).copy()
    audio[1, 70_000] = value
    assert refusal(encode(audio, subtype="FLOAT")) == "file: expected finite samples, got NaN or Inf"


def test_integers_in_float_samples_are_refused() -> None:
    audio = (band(2) * np.float32(32_768)).astype(np.float32)
    assert "expected samples of about -1 to 1, got 1.6" in refusal(encode(audio, subtype="FLOAT"))


# ------------------------------------------------------------------------------------------------- sizes and durations


def test_durations_are_checked_with_both_ends_included() -> None:
    data = encode(band(3))
    assert from_file(data, min_s=3.0, max_s=3.0).duration_s == 3.0
    assert refusal(data, min_s=3.1) == "file: expected 3.1 to 600 s, got 3 s"
    assert refusal(data, max_s=2.9) == "file: expected at most 2.9 s, got 3 s"


def test_a_file_with_no_samples_is_refused() -> None:
    assert (
        refusal(encode(np.zeros((2, 0), np.float32), format="WAV"))
        == "file: expected sound, got a file with no samples"
    )


def test_too_many_bytes_are_refused_before_they_are_read() -> None:
    assert (
        refusal(bytes(MAX_FILE_BYTES + 1)) == f"file: expected at most {MAX_FILE_BYTES} bytes, got {MAX_FILE_BYTES + 1}"
    )


def peak_memory(data: bytes, **limits: float) -> int:
    tracemalloc.start()
    try:
        refusal(data, **limits)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("container", ["FLAC", "MP3", "OGG"])
def test_a_small_file_that_unpacks_to_minutes_is_refused_without_the_memory_for_them(container: str) -> None:
    silence = np.zeros((1, 8000 * 400), np.float32)
    data = encode(silence, 8000, container)
    assert len(data) < silence.nbytes / 10
    assert "expected at most 60 s, got 400" in refusal(data, max_s=60.0)
    assert peak_memory(data, max_s=60.0) < 8000 * 60 * 4 * 1.5


def with_flac_length(data: bytes, n_frames: int) -> bytes:
    """The same FLAC file, promising `n_frames` (36 bits that end at byte 26)."""
    word = int.from_bytes(data[18:26], "big") >> 36 << 36 | n_frames
    return data[:18] + word.to_bytes(8, "big") + data[26:]


def test_a_flac_header_that_lies_about_the_length_does_no_harm() -> None:
    data = encode(band(4), format="FLAC", subtype="PCM_16")
    assert "expected at most 600 s, got 48695.8 s" in refusal(with_flac_length(data, 2**31))
    assert refusal(with_flac_length(data, 2**36 - 1))
    assert refusal(with_flac_length(data, 5 * 44_100))
    assert refusal(with_flac_length(data, 1000)) == "file: expected 1 to 600 s, got 0.02267574 s"
    unknown = with_flac_length(data, 0)
    assert from_file(unknown).audio.shape == (2, 4 * 44_100)
    assert "got more" in refusal(unknown, max_s=3.5)
    assert peak_memory(unknown, max_s=2.5) < 2.5 * 44_100 * 2 * 4 + 2 * 44_100 * 2 * 4 + 500_000


def with_wav_bytes(data: bytes, n_bytes: int) -> bytes:
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", n_bytes) + data[at + 4 :]


def test_a_wav_header_that_lies_about_the_length_does_no_harm() -> None:
    data = encode(band(3), subtype="PCM_16")
    assert "the file is cut short" in refusal(with_wav_bytes(data, 2**30))
    assert "no samples" in refusal(with_wav_bytes(data, 0))
    for streamed in (2**31 - 1, 2**32 - 1):  # written before the length was known
        assert from_file(with_wav_bytes(data, streamed)).audio.shape == (2, 3 * 44_100)


def test_an_mp3_header_that_lies_about_the_length_does_no_harm() -> None:
    data = encode(band(3), format="MP3")
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    many = data[:at] + struct.pack(">I", 2**31 - 1) + data[at + 4 :]
    few = data[:at] + struct.pack(">I", 10) + data[at + 4 :]
    assert refusal(many)
    assert "got 0.2" in refusal(few)
    without = data.replace(b"Xing", bytes(4)).replace(b"Info", bytes(4))
    assert from_file(without).duration_s == pytest.approx(3.0, abs=0.1)
    assert "expected at most 2.5 s" in refusal(without, max_s=2.5)


@pytest.mark.parametrize(
    ("container", "subtype"), [("WAV", "PCM_16"), ("WAVEX", "PCM_24"), ("FLAC", "PCM_16"), ("MP3", None)]
)
def test_a_file_cut_short_is_refused(container: str, subtype: str | None) -> None:
    data = encode(band(4), format=container, subtype=subtype)
    assert "cut short" in refusal(data[: len(data) * 2 // 3])


def test_an_ogg_file_cut_short_is_read_with_a_warning() -> None:
    data = encode(band(6), format="OGG", subtype="VORBIS")
    recording = from_file(data[: len(data) * 2 // 3])
    assert 2.0 < recording.duration_s < 5.0
    assert recording.warnings == ("no end: the OGG stream lacks its last page, it may be cut short",)


def test_a_damaged_mp3_is_read_with_a_warning_and_in_silence() -> None:
    data = bytearray(encode(band(4), format="MP3"))
    at = len(data) // 2 + 100
    data[at : at + 4] = bytes(255 - value for value in data[at : at + 4])
    assert from_file(bytes(data)).warnings == ("damaged: the MP3 decoder skipped or muted parts of it",)


def test_other_threads_keep_their_standard_error_while_an_mp3_is_read(capfd: pytest.CaptureFixture[str]) -> None:
    from heartvoice.audio.decode import _quiet_mpg123

    with _quiet_mpg123() as complaints:
        os.write(2, b"a log line\nNote: Trying to resync...\n[src/libmpg123/layer3.c:f():1] error: bad\nmore\n")
    assert complaints.damaged
    assert capfd.readouterr().err == "a log line\nmore\n"


# ----------------------------------------------------------------------------------------------------------------- fuzz

KINDS = (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None))
SEEDS = tuple(encode(band(1.2, RATE_HZ), RATE_HZ, container, subtype) for container, subtype in KINDS)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_no_bytes_crash_the_decoder(data: st.DataObject) -> None:
    mutated = bytearray(data.draw(st.sampled_from(SEEDS)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    for _ in range(data.draw(st.integers(0, 20))):
        reach = len(mutated) if rng.random() < 0.5 else min(100, len(mutated))
        mutated[int(rng.integers(reach))] = int(rng.integers(256))
    if rng.random() < 0.2:
        mutated = mutated[: int(rng.integers(len(mutated)))]
    try:
        recording = from_file(bytes(mutated), max_s=5.0)
    except InvalidRequestError:
        return
    assert np.isfinite(recording.audio).all()
    assert 1.0 <= recording.duration_s <= 5.0


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from([b"", b"RIFF\x00\x00\x01\x00WAVE", b"fLaC", b"OggS", b"ID3\x03", b"\xff\xfb"]),
    st.binary(max_size=400),
)
def test_garbage_after_a_good_beginning_is_refused(beginning: bytes, rest: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"^file: "):
        from_file(beginning + rest)
