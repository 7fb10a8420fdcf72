"""Caches voices by least recent use; concurrent requests for one voice compute it once."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from heartvoice.errors import EngineError, ModelUnavailableError, RequestCancelledError
from heartvoice.runtime.networks import Check, never_cancelled

DEFAULT_LIMIT_BYTES = 512 * 2**20
"""About 120 voices of 12 s at full size."""
DEFAULT_WAIT_S = 120.0
FORGOTTEN_S = 3600.0
"""A voice that was forgotten is not kept again for so long: by jobs that had it already."""
_TICK_S = 0.05


class _Kept(Protocol):
    """A cacheable value."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        ...


V = TypeVar("V", bound=_Kept)


def pcm_sha256(audio44: NDArray[np.float32]) -> str:
    """Name of a reference: of float32 [N] mono at 44.1 kHz, as little-endian bytes."""
    return hashlib.sha256(np.ascontiguousarray(audio44, "<f4").tobytes()).hexdigest()


def voice_key(pcm: str, preset: str, prompt_s: float) -> str:
    """Return the key of a voice, from its reference (`pcm_sha256`), its preset and the prompt's length.

    It begins with `key_group`, which is the reference's alone.
    """
    return key_group(pcm) + hashlib.sha256(f"{len(preset)}:{preset}/{float(prompt_s)!r}".encode()).hexdigest()


def key_group(pcm: str) -> str:
    """Return the beginning of all keys of a reference, from its `pcm_sha256`: a hash, of one length for all."""
    return hashlib.sha256(pcm.encode()).hexdigest()


class VoiceCache(Generic[V]):
    """Values by key, up to a number of bytes. May be used from several threads."""

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT_BYTES, *, now: Callable[[], float] = time.monotonic) -> None:
        """A value that is larger than the limit by itself is handed out and not kept."""
        self._limit, self._now = limit_bytes, now
        self._forgotten: dict[str, float] = {}
        """When each group of keys was forgotten."""
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, V] = OrderedDict()
        self._pending: dict[str, Future[V]] = {}
        self._n_bytes = self._hits = self._misses = 0

    def find(self, key: str) -> V | None:
        """A voice that is there, without making it; None if it is not."""
        with self._lock:
            return self._taken(key)

    def get(
        self,
        key: str,
        make: Callable[[], V],
        *,
        check: Check = never_cancelled,
        wait_s: float = DEFAULT_WAIT_S,
    ) -> V:
        """A voice, made if it is not there.

        Args:
            key: see `voice_key`.
            make: makes it; called by one of all that ask for the same key at once, without a lock.
            check: called while another one makes it. `make` looks after itself.
            wait_s: longest wait for another one.

        Raises:
            RequestCancelledError: `check` raised it.
            ModelUnavailableError: the wait was too long.
            Exception: what `make` raised, in all that waited for it, and nothing is kept. That its own request was
                cancelled concerns no other: one that waits makes the voice then.
        """
        deadline = time.monotonic() + wait_s
        while True:
            with self._lock:
                value = self._taken(key)
                if value is not None:
                    return value
                pending = self._pending.get(key)
                if pending is None:
                    mine = self._pending[key] = Future()
                    self._misses += 1
                    break
            found = _waited_for(pending, key, check, deadline)
            if found is not None:
                return found
        return self._made(key, mine, make)

    def forget(self, group: str) -> int:
        """Drop what is kept under all keys of a group, and return how much that was.

        What is being made is handed out to those that wait for it, and not kept; neither is what is made of the group
        in the next `FORGOTTEN_S`.

        Args:
            group: see `key_group`.
        """
        with self._lock:
            self._forgotten[group] = self._now()
            found = [key for key in self._entries if key.startswith(group)]
            for key in found:
                self._n_bytes -= self._entries.pop(key).nbytes
            return len(found)

    def report(self) -> dict[str, Any]:
        """Voices and bytes that are kept, how often one was found and how often made."""
        with self._lock:
            return {
                "voices": len(self._entries), "bytes": self._n_bytes, "hits": self._hits, "misses": self._misses,
            }  # fmt: skip

    def _taken(self, key: str) -> V | None:
        """The kept value, now the most recent; call with the lock held."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
            self._hits += 1
        return value

    def _made(self, key: str, mine: Future[V], make: Callable[[], V]) -> V:
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            # An interrupt is this thread's own; the others hear that there is no voice.
            mine.set_exception(error if isinstance(error, Exception) else EngineError(f"svc: {error!r}"))
            raise
        with self._lock:
            del self._pending[key]
            self._keep(key, value)
        mine.set_result(value)
        return value

    def _keep(self, key: str, value: V) -> None:
        if value.nbytes > self._limit or self._is_forgotten(key):
            return
        self._entries[key] = value
        self._n_bytes += value.nbytes
        while self._n_bytes > self._limit:
            self._n_bytes -= self._entries.popitem(last=False)[1].nbytes

    def _is_forgotten(self, key: str) -> bool:
        since = self._now() - FORGOTTEN_S
        self._forgotten = {group: at for group, at in self._forgotten.items() if at >= since}
        return any(key.startswith(group) for group in self._forgotten)


def _waited_for(pending: Future[V], key: str, check: Check, deadline: float) -> V | None:
    """Wait for what another request makes; None if that was cancelled."""
    while not wait([pending], min(_TICK_S, max(0.0, deadline - time.monotonic()))).done:
        check()
        if time.monotonic() >= deadline:
            raise ModelUnavailableError(f"svc: voice {key[:12]} is still being listened to by another request")
    try:
        return pending.result()
    except RequestCancelledError:
        return None
