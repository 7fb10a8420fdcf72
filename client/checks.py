"""A request's fields against the contract, before anything is sent."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import numpy as np

from heartvoice.client.messages import Array, SettingValue, SongRequest
from heartvoice.contracts import MAX_TEXT_BYTES, NUMPY_DTYPE, Axis, ModelSpec, TensorSpec
from heartvoice.errors import InvalidRequestError


def check_request(request: SongRequest, model: ModelSpec) -> dict[str, Array]:
    """The request as arrays by input name, ready to be sent; what was not given is left out.

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
    for name, value in check_settings(request.settings, model).items():
        arrays[name] = np.array([value], dtype=NUMPY_DTYPE[model.input(name).dtype])
    return arrays


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


def check_settings(settings: Mapping[str, SettingValue | None], model: ModelSpec) -> dict[str, float | int | bool]:
    """Settings as Python values, each known to the model, of its type and in its range."""
    known = {setting.name: setting for setting in model.settings}
    values: dict[str, float | int | bool] = {}
    for name, value in settings.items():
        if value is None:
            continue
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise InvalidRequestError(f"{name}: {model.name} has no such setting; {hint}")
        # longdouble is the one numpy float whose item() is no Python float
        values[name] = known[name].check(float(value) if isinstance(value, np.floating) else value)
    longest = values.get("duration_s", known["duration_s"].default)
    if values.get("min_duration_s", 0.0) > longest:
        raise InvalidRequestError(
            f"min_duration_s: expected at most duration_s, which is {longest:g}, got {values['min_duration_s']:g}"
        )
    return values


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
