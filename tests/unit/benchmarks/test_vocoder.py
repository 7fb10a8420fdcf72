"""The vocoder's benchmark: its forms of an activation are one function, and a quick run of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.vocoder_forms import FORMS, Form, write_form
from heartvoice.keyed_random import normal
from heartvoice.models.bigvgan import Activation
from heartvoice.runtime.engines import OnnxEngine
from tests.support.golden_cases import assert_close
from tests.support.vocoders import SMALL, random_source, vocoder

NAME = "resblocks.0.activations.1"


@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_module(form: Form, length: int, tmp_path: Path) -> None:
    module = vocoder(SMALL).get_submodule(NAME)
    assert isinstance(module, Activation)
    x = normal(0, "x", 0, (2, 8, length))
    with torch.inference_mode():
        want = module(torch.from_numpy(x)).numpy()
    engine = OnnxEngine(write_form(form, random_source(SMALL), NAME, 8, tmp_path), threads=1)
    assert_close(engine.run({"x": x})["y"], want, 2e-6)
