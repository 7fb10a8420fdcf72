"""The converter's native graphs through the real server: what they answer alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from heartvoice.config.presets import Preset
from heartvoice.config.svc import SVC_HOP
from heartvoice.contracts.models import MODELS
from heartvoice.export.parity_svc import Arrays, content_inputs, regulator_case
from heartvoice.keyed_random import normal
from heartvoice.runtime.engines import OnnxEngine
from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from tests.support.graphs import relative_error
from tests.support.raw import Raw

INPUTS: dict[str, Callable[[Preset], Arrays]] = {
    "content_encoder": lambda preset: content_inputs(preset.svc.whisper, 2),
    "svc_regulator": lambda preset: regulator_case(preset.svc.regulator, 30, 52),
    "svc_style": lambda preset: {"features": normal(0, "style", 0, (2, 300, preset.style.n_bands))},
    "vocoder": lambda preset: {"mel": normal(0, "mel", 0, (2, preset.svc.vocoder.num_mels, 20)) * np.float32(2) - 5},
}


def test_native_graphs_answer_as_they_do_alone(server: EmbeddedServer, repository: Repository) -> None:
    with Raw(server.url) as raw:
        for model, make in INPUTS.items():
            inputs = make(repository.preset)
            got = raw.infer(model, inputs)
            want = OnnxEngine(repository.graph(model), threads=1).run(inputs)
            assert set(got) == {tensor.name for tensor in MODELS[model].outputs}
            for name, value in want.items():
                assert relative_error(got[name], value) <= 1e-5
            if model == "vocoder":
                assert got["audio"].shape == (2, 1, 20 * SVC_HOP)
