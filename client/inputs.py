"""A request's Python values as a model's tensors, checked by the rules that the server has.

Only what a tensor cannot express is checked here: the types of Python values and the names of settings.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from heartvoice.arrays import Array
from heartvoice.client.arguments import SettingValue
from heartvoice.client.recordings import VOICE_NAMES, Recording
from heartvoice.client.registered_voices import RegisteredVoice
from heartvoice.client.requests import CoverRequest, JobRequest, SongRequest, as_singer
from heartvoice.contracts.encoding import encode_text
from heartvoice.contracts.field_checks import check_codes, read_consent, read_lyrics, read_tags
from heartvoice.contracts.models import COVER, DEMUCS, RENDER, SONG, SPEAKER_ENCODER, SVC, with_voice_ids
from heartvoice.contracts.settings import COVER_SETTINGS, FORGET
from heartvoice.contracts.types import NUMPY_DTYPE, ModelSpec, Setting
from heartvoice.contracts.validation import check_request
from heartvoice.errors import InvalidRequestError, UnknownSettingError

_TEXTS: dict[str, Callable[[Mapping[str, Array]], str]] = {
    "lyrics": read_lyrics, "tags": read_tags, "voice_consent": read_consent,
}  # fmt: skip
_CONSENT_INPUT, _CONSENT_ARGUMENT = "voice_consent: ", "consent: "


def job_inputs(request: JobRequest) -> dict[str, Array]:
    """The checked tensors of a request to `song` or `cover`, without those that were not given.

    Raises:
        InvalidRequestError: naming the field, its limit and the value.
    """
    if isinstance(request, CoverRequest):
        return _checked(COVER, _cover(request, COVER, COVER.settings))
    return _checked(SONG, _song(request, SONG))


def render_inputs(request: JobRequest, file_format: str) -> dict[str, Array]:
    """The checked tensors of a request to `render`, for a file of one of `AUDIO_FORMATS`.

    Raises:
        InvalidRequestError: naming the field, its limit and the value.
    """
    if isinstance(request, CoverRequest):
        arrays = _cover(request, RENDER, [setting for setting in COVER_SETTINGS if setting in RENDER.settings])
    else:
        arrays = _song(request, RENDER)
    return _checked(RENDER, arrays | {"format": _text("format", file_format)})


def stems_inputs(recording: Recording, sources: Sequence[str] | str | None) -> dict[str, Array]:
    """The checked tensors of a request to `demucs` for these stems, or for all if None.

    Raises:
        InvalidRequestError: naming the field, its limit and the value.
    """
    arrays = recording.inputs()
    if sources is not None:
        arrays["sources"] = _text("sources", ",".join(as_sources(sources)))
    return _checked(DEMUCS, arrays)


def embed_inputs(recording: Recording, reference_check: str | None = None) -> dict[str, Array]:
    """The checked tensors of a request to `speaker_encoder`; `reference_check` is one of `REFERENCE_CHECK_MODES`.

    Raises:
        InvalidRequestError: naming the field, its limit and the value.
    """
    arrays = recording.inputs()
    if reference_check is not None:
        arrays["reference_check"] = _text("reference_check", reference_check)
    return _checked(SPEAKER_ENCODER, arrays)


def forget_inputs(voice: Recording) -> dict[str, Array]:
    """The checked tensors of a request to `svc` to forget the voice of this reference.

    Raises:
        InvalidRequestError: naming the field, its limit and the value.
    """
    return _checked(SVC, {**voice.inputs(VOICE_NAMES), FORGET.name: np.array([True])})


def as_sources(sources: Sequence[str] | str) -> tuple[str, ...]:
    """Names of stems, from a sequence or from text with commas; only the server knows which there are.

    Raises:
        InvalidRequestError: the list is empty, an item is not a name, or a name is there twice.
    """
    names = sources.split(",") if isinstance(sources, str) else list(sources)
    if not all(isinstance(name, str) for name in names):
        raise InvalidRequestError(f"sources: expected names, got {sources!r}")
    names = [name.strip() for name in names]
    if not names or not all(name.isprintable() and name and "," not in name for name in names):
        raise InvalidRequestError(f"sources: expected names such as vocals, got {sources!r}")
    if len(set(names)) < len(names):
        raise InvalidRequestError(f"sources: expected each name once, got {', '.join(names)}")
    return tuple(names)


def _checked(model: ModelSpec, arrays: dict[str, Array]) -> dict[str, Array]:
    try:
        check_request(with_voice_ids(model), arrays)
    except InvalidRequestError as error:
        if not str(error).startswith(_CONSENT_INPUT):
            raise
        raise InvalidRequestError(str(error).replace(_CONSENT_INPUT, _CONSENT_ARGUMENT, 1)) from None
    # Texts are sent in the form in which the server reads them; those without words are missing.
    forms = {name: read(arrays) for name, read in _TEXTS.items() if name in arrays}
    return {
        name: encode_text(forms[name]) if name in forms else array
        for name, array in arrays.items()
        if forms.get(name) != ""
    }


def _song(request: SongRequest, model: ModelSpec) -> dict[str, Array]:
    arrays = {name: _text(name, getattr(request, name)) for name in ("lyrics", "tags")}
    arrays = {name: text for name, text in arrays.items() if text[0]}
    if request.unknown_words is not None:
        arrays["unknown_words"] = _text("unknown_words", request.unknown_words)
    if request.style is not None:
        arrays["style"] = _style(request.style)
    if request.codes is not None:
        arrays["codes"] = _codes(request.codes)
    return arrays | _voice(request) | _settings(request.settings, model, model.settings)


def _cover(request: CoverRequest, model: ModelSpec, settings: Sequence[Setting]) -> dict[str, Array]:
    return request.recording.inputs() | _voice(request) | _settings(request.settings, model, settings)


def _voice(request: JobRequest) -> dict[str, Array]:
    """The tensors that a song and a cover share: the voice, its consent, and how it shall sing."""
    singer = None if request.voice is None else as_singer(request.voice)
    arrays: dict[str, Array] = {}
    if isinstance(singer, RegisteredVoice):
        arrays = singer.inputs()
    elif singer is not None:
        arrays = singer.inputs(VOICE_NAMES)
    if request.consent or isinstance(singer, Recording):
        arrays["voice_consent"] = _text("consent", request.consent)
    for name in ("no_vocals", "auto_pitch", "reference_check"):
        mode = getattr(request, name)
        if mode is not None:
            arrays[name] = _text(name, mode)
    return arrays


def _text(name: str, text: object) -> Array:
    if not isinstance(text, str):
        raise InvalidRequestError(f"{name}: expected text, got {type(text).__name__}")
    # The checker refuses surrogates: they are no UTF-8.
    return np.array([text.encode("utf-8", "surrogatepass")], dtype=object)


def _style(style: object) -> Array:
    array = np.asarray(style)
    if array.dtype.kind not in "fiu":
        raise InvalidRequestError(f"style: expected {SONG.input('style').describe()}, got {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _codes(codes: object) -> Array:
    array = np.asarray(codes)
    if array.dtype.kind not in "iu":
        raise InvalidRequestError(f"codes: expected {SONG.input('codes').describe()}, got {array.dtype}")
    narrow = array.astype(np.int32)
    if array.ndim == 2 and not np.array_equal(narrow, array):
        check_codes(array, np.iinfo(np.int32).max + 1)  # what int32 can hold
    return narrow


def _settings(
    settings: Mapping[str, SettingValue | None], model: ModelSpec, known: Sequence[Setting]
) -> dict[str, Array]:
    """Settings as arrays [1], each one of `known`, of its type and in its range; None is the server's default."""
    by_name = {setting.name: setting for setting in known}
    arrays: dict[str, Array] = {}
    for name, value in settings.items():
        if value is None:
            continue
        if name not in by_name:
            close = difflib.get_close_matches(name, by_name, 1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(by_name)}"
            raise UnknownSettingError(f"{name}: {model.name} has no such setting; {hint}")
        # longdouble is the one numpy float whose item() is no Python float
        checked = by_name[name].check(float(value) if isinstance(value, np.floating) else value)
        arrays[name] = np.array([checked], dtype=NUMPY_DTYPE[by_name[name].dtype])
    return arrays
