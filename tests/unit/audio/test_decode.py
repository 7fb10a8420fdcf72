from __future__ import annotations

import io
from typing import Literal

import numpy as np
import pytest
import soundfile

from heartvoice.audio import decode, pcm_files
from heartvoice.contracts.constants import (
    MAX_FILE_BYTES,
    MAX_INPUT_RATE_HZ,
    MIN_INPUT_RATE_HZ,
)
from tests.support.decoding import CONVERT, FORMATS, RATE_HZ, from_file, refusal, samples_of
from tests.support.music import band, encode


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


def test_clipped_channels_are_told_though_their_mix_is_whole() -> None:
    clipped = encode(np.clip(100.0 * tones(6), -1, 1), 48_000, "WAV", "PCM_16")
    assert "of the samples are at full scale" in " ".join(from_file(clipped).warnings)
    louder = encode(100.0 * tones(6), 48_000, "WAV", "FLOAT")
    assert "clipping" not in " ".join(from_file(louder).warnings), "floats go on above full scale"


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
