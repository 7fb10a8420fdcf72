"""A request's fields against the contract, before anything is sent."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from heartvoice.client.messages import Array
from heartvoice.client.recordings import VOICE_NAMES
from heartvoice.client.requests import CoverRequest, JobRequest, SettingValue, SongRequest, as_voice
from heartvoice.contracts.constants import (
    AUTO_PITCH_MODES,
    BIDI_CONTROLS,
    MAX_CONSENT_CHARS,
    MAX_TEXT_BYTES,
    NO_VOCALS_MODES,
)
from heartvoice.contracts.settings import VOICE_SETTINGS
from heartvoice.contracts.types import NUMPY_DTYPE, Axis, ModelSpec, Setting, TensorSpec
from heartvoice.errors import InvalidRequestError

_MODES = {"no_vocals": NO_VOCALS_MODES, "auto_pitch": AUTO_PITCH_MODES}


def check_request(request: SongRequest, model: ModelSpec) -> dict[str, Array]:
    """The request as arrays by input name, ready to be sent to `model`; what was not given is left out.

    Raises:
        InvalidRequestError: naming the field, its limit and the value.
    """
    arrays: dict[str, Array] = {}
    for name in ("lyrics", "tags"):
        text = check_text(name, getattr(request, name))
        if text:
            arrays[name] = np.array([text], dtype=object)
    if not arrays and request.codes is None:
        raise InvalidRequestError("lyrics, tags: expected at least one of them, got neither")
    if request.style is not None:
        arrays["style"] = check_style(request.style, model.input("style"))
    if request.codes is not None:
        arrays["codes"] = check_codes(request.codes, model.input("codes"))
    return arrays | check_conversion(request) | check_settings(request.settings, model)


def check_cover(request: CoverRequest, model: ModelSpec, settings: Sequence[Setting] | None = None) -> dict[str, Array]:
    """The same of a cover; `settings` are those of the model's that a cover has, all if None.

    Raises:
        InvalidRequestError: naming the field, its limit and the value.
    """
    arrays = request.recording.inputs() | check_conversion(request)
    return arrays | check_settings(request.settings, model, settings)


def check_conversion(request: JobRequest) -> dict[str, Array]:
    """What a song and a cover share: the voice, its consent and how it shall sing; nothing of a song without a voice.

    Raises:
        InvalidRequestError: naming the field; also of whatever was given without the voice that it is about.
    """
    modes = {name: getattr(request, name) for name in _MODES if getattr(request, name) is not None}
    if request.voice is None:
        given = (["consent"] if request.consent else []) + [*modes]
        given += [setting.name for setting in VOICE_SETTINGS if setting.name in request.settings]
        if given:
            raise InvalidRequestError(f"{given[0]}: expected only with a voice")
        return {}
    arrays = as_voice(request.voice).inputs(VOICE_NAMES)
    arrays["voice_consent"] = np.array([check_consent(request.consent)], dtype=object)
    for name, mode in modes.items():
        if mode not in _MODES[name]:
            raise InvalidRequestError(f"{name}: expected one of {', '.join(_MODES[name])}, got {mode!r}")
        arrays[name] = np.array([mode.encode()], dtype=object)
    return arrays


def check_consent(consent: object) -> bytes:
    """Who consents to the use of a voice, and how, as UTF-8.

    Raises:
        InvalidRequestError: it is missing, too long, or no plain text.
    """
    wanted = f"expected who consents to the use of the voice, and how, in 1 to {MAX_CONSENT_CHARS} characters"
    if not isinstance(consent, str):
        raise InvalidRequestError(f"consent: {wanted}, got {type(consent).__name__}")
    if not consent.strip():
        raise InvalidRequestError(f"consent: {wanted}, got none")
    if len(consent) > MAX_CONSENT_CHARS:
        raise InvalidRequestError(f"consent: {wanted}, got {len(consent)}")
    for position, character in enumerate(consent):
        if unicodedata.category(character) in ("Cc", "Cs") or character in BIDI_CONTROLS:
            raise InvalidRequestError(
                "consent: expected text without control characters or overrides of direction, got"
                f" U+{ord(character):04X} at {position}"
            )
    return consent.encode()


def check_sources(sources: Sequence[str] | str) -> tuple[str, ...]:
    """Names of stems, from a sequence or from text with commas; only the server knows which there are.

    Raises:
        InvalidRequestError: there is none, one is no name, or one is there twice.
    """
    names = sources.split(",") if isinstance(sources, str) else list(sources)
    if not all(isinstance(name, str) for name in names):
        raise InvalidRequestError(f"sources: expected names, got {sources!r}")
    names = [name.strip() for name in names]
    if not names or not all(name.isprintable() and name and "," not in name for name in names):
        raise InvalidRequestError(f"sources: expected names such as vocals, got {sources!r}")
    if len(set(names)) < len(names):
        raise InvalidRequestError(f"sources: expected each name once, got {', '.join(names)}")
    check_text("sources", ",".join(names))
    return tuple(names)


def check_text(name: str, text: object) -> bytes:
    """Text as UTF-8; nothing but blanks is nothing."""
    if not isinstance(text, str):
        raise InvalidRequestError(f"{name}: expected text, got {type(text).__name__}")
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{name}: expected Unicode text, got {error.reason} at {error.start}") from error
    if len(data) > MAX_TEXT_BYTES:
        raise InvalidRequestError(f"{name}: expected at most {MAX_TEXT_BYTES} bytes of UTF-8, got {len(data)}")
    return data if text.strip() else b""


def check_settings(
    settings: Mapping[str, SettingValue | None], model: ModelSpec, known: Sequence[Setting] | None = None
) -> dict[str, Array]:
    """Settings as arrays [1], each one of `known` (of all the model's, if None), of its type and in its range."""
    by_name = {setting.name: setting for setting in (model.settings if known is None else known)}
    values: dict[str, float | int | bool] = {}
    for name, value in settings.items():
        if value is None:
            continue
        if name not in by_name:
            close = difflib.get_close_matches(name, by_name, 1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(by_name)}"
            raise InvalidRequestError(f"{name}: {model.name} has no such setting; {hint}")
        # longdouble is the one numpy float whose item() is no Python float
        values[name] = by_name[name].check(float(value) if isinstance(value, np.floating) else value)
    if "min_duration_s" in values:
        longest = values.get("duration_s", by_name["duration_s"].default)
        if values["min_duration_s"] > longest:
            raise InvalidRequestError(
                f"min_duration_s: expected at most duration_s, which is {longest:g}, got {values['min_duration_s']:g}"
            )
    return {name: np.array([value], dtype=NUMPY_DTYPE[by_name[name].dtype]) for name, value in values.items()}


def check_style(style: Array, spec: TensorSpec) -> Array:
    """The style vector as float32 [D], finite."""
    array = _shaped(style, spec)
    if array.dtype.kind not in "fiu":
        raise InvalidRequestError(f"style: expected {spec.describe()}, got {array.dtype}")
    with np.errstate(over="ignore"):
        vector = array.astype(np.float32)
    if not np.isfinite(vector).all():
        raise InvalidRequestError("style: expected finite numbers, got NaN or infinite ones")
    return vector


def check_codes(codes: Array, spec: TensorSpec) -> Array:
    """Codes as int32 [8, T], none negative; only the server knows the codebooks' size."""
    array = _shaped(codes, spec)
    if array.dtype.kind not in "iu":
        raise InvalidRequestError(f"codes: expected {spec.describe()}, got {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > np.iinfo(np.int32).max:
        raise InvalidRequestError(f"codes: expected 0 to the codebook's size, got {low} to {high}")
    return array.astype(np.int32)


def _shaped(value: object, spec: TensorSpec) -> Array:
    """`value` as an array of the spec's shape, dynamic axes within their limits."""
    array = np.asarray(value)
    fits = array.ndim == len(spec.shape) and all(
        axis.min <= size <= axis.max if isinstance(axis, Axis) else size == axis
        for axis, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        limits = ", ".join(f"{a.name} {a.min} to {a.max}" for a in spec.shape if isinstance(a, Axis))
        raise InvalidRequestError(f"{spec.name}: expected {spec.describe()} ({limits}), got {list(array.shape)}")
    return array
