"""The rules for single fields of a request: tensors, texts, settings and recordings.

`contracts.validation` puts them together to whole requests.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from heartvoice.arrays import Array
from heartvoice.contracts.constants import (
    BIDI_CONTROLS,
    MAX_CHANNELS,
    MAX_CONSENT_CHARS,
    MAX_FILE_BYTES,
    MAX_INPUT_RATE_HZ,
    MAX_LEVEL,
    MAX_RECORDING_S,
    MAX_TEXT_BYTES,
    MIN_INPUT_RATE_HZ,
    MIN_RECORDING_S,
    MIN_SPEECH_S,
    MIN_VOICE_S,
)
from heartvoice.contracts.texts import BYTE_ORDER_MARK, canonical_line, canonical_lyrics, canonical_tags
from heartvoice.contracts.types import NUMPY_DTYPE, Axis, ModelSpec, Setting, TensorSpec
from heartvoice.errors import InvalidRequestError

Limits = tuple[float, float]
"""Shortest and longest duration in seconds."""
COVER_LIMITS_S: Limits = (MIN_RECORDING_S, MAX_RECORDING_S)
VOICE_LIMITS_S: Limits = (MIN_VOICE_S, MAX_RECORDING_S)
SPEECH_LIMITS_S: Limits = (MIN_SPEECH_S, MAX_RECORDING_S)
STEMS_LIMITS_S: Limits = (0.0, MAX_RECORDING_S)
MAX_WORD_BYTES = 256
"""UTF-8 bytes of a mode, a format or a key."""
_WIRE_DTYPE = {dtype: name for name, dtype in NUMPY_DTYPE.items()}
_MAX_AXES_SHOWN = 8


# ------------------------------------------------------------------------------------------------------------ tensors


def check_inputs(spec: ModelSpec, inputs: Mapping[str, Array]) -> None:
    """Check the names, dtypes and shapes of all inputs against the contract.

    Raises:
        InvalidRequestError: `codes: expected INT32 [8, frame of 1 to 3001], got INT64 [7, 120]`.
    """
    for name, value in inputs.items():
        tensor = find_input(spec, name)
        dtype = _WIRE_DTYPE.get(value.dtype.type, str(value.dtype))
        check_shape(tensor, dtype, value.shape, max_batch_size=spec.max_batch_size)
    check_complete(spec, inputs)


def find_input(spec: ModelSpec, name: str) -> TensorSpec:
    """The model's input called `name`.

    Raises:
        InvalidRequestError: the model has no such input.
    """
    try:
        return spec.input(name)
    except KeyError:
        raise InvalidRequestError(f"{name[:80]!r}: {spec.name} has no such input") from None


def check_complete(spec: ModelSpec, names: Iterable[str]) -> None:
    """Refuse a request that lacks an input of the contract.

    Raises:
        InvalidRequestError: names the first missing one.
    """
    given = set(names)
    for tensor in spec.inputs:
        if not tensor.optional and tensor.name not in given:
            raise InvalidRequestError(f"{tensor.name}: missing, expected {tensor.describe()}")


def check_shape(tensor: TensorSpec, dtype: str, shape: Sequence[int], *, max_batch_size: int = 0) -> None:
    """Check a tensor's dtype, by its name on the wire, and all axes against the contract.

    Raises:
        InvalidRequestError: names the tensor, the expected ranges, and dtype and shape.
    """
    batch = (Axis("batch", 1, 1, max_batch_size),) if max_batch_size else ()
    axes = batch + tensor.shape
    fits = len(shape) == len(axes) and all(
        axis.min <= size <= axis.max if isinstance(axis, Axis) else size == axis
        for size, axis in zip(shape, axes, strict=True)
    )
    if dtype == tensor.dtype and fits:
        return
    sizes = (f"{a.name} of {a.min} to {a.max}" if isinstance(a, Axis) else str(a) for a in axes)
    shown = f"{list(shape[:_MAX_AXES_SHOWN])}"
    if len(shape) > _MAX_AXES_SHOWN:  # a caller may send thousands
        shown += f" and {len(shape) - _MAX_AXES_SHOWN} more axes"
    raise InvalidRequestError(f"{tensor.name}: expected {tensor.dtype} [{', '.join(sizes)}], got {dtype[:16]} {shown}")


def check_finite(name: str, value: Array, *, most: float = math.inf) -> None:
    """Refuse NaN, infinity and values beyond +-`most`, which would make networks return NaN.

    Raises:
        InvalidRequestError: names the field, the limit and the largest value.
    """
    if not np.isfinite(value.astype(np.float32, copy=False)).all():
        raise InvalidRequestError(f"{name}: expected finite values, got NaN or Inf")
    if most < math.inf and value.size:
        largest = max(float(value.max()), -float(value.min()))
        if largest > most:
            raise InvalidRequestError(f"{name}: expected values within +-{most:g}, got {largest:.4g}")


def check_codes(codes: Array, codebook_size: int | None = None, max_frames: int | None = None) -> None:
    """Refuse codes [K, T] without a frame, with too many frames, or outside [0, codebook_size).

    Args:
        codes: integers.
        codebook_size: None checks for negative codes only: the preset decides the size.
        max_frames: None leaves the number of frames to `check_shape`.

    Raises:
        InvalidRequestError: names the limit and the value.
    """
    if codes.shape[1] == 0:
        raise InvalidRequestError("codes: expected at least one frame, got 0")
    if max_frames is not None and codes.shape[1] > max_frames:
        raise InvalidRequestError(f"codes: expected at most {max_frames} frames, got {codes.shape[1]}")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or (codebook_size is not None and high >= codebook_size):
        size = "codebook size" if codebook_size is None else codebook_size
        raise InvalidRequestError(f"codes: expected values in [0, {size}), got {low} to {high}")


# -------------------------------------------------------------------------------------------------- texts and settings


def read_text(inputs: Mapping[str, Array], name: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read the text of a BYTES [1] input, "" if it is not there.

    Raises:
        InvalidRequestError: longer than `max_bytes` bytes, or not UTF-8.
    """
    if name not in inputs:
        return ""
    raw = inputs[name][0]
    data = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    if len(data) > max_bytes:
        raise InvalidRequestError(f"{name}: expected at most {max_bytes} UTF-8 bytes, got {len(data)}")
    try:
        return bytes(data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{name}: expected UTF-8, got byte {data[error.start]:#04x} at {error.start}"
        ) from None


def read_word(inputs: Mapping[str, Array], name: str, allowed: Sequence[str]) -> str:
    """Read an optional BYTES [1] input that is one of `allowed`; "" if it is missing or empty.

    Raises:
        InvalidRequestError: names the allowed words and the value.
    """
    if name in inputs and len(inputs[name][0]) > MAX_WORD_BYTES:
        got = f"{len(inputs[name][0])} bytes"
        raise InvalidRequestError(f"{name}: expected one of {', '.join(allowed)}, got {got}")
    word = read_text(inputs, name)
    if word and word not in allowed:
        raise InvalidRequestError(f"{name}: expected one of {', '.join(allowed)}, got {word!r}")
    return word


def read_int(inputs: Mapping[str, Array], name: str, default: int) -> int:
    """Read the integer of an INT64 [1] input."""
    return int(inputs[name][0]) if name in inputs else default


def read_settings(inputs: Mapping[str, Array], settings: Iterable[Setting]) -> dict[str, float | int | bool]:
    """Read each setting's checked value, or its default.

    Raises:
        InvalidRequestError: names field, limit and value.
    """
    values = {s.name: s.check(inputs[s.name][0]) if s.name in inputs else s.default for s in settings}
    low, high = values.get("min_duration_s", 0.0), values.get("duration_s", math.inf)
    if low > high:
        raise InvalidRequestError(f"min_duration_s: expected at most duration_s = {high:g}, got {low:g}")
    return values


def check_text(field: str, text: str, max_bytes: int = MAX_TEXT_BYTES) -> None:
    """Refuse text that is too long or holds control characters other than line breaks and tabs.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    n_bytes = len(text.encode("utf-8", "surrogatepass"))
    if n_bytes > max_bytes:
        raise InvalidRequestError(f"{field}: expected at most {max_bytes} UTF-8 bytes, got {n_bytes}")
    for position, character in enumerate(text):
        if character not in "\n\r\t" and unicodedata.category(character) in ("Cc", "Cs"):
            raise InvalidRequestError(
                f"{field}: expected text without control characters, got U+{ord(character):04X} at {position}"
            )


def read_prompt(inputs: Mapping[str, Array]) -> tuple[str, str]:
    """Read lyrics and tags in their one form (`contracts.texts`).

    Raises:
        InvalidRequestError: both are blank, or one of them is no plain text.
    """
    lyrics, tags = read_lyrics(inputs), read_tags(inputs)
    if not lyrics and not tags:
        raise InvalidRequestError("lyrics, tags: expected text in at least one of them, got none")
    return lyrics, tags


def read_lyrics(inputs: Mapping[str, Array]) -> str:
    """Read lyrics in their one form, "" if there are none or no words in them.

    Raises:
        InvalidRequestError: too long, with control characters, or not UTF-8.
    """
    return _read_canonical(inputs, "lyrics", canonical_lyrics)


def read_tags(inputs: Mapping[str, Array]) -> str:
    """Read tags in their one form, "" if there are none or no words in them.

    Raises:
        InvalidRequestError: too long, with control characters, or not UTF-8.
    """
    return _read_canonical(inputs, "tags", canonical_tags)


def _read_canonical(inputs: Mapping[str, Array], field: str, canonical: Callable[[str], str]) -> str:
    sent = read_text(inputs, field)
    check_text(field, sent)
    text = canonical(sent)
    check_text(field, text)  # composed letters may take more bytes than those that were sent
    return text


def read_consent(inputs: Mapping[str, Array]) -> str:
    """Read who consents to the use of the voice, and how; "" if the request has no voice.

    Blanks around the text and letters in parts do not count as characters, and the report is without them. The text is
    for the report alone: neither logs nor error messages repeat it.

    Raises:
        InvalidRequestError: missing, too long, or with control characters, line breaks or overrides of direction.
    """
    if not {"voice", "voice_audio", "voice_key"} & set(inputs):
        return ""
    sent = read_text(inputs, "voice_consent")
    return checked_line("voice_consent", sent, MAX_CONSENT_CHARS, what="who consents to the use of the voice and how")


def checked_line(field: str, sent: str, most: int, *, what: str) -> str:
    """Read a line of text in its one form; no error message repeats it.

    Args:
        field: name of the input, for messages.
        sent: the text; blanks around it do not count.
        most: longest length in characters.
        what: what it should say, for messages.

    Raises:
        InvalidRequestError: missing, too long, or with control characters, line breaks or overrides of direction.
    """
    sent = sent.strip().strip(BYTE_ORDER_MARK).strip()
    text = canonical_line(sent)
    if not text:
        raise InvalidRequestError(f"{field}: missing, expected {what}, 1 to {most} characters")
    if len(text) > most:
        raise InvalidRequestError(f"{field}: expected at most {most} characters, got {len(text)}")
    for position, character in enumerate(sent):
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in BIDI_CONTROLS:
            raise InvalidRequestError(
                f"{field}: expected text without control characters, line breaks or overrides of direction, got"
                f" U+{ord(character):04X} at {position}"
            )
    return text


# ----------------------------------------------------------------------------------------------------------- recordings


@dataclass(frozen=True)
class RecordingInputs:
    """The names of the three inputs that carry a recording, and how long it may be."""

    file: str = "file"
    audio: str = "audio"
    rate: str = "sample_rate"
    limits_s: Limits = COVER_LIMITS_S


VOICE_REFERENCE = RecordingInputs("voice", "voice_audio", "voice_sample_rate", VOICE_LIMITS_S)


def check_file_size(field: str, n_bytes: int, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Refuse an encoded file that is empty or too large; the default limit is that of a request.

    Raises:
        InvalidRequestError: names the field, the limit and the size.
    """
    if n_bytes == 0:
        raise InvalidRequestError(f"{field}: expected an encoded recording, got an empty file")
    if n_bytes > max_bytes:
        raise InvalidRequestError(f"{field}: expected at most {max_bytes} bytes, got {n_bytes}")


def check_rate(field: str, rate_hz: int) -> None:
    """Refuse a sample rate outside the contract.

    Raises:
        InvalidRequestError: names the field, the limits and the value.
    """
    if not MIN_INPUT_RATE_HZ <= rate_hz <= MAX_INPUT_RATE_HZ:
        limits = f"{MIN_INPUT_RATE_HZ} to {MAX_INPUT_RATE_HZ} Hz"
        raise InvalidRequestError(f"{field}: expected a sample rate of {limits}, got {rate_hz} Hz")


def check_duration(field: str, duration_s: float, limits_s: Limits) -> None:
    """Refuse a recording that is too short or too long.

    Raises:
        InvalidRequestError: names the field, the limits and the duration.
    """
    low_s, high_s = limits_s
    if not low_s <= duration_s <= high_s:
        raise InvalidRequestError(f"{field}: expected {low_s:g} to {high_s:g} s, got {duration_s:.7g} s")


def check_layout(field: str, audio: Array) -> None:
    """Refuse anything but float32 [C, N] of one or two channels and at least one sample.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    if audio.dtype != np.float32 or audio.ndim != 2:
        raise InvalidRequestError(f"{field}: expected FP32 [channel, sample], got {audio.dtype} {list(audio.shape)}")
    if not 1 <= len(audio) <= MAX_CHANNELS:
        raise InvalidRequestError(f"{field}: expected 1 or 2 channels, got {len(audio)}")
    if not audio.shape[1]:
        raise InvalidRequestError(f"{field}: expected sound, got no samples")


def check_samples(field: str, audio: Array) -> None:
    """Refuse samples that are not finite, or far beyond full scale: integers that were never scaled to +-1.

    Raises:
        InvalidRequestError: names the field and the peak.
    """
    if not np.isfinite(audio).all():
        raise InvalidRequestError(f"{field}: expected finite samples, got NaN or Inf")
    peak = max(float(audio.max()), -float(audio.min()))
    if peak > MAX_LEVEL:
        raise InvalidRequestError(f"{field}: expected samples of about -1 to 1, got {peak:.4g}")


def check_recording(inputs: Mapping[str, Array], names: RecordingInputs) -> None:
    """Check a recording that is sent as an encoded file, or as samples with their rate; not the samples themselves.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    file, audio, rate = names.file, names.audio, names.rate
    if (file in inputs) == (audio in inputs):
        got = "both" if file in inputs else "neither"
        raise InvalidRequestError(f"{file}: expected either {file} or {audio}, got {got}")
    if file in inputs:
        if rate in inputs:
            raise InvalidRequestError(f"{rate}: expected only with {audio}, got it with {file}, which has its own")
        check_file_size(file, len(inputs[file][0]))
        return
    if rate not in inputs:
        raise InvalidRequestError(f"{rate}: missing, expected the rate of {audio} in Hz")
    rate_hz = int(inputs[rate][0])
    check_rate(rate, rate_hz)
    check_layout(audio, inputs[audio])
    check_duration(audio, inputs[audio].shape[-1] / rate_hz, names.limits_s)
