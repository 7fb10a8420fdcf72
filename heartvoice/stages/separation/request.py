"""One request to the separator: a recording, or a window of one that comes in several requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.audio.recordings import read_recording
from heartvoice.config.presets import SEPARATORS, AnySeparator
from heartvoice.contracts.constants import MAX_LEVEL, STEM_RATE_HZ
from heartvoice.contracts.encoding import encode_text
from heartvoice.contracts.field_checks import (
    STEMS_LIMITS_S,
    RecordingInputs,
    check_finite,
    read_int,
    read_settings,
    read_text,
)
from heartvoice.contracts.models import DEMUCS
from heartvoice.contracts.validation import check_separation
from heartvoice.errors import InvalidRequestError
from heartvoice.stages.separation.plan import Plan

Samples = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SeparationRequest:
    """Audio to separate."""

    audio: Samples
    """float32 [2, N] at 44.1 kHz, of which the first `context` samples are only read."""
    context: int = 0
    carry: Samples | None = None
    """float32 [S', 2, O]: what the request before this one left unfinished, for the same sources."""
    sources: tuple[str, ...] = ()
    """Wanted stems in the order of the answer; none means all."""
    more: bool = False
    """Another request follows: the audio ends where a segment does (see `Plan.spans`)."""
    warnings: tuple[str, ...] = ()
    """Possible faults of the recording."""

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array], sizes: AnySeparator) -> SeparationRequest:
        """Read and check a request's tensors. A recording at another rate is resampled.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        check_separation(inputs)
        more = bool(read_settings(inputs, DEMUCS.settings)["more"])
        sources = _read_sources(inputs, sizes)
        recording = read_recording(inputs, RecordingInputs(limits_s=STEMS_LIMITS_S))
        context, carry = read_int(inputs, "context", 0), inputs.get("carry")
        if not 0 <= context < recording.audio.shape[1]:
            raise InvalidRequestError(f"context: expected 0 to {recording.audio.shape[1] - 1} samples, got {context}")
        if (context or more or carry is not None) and recording.sample_rate_hz != STEM_RATE_HZ:
            raise InvalidRequestError(
                f"sample_rate: expected {STEM_RATE_HZ} for a recording in several requests, "
                f"got {recording.sample_rate_hz}"
            )
        if carry is not None:
            check_finite("carry", carry, most=MAX_LEVEL)
            if carry.shape[0] != len(sources):
                raise InvalidRequestError(f"carry: expected {len(sources)} sources, got {carry.shape[0]}")
            carry = carry.astype(np.float32)
        audio = resample(recording.stereo(), recording.sample_rate_hz, STEM_RATE_HZ)
        return cls(audio, context, carry, sources, more, recording.warnings)

    def to_inputs(self) -> dict[str, Array]:
        """The request as tensors of the contract; the reverse of `from_inputs`."""
        inputs: dict[str, Array] = {
            "audio": self.audio,
            "sample_rate": np.array([STEM_RATE_HZ]),
            "context": np.array([self.context]),
            "more": np.array([self.more]),
            "sources": encode_text(",".join(self.sources)),
        }
        if self.carry is not None:
            inputs["carry"] = self.carry
        return inputs

    def check(self, sizes: AnySeparator, plan: Plan) -> None:
        """Refuse a request that the separator cannot serve.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        shape = list(self.audio.shape)
        if self.audio.dtype != np.float32 or self.audio.ndim != 2 or shape[0] != 2:
            raise InvalidRequestError(f"audio: expected float32 [2, sample], got {self.audio.dtype} {shape}")
        n_new = shape[1] - self.context
        if self.context < 0 or n_new < 1:
            raise InvalidRequestError(f"context: expected 0 <= context < {shape[1]} samples, got {self.context}")
        check_finite("audio", self.audio)
        _check_known(self.sources, sizes)
        if len(set(self.sources)) != len(self.sources):
            raise InvalidRequestError(
                f"sources: expected different ones of {', '.join(sizes.sources)}, got {', '.join(self.sources)}"
            )
        self._check_carry(len(self.sources or sizes.sources), plan)
        fault = plan.fault(n_new, self.context, carried=self.carry is not None, more=self.more)
        if fault:
            raise InvalidRequestError(fault)

    def _check_carry(self, n_sources: int, plan: Plan) -> None:
        if self.carry is None:
            if self.context:
                raise InvalidRequestError(f"carry: missing, expected with a context of {self.context} samples")
            return
        expected = [n_sources, 2, plan.overlap]
        if self.carry.dtype != np.float32 or list(self.carry.shape) != expected:
            raise InvalidRequestError(
                f"carry: expected float32 {expected}, got {self.carry.dtype} {list(self.carry.shape)}"
            )
        check_finite("carry", self.carry)


def _read_sources(inputs: Mapping[str, Array], sizes: AnySeparator) -> tuple[str, ...]:
    """The wanted sources in the model's order; all if none is named."""
    named = [name.strip() for name in read_text(inputs, "sources").split(",") if name.strip()]
    _check_known(named, sizes)
    return tuple(name for name in sizes.sources if not named or name in named)


def _check_known(names: Sequence[str], sizes: AnySeparator) -> None:
    """Refuse sources that this separator lacks, and say which one has them.

    Raises:
        InvalidRequestError: names the engine and its sources, and the engines that have the others.
    """
    unknown = [name for name in names if name not in sizes.sources]
    if not unknown:
        return
    message = f"sources: expected some of {', '.join(sizes.sources)} ({sizes.engine}), got {', '.join(unknown)}"
    having = [name for name, other in SEPARATORS.items() if set(unknown) <= set(other.sources)]
    if having:
        choices = " or ".join(f"`heartvoice export --separator {name}`" for name in having)
        message += f"; a server has them after {choices}"
    raise InvalidRequestError(message)


@dataclass(frozen=True, eq=False)
class Carry:
    """The last item of a request with `more`: `carry` float32 [S', 2, O] belongs into the next request."""

    carry: Samples
