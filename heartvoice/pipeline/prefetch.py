"""An iterator that runs ahead of its consumer in its own thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from heartvoice.runtime.networks import Check, never_cancelled

T = TypeVar("T")
_END = object()
_PUT_TIMEOUT_S = 0.05


class Timeout:
    """`Prefetcher.next` returns it if no item came in time."""


TIMEOUT = Timeout()


class Prefetcher(Generic[T]):
    """Runs an iterator in a thread, at most `max_ahead` items before its consumer. Use as a context manager.

    What the iterator raises is raised in the consumer. When the block ends, the thread stops at its next item.
    """

    def __init__(
        self,
        source: Callable[[], Iterable[T]],
        *,
        name: str,
        max_ahead: int = 0,
        check: Check = never_cancelled,
    ) -> None:
        """Prepare the thread; the block's begin starts it.

        Args:
            source: makes the iterator, in the thread.
            name: of the thread.
            max_ahead: items that may wait for the consumer; 0 sets no limit.
            check: called by the consumer before each item and while it waits. What it raises ends the iteration.
        """
        self._items: queue.Queue[object] = queue.Queue(max_ahead)
        self._stop = threading.Event()
        self._source, self._check = source, check
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __enter__(self) -> Prefetcher[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _work(self) -> None:
        try:
            for item in self._source():
                if not self._put(item):
                    return
            self._put(_END)
        except BaseException as error:  # handed to the consumer, which raises it
            self._put(_Failure(error))

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._items.put(item, timeout=_PUT_TIMEOUT_S)
                return True
            except queue.Full:
                continue
        return False

    def next(self, timeout_s: float) -> T | Timeout | None:
        """The next item; TIMEOUT if none came within `timeout_s`, None at the end."""
        try:
            item = self._items.get(timeout=timeout_s)
        except queue.Empty:
            return TIMEOUT
        if isinstance(item, _Failure):
            raise item.error
        return None if item is _END else item  # type: ignore[return-value]

    def poll(self, *, tick_s: float = 0.25) -> Iterator[T | Timeout]:
        """All items, and TIMEOUT whenever `tick_s` passed without one."""
        while True:
            self._check()
            item = self.next(tick_s)
            if item is None:
                return
            yield item

    def items(self) -> Iterator[T]:
        """All items."""
        for item in self.poll():
            if not isinstance(item, Timeout):
                yield item


class _Failure:
    """An exception on its way to the consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
