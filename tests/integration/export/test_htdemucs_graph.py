"""The separator's graph against its module."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from heartvoice.config.presets import SeparatorConfig, htdemucs_of
from heartvoice.errors import CheckpointError
from heartvoice.export.htdemucs_graph import build_htdemucs
from heartvoice.export.layout import BATCH
from heartvoice.export.parity import Parity
from heartvoice.export.parity_separator import TOLERANCE, compare_htdemucs, music
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.models.demucs_module import Separator
from heartvoice.models.load import TensorSource, load_network, random_checkpoint
from heartvoice.runtime.engines import Engine, OpenVinoEngine
from tests.support.graphs import TINY, Arrays, engine_of, relative_error

SHORT = replace(htdemucs_of("tiny"), segment="1/2")
SMALLEST = replace(SHORT, nfft=1024, depth=3, segment="1/5")
VARIANTS = {
    "tiny": SHORT,
    "no bottom, three layers, wide context": replace(SHORT, bottom_channels=0, t_layers=3, context=2, context_enc=1),
    "no embedding, encoder branches alone": replace(SHORT, freq_emb=0.0, dconv_mode=1, dconv_depth=3),
    "other sources, depth": replace(SMALLEST, sources=("a", "b"), segment="7/10"),
}


@cache
def source_of(sizes: SeparatorConfig) -> TensorSource:
    return random_checkpoint(sizes, 4)


@cache
def network_of(sizes: SeparatorConfig) -> Separator:
    module = load_network(sizes, source_of(sizes))
    assert isinstance(module, Separator)
    return module


def compared(engine: Engine, sizes: SeparatorConfig) -> dict[str, float]:
    parity = Parity("whole")
    compare_htdemucs(engine, network_of(sizes), replace(TINY, separator=sizes), parity)
    assert not parity.misses
    assert set(parity.errors) == {"spectra", "waves"}
    return parity.errors


def inputs_of(sizes: SeparatorConfig, rows: int) -> Arrays:
    mix = music(sizes, rows)
    with torch.inference_mode():
        spectrum = network_of(sizes).spectrum_of(torch.from_numpy(mix)).contiguous().numpy()
    return {"mix": mix, "spectrum": spectrum}


@pytest.mark.parametrize("variant", VARIANTS)
def test_graph_is_its_module(variant: str, tmp_path: Path) -> None:
    check_graph(VARIANTS[variant], tmp_path)


def check_graph(sizes: SeparatorConfig, tmp_path: Path) -> None:
    """Compare the graph with its module."""
    engine = engine_of(build_htdemucs(sizes, source_of(sizes)), tmp_path)
    assert max(compared(engine, sizes).values()) <= TOLERANCE


def test_other_weights_are_no_match(tmp_path: Path) -> None:
    engine = engine_of(build_htdemucs(SMALLEST, random_checkpoint(SMALLEST, 5)), tmp_path)
    assert min(compared(engine, SMALLEST).values()) > 0.1


def test_a_batch_is_its_segments_bit_for_bit(tmp_path: Path) -> None:
    check_batch(SMALLEST, tmp_path)


def check_batch(sizes: SeparatorConfig, tmp_path: Path) -> None:
    """Compare two rows at once with each row alone."""
    engine = engine_of(build_htdemucs(sizes, source_of(sizes)), tmp_path)
    inputs = inputs_of(sizes, 2)
    both = engine.run(inputs)
    for row in range(2):
        single = engine.run({name: value[row : row + 1] for name, value in inputs.items()})
        for name, value in single.items():
            np.testing.assert_array_equal(both[name][row : row + 1], value)


def test_silence_and_loud_offsets_stay_accurate(tmp_path: Path) -> None:
    engine = engine_of(build_htdemucs(SMALLEST, source_of(SMALLEST)), tmp_path)
    inputs = inputs_of(SMALLEST, 2)
    inputs["mix"][0], inputs["spectrum"][0] = 0, 0
    inputs["mix"][1] += 10  # a mean far larger than the deviation
    with torch.inference_mode():
        spectra, waves = network_of(SMALLEST).core(*(torch.from_numpy(value) for value in inputs.values()))
    got = engine.run(inputs)
    assert np.isfinite(got["spectra"]).all()
    assert np.abs(got["waves"][0] - waves[0].numpy()).max() <= 1e-6
    assert relative_error(got["spectra"][1], spectra[1].numpy()) <= TOLERANCE
    assert relative_error(got["waves"][1], waves[1].numpy()) <= TOLERANCE


def test_half_precision_stays_near(tmp_path: Path) -> None:
    engine = engine_of(build_htdemucs(SMALLEST, source_of(SMALLEST), "fp16"), tmp_path)
    errors = compared(engine, SMALLEST)
    assert 1e-5 < max(errors.values()) <= 2e-2


def test_graph_loads_in_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    engine_of(build_htdemucs(SMALLEST, source_of(SMALLEST)), tmp_path)
    errors = compared(OpenVinoEngine(tmp_path / GRAPH_FILE, threads=1), SMALLEST)
    assert max(errors.values()) <= TOLERANCE


def test_two_exports_are_byte_identical(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files.append(write_graph(build_htdemucs(SMALLEST, source_of(SMALLEST)), tmp_path / name))
    assert files[0] == files[1]


def test_boundary_is_the_contract_with_the_presets_sizes() -> None:
    graph = build_htdemucs(SeparatorConfig(), source_of(SeparatorConfig()))

    def shape(value: object) -> list[int | str]:
        dims = value.type.tensor_type.shape.dim  # type: ignore[attr-defined]
        return [dim.dim_param or dim.dim_value for dim in dims]

    assert {value.name: shape(value) for value in [*graph.inputs, *graph.outputs]} == {
        "mix": [BATCH, 2, 343_980],
        "spectrum": [BATCH, 4, 2048, 336],
        "spectra": [BATCH, 4, 4, 2048, 336],
        "waves": [BATCH, 4, 2, 343_980],
    }
    assert {node.domain for node in graph.nodes} == {""}


def test_a_network_that_the_graph_does_not_cover_is_refused() -> None:
    source = source_of(SHORT)
    for changes, message in (
        ({"norm_starts": 3}, "norm_starts: expected at least depth 4, got 3"),
        ({"n_models": 3}, "n_models: expected 1 or one for each of 4 sources, got 3"),
        ({"depth": 5, "norm_starts": 5}, "depth: 5 leaves 8 bins"),
    ):
        with pytest.raises(CheckpointError, match=message):
            build_htdemucs(replace(SHORT, **changes), source)  # type: ignore[arg-type]
