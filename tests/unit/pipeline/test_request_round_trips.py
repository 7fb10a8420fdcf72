"""Every request survives its tensors: `from_inputs(to_inputs(request))` is the request, and fits the contract.

Numbers are compared as FP32 has them: a default such as 0.7 is rounded on its way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from heartvoice.arrays import Array
from heartvoice.config.presets import PRESETS, with_separator
from heartvoice.contracts.constants import (
    AUTO_PITCH_MODES,
    NO_VOCALS_MODES,
    REFERENCE_CHECK_MODES,
    STEM_RATE_HZ,
    UNKNOWN_WORDS_MODES,
)
from heartvoice.contracts.field_checks import check_inputs
from heartvoice.contracts.models import COVER, DEMUCS, HEARTCODEC, HEARTMULA, SONG, SVC
from heartvoice.contracts.settings import LM_SETTINGS, SEED, SVC_SETTINGS, VOICE_SETTINGS
from heartvoice.contracts.types import NUMPY_DTYPE, Setting
from heartvoice.pipeline.cover_request import CoverRequest
from heartvoice.pipeline.song_request import SongRequest
from heartvoice.pipeline.voice_request import VoiceRequest
from heartvoice.stages.codec import CodecRequest
from heartvoice.stages.lm.request import LmRequest
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.svc.request import ConversionRequest
from tests.fakes.networks import text
from tests.support import music

Inputs = dict[str, Array]

PRESET = with_separator(PRESETS["tiny"], "htdemucs")
SEPARATOR = PRESET.separator
FEW = settings(max_examples=15, deadline=None)


def same(first: Any, second: Any) -> bool:
    """Equality that looks into dataclasses, dicts and arrays."""
    if type(first) is not type(second):
        return False
    if is_dataclass(first):
        return all(same(getattr(first, field.name), getattr(second, field.name)) for field in fields(first))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, float):
        return bool(np.float32(first) == np.float32(second))
    return bool(first == second)


# ----------------------------------------------------------------------------------------------------------- strategies


def _value(setting: Setting) -> st.SearchStrategy[Any]:
    if setting.dtype == "BOOL":
        return st.booleans()
    if setting.minimum is None or setting.maximum is None:
        raise AssertionError(f"{setting.name} has no range")
    if setting.dtype == "FP32":
        return st.floats(setting.minimum, setting.maximum, width=32)
    step = setting.multiple or 1
    return st.integers(int(setting.minimum) // step, int(setting.maximum) // step).map(lambda value: value * step)


def chosen(wanted: Iterable[Setting]) -> st.SearchStrategy[Inputs]:
    """Values of some of the settings, as tensors."""

    def tensor(setting: Setting) -> st.SearchStrategy[Array]:
        return _value(setting).map(lambda value: np.array([value], NUMPY_DTYPE[setting.dtype]))

    return st.fixed_dictionaries({}, optional={setting.name: tensor(setting) for setting in wanted})


def one_of(name: str, modes: Iterable[str]) -> st.SearchStrategy[Inputs]:
    """One of the modes, or the default."""
    return st.fixed_dictionaries({}, optional={name: st.sampled_from([text(mode) for mode in modes])})


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, shape).astype(np.float32)


WORDS = st.text("ab äß嗨[],.\n\t", min_size=1, max_size=30).filter(lambda words: bool(words.strip())).map(text)


@st.composite
def lm_inputs(draw: st.DrawFn) -> Inputs:
    inputs = draw(chosen(LM_SETTINGS)) | draw(one_of("unknown_words", UNKNOWN_WORDS_MODES)) | {"lyrics": draw(WORDS)}
    if draw(st.booleans()):
        inputs["tags"] = draw(WORDS)
    if draw(st.booleans()):
        inputs["style"] = noise((PRESET.lm.muq_dim,))
    shortest = inputs.get("min_duration_s", np.zeros(1))
    assume(shortest[0] <= inputs.get("duration_s", np.array([30.0]))[0])
    return inputs


@lru_cache(maxsize=8)
def reference(rate_hz: int, channels: int) -> np.ndarray:
    return np.repeat(music.singer(3.5, rate_hz, seed=channels)[None], channels, axis=0)


@st.composite
def voice_inputs(draw: st.DrawFn) -> Inputs:
    rate_hz, channels = draw(st.sampled_from([(16_000, 1), (STEM_RATE_HZ, 1), (48_000, 2)]))
    return {
        **draw(chosen((*VOICE_SETTINGS, SEED))),
        **draw(one_of("auto_pitch", AUTO_PITCH_MODES)),
        **draw(one_of("no_vocals", NO_VOCALS_MODES)),
        **draw(one_of("reference_check", REFERENCE_CHECK_MODES)),
        "voice_audio": reference(rate_hz, channels),
        "voice_sample_rate": np.array([rate_hz]),
        "voice_consent": draw(st.sampled_from(["me", " Ada Ö., by mail, 2026 "]).map(text)),
    }


# ----------------------------------------------------------------------------------------------------------- properties


@FEW
@given(inputs=lm_inputs())
def test_a_request_to_the_language_model_survives(inputs: Inputs) -> None:
    request = LmRequest.from_inputs(inputs, PRESET)
    check_inputs(HEARTMULA, request.to_inputs())
    assert same(LmRequest.from_inputs(request.to_inputs(), PRESET), request)


@FEW
@given(
    values=chosen(HEARTCODEC.settings),
    n_frames=st.integers(1, 12),
    n_context=st.integers(0, 30),
    n_history=st.integers(0, 44),
    index=st.integers(0, 99),
)
def test_a_request_to_the_codec_survives(
    values: Inputs, n_frames: int, n_context: int, n_history: int, index: int
) -> None:
    n_latents = PRESET.codec.out_channels
    inputs: Inputs = values | {
        "codes": np.random.default_rng(n_frames).integers(0, PRESET.codec.codebook_size, (8, n_frames), np.int32),
        "context_latents": noise((min(n_context, 2 * n_frames - 1), n_latents)),
        "history_latents": noise((n_history, n_latents)),
        "window_index": np.array([index]),
    }
    request = CodecRequest.from_inputs(inputs, PRESET.codec)
    check_inputs(HEARTCODEC, request.to_inputs())
    assert same(CodecRequest.from_inputs(request.to_inputs(), PRESET.codec), request)


@FEW
@given(
    rate_hz=st.sampled_from([STEM_RATE_HZ, 48_000]),
    channels=st.sampled_from([1, 2]),
    sources=st.sets(st.sampled_from(SEPARATOR.sources)),
    context=st.integers(0, 100),
    carried=st.booleans(),
    more=st.booleans(),
)
def test_a_request_to_the_separator_survives(
    rate_hz: int, channels: int, sources: set[str], context: int, carried: bool, more: bool
) -> None:
    whole = rate_hz != STEM_RATE_HZ
    n_sources = len(sources or SEPARATOR.sources)
    inputs: Inputs = {
        "audio": noise((channels, 500)),
        "sample_rate": np.array([rate_hz]),
        "sources": text(", ".join(sorted(sources))),
        "context": np.array([0 if whole else context]),
        "more": np.array([more and not whole]),
    }
    if carried and not whole:
        inputs["carry"] = noise((n_sources, 2, 40))
    request = SeparationRequest.from_inputs(inputs, SEPARATOR)
    check_inputs(DEMUCS, request.to_inputs())
    assert same(SeparationRequest.from_inputs(request.to_inputs(), SEPARATOR), request)


@FEW
@given(
    values=chosen((*SVC_SETTINGS, SEED)),
    pitch=one_of("auto_pitch", AUTO_PITCH_MODES),
    live=st.booleans(),
    named=st.booleans(),
    begun=st.booleans(),
    more=st.booleans(),
)
def test_a_request_to_the_converter_survives(
    values: Inputs, pitch: Inputs, live: bool, named: bool, begun: bool, more: bool
) -> None:
    inputs: Inputs = values | pitch | {"vocals": noise((600,)), "voice_consent": text("me"), "live": np.array([live])}
    if named:
        inputs["voice_key"] = text("ab" * 32)
    else:
        inputs |= {"voice_audio": reference(STEM_RATE_HZ, 1), "voice_sample_rate": np.array([STEM_RATE_HZ])}
    if live:
        inputs["more"] = np.array([more])
    if live and begun:
        inputs["state"] = noise((30,))
    request = ConversionRequest.from_inputs(inputs)
    check_inputs(SVC, request.to_inputs())
    assert same(ConversionRequest.from_inputs(request.to_inputs()), request)
    by_key = ConversionRequest.from_inputs(request.to_inputs(named=True))
    assert (by_key.voice, by_key.voice_key) == (None, request.voice_key)


@FEW
@given(inputs=voice_inputs())
def test_a_voice_survives(inputs: Inputs) -> None:
    request = VoiceRequest.from_inputs(inputs)
    check_inputs(COVER, request.to_inputs())
    assert same(VoiceRequest.from_inputs(request.to_inputs()), request)


@FEW
@given(
    words=lm_inputs(),
    values=chosen(setting for setting in SONG.settings if setting not in (*LM_SETTINGS, *VOICE_SETTINGS)),
    voice=st.none() | voice_inputs(),
    n_codes=st.integers(0, 9),
)
def test_a_song_survives(words: Inputs, values: Inputs, voice: Inputs | None, n_codes: int) -> None:
    inputs = values | (voice or {}) | words
    if n_codes:
        inputs["codes"] = np.random.default_rng(n_codes).integers(0, 256, (8, n_codes), np.int32)
    request = SongRequest.from_inputs(inputs, PRESET)
    assert (request.lm is None) == bool(n_codes)
    check_inputs(SONG, request.to_inputs())
    assert same(SongRequest.from_inputs(request.to_inputs(), PRESET), request)


@FEW
@given(voice=voice_inputs(), stems=st.booleans(), audio=st.sampled_from([(16_000, 1), (STEM_RATE_HZ, 2), (48_000, 2)]))
def test_a_cover_survives(voice: Inputs, stems: bool, audio: tuple[int, int]) -> None:
    rate_hz, channels = audio
    recording: Inputs = {"audio": noise((channels, 2 * rate_hz)), "sample_rate": np.array([rate_hz])}
    request = CoverRequest.from_inputs(voice | recording | {"stems": np.array([stems])})
    check_inputs(COVER, request.to_inputs())
    again = CoverRequest.from_inputs(request.to_inputs())
    assert same(again, request)
    assert np.array_equal(again.recording.audio, request.recording.audio)
