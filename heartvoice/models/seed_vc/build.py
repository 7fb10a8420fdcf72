"""Makes the converter's networks by their sizes. Importing this imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heartvoice.config.svc import DitConfig, RegulatorConfig, WhisperConfig

if TYPE_CHECKING:
    from torch import nn

AnyPart = WhisperConfig | RegulatorConfig | DitConfig


def build_part(sizes: AnyPart) -> nn.Module:
    """Build content encoder, regulator or velocity network, on torch's default device."""
    match sizes:
        case WhisperConfig():
            from heartvoice.models.seed_vc.whisper import ContentEncoder

            return ContentEncoder(sizes)
        case RegulatorConfig():
            from heartvoice.models.seed_vc.regulator import Regulator

            return Regulator(sizes)
        case DitConfig():
            from heartvoice.models.seed_vc.dit import Velocity

            return Velocity(sizes)


def part_manifest(sizes: AnyPart) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's used tensors."""
    from heartvoice.models.meta_build import on_meta_device

    with on_meta_device():
        return {name: tuple(tensor.shape) for name, tensor in build_part(sizes).state_dict().items()}
