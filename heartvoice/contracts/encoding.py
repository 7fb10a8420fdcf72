"""Python values as the tensors of a request: the reverse of the readers in `validation`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from heartvoice.arrays import Array
from heartvoice.contracts.types import NUMPY_DTYPE, Setting


def encode_text(text: str) -> Array:
    """A text as BYTES [1]."""
    return np.array([text.encode()], np.object_)


def encode_settings(values: Mapping[str, object], settings: Iterable[Setting]) -> dict[str, Array]:
    """Those of the settings that have a value, each as a tensor [1] of its dtype."""
    return {s.name: np.array([values[s.name]], NUMPY_DTYPE[s.dtype]) for s in settings if s.name in values}
