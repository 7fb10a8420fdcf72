"""An iterator that works ahead in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()
_TICK_S = 0.05


class Timeout:
    """What `Prefetcher.next` returns while there is nothing yet."""


TIMEOUT = Timeout()


class Prefetcher(Generic[T]):
    """Runs an iterator in a thread, at most `max_ahead` items before its consumer. Use as a context manager.

    What the iterator raises is raised in the consumer. When the block ends, the thread stops at its next item.
    """

    def __init__(self, source: Callable[[], Iterable[T]], *, name: str, max_ahead: int = 0) -> None:
        """`max_ahead` 0 means as far as it gets."""
        self._items: queue.Queue[object] = queue.Queue(max_ahead)
        self._stop = threading.Event()
        self._source = source
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
                self._items.put(item, timeout=_TICK_S)
                return True
            except queue.Full:
                continue
        return False

    def next(self, timeout_s: float) -> T | Timeout | None:
        """The next item; WAITING after `timeout_s` without one, None at the end."""
        try:
            item = self._items.get(timeout=timeout_s)
        except queue.Empty:
            return TIMEOUT
        if isinstance(item, _Failure):
            raise item.error
        return None if item is _END else item  # type: ignore[return-value]

    def poll(self, check: Callable[[], None] = lambda: None, *, tick_s: float = 0.25) -> Iterator[T | Timeout]:
        """All items, and WAITING whenever `tick_s` passed without one; `check` is called before each."""
        while True:
            check()
            item = self.next(tick_s)
            if item is None:
                return
            yield item

    def items(self, check: Callable[[], None] = lambda: None) -> Iterator[T]:
        """All items; `check` is called while waiting, and what it raises ends the iteration."""
        for item in self.poll(check):
            if not isinstance(item, Timeout):
                yield item


class _Failure:
    """An exception on its way to the consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
