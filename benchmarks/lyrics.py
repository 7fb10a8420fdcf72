"""How well are words heard that are spoken, sung, mixed and separated, and is nothing heard where nobody sings?

    python -m benchmarks.lyrics [--repository build/repository/tiny] [--lyric-model DIR] [--threads 1] [--only PART ...]

The songs are the voice bank's: six of 30 s with known words. The parts:

* words: lyric error of each song's lines spoken, of its vocals, of the mix, of Spleeter's vocals (only with a
  repository), and of the vocals against another song's lyrics
* long: lyric error of all vocals in a row, 180 s in several windows
* no words: what is heard in noise, hum, a tone, silence, vowels, bands, and songs of random weights (only with a
  repository)
* cost: CPU seconds per second of singing

Every row has the extremes of Whisper's own measures, between which the thresholds lie.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.cli.judges import open_lyric_judge, open_tiny_en
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.messages import AudioChunk
from heartvoice.evaluation.lyric_text import lyric_words, words
from heartvoice.evaluation.lyrics import LyricJudge, lyric_error
from heartvoice.evaluation.transcriber import Heard
from heartvoice.loadtest.harness import RESULTS, Run
from heartvoice.pipeline.in_process import InProcessStages, make_song
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.stages.separation.request import Carry, SeparationRequest
from heartvoice.stages.separation.stage import SeparateStage
from tests.support import music, voice_bank
from tests.support.voice_bank import BankSong
from train.voices import kokoro

Samples = NDArray[np.float32]
ROOT = Path(__file__).parents[1]
PARTS = ("words", "long", "no words", "cost")
SECONDS = 30
PAUSE = np.zeros(SPEECH_RATE_HZ // 4, np.float32)
RANDOM_SONGS_S = (5, 10, 20, 30)
RATED = 0.25
"""The lyric error that a song must not exceed."""


class Bench:
    """The judge, the repository and the run."""

    def __init__(self, run: Run, judge: LyricJudge, repository: Path | None) -> None:
        self.run, self.judge = run, judge
        self.repository = None if repository is None else Repository(repository)
        self.songs = [voice_bank.song(name, SECONDS) for name in voice_bank.SONGS]

    def hear(self, case: str, variant: str, audio: Samples, lyrics: str) -> float:
        """Add a row and return the lyric error."""
        heard = self.judge.transcriber.hear(audio, "en")
        text = " ".join(each.text for each in heard if each.has_words)
        made = lyric_error(lyric_words(lyrics, "en"), words(text, "en"), text)
        self.run.add(case, variant, error=made.error, words=made.n_heard, heard=text, **_extremes(heard))
        return made.error

    def measure_words(self) -> None:
        """Every song spoken, sung, in the mix, separated, and against another song's words."""
        found: dict[str, list[float]] = {}
        for number, song in enumerate(self.songs):
            other = self.songs[(number + 1) % len(self.songs)]
            sounds: dict[str, tuple[Samples, str]] = {
                "spoken": (_spoken(song), song.lyrics),
                "vocals": (_mono(song.vocals), song.lyrics),
                "mix": (_mono(song.mix), song.lyrics),
                "vocals, other words": (_mono(song.vocals), other.lyrics),
            }
            if self.repository is not None:
                sounds["separated"] = _mono(self._separated(song)), song.lyrics
            for variant, (audio, lyrics) in sounds.items():
                found.setdefault(variant, []).append(self.hear(f"words {song.name}", variant, audio, lyrics))
        for variant, errors in found.items():
            self.run.add("words, mean", variant, error=float(np.mean(errors)), most=max(errors), least=min(errors))

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
        n_heard = 0
        for name, audio in self._wordless():
            heard = self.judge.transcriber.hear(audio, "en")
            text = " ".join(each.text for each in heard if each.has_words)
            n_heard += bool(text)
            self.run.add("no words", name, heard=text, said=" | ".join(h.text[:40] for h in heard), **_extremes(heard))
        self.run.add("no words", "recordings with words", words=n_heard)

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
        yield from self._random_songs()

    def _random_songs(self) -> Iterator[tuple[str, Samples]]:
        if self.repository is None:
            return
        stages = InProcessStages(self.repository, threads=self.run.threads)
        lyrics = (ROOT / "examples" / "lyrics.txt").read_bytes()
        for seed, seconds in enumerate(RANDOM_SONGS_S):
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


MEASURES: dict[str, Callable[[Bench], None]] = dict(
    zip(PARTS, (Bench.measure_words, Bench.measure_long, Bench.measure_no_words, Bench.measure_cost), strict=True)
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status: 1 if words were wrong, or heard where there are none."""
    parser = argparse.ArgumentParser(prog="benchmarks.lyrics", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repository", type=Path, help="exported preset with Spleeter and a random language model")
    parser.add_argument("--lyric-model", type=Path, help="another Whisper in CTranslate2's format")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
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
    wrong = [row["variant"] for row in run.rows if row["case"] == "words, mean" and _is_wrong(row)]
    wrong += [row["variant"] for row in run.rows if row["case"] == "no words" and row.get("heard")]
    if wrong:
        print(f"not as it should be: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def _is_wrong(row: dict[str, Any]) -> bool:
    return bool(row["error"] <= RATED) if "other" in row["variant"] else bool(row["error"] > RATED)


if __name__ == "__main__":
    sys.exit(main())
