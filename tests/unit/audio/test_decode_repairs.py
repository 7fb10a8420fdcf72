from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartvoice.audio import ogg_pages
from heartvoice.errors import InvalidRequestError
from tests.support.decoding import CONVERT, FORMATS, RATE_HZ, from_file, peak_memory, refusal, samples_of
from tests.support.music import band, encode


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
    assert recording.warnings[0] == NO_END


NO_END = "no end: the OGG stream lacks its last page, it may be cut short"


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_an_ogg_file_that_ends_within_its_last_page_keeps_every_whole_packet(subtype: str, part: float) -> None:
    data = encode(0.01 * band(4, RATE_HZ), RATE_HZ, "OGG", subtype)
    last, n = data.rindex(b"OggS"), 4 * RATE_HZ
    whole = samples_of(data)
    without = from_file(data[:last]).audio.shape[1]
    recording = from_file(data[: last + round(part * (len(data) - last))])
    held = recording.audio.shape[1]
    assert np.array_equal(recording.audio, whole[:, :held])
    missing = n - held
    if not part:
        assert held == without
        assert recording.warnings == (NO_END,)
    else:
        assert abs(held - without - part * (n - without)) < 0.06 * RATE_HZ, "a packet has 20 or 43 ms"
        assert recording.warnings[0] == NO_END
        assert recording.warnings[1].startswith(f"cut short: {missing} samples (")


@pytest.mark.parametrize(
    ("container", "subtype", "size"),
    [("OGG", "VORBIS", -1), ("FLAC", "PCM_16", 86), ("WAV", "PCM_16", 44), ("AIFF", "PCM_16", 54)],
)
def test_a_file_cut_before_its_first_sample_is_called_cut_and_not_empty(
    container: str, subtype: str, size: int
) -> None:
    data = encode(np.zeros(4 * RATE_HZ, np.float32), RATE_HZ, container, subtype)
    said = refusal(data[: data.rindex(b"OggS") if size < 0 else size])
    assert "expected sound, got a file with no samples (" in said
    assert "cut short" in said


# ----------------------------------------------------------------------------------------------------------------- fuzz


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from([b"", b"RIFF\x00\x00\x01\x00WAVE", b"fLaC", b"OggS", b"ID3\x03", b"\xff\xfb"]),
    st.binary(max_size=400),
)
def test_garbage_after_a_good_beginning_is_refused(beginning: bytes, rest: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"^file: "):
        from_file(beginning + rest)
