"""Is the voice bank singing? What a pitch tracker and a speaker encoder hear of its six songs.

    python -m benchmarks.voice_bank [--names harbour ...]

The parts:

* f0: swift-f0's contour of the vocals, in their room, against the synthesised pitch (within 50 cents)
* one voice: cosine of the song's halves, and of the singing with three spoken lines in that voice
* other voices: cosines of the songs of different voices
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.judges.opening import open_judges
from heartvoice.loadtest.harness import RESULTS, Run
from heartvoice.loadtest.signals import score
from tests.support import voice_bank
from tests.support.voice_bank.songs import RATE_HZ
from train.voices import kokoro

Samples = NDArray[np.float32]


def _mono(stem: Samples) -> Samples:
    return resample(np.ascontiguousarray(stem.mean(axis=0)), RATE_HZ, SPEECH_RATE_HZ)


def _speech(name: str) -> Samples:
    lines = [voice_bank.spoken(name, index) for index in range(3)]
    return resample(np.concatenate(lines), kokoro.RATE_HZ, SPEECH_RATE_HZ)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--names", nargs="+", choices=list(voice_bank.SONGS), default=list(voice_bank.SONGS))
    options = parser.parse_args(arguments)
    judges, run = open_judges(), Run("voice-bank", "all", "fp32", 1, results=RESULTS)
    assert judges.f0 is not None
    songs, sung = {}, {}
    for name in options.names:
        songs[name] = voice_bank.song(name)
        run.add("song", name, voice=songs[name].voice, lines=len(songs[name].lines))
        sung[name] = _mono(songs[name].vocals)
        run.add("f0", name, **asdict(score(judges.f0.track(sung[name]), songs[name].f0_hz)))
    for engine, stage in judges.speakers.items():
        for name, audio in sung.items():
            half = len(audio) // 2
            cosines: dict[str, Any] = {
                "halves": float(stage.embed(audio[:half]) @ stage.embed(audio[half:])),
                "spoken": float(stage.embed(audio) @ stage.embed(_speech(name))),
            }
            run.add(f"one voice {engine}", name, voice=songs[name].voice, **cosines)
        whole = {name: stage.embed(audio) for name, audio in sung.items()}
        pairs = [float(whole[one] @ whole[other]) for one, other in itertools.combinations(whole, 2)]
        if pairs:
            run.add(
                f"other voices {engine}", "pairs", median=float(np.median(pairs)), most=max(pairs), count=len(pairs)
            )
    run.finish(json_line=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
