"""The rules for a request's tensors, each written once: client, gateway and server call them.

`check_request` holds every rule that needs neither a preset nor decoded sound. The client calls it before it sends, the
gateway before it passes a request on; the server's stages call the same `check_*` functions when they read a request.
Only the server can check the rest: what is in an encoded file, the codebook's size, the width of a style vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from heartvoice.arrays import Array
from heartvoice.contracts.constants import (
    AUDIO_FORMATS,
    AUTO_PITCH_MODES,
    MAX_FEATURE,
    NO_VOCALS_MODES,
    REFERENCE_CHECK_MODES,
    UNKNOWN_WORDS_MODES,
)
from heartvoice.contracts.field_checks import (
    MAX_WORD_BYTES,
    SPEECH_LIMITS_S,
    STEMS_LIMITS_S,
    VOICE_REFERENCE,
    RecordingInputs,
    check_codes,
    check_finite,
    check_inputs,
    check_recording,
    check_text,
    read_consent,
    read_int,
    read_lyrics,
    read_prompt,
    read_settings,
    read_tags,
    read_text,
    read_word,
)
from heartvoice.contracts.models import COVER, DEMUCS, HEARTCODEC, HEARTMULA, SONG, SPEAKER_ENCODER, SVC
from heartvoice.contracts.settings import VOICE_SETTINGS
from heartvoice.contracts.tensors import CONVERSION_INPUTS, VOICE_INPUTS
from heartvoice.contracts.types import ModelSpec
from heartvoice.contracts.voice_ids import read_voice_id
from heartvoice.errors import InvalidRequestError

_VOICES = frozenset({"voice", "voice_audio", "voice_id"})
"""Inputs that name who shall sing."""


def check_prompt(inputs: Mapping[str, Array]) -> None:
    """Check a request to `heartmula`: lyrics or tags, the LM's settings and the style vector.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    read_prompt(inputs)
    read_word(inputs, "unknown_words", UNKNOWN_WORDS_MODES)
    read_settings(inputs, HEARTMULA.settings)
    _check_style(inputs)


def check_window(inputs: Mapping[str, Array]) -> None:
    """Check a request to `heartcodec`.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    _require(HEARTCODEC, inputs, "codes")
    check_codes(inputs["codes"])
    read_settings(inputs, HEARTCODEC.settings)
    window_index = read_int(inputs, "window_index", 0)
    if window_index < 0:
        raise InvalidRequestError(f"window_index: expected at least 0, got {window_index}")


def check_song(inputs: Mapping[str, Array]) -> None:
    """Check a song: lyrics or tags or codes, its settings, and its voice if it has one.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    has_voice = bool(_VOICES & set(inputs))
    if has_voice:
        check_voice(inputs)
    for name in (*(tensor.name for tensor in CONVERSION_INPUTS), *(setting.name for setting in VOICE_SETTINGS)):
        if name in inputs and not has_voice:
            raise InvalidRequestError(f"{name}: expected only with a voice")
    read_settings(inputs, SONG.settings)
    read_word(inputs, "unknown_words", UNKNOWN_WORDS_MODES)
    _check_style(inputs)
    if "codes" not in inputs:
        read_prompt(inputs)
        return
    check_codes(inputs["codes"])
    read_lyrics(inputs)
    read_tags(inputs)


def check_cover(inputs: Mapping[str, Array]) -> None:
    """Check a cover: its voice, its recording and its settings.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    read_settings(inputs, COVER.settings)
    check_voice(inputs)
    check_recording(inputs, RecordingInputs())


def check_render(inputs: Mapping[str, Array]) -> None:
    """Check a request to `render`: a cover if it has a recording, else a song.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    read_word(inputs, "format", AUDIO_FORMATS)
    (check_cover if {"file", "audio"} & set(inputs) else check_song)(inputs)


def check_voice(inputs: Mapping[str, Array]) -> None:
    """Check a voice reference and its consent, or a registered voice's id, and how it shall sing.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    read_settings(inputs, VOICE_SETTINGS)
    read_word(inputs, "auto_pitch", AUTO_PITCH_MODES)
    read_word(inputs, "no_vocals", NO_VOCALS_MODES)
    read_word(inputs, "reference_check", REFERENCE_CHECK_MODES)
    if not _VOICES & set(inputs):
        raise InvalidRequestError("voice: missing, expected a reference of the voice that shall sing")
    _check_source(inputs)


def _check_source(inputs: Mapping[str, Array]) -> None:
    """Check where a voice comes from: a reference with its consent, or the id of a registered voice."""
    if "voice_id" not in inputs:
        read_consent(inputs)
        check_recording(inputs, VOICE_REFERENCE)
        return
    for tensor in VOICE_INPUTS:
        if tensor.name in inputs:
            raise InvalidRequestError(
                f"{tensor.name}: expected none beside a registered voice, whose record says who consents"
            )
    read_voice_id(inputs)


def check_conversion(inputs: Mapping[str, Array]) -> None:
    """Check a request to `svc`: vocals, a voice or its key, and the state of the request before.

    One to `forget` a voice needs neither vocals nor a consent.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    how = read_settings(inputs, SVC.settings)
    if not how["forget"]:
        _require(SVC, inputs, "vocals")
    read_word(inputs, "auto_pitch", AUTO_PITCH_MODES)
    if not how["live"] and (how["more"] or "state" in inputs):
        field = "more" if how["more"] else "state"
        raise InvalidRequestError(f"{field}: expected only with live: else all vocals come in one request")
    sent, named = bool(_VOICES & set(inputs)), "voice_key" in inputs
    if sent == named:
        got = "both" if named else "neither"
        raise InvalidRequestError(f"voice: expected either a voice or its key, got {got}")
    if sent and not how["forget"]:
        _check_source(inputs)
    elif sent:
        check_recording(inputs, VOICE_REFERENCE)
    elif not how["forget"]:
        read_consent(inputs)
    read_text(inputs, "voice_key", MAX_WORD_BYTES)


def check_separation(inputs: Mapping[str, Array]) -> None:
    """Check a request to `demucs`; only the server knows which sources there are.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    read_settings(inputs, DEMUCS.settings)
    check_text("sources", read_text(inputs, "sources"))
    check_recording(inputs, RecordingInputs(limits_s=STEMS_LIMITS_S))


def check_speech(inputs: Mapping[str, Array]) -> None:
    """Check a request to `speaker_encoder`.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    read_word(inputs, "reference_check", REFERENCE_CHECK_MODES)
    check_recording(inputs, RecordingInputs(limits_s=SPEECH_LIMITS_S))


def _require(spec: ModelSpec, inputs: Mapping[str, Array], name: str) -> None:
    """Refuse a request without an input that is optional only because `cancel` requests lack it."""
    if name not in inputs:
        raise InvalidRequestError(f"{name}: missing, expected {spec.input(name).describe()}")


def _check_style(inputs: Mapping[str, Array]) -> None:
    if "style" in inputs:
        check_finite("style", inputs["style"], most=MAX_FEATURE)


_CHECKS: dict[str, Callable[[Mapping[str, Array]], None]] = {
    "song": check_song,
    "cover": check_cover,
    "render": check_render,
    HEARTMULA.name: check_prompt,
    HEARTCODEC.name: check_window,
    DEMUCS.name: check_separation,
    SPEAKER_ENCODER.name: check_speech,
    SVC.name: check_conversion,
}


def check_request(spec: ModelSpec, inputs: Mapping[str, Array]) -> None:
    """Check a whole request to a model: every rule that needs neither a preset nor decoded sound.

    Args:
        spec: the model. Native graphs have no rules but those of their tensors.
        inputs: the request's tensors by name; BYTES elements are bytes, str or memoryviews.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    check_inputs(spec, inputs)
    check_rules(spec, inputs)


def check_rules(spec: ModelSpec, inputs: Mapping[str, Array]) -> None:
    """Check what `check_request` checks after `check_inputs`: the fields' values, and which go together.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    if spec.name in _CHECKS:
        _CHECKS[spec.name](inputs)
