"""The eight codes of a frame: what each codebook says, how many ids it has, and the way between both.

A frame is 80 ms: two latents, and two atoms of 40 ms of a voice. 0 means nothing in every book but the clock's.
"""

from __future__ import annotations

from dataclasses import dataclass

from train.demo import words

SAMPLE_RATE_HZ = 48_000
FRAME_SAMPLES = 3840
ATOM_SAMPLES = FRAME_SAMPLES // 2
FRAME_HZ = SAMPLE_RATE_HZ / FRAME_SAMPLES
"""12.5: the unit of pitch, `u`."""

CURSOR, CLOCK, NOTE, ATOM_1, ATOM_2, LEAD, CHORD, LOW = range(8)
"""The books, in the order in which the depth decoder writes them: the first five say what the others follow from."""
N_BOOKS = 8

TEMPI: dict[str, int] = {"fast": 6, "medium": 8, "slow": 10}
"""Frames of a beat: 125, 93.75 and 75 beats a minute."""
BEATS = 4
"""Of a bar."""
HALVES = 2
"""Bars in turn: a sung line begins in the first of two."""
SINGERS = ("female warm", "female bright", "male warm", "male bright")
MAX_REMAINING = 4
"""Longest note in half beats."""
CHORD_INSTRUMENTS = ("piano", "guitar", "strings")
LEAD_INSTRUMENTS = ("flute", "music box")
CHORDS = ("C", "Em", "F", "G", "Am", "D")
N_PITCHES = 7
"""Pitches of a singer."""
N_LEAD_PITCHES = 10
CHORD_FRAMES = LEAD_FRAMES = 12
"""A struck chord and a lead note have this many different frames; the last one is held."""
BASS_FRAMES = 8
DRUMS: dict[str, tuple[int, int]] = {"kick": (1, 3), "snare": (4, 3), "hat": (7, 2)}
"""First id and number of frames of each sound."""
N_DRUM = 9
N_ATOMS = 1024
"""Atoms of 40 ms in either book, 0 = silence included; all singers share them."""
N_SOUNDS = 2 * N_ATOMS
"""Rows of tables of atoms: half of the frame * N_ATOMS + id, for the two books have atoms of their own."""


def _clock_offsets() -> dict[str, int]:
    offsets, at = {}, 0
    for tempo, beat in TEMPI.items():
        offsets[tempo] = at
        at += HALVES * BEATS * beat
    return offsets


CLOCK_OFFSETS = _clock_offsets()
CLOCKS = HALVES * BEATS * sum(TEMPI.values())
"""Ids of the clock; the book has them twice."""
SIZES: tuple[int, ...] = (
    1 + 2 * len(words.phonemes()),
    2 * CLOCKS,
    1 + len(SINGERS) * N_PITCHES * MAX_REMAINING,
    N_ATOMS,
    N_ATOMS,
    1 + len(LEAD_INSTRUMENTS) * N_LEAD_PITCHES * LEAD_FRAMES,
    1 + len(CHORD_INSTRUMENTS) * len(CHORDS) * CHORD_FRAMES,
    (1 + len(CHORDS) * BASS_FRAMES) * N_DRUM,
)
"""Ids of each book."""
CODEBOOK_SIZE = max(SIZES)
"""V, the same for all books."""


@dataclass(frozen=True)
class Cursor:
    """The word that is sung; it stays during rests."""

    word: int
    parity: int
    """Of the number of times that it is still sung after this one."""


@dataclass(frozen=True)
class Clock:
    """Tempo, and the place in two bars."""

    tempo: str
    half: int
    """0 in the first bar of two, 1 in the second."""
    frame: int
    """Of the bar."""


@dataclass(frozen=True)
class SungNote:
    """Who sings which pitch, and how long still."""

    singer: int
    pitch: int
    """Index into the singer's pitches."""
    remaining: int
    """Half beats to the note's end with the present one, 1 to `MAX_REMAINING`."""


@dataclass(frozen=True)
class Played:
    """A lead note or a chord: instrument, pitch or chord, and the frame since it was struck."""

    instrument: int
    pitch: int
    frame: int


@dataclass(frozen=True)
class Low:
    """Bass and drums."""

    bass: int
    """Index into `CHORDS`, whose root is played; -1 = none."""
    frame: int
    drum: int
    """0 = none, else a sound of `DRUMS` and its frame."""


def cursor_id(cursor: Cursor | None) -> int:
    """Return the id; None is before the first word."""
    return 0 if cursor is None else 1 + 2 * cursor.word + cursor.parity


def read_cursor(code: int) -> Cursor | None:
    """Return what an id of book `CURSOR` means; None also for ids that mean nothing."""
    if not 0 < code < SIZES[CURSOR]:
        return None
    word, parity = divmod(code - 1, 2)
    return Cursor(word, parity)


def clock_id(clock: Clock) -> int:
    """Return the id; `CLOCKS` more says that the cursor's word is still sung 2 or 3 times (6 or 7, and so on)."""
    return CLOCK_OFFSETS[clock.tempo] + clock.half * BEATS * TEMPI[clock.tempo] + clock.frame


def read_clock(code: int) -> Clock | None:
    """Return what an id of book `CLOCK` means; None for ids that mean nothing."""
    if not 0 <= code < SIZES[CLOCK]:
        return None
    for tempo, beat in TEMPI.items():
        bar = BEATS * beat
        place = code % CLOCKS - CLOCK_OFFSETS[tempo]
        if 0 <= place < HALVES * bar:
            return Clock(tempo, *divmod(place, bar))
    return None


def note_id(note: SungNote | None) -> int:
    """Return the id; None is no voice."""
    if note is None:
        return 0
    return 1 + (note.singer * N_PITCHES + note.pitch) * MAX_REMAINING + note.remaining - 1


def read_note(code: int) -> SungNote | None:
    """Return what an id of book `NOTE` means; None is no voice, or an id that means nothing."""
    if not 0 < code < SIZES[NOTE]:
        return None
    rest, remaining = divmod(code - 1, MAX_REMAINING)
    return SungNote(*divmod(rest, N_PITCHES), remaining + 1)


def lead_id(lead: Played | None) -> int:
    """Return the id; None is no lead. Frames after the last different one are the last one."""
    if lead is None:
        return 0
    return 1 + (lead.instrument * N_LEAD_PITCHES + lead.pitch) * LEAD_FRAMES + min(lead.frame, LEAD_FRAMES - 1)


def read_lead(code: int) -> Played | None:
    """Return what an id of book `LEAD` means; None is no lead, or an id that means nothing."""
    return _read_played(code, N_LEAD_PITCHES, LEAD_FRAMES, SIZES[LEAD])


def chord_id(chord: Played | None) -> int:
    """Return the id; None is no chord. Frames after the last different one are the last one."""
    if chord is None:
        return 0
    return 1 + (chord.instrument * len(CHORDS) + chord.pitch) * CHORD_FRAMES + min(chord.frame, CHORD_FRAMES - 1)


def read_chord(code: int) -> Played | None:
    """Return what an id of book `CHORD` means; None is no chord, or an id that means nothing."""
    return _read_played(code, len(CHORDS), CHORD_FRAMES, SIZES[CHORD])


def _read_played(code: int, pitches: int, frames: int, size: int) -> Played | None:
    if not 0 < code < size:
        return None
    rest, frame = divmod(code - 1, frames)
    return Played(*divmod(rest, pitches), frame)


def low_id(low: Low) -> int:
    """Return the id."""
    bass = 0 if low.bass < 0 else 1 + low.bass * BASS_FRAMES + min(low.frame, BASS_FRAMES - 1)
    return bass * N_DRUM + low.drum


def read_low(code: int) -> Low:
    """Return what an id of book `LOW` means; ids that mean nothing are silence."""
    if not 0 <= code < SIZES[LOW]:
        return Low(-1, 0, 0)
    bass, drum = divmod(code, N_DRUM)
    if bass == 0:
        return Low(-1, 0, drum)
    return Low(*divmod(bass - 1, BASS_FRAMES), drum)
