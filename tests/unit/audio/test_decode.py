from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from heartvoice.audio import decode, ogg_pages, pcm_files
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


def samples_of(data: bytes) -> np.ndarray:
    """What libsndfile reads of an ordinary file: float32 [C, N]."""
    audio: np.ndarray = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T
    return audio


def ogg_page(packet: bytes) -> bytes:
    """The first page of an OGG stream."""
    return b"OggS\0\2" + bytes(20) + b"\1" + bytes([len(packet)]) + packet


def wave_header(
    tag: int,
    sub_format: int = 0,
    *,
    order: Literal["little", "big"] = "little",
    channels: int = 1,
    rate_hz: int = 8000,
    bits: int = 16,
) -> bytes:
    """A WAV file up to the size of its data."""
    numbers = ((tag, 2), (channels, 2), (rate_hz, 4), (0, 4), (channels * bits // 8, 2), (bits, 2))
    fmt = b"".join(value.to_bytes(size, order) for value, size in numbers)
    if tag == 0xFFFE:
        fmt += bytes(8) + sub_format.to_bytes(2, order) + bytes(14)
    magic = b"RIFF" if order == "little" else b"RIFX"
    return magic + bytes(4) + b"WAVEfmt " + len(fmt).to_bytes(4, order) + fmt + b"data"


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
    ("container", "subtype", "endian"),
    [
        ("AIFF", "PCM_S8", "FILE"), ("AIFF", "PCM_U8", "FILE"), ("AIFF", "PCM_16", "FILE"),
        ("AIFF", "PCM_16", "LITTLE"), ("AIFF", "PCM_24", "FILE"), ("AIFF", "FLOAT", "FILE"), ("AIFF", "ULAW", "FILE"),
        ("RF64", "PCM_24", "FILE"), ("WAV", "PCM_16", "BIG"), ("WAV", "ULAW", "FILE"), ("WAV", "ALAW", "FILE"),
        ("WAVEX", "FLOAT", "FILE"),
    ],
)  # fmt: skip
def test_bare_samples_are_those_that_libsndfile_finds(container: str, subtype: str, endian: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, band(2).T, 44_100, subtype, endian, container)
    recording = from_file(file.getvalue())
    assert np.array_equal(recording.audio, samples_of(file.getvalue()))
    assert recording.warnings == ()


CONVERT = "convert it, for example: ffmpeg -i INPUT -ac 2 OUTPUT.flac"


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"\x00\x00\x00\x20ftypM4A ", "MP4 (AAC or ALAC)"), (b"\xff\xf1\x50\x80", "AAC"), (b"caff\0\1", "CAF"),
        (b".snd\0\0", "AU"), (b"riff\x2e\x91\xcf\x11", "W64"), (b"wvpk", "WavPack"),
        (b"\x1aE\xdf\xa3", "Matroska or WebM"),
        (b"\xff\xfd\x50\x80", "MPEG audio of layer I or II"), (b"#!AMR\n", "AMR"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA"), (ogg_page(b"\x7fFLAC\1\0"), "OGG with FLAC"),
        (ogg_page(b"Speex   "), "OGG with Speex"), (b"ID3\3\0\0\0\0\0\0\xff\xf1\x50\x80", "AAC"),
        (wave_header(0x11), "WAV with IMA_ADPCM"), (wave_header(0x31), "WAV with GSM610"),
        (wave_header(0xFFFE, 0x55), "WAV with MP3"), (wave_header(0x1234), "WAV with 0x1234"),
        (wave_header(1, channels=9, rate_hz=44_100), "9 channels, expected 1 to 8"),
        (b"FORM\0\0\0\x2aAIFCCOMM\0\0\0\x16" + bytes(18) + b"ima4SSND" + bytes(12), "AIFF with ima4"),
        (b"fLaC\x80\0\0\x22" + bytes(12) + b"\x01\xf0" + bytes(30), "FLAC of 32 bits"),
    ],
)  # fmt: skip
def test_other_formats_are_refused_with_the_command_that_converts(
    beginning: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(decode, "_Forward")  # before libsndfile sees them
    expected = "WAV or AIFF (PCM, float, A-law or µ-law), FLAC, OGG (Vorbis or Opus) or MP3"
    assert refusal(beginning + bytes(2000)) == f"file: expected {expected}, got {name}; {CONVERT}"


def test_a_wav_of_nothing_but_chunks_is_not_walked_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    walked = []
    next_chunk = pcm_files._next_chunk

    def seen(data: bytes, start: int, size: int) -> int:
        walked.append(start)
        return next_chunk(data, start, size)

    monkeypatch.setattr(pcm_files, "_next_chunk", seen)
    assert "got WAV with 1000 chunks before its sound" in refusal(b"RIFF\0\0\0\0WAVE" + bytes(1_000_000))
    assert len(walked) == 1000


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_wav_that_names_its_encoding_in_the_extension_is_read_by_that(order: Literal["little", "big"]) -> None:
    header = wave_header(0xFFFE, 3, order=order, rate_hz=8000, bits=32)
    sound = np.linspace(-1, 1, 8000, dtype="<f4" if order == "little" else ">f4")
    recording = from_file(header + sound.nbytes.to_bytes(4, order) + sound.tobytes())
    assert np.array_equal(recording.audio, sound[None])


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"", "got an empty file"),
        (b"hello, this is not audio at all" * 100, "got data that begins with b'hello, t'"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), "got an image"),
        (bytes(100_000), "got data that begins with"),
        (b"\xff", "got data that begins with"),
        (b"RIFF\x24\x00\x00\x00WAVE", "got a file that is damaged or cut short (WAV with no description"),
        (wave_header(1)[:-4], "got a file that is damaged or cut short (WAV with no samples"),
        (b"FORM\0\0\0\x04AIFF", "got a file that is damaged or cut short (AIFF with no description"),
        (b"fLaC", "got a file that is damaged or cut short"),
        (b"OggS", "got a file that is damaged or cut short"),
        (b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(300), "got a file that is damaged or cut short"),
        (b"\xff\xfb\x90\x64" + bytes(5000), "got"),
    ],
)
def test_what_is_not_audio_is_refused(data: bytes, got: str) -> None:
    assert got in refusal(data)


def tones(n_channels: int) -> np.ndarray:
    """One tone a channel, float32 [C, 48000]: 200 Hz, 300 Hz, and so on."""
    hz = 200 + 100 * np.arange(n_channels)[:, None]
    wave: np.ndarray = 0.1 * np.sin(2 * np.pi * hz * np.arange(48_000) / 48_000)
    return wave.astype(np.float32)


def levels(audio: np.ndarray, n_channels: int) -> np.ndarray:
    """The gain of each of `tones` in each channel of a second, [C', C]."""
    spectrum = np.abs(np.fft.rfft(audio[:, :48_000], axis=1)) / 24_000 / 0.1
    gains: np.ndarray = spectrum[:, 200 : 200 + 100 * n_channels : 100]
    return gains


S = 0.5**0.5


@pytest.mark.parametrize(
    ("container", "order", "left", "right"),
    [
        ("WAV", "FL FR FC", [1, 0, S], [0, 1, S]),
        ("FLAC", "FL FR BL BR", [1, 0, S, 0], [0, 1, 0, S]),
        ("AIFF", "FL FR FC BL BR", [1, 0, S, S, 0], [0, 1, S, 0, S]),
        ("WAV", "FL FR FC LFE BL BR", [1, 0, S, 0, S, 0], [0, 1, S, 0, 0, S]),
        ("FLAC", "FL FR FC LFE BC SL SR", [1, 0, S, 0, 0.5, S, 0], [0, 1, S, 0, 0.5, 0, S]),
        ("FLAC", "FL FR FC LFE BL BR SL SR", [1, 0, S, 0, S, 0, S, 0], [0, 1, S, 0, 0, S, 0, S]),
        ("OGG", "FL FC FR BL BR LFE", [1, S, 0, S, 0, 0], [0, S, 1, 0, S, 0]),
    ],
)
def test_more_channels_are_mixed_down_by_bs_775(
    container: str, order: str, left: list[float], right: list[float]
) -> None:
    n = len(order.split())
    recording = from_file(encode(tones(n), 48_000, container, None if container == "OGG" else "PCM_16"))
    assert np.allclose(levels(recording.audio, n), [left, right], atol=0.03 if container == "OGG" else 1e-3)
    assert recording.warnings == (
        f"multichannel: {n} channels ({order}) were mixed down to stereo by ITU-R BS.775",
    )  # fmt: skip


def test_a_channel_mask_says_where_the_channels_are() -> None:
    def masked(mask: int) -> bytes:
        data = bytearray(encode(tones(3), 48_000, "WAVEX", "PCM_16"))
        at = data.index(b"fmt ") + 8 + 20
        data[at : at + 4] = mask.to_bytes(4, "little")
        return bytes(data)

    surround = from_file(masked(0b1_0000_0011))  # FL, FR, BC
    assert np.allclose(levels(surround.audio, 3), [[1, 0, 0.5], [0, 1, 0.5]], atol=1e-3)
    assert "(FL FR BC)" in surround.warnings[0]
    assert "(FL FR FC)" in from_file(masked(0b11)).warnings[0]  # names too few
    assert "positions that ITU-R BS.775 does not mix down; convert it" in refusal(masked(0b1000_0000_0000_0000_0011))


def test_one_channel_and_two_are_read_as_they_are() -> None:
    assert from_file(encode(band(2)[0])).audio.shape == (1, 88_200)
    assert from_file(encode(band(2))).warnings == ()


@pytest.mark.parametrize("rate_hz", [1000, MIN_INPUT_RATE_HZ - 1, MAX_INPUT_RATE_HZ + 1, 2**31 - 1])
def test_absurd_rates_are_refused(rate_hz: int) -> None:
    expected = f"expected a sample rate of 8000 to 192000 Hz, got {rate_hz} Hz"
    assert refusal(encode(band(2), rate_hz, "WAV", "PCM_16")) == f"file: {expected}"


def test_a_rate_of_zero_is_refused_in_a_file_that_is_cut_short() -> None:
    data = wave_header(1, rate_hz=0) + (1000).to_bytes(4, "little") + bytes(500)
    assert refusal(data) == "file: expected a sample rate of 8000 to 192000 Hz, got 0 Hz"


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
    whole = samples_of(data)
    assert "expected at most 600 s, got 48695.8 s" in refusal(with_flac_length(data, 2**31))
    assert refusal(with_flac_length(data, 2**36 - 1))
    for stated, warning in (
        (5 * 44_100, "cut short: 44100 samples (1 s) of the 5 s that its header promises are not in the file"),
        (1000, "length: the header says 0.0226757 s, the file holds 4 s, and all of it is read"),
    ):
        recording = from_file(with_flac_length(data, stated))
        assert np.array_equal(recording.audio, whole)
        assert recording.warnings == (warning,)
    unknown = with_flac_length(data, 0)
    assert np.array_equal(from_file(unknown).audio, whole)
    assert "got more" in refusal(unknown, max_s=3.5)
    assert peak_memory(unknown, max_s=2.5) < 2.5 * 44_100 * 2 * 4 + 2 * 44_100 * 2 * 4 + 500_000


def with_wav_bytes(data: bytes, n_bytes: int) -> bytes:
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", n_bytes) + data[at + 4 :]


@pytest.mark.parametrize(
    ("stated", "warning"),
    [
        # As sox, espeak-ng, ffmpeg and arecord write before they know the length.
        (0, None), (2**31 - 1, None), (2**32 - 1, None), (0x7FFFF000, None), (0x80000000, None),
        (3 * 44_100 * 4 + 36, "cut short: 9 samples (0.000204082 s) of the 3.0002 s that its header promises are not"),
        (3 * 44_100 * 4 + 1, None),
        (3 * 44_100 * 4 - 44, "length: the header says 2.99975 s, the file holds 3 s, and all of it is read"),
        (3 * 44_100 * 4 - 4, "length: the header says 2.99998 s, the file holds 3 s, and all of it is read"),
        (2**30, "cut short: "),
    ],
)  # fmt: skip
def test_a_wav_is_read_to_its_end_whatever_its_header_says(stated: int, warning: str | None) -> None:
    data = encode(band(3), subtype="PCM_16")
    recording = from_file(with_wav_bytes(data, stated))
    assert np.array_equal(recording.audio, samples_of(data))
    assert len(recording.warnings) == (0 if warning is None else 1)
    assert warning is None or recording.warnings[0].startswith(warning)


@pytest.mark.parametrize("container", ["WAV", "AIFF"])
def test_an_odd_chunk_may_lack_its_byte_of_padding(container: str) -> None:
    data = encode(band(2), format=container, subtype="PCM_16")
    name, order = (b"LIST", "<I") if container == "WAV" else (b"ANNO", ">I")
    for padding in (b"", b"\0", b" "):
        odd = data[:12] + name + struct.pack(order, 5) + b"INFOx" + padding + data[12:]
        assert np.array_equal(from_file(odd).audio, samples_of(data))


ID3V2 = b"ID3\4\0\0\0\0\2\12" + bytes(266)
ID3V1 = b"TAG" + b"x" * 125
APE = b"APETAGEX" + struct.pack("<4I", 2000, 42, 1, 0xA0000000) + bytes(8) + b"\2\0\0\0\0\0\0\0ab\0cd" + bytes(29)


@pytest.mark.parametrize(("container", "subtype", "tolerance"), [each for each in FORMATS if each[1] != "OPUS"])
def test_tags_before_and_behind_a_file_are_no_sound(container: str, subtype: str, tolerance: float) -> None:
    data = encode(band(2), format=container, subtype=subtype)
    for tagged in (ID3V2 + data, ID3V2 + ID3V2 + data + ID3V1, data + APE[:74] + ID3V1, data + ID3V2):
        recording = from_file(tagged)
        assert np.array_equal(recording.audio, samples_of(data))
        assert recording.warnings == ()


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)],
)
def test_files_joined_end_to_end_are_read_to_the_end(container: str, subtype: str | None) -> None:
    first, second = (encode(part, RATE_HZ, container, subtype) for part in (band(2, RATE_HZ), band(1, RATE_HZ, 1)))
    recording = from_file(first + second)
    assert np.array_equal(recording.audio, np.concatenate([samples_of(first), samples_of(second)], axis=1))
    assert recording.warnings == ()
    other = encode(band(1, 24_000), 24_000, container, subtype)
    if subtype == "OPUS":  # always at 48 kHz
        other = encode(band(1, RATE_HZ)[0], RATE_HZ, container, subtype)
    assert f"; {CONVERT}" in refusal(first + other)


def test_very_many_joined_files_are_refused() -> None:
    page = encode(np.zeros(1000), 8000, "FLAC", "PCM_16")
    assert "got FLAC joined of more than 1000 files" in refusal(page * 1001)


def test_very_many_ogg_pages_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(band(6), format="OGG")
    n_pages = data.count(b"OggS")
    monkeypatch.setattr(ogg_pages, "_MOST_PAGES", n_pages + 1)
    assert from_file(data).duration_s == 6.0
    monkeypatch.setattr(ogg_pages, "_MOST_PAGES", n_pages)
    assert f"got OGG of more than {n_pages} pages; convert it" in refusal(data)


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("WAVEX", "PCM_24"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("MP3", None)],
)
def test_a_file_cut_short_is_read_with_a_warning(container: str, subtype: str | None) -> None:
    data = encode(band(4), format=container, subtype=subtype)
    recording = from_file(data[: len(data) * 2 // 3])
    n = recording.audio.shape[1]
    assert 2.5 * 44_100 < n < 3.2 * 44_100
    assert np.array_equal(recording.audio[:, : n - 2000], samples_of(data)[:, : n - 2000])
    (warning,) = recording.warnings
    assert warning.startswith("cut short: ")


def test_damage_within_a_flac_file_is_refused_since_the_rest_cannot_be_read() -> None:
    data = bytearray(encode(band(4), format="FLAC", subtype="PCM_16"))
    data[len(data) // 2] ^= 255
    assert "got a file that is damaged or cut short (" in refusal(bytes(data))


def test_an_ogg_file_cut_short_is_read_with_a_warning() -> None:
    data = encode(band(6), format="OGG", subtype="VORBIS")
    recording = from_file(data[: len(data) * 2 // 3])
    assert 2.0 < recording.duration_s < 5.0
    assert recording.warnings == ("no end: the OGG stream lacks its last page, it may be cut short",)


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
