"""Are the converter's graphs, stages and whole conversions faster than with PyTorch modules?

    python -m benchmarks.svc [--preset mid] [--only networks|stages|conversion|binding] [--quick]

Weights are random. Every graph runs one call of its usual size on PyTorch, onnxruntime and OpenVINO (float32, and
bfloat16 as an option, with its error in dB). Every stage, and a whole conversion, runs on PyTorch and onnxruntime. All
variants alternate in one process; peak memory of a conversion is measured in a separate process. It exits with 1 if
graphs and modules disagree. Run it with OMP_WAIT_POLICY=PASSIVE on a shared machine. Pitch engine and vocoder have
separate benchmarks for more sizes (`f0`, `vocoder`); `song_with_voice` measures the voice in the pipeline.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.vocoder import log_mel as vocoder_mel
from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.checkpoints.bigvgan import RandomBigvgan
from heartvoice.checkpoints.random_init import RandomCheckpoint
from heartvoice.config.presets import PRESETS, Preset, RmvpeConfig
from heartvoice.contracts.constants import SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.graphs import CONTENT_FRAME, SVC_CONTEXT, SVC_FLOW, SVC_STYLE_FRAME
from heartvoice.export.f0_graph import build_f0_network
from heartvoice.export.graph_builder import Graph
from heartvoice.export.parity import TOLERANCE
from heartvoice.export.parity_svc import content_inputs, flow_rows, regulator_case
from heartvoice.export.style_graph import build_svc_style
from heartvoice.export.svc_flow_graph import build_svc_flow
from heartvoice.export.svc_graphs import build_content_encoder, build_svc_regulator
from heartvoice.export.vocoder_graph import build_vocoder
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.keyed_random import normal
from heartvoice.loadtest.harness import RESULTS, Run, alternate, difference
from heartvoice.loadtest.machine import peak_in_child
from heartvoice.loadtest.signals import melody
from heartvoice.models.bigvgan import Bigvgan, bigvgan_manifest
from heartvoice.models.load import load_module, load_network, random_checkpoint
from heartvoice.models.seed_vc.build import AnyPart, build_part, part_manifest
from heartvoice.models.seed_vc.random_init import part_init
from heartvoice.runtime.engines import Engine, OnnxEngine, OpenVinoEngine, default_threads
from heartvoice.runtime.networks import Networks
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.svc.content import sinc_resample
from heartvoice.stages.svc.exact import ExactConversion
from heartvoice.stages.svc.mel import n_mel_frames
from heartvoice.stages.svc.settings import ConvertSettings
from heartvoice.stages.svc.stage import ConvertStage

Floats = npt.NDArray[np.float32]
Kind = Literal["eager", "onnxruntime"]
KINDS: tuple[Kind, ...] = ("eager", "onnxruntime")
OPENVINO = {"openvino fp32": "f32", "openvino bf16": "bf16"}
PARTS = ("networks", "stages", "conversion", "binding")
BUDGETS = {"onnxruntime": 1.05, "openvino fp32": 0.8, "openvino bf16": 0.3}
"""Largest allowed time of a flow evaluation relative to PyTorch."""
F0S = {
    "mid": RmvpeConfig(en_out_channels=4, gru_hidden=64),
    "tiny": RmvpeConfig(n_blocks=1, inter_layers=1, en_out_channels=2),
}
"""RMVPE at a quarter of its width: unlike the presets' engine, it has a module for comparison."""
VOCODER_FRAMES = 96
"""Frames of one vocoder call."""
REFERENCE_S = 15.0
WAVE_TOLERANCE = 1e-3
"""Relative error of the waves, in which the errors of networks and steps accumulate."""


# ----------------------------------------------------------------------------------------------- networks of both kinds


def _part_source(sizes: AnyPart) -> RandomCheckpoint:
    return RandomCheckpoint(part_manifest(sizes), 0, part_init(sizes))


def write_graphs(label: str, folder: Path) -> None:
    """Write all graphs of a preset, each in a folder of its name."""
    preset, f0 = PRESETS[label], F0S[label]
    svc, style = preset.svc, preset.style
    vocoder = RandomBigvgan(bigvgan_manifest(svc.vocoder), 0, svc.vocoder)
    graphs: dict[str, Callable[[], Graph]] = {
        "content_encoder": lambda: build_content_encoder(svc.whisper, _part_source(svc.whisper)),
        "svc_regulator": lambda: build_svc_regulator(svc.regulator, _part_source(svc.regulator)),
        "svc_flow": lambda: build_svc_flow(svc.dit, _part_source(svc.dit)),
        "svc_style": lambda: build_svc_style(style, random_checkpoint(style, 0)),
        "f0_network": lambda: build_f0_network(f0, random_checkpoint(f0, 0)),
        "vocoder": lambda: build_vocoder(svc.vocoder, vocoder),
    }
    for name, build in graphs.items():
        (folder / name).mkdir()
        write_graph(build(), folder / name)


class GraphNetworks:
    """Graphs in onnxruntime as `networks.Networks`."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._engines = {
            path.name: OnnxEngine(path / GRAPH_FILE, threads=threads) for path in folder.iterdir() if path.is_dir()
        }

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run one graph."""
        return self._engines[name].run(inputs, outputs)


class ModuleNetworks:
    """PyTorch modules under the graphs' names."""

    def __init__(self, label: str) -> None:
        preset, f0 = PRESETS[label], F0S[label]
        svc, style = preset.svc, preset.style
        with torch.device("meta"):
            vocoder = Bigvgan(svc.vocoder)
        load_module(vocoder, RandomBigvgan(bigvgan_manifest(svc.vocoder), 0, svc.vocoder))
        self._modules: dict[str, tuple[nn.Module, str]] = {
            "content_encoder": (_part(svc.whisper), "content"),
            "svc_regulator": (_part(svc.regulator), "cond"),
            "svc_flow": (_part(svc.dit), "velocity"),
            "svc_style": (load_network(style, random_checkpoint(style, 0)), "embedding"),
            "f0_network": (load_network(f0, random_checkpoint(f0, 0)), "activations"),
            "vocoder": (vocoder.eval(), "audio"),
        }

    @torch.inference_mode()
    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run one module."""
        module, output = self._modules[name]
        tensors = [torch.from_numpy(np.array(value)) for value in inputs.values()]
        if name == "svc_flow":
            named = dict(zip(inputs, tensors, strict=True))
            return {output: module(**(named | {"t": named["t"][:, 0]})).numpy()}
        return {output: module(*tensors).numpy()}


def _part(sizes: AnyPart) -> nn.Module:
    with torch.device("meta"):
        network = build_part(sizes)
    load_module(network, _part_source(sizes))
    return network.eval()


def networks_of(kind: Kind, label: str, folder: Path, threads: int) -> Networks:
    """Return all networks on one engine."""
    torch.set_num_threads(threads)
    return ModuleNetworks(label) if kind == "eager" else GraphNetworks(folder, threads)


# ---------------------------------------------------------------------------------------------------- one call of each


def usual_inputs(preset: Preset, *, short: bool) -> dict[str, dict[str, Any]]:
    """Inputs of one call per graph.

    They are 30 s of content, a guided evaluation of a full window and a 12 s reference.
    """
    svc = preset.svc
    n_flow, n_vocoder = (256, 16) if short else (SVC_CONTEXT, VOCODER_FRAMES)
    return {
        "content_encoder": content_inputs(svc.whisper, 1),
        "svc_regulator": regulator_case(svc.regulator, CONTENT_FRAME.opt, n_mel_frames(30 * STEM_RATE_HZ)),
        "svc_flow": flow_rows(svc.dit, 2, n_flow),
        "svc_style": {"features": normal(0, "svc style", 0, (1, SVC_STYLE_FRAME.opt, preset.style.n_bands))},
        "vocoder": {"mel": vocoder_mel(svc.vocoder, n_vocoder)[None]},
    }


def measure_networks(run: Run, label: str, folder: Path, *, n: int, limit_s: float, short: bool) -> bool:
    """Measure every graph in every engine; adds rows, returns True if onnxruntime agrees with PyTorch."""
    eager = ModuleNetworks(label)
    right = True
    for name, inputs in usual_inputs(PRESETS[label], short=short).items():
        engines: dict[str, Engine] = {"onnxruntime": OnnxEngine(folder / name / GRAPH_FILE, threads=run.threads)}
        if importlib.util.find_spec("openvino") is not None:
            for variant, precision in OPENVINO.items():
                path = folder / name / GRAPH_FILE
                engines[variant] = OpenVinoEngine(path, threads=run.threads, precision=precision)
        calls: dict[str, Callable[[], Floats]] = {"eager": partial(_first, partial(eager.run, name, inputs))}
        calls |= {variant: partial(_first, partial(engine.run, inputs)) for variant, engine in engines.items()}
        reference = calls["eager"]()
        errors = {variant: difference(calls[variant](), reference) for variant in engines}
        timings = alternate(calls, n=n, warmup=0, limit_s=limit_s)
        run.add(name, "eager", timings["eager"])
        for variant in engines:
            row = run.add(name, variant, timings[variant], baseline=timings["eager"], **errors[variant])
            row |= {"budget": BUDGETS[variant]} if name == SVC_FLOW.name else {}
        right = right and errors["onnxruntime"]["relative_error"] <= TOLERANCE["fp32"]
        run.save()
    return right


def _first(call: Callable[[], Mapping[str, Array]]) -> Floats:
    (value,) = call().values()
    return value.astype(np.float32, copy=False)


# ------------------------------------------------------------------------------------------------ stages, and the whole


def vocals(seconds: float) -> Floats:
    """Make a synthetic melody at 44.1 kHz."""
    return resample(melody(seconds).audio, SPEECH_RATE_HZ, STEM_RATE_HZ)


@dataclass
class Case:
    """One engine with a voice and vocals."""

    kind: Kind
    label: str
    folder: Path
    threads: int
    seconds: float
    steps: int

    def __post_init__(self) -> None:
        preset = PRESETS[self.label]
        networks = networks_of(self.kind, self.label, self.folder, self.threads)
        self.f0 = F0Stage(networks, F0S[self.label])
        self.stage = ConvertStage(networks, preset.svc, self.f0, preset.style.n_bands)
        self.settings = ConvertSettings(steps=self.steps)
        self.reference, self.vocals = vocals(REFERENCE_S), vocals(self.seconds)
        self.voice = self.make_voice()

    def make_voice(self) -> Any:
        """Compute the voice features of the reference."""
        return self.stage.voice(self.reference, self.settings.prompt_s)

    def convert(self) -> Floats:
        """Convert all vocals exactly."""
        return np.concatenate(list(ExactConversion(self.stage, self.vocals, self.voice, self.settings)))

    def stages(self) -> dict[str, Callable[[], Any]]:
        """Return the stages of a conversion; each has its predecessor's output as input."""
        stage, voice = self.stage, self.voice
        audio16 = sinc_resample(self.vocals)
        features = stage.analyse(self.vocals)
        cond = stage.condition(features.content, features.f0, features.n_frames)
        cond = cond[: SVC_CONTEXT - voice.n_frames]
        begin = stage.noise(0)(0, len(cond))
        mel = stage.solve(begin, cond, voice, ConvertSettings(steps=1))[: 4 * VOCODER_FRAMES]
        return {
            "voice": self.make_voice,
            "pitch": partial(self.f0.track, audio16),
            "content": partial(stage.content, audio16),
            "condition": partial(stage.condition, features.content, features.f0, features.n_frames),
            "flow, one window": partial(stage.solve, begin, cond, voice, self.settings),
            "vocoder": partial(stage.vocode, mel),
        }


def measure_stages(run: Run, cases: Mapping[Kind, Case], *, n: int, limit_s: float) -> None:
    """Measure every stage of a conversion on both engines; adds rows."""
    calls = {kind: case.stages() for kind, case in cases.items()}
    for name in calls["eager"]:
        timings = alternate({kind: calls[kind][name] for kind in KINDS}, n=n, warmup=1, limit_s=limit_s)
        for kind in KINDS:
            run.add(f"stage: {name}", kind, timings[kind], baseline=None if kind == "eager" else timings["eager"])
        run.save()


def build(kind: Kind, label: str, folder: Path, threads: int, seconds: float, steps: int) -> Callable[[], Floats]:
    """Return a conversion for `peak_in_child`."""
    return Case(kind, label, folder, threads, seconds, steps).convert


def measure_conversion(run: Run, cases: Mapping[Kind, Case], *, n: int, limit_s: float, memory: bool) -> bool:
    """Measure exact conversions on both engines; adds rows, returns True if they agree."""
    waves = {kind: case.convert() for kind, case in cases.items()}
    error = difference(waves["onnxruntime"], waves["eager"])
    timings = alternate({kind: case.convert for kind, case in cases.items()}, n=n, warmup=0, limit_s=limit_s)
    for kind, case in cases.items():
        row = run.add("conversion", kind, timings[kind], baseline=None if kind == "eager" else timings["eager"])
        row |= {"rtf": timings[kind].median / case.seconds} | (error if kind == "onnxruntime" else {})
        if memory:
            peak = peak_in_child(build, kind, case.label, case.folder, case.threads, case.seconds, case.steps)
            row |= {"loaded_mb": peak.loaded / 1e6, "run_mb": peak.growth / 1e6}
    run.save()
    return error["relative_error"] <= WAVE_TOLERANCE


def measure_binding(run: Run, label: str, folder: Path, *, n: int, limit_s: float, short: bool) -> None:
    """Measure one guided evaluation with all arrays passed each time, and with constant ones bound."""
    import onnxruntime

    inputs = usual_inputs(PRESETS[label], short=short)[SVC_FLOW.name]
    engine = OnnxEngine(folder / SVC_FLOW.name / GRAPH_FILE, threads=run.threads)
    session = engine._session
    binding = session.io_binding()
    velocity = np.empty_like(inputs["x"])
    for name in ("prompt_x", "style", "cond"):
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(inputs[name]))
    binding.bind_ortvalue_output("velocity", onnxruntime.OrtValue.ortvalue_from_numpy(velocity))

    def bound() -> None:
        for name in ("x", "t"):
            binding.bind_cpu_input(name, inputs[name])
        session.run_with_iobinding(binding)

    timings = alternate({"handed over": lambda: engine.run(inputs), "bound": bound}, n=n, warmup=1, limit_s=limit_s)
    n_frames = inputs["x"].shape[1]
    run.add("binding", "handed over", timings["handed over"], frames=n_frames)
    run.add("binding", "bound", timings["bound"], baseline=timings["handed over"], frames=n_frames)


# ---------------------------------------------------------------------------------------------------------------- main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    args = _parse(arguments)
    torch.set_num_threads(args.threads)
    label = "tiny" if args.quick else args.preset
    seconds, steps, n = (2.0, 1, 1) if args.quick else (args.seconds, args.steps, args.n)
    about = {"weights": "random seed=0", "steps": steps, "seconds": seconds}
    run = Run("svc", label, "fp32", args.threads, results=args.results, about=about)
    rounds: dict[str, Any] = {"n": n, "limit_s": args.limit}
    right = True
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_graphs(label, folder)
        if "networks" in args.only:
            right = measure_networks(run, label, folder, short=args.quick, **rounds)
        if {"stages", "conversion"} & set(args.only):
            cases = {kind: Case(kind, label, folder, args.threads, seconds, steps) for kind in KINDS}
            if "stages" in args.only:
                measure_stages(run, cases, **rounds)
            if "conversion" in args.only:
                right = measure_conversion(run, cases, memory=not args.quick, **rounds) and right
        if "binding" in args.only:
            measure_binding(run, label, folder, short=args.quick, **rounds)
    run.finish()
    if not right:
        print("graphs and modules disagree", file=sys.stderr)
    return 0 if right else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.svc", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", choices=F0S, default="mid")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="preset tiny, short vocals, one round, no memory")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of the vocals in seconds")
    parser.add_argument("--steps", type=int, default=4, help="steps of the flow; the default of a request is 25")
    parser.add_argument("-n", type=int, default=7, help="rounds")
    parser.add_argument("--limit", type=float, default=20.0, help="start no new round of a case after these seconds")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result")
    args = parser.parse_args(arguments)
    args.only = [part for part in PARTS if part in (args.only or PARTS)]
    return args


if __name__ == "__main__":
    sys.exit(main())
