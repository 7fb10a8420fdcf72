"""Reads a song back from its codes, whoever wrote them: words, tags, chords, and how it keeps the world's rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from train.demo import arrangement, harmony, layout, words
from train.demo.arrangement import Section
from train.demo.layout import ATOM_1, ATOM_2, BEATS, CHORD, CLOCK, CURSOR, LEAD, LOW, N_BOOKS, NOTE, TEMPI
from train.demo.score import STYLES, Codes, Tags
from train.demo.spelling import fill, spelling

_T = TypeVar("_T", bound=Hashable)


@dataclass(frozen=True)
class Consistency:
    """Shares of what is as the world has it, 0 to 1; 1 where there is nothing to look at."""

    clock: float
    """Frames whose clock is the one before's next."""
    chord: float
    """Bars whose chord is of the key."""
    bass: float
    """Frames with bass whose root is the chord's."""
    melody: float
    """Notes on a beat that are of their chord."""
    lead: float
    """Lead notes that are of their chord."""
    band: float
    """Frames whose chord and low codes are those of the style."""
    spelling: float
    """Sung frames whose atoms spell their word."""
    valid: float
    """Codes that mean something in their book."""


@dataclass(frozen=True)
class Reading:
    """What a song's codes say."""

    words: tuple[str, ...]
    """In the order in which they are sung."""
    tags: Tags
    """A kind of which the codes say nothing is None."""
    key: str | None
    chords: tuple[str | None, ...]
    """Of each bar; None where there is none."""
    consistency: Consistency


def read(codes: ArrayLike) -> Reading:
    """Read a song.

    Args:
        codes: integers [8, T], T at least 1; any values.

    Raises:
        ValueError: the shape is another one.
    """
    song = np.asarray(codes).astype(np.int64)
    if song.ndim != 2 or song.shape[0] != N_BOOKS or not song.shape[1]:
        raise ValueError(f"codes: expected [8, frame] with at least one frame, got {list(song.shape)}")
    clocks = [layout.read_clock(int(code)) for code in song[CLOCK]]
    tempo = _most(clock.tempo for clock in clocks if clock is not None)
    chords = _bar_chords(song, tempo)
    key = harmony.key_of([chord for chord in chords if chord is not None])
    style, band = _style(song, tempo, chords)
    singer = _most(note.singer for code in song[NOTE] if (note := layout.read_note(int(code))) is not None)
    gender, colour = (None, None) if singer is None else layout.SINGERS[singer].split()
    tags = Tags(
        tempo=tempo,
        mood=None if key is None else key.mood,
        style=style,
        chords=_instrument(song[CHORD], layout.read_chord, layout.CHORD_INSTRUMENTS),
        lead=_instrument(song[LEAD], layout.read_lead, layout.LEAD_INSTRUMENTS),
        gender=gender,
        colour=colour,
    )
    consistency = Consistency(
        clock=_clock_share(clocks),
        chord=_share(chord in key.chords for chord in chords if chord is not None) if key else 0.0,
        bass=_bass_share(song),
        melody=_melody_share(song, clocks),
        lead=_lead_share(song),
        band=band,
        spelling=_spelling_share(song, tempo),
        valid=float(np.mean((song >= 0) & (song < np.array(layout.SIZES)[:, None]))),
    )
    return Reading(tuple(sung_words(song[CURSOR])), tags, None if key is None else key.name, chords, consistency)


def sung_words(cursors: ArrayLike) -> list[str]:
    """Return the words that a cursor goes through, [T]; ids that mean nothing are left out."""
    vocabulary, found, before = list(words.phonemes()), [], None
    for code in np.asarray(cursors):
        cursor = layout.read_cursor(int(code))
        if cursor is not None and cursor != before:
            found.append(vocabulary[cursor.word])
            before = cursor
    return found


def _most(values: Iterable[_T]) -> _T | None:
    counted = Counter(values)
    return counted.most_common(1)[0][0] if counted else None


def _share(flags: Iterable[bool]) -> float:
    seen = list(flags)
    return float(np.mean(seen)) if seen else 1.0


def _instrument(codes: Codes, reader: Callable[[int], layout.Played | None], names: tuple[str, ...]) -> str | None:
    found = _most(played.instrument for code in codes if (played := reader(int(code))) is not None)
    return None if found is None else names[found]


def _bar_chords(song: Codes, tempo: str | None) -> tuple[str | None, ...]:
    """Return the most frequent chord of each bar."""
    bar = BEATS * TEMPI[tempo] if tempo else song.shape[1]
    found = []
    for start in range(0, song.shape[1], bar):
        played = (layout.read_chord(int(code)) for code in song[CHORD, start : start + bar])
        index = _most(each.pitch for each in played if each is not None)
        found.append(None if index is None else layout.CHORDS[index])
    return tuple(found)


def _style(song: Codes, tempo: str | None, chords: tuple[str | None, ...]) -> tuple[str | None, float]:
    """Find the style whose band is most like the codes', and the share of frames in which it is the same."""
    if tempo is None:
        return None, 0.0
    half_beat = TEMPI[tempo] // 2
    bar = 2 * BEATS * half_beat
    shares = dict.fromkeys(STYLES, 0.0)
    for index, chord in enumerate(chords):
        played = song[[CHORD, LOW], index * bar : (index + 1) * bar]
        for style in STYLES:
            sections: tuple[Section, ...] = ("ending",) if index == len(chords) - 1 else ("verse", "chorus")
            shares[style] += max(_same(played, style, section, chord, half_beat) for section in sections)
    best = max(shares, key=lambda style: shares[style])
    return best, shares[best] / song.shape[1]


def _same(played: Codes, style: str, section: Section, chord: str | None, half_beat: int) -> int:
    """Count the frames of a bar, [2, T], that are as a style plays them."""
    first = next((each for code in played[0] if (each := layout.read_chord(int(code))) is not None), None)
    if chord is None or first is None:
        return 0
    chords, lows = arrangement.play_bar(arrangement.style_of(style, section), chord, first.instrument, half_beat)
    wanted = np.array([[layout.chord_id(each) for each in chords], [layout.low_id(each) for each in lows]])
    return int((wanted[:, : played.shape[1]] == played).all(axis=0).sum())


def _clock_share(clocks: list[layout.Clock | None]) -> float:
    return _share(after == _tick(before) for before, after in pairwise(clocks))


def _tick(clock: layout.Clock | None) -> layout.Clock | None:
    if clock is None:
        return layout.Clock("", -1, -1)  # equals no clock
    bar = BEATS * TEMPI[clock.tempo]
    place = (clock.half * bar + clock.frame + 1) % (2 * bar)
    return layout.Clock(clock.tempo, *divmod(place, bar))


def _bass_share(song: Codes) -> float:
    pairs = (
        (layout.read_low(int(low)), layout.read_chord(int(chord)))
        for low, chord in zip(song[LOW], song[CHORD], strict=True)
    )
    return _share(chord is not None and low.bass == chord.pitch for low, chord in pairs if low.bass >= 0)


def note_starts(codes: Codes) -> NDArray[np.bool_]:
    """Return for each frame of [8, T] whether a sung note begins there.

    A note begins where there was none, the pitch or the singer changes, more half beats remain than before, or a half
    beat begins after a last one.
    """
    starts, before = np.zeros(codes.shape[1], bool), None
    for frame, (code, time) in enumerate(zip(codes[NOTE], codes[CLOCK], strict=True)):
        note, clock = layout.read_note(int(code)), layout.read_clock(int(time))
        on_half_beat = clock is not None and clock.frame % (TEMPI[clock.tempo] // 2) == 0
        starts[frame] = note is not None and (
            before is None
            or (note.singer, note.pitch) != (before.singer, before.pitch)
            or note.remaining > before.remaining
            or (before.remaining == 1 and on_half_beat)
        )
        before = note
    return starts


def _melody_share(song: Codes, clocks: list[layout.Clock | None]) -> float:
    """Look at the notes that begin on a beat."""
    flags = []
    for frame in np.flatnonzero(note_starts(song)):
        note, chord = layout.read_note(int(song[NOTE, frame])), layout.read_chord(int(song[CHORD, frame]))
        clock = clocks[frame]
        if note is not None and clock is not None and clock.frame % TEMPI[clock.tempo] == 0:
            letter = harmony.singer_letter(note.singer, note.pitch)
            flags.append(chord is not None and letter in harmony.TONES[layout.CHORDS[chord.pitch]])
    return _share(flags)


def _lead_share(song: Codes) -> float:
    flags = []
    for lead_code, chord_code in zip(song[LEAD], song[CHORD], strict=True):
        lead, chord = layout.read_lead(int(lead_code)), layout.read_chord(int(chord_code))
        if lead is not None and lead.frame == 0:
            tones = "" if chord is None else harmony.TONES[layout.CHORDS[chord.pitch]]
            flags.append(harmony.LEAD_LETTERS[lead.pitch] in tones)
    return _share(flags)


def _spelling_share(song: Codes, tempo: str | None) -> float:
    """Compare atoms with the spelling of the cursor's word on notes as long as the codes' notes."""
    if tempo is None:
        return 0.0
    vocabulary = list(words.phonemes())
    right, sung, starts = 0, int((song[NOTE] > 0).sum()), note_starts(song)
    for start, end, word in _word_spans(song):
        lengths = _note_frames(song[NOTE, start:end], starts[start:end])
        spelled = spelling(vocabulary[word])
        if len(lengths) != len(spelled):
            continue
        wanted = [atom for syllable, n in zip(spelled, lengths, strict=True) for atom in fill(syllable, 2 * n)]
        frames = start + np.flatnonzero(song[NOTE, start:end] > 0)
        right += int((song[[ATOM_1, ATOM_2]][:, frames] == np.array(wanted).reshape(-1, 2).T).all(axis=0).sum())
    return right / sung if sung else 1.0


def _word_spans(song: Codes) -> list[tuple[int, int, int]]:
    """Return first frame, end and word of each stretch of an equal cursor."""
    changes = [0, *(np.flatnonzero(np.diff(song[CURSOR])) + 1).tolist(), song.shape[1]]
    spans = []
    for start, end in pairwise(changes):
        cursor = layout.read_cursor(int(song[CURSOR, start]))
        if cursor is not None:
            spans.append((start, end, cursor.word))
    return spans


def _note_frames(codes: Codes, starts: NDArray[np.bool_]) -> list[int]:
    """Return the length in frames of each note of a stretch, [T] of book `NOTE`."""
    lengths: list[int] = []
    for code, begins in zip(codes, starts, strict=True):
        if begins or (code and not lengths):
            lengths.append(0)
        if code:
            lengths[-1] += 1
    return lengths
