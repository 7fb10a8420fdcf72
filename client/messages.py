"""The results of a client's calls: frozen values, no I/O but `save`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.encode import AudioFile
from heartvoice.client.signed_files import check_signed
from heartvoice.client.song_files import SongWriter
from heartvoice.client.stem_files import StemsWriter, StemTag
from heartvoice.contracts.claims import NO_SOURCE, ClaimSigner, Source, song_claim
from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.contracts.messages import (
    Audio,
    AudioChunk,
    Chunk,
    Codes,
    CodesChunk,
    Event,
    Message,
    Report,
    StemsChunk,
    StemsMessage,
    StemsReport,
    report_warnings,
)
from heartvoice.errors import InvalidRequestError

__all__ = [
    "Array",
    "Audio",
    "AudioChunk",
    "Chunk",
    "Codes",
    "CodesChunk",
    "Embedding",
    "Event",
    "ForgetReport",
    "Message",
    "Report",
    "Song",
    "StemsChunk",
    "StemsMessage",
    "StemsReport",
]

Array = NDArray[Any]
DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_STALL_TIMEOUT_S = 20.0
DEFAULT_TIMEOUT_S = 600.0


@dataclass(frozen=True, eq=False)
class Song:
    """A finished song or cover.

    Attributes:
        audio: float32 [2, N] as the server sent it; values may exceed 1.
        timings: `ttfa_s` (request sent to first audio received), `total_s`, and the server's own under `server`.
        codes: int32 [8, T] if `return_codes` was set.
        stems: if `stems` was set, float32 [2, N] under each of `contracts.MIX_STEM_NAMES`; together they are `audio`.
        source: a cover's recording: what the tags and manifests of what is saved keep of it.
    """

    audio: Audio
    report: Report
    timings: Mapping[str, Any]
    codes: Codes | None = None
    sample_rate_hz: int = SAMPLE_RATE_HZ
    stems: Mapping[str, Audio] | None = None
    source: Source = NO_SOURCE

    @property
    def origin(self) -> str:
        """The tag of the recording that a cover was made from, if that was AI-generated already."""
        return self.source.tags.comment

    @property
    def seed(self) -> int:
        """The seed that makes this song again."""
        return self.report.seed

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.audio.shape[1] / self.sample_rate_hz

    def save(self, path: str | Path, *, signer: ClaimSigner | None = None) -> AudioFile:
        """Write a .wav, .flac, .mp3 or .ogg file whose comment says that it is AI-generated, and how.

        The comment of a cover that was not converted says that instead. A song that exceeds 1 is turned down as a
        whole, never clipped; the returned `gain_db` says by how much. Stems have no part in that.

        Args:
            path: where.
            signer: what signs it, such as `heartvoice.provenance.signer.ManifestSigner` over
                `heartvoice.provenance.key_folder.load_keys(folder)`; None leaves the file unsigned.

        Raises:
            InvalidRequestError: the name ends in something else, or is no place for a file.
            SigningError: it could not be signed; it is written all the same.
            OSError: the file could not be written; nothing is left behind.
        """
        with SongWriter(Path(path), signer=signer) as writer:
            writer.take(AudioChunk(self.audio, 0))
            written = writer.commit(self.report, None, self.source)
        check_signed(written.all)
        return written.audio

    def save_stems(
        self, folder: str | Path, file_format: str = "wav", *, signer: ClaimSigner | None = None
    ) -> dict[str, AudioFile]:
        """Write FOLDER/STEM.FORMAT for both stems, or none.

        If the song or a stem exceeds 1, both stems are turned down together. With each file's `gain_db` undone, they
        add up to the song. The folder is made if only its parent exists. The comments say which song these are of.
        `signer` is as for `save`.

        Raises:
            InvalidRequestError: there are no stems, no such format, or `folder` is no place for a folder.
            SigningError: one could not be signed; both are written.
            OSError: a file could not be written; none is left behind.
        """
        if self.stems is None:
            raise InvalidRequestError("stems: expected a song that was asked for with stems=True, got one without")
        tags = {
            name: StemTag(
                self.report.stem_tags(name, self.source.tags), song_claim(self.report, self.source, stem=name)
            )
            for name in self.stems
        }
        rate_hz, peak = self.sample_rate_hz, float(np.abs(self.audio).max(initial=0.0))
        with StemsWriter(folder, file_format=file_format, sample_rate_hz=rate_hz, signer=signer) as writer:
            writer.write(list(self.stems.values()))
            files = writer.commit(tags, peak=peak)
        check_signed(files.values())
        return files


@dataclass(frozen=True, eq=False)
class Embedding:
    """The voice of a recording.

    Attributes:
        vector: float32 [D] of length 1, so that a dot product is a cosine.
        encoder: which network made it; vectors of different ones cannot be compared.
        seconds: duration of the recording.
        raw: the server's whole report.
    """

    vector: NDArray[np.float32]
    encoder: str
    seconds: float
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def random_weights(self) -> bool:
        """True if the encoder's weights are random, so that cosines say nothing."""
        return bool(self.raw.get("random_weights", False))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Possible faults of the recording."""
        return report_warnings(self.raw)

    @property
    def attempts(self) -> int:
        """How often the client sent the request."""
        return int(self.raw.get("attempts", 1))

    @property
    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """The voice by each judge of the server, by engine: `vector`, and those of further ones, of length 1."""
        further = {engine: np.asarray(values, np.float32) for engine, values in self.raw.get("vectors", {}).items()}
        return {self.encoder: self.vector} | {name: vector for name, vector in further.items() if name != self.encoder}

    def cosines(self, other: Embedding) -> dict[str, float]:
        """Likeness to another voice, in [-1, 1], by each judge that heard both.

        Raises:
            InvalidRequestError: another encoder made its `vector`.
        """
        mine, others = self.vectors, other.vectors
        further = [engine for engine in mine if engine in others and engine != self.encoder]
        return {self.encoder: self.cosine(other)} | {
            engine: _cosine(mine[engine], others[engine]) for engine in further
        }

    def cosine(self, other: Embedding) -> float:
        """Likeness to another voice, in [-1, 1].

        Raises:
            InvalidRequestError: another encoder made it.
        """
        if (self.encoder, self.vector.shape) != (other.encoder, other.vector.shape):
            got = f"{self.encoder} {list(self.vector.shape)} and {other.encoder} {list(other.vector.shape)}"
            raise InvalidRequestError(f"embeddings: expected two of the same encoder, got {got}")
        return _cosine(self.vector, other.vector)


@dataclass(frozen=True)
class ForgetReport:
    """What a server that was told to forget a voice has dropped."""

    forgotten: int
    """Entries that it had kept of the voice: one for each prompt's length."""


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.clip(np.dot(one.astype(np.float64), other), -1.0, 1.0))
