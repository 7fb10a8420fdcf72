"""The demo world as the gate of `heartvoice evaluate gate` needs it: twenty songs, twenty covers, their true sound."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.constants import F0_RATE_HZ
from heartvoice.evaluation.gate.world import CodeFigures, CoverSounds, GateCover, GateSong, Oracle, Setting
from train.demo import layout
from train.demo.codec_evaluation import FlowSettings, score_pitch
from train.demo.compose import compose
from train.demo.crops import mix, only
from train.demo.grammar import HELD_OUT_SEED, is_held_out, write_lyrics
from train.demo.harmony import gender
from train.demo.lm.evaluate import MOST, Sampling, judge
from train.demo.renderer import Renderer
from train.demo.score import Codes, Score, Tags
from train.demo.songs import held_out_song
from train.demo.world import identity

FIRST_SONG, N_SONGS = 100, 20
FIRST_COVER, N_COVERS = 200, 20
COVER_LINES = 2
REFERENCES = 300
"""Number of the first song in which a reference is sung."""
REFERENCE_S = 12.0
TARGETS = ((1, 2), (0, 3), (3, 0), (2, 1))
"""By singer, whose voices covers give: another one's of the same pitches, and one's of others."""


@dataclass(frozen=True)
class Cover:
    """A cover of the list."""

    name: str
    score: Score
    target: int
    """The singer of the reference: index into `layout.SINGERS`."""
    reference: Score


class DemoWorld:
    """The list; a `World`."""

    def __init__(self, songs: Mapping[str, Score] | None = None, covers: Sequence[Cover] | None = None) -> None:
        """Take songs by name, and covers; the twenty of each by default."""
        self.scores = listed_songs() if songs is None else songs
        self.cover_list = listed_covers() if covers is None else covers
        self._renderer = Renderer()

    @cached_property
    def identity(self) -> str:
        """Hash of the list, of how songs are asked for, and of the world's voices, instruments, gains and spellings."""
        songs = [(song.name, song.tags, song.lyrics) for song in self.songs()]
        covers = [
            (
                cover.name,
                cover.target,
                *(sha256(score.codes.tobytes()).hexdigest() for score in (cover.score, cover.reference)),
            )
            for cover in self.cover_list
        ]
        text = json.dumps([songs, covers, dict(self.settings), dict(identity())])
        return sha256(text.encode()).hexdigest()

    @property
    def settings(self) -> Mapping[str, Setting]:
        """Those with which language model and codec are measured after their training."""
        lm, flow = Sampling(), FlowSettings()
        return {
            "temperature": lm.temperature, "top_k": lm.top_k, "cfg_scale": lm.cfg_scale, "codec_steps": flow.steps,
            "codec_guidance": flow.guidance, "codec_window": flow.window,
        }  # fmt: skip

    def songs(self) -> Sequence[GateSong]:
        """Lyrics of four lines that training never has; singers and tempi take turns."""
        return [
            GateSong(name, score.tags.text, score.lyrics, round(MOST * score.seconds, 2))
            for name, score in self.scores.items()
        ]

    def covers(self) -> Sequence[GateCover]:
        """Songs of two lines, in turn for a singer with the same pitches and for one of the other gender."""
        return [GateCover(cover.name, cover.score.lyrics) for cover in self.cover_list]

    def oracle(self, codes: NDArray[np.integer[Any]]) -> Oracle:
        """Render codes, [8, T]."""
        song = np.asarray(codes).astype(np.int64)
        stems = self._renderer.stems(song)
        n_values = round(song.shape[1] / layout.FRAME_HZ * F0_RATE_HZ) + 1
        return Oracle(mix(stems), stems["voice"], score_pitch(song, n_values))

    def voice_alone(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Silence all other parts."""
        return only(np.asarray(codes).astype(np.int64), "voice").astype(np.int32)

    def read(self, song: GateSong, codes: NDArray[np.integer[Any]]) -> CodeFigures:
        """Read a song back from its codes."""
        score = self.scores[song.name]
        judged = judge(np.asarray(codes).astype(np.int64), score, ended=True)
        rules = [judged.consistency[name] for name in ("chord", "bass", "melody", "lead")]
        return CodeFigures(
            judged.word_errors / judged.n_words, float(np.mean(list(judged.tags.values()))), float(np.mean(rules))
        )

    def cover_sounds(self, cover: GateCover) -> CoverSounds:
        """Render recording, reference, and the same song by the reference's singer."""
        made = next(each for each in self.cover_list if each.name == cover.name)
        stems = self._renderer.stems(made.score.codes)
        wanted = only(sung_by(made.score.codes, made.target), "voice")
        same = gender(made.target) == gender(made.score.tags.singer)
        return CoverSounds(
            stems["voice"], mix({**stems, "voice": np.zeros_like(stems["voice"])}), self._reference(made.reference),
            self._renderer.stems(wanted)["voice"], same,
        )  # fmt: skip

    def _reference(self, score: Score) -> NDArray[np.float32]:
        """Render the voice of a song from its first word on."""
        start = int(np.flatnonzero(score.codes[layout.NOTE])[0])
        start -= start % 2  # a rendering begins in an even frame
        frames = slice(start, start + round(REFERENCE_S * layout.FRAME_HZ))
        return self._renderer.parts(score.codes[:, frames])["voice"]


def sung_by(codes: Codes, singer: int) -> Codes:
    """Return a song's codes, int64 [8, T], with another singer; each pitch is the one in the same place of theirs."""
    made = codes.copy()
    for code in np.unique(codes[layout.NOTE]):
        note = layout.read_note(int(code))
        if note is not None:
            other = layout.note_id(layout.SungNote(singer, note.pitch, note.remaining))
            made[layout.NOTE][codes[layout.NOTE] == code] = other
    return made


def listed_songs() -> dict[str, Score]:
    """Compose the songs of the list."""
    made = {}
    for number in range(FIRST_SONG, FIRST_SONG + N_SONGS):
        tags = _tags(number, number % len(layout.SINGERS))
        made[f"song {number}"] = held_out_song(number, tags)
    return made


def listed_covers() -> tuple[Cover, ...]:
    """Compose the covers of the list."""
    made = []
    for place in range(N_COVERS):
        singer = place % len(TARGETS)
        target = TARGETS[singer][place // len(TARGETS) % 2]
        number = FIRST_COVER + place
        made.append(
            Cover(f"cover {number}", _short_song(number, singer), target, _short_song(REFERENCES + place, target))
        )
    return tuple(made)


def _short_song(number: int, singer: int) -> Score:
    lyrics = write_lyrics(HELD_OUT_SEED + number, COVER_LINES, repeats=False, keep=is_held_out)
    return compose(_tags(number, singer), lyrics.text, HELD_OUT_SEED + number)


def _tags(number: int, singer: int) -> Tags:
    """Let tempi take turns; what else is played is drawn by the song's seed."""
    voice, colour = layout.SINGERS[singer].split()
    tempi = list(layout.TEMPI)
    return Tags(tempo=tempi[number % len(tempi)], gender=voice, colour=colour)
