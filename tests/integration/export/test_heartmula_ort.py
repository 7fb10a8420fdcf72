"""The `ort` dialect: reference vectors, PyTorch and the portable graph, row by row."""

from __future__ import annotations

from heartvoice.export.parity import Parity
from heartvoice.export.parity_lm import compare_heartmula_ort
from heartvoice.models.load import load_network
from heartvoice.runtime.engines import OnnxEngine
from tests.support.graphs import TINY
from tests.unit.export.test_heartmula_ort import SOURCE, engine  # noqa: F401


def test_songs_are_those_of_pytorch(engine: OnnxEngine) -> None:  # noqa: F811
    parity = Parity("whole")
    compare_heartmula_ort(engine, load_network(TINY.lm, SOURCE), TINY, parity)
    parity.check("heartmula_step_ort", "fp32")
    assert max(parity.errors.values()) < 1e-5
    assert {"prompt logits", "frame logits", "frame k cache"} <= parity.errors.keys()
