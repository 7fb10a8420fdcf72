"""The converter's sizes as graphs, such as the vocoder's first stage of rate 1: equal to the modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from heartvoice.config.presets import DEMO_STYLE, DEMO_SVC
from heartvoice.export.style_graph import build_svc_style
from heartvoice.export.vocoder_graph import build_vocoder
from heartvoice.models.load import load_network, random_checkpoint
from tests.support.graphs import engine_of


@pytest.mark.parametrize("name", ["vocoder", "style"])
def test_graphs_of_the_demos_sizes_are_the_modules(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    if name == "vocoder":
        source = random_checkpoint(DEMO_SVC.vocoder, 0)
        network, graph = load_network(DEMO_SVC.vocoder, source), build_vocoder(DEMO_SVC.vocoder, source)
        inputs = {"mel": rng.standard_normal((1, DEMO_SVC.vocoder.num_mels, 20)).astype(np.float32) - 5}
    else:
        source = random_checkpoint(DEMO_STYLE, 0)
        network, graph = load_network(DEMO_STYLE, source), build_svc_style(DEMO_STYLE, source)
        inputs = {"features": rng.standard_normal((1, 60, DEMO_STYLE.n_bands)).astype(np.float32)}
    with torch.no_grad():
        wanted = network(*(torch.from_numpy(each) for each in inputs.values()))
    (found,) = engine_of(graph, tmp_path).run(inputs).values()
    torch.testing.assert_close(torch.from_numpy(found), wanted, atol=1e-4, rtol=1e-4)
