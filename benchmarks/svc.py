"""Is a whole conversion over graphs faster than over PyTorch modules, and what do live, cache and binding change?

    python -m heartvoice.benchmarks.svc [--only conversion|live|voice|binding] [--quick]

Random weights at about a quarter of the width. The same vocals are converted by both engines in turns in one process;
each one's peak memory is measured in a process of its own. Live conversion is set beside the exact one, with the
difference in the mel spectrum that comes out; a different seed's difference is its yardstick. Exits with 1 if graphs
and modules disagree. Run it with OMP_WAIT_POLICY=PASSIVE on a shared machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from heartvoice.benchmarks.f0_signals import melody
from heartvoice.benchmarks.harness import RESULTS, Run, alternate, difference
from heartvoice.benchmarks.machine import peak_in_child
from heartvoice.checkpoints import load_module, load_network, random_checkpoint
from heartvoice.contracts import SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.dsp import resample
from heartvoice.engines import Array, OnnxEngine, default_threads
from heartvoice.export.f0_graph import build_f0_network
from heartvoice.export.graph import Graph
from heartvoice.export.style_graph import build_svc_style
from heartvoice.export.svc_flow_graph import build_svc_flow
from heartvoice.export.svc_graphs import build_content_encoder, build_svc_regulator
from heartvoice.export.vocoder_graph import build_vocoder
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.models.bigvgan import Bigvgan, bigvgan_manifest
from heartvoice.models.bigvgan_weights import RandomBigvgan
from heartvoice.models.random_weights import RandomCheckpoint
from heartvoice.models.seed_vc.build import AnyPart, build_part, part_manifest
from heartvoice.models.seed_vc.random import part_law
from heartvoice.noise import normal
from heartvoice.presets import CampplusSizes, RmvpeSizes
from heartvoice.stages.convert import ConvertStage
from heartvoice.stages.convert_live import LiveConverter
from heartvoice.stages.convert_settings import ConvertSettings
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.svc_mel import log_mel, n_mel_frames
from heartvoice.stages.voice_cache import VoiceCache, pcm_sha256, voice_key
from heartvoice.stages.voice_features import VoiceFeatures
from heartvoice.svc_contracts import SVC_CONTEXT, SVC_FLOW
from heartvoice.svc_sizes import BigvganSizes, DitSizes, RegulatorSizes, SvcSizes, WhisperSizes

Floats = npt.NDArray[np.float32]
Kind = Literal["eager", "onnxruntime"]
KINDS: tuple[Kind, ...] = ("eager", "onnxruntime")
PARTS = ("conversion", "live", "voice", "binding")
MID = SvcSizes(
    WhisperSizes(192, 4, 3, 768), RegulatorSizes(192, 192), DitSizes(192, 3, 8, content_dim=192),
    BigvganSizes(upsample_initial_channel=384),
)  # fmt: skip
QUICK = SvcSizes(
    WhisperSizes(24, 1, 2, 32), RegulatorSizes(24, 24, n_stages=1), DitSizes(24, 2, 3, content_dim=24),
    BigvganSizes(upsample_initial_channel=64),
)  # fmt: skip
F0S = {
    "mid": RmvpeSizes(en_out_channels=4, gru_hidden=64),
    "quick": RmvpeSizes(n_blocks=1, inter_layers=1, en_out_channels=2),
}
"""RMVPE, since its random weights need no download; a quarter of the width."""
STYLE = CampplusSizes()
SIZES = {"mid": MID, "quick": QUICK}
PUSH_SAMPLES = 257_985
"""What separation finishes at a time."""
TOLERANCE = 1e-3
"""Relative error of the waves: networks and steps add theirs up."""


def _part_source(sizes: AnyPart) -> RandomCheckpoint:
    return RandomCheckpoint(part_manifest(sizes), 0, part_law(sizes))


def write_graphs(label: str, folder: Path) -> None:
    """Every graph of a size, each in a folder of its name."""
    sizes, f0 = SIZES[label], F0S[label]
    graphs: dict[str, Callable[[], Graph]] = {
        "content_encoder": lambda: build_content_encoder(sizes.whisper, _part_source(sizes.whisper)),
        "svc_regulator": lambda: build_svc_regulator(sizes.regulator, _part_source(sizes.regulator)),
        "svc_flow": lambda: build_svc_flow(sizes.dit, _part_source(sizes.dit)),
        "svc_style": lambda: build_svc_style(STYLE, random_checkpoint(STYLE, 0)),
        "f0_network": lambda: build_f0_network(f0, random_checkpoint(f0, 0)),
        "vocoder": lambda: build_vocoder(
            sizes.vocoder, RandomBigvgan(bigvgan_manifest(sizes.vocoder), 0, sizes.vocoder)
        ),
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
        """Run one."""
        return self._engines[name].run(inputs, outputs)


class ModuleNetworks:
    """PyTorch modules under the graphs' names."""

    def __init__(self, label: str) -> None:
        sizes, f0 = SIZES[label], F0S[label]
        with torch.device("meta"):
            vocoder = Bigvgan(sizes.vocoder)
        load_module(vocoder, RandomBigvgan(bigvgan_manifest(sizes.vocoder), 0, sizes.vocoder))
        self._modules: dict[str, tuple[nn.Module, str]] = {
            "content_encoder": (_part(sizes.whisper), "content"),
            "svc_regulator": (_part(sizes.regulator), "cond"),
            "svc_flow": (_part(sizes.dit), "velocity"),
            "svc_style": (load_network(STYLE, random_checkpoint(STYLE, 0)), "embedding"),
            "f0_network": (load_network(f0, random_checkpoint(f0, 0)), "activations"),
            "vocoder": (vocoder.eval(), "audio"),
        }

    @torch.inference_mode()
    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run one."""
        module, output = self._modules[name]
        tensors = [torch.from_numpy(np.asarray(value)) for value in inputs.values()]
        if name == "svc_flow":
            named = dict(zip(inputs, tensors, strict=True))
            return {output: module(**(named | {"t": named["t"][:, 0]})).numpy()}
        return {output: module(*tensors).numpy()}


def _part(sizes: AnyPart) -> nn.Module:
    with torch.device("meta"):
        network = build_part(sizes)
    load_module(network, _part_source(sizes))
    return network.eval()


def vocals(seconds: float) -> Floats:
    """A synthetic melody at 44.1 kHz."""
    return resample(melody(seconds).audio, SPEECH_RATE_HZ, STEM_RATE_HZ)


class Case:
    """One engine with a voice and vocals."""

    def __init__(self, kind: Kind, label: str, folder: Path, threads: int, seconds: float, steps: int) -> None:
        torch.set_num_threads(threads)
        networks = ModuleNetworks(label) if kind == "eager" else GraphNetworks(folder, threads)
        self.stage = ConvertStage(networks, SIZES[label], F0Stage(networks, F0S[label]), STYLE.n_bands)
        self.settings = ConvertSettings(steps=steps)
        self.reference, self.vocals = vocals(15.0), vocals(seconds)
        self.voice = self.make_voice()

    def make_voice(self) -> VoiceFeatures:
        """Listen to the reference."""
        return self.stage.voice(self.reference, self.settings.prompt_s)

    def exact(self, seed: int = 0) -> Floats:
        """The whole song."""
        return np.concatenate(list(self.stage.convert(self.vocals, self.voice, replace(self.settings, seed=seed))))

    def live(self) -> Floats:
        """The song in requests, every one of which travels."""
        parts = np.split(self.vocals, range(PUSH_SAMPLES, len(self.vocals), PUSH_SAMPLES))
        converter, pieces = LiveConverter(self.stage, self.voice, self.settings), list[Floats]()
        for index, part in enumerate(parts):
            if index:
                converter = LiveConverter.restore(self.stage, self.voice, self.settings, converter.state())
            pieces += converter.push(part, more=index + 1 < len(parts))
        return np.concatenate(pieces)


def build(
    kind: Kind, label: str, folder: Path, threads: int, seconds: float, steps: int, live: bool
) -> Callable[[], Floats]:
    """What `peak_in_child` measures."""
    case = Case(kind, label, folder, threads, seconds, steps)
    return case.live if live else case.exact


# ----------------------------------------------------------------------------------------------------------- the parts


def measure_conversion(run: Run, label: str, folder: Path, *, seconds: float, steps: int, n: int, memory: bool) -> bool:
    """Exact conversions by both engines; adds rows, returns whether they agree."""
    cases = {kind: Case(kind, label, folder, run.threads, seconds, steps) for kind in KINDS}
    waves = {kind: case.exact() for kind, case in cases.items()}
    error = difference(waves["onnxruntime"], waves["eager"])
    timings = alternate({kind: case.exact for kind, case in cases.items()}, n=n, warmup=0)
    for kind in KINDS:
        row = run.add("exact", kind, timings[kind], baseline=None if kind == "eager" else timings["eager"])
        row |= {"rtf": timings[kind].median / seconds} | (error if kind == "onnxruntime" else {})
        if memory:
            peak = peak_in_child(build, kind, label, folder, run.threads, seconds, steps, False)
            row |= {"loaded_mb": peak.loaded / 1e6, "run_mb": peak.growth / 1e6}
    return error["relative_error"] <= TOLERANCE


def measure_live(run: Run, label: str, folder: Path, *, seconds: float, steps: int, n: int, memory: bool) -> None:
    """Live beside exact, over graphs; adds rows."""
    case = Case("onnxruntime", label, folder, run.threads, seconds, steps)
    exact, live, other = case.exact(), case.live(), case.exact(seed=1)
    timings = alternate({"exact": case.exact, "live": case.live}, n=n, warmup=0)
    run.add("live", "exact", timings["exact"], rtf=timings["exact"].median / seconds, apart_db=_apart(other, exact))
    row = run.add("live", "live", timings["live"], baseline=timings["exact"])
    row |= {"rtf": timings["live"].median / seconds, "apart_db": _apart(live, exact)}
    if memory:
        peak = peak_in_child(build, "onnxruntime", label, folder, run.threads, seconds, steps, True)
        row["run_mb"] = peak.growth / 1e6


def _apart(wave: Floats, reference: Floats) -> float:
    """Mean distance of two mel spectra in dB."""
    n = min(len(wave), len(reference))
    return float(np.abs(log_mel(wave[:n]) - log_mel(reference[:n])).mean() * 20 / np.log(10))


def measure_voice(run: Run, label: str, folder: Path, *, n: int) -> None:
    """A voice that is made, and one that is in the cache, its key included; adds rows."""
    case = Case("onnxruntime", label, folder, run.threads, 1.0, 1)
    cache = VoiceCache[VoiceFeatures]()

    def hit() -> VoiceFeatures:
        return cache.get(voice_key(pcm_sha256(case.reference), label, case.settings.prompt_s), case.make_voice)

    voice = hit()
    timings = alternate({"miss": case.make_voice, "hit": hit}, n=n, warmup=1)
    run.add("voice", "miss", timings["miss"], voice_mb=voice.nbytes / 1e6)
    run.add("voice", "hit", timings["hit"], baseline=timings["miss"])


def measure_binding(run: Run, label: str, folder: Path, *, n: int) -> None:
    """One guided step of the flow with its arrays handed over each time, and with those that do not change bound."""
    import onnxruntime

    sizes = SIZES[label].dit
    n_frames = 256 if label == "quick" else SVC_CONTEXT
    engine = OnnxEngine(folder / SVC_FLOW.name / GRAPH_FILE, threads=run.threads)
    widths = {"x": sizes.in_channels, "prompt_x": sizes.in_channels, "cond": sizes.content_dim}
    inputs: dict[str, Any] = {name: normal(0, name, 0, (2, n_frames, width)) for name, width in widths.items()}
    inputs |= {"style": normal(0, "style", 0, (2, sizes.style_dim)), "t": np.full((2, 1), 0.5, np.float32)}
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

    timings = alternate({"handed over": lambda: engine.run(inputs), "bound": bound}, n=n, warmup=1)
    run.add("binding", "handed over", timings["handed over"], frames=n_frames)
    run.add("binding", "bound", timings["bound"], baseline=timings["handed over"], frames=n_frames)


# ---------------------------------------------------------------------------------------------------------------- main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    args = _parse(arguments)
    torch.set_num_threads(args.threads)
    label, right = "quick" if args.quick else "mid", True
    seconds, steps, n = (2.0, 1, 1) if args.quick else (args.seconds, args.steps, args.n)
    about = {
        "weights": "random seed=0",
        "steps": steps,
        "seconds": seconds,
        "frames": n_mel_frames(len(vocals(seconds))),
    }
    run = Run("svc", label, "fp32", args.threads, results=args.results, about=about)
    memory = not args.quick
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_graphs(label, folder)
        if "conversion" in args.only:
            right = measure_conversion(run, label, folder, seconds=seconds, steps=steps, n=n, memory=memory)
            run.save()
        if "live" in args.only:
            measure_live(run, label, folder, seconds=seconds, steps=steps, n=n, memory=memory)
            run.save()
        if "voice" in args.only:
            measure_voice(run, label, folder, n=n + 2)
        if "binding" in args.only:
            measure_binding(run, label, folder, n=n + 4)
    run.finish()
    if not right:
        print("graphs and modules disagree", file=sys.stderr)
    return 0 if right else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="heartvoice.benchmarks.svc", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small networks, short vocals, one round, no memory")
    parser.add_argument("--seconds", type=float, default=30.0, help="of vocals")
    parser.add_argument("--steps", type=int, default=4, help="of the flow; the default of a request is 25")
    parser.add_argument("-n", type=int, default=3, help="rounds")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result goes")
    args = parser.parse_args(arguments)
    args.only = [part for part in PARTS if part in (args.only or PARTS)]
    return args


if __name__ == "__main__":
    sys.exit(main())
