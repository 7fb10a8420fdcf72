"""HeartMuLa against vectors of the reference implementation (tests/golden/heartlib/README.md)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from heartvoice.config.presets import GenerationIds, HeartMuLaConfig
from heartvoice.models.generate import generate, max_frames_of
from heartvoice.models.heartmula import HeartMuLa, StepOutputs
from heartvoice.models.llama import KVCache
from heartvoice.models.load import Checkpoint, load_network
from heartvoice.models.prompt import build_prompt, load_tokenizer
from heartvoice.models.rope import Rotary, apply_rope, rope_frequencies
from heartvoice.models.sampling import reference_probabilities, sample_inverse_cdf, sample_reference
from tests.support.golden_cases import Golden, GoldenFolder, assert_close, case_params, folder_params, tensor_params

KIND = "heartmula"
PROMPTS = case_params(KIND, lambda name, args: "tags" in args)
PREFILLS = case_params(KIND, lambda name, args: name.startswith("prefill"))
STEPS = case_params(KIND, lambda name, args: name.startswith("step"))
SONGS = case_params(KIND, lambda name, args: "max_audio_length_ms" in args)
ROPES = case_params(KIND, lambda name, args: "head_dim" in args)
SAMPLINGS = tensor_params(KIND, r"(sampling\.topk\d+_t[\d.]+)\.probs")
COMPARED = re.compile(
    r"muq_random|forced_codes|sampling\.logits"
    r"|[^.]+\.(text_ids|tokens|tokens_mask)"
    r"|prefill[^.]*\.(backbone_in|backbone_out|c0_logits|c0_logits_raw)"
    r"|prefill[^.]*\.(depth_in_projected|depth_out|depth_logits|depth_logits_raw)"
    r"|step[^.]*\.(forced|frame\d+\.(last_hidden|logits_raw|logits))"
    r"|.+\.(frames|c0_logits_frame0)"
    r"|rope[^.]*\.(x|pos|y|inv_freq_scaled)"
    r"|sampling\.topk\d+_t[\d.]+\.(probs|exp_noise|token)"
)


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.inference_mode():
        yield


@lru_cache(maxsize=4)
def model_of(folder: GoldenFolder) -> HeartMuLa:
    network = load_network(
        HeartMuLaConfig.from_config(folder.config), Checkpoint.open(folder.path / "weights.safetensors")
    )
    assert isinstance(network, HeartMuLa)
    return network


def tolerance(case: Golden) -> float:
    """1e-4; 2e-4 at the folder's largest guidance."""
    largest = max(args.get("cfg_scale", 0.0) for args in case.folder.cases.values())
    return 2e-4 if 1 < case.args["cfg_scale"] == largest else 1e-4


def prompt_of(case: Golden) -> tuple[npt.NDArray[np.int64], int]:
    name = f"prompt{case.args['prompt']}"
    return case.folder.io[f"{name}.text_ids"], case.folder.cases[name]["muq_idx"]


def style_of(case: Golden) -> npt.NDArray[np.float32] | None:
    muq = case.args.get("muq", "zero")
    if muq is None:
        return None
    random: npt.NDArray[np.float32] = case.folder.io["muq_random"]
    return random if muq == "rand" else np.zeros_like(random)


def embed(model: HeartMuLa, case: Golden) -> Tensor:
    text_ids, slot = prompt_of(case)
    style = style_of(case)
    embedded = model.embed_prompt(
        torch.from_numpy(text_ids)[None],
        None if style is None else torch.from_numpy(style)[None],
        torch.tensor([slot]),
    )
    if case.args["cfg_scale"] <= 1:
        return embedded
    return model.unconditional(embedded.repeat(2, 1, 1), torch.tensor([False, True]))


def guided(model: HeartMuLa, raw: Tensor, case: Golden) -> Tensor:
    rows = torch.tensor([0]), torch.tensor([raw.shape[0] - 1])
    return model.guide(raw, *rows, torch.tensor([case.args["cfg_scale"]], dtype=torch.float32))


@pytest.mark.parametrize("folder", folder_params(KIND))
def test_every_recorded_tensor_is_compared_by_some_test(folder: GoldenFolder) -> None:
    unknown = [name for name in folder.io if not COMPARED.fullmatch(name)]
    assert not unknown
    claimed = {param.values[0].name for group in (PROMPTS, PREFILLS, STEPS, SONGS, ROPES) for param in group}
    assert set(folder.cases) <= claimed


@pytest.mark.parametrize("case", PROMPTS)
def test_prompt_equals_the_reference(case: Golden) -> None:
    config, args = case.folder.config, case.args
    ids = GenerationIds.from_config(config["gen_config"])
    prompt = build_prompt(args["tags"], args["lyrics"], load_tokenizer(case.folder.path / args["tokenizer"]), ids)
    assert prompt.style_index == args["muq_idx"]
    assert len(prompt.text_ids) == args["prompt_len"]
    books = config["audio_num_codebooks"]
    np.testing.assert_array_equal(prompt.text_ids, case["text_ids"])
    np.testing.assert_array_equal(prompt.tokens(books), case["tokens"])
    np.testing.assert_array_equal(prompt.mask(books), case["tokens_mask"])


@pytest.mark.parametrize("case", PREFILLS)
def test_prefill_equals_the_reference(case: Golden) -> None:
    model, atol = model_of(case.folder), tolerance(case)
    embedded = embed(model, case)
    rows = embedded.shape[0]
    assert_close(embedded, case["backbone_in"], 1e-4)
    hidden, _ = model.backbone(embedded, torch.zeros(rows, dtype=torch.int64))
    assert_close(hidden, case["backbone_out"], 1e-4)
    raw = model.codebook0_logits(hidden[:, -1])
    assert_close(raw, case["c0_logits_raw"], 1e-4)
    assert_close(guided(model, raw, case), case["c0_logits"], atol)
    trace = model.depth_trace(hidden[:, -1], torch.from_numpy(case.folder.io["forced_codes"]).expand(rows, -1))
    assert_close(trace.projected, case["depth_in_projected"], 1e-4)
    assert_close(trace.hidden, case["depth_out"], 1e-4)
    assert_close(trace.logits, case["depth_logits_raw"], 1e-4)
    per_book = [guided(model, trace.logits[:, book], case) for book in range(trace.logits.shape[1])]
    assert_close(torch.stack(per_book, dim=1), case["depth_logits"], atol)


@pytest.mark.parametrize("case", STEPS)
def test_teacher_forced_frames_equal_the_reference(case: Golden) -> None:
    model, atol = model_of(case.folder), tolerance(case)
    forced = torch.from_numpy(case["forced"])
    entering = embed(model, case)
    rows, used = entering.shape[0], 0
    cache = KVCache(model.sizes.backbone, rows, entering.shape[1] + len(forced))
    for frame, codes in enumerate(forced):
        position = torch.full((rows,), used)
        hidden, new = model.backbone(entering, position, cache.past(used))
        cache.write(new, position)
        used += entering.shape[1]
        assert_close(hidden[:, -1], case[f"frame{frame}.last_hidden"], 1e-4)
        first = model.codebook0_logits(hidden[:, -1])[:, None]
        rest = model.depth_trace(hidden[:, -1], codes.expand(rows, -1)).logits
        raw = torch.cat([first, rest], dim=1)
        assert_close(raw, case[f"frame{frame}.logits_raw"], 1e-4)
        per_book = [guided(model, raw[:, book], case) for book in range(raw.shape[1])]
        assert_close(torch.stack(per_book, dim=1), case[f"frame{frame}.logits"], atol)
        entering = model.embed_frames(codes.expand(rows, -1))[:, None]


@pytest.mark.parametrize("case", ROPES)
def test_rope_equals_the_reference(case: Golden) -> None:
    args = case.args
    frequencies = rope_frequencies(
        args["head_dim"],
        args["base"],
        args["scale_factor"],
        low_freq_factor=args["low_freq_factor"],
        high_freq_factor=args["high_freq_factor"],
        old_context_len=args["old_context_len"],
    )
    np.testing.assert_allclose(frequencies, case["inv_freq_scaled"], rtol=1e-6)
    cos, sin = (table[None, :, None] for table in Rotary(frequencies)(torch.from_numpy(case["pos"])))
    turned = apply_rope(torch.from_numpy(case["x"]), cos, sin)
    # Angles are formed in float32, so the looser bound for exact ones is not needed.
    assert_close(turned, case["y"], 1e-4)


@pytest.mark.parametrize("case", SAMPLINGS)
def test_reference_sampler_equals_the_reference(case: Golden) -> None:
    match = re.fullmatch(r"sampling\.topk(\d+)_t([\d.]+)", case.name)
    assert match
    k, temperature = int(match[1]), float(match[2])
    logits = torch.from_numpy(case.folder.io["sampling.logits"])
    probabilities = reference_probabilities(logits, k, temperature)
    assert_close(probabilities, case["probs"], 1e-6)
    token = sample_reference(logits, k, temperature, torch.from_numpy(case["exp_noise"]))
    np.testing.assert_array_equal(token, case["token"])


@pytest.mark.parametrize("case", SAMPLINGS)
def test_inverse_cdf_sampler_has_the_reference_distribution(case: Golden) -> None:
    """Over a grid of uniform numbers each id is drawn as often as its probability says, to within one grid step."""
    match = re.fullmatch(r"sampling\.topk(\d+)_t([\d.]+)", case.name)
    assert match
    grid = (torch.arange(20_000, dtype=torch.float32) + 0.5) / 20_000
    for logits, expected in zip(torch.from_numpy(case.folder.io["sampling.logits"]), case["probs"], strict=True):
        drawn = sample_inverse_cdf(
            logits.expand(len(grid), -1),
            torch.full_like(grid, float(match[2])),
            torch.full_like(grid, int(match[1]), dtype=torch.int64),
            grid,
        )
        share = np.bincount(drawn, minlength=len(expected)) / len(grid)
        np.testing.assert_allclose(share, expected, atol=1.5 / len(grid))
        assert not share[expected == 0].any()


@pytest.mark.parametrize("case", SONGS)
def test_generated_frames_equal_the_reference(case: Golden) -> None:
    args, seen = case.args, list[StepOutputs]()
    text_ids, slot = prompt_of(case)
    books = case.folder.config["audio_num_codebooks"]
    # Greedy songs do not depend on the draws; take some anyway.
    frames = generate(
        model_of(case.folder),
        text_ids,
        max_frames=max_frames_of(args["max_audio_length_ms"]),
        eos_id=args["audio_eos_id"],
        uniform=lambda frame: np.full(books, 0.5, np.float32),
        style=style_of(case),
        style_index=slot,
        cfg_scale=args["cfg_scale"],
        temperature=args["temperature"],
        top_k=args["topk"],
        observe=lambda frame, outputs: seen.append(outputs),
    )
    assert frames.dtype == torch.int32
    np.testing.assert_array_equal(frames, case["frames"])
    for row in case["c0_logits_frame0"]:  # two equal rows where guidance is below 1
        assert_close(seen[0].logits[0, 0], row, tolerance(case))
