"""What a caller can get wrong with recordings and references, through gRPC: refused with field, limit and value."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest

from heartvoice.client import Client
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.errors import InvalidRequestError
from heartvoice.server.server import EmbeddedServer
from tests.fakes.networks import text
from tests.support import music
from tests.support.hostile.case import Watch
from tests.support.raw import Raw
from tests.support.speech import say

WORDS = "The lake lay still that morning, and nobody had yet thought of the boats, the nets, or the weather."
RECORDING = music.encode(music.song(2.0)[0], STEM_RATE_HZ, "FLAC", "PCM_16")


def speech(seconds: float, rate_hz: int = 16_000) -> np.ndarray:
    return np.resize(say(WORDS, rate_hz=rate_hz), round(seconds * rate_hz)).astype(np.float32)


def one(data: bytes) -> np.ndarray:
    return np.array([data], object)


def lying_wav(claimed_frames: int) -> bytes:
    """A WAV whose header promises other samples than it has."""
    data = music.encode(speech(5.0), 16_000, "WAV", "PCM_16")
    at = data.index(b"data") + 4
    size = min(claimed_frames * 2, 2**32 - 1)
    return (
        data[:4] + struct.pack("<I", min(size + 36, 2**32 - 1)) + data[8:at] + struct.pack("<I", size) + data[at + 4 :]
    )


def wav_of(n_channels: int, audio: np.ndarray | None = None) -> bytes:
    one_channel = speech(5.0) if audio is None else audio
    return music.encode(np.stack([one_channel] * n_channels), 16_000, "WAV", "PCM_16")


def flac_bomb() -> bytes:
    """Twenty minutes of digital silence in a few kilobytes."""
    return music.encode(np.zeros(20 * 60 * 48_000, np.float32), 48_000, "FLAC", "PCM_16")


def nan_at(audio: np.ndarray, value: float = np.nan) -> np.ndarray:
    broken = audio.copy()
    broken[len(broken) // 2] = value
    return broken


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"voice": one(music.encode(speech(2.5), 16_000, "WAV", "PCM_16"))}, r"voice: expected 3 to 600 s, got 2\.5"),
        ({"voice": one(music.encode(np.zeros(80_000, np.float32), 16_000, "WAV", "PCM_16"))}, "voice: .*silen"),
        ({"voice": one(music.encode(nan_at(speech(5.0)), 16_000, "WAV", "FLOAT"))}, "voice: .*(finite|NaN)"),
        ({"voice": one(wav_of(9))}, "voice: expected .*, got 9 channels, expected 1 to 8; convert it"),
        ({"voice": one(b"%PDF-1.4 not a recording at all" * 40)}, "voice: "),
        ({"voice": one(b"")}, "voice: "),
        ({"voice": one(RECORDING[:200])}, "voice: "),
        ({"voice": one(flac_bomb())}, "voice: expected at most 600 s, got 1200"),
        ({"voice_audio": nan_at(speech(5.0), np.inf)[None], "voice_sample_rate": np.array([16_000])}, "voice_audio: "),
        ({"voice_audio": speech(5.0)[None]}, "voice_sample_rate: "),
        ({"voice_audio": speech(5.0)[None], "voice_sample_rate": np.array([2**40])}, "voice_sample_rate: "),
        ({"voice_audio": speech(5.0)[None], "voice_sample_rate": np.array([-1])}, "voice_sample_rate: "),
        ({}, "voice: missing"),
    ],
    ids=[
        "short", "silent", "nan", "9 channels", "pdf", "empty", "cut off", "flac bomb", "inf",
        "no rate", "huge rate", "negative rate", "none",
    ],
)  # fmt: skip
def test_cover_refuses_the_reference(server: EmbeddedServer, reference: dict[str, np.ndarray], message: str) -> None:
    inputs = {"file": one(RECORDING), "voice_consent": text("me, here"), **reference}
    with Raw(server.url) as raw:
        responses = list(raw.stream("cover", inputs))
    assert len(responses) == 1
    error = responses[0]["error"]
    assert error.startswith("INVALID_ARG: ")
    assert re.search(message, error), error
    assert "/" not in error, "no path of the server may leak"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voice_consent": text("")}, "voice_consent: "),
        ({"voice_consent": text("x" * 501)}, "voice_consent: expected .*500.*501"),
        ({"voice_consent": text("me\x00")}, "voice_consent: "),
        ({"no_vocals": text("maybe")}, "no_vocals: expected one of error, passthrough, convert, got 'maybe'"),
        ({"vocal_gain_db": np.array([99.0], np.float32)}, "vocal_gain_db: expected -24 to 12 dB, got 99"),
        ({"file": one(b"RIFF nothing")}, "file: "),
        ({"file": one(flac_bomb())}, "file: expected .*600 s, got 1200"),
        ({"audio": np.zeros((2, 48_000), np.float32), "sample_rate": np.array([48_000])}, "file.*audio|audio.*file"),
    ],
    ids=["no consent", "long consent", "control", "no_vocals", "gain", "garbage", "twenty minutes", "both"],
)
def test_cover_refuses_everything_else(server: EmbeddedServer, change: dict[str, np.ndarray], message: str) -> None:
    reference = one(music.encode(speech(5.0), 16_000, "WAV", "PCM_16"))
    inputs = {"file": one(RECORDING), "voice": reference, "voice_consent": text("me, here")} | change
    with Raw(server.url) as raw:
        responses = list(raw.stream("cover", inputs, timeout=60))
    assert len(responses) == 1
    error = responses[0]["error"]
    assert error.startswith("INVALID_ARG: ")
    assert re.search(message, error), error


@pytest.mark.parametrize(
    ("claimed", "warning"),
    [
        (16_000 * 4, "length: the header says 4 s, the file holds 5 s, and all of it is read"),
        (16_000 * 6, "cut short: 16000 samples (1 s) of the 6 s that its header promises are not in the file"),
        (2**31 - 1, None),
    ],
    ids=["less than there is", "more", "unknown, from a pipe"],
)
def test_headers_that_lie_are_read_to_the_end(client: Client, claimed: int, warning: str | None) -> None:
    warnings = client.embed(lying_wav(claimed)).warnings
    told = [line for line in warnings if re.search("length: |cut short: ", line)]
    assert told == ([] if warning is None else [warning])


@pytest.mark.parametrize(
    ("reference", "warnings"),
    [
        (
            music.encode(speech(61.0, 8_000), 8_000, "FLAC", "PCM_16"),
            ("8000|band|kHz", "voice: long: 61.0 s, of which the 60 s with"),
        ),
        (
            wav_of(6, np.clip(speech(6.0) * 30, -1, 1)),
            ("clip", r"voice: multichannel: 6 channels \(FL FR FC LFE BL BR\) were mixed down to stereo"),
        ),
    ],
    ids=["a minute by telephone", "clipped in 5.1"],
)
def test_poor_references_are_taken_with_a_warning(client: Client, reference: bytes, warnings: tuple[str, ...]) -> None:
    report = client.cover(RECORDING, reference, consent="me, here").report.raw
    for warning in warnings:
        assert any(re.search(warning, line) for line in report["warnings"]), report["warnings"]


def test_demucs_and_speaker_encoder_refuse_garbage(server: EmbeddedServer) -> None:
    audio = {"audio": np.zeros((2, 44_100), np.float32), "sample_rate": np.array([44_100])}
    with Raw(server.url) as raw:
        for inputs, message in (
            ({"file": one(b"garbage" * 100)}, "file: "),
            (audio | {"sources": text("vocals,kazoo")}, "sources: expected some of .*, got kazoo"),
            (audio | {"context": np.array([44_100])}, "context: expected 0 to 44099 samples, got 44100"),
            (audio | {"context": np.array([-1])}, "context: "),
            (audio | {"carry": np.zeros((4, 2, 7), np.float32)}, "carry: "),
            (audio | {"carry": np.full((4, 2, 85_995), np.nan, np.float32)}, "carry: .*finite"),
            ({"audio": audio["audio"], "sample_rate": np.array([48_000]), "more": np.array([True])}, "sample_rate: "),
            ({}, "file"),
        ):
            responses = list(raw.stream("demucs", inputs))
            assert list(responses[0]) == ["error"], inputs
            assert re.search(message, responses[0]["error"]), responses[0]["error"]
        import grpc

        for inputs in ({"file": one(b"garbage" * 100)}, {"audio": np.zeros((1, 100), np.float32)}):
            with pytest.raises(grpc.RpcError) as caught:
                raw.infer("speaker_encoder", inputs)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_twenty_minutes_are_refused_without_decoding_them(client: Client, server: EmbeddedServer) -> None:
    """The limit is found in the header: no more memory than for a short file."""
    with Watch(server).over(100.0), pytest.raises(InvalidRequestError, match=r"600 s, got 1200"):
        client.separate(flac_bomb())
