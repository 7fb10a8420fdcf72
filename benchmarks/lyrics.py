"""How well are words heard that are spoken, sung, mixed and separated, and is nothing heard where nobody sings?

    python -m benchmarks.lyrics [--repository build/repository/tiny] [--lyric-model DIR] [--threads 1] [--only PART ...]

The songs are the voice bank's: six of 30 s with known words. The parts:

* even: lyric error of the songs sung evenly, as real_parts.md describes its own: of the vocals, of the mix, and of
  Spleeter's vocals (only with a repository)
* words: of each song's lines spoken, of its vocals, of the mix, of a mix whose voice is 6 dB louder, of Spleeter's
  vocals, and of the vocals against another song's lyrics
* long: lyric error of all vocals in a row, 180 s in several windows
* no words: what is heard in noise, hum, a tone, silence, vowels, bands, and songs of random weights (only with a
  repository): the sounds on which the thresholds were set
* held out: other sounds without words, and even songs of voices that the bank has not: the thresholds were not set on
  them
* cost: CPU seconds per second of singing

Every row has the extremes of Whisper's own measures, between which the thresholds lie. The bank's own mixes are
reported, and have no bar: their rhythm hurries consonants more than the songs on which the bar was set.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.messages import AudioChunk
from heartvoice.evaluation.lyric_text import lyric_words, words
from heartvoice.evaluation.lyrics import LyricJudge, lyric_error
from heartvoice.evaluation.measures import si_sdr_db
from heartvoice.evaluation.transcriber import Heard
from heartvoice.judges.opening import open_lyric_judge, open_tiny_en
from heartvoice.loadtest.harness import RESULTS, Run
from heartvoice.pipeline.in_process import InProcessStages, make_song
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.stages.separation.request import Carry, SeparationRequest
from heartvoice.stages.separation.stage import SeparateStage
from tests.support import music, voice_bank
from tests.support.voice_bank import BankSong, band
from tests.support.voice_bank.even import even_song
from train.voices import kokoro

Samples = NDArray[np.float32]
ROOT = Path(__file__).parents[1]
SECONDS = voice_bank.SONG_S
PAUSE = np.zeros(SPEECH_RATE_HZ // 4, np.float32)
RANDOM_SONGS_S = (5, 10, 20, 30)
HELD_OUT_SONGS_S = (7, 15, 25)
HELD_OUT_VOICES = {"harbour": "bf_emma", "engine": "am_onyx", "snow": "af_sky", "corner": "bm_george"}
"""Voices of the held-out songs; the bank has none of them."""
LOUDER_DB = 6.0
RATED = 0.25
"""The lyric error that a song must not exceed, of `BARRED` sounds."""
BARRED = ("spoken", "vocals", "even vocals", "even mix", "even separated", "held out vocals")


class Bench:
    """The judge, the repository and the run."""

    def __init__(self, run: Run, judge: LyricJudge, repository: Path | None) -> None:
        self.run, self.judge = run, judge
        self.repository = None if repository is None else Repository(repository)
        self.songs = [voice_bank.song(name, SECONDS) for name in voice_bank.SONGS]

    def hear(self, case: str, variant: str, audio: Samples, lyrics: str) -> list[str]:
        """Add a row; returns the words that were heard."""
        heard = self.judge.transcriber.hear(audio, "en")
        text = " ".join(each.text for each in heard if each.has_words)
        self._compare(case, variant, text, lyrics, **_extremes(heard))
        return words(text, "en")

    def _compare(self, case: str, variant: str, text: str, lyrics: str, **facts: Any) -> None:
        made = lyric_error(lyric_words(lyrics, "en"), words(text, "en"), text)
        self.run.add(case, variant, error=made.error, words=made.n_heard, heard=text, **facts)

    def _mean(self, *variants: str) -> None:
        """Add the mean over the songs of each of these variants that was measured."""
        for variant in variants:
            errors = [row["error"] for row in self.run.rows if row["variant"] == variant and "error" in row]
            if errors:
                self.run.add("mean", variant, error=float(np.mean(errors)), most=max(errors), least=min(errors))

    def measure_even(self) -> None:
        """The songs sung evenly: alone, in the mix, separated."""
        for name in voice_bank.SONGS:
            song, case = even_song(name, seconds=SECONDS), f"even {name}"
            self.hear(case, "even vocals", _mono(song.vocals), song.lyrics)
            self.hear(case, "even mix", _mono(song.mix), song.lyrics)
            if self.repository is not None:
                separated = self._separated(song)
                self.hear(case, "even separated", _mono(separated), song.lyrics)
                self.run.rows[-1]["si_sdr_db"] = si_sdr_db(separated, song.vocals)
        self._mean("even vocals", "even mix", "even separated")

    def measure_words(self) -> None:
        """Every song spoken, sung, in the mix, separated, and against another song's words."""
        louder = np.float32(10 ** (LOUDER_DB / 20))
        for number, song in enumerate(self.songs):
            case, other = f"words {song.name}", self.songs[(number + 1) % len(self.songs)]
            self.hear(case, "spoken", _spoken(song), song.lyrics)
            sung = self.hear(case, "vocals", _mono(song.vocals), song.lyrics)
            self._compare(case, "vocals, other words", " ".join(sung), other.lyrics)
            self.hear(case, "mix", _mono(song.mix), song.lyrics)
            self.hear(case, "mix, louder voice", _mono(louder * song.vocals + song.instrumental), song.lyrics)
            if self.repository is not None:
                self.hear(case, "separated", _mono(self._separated(song)), song.lyrics)
        self._mean("spoken", "vocals", "mix", "mix, louder voice", "separated", "vocals, other words")

    def _separated(self, song: BankSong) -> Samples:
        assert self.repository is not None
        stage = SeparateStage(
            LocalNetworks(self.repository, threads=self.run.threads), self.repository.preset.separator
        )
        chunks = stage.separate(SeparationRequest(song.mix, sources=("vocals",)))
        return np.concatenate([each.stems[0] for each in chunks if not isinstance(each, Carry)], axis=1)

    def measure_long(self) -> None:
        """All vocals in a row: windows are cut anywhere."""
        audio = np.concatenate([_mono(song.vocals) for song in self.songs])
        self.hear("long", "all vocals", audio, "\n".join(song.lyrics for song in self.songs))

    def measure_no_words(self) -> None:
        """What is heard where nobody sings words."""
        self._hear_nothing("no words", self._wordless())

    def measure_held_out(self) -> None:
        """What is heard in other sounds without words, and of other voices' words."""
        self._hear_nothing("held out", self._held_out())
        for name, voice in HELD_OUT_VOICES.items():
            song = even_song(name, voice, SECONDS)
            self.hear(f"held out {voice}", "held out vocals", _mono(song.vocals), song.lyrics)
            self.hear(f"held out {voice}", "held out mix", _mono(song.mix), song.lyrics)
        self._mean("held out vocals", "held out mix")

    def _hear_nothing(self, case: str, sounds: Iterator[tuple[str, Samples]]) -> None:
        n_heard = n_sounds = 0
        for name, audio in sounds:
            heard = self.judge.transcriber.hear(audio, "en")
            text = " ".join(each.text for each in heard if each.has_words)
            n_heard, n_sounds = n_heard + bool(text), n_sounds + 1
            self.run.add(case, name, heard=text, said=" | ".join(h.text[:40] for h in heard), **_extremes(heard))
            self.run.save()
        self.run.add(case, "recordings with words", words=n_heard, sounds=n_sounds)

    def _wordless(self) -> Iterator[tuple[str, Samples]]:
        rng, clock = np.random.default_rng(0), np.arange(10 * SPEECH_RATE_HZ) / SPEECH_RATE_HZ
        white = rng.standard_normal(len(clock))
        yield "white noise", (0.1 * white).astype(np.float32)
        yield "soft white noise", (0.001 * white).astype(np.float32)
        brown = np.cumsum(white) - np.convolve(np.cumsum(white), np.full(800, 1 / 800), "same")
        yield "brown noise", (0.1 * brown / brown.std()).astype(np.float32)
        yield "silence", np.zeros(len(clock), np.float32)
        yield "hum", sum(0.1 * np.sin(100 * np.pi * n * clock) / n for n in range(1, 9)).astype(np.float32)
        yield "tone", (0.1 * np.sin(880 * np.pi * clock)).astype(np.float32)
        yield "vowels", music.singer(12.0, SPEECH_RATE_HZ)
        yield "plucked band", resample(music.band(12.0).mean(axis=0), STEM_RATE_HZ, SPEECH_RATE_HZ)
        for song in self.songs:
            yield f"band of {song.name}", _mono(song.instrumental)
        yield from self._random_songs(0, RANDOM_SONGS_S)

    def _held_out(self) -> Iterator[tuple[str, Samples]]:
        rng, clock = np.random.default_rng(1), np.arange(14 * SPEECH_RATE_HZ) / SPEECH_RATE_HZ
        spectrum = np.fft.rfft(rng.standard_normal(len(clock)))
        bins = np.arange(1, len(spectrum) + 1)
        for colour, slope in (("pink", -0.5), ("blue", 0.5)):
            yield f"{colour} noise", _loud(np.fft.irfft(spectrum * bins**slope, len(clock)))
        swelling = rng.standard_normal(len(clock)) * (1 + np.sin(2 * np.pi * 3.1 * clock))
        yield "noise that swells three times a second", _loud(swelling)
        yield "clicks", _loud((rng.random(len(clock)) < 4 / SPEECH_RATE_HZ) * rng.standard_normal(len(clock)))
        hum = sum(np.sin(120 * np.pi * n * clock) / n for n in range(1, 12, 2)) + rng.standard_normal(len(clock)) / 20
        yield "hum of 60 Hz in noise", _loud(hum)
        yield "sweep", _loud(np.sin(2 * np.pi * np.cumsum(100 * 20 ** (clock / 14)) / SPEECH_RATE_HZ))
        yield "bell", _loud(sum(np.sin(2 * np.pi * hz * clock) for hz in (523, 1307, 2210)) * np.exp(-clock % 2 * 2))
        for seed in (1, 2, 3):
            yield f"vowels {seed}", music.singer(15.0, SPEECH_RATE_HZ, seed, semitones=4.0 * seed - 8)
        for seed in (1, 2):
            yield f"plucked band {seed}", _mono(music.band(15.0, seed=seed))
        for song in self.songs:  # other chords, tempo and drums
            style = replace(
                song.style, degrees=song.style.degrees[::-1], minor=not song.style.minor, bpm=song.style.bpm * 1.2,
                drums="rock" if song.style.drums is None else None,
            )  # fmt: skip
            yield f"another band of {song.name}", _mono(band.play(style, 20.0))
        yield from self._random_songs(100, HELD_OUT_SONGS_S)

    def _random_songs(self, first_seed: int, lengths_s: Sequence[int]) -> Iterator[tuple[str, Samples]]:
        if self.repository is None:
            return
        stages = InProcessStages(self.repository, threads=self.run.threads)
        lyrics = (ROOT / "examples" / "lyrics_long.txt").read_bytes()
        for seed, seconds in enumerate(lengths_s, first_seed):
            inputs = {
                "lyrics": np.array([lyrics], object), "seed": np.array([seed]),
                "duration_s": np.array([seconds], np.float32), "min_duration_s": np.array([seconds], np.float32),
            }  # fmt: skip
            made = make_song(self.repository, stages, inputs)
            audio = np.concatenate([each.audio for each in made if isinstance(each, AudioChunk)], axis=1)
            yield f"random weights, {seconds} s", resample(audio.mean(axis=0), SAMPLE_RATE_HZ, SPEECH_RATE_HZ)

    def measure_cost(self) -> None:
        """CPU time of one song's vocals, after one that warms up."""
        first, second = (
            partial(self.judge.transcriber.hear, _mono(each.vocals), "en") for each in islice(self.songs, 2)
        )
        first()
        started = time.process_time()
        second()
        spent = time.process_time() - started
        self.run.add("cost", "vocals of 30 s", cpu_s=spent, rtf=spent / SECONDS)


def _mono(stem: Samples) -> Samples:
    return resample(np.ascontiguousarray(stem.mean(axis=0)), STEM_RATE_HZ, SPEECH_RATE_HZ)


def _loud(wave: NDArray[np.float64]) -> Samples:
    """A wave with a peak of 0.3."""
    return np.asarray(0.3 * wave / np.abs(wave).max(), np.float32)


def _spoken(song: BankSong) -> Samples:
    """The sung lines as speech, with short pauses."""
    lines = [voice_bank.spoken(song.name, index) for index in range(len(song.lines))]
    return np.concatenate([part for line in lines for part in (resample(line, kokoro.RATE_HZ, SPEECH_RATE_HZ), PAUSE)])


def _extremes(heard: Sequence[Heard]) -> dict[str, Any]:
    """Return the most doubtful of Whisper's own measures over the windows."""
    return {
        "no_speech": max(each.no_speech for each in heard),
        "log_probability": min(each.log_probability for each in heard),
        "compression": max(each.compression for each in heard),
        "windows": len(heard),
    }


MEASURES: dict[str, Callable[[Bench], None]] = {
    "even": Bench.measure_even,
    "words": Bench.measure_words,
    "long": Bench.measure_long,
    "no words": Bench.measure_no_words,
    "held out": Bench.measure_held_out,
    "cost": Bench.measure_cost,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status: 1 if words were wrong, or heard where there are none."""
    parser = argparse.ArgumentParser(prog="benchmarks.lyrics", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repository", type=Path, help="exported preset with Spleeter and a random language model")
    parser.add_argument("--lyric-model", type=Path, help="another Whisper in CTranslate2's format")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=tuple(MEASURES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    judge = open_lyric_judge(args.lyric_model) if args.lyric_model else open_tiny_en(threads=args.threads)
    about = {"judge": judge.origin.name, "judge_sha256": judge.origin.sha256, "seconds": SECONDS}
    run = Run("lyrics", "all", "int8", args.threads, results=args.results, about=about)
    bench = Bench(run, judge, args.repository)
    for part in args.only:
        MEASURES[part](bench)
        run.save()
    run.finish(json_line=False)
    wrong = [row["variant"] for row in run.rows if _is_wrong(row)]
    if wrong:
        print(f"not as it should be: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def _is_wrong(row: dict[str, Any]) -> bool:
    if row["case"] in ("no words", "held out"):
        return bool(row.get("heard"))
    if row["case"] != "mean":
        return False
    if "other" in row["variant"]:
        return bool(row["error"] <= RATED)
    return row["variant"] in BARRED and bool(row["error"] > RATED)


if __name__ == "__main__":
    sys.exit(main())
