"""The converter's graphs: their modules, the reference's vectors, and what the contract promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from heartvoice.config.svc import DitConfig
from heartvoice.contracts.graphs import CONTENT_ENCODER, SVC_FLOW, SVC_REGULATOR
from heartvoice.contracts.types import Axis, ModelSpec
from heartvoice.errors import EngineError, ExportError
from heartvoice.export.parity import Parity
from heartvoice.export.parity_svc import compare_svc_flow, flow_rows, regulator_case
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.keyed_random import normal
from heartvoice.models.load import TensorSource
from heartvoice.models.seed_vc.build import AnyPart
from heartvoice.runtime.engines import Engine
from heartvoice.stages.svc.content import content_windows, whisper_log_mel
from heartvoice.stages.svc.windows import regulator_inputs
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params
from tests.support.graphs import relative_error
from tests.support.svc_networks import (
    DIT,
    REGULATOR,
    WHISPER,
    case_number,
    compare_part,
    frames_last,
    golden_dit,
    golden_regulator,
    golden_whisper,
    graph_of,
    network_of,
    random_source,
    small_engine,
    svc_engine,
)

PARTS: dict[str, tuple[AnyPart, ModelSpec]] = {
    "content": (WHISPER, CONTENT_ENCODER),
    "cond": (REGULATOR, SVC_REGULATOR),
    "velocity": (DIT, SVC_FLOW),
}
EVERY = pytest.mark.parametrize("quantity", PARTS)


def compared(quantity: str, engine: Engine, source: TensorSource | None = None) -> Parity:
    parity, sizes = Parity("whole"), PARTS[quantity][0]
    compare_part(engine, network_of(sizes, source), sizes, parity)
    return parity


# -------------------------------------------------------------------------------------------------------------- modules


@EVERY
def test_a_graph_is_its_module(quantity: str) -> None:
    parity = compared(quantity, small_engine(PARTS[quantity][0]))
    parity.check(quantity, "fp32")
    assert parity.errors[quantity] < 5e-6


@EVERY
def test_a_half_precision_graph_is_near(quantity: str) -> None:
    parity = compared(quantity, svc_engine(PARTS[quantity][0], precision="fp16"))
    parity.check(quantity, "fp16")
    assert parity.errors[quantity] > 1e-5


@EVERY
def test_a_graph_of_other_weights_is_refused(quantity: str) -> None:
    parity = compared(quantity, small_engine(PARTS[quantity][0]), random_source(PARTS[quantity][0], 1))
    with pytest.raises(ExportError, match=quantity):
        parity.check(quantity, "fp32")


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_any_depth_has_its_skips(depth: int) -> None:
    sizes = replace(DIT, depth=depth)
    parity = Parity("whole")
    compare_svc_flow(svc_engine(sizes), network_of(sizes), sizes, parity)
    assert parity.errors["velocity"] < 5e-6


@EVERY
def test_a_graph_has_the_contract_s_names_and_free_axes(quantity: str, tmp_path: Path) -> None:
    sizes, spec = PARTS[quantity]
    for name in "ab":
        (tmp_path / name).mkdir()
        write_graph(graph_of(sizes), tmp_path / name)
    assert (tmp_path / "a" / GRAPH_FILE).read_bytes() == (tmp_path / "b" / GRAPH_FILE).read_bytes()
    model = onnx.load(tmp_path / "a" / GRAPH_FILE)
    assert (model.opset_import[0].version, model.ir_version) == (20, 10)
    for values, tensors in ((model.graph.input, spec.inputs), (model.graph.output, spec.outputs)):
        assert [value.name for value in values] == [tensor.name for tensor in tensors]
        for value, tensor in zip(values, tensors, strict=True):
            dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            if spec.max_batch_size:
                assert dims.pop(0) == "batch"
            assert len(dims) == len(tensor.shape)
            for dim, axis in zip(dims, tensor.shape, strict=True):
                free = isinstance(dim, str)
                assert not free or (isinstance(axis, Axis) and axis.name == dim and "frame" in dim)
                assert dim == axis if isinstance(axis, int) else free or dim > 0


# -------------------------------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("folder", folder_params("seed_vc/dit"))
def test_velocities_are_the_references(folder: GoldenFolder) -> None:
    io, engine = folder.io, svc_engine(*golden_dit(folder))
    inputs = {
        "x": frames_last(io["x"]),
        "prompt_x": frames_last(io["prompt_x"]),
        "style": io["style"],
        "cond": io["cond"],
    }
    zeros = {name: np.zeros_like(value) for name, value in inputs.items()}
    changes = {
        "full": {}, "no_prompt": {"prompt_x": zeros["prompt_x"]}, "no_style": {"style": zeros["style"]},
        "no_cond": {"cond": zeros["cond"]}, "null": zeros | {"x": inputs["x"]},
    }  # fmt: skip
    n_compared = 0
    for name, expected in io.items():
        case = name.removeprefix("out.").partition(".t")[0]
        if name.startswith("out.") and case in changes:
            t = np.full((1, 1), case_number(name, ".t"), np.float32)
            found = engine.run(inputs | changes[case] | {"t": t})["velocity"]
            assert_close(frames_last(found), expected, 2e-5)
            n_compared += 1
        elif case == "cfg_stack":
            t = np.full((2, 1), case_number(name, ".t"), np.float32)
            stack = {key: np.concatenate([value, zeros[key]]) for key, value in inputs.items()}
            stack["x"] = np.repeat(inputs["x"], 2, axis=0)
            assert_close(frames_last(engine.run(stack | {"t": t})["velocity"]), expected, 2e-5)
            n_compared += 1
    assert n_compared >= 6


@pytest.mark.parametrize("folder", folder_params("seed_vc/length_regulator"))
def test_conditions_are_the_references(folder: GoldenFolder) -> None:
    io = folder.io
    sizes, source = golden_regulator(folder)
    engine = svc_engine(sizes, source)
    for f0, result in (("f0", "out_f0"), ("f0_after_logexp", "out_f0_logexp")):
        inputs = regulator_inputs(io["content"][0], io[f0], int(io["ylen"].max()), sizes.n_f0_bins)
        assert_close(engine.run(inputs)["cond"], io[result], 1e-5)


@pytest.mark.parametrize("folder", folder_params("seed_vc/whisper_content"))
def test_content_is_the_references(folder: GoldenFolder) -> None:
    sizes, source = golden_whisper(folder)
    wave = folder.io["short.wave_16k"][0]
    (window,) = content_windows(len(wave))
    found = svc_engine(sizes, source).run({"log_mel": whisper_log_mel(wave, sizes.num_mel_bins)[None]})["content"]
    assert_close(found[:, : window.kept], folder.io["short.content"], 1e-4)


# ----------------------------------------------------------------------------------------------------------- behaviour


@pytest.mark.parametrize("quantity", ["content", "velocity"])
def test_rows_do_not_meet(quantity: str) -> None:
    sizes, _ = PARTS[quantity]
    if isinstance(sizes, DitConfig):
        inputs = flow_rows(sizes, 3, 40)
    else:
        inputs = {"log_mel": normal(0, "log-mel", 0, (3, 80, 3000)) * np.float32(0.4)}
    engine = small_engine(sizes)
    together = engine.run(inputs)[quantity]
    for row in range(3):
        alone = engine.run({name: value[row : row + 1] for name, value in inputs.items()})[quantity]
        assert np.array_equal(together[row], alone[0])


@pytest.mark.parametrize(("name", "value"), [("content_index", 30), ("f0_bins", 256), ("f0_bins", -300)])
def test_an_index_out_of_range_fails(name: str, value: int) -> None:
    inputs = regulator_case(REGULATOR, 30, 52)
    inputs[name] = inputs[name].copy()
    inputs[name][..., 5] = value
    with pytest.raises(EngineError):
        small_engine(REGULATOR).run(inputs)


def test_norms_over_a_song_of_ten_minutes_keep_their_digits() -> None:
    """Content far from zero: a plain sum over all frames would lose digits."""
    inputs = regulator_case(REGULATOR, 30_001, 51_680)
    content: Any = inputs["content"]
    inputs["content"] = content + np.float32(20)
    with torch.inference_mode():
        tensors = [torch.from_numpy(value) for value in inputs.values()]
        want = network_of(REGULATOR).double()(tensors[0].double(), *tensors[1:]).numpy()
    assert relative_error(small_engine(REGULATOR).run(inputs)["cond"], want) < 5e-6
