"""A fake of TensorRT's Python API over onnxruntime, with the bindings' signatures (`tensorrt_api.json`).

A name that a version's bindings lack raises AttributeError, a wrong argument TypeError. A "plan" is the graph with its
target; an execution reads and writes memory by address, as in TensorRT.
"""

from __future__ import annotations

import ctypes
import enum
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx

from tests.fakes.tensorrt_bindings import Fake
from tests.support.tensorrt_api import ASSET

API: dict[str, dict[str, dict[str, str]]] = json.loads(ASSET.read_text(encoding="utf-8"))
VERSIONS = tuple(API)
_KINDS = {1: "FLOAT", 6: "INT32", 7: "INT64", 9: "BOOL"}
_NUMPY = {"FLOAT": np.float32, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_}
STEPS = 3


def fake_tensorrt(version: str = VERSIONS[0], *, refused: tuple[str, ...] = ()) -> Any:
    """Return a fake module `tensorrt` of a version, whose parser refuses some operations."""
    api = API[version]
    module = SimpleNamespace(__version__=version, refused=refused)
    for name, members in api.items():
        values = [member for member, text in members.items() if text == "value" and member.isupper()]
        if values and name not in _BEHAVIOUR:
            setattr(module, name, enum.IntEnum(name, values, start=0))
    for name, behaviour in _BEHAVIOUR.items():
        base: Any = module.ILogger if name == "Logger" else behaviour
        made: Any = type(name, (base,), {"_members": api[name], "_module": module, "_called": f"{version} {name}"})
        for index, value in enumerate(member for member, text in api[name].items() if text == "value"):
            setattr(made, value, index)
        setattr(module, name, made)
    return module


# ----------------------------------------------------------------------------------------------------------- building


class _ILogger(Fake):
    def __init__(self, *args: Any) -> None: ...

    def log(self, severity: Any, msg: str) -> None: ...


class _IProgressMonitor(Fake):
    def __init__(self) -> None: ...


class _Builder(Fake):
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> Any:
        strong = 1 << int(self._module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        assert flags & strong, "the network is not strongly typed"
        return self._module.INetworkDefinition(_inside=True)

    def create_builder_config(self) -> Any:
        return self._module.IBuilderConfig(_inside=True)

    def create_optimization_profile(self) -> Any:
        return self._module.IOptimizationProfile(_inside=True)

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        for phase in ("Building Engine", "Computing profile costs"):
            if config.progress_monitor is not None:
                config.progress_monitor.phase_start(phase, "", STEPS)
                if not all(config.progress_monitor.step_complete(phase, step) for step in range(STEPS)):
                    return None
                config.progress_monitor.phase_finish(phase)
        head = {
            "version": self._module.__version__,
            "profile": config._profiles[0]._shapes,
            "tf32": self._module.BuilderFlag.TF32 in config._flags,
            "workspace": config._limits[self._module.MemoryPoolType.WORKSPACE],
        }
        if config._cache is not None:
            config._cache._content = f"timings of {self._module.__version__}".encode()
        memory = self._module.IHostMemory(_inside=True)
        memory._content = json.dumps(head).encode() + b"\n" + network._model.SerializeToString()
        return memory


class _INetworkDefinition(Fake):
    def __init__(self, **inside: Any) -> None:
        self._model: Any = None

    @property
    def num_inputs(self) -> int:
        return len(self._model.graph.input)

    def get_input(self, index: int) -> Any:
        tensor = self._module.ITensor(_inside=True)
        tensor.name = self._model.graph.input[index].name
        return tensor


class _ITensor(Fake):
    def __init__(self, **inside: Any) -> None:
        self.name = ""


class _OnnxParser(Fake):
    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._errors = network, list[Any]()

    def parse_from_file(self, model: str) -> bool:
        onnx.checker.check_model(model, full_check=True)  # among others, that a node's tensors have one type
        self._network._model = onnx.load(model)
        for index, node in enumerate(self._network._model.graph.node):
            if node.op_type in self._module.refused:
                error = self._module.ParserError(_inside=True)
                error._facts = index, node.op_type, node.name
                self._errors.append(error)
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class _ParserError(Fake):
    _facts: tuple[int, str, str]

    def __init__(self, **inside: Any) -> None: ...

    def node(self) -> int:
        return self._facts[0]

    def node_operator(self) -> str:
        return self._facts[1]

    def node_name(self) -> str:
        return self._facts[2]

    def desc(self) -> str:
        return "No importer registered"


class _IBuilderConfig(Fake):
    def __init__(self, **inside: Any) -> None:
        self.progress_monitor: Any = None
        self.builder_optimization_level = 3
        self._flags: set[Any] = {self._module.BuilderFlag.TF32}  # as in the real one
        self._limits: dict[Any, int] = {}
        self._profiles: list[Any] = []
        self._cache: Any = None

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limits[pool] = pool_size

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        cache = self._module.ITimingCache(_inside=True)
        cache._content = serialized_timing_cache
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache._content not in (b"", f"timings of {self._module.__version__}".encode()) and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def add_optimization_profile(self, profile: Any) -> int:
        if any(not (a <= b <= c) for shapes in profile._shapes.values() for a, b, c in zip(*shapes, strict=True)):
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1


class _IOptimizationProfile(Fake):
    def __init__(self, **inside: Any) -> None:
        self._shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = min, opt, max


class _Content(Fake):
    """An object with bytes."""

    _content: bytes = b""

    def __init__(self, **inside: Any) -> None: ...

    def __bytes__(self) -> bytes:
        return self._content


class _ITimingCache(_Content):
    def serialize(self) -> Any:
        memory = self._module.IHostMemory(_inside=True)
        memory._content = self._content
        return memory


# ------------------------------------------------------------------------------------------------------------ running


class _Runtime(Fake):
    def __init__(self, logger: Any) -> None: ...

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        head, _, body = bytes(serialized_engine).partition(b"\n")
        about = json.loads(head)
        if about["version"] != self._module.__version__:
            return None
        engine = self._module.ICudaEngine(_inside=True)
        engine._load(about, body)
        return engine


class _ICudaEngine(Fake):
    def __init__(self, **inside: Any) -> None: ...

    def _load(self, about: dict[str, Any], body: bytes) -> None:
        import onnxruntime

        self._profile = about["profile"]
        self._session = onnxruntime.InferenceSession(body, providers=["CPUExecutionProvider"])
        graph = onnx.load_from_string(body).graph
        self._kinds = {info.name: _KINDS[info.type.tensor_type.elem_type] for info in (*graph.input, *graph.output)}
        self._n_inputs = len(graph.input)

    @property
    def num_io_tensors(self) -> int:
        return len(self._kinds)

    def get_tensor_name(self, index: int) -> str:
        return str(list(self._kinds)[index])

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._module.TensorIOMode
        return modes.INPUT if list(self._kinds).index(name) < self._n_inputs else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._module.DataType, self._kinds[name])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._profile[name]]

    def create_execution_context(self) -> Any:
        context = self._module.IExecutionContext(_inside=True)
        context._start(self)
        return context


class _IExecutionContext(Fake):
    def __init__(self, **inside: Any) -> None: ...

    def _start(self, engine: Any) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._executions = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine._profile[name]
        if len(shape) != len(least) or any(not a <= n <= b for a, n, b in zip(least, shape, most, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return name in self._engine._kinds

    def infer_shapes(self) -> list[str]:
        inputs = list(self._engine._kinds)[: self._engine._n_inputs]
        return [name for name in inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        zeros = {n: np.zeros(s, _NUMPY[self._engine._kinds[n]]) for n, s in self._shapes.items()}
        return tuple(self._engine._session.run([name], zeros)[0].shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        names = list(self._engine._kinds)
        inputs = {name: self._memory(name, self._shapes[name]).copy() for name in names[: self._engine._n_inputs]}
        results = self._engine._session.run(names[self._engine._n_inputs :], inputs)
        for name, value in zip(names[self._engine._n_inputs :], results, strict=True):
            self._memory(name, value.shape)[...] = value
        self._executions += 1
        return True

    def _memory(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype: Any = np.dtype(_NUMPY[self._engine._kinds[name]])
        size = int(np.prod(shape)) * dtype.itemsize
        buffer: Any = (ctypes.c_char * size).from_address(self._addresses[name])
        values: np.ndarray = np.frombuffer(buffer, dtype).reshape(shape)
        return values


_BEHAVIOUR: dict[str, Any] = {
    "ILogger": _ILogger, "Logger": _ILogger, "IProgressMonitor": _IProgressMonitor, "Builder": _Builder,
    "INetworkDefinition": _INetworkDefinition, "ITensor": _ITensor, "OnnxParser": _OnnxParser,
    "ParserError": _ParserError, "IBuilderConfig": _IBuilderConfig, "IOptimizationProfile": _IOptimizationProfile,
    "IHostMemory": _Content, "ITimingCache": _ITimingCache, "Runtime": _Runtime, "ICudaEngine": _ICudaEngine,
    "IExecutionContext": _IExecutionContext,
}  # fmt: skip


def plan_head(plan: Path) -> dict[str, Any]:
    """Return the target of a fake plan."""
    head: dict[str, Any] = json.loads(plan.read_bytes().partition(b"\n")[0])
    return head
