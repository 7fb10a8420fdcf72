"""Opening and loading weights: layouts, dtypes, spellings, damage, and memory."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from heartvoice.config.presets import PRESETS, HeartCodecConfig, HeartMuLaConfig, TransformerConfig, htdemucs_of
from heartvoice.contracts.network_names import NETWORKS, Network
from heartvoice.errors import CheckpointError
from heartvoice.export import layout
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.load import (
    Checkpoint,
    TensorSource,
    build_module,
    load_module,
    load_network,
    manifest,
    random_checkpoint,
)

LM = HeartMuLaConfig(
    backbone=TransformerConfig(1, 2, 1, 16, 24, 64), decoder=TransformerConfig(1, 1, 1, 16, 24, 8),
    text_vocab_size=30, audio_vocab_size=21, muq_dim=4,
)  # fmt: skip
CODEC = replace(
    PRESETS["tiny"].codec, num_layers=1, num_layers_2=1, upsample_factors=(2,), upsample_kernel_sizes=(4,),
    downsample_factors=(2,), downsample_kernel_sizes=(4,),
)  # fmt: skip
Tensors = dict[str, Tensor]


def tensors_of(sizes: HeartMuLaConfig | HeartCodecConfig) -> Tensors:
    source = random_checkpoint(sizes, 1)
    return {name: torch.from_numpy(source.array(name)) for name in sorted(source.names)}


def test_a_module_is_built_without_torchs_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import takes as long as all the rest of a small export."""
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    for sizes in (htdemucs_of("tiny"), PRESETS["tiny"].codec, PRESETS["tiny"].speaker):
        assert all(tensor.is_meta for tensor in build_module(sizes).state_dict().values())


def save(tensors: Tensors, folder: Path, name: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    return folder


def save_sharded(tensors: Tensors, folder: Path) -> Path:
    weight_map = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save({name: value for name, value in tensors.items() if weight_map[name] == file}, folder, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def assert_loads(source: TensorSource, expected: Tensors, sizes: HeartMuLaConfig | HeartCodecConfig) -> None:
    state = load_network(sizes, source).state_dict()
    assert set(state) == set(expected)
    for name, value in state.items():
        torch.testing.assert_close(value, expected[name].to(value.dtype), rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------- layouts and dtypes


@pytest.mark.parametrize("sizes", [LM, CODEC], ids=["lm", "codec"])
@pytest.mark.parametrize("how", ["folder", "file", "sharded", "index", "other_name"])
def test_every_layout_loads(tmp_path: Path, sizes: HeartMuLaConfig | HeartCodecConfig, how: str) -> None:
    tensors = tensors_of(sizes)
    path = {
        "folder": lambda: save(tensors, tmp_path),
        "file": lambda: save(tensors, tmp_path) / "model.safetensors",
        "sharded": lambda: save_sharded(tensors, tmp_path),
        "index": lambda: save_sharded(tensors, tmp_path) / "model.safetensors.index.json",
        "other_name": lambda: save(tensors, tmp_path, "weights.safetensors"),
    }[how]()
    assert_loads(Checkpoint.open(path), tensors, sizes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_float_dtype_becomes_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = {name: value.to(dtype) for name, value in tensors_of(LM).items()}
    assert_loads(Checkpoint.open(save(stored, tmp_path)), {n: v.float() for n, v in stored.items()}, LM)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_networks_load_in_the_dtype_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = tensors_of(CODEC)
    state = load_network(CODEC, Checkpoint.open(save(tensors, tmp_path)), dtype=dtype).state_dict()
    for name, value in state.items():
        assert value.dtype == (torch.bool if name.endswith("initted") else dtype)
        torch.testing.assert_close(value, tensors[name].to(value.dtype), rtol=0, atol=0)


def test_bits_of_special_halves_survive(tmp_path: Path) -> None:
    """Subnormals, signed zeros and extremes of both half formats."""
    for dtype in (torch.float16, torch.bfloat16):
        codes = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        finite = codes[codes.isfinite()]
        array = Checkpoint.open(save({"a": finite}, tmp_path)).array("a")
        np.testing.assert_array_equal(array.view(np.uint32), finite.float().numpy().view(np.uint32))


@pytest.mark.parametrize("decode_only", [False, True])
def test_both_weight_norm_spellings_load(tmp_path: Path, decode_only: bool) -> None:
    tensors = tensors_of(CODEC)
    old = {
        name.replace(".parametrizations.weight.original0", ".weight_g").replace(
            ".parametrizations.weight.original1", ".weight_v"
        ): value
        for name, value in tensors.items()
    }
    assert len(set(old) - set(tensors)) > 10
    network = load_network(CODEC, Checkpoint.open(save(old, tmp_path)), decode_only=decode_only)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, tensors[name], rtol=0, atol=0)


@pytest.mark.parametrize("spelling", ["new", "old"])
def test_weight_norm_folds_into_a_plain_module(tmp_path: Path, spelling: str) -> None:
    conv = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(3, 2, 4))
    tensors = {name: value.detach().clone() for name, value in conv.state_dict().items()}
    tensors["parametrizations.weight.original0"] *= 2
    conv.load_state_dict(tensors)
    prefix = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    stored = {"up." + (prefix.get(name, name) if spelling == "old" else name): v for name, v in tensors.items()}
    plain = nn.ModuleDict({"up": nn.ConvTranspose1d(3, 2, 4)})
    load_module(plain, Checkpoint.open(save(stored, tmp_path)))
    torch.testing.assert_close(plain["up"].get_parameter("weight"), conv.weight.detach(), rtol=0, atol=1e-6)


def test_config_and_hashes_are_read_from_the_folder(tmp_path: Path) -> None:
    save_sharded(tensors_of(LM), tmp_path)
    (tmp_path / "config.json").write_text('{"audio_vocab_size": 21}')
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.config == {"audio_vocab_size": 21}
    files = sorted(tmp_path.glob("*.safetensors"))
    assert checkpoint.sha256() == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


# ------------------------------------------------------------------------------------- what may be missing, or more


TRAINING_KEYS = ("project_in", "embed_avg", "cluster_size", "initted")


def test_training_keys_and_encoder_may_be_missing_for_decoding(tmp_path: Path) -> None:
    tensors = tensors_of(CODEC)
    lean = {n: v for n, v in tensors.items() if not any(key in n for key in TRAINING_KEYS) and ".encoder." not in n}
    source = Checkpoint.open(save(lean, tmp_path))
    network = load_network(CODEC, source, decode_only=True)
    assert set(network.state_dict()) == set(lean)
    with pytest.raises(CheckpointError, match=r"missing scalar_model\.encoder\.0\.bias, .* and \d+ more"):
        load_network(CODEC, source)


def test_training_keys_may_be_missing_with_the_encoder_there(tmp_path: Path) -> None:
    tensors = tensors_of(CODEC)
    lean = {n: v for n, v in tensors.items() if not any(key in n for key in TRAINING_KEYS)}
    network = load_network(CODEC, Checkpoint.open(save(lean, tmp_path)))
    state = network.state_dict()
    assert set(state) == set(tensors)
    assert not any(value.is_meta for value in state.values())


def test_a_whole_checkpoint_serves_decoding(tmp_path: Path) -> None:
    network = load_network(CODEC, Checkpoint.open(save(tensors_of(CODEC), tmp_path)), decode_only=True)
    assert isinstance(network, HeartCodec)
    assert network.scalar_model.encoder is None


Change = Callable[[Tensors], Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("projection.weight"), r"model\.safetensors: missing projection\.weight$"),
        (lambda t: t.update(extra=torch.zeros(2)), r"model\.safetensors: unknown extra$"),
        (
            lambda t: t.update({"backbone.norm.scale": torch.ones(17)}),
            r"model\.safetensors: backbone\.norm\.scale: expected shape \[16\], got \[17\]",
        ),
        (lambda t: t["audio_head"].view(-1)[-1:].fill_(math.nan), r"model\.safetensors: audio_head: .* not finite"),
        (lambda t: t["muq_linear.bias"][:1].fill_(math.inf), r"model\.safetensors: muq_linear\.bias: .* not finite"),
        (
            lambda t: t.update({"muq_linear.bias": torch.full((16,), 1e300, dtype=torch.float64)}),
            r"muq_linear\.bias: .* not finite in float32",
        ),
    ],
)
@pytest.mark.parametrize("saver", [save, save_sharded])
def test_bad_tensors_are_named(
    tmp_path: Path, change: Change, message: str, saver: Callable[[Tensors, Path], Path]
) -> None:
    tensors = tensors_of(LM)
    change(tensors)
    if saver is save_sharded:
        message = message.replace(r"model\.safetensors", r"model[^:]*")
    with pytest.raises(CheckpointError, match=message):
        load_network(LM, Checkpoint.open(saver(tensors, tmp_path)))


def test_a_value_too_large_for_float16_is_an_error(tmp_path: Path) -> None:
    tensors = tensors_of(LM)
    tensors["projection.weight"][0, 0] = 1e5
    source = Checkpoint.open(save(tensors, tmp_path))
    load_network(LM, source, dtype=torch.bfloat16)
    with pytest.raises(CheckpointError, match=r"projection\.weight: too large for float16"):
        load_network(LM, source, dtype=torch.float16)


def test_nothing_is_loaded_unless_names_and_shapes_fit(tmp_path: Path) -> None:
    tensors = tensors_of(LM)
    tensors["projection.weight"] = torch.zeros(3)
    module = build_module(LM)
    with pytest.raises(CheckpointError):
        load_module(module, Checkpoint.open(save(tensors, tmp_path)))
    assert all(value.is_meta for value in module.state_dict().values())


def test_a_zero_direction_cannot_be_folded(tmp_path: Path) -> None:
    source = Checkpoint.open(save({"a.weight_g": torch.ones(2, 1, 1), "a.weight_v": torch.zeros(2, 3, 4)}, tmp_path))
    with pytest.raises(CheckpointError, match=r"a\.weight_v: weight norm cannot be folded"):
        source.array("a.weight")


# --------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    path = save(tensors_of(LM), tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated"):
        Checkpoint.open(tmp_path)


def test_a_file_cut_after_it_was_opened_is_an_error_not_a_crash(tmp_path: Path) -> None:
    path = save(tensors_of(LM), tmp_path) / "model.safetensors"
    checkpoint = Checkpoint.open(tmp_path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*: the file ends inside the tensor"):
        load_network(LM, checkpoint)


def raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a checkpoint at all, but long enough", "truncated, or not a safetensors file"),
        (raw(b"{]"), "damaged header"),
        (raw(b"\xff\xfe"), "damaged header"),
        (raw([1, 2]), "damaged header: expected a JSON object"),
        (raw({"a": 3}), "a: damaged header entry"),
        (raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}), "a: damaged header entry"),
        (
            raw({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, b"00"),
            "dtype F8_E4M3 is not supported",
        ),
        (raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"0000"), r"4 bytes do not hold F32 \[2\]"),
        (raw({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}, b"0000"), "do not hold"),
        (raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"0000"), "truncated: a ends at byte"),
    ],
)
def test_damaged_headers_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: .*{message}|model\.safetensors: {message}"):
        Checkpoint.open(tmp_path)


def test_an_empty_or_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        Checkpoint.open(tmp_path)
    with pytest.raises(CheckpointError, match=r"gone: cannot be opened: No such file"):
        Checkpoint.open(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be opened"):
        _ = Checkpoint.open(save({"a": torch.zeros(1)}, tmp_path)).config


def test_several_files_without_an_index_are_refused(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        save({"x": torch.zeros(1)}, tmp_path, name)
    with pytest.raises(CheckpointError, match=r"expected one \*\.safetensors, found a\.safetensors, b\.safetensors"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        ('{"weight_map": 3}', "expected a weight_map"),
        ('{"weight_map": {"x": "../x.safetensors"}}', "not a plain file name"),
        ('{"weight_map": {"x": "gone.safetensors"}}', r"gone\.safetensors: cannot be opened"),
        ('{"weight_map": {"x": "one.safetensors", "y": "one.safetensors"}}', "shards lack y"),
        ('{"weight_map": {"x": "one.safetensors", "y": "two.safetensors"}}', "tensor x is also in .*one"),
    ],
)
def test_a_bad_index_is_named(tmp_path: Path, index: str, message: str) -> None:
    save({"x": torch.zeros(1)}, tmp_path, "one.safetensors")
    save({"x": torch.zeros(1), "y": torch.zeros(1)}, tmp_path, "two.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(tmp_path)


# ----------------------------------------------------------------------------------------------- size and manifest


def test_manifest_is_the_module_s_own() -> None:
    assert manifest(LM) == {name: tuple(value.shape) for name, value in tensors_of(LM).items()}
    assert random_checkpoint(LM, 0).shape("audio_head") == (7, 16, 21)


@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "f0"])  # that is a published graph
def test_every_network_loads_its_random_weights(network: Network) -> None:
    sizes = layout.network_sizes(PRESETS["tiny"], network)
    source, other = random_checkpoint(sizes, 3), random_checkpoint(sizes, 4)
    state = load_network(sizes, source).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == manifest(sizes)
    assert all(value.isfinite().all() for value in state.values())
    wide = max(state, key=lambda name: state[name].numel())
    assert state[wide].std() > 0
    np.testing.assert_array_equal(source.array(wide), random_checkpoint(sizes, 3).array(wide))
    assert not np.array_equal(source.array(wide), other.array(wide))


def test_random_weights_are_a_source_like_any_other(tmp_path: Path) -> None:
    source = random_checkpoint(LM, 1)
    assert_loads(source, tensors_of(LM), LM)
    with pytest.raises(CheckpointError, match="random weights of seed 1: no tensor gone"):
        source.array("gone")


def test_sources_give_arrays_that_the_caller_owns(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save({"a": torch.zeros(3), "n": torch.tensor([True, False])}, tmp_path))
    array: npt.NDArray[np.float32] = checkpoint.array("a")
    array += 1
    assert checkpoint.array("a").tolist() == [0, 0, 0]
    assert checkpoint.array("n").tolist() == [True, False]
