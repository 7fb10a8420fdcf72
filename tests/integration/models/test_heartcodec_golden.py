"""HeartCodec against vectors of the reference implementation (tests/golden/heartlib/README.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from heartvoice.config.presets import HeartCodecConfig
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.heartcodec.estimator import time_sinusoid
from heartvoice.models.heartcodec.scalar import ScalarModel, quantize
from heartvoice.models.heartcodec.windows import WindowPlan, join_windows
from tests.support.golden_cases import Golden, GoldenFolder, assert_close, case_params, folder_params, tensor_params

KIND = "heartcodec"
RVQS = tensor_params(KIND, r"(rvq\w*)\.indices")
ESTIMATES = tensor_params(KIND, r"(estimator_\w+)\.x")
EULERS = tensor_params(KIND, r"(euler\w*)\.mu")
INFERENCES = case_params(KIND, lambda name, args: "scenario" in args)
DECODES = tensor_params(KIND, r"(scalar\w+)\.z")
ENCODES = tensor_params(KIND, r"(scalar\w+)\.emb")
SONGS = case_params(KIND, lambda name, args: "expected_len" in args)
GROUPS = (RVQS, ESTIMATES, EULERS, INFERENCES, DECODES, ENCODES, SONGS)
ATOL = 1e-4
"""For activations, whose standard deviation is about 1."""
COMPARED = re.compile(
    r"rvq\w*\.(indices|output|cond|cond_upsampled)"
    r"|estimator_\w+\.(x|[ty]\d+|t1\.\w+)"
    r"|euler\w*\.(x|incontext_x|mu|output)"
    r"|infer\w*\.(codes|true_latents|noise_0|output|t_values|x_steps|estimator_(in|out)_(step0|last))"
    r"|scalar\w+\.(z|z_rounded|wav|wav_decoded|emb|decoder_stage\d+)"
    r"|detok\w*\.(codes|noise_\d+|latent_\d+|wav)"
)


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.inference_mode():
        yield


def sizes_of(folder: GoldenFolder, **changes: Any) -> HeartCodecConfig:
    return HeartCodecConfig.from_config({**folder.config, **changes})


@lru_cache(maxsize=4)
def model_of(folder: GoldenFolder) -> HeartCodec:
    model = HeartCodec(sizes_of(folder))
    weights = {name: torch.from_numpy(value) for name, value in folder.weights.items() if "/" not in name}
    model.load_state_dict(weights)
    model.fold_weight_norm()
    return model.eval()


@lru_cache(maxsize=4)
def scalar_of(folder: GoldenFolder, name: str) -> ScalarModel:
    """The folder's scalar model, or the stand-alone one whose weights carry the case's name."""
    prefix = f"{name}/scalar_model."
    weights = {k.removeprefix(prefix): torch.from_numpy(v) for k, v in folder.weights.items() if k.startswith(prefix)}
    if not weights:
        return model_of(folder).scalar_model
    args = folder.cases[name]
    latent = 2 * args["latent_hidden_dim"]
    sizes = sizes_of(folder, **args, out_channels=latent, in_channels=2 * latent + folder.config["dim"])
    model = ScalarModel(sizes)
    model.load_state_dict(weights)
    return model.eval()  # not folded: both ways of running are covered


def tensor(case: Golden, name: str) -> Tensor:
    return torch.from_numpy(case[name])


@pytest.mark.parametrize("folder", folder_params(KIND))
def test_every_recorded_tensor_is_compared_by_some_test(folder: GoldenFolder) -> None:
    unknown = [name for name in folder.io if not COMPARED.fullmatch(name)]
    assert not unknown
    claimed = {param.values[0].name for group in GROUPS for param in group}
    assert set(folder.cases) <= claimed


@pytest.mark.parametrize("case", ESTIMATES)
def test_estimator_equals_the_reference(case: Golden) -> None:
    estimator = model_of(case.folder).flow_matching.estimator
    index = 0
    while f"t{index}" in case:
        velocity = estimator(tensor(case, "x"), tensor(case, f"t{index}"))
        assert_close(velocity, case[f"y{index}"], ATOL)
        index += 1
    assert index


@pytest.mark.parametrize("case", [param for param in ESTIMATES if "t1.proj_in" in param.values[0]])
def test_estimator_activations_equal_the_reference(case: Golden) -> None:
    estimator = model_of(case.folder).flow_matching.estimator
    blocks, blocks_2 = estimator.transformer_blocks, estimator.transformer_blocks_2
    taps: dict[str, nn.Module] = {
        "proj_in": estimator.proj_in,
        "block0_attn": blocks[0].get_submodule("attn"),
        "block0": blocks[0],
        "block_last": blocks[-1],
        "norm_out": estimator.norm_out,
        "connection_proj": estimator.connection_proj,
        "block2_0": blocks_2[0],
        "block2_last": blocks_2[-1],
    }
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: seen.update({name: output})

    hooks = [module.register_forward_hook(keep(name)) for name, module in taps.items()]
    time = tensor(case, "t1")
    estimator(tensor(case, "x"), time)
    for hook in hooks:
        hook.remove()
    modulation, seen["t_embed"] = estimator.adaln_single(time)
    seen["t_mod"] = modulation.flatten(1)
    seen["t_embed_2"] = estimator.adaln_single_2(time)[1]
    seen["t_sinusoid"] = time_sinusoid(time)
    recorded = [name.split(".t1.")[1] for name in case.folder.io if name.startswith(f"{case.name}.t1.")]
    assert set(recorded) == set(seen)
    for name in recorded:
        assert_close(seen[name], case[f"t1.{name}"], ATOL)


@pytest.mark.parametrize("case", EULERS)
def test_solver_equals_the_reference(case: Golden) -> None:
    args = case.args
    solved = model_of(case.folder).flow_matching.solve(
        tensor(case, "x"),
        tensor(case, "incontext_x"),
        tensor(case, "mu"),
        context_length=args["incontext_length"],
        steps=args["num_steps"],
        guidance=args["guidance_scale"],
    )
    free = slice(args["incontext_length"], None)
    # The reference overwrites the in-context frames after its solver; ours does it inside.
    assert_close(solved[:, free], case["output"][:, free], ATOL)


@pytest.mark.parametrize("case", INFERENCES)
def test_inference_codes_equals_the_reference(case: Golden) -> None:
    args, flow = case.args, model_of(case.folder).flow_matching
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def recorded(x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = flow.estimator(x, t)
        calls.append((x, t, out))
        return out

    output = flow.inference_codes(
        tensor(case, "codes"),
        tensor(case, "true_latents"),
        tensor(case, "noise_0"),
        latent_length=args["latent_length"],
        context_length=args["incontext_length"],
        steps=args["num_steps"],
        guidance=args["guidance_scale"],
        scenario=args["scenario"],
        estimator=recorded,
    )
    assert_close(output, case["output"], ATOL)
    latent = output.shape[-1]
    assert_close(torch.stack([t[0] for _, t, _ in calls]), case["t_values"], 1e-6)
    assert_close(torch.stack([x[0, :, :latent] for x, _, _ in calls]), case["x_steps"], ATOL)
    for name, (x, _, out) in (("step0", calls[0]), ("last", calls[-1])):
        assert x.shape[0] == args["estimator_batch"]
        assert_close(x, case[f"estimator_in_{name}"], ATOL)
        assert_close(out, case[f"estimator_out_{name}"], ATOL)


@pytest.mark.parametrize("case", DECODES)
def test_scalar_decoder_equals_the_reference(case: Golden) -> None:
    model, latents = scalar_of(case.folder, case.name), tensor(case, "z")
    audio = "wav_decoded" if "wav_decoded" in case else "wav"
    assert_close(model.decode(latents), case[audio], 1e-5)
    hidden = quantize(latents)
    if "z_rounded" in case:
        assert_close(hidden, case["z_rounded"], 1e-6)
    stages = 0
    for stage in model.decoder:
        hidden = stage(hidden)
        if f"decoder_stage{stages}" not in case:
            break
        assert_close(hidden, case[f"decoder_stage{stages}"], ATOL)
        stages += 1
    assert stages == sum(name.startswith(f"{case.name}.decoder_stage") for name in case.folder.io)


@pytest.mark.parametrize("case", ENCODES)
def test_scalar_encoder_equals_the_reference(case: Golden) -> None:
    assert_close(scalar_of(case.folder, case.name).encode(tensor(case, "wav")), case["emb"], 1e-5)


# ------------------------------------------------------------------------------------------------------ whole songs


def golden_latents(case: Golden) -> list[npt.NDArray[np.float32]]:
    names = sorted(name for name in case.folder.io if name.startswith(f"{case.name}.latent_"))
    return [case.folder.io[name] for name in names]


def plan_of(case: Golden) -> WindowPlan:
    return WindowPlan(golden_latents(case)[0].shape[1] // 2)


def noise_of(case: Golden) -> Callable[[int], npt.NDArray[np.float32]]:
    """The reference draws an unused array before each window's; zeros for windows that it forgot."""
    shape = golden_latents(case)[0].shape

    def noise(index: int) -> npt.NDArray[np.float32]:
        name = f"noise_{2 * index + 1:03d}"
        return case[name] if name in case else np.zeros(shape, np.float32)

    return noise


def settings_of(case: Golden) -> dict[str, Any]:
    return {"steps": case.args.get("num_steps", 10), "guidance": case.args.get("guidance_scale", 1.25)}


def comparable(case: Golden) -> int:
    """Samples that the reference returned and that its lost tail did not change."""
    length: int = case["wav"].shape[1]
    if length >= case.args["expected_len"] - 1:
        return length
    latents = golden_latents(case)  # the tail is lost: where a next window would begin, ours fades into it
    hop = sizes_of(case.folder).frame_hop
    return len(latents) * plan_of(case).hop * hop


@lru_cache(maxsize=32)
def song_of(folder: GoldenFolder, name: str) -> tuple[list[Tensor], npt.NDArray[np.float32]]:
    """Our decoding of a song, once for all tests: latents of each window, and audio."""
    case, model = Golden(folder, name, folder.cases[name]), model_of(folder)
    latents: list[Tensor] = []
    solve = model.window_latents

    def recorded(*args: Any, **settings: Any) -> Iterator[Tensor]:
        for window in solve(*args, **settings):
            latents.append(window)
            yield window

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "window_latents", recorded)
        audio = model.detokenize(case["codes"], noise_of(case), window=plan_of(case).window, **settings_of(case))
    return latents, audio


@pytest.mark.parametrize("case", SONGS)
def test_audio_of_the_references_latents_equals_the_reference(case: Golden) -> None:
    model = model_of(case.folder)
    audio = (model.decode_latents(torch.from_numpy(latents)) for latents in golden_latents(case))
    joined = np.concatenate(list(join_windows(audio, plan_of(case).overlap * model.sizes.frame_hop)), axis=1)
    length = case["wav"].shape[1]
    assert_close(joined[:, :length], case["wav"], 1e-5)


@pytest.mark.parametrize("case", SONGS)
def test_whole_song_sounds_like_the_reference(case: Golden) -> None:
    """End to end a few latents may flip a level, so the bound is on the signal-to-noise ratio."""
    _, song = song_of(case.folder, case.name)
    assert song.shape == (2, case.args["expected_len"])  # the reference's own may be shorter
    assert list(case["wav"].shape) == case.args["wav_shape"]
    length = comparable(case)
    golden, ours = case["wav"][:, :length].astype(np.float64), song[:, :length].astype(np.float64)
    assert np.square(ours - golden).sum() <= 10 ** (-55 / 10) * np.square(golden).sum()


@pytest.mark.parametrize("case", RVQS)
def test_rvq_and_condition_equal_the_reference(case: Golden) -> None:
    flow = model_of(case.folder).flow_matching
    indices = tensor(case, "indices")
    output = flow.vq_embed(indices)
    assert_close(output, case["output"], ATOL)
    if "cond" in case:
        assert_close(flow.cond_feature_emb(output), case["cond"], ATOL)
        assert_close(flow.condition(indices.transpose(1, 2)), case["cond_upsampled"], ATOL)


@pytest.mark.parametrize("case", SONGS)
def test_song_latents_equal_the_reference(case: Golden) -> None:
    ours, _ = song_of(case.folder, case.name)
    expected = golden_latents(case)
    for index, (golden, window) in enumerate(zip(expected, ours, strict=False)):
        assert_close(window, golden, ATOL)
        assert plan_of(case).context(index) == case.args["incontext_lengths"][index]
    assert index + 1 == len(expected) == case.args["windows"]
