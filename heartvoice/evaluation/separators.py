"""Compares exported separators on songs: what they find, what bleeds, what they cost.

Each separator runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from heartvoice.audio.loudness import ABSOLUTE_GATE_LUFS
from heartvoice.config.presets import AnySeparator, RoformerConfig, SeparatorConfig
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.contracts.messages import StemsChunk
from heartvoice.errors import HeartvoiceError, InvalidRequestError
from heartvoice.evaluation.separator_songs import (
    VOCALS,
    Bleed,
    Samples,
    Score,
    Song,
    Truth,
    bleeding,
    read_song,
    scores,
    with_instrumental,
)
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import INDEX, Repository
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.separation.stage import SeparateStage

Step = Callable[[str], None]


@dataclass(frozen=True)
class SongResult:
    """What a separator made of one song."""

    song: str
    seconds: float
    """Length of the song."""
    rtf: float
    """Seconds of separation for each second of the song."""
    peak_mb: float
    """Most memory of the process so far, the song and its stems included."""
    scores: dict[str, Score]
    bleed: dict[str, Bleed]


@dataclass
class SeparatorResult:
    """One separator on all songs."""

    repository: str
    """Names of the folders that have it."""
    separator: str
    sources: tuple[str, ...]
    weights: str
    """Their origin."""
    random_weights: bool
    """True if the stems mean nothing."""
    songs: list[SongResult] = field(default_factory=list)
    error: str | None = None
    """Why songs are missing."""

    @property
    def title(self) -> str:
        """Separator and folders."""
        return f"{self.separator} ({self.repository})"

    def mean_db(self, stem: str) -> float | None:
        """Mean SI-SDR of a stem over the songs that have it; None if none has."""
        values = [
            score.stem_db for song in self.songs if (score := song.scores.get(stem)) and score.stem_db is not None
        ]
        return statistics.fmean(values) if values else None

    def bleed_lu(self, stem: str = VOCALS) -> float | None:
        """Mean loudness of a stem, relative to the mix, where its truth is silent; None if that is unknown.

        A stem below the meter's gate counts as if it was there.
        """
        values = [
            (ABSOLUTE_GATE_LUFS if bleed.stem_lufs is None else bleed.stem_lufs) - bleed.mix_lufs
            for song in self.songs
            if (bleed := song.bleed.get(stem)) and bleed.mix_lufs is not None
        ]
        return statistics.fmean(values) if values else None

    @property
    def rtf(self) -> float | None:
        """Over all songs."""
        seconds = sum(song.seconds for song in self.songs)
        return sum(song.rtf * song.seconds for song in self.songs) / seconds if seconds else None

    @property
    def peak_mb(self) -> float | None:
        """Over all songs."""
        return max((song.peak_mb for song in self.songs), default=None)


def name_of(sizes: AnySeparator) -> str:
    """Return a separator's name, as `heartvoice export --separator` takes it."""
    if isinstance(sizes, RoformerConfig):
        return sizes.name
    bag = isinstance(sizes, SeparatorConfig) and sizes.n_models > 1
    return f"{sizes.engine}_ft" if bag else sizes.engine


def find_repositories(folders: Sequence[Path]) -> list[Repository]:
    """Return the exported repositories in these folders, or right below them.

    Raises:
        InvalidRequestError: a folder has none; the message names it.
    """
    found: dict[Path, Repository] = {}
    for folder in folders:
        roots = [folder] if (folder / INDEX).is_file() else sorted(path.parent for path in folder.glob(f"*/{INDEX}"))
        if not roots:
            raise InvalidRequestError(
                f"{folder}: expected an exported repository or folders of them, got none; "
                "`heartvoice export --preset tiny --random-weights 0` makes one with Spleeter"
            )
        found |= {root.resolve(): Repository(root.resolve()) for root in roots}
    return list(found.values())


def distinct(repositories: Sequence[Repository]) -> list[tuple[Repository, str]]:
    """Return one repository of each separator's graph, with the names of all that have it.

    Raises:
        EngineError: a repository is damaged or outdated.
    """
    names: dict[str, list[str]] = {}
    first: dict[str, Repository] = {}
    for repository in repositories:
        engine = repository.preset.separator.engine
        key = str(repository.index["graphs"][engine]["sha256"])
        first.setdefault(key, repository)
        names.setdefault(key, []).append(repository.root.name)
    return [(repository, ", ".join(names[key])) for key, repository in first.items()]


def compare(
    repositories: Sequence[Repository], songs: Sequence[Song], *, threads: int, step: Step = lambda _doing: None
) -> list[SeparatorResult]:
    """Separate every song with every separator, one after the other.

    Args:
        repositories: with separators; equal ones run once.
        songs: what is separated; all are read before the first is.
        threads: of onnxruntime.
        step: called `n_steps` times with what is being done.

    Returns:
        One result for each separator; one that failed names its error.

    Raises:
        InvalidRequestError: a song cannot be read; the message names the file.
        EngineError: a repository is damaged or outdated.
    """
    chosen = distinct(repositories)
    for song in songs:
        step(f"reading {song.name}")
        read_song(song)
    results = []
    for repository, names in chosen:
        sizes = repository.preset.separator
        result = SeparatorResult(
            names, name_of(sizes), sizes.sources, repository.origin("separator"), repository.is_random("separator")
        )
        results.append(result)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            for song in songs:
                step(f"{result.title}: {song.name}")
                try:
                    result.songs.append(pool.submit(separate_song, repository.root, song, threads).result())
                except BrokenProcessPool:
                    result.error = f"{song.name}: its process ended; often there is too little memory"
                    break
                except HeartvoiceError as error:
                    result.error = f"{song.name}: {error}"
                    break
    return results


def n_steps(repositories: Sequence[Repository], songs: Sequence[Song]) -> int:
    """Return the number of `step` calls of `compare`."""
    return len(songs) * (1 + len(distinct(repositories)))


def separate_song(root: Path, song: Song, threads: int) -> SongResult:
    """Separate one song in this process, which keeps the separator for the next one.

    Raises:
        EngineError: the separator failed.
    """
    stage, sources = _stage(root, threads)
    truth = read_song(song)
    return measure(stage, sources, song.name, truth)


@lru_cache(maxsize=1)
def _stage(root: Path, threads: int) -> tuple[SeparateStage, tuple[str, ...]]:
    repository = Repository(root)
    sizes = repository.preset.separator
    networks = LocalNetworks(repository, threads=threads)
    networks.load(sizes.engine)
    return SeparateStage(networks, sizes), sizes.sources


def measure(stage: SeparateStage, sources: tuple[str, ...], name: str, truth: Truth) -> SongResult:
    """Separate a song and measure its stems."""
    began = time.perf_counter()
    pieces = [item.stems for item in stage.separate(SeparationRequest(truth.mix)) if isinstance(item, StemsChunk)]
    elapsed = time.perf_counter() - began
    stems: Samples = np.concatenate(pieces, axis=2)
    peak_mb = _peak_mb()
    found = with_instrumental(dict(zip(sources, stems, strict=True)), truth.mix)
    seconds = truth.mix.shape[1] / STEM_RATE_HZ
    return SongResult(name, seconds, elapsed / seconds, peak_mb, scores(found, truth), bleeding(found, truth))


def _peak_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
