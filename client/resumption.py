"""Continues a stream that is repeated after its process died, where it broke off."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

import numpy as np

from heartvoice.client.messages import Chunk, Event, Report, StemsReport
from heartvoice.client.retries import RetryState
from heartvoice.errors import EngineError

M = TypeVar("M")


class Resumption(Generic[M]):
    """What a stream has delivered in all of its tries.

    A request with the same seed gives the same samples. A repeated stream is therefore skipped up to where the one
    before it ended. What is skipped is compared with what was delivered, by a hash of either.
    """

    def __init__(self, attempts: RetryState) -> None:
        self._attempts = attempts
        self._delivered: dict[str, _Payload] = {}
        self._repeated: dict[str, _Payload] = {}
        """What this try has repeated; it ends where the try before broke off."""
        self._broken_at: dict[str, int] = {}
        self._events: dict[str, Event] = {}
        self._began_s, self._seconds = 0.0, 0.0

    def begin(self) -> None:
        """Begin a try."""
        self._repeated = {name: _Payload() for name in self._delivered}
        self._broken_at = {name: payload.length for name, payload in self._delivered.items()}
        self._began_s = 0.0 if self._attempts.count == 1 else self._attempts.elapsed_s

    def new(self, message: M) -> M | None:
        """The part of a checked message that was not delivered before; None if all of it was.

        Progress never goes back: a repeated event has the furthest numbers so far.

        Raises:
            EngineError: the repeated stream is another than the one that broke off.
        """
        # The types of M: a message is one of these, and its part is of the same class.
        if isinstance(message, Chunk):
            return self._chunk(message)  # type: ignore[return-value]
        if isinstance(message, Event):
            return self._event(message)  # type: ignore[return-value]
        if isinstance(message, Report | StemsReport):
            self._check_length()
            return message.with_attempts(self._attempts.count)  # type: ignore[return-value]
        return message

    def _chunk(self, chunk: Chunk) -> Chunk | None:
        name = chunk.output
        delivered = self._delivered.setdefault(name, _Payload())
        n_known = min(max(delivered.length - chunk.start, 0), chunk.length)
        if n_known:
            repeated = self._repeated[name]
            repeated.add(chunk.payload[..., :n_known])
            if repeated.length == delivered.length and repeated.digest() != delivered.digest():
                raise EngineError(
                    f"{name}: the repeated job differs from the {delivered.length} {_unit(name)} that were delivered "
                    "before its process died; start it anew"
                )
        rest = chunk.payload[..., n_known:]
        if not rest.shape[-1]:
            return None
        if self._attempts.may_repeat:
            delivered.add(rest)
        if not n_known:
            return chunk
        make: Callable[[Any, int], Chunk] = type(chunk)
        return make(rest, chunk.start + n_known)

    def _event(self, event: Event) -> Event:
        before = self._events.get(event.stage, event)
        self._seconds = max(self._seconds, self._began_s + event.seconds)
        furthest = replace(
            event, done=max(before.done, event.done), total=max(before.total, event.total), seconds=self._seconds
        )
        self._events[event.stage] = furthest
        return furthest

    def _check_length(self) -> None:
        for name, expected in self._broken_at.items():
            repeated = self._repeated[name]
            if repeated.length < expected:
                raise EngineError(
                    f"{name}: the repeated job ended after {repeated.length} {_unit(name)}, {expected} had been "
                    "delivered before its process died; start it anew"
                )


class _Payload:
    """Length and hash of a payload, whatever chunks it comes in."""

    def __init__(self) -> None:
        self.length = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, payload: Any) -> None:
        self.length += payload.shape[-1]
        self._hash.update(np.ascontiguousarray(np.moveaxis(payload, -1, 0)).data)

    def digest(self) -> bytes:
        return self._hash.digest()


def _unit(output: str) -> str:
    return "frames" if output == "CODES" else "samples"
