"""The converter's modules: the reference's vectors, the quirks that the weights know, and random weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heartvoice.keyed_random import normal
from heartvoice.models.seed_vc.build import AnyPart
from heartvoice.models.seed_vc.dit import Velocity, skip_source
from heartvoice.models.seed_vc.regulator import Regulator
from heartvoice.models.seed_vc.whisper import ContentEncoder
from heartvoice.stages.svc.content import content_windows, whisper_log_mel
from heartvoice.stages.svc.pitch import pitch_bins
from heartvoice.stages.svc.windows import nearest_index
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params
from tests.support.svc_networks import (
    DIT,
    REGULATOR,
    WHISPER,
    case_number,
    frames_last,
    golden_dit,
    golden_regulator,
    golden_whisper,
    network_of,
    random_source,
)

DITS, REGULATORS, WHISPERS = (
    folder_params(f"seed_vc/{name}") for name in ("dit", "length_regulator", "whisper_content")
)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@lru_cache(maxsize=4)
def velocity_of(folder: GoldenFolder) -> Velocity:
    network = network_of(*golden_dit(folder))
    assert isinstance(network, Velocity)
    return network


@lru_cache(maxsize=4)
def regulator_of(folder: GoldenFolder) -> Regulator:
    network = network_of(*golden_regulator(folder))
    assert isinstance(network, Regulator)
    return network


def arguments(folder: GoldenFolder) -> dict[str, Tensor]:
    io = folder.io
    tensors = {name: torch.from_numpy(frames_last(io[name])) for name in ("x", "prompt_x")}
    return tensors | {name: torch.from_numpy(io[name]) for name in ("style", "cond")}


def velocity(folder: GoldenFolder, t: float, **changes: Tensor) -> np.ndarray:
    """As the reference lays it out, [B, M, T]."""
    inputs = arguments(folder) | changes
    rows = len(inputs["x"])
    out = velocity_of(folder)(**inputs, t=torch.full((rows,), t))
    return frames_last(out.numpy())


# ------------------------------------------------------------------------------------------------------------ estimator


@pytest.mark.parametrize("folder", DITS)
def test_velocities_are_the_references(folder: GoldenFolder) -> None:
    names = [name for name in folder.io if name.startswith("out.full.t")]
    assert names
    for name in names:
        assert_close(velocity(folder, case_number(name, ".t")), folder.io[name], 2e-5)


@pytest.mark.parametrize("folder", DITS)
def test_every_layer_is_the_references(folder: GoldenFolder) -> None:
    io, inputs, estimator = folder.io, arguments(folder), velocity_of(folder).estimator
    (prefix,) = {name[: name.rindex("merged")] for name in io if name.endswith("merged")}
    t = torch.tensor([case_number(prefix.rstrip("."), ".t")])
    time = estimator.t_embedder(t)
    assert_close(time, io[f"{prefix}t_emb"], 2e-5)
    assert_close(estimator.cond_projection(inputs["cond"]), io[f"{prefix}cond_proj"], 2e-5)
    merged = estimator.merge(**inputs)
    assert_close(merged, io[f"{prefix}merged"], 2e-5)
    transformer, x = estimator.transformer, merged
    outputs: list[Tensor] = []
    rotation = transformer.rotary(torch.arange(x.shape[1]))
    first: Any = transformer.layers[0]
    normed = first.attention_norm(x, time)
    assert_close(normed, io[f"{prefix}layer0.attention_norm"], 2e-5)
    assert_close(first.attention(normed, rotation), io[f"{prefix}layer0.attention"], 2e-5)
    for index, layer in enumerate(transformer.layers):
        source = skip_source(index, len(transformer.layers))
        x = layer(x, time, rotation, None if source is None else outputs[source])
        outputs.append(x)
        assert_close(x, io[f"{prefix}layer{index}"], 2e-5)
    assert_close(transformer.norm(x, time), io[f"{prefix}transformer_out"], 2e-5)


@pytest.mark.parametrize("folder", DITS)
def test_a_batch_of_different_lengths_is_its_rows_alone(folder: GoldenFolder) -> None:
    io, inputs = folder.io, arguments(folder)
    (name,) = [name for name in io if name.startswith("out.batch.t")]
    times = (case_number(name, ".t"), 0.2)
    for row, (t, factors) in enumerate(zip(times, ((1, 1, 1), (0.5, -1, 0.3)), strict=True)):
        length = int(io["batch.x_lens"][row])
        changes = {
            "x": torch.from_numpy(frames_last(io["batch.x"][row : row + 1]))[:, :length],
            "prompt_x": inputs["prompt_x"][:, :length] * factors[0],
            "style": inputs["style"] * factors[1],
            "cond": inputs["cond"][:, :length] * factors[2],
        }
        assert_close(velocity(folder, t, **changes)[0], io[name][row, :, :length], 2e-5)


@pytest.mark.parametrize("folder", DITS)
def test_quirk_9_the_null_row_is_zeros_at_the_inputs_and_keeps_the_biases(folder: GoldenFolder) -> None:
    io, inputs = folder.io, arguments(folder)
    zeros = {name: torch.zeros_like(inputs[name]) for name in ("prompt_x", "style", "cond")}
    (name,) = [name for name in io if name.startswith("out.null.t")]
    t = case_number(name, ".t")
    null = velocity(folder, t, **zeros)
    assert_close(null, io[name], 2e-5)
    for part in zeros:
        (without,) = [name for name in io if name.startswith(f"out.no_{part.removesuffix('_x')}.t")]
        assert_close(velocity(folder, t, **{part: zeros[part]}), io[without], 2e-5)
    masked = next(value for name, value in io.items() if name.startswith("out.mask_content.t"))
    assert np.abs(null - masked).max() > 1e-3  # zeroing behind the projection is something else
    stack = {name: torch.cat([inputs[name], value]) for name, value in zeros.items()} | {
        "x": inputs["x"].repeat(2, 1, 1)
    }
    (both,) = [name for name in io if name.startswith("out.cfg_stack.t")]
    assert_close(velocity(folder, case_number(both, ".t"), **stack), io[both], 2e-5)


def test_quirk_8_the_adaptive_norm_adds_no_one_and_time_has_no_activation() -> None:
    network = network_of(DIT)
    assert isinstance(network, Velocity)
    norm = network.estimator.transformer.norm
    x, time = torch.from_numpy(normal(0, "x", 0, (1, 3, 48))), torch.from_numpy(normal(0, "t", 0, (1, 48)))
    both = (time @ norm.project_layer.weight.T + norm.project_layer.bias)[0]
    rms = x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5)
    want = both[:48] * (rms * norm.norm.weight) + both[48:]
    assert (norm(x, time) - want).abs().max() < 1e-5


@pytest.mark.parametrize(("depth", "pairs"), [(17, {9: 7, 12: 4, 16: 0}), (5, {3: 1, 4: 0}), (4, {3: 1}), (1, {})])
def test_skips_pair_the_halves_from_the_middle_out(depth: int, pairs: dict[int, int]) -> None:
    found = {layer: source for layer in range(depth) if (source := skip_source(layer, depth)) is not None}
    assert len(found) == (depth - 1) // 2
    assert pairs.items() <= found.items()
    assert all(layer + source == 2 * (depth // 2) for layer, source in found.items())


# ------------------------------------------------------------------------------------------------------------ regulator


@pytest.mark.parametrize("folder", REGULATORS)
def test_conditions_are_the_references(folder: GoldenFolder) -> None:
    network, io = regulator_of(folder), folder.io
    content, n_frames = torch.from_numpy(io["content"]), int(io["ylen"].max())
    index = nearest_index(content.shape[1], n_frames)
    assert np.array_equal(index, io["content_interp_index"])
    assert np.array_equal(nearest_index(io["f0"].shape[1], n_frames), io["f0_interp_index"])
    assert_close(network(content, torch.from_numpy(index), None), io["out_nof0"], 1e-5)
    for name, result in (("f0", "out_f0"), ("f0_after_logexp", "out_f0_logexp")):
        bins = pitch_bins(io[name], network.sizes.n_f0_bins)[:, io["f0_interp_index"]]
        assert_close(network(content, torch.from_numpy(index), torch.from_numpy(bins)), io[result], 1e-5)


@pytest.mark.parametrize("folder", REGULATORS)
def test_a_padded_batch_is_the_references_when_its_end_is_masked(folder: GoldenFolder) -> None:
    io = folder.io
    lengths = io["batch.ylens"]
    content = torch.from_numpy(io["batch.content"])
    index = torch.from_numpy(nearest_index(content.shape[1], int(lengths.max())))
    found = regulator_of(folder)(content, index, None).numpy()
    inside = np.arange(found.shape[1])[None] < lengths[:, None]
    assert_close(found * inside[:, :, None], io["batch.out"], 1e-5)


def test_quirk_6_a_condition_depends_on_the_whole_song() -> None:
    network = network_of(REGULATOR)
    content = torch.from_numpy(normal(0, "content", 0, (1, 200, 24)))
    bins = torch.full((1, 344), 100)
    index = torch.from_numpy(nearest_index(200, 344))
    whole = network(content, index, bins)
    content[:, 150:] *= 3
    assert (network(content, index, bins)[:, :200] - whole[:, :200]).abs().max() > 1e-2
    assert (network(content[:, :100], index[:172], bins[:, :172])[:, :150] - whole[:, :150]).abs().max() > 1e-3


# -------------------------------------------------------------------------------------------------------------- Whisper


@pytest.mark.parametrize("folder", WHISPERS)
def test_content_is_the_references(folder: GoldenFolder) -> None:
    sizes, source = golden_whisper(folder)
    wave = folder.io["short.wave_16k"][0]
    log_mel = whisper_log_mel(wave, sizes.num_mel_bins)
    (window,) = content_windows(len(wave))
    content = network_of(sizes, source)(torch.from_numpy(log_mel[None]))
    assert_close(content[:, : window.kept], folder.io["short.content"], 1e-4)


def test_quirk_11_padding_is_heard() -> None:
    """Attention is not masked: content depends on how much silence follows."""
    network = network_of(WHISPER)
    log_mel = normal(0, "log-mel", 0, (1, 80, 3000)) * np.float32(0.4)
    whole = network(torch.from_numpy(log_mel))
    log_mel[:, :, 1500:] = -1.0
    assert (network(torch.from_numpy(log_mel))[:, :700] - whole[:, :700]).abs().max() > 1e-3


# ------------------------------------------------------------------------------------------------------- random weights


def moved(results: list[Tensor]) -> float:
    """Least deviation of a result from the first, over the first's own."""
    return min(float((other - results[0]).std() / results[0].std()) for other in results[1:])


@pytest.mark.parametrize("seed", [0, 1])
def test_random_velocities_lead_to_a_mel_and_hear_every_input(seed: int) -> None:
    network = network_of(DIT, random_source(DIT, seed))
    inputs = {
        "x": torch.from_numpy(normal(0, "x", 0, (1, 90, 12))),
        "prompt_x": torch.from_numpy(normal(0, "prompt", 0, (1, 90, 12)) * np.float32(2) - 5),
        "style": torch.from_numpy(normal(0, "style", 0, (1, 20))),
        "cond": torch.from_numpy(normal(0, "cond", 0, (1, 90, 32))),
        "t": torch.tensor([0.5]),
    }
    results = [network(**inputs)]
    assert -8 < float(results[0].mean()) < -2
    assert 0.3 < float(results[0].std(dim=1).mean()) < 4
    results += [network(**(inputs | {name: torch.zeros_like(value)})) for name, value in inputs.items()]
    assert moved(results) > 0.05


@pytest.mark.parametrize("sizes", [WHISPER, REGULATOR], ids=["whisper", "regulator"])
def test_random_content_and_conditions_are_alive(sizes: AnyPart) -> None:
    network = network_of(sizes)
    if isinstance(network, ContentEncoder):
        log_mel = torch.from_numpy(normal(0, "log-mel", 0, (2, 80, 3000)) * np.float32(0.4))
        out = network(log_mel)
        assert moved([out[0], out[1]]) > 0.3
    else:
        content = torch.from_numpy(normal(0, "content", 0, (1, 100, 24)))
        index = torch.arange(100)
        results = [network(content, index, torch.full((1, 100), bins)) for bins in (1, 90)]
        results.append(network(content * 0, index, torch.full((1, 100), 1)))
        assert moved(results) > 0.2
        out = results[0]
    assert 0.2 < float(out.std()) < 3
    assert float(out.std(dim=1).min()) > 0.02
