"""How fast are mixer and limiter, and how much memory do they use?

    python -m benchmarks.mixer [--seconds 60] [--rounds 5]

It streams synthetic signals with the levels of music in chunks of one second: the mixer with reverberant and with mono
vocals, the limiter on a mix with occasional peaks and on noise 20 dB above the ceiling. The yardstick is soxr, which
resamples the same stereo signal from 44.1 to 48 kHz; the mixer does that twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice import keyed_random
from heartvoice.audio.dsp import resample
from heartvoice.audio.limiter import Limiter
from heartvoice.audio.mixer import Mixer
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.loadtest.harness import RESULTS, Run, alternate
from heartvoice.loadtest.machine import peak_in_child

Samples = NDArray[np.float32]
YARDSTICK = "soxr, once"


def _signal(name: str, n_channels: int, seconds: int, rate_hz: int) -> Samples:
    """Make noise that swells and fades twice a second: [C, N], deviation about 0.1."""
    n = seconds * rate_hz
    swell = np.float32(0.1) * (1 + np.sin(np.arange(n, dtype=np.float32) * np.float32(4 * np.pi / rate_hz)))
    signal: Samples = keyed_random.normal(0, f"benchmark mix {name}", 0, (n_channels, n)) * swell
    return signal


def _mix(seconds: int, *, mono: bool) -> Callable[[], object]:
    vocals = _signal("vocals", 2, seconds, STEM_RATE_HZ)
    vocals[1] = vocals[0] if mono else np.float32(0.7) * vocals[0] + np.float32(0.3) * vocals[1]
    converted = _signal("converted", 1, seconds, STEM_RATE_HZ)[0]
    recording = _signal("recording", 2, seconds, SAMPLE_RATE_HZ)

    def run() -> None:
        mixer = Mixer(live=True)
        for second in range(seconds):
            part = slice(second * STEM_RATE_HZ, (second + 1) * STEM_RATE_HZ)
            piece = recording[:, second * SAMPLE_RATE_HZ : (second + 1) * SAMPLE_RATE_HZ]
            mixer.push(piece, vocals[:, part], converted[part])
        mixer.finish()

    return run


def _limit(seconds: int, *, gain: float) -> Callable[[], object]:
    audio = (_signal("recording", 2, seconds, SAMPLE_RATE_HZ) * np.float32(gain))[None]

    def run() -> None:
        limiter = Limiter()
        for start in range(0, audio.shape[-1], SAMPLE_RATE_HZ):
            limiter.push(audio[..., start : start + SAMPLE_RATE_HZ])
        limiter.finish()

    return run


def _resample(seconds: int) -> Callable[[], object]:
    audio = _signal("vocals", 2, seconds, STEM_RATE_HZ)
    return lambda: resample(audio, STEM_RATE_HZ, SAMPLE_RATE_HZ)


VARIANTS: dict[str, tuple[Callable[..., Callable[[], object]], dict[str, Any]]] = {
    YARDSTICK: (_resample, {}),
    "mixer, vocals in a room": (_mix, {"mono": False}),
    "mixer, mono vocals": (_mix, {"mono": True}),
    "limiter, now and then": (_limit, {"gain": 1.5}),
    "limiter, 20 dB over": (_limit, {"gain": 50.0}),
}


def build(name: str, seconds: int) -> Callable[[], object]:
    """Make one variant by name, for child processes."""
    make, options = VARIANTS[name]
    return make(seconds, **options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.mixer", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="length of the audio in seconds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    run = Run("mix", "none", "fp32", 1, results=args.results, about={"seconds": args.seconds})
    timings = alternate({name: build(name, args.seconds) for name in VARIANTS}, n=args.rounds, warmup=1, limit_s=60)
    for name, timing in timings.items():
        baseline = None if name == YARDSTICK else timings[YARDSTICK]
        row = run.add(f"{args.seconds} s of stereo", name, timing, baseline=baseline)
        row["rtf"] = timing.median / args.seconds
        row["times_real_time"] = args.seconds / timing.median
        row["run_mb"] = peak_in_child(build, name, args.seconds).growth / 1e6
    run.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
