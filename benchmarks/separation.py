"""Is separation by the exported graph faster than demucs' own `apply_model`, and equally accurate?

    python -m benchmarks.separation --preset mid|full [--seconds 30] [--quick]

A recording of chords and noise is separated by `demucs.apply.apply_model` (shifts 0) and by the stage, on onnxruntime
and OpenVINO. All variants have the same random weights and threads and run alternately in one process. The stage skips
the last chunk, where `apply_model` blends the end once more. Errors are therefore measured once per engine against
`apply_model` with that chunk included. bf16 is an option of OpenVINO; the result shows its error in dB. Peak memory of
each variant is measured in a separate process. `full` is the official htdemucs, `full-ft` the bag of four.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from heartvoice import keyed_random
from heartvoice.arrays import Array
from heartvoice.config.presets import SeparatorConfig, htdemucs_of
from heartvoice.contracts.messages import StemsChunk
from heartvoice.export.htdemucs_graph import build_htdemucs
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.loadtest.harness import RESULTS, Run, alternate, difference
from heartvoice.loadtest.machine import peak_in_child
from heartvoice.models.demucs_module import Separator
from heartvoice.models.load import load_network, random_checkpoint
from heartvoice.runtime.engines import Engine, OnnxEngine, OpenVinoEngine, default_threads
from heartvoice.stages.separation.plan import SeparationPlan
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.separation.stage import SeparateStage

Floats = npt.NDArray[np.float32]
PRESET_SIZES: dict[str, SeparatorConfig] = {
    "tiny": htdemucs_of("tiny"),
    "mid": htdemucs_of("mid"),
    "full": htdemucs_of("oss-3b"),
    "full-ft": replace(htdemucs_of("oss-3b"), n_models=4),
}
APPLY_MODEL, ONNXRUNTIME = "apply_model fp32", "onnxruntime fp32"
OPENVINO = {"openvino fp32": "f32", "openvino bf16": "bf16"}
BUDGETS = {ONNXRUNTIME: 0.8, "openvino fp32": 0.8, "openvino bf16": 0.4}
"""Largest allowed time relative to `apply_model`."""
_CHORDS_HZ = ((110.0, 220.0, 277.2, 329.6), (87.3, 174.6, 220.0, 261.6), (98.0, 196.0, 246.9, 293.7))
_CHORD_S = 1.5


class OneNetwork:
    """An engine as `networks.Networks`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the engine; the name is ignored."""
        return self._engine.run(inputs, outputs)


def recording(seconds: float, rate_hz: int) -> Floats:
    """Make changing chords and bursts of noise, float32 [2, N]."""
    n = round(seconds * rate_hz)
    time = np.arange(n) / rate_hz
    hz = np.array(_CHORDS_HZ)[(time / _CHORD_S).astype(int) % len(_CHORDS_HZ)].T  # [note, N]
    chord = np.sin(2 * np.pi * np.cumsum(hz / rate_hz, axis=1)).sum(axis=0)
    bursts = keyed_random.normal(0, "benchmark recording", 0, (2, n)) * np.exp(-8 * (time % 0.5))
    mix: Floats = (0.08 * chord * np.array([[1.0], [0.8]]) + 0.1 * bursts).astype(np.float32)
    return mix


def load_separator(sizes: SeparatorConfig, seed: int) -> Separator:
    """Load the network with random weights."""
    return cast("Separator", load_network(sizes, random_checkpoint(sizes, seed)))


def variants() -> list[str]:
    """Return the variants that this machine can run, the baseline first."""
    found = [APPLY_MODEL, ONNXRUNTIME]
    return found + list(OPENVINO) if importlib.util.find_spec("openvino") else found


def open_engine(variant: str, graph: Path, threads: int) -> Engine:
    """Open the engine of a variant of the stage."""
    if variant == ONNXRUNTIME:
        return OnnxEngine(graph, threads=threads)
    return OpenVinoEngine(graph, threads=threads, precision=OPENVINO[variant])


def stage_of(engine: Engine, sizes: SeparatorConfig, *, all_chunks: bool = False) -> Callable[[Floats], Floats]:
    """Return the stage as a function from a recording to its stems."""
    stage = SeparateStage(OneNetwork(engine), sizes, all_chunks=all_chunks)

    def separate(audio: Floats) -> Floats:
        pieces = stage.separate(SeparationRequest(audio))
        return np.concatenate([piece.stems for piece in pieces if isinstance(piece, StemsChunk)], axis=2)

    return separate


def apply_model(network: Separator) -> Callable[[Floats], Floats]:
    """Return the yardstick: the package's own function."""

    def separate(audio: Floats) -> Floats:
        stems: Floats = network.separate(torch.from_numpy(audio)[None])[0].numpy()
        return stems

    return separate


def build_variant(
    variant: str, preset: str, graph: Path, seed: int, seconds: float, threads: int
) -> Callable[[], object]:
    """Load one variant in a new process; return a function that separates once.

    It stores no more than the stage does.
    """
    torch.set_num_threads(threads)
    sizes = PRESET_SIZES[preset]
    audio = recording(seconds, sizes.samplerate)
    if variant == APPLY_MODEL:
        baseline = apply_model(load_separator(sizes, seed))
        return lambda: baseline(audio)
    stage = SeparateStage(OneNetwork(open_engine(variant, graph, threads)), sizes)
    return lambda: sum(1 for _ in stage.separate(SeparationRequest(audio)))


def measure(run: Run, preset: str, graph: Path, *, seed: int, seconds: float, n: int, limit_s: float) -> bool:
    """Measure every variant; adds rows. Returns True if float32 errors are below 1e-4."""
    sizes = PRESET_SIZES[preset]
    audio = recording(seconds, sizes.samplerate)
    baseline = apply_model(load_separator(sizes, seed))
    engines = {name: open_engine(name, graph, run.threads) for name in variants()[1:]}
    reference = baseline(audio)
    errors = {
        name: difference(stage_of(engine, sizes, all_chunks=True)(audio), reference) for name, engine in engines.items()
    }
    runs: dict[str, Callable[[], object]] = {APPLY_MODEL: partial(baseline, audio)}
    for name, engine in engines.items():
        runs[name] = partial(stage_of(engine, sizes), audio)
    timings = alternate(runs, n=n, warmup=0, limit_s=limit_s)
    for name, timing in timings.items():
        first = name == APPLY_MODEL
        row = run.add("separation", name, timing, baseline=None if first else timings[APPLY_MODEL])
        row |= {"rtf": timing.median / seconds}
        row["segments"] = SeparationPlan(sizes, all_chunks=first).n_segments(audio.shape[1])
        row |= errors.get(name, {}) | ({"budget": BUDGETS[name]} if name in BUDGETS else {})
    return all(errors[name]["relative_error"] <= 1e-4 for name in engines if "fp32" in name)


def measure_memory(run: Run, preset: str, graph: Path, *, seed: int, seconds: float) -> None:
    """Add the peak memory of every variant, measured in separate processes, to the rows."""
    for row in run.rows:
        name = row["variant"]
        peak = peak_in_child(build_variant, name, preset, graph, seed, seconds, run.threads)
        row |= {"loaded_mb": peak.loaded / 1e6, "peak_mb": peak.peak / 1e6}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.separation", description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESET_SIZES, default="mid")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the recording in seconds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=300.0, help="start no new round after these seconds")
    parser.add_argument("--quick", action="store_true", help="10 s, fewest rounds, no memory measurement")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    seconds, rounds = (min(args.seconds, 10.0), 3) if args.quick else (args.seconds, args.rounds)
    torch.set_num_threads(args.threads)
    run = Run(
        "separation" + ("-quick" if args.quick else ""), args.preset, "fp32", args.threads, results=args.results,
        about={"seconds": seconds, "weights": f"random seed={args.seed}"},
    )  # fmt: skip
    with TemporaryDirectory() as temporary:
        graph = Path(temporary) / "htdemucs" / "1" / GRAPH_FILE
        graph.parent.mkdir(parents=True)
        sizes = PRESET_SIZES[args.preset]
        write_graph(build_htdemucs(sizes, random_checkpoint(sizes, args.seed)), graph.parent)
        right = measure(run, args.preset, graph, seed=args.seed, seconds=seconds, n=rounds, limit_s=args.limit)
        run.save()
        if not args.quick:
            measure_memory(run, args.preset, graph, seed=args.seed, seconds=seconds)
    run.finish()
    if not right:
        print("stems differ from apply_model's by more than 1e-4", file=sys.stderr)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
