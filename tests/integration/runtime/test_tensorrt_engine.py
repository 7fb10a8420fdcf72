"""A plan as an engine, over a fake TensorRT that runs the plan's graph on onnxruntime."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.config.presets import PRESETS, with_separator
from heartvoice.errors import EngineError
from heartvoice.export.layout import graph_models
from heartvoice.export.mixed_precision_cases import half_case
from heartvoice.export.plan_export import PlanJob, export_plans
from heartvoice.runtime.engines import ConstantInputs, OnnxEngine
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.runtime.tensorrt_engine import TensorRtEngine
from heartvoice.runtime.tensorrt_plans import Device, Target, open_plan
from heartvoice.stages.codec import CodecRequest, CodecStage
from heartvoice.stages.svc.flow import network_velocity, sample
from tests.fakes.tensorrt import VERSIONS, fake_tensorrt
from tests.integration.export.test_plan_export import Heard

TINY = with_separator(PRESETS["tiny"], "htdemucs")
GRAPHS = ("heartcodec_condition", "heartcodec_flow", "svc_flow")


def target(version: str) -> Target:
    return Target(Device("NVIDIA GB10", "12.1"), version)


@pytest.fixture(scope="module", params=VERSIONS)
def planned(exported: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    """A repository with float32 plans of the graphs that loops call, and the module that made them."""
    root = tmp_path_factory.mktemp("planned") / "tiny"
    shutil.copytree(exported, root)
    trt = fake_tensorrt(request.param)
    export_plans(PlanJob(root, "fp32", GRAPHS), trt, target(request.param), Heard())
    return Repository(root), trt


@pytest.fixture
def engine(planned: Any) -> Callable[[str], TensorRtEngine]:
    repository, trt = planned
    return lambda name: TensorRtEngine(trt, open_plan(repository, name, target(trt.__version__)), device="cpu")


@pytest.mark.parametrize("name", GRAPHS)
def test_plan_gives_what_its_graph_gives(planned: Any, engine: Callable[[str], TensorRtEngine], name: str) -> None:
    repository, _ = planned
    tensorrt, onnx = engine(name), OnnxEngine(repository.graph(name), threads=1)
    assert (tensorrt.input_names, tensorrt.output_names) == (onnx.input_names, onnx.output_names)
    for frames in (12, 31, 12, 5, 6, 7, 8):  # more shapes than are kept
        inputs = half_case(graph_models(TINY)[name], TINY, frames)
        want: dict[str, Any] = onnx.run(inputs)
        got: dict[str, Any] = tensorrt.run(inputs)
        for output in onnx.output_names:
            np.testing.assert_allclose(got[output], want[output], rtol=1e-5, atol=1e-6)


def test_read_only_inputs_are_copied_once(engine: Callable[[str], TensorRtEngine]) -> None:
    flow = engine("heartcodec_flow")
    inputs = half_case(graph_models(TINY)["heartcodec_flow"], TINY, 12)
    inputs["mu"].setflags(write=False)
    first = flow.run(inputs)["velocity"]
    (bound,) = flow._bound.values()
    assert set(bound.constant) == {"mu"}
    bound.inputs["mu"] += 1  # a copy would undo this
    assert not np.array_equal(flow.run(inputs)["velocity"], first)
    np.testing.assert_array_equal(flow.run(inputs | {"mu": inputs["mu"].copy()})["velocity"], first)
    np.testing.assert_array_equal(flow.run(inputs)["velocity"], first)  # and back: another object again


def test_writable_inputs_are_copied_at_every_call(engine: Callable[[str], TensorRtEngine]) -> None:
    flow = engine("heartcodec_flow")
    inputs: dict[str, Any] = half_case(graph_models(TINY)["heartcodec_flow"], TINY, 12)
    first = flow.run(inputs)["velocity"]
    inputs["x"] *= 2
    assert not np.allclose(flow.run(inputs)["velocity"], first)


def test_results_are_the_callers_own(engine: Callable[[str], TensorRtEngine]) -> None:
    flow = engine("heartcodec_flow")
    inputs = half_case(graph_models(TINY)["heartcodec_flow"], TINY, 12)
    first = flow.run(inputs)["velocity"]
    kept = first.copy()
    flow.run(inputs | {"x": np.ones_like(inputs["x"])})
    np.testing.assert_array_equal(first, kept)


def test_shapes_outside_of_the_profile_name_its_ends(engine: Callable[[str], TensorRtEngine]) -> None:
    inputs = half_case(graph_models(TINY)["heartcodec_flow"], TINY, 900)
    with pytest.raises(
        EngineError, match=r"x: expected a shape from \(1, 1, 16\) to \(4, 788, 16\), got \(2, 900, 16\)"
    ):
        engine("heartcodec_flow").run(inputs)
    with pytest.raises(EngineError, match="no input context"):
        engine("heartcodec_flow").run({"x": inputs["x"]})


def test_plan_of_another_version_does_not_load(planned: Any) -> None:
    repository, trt = planned
    plan = open_plan(repository, "svc_flow", target(trt.__version__))
    other = fake_tensorrt(next(version for version in VERSIONS if version != trt.__version__))
    with pytest.raises(EngineError, match="TensorRT does not load it; build it with"):
        TensorRtEngine(other, plan, device="cpu")


def test_threads_take_turns(engine: Callable[[str], TensorRtEngine]) -> None:
    flow = engine("svc_flow")
    cases = [half_case(graph_models(TINY)["svc_flow"], TINY, frames) for frames in (6, 9, 14)]
    want = [flow.run(inputs)["velocity"] for inputs in cases]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(20):
            if not np.array_equal(flow.run(cases[index])["velocity"], want[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class _Counting:
    """Networks over one engine."""

    def __init__(self, engines: dict[str, Any]) -> None:
        self.engines = engines

    def run(self, name: str, inputs: Any, outputs: Any = None) -> Any:
        return self.engines[name].run(inputs, outputs)


def test_loops_bind_their_constant_inputs_once(planned: Any, engine: Callable[[str], TensorRtEngine]) -> None:
    repository, _ = planned
    engines: dict[str, Any] = {name: engine(name) for name in GRAPHS}
    engines["heartcodec_decoder"] = OnnxEngine(repository.graph("heartcodec_decoder"), threads=1)
    codes = np.random.default_rng(0).integers(0, 256, (8, 6)).astype(np.int32)
    empty = np.zeros((0, 16), np.float32)
    request = CodecRequest(codes, empty, empty, steps=3)
    audio, _ = CodecStage(_Counting(engines), TINY.codec).decode_window(request)
    want, _ = CodecStage(LocalNetworks(repository), TINY.codec).decode_window(request)
    np.testing.assert_allclose(audio, want, atol=1e-4)
    assert {name for bound in engines["heartcodec_flow"]._bound.values() for name in bound.constant} == {
        "context",
        "mu",
    }

    rng = np.random.default_rng(0)
    noise, prompt = rng.standard_normal((1, 9, 16), np.float32), rng.standard_normal((1, 3, 16), np.float32)
    style, cond = rng.standard_normal((1, 32), np.float32), rng.standard_normal((1, 9, 32), np.float32)
    results = [
        sample(noise, prompt, style, cond, steps=3, guidance=0.7, velocity=network_velocity(networks))
        for networks in (_Counting(engines), LocalNetworks(repository))
    ]
    np.testing.assert_allclose(results[0], results[1], atol=1e-4)
    constant = {name for bound in engines["svc_flow"]._bound.values() for name in bound.constant}
    assert constant == {"prompt_x", "style", "cond"}


def test_constants_stay_the_same_view_until_another_array_comes() -> None:
    constants, first, second = ConstantInputs(), np.zeros(3), np.zeros(3)
    view = constants.views({"a": first})["a"]
    assert constants.views({"a": first})["a"] is view
    assert not view.flags.writeable
    assert first.flags.writeable
    assert constants.views({"a": second})["a"] is not view


def test_networks_open_plans_where_they_are_asked_to(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, trt = planned
    with pytest.raises(EngineError, match="expected one of onnxruntime, tensorrt, got 'cuda'"):
        LocalNetworks(repository, engine="cuda")
    with pytest.raises(EngineError, match="svc_flow: engine tensorrt needs the packages"):
        LocalNetworks(repository, engine="tensorrt").load("svc_flow")
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr("heartvoice.runtime.tensorrt_engine.find_device", lambda: Device("NVIDIA H200", "9.0"))
    with pytest.raises(EngineError, match=r"built on NVIDIA GB10 .*, this is NVIDIA H200.*heartvoice export plans"):
        LocalNetworks(repository, engine="tensorrt").load("svc_flow")
    with pytest.raises(EngineError, match=r"vocoder: .*model\.plan is missing"):
        LocalNetworks(repository, engine="tensorrt").load("vocoder")
