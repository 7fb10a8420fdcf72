"""Fetches weight sets into a folder: plan, check the disk, fetch missing files, check every hash."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from heartvoice.errors import CheckpointError, ModelUnavailableError
from heartvoice.weights.catalogue import WeightSet
from heartvoice.weights.hub import Publisher
from heartvoice.weights.lock import LOCK, Lock, LockedSet, WeightFile, check, check_known

INCOMPLETE = ".incomplete"
"""Folder of partial files, named by their final content."""
_SPARE = 64 * 2**20
"""Bytes that must stay free."""


class Reporter(Protocol):
    """Progress callbacks of a pull."""

    def fetching(self, path: str) -> None:
        """Report that a download starts or resumes."""

    def advance(self, n_bytes: int) -> None:
        """Report the number of new bytes; negative if bytes must be fetched again."""

    def checking(self, path: str) -> None:
        """Report that a file is being hashed."""


@dataclass
class Plan:
    """The work of a pull."""

    folder: Path
    publisher: Publisher
    lock: Lock
    missing: list[tuple[WeightSet, str]] = field(default_factory=list)
    """Sets and paths of files to fetch."""
    present: list[tuple[WeightSet, str]] = field(default_factory=list)
    """Sets and paths of existing files to check against their hashes."""
    card_licences: dict[str, str] = field(default_factory=dict)
    """Licences of the current model cards, for the sets that were looked up."""

    @property
    def n_bytes(self) -> int:
        """Bytes of the files to fetch, including the bytes already fetched."""
        return sum(self._file(weights, path).size for weights, path in self.missing)

    def sets(self) -> list[WeightSet]:
        """Sets with files to fetch."""
        return list(dict.fromkeys(weights for weights, _ in self.missing))

    def check_space(self) -> None:
        """Refuse a pull that would fill the disk before the first byte.

        Raises:
            ModelUnavailableError: names both numbers.
        """
        partials = ((self._file(weights, path), self._partial(weights, path)) for weights, path in self.missing)
        needed = sum(file.size - min(_size(partial), file.size) for file, partial in partials)
        free = shutil.disk_usage(self.folder).free
        if needed and needed + _SPARE > free:
            raise ModelUnavailableError(
                f"{self.folder}: {needed / 1e9:.2f} GB are to come and {_SPARE / 1e9:.2f} GB must stay free, "
                f"but only {free / 1e9:.2f} GB are"
            )

    def run(self, reporter: Reporter) -> None:
        """Fetch and check the files. After an error or Ctrl-C the next run resumes where this one stopped.

        Raises:
            CheckpointError: a file differs from its recorded, stated or known facts; it is never moved into place.
            ModelUnavailableError: the publisher cannot be reached, or aborts the transfer.
        """
        self.lock.write()  # The revision is fixed from now on, even if another is published meanwhile.
        for weights, path in self.present:
            reporter.checking(path)
            self._record(weights, path, self._checked(weights, path))
        for weights, path in self.missing:
            self._fetch(weights, path, reporter)
        with contextlib.suppress(OSError):  # the folder is missing, or has another set's partial files
            (self.folder / INCOMPLETE).rmdir()

    def _checked(self, weights: WeightSet, path: str) -> str:
        try:
            return check(self.folder / path, self._file(weights, path), weights)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; it is left as it is: move it away to have it fetched") from error

    def _fetch(self, weights: WeightSet, path: str, reporter: Reporter) -> None:
        file, partial = self._file(weights, path), self._partial(weights, path)
        partial.parent.mkdir(exist_ok=True)
        reporter.fetching(path)
        self.publisher.fetch(weights, self.lock.sets[weights.name].revision, file, partial, reporter.advance)
        reporter.checking(path)
        try:
            found = check(partial, file, weights, label=f"{weights.title}: {file.source}")
        except CheckpointError:
            partial.unlink()  # no partial file is worth keeping
            raise
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # The hash is recorded first, so a file in place always has a record.
        self._record(weights, path, found)
        partial.replace(target)

    def _record(self, weights: WeightSet, path: str, sha256: str) -> None:
        file = self._file(weights, path)
        if file.sha256 is None:
            self.lock.sets[weights.name].files[path] = replace(file, sha256=sha256)
            self.lock.write()

    def _file(self, weights: WeightSet, path: str) -> WeightFile:
        return self.lock.sets[weights.name].files[path]

    def _partial(self, weights: WeightSet, path: str) -> Path:
        """Return the partial file, named by its content hash if stated, so that revisions are never mixed."""
        file = self._file(weights, path)
        return self.folder / INCOMPLETE / f"{file.sha256 or file.git_blob or file.source}.part"


def plan(folder: Path, sets: Sequence[WeightSet], publisher: Publisher) -> Plan:
    """Determine the missing files. A complete set needs no network.

    Args:
        folder: the existing weights folder.
        sets: the requested sets.
        publisher: the source of the files.

    Raises:
        CheckpointError: the published files differ from `weights.lock` or from the known hashes.
        ModelUnavailableError: a publisher cannot be reached.
    """
    made = Plan(folder, publisher, Lock.read(folder))
    for weights in sets:
        if made.lock.missing(weights.name) != []:
            locked = made.lock.sets.get(weights.name)
            listing = publisher.listing(weights, locked.revision if locked else None)
            made.lock.sets[weights.name] = _held(weights, locked, listing.entry)
            if listing.licence:
                made.card_licences[weights.name] = listing.licence
        for path in made.lock.sets[weights.name].files:
            (made.present if (folder / path).is_file() else made.missing).append((weights, path))
    return made


def _held(weights: WeightSet, locked: LockedSet | None, listed: LockedSet) -> LockedSet:
    """Check listed files against known and recorded ones, and keep the recorded hashes."""
    for path, file in listed.files.items():
        check_known(weights, file.source, file.sha256, f"{weights.title}: {path}")
    if locked is None:
        return listed
    if locked.origin != listed.origin:
        raise CheckpointError(f"{LOCK}: {weights.name}: expected origin {locked.origin}, got {listed.origin}")
    for path, old in locked.files.items():
        new = listed.files.get(path)
        if new is None:
            raise CheckpointError(f"{weights.title}: {path}: recorded in {LOCK}, but published no longer")
        for name in ("size", "sha256", "git_blob"):
            expected, got = getattr(old, name), getattr(new, name)
            if None not in (expected, got) and expected != got:
                what = name.replace("_", " ")
                raise CheckpointError(f"{weights.title}: {path}: expected {what} {expected} ({LOCK}), got {got}")
    return replace(listed, files={**listed.files, **locked.files})


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Create the weights folder if it is missing, and lock it against other pulls.

    Raises:
        ModelUnavailableError: another pull is running there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelUnavailableError(f"{folder}: another pull is running there") from None
        yield
    finally:
        os.close(handle)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
