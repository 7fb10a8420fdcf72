"""CAMPPlus speaker encoder: filter bank frames to a speaker embedding.

Source: seed_vc spec, section 8; H. Wang, S. Zheng, Y. Chen, L. Cheng, Q. Chen, "CAM++: A Fast and Efficient Network for
Speaker Verification Using Context-Aware Masking", 2023. Names are those of the official `campplus_cn_common.bin`.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from heartvoice.checkpoints.speaker import BATCHES
from heartvoice.config.presets import CampplusConfig

KERNEL, TDNN_KERNEL, TDNN_STRIDE = 3, 5, 2
HEAD_STRIDE = 8
"""Bands per row of the head's output: three strides of 2."""
GATE_REDUCTION = 2
"""Bottleneck channels per hidden channel of the gate."""
TRANSIT_REDUCTION = 2
MIN_FRAMES = TDNN_STRIDE + 1
"""Shortest input in frames: the deviation over time needs two values after the stride."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `stride` applies to the frequency axis only."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, KERNEL, (stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, KERNEL, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, channels, 1, (stride, 1), bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, F, T] to [B, C, F / stride, T]."""
        branch = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(branch)) + self.shortcut(x))


class Head(nn.Module):
    """Convolutions over frequency and time: [B, T, bands] to [B, C * bands / 8, T]."""

    def __init__(self, sizes: CampplusConfig) -> None:
        super().__init__()
        channels = sizes.head_channels
        self.conv1 = nn.Conv2d(1, channels, KERNEL, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(ResidualBlock(channels, 2), ResidualBlock(channels, 1))
        self.layer2 = nn.Sequential(ResidualBlock(channels, 2), ResidualBlock(channels, 1))
        self.conv2 = nn.Conv2d(channels, channels, KERNEL, (2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        """[B, T, bands] to [B, C * bands / 8, T]."""
        x = features.transpose(1, 2).unsqueeze(1)  # [B, 1, bands, T]
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        return torch.relu(self.bn2(self.conv2(x))).flatten(1, 2)


def _norm(channels: int, *, affine: bool = True) -> nn.Sequential:
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels, affine=affine)))


class Tdnn(nn.Module):
    """Strided convolution, BatchNorm, ReLU."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(width_in, width_out, TDNN_KERNEL, TDNN_STRIDE, padding=TDNN_KERNEL // 2, bias=False)
        self.nonlinear = _norm(width_out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, Cin, T] to [B, Cout, ceil(T / 2)]."""
        return torch.relu(self.nonlinear(self.linear(x)))


def segment_means(x: Tensor, length: int) -> Tensor:
    """Average segments of `length` frames, the last possibly shorter: [B, C, T] to [B, C, ceil(T / length)]."""
    return torch.stack([segment.mean(dim=-1) for segment in torch.split(x, length, dim=-1)], dim=-1)


class ContextGate(nn.Module):
    """Dilated convolution, gated by its input's means over all time and over the segment."""

    def __init__(self, sizes: CampplusConfig, dilation: int) -> None:
        super().__init__()
        self.segment_frames = sizes.segment_frames
        width, hidden = sizes.bottleneck, sizes.bottleneck // GATE_REDUCTION
        self.linear_local = nn.Conv1d(width, sizes.growth, KERNEL, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(width, hidden, 1)
        self.linear2 = nn.Conv1d(hidden, sizes.growth, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, bottleneck, T] to [B, growth, T]."""
        context = x.mean(dim=-1, keepdim=True) + segment_means(x, self.segment_frames)
        gate = torch.sigmoid(self.linear2(torch.relu(self.linear1(context))))  # one value per segment
        repeated = gate.repeat_interleave(self.segment_frames, dim=-1)[..., : x.shape[-1]]
        gated: Tensor = self.linear_local(x) * repeated
        return gated


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, bottleneck, BatchNorm, ReLU, gate; the result is appended to the input."""

    def __init__(self, sizes: CampplusConfig, width_in: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _norm(width_in)
        self.linear1 = nn.Conv1d(width_in, sizes.bottleneck, 1, bias=False)
        self.nonlinear2 = _norm(sizes.bottleneck)
        self.cam_layer = ContextGate(sizes, dilation)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C + growth, T]."""
        hidden = self.linear1(torch.relu(self.nonlinear1(x)))
        return torch.cat([x, self.cam_layer(torch.relu(self.nonlinear2(hidden)))], dim=1)


class Transit(nn.Module):
    """BatchNorm, ReLU, and a convolution that halves the width."""

    def __init__(self, width_in: int) -> None:
        super().__init__()
        self.nonlinear = _norm(width_in)
        self.linear = nn.Conv1d(width_in, width_in // TRANSIT_REDUCTION, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C / 2, T]."""
        narrowed: Tensor = self.linear(torch.relu(self.nonlinear(x)))
        return narrowed


class Dense(nn.Module):
    """Final projection and a BatchNorm without weights."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(width_in, width_out, 1, bias=False)
        self.nonlinear = _norm(width_out, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C] to [B, D]."""
        projected: Tensor = self.nonlinear(self.linear(x.unsqueeze(-1))).squeeze(-1)
        return projected


def pool(x: Tensor) -> Tensor:
    """Mean and unbiased deviation over time: [B, C, T] to [B, 2 C]."""
    return torch.cat([x.mean(dim=-1), x.std(dim=-1)], dim=-1)


class XVector(nn.Module):
    """Densely connected blocks over time, statistics pooling, projection."""

    def __init__(self, sizes: CampplusConfig) -> None:
        super().__init__()
        width = sizes.init_channels
        self.tdnn = Tdnn(sizes.head_channels * sizes.n_bands // HEAD_STRIDE, width)
        self.n_blocks = len(sizes.blocks)
        for number, (depth, dilation) in enumerate(zip(sizes.blocks, sizes.dilations, strict=True), 1):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            for layer in range(1, depth + 1):
                layers[f"tdnnd{layer}"] = DenseLayer(sizes, width, dilation)
                width += sizes.growth
            self.add_module(f"block{number}", nn.Sequential(layers))
            self.add_module(f"transit{number}", Transit(width))
            width //= TRANSIT_REDUCTION
        self.out_nonlinear = _norm(width)
        self.dense = Dense(2 * width, sizes.embedding)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C * bands / 8, T] to [B, D]."""
        x = self.tdnn(x)
        for number in range(1, self.n_blocks + 1):
            x = self.get_submodule(f"transit{number}")(self.get_submodule(f"block{number}")(x))
        embedding: Tensor = self.dense(pool(torch.relu(self.out_nonlinear(x))))
        return embedding


class Campplus(nn.Module):
    """The complete network."""

    def __init__(self, sizes: CampplusConfig) -> None:
        super().__init__()
        self.head = Head(sizes)
        self.xvector = XVector(sizes)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the embeddings of utterances.

        Args:
            features: float32 [B, T, bands], T at least 3: log filter bank with its mean over time removed.

        Returns:
            float32 [B, D], not normalised.
        """
        embedding: Tensor = self.xvector(self.head(features))
        return embedding

    def never_read(self, name: str) -> bool:
        """Return True for BatchNorm's counters, which inference does not use."""
        return name.endswith(BATCHES)
