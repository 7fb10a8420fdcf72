"""Renders codes into audio: the demo world's own sound, and the reference of what is trained on it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from train.demo import slots, tables, voice
from train.demo.band import Band, BandTables
from train.demo.voice import VoiceTables

Samples = NDArray[np.float32]

GAINS = {"voice": 2.0, "chord": 0.14, "lead": 0.25, "bass": 0.15, "drum": 0.13}
"""Of each part: who sings is about 6 dB above the band, or nobody understands a word; and no song clips."""
PLACES: dict[str, tuple[float, float]] = {
    "voice": (1.0, 1.0), "chord": (1.0, 0.7), "lead": (0.7, 1.0), "bass": (1.0, 1.0), "drum": (1.0, 1.0),
}  # fmt: skip
"""Gains of each part in the left and the right channel."""


class Renderer:
    """Renders songs; it keeps the band's waves that it has made."""

    places: Mapping[str, tuple[float, float]] = PLACES

    def __init__(self, sounds: tuple[VoiceTables, BandTables] | None = None) -> None:
        """Take singers and band; the world's own by default."""
        self._voices, band = sounds or tables.sounds()
        self._band = Band(band)

    def parts(self, codes: ArrayLike) -> dict[str, Samples]:
        """Render each part alone: `voice`, `chord`, `lead`, `bass`, `drum`, float32 [3840 T], mono.

        Args:
            codes: integers [8, T]; codes that mean nothing are silent.
        """
        return {name: slots.joined(sounds) for name, sounds in self.sounds(codes).items()}

    def sounds(self, codes: ArrayLike) -> dict[str, Samples]:
        """Render what each 40 ms add to each part, float32 [2 T, slots.SAMPLES]; added up they are `parts`."""
        song = np.asarray(codes).astype(np.int64)
        made = {"voice": voice.sounds(song, self._voices), **self._band.sounds(song)}
        return {name: np.float32(GAINS[name]) * sounds for name, sounds in made.items()}

    def stems(self, codes: ArrayLike) -> dict[str, Samples]:
        """Render each part at its place, float32 [2, 3840 T] each."""
        return {name: np.outer(PLACES[name], wave).astype(np.float32) for name, wave in self.parts(codes).items()}

    def mix(self, codes: ArrayLike) -> Samples:
        """Render a song: float32 [2, 3840 T], the sum of its stems."""
        mixed: Samples = np.sum(list(self.stems(codes).values()), axis=0, dtype=np.float32)
        return mixed
