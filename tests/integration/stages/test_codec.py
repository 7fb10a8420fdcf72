"""The codec stage against PyTorch, window by window and whole."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice import keyed_random
from heartvoice.contracts.constants import DECODER_HISTORY, FRAME_HOP
from heartvoice.stages.codec import CodecRequest, CodecStage
from tests.fakes.networks import TorchCodec
from tests.unit.stages.test_codec import SIZES, codes, networks  # noqa: F401


def test_chunked_decoding_is_one_decoding(networks: TorchCodec, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("heartvoice.stages.codec.DECODER_CHUNK", 50)
    latents = keyed_random.normal(0, "test", 0, (2 * 50 + 37, SIZES.out_channels))
    stage = CodecStage(networks, SIZES)
    half = SIZES.latent_hidden_dim
    channels = latents.reshape(-1, 2, half).transpose(1, 2, 0)
    whole = networks.run("heartcodec_decoder", {"latents": channels})["audio"].astype(np.float32)
    np.testing.assert_allclose(stage.decode_latents(latents), whole[:, 0], atol=2e-6)
    np.testing.assert_allclose(
        stage.decode_latents(latents[10:], DECODER_HISTORY), whole[:, 0, (10 + DECODER_HISTORY) * SIZES.latent_hop :],
        atol=2e-6,
    )  # fmt: skip


@pytest.mark.parametrize("guidance", [1.0, 1.25])
def test_window_is_that_of_the_reference(networks: TorchCodec, guidance: float) -> None:  # noqa: F811
    import torch

    window = codes(93)
    context = keyed_random.normal(1, "test", 0, (26, SIZES.out_channels))
    request = CodecRequest(window, context, context[:0], window_index=3, seed=5, steps=4, guidance=guidance)
    audio, latents = CodecStage(networks, SIZES).decode_window(request)
    known = np.zeros((1, 186, SIZES.out_channels), np.float32)
    known[0, :26] = context
    expected = networks.model.flow_matching.inference_codes(
        torch.from_numpy(window)[None].long(),
        torch.from_numpy(known),
        torch.from_numpy(keyed_random.normal(5, "codec", 3, (186, SIZES.out_channels)))[None],
        latent_length=186,
        context_length=26,
        steps=4,
        guidance=guidance,
    )
    np.testing.assert_allclose(latents, expected[0].numpy(), atol=1e-5)
    assert audio.shape == (2, 93 * FRAME_HOP)
    assert np.array_equal(latents[:26], context)
