"""Deadlines of calls that name none: they grow with what is brought and asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from heartvoice.client.messages import DEFAULT_TIMEOUT_S, Event
from heartvoice.contracts.constants import FRAMES_PER_S
from heartvoice.contracts.field_checks import COVER_LIMITS_S
from heartvoice.contracts.models import MODELS
from heartvoice.contracts.settings import DURATION_S
from heartvoice.errors import DeadlineError

TIMEOUT_PER_S = 60.0
"""Seconds for each second of audio. A server that works at a sixtieth of real time is given its time. One that died is
noticed by its silence, and one that stands still by its lack of progress."""
PROGRESS_TIMEOUT_S = 600.0
"""A job that has begun must go on within so many seconds."""
_BYTES_PER_S = 4000
"""Bytes of an encoded file that are taken for a second. Few recordings have less."""
_WAITING = "queued"
"""Stage of a job that waits for its turn behind others, however long."""


def job_timeout_s(message: Any) -> float:
    """Return the seconds that a request is given by default.

    Args:
        message: a `ModelInferRequest`.
    """
    return DEFAULT_TIMEOUT_S + TIMEOUT_PER_S * length_s(message)


def length_s(message: Any) -> float:
    """Return the seconds of audio that a request brings or asks for; of an encoded file, about."""
    place = {tensor.name: index for index, tensor in enumerate(message.inputs)}

    def number(name: str, kind: str) -> float:
        return float(np.frombuffer(message.raw_input_contents[place[name]], kind)[0])

    if "file" in place:
        return min(COVER_LIMITS_S[1], len(message.raw_input_contents[place["file"]]) / _BYTES_PER_S)
    if "audio" in place:
        return float(message.inputs[place["audio"]].shape[-1] / number("sample_rate", "<i8"))
    if "codes" in place:
        return float(message.inputs[place["codes"]].shape[-1] / FRAMES_PER_S)
    if "duration_s" in place:
        return number("duration_s", "<f4")
    model = MODELS.get(message.model_name)
    return DURATION_S.default if model is not None and DURATION_S in model.settings else 0.0


class ProgressWatch:
    """Ends a stream whose job has begun and makes no progress, though the server lives and says so."""

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._clock = what, clock
        self._last: tuple[str, int, int] | None = None
        self._since: float | None = None

    def look(self, messages: Iterable[object]) -> None:
        """Take note of the next messages.

        Raises:
            DeadlineError: for `PROGRESS_TIMEOUT_S` they have been the same event.
        """
        for message in messages:
            if not isinstance(message, Event):
                self._since = self._clock()
                continue
            state = (message.stage, message.done, message.total)
            if state != self._last:
                self._last = state
                self._since = None if message.stage == _WAITING else self._clock()
        if self._since is not None and self._clock() - self._since > PROGRESS_TIMEOUT_S:
            raise DeadlineError(f"{self._what}: no progress for {PROGRESS_TIMEOUT_S:g} s, {self._described()}")

    def _described(self) -> str:
        return "after its audio" if self._last is None else "{} {} of {}".format(*self._last)
