"""What the band plays under a bar: a struck chord, bass and drums, by style and section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from train.demo import harmony, layout
from train.demo.layout import BEATS, DRUMS, Low, Played

Section = Literal["intro", "verse", "chorus", "ending"]

_BAR = 2 * BEATS
"""Half beats of a bar."""


@dataclass(frozen=True)
class Style:
    """One section of a style; times are in half beats."""

    strike: int
    """The chord is struck this often."""
    bass: int
    """Likewise; 0 = no bass."""
    kick: tuple[int, ...] = ()
    snare: tuple[int, ...] = ()
    hat: tuple[int, ...] = ()


STYLES: dict[str, tuple[Style, Style]] = {
    "pop": (
        Style(4, 4, kick=(0, 4), snare=(2, 6)),
        Style(2, 2, kick=(0, 4), snare=(2, 6), hat=(1, 3, 5, 7)),
    ),
    "ballad": (
        Style(8, 8, kick=(0,), hat=(4,)),
        Style(4, 4, kick=(0, 4), hat=(2, 6)),
    ),
    "lullaby": (Style(8, 0), Style(4, 8)),
    "dance": (
        Style(2, 4, kick=(0, 2, 4, 6)),
        Style(2, 1, kick=(0, 2, 4, 6), snare=(3, 7), hat=(1, 5)),
    ),
}
"""Verse and chorus of each style. Strings hold their chord for a bar in all of them."""
ENDING = Style(8, 8)


def style_of(style: str, section: Section) -> Style:
    """Return how a section is played; an intro is a verse."""
    if section == "ending":
        return ENDING
    verse, chorus = STYLES[style]
    return chorus if section == "chorus" else verse


def play_bar(played: Style, chord: str, instrument: int, half_beat: int) -> tuple[list[Played], list[Low]]:
    """Play one bar.

    Args:
        played: of `style_of`.
        chord: of `layout.CHORDS`.
        instrument: index into `layout.CHORD_INSTRUMENTS`.
        half_beat: frames of half a beat.

    Returns:
        The chord, and bass with drums, of each frame.
    """
    index = harmony.chord_index(chord)
    strike = _BAR if layout.CHORD_INSTRUMENTS[instrument] == "strings" else played.strike
    chords, lows = [], []
    for frame in range(_BAR * half_beat):
        chords.append(Played(instrument, index, frame % (strike * half_beat)))
        since_bass = frame % (played.bass * half_beat) if played.bass else 0
        drum = _drum(played, *divmod(frame, half_beat), half_beat)
        lows.append(Low(index if played.bass else -1, min(since_bass, layout.BASS_FRAMES - 1), drum))
    return chords, lows


def _drum(played: Style, at: int, frame: int, half_beat: int) -> int:
    """Return the drum's id; a sound rings into the next half beat unless another one begins there."""
    for back in (0, 1):
        since = frame + back * half_beat
        for name in ("kick", "snare", "hat"):
            if (at - back) % _BAR in getattr(played, name) and at >= back:
                first, length = DRUMS[name]
                return first + since if since < length else 0
    return 0
