"""Whatever voice, modes and settings a job has, the wire carries them, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartvoice.client import wire
from heartvoice.client.inputs import job_inputs
from heartvoice.client.recordings import Recording
from heartvoice.client.requests import CoverRequest, JobRequest, SongRequest
from heartvoice.contracts.constants import AUTO_PITCH_MODES, MAX_CONSENT_CHARS, NO_VOCALS_MODES
from heartvoice.contracts.models import COVER, RENDER, SONG
from heartvoice.contracts.settings import COVER_SETTINGS, RENDER_SETTINGS, SONG_SETTINGS, VOICE_SETTINGS
from heartvoice.contracts.texts import canonical_line
from heartvoice.contracts.types import NUMPY_DTYPE, ModelSpec, Setting
from heartvoice.errors import InvalidRequestError

FEW = settings(max_examples=30, deadline=None)


def values(setting: Setting) -> st.SearchStrategy[Any]:
    """Every value that a setting may have."""
    if setting.dtype == "BOOL":
        return st.booleans()
    assert setting.minimum is not None
    assert setting.maximum is not None
    if setting.dtype == "INT64":
        step = setting.multiple or 1
        return st.integers(int(setting.minimum) // step, int(setting.maximum) // step).map(lambda n: n * step)
    return st.floats(setting.minimum, setting.maximum, width=32)


def settings_of(known: tuple[Setting, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these, with the song's least duration left out: it depends on another."""
    free = {setting.name: values(setting) for setting in known if setting.name != "min_duration_s"}
    return st.fixed_dictionaries({}, optional=free)


@st.composite
def voices(draw: st.DrawFn) -> Recording:
    """An encoded reference, or samples of 3 s or a little more."""
    if draw(st.booleans()):
        return Recording(file=draw(st.binary(min_size=1, max_size=50)))
    rate_hz = draw(st.integers(8_000, 16_000))
    shape = draw(st.integers(1, 2)), 3 * rate_hz + draw(st.integers(0, 9))
    return Recording(audio=np.full(shape, draw(st.floats(-1, 1, width=32)), np.float32), sample_rate_hz=rate_hz)


CONSENT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=MAX_CONSENT_CHARS).filter(
    lambda text: canonical_line(text.strip())  # a soft hyphen alone is no text
)
CONVERSION: dict[str, st.SearchStrategy[Any]] = {
    "voice": voices(),
    "consent": CONSENT,
    "no_vocals": st.none() | st.sampled_from(NO_VOCALS_MODES),
    "auto_pitch": st.none() | st.sampled_from(AUTO_PITCH_MODES),
}


def songs(known: tuple[Setting, ...]) -> st.SearchStrategy[SongRequest]:
    """Songs in a voice."""
    return st.builds(SongRequest, tags=st.just("pop"), settings=settings_of(known), **CONVERSION)


def covers(known: tuple[Setting, ...]) -> st.SearchStrategy[CoverRequest]:
    """Covers."""
    recording = st.just(Recording(file=b"a song"))
    return st.builds(CoverRequest, recording=recording, settings=settings_of(known), **CONVERSION)


def check(message: Any, model: ModelSpec, request: JobRequest, others: dict[str, bytes]) -> None:
    """The message holds the request, `others` and nothing else, as the contract has it."""
    assert message.model_name == model.name
    specs = {tensor.name: model.input(tensor.name) for tensor in message.inputs}
    arrays = {
        tensor.name: wire.from_raw(raw, tensor.datatype, tuple(tensor.shape), specs[tensor.name])
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    }
    voice = request.voice
    assert isinstance(voice, Recording)
    if voice.audio is None:
        others = others | {"voice": voice.file or b""}
    else:
        np.testing.assert_array_equal(arrays.pop("voice_audio"), voice.audio)
        assert arrays.pop("voice_sample_rate") == [voice.sample_rate_hz]
    texts = {
        "voice_consent": canonical_line(request.consent),
        "no_vocals": request.no_vocals,
        "auto_pitch": request.auto_pitch,
    }
    others = others | {name: text.encode() for name, text in texts.items() if text is not None}
    for name, text in others.items():
        assert arrays.pop(name).tolist() == [text]
    for name, value in request.settings.items():
        array = arrays.pop(name)
        assert array.dtype == NUMPY_DTYPE[specs[name].dtype]
        assert array == [value]
    assert not arrays


@FEW
@given(songs(SONG_SETTINGS))
def test_a_song_in_a_voice_survives_the_wire(request: SongRequest) -> None:
    message = wire.encode_job(request)
    check(message, SONG, request, {"tags": b"pop"})
    assert ("STEMS" in wire.job_stream(request).payloads) == request.settings.get("stems", False)


@FEW
@given(covers(COVER_SETTINGS))
def test_a_cover_survives_the_wire(request: CoverRequest) -> None:
    message = wire.encode_job(request)
    check(message, COVER, request, {"file": b"a song"})
    assert ("STEMS" in wire.job_stream(request).payloads) == request.settings.get("stems", False)


RENDERED_COVER_SETTINGS = tuple(setting for setting in COVER_SETTINGS if setting in RENDER_SETTINGS)


@FEW
@given(songs(RENDER_SETTINGS) | covers(RENDERED_COVER_SETTINGS))
def test_a_render_survives_the_wire(request: JobRequest) -> None:
    source = {"file": b"a song"} if isinstance(request, CoverRequest) else {"tags": b"pop"}
    check(wire.encode_render(request, "ogg"), RENDER, request, source | {"format": b"ogg"})


@FEW
@given(settings_of(VOICE_SETTINGS), st.text(max_size=5), CONVERSION["no_vocals"], CONVERSION["auto_pitch"])
def test_without_a_voice_whatever_is_about_one_is_refused(
    about_voice: dict[str, Any], consent: str, no_vocals: str | None, auto_pitch: str | None
) -> None:
    request = SongRequest(tags="pop", settings=about_voice, consent=consent, no_vocals=no_vocals, auto_pitch=auto_pitch)
    if not (about_voice or consent or no_vocals or auto_pitch):
        assert [tensor.name for tensor in wire.encode_job(request).inputs] == ["tags"]
        return
    with pytest.raises(InvalidRequestError, match=r"^\w+: expected only with a voice$"):
        wire.encode_job(request)


@FEW
@given(CONSENT)
def test_any_consent_in_plain_words_is_kept_in_its_one_form(consent: str) -> None:
    request = CoverRequest(Recording(file=b"song"), Recording(file=b"voice"), consent)
    assert job_inputs(request)["voice_consent"][0].decode() == canonical_line(consent)
