"""Finds, verifies and loads weights: official checkpoints on disk, or random weights on demand.

Values are read in pieces directly into their destination, so loading needs little more memory than the network.
Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from heartvoice.checkpoints.bigvgan import RandomBigvgan
from heartvoice.checkpoints.random_f0 import rmvpe_init
from heartvoice.checkpoints.random_init import InitFn, RandomCheckpoint, heartcodec_init, heartmula_init
from heartvoice.checkpoints.random_roformer import roformer_init
from heartvoice.checkpoints.safetensors_reader import Checkpoint, TensorSource, listed
from heartvoice.checkpoints.speaker import speaker_init
from heartvoice.checkpoints.spleeter import spleeter_init
from heartvoice.config.presets import (
    AnyF0,
    AnySeparator,
    AnySpeaker,
    BigvganConfig,
    CampplusConfig,
    DitConfig,
    EcapaConfig,
    HeartCodecConfig,
    HeartMuLaConfig,
    RegulatorConfig,
    RmvpeConfig,
    RoformerConfig,
    SeparatorConfig,
    SpeakerConfig,
    SpleeterConfig,
    SwiftF0Config,
    WavlmConfig,
    WhisperConfig,
)
from heartvoice.errors import CheckpointError
from heartvoice.models.demucs import build_separator, separator_init
from heartvoice.models.seed_vc.build import AnyPart, build_part
from heartvoice.models.seed_vc.random_init import part_init

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "AnyConfig",
    "Checkpoint",
    "TensorSource",
    "build_module",
    "listed",
    "load_module",
    "load_network",
    "manifest",
    "random_checkpoint",
]  # fmt: skip

_Drawn = HeartMuLaConfig | HeartCodecConfig | AnySeparator | AnySpeaker | AnyF0 | AnyPart
"""Networks whose random weights follow from an `InitFn` alone; the vocoder has fixed filters too."""
AnyConfig = _Drawn | BigvganConfig


def build_module(sizes: AnyConfig, *, decode_only: bool = False) -> nn.Module:
    """Build a network on torch's meta device: names and shapes without memory.

    Args:
        sizes: select the network. swift-f0 is a published graph and has none.
        decode_only: omit HeartCodec's parts for training and encoding.

    Raises:
        TypeError: the network has no module.
    """
    from heartvoice.models.meta_build import on_meta_device

    with on_meta_device():
        match sizes:
            case HeartMuLaConfig():
                from heartvoice.models.heartmula import HeartMuLa

                return HeartMuLa(sizes)
            case HeartCodecConfig():
                from heartvoice.models.heartcodec.codec import HeartCodec

                return HeartCodec(sizes, decode_only=decode_only)
            case SeparatorConfig() | SpleeterConfig() | RoformerConfig():
                return _build_separator(sizes)
            case SpeakerConfig() | CampplusConfig() | EcapaConfig() | WavlmConfig():
                from heartvoice.models.speaker import build_speaker

                return build_speaker(sizes)
            case RmvpeConfig():
                from heartvoice.models.rmvpe import Rmvpe

                return Rmvpe(sizes)
            case WhisperConfig() | RegulatorConfig() | DitConfig():
                return build_part(sizes)
            case BigvganConfig():
                from heartvoice.models.bigvgan import Bigvgan

                return Bigvgan(sizes)
            case SwiftF0Config():
                raise TypeError("sizes: expected a network with a PyTorch module, got swift-f0, a published graph")


def _build_separator(sizes: AnySeparator) -> nn.Module:
    if isinstance(sizes, SeparatorConfig):
        return build_separator(sizes)
    if isinstance(sizes, SpleeterConfig):
        from heartvoice.models.spleeter import Spleeter

        return Spleeter(sizes)
    from heartvoice.models.roformer.network import Roformer

    return Roformer(sizes)


def manifest(sizes: AnyConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's tensors, derived from the module itself."""
    return {name: tuple(tensor.shape) for name, tensor in build_module(sizes).state_dict().items()}


def load_module(
    module: nn.Module, source: TensorSource, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> None:
    """Set every tensor of a module, in pieces and without a second copy.

    Args:
        module: on any device, including meta. Its optional method `never_read(name)` marks tensors that a checkpoint
            may lack (they become zero) or contain unused.
        source: source of the values.
        dtype: dtype of floating-point tensors; None is float32.
        device: destination of the values.

    Raises:
        CheckpointError: a tensor is missing, unknown, not finite or has the wrong shape. Nothing is loaded unless all
            names and shapes fit.
    """
    import torch

    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    never_read = getattr(module, "never_read", lambda _name: False)
    _check_names(wanted, source, never_read)
    for name, shape in wanted.items():
        if source.parts(name):
            value = _read(source, name, shape, dtype or torch.float32, device)
        else:
            value = torch.zeros(shape, dtype=dtype, device=device)
        _assign(module, name, value)


def _read(
    source: TensorSource, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str
) -> torch.Tensor:
    import torch

    value: torch.Tensor | None = None
    start = 0
    for array in source.pieces(name):
        piece = torch.from_numpy(array)
        if value is None:
            value = torch.empty(shape, dtype=dtype if piece.is_floating_point() else piece.dtype, device=device)
        written = value.view(-1)[start : start + len(piece)]
        written.copy_(piece)
        if dtype is torch.float16 and not bool(written.isfinite().all()):
            raise CheckpointError(f"{source.where(source.parts(name)[-1])}: too large for float16")
        start += len(piece)
    if value is None:
        raise CheckpointError(f"{source.where(name)}: expected values, got none")
    return value


def _check_names(wanted: dict[str, tuple[int, ...]], source: TensorSource, never_read: Callable[[str], bool]) -> None:
    missing = [name for name in wanted if not source.parts(name) and not never_read(name)]
    if missing:
        raise CheckpointError(f"{source}: missing {listed(missing)}")
    used = {part for name in wanted for part in source.parts(name)}
    unknown = [name for name in source.names - used if not never_read(name)]
    if unknown:
        raise CheckpointError(f"{source}: unknown {listed(unknown)}")
    for name, shape in wanted.items():
        parts = source.parts(name)
        if parts and source.shape(name) != shape:
            where = source.where(parts[-1])
            raise CheckpointError(f"{where}: expected shape {list(shape)}, got {list(source.shape(name))}")


def _assign(module: nn.Module, name: str, value: torch.Tensor) -> None:
    from torch import nn

    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value


def load_network(
    sizes: AnyConfig,
    source: TensorSource,
    *,
    decode_only: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Build and load a network, in evaluation mode; arguments as for `build_module` and `load_module`."""
    module = build_module(sizes, decode_only=decode_only)
    load_module(module, source, dtype=dtype, device=device)
    return module.eval()


def random_checkpoint(sizes: AnyConfig, seed: int) -> TensorSource:
    """Return a network's random weights, drawn tensor by tensor on demand; its output is noise."""
    if isinstance(sizes, BigvganConfig):
        return RandomBigvgan(manifest(sizes), seed, sizes)
    return RandomCheckpoint(manifest(sizes), seed, _init_fn(sizes))


def _init_fn(sizes: _Drawn) -> InitFn:
    match sizes:
        case HeartMuLaConfig():
            return heartmula_init(sizes)
        case HeartCodecConfig():
            return heartcodec_init(sizes)
        case SeparatorConfig():
            return separator_init(sizes)
        case RoformerConfig():
            return roformer_init(sizes)
        case SpleeterConfig():
            return spleeter_init()
        case SpeakerConfig() | CampplusConfig() | EcapaConfig() | WavlmConfig():
            return speaker_init(sizes)
        case RmvpeConfig():
            return rmvpe_init(sizes)
        case WhisperConfig() | RegulatorConfig() | DitConfig():
            return part_init(sizes)
        case SwiftF0Config():
            raise TypeError("sizes: expected a network with random weights, got swift-f0, which is published only")
