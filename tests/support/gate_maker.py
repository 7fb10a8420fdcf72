"""A stand-in for a good system: the demo world's own renderer with a little noise."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from heartvoice import keyed_random
from heartvoice.evaluation.gate.world import CoverOrder, CoverSounds, MadeCover, MadeSong, SongOrder
from train.demo import layout
from train.demo.compose import compose
from train.demo.gate import Cover, DemoWorld, sung_by
from train.demo.grammar import HELD_OUT_SEED, is_held_out, write_lyrics
from train.demo.score import Score, Tags

NOISE_DB = -60.0
COMPOSED_AS = 3
"""Seed of the songs that it writes."""
_CONFUSED = 0.2
"""Share of codes that are random above temperature 1: no model of a language model, only bad codes."""
SONG, COVER = "song 1", "cover 1"


def _short(number: int, singer: str) -> Score:
    gender, colour = singer.split()
    tags = Tags(tempo="fast", mood="happy", style="pop", chords="piano", lead="flute", gender=gender, colour=colour)
    return compose(tags, write_lyrics(HELD_OUT_SEED + number, 1, keep=is_held_out).text, COMPOSED_AS)


def small_world() -> DemoWorld:
    """A song of one line, and a cover of it for a woman's voice: a little singing tells that it is another's."""
    score, target = _short(1, "male warm"), "female bright"
    return DemoWorld({SONG: score}, (Cover(COVER, score, layout.SINGERS.index(target), _short(2, target)),))


class StandIn:
    """Sings the world's own song for tags and lyrics; gives a cover the reference's singer if it knows the voice."""

    def __init__(self, world: DemoWorld) -> None:
        self._world = world
        self._covers = {
            _key(sounds.recording): (cover, sounds)
            for cover, listed in zip(world.cover_list, world.covers(), strict=True)
            for sounds in (world.cover_sounds(listed),)
        }

    def sing(self, order: SongOrder) -> MadeSong:
        codes = order.codes
        if codes is None:
            codes = compose(order.tags, order.lyrics, COMPOSED_AS).codes.astype(np.int32)
        if order.codes is None and order.settings.get("temperature", 1.0) > 1.0:
            codes = _confused(codes, order.settings["seed"])
        oracle, seed = self._world.oracle(codes), order.settings["seed"]
        audio = oracle.mix + _noise(seed, "mix", oracle.mix.shape)
        vocals = oracle.voice + _noise(seed, "voice", oracle.mix.shape) if order.stems else None
        return MadeSong(codes, audio, vocals, audio.copy() if order.whole else None)

    def cover(self, order: CoverOrder) -> MadeCover:
        cover, sounds = self._covers[_key(order.recording)]
        singer = cover.target if np.array_equal(order.reference, sounds.reference) else cover.score.tags.singer
        voice = self._world.oracle(self._world.voice_alone(sung_by(cover.score.codes, singer))).voice
        vocals = voice + _noise(order.settings["seed"], "vocals", voice.shape)
        instrumental = sounds.instrumental + _noise(order.settings["seed"], "rest", voice.shape)
        audio = vocals + instrumental
        return MadeCover(audio, vocals, instrumental, audio.copy(), 0.0)

    def sounds(self, order: CoverOrder) -> CoverSounds:
        """What a cover was rendered from."""
        return self._covers[_key(order.recording)][1]


def _key(audio: NDArray[np.float32]) -> str:
    return sha256(audio.tobytes()).hexdigest()


def _noise(seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return keyed_random.normal(seed, f"gate {name}", 0, shape) * np.float32(10 ** (NOISE_DB / 20))


def _confused(codes: NDArray[np.int32], seed: int) -> NDArray[np.int32]:
    chance = keyed_random.uniform(seed, "gate chance", 0, codes.shape)
    other = keyed_random.uniform(seed, "gate other", 0, codes.shape) * np.array(layout.SIZES)[:, None]
    return np.where(chance < _CONFUSED, other.astype(np.int32), codes)
