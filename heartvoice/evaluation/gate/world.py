"""What the gate needs of a world of known sound, and of the system that it measures.

`train.demo.gate` has such a world. This room does not import it: the package needs no training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.messages import Audio, Codes

Setting = float | int | bool


@dataclass(frozen=True)
class GateSong:
    """A song of the list."""

    name: str
    tags: str
    lyrics: str
    max_seconds: float
    """Longest song that is asked for."""


@dataclass(frozen=True)
class GateCover:
    """A cover of the list; `World.cover_sounds` makes what it needs."""

    name: str
    lyrics: str


@dataclass(frozen=True, eq=False)
class Oracle:
    """The true sound of codes; all audio float32 [2, N] at 48 kHz."""

    mix: Audio
    voice: Audio
    """The voice in it."""
    pitch_hz: NDArray[np.float64]
    """Pitch of the voice, 100 values a second, 0 = nobody sings."""


@dataclass(frozen=True)
class CodeFigures:
    """What a song's codes have of what was asked for."""

    word_error: float
    """Words inserted, left out or replaced over the words of the lyrics."""
    tags: float
    """Share of the tags that are obeyed, 0 to 1."""
    consistent: float
    """Share of chords, bass, melody and lead that keep the world's rules, 0 to 1."""


@dataclass(frozen=True, eq=False)
class CoverSounds:
    """A cover's sounds; all audio float32 [2, N] at 48 kHz, but the reference."""

    vocals: Audio
    """Of the recording."""
    instrumental: Audio
    reference: NDArray[np.float32]
    """The voice that shall sing, float32 [N] at 48 kHz."""
    wanted: Audio
    """The same words and notes, sung by the reference's singer."""
    same_pitches: bool
    """Whether that singer has the pitches of the recording's: only then spectra can be compared."""

    @property
    def recording(self) -> Audio:
        """What is given to the system."""
        mixed: Audio = self.vocals + self.instrumental
        return mixed


class World(Protocol):
    """A fixed list of songs and covers, and their true sound."""

    @property
    def identity(self) -> str:
        """A hash of the list, and of everything that its sound depends on."""
        ...

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Settings of every song, by their names in the contract."""
        ...

    def songs(self) -> Sequence[GateSong]:
        """The songs in their order."""
        ...

    def covers(self) -> Sequence[GateCover]:
        """The covers in their order."""
        ...

    def oracle(self, codes: Codes) -> Oracle:
        """The true sound of any codes, [8, T] at least one frame long."""
        ...

    def voice_alone(self, codes: Codes) -> Codes:
        """Codes in which only the voice sounds."""
        ...

    def read(self, song: GateSong, codes: Codes) -> CodeFigures:
        """Compare codes with what was asked for."""
        ...

    def cover_sounds(self, cover: GateCover) -> CoverSounds:
        """Render what a cover needs."""
        ...


# --------------------------------------------------------------------------------------------------------------- system


@dataclass(frozen=True, eq=False)
class SongOrder:
    """What the system is asked for. With codes it decodes them, and writes none."""

    tags: str
    lyrics: str
    settings: Mapping[str, Any]
    codes: Codes | None = None
    stems: bool = False
    """Also separate the vocals from it."""
    whole: bool = False
    """Also make it in one answer, not streamed."""


@dataclass(frozen=True, eq=False)
class MadeSong:
    """What came: audio float32 [2, N] at 48 kHz."""

    codes: Codes
    audio: Audio
    """As it was streamed."""
    vocals: Audio | None = None
    whole: Audio | None = None


@dataclass(frozen=True, eq=False)
class CoverOrder:
    """A cover that the system is asked for."""

    recording: Audio
    reference: NDArray[np.float32]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class MadeCover:
    """What came: audio float32 [2, N] at 48 kHz."""

    audio: Audio
    """As it was streamed."""
    vocals: Audio
    instrumental: Audio
    whole: Audio
    shift_semitones: float
    """By which the converter says that it moved the voice."""


class Maker(Protocol):
    """The system that is measured."""

    def sing(self, order: SongOrder) -> MadeSong:
        """Make a song."""
        ...

    def cover(self, order: CoverOrder) -> MadeCover:
        """Make a cover."""
        ...
