"""Writes a song for tags and lyrics: form, chords, melody, lead, and the codes of every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.demo import arrangement, harmony, layout, words
from train.demo.arrangement import Section
from train.demo.harmony import Key
from train.demo.layout import ATOM_1, ATOM_2, BEATS, CHORD, CLOCK, CURSOR, LEAD, LOW, N_BOOKS, NOTE, TEMPI
from train.demo.score import Codes, Score, ScoreNote, SungLine, Tags, choose_tags, read_lyrics, read_tags, word_cursors
from train.demo.spelling import fill, spelling
from train.demo.tables import Syllable

_BAR = 2 * BEATS
"""Half beats of a bar."""
_STRETCH = 1.1
"""Length of a note relative to its syllable as it is spelled."""
_LONGEST = 3
"""Half beats of a note that is not the last of its line."""
_LAST = 2
"""Half beats that the last note of a line has at least, if there is room."""
_WANDERING = 2.5
"""How far melodies leap, in pitches."""


@dataclass(frozen=True)
class _Plan:
    """What is settled before the first note."""

    tags: Tags
    key: Key
    sections: tuple[Section, ...]
    """Of each bar."""
    chords: tuple[str, ...]
    lines: tuple[tuple[SungLine, int, tuple[int, ...]], ...]
    """Each line, its first bar, and the lengths of its notes in half beats."""

    @property
    def half_beat(self) -> int:
        """Frames of half a beat."""
        return TEMPI[_set(self.tags.tempo)] // 2

    @property
    def bar(self) -> int:
        """Frames of a bar."""
        return _BAR * self.half_beat

    @property
    def singer(self) -> int:
        """Index into `layout.SINGERS`."""
        return self.tags.singer


def compose(tags: Tags | str, lyrics: str, seed: int) -> Score:
    """Write a song; equal arguments give equal songs.

    Args:
        tags: what is not set is drawn.
        lyrics: lines, with or without section marks.
        seed: from 0.

    Raises:
        ValueError: a tag is unknown, there are no lyrics, or a word is not in the vocabulary.
    """
    lines = read_lyrics(lyrics)
    unknown = sorted({word for line in lines for word in line.words} - set(words.ids()))
    if unknown:
        raise ValueError(f"lyrics: not in the vocabulary: {', '.join(unknown)}")
    if not lines:
        raise ValueError("lyrics: no words to sing")
    rng = np.random.default_rng([seed, 8])
    plan = _plan(choose_tags(read_tags(tags) if isinstance(tags, str) else tags, rng), lines, rng)
    codes = np.zeros((N_BOOKS, len(plan.chords) * plan.bar), np.int64)
    _write_clock(codes, plan)
    _write_band(codes, plan)
    notes = _write_voice(codes, plan, rng)
    _write_lead(codes, plan, rng)
    return Score(plan.tags, lyrics, lines, plan.key.name, plan.chords, tuple(notes), codes)


def _set(tag: str | None) -> str:
    if tag is None:
        raise ValueError("tags: every kind must be set here")
    return tag


def _plan(tags: Tags, lines: tuple[SungLine, ...], rng: np.random.Generator) -> _Plan:
    keys = [key for key in harmony.KEYS.values() if key.mood == tags.mood]
    key = keys[rng.integers(len(keys))]
    progression = key.progressions[rng.integers(len(key.progressions))]
    half_slots = TEMPI[_set(tags.tempo)]
    sections: list[Section] = ["intro"]
    placed = []
    for line in lines:
        spelled = [syllable for word in line.words for syllable in spelling(word)]
        lengths, bars = note_lengths(spelled, half_slots)
        placed.append((line, len(sections), lengths))
        sections += ["chorus" if line.is_chorus else "verse"] * bars
    chords = [key.tonic, *(progression[bar % 4] for bar in range(len(sections) - 1)), key.tonic]
    return _Plan(tags, key, (*sections, "ending"), tuple(chords), tuple(placed))


def note_lengths(spelled: list[Syllable], half_slots: int) -> tuple[tuple[int, ...], int]:
    """Return the note of each syllable of a line in half beats, and the bars of the line: an even number.

    A note is about as long as its syllable; the last half beat of a line is a rest. Where a line is a little too long
    for its bars, its longest notes are shorter.

    Args:
        spelled: the line's syllables.
        half_slots: slots of 40 ms in half a beat.
    """
    lengths = [_half_beats(each.natural, half_slots) for each in spelled]
    lengths[-1] = max(lengths[-1], _LAST)
    bars = 2
    while len(lengths) > bars * _BAR - 1 or sum(lengths) > 1.2 * bars * _BAR:
        bars += 2
    while sum(lengths) > bars * _BAR - 1:
        lengths[int(np.argmax(lengths))] -= 1
    return tuple(lengths), bars


def _half_beats(natural: int, half_slots: int) -> int:
    return int(np.clip(round(_STRETCH * natural / half_slots), 1, _LONGEST))


def usual_half_beats(natural: int, half_slots: int) -> list[tuple[int, float]]:
    """Return lengths that notes of a syllable have, in half beats, and about how often: its own, or one less or more.

    Args:
        natural: length of the syllable as it is spelled.
        half_slots: slots of 40 ms in half a beat.
    """
    own = _half_beats(natural, half_slots)
    return [(own, 0.8), *((length, 0.1) for length in (own - 1, own + 1) if length)]


def _write_clock(codes: Codes, plan: _Plan) -> None:
    """The bars take turns; the intro is a second bar, so that every line begins in a first one."""
    tempo = _set(plan.tags.tempo)
    for frame in range(codes.shape[1]):
        bar, place = divmod(frame, plan.bar)
        codes[CLOCK, frame] = layout.clock_id(layout.Clock(tempo, (bar + 1) % 2, place))


def _write_band(codes: Codes, plan: _Plan) -> None:
    instrument = layout.CHORD_INSTRUMENTS.index(_set(plan.tags.chords))
    for bar, (chord, section) in enumerate(zip(plan.chords, plan.sections, strict=True)):
        style = arrangement.style_of(_set(plan.tags.style), section)
        chords, lows = arrangement.play_bar(style, chord, instrument, plan.half_beat)
        frames = slice(bar * plan.bar, (bar + 1) * plan.bar)
        codes[CHORD, frames] = [layout.chord_id(each) for each in chords]
        codes[LOW, frames] = [layout.low_id(each) for each in lows]


def _write_voice(codes: Codes, plan: _Plan, rng: np.random.Generator) -> list[ScoreNote]:
    """Write cursor, note and atoms of every line."""
    all_words = [word for line, _, _ in plan.lines for word in line.words]
    cursors = word_cursors(all_words, words.ids())
    notes: list[ScoreNote] = []
    word, pitch = 0, 3
    for line, bar, lengths in plan.lines:
        at, index = bar * _BAR, 0
        for text in line.words:
            for number, syllable in enumerate(spelling(text)):
                last = index == len(lengths) - 1
                pitch = _next_pitch(plan, plan.chords[at // _BAR], pitch, strong=at % 2 == 0 or last, rng=rng)
                start, end = at * plan.half_beat, (at + lengths[index]) * plan.half_beat
                notes.append(ScoreNote(word, number, start, end, pitch))
                _write_note(codes, plan, notes[-1], fill(syllable, 2 * (end - start)))
                codes[CURSOR, start:] = cursors[word][0]
                codes[CLOCK, start:] = codes[CLOCK, start:] % layout.CLOCKS + cursors[word][1]
                at, index = at + lengths[index], index + 1
            word += 1
    return notes


def _next_pitch(plan: _Plan, chord: str, before: int, *, strong: bool, rng: np.random.Generator) -> int:
    """Choose a note near the one before: of the chord where the beat is strong, else of the key."""
    letters = harmony.LETTERS[harmony.gender(plan.singer)]
    allowed = harmony.TONES[chord] if strong else plan.key.letters
    choices = [index for index, letter in enumerate(letters) if letter in allowed and letter in plan.key.letters]
    weights = np.array([np.exp(-abs(each - before) / _WANDERING) * (0.4 if each == before else 1) for each in choices])
    return int(rng.choice(choices, p=weights / weights.sum()))


def _write_note(codes: Codes, plan: _Plan, note: ScoreNote, atoms: list[int]) -> None:
    for frame in range(note.start, note.end):
        remaining = -(-(note.end - frame) // plan.half_beat)
        sung = layout.SungNote(plan.singer, note.pitch, remaining)
        codes[NOTE, frame] = layout.note_id(sung)
        codes[ATOM_1, frame], codes[ATOM_2, frame] = atoms[2 * (frame - note.start) : 2 * (frame - note.start) + 2]


def _write_lead(codes: Codes, plan: _Plan, rng: np.random.Generator) -> None:
    """Fill the beats in which nobody sings with notes of the chord."""
    instrument = layout.LEAD_INSTRUMENTS.index(_set(plan.tags.lead))
    beat = 2 * plan.half_beat
    pitch = layout.N_LEAD_PITCHES // 2
    for start in range(0, codes.shape[1], beat):
        frames = slice(start, start + beat)
        if codes[NOTE, frames].any():
            continue
        tones = harmony.TONES[plan.chords[start // plan.bar]]
        choices = [index for index, letter in enumerate(harmony.LEAD_LETTERS) if letter in tones]
        weights = np.array([np.exp(-abs(index - pitch) / _WANDERING) for index in choices])
        pitch = int(rng.choice(choices, p=weights / weights.sum()))
        codes[LEAD, frames] = [layout.lead_id(layout.Played(instrument, pitch, frame)) for frame in range(beat)]
