"""The types that contracts are written in: axes, tensors, settings, models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from heartvoice.errors import InvalidRequestError

DType = Literal["BYTES", "FP32", "INT32", "INT64", "BOOL"]
NUMPY_DTYPE: dict[str, type[np.generic]] = {
    "BYTES": np.object_,
    "FP32": np.float32,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class Axis:
    """A dynamic axis: its name and the sizes that profiles and tests use."""

    name: str
    min: int = 1
    opt: int = 1
    max: int = 1


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `shape` excludes the batch axis that `max_batch_size` adds."""

    name: str
    dtype: DType
    shape: tuple[int | Axis, ...]
    doc: str = ""
    optional: bool = False

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape as Triton writes it: -1 for every axis."""
        return tuple(-1 if isinstance(axis, Axis) else axis for axis in self.shape)

    def describe(self) -> str:
        """`int32 [8, frame]`, for messages."""
        axes = ", ".join(axis.name if isinstance(axis, Axis) else str(axis) for axis in self.shape)
        return f"{self.dtype} [{axes}]"


@dataclass(frozen=True)
class Setting:
    """A typed optional input of shape [1] with a default and a range, both ends included."""

    name: str
    dtype: Literal["FP32", "INT64", "BOOL"]
    default: float | int | bool
    minimum: float | int | None = None
    maximum: float | int | None = None
    unit: str = ""
    doc: str = ""
    multiple: int | None = None

    @property
    def spec(self) -> TensorSpec:
        """The setting as a model input."""
        return TensorSpec(self.name, self.dtype, (1,), self.doc, optional=True)

    def describe(self) -> str:
        """`0 to 1000, in steps of 93`, for messages and help."""
        if self.minimum is None:
            return "true or false" if self.dtype == "BOOL" else "any"
        low, high = (f"{end:g}" if isinstance(end, float) else str(end) for end in (self.minimum, self.maximum))
        text = f"{low} to {high}"
        if self.multiple:
            text += f" in steps of {self.multiple}"
        return f"{text} {self.unit}".rstrip()

    def check(self, value: object) -> float | int | bool:
        """Return `value` as a Python number of this setting's type.

        Raises:
            InvalidRequestError: wrong type, NaN, out of range or off the steps; names field, limit and value.
        """
        if isinstance(value, np.generic):
            value = value.item()
        if self.dtype == "BOOL":
            if not isinstance(value, bool):
                raise InvalidRequestError(f"{self.name}: expected true or false, got {value!r}")
            return value
        allowed = (int,) if self.dtype == "INT64" else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed):
            kind = "an integer" if self.dtype == "INT64" else "a number"
            raise InvalidRequestError(f"{self.name}: expected {kind}, {self.describe()}, got {value!r}")
        if self.minimum is not None and self.maximum is not None and not self.minimum <= value <= self.maximum:
            raise InvalidRequestError(f"{self.name}: expected {self.describe()}, got {value!r}")  # NaN fails too
        if self.multiple and value % self.multiple:
            raise InvalidRequestError(f"{self.name}: expected {self.describe()}, got {value!r}")
        return float(value) if self.dtype == "FP32" else value


@dataclass(frozen=True)
class ModelSpec:
    """A model: its tensors, how Triton runs it and where its network runs."""

    name: str
    backend: Literal["python", "onnxruntime"]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    settings: tuple[Setting, ...] = ()
    decoupled: bool = False
    max_batch_size: int = 0
    kind: Literal["KIND_CPU", "KIND_AUTO"] = "KIND_CPU"
    local: bool = False
    """The model that owns its loop opens the graph in its own process; Triton loads it only when asked to."""
    bf16: bool = False
    """True if the graph may run in bf16 on CPUs by choice: its error there is known (benchmarks/DIARY.md)."""
    doc: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    plan: bool = True
    """True if TensorRT may run the graph: not the language model's, which has an engine of its own on GPUs."""
    plan_rows: tuple[int, int] = (1, 1)
    """Rows of a TensorRT plan: the usual number and the largest, for which its memory is taken."""

    @cached_property  # requests ask for it by the input
    def all_inputs(self) -> tuple[TensorSpec, ...]:
        """Declared inputs, then the settings."""
        return self.inputs + tuple(setting.spec for setting in self.settings)

    def input(self, name: str) -> TensorSpec:
        """The input called `name`; KeyError if there is none."""
        return _named(self.all_inputs, name)

    def output(self, name: str) -> TensorSpec:
        """The output called `name`; KeyError if there is none."""
        return _named(self.outputs, name)

    def setting(self, name: str) -> Setting:
        """The setting called `name`; KeyError if there is none."""
        return next(s for s in self.settings if s.name == name)


def _named(specs: Iterable[TensorSpec], name: str) -> TensorSpec:
    for spec in specs:
        if spec.name == name:
            return spec
    raise KeyError(name)
