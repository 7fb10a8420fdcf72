"""Is the demo world understood, in tune and sung by different people, before any network is trained on it?

    python -m benchmarks.demo_world [--songs 8] [--only PART ...]

Held-out lyrics of four lines each, sung by all four singers, tempi in turn; the voice alone as it is rendered. Parts:

* words: lyric error by Whisper tiny.en, by singer and tempo (bar: at most 0.15 over all)
* mix: the same of the whole mix and of what Spleeter separates from it; two singers
* f0: swift-f0's contour against the score (bar: 97 % of frames within 50 cents)
* singers: Resemblyzer's cosines within a singer's songs and between singers
* speed: seconds of song that one processor second renders (bar: 20)
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.separators import separate, spleeter_stage
from heartvoice.audio.dsp import resample
from heartvoice.config.presets import SEPARATORS, SpleeterConfig
from heartvoice.contracts.constants import F0_RATE_HZ, SAMPLE_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.evaluation.lyric_text import lyric_words, words
from heartvoice.evaluation.lyrics import LyricJudge, lyric_error
from heartvoice.judges.opening import open_judges, open_tiny_en
from heartvoice.loadtest.harness import RESULTS, Run
from heartvoice.loadtest.signals import score as score_f0
from train.demo import harmony, layout, tables
from train.demo.compose import compose
from train.demo.grammar import held_out_lyrics
from train.demo.renderer import Renderer
from train.demo.score import Score, Tags
from train.demo.slots import FADE_SAMPLES

Samples = NDArray[np.float32]
PARTS = ("words", "mix", "f0", "singers", "speed")
MAX_ERROR, MIN_IN_TUNE, MIN_SPEED = 0.15, 0.97, 20.0
PEAK = 0.5


def held_out(number: int, singer: int) -> Score:
    """Return a held-out song for a singer; tempi take turns."""
    gender, colour = layout.SINGERS[singer].split()
    tempo = list(layout.TEMPI)[number % len(layout.TEMPI)]
    return compose(Tags(tempo=tempo, gender=gender, colour=colour), held_out_lyrics(number).text, number)


def mono(audio: Samples, rate_hz: int = SAMPLE_RATE_HZ) -> Samples:
    """Return [N] or [2, N] as the judges hear it: mono at 16 kHz, peak 0.5."""
    flat = audio if audio.ndim == 1 else audio.mean(axis=0)
    heard = resample(np.ascontiguousarray(flat), rate_hz, SPEECH_RATE_HZ)
    return heard * np.float32(PEAK / max(float(np.abs(heard).max()), 1e-6))


class Tally:
    """Wrong and all words by group."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}

    def add(self, groups: Sequence[str], wrong: int, n_words: int) -> None:
        """Count one song."""
        for group in groups:
            counts = self._counts.setdefault(group, [0, 0])
            counts[0], counts[1] = counts[0] + wrong, counts[1] + n_words

    def report(self, run: Run, case: str) -> float:
        """Add a row for each group; return the error over all."""
        for group, (wrong, n_words) in self._counts.items():
            run.add(case, group, error=wrong / n_words, wrong=wrong, words=n_words)
        wrong, n_words = self._counts["all"]
        return wrong / n_words


def hear(judge: LyricJudge, audio: Samples, lyrics: str) -> tuple[int, int, str]:
    """Return wrong words, all words and what was heard."""
    text = " ".join(each.text for each in judge.transcriber.hear(audio, "en") if each.has_words)
    wanted = lyric_words(lyrics, "en")
    made = lyric_error(wanted, words(text, "en"), text)
    return made.substituted + made.deleted + made.inserted, len(wanted), text


def measure_words(run: Run, renderer: Renderer, n_songs: int) -> bool:
    """Sing every held-out song by every singer."""
    judge, tally = open_tiny_en("en", threads=1), Tally()
    for number, singer in itertools.product(range(n_songs), range(len(layout.SINGERS))):
        song = held_out(number, singer)
        wrong, n_words, text = hear(judge, mono(renderer.parts(song.codes)["voice"]), song.lyrics)
        name, tempo = layout.SINGERS[singer], str(song.tags.tempo)
        tally.add(("all", name, tempo, f"{name} {tempo}"), wrong, n_words)
        run.add(f"song {number}", name, tempo=tempo, error=wrong / n_words, heard=text, lyrics=" ".join(song.words))
    return tally.report(run, "words") <= MAX_ERROR


def measure_mix(run: Run, renderer: Renderer, n_songs: int) -> bool:
    """Hear the mix, and Spleeter's vocals of it; for information."""
    judge, mixes, separated = open_tiny_en("en", threads=1), Tally(), Tally()
    sizes = SEPARATORS["spleeter"]
    assert isinstance(sizes, SpleeterConfig)
    with TemporaryDirectory() as folder:
        stage = spleeter_stage(sizes, Path(folder), 1)
        for number, singer in itertools.product(range(n_songs), (0, 2)):
            song = held_out(number, singer)
            mix = renderer.mix(song.codes)
            at_stems = np.stack([resample(channel, SAMPLE_RATE_HZ, STEM_RATE_HZ) for channel in mix])
            groups = ("all", layout.SINGERS[singer])
            mixes.add(groups, *hear(judge, mono(mix), song.lyrics)[:2])
            vocals = np.asarray(separate(stage, at_stems)[0], np.float32)
            separated.add(groups, *hear(judge, mono(vocals, STEM_RATE_HZ), song.lyrics)[:2])
    mixes.report(run, "mix")
    separated.report(run, "mix, Spleeter")
    return True


def truth_hz(song: Score) -> NDArray[np.float64]:
    """Return the pitch of a song on the contours' grid, 0 = nobody sings; it changes in the middle of a fade."""
    time_s = np.arange(round(song.seconds * F0_RATE_HZ) + 1) / F0_RATE_HZ - FADE_SAMPLES / 2 / SAMPLE_RATE_HZ
    truth = np.zeros(len(time_s))
    for note in song.notes:
        inside = (time_s >= note.start / layout.FRAME_HZ) & (time_s < note.end / layout.FRAME_HZ)
        truth[inside] = harmony.singer_hz(song.tags.singer, note.pitch)
    return truth


def measure_f0(run: Run, renderer: Renderer, n_songs: int) -> bool:
    """Track the voices; only frames in which the tracker hears a voice count, consonants have none."""
    tracker = open_judges().f0
    assert tracker is not None
    close = voiced = 0
    for number, singer in itertools.product(range(n_songs), range(len(layout.SINGERS))):
        song = held_out(number, singer)
        found, truth = tracker.track(mono(renderer.parts(song.codes)["voice"])), truth_hz(song)
        both = (found[: len(truth)] > 0) & (truth[: len(found)] > 0)
        cents = np.abs(1200 * np.log2(found[: len(truth)][both] / truth[: len(found)][both]))
        close, voiced = close + int((cents <= 50).sum()), voiced + len(cents)
        measured = score_f0(found[: len(truth)], truth[: len(found)])
        run.add("f0", f"{layout.SINGERS[singer]} {number}", within_50=float((cents <= 50).mean()), **vars(measured))
    run.add("f0", "all", within_50=close / voiced, frames=voiced)
    return close / voiced >= MIN_IN_TUNE


def measure_singers(run: Run, renderer: Renderer, n_songs: int) -> bool:
    """Compare singers by the judges of similarity that are there: other songs of one, and all songs of two."""
    apart = True
    for engine, stage in open_judges().speakers.items():
        vectors = {
            (number, singer): stage.embed(mono(renderer.parts(held_out(number, singer).codes)["voice"]))
            for number, singer in itertools.product(range(max(n_songs, 2)), range(len(layout.SINGERS)))
        }
        within, between = [], []
        for (one, other), pair in zip(
            itertools.combinations(vectors, 2), itertools.combinations(vectors.values(), 2), strict=True
        ):
            if one[1] == other[1]:
                within.append(float(pair[0] @ pair[1]))
            elif one[0] != other[0]:
                between.append(float(pair[0] @ pair[1]))
        run.add(
            f"singers {engine}", "cosines",
            within=float(np.median(within)), least_within=min(within),
            between=float(np.median(between)), most_between=max(between),
        )  # fmt: skip
        apart = apart and float(np.median(within)) > float(np.median(between))
    return apart


def measure_speed(run: Run, renderer: Renderer, n_songs: int) -> bool:
    """Render songs that were not rendered before; the least disturbed one counts."""
    speeds = []
    for number in range(100, 100 + n_songs):
        song = held_out(number, number % len(layout.SINGERS))
        start = time.process_time()
        renderer.mix(song.codes)
        speeds.append(song.seconds / (time.process_time() - start))
    run.add("speed", "mix", median=float(np.median(speeds)), best=max(speeds))
    return max(speeds) >= MIN_SPEED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status: 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--songs", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args(arguments)
    run, renderer = Run("demo-world", "demo", "fp32", 1, results=RESULTS), Renderer()
    for name, digest in tables.hashes().items():
        run.add("ingredients", name, sha256=digest)
    measures = {
        "words": measure_words, "mix": measure_mix, "f0": measure_f0, "singers": measure_singers,
        "speed": measure_speed,
    }  # fmt: skip
    held = [measures[part](run, renderer, options.songs) for part in options.only]
    run.finish(json_line=False)
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
