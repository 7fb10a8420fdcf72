"""Stems into the files of a folder, all of them or none."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from heartvoice.audio.encode import AudioFile, Spool
from heartvoice.client.atomic_files import AtomicFiles
from heartvoice.client.signed_files import encode_signed
from heartvoice.contracts.claims import Claim, ClaimSigner
from heartvoice.contracts.constants import AUDIO_FORMATS, STEM_RATE_HZ
from heartvoice.contracts.provenance import Tags
from heartvoice.errors import InvalidRequestError


@dataclass(frozen=True)
class StemTag:
    """What a stem's file says of itself: its tags, and the claim of its manifest."""

    tags: Tags
    claim: Claim


class StemsWriter:
    """Stems of one recording as files of one folder, which take their chunks as they arrive and appear together.

    As `AudioWriter`, but with one gain for all: turned down by the loudest peak among them, they still add up.
    The folder is made if only its parent exists. Existing files of the stems' names are replaced.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        file_format: str = "wav",
        sample_rate_hz: int = STEM_RATE_HZ,
        field: str = "output",
        signer: ClaimSigner | None = None,
    ) -> None:
        """`field` is what messages call the folder; without `signer` the files are not signed.

        Raises:
            InvalidRequestError: there is no such format, or `folder` is no place for a folder.
            OSError: nothing can be written there.
        """
        if file_format not in AUDIO_FORMATS:
            raise InvalidRequestError(f"format: expected {', '.join(AUDIO_FORMATS)}, got {file_format!r}")
        self._folder = stem_folder(folder, field=field)
        self._format, self._sample_rate_hz, self._signer = file_format, sample_rate_hz, signer
        self._n_stems: int | None = None  # known with the first chunk
        self._spools = [self._new_spool()]  # one at once, to find a folder that takes no files before the work

    def _new_spool(self) -> Spool:
        folder = self._folder if self._folder.exists() else self._folder.parent
        return Spool(folder, self._folder, self._sample_rate_hz)

    def write(self, stems: NDArray[Any] | Sequence[NDArray[Any]]) -> None:
        """Append `stems`, float [S, 2, N] or S arrays [2, N], of the same S each time.

        Raises:
            InvalidRequestError: another shape, or NaN or infinite samples.
            OSError: the disk took no more.
        """
        n_stems = self._n_stems or max(1, len(stems))
        if len(stems) != n_stems:
            raise InvalidRequestError(f"stems: expected {n_stems}, got {len(stems)}")
        if self._n_stems is None:
            self._spools += [self._new_spool() for _ in range(n_stems - 1)]
            self._n_stems = n_stems
        for spool, audio in zip(self._spools, stems, strict=True):
            spool.write(audio)

    @property
    def peak(self) -> float:
        """The loudest sample so far."""
        return max(spool.peak for spool in self._spools)

    def commit(self, tags: Mapping[str, StemTag], *, peak: float = 0.0) -> dict[str, AudioFile]:
        """Encode all stems, in the order of `tags`, which holds their names, and name them together.

        A `peak` above their own, that of what they are stems of, turns them down by that instead. A file whose
        signature fails is written without, and its `not_signed` says why.

        Raises:
            OSError: one could not be written; then none is, and files that stood there before still do.
        """
        with AtomicFiles() as files:
            made = self.fill(files, tags, peak=max(peak, self.peak))
            files.place()
        self.close()
        return made

    def fill(self, files: AtomicFiles, tags: Mapping[str, StemTag], *, peak: float) -> dict[str, AudioFile]:
        """The first half of `commit`, for stems that appear together with other `files`; `peak` is that of all."""
        files.make_folder(self._folder)
        made = {}
        for spool, (name, tag) in zip(self._spools, tags.items(), strict=True):
            path = self._folder / f"{name}.{self._format}"
            made[name] = encode_signed(
                files, spool, path, peak=peak, tags=tag.tags, claim=tag.claim, signer=self._signer
            )
        return made

    def close(self) -> None:
        """Drop what was not committed."""
        for spool in self._spools:
            spool.close()

    def __enter__(self) -> StemsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stem_folder(path: str | Path, *, field: str = "output") -> Path:
    """`path` without symbolic links: a folder, or a name that a folder may be given.

    Raises:
        InvalidRequestError: its parent does not exist, or something other than a folder stands there.
    """
    real = Path(os.path.realpath(path))
    if real.exists() and not real.is_dir():
        raise InvalidRequestError(f"{field}: expected a folder, got {str(path)!r}, which is something else")
    if not real.exists() and not real.parent.is_dir():
        raise InvalidRequestError(f"{field}: no such folder: {str(real.parent)!r}")
    return real
