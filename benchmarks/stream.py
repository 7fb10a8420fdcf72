"""How soon does a song start, relative to its whole time, with and without a voice?

    python -m benchmarks.stream [--preset mid] [--rounds 3] [--voice [--svc-steps 25]] [--quick]

The whole pipeline runs in one process over an exported repository (first `heartvoice export --preset mid
--random-weights 0`); times come from the jobs' reports. Windows of 93 and 372 frames alternate. `--voice` adds live
songs in another voice, which take several times as long. Run it with OMP_WAIT_POLICY=PASSIVE on a shared
machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.song_with_voice import LYRICS, TAGS, finished, voice_inputs
from heartvoice.arrays import Array
from heartvoice.contracts.constants import CODES_PER_UNIT
from heartvoice.contracts.network_names import NETWORKS
from heartvoice.loadtest.harness import RESULTS, Run, Timing
from heartvoice.pipeline.in_process import InProcessStages, InProcessVoiceStages, make_song
from heartvoice.runtime.engines import default_threads
from heartvoice.runtime.repository import Repository

BUDGETS = {"window 93": 0.25, "window 372": 0.6, "window 93, voice, live": 0.45}
"""Allowed time of first audio relative to the whole streamed song of 60 s (design, section 4)."""


def measure(run: Run, repository: Repository, jobs: dict[str, dict[str, Array]], *, rounds: int) -> None:
    """Run all jobs alternately; adds two rows for each."""
    stages, voice = (
        InProcessStages(repository, threads=run.threads),
        InProcessVoiceStages(repository, threads=run.threads),
    )
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, inputs in jobs.items():
            reports[name].append(finished(make_song(repository, stages, inputs, lambda: voice))["timings"])
    for name, timings in reports.items():
        first, total = (Timing(tuple(each[key] for each in timings)) for key in ("first_audio_s", "total_s"))
        run.add(name, "whole song", total)
        run.add(name, "first audio", first, baseline=total, budget=BUDGETS[name])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = _parse(arguments)
    repository = Repository(args.repository or Path("build/repository") / args.preset)
    about = repository.about(*NETWORKS) | {"seconds": args.seconds, "steps": args.steps, "svc_steps": args.svc_steps}
    run = Run("stream", repository.preset.name, str(repository.index["precision"]), args.threads,
              results=args.results, about=about)  # fmt: skip
    song = {
        "lyrics": np.array([LYRICS.encode()], np.object_),
        "tags": np.array([TAGS.encode()], np.object_),
        "duration_s": np.array([args.seconds], np.float32),
        "min_duration_s": np.array([args.seconds], np.float32),
        "codec_steps": np.array([args.steps]),
    }
    early = {"codec_window": np.array([CODES_PER_UNIT])}
    jobs = {"window 93": song | early, "window 372": song | {"codec_window": np.array([4 * CODES_PER_UNIT])}}
    if args.voice:
        live = voice_inputs() | {"live": np.array([True]), "svc_steps": np.array([args.svc_steps])}
        jobs["window 93, voice, live"] = song | early | live
    measure(run, repository, jobs, rounds=args.rounds)
    run.finish()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.stream", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="mid", help="preset of build/repository")
    parser.add_argument("--repository", type=Path, help="repository to use instead of build/repository/PRESET")
    parser.add_argument("--seconds", type=float, help="length of a song (default 60)")
    parser.add_argument("--steps", type=int, default=10, help="steps of the codec's flow (default 10)")
    parser.add_argument("--svc-steps", type=int, help="steps of the converter's flow (default --steps; request: 25)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--voice", action="store_true", help="add live songs in another voice")
    parser.add_argument("--quick", action="store_true", help="songs of 16 s, one step, one round")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    args.svc_steps = args.svc_steps or args.steps
    args.seconds = args.seconds or (16.0 if args.quick else 60.0)
    if args.quick:
        args.steps = args.rounds = 1
    return args


if __name__ == "__main__":
    main()
