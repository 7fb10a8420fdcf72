"""Which device a graph runs on is asked for, and never silently another."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from heartvoice.errors import EngineError
from heartvoice.runtime import engines
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import Repository

GRAPH = Path("model/1/model.onnx")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Providers that sessions are opened with; onnxruntime's GPU build, whose CUDA starts."""
    asked: list[Any] = []

    def session(_path: str, _options: Any, providers: list[Any]) -> Any:
        asked.append(providers)
        return SimpleNamespace(get_providers=lambda: [name for name, _ in providers])

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return asked


def test_cuda_is_asked_for_with_exact_float32(asked: list[Any]) -> None:
    engines.onnx_session(GRAPH, device="cuda")
    (cuda, options), (cpu, _) = asked[0]
    assert (cuda, cpu) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["use_tf32"] == "0"
    assert options["arena_extend_strategy"] == "kSameAsRequested"


def test_the_cpu_is_the_default_even_where_there_is_a_gpu(asked: list[Any]) -> None:
    engines.onnx_session(GRAPH)
    assert [name for name, _ in asked[0]] == ["CPUExecutionProvider"]


def test_cuda_that_does_not_start_is_an_error(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fallen_back = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_args, **_kwargs: fallen_back)
    with pytest.raises(
        EngineError, match=r"model: model\.onnx does not load on cuda: CUDAExecutionProvider did not start"
    ):
        engines.onnx_session(GRAPH, device="cuda")


def test_build_for_cpus_refuses_cuda() -> None:
    with pytest.raises(EngineError, match=r"HEARTVOICE_DEVICE is cuda, but onnxruntime .* heartvoice\[gpu\]"):
        engines.onnx_session(GRAPH, device="cuda")


def test_variable_decides_where_loops_run(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = LocalNetworks(Repository(exported))
    monkeypatch.setenv("HEARTVOICE_DEVICE", "tpu")
    with pytest.raises(EngineError, match="HEARTVOICE_DEVICE: expected one of cpu, cuda, got 'tpu'"):
        networks.load("heartcodec_flow")
    monkeypatch.delenv("HEARTVOICE_DEVICE")
    networks.load("heartcodec_flow")
