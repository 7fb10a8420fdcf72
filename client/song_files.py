"""A song's files, as they stream in: the audio, and its stems and codes where they are wanted."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from heartvoice.audio.encode import AudioFile, Spool, audio_format, replaceable
from heartvoice.client.atomic_files import AtomicFiles
from heartvoice.client.signed_files import encode_signed
from heartvoice.client.stem_files import StemsWriter, StemTag, stem_folder
from heartvoice.contracts.claims import NO_SOURCE, ClaimSigner, Source, song_claim
from heartvoice.contracts.constants import MIX_STEM_NAMES, SAMPLE_RATE_HZ
from heartvoice.contracts.messages import AudioChunk, Codes, Message, Report, StemsChunk
from heartvoice.errors import InvalidRequestError


@dataclass(frozen=True)
class SongFiles:
    """The files that were written; `stems` by name, empty if none were requested."""

    audio: AudioFile
    stems: dict[str, AudioFile] = field(default_factory=dict)
    codes_path: Path | None = None

    @property
    def all(self) -> list[AudioFile]:
        """The song, then its stems."""
        return [self.audio, *self.stems.values()]


class SongWriter:
    """Takes a stream's chunks to disk as they come; the files appear together when `commit` succeeds, or not at all.

    Stems become FOLDER/STEM.FORMAT in the song's own format. The song's file is the same with and without them: it is
    turned down if the song itself exceeds 1. Stems are turned down together if the song or one of them does. Each file
    has its `gain_db`; with these undone, the stems add up to the song. Existing files of these names are replaced.
    """

    def __init__(
        self,
        output: Path,
        *,
        stems_folder: Path | None = None,
        codes_path: Path | None = None,
        signer: ClaimSigner | None = None,
    ) -> None:
        """Find out at once whether the files can go there; without `signer` they are not signed.

        Raises:
            InvalidRequestError: `output` ends in no format, or one of the files or folders has no place.
            OSError: nothing can be written there.
        """
        self._format = audio_format(output)
        self._path, self._signer = replaceable(output), signer
        self._codes_path = None if codes_path is None else replaceable(codes_path)
        self._stems: StemsWriter | None = None
        with ExitStack() as stack:
            self._spool = Spool(self._path.parent, self._path, SAMPLE_RATE_HZ)
            stack.callback(self._spool.close)
            if stems_folder is not None:
                self._check_stems(stem_folder(stems_folder, field="stems"))
                self._stems = stack.enter_context(
                    StemsWriter(
                        stems_folder,
                        file_format=self._format,
                        sample_rate_hz=SAMPLE_RATE_HZ,
                        field="stems",
                        signer=signer,
                    )
                )
            self._open = stack.pop_all()

    def _check_stems(self, folder: Path) -> None:
        for name in MIX_STEM_NAMES:
            path = folder / f"{name}.{self._format}"
            if folder.exists() and replaceable(path) == self._path:
                raise InvalidRequestError(f"stems: expected another place than the song's own, got {str(path)!r} twice")

    def take(self, message: Message) -> None:
        """Write a chunk of audio or stems; other messages are for others.

        Raises:
            OSError: the disk took no more.
        """
        if isinstance(message, AudioChunk):
            self._spool.write(message.audio)
        elif isinstance(message, StemsChunk):
            assert self._stems is not None, "StreamReader lets no stems pass that were not asked for"
            self._stems.write(message.stems)

    def commit(self, report: Report, codes: Codes | None, source: Source = NO_SOURCE) -> SongFiles:
        """Encode everything, tagged and signed as `report` says, and name it.

        A file whose signature fails is written without, and its `not_signed` says why.

        Args:
            report: the job's.
            codes: if they are wanted.
            source: a cover's recording; its title and artist stay, and its manifest goes into the cover's.

        Raises:
            OSError: a file could not be written; then none is, and files that stood there before still do.
        """
        stems = {}
        with AtomicFiles() as files:
            audio = encode_signed(
                files, self._spool, self._path, peak=self._spool.peak, tags=report.tags(source.tags),
                claim=song_claim(report, source), signer=self._signer,
            )  # fmt: skip
            if self._stems is not None:
                tags = {
                    name: StemTag(report.stem_tags(name, source.tags), song_claim(report, source, stem=name))
                    for name in MIX_STEM_NAMES
                }
                stems = self._stems.fill(files, tags, peak=max(self._spool.peak, self._stems.peak))
            if self._codes_path is not None:
                assert codes is not None, "asked for codes, and the stream is complete"
                with files.open(self._codes_path) as file:
                    np.save(file, codes, allow_pickle=False)
            files.place()
        self.close()
        return SongFiles(audio, stems, self._codes_path)

    def close(self) -> None:
        """Drop what was not committed."""
        self._open.close()

    def __enter__(self) -> SongWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
