"""Files that appear together, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from heartvoice.audio.encode import PartFile, replaceable


class AtomicFiles:
    """A block in which files are filled under hidden names, until `place` gives all of them their own.

    Whatever has no name of its own when the block ends vanishes. Existing files are replaced by `place` and not before.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._parts: list[PartFile] = []
        self._stale: list[Path] = []

    def make_folder(self, path: Path) -> None:
        """Make a folder if there is none; it vanishes with the block if it is empty then."""
        if not path.exists():
            path.mkdir()
            self._stack.callback(_remove_empty, path)

    @contextmanager
    def open(self, path: Path) -> Iterator[IO[bytes]]:
        """The file that will be `path`, open; on disk when this inner block ends.

        Raises:
            InvalidRequestError: no file can go there.
            OSError: naming `path`.
        """
        part = self._stack.enter_context(PartFile(replaceable(path)))
        with part.filling() as file:
            yield file
        self._parts.append(part)

    @contextmanager
    def exchange(self, path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Yield the file that was filled for `path`, and an empty one that takes its place if the block succeeds.

        If it fails, the filled file stays, and the other one vanishes at once, with the space that it took.

        Raises:
            OSError: naming `path`.
        """
        index = next(index for index, part in enumerate(self._parts) if part.path == replaceable(path))
        with ExitStack() as attempt:
            new, old = attempt.enter_context(PartFile(self._parts[index].path)), self._parts[index]
            with old.filled() as source, new.filling() as target:
                yield source, target
            old.remove()
            self._stack.enter_context(attempt.pop_all())
        self._parts[index] = new

    def drop(self, path: Path) -> None:
        """Have `place` remove what belongs to a file that it replaces."""
        self._stale.append(path)

    def place(self) -> None:
        """Give every file its name; if one cannot have it, those that have replaced nothing vanish again.

        Raises:
            OSError: naming the file.
        """
        with ExitStack() as undo:
            for part in self._parts:
                is_new = not part.path.exists()
                part.place()
                if is_new:
                    undo.callback(part.path.unlink)
            undo.pop_all()
        for path in self._stale:
            path.unlink(missing_ok=True)

    def __enter__(self) -> AtomicFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _remove_empty(path: Path) -> None:
    with suppress(OSError):  # not empty: the files, or what someone else has put there
        path.rmdir()
