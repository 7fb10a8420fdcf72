"""The codec stage against PyTorch, window by window and whole."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice import keyed_random
from heartvoice.config.presets import PRESETS
from heartvoice.contracts.constants import DECODER_HISTORY, DECODER_LOOKAHEAD, FRAME_HOP
from heartvoice.errors import InvalidRequestError, RequestCancelledError
from heartvoice.models.heartcodec.windows import decoder_context
from heartvoice.stages.codec import CodecRequest, CodecStage
from tests.fakes.networks import TorchCodec, tiny, torch_codec
from tests.support.cancelling import networks_until

SIZES = tiny().codec


@pytest.fixture(scope="module")
def networks() -> TorchCodec:
    return torch_codec(tiny())


def codes(n_frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, SIZES.codebook_size, (8, n_frames)).astype(np.int32)


def test_contract_knows_the_decoders_receptive_field() -> None:
    contexts = [decoder_context(preset.codec) for preset in PRESETS.values()]
    assert max(contexts) == (DECODER_HISTORY, DECODER_LOOKAHEAD)
    assert {lookahead for _, lookahead in contexts} == {DECODER_LOOKAHEAD}
    assert {preset.codec.frame_hop for preset in PRESETS.values()} == {FRAME_HOP}


def test_cancel_ends_within_one_flow_step(networks: TorchCodec) -> None:
    networks.calls.clear()
    request = CodecRequest(codes(93), np.empty((0, 16), np.float32), np.empty((0, 16), np.float32))
    cancelled = networks_until(networks, lambda: networks.calls.count("heartcodec_flow") >= 2)
    with pytest.raises(RequestCancelledError):
        CodecStage(cancelled, SIZES).decode_window(request)
    assert networks.calls.count("heartcodec_flow") == 2


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "codes: missing"),
        ({"codes": np.zeros((8, 0), np.int32)}, "codes: expected at least one frame"),
        ({"codes": np.full((8, 4), 256, np.int32)}, r"codes: expected values in \[0, 256\), got 256"),
        ({"codes": np.full((8, 4), -1, np.int32)}, "codes"),
        ({"codes": np.zeros((8, 373), np.int32)}, "codes: expected at most 372 frames"),
        ({"codes": codes(4), "context_latents": np.zeros((8, 16), np.float32)}, r"context_latents: .*at most 7"),
        ({"codes": codes(4), "history_latents": np.zeros((45, 16), np.float32)}, "history_latents"),
        ({"codes": codes(4), "history_latents": np.zeros((4, 5), np.float32)}, "history_latents"),
        ({"codes": codes(4), "context_latents": np.full((2, 16), np.nan, np.float32)}, "context_latents: .*NaN"),
        ({"codes": codes(4), "codec_steps": np.array([0])}, "codec_steps: expected 1 to 100, got 0"),
        ({"codes": codes(4), "window_index": np.array([-1])}, "window_index"),
    ],
)
def test_bad_input_is_refused(inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        CodecRequest.from_inputs(inputs, SIZES)


def test_chunked_decoding_is_one_decoding(networks: TorchCodec, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_window_is_that_of_the_reference(networks: TorchCodec, guidance: float) -> None:
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
