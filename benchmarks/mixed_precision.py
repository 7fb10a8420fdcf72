"""How much accuracy do graphs lose in half precision, and what does each float32 region restore?

    python -m benchmarks.mixed_precision --preset mid
    python -m benchmarks.mixed_precision --preset oss-3b        # full width, few layers
    python -m benchmarks.mixed_precision --repository DIR --inputs DIR   # real weights, recorded inputs
    python -m benchmarks.mixed_precision --repository DIR --record DIR   # records inputs of one codec window

The result decides the regions in `export/mixed_precision.py`. No time is measured. Numbers are signal-to-noise ratios
of emulated half precision against float32, in dB: with all regions in float32, with none, and with all but one. With
random weights they show the effect of rounding on a network's sums. They do not show outlier activations, which only
trained weights have. A softmax whose scores and weights are rounded anyway is the same in either type here: keeping it
in float32 is only an instruction to TensorRT.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from heartvoice.arrays import Array
from heartvoice.config.presets import PRESETS, Preset, htdemucs_of
from heartvoice.errors import HeartvoiceError
from heartvoice.export.emulate import compare, emulate
from heartvoice.export.graph_builder import FP32_REGIONS, Fp32Region
from heartvoice.export.layout import GraphModel, graph_models
from heartvoice.export.mixed_precision import HALVES, HalfPrecision, type_graph
from heartvoice.export.mixed_precision_cases import FRAMES, HALF_OUTPUTS, half_case, recorded_inputs
from heartvoice.export.parity import one_layer
from heartvoice.export.parity_targets import target_of
from heartvoice.export.weights import random_weights
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.loadtest.harness import RESULTS, Run
from heartvoice.runtime.engines import OnnxEngine, default_threads
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.stages.codec import CodecRequest, CodecStage

_FULL_WIDTH_LAYERS = 2
_CODEC_CODES = 93
_WHOLE_SEGMENT = ("htdemucs",)
"""Graphs of a fixed, long input, which get fewer variants."""


def few_layers(preset: Preset) -> Preset:
    """Return the preset at full width with few layers and a single separator network."""
    svc = replace(
        preset.svc,
        whisper=replace(preset.svc.whisper, encoder_layers=_FULL_WIDTH_LAYERS),
        dit=replace(preset.svc.dit, depth=2 * _FULL_WIDTH_LAYERS + 1),
    )
    return replace(one_layer(preset), svc=svc, separator=htdemucs_of("oss-3b"))


@contextmanager
def graph_of(model: GraphModel, preset: Preset, repository: Repository | None) -> Iterator[Path]:
    """Yield a graph's file: the repository's, or a temporary one with random weights."""
    if repository is not None:
        yield repository.graph(model.name)
        return
    source = random_weights(preset, 0).source(model.network)
    with TemporaryDirectory(prefix="heartvoice-half-") as folder:
        write_graph(target_of(model).build(preset, source, "fp32"), Path(folder))
        yield Path(folder) / GRAPH_FILE


def variants(present: Collection[Fp32Region], *, few: bool) -> dict[str, tuple[Fp32Region, ...]]:
    """Return sets of float32 regions by name."""
    found: dict[str, tuple[Fp32Region, ...]] = {"all regions": FP32_REGIONS, "no regions": ()}
    if not few:
        found |= {f"all but {name}": tuple(other for other in FP32_REGIONS if other != name) for name in present}
    return found


def ablate(run: Run, model: GraphModel, path: Path, inputs: Mapping[str, Array], *, few: bool) -> None:
    """Add a row for every precision and set of float32 regions."""
    want = OnnxEngine(path, threads=run.threads).run(inputs)
    for precision in HALVES:
        typed = type_graph(path, precision)
        present = [name for name in FP32_REGIONS if name in typed.counts]
        for name, fp32_regions in variants(present, few=few).items():
            facts = _errors(path, precision, fp32_regions, inputs, want, model.name, run.threads)
            run.add(model.name, f"{precision}, {name}", **facts)
            run.save()


def _errors(
    path: Path, precision: HalfPrecision, fp32_regions: Sequence[Fp32Region], inputs: Mapping[str, Array],
    want: Mapping[str, Array], model: str, threads: int,
) -> dict[str, Any]:  # fmt: skip
    engine = emulate(path, precision, fp32_regions, threads=threads)
    errors = compare(engine.run(inputs), want, HALF_OUTPUTS.get(model))
    worst = max(errors.values(), key=lambda error: error.relative)
    if not np.isfinite(worst.relative):
        return {"failed": "overflow"}
    return {"snr_db": min(worst.snr_db, 999.0), "relative": worst.relative}


class _EmulatedNetworks:
    """Networks of a repository, one of them emulated."""

    def __init__(self, networks: LocalNetworks, name: str, engine: OnnxEngine) -> None:
        self._networks, self._name, self._engine = networks, name, engine

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run a network."""
        return self._engine.run(inputs, outputs) if name == self._name else self._networks.run(name, inputs, outputs)


def whole_window(run: Run, repository: Repository) -> None:
    """Measure the error after ten guided steps of the codec's flow in half precision."""
    networks, sizes = LocalNetworks(repository, threads=run.threads), repository.preset.codec
    codes = np.random.default_rng(0).integers(0, sizes.codebook_size, (8, _CODEC_CODES)).astype(np.int32)
    empty = np.zeros((0, sizes.out_channels), np.float32)
    request = CodecRequest(codes, empty, empty)
    audio, latents = CodecStage(networks, sizes).decode_window(request)
    for precision in HALVES:
        engine = cast("OnnxEngine", emulate(repository.graph("heartcodec_flow"), precision, threads=run.threads))
        emulated = _EmulatedNetworks(networks, "heartcodec_flow", engine)
        got_audio, got = CodecStage(emulated, sizes).decode_window(request)
        errors = compare({"latents": got, "audio": got_audio}, {"latents": latents, "audio": audio})
        facts: dict[str, Any] = {f"{name}_snr_db": error.snr_db for name, error in errors.items()}
        run.add("ten steps, then the decoder in float32", f"{precision}, all regions", **facts)
        run.save()


class _Recorder:
    """Networks that store the inputs of one call per graph, near the song's middle."""

    def __init__(self, repository: Repository, folder: Path) -> None:
        self._networks, self._folder = LocalNetworks(repository), folder
        self._calls: dict[str, int] = {}

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run a network; store its inputs at calls 1, 2, 4, 8 etc., keeping the last."""
        count = self._calls[name] = self._calls.get(name, 0) + 1
        if count & (count - 1) == 0:
            arrays = {key: np.asarray(value) for key, value in inputs.items()}
            np.savez(self._folder / f"{name}.npz", **arrays)
        return self._networks.run(name, inputs, outputs)


def record(repository: Repository, folder: Path) -> None:
    """Store the inputs of the codec's graphs during decoding; they are as realistic as the codes."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = repository.preset.codec
    codes = np.random.default_rng(0).integers(0, sizes.codebook_size, (8, _CODEC_CODES)).astype(np.int32)
    empty = np.zeros((0, sizes.out_channels), np.float32)
    CodecStage(_Recorder(repository, folder), sizes).decode_window(CodecRequest(codes, empty, empty))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the selected measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="random weights of these sizes")
    parser.add_argument("--repository", type=Path, help="an exported repository instead")
    parser.add_argument("--inputs", type=Path, help="folder of recorded inputs, GRAPH.npz; default noise")
    parser.add_argument("--record", type=Path, help="record the codec's inputs into this folder, and stop")
    parser.add_argument("--only", action="append", help="measure only this graph; may be repeated")
    parser.add_argument("--frames", type=int, default=FRAMES, help="length of the noise in frames")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    options = parser.parse_args(arguments)
    repository = Repository(options.repository) if options.repository else None
    if options.record:
        if repository is None:
            parser.error("--record needs --repository")
        record(repository, options.record)
        return 0
    preset = repository.preset if repository else PRESETS[options.preset]
    cut = repository is None and preset.name == "oss-3b"
    preset = few_layers(preset) if cut else preset
    run = Run("half", preset.name, "bf16, fp16", default_threads(), results=options.results, about={
        "sizes": "full width, few layers" if cut else "whole",
        "weights": repository.index["weights"] if repository else "random seed=0",
        "frames": options.frames,
    })  # fmt: skip
    for name, model in graph_models(preset).items():
        if options.only and name not in options.only:
            continue
        recorded = recorded_inputs(options.inputs, name) if options.inputs else None
        inputs = half_case(model, preset, options.frames) if recorded is None else recorded
        try:
            with graph_of(model, preset, repository) as path:
                ablate(run, model, path, inputs, few=name in _WHOLE_SEGMENT and preset.name != "tiny")
        except HeartvoiceError as error:
            run.add(name, "not run", failed=str(error))
    if repository is not None and not options.only:
        whole_window(run, repository)
    run.finish(json_line=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
