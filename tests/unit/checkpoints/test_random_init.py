"""Random weights: reproducible, and alive in every preset."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from heartvoice import keyed_random
from heartvoice.checkpoints.random_init import InitSpec, RandomCheckpoint
from heartvoice.config.presets import PRESETS, Preset
from heartvoice.errors import CheckpointError
from heartvoice.models.generate import generate
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.heartmula import HeartMuLa
from heartvoice.models.load import load_network, random_checkpoint

TINY = PRESETS["tiny"]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def test_a_tensor_depends_on_seed_and_name_alone() -> None:
    source, again = random_checkpoint(TINY.lm, 3), random_checkpoint(TINY.lm, 3)
    names = sorted(source.names)
    values = {name: source.array(name) for name in names}
    for name in reversed(names):
        np.testing.assert_array_equal(again.array(name), values[name])
    other = random_checkpoint(TINY.lm, 4)
    assert not np.array_equal(other.array("projection.weight"), values["projection.weight"])
    q, k = values["backbone.layers.0.attn.q_proj.weight"], values["backbone.layers.1.attn.q_proj.weight"]
    assert not np.array_equal(q, k)


def test_values_are_pinned_for_ever() -> None:
    source = RandomCheckpoint({"a": (2, 2)}, 9, lambda name, shape: InitSpec(2.0, mean=1.0))
    np.testing.assert_array_equal(
        source.array("a").reshape(-1),
        np.array([-1.6874618530273438, 2.1749370098114014, 0.6882266998291016, -1.971758246421814], np.float32),
    )


def test_values_follow_their_law_across_chunks() -> None:
    shapes = {"a": (3, 1_500_001), "b": (2, 4, 6)}
    specs = {"a": InitSpec(0.5, mean=-1.0), "b": InitSpec(1.0, n_zero=2, zero_axis=2)}
    source = RandomCheckpoint(shapes, 0, lambda name, shape: specs[name])
    values = source.array("a")
    assert abs(values.mean(dtype=np.float64) + 1) < 1e-3
    assert abs(values.std(dtype=np.float64) - 0.5) < 1e-3
    assert not source.array("b")[..., 4:].any()
    assert source.array("b")[..., :4].all()


def test_a_law_that_is_not_finite_is_an_error_that_names_the_tensor() -> None:
    source = RandomCheckpoint({"a": (2, 2)}, 9, lambda name, shape: InitSpec(float("nan")))
    with pytest.raises(CheckpointError, match="random weights of seed 9: a"):
        source.array("a")


def test_tensors_of_the_full_size_can_be_made_one_by_one() -> None:
    source = random_checkpoint(PRESETS["oss-3b"].lm, 0)
    assert source.array("backbone.layers.27.attn.k_proj.weight").shape == (1024, 3072)
    assert abs(source.array("backbone.norm.scale").mean() - 1) < 0.01


def check_lm(preset: Preset, n_frames: int) -> None:
    network = load_network(preset.lm, random_checkpoint(preset.lm, 0))
    assert isinstance(network, HeartMuLa)
    ids = np.arange(16) % preset.lm.text_vocab_size
    frames = generate(
        network, ids, max_frames=n_frames, eos_id=preset.ids.audio_eos_id,
        uniform=lambda frame: keyed_random.uniform(0, "lm", frame, (8,)),
    )  # fmt: skip
    assert frames.shape == (8, n_frames)  # special ids are no likelier than chance, so top-k lists lack them
    for codebook in frames:
        assert len(set(codebook.tolist())) > 0.7 * n_frames


def check_codec(preset: Preset) -> None:
    codec = load_network(preset.codec, random_checkpoint(preset.codec, 0), decode_only=True)
    assert isinstance(codec, HeartCodec)
    codec.fold_weight_norm()
    codes = (keyed_random.uniform(0, "codes", 0, (8, 93)) * preset.codec.codebook_size).astype(np.int64)
    audio = codec.detokenize(
        codes,
        lambda index: keyed_random.normal(0, "codec", index, (1, 186, preset.codec.out_channels)),
        window=93,
        steps=4,
    )
    centred = audio - audio.mean(axis=1, keepdims=True)
    rms = float(np.sqrt(np.square(centred).mean()))
    assert 0.03 < rms < 0.3
    assert np.abs(audio).max() < 3
    seconds = np.sqrt(np.square(centred).reshape(2, 3, -1).mean(axis=-1))
    assert seconds.min() > 0.3 * rms
