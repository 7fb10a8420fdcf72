"""The stage that marks a job's finished mix, and the refusal of references that carry the mark."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from heartvoice.arrays import Array
from heartvoice.audio.recordings import Recording
from heartvoice.contracts.field_checks import read_text
from heartvoice.contracts.messages import AudioChunk, Message, StemsChunk
from heartvoice.contracts.tensors import CALLER
from heartvoice.errors import InvalidRequestError
from heartvoice.pipeline.chunks import split_audio
from heartvoice.pipeline.context import JobContext
from heartvoice.watermark import ALGORITHM, Evidence, Marker, pattern_keys, payload_of

_NOT_HEARD = frozenset({"events", "return_codes", "stems"})
"""Settings that change what is sent beside the mix, and not the mix."""
STEMS_ADD_UP_TO = "the audio before its watermark"
"""Said of stems in the report."""


@dataclass(frozen=True)
class Watermark:
    """What a server marks its songs with.

    Attributes:
        key: the operator's secret, of `watermark.read_key`.
        weights: hash of the networks' weights.
        caller: who asks, by a gateway's word; empty without one.
    """

    key: bytes = field(repr=False)
    weights: str
    caller: bytes = b""

    def of_caller(self, inputs: Mapping[str, Array]) -> Watermark:
        """Return the watermark of whom a request comes from, by its tensors."""
        return replace(self, caller=read_text(inputs, CALLER.name).encode())

    def mark(self, kind: str, inputs: Mapping[str, Array], *, limited: bool) -> Mark:
        """Return the mark of a request: the same for the same caller, on every server with key and weights.

        Args:
            kind: `watermark.keys.SONG` or `COVER`.
            inputs: the checked request as tensors, with all its settings.
            limited: the mix is limited, and stays below the ceiling with its mark.
        """
        payload = payload_of(self.key, kind.encode(), self.caller, _digest(inputs), self.weights.encode())
        return Mark(pattern_keys(self.key)[kind], payload, limited)


@dataclass(frozen=True)
class Mark:
    """The mark of one job: key of its pattern, payload of 32 bits, and whether its mix is limited."""

    key: bytes = field(repr=False)
    payload: int
    limited: bool

    @property
    def facts(self) -> dict[str, Any]:
        """The report's fields."""
        return {"on": True, "alg": ALGORITHM, "payload": f"{self.payload:08x}"}


def mark_mix(
    messages: Generator[Message, None, None],
    mark: Mark | None,
    context: JobContext,
    *,
    generated: Callable[[], bool] = lambda: True,
) -> Generator[Message, None, None]:
    """Mark the audio among a pipeline's messages; everything else passes, stems too.

    The samples do not depend on how the audio was cut into chunks. The mark comes a few tenths of a second late.

    Args:
        messages: of the pipeline that makes the mix.
        mark: None marks nothing.
        context: of the job; its report gets the field `watermark`.
        generated: asked with the first audio; false if that is a recording as it was, which is not marked.
    """
    marker: Marker | None = None
    n_sent, stems = 0, False
    with closing(messages):
        for message in messages:
            if not isinstance(message, AudioChunk):
                stems = stems or isinstance(message, StemsChunk)
                yield message
                continue
            if mark is not None and message.start == 0 and generated():
                marker = Marker(mark.key, mark.payload, limited=mark.limited)
            if marker is None:
                yield message
                continue
            with context.timed("watermark_s"):
                audio = marker.push(message.audio)
            yield from split_audio(audio, n_sent)
            n_sent += audio.shape[1]
    if marker is None or mark is None:
        context.report["watermark"] = {"on": False}
        return
    with context.timed("watermark_s"):
        audio = marker.finish()
    yield from split_audio(audio, n_sent)
    context.report["watermark"] = {**mark.facts, **({"stems_add_up_to": STEMS_ADD_UP_TO} if stems else {})}


def check_reference(watermark: Watermark | None, reference: Recording, mode: str) -> dict[str, Any]:
    """Look for the server's own mark in a reference: a voice that was generated here is nobody's.

    Args:
        watermark: None looks for nothing.
        reference: as it was sent.
        mode: one of `REFERENCE_CHECK_MODES`; `off` reports the mark and refuses nothing.

    Returns:
        The report's fields of a mark that was found; else nothing.

    Raises:
        InvalidRequestError: the reference carries the mark.
    """
    if watermark is None:
        return {}
    evidence = Evidence(reference.audio, reference.sample_rate_hz)
    found = evidence.detect(watermark.key, speeds=False)  # speeds would take seconds
    if not found.found:
        return {}
    if mode != "off":
        raise InvalidRequestError(
            f"voice: expected a recording of a person, got sound that this server generated: it carries its watermark "
            f"(score {found.score:.1f}, at least {found.threshold:.1f}); reference_check can be off"
        )
    return {"watermark": found.as_fields()}


def _digest(inputs: Mapping[str, Array]) -> bytes:
    """SHA-256 of a request's tensors, by name, but for those that do not change the mix."""
    digest = hashlib.sha256()
    for name in sorted(set(inputs) - _NOT_HEARD):
        values = inputs[name]
        for part in (name.encode(), str(values.dtype).encode(), str(values.shape).encode(), *_contents(values)):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.digest()


def _contents(values: Array) -> Iterable[bytes]:
    return values.reshape(-1).tolist() if values.dtype == object else [values.tobytes()]
