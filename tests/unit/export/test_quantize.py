"""Weights in few bits: the choice, the blocks, and that onnxruntime reads them as we write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from heartvoice.errors import InvalidRequestError
from heartvoice.export.graph_builder import Graph
from heartvoice.export.heartmula_ort import build_heartmula_ort
from heartvoice.export.quantize import BLOCK, NOTHING, Blocks, Quantization, QuantizedBuilder, quantize
from heartvoice.keyed_random import normal
from heartvoice.models.load import random_checkpoint
from heartvoice.runtime.engines import OnnxEngine
from tests.support.graphs import TINY, engine_of, relative_error

INPUTS = (32, 80, 96, 31)
"""Whole blocks, a broken last one, an odd number of blocks, less than one."""


def dequantize(blocks: Blocks, inputs: int) -> np.ndarray:
    """The weight [in, out] that blocks stand for."""
    if blocks.offsets is None:
        centred = blocks.codes.astype(np.float32) - np.float32(128)
    else:
        count = blocks.scales.shape[1]
        centred = unpacked(blocks.codes).astype(np.float32) - unpacked(blocks.offsets)[:, :count, None]
    values: np.ndarray = (centred * blocks.scales[..., None]).reshape(len(centred), -1).T[:inputs]
    return values


def unpacked(pairs: np.ndarray) -> np.ndarray:
    """4-bit codes of bytes that hold two each, the lower half first."""
    halves: np.ndarray = np.stack([pairs & np.uint8(15), pairs >> np.uint8(4)], axis=-1)
    codes: np.ndarray = halves.reshape(*pairs.shape[:-1], -1)
    return codes


@pytest.mark.parametrize(
    ("text", "bits", "name"),
    [
        ("none", {}, "none"),
        ("int8", {"backbone": 8, "depth": 8, "heads": 8}, "int8"),
        ("depth-int8", {"depth": 8}, "depth-int8"),
        ("heads-int8,backbone-int4", {"backbone": 4, "heads": 8}, "backbone-int4,heads-int8"),
        ("depth-int4,int8", {"backbone": 8, "depth": 4, "heads": 8}, "backbone-int8,depth-int4,heads-int8"),
        ("backbone-int4,depth-int4,heads-int4", {"backbone": 4, "depth": 4, "heads": 4}, "int4"),
    ],
)
def test_choice_is_read_and_has_one_name(text: str, bits: dict[str, int], name: str) -> None:
    choice = Quantization.parse(text)
    assert choice.bits == bits
    assert str(choice) == name
    assert Quantization.parse(name) == choice


@pytest.mark.parametrize("text", ["", "int5", "codec-int8", "depth", "depth-int8,depth-int4", "int8,int4", "none,int8"])
def test_another_choice_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="quantize: expected none, or int8 or int4"):
        Quantization.parse(text)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("inputs", INPUTS)
def test_every_value_is_within_a_step(bits: int, inputs: int) -> None:
    weight = normal(0, "weight", bits, (inputs, 7))
    blocks = quantize(weight, bits)
    error = np.abs(dequantize(blocks, inputs) - weight)
    padded = np.pad(error, ((0, -inputs % BLOCK), (0, 0))).T.reshape(7, -1, BLOCK)
    # Half a step, but at an end of the range: 8 bits have a code less on one side, and 4 bits round the offset too.
    steps = padded / np.abs(blocks.scales[..., None])
    assert (steps <= 1.0001).all()
    assert (steps > 0.5001).mean() < 0.05
    assert relative_error(dequantize(blocks, inputs), weight) < (0.01 if bits == 8 else 0.1)


@pytest.mark.parametrize("bits", [8, 4])
def test_zeros_and_ends_are_kept(bits: int) -> None:
    weight = np.zeros((64, 3), np.float32)
    weight[:32, 1] = np.linspace(-15, 0, 32, dtype=np.float32)
    weight[5, 2] = 2.5
    kept = dequantize(quantize(weight, bits), 64)
    assert (kept[:, 0] == 0).all()
    assert (kept[31:, 1] == 0).all()
    assert kept[5, 2] == 2.5
    np.testing.assert_allclose(kept[0, 1], -15, rtol=1e-6)


@pytest.mark.parametrize("bits", [8, 4])
def test_layout_in_memory_does_not_matter(bits: int) -> None:
    weight = normal(3, "weight", bits, (64, 7))
    expected, found = quantize(weight, bits), quantize(np.asfortranarray(weight), bits)
    assert np.array_equal(found.codes, expected.codes)
    assert np.array_equal(found.scales, expected.scales)


@pytest.mark.parametrize("bits", [8, 4])
def test_subnormal_weights_do_not_become_nan(bits: int) -> None:
    kept = dequantize(quantize(np.full((32, 2), 1e-42, np.float32), bits), 32)
    assert np.isfinite(kept).all()


def product(weight: np.ndarray, bits: int, folder: Path) -> OnnxEngine:
    """A graph of one product."""
    builder = QuantizedBuilder("product", Quantization({"depth": bits}))
    builder.graph.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["row", weight.shape[0]]))
    builder.graph.outputs.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["row", weight.shape[1]]))
    name = builder.weight("projection.weight", weight.shape, lambda: weight, half=True)
    builder.matmul("x", name, out="y")
    return engine_of(builder.graph, folder)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("inputs", INPUTS)
def test_onnxruntime_multiplies_with_what_the_blocks_stand_for(bits: int, inputs: int, tmp_path: Path) -> None:
    weight = normal(1, "weight", bits, (inputs, 48))
    engine = product(weight, bits, tmp_path)
    kept = dequantize(quantize(weight, bits), inputs)
    # Inputs that 8 bits hold exactly, so that the kernel's own rounding plays no part.
    x = np.rint(normal(1, "x", inputs, (5, inputs)) * 40).clip(-127, 127).astype(np.float32)
    x[:, ::BLOCK] = 127
    assert relative_error(engine.run({"x": x})["y"], x @ kept) < 1e-5


@pytest.mark.parametrize("bits", [8, 4])
def test_a_row_is_bit_exact_whatever_is_beside_it(bits: int, tmp_path: Path) -> None:
    """As long as there is something: with 4 bits on AVX2, one row by itself has a kernel of its own."""
    engine = product(normal(2, "weight", bits, (160, 96)), bits, tmp_path)
    x = normal(2, "x", 0, (17, 160))
    together = engine.run({"x": x})["y"]
    for count in (2, 3, 4, 5, 8, 16):
        assert np.array_equal(engine.run({"x": x[1 : 1 + count]})["y"], together[1 : 1 + count])


def names(graph: Graph) -> set[str]:
    return {weight.name for weight in graph.weights}


def test_only_chosen_parts_are_stored_in_few_bits() -> None:
    source = random_checkpoint(TINY.lm, 0)
    exact, depth, all_parts = (
        build_heartmula_ort(TINY, source, choice)
        for choice in (NOTHING, Quantization.parse("depth-int8"), Quantization.parse("int4"))
    )
    stored = {name.removesuffix(".codes") for name in names(depth) if name.endswith(".codes")}
    assert stored == {name for name in names(exact) if name.startswith(("decoder.layers", "projection"))} - {
        name for name in names(exact) if name.endswith(".scale")
    }
    kept = {name for name in names(all_parts) if not name.endswith((".codes", ".scales", ".offsets"))}
    large = {weight.name for weight in all_parts.weights if weight.name in kept and weight.nbytes > 2**14}
    assert large - {name for name in large if name.startswith("constant")} == {
        "text_embeddings.weight", "audio_embeddings.weight",
    }  # fmt: skip
    assert all_parts.nbytes < depth.nbytes < exact.nbytes
