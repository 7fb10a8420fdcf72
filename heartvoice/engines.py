"""Inference engines: a graph file in, arrays out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice.errors import EngineError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = NDArray[np.generic]


class Engine(Protocol):
    """One loaded graph. `run` may be called from several threads."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the graph once; `outputs` names the wanted ones (default: all)."""
        ...


class Constants:
    """Read-only views of arrays: the same view as long as the same array comes, so that an engine copies it once."""

    def __init__(self) -> None:
        self._views: dict[str, tuple[Array, Array]] = {}

    def views(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """A view of each array, which its owner must not write to while it is used."""
        for name, array in arrays.items():
            if name not in self._views or self._views[name][0] is not array:
                view = array.view()
                view.flags.writeable = False
                self._views[name] = array, view
        return {name: self._views[name][1] for name in arrays}


def default_threads() -> int:
    """Threads of one session: HEARTVOICE_THREADS, or the cores this process may use."""
    return int(os.environ.get("HEARTVOICE_THREADS", 0)) or len(os.sched_getaffinity(0))


def onnx_session(path: Path, *, threads: int | None = None) -> InferenceSession:
    """Open a graph as `OnnxEngine` does.

    Raises:
        EngineError: it does not load.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or default_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen unrelated classes for one damaged file
        raise EngineError(f"{path.parent.parent.name}: {path.name} does not load: {error}") from error


class OnnxEngine:
    """onnxruntime on the CPU, with an explicit thread count and no spinning.

    Spinning wins a few per cent alone and loses far more when several stages share the cores.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self._session = onnx_session(path, threads=threads)
        self.input_names = [node.name for node in self._session.get_inputs()]
        self.output_names = [node.name for node in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the graph once.

        Raises:
            EngineError: the engine refused the inputs or failed.
        """
        names = list(outputs or self.output_names)
        try:
            return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
        except Exception as error:
            raise EngineError(f"onnxruntime failed: {error}") from error


class OpenVinoEngine:
    """OpenVINO on the CPU: faster than onnxruntime where a graph is bound by arithmetic (docs/performance.md)."""

    def __init__(self, path: Path, *, threads: int | None = None, precision: str = "f32") -> None:
        try:
            import openvino
        except ImportError:
            raise EngineError(
                f"{path}: its config asks for OpenVINO, which is not installed: pip install openvino"
            ) from None
        core = openvino.Core()
        properties = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or default_threads(),
        }
        try:
            self._model = core.compile_model(str(path), "CPU", properties)
        except RuntimeError as error:
            raise EngineError(f"{path.parent.parent.name}: {path.name} does not load: {error}") from error
        self.input_names = [port.get_any_name() for port in self._model.inputs]
        self.output_names = [port.get_any_name() for port in self._model.outputs]

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the graph once; each call has an inference request of its own, so threads do not meet."""
        request = self._model.create_infer_request()
        try:
            request.infer(dict(inputs))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {error}") from error
        return {name: np.array(request.get_tensor(name).data) for name in outputs or self.output_names}
