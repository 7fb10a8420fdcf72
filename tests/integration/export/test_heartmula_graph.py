"""HeartMuLa's graph: reference vectors, then `HeartMuLa.step` for songs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.export.heartmula_graph import build_heartmula_step
from heartvoice.models.heartmula import HeartMuLa
from heartvoice.models.load import random_checkpoint
from tests.support.golden_cases import Golden, case_params
from tests.support.graphs import (
    TINY,
    empty_cache,
    engine_of,
    golden_lm,
    relative_error,
)
from tests.unit.export.test_heartmula_graph import (
    KIND,
    golden_engine,  # noqa: F401
    network,  # noqa: F401
    prompt_inputs,
    songs_side_by_side,
    torch_step,
)

PREFILLS = case_params(KIND, lambda name, args: "muq" in args and "frames" not in args)


@pytest.mark.parametrize("golden", PREFILLS)
def test_prompt_gives_the_references_logits(golden: Golden, golden_engine: Any) -> None:  # noqa: F811
    preset = golden_lm(golden.folder)
    inputs, _ = prompt_inputs(preset, golden, padding=2)
    outputs = golden_engine(golden.folder).run(inputs | empty_cache(preset, len(inputs["position"]), 0))
    np.testing.assert_allclose(outputs["logits"][:, 0], golden["c0_logits"], rtol=0, atol=2e-4)


def test_half_precision_stays_near_and_keeps_its_boundary(tmp_path: Path, network: HeartMuLa) -> None:  # noqa: F811
    graph = build_heartmula_step(TINY, random_checkpoint(TINY.lm, 3), "fp16")
    inputs = songs_side_by_side((6, 3, 5)) | {"top_k": np.ones(3, np.int64)}
    got = engine_of(graph, tmp_path).run(inputs | empty_cache(TINY, 5, 0))
    want = torch_step(network, inputs)
    assert {array.dtype for name, array in got.items() if name != "next_codes"} == {np.dtype(np.float32)}
    assert 1e-6 < relative_error(got["logits"][:, 0], want.logits[:, 0].numpy()) < 1e-2
