"""Which engine an exported repository's language model runs on."""

from __future__ import annotations

from typing import Literal, get_args

from heartvoice.contracts import heartmula_step
from heartvoice.engines import OnnxEngine
from heartvoice.errors import EngineError
from heartvoice.lm_contracts import heartmula_step_ort
from heartvoice.repository import MANIFEST, Repository
from heartvoice.stages.lm_engine import GraphEngine, LmEngine

EngineName = Literal["auto", "standard", "ort"]
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)
_STANDARD, _ORT = heartmula_step(0).name, heartmula_step_ort(0).name


def open_engine(
    repository: Repository,
    name: str = "auto",
    *,
    n_slots: int = 1,
    kv_limit: int | None = None,
    threads: int | None = None,
) -> LmEngine:
    """Load the language model.

    Args:
        repository: exported.
        name: "standard" is the portable graph, "ort" that of onnxruntime's own operators, which may be quantized;
            "auto" takes "ort" if it was exported.
        n_slots: songs at a time.
        kv_limit: bytes of keys and values; default is room for a guided song of full length in every slot.
        threads: of the graph.

    Raises:
        EngineError: there is no such engine, or its graph is missing or does not load.
    """
    if name not in ENGINE_NAMES:
        raise EngineError(f"heartmula: engine: expected one of {', '.join(ENGINE_NAMES)}, got {name!r}")
    has_ort = (repository.root / _ORT / MANIFEST).is_file()
    if name == "ort" or (name == "auto" and has_ort):
        from heartvoice.stages.lm_engine_ort import OrtEngine

        graph = repository.graph(_ORT)
        return OrtEngine(graph, repository.preset, n_slots=n_slots, kv_limit=kv_limit, threads=threads)
    engine = OnnxEngine(repository.graph(_STANDARD), threads=threads)
    return GraphEngine(engine, repository.preset, n_slots=n_slots, kv_limit=kv_limit)
