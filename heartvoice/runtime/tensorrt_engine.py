"""In-process engine for TensorRT plans of graphs that loops call: `heartcodec_flow` and `svc_flow`.

Written from the documentation and bindings of TensorRT 10.13 and 11.4, and **not yet run on a GPU**; the tests use a
fake made from those bindings. Torch allocates the memory, because the language model's GPU engine needs torch anyway.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heartvoice.arrays import Array
from heartvoice.errors import EngineError
from heartvoice.runtime.repository import Repository
from heartvoice.runtime.tensorrt_plans import Plan, Target, find_device, open_plan

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
MAX_BINDINGS = 4
"""Number of input shapes whose device memory is kept."""


def this_target(trt: Any) -> Target:
    """Return the target that plans must be built for to load here.

    Raises:
        EngineError: there is no GPU.
    """
    return Target(find_device(), str(trt.__version__))


def open_tensorrt(repository: Repository, model: str) -> TensorRtEngine:
    """Open a model's plan on this machine's GPU.

    Raises:
        EngineError: TensorRT or the GPU is missing, or no plan fits; the message gives the command that builds one.
    """
    try:
        import tensorrt
        import torch  # noqa: F401  # memory on the device
    except ImportError as error:
        raise EngineError(f"{model}: engine tensorrt needs the packages tensorrt and torch: {error}") from error
    return TensorRtEngine(tensorrt, open_plan(repository, model, this_target(tensorrt)))


@dataclass
class _Bound:
    """Device memory for one set of input shapes."""

    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    constant: dict[str, Array] = field(default_factory=dict)
    """Read-only arrays whose values are in `inputs` already."""


class TensorRtEngine:
    """One plan on one GPU, with one execution context; calls from several threads are serialised.

    A read-only input array (`array.flags.writeable` is False) is copied to the device once, until another array object
    is passed. A loop marks inputs that are equal in every step this way.
    """

    def __init__(self, trt: Any, plan: Plan, *, device: str = "cuda") -> None:
        """Load a plan that `tensorrt_plans.open_plan` has checked.

        Raises:
            EngineError: TensorRT cannot load the plan.
        """
        import torch

        self._trt, self._torch, self._device = trt, torch, torch.device(device)
        self._path: Path = plan.path
        self._lock = threading.Lock()
        self._logger = trt.Logger(trt.Logger.WARNING)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan.content())
        if self._engine is None:
            raise EngineError(f"{plan.path}: TensorRT does not load it; {plan.rebuild}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"{plan.path}: no memory for its execution context")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        is_input = [self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names]
        self.input_names = [name for name, inside in zip(names, is_input, strict=True) if inside]
        self.output_names = [name for name, inside in zip(names, is_input, strict=True) if not inside]
        on_gpu = self._device.type == "cuda"
        self._stream: Any = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]
        self._bound: dict[tuple[Any, ...], _Bound] = {}
        log.info("loaded %s on TensorRT %s", plan.path, trt.__version__)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the plan once.

        Raises:
            EngineError: a shape is outside the plan's profile, an input is missing, or the GPU failed.
        """
        missing = [name for name in self.input_names if name not in inputs]
        if missing:
            raise EngineError(f"{self._path}: no input {', '.join(missing)}")
        with self._lock, self._on_stream():
            bound = self._bind({name: inputs[name] for name in self.input_names})
            if not self._context.execute_async_v3(self._stream.cuda_stream if self._stream else 0):
                raise EngineError(f"{self._path}: the execution failed")
            if self._stream is not None:
                self._stream.synchronize()
            return {name: bound.outputs[name].cpu().numpy().copy() for name in outputs or self.output_names}

    # ------------------------------------------------------------------------------------------------------- memory

    def _on_stream(self) -> Any:
        return self._torch.cuda.stream(self._stream)  # no-op for None

    def _bind(self, inputs: Mapping[str, Array]) -> _Bound:
        """Copy the inputs to the device addresses that the context reads."""
        key = tuple((name, value.shape, value.dtype.str) for name, value in inputs.items())
        bound = self._bound.get(key)
        if bound is None:
            while len(self._bound) >= MAX_BINDINGS:
                del self._bound[next(iter(self._bound))]
            bound = self._bound[key] = self._allocate(inputs)
        self._select(bound)
        for name, value in inputs.items():
            if bound.constant.get(name) is value:
                continue
            bound.inputs[name].copy_(self._torch.from_numpy(_owned(value)))
            bound.constant.pop(name, None)
            if not value.flags.writeable:
                bound.constant[name] = value
        return bound

    def _allocate(self, inputs: Mapping[str, Array]) -> _Bound:
        torch, context = self._torch, self._context
        for name, value in inputs.items():
            if not context.set_input_shape(name, value.shape):
                least, _, most = self._engine.get_tensor_profile_shape(name, 0)
                raise EngineError(
                    f"{self._path}: {name}: expected a shape from {tuple(least)} to {tuple(most)}, got {value.shape}"
                )
        undefined = context.infer_shapes()
        if undefined:
            raise EngineError(f"{self._path}: shapes depend on {', '.join(undefined)}")
        on_device = {
            name: torch.empty_like(torch.from_numpy(_owned(value)), device=self._device)
            for name, value in inputs.items()
        }
        results = {
            name: torch.empty(tuple(context.get_tensor_shape(name)), dtype=self._dtype(name), device=self._device)
            for name in self.output_names
        }
        return _Bound(on_device, results)

    def _select(self, bound: _Bound) -> None:
        """Set the shapes and addresses of the context."""
        for name, tensor in bound.inputs.items():
            if not self._context.set_input_shape(name, tuple(tensor.shape)):
                raise EngineError(f"{self._path}: {name}: shape {tuple(tensor.shape)} was refused")
        for name, tensor in (*bound.inputs.items(), *bound.outputs.items()):
            if not self._context.set_tensor_address(name, tensor.data_ptr()):
                raise EngineError(f"{self._path}: {name}: its address was refused")

    def _dtype(self, name: str) -> torch.dtype:
        """Return torch's dtype of an output; contracts have float32, integers and booleans only."""
        kinds = self._trt.DataType
        known = {
            kinds.FLOAT: self._torch.float32, kinds.INT32: self._torch.int32, kinds.INT64: self._torch.int64,
            kinds.BOOL: self._torch.bool,
        }  # fmt: skip
        kind = self._engine.get_tensor_dtype(name)
        if kind not in known:
            raise EngineError(f"{self._path}: {name}: results are FP32, INT32, INT64 or BOOL, got {kind}")
        found: torch.dtype = known[kind]
        return found


def _owned(value: Array) -> Array:
    """Make an array acceptable to torch: contiguous and writable, copied if necessary."""
    contiguous = np.ascontiguousarray(value)
    return contiguous if contiguous.flags.writeable else contiguous.copy()
