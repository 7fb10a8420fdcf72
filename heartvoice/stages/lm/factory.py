"""Opens the engine of an exported repository's language model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from heartvoice.contracts.graphs import heartmula_step, heartmula_step_ort
from heartvoice.errors import EngineError
from heartvoice.runtime.engines import OnnxEngine
from heartvoice.runtime.repository import MANIFEST, Repository
from heartvoice.stages.lm.engine import GraphEngine, LmEngine

EngineName = Literal["auto", "standard", "ort", "torch"]
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)
GPU_LAG = 2
"""Frames that a GPU may run ahead of the host's check for EOS; frames beyond EOS are dropped. Not measured yet."""
_DRIVER = Path("/dev/nvidiactl")
_STANDARD, _ORT = heartmula_step(0).name, heartmula_step_ort(0).name


def open_engine(
    repository: Repository,
    name: str = "auto",
    *,
    n_slots: int = 1,
    kv_limit: int | None = None,
    weights: str | None = None,
    threads: int | None = None,
) -> LmEngine:
    """Load the language model.

    Args:
        repository: exported.
        name: "standard" is the portable graph; "ort" is the graph of onnxruntime's own operators, which may be
            quantized; "torch" is PyTorch with CUDA graphs in bfloat16 (on CPUs for tests only). "auto" is "torch" if
            there is a GPU, else "ort" if it was exported, else "standard".
        n_slots: greatest number of songs at once.
        kv_limit: bytes of keys and values; the default has room for a guided song of full length in every slot.
        weights: folder of the official checkpoint, for "torch". Random weights are generated again.
        threads: of the graph.

    Raises:
        EngineError: there is no such engine, or its graph is missing or does not load.
    """
    if name not in ENGINE_NAMES:
        raise EngineError(f"heartmula: engine: expected one of {', '.join(ENGINE_NAMES)}, got {name!r}")
    if name == "torch" or (name == "auto" and has_gpu()):
        return _torch_engine(repository, n_slots, kv_limit, weights)
    has_ort = (repository.root / _ORT / MANIFEST).is_file()
    if name == "ort" or (name == "auto" and has_ort):
        from heartvoice.stages.lm.engine_ort import OrtEngine

        graph = repository.intact_graph(_ORT)
        return OrtEngine(graph, repository.preset, n_slots=n_slots, kv_limit=kv_limit, threads=threads)
    engine = OnnxEngine(repository.intact_graph(_STANDARD), threads=threads)
    return GraphEngine(engine, repository.preset, n_slots=n_slots, kv_limit=kv_limit)


def has_gpu() -> bool:
    """True if PyTorch sees a GPU. Without a driver PyTorch is not loaded."""
    if not _DRIVER.exists():
        return False
    from heartvoice.stages.lm.torch_weights import sees_gpu

    return sees_gpu()


def _torch_engine(repository: Repository, n_slots: int, kv_limit: int | None, weights: str | None) -> LmEngine:
    import torch

    from heartvoice.stages.lm.engine_torch import TorchEngine
    from heartvoice.stages.lm.torch_weights import open_lm_weights

    gpu = has_gpu()
    device, dtype, lag = ("cuda", torch.bfloat16, GPU_LAG) if gpu else ("cpu", torch.float32, 0)
    engine = TorchEngine.load(
        open_lm_weights(repository, weights), repository.preset,
        device=device, dtype=dtype, n_slots=n_slots, kv_limit=kv_limit, lag=lag,
    )  # fmt: skip
    if gpu:
        engine.warm_up()
    return engine
