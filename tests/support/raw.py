"""Raw KServe v2 calls, as from another language's client, and other tools of integration tests."""

from __future__ import annotations

import json
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice import shm_regions
from heartvoice.contracts import triton_config
from heartvoice.contracts.graphs import CONTENT_ENCODER, SVC_REGULATOR, SVC_STYLE, VOCODER
from heartvoice.contracts.models import (
    COVER,
    DEMUCS,
    F0_NETWORK,
    HEARTCODEC,
    HEARTCODEC_DECODER,
    HEARTMULA,
    HTDEMUCS,
    RENDER,
    SONG,
    SPEAKER_ENCODER,
    SPEAKER_NETWORK,
    SVC,
)
from heartvoice.server.server import free_port

OF_SONGS = (SONG.name, HEARTMULA.name, HEARTCODEC.name, HEARTCODEC_DECODER.name)
"""Models for songs only; a test that starts a server does not need the others."""
OF_COVERS = (
    COVER.name, RENDER.name, SVC.name, DEMUCS.name, HTDEMUCS.name, SPEAKER_ENCODER.name, SPEAKER_NETWORK.name,
    F0_NETWORK.name,
)  # fmt: skip
"""Models for covers by the identity converter."""
OF_CONVERSION = (CONTENT_ENCODER.name, SVC_REGULATOR.name, SVC_STYLE.name, VOCODER.name)
"""Additional models of the real converter."""
CONVERTER = Path(__file__).with_name("model_repository") / "svc"
_DTYPES = {"float32": "FP32", "int32": "INT32", "int64": "INT64", "bool": "BOOL", "float64": "FP64", "object": "BYTES"}
_NUMPY = {"FP32": np.float32, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_}


READY_S = 200.0
"""Longest wait for a start; a test has 240 s."""
HEARTVOICE = [sys.executable, "-m", "heartvoice.cli.main"]
_OF_MODELS = """
from heartvoice.server import server
server.LOADED = {models}
from heartvoice.cli.main import main
main()
"""


def start_cli(
    repository: Path, *options: str, inside: Sequence[str] = (), models: Sequence[str] | None = None
) -> tuple[subprocess.Popen[str], dict[str, object]]:
    """`heartvoice serve`, ready, and what it said then; `inside` is a command that runs it.

    With `models` it takes these for all that there are.
    """
    program = HEARTVOICE if models is None else [sys.executable, "-c", _OF_MODELS.format(models=tuple(models))]
    command = [*inside, *program, "serve", "--repository", str(repository), "--json"]
    command += ["--grpc-port", str(free_port()), "--metrics-port", str(free_port()), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], READY_S)[0]:
        said = server_log(process.pid)
        process.send_signal(signal.SIGINT)
        raise AssertionError(f"not ready within {READY_S:g} s: {process.communicate(timeout=30)[1]}\n{said}")
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return process, json.loads(line)


def server_log(pid: int) -> str:
    """The end of the log of the server that `heartvoice serve` with this pid runs: it goes with the run's folder."""
    owner = shm_regions.process_identity(pid)
    for folder in Path(tempfile.gettempdir()).glob(f"{shm_regions.RUN_PREFIX}*"):
        if (folder / "owner").is_file() and (folder / "owner").read_text() == owner:
            return (folder / "server.log").read_text(errors="replace")[-8000:]
    return "no log"


def with_identity_converter(repository: Path, root: Path) -> Path:
    """Copy a repository and replace `svc` by a converter that returns its input."""
    shutil.copytree(repository, root, ignore=shutil.ignore_patterns(SVC.name))
    shutil.copytree(CONVERTER, root / SVC.name)
    (root / SVC.name / "config.pbtxt").write_text(triton_config.to_config_text(SVC))
    return root


_BROKEN_WRITER = """
import logging

from heartvoice.contracts.models import HEARTMULA
from heartvoice.contracts.models import LOADED
from heartvoice.serving.stage_model import StageModel

class TritonPythonModel(StageModel):
    spec = HEARTMULA

    def build(self, context):
        logging.getLogger().setLevel(logging.DEBUG)
        logging.getLogger("heartvoice").debug("built")

    def work(self, job):
        words = job.inputs["lyrics"][0].decode()
        logging.getLogger("heartvoice").debug("working")
        try:
            float(words)  # the error repeats what it was given
        except ValueError as error:
            raise ValueError(f"{words!r} of {job.inputs}") from error
"""


def with_broken_writer(repository: Path, root: Path) -> Path:
    """Copy a repository; its language model fails with an error that repeats the lyrics, and logs at DEBUG."""
    shutil.copytree(repository, root)
    (root / "heartmula" / "1" / "model.py").write_text(_BROKEN_WRITER)
    return root


def request(model: str, inputs: Mapping[str, np.ndarray]) -> Any:
    message = service_pb2.ModelInferRequest(model_name=model)
    for name, value in inputs.items():
        message.inputs.add(name=name, datatype=_DTYPES[str(value.dtype)], shape=value.shape)
        if value.dtype == object:
            raw = b"".join(struct.pack("<I", len(item)) + item for item in value.ravel())
        else:
            raw = np.ascontiguousarray(value).tobytes()
        message.raw_input_contents.append(raw)
    return message


def outputs(response: Any) -> dict[str, np.ndarray]:
    result = {}
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if tensor.datatype == "BYTES":
            result[tensor.name] = np.array([raw[4:]], object)
        else:
            result[tensor.name] = np.frombuffer(raw, _NUMPY[tensor.datatype]).reshape(tensor.shape)
    return result


class Raw:
    """A gRPC channel to the server, without heartvoice's client."""

    def __init__(self, url: str) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(url, options)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def infer(self, model: str, inputs: Mapping[str, np.ndarray], timeout: float = 30.0) -> dict[str, np.ndarray]:
        return outputs(self.stub.ModelInfer(request(model, inputs), timeout=timeout))

    def call(self, model: str, inputs: Mapping[str, np.ndarray], timeout: float = 30.0) -> Any:
        """Start a stream and return its call, which can be cancelled."""
        return self.stub.ModelStreamInfer(iter([request(model, inputs)]), timeout=timeout)

    def stream(self, model: str, inputs: Mapping[str, np.ndarray], timeout: float = 30.0) -> Iterator[dict[str, Any]]:
        """Responses with outputs; an error as {"error": text}."""
        for response in self.call(model, inputs, timeout):
            if response.error_message:
                yield {"error": response.error_message}
                return
            yield outputs(response.infer_response)


class Metrics:
    """The server's /metrics."""

    def __init__(self, url: str) -> None:
        self.url = url

    def value(self, name: str, **labels: str) -> float:
        """Sum of the samples with these labels."""
        with urllib.request.urlopen(self.url, timeout=60) as page:
            text = page.read().decode()
        total = 0.0
        for line in text.splitlines():
            match = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
            if match and all(f'{key}="{value}"' in match[1] for key, value in labels.items()):
                total += float(match[2])
        return total
