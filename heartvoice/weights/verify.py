"""Checks a weights folder against its lock without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from heartvoice.errors import CheckpointError
from heartvoice.weights.catalogue import WeightSet
from heartvoice.weights.lock import LOCK, Lock, check


@dataclass(frozen=True)
class Verified:
    """The result for one file."""

    path: str
    """Path below the weights folder."""
    problem: str | None
    """The difference from the record; None if there is none."""


def verify(folder: Path, sets: Sequence[WeightSet], checking: Callable[[str], None]) -> Iterator[Verified]:
    """Hash every recorded file, and find files without a record.

    Args:
        folder: the weights folder.
        sets: all weight sets.
        checking: called with each path before it is read.

    Raises:
        CheckpointError: there is no lock, or it is damaged.
    """
    lock, known = Lock.read(folder), {weights.name: weights for weights in sets}
    if not lock.sets:
        raise CheckpointError(f"{folder}: has no {LOCK}: nothing has been pulled there")
    for name, entry in lock.sets.items():
        for path, file in entry.files.items():
            if not (folder / path).is_file():
                yield Verified(path, "missing")
                continue
            checking(path)
            try:
                check(folder / path, file, known.get(name), label=path)
            except CheckpointError as error:
                yield Verified(path, str(error).removeprefix(f"{path}: "))
            else:
                yield Verified(path, None if file.sha256 else f"its sha256 is not recorded in {LOCK}: pull again")
    for path in _unrecorded(folder, sets, lock):
        yield Verified(path, f"not recorded in {LOCK}")


def _unrecorded(folder: Path, sets: Sequence[WeightSet], lock: Lock) -> list[str]:
    """Return files of the sets' folders or names without a record; hidden files are ignored."""
    recorded = {path for entry in lock.sets.values() for path in entry.files}
    found = {path.relative_to(folder).as_posix() for weights in sets for path in _places(folder, weights)}
    return sorted(path for path in found - recorded if not any(part.startswith(".") for part in Path(path).parts))


def _places(folder: Path, weights: WeightSet) -> Iterator[Path]:
    """Return all paths that the export could read for a set."""
    places = (
        (folder / name for name in weights.files) if weights.folder == "." else (folder / weights.folder).rglob("*")
    )
    return (path for path in places if path.is_file())
