"""ECAPA-TDNN speaker encoder: normalised log filter bank frames to a speaker embedding.

Source: speaker_encoders spec, section 2; B. Desplanques, J. Thienpondt, K. Demuynck, "ECAPA-TDNN: Emphasized Channel
Attention, Propagation and Aggregation in TDNN Based Speaker Verification", 2020. Names are those of the published
`embedding_model.ckpt`, doubled ones (`conv.conv`, `norm.norm`) included.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from heartvoice.checkpoints.speaker import BATCHES
from heartvoice.config.presets import EcapaConfig

MIN_VARIANCE = 1e-12
"""Floor of a variance over time before its root is taken."""


class Conv(nn.Module):
    """Convolution over time that keeps its length by reflection at both ends."""

    def __init__(self, width_in: int, width_out: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width_in, width_out, kernel, dilation=dilation)
        self.padding = (kernel - 1) * dilation // 2

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C', T]; T must exceed the padding."""
        if self.padding:
            x = functional.pad(x, (self.padding, self.padding), mode="reflect")
        result: Tensor = self.conv(x)
        return result


class Norm(nn.Module):
    """BatchNorm under its published, doubled name."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to the same shape."""
        result: Tensor = self.norm(x)
        return result


class Tdnn(nn.Module):
    """Convolution, ReLU, BatchNorm."""

    def __init__(self, width_in: int, width_out: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = Conv(width_in, width_out, kernel, dilation)
        self.norm = Norm(width_out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C', T]."""
        result: Tensor = self.norm(torch.relu(self.conv(x)))
        return result


class Res2Net(nn.Module):
    """Channel groups: the first passes, each later one also takes in the output before it."""

    def __init__(self, channels: int, scale: int, kernel: int, dilation: int) -> None:
        super().__init__()
        width = channels // scale
        self.scale = scale
        self.blocks = nn.ModuleList(Tdnn(width, width, kernel, dilation) for _ in range(scale - 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to the same shape."""
        first, second, *others = torch.chunk(x, self.scale, dim=1)
        outputs = [first, self.blocks[0](second)]
        for block, group in zip(self.blocks[1:], others, strict=True):
            outputs.append(block(group + outputs[-1]))
        return torch.cat(outputs, dim=1)


class SqueezeExcitation(nn.Module):
    """Scale of each channel, computed from its mean over the valid frames."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = Conv(channels, hidden)
        self.conv2 = Conv(hidden, channels)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Scale [B, C, T]; `weights` [B, 1, T] sum to 1 over the valid frames."""
        mean = (x * weights).sum(dim=2, keepdim=True)
        return x * torch.sigmoid(self.conv2(torch.relu(self.conv1(mean))))


class Block(nn.Module):
    """Residual block: TDNN, Res2Net, TDNN, squeeze and excitation."""

    def __init__(self, width_in: int, width_out: int, sizes: EcapaConfig, index: int) -> None:
        super().__init__()
        kernel, dilation = sizes.kernel_sizes[index], sizes.dilations[index]
        self.tdnn1 = Tdnn(width_in, width_out)
        self.res2net_block = Res2Net(width_out, sizes.res2net_scale, kernel, dilation)
        self.tdnn2 = Tdnn(width_out, width_out)
        self.se_block = SqueezeExcitation(width_out, sizes.se_channels)
        self.shortcut = Conv(width_in, width_out) if width_in != width_out else nn.Identity()

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """[B, C, T] to [B, C', T]; see `SqueezeExcitation.forward` for `weights`."""
        branch = self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x))), weights)
        result: Tensor = branch + self.shortcut(x)
        return result


def _statistics(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and deviation over time, each [B, C, 1]."""
    mean = (x * weights).sum(dim=2, keepdim=True)
    variance = ((x - mean).square() * weights).sum(dim=2, keepdim=True)
    return mean, variance.clamp(min=MIN_VARIANCE).sqrt()


class AttentivePooling(nn.Module):
    """Mean and deviation over time under an attention per channel: [B, C, T] to [B, 2C, 1]."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.tdnn = Tdnn(3 * channels, hidden)
        self.conv = Conv(hidden, channels)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """[B, C, T] to [B, 2C, 1]; see `SqueezeExcitation.forward` for `weights`."""
        mean, deviation = _statistics(x, weights)
        seen = torch.cat([x, mean.expand_as(x), deviation.expand_as(x)], dim=1)
        scores = self.conv(torch.tanh(self.tdnn(seen)))
        attention = torch.softmax(scores.masked_fill(weights == 0, -torch.inf), dim=2)
        return torch.cat(_statistics(x, attention), dim=1)


class Ecapa(nn.Module):
    """The ECAPA-TDNN speaker encoder."""

    def __init__(self, sizes: EcapaConfig) -> None:
        super().__init__()
        *widths, width_out = sizes.channels
        first = Tdnn(sizes.input_size, widths[0], sizes.kernel_sizes[0], sizes.dilations[0])
        residual = [Block(before, after, sizes, i) for i, (before, after) in enumerate(pairwise(widths), 1)]
        self.blocks = nn.ModuleList([first, *residual])
        self.mfa = Tdnn(sum(widths[1:]), width_out, sizes.kernel_sizes[-1], sizes.dilations[-1])
        self.asp = AttentivePooling(width_out, sizes.attention_channels)
        self.asp_bn = Norm(2 * width_out)
        self.fc = Conv(2 * width_out, sizes.lin_neurons)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the embeddings of utterances.

        Args:
            features: float32 [B, T, bands], T at least 5: log filter bank in dB with each band's mean removed.
            lengths: float32 [B] in (0, 1], valid part of each utterance; default all of it. Convolutions see the rest.

        Returns:
            float32 [B, D], not normalised.
        """
        x = features.transpose(1, 2)
        weights = _frame_weights(x, lengths)
        x = self.blocks[0](x)
        outputs = []
        for block in self.blocks[1:]:
            x = block(x, weights)
            outputs.append(x)
        pooled = self.asp(self.mfa(torch.cat(outputs, dim=1)), weights)
        embedding: Tensor = self.fc(self.asp_bn(pooled)).squeeze(2)
        return embedding

    def never_read(self, name: str) -> bool:
        """Return True for BatchNorm's counters, which inference does not use."""
        return name.endswith(BATCHES)


def _frame_weights(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Equal weights of the valid frames of [B, C, T], 0 elsewhere: [B, 1, T] of sum 1."""
    n_frames = x.shape[2]
    if lengths is None:
        return torch.ones_like(x[:, :1]) / n_frames
    valid = (torch.arange(n_frames, device=x.device) < lengths[:, None] * n_frames).to(x.dtype)
    return (valid / valid.sum(dim=1, keepdim=True))[:, None]
