"""`weights.lock`: revision, size and sha256 of every file, recorded at its first use and enforced later."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from heartvoice.checkpoints.file_hash import sha256
from heartvoice.errors import CheckpointError
from heartvoice.file_errors import write_file
from heartvoice.weights.catalogue import WeightSet, fits

LOCK = "weights.lock"
_FORMAT = 1


@dataclass(frozen=True)
class WeightFile:
    """One published file; None where its publisher states nothing."""

    source: str
    """Published name."""
    size: int
    """Size in bytes."""
    sha256: str | None = None
    git_blob: str | None = None
    """git's blob hash, which the hub states for small files without a sha256."""


@dataclass
class LockedSet:
    """The files of one `WeightSet`, by their path below the weights folder."""

    origin: str
    revision: str | None
    files: dict[str, WeightFile] = field(default_factory=dict)


@dataclass
class Lock:
    """The files of a complete weights folder."""

    path: Path
    sets: dict[str, LockedSet] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Lock:
        """Read the lock of a weights folder; empty if there is none yet.

        Raises:
            CheckpointError: it is damaged, or of a newer version of this package.
        """
        path = folder / LOCK
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value["format"] != _FORMAT:
                raise CheckpointError(f"{path}: format: expected {_FORMAT}, got {value['format']}")
            return cls(path, {name: _locked_set(entry) for name, entry in value["sets"].items()})
        except FileNotFoundError:
            return cls(path)
        except (OSError, UnicodeDecodeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise CheckpointError(f"{path}: not a lock of weights: {error!r}") from error

    def write(self) -> None:
        """Replace the file atomically: a reader sees the old or the new file."""
        value = {"format": _FORMAT, "sets": {name: asdict(entry) for name, entry in self.sets.items()}}
        temporary = self.path.with_name(f".{LOCK}.new")
        write_file(temporary, json.dumps(value, indent=1, sort_keys=True) + "\n")
        temporary.replace(self.path)

    def missing(self, name: str) -> list[str] | None:
        """Return the paths of a recorded set that are not on disk; None if the set is not recorded."""
        entry = self.sets.get(name)
        return None if entry is None else [path for path in entry.files if not (self.path.parent / path).is_file()]


def _locked_set(value: dict[str, Any]) -> LockedSet:
    files = {path: WeightFile(**entry) for path, entry in value["files"].items()}
    if any(Path(path).is_absolute() or ".." in Path(path).parts for path in files):
        raise ValueError("a file lies outside the weights folder")
    return LockedSet(value["origin"], value["revision"], files)


def check(path: Path, file: WeightFile, weights: WeightSet | None, *, label: str | None = None) -> str:
    """Check a file on disk against its recorded, stated and known size and hashes; read it whole.

    Args:
        path: the file.
        file: the expected facts.
        weights: its set, for known hashes; None if there is no such set (any more).
        label: its name in errors; default is its path.

    Returns:
        Its sha256.

    Raises:
        CheckpointError: names the file, the expected and the actual value.
    """
    label, size = label or str(path), path.stat().st_size
    if size != file.size:
        raise CheckpointError(f"{label}: expected {file.size} bytes, got {size}")
    found = sha256(path)
    if file.sha256 is not None and found != file.sha256:
        raise CheckpointError(f"{label}: expected sha256 {file.sha256}, got {found}")
    if file.git_blob is not None and (blob := _git_blob(path)) != file.git_blob:
        raise CheckpointError(f"{label}: expected git blob {file.git_blob}, got {blob}")
    check_known(weights, file.source, found, label)
    return found


def check_known(weights: WeightSet | None, source: str, found: str | None, label: str) -> None:
    """Compare a hash with the known hash of the file, if there is one.

    Raises:
        CheckpointError: names both.
    """
    known = weights.known.get(source) if weights else None
    if known and found and not fits(known, found):
        raise CheckpointError(f"{label}: expected sha256 {known} (known to heartvoice), got {found}")


def _git_blob(path: Path) -> str:
    """Return the sha1 over git's header and the content; such files have at most a few MB."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
