"""What do the separators cost, and are Spleeter's stems as good as upstream's?

    python -m benchmarks.separators [--seconds 30] [--long 180] [--rounds 3] [--no-songs | --no-time]
    python -m benchmarks.separators --chunk bs_roformer | mel_band_roformer
    python -m benchmarks.separators --write-songs DIR

Spleeter's exported graph with STFT, on one thread, against demucs' `apply_model` at htdemucs' official size with
random weights: time does not depend on them. Both separate the same recording, alternately in one process. CPU time
is what the process used; on a machine with other work it is the better guess at a quiet one's time.

Then six songs of the tests' voice bank, whose stems are known: SI-SDR of Spleeter's vocals by the stage, by upstream's
settings (zeros above the bins, both stems masked), and of the mix. `tests` has to be importable: run it in a checkout.

`--write-songs` writes these songs for `heartvoice evaluate separators DIR`, which also measures what bleeds.

`--chunk` is a RoFormer of the official size with random weights: one chunk on onnxruntime, with its peak memory.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.separation import Floats, OneNetwork, apply_model, load_separator, recording
from heartvoice.checkpoints.spleeter import open_spleeter
from heartvoice.config.presets import SEPARATORS, RoformerConfig, SpleeterConfig, htdemucs_of
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.contracts.messages import StemsChunk
from heartvoice.evaluation.measures import si_sdr_db
from heartvoice.export import wheel_files
from heartvoice.export.roformer_graph import build_roformer
from heartvoice.export.spleeter_graph import build_spleeter
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.loadtest.harness import RESULTS, Run, Timing, alternate
from heartvoice.loadtest.machine import peak_in_child
from heartvoice.models.load import random_checkpoint
from heartvoice.runtime.engines import OnnxEngine, default_threads
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.separation.stage import SeparateStage

SPLEETER, APPLY_MODEL = "spleeter, onnxruntime", "htdemucs, apply_model"
BARS = {"rtf": 0.05, "ratio": 0.15, "mean_db": 9.0, "below_upstream_db": 0.1}
"""Largest RTF and ratio, least mean SI-SDR of vocals, and how far it may be below upstream's."""


def spleeter_stage(sizes: SpleeterConfig, folder: Path, threads: int) -> SeparateStage:
    """Write Spleeter's graph with its published weights into a folder, and open it."""
    folder = folder / f"{sizes.bins}-{sizes.mask_above}" / "1"
    folder.mkdir(parents=True)
    write_graph(build_spleeter(sizes, open_spleeter(wheel_files.member("spleeter"), sizes)), folder)
    return SeparateStage(OneNetwork(OnnxEngine(folder / GRAPH_FILE, threads=threads)), sizes)


def separate(stage: SeparateStage, audio: Floats) -> Floats:
    """Separate a recording, float32 [2, N], into [S, 2, N]."""
    pieces = [item.stems for item in stage.separate(SeparationRequest(audio)) if isinstance(item, StemsChunk)]
    return np.concatenate(pieces, axis=2)


class Cpu:
    """A function that counts the processor seconds of its calls."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call, self.seconds = call, list[float]()

    def __call__(self) -> None:
        """Call it."""
        began = time.process_time()
        self._call()
        self.seconds.append(time.process_time() - began)


def measure_time(run: Run, stage: SeparateStage, *, seconds: float, long_s: float, n: int) -> bool:
    """Measure both separators, and Spleeter on a long recording; adds rows. Returns True if it is within its bars.

    Spleeter fills up its last segment of 11.9 s, which counts for less in a long recording.
    """
    audio = recording(seconds, STEM_RATE_HZ)
    baseline = apply_model(load_separator(htdemucs_of("oss-3b"), 0))
    short = _alternate(
        run, {APPLY_MODEL: partial(baseline, audio), SPLEETER: partial(separate, stage, audio)}, seconds, n
    )
    short |= {"budget_ratio": BARS["ratio"]}
    long = _alternate(run, {SPLEETER: partial(separate, stage, recording(long_s, STEM_RATE_HZ))}, long_s, n)
    long |= {"budget_rtf": BARS["rtf"]}
    within: bool = long["rtf"] <= BARS["rtf"] and short["ratio"] <= BARS["ratio"]
    return within


def _alternate(run: Run, calls: dict[str, Callable[[], object]], seconds: float, n: int) -> dict[str, Any]:
    """Measure variants on a recording of so many seconds; returns the last one's row."""
    variants = {name: Cpu(call) for name, call in calls.items()}
    timings = alternate(variants, n=n, warmup=0)
    baseline = timings[next(iter(timings))]
    for name, timing in timings.items():
        row = run.add(f"{seconds:g} s", name, timing, baseline=None if timing is baseline else baseline)
        row |= {"rtf": timing.median / seconds, "rtf_of_min": min(timing.seconds) / seconds}
        cpu = Timing(tuple(variants[name].seconds))
        row |= {"cpu_rtf": cpu.median / seconds, "cpu_rtf_of_min": min(cpu.seconds) / seconds}
    return run.rows[-1]


def measure_songs(run: Run, stage: SeparateStage, upstream: SeparateStage) -> bool:
    """Separate the voice bank's songs; adds rows. Returns True if the vocals are within their bars."""
    from tests.support import voice_bank

    found: dict[str, list[float]] = {"mix": [], "upstream's formula": [], "spleeter": []}
    for name in voice_bank.SONGS:
        song = voice_bank.song(name)
        vocals = {
            "mix": song.mix, "upstream's formula": separate(upstream, song.mix)[0],
            "spleeter": separate(stage, song.mix)[0],
        }  # fmt: skip
        scores = {variant: _si_sdr(estimate, song.vocals) for variant, estimate in vocals.items()}
        rest = _si_sdr(song.mix - vocals["spleeter"], song.instrumental)
        for variant, score in scores.items():
            found[variant].append(score)
        row = run.add("vocals of a song", name)
        row |= {f"{key} dB": value for key, value in scores.items()} | {"instrumental_db": rest}
        run.save()
    means = {variant: float(np.mean(values)) for variant, values in found.items()}
    row = run.add("vocals, mean of the songs", "all")
    row |= {f"{key} dB": value for key, value in means.items()}
    below = means["upstream's formula"] - means["spleeter"]
    return means["spleeter"] >= BARS["mean_db"] and below <= BARS["below_upstream_db"]


def write_songs(folder: Path) -> None:
    """Write the voice bank's songs as folders of FLAC files: the mix and its two stems."""
    import soundfile

    from tests.support import voice_bank

    for name in voice_bank.SONGS:
        song, place = voice_bank.song(name), folder / name
        place.mkdir(parents=True)
        for part, audio in {"mix": song.mix, "vocals": song.vocals, "instrumental": song.instrumental}.items():
            soundfile.write(place / f"{part}.flac", audio.T, STEM_RATE_HZ, "PCM_16")


def _si_sdr(estimate: Any, truth: Any) -> float:
    value = si_sdr_db(estimate, truth)
    assert value is not None
    return value


def open_chunk(graph: Path, sizes: RoformerConfig, threads: int) -> Callable[[], object]:
    """Load a RoFormer's graph in a new process; return a function that runs one chunk."""
    engine = OnnxEngine(graph, threads=threads)
    features = np.random.default_rng(0).standard_normal((1, sizes.n_frames, sizes.n_features), np.float32)
    return lambda: engine.run({"features": features})


def timed_chunk(graph: Path, sizes: RoformerConfig, threads: int) -> Callable[[], object]:
    """Do as `open_chunk`; the function writes its seconds beside the graph."""
    call = open_chunk(graph, sizes, threads)

    def timed() -> None:
        began, cpu = time.perf_counter(), time.process_time()
        call()
        seconds = time.perf_counter() - began, time.process_time() - cpu
        np.save(graph.with_name("seconds.npy"), seconds)

    return timed


def measure_chunk(run: Run, sizes: RoformerConfig, folder: Path) -> None:
    """Measure one chunk of a RoFormer with random weights; adds a row."""
    folder = folder / "roformer" / "1"
    folder.mkdir(parents=True)
    began = time.perf_counter()
    source = random_checkpoint(sizes, 0)
    write_graph(build_roformer(sizes, source), folder)
    built_s = time.perf_counter() - began
    peak = peak_in_child(timed_chunk, folder / GRAPH_FILE, sizes, run.threads)
    wall, cpu = np.load(folder / "seconds.npy")
    chunk_s = sizes.chunk_size / STEM_RATE_HZ
    run.add(
        "one chunk", sizes.name, Timing((float(wall),)), chunk_s=chunk_s, cpu_s=float(cpu),
        rtf_of_a_long_song=float(wall) / chunk_s * sizes.num_overlap, cpu_rtf=float(cpu) / chunk_s * sizes.num_overlap,
        loaded_mb=peak.loaded / 1e6, peak_mb=peak.peak / 1e6, graph_built_s=built_s,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    roformers = {name: sizes for name, sizes in SEPARATORS.items() if isinstance(sizes, RoformerConfig)}
    parser = argparse.ArgumentParser(prog="benchmarks.separators", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the recording in seconds")
    parser.add_argument("--long", type=float, default=180.0, help="length of Spleeter's long recording in seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-songs", action="store_true", help="time alone")
    parser.add_argument("--no-time", action="store_true", help="songs alone")
    parser.add_argument("--chunk", choices=roformers, help="one chunk of this RoFormer alone")
    parser.add_argument("--write-songs", type=Path, metavar="DIR", help="write the songs, and measure nothing")
    parser.add_argument("--threads", type=int, help="default 1; of a chunk all cores")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    if args.write_songs is not None:
        write_songs(args.write_songs)
        return 0
    threads = args.threads or (default_threads() if args.chunk else 1)
    torch.set_num_threads(threads)
    name = "separators-chunk" if args.chunk else "separators"
    run = Run(name, args.chunk or "full", "fp32", threads, results=args.results, about={"seconds": args.seconds})
    right = True
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if args.chunk:
            measure_chunk(run, roformers[args.chunk], folder)
        else:
            published = SEPARATORS["spleeter"]
            assert isinstance(published, SpleeterConfig)
            stage = spleeter_stage(published, folder, threads)
            if not args.no_time:
                right = measure_time(run, stage, seconds=args.seconds, long_s=args.long, n=args.rounds)
                run.save()
            if not args.no_songs:
                formula = replace(published, mask_above="zeros", residual=False)
                right = measure_songs(run, stage, spleeter_stage(formula, folder, threads)) and right
    run.finish()
    if not right:
        print(f"a bar is missed: {BARS}", file=sys.stderr)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
