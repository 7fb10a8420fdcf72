"""How much time does a speaker encoder need, as graph, PyTorch module and whole stage?

    python -m benchmarks.speaker [--engine NAME ...] [--seconds 12] [--campplus FILE] [--ecapa FILE] [--wavlm DIR]

It alternates the network in both engines in one process, then the stage with its numpy front end. Peak memory of each
is measured in a separate process. Resemblyzer has its published weights; the others have random ones unless their file
is given. It exits with 1 if a graph and its module disagree.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from heartvoice import keyed_random
from heartvoice.arrays import Array
from heartvoice.config.presets import SPEAKERS, AnySpeaker, CampplusConfig, EcapaConfig, SpeakerConfig, WavlmConfig
from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.export import wheel_files
from heartvoice.export.parity import TOLERANCE
from heartvoice.export.speaker_graph import build_speaker_network
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.loadtest.harness import RESULTS, Run, alternate, difference
from heartvoice.loadtest.machine import peak_in_child
from heartvoice.models.load import TensorSource, load_network, random_checkpoint
from heartvoice.models.speaker import open_campplus, open_ecapa, open_resemblyzer, open_wavlm
from heartvoice.runtime.engines import OnnxEngine, default_threads
from heartvoice.stages.speaker import SpeakerStage, speaker_batches, trim_pauses

Floats = npt.NDArray[np.float32]
Variant = Literal["eager", "graph", "stage"]
VARIANTS: tuple[Variant, ...] = ("eager", "graph", "stage")
LIMIT_S = 60.0


class _Network:
    """A graph as the stage's `Networks`."""

    def __init__(self, path: Path, threads: int) -> None:
        self._engine = OnnxEngine(path, threads=threads)

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        return self._engine.run(inputs, outputs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    args = _parse(arguments)
    torch.set_num_threads(args.threads)
    files = {"campplus": args.campplus, "ecapa": args.ecapa, "wavlm": args.wavlm}
    given = {f"{name}_weights": "official" if file else "random seed=0" for name, file in files.items()}
    about = {"seconds": args.seconds} | given
    run = Run("speaker", "all", "fp32", args.threads, results=args.results, about=about)
    right = True
    for engine in args.engine:
        with TemporaryDirectory() as folder:
            write_graph(build_speaker_network(SPEAKERS[engine], source_of(engine, files.get(engine))), Path(folder))
            right &= measure(run, engine, Path(folder) / GRAPH_FILE, files.get(engine), args)
        run.save()
    run.finish()
    if not right:
        print("a graph and its PyTorch module disagree", file=sys.stderr)
    return 0 if right else 1


def source_of(engine: str, official: Path | None) -> TensorSource:
    """Return the weights of an engine."""
    sizes = SPEAKERS[engine]
    match sizes:
        case SpeakerConfig():
            return open_resemblyzer(wheel_files.member("resemblyzer"))
        case CampplusConfig():
            return open_campplus(official, sizes) if official else random_checkpoint(sizes, 0)
        case EcapaConfig():
            return open_ecapa(official, sizes) if official else random_checkpoint(sizes, 0)
        case WavlmConfig():
            return open_wavlm(official)[1] if official else random_checkpoint(sizes, 0)


def measure(run: Run, engine: str, path: Path, official: Path | None, args: argparse.Namespace) -> bool:
    """Measure all variants of one engine; adds rows. Returns True if graph and module agree."""
    sizes, audio = SPEAKERS[engine], recording(args.seconds)
    network = load_network(sizes, source_of(engine, official))
    calls = {variant: _call(variant, sizes, audio, path, network, args.threads) for variant in VARIANTS}
    error = difference(calls["graph"](), calls["eager"]())
    timings = alternate({str(name): call for name, call in calls.items()}, n=args.n, warmup=2, limit_s=LIMIT_S)
    for variant in VARIANTS:
        timing = timings[variant]
        row = run.add(engine, variant, timing, baseline=None if variant == "eager" else timings["eager"])
        row["rtf"] = timing.median / args.seconds
        peak = peak_in_child(build, variant, engine, args.seconds, path, official, args.threads)
        row |= {"loaded_mb": peak.loaded / 1e6, "run_mb": peak.growth / 1e6}
        row |= error if variant == "graph" else {}
    return error["relative_error"] <= TOLERANCE["fp32"]


def recording(seconds: float) -> Floats:
    """Make noise at a voice's level; the networks' times do not depend on it."""
    return keyed_random.normal(0, "benchmark voice", 0, (round(seconds * SPEECH_RATE_HZ),)) * np.float32(0.05)


def _features(sizes: AnySpeaker, audio: Floats) -> list[Floats]:
    """Return the network's input of each call."""
    return list(speaker_batches(audio, trim_pauses(audio), sizes))


def _call(
    variant: Variant, sizes: AnySpeaker, audio: Floats, path: Path, network: nn.Module | None, threads: int
) -> Callable[[], Floats]:
    """Return one variant as a function that can be run repeatedly."""
    if variant == "stage":
        stage = SpeakerStage(_Network(path, threads), sizes)
        return lambda: stage.embed(audio)
    features = _features(sizes, audio)
    if variant == "graph":
        engine = OnnxEngine(path, threads=threads)
        return lambda: np.concatenate([engine.run({"features": part})["embedding"] for part in features])
    if network is None:
        raise ValueError("network: expected the module for this variant, got none")
    module, tensors = network, [torch.from_numpy(part) for part in features]

    @torch.inference_mode()
    def eager() -> Floats:
        embeddings: Floats = torch.cat([module(part) for part in tensors]).numpy()
        return embeddings

    return eager


def build(
    variant: Variant, engine: str, seconds: float, path: Path, official: Path | None, threads: int
) -> Callable[[], object]:
    """Load one variant in a new process; return a function that runs it once."""
    torch.set_num_threads(threads)
    sizes = SPEAKERS[engine]
    network = load_network(sizes, source_of(engine, official)) if variant == "eager" else None
    return _call(variant, sizes, recording(seconds), path, network, threads)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.speaker", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=SPEAKERS, action="append", help="measure only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of the audio in seconds")
    parser.add_argument("--campplus", type=Path, help="campplus_cn_common.bin")
    parser.add_argument("--ecapa", type=Path, help="embedding_model.ckpt")
    parser.add_argument("--wavlm", type=Path, help="folder of wavlm-base-plus-sv")
    parser.add_argument("-n", type=int, default=15, help="rounds")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    args.engine = args.engine or list(SPEAKERS)
    return args


if __name__ == "__main__":
    sys.exit(main())
