"""Typing a graph, and the emulation of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from heartvoice.config.presets import Preset, htdemucs_of
from heartvoice.config.svc import RegulatorConfig
from heartvoice.contracts.types import TensorSpec
from heartvoice.errors import ExportError
from heartvoice.export.emulate import HalfError, compare, emulate
from heartvoice.export.graph_builder import FP32_REGIONS, Fp32Region, GraphBuilder
from heartvoice.export.htdemucs_graph import build_htdemucs
from heartvoice.export.layout import graph_models
from heartvoice.export.mixed_precision import (
    HALVES,
    NUMPY_HALF,
    ONNX_HALF,
    TYPED_OPSET,
    HalfPrecision,
    fp32_region_of,
    type_graph,
)
from heartvoice.export.mixed_precision_cases import HALF_OUTPUTS, half_case
from heartvoice.export.parity_svc import regulator_case
from heartvoice.export.svc_graphs import build_svc_regulator
from heartvoice.export.writer import DATA_FILE, GRAPH_FILE, write_graph
from heartvoice.keyed_random import normal
from heartvoice.models.load import random_checkpoint
from heartvoice.runtime.engines import OnnxEngine
from tests.support.graphs import TINY

MODELS = graph_models(TINY)
TORCH = {"bf16": torch.bfloat16, "fp16": torch.float16}
WIDTH = 48


def typed_model(
    path: Path, precision: HalfPrecision, folder: Path, fp32_regions: tuple = FP32_REGIONS
) -> onnx.ModelProto:
    folder.mkdir()
    write_graph(type_graph(path, precision, fp32_regions).graph, folder, opset=TYPED_OPSET[precision])
    return onnx.shape_inference.infer_shapes(onnx.load(folder / GRAPH_FILE), strict_mode=True)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    found = {info.name: info.type.tensor_type.elem_type for info in (*graph.input, *graph.value_info, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """`softmax(x W) + x W`, a residual, and a weight that is read twice."""
    b = GraphBuilder("small")
    x = b.input(TensorSpec("x", "FP32", (5, WIDTH)))
    out = b.output(TensorSpec("y", "FP32", (5, WIDTH)))
    weight = b.weight("w", (WIDTH, WIDTH), lambda: normal(0, "w", 0, (WIDTH, WIDTH)) / np.float32(7))
    first = b.matmul(x, weight)
    weights = b.softmax(first, 1)
    b.add_residual(b.matmul(b.op("Mul", weights, first), weight), x, out=out)
    folder = tmp_path / "small"
    folder.mkdir()
    write_graph(b.graph, folder)
    return folder / GRAPH_FILE


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "htdemucs"])
def test_typed_graphs_are_valid_and_keep_islands_and_boundary_in_float32(
    exported: Path, tmp_path: Path, name: str, precision: HalfPrecision
) -> None:
    path = exported / name / "1" / GRAPH_FILE
    model = typed_model(path, precision, tmp_path / "typed")
    types, half = types_of(model), ONNX_HALF[precision]
    source = onnx.load(path).graph
    for mine, theirs in ((model.graph.input, source.input), (model.graph.output, source.output)):
        assert [info.SerializeToString() for info in mine] == [info.SerializeToString() for info in theirs]
    inside = [node for node in model.graph.node if fp32_region_of(node) is not None]
    assert all(types[out] != half for node in inside for out in node.output if out)
    whole = name == "f0_network"  # swift-f0 is one loop, which stays float32
    products = [
        node for node in model.graph.node if node.op_type in ("Conv", "MatMul") and fp32_region_of(node) is None
    ]
    wide = precision == "fp16"
    assert whole or products
    for node in products:
        if node.op_type == "Conv" or not wide:
            assert {types[tensor] for tensor in node.input} == {half}, node.name


def test_fp16_products_are_summed_in_float32_from_rounded_inputs(small: Path, tmp_path: Path) -> None:
    model = typed_model(small, "fp16", tmp_path / "typed")
    types, made = types_of(model), {out: node for node in model.graph.node for out in node.output}
    for node in model.graph.node:
        if node.op_type == "MatMul":
            for name in node.input:
                assert made[name].op_type == "Cast"
                assert types[made[name].input[0]] == onnx.TensorProto.FLOAT16
            assert types[node.output[0]] == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("precision", HALVES)
def test_typing_gives_the_same_bytes_every_time(exported: Path, tmp_path: Path, precision: HalfPrecision) -> None:
    path = exported / "svc_flow" / "1" / GRAPH_FILE
    written = []
    for label in "ab":
        typed_model(path, precision, tmp_path / label)
        written.append((tmp_path / label / GRAPH_FILE).read_bytes())
    assert written[0] == written[1]


def test_weights_beside_a_graph_are_read_from_there(small: Path, tmp_path: Path) -> None:
    model = onnx.load(small)
    folder = tmp_path / "apart"
    folder.mkdir()
    onnx.save(model, folder / GRAPH_FILE, save_as_external_data=True, location=DATA_FILE, size_threshold=0)
    assert (folder / DATA_FILE).stat().st_size >= 4 * WIDTH**2
    inside, apart = typed_model(small, "bf16", tmp_path / "1"), typed_model(folder / GRAPH_FILE, "bf16", tmp_path / "2")
    assert inside.SerializeToString() == apart.SerializeToString()


def test_half_graphs_are_refused(small: Path, tmp_path: Path) -> None:
    typed_model(small, "fp16", tmp_path / "typed")
    with pytest.raises(ExportError, match="half precision in it"):
        type_graph(tmp_path / "typed" / GRAPH_FILE, "fp16")


@pytest.mark.parametrize("precision", HALVES)
def test_emulation_rounds_where_torch_does(small: Path, precision: HalfPrecision) -> None:
    """torch on the CPU sums half precision products in float32 and rounds the result."""
    x = normal(0, "x", 0, (5, WIDTH))
    weight = torch.from_numpy(normal(0, "w", 0, (WIDTH, WIDTH)) / np.float32(7)).to(TORCH[precision])

    def product(value: torch.Tensor) -> torch.Tensor:
        return (value.to(TORCH[precision]).float() @ weight.float()).to(TORCH[precision])

    first = product(torch.from_numpy(x))
    mixed = torch.softmax(first.float(), 1).to(TORCH[precision]) * first
    want = product(mixed).float() + torch.from_numpy(x)
    got = emulate(small, precision, threads=1).run({"x": x})["y"]
    # Sums in another order may round to the neighbour, so a few values differ by one step of half precision.
    near = np.isclose(got, want.numpy(), rtol=0, atol=1e-7)
    assert near.mean() > 0.98
    assert HalfError(0.0) == compare({"y": got}, {"y": got})["y"]
    exact = OnnxEngine(small, threads=1).run({"x": x})["y"]
    assert 1e-5 < compare({"y": got}, {"y": exact})["y"].relative < 1e-2


def test_weights_beyond_half_are_an_error_and_emulate_to_an_overflow(tmp_path: Path) -> None:
    b = GraphBuilder("large")
    x = b.input(TensorSpec("x", "FP32", (1, 2)))
    weight = b.weight("w", (2, 2), lambda: np.full((2, 2), 1e5, np.float32))
    b.matmul(x, weight, out=b.output(TensorSpec("y", "FP32", (1, 2))))
    write_graph(b.graph, tmp_path)
    with pytest.raises(ExportError, match="overflows half precision"):
        typed_model(tmp_path / GRAPH_FILE, "fp16", tmp_path / "typed")
    inputs = {"x": np.ones((1, 2), np.float32)}
    error = compare(emulate(tmp_path / GRAPH_FILE, "fp16").run(inputs), OnnxEngine(tmp_path / GRAPH_FILE).run(inputs))
    assert str(error["y"]) == "overflow"
    assert np.isfinite(
        compare(emulate(tmp_path / GRAPH_FILE, "bf16").run(inputs), inputs | {"y": np.full((1, 2), 2e5)}, ["y"])[
            "y"
        ].relative
    )


MINIMUM_DB = {
    "heartcodec_condition": 40, "heartcodec_flow": 35, "heartcodec_decoder": 35, "speaker_network": 40,
    "f0_network": 90,
    "content_encoder": 38, "svc_regulator": 35, "svc_flow": 40, "svc_style": 38, "vocoder": 35, "heartmula_step": 33,
}  # fmt: skip
"""bf16 with all float32 regions, a few dB under what was measured; fp16 has 8 times finer steps: 18 dB more."""


@pytest.mark.parametrize("name", MINIMUM_DB)
def test_half_precision_keeps_every_graph_near_float32(exported: Path, name: str) -> None:
    path, inputs = exported / name / "1" / GRAPH_FILE, half_case(MODELS[name], TINY, 48)
    want = OnnxEngine(path, threads=1).run(inputs)
    for precision in HALVES:
        more = 15 if precision == "fp16" else 0
        engine = emulate(path, precision, threads=1)
        for output, error in compare(engine.run(inputs), want, HALF_OUTPUTS.get(name)).items():
            assert error.snr_db > MINIMUM_DB[name] + more, (precision, output, error)


@pytest.mark.parametrize(
    ("name", "fp32_region", "loss_db"), [("heartcodec_flow", "time", 15), ("heartcodec_decoder", "levels", 3)]
)
def test_fp32_regions_that_matter_are_those_that_were_measured(
    exported: Path, name: str, fp32_region: Fp32Region, loss_db: float
) -> None:
    """Without the time embedding in float32, the flow would lose most of its digits (docs/how-to/gpu.md)."""
    path, inputs = exported / name / "1" / GRAPH_FILE, half_case(MODELS[name], TINY, 48)
    want = OnnxEngine(path, threads=1).run(inputs)
    others = tuple(kept for kept in FP32_REGIONS if kept != fp32_region)
    with_it, without = (
        next(iter(compare(emulate(path, "bf16", kept, threads=1).run(inputs), want).values())).snr_db
        for kept in (FP32_REGIONS, others)
    )
    assert with_it - without > loss_db


def test_every_half_dtype_has_an_onnx_type() -> None:
    for precision in HALVES:
        assert onnx.helper.np_dtype_to_tensor_dtype(np.dtype(NUMPY_HALF[precision])) == ONNX_HALF[precision]


@pytest.mark.parametrize("precision", HALVES)
def test_separator_is_typed(tmp_path: Path, precision: HalfPrecision) -> None:
    sizes = replace(htdemucs_of("tiny"), nfft=1024, depth=3, segment="1/5")
    write_graph(build_htdemucs(sizes, random_checkpoint(sizes, 0)), tmp_path)
    types = types_of(typed_model(tmp_path / GRAPH_FILE, precision, tmp_path / "typed"))
    assert list(types.values()).count(ONNX_HALF[precision]) > 100


def check_separator(preset: Preset, folder: Path, precision: HalfPrecision) -> None:
    """Type the separator's graph in a folder, and compare what half precision makes of it with float32."""
    path = folder / GRAPH_FILE
    typed_model(path, precision, folder / "typed")
    inputs = half_case(MODELS["htdemucs"], preset)
    errors = compare(emulate(path, precision, threads=1).run(inputs), OnnxEngine(path, threads=1).run(inputs))
    assert min(error.snr_db for error in errors.values()) > (27 if precision == "bf16" else 45)


def test_regulator_counts_more_values_than_fp16_holds(tmp_path: Path) -> None:
    """Width times frames is beyond 65504 in every real song, and beyond bf16's eight bits in any."""
    sizes = RegulatorConfig(channels=768, in_channels=24, n_stages=1)
    write_graph(build_svc_regulator(sizes, random_checkpoint(sizes, 0)), tmp_path)
    inputs = regulator_case(sizes, 111, 96)
    want = OnnxEngine(tmp_path / GRAPH_FILE, threads=1).run(inputs)
    error = compare(emulate(tmp_path / GRAPH_FILE, "fp16", threads=1).run(inputs), want)["cond"]
    assert error.snr_db > 50
