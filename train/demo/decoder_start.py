"""A decoder that begins as a linear synthesis: each latent adds its own wave.

Its upsamplers are syntheses of the modified discrete cosine transform, one behind the other; a kernel of twice the
stride is just what that needs. They lose nothing, so the first one takes the waves as the transform sees them. Residual
units begin almost shut. From random weights a decoder needs hours to come so far.

Source: Princen, Johnson and Bradley, "Subband/transform coding using filter bank designs based on time domain aliasing
cancellation", 1987.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv1d, conv_transpose1d, pad

from heartvoice.models.heartcodec.scalar import Conv, ConvTranspose, DecoderStage, PostProcessor, ScalarModel

Samples = NDArray[np.float32]

SHUT = 0.02
"""Gain of the residual units' branches: 20 of them are 20 dB below the sound."""
_IDLE = 0.3
"""Of channels that carry nothing yet."""
_REACH = 5
"""Steps of the first upsampler that one of them is heard in."""
_ROUNDS = 20
_TAPS = 4
"""Samples between the two taps that a band has in the last layers."""


@torch.no_grad()
def start_as_synthesis(decoder: ScalarModel, waves: Tensor) -> None:
    """Set the weights so that latents x decode to the sum of their waves, but for what is above the first bands.

    Args:
        decoder: causal, that repeats samples, with twice as many channels at first as it has latents.
        waves: [F, N], N at most 8 first steps longer than a latent; what each latent adds when it is 1.

    Raises:
        ValueError: the decoder has too few channels.
    """
    layers: list[Any] = list(decoder.decoder)
    entry, first, *later, post, last = layers
    n_latents, n_channels = waves.shape[0], first.up_conv.layer.in_channels
    if n_channels < 2 * n_latents:
        raise ValueError(f"decoder: expected at least {2 * n_latents} channels at first, got {n_channels}")
    n_bands = first.up_conv.layer.out_channels
    for stage in later:
        n_bands = _start_upsampler(stage.up_conv.layer, n_bands)
    _start_output(post, last, n_bands)
    for name, gain in decoder.named_parameters():
        if ".conv2." in name and name.endswith("original0"):
            gain.fill_(SHUT)
        elif name.endswith("bias"):
            gain.zero_()
    steps = _steps(_response(later, post, last), waves, first.up_conv.layer.stride[0])
    _start_entry(entry, first.up_conv.layer, steps)


def _cosines(n_bands: int) -> Tensor:
    """Return the synthesis functions of the transform, [n_bands, 2 n_bands], orthonormal with their shifted selves."""
    time, band = np.arange(2 * n_bands) + 0.5, np.arange(n_bands)[:, None] + 0.5
    window = np.sin(np.pi * time / (2 * n_bands))
    waves = math.sqrt(2 / n_bands) * window * np.cos(np.pi / n_bands * (time + n_bands / 2) * band)
    return torch.from_numpy(waves.astype(np.float32))


def _start_upsampler(layer: ConvTranspose, n_inputs: int) -> int:
    """Join the first inputs, in groups, to the first outputs; returns their number."""
    factor = layer.stride[0]
    n_outputs = -(-n_inputs // factor)
    weight = _IDLE * layer.weight.detach()
    weight[:n_inputs] = 0.0
    weight[:, :n_outputs] = 0.0
    waves = _cosines(factor)
    for row in range(n_inputs):
        output, band = divmod(row, factor)
        weight[row, output] = waves[band if output % 2 == 0 else factor - 1 - band]  # odd bands run backwards
    _put(layer, weight)
    return n_outputs


def _start_output(post: PostProcessor, last: Conv, n_bands: int) -> None:
    """Join bands at the rate of repeated samples: each passes at two delays, whose last filters are fitted."""
    kernel = last.kernel_size[0]
    through, out = _IDLE * post.conv.weight.detach(), _IDLE * last.weight.detach()
    out[:] = 0.0
    for band, wave in enumerate(_cosines(post.factor)[:n_bands]):
        taps = _fitted(wave.numpy(), post.factor, kernel)
        for tap in (0, 1):
            channel = 2 * band + tap
            through[channel] = 0.0
            through[channel, band, kernel - 1 - tap * _TAPS] = 1.0
            out[0, channel] = torch.from_numpy(taps[tap * kernel : (tap + 1) * kernel][::-1].copy())
    post.conv.weight.copy_(through)
    post.activation.weight.fill_(1.0)
    _put(last, out)


def _fitted(wave: Samples, factor: int, kernel: int) -> Samples:
    """Return the taps by which a repeated sample becomes a wave best, at the best delay: [2 kernel]."""
    length = factor + _TAPS + 2 * kernel
    columns = np.zeros((length, 2 * kernel), np.float32)
    for tap in (0, 1):
        for place in range(kernel):
            at = tap * _TAPS + place
            columns[at : at + factor, tap * kernel + place] = 1.0
    best, error = np.zeros(2 * kernel, np.float32), math.inf
    for delay in range(length - len(wave) + 1):
        target = np.pad(wave, (delay, length - len(wave) - delay))
        taps = np.linalg.lstsq(columns, target, rcond=1e-3)[0]
        missed = float(((columns @ taps - target) ** 2).sum())
        if missed < error - 1e-6:
            best, error = taps, missed
    return best.astype(np.float32)


def _response(later: list[DecoderStage], post: PostProcessor, last: Conv) -> Tensor:
    """Return what one step of each channel behind the first upsampler becomes, [channels, N]."""
    n_channels = later[0].up_conv.layer.in_channels
    x = torch.zeros(n_channels, n_channels, _REACH)
    x[torch.arange(n_channels), torch.arange(n_channels), 0] = 1.0
    for stage in later:
        x = stage.up_conv(x)
    heard: Tensor = last(post(x))
    return heard[:, 0]


def _steps(response: Tensor, waves: Tensor, factor: int) -> Tensor:
    """Find each wave's share of every step, from those of the latent before on: [F, channels, 3 factor]."""
    hop = response.shape[1] // _REACH
    length = (3 * factor - 1) * hop + response.shape[1]
    placed = pad(waves, (factor * hop, length - factor * hop - waves.shape[1]))
    steps = torch.zeros(len(waves), len(response), 3 * factor)
    for _ in range(_ROUNDS):  # the output's filters are not quite orthonormal
        missing = placed[:, None] - conv_transpose1d(steps, response[:, None], stride=hop)
        steps += conv1d(missing, response[:, None], stride=hop)
    return steps


def _start_entry(entry: Conv, layer: ConvTranspose, steps: Tensor) -> None:
    """Pass each latent on twice, as it is and one latent early, and give both their steps."""
    n_latents, factor = len(steps), layer.stride[0]
    now = entry.kernel_size[0] // 2
    through = _IDLE * entry.weight.detach()
    through[: 2 * n_latents] = 0.0
    index = torch.arange(n_latents)
    through[index, index, now] = 1.0
    through[n_latents + index, index, now + 1] = 1.0
    _put(entry, through)
    weight = _IDLE * layer.weight.detach()
    weight[: 2 * n_latents] = 0.0
    weight[:n_latents] = steps[..., factor:]
    weight[n_latents : 2 * n_latents, :, :factor] = steps[..., :factor]
    _put(layer, weight)


def _put(layer: Conv | ConvTranspose, weight: Tensor) -> None:
    """Set a weight that is kept as gain and direction."""
    norm = torch.norm_except_dim(weight, 2, 0)
    parts: Any = layer.parametrizations
    parametrized = parts.weight
    parametrized.original0.copy_(norm)
    direction = torch.where(norm > 0, weight, parametrized.original1)  # silence has one, too
    parametrized.original1.copy_(direction / torch.norm_except_dim(direction, 2, 0))
