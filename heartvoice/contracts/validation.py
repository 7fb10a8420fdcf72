"""Read and check the tensors of a request: text, settings, shapes. Shared by every stage's front."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np

from heartvoice.arrays import Array
from heartvoice.contracts.types import NUMPY_DTYPE, ModelSpec, Setting
from heartvoice.errors import InvalidRequestError


def check_inputs(spec: ModelSpec, inputs: Mapping[str, Array]) -> None:
    """Check names, dtypes and fixed axes of all inputs against the contract.

    Raises:
        InvalidRequestError: `codes: expected INT32 [8, frame], got int64 [7, 120]`.
    """
    for name, value in inputs.items():
        try:
            tensor = spec.input(name)
        except KeyError:
            raise InvalidRequestError(f"{name}: {spec.name} has no such input") from None
        fits = value.ndim == len(tensor.dims) and all(
            size in (-1, actual) for size, actual in zip(tensor.dims, value.shape, strict=True)
        )
        if value.dtype != NUMPY_DTYPE[tensor.dtype] or not fits:
            raise InvalidRequestError(f"{name}: expected {tensor.describe()}, got {value.dtype} {list(value.shape)}")
    for tensor in spec.inputs:
        if not tensor.optional and tensor.name not in inputs:
            raise InvalidRequestError(f"{tensor.name}: missing, expected {tensor.describe()}")


def read_settings(inputs: Mapping[str, Array], settings: Iterable[Setting]) -> dict[str, float | int | bool]:
    """Each setting's checked value, or its default.

    Raises:
        InvalidRequestError: names field, limit and value.
    """
    return {s.name: s.check(inputs[s.name][0]) if s.name in inputs else s.default for s in settings}


def read_text(inputs: Mapping[str, Array], name: str) -> str:
    """The text of a BYTES [1] input, "" if it is not there.

    Raises:
        InvalidRequestError: it is not UTF-8.
    """
    if name not in inputs:
        return ""
    raw = inputs[name][0]
    try:
        return raw if isinstance(raw, str) else bytes(raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{name}: expected UTF-8, got byte {raw[error.start]:#04x} at {error.start}"
        ) from None


def read_int(inputs: Mapping[str, Array], name: str, default: int) -> int:
    """The integer of an INT64 [1] input."""
    return int(inputs[name][0]) if name in inputs else default


def check_text(field: str, text: str, max_bytes: int) -> None:
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


def check_finite(name: str, value: Array, *, most: float = math.inf) -> None:
    """Refuse NaN and Inf, and values beyond +-`most`, of which networks make NaN.

    Raises:
        InvalidRequestError: names the field, the limit and the largest value.
    """
    if not np.isfinite(value.astype(np.float32, copy=False)).all():
        raise InvalidRequestError(f"{name}: expected finite values, got NaN or Inf")
    if most < math.inf and value.size:
        largest = max(float(value.max()), -float(value.min()))
        if largest > most:
            raise InvalidRequestError(f"{name}: expected values within +-{most:g}, got {largest:.4g}")


def check_codes(codes: Array, codebook_size: int, max_frames: int) -> None:
    """Refuse codes outside [0, codebook_size), none at all, or too many.

    Raises:
        InvalidRequestError: names the limit and the value.
    """
    if codes.shape[1] == 0:
        raise InvalidRequestError("codes: expected at least one frame, got 0")
    if codes.shape[1] > max_frames:
        raise InvalidRequestError(f"codes: expected at most {max_frames} frames, got {codes.shape[1]}")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= codebook_size:
        raise InvalidRequestError(f"codes: expected values in [0, {codebook_size}), got {low} to {high}")
