"""perf_analyzer against a real server: the voice path's models, one request at a time and several.

    python -m heartvoice.benchmarks.perf --preset tiny [--only svc song] [--concurrency 1 2] [--requests 20]

Every request of a model is the same work: the same audio, voice and seed, and a song that may not end before its time.
One that does not count goes first, so a voice has been heard before; `svc_steps` are few, and the same everywhere.
perf_analyzer comes out of the PyPI wheel tritonclient 2.49.0 (x86-64), pinned by hash; two libraries that it misses are
linked from the server's wheel. What it does not measure (first audio, playback) is left to clients of our own.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from heartvoice import noise
from heartvoice.benchmarks.f0_signals import melody
from heartvoice.benchmarks.harness import Run
from heartvoice.contracts import SAMPLE_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.dsp import resample
from heartvoice.embedded import wheel
from heartvoice.embedded.server import EmbeddedServer, ServerOptions, free_port
from heartvoice.engines import default_threads
from heartvoice.export import pypi
from heartvoice.export.layout import graph_models
from heartvoice.presets import PRESETS, Preset
from heartvoice.repository import Repository

TOOL = "perf-analyzer"
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
RECORDING_S, REFERENCE_S = 10.0, 5.0
FLOW_STEPS = 4
"""Of the converter and the codec."""
VOCODER_FRAMES = 256
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Load:
    """One model's request: what makes its inputs as perf_analyzer's JSON, and the seconds of audio in it."""

    model: str
    inputs: Callable[[], dict[str, Any]]
    audio_s: float
    streamed: bool


def flac(seconds: float, seed: int) -> bytes:
    """A recording: noise with the spectrum of nothing in particular, since speed does not depend on it."""
    audio = 0.1 * noise.normal(seed, "perf", 0, (round(seconds * SAMPLE_RATE_HZ), 2))
    file = io.BytesIO()
    soundfile.write(file, np.clip(audio, -1, 1), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def encoded(data: bytes) -> dict[str, Any]:
    """A BYTES tensor: perf_analyzer sends what it decodes as it is, so the element's length goes before it."""
    return {"b64": base64.b64encode(struct.pack("<I", len(data)) + data).decode(), "shape": [1]}


def values(array: npt.NDArray[Any]) -> dict[str, Any]:
    """A tensor of numbers; four digits keep the file small."""
    return {"content": np.round(array, 4).ravel().tolist(), "shape": list(array.shape)}


def graph_inputs(preset: Preset, model: str, **lengths: int) -> dict[str, Any]:
    """One request to a native graph: float tensors by the contract, axes as `lengths` or the preset has them."""
    graph = graph_models(preset)[model]
    inputs = {}
    for spec in graph.spec.inputs:
        shape = [
            axis if isinstance(axis, int) else lengths.get(axis.name, graph.axes.get(axis.name, axis.opt))
            for axis in spec.shape
        ]
        inputs[spec.name] = values(0.1 * noise.normal(0, f"perf {spec.name}", 0, tuple(shape)).astype(np.float64))
    return inputs


def loads(preset: Preset) -> list[Load]:
    """What is measured, cheapest first."""
    segment_s = preset.separator.segment_samples / preset.separator.samplerate
    vocoder_s = VOCODER_FRAMES * preset.svc.vocoder.hop / STEM_RATE_HZ
    return [
        Load("speaker_encoder", lambda: {"file": _reference()}, REFERENCE_S, streamed=False),
        Load("htdemucs", lambda: graph_inputs(preset, "htdemucs"), segment_s, streamed=False),
        Load(
            "vocoder", lambda: graph_inputs(preset, "vocoder", vocoder_frame=VOCODER_FRAMES), vocoder_s, streamed=False
        ),
        Load("demucs", lambda: {"file": _recording()}, RECORDING_S, streamed=True),
        Load("svc", lambda: _vocals() | _voice(), RECORDING_S, streamed=True),
        Load("cover", lambda: {"file": _recording()} | _voice() | _whatever_is_sung(), RECORDING_S, streamed=True),
        Load("song", lambda: _song() | _voice() | _whatever_is_sung(), RECORDING_S, streamed=True),
    ]


def _recording() -> dict[str, Any]:
    return encoded(flac(RECORDING_S, 1))


def _reference() -> dict[str, Any]:
    return encoded(flac(REFERENCE_S, 2))


def _vocals() -> dict[str, Any]:
    return {"vocals": values(resample(melody(RECORDING_S).audio, SPEECH_RATE_HZ, STEM_RATE_HZ))}


def _voice() -> dict[str, Any]:
    steps = values(np.array([FLOW_STEPS]))
    return {"voice": _reference(), "voice_consent": encoded(b"nobody: this is noise"), "svc_steps": steps}


def _whatever_is_sung() -> dict[str, Any]:
    return {"no_vocals": encoded(b"convert")}


def _song() -> dict[str, Any]:
    length = values(np.array([RECORDING_S]))
    return {
        "lyrics": encoded(b"[verse]\nOver the hills and far away\n"), "tags": encoded(b"pop, piano"),
        "duration_s": length, "min_duration_s": length, "codec_steps": values(np.array([FLOW_STEPS])),
    }  # fmt: skip


@contextmanager
def perf_analyzer() -> Iterator[tuple[Path, dict[str, str]]]:
    """The program and the environment that it runs in."""
    libraries = wheel.find_wheel().libraries
    assert libraries is not None, "find_wheel names the wheel's own"
    with tempfile.TemporaryDirectory(prefix="heartvoice-perf-") as folder:
        program = Path(folder) / "perf_analyzer"
        shutil.copyfile(pypi.member(TOOL), program)
        program.chmod(0o755)
        for name, pattern in LIBRARIES.items():
            (Path(folder) / name).symlink_to(next(libraries.glob(pattern)))
        yield program, {**os.environ, "LD_LIBRARY_PATH": folder}


def measure(tool: tuple[Path, dict[str, str]], server: EmbeddedServer, load: Load, concurrency: int, n: int) -> Any:
    """Run perf_analyzer once; returns its CSV row, or what it said when it failed."""
    program, environment = tool
    with tempfile.TemporaryDirectory(prefix="heartvoice-perf-") as folder:
        data, result = Path(folder) / "data.json", Path(folder) / "result.csv"
        data.write_text(json.dumps({"data": [load.inputs()]}), encoding="utf-8")
        command = [
            str(program), "-m", load.model, "-u", server.url, "-i", "grpc", "--input-data", str(data),
            "--concurrency-range", str(concurrency), "--request-count", str(n), "-f", str(result), "--verbose-csv",
            *(["--streaming"] if load.streamed else []),
        ]  # fmt: skip
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode or not result.is_file():
            return (done.stdout + done.stderr).strip()[-2000:]
        with result.open(encoding="utf-8") as file:
            return next(csv.DictReader(file))


def add(run: Run, load: Load, concurrency: int, n: int, row: dict[str, str]) -> None:
    """One row of the result: latencies in ms, requests and seconds of audio per second."""
    rate = float(row["Inferences/Second"])
    facts: dict[str, Any] = {f"p{q}_ms": float(row[f"p{q} latency"]) / 1e3 for q in (50, 95, 99)}
    facts["latency_of"] = "last response" if load.streamed else "answer"
    run.add(
        load.model, f"concurrency {concurrency}", n=n, requests_per_s=rate, audio_s_per_s=rate * load.audio_s,
        rtf=1 / (rate * load.audio_s) if rate else float("inf"), **facts,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", default="tiny", choices=sorted(PRESETS))
    parser.add_argument("--repository", type=Path, help="default build/repository/PRESET; export it first")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--requests", type=int, default=20, help="for each model and concurrency")
    parser.add_argument("--only", nargs="+", help="models; default all")
    options = parser.parse_args(arguments)
    repository = Repository(options.repository or Path("build/repository") / options.preset)
    preset = repository.preset
    run = Run("perf", preset.name, str(repository.index["precision"]), default_threads())
    run.about = {
        "recording_s": RECORDING_S, "reference_s": REFERENCE_S, "steps": FLOW_STEPS,
        "tool": "perf_analyzer of tritonclient 2.49.0",
    }  # fmt: skip
    wanted = [load for load in loads(preset) if load.model in (options.only or load.model)]
    served = ServerOptions(repository.root, free_port(), free_port())
    with perf_analyzer() as tool, EmbeddedServer(served) as server:
        for load in wanted:
            measure(tool, server, load, 1, 1)  # a voice is heard, memory is taken
            for concurrency in options.concurrency:
                row = measure(tool, server, load, concurrency, options.requests)
                if isinstance(row, str):
                    run.add(load.model, f"concurrency {concurrency}", failed=row)
                else:
                    add(run, load, concurrency, options.requests, row)
                run.save()
    run.finish(json_line=False)


if __name__ == "__main__":
    main()
