"""Inference engines: each loads a graph file and runs it on arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from heartvoice.arrays import Array
from heartvoice.errors import EngineError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_CPU: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
_CUDA = (
    "CUDAExecutionProvider",
    # The arena grows by the requested size, not by powers of two; TF32 is off, so float32 keeps its precision.
    {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"},
)
_PROVIDERS: Mapping[str, tuple[tuple[str, dict[str, str]], ...]] = {"cpu": (_CPU,), "cuda": (_CUDA, _CPU)}
_NUMPY = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}
"""Types of our graphs' inputs."""
_GPU_HELP = "install heartvoice[gpu] without heartvoice[serve], whose onnxruntime is that of CPUs"


class Engine(Protocol):
    """One loaded graph. `run` may be called from several threads."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the graph once; `outputs` selects outputs by name (default: all)."""
        ...


class ConstantInputs:
    """Read-only views of arrays; the same array gives the same view, so an engine copies it once."""

    def __init__(self) -> None:
        self._views: dict[str, tuple[Array, Array]] = {}

    def views(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return a view of each array, which must not change while the view is used."""
        for name, array in arrays.items():
            if name not in self._views or self._views[name][0] is not array:
                view = array.view()
                view.flags.writeable = False
                self._views[name] = array, view
        return {name: self._views[name][1] for name in arrays}


def default_threads() -> int:
    """Threads per session: HEARTVOICE_THREADS, or the number of cores available to this process."""
    return int(os.environ.get("HEARTVOICE_THREADS", 0)) or len(os.sched_getaffinity(0))


def default_device() -> str:
    """Device of graphs that loops call: HEARTVOICE_DEVICE, "cpu" (the default) or "cuda"."""
    return os.environ.get("HEARTVOICE_DEVICE", "") or "cpu"


def onnx_session(path: Path, *, threads: int | None = None, device: str = "cpu") -> InferenceSession:
    """Open an onnxruntime session with `OnnxEngine`'s options.

    Raises:
        EngineError: the graph does not load, or not on that device: there is no silent fallback to the CPU.
    """
    import onnxruntime as ort

    if device not in _PROVIDERS:
        raise EngineError(f"HEARTVOICE_DEVICE: expected one of {', '.join(_PROVIDERS)}, got {device!r}")
    wanted = _PROVIDERS[device][0][0]
    if wanted not in ort.get_available_providers():
        raise EngineError(
            f"HEARTVOICE_DEVICE is {device}, but onnxruntime {ort.__version__} has no {wanted}: {_GPU_HELP}"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or default_threads()
    options.inter_op_num_threads = 1
    # The arena reuses memory well by itself. Planned reuse compares every pair of a graph's outputs (3.5 s for the 2000
    # nodes of htdemucs) and keeps more alive: Spleeter peaks at 619 MB with it, at 344 MB without, with the same bits.
    options.enable_mem_reuse = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=list(_PROVIDERS[device]))
    except Exception as error:  # onnxruntime raises a dozen unrelated classes for one damaged file
        raise EngineError(f"{path.parent.parent.name}: {path.name} does not load: {error}") from error
    if session.get_providers()[0] != wanted:  # onnxruntime only logs that CUDA's or cuDNN's libraries do not load
        raise EngineError(f"{path.parent.parent.name}: {path.name} does not load on {device}: {wanted} did not start")
    return session


class OnnxEngine:
    """onnxruntime on the CPU, with an explicit thread count and no spinning.

    Spinning wins a few per cent alone and loses far more when several stages share the cores. `device` may select a GPU
    (never run on one).
    """

    def __init__(self, path: Path, *, threads: int | None = None, device: str = "cpu") -> None:
        self._session = onnx_session(path, threads=threads, device=device)
        self.input_names = [node.name for node in self._session.get_inputs()]
        self.output_names = [node.name for node in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the graph once.

        Raises:
            EngineError: the engine rejected the inputs or failed.
        """
        names = list(outputs or self.output_names)
        try:
            return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
        except Exception as error:
            raise EngineError(f"onnxruntime failed: {error}") from error

    def release_memory(self) -> None:
        """Give back the memory that the session keeps for its next run.

        onnxruntime shrinks its arena at the end of a run that asks for it, and nowhere else. This run is told to end
        before its first node. Without an arena, as for most graphs on a GPU, nothing happens.
        """
        import onnxruntime as ort

        options = ort.RunOptions()
        options.terminate = True
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        nodes = self._session.get_inputs()
        inputs = {
            node.name: np.zeros([size if isinstance(size, int) else 1 for size in node.shape], _NUMPY[node.type])
            for node in nodes
        }
        with suppress(Exception):  # it says that it was told to end
            self._session.run(self.output_names[:1], inputs, options)


class OpenVinoEngine:
    """OpenVINO on the CPU; faster than onnxruntime for compute-bound graphs (benchmarks/DIARY.md)."""

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
        """Run the graph once; each call has a separate inference request, so threads are independent."""
        request = self._model.create_infer_request()
        try:
            request.infer(dict(inputs))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {error}") from error
        return {name: np.array(request.get_tensor(name).data) for name in outputs or self.output_names}
