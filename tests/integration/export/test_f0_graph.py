"""The F0 network's graphs: RMVPE against its module and the reference, swift-f0 against its published file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from heartvoice.config.presets import AnyF0
from heartvoice.contracts.models import F0_NETWORK
from heartvoice.errors import CheckpointError, EngineError, ExportError
from heartvoice.export.f0_graph import build_f0_network
from heartvoice.export.parity import Parity
from heartvoice.export.parity_f0 import PublishedSwiftF0, compare_f0, f0_reference
from heartvoice.export.swift_f0 import open_swift_f0
from heartvoice.export.wheel_files import MEMBERS
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.keyed_random import normal
from heartvoice.models.load import Checkpoint, random_checkpoint
from heartvoice.runtime.engines import OnnxEngine
from tests.support.f0_engines import SMALL, SWIFT, f0_engine, golden_sizes, swift_engine, swift_file
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params
from tests.support.graphs import TINY

FOLDERS = folder_params("seed_vc/rmvpe")


def compared(sizes: AnyF0, source: Any, precision: Any = "fp32") -> Parity:
    parity = Parity("whole")
    engine = f0_engine(sizes, source, precision=precision)
    compare_f0(engine, f0_reference(sizes, source), replace(TINY, f0=sizes), parity)
    return parity


# ------------------------------------------------------------------------------------------------------------ RMVPE


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_blocks": 2, "inter_layers": 2}, {"en_de_layers": 3, "en_out_channels": 3}, {"n_bins": 90, "n_mels": 64}],
    ids=["small", "deeper", "shallower", "narrower"],
)
def test_salience_is_pytorchs(changes: dict[str, Any]) -> None:
    sizes = replace(SMALL, **changes)
    parity = compared(sizes, random_checkpoint(sizes, 1))
    parity.check("f0_network", "fp32")
    assert parity.errors["salience"] < 1e-5


def test_half_precision_is_near_pytorchs() -> None:
    parity = compared(SMALL, random_checkpoint(SMALL, 1), "fp16")
    parity.check("f0_network", "fp16")
    assert parity.errors["salience"] > 1e-6


def test_a_graph_of_other_weights_is_refused() -> None:
    parity = Parity("whole")
    engine = f0_engine(SMALL, random_checkpoint(SMALL, 1))
    compare_f0(engine, f0_reference(SMALL, random_checkpoint(SMALL, 2)), replace(TINY, f0=SMALL), parity)
    with pytest.raises(ExportError, match="salience"):
        parity.check("f0_network", "fp32")


@pytest.mark.parametrize("folder", FOLDERS)
def test_salience_is_the_references(folder: GoldenFolder) -> None:
    engine = f0_engine(golden_sizes(folder), Checkpoint.open(folder.path / "weights.safetensors"))
    io = folder.io
    assert_close(engine.run({"features": io["stage.in"]})["activations"], io["stage.out"], 1e-5)
    n_frames = io["logmel"].shape[2]
    padded = np.pad(io["logmel"], ((0, 0), (0, 0), (0, -n_frames % 32)))
    assert_close(engine.run({"features": padded})["activations"][:, :n_frames], io["salience"], 1e-5)


def test_frames_that_pooling_does_not_divide_fail() -> None:
    engine = f0_engine(SMALL, random_checkpoint(SMALL, 1))
    with pytest.raises(EngineError):
        engine.run({"features": np.zeros((1, 128, 33), np.float32)})


# --------------------------------------------------------------------------------------------------------- swift-f0


def test_swift_f0_is_the_published_graph() -> None:
    parity = compared(SWIFT, swift_file())
    parity.check("f0_network", "fp32")
    assert max(parity.errors.values()) < 1e-6


def test_rows_of_swift_f0_do_not_meet() -> None:
    audio = normal(0, "audio", 0, (3, 1, 5000)) * np.array([0.1, 1.0, 0.01], np.float32).reshape(3, 1, 1)
    engine = swift_engine()
    together = engine.run({"features": audio})["activations"]
    for row, alone in enumerate(audio):
        assert np.array_equal(together[row], engine.run({"features": alone[None]})["activations"][0])


@pytest.mark.parametrize("n_samples", [1, 255, 256, 511, 512, 16_000])
def test_swift_f0_has_a_frame_for_each_full_hop(n_samples: int) -> None:
    found = swift_engine().run({"features": np.zeros((1, 1, n_samples), np.float32)})["activations"]
    assert found.shape == (1, max(1, n_samples // SWIFT.hop), 2)


def test_written_swift_f0_keeps_within_our_limits_and_is_the_same_every_time(tmp_path: Path) -> None:
    hashes = []
    for name in "ab":
        (tmp_path / name).mkdir()
        files = write_graph(build_f0_network(SWIFT, swift_file()), tmp_path / name)
        hashes.append(files[GRAPH_FILE]["sha256"])
    assert hashes[0] == hashes[1]
    model = onnx.load(tmp_path / "a" / GRAPH_FILE)
    assert (model.opset_import[0].version, model.ir_version, model.producer_name) == (20, 10, "heartvoice")
    assert not model.metadata_props
    assert [value.name for value in model.graph.input] == [spec.name for spec in F0_NETWORK.inputs]
    assert [value.name for value in model.graph.output] == [spec.name for spec in F0_NETWORK.outputs]
    (scan,) = model.graph.node
    assert not [node for node in scan.attribute[0].g.node if node.doc_string or node.metadata_props]
    OnnxEngine(tmp_path / "a" / GRAPH_FILE)


def test_another_graph_is_not_taken_for_swift_f0(tmp_path: Path) -> None:
    write_graph(build_f0_network(SMALL, random_checkpoint(SMALL, 1)), tmp_path)
    with pytest.raises(CheckpointError, match=r"expected the graph of swift-f0, got inputs \['features'\]"):
        open_swift_f0(tmp_path / GRAPH_FILE)
    (tmp_path / "torn.onnx").write_bytes(b"not a graph")
    for name in ("torn.onnx", "absent.onnx"):
        with pytest.raises(CheckpointError, match=name):
            open_swift_f0(tmp_path / name)
    with pytest.raises(CheckpointError, match="published graph"):
        build_f0_network(SWIFT, random_checkpoint(SMALL, 1))


def test_published_file_is_the_pinned_one() -> None:
    file = swift_file()
    assert list(file.sha256().values()) == [MEMBERS["swift-f0"].sha256]
    assert isinstance(f0_reference(SWIFT, file), PublishedSwiftF0)
    assert file.array("v353").shape == file.shape("v353") == (12, 3, 3, 3)
    assert file.where("v353").endswith(f"{file.path.name}: v353")
