"""Is the vocoder's graph faster than PyTorch, and which chunks and activation form are best?

    python -m benchmarks.vocoder [--size mid|full] [--only engines|chunks|forms] [--quick]

Random weights at the official rates, with a quarter of the width (mid) or all of it. The engines decode the same frames
alternately in one process; each one's peak memory is measured in a separate process. Chunks run through the stage and
are compared with one call. An activation alone is measured in each form, at the width and rate of every stage. It exits
with 1 if the graph and its module disagree. Run it with OMP_WAIT_POLICY=PASSIVE on a shared machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.vocoder_forms import FORMS, write_form
from heartvoice import keyed_random
from heartvoice.arrays import Array
from heartvoice.checkpoints.bigvgan import LOG_MEL_MEAN, LOG_MEL_STD, RandomBigvgan
from heartvoice.config.svc import BigvganConfig
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.export.parity import TOLERANCE
from heartvoice.export.vocoder_graph import build_vocoder
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.loadtest.harness import RESULTS, Run, alternate, difference
from heartvoice.loadtest.machine import peak_in_child
from heartvoice.models.bigvgan import Bigvgan, bigvgan_manifest
from heartvoice.models.load import load_module
from heartvoice.runtime.engines import OnnxEngine, OpenVinoEngine, default_threads
from heartvoice.stages.svc.vocoder import VocodeStage, context_frames

Floats = npt.NDArray[np.float32]
Engine = Literal["eager", "onnxruntime", "openvino fp32", "openvino bf16"]
SIZES = {
    "full": BigvganConfig(),
    "mid": BigvganConfig(upsample_initial_channel=384),
    "quick": BigvganConfig(upsample_initial_channel=64, upsample_rates=(8, 4, 2), upsample_kernel_sizes=(16, 8, 4)),
}
PARTS = ("engines", "chunks", "forms")
CHUNKS = (64, 128, 256, 512)
BUDGET = 1.0
"""Allowed time of the graph relative to PyTorch."""


def source_of(sizes: BigvganConfig) -> RandomBigvgan:
    """Return random weights of seed 0."""
    return RandomBigvgan(bigvgan_manifest(sizes), 0, sizes)


def log_mel(sizes: BigvganConfig, frames: int) -> Floats:
    """Make noise at the level of log-mel frames, [M, T]; times do not depend on it."""
    values = keyed_random.normal(0, "benchmark mel", 0, (sizes.num_mels, frames))
    return values * np.float32(LOG_MEL_STD) + np.float32(LOG_MEL_MEAN)


class OneNetwork:
    """An engine as the stage's `Networks`."""

    def __init__(self, decode: Callable[[Floats], Floats]) -> None:
        self._decode = decode

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the engine; the name is ignored."""
        return {"audio": self._decode(inputs["mel"].astype(np.float32, copy=False))}


def load(engine: Engine, sizes: BigvganConfig, path: Path, threads: int) -> Callable[[Floats], Floats]:
    """Load one engine, from mel [B, M, T] to audio [B, 1, N]."""
    if engine == "eager":
        with torch.device("meta"):
            network = Bigvgan(sizes)
        load_module(network, source_of(sizes))
        network.eval()

        @torch.inference_mode()
        def eager(mel: Floats) -> Floats:
            audio: Floats = network(torch.from_numpy(mel)).numpy()
            return audio

        return eager
    if engine == "onnxruntime":
        graph: OnnxEngine | OpenVinoEngine = OnnxEngine(path, threads=threads)
    else:
        graph = OpenVinoEngine(path, threads=threads, precision="bf16" if engine.endswith("bf16") else "f32")

    def run(mel: Floats) -> Floats:
        (audio,) = graph.run({"mel": mel}).values()
        return audio.astype(np.float32, copy=False)

    return run


def build(
    engine: Engine, sizes: BigvganConfig, path: Path, threads: int, frames: int, chunk: int
) -> Callable[[], Floats]:
    """Load one variant and return a function that decodes once, for child processes too.

    Chunk 0 decodes in one call.
    """
    torch.set_num_threads(threads)
    return _decoding(load(engine, sizes, path, threads), sizes, log_mel(sizes, frames), chunk)


def _decoding(
    decode: Callable[[Floats], Floats], sizes: BigvganConfig, mel: Floats, chunk: int
) -> Callable[[], Floats]:
    stage = VocodeStage(OneNetwork(decode), sizes, chunk_frames=chunk or mel.shape[1])
    return lambda: stage.decode(mel)


# ----------------------------------------------------------------------------------------------------------- the parts


def measure_engines(run: Run, sizes: BigvganConfig, path: Path, *, frames: int, n: int, memory: bool) -> bool:
    """Measure the network in every engine; adds rows, returns True if the graph is accurate."""
    engines: list[Engine] = ["eager", "onnxruntime"]
    if importlib.util.find_spec("openvino") is not None:
        engines += ["openvino fp32", "openvino bf16"]
    else:
        run.add("network", "openvino", failed="openvino is not installed")
    calls = {str(engine): build(engine, sizes, path, run.threads, frames, 0) for engine in engines}
    reference = calls["eager"]()
    errors = {name: difference(call(), reference) for name, call in calls.items()}
    timings = alternate(calls, n=n, warmup=0)
    for engine in engines:
        row = run.add("network", engine, timings[engine], baseline=None if engine == "eager" else timings["eager"])
        row |= {"frames": frames, "rtf": timings[engine].median / _seconds(sizes, frames), **errors[engine]}
        if engine == "onnxruntime":
            row["budget"] = BUDGET
        if memory:
            peak = peak_in_child(build, engine, sizes, path, run.threads, frames, 0)
            row |= {"loaded_mb": peak.loaded / 1e6, "run_mb": peak.growth / 1e6}
    return errors["onnxruntime"]["relative_error"] <= TOLERANCE["fp32"]


def measure_chunks(run: Run, sizes: BigvganConfig, path: Path, *, frames: int, n: int, memory: bool) -> None:
    """Measure the stage on a longer input, in chunks and in one call; adds rows."""
    decode, mel = load("onnxruntime", sizes, path, run.threads), log_mel(sizes, frames)
    chunks = [0, *(chunk for chunk in CHUNKS if chunk < frames)]
    calls = {_name(chunk): _decoding(decode, sizes, mel, chunk) for chunk in chunks}
    reference = calls[_name(0)]()
    errors = {name: difference(call(), reference) for name, call in calls.items()}
    timings = alternate(calls, n=n, warmup=0)
    for chunk in chunks:
        name = _name(chunk)
        row = run.add("chunks", name, timings[name], baseline=timings[_name(0)] if chunk else None)
        row |= {"frames": frames, "rtf": timings[name].median / _seconds(sizes, frames), **errors[name]}
        if memory:
            peak = peak_in_child(build, "onnxruntime", sizes, path, run.threads, frames, chunk)
            row["run_mb"] = peak.growth / 1e6


def measure_forms(run: Run, sizes: BigvganConfig, folder: Path, *, frames: int, n: int) -> None:
    """Measure one activation per stage in every form, in onnxruntime; adds rows."""
    source, channels, length = source_of(sizes), sizes.upsample_initial_channel, frames
    n_blocks = len(sizes.resblock_kernel_sizes)
    for stage, rate in enumerate(sizes.upsample_rates):
        channels, length = channels // 2, length * rate
        name = f"resblocks.{stage * n_blocks}.activations.0"
        x = keyed_random.normal(0, "benchmark activation", stage, (1, channels, length))

        def call(path: Path, x: Floats = x) -> Callable[[], Floats]:
            engine = OnnxEngine(path, threads=run.threads)
            return lambda: engine.run({"x": x})["y"].astype(np.float32, copy=False)

        calls = {
            str(form): call(write_form(form, source, name, channels, folder / f"{form}-{stage}")) for form in FORMS
        }
        reference = calls[FORMS[0]]()
        errors = {form: difference(run_form(), reference) for form, run_form in calls.items()}
        timings = alternate(calls, n=n, warmup=1)
        for form in FORMS:
            baseline = None if form == FORMS[0] else timings[FORMS[0]]
            row = run.add(f"activation, {channels} channels, {length} samples", form, timings[form], baseline=baseline)
            row |= errors[form]


def _name(chunk: int) -> str:
    return f"of {chunk} frames" if chunk else "one call"


def _seconds(sizes: BigvganConfig, frames: int) -> float:
    """Seconds of audio of `frames` frames."""
    return frames * sizes.hop / STEM_RATE_HZ


# ---------------------------------------------------------------------------------------------------------------- main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    args = _parse(arguments)
    torch.set_num_threads(args.threads)
    label = "quick" if args.quick else args.size
    sizes, right = SIZES[label], True
    name = "vocoder" if len(args.only) == len(PARTS) else "vocoder-" + "-".join(args.only)
    past, future = context_frames(sizes)
    about = {"weights": "random seed=0", "context_frames": [past, future]}
    run = Run(name, label, "fp32", args.threads, results=args.results, about=about)
    n, memory = (2 if args.quick else args.n), not args.quick
    frames, long = (16, 96) if args.quick else (args.frames, 4 * args.frames)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_graph(build_vocoder(sizes, source_of(sizes)), folder)
        if "engines" in args.only:
            right = measure_engines(run, sizes, folder / GRAPH_FILE, frames=frames, n=n, memory=memory)
            run.save()
        if "chunks" in args.only:
            measure_chunks(run, sizes, folder / GRAPH_FILE, frames=long, n=max(2, n // 2), memory=memory)
            run.save()
        if "forms" in args.only:
            measure_forms(run, sizes, folder, frames=frames, n=n)
    run.finish()
    if not right:
        print("the graph differs from PyTorch", file=sys.stderr)
    return 0 if right else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.vocoder", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=("mid", "full"), default="mid")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small network, few frames and rounds, no memory")
    parser.add_argument("--frames", type=int, default=128, help="frames of one call; chunks get four times as many")
    parser.add_argument("-n", type=int, default=7, help="rounds")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    args.only = [part for part in PARTS if part in (args.only or PARTS)]
    return args


if __name__ == "__main__":
    sys.exit(main())
