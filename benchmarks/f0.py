"""Is the F0 stage accurate, fast, and bounded in memory on a long song?

    python -m benchmarks.f0 [--only accuracy|speed|chunks] [--quick]

swift-f0 has its published weights: its accuracy is measured on synthetic voices of known pitch, its speed against the
wheel's own file. RMVPE has random weights at full size: its speed is measured against PyTorch eager, and a long song in
pieces is compared with the song in one call. swift-f0 is downloaded from PyPI once.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch

from heartvoice import keyed_random
from heartvoice.arrays import Array
from heartvoice.config.presets import AnyF0, RmvpeConfig, SwiftF0Config
from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.export.f0_graph import build_f0_network
from heartvoice.export.parity_f0 import PublishedSwiftF0, f0_reference
from heartvoice.export.swift_f0 import open_swift_f0
from heartvoice.export.wheel_files import member
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.loadtest.harness import RESULTS, Run, Timing, alternate, difference
from heartvoice.loadtest.machine import peak_in_child
from heartvoice.loadtest.signals import NOISES_DB, VOICES, Samples, agreement, melody, score
from heartvoice.models.load import TensorSource, random_checkpoint
from heartvoice.runtime.engines import Engine, OnnxEngine, default_threads
from heartvoice.stages.f0 import (
    F0_HOP,
    RMVPE_CONTEXT_FRAMES,
    RMVPE_WHOLE_FRAMES,
    F0Stage,
    rmvpe_log_mel,
)

PARTS = ("accuracy", "speed", "chunks")
CONTEXTS = (32, 64, 160, 320)
MARGIN = 5
"""Values next to the ends of notes that the "steady" columns omit: 50 ms, three frames of swift-f0."""
SWIFT_F0_BUDGET, RMVPE_BUDGET = 1.1, 1.0
SMALL = RmvpeConfig(n_blocks=1, inter_layers=1, en_out_channels=4)
"""Sizes for --quick."""
Kind = Literal["published", "eager", "graph", "stage"]


class OneNetwork:
    """An engine as `networks.Networks`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the engine; the name is ignored."""
        return self._engine.run(inputs, outputs)


class CachingNetwork(OneNetwork):
    """Runs each input once: contours of one recording differ in their decoding only."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._known: dict[bytes, dict[str, Array]] = {}

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the engine, or return the stored result."""
        key = hashlib.sha256(inputs["features"].tobytes()).digest()
        if key not in self._known:
            self._known[key] = super().run(name, inputs, outputs)
        return self._known[key]


def source_of(sizes: AnyF0, seed: int) -> TensorSource:
    """Return swift-f0's published file, or random weights."""
    return open_swift_f0(member("swift-f0")) if isinstance(sizes, SwiftF0Config) else random_checkpoint(sizes, seed)


def _graph(sizes: AnyF0, seed: int, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_graph(build_f0_network(sizes, source_of(sizes, seed)), folder)
    return folder / GRAPH_FILE


# ------------------------------------------------------------------------------------------------------------ accuracy


def measure_accuracy(run: Run, path: Path) -> None:
    """Measure swift-f0 on all synthetic voices, clean and noisy, and on unvoiced signals; adds rows."""
    stage = F0Stage(OneNetwork(OnnxEngine(path, threads=run.threads)), SwiftF0Config())
    for name, make in VOICES.items():
        for snr_db in NOISES_DB:
            voice = make() if snr_db is None else make().in_noise(snr_db)
            contour = stage.track(voice.audio)
            kept = score(contour, voice.contour, MARGIN)
            row = run.add("swift-f0 accuracy", f"{name}, {'clean' if snr_db is None else f'{snr_db:g} dB'}")
            row |= asdict(score(contour, voice.contour))
            row |= {"steady_rpa": kept.rpa, "steady_gross": kept.gross, "steady_false_alarms": kept.false_alarms}
    hiss = keyed_random.normal(0, "benchmark hiss", 1, (10 * SPEECH_RATE_HZ,))
    for name, level in (("silence", 0.0), ("white noise -20 dBFS", 0.1), ("white noise 0 dBFS", 1.0)):
        contour = stage.track(hiss * np.float32(level))
        run.add("swift-f0 accuracy", name, false_alarms=float((contour > 0).mean()))


# --------------------------------------------------------------------------------------------------------------- speed


def build(
    kind: Kind, sizes: AnyF0, path: Path, seed: int, audio: Samples, threads: int, whole: int
) -> Callable[[], Array]:
    """Return a function from samples to activations or to a contour; also used in child processes."""
    torch.set_num_threads(threads)
    if kind == "stage":
        stage = F0Stage(OneNetwork(OnnxEngine(path, threads=threads)), sizes, whole_frames=whole)
        return lambda: stage.track(audio)
    if isinstance(sizes, SwiftF0Config):
        features = audio[None]
        if kind == "published":
            published = PublishedSwiftF0(open_swift_f0(member("swift-f0")), threads=threads)
            return lambda: _activations(published, features)
    else:
        features = rmvpe_log_mel(audio, sizes.n_mels)
        features = np.pad(features, ((0, 0), (0, -features.shape[1] % 32)))
        if kind == "eager":
            module = f0_reference(sizes, source_of(sizes, seed))
            return lambda: _activations(module, features[None])
    engine = OnnxEngine(path, threads=threads)
    return lambda: engine.run({"features": features[None]})["activations"]


@torch.inference_mode()
def _activations(module: torch.nn.Module, features: Samples) -> Array:
    found: Array = module(torch.from_numpy(features)).numpy()
    return found


def measure_speed(run: Run, sizes: AnyF0, path: Path, *, seed: int, n: int, seconds: float, memory: bool) -> None:
    """Measure graph and stage against the graph's source on one recording; adds rows."""
    swift = isinstance(sizes, SwiftF0Config)
    baseline: Kind = "published" if swift else "eager"
    kinds: tuple[Kind, ...] = (baseline, "graph", "stage")
    audio, case = melody(seconds).audio, f"{sizes.engine} speed, {seconds:g} s"
    whole = _multiple(seconds)
    runs: dict[str, Callable[[], Array]] = {
        kind: build(kind, sizes, path, seed, audio, run.threads, whole) for kind in kinds
    }
    error = difference(runs["graph"](), runs[baseline]())
    timings = alternate(runs, n=n, warmup=1)
    for kind in kinds:
        timing = timings[kind]
        row = run.add(case, kind, timing, baseline=None if kind == baseline else timings[baseline])
        row["rtf"] = timing.median / seconds
        if kind == "graph":
            row |= {"budget": SWIFT_F0_BUDGET if swift else RMVPE_BUDGET, **error}
        if memory:
            peak = peak_in_child(build, kind, sizes, path, seed, audio, run.threads, whole)
            row |= {"loaded_mb": peak.loaded / 1e6, "run_mb": peak.growth / 1e6}


def _multiple(seconds: float) -> int:
    """Round a recording up to a multiple of 32 frames that covers the stage's context."""
    frames = int(seconds * SPEECH_RATE_HZ) // F0_HOP + 1
    return max(-(-frames // 32) * 32, 2 * RMVPE_CONTEXT_FRAMES + 32)


# -------------------------------------------------------------------------------------------------------------- chunks


def measure_chunks(
    run: Run, sizes: RmvpeConfig, path: Path, *, seed: int, n: int, seconds: float, memory: bool
) -> None:
    """Compare RMVPE on a long song in pieces, with several contexts, with one call; adds rows."""
    engine, whole = OnnxEngine(path, threads=run.threads), _multiple(seconds)
    inputs = {
        "melody": melody(seconds).audio,
        "white noise": keyed_random.normal(0, "benchmark hiss", 2, (int(seconds * SPEECH_RATE_HZ),)) * np.float32(0.1),
    }
    for name, audio in inputs.items():
        networks = CachingNetwork(engine)
        # About half of the values exceed this threshold, so changes of the voicing are visible.
        features = rmvpe_log_mel(audio[: 32 * SPEECH_RATE_HZ - F0_HOP], sizes.n_mels)
        features = features[:, : features.shape[1] // 32 * 32]
        salience = networks.run("f0_network", {"features": features[None]})["activations"]
        threshold = float(np.median(salience.max(axis=2)))
        for limit in (0.03, threshold):
            reference = F0Stage(networks, sizes, threshold=limit, whole_frames=whole).track(audio)
            for context in CONTEXTS:
                stage = F0Stage(networks, sizes, threshold=limit, context_frames=context)
                found = agreement(stage.track(audio), reference)
                case = f"rmvpe pieces of {RMVPE_WHOLE_FRAMES} frames, {name}, {seconds:g} s, threshold {limit:.3g}"
                run.add(case, f"context {context}", **asdict(found))
            run.save()
    if not n:
        return
    audio = inputs["melody"]
    variants = {"one call": whole, "in pieces": RMVPE_WHOLE_FRAMES}
    timings: dict[str, Timing] = alternate(
        {name: build("stage", sizes, path, seed, audio, run.threads, limit) for name, limit in variants.items()},
        n=n, warmup=0,
    )  # fmt: skip
    for name, limit in variants.items():
        row = run.add(
            f"rmvpe stage, {seconds:g} s", name, timings[name],
            baseline=None if name == "one call" else timings["one call"],
        )  # fmt: skip
        row["rtf"] = timings[name].median / seconds
        if memory:
            peak = peak_in_child(build, "stage", sizes, path, seed, audio, run.threads, limit)
            row |= {"loaded_mb": peak.loaded / 1e6, "run_mb": peak.growth / 1e6}


# ---------------------------------------------------------------------------------------------------------------- main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    args = _parse(arguments)
    torch.set_num_threads(args.threads)
    sizes = SMALL if args.quick else RmvpeConfig()
    name = "f0" if len(args.only) == len(PARTS) else "f0-" + "-".join(args.only)
    run = Run(
        name + ("-quick" if args.quick else ""), "quick" if args.quick else "full", "fp32", args.threads,
        results=args.results,
        about={"quick": args.quick, "weights": f"swift-f0 published, rmvpe random seed={args.seed}"},
    )  # fmt: skip
    with TemporaryDirectory() as temporary:
        swift = _graph(SwiftF0Config(), args.seed, Path(temporary) / "swift")
        rmvpe = _graph(sizes, args.seed, Path(temporary) / "rmvpe")
        if "accuracy" in args.only:
            measure_accuracy(run, swift)
            run.save()
        n, seconds, memory = (3, 5.0, False) if args.quick else (7, 30.0, True)
        if "speed" in args.only:
            measure_speed(run, SwiftF0Config(), swift, seed=args.seed, n=n, seconds=seconds, memory=memory)
            run.save()
            measure_speed(run, sizes, rmvpe, seed=args.seed, n=3, seconds=seconds, memory=memory)
            run.save()
        if "chunks" in args.only:
            length = 40.0 if args.quick else 64.0
            measure_chunks(run, sizes, rmvpe, seed=args.seed, n=0 if args.quick else 2, seconds=length, memory=memory)
    run.finish()
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.f0", description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a small RMVPE, short recordings, no memory measurement")
    parser.add_argument("--seed", type=int, default=0, help="seed of RMVPE's random weights")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    args.only = [part for part in PARTS if part in (args.only or PARTS)]
    return args


if __name__ == "__main__":
    sys.exit(main())
