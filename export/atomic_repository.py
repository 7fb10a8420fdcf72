"""Replaces a repository's models atomically: all prepared models are moved in, or none."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from heartvoice.errors import ExportError
from heartvoice.file_errors import write_file
from heartvoice.runtime.repository import INDEX


class Staging:
    """Models prepared in a sibling folder of the repository; `commit` moves them in."""

    def __init__(self, repository: Path, root: Path) -> None:
        """Use `staged`."""
        self.repository, self.root = repository, root
        self._new, self._old = root / "new", root / "old"
        self._new.mkdir(parents=True)
        self._old.mkdir()

    def folder(self, model: str) -> Path:
        """Create an empty folder for a model, with its version folder `1`."""
        folder = self._new / model
        (folder / "1").mkdir(parents=True)
        return folder

    def discard(self, model: str) -> None:
        """Remove the prepared folder of a model."""
        shutil.rmtree(self._new / model)

    def commit(self, index: str, gone: Iterable[str] = ()) -> None:
        """Replace the models by the prepared ones, then write the index; restore the old state on failure.

        Args:
            index: its text.
            gone: models that the repository does not have any more.

        The index is absent while models are moved, so a reader never sees a mixture as a finished export.
        """
        current = self.repository / INDEX
        if not any(self._new.iterdir()) and current.is_file() and current.read_text(encoding="utf-8") == index:
            return
        done: list[str] = []
        old_index = self._old / INDEX
        try:
            if current.exists():
                current.replace(old_index)
            for model in sorted(path.name for path in self._new.iterdir()):
                if (self.repository / model).exists():
                    (self.repository / model).replace(self._old / model)
                done.append(model)
                (self._new / model).replace(self.repository / model)
            for model in gone:
                if (self.repository / model).exists():
                    (self.repository / model).replace(self._old / model)
            write_file(self.root / INDEX, index)
            (self.root / INDEX).replace(current)
        except BaseException:
            for model in done:
                if (self.repository / model).exists():
                    (self.repository / model).replace(self._new / model)
            restore(self.repository, self._old)
            raise


def restore(repository: Path, old: Path) -> None:
    """Move back the models that an unfinished commit had put aside."""
    if not old.is_dir():
        return
    for path in sorted(old.iterdir(), key=lambda entry: entry.name == INDEX):  # the index last
        target = repository / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)


@contextlib.contextmanager
def staged(repository: Path) -> Iterator[Staging]:
    """Lock a repository, create it if it is missing, and stage changes to it.

    A commit that was killed half-way is undone first.

    Raises:
        ExportError: another export is running there.
    """
    created = _make(repository)
    root = repository.parent / f".{repository.name}.export"
    handle = os.open(repository, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportError(f"{repository}: another export is running there") from None
        try:
            if not (repository / INDEX).exists():
                restore(repository, root / "old")
            shutil.rmtree(root, ignore_errors=True)
            yield Staging(repository, root)
        finally:
            shutil.rmtree(root, ignore_errors=True)
    finally:
        os.close(handle)
        for folder in created:
            with contextlib.suppress(OSError):  # not empty: the export succeeded
                folder.rmdir()


def _make(repository: Path) -> list[Path]:
    """Create the folder with its parents; return the new folders, innermost first."""
    missing = []
    folder = repository
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    repository.mkdir(parents=True, exist_ok=True)
    return missing
