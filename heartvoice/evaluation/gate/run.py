"""Runs the list: asks the system for every song and cover, and measures what comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from heartvoice.evaluation.gate.measures import CoverTaken, SongTaken, Values, measure_cover, measure_song
from heartvoice.evaluation.gate.world import CoverOrder, GateCover, GateSong, Maker, SongOrder, World
from heartvoice.evaluation.judges import Judges

Step = Callable[[str], None]


def run(
    world: World, maker: Maker, judges: Judges, seed: int, songs: Sequence[GateSong], covers: Sequence[GateCover],
    step: Step = lambda _doing: None,
) -> dict[str, Values]:  # fmt: skip
    """Measure some songs and covers of a world; returns the values by item.

    Args:
        world: knows their true sound.
        maker: the system.
        judges: pitch, voice, words, opinions.
        seed: of all songs and covers.
        songs: of the world's list.
        covers: likewise.
        step: called with the name of each item before it is made.

    Raises:
        EngineError: the system gave sound of another length than it must have.
    """
    values: dict[str, Values] = {}
    for song in songs:
        step(song.name)
        values[song.name] = _song(world, maker, judges, song, seed)
    for cover in covers:
        step(cover.name)
        values[cover.name] = _cover(world, maker, judges, cover, seed)
    return values


def _song(world: World, maker: Maker, judges: Judges, song: GateSong, seed: int) -> Values:
    settings = {**world.settings, "seed": seed, "duration_s": song.max_seconds}
    made = maker.sing(SongOrder(song.tags, song.lyrics, settings, stems=True, whole=True))
    alone = maker.sing(SongOrder("", "", settings, codes=world.voice_alone(made.codes)))
    taken = SongTaken(
        made, alone.audio, world.oracle(made.codes), world.read(song, made.codes), song.lyrics,
        int(world.settings["codec_window"]),
    )  # fmt: skip
    return measure_song(taken, judges)


def _cover(world: World, maker: Maker, judges: Judges, cover: GateCover, seed: int) -> Values:
    sounds = world.cover_sounds(cover)
    made = maker.cover(CoverOrder(sounds.recording, sounds.reference, {"seed": seed}))
    return measure_cover(CoverTaken(made, sounds, cover.lyrics), judges)
