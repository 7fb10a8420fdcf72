"""BigVGAN v2 vocoder: mel frames to samples. Weight norm is folded; inference does not need it.

Source: seed_vc spec, section 11; S. Lee, W. Ping, B. Ginsburg, B. Catanzaro, S. Yoon, "BigVGAN: A Universal Neural
Vocoder with Large-Scale Training", 2023. Names are those of the official file after its weight norm is removed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d, pad

from heartvoice.checkpoints.bigvgan import (
    BETA_FLOOR,
    POST_KERNEL,
    PRE_KERNEL,
    TAPS,
    check_sizes,
    check_tensors,
    filter_taps,
    read_sizes,
)
from heartvoice.checkpoints.safetensors_reader import Checkpoint, TensorSource
from heartvoice.checkpoints.torch_reader import TorchFile
from heartvoice.config.svc import BigvganConfig
from heartvoice.errors import CheckpointError
from heartvoice.models.meta_build import on_meta_device

GENERATOR, CONFIG = "bigvgan_generator.pt", "config.json"
UP_PAD, UP_CROP, DOWN_PADS = 5, 15, (5, 6)
"""Samples padded before upsampling, cropped after it, and padded before downsampling."""


def open_bigvgan(folder: Path) -> tuple[BigvganConfig, TensorSource]:
    """Open a published vocoder: `config.json` with `bigvgan_generator.pt` or safetensors.

    Args:
        folder: contains the files; weight norm may be present or folded.

    Returns:
        Sizes of the configuration, and the weights.

    Raises:
        CheckpointError: a file is missing or damaged, the network is an unsupported variant, or a tensor does not fit.
    """
    config = folder / CONFIG
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{config}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{config}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{config}: expected a JSON object")
    sizes = read_sizes(values, str(config))
    pickled = folder / GENERATOR
    source: TensorSource = (
        TorchFile.open(pickled, lambda value: value["generator"]) if pickled.is_file() else Checkpoint.open(folder)
    )
    check_tensors(source, bigvgan_manifest(sizes))
    return sizes, source


def bigvgan_manifest(sizes: BigvganConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the network's tensors."""
    with on_meta_device():
        return {name: tuple(tensor.shape) for name, tensor in Bigvgan(sizes).state_dict().items()}


class SnakeBeta(nn.Module):
    """Snake activation x + sin(x e^alpha)^2 / e^beta, with alpha and beta per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to the same."""
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + torch.sin(x * alpha) ** 2 / (beta + BETA_FLOOR)


class Filter(nn.Module):
    """Low-pass filter; the checkpoint stores a copy of its taps for each activation."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", torch.tensor(filter_taps().tolist()).view(1, 1, TAPS))


class Upsample(Filter):
    """Upsamples by 2; the ends are padded by repeating the edge sample."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C, 2 T]."""
        n_channels = x.shape[1]
        kernel = self.filter.expand(n_channels, 1, TAPS)
        out = 2 * conv_transpose1d(pad(x, (UP_PAD, UP_PAD), mode="replicate"), kernel, stride=2, groups=n_channels)
        return out[..., UP_CROP:-UP_CROP]


class LowPass(Filter):
    """Low-pass filters and downsamples by 2, with the same padding."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, 2 T] to [B, C, T]."""
        n_channels = x.shape[1]
        kernel = self.filter.expand(n_channels, 1, TAPS)
        return conv1d(pad(x, DOWN_PADS, mode="replicate"), kernel, stride=2, groups=n_channels)


class Downsample(nn.Module):
    """The low-pass filter under the checkpoint's name."""

    def __init__(self) -> None:
        super().__init__()
        self.lowpass = LowPass()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, 2 T] to [B, C, T]."""
        out: Tensor = self.lowpass(x)
        return out


class Activation(nn.Module):
    """SnakeBeta at twice the rate, which keeps its harmonics from aliasing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = SnakeBeta(channels)
        self.upsample, self.downsample = Upsample(), Downsample()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to the same."""
        out: Tensor = self.downsample(self.act(self.upsample(x)))
        return out


def _same(channels: int, kernel: int, dilation: int = 1) -> nn.Conv1d:
    """Make a convolution that keeps the length."""
    return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)


class AmpBlock(nn.Module):
    """Residual pairs of convolutions, each preceded by an activation."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_same(channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same(channels, kernel) for _ in dilations)
        self.activations = nn.ModuleList(Activation(channels) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to the same."""
        for index, (first, second) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            branch = first(self.activations[2 * index](x))
            x = x + second(self.activations[2 * index + 1](branch))
        return x


class Bigvgan(nn.Module):
    """The complete vocoder."""

    def __init__(self, sizes: BigvganConfig) -> None:
        super().__init__()
        check_sizes(sizes, "BigVGAN")
        channels = sizes.upsample_initial_channel
        self.conv_pre = nn.Conv1d(sizes.num_mels, channels, PRE_KERNEL, padding=PRE_KERNEL // 2)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(sizes.upsample_rates, sizes.upsample_kernel_sizes, strict=True):
            up = nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(nn.ModuleList([up]))
            channels //= 2
            for size, dilations in zip(sizes.resblock_kernel_sizes, sizes.resblock_dilation_sizes, strict=True):
                self.resblocks.append(AmpBlock(channels, size, dilations))
        self.activation_post = Activation(channels)
        self.conv_post = nn.Conv1d(channels, 1, POST_KERNEL, padding=POST_KERNEL // 2, bias=False)
        self.n_parallel = len(sizes.resblock_kernel_sizes)

    def forward(self, mel: Tensor) -> Tensor:
        """Synthesise samples from mel frames.

        Args:
            mel: float32 [B, num_mels, T], natural logarithms of magnitudes.

        Returns:
            float32 [B, 1, T * hop] in [-1, 1].
        """
        x = self.conv_pre(mel)
        for stage, up in enumerate(self.ups):
            x = cast("nn.ModuleList", up)[0](x)
            blocks = self.resblocks[stage * self.n_parallel : (stage + 1) * self.n_parallel]
            x = torch.stack([block(x) for block in blocks]).mean(dim=0)
        audio: Tensor = self.conv_post(self.activation_post(x)).clamp(-1, 1)
        return audio
