"""The embedded server's `onnxruntime` backend, based on the PyPI package.

It runs models with `backend: "onnxruntime"`, because the wheel's server has no native backend. Each request runs
separately although Triton delivers whole batches: on a CPU a batch gains little (htdemucs 10 %), and a request's bits
must not depend on its neighbours. With the config parameter `join_requests: "true"`, requests of equal shapes are
concatenated into one run, as GPU backends do.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from heartvoice.arrays import Array
from heartvoice.errors import EngineError, HeartvoiceError
from heartvoice.resource_errors import as_resource_error
from heartvoice.runtime.engines import Engine, OnnxEngine, OpenVinoEngine
from heartvoice.runtime.repository import Repository
from heartvoice.serving import logs, process_registry
from heartvoice.serving.idle_memory import IdleMemory, trim
from heartvoice.serving.workarounds import quick_exit
from heartvoice.serving.workarounds.unread_responses import restore_malloc_defaults

log = logging.getLogger(__name__)

JOIN = "join_requests"


def _accelerators(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the configured CPU accelerators by name, with their parameters."""
    execution = config.get("optimization", {}).get("execution_accelerators", {})
    return {entry["name"]: entry.get("parameters", {}) for entry in execution.get("cpu_execution_accelerator", [])}


def build_engine(path: Path, config: dict[str, Any]) -> Engine:
    """Build the configured engine: onnxruntime, or OpenVINO with a `cpu_execution_accelerator` entry.

    OpenVINO's parameter `precision` is f32 or bf16; benchmarks/DIARY.md has the error of bf16.
    """
    configured = config.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value")
    threads = int(configured) if configured else None
    accelerators = _accelerators(config)
    if not accelerators:
        return OnnxEngine(path, threads=threads)
    if list(accelerators) != ["openvino"]:
        raise EngineError(f"{path}: expected the accelerator openvino or none, got {', '.join(accelerators)}")
    precision = accelerators["openvino"].get("precision", "f32")
    if precision not in ("f32", "bf16"):
        raise EngineError(f"{path}: precision: expected f32 or bf16, got {precision!r}")
    if precision != "f32":
        log.warning("%s: OpenVINO in %s, an SNR of about 33 dB at full size", path.parent.parent.name, precision)
    return OpenVinoEngine(path, threads=threads, precision=precision)


class OnnxModel:
    """The model class that the Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph."""
        restore_malloc_defaults()
        logs.configure()
        quick_exit.arrange()
        config = json.loads(args["model_config"])
        self._inputs = [entry["name"] for entry in config["input"]]
        self._batched = config["max_batch_size"] > 0
        joins = config.get("parameters", {}).get(JOIN, {}).get("string_value") == "true"
        self._max_batch = config["max_batch_size"] if joins else 1
        file = config.get("default_model_filename") or "model.onnx"
        folder = Path(args["model_repository"])
        path = folder / args["model_version"] / file
        try:
            Repository(folder.parent).intact_graph(folder.name)
            self._engine = build_engine(path, config)
        except HeartvoiceError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._name: str = args["model_name"]
        self._memory = IdleMemory(self._release_memory)
        process_registry.register(self._name)
        log.info("loaded %s on %s", args["model_name"], type(self._engine).__name__)

    def _release_memory(self) -> None:
        if isinstance(self._engine, OnnxEngine):
            self._engine.release_memory()
        trim()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; with `join_requests`, equal shapes run together up to `max_batch_size`."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[Any, list[int]] = defaultdict(list)
        unpacked = []
        for index, request in enumerate(requests):
            inputs = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
            unpacked.append(inputs)
            shapes = tuple(value.shape[1:] for value in inputs.values()) if self._batched else index
            groups[shapes, tuple(request.requested_output_names())].append(index)
        for (_, outputs), members in groups.items():
            for batch in self._split(members, unpacked):
                self._run(batch, unpacked, list(outputs), responses)
        self._memory.worked()
        return responses

    def _split(self, members: list[int], unpacked: list[dict[str, Array]]) -> list[list[int]]:
        batches: list[list[int]] = [[]]
        rows = 0
        for index in members:
            n = len(next(iter(unpacked[index].values()))) if self._batched else 0
            if batches[-1] and rows + n > self._max_batch:
                batches.append([])
                rows = 0
            batches[-1].append(index)
            rows += n
        return batches

    def _run(
        self, batch: list[int], unpacked: list[dict[str, Array]], outputs: list[str], responses: list[Any]
    ) -> None:
        try:
            if len(batch) == 1:
                results = self._engine.run(unpacked[batch[0]], outputs)
                parts = [results]
            else:
                joined = {name: np.concatenate([unpacked[i][name] for i in batch]) for name in self._inputs}
                results = self._engine.run(joined, outputs)
                cuts = np.cumsum([len(next(iter(unpacked[i].values()))) for i in batch])[:-1]
                split = {name: np.split(value, cuts) for name, value in results.items()}
                parts = [{name: values[k] for name, values in split.items()} for k in range(len(batch))]
            for index, part in zip(batch, parts, strict=True):
                tensors = [pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in part.items()]
                responses[index] = pb_utils.InferenceResponse(output_tensors=tensors)
        except HeartvoiceError as error:
            used_up = as_resource_error(self._name, error)
            failure = pb_utils.TritonError(str(error), pb_utils.TritonError.INTERNAL)
            if used_up is not None:
                failure = pb_utils.TritonError(str(used_up), pb_utils.TritonError.UNAVAILABLE)
            for index in batch:
                responses[index] = pb_utils.InferenceResponse(error=failure)
