"""A separated recording: a mapping from the sources' names to their samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heartvoice.audio.encode import AudioFile
from heartvoice.client.messages import Audio, StemsReport
from heartvoice.client.signed_files import check_signed
from heartvoice.client.stem_files import StemsWriter, StemTag
from heartvoice.contracts.claims import NO_SOURCE, ClaimSigner, Source, separation_claim
from heartvoice.contracts.constants import STEM_RATE_HZ


class Stems(Mapping[str, Audio]):
    """Stems by name, float32 [2, N] each at 44.1 kHz; values may exceed 1. All sources together add up to the mix.

    Attributes:
        report: what the server says.
        timings: `ttfa_s` (request sent to first stems received), `total_s`, and the server's own under `server`.
        source: the recording that was separated: what the tags and manifests of what is saved keep of it.
        sample_rate_hz: 44100.
    """

    def __init__(
        self,
        stems: Mapping[str, Audio],
        report: StemsReport,
        timings: Mapping[str, Any],
        source: Source = NO_SOURCE,
    ) -> None:
        self._stems = dict(stems)
        self.report, self.timings, self.source = report, timings, source
        self.sample_rate_hz = STEM_RATE_HZ

    def __getitem__(self, source: str) -> Audio:
        return self._stems[source]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stems)

    def __len__(self) -> int:
        return len(self._stems)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def origin(self) -> str:
        """The recording's own tag if that was AI-generated already."""
        return self.source.tags.comment

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return next(iter(self._stems.values())).shape[1] / self.sample_rate_hz

    def save(
        self, folder: str | Path, file_format: str = "wav", *, signer: ClaimSigner | None = None
    ) -> dict[str, AudioFile]:
        """Write FOLDER/SOURCE.FORMAT for every stem: all of them, or none.

        The folder is made if only its parent exists. If a stem exceeds 1, all are turned down together, so that they
        still add up; each file's `gain_db` says by how much. `signer` is as for `Song.save`.

        Raises:
            SigningError: a file could not be signed; all of them are written.
            InvalidRequestError: there is no such format, or `folder` is no place for a folder.
            OSError: a file could not be written; none is left behind.
        """
        tags = {
            name: StemTag(
                self.report.stem_tags(name, self.source.tags), separation_claim(self.report, name, self.source)
            )
            for name in self._stems
        }
        with StemsWriter(folder, file_format=file_format, signer=signer) as writer:
            writer.write(list(self._stems.values()))
            files = writer.commit(tags)
        check_signed(files.values())
        return files
