"""Profiles of machines: what is passed to the server, and that it fits what the models send."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heartvoice.config.presets import PRESETS, SeparatorConfig
from heartvoice.contracts.constants import MAX_FILE_BYTES
from heartvoice.contracts.models import HTDEMUCS, LOADED, MODELS
from heartvoice.errors import ModelUnavailableError, SetupError
from heartvoice.optional_dependencies import require
from heartvoice.server import memory_estimate, profiles
from heartvoice.server.command_line import Launch
from heartvoice.server.options import ServerOptions
from heartvoice.server.ports import ANY, check_address
from heartvoice.server.profiles import GB10
from heartvoice.server.server import EmbeddedServer
from heartvoice.server.triton_wheel import ServerFiles

NATIVE = ServerFiles(Path("/opt/tritonserver/bin/tritonserver"))


def command(**options: object) -> list[str]:
    chosen = ServerOptions(Path("repository"), files=NATIVE, **options)  # type: ignore[arg-type]
    return Launch(chosen, NATIVE, LOADED, Path("/opt/tritonserver/backends"), (Path("/repository"),)).command()


def test_every_flag_of_a_profile_reaches_the_server() -> None:
    plain = [argument.partition("=")[0] for argument in command()]
    added = [argument for argument in command(profile=GB10) if argument.partition("=")[0] not in plain]
    assert added == GB10.arguments
    assert "--model-load-thread-count=1" in GB10.arguments


def test_variables_of_a_profile_give_way_to_the_users() -> None:
    env = GB10.environment({"HEARTVOICE_DEVICE": "cpu", "PATH": "/bin"})
    assert env["HEARTVOICE_DEVICE"] == "cpu"
    assert env["PATH"] == "/bin"
    assert env["CUDA_MODULE_LOADING"] == "LAZY"


def test_pools_hold_the_largest_joined_call() -> None:
    batch = HTDEMUCS.max_batch_size * memory_estimate.segment_bytes(PRESETS["oss-3b"].separator)
    pools = {flag.name: int(flag.value.rpartition(":")[2]) for flag in GB10.flags}
    assert batch <= pools["pinned-memory-pool-byte-size"] < 2 * batch
    assert 2 * batch <= pools["cuda-memory-pool-byte-size"] < 4 * batch
    assert GB10.pool_bytes == pools["pinned-memory-pool-byte-size"] + pools["cuda-memory-pool-byte-size"]


def test_shared_memory_holds_four_of_the_largest_tensors_of_each_model() -> None:
    n_models = sum(model.backend == "python" for model in MODELS.values())
    assert n_models * 4 * MAX_FILE_BYTES <= GB10.shm_bytes


def test_only_a_native_server_may_listen_beyond_loopback() -> None:
    assert "--grpc-address=0.0.0.0" in command(address=ANY)
    assert "--metrics-address=0.0.0.0" in command(address=ANY)
    assert "--grpc-address=127.0.0.1" in command()
    with pytest.raises(
        SetupError, match=r"--address: the embedded server listens on 127\.0\.0\.1 or a Unix .*0\.0\.0\.0"
    ):
        check_address(ANY)
    assert EmbeddedServer(ServerOptions(Path("r"), 9001, files=NATIVE, address=ANY)).url == "127.0.0.1:9001"


def test_unknown_profile_is_named() -> None:
    with pytest.raises(SetupError, match="--profile: expected one of gb10, got 'gb200'"):
        profiles.find("gb200", "--profile")


def test_footprint_counts_what_it_says() -> None:
    preset = PRESETS["tiny"]
    one, two = (memory_estimate.footprint(preset, songs=songs, codec="fp32") for songs in (1, 2))
    row = memory_estimate.kv_bytes(preset.lm.backbone, positions=preset.max_positions, rows=1)
    more = memory_estimate.total_bytes(two) - memory_estimate.total_bytes(one)
    assert more == 2 * row + memory_estimate.separator_bytes(preset.separator)
    half = memory_estimate.footprint(preset, songs=1, codec="bf16")
    weights = {part.name: part.n_bytes for part in (*one, *half) if part.name == "HeartCodec's weights"}
    assert weights["HeartCodec's weights"] * 2 == next(p.n_bytes for p in one if p.name == "HeartCodec's weights")


def test_keys_and_values_are_those_of_the_engine() -> None:
    import torch

    from heartvoice.stages.lm.engine_torch import TorchEngine

    preset = replace(PRESETS["tiny"], max_positions=700)
    from heartvoice.models.heartmula import HeartMuLa
    from heartvoice.models.load import load_network, random_checkpoint

    network = load_network(preset.lm, random_checkpoint(preset.lm, 0)).bfloat16()
    assert isinstance(network, HeartMuLa)
    engine = TorchEngine(network, preset, n_slots=1)
    assert engine.kv_limit == memory_estimate.kv_bytes(preset.lm.backbone, positions=700)
    assert torch.bfloat16 == network.audio_head.dtype


def test_separator_is_counted_without_demucs_as_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = PRESETS["oss-3b"].separator
    assert isinstance(sizes, SeparatorConfig)
    counted = memory_estimate.values.__wrapped__(sizes)
    monkeypatch.setattr("heartvoice.server.memory_estimate.importlib.util.find_spec", lambda _: None)
    assert memory_estimate.values.__wrapped__(sizes) == counted == sizes.n_models * memory_estimate.HTDEMUCS_VALUES


def test_missing_demucs_on_aarch64_is_told_with_the_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "heartvoice.optional_dependencies.importlib.util.find_spec", lambda name: None if name == "demucs" else True
    )
    monkeypatch.setattr("heartvoice.optional_dependencies.platform.machine", lambda: "aarch64")
    with pytest.raises(ModelUnavailableError, match="make the repository on x86-64 and copy it"):
        require("export", "torch", "demucs")
