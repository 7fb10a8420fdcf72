"""HeartCodec's names, joins, and the faults and quirks of its reference."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d

from heartvoice import keyed_random
from heartvoice.config.presets import PRESETS
from heartvoice.errors import InvalidRequestError
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.heartcodec.estimator import mlp_width
from heartvoice.models.heartcodec.scalar import Conv, ConvTranspose, ScalarModel, quantize, weight_norm
from heartvoice.models.heartcodec.windows import WindowPlan, decoder_context
from heartvoice.models.load import load_network, manifest, random_checkpoint

ASSETS = Path(__file__).parents[2] / "assets"
TINY = replace(  # fewer samples
    PRESETS["tiny"].codec, upsample_factors=(4, 3), upsample_kernel_sizes=(8, 6),
    downsample_factors=(3, 4), downsample_kernel_sizes=(6, 8),
)  # fmt: skip
PLAN = WindowPlan(93)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@lru_cache(maxsize=4)
def tiny(decode_only: bool = True, **changes: Any) -> HeartCodec:
    sizes = replace(TINY, **changes)
    network = load_network(sizes, random_checkpoint(sizes, 5), decode_only=decode_only)
    assert isinstance(network, HeartCodec)
    network.fold_weight_norm()
    return network


def codes_of(n_codes: int) -> npt.NDArray[np.int64]:
    shape = (TINY.num_quantizers, n_codes)
    return (keyed_random.uniform(0, "codes", 0, shape) * TINY.codebook_size).astype(np.int64)


def starting(index: int) -> npt.NDArray[np.float32]:
    return keyed_random.normal(0, "codec", index, (1, PLAN.latent_window, TINY.out_channels))


def sing(n_codes: int, **settings: Any) -> npt.NDArray[np.float32]:
    return tiny().detokenize(codes_of(n_codes), starting, **({"window": 93, "steps": 2} | settings))


# ----------------------------------------------------------------------------------------------------------- names


def test_full_size_names_and_shapes_equal_the_checkpoint_s() -> None:
    expected = json.loads((ASSETS / "heartcodec_state_dict.json").read_text())
    assert manifest(PRESETS["oss-3b"].codec) == {name: tuple(shape) for name, shape in expected.items()}


def test_a_quantizer_as_wide_as_its_output_has_no_projections() -> None:
    assert not [name for name in manifest(replace(TINY, codebook_dim=TINY.dim)) if "project_" in name]


def test_a_single_sample_has_no_processors_and_shifts_the_last_index() -> None:
    names = manifest(replace(PRESETS["tiny"].codec, num_samples=1))
    assert "scalar_model.decoder.6.parametrizations.weight.original0" in names
    assert "scalar_model.encoder.6.parametrizations.weight.original0" in names


@pytest.mark.parametrize(("width", "hidden"), [(1536, 4096), (3072, 8192), (32, 256), (384, 1024)])
def test_mlp_width_is_a_multiple_of_256(width: int, hidden: int) -> None:
    assert mlp_width(width) == hidden


# -------------------------------------------------------------------------------------------------------- the flow


def test_a_missing_code_contributes_nothing_and_others_are_refused() -> None:
    flow = tiny().flow_matching
    indices = torch.from_numpy(codes_of(4)).T[None]
    indices[0, 1] = -1
    assert flow.vq_embed.project_out is not None
    torch.testing.assert_close(flow.vq_embed(indices)[0, 1], flow.vq_embed.project_out.bias)
    for bad in (TINY.codebook_size, -2):
        codes = codes_of(20)
        codes[3, 7] = bad
        with pytest.raises(InvalidRequestError, match=f"codes: expected -1 to {TINY.codebook_size - 1}, got"):
            tiny().detokenize(codes, starting, window=93, steps=1)


def test_the_unconditional_row_has_a_zero_condition_and_comes_first() -> None:
    flow, seen = tiny().flow_matching, list[Tensor]()

    def spy(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return x[..., : TINY.out_channels]

    zeros, mu = torch.zeros(1, 6, TINY.out_channels), torch.ones(1, 6, TINY.dim)
    flow.solve(zeros, zeros + 3, mu, context_length=6, steps=1, guidance=1.5, estimator=spy)
    assert not seen[0][0, :, -TINY.dim :].any()
    assert seen[0][1, :, -TINY.dim :].all()
    torch.testing.assert_close(seen[0][:, :, TINY.out_channels : 2 * TINY.out_channels], (zeros + 3).expand(2, -1, -1))


def test_windows_go_on_from_the_one_before() -> None:
    latents = list(tiny().window_latents(codes_of(200), starting, plan=PLAN, steps=2))
    assert len(latents) == PLAN.n_windows(200) == 3
    for before, after in itertools.pairwise(latents):
        torch.testing.assert_close(after[:, : PLAN.latent_overlap], before[:, -PLAN.latent_overlap :], rtol=0, atol=0)


def test_blocks_without_modulation_have_no_table() -> None:
    changed = replace(TINY, norm_type="layer_norm")
    assert not [name for name in manifest(changed) if "blocks" in name and "scale_shift" in name]
    assert np.isfinite(load_and_sing(changed)).all()


def load_and_sing(sizes: Any) -> npt.NDArray[np.float32]:
    network = load_network(sizes, random_checkpoint(sizes, 5), decode_only=True)
    assert isinstance(network, HeartCodec)
    return network.detokenize(codes_of(10), starting, window=93, steps=1)


def test_mixed_precision_keeps_the_estimator_near_float32() -> None:
    flow = tiny().flow_matching
    x, t = torch.from_numpy(keyed_random.normal(0, "x", 0, (2, 300, TINY.in_channels))), torch.tensor([0.3, 0.9])
    full = flow.estimator(x, t)
    network = load_network(TINY, random_checkpoint(TINY, 5), decode_only=True)
    assert isinstance(network, HeartCodec)
    mixed = network.flow_matching.estimator
    mixed.cast_linears(torch.bfloat16)
    assert {p.dtype for n, p in mixed.named_parameters() if "norm" in n or "adaln" in n or "table" in n} == {
        torch.float32
    }
    half = mixed(x, t)
    assert half.dtype == torch.float32
    assert float((half - full).square().mean().sqrt()) < 0.03 * float(full.square().mean().sqrt())


# ---------------------------------------------------------------------------------------------------- whole songs


@pytest.mark.parametrize("n_codes", [1, 29, 57, 92, 93, 106, 113, 200])
def test_a_song_has_exactly_its_length(n_codes: int) -> None:
    """29, 57 and 113 lose a sample in the reference's floating-point rule; 106 = 26 + 80 would lose its tail."""
    song = sing(n_codes, steps=1)
    assert song.shape == (2, n_codes * TINY.frame_hop)
    assert song.dtype == np.float32
    assert np.isfinite(song).all()


def test_an_empty_song_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="codes: expected at least one frame"):
        sing(0)


def test_a_window_off_the_grid_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="window: expected a multiple of 93"):
        sing(10, window=125)


def test_pieces_shorter_than_the_decoder_s_context_join_too() -> None:
    model, latents = tiny(), torch.from_numpy(starting(0))[:, :60]
    pieces = model.decode_continuously(latents[:, start : start + 7] for start in range(0, 60, 7))
    np.testing.assert_allclose(np.concatenate(list(pieces), axis=1), model.decode_latents(latents), atol=1e-6)


def test_joins_differ_only_inside_the_overlaps() -> None:
    faded, continuous = sing(170), sing(170, join="continuous")
    hop = TINY.frame_hop
    start, end = PLAN.hop * hop, PLAN.window * hop
    np.testing.assert_allclose(faded[:, : start - 1], continuous[:, : start - 1], atol=1e-6)
    assert np.abs(faded - continuous)[:, start:end].max() > 1e-3
    past = -(-decoder_context(TINY)[0] // 2)  # from here on the later window has its history; the fade ends before
    np.testing.assert_allclose(
        faded[:, start + past * hop : 2 * start], continuous[:, start + past * hop : 2 * start], atol=1e-6
    )


def test_channel_0_is_the_first_half_of_the_features() -> None:
    model, latents = tiny(), torch.from_numpy(starting(0))[:, :50]
    half = TINY.latent_hidden_dim
    changed = latents.clone()
    changed[..., half:] += 1
    before, after = model.decode_latents(latents), model.decode_latents(changed)
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.allclose(before[1], after[1])


# ------------------------------------------------------------------------------------------------ the scalar model


def test_rounding_is_half_to_even_and_does_not_clamp() -> None:
    ninths = torch.tensor([0.5, 1.5, 2.5, -0.5, 8.6, 9.4, 13.2, -20.0])
    torch.testing.assert_close(quantize(ninths / 9) * 9, torch.tensor([0.0, 2.0, 2.0, -0.0, 9.0, 9.0, 13.0, -20.0]))


def test_decoder_context_is_what_a_changed_latent_reaches() -> None:
    history, lookahead = decoder_context(TINY)
    latents = torch.from_numpy(starting(0))[:, :110]
    changed = latents.clone()
    changed[:, 30] += 5
    difference = tiny().decode_latents(latents) - tiny().decode_latents(changed)
    reached = np.abs(difference).max(axis=0).reshape(-1, TINY.latent_hop).max(axis=1).nonzero()[0]
    assert reached.min() == 30 - lookahead
    assert 30 + history - 2 <= reached.max() <= 30 + history


def plain(x: Tensor, conv: nn.Conv1d, left: int, right: int) -> Tensor:
    padded = torch.nn.functional.pad(x, (left, right))
    return conv1d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(7, 1, 1), (7, 1, 9), (6, 3, 1), (10, 5, 1), (1, 1, 1)])
def test_convolutions_pad_as_the_spec_says(kernel: int, stride: int, dilation: int) -> None:
    x = torch.from_numpy(keyed_random.normal(0, "x", 0, (1, 3, 31)))
    reach = dilation * (kernel - 1)
    causal = Conv(3, 2, kernel, stride=stride, dilation=dilation, causal=True)
    torch.testing.assert_close(causal(x), plain(x, causal, reach, 0))
    assert causal(x).shape[-1] == -(-31 // stride)
    centred = Conv(3, 2, kernel, stride=stride, dilation=dilation, causal=False)
    torch.testing.assert_close(centred(x), plain(x, centred, reach // 2, reach // 2))


@pytest.mark.parametrize("factor", [3, 4, 5])
def test_transposed_convolutions_trim_as_the_spec_says(factor: int) -> None:
    x = torch.from_numpy(keyed_random.normal(0, "x", 0, (1, 3, 11)))
    causal = ConvTranspose(3, 2, 2 * factor, factor, causal=True)
    full = conv_transpose1d(x, causal.weight, causal.bias, factor)
    torch.testing.assert_close(causal(x), full[..., : 11 * factor])
    centred = ConvTranspose(3, 2, 2 * factor, factor, causal=False)
    full = conv_transpose1d(x, centred.weight, centred.bias, factor)
    torch.testing.assert_close(centred(x), full[..., factor // 2 : full.shape[-1] - factor // 2])


def test_a_codec_that_is_not_causal_decodes_to_the_same_length() -> None:
    model = tiny(causal=False)
    song = model.detokenize(codes_of(100), starting, window=93, steps=1)
    assert song.shape == (2, 100 * TINY.frame_hop)
    with pytest.raises(InvalidRequestError, match="needs a causal scalar model"):
        model.detokenize(codes_of(10), starting, window=93, steps=1, join="continuous")


def test_weight_norm_spans_all_axes_but_the_first_also_where_that_is_the_input() -> None:
    conv = weight_norm(ConvTranspose(4, 2, 6, 3, causal=True))
    gain, direction = (conv.get_parameter(f"parametrizations.weight.original{i}") for i in range(2))
    assert gain.shape == (4, 1, 1)
    gain.copy_(torch.arange(1.0, 5.0)[:, None, None])
    torch.testing.assert_close(conv.weight.flatten(1).norm(dim=1), torch.arange(1.0, 5.0))
    torch.testing.assert_close(
        torch.nn.functional.cosine_similarity(conv.weight.flatten(1), direction.flatten(1)), torch.ones(4)
    )


def test_folding_weight_norm_changes_names_and_nothing_else() -> None:
    unfolded = load_network(TINY, random_checkpoint(TINY, 5))
    assert isinstance(unfolded, HeartCodec)
    audio = torch.from_numpy(keyed_random.normal(0, "wav", 0, (1, 1, 4000)))
    before = unfolded.scalar_model.encode(audio)
    latents = unfolded.scalar_model.decode(before)
    unfolded.fold_weight_norm()
    assert not [name for name in unfolded.state_dict() if "parametrizations" in name]
    torch.testing.assert_close(unfolded.scalar_model.encode(audio), before, rtol=0, atol=1e-6)
    torch.testing.assert_close(unfolded.scalar_model.decode(before), latents, rtol=0, atol=1e-6)
    unfolded.fold_weight_norm()  # a second time changes nothing


def test_encoder_gives_latents_inside_one_before_rounding() -> None:
    model: ScalarModel = tiny(decode_only=False).scalar_model
    latents = model.encode(torch.from_numpy(keyed_random.normal(0, "wav", 0, (2, 1, 5 * TINY.latent_hop + 7))) * 0.1)
    assert latents.shape[:2] == (2, TINY.latent_hidden_dim)
    assert float(latents.abs().max()) < 1
    assert not torch.equal(latents, quantize(latents))


def test_continuous_join_equals_one_decoding_of_all_latents() -> None:
    model = tiny()
    latents = list(model.window_latents(codes_of(200), starting, plan=PLAN, steps=2))
    fresh = [window[:, PLAN.context(index) :] for index, window in enumerate(latents)]
    whole = model.decode_latents(torch.cat(fresh, dim=1))
    pieces = list(model.decode_continuously(fresh))
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-6)
    song = sing(200, join="continuous")
    np.testing.assert_allclose(song, whole[:, : song.shape[1]], atol=1e-6)
    assert [piece.shape[1] for piece in pieces[:1]] == [(PLAN.latent_window - 2) * TINY.latent_hop]
