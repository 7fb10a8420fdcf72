"""Random weights of the middle preset are alive."""

from __future__ import annotations

import torch

from heartvoice.config.presets import PRESETS
from tests.unit.checkpoints.test_random_init import check_codec, check_lm


def test_mid_networks_are_alive() -> None:
    with torch.inference_mode():
        check_lm(PRESETS["mid"], 24)
        check_codec(PRESETS["mid"])
