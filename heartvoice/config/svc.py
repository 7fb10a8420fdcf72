"""Sizes of the voice conversion networks (seed_vc spec); defaults are the official checkpoints'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heartvoice.config.base import from_mapping

SVC_HOP = 512
"""Samples per mel frame at 44.1 kHz."""


@dataclass(frozen=True)
class WhisperConfig:
    """Whisper encoder, with the names of its `config.json` (section 3)."""

    d_model: int = 768
    encoder_layers: int = 12
    encoder_attention_heads: int = 12
    encoder_ffn_dim: int = 3072
    num_mel_bins: int = 80
    max_source_positions: int = 1500


@dataclass(frozen=True)
class RegulatorConfig:
    """Length regulator (section 6)."""

    channels: int = 768
    in_channels: int = 768
    n_f0_bins: int = 256
    n_stages: int = 4


@dataclass(frozen=True)
class DitConfig:
    """Velocity estimator of the flow (section 9)."""

    hidden_dim: int = 768
    num_heads: int = 12
    depth: int = 17
    in_channels: int = 128
    """Mel bands."""
    content_dim: int = 768
    style_dim: int = 192

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_dim // self.num_heads

    @property
    def ffn_dim(self) -> int:
        """Width of the feed-forward layer: 8/3 of hidden_dim, rounded up to a multiple of 256."""
        return -(-int(2 * 4 * self.hidden_dim / 3) // 256) * 256


@dataclass(frozen=True)
class BigvganConfig:
    """BigVGAN v2, with the names of its `config.json` (section 11)."""

    num_mels: int = 128
    upsample_rates: tuple[int, ...] = (8, 4, 2, 2, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 8, 4, 4, 4, 4)
    upsample_initial_channel: int = 1536
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        hop = 1
        for rate in self.upsample_rates:
            hop *= rate
        return hop


@dataclass(frozen=True)
class SvcConfig:
    """Converter networks, except F0 and style encoder, which the preset names separately."""

    whisper: WhisperConfig = field(default_factory=WhisperConfig)
    regulator: RegulatorConfig = field(default_factory=RegulatorConfig)
    dit: DitConfig = field(default_factory=DitConfig)
    vocoder: BigvganConfig = field(default_factory=BigvganConfig)

    def __post_init__(self) -> None:
        if self.whisper.d_model != self.regulator.in_channels:
            raise ValueError(f"Whisper's width differs from the regulator's input width: {self}")
        if self.regulator.channels != self.dit.content_dim:
            raise ValueError(f"the regulator's width differs from the estimator's condition width: {self}")
        if self.dit.in_channels != self.vocoder.num_mels or self.vocoder.hop != SVC_HOP:
            raise ValueError(f"estimator and vocoder disagree on the mel spectrum: {self}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SvcConfig:
        """Read an entry of an export's index."""
        kinds = {"whisper": WhisperConfig, "regulator": RegulatorConfig, "dit": DitConfig, "vocoder": BigvganConfig}
        return cls(**{name: from_mapping(kind, config[name]) for name, kind in kinds.items()})
