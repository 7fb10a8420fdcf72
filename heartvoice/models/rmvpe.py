"""RMVPE pitch estimator: U-Net over log-mel frames and bidirectional GRU, to 360 saliences.

Front end and decoding of the saliences need no torch; they are in `heartvoice.stages.f0`. Source: seed_vc spec,
section 4; Wei, Cao, Dan and Chen, "RMVPE: a robust model for vocal pitch estimation in polyphonic music", 2023.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from heartvoice.checkpoints.torch_reader import TorchFile
from heartvoice.config.presets import RmvpeConfig

CNN_CHANNELS = 3
"""Channels of the projection between U-Net and GRU."""


def open_rmvpe(path: Path) -> TorchFile:
    """Open the official `rmvpe.pt`: a flat state dict in half precision.

    Raises:
        CheckpointError: the file is missing or damaged, or has other content.
    """
    return TorchFile.open(path)


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU, and a shortcut; no activation after the sum."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, M] to [B, C', T, M]."""
        out: Tensor = self.conv(x) + self.shortcut(x)
        return out


def _blocks(n_blocks: int, channels_in: int, channels_out: int) -> nn.ModuleList:
    first = Block(channels_in, channels_out)
    return nn.ModuleList([first, *(Block(channels_out, channels_out) for _ in range(n_blocks - 1))])


class Level(nn.Module):
    """Blocks at one resolution."""

    def __init__(self, n_blocks: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = _blocks(n_blocks, channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, M] to [B, C', T, M]."""
        for block in self.conv:
            x = block(x)
        return x


class UpLevel(nn.Module):
    """Transposed convolution to twice the resolution, then blocks over its output and the skip."""

    def __init__(self, n_blocks: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )
        self.conv2 = _blocks(n_blocks, 2 * channels_out, channels_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """[B, 2 C, T, M] and [B, C, 2 T, 2 M] to [B, C, 2 T, 2 M]."""
        x = torch.cat([self.conv1(x), skip], dim=1)
        for block in self.conv2:
            x = block(x)
        return x


class Encoder(nn.Module):
    """Levels that halve time and frequency and double the channels."""

    def __init__(self, sizes: RmvpeConfig) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(sizes.in_channels)
        widths = [sizes.in_channels, *(sizes.en_out_channels * 2**level for level in range(sizes.en_de_layers))]
        self.layers = nn.ModuleList(Level(sizes.n_blocks, below, above) for below, above in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[B, C, T, M] to the pooled deepest level and all levels before pooling, first to last."""
        x, skips = self.bn(x), []
        for level in self.layers:
            skips.append(level(x))
            x = avg_pool2d(skips[-1], 2)
        return x, skips


class Intermediate(nn.Module):
    """Levels at the lowest resolution."""

    def __init__(self, sizes: RmvpeConfig) -> None:
        super().__init__()
        width = sizes.en_out_channels * 2**sizes.en_de_layers
        self.layers = nn.ModuleList(
            Level(sizes.n_blocks, width if index else width // 2, width) for index in range(sizes.inter_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, M] to [B, 2 C, T, M]."""
        for level in self.layers:
            x = level(x)
        return x


class Decoder(nn.Module):
    """Decoder, the mirror image of the encoder."""

    def __init__(self, sizes: RmvpeConfig) -> None:
        super().__init__()
        widths = [sizes.en_out_channels * 2**level for level in range(sizes.en_de_layers, -1, -1)]
        self.layers = nn.ModuleList(UpLevel(sizes.n_blocks, 2 * width, width) for width in widths[1:])

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """Deepest level and the encoder's levels, first to last, to [B, en_out_channels, T, M]."""
        for level, skip in zip(self.layers, reversed(skips), strict=True):
            x = level(x, skip)
        return x


class UNet(nn.Module):
    """Encoder, intermediate levels, decoder."""

    def __init__(self, sizes: RmvpeConfig) -> None:
        super().__init__()
        self.encoder, self.intermediate, self.decoder = Encoder(sizes), Intermediate(sizes), Decoder(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, T, M] to [B, en_out_channels, T, M]; T and M are multiples of 2^en_de_layers."""
        deepest, skips = self.encoder(x)
        out: Tensor = self.decoder(self.intermediate(deepest), skips)
        return out


class BiGru(nn.Module):
    """Bidirectional GRU with zero initial state."""

    def __init__(self, width_in: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width_in, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, 2 hidden]."""
        out: Tensor = self.gru(x)[0]
        return out


class Rmvpe(nn.Module):
    """Log-mel frames to saliences; names are those of the official checkpoint."""

    def __init__(self, sizes: RmvpeConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.unet = UNet(sizes)
        self.cnn = nn.Conv2d(sizes.en_out_channels, CNN_CHANNELS, 3, padding=1)
        self.fc = nn.Sequential(
            BiGru(CNN_CHANNELS * sizes.n_mels, sizes.gru_hidden),
            nn.Linear(2 * sizes.gru_hidden, sizes.n_bins),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Estimate saliences.

        Args:
            features: float32 [B, n_mels, T], natural logarithms of mel magnitudes; T is a multiple of 2^en_de_layers.

        Returns:
            float32 [B, T, n_bins] in (0, 1).
        """
        x = self.cnn(self.unet(features.transpose(1, 2).unsqueeze(1)))  # [B, 3, T, n_mels]
        salience: Tensor = self.fc(x.transpose(1, 2).flatten(2))
        return salience

    @staticmethod
    def never_read(name: str) -> bool:
        """Return True for batch norm's counters, which inference does not use."""
        return name.endswith(".num_batches_tracked")
