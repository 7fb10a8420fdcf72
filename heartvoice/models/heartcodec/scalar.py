"""The scalar codec: a convolutional encoder and decoder around latents rounded to 19 levels.

Source: heartcodec spec, section 6.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, pad
from torch.nn.utils import parametrize

from heartvoice.config.presets import HeartCodecConfig

LEVELS = 9
"""Levels on each side of zero."""
DILATIONS = (1, 3, 5, 7, 9)
M = TypeVar("M", bound=nn.Module)


class WeightNorm(nn.Module):
    """Weight g * v / |v|, one gain per entry of axis 0 (a transposed convolution's input channel).

    It has the tensor names of torch's own `weight_norm`. That function computes the initial weight's norm, which on the
    meta device imports torch's compiler (2 s).
    """

    def forward(self, gain: Tensor, direction: Tensor) -> Tensor:
        """Return the effective weight [C, ...] of gain [C, 1, 1] and direction [C, ...]."""
        return direction * (gain / torch.norm_except_dim(direction, 2, 0))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return initial gain and direction."""
        return torch.ones(weight.shape[0], 1, 1, device=weight.device), weight


def weight_norm(module: M) -> M:
    """Represent a convolution's weight by gain and direction."""
    parametrize.register_parametrization(module, "weight", WeightNorm(), unsafe=True)
    return module


class Conv(nn.Conv1d):
    """Convolution with zero padding: on the left only if causal, else on both sides."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, *, causal: bool, stride: int = 1, dilation: int = 1
    ) -> None:
        """Make the convolution; `causal` may differ from the model's."""
        super().__init__(channels_in, channels_out, kernel, stride, dilation=dilation)
        reach = dilation * (kernel - 1)
        self.pads = (reach, 0) if causal else (reach // 2, reach // 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C', ceil(T / stride)] if causal."""
        return super().forward(pad(x, self.pads))


class ConvTranspose(nn.ConvTranspose1d):
    """Transposed convolution; the causal one drops the samples that depend on no later input."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, *, causal: bool) -> None:
        """Make the convolution; a causal one needs kernel = 2 * stride."""
        super().__init__(channels_in, channels_out, kernel, stride, padding=0 if causal else (kernel - stride) // 2)
        self.drop = stride if causal else 0

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, C, T] to [B, C', T * stride] if causal."""
        out = super().forward(x, output_size)
        return out[..., : out.shape[-1] - self.drop] if self.drop else out


class ResidualUnit(nn.Module):
    """x + act2(conv2(act1(conv1 x)))."""

    def __init__(self, channels: int, kernel: int, dilation: int, *, causal: bool) -> None:
        """Make both convolutions and activations."""
        super().__init__()
        self.conv1 = weight_norm(Conv(channels, channels, kernel, dilation=dilation, causal=causal))
        self.activation1 = nn.PReLU()
        self.conv2 = weight_norm(Conv(channels, channels, 1, causal=causal))
        self.activation2 = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to the same."""
        branch: Tensor = self.activation2(self.conv2(self.activation1(self.conv1(x))))
        return x + branch


def _residual_units(channels: int, sizes: HeartCodecConfig) -> nn.Sequential:
    return nn.Sequential(
        *(ResidualUnit(channels, sizes.res_kernel_size, dilation, causal=sizes.causal) for dilation in DILATIONS)
    )


class Upsample(nn.Module):
    """A transposed convolution, under the checkpoint's name `layer`."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, factor: int, *, causal: bool) -> None:
        """Make the convolution."""
        super().__init__()
        self.layer = weight_norm(ConvTranspose(channels_in, channels_out, kernel, factor, causal=causal))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C', T * factor]."""
        out: Tensor = self.layer(x)
        return out


class Downsample(nn.Module):
    """A strided convolution and its activation."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, factor: int, *, causal: bool) -> None:
        """Make both."""
        super().__init__()
        self.layer = weight_norm(Conv(channels_in, channels_out, kernel, stride=factor, causal=causal))
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C', ceil(T / factor)]."""
        out: Tensor = self.activation(self.layer(x))
        return out


class DecoderStage(nn.Module):
    """Upsample, halve the channels, refine."""

    def __init__(self, channels: int, kernel: int, factor: int, sizes: HeartCodecConfig) -> None:
        """Make a stage of `channels` inputs."""
        super().__init__()
        self.up_conv = Upsample(channels, channels // 2, kernel, factor, causal=sizes.causal)
        self.convs = _residual_units(channels // 2, sizes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C / 2, T * factor]."""
        out: Tensor = self.convs(self.up_conv(x))
        return out


class EncoderStage(nn.Module):
    """Refine, downsample, double the channels."""

    def __init__(self, channels: int, kernel: int, factor: int, sizes: HeartCodecConfig) -> None:
        """Make a stage of `channels` inputs."""
        super().__init__()
        self.convs = _residual_units(channels, sizes)
        self.down_conv = Downsample(channels, 2 * channels, kernel, factor, causal=sizes.causal)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, 2 C, ceil(T / factor)]."""
        out: Tensor = self.down_conv(self.convs(x))
        return out


class PostProcessor(nn.Module):
    """Last upsampling: repeats samples, then a plain convolution."""

    def __init__(self, channels: int, sizes: HeartCodecConfig) -> None:
        """Make convolution and activation."""
        super().__init__()
        self.factor = sizes.num_samples
        self.conv = Conv(channels, channels, sizes.default_kernel_size, causal=sizes.causal)
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T * num_samples]."""
        out: Tensor = self.activation(self.conv(x.repeat_interleave(self.factor, dim=-1)))
        return out


class PreProcessor(nn.Module):
    """First downsampling: a plain convolution, then means; a remainder is dropped."""

    def __init__(self, channels: int, sizes: HeartCodecConfig) -> None:
        """Make convolution and activation."""
        super().__init__()
        self.factor = sizes.num_samples
        self.conv = Conv(channels, channels, sizes.default_kernel_size, causal=sizes.causal)
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T // num_samples]."""
        return avg_pool1d(self.activation(self.conv(x)), self.factor)


def quantize(latents: Tensor) -> Tensor:
    """Round to multiples of 1/9, half to even. Values beyond [-1, 1] are not clamped."""
    return torch.round(LEVELS * latents) / LEVELS


class ScalarModel(nn.Module):
    """The mono codec; a stereo song is a batch of two rows."""

    def __init__(self, sizes: HeartCodecConfig, *, decode_only: bool = False) -> None:
        """Make the decoder and, unless `decode_only`, the encoder."""
        super().__init__()
        self.encoder = None if decode_only else _encoder(sizes)
        self.decoder = _decoder(sizes)

    def encode(self, audio: Tensor) -> Tensor:
        """Encode audio to latents.

        Args:
            audio: float32 [B, num_bands, N].

        Returns:
            [B, latent_hidden_dim, about N / latent_hop], in (-1, 1), not rounded.

        Raises:
            RuntimeError: the model was made with `decode_only`.
        """
        if self.encoder is None:
            raise RuntimeError("encode: expected a model with an encoder, got one made with decode_only")
        out: Tensor = self.encoder(audio)
        return out

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents to audio; latents are rounded first, as in training.

        Args:
            latents: [B, latent_hidden_dim, T].

        Returns:
            [B, num_bands, T * latent_hop], not clipped.
        """
        out: Tensor = self.decoder(quantize(latents))
        return out

    def fold_weight_norm(self) -> None:
        """Replace gains and directions by the folded weights; this changes the state dict's names."""
        for module in self.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def _decoder(sizes: HeartCodecConfig) -> nn.Sequential:
    channels = sizes.init_channel * 2 ** len(sizes.upsample_factors)
    # The only convolution with look-ahead.
    parts: list[nn.Module] = [
        weight_norm(Conv(sizes.latent_hidden_dim, channels, sizes.delay_kernel_size, causal=False))
    ]
    for factor, kernel in zip(sizes.upsample_factors, sizes.upsample_kernel_sizes, strict=True):
        parts.append(DecoderStage(channels, kernel, factor, sizes))
        channels //= 2
    if sizes.num_samples > 1:
        parts.append(PostProcessor(channels, sizes))
    parts.append(weight_norm(Conv(channels, sizes.num_bands, sizes.default_kernel_size, causal=sizes.causal)))
    return nn.Sequential(*parts)


def _encoder(sizes: HeartCodecConfig) -> nn.Sequential:
    channels = sizes.init_channel
    parts: list[nn.Module] = [
        weight_norm(Conv(sizes.num_bands, channels, sizes.default_kernel_size, causal=sizes.causal))
    ]
    if sizes.num_samples > 1:
        parts.append(PreProcessor(channels, sizes))
    for factor, kernel in zip(sizes.downsample_factors, sizes.downsample_kernel_sizes, strict=True):
        parts.append(EncoderStage(channels, kernel, factor, sizes))
        channels *= 2
    parts.append(weight_norm(Conv(channels, sizes.latent_hidden_dim, sizes.default_kernel_size, causal=sizes.causal)))
    parts.append(nn.Tanh())
    return nn.Sequential(*parts)
