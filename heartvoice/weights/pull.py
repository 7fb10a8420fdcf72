"""Fetch sets of weights into a folder: plan, check the disk, fetch what is missing, hold every byte to its hash."""

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
"""Folder of files that are not whole yet, by what they will be."""
_SPARE = 64 * 2**20
"""Bytes that must stay free."""


class Reporter(Protocol):
    """Is told how a pull gets on."""

    def fetching(self, path: str) -> None:
        """A download starts, or goes on."""

    def advance(self, n_bytes: int) -> None:
        """So many bytes more have come; fewer than none if they have to come again."""

    def checking(self, path: str) -> None:
        """A file is being hashed."""


@dataclass
class Plan:
    """What a pull will do."""

    folder: Path
    publisher: Publisher
    lock: Lock
    missing: list[tuple[WeightSet, str]] = field(default_factory=list)
    """Sets and paths of files to fetch."""
    present: list[tuple[WeightSet, str]] = field(default_factory=list)
    """Sets and paths of files that are there, to be held to their hashes."""
    card_licences: dict[str, str] = field(default_factory=dict)
    """Licences as model cards state them now, of sets that had to be looked up."""

    @property
    def n_bytes(self) -> int:
        """Of the files to fetch, with what has come already."""
        return sum(self._file(weights, path).size for weights, path in self.missing)

    def sets(self) -> list[WeightSet]:
        """Those of which something is to be fetched."""
        return list(dict.fromkeys(weights for weights, _ in self.missing))

    def check_space(self) -> None:
        """Refuse before the first byte what would fill the disk.

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
        """Carry it out. After an error or Ctrl-C the next run goes on where this one stopped.

        Raises:
            CheckpointError: a file is not what is recorded, stated or known; it is never put in place.
            ModelUnavailableError: the publisher cannot be reached, or breaks off.
        """
        self.lock.write()  # From now on the revision is decided, whatever is published while this runs.
        for weights, path in self.present:
            reporter.checking(path)
            self._record(weights, path, self._checked(weights, path))
        for weights, path in self.missing:
            self._fetch(weights, path, reporter)
        with contextlib.suppress(OSError):  # there is none, or another set's files are still on their way
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
            partial.unlink()  # nothing that could be built on
            raise
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # The hash first: a file that is in place is always one that is recorded.
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
        """Named by content where that is stated, so that bytes of another revision are never built on."""
        file = self._file(weights, path)
        return self.folder / INCOMPLETE / f"{file.sha256 or file.git_blob or file.source}.part"


def plan(folder: Path, sets: Sequence[WeightSet], publisher: Publisher) -> Plan:
    """Find out what is missing; a set that is complete is not asked about, so that it needs no network.

    Args:
        folder: the weights folder, which exists.
        sets: what is wanted.
        publisher: where it comes from.

    Raises:
        CheckpointError: what is published is not what `weights.lock` or heartvoice knows.
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
    """What is listed, held to what is known and to what is recorded; hashes that are recorded stay."""
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
    """Make the weights folder, if need be, and keep other pulls out of it.

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
