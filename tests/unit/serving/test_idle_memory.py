"""Memory that a process gives back when it has nothing to do."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, save

from heartvoice.runtime.engines import OnnxEngine
from heartvoice.serving.idle_memory import IdleMemory, trim
from heartvoice.serving.workarounds.unread_responses import private_bytes


def test_memory_is_given_back_once_after_the_load_and_after_each_stretch_of_work() -> None:
    released = threading.Semaphore(0)
    memory = IdleMemory(lambda: released.release(), idle_s=0.01)
    for stretch in range(3):
        if stretch:
            memory.worked()
        assert released.acquire(timeout=60)
        assert not released.acquire(timeout=0.05)


def test_an_engine_gives_back_what_it_kept_and_computes_the_same_again(tmp_path: Path) -> None:
    size = 5_000_000
    graph = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["y"]), helper.make_node("ReduceSum", ["y"], ["sum"], keepdims=0)],
        "large", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [])],
    )  # fmt: skip
    path = tmp_path / "large" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    engine, inputs = OnnxEngine(path, threads=1), {"x": np.linspace(0, 1, size, dtype=np.float32)}
    engine.run({"x": inputs["x"][:9]})  # onnxruntime never gives its first piece back
    first = engine.run(inputs)
    kept = private_bytes(os.getpid())
    engine.release_memory()
    trim()
    assert private_bytes(os.getpid()) < kept - 3 * size, "the intermediate tensor is still there"
    assert engine.run(inputs) == first
