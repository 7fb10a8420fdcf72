"""BigVGAN's module: official names, reference vectors, both forms of its weights, and random ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from heartvoice.checkpoints.bigvgan import RandomBigvgan
from heartvoice.config.svc import BigvganConfig
from heartvoice.models.bigvgan import bigvgan_manifest
from tests.support.vocoders import SMALL, log_mel, vocoder, weight_norm_names
from tests.unit.models.test_bigvgan import _inference, decode  # noqa: F401


@pytest.mark.parametrize("spelling", ["folded", "weight norm"])
@pytest.mark.parametrize(
    "sizes", [SMALL, replace(BigvganConfig(), upsample_initial_channel=64)], ids=["small", "official rates"]
)
def test_random_audio_is_as_loud_as_music(sizes: BigvganConfig, spelling: str) -> None:
    shapes = bigvgan_manifest(sizes)
    source = RandomBigvgan(shapes if spelling == "folded" else weight_norm_names(shapes), 0, sizes)
    audio = decode(vocoder(sizes, source), log_mel(sizes, 24))
    assert audio.shape == (1, 1, 24 * sizes.hop)
    assert 0.01 < audio.std() < 0.3
    assert np.abs(audio).max() < 0.95
