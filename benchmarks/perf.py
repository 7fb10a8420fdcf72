"""perf_analyzer against a real server: the voice path's models, one request at a time and several.

    python -m heartvoice.benchmarks.perf --preset tiny --converter tests/model_repository/svc

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from heartvoice import noise, pbtxt
from heartvoice.benchmarks.harness import Run
from heartvoice.contracts import SAMPLE_RATE_HZ, SVC
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
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Load:
    """One model's request: its inputs as perf_analyzer's JSON, and the seconds of audio in it."""

    model: str
    inputs: dict[str, Any]
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


def graph_inputs(preset: Preset, model: str) -> dict[str, Any]:
    """One request to a native graph: float tensors by the contract, axes as the preset has them."""
    graph = graph_models(preset)[model]
    inputs = {}
    for spec in graph.spec.inputs:
        shape = [axis if isinstance(axis, int) else graph.axes.get(axis.name, axis.opt) for axis in spec.shape]
        values = 0.1 * noise.normal(0, f"perf {spec.name}", 0, tuple(shape))
        inputs[spec.name] = {"content": [round(float(value), 4) for value in values.ravel()], "shape": shape}
    return inputs


def loads(preset: Preset, *, converter: bool) -> list[Load]:
    """What is measured, cheapest first."""
    recording, reference = encoded(flac(RECORDING_S, 1)), encoded(flac(REFERENCE_S, 2))
    segment_s = preset.separator.segment_samples / preset.separator.samplerate
    consent = encoded(b"nobody: this is noise")
    found = [
        Load("speaker_encoder", {"file": reference}, REFERENCE_S, streamed=False),
        Load("htdemucs", graph_inputs(preset, "htdemucs"), segment_s, streamed=False),
        Load("demucs", {"file": recording}, RECORDING_S, streamed=True),
    ]
    if converter:
        inputs = {"file": recording, "voice": reference, "voice_consent": consent}
        found.append(Load("cover", inputs, RECORDING_S, streamed=True))
    return found


@contextmanager
def served(repository: Repository, converter: Path | None) -> Iterator[EmbeddedServer]:
    """A server over the repository, with a converter beside its models if one is given."""
    with tempfile.TemporaryDirectory(prefix="heartvoice-perf-", dir=repository.root.parent) as folder:
        root = Path(folder) / repository.root.name
        shutil.copytree(repository.root, root, copy_function=os.link)
        if converter is not None:
            shutil.copytree(converter, root / SVC.name)
            (root / SVC.name / "config.pbtxt").write_text(pbtxt.render(SVC), encoding="utf-8")
        with EmbeddedServer(ServerOptions(root, free_port(), free_port())) as server:
            yield server


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
        data.write_text(json.dumps({"data": [load.inputs]}), encoding="utf-8")
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
    facts["latency_of"] = "first response" if load.streamed else "answer"
    run.add(
        load.model, f"concurrency {concurrency}", n=n, requests_per_s=rate, audio_s_per_s=rate * load.audio_s,
        rtf=1 / (rate * load.audio_s) if rate else float("inf"), **facts,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", default="tiny", choices=sorted(PRESETS))
    parser.add_argument("--repository", type=Path, help="default build/repository/PRESET; export it first")
    parser.add_argument("--converter", type=Path, help="folder of a model `svc`; without one `cover` is left out")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--requests", type=int, default=20, help="for each model and concurrency")
    parser.add_argument("--only", nargs="+", help="models; default all")
    options = parser.parse_args(arguments)
    repository = Repository(options.repository or Path("build/repository") / options.preset)
    preset = repository.preset
    run = Run("perf", preset.name, str(repository.index["precision"]), default_threads())
    run.about = {"recording_s": RECORDING_S, "reference_s": REFERENCE_S, "tool": "perf_analyzer of tritonclient 2.49.0"}
    with perf_analyzer() as tool, served(repository, options.converter) as server:
        for load in loads(preset, converter=options.converter is not None):
            if options.only and load.model not in options.only:
                continue
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
