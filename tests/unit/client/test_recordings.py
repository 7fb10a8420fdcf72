"""Recordings as arguments: what goes out, and what is refused before."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from heartvoice.audio.decode import decode
from heartvoice.audio.encode import write_audio
from heartvoice.client import large_files, recordings
from heartvoice.client.recordings import VOICE_NAMES, Recording, as_recording
from heartvoice.contracts.constants import MAX_LOCAL_FILE_BYTES
from heartvoice.contracts.field_checks import COVER_LIMITS_S, VOICE_LIMITS_S
from heartvoice.contracts.provenance import provenance
from heartvoice.errors import InvalidRequestError
from tests.support import music


def refusal(value: Any, **options: Any) -> str:
    """The message that `as_recording` refuses with."""
    with pytest.raises(InvalidRequestError) as caught:
        as_recording(value, **options)
    return str(caught.value)


def silence(*shape: int) -> Any:
    """float32 zeros."""
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize("kind", [str, Path])
def test_files_are_sent_as_they_are(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "song.xyz").write_bytes(b"whatever it is")
    (value,) = as_recording(kind(tmp_path / "song.xyz")).inputs().values()
    assert value.dtype == object
    assert value.tolist() == [b"whatever it is"]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_a_files_contents(kind: Any) -> None:
    inputs = as_recording(kind(b"RIFF")).inputs(VOICE_NAMES)
    assert {name: value.tolist() for name, value in inputs.items()} == {"voice": [b"RIFF"]}


@pytest.mark.parametrize(
    ("samples", "shape"),
    [
        (silence(48_000), (1, 48_000)),
        (silence(2, 48_000), (2, 48_000)),
        (silence(48_000, 2).T, (2, 48_000)),
        (np.zeros(48_000), (1, 48_000)),
        (np.zeros(48_000, np.float16), (1, 48_000)),
        ([0.0] * 9000, (1, 9000)),
    ],
)
def test_samples_go_out_as_float32_with_their_rate(samples: Any, shape: tuple[int, int]) -> None:
    inputs = as_recording((samples, np.int64(44_100))).inputs()
    assert set(inputs) == {"audio", "sample_rate"}
    assert inputs["audio"].dtype == np.float32
    assert inputs["audio"].shape == shape
    assert inputs["audio"].flags.c_contiguous
    assert inputs["sample_rate"].tolist() == [44_100]


def test_the_callers_array_may_be_used_again_at_once() -> None:
    samples = silence(2, 9000)
    recording = as_recording((samples, 48_000))
    samples[:] = 1
    assert recording.audio is not None
    assert not recording.audio.any()


def test_a_checked_recording_is_taken_as_it_is() -> None:
    recording = as_recording((silence(48_000), 48_000))
    assert as_recording(recording) is recording
    assert refusal(recording, field="voice", limits_s=VOICE_LIMITS_S) == "voice: expected 3 to 600 s, got 1 s"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("missing.wav", "recording: cannot read 'missing.wav': No such file or directory"),
        (".", "recording: expected a file, got '.', which is a folder"),
        ("/dev/zero", "recording: expected a file, got '/dev/zero', which is something else"),
        ("a\0b", "recording: cannot read 'a\\x00b': embedded null byte"),
        ("empty", "recording empty: expected an encoded recording, got an empty file"),
        ("big", f"recording big: expected at most {MAX_LOCAL_FILE_BYTES} bytes, got {MAX_LOCAL_FILE_BYTES + 1}"),
        (b"", "recording: expected an encoded recording, got an empty file"),
        (None, "recording: expected a path, bytes or (samples, sample_rate_hz), got NoneType"),
        (silence(5), "recording: expected a path, bytes or (samples, sample_rate_hz), got ndarray"),
        ((silence(5),), "recording: expected a path, bytes or (samples, sample_rate_hz), got a tuple of 1"),
        ((silence(9000), 44_100.0), "recording: expected an integer sample_rate_hz, got 44100.0"),
        ((silence(9000), True), "recording: expected an integer sample_rate_hz, got True"),
        ((silence(9000), 7999), "recording: expected a sample rate of 8000 to 192000 Hz, got 7999 Hz"),
        ((silence(9000), 192_001), "recording: expected a sample rate of 8000 to 192000 Hz, got 192001 Hz"),
        ((np.zeros(5, np.int16), 8000), "recording: expected float samples with full scale 1, got int16"),
        ((["a"], 8000), "recording: expected float samples with full scale 1, got <U1"),
        (([[0.0], [0.0, 1.0]], 8000), "recording: expected samples [N] or [channel, N], got "),
        ((silence(48_000, 2), 8000), "recording: expected [channel, sample], got [48000, 2]: transpose it"),
        ((silence(3, 5), 8000), "recording: expected samples [N] or [channel, N] of 1 to 2 channels, got [3, 5]"),
        ((silence(1, 2, 5), 8000), "recording: expected samples [N] or [channel, N] of 1 to 2 channels, got [1, 2"),
        ((np.float32(1), 8000), "recording: expected samples [N] or [channel, N] of 1 to 2 channels, got []"),
        ((silence(0), 8000), "recording: expected samples [N] or [channel, N] of 1 to 2 channels, got [0]"),
        ((silence(2, 0), 8000), "recording: expected samples [N] or [channel, N] of 1 to 2 channels, got [2, 0]"),
        ((np.array([0, np.nan]), 8000), "recording: expected finite samples, got NaN or Inf"),
        ((np.array([1e300]), 8000), "recording: expected finite samples, got NaN or Inf"),
        ((silence(600 * 8000 + 1), 8000), "recording: expected 0 to 600 s, got 600.0001 s"),
    ],
)
def test_what_is_no_recording_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").touch()
    with Path("big").open("wb") as file:
        file.truncate(MAX_LOCAL_FILE_BYTES + 1)
    assert refusal(value).startswith(text)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"x")
    path.chmod(0)
    assert refusal(path).endswith("secret': Permission denied")


@pytest.mark.parametrize(("n_samples", "seconds"), [(7999, "0.999875"), (4000, "0.5")])
def test_durations_are_checked_to_the_sample(n_samples: int, seconds: str) -> None:
    as_recording((silence(8000), 8000), limits_s=COVER_LIMITS_S)
    message = refusal((silence(n_samples), 8000), limits_s=COVER_LIMITS_S)
    assert message == f"recording: expected 1 to 600 s, got {seconds} s"


SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 80_000)).astype(np.float32)


def large(monkeypatch: pytest.MonkeyPatch, data: bytes, most: int) -> Recording:
    """A file above the limit of `most` bytes, as it is sent."""
    for module in (recordings, large_files):
        monkeypatch.setattr(module, "MAX_FILE_BYTES", most)
    return as_recording(data, field="--voice")


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_file_that_is_too_large_is_sent_as_flac_with_the_same_samples(
    subtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft = np.round(SOUND * 2**11) / 2**15
    soft[:, 0] = (-1.0, 1.0 - 2.0**-15)
    data = music.encode(soft.astype(np.float32), 8000, "WAV", subtype)
    sent = large(monkeypatch, data, len(data) - 1)
    assert sent.file is not None
    assert sent.file.startswith(b"fLaC")
    expected, found = (decode(each, field="file", max_s=60.0).audio for each in (data, sent.file))
    assert np.array_equal(found, expected)
    assert (sent.warnings, sent.name) == ((), "--voice")


@pytest.mark.parametrize("loudest", [0.5, 1.5])
def test_a_file_that_flac_cannot_carry_is_sent_as_samples(loudest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = SOUND * np.float32(2 * loudest)
    data = music.encode(sound, 8000, "WAV", "FLOAT")
    sent = large(monkeypatch, data, 300_000 if loudest < 1 else len(data) - 1)
    assert (sent.file, sent.sample_rate_hz) == (None, 8000)
    assert sent.audio is not None
    assert np.array_equal(sent.audio, sound)


def test_a_large_file_keeps_its_origin_and_what_is_wrong_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded("AI-generated")
    at = data.index(b"data") + 4
    sent = large(monkeypatch, data[:at] + (1602).to_bytes(4, "little") + data[at + 4 :], 1000)
    assert sent.origin == "AI-generated"
    assert sent.warnings[0].startswith("cut short: 1 samples (0.000125 s) of the 0.100125 s")


def test_a_large_file_that_is_too_long_is_refused_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequestError, match="--voice: expected at most 600 s, got 610 s"):
        large(monkeypatch, music.encode(np.zeros(8000 * 610, np.float32), 8000, "WAV", "PCM_U8"), 1000)


def encoded(comment: str, file_format: str = "WAV") -> bytes:
    """A short file with a comment."""
    data = io.BytesIO()
    with soundfile.SoundFile(data, "w", 8000, 1, format=file_format) as file:
        file.comment = comment
        file.write(np.zeros(800))
    return data.getvalue()


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_the_origin_of_an_ai_generated_file_is_known(tmp_path: Path, suffix: str) -> None:
    tag = provenance(3, random_weights=False)
    path = write_audio(tmp_path / f"song.{suffix}", np.zeros((2, 48_000)), tag).path
    assert as_recording(path).origin == tag


@pytest.mark.parametrize(
    "recording",
    [
        Recording(file=encoded("recorded in 1971")),
        Recording(file=b"no audio at all"),
        Recording(file=encoded("AI-generated")[:30]),
        Recording(audio=silence(1, 5), sample_rate_hz=8000),
    ],
)
def test_other_recordings_have_no_origin_to_keep(recording: Recording) -> None:
    assert recording.origin == ""


def test_looking_for_the_origin_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """mpg123 complains about garbage between frames, and about headers that are a little wrong."""
    data = encoded("AI-generated", "MP3")
    assert Recording(file=data + data).origin == "AI-generated"
    assert Recording(file=data[300:] + bytes(3000) + data).origin == ""
    assert capfd.readouterr() == ("", "")


def test_an_endless_comment_is_cut() -> None:
    origin = Recording(file=encoded("AI-generated;\n" + "x" * 5000, "FLAC")).origin
    assert len(origin) == 300
    assert "\n" not in origin
