"""Hostile tensor values: NaN, Inf, huge numbers, denormals, and forged states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np

from tests.support.hostile.case import RIGHT, Case, Inputs, case, f32, i64, one

HUGE, TINY = 3e38, 1e-45
LATENTS = 16
"""Latent width of the tiny codec."""


def codec(name: str, error: str, **change: np.ndarray) -> Case:
    inputs = {"codes": np.zeros((8, 4), np.int32), "codec_steps": i64(1)} | change
    return case(f"codec: {name}", "heartcodec", inputs, error)


def latents(n: int, value: float = 0.0, width: int = LATENTS) -> np.ndarray:
    return np.full((n, width), value, np.float32)


def song(name: str, error: str, **change: np.ndarray) -> Case:
    return case(f"song: {name}", "song", {"lyrics": one(b"la"), "duration_s": f32(1.0)} | change, error)


CODECS = [
    codec("a code of -1", r"codes: expected values in \[0, ", codes=np.full((8, 4), -1, np.int32)),
    codec("a code of 2^31-1", r"codes: expected values in \[0, ", codes=np.full((8, 4), 2**31 - 1, np.int32)),
    codec("a code of -2^31", r"codes: expected values in \[0, ", codes=np.full((8, 4), -(2**31), np.int32)),
    codec(
        "more frames than a window",
        r"codes: expected INT32 .* of 1 to 372\], got INT32 \[8, 373\]",
        codes=np.zeros((8, 373), np.int32),
    ),
    codec("a hundred thousand frames", r"codes: expected INT32 .* of 1 to 372\]", codes=np.zeros((8, 10**5), np.int32)),
    codec("a context of NaN", "context_latents: expected finite", context_latents=latents(2, np.nan)),
    codec("a context of Inf", "context_latents: expected finite", context_latents=latents(2, np.inf)),
    codec("a context of giants", "context_latents: expected", context_latents=latents(2, HUGE)),
    codec("a context of denormals", RIGHT, context_latents=latents(2, TINY)),
    codec("a context as long as the window", "context_latents: expected FP32", context_latents=latents(8)),
    codec("a context too wide", "context_latents: expected FP32", context_latents=latents(2, width=LATENTS + 1)),
    codec("a history of giants", "history_latents: expected", history_latents=latents(44, -HUGE)),
    codec("a history too long", "history_latents: expected FP32", history_latents=latents(45)),
    codec("window -1", "window_index: expected at least 0, got -1", window_index=i64(-1)),
    codec("window 2^63-1", RIGHT, window_index=i64(2**63 - 1)),
    song("a style of NaN", "style: expected finite", style=np.full(32, np.nan, np.float32)),
    song("a style of giants", "style: expected", style=np.full(32, HUGE, np.float32)),
    song("a style of denormals", RIGHT, style=np.full(32, TINY, np.float32)),
    song("a style too wide", r"style: expected FP32 \[style of 1 to 512\], got", style=np.zeros(10**6, np.float32)),
    song("codes of -2^31", "codes: expected values", codes=np.full((8, 1), -(2**31), np.int32)),
    song("codes of eleven hours", r"codes: expected INT32 .* of 1 to 3001\]", codes=np.zeros((8, 500_000), np.int32)),
]


# ------------------------------------------------------------------------------------------------------------ the voice


def voice(seconds: float = 3.5, rate_hz: int = 16_000) -> np.ndarray:
    """Make a valid voice reference: float32 [1, N]."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 8)) * (0.2 + 0.1 * np.sin(2 * np.pi * 3 * t))
    return np.asarray(wave, np.float32)[None]


def converted(change: Inputs, *, keyed: bool = False) -> Inputs:
    """Make a very short conversion with few steps."""
    reference: Inputs = {"voice_audio": voice(), "voice_sample_rate": i64(16_000)}
    vocals = {"vocals": voice(0.3, 44_100)[0], "voice_consent": one(b"me"), "svc_steps": i64(1)}
    return {**vocals, **({} if keyed else reference), **change}


def svc(name: str, error: str, *, keyed: bool = False, **change: np.ndarray) -> Case:
    return case(f"svc: {name}", "svc", lambda: converted(change, keyed=keyed), error, memory_mib=400.0)


def forged(change: Callable[[np.ndarray], Any]) -> np.ndarray:
    """Make a state with valid version and checksum, and an unknown owner."""
    body = np.zeros(4 + 10, np.float32)
    change(body)
    digits = divmod(crc32(body.tobytes()), 2**16)
    return np.concatenate([np.array([1, *digits], np.float32), body])


VOICES = [
    svc("vocals of NaN", "vocals: expected finite", vocals=np.full(4410, np.nan, np.float32)),
    svc("vocals of giants", "vocals: expected", vocals=np.full(13_230, HUGE, np.float32)),
    svc("vocals of denormals", RIGHT, vocals=np.full(13_230, TINY, np.float32)),
    svc("no vocals", "vocals", vocals=np.zeros(0, np.float32)),
    svc("vocals of 511 samples", "vocals: expected 512 to", vocals=np.zeros(511, np.float32)),
    svc("a reference at 192 kHz that is too short", "voice_audio: expected 3 to 600 s", voice_sample_rate=i64(192_000)),
    svc("a reference at 0 Hz", "voice_sample_rate: expected", voice_sample_rate=i64(0)),
    svc("a reference at 2^63-1 Hz", "voice_sample_rate: expected", voice_sample_rate=i64(2**63 - 1)),
    svc("a reference of giants", "voice_audio: expected samples of about", voice_audio=voice() * np.float32(1e30)),
    svc("a reference of denormals", "voice_audio: .*silence", voice_audio=voice() * np.float32(1e-40)),
    svc("both a reference and a key", "voice: expected either", voice_key=one(b"0" * 64)),
    svc("neither", "voice: expected either", keyed=True),
    svc("a guessed key", "^NOT_FOUND: voice_key", keyed=True, voice_key=one(b"0" * 64)),
    svc("an empty key", "NOT_FOUND: voice_key|voice_key: ", keyed=True, voice_key=one(b"")),
    svc("a key by a path", "NOT_FOUND: voice_key|voice_key: ", keyed=True, voice_key=one(b"../../etc/passwd")),
    svc("a key of a megabyte", "voice_key", keyed=True, voice_key=one(b"k" * 10**6)),
    svc("a key of no UTF-8", "voice_key: expected UTF-8", keyed=True, voice_key=one(b"\xff")),
    svc("a key with an escape sequence", "voice_key", keyed=True, voice_key=one(b"\x1b[31m")),
    svc("a key without consent", "voice_consent: missing", keyed=True, voice_key=one(b"0"), voice_consent=one(b"")),
    svc("a state without live", "state: expected only with live", state=f32(*[0.0] * 20)),
    svc("more without live", "more: expected only with live", more=np.array([True])),
    *(
        svc(f"a state {name}", "state: ", live=np.array([True]), state=state)
        for name, state in (
            ("of nothing", f32(0.0)),
            ("of zeros", f32(*[0.0] * 20)),
            ("of NaN", np.full(100, np.nan, np.float32)),
            ("of giants", np.full(100, HUGE, np.float32)),
            ("of a million values", np.zeros(1_000_000, np.float32)),
            ("of another's", forged(lambda body: None)),
        )
    ),
]  # fmt: skip

TONE = voice(0.5, 44_100)


def demucs(name: str, error: str, **change: np.ndarray) -> Case:
    inputs = {"audio": TONE, "sample_rate": i64(44_100)} | change
    return case(f"demucs: {name}", "demucs", inputs, error, memory_mib=400.0)


def carry(value: float, n: int = 85_995, sources: int = 4) -> np.ndarray:
    return np.full((sources, 2, n), value, np.float32)


STEMS = [
    demucs("samples of NaN", "audio: expected finite", audio=np.full((2, 4410), np.nan, np.float32)),
    demucs("samples of giants", "audio: expected samples of about", audio=np.full((2, 4410), HUGE, np.float32)),
    demucs("samples of denormals", RIGHT, audio=np.full((2, 4410), TINY, np.float32)),
    demucs("integers for samples", "audio: expected samples of about", audio=np.full((1, 4410), 32767, np.float32)),
    demucs(
        "nine channels",
        r"audio: expected FP32 \[channel of 1 to 2, .*got FP32 \[9, 4410\]",
        audio=np.zeros((9, 4410), np.float32),
    ),
    demucs("no channel", "audio|shape|size", audio=np.zeros((0, 4410), np.float32)),
    demucs("no samples", "audio|shape|size", audio=np.zeros((2, 0), np.float32)),
    demucs("a rate of -2^63", "sample_rate: expected", sample_rate=i64(-(2**63))),
    demucs("both file and samples", "file: expected either", file=one(b"RIFF")),
    demucs("a carry of giants", "carry: expected", carry=carry(HUGE)),
    demucs("a carry of Inf", "carry: expected finite", carry=carry(np.inf)),
    demucs("a carry too long", "carry: expected", carry=carry(0.0, 1_000_000)),
    demucs("a carry of one source", "carry: expected 4 sources, got 1", carry=carry(0.0, sources=1)),
    demucs("a carry of a sample", "carry: expected", carry=carry(0.0, 1)),
    demucs("a context of 2^63-1", "context: expected", context=i64(2**63 - 1)),
    demucs("a context from nowhere", "carry: missing", context=i64(100)),
    demucs("more of too little", "more: expected", more=np.array([True])),
    demucs("a source twice", RIGHT, sources=one(b"vocals,vocals")),
    demucs("sources of commas", RIGHT, sources=one(b",,,")),
    demucs("sources with NUL", "sources: .*control characters", sources=one(b"vocals\0")),
]


def graph(name: str, model: str, error: str, inputs: Callable[[], Inputs], **more: Any) -> Case:
    return case(f"{model}: {name}", model, inputs, error, **more)


def regulator(index: int, pitch: int) -> Inputs:
    """Four frames of the tiny converter's content, and where they are taken from."""
    return {
        "content": np.zeros((1, 8, 64), np.float32),
        "content_index": i64(0, 1, 2, index),
        "f0_bins": np.array([[1, 1, 1, pitch]], np.int64),
    }


REFUSED = "shape|size|dims|batch|failed|expected|missing"
SPEAKER = (160, 40)


def speaker(name: str, shape: tuple[int, ...], error: str = REFUSED, value: float = 0.0, **more: Any) -> Case:
    return graph(name, "speaker_network", error, lambda: {"features": np.full(shape, value, np.float32)}, **more)


def vocoder(name: str, n_frames: int, error: str, value: float = 0.0, **more: Any) -> Case:
    return graph(name, "vocoder", error, lambda: {"mel": np.full((1, 16, n_frames), value, np.float32)}, **more)


def segment() -> Inputs:
    return {"mix": np.zeros((1, 2, 10), np.float32), "spectrum": np.zeros((1, 4, 16, 2), np.float32)}


GRAPHS = [
    speaker("NaN", (1, *SPEAKER), RIGHT, np.nan, or_nan=True),
    speaker("no frame", (1, 0, 40), or_right=True, or_nan=True),
    speaker("41 bands", (1, 160, 41)),
    speaker("70 rows", (70, *SPEAKER)),
    speaker("no batch", SPEAKER),
    graph("a short segment", "htdemucs", REFUSED, segment),
    graph("an index of 10^9", "svc_regulator", REFUSED, lambda: regulator(10**9, 1)),
    graph("an index of -2^63", "svc_regulator", REFUSED, lambda: regulator(-(2**63), 1)),
    graph("a pitch of 2^62", "svc_regulator", REFUSED, lambda: regulator(3, 2**62)),
    vocoder("giants", 16, RIGHT, HUGE, or_nan=True),
    vocoder("no mel", 0, REFUSED),
    graph("no latents", "heartcodec_decoder", REFUSED, dict),
]
