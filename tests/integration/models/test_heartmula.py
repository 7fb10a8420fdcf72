"""HeartMuLa's names, batches, padding, and the faults and quirks of its reference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heartvoice import keyed_random
from heartvoice.config.presets import PRESETS, HeartMuLaConfig
from heartvoice.errors import InvalidRequestError
from heartvoice.models.generate import generate, max_frames_of
from heartvoice.models.heartmula import HeartMuLa, StepInputs, StepOutputs
from heartvoice.models.llama import KVCache
from heartvoice.models.load import load_network, manifest, random_checkpoint
from heartvoice.models.rope import apply_rope

ASSETS = Path(__file__).parents[2] / "assets"
TINY = PRESETS["tiny"]
EOS = TINY.ids.audio_eos_id
BOOKS = TINY.lm.audio_num_codebooks


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@lru_cache(maxsize=2)
def tiny(dtype: torch.dtype | None = None) -> HeartMuLa:
    network = load_network(TINY.lm, random_checkpoint(TINY.lm, 11), dtype=dtype)
    assert isinstance(network, HeartMuLa)
    return network


def prompt_of(length: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    return (keyed_random.uniform(seed, "prompt", 0, (length,)) * TINY.lm.text_vocab_size).astype(np.int64)


def write(**settings: Any) -> Tensor:
    defaults: dict[str, Any] = {
        "max_frames": 6,
        "eos_id": EOS,
        "uniform": lambda frame: keyed_random.uniform(1, "lm", frame, (BOOKS,)),
    }
    return generate(tiny(), settings.pop("text_ids", prompt_of(12)), **(defaults | settings))


# ----------------------------------------------------------------------------------------------------------- names


def test_full_size_names_and_shapes_equal_the_checkpoint_s() -> None:
    expected = json.loads((ASSETS / "heartmula_3b_state_dict.json").read_text())
    assert manifest(PRESETS["oss-3b"].lm) == {name: tuple(shape) for name, shape in expected.items()}


# --------------------------------------------------------------------------------------------------- rows and songs


@dataclass
class Song:
    """One song's place in a batch, and what it enters next."""

    text_ids: list[int]
    rows: tuple[int, ...]
    position: int = 0
    codes: list[int] = field(default_factory=lambda: [0] * BOOKS)
    style_index: int = -1
    temperature: float = 1.0
    top_k: int = 50
    cfg_scale: float = 1.0
    seed: int = 0


def batch(songs: list[Song], *, pad_to: int = 0) -> StepInputs:
    """The songs' inputs of one step; rows in order of song, padding of nonsense on the right."""
    length = max(pad_to, *(len(song.text_ids) for song in songs))
    rows = sorted((row, index) for index, song in enumerate(songs) for row in song.rows)
    assert [row for row, _ in rows] == list(range(len(rows)))
    padded = [song.text_ids + [5] * (length - len(song.text_ids)) for song in songs]

    def floats(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32)

    return StepInputs(
        text_ids=torch.tensor(padded),
        codes=torch.tensor([song.codes for song in songs]),
        style=torch.from_numpy(np.stack([keyed_random.normal(s.seed, "style", 0, (TINY.lm.muq_dim,)) for s in songs])),
        style_index=torch.tensor([song.style_index for song in songs]),
        n_new=torch.tensor([len(song.text_ids) for song in songs]),
        position=torch.tensor([songs[index].position for _, index in rows]),
        row_song=torch.tensor([index for _, index in rows]),
        cond_row=torch.tensor([song.rows[0] for song in songs]),
        uncond_row=torch.tensor([song.rows[-1] for song in songs]),
        temperature=floats([song.temperature for song in songs]),
        top_k=torch.tensor([song.top_k for song in songs]),
        cfg_scale=floats([song.cfg_scale for song in songs]),
        uniform=torch.from_numpy(np.stack([keyed_random.uniform(s.seed, "lm", s.position, (BOOKS,)) for s in songs])),
        allow_eos=torch.tensor([song.position > 0 for song in songs]),
    )


def advance(cache: KVCache, songs: list[Song], *, pad_to: int = 0) -> StepOutputs:
    """Run one step and move every song on."""
    inputs = batch(songs, pad_to=pad_to)
    used = max(song.position for song in songs)
    outputs = tiny().step(inputs, cache.past(used, len(inputs.row_song)), eos_id=EOS)
    cache.write(outputs.new, inputs.position, inputs.n_new[inputs.row_song])
    for song, codes in zip(songs, outputs.codes.tolist(), strict=True):
        song.position += len(song.text_ids)
        song.text_ids, song.codes, song.style_index = [-1], codes, -1
    return outputs


def the_songs() -> list[Song]:
    return [
        Song(prompt_of(14, 1).tolist(), (0, 1), style_index=5, cfg_scale=1.5, seed=1),
        Song(prompt_of(9, 2).tolist(), (0,), temperature=0.7, top_k=1000, seed=2),
        Song(prompt_of(21, 3).tolist(), (0, 1), style_index=8, cfg_scale=3.0, top_k=5, seed=3),
    ]


def test_a_padded_prompt_equals_an_unpadded_one() -> None:
    for pad_to in (22, 30):
        plain, padded = the_songs()[2], the_songs()[2]
        caches = [KVCache(TINY.lm.backbone, 2, 40) for _ in range(2)]
        for _ in range(3):
            expected = advance(caches[0], [plain])
            outputs = advance(caches[1], [padded], pad_to=pad_to if padded.position == 0 else 0)
            torch.testing.assert_close(outputs.codes, expected.codes, rtol=0, atol=0)
            torch.testing.assert_close(outputs.logits, expected.logits, rtol=0, atol=1e-4)
        for (key, value), (padded_key, padded_value) in zip(caches[0].layers, caches[1].layers, strict=True):
            torch.testing.assert_close(key, padded_key, rtol=0, atol=1e-4)
            torch.testing.assert_close(value, padded_value, rtol=0, atol=1e-4)


def test_a_prompt_in_two_calls_equals_one_call() -> None:
    ids = torch.from_numpy(prompt_of(17))[None]
    embedded, start = tiny().embed_prompt(ids), torch.zeros(1, dtype=torch.int64)
    whole, _ = tiny().backbone(embedded, start)
    cache = KVCache(TINY.lm.backbone, 1, 17)
    first, new = tiny().backbone(embedded[:, :6], start, cache.past(0))
    cache.write(new, start)
    second, _ = tiny().backbone(embedded[:, 6:], start + 6, cache.past())
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=0, atol=1e-5)


def test_what_lies_behind_a_row_s_position_is_not_read() -> None:
    song, used = the_songs()[1], 9
    cache = KVCache(TINY.lm.backbone, 1, 40)
    advance(cache, [song])
    inputs = batch([song])
    clean = tiny().step(inputs, cache.past(used), eos_id=EOS)
    for tensors in cache.layers:
        for tensor in tensors:
            tensor[:, :, used:] = 1e4
    dirty = tiny().step(inputs, cache.past(), eos_id=EOS)
    torch.testing.assert_close(dirty.logits, clean.logits, rtol=0, atol=1e-5)


def test_cache_refuses_to_overflow() -> None:
    cache = KVCache(TINY.lm.backbone, 1, 8)
    with pytest.raises(ValueError, match="cache: expected at most 8 positions, a row needs 9"):
        advance(cache, [the_songs()[1]])


def test_step_equals_generate() -> None:
    song = replace(the_songs()[0], seed=4)
    cache = KVCache(TINY.lm.backbone, 2, 40)
    ids = np.array(song.text_ids)
    stepped = [advance(cache, [song]).codes[0].tolist() for _ in range(4)]
    starts = [0, *range(len(ids), len(ids) + 3)]
    written = write(
        text_ids=ids, max_frames=4, cfg_scale=1.5, style_index=5,
        style=keyed_random.normal(4, "style", 0, (TINY.lm.muq_dim,)),
        uniform=lambda frame: keyed_random.uniform(4, "lm", starts[frame], (BOOKS,)),
    )  # fmt: skip
    assert written.T.tolist() == stepped


def test_unconditional_rows_see_only_the_prompt_s_length() -> None:
    songs = [Song(prompt_of(10, seed).tolist(), (0, 1), style_index=3, cfg_scale=2.0, seed=seed) for seed in (1, 2)]
    first, second = (tiny().embed(batch([song])) for song in songs)
    torch.testing.assert_close(first[1], second[1], rtol=0, atol=0)
    torch.testing.assert_close(first[1], tiny().unconditional_text_embedding.weight.expand(10, -1), rtol=0, atol=0)
    assert not torch.allclose(first[0], second[0])


def test_a_zero_style_is_the_bias_and_no_style_is_text_id_0() -> None:
    ids, slot = torch.zeros(1, 3, dtype=torch.int64), torch.tensor([1])
    zero = tiny().embed_prompt(ids, torch.zeros(1, TINY.lm.muq_dim), slot)
    none = tiny().embed_prompt(ids)
    torch.testing.assert_close(zero[0, 1], tiny().muq_linear.bias, rtol=0, atol=0)
    torch.testing.assert_close(none[0, 1], tiny().text_embeddings.weight[0], rtol=0, atol=0)


def test_depth_decoder_samples_what_teacher_forcing_predicts() -> None:
    hidden = torch.from_numpy(keyed_random.normal(0, "hidden", 0, (1, TINY.lm.backbone.embed_dim)))
    codes, logits = tiny().sample_frame(hidden, batch([Song([1], (0,))]), EOS)
    trace = tiny().depth_trace(hidden, codes)
    torch.testing.assert_close(logits[:, 1:], trace.logits, rtol=0, atol=1e-4)


def test_backbone_and_depth_decoder_may_differ_in_width() -> None:
    sizes = replace(TINY.lm, decoder=replace(TINY.lm.decoder, embed_dim=32))
    network = load_network(sizes, random_checkpoint(sizes, 0))
    assert isinstance(network, HeartMuLa)
    frames = generate(
        network,
        prompt_of(5),
        max_frames=2,
        eos_id=EOS,
        uniform=lambda frame: keyed_random.uniform(0, "lm", frame, (8,)),
    )
    assert frames.shape == (BOOKS, 2)


# ---------------------------------------------------------------------------------------------- faults and quirks


def lover_of(model: HeartMuLa, favourite: int) -> HeartMuLa:
    """A copy of the model that likes one id far better than any other, in every codebook."""
    changed = HeartMuLa(model.sizes)
    changed.load_state_dict(model.state_dict())
    changed.guide = lambda raw, *_: raw.index_fill(1, torch.tensor([favourite]), 50.0)[:1]  # type: ignore[method-assign]
    return changed


@pytest.mark.parametrize("special", [256, 258, 260])
def test_special_ids_are_never_drawn_however_likely(special: int) -> None:
    """Id 8192 of the full size passes the reference's EOS test and breaks its codec; here it is 256."""
    model = lover_of(tiny(), special)
    frames = generate(
        model, prompt_of(6), max_frames=4, eos_id=EOS, uniform=lambda frame: keyed_random.uniform(0, "lm", frame, (8,))
    )
    assert frames.shape[1] == 4
    assert int(frames.max()) < TINY.lm.codebook_size


def test_eos_ends_the_song_and_is_discarded_but_never_in_frame_0() -> None:
    model = lover_of(tiny(), EOS)
    seen: list[StepOutputs] = []
    frames = generate(
        model, prompt_of(6), max_frames=9, eos_id=EOS, uniform=lambda frame: np.zeros(8, np.float32),
        temperature=0, observe=lambda frame, outputs: seen.append(outputs),
    )  # fmt: skip
    assert frames.shape[1] == 1
    assert int(frames.max()) < TINY.lm.codebook_size
    assert seen[-1].codes.tolist() == [[EOS] * BOOKS]


def test_eos_is_masked_before_min_frames() -> None:
    model = lover_of(tiny(), EOS)
    frames = generate(
        model,
        prompt_of(6),
        max_frames=9,
        min_frames=5,
        eos_id=EOS,
        uniform=lambda frame: np.zeros(8, np.float32),
        temperature=0,
    )
    assert frames.shape[1] == 5


@pytest.mark.parametrize("cfg_scale", [0.0, 0.5, 1.0])
def test_guidance_of_one_and_below_is_one_plain_row(cfg_scale: float) -> None:
    rows: list[int] = []
    frames = write(cfg_scale=cfg_scale, observe=lambda frame, outputs: rows.append(outputs.new[0][0].shape[0]))
    assert set(rows) == {1}
    assert frames.tolist() == write(cfg_scale=1.0).tolist()


def test_guidance_may_change_from_call_to_call() -> None:
    plain = write(cfg_scale=1.0).tolist()
    guided = write(cfg_scale=1.5).tolist()
    assert plain != guided
    assert write(cfg_scale=1.0).tolist() == plain


def test_temperature_0_is_argmax_of_every_codebook() -> None:
    seen: list[StepOutputs] = []
    frames = write(temperature=0.0, observe=lambda frame, outputs: seen.append(outputs))
    allowed = torch.cat([outputs.logits for outputs in seen])[..., : TINY.lm.codebook_size]
    assert frames.T.tolist() == allowed.argmax(-1).tolist()
    assert frames.tolist() == write(temperature=1.0, top_k=1).tolist()


def test_top_k_beyond_the_vocabulary_counts_as_the_vocabulary() -> None:
    assert write(top_k=10**6).tolist() == write(top_k=TINY.lm.audio_vocab_size).tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_ids": np.zeros(0, np.int64)}, "text_ids: expected at least one id"),
        ({"max_frames": 0}, "max_frames: expected at least 1, got 0"),
        ({"max_frames": 8181}, r"prompt 12 \+ frames 8181: expected at most 8192"),
        ({"temperature": -1.0}, "temperature: expected 0 or more"),
        ({"top_k": 0}, "top_k: expected at least 1"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        write(**settings)


@pytest.mark.parametrize(("milliseconds", "frames"), [(0, 1), (79, 1), (80, 2), (399, 5), (1600, 21), (120_000, 1501)])
def test_the_reference_s_length_rule_is_off_by_one(milliseconds: int, frames: int) -> None:
    assert max_frames_of(milliseconds) == frames


# ------------------------------------------------------------------------------------------------------- precision


def test_half_precision_keeps_rope_in_float32_and_stays_near() -> None:
    model = tiny(torch.bfloat16)
    assert model.backbone.rotary(torch.tensor([8191]))[0].dtype == torch.float32
    ids, start = torch.from_numpy(prompt_of(20))[None], torch.zeros(1, dtype=torch.int64)
    half, _ = model.backbone(model.embed_prompt(ids), start)
    full, _ = tiny().backbone(tiny().embed_prompt(ids), start)
    assert half.dtype == torch.float32
    assert float((half - full).square().mean().sqrt()) < 0.05 * float(full.square().mean().sqrt())


def test_rope_turns_interleaved_pairs() -> None:
    x = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    cos, sin = torch.tensor([[0.0, 0.6]]), torch.tensor([[1.0, 0.8]])
    torch.testing.assert_close(apply_rope(x, cos, sin), torch.tensor([[0.0, 1.0, -0.8, 0.6]]))


def test_official_config_gives_the_official_sizes() -> None:
    config = {
        "backbone_flavor": "llama-7B",
        "decoder_flavor": "llama-300M",
        "audio_vocab_size": 8197,
        "model_type": "x",
    }
    sizes = HeartMuLaConfig.from_config(config)
    shapes = manifest(sizes)
    assert shapes["projection.weight"] == (3072, 4096)
    assert shapes["audio_embeddings.weight"] == (65576, 4096)
    assert shapes["audio_head"] == (7, 3072, 8197)


def test_songs_in_one_batch_at_different_positions_equal_songs_alone() -> None:
    """Song 0 starts, song 1 joins a step later, song 2 two steps later, its prompt beside their frames."""
    alone: list[list[StepOutputs]] = []
    for song in the_songs():
        cache = KVCache(TINY.lm.backbone, len(song.rows), 40)
        alone.append([advance(cache, [song]) for _ in range(6)])
    together = the_songs()
    for song, rows in zip(together, [(0, 1), (2,), (3, 4)], strict=True):
        song.rows = rows
    cache = KVCache(TINY.lm.backbone, 5, 40)
    for step in range(6):
        present = together[: step + 1]
        outputs = advance(cache, present)
        for index in range(len(present)):
            expected = alone[index][step - index]
            torch.testing.assert_close(outputs.codes[index], expected.codes[0], rtol=0, atol=0)
            torch.testing.assert_close(outputs.logits[index], expected.logits[0], rtol=0, atol=1e-4)


def test_same_seed_same_song_and_another_seed_another() -> None:
    def song(seed: int) -> list[list[int]]:
        frames: list[list[int]] = write(
            uniform=lambda frame: keyed_random.uniform(seed, "lm", frame, (BOOKS,))
        ).tolist()
        return frames

    assert song(3) == song(3)
    assert song(3) != song(4)
