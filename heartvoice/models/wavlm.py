"""WavLM with an x-vector head: 16 kHz samples to a speaker embedding.

Source: speaker_encoders spec, section 3; S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full
Stack Speech Processing", 2021; D. Snyder et al., "X-Vectors: Robust DNN Embeddings for Speaker Recognition", 2018.
Names are those of the published `pytorch_model.bin`.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from heartvoice.config.presets import WavlmConfig

GATE_PARTS = 4
"""Values that are summed for each of the two gates of a head."""
_UNUSED = ("wavlm.masked_spec_embed", "classifier.", "objective.")
"""Tensors of training alone."""


class ConvLayer(nn.Module):
    """Convolution, norm if it has one, exact GELU."""

    def __init__(self, sizes: WavlmConfig, index: int) -> None:
        super().__init__()
        width_in = sizes.conv_dim[index - 1] if index else 1
        width, kernel = sizes.conv_dim[index], sizes.conv_kernel[index]
        self.conv = nn.Conv1d(width_in, width, kernel, sizes.conv_stride[index], bias=sizes.conv_bias)
        self.over_channels = sizes.feat_extract_norm == "layer"
        self.layer_norm: nn.Module = nn.Identity()
        if self.over_channels:
            self.layer_norm = nn.LayerNorm(width)
        elif index == 0:
            self.layer_norm = nn.GroupNorm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, N] to [B, C', N']."""
        x = self.conv(x)
        x = self.layer_norm(x.transpose(1, 2)).transpose(1, 2) if self.over_channels else self.layer_norm(x)
        return functional.gelu(x)


class FeatureExtractor(nn.Module):
    """Convolutions from samples to frames, 50 a second."""

    def __init__(self, sizes: WavlmConfig) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(ConvLayer(sizes, index) for index in range(len(sizes.conv_dim)))

    def forward(self, wave: Tensor) -> Tensor:
        """[B, N] to [B, C, T]."""
        x = wave[:, None]
        for layer in self.conv_layers:
            x = layer(x)
        return x


class FeatureProjection(nn.Module):
    """Norm, and projection to the encoder's width."""

    def __init__(self, sizes: WavlmConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(sizes.conv_dim[-1], eps=sizes.layer_norm_eps)
        self.projection = nn.Linear(sizes.conv_dim[-1], sizes.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] to [B, T, D]."""
        result: Tensor = self.projection(self.layer_norm(x))
        return result


class PositionalConv(nn.Module):
    """Grouped convolution over time with weight norm over each tap; the last frame of its even kernel is dropped."""

    def __init__(self, sizes: WavlmConfig) -> None:
        super().__init__()
        width, kernel = sizes.hidden_size, sizes.num_conv_pos_embeddings
        conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=sizes.num_conv_pos_embedding_groups)
        self.conv = weight_norm(conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to the same shape."""
        y = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return functional.gelu(y[:, : x.shape[1]])


class Attention(nn.Module):
    """Attention with a bias by distance that each query gates."""

    def __init__(self, sizes: WavlmConfig, *, first: bool) -> None:
        super().__init__()
        width, self.n_heads = sizes.hidden_size, sizes.num_attention_heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.gru_rel_pos_const = nn.Parameter(torch.ones(1, self.n_heads, 1, 1))
        self.gru_rel_pos_linear = nn.Linear(width // self.n_heads, 2 * GATE_PARTS)
        if first:
            self.rel_attn_embed = nn.Embedding(sizes.num_buckets, self.n_heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend.

        Args:
            x: [B, T, D].
            bias: [B or 1, H, T, T]: by distance; -inf hides a key from all queries.
        """
        parts = self.gru_rel_pos_linear(self._heads(x))  # [B, H, T, 8]
        a, b = parts.reshape(*parts.shape[:-1], 2, GATE_PARTS).sum(-1).sigmoid().chunk(2, -1)
        gate = a * (b * self.gru_rel_pos_const - 1) + 2
        query, key, value = (self._heads(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]) + gate * bias
        mixed: Tensor = self.out_proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        return mixed

    def _heads(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, H, T, D / H]."""
        return x.reshape(*x.shape[:2], self.n_heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, sizes: WavlmConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(sizes.hidden_size, sizes.intermediate_size)
        self.output_dense = nn.Linear(sizes.intermediate_size, sizes.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to the same shape."""
        result: Tensor = self.output_dense(functional.gelu(self.intermediate_dense(x)))
        return result


class Layer(nn.Module):
    """Attention and feed-forward with norms after each, or before each."""

    def __init__(self, sizes: WavlmConfig, *, first: bool) -> None:
        super().__init__()
        self.norm_first = sizes.do_stable_layer_norm
        self.attention = Attention(sizes, first=first)
        self.layer_norm = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)
        self.feed_forward = FeedForward(sizes)
        self.final_layer_norm = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, T, D] to the same shape; see `Attention.forward` for `bias`."""
        if self.norm_first:
            x = x + self.attention(self.layer_norm(x), bias)
            summed: Tensor = x + self.feed_forward(self.final_layer_norm(x))
            return summed
        x = self.layer_norm(x + self.attention(x, bias))
        normed: Tensor = self.final_layer_norm(x + self.feed_forward(x))
        return normed


class Encoder(nn.Module):
    """Positions and layers."""

    def __init__(self, sizes: WavlmConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.pos_conv_embed = PositionalConv(sizes)
        self.layer_norm = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)
        self.layers = nn.ModuleList(Layer(sizes, first=index == 0) for index in range(sizes.num_hidden_layers))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> list[Tensor]:
        """Return what enters each layer, and what leaves the last: [B, T, D] each.

        With norms before attention the encoder's own norm follows the last layer; the x-vector's head does not hear it.

        Args:
            x: [B, T, D].
            valid: bool [B, T]; default all.
        """
        if valid is not None:
            x = x * valid[..., None]
        x = x + self.pos_conv_embed(x)
        if not self.sizes.do_stable_layer_norm:
            x = self.layer_norm(x)
        bias, states = self._bias(x.shape[1], valid), [x]
        for layer in self.layers:
            x = layer(x, bias)
            states.append(x)
        return states

    def _bias(self, n_frames: int, valid: Tensor | None) -> Tensor:
        """Bias by distance, [B or 1, H, T, T]."""
        first: Layer = self.layers[0]  # type: ignore[assignment]
        table = first.attention.rel_attn_embed.weight
        position = torch.arange(n_frames, device=table.device)
        distance = position - position[:, None]
        reach = torch.from_numpy(distance_buckets(self.sizes, n_frames)).to(table.device)
        bias = table[reach[distance + n_frames - 1]].permute(2, 0, 1)[None]
        return bias if valid is None else bias.masked_fill(~valid[:, None, None], -torch.inf)


class XVectorLayer(nn.Module):
    """Dilated convolution without padding, stored as a linear layer over its taps; then ReLU."""

    def __init__(self, width_in: int, width_out: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.kernel = nn.Linear(kernel * width_in, width_out)
        self.n_taps, self.dilation = kernel, dilation

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] to [B, T - (kernel - 1) * dilation, C']."""
        weight = self.kernel.weight.reshape(self.kernel.out_features, self.n_taps, -1).transpose(1, 2)
        y = functional.conv1d(x.transpose(1, 2), weight, self.kernel.bias, dilation=self.dilation)
        return torch.relu(y).transpose(1, 2)


class Body(nn.Module):
    """WavLM itself."""

    def __init__(self, sizes: WavlmConfig) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor(sizes)
        self.feature_projection = FeatureProjection(sizes)
        self.encoder = Encoder(sizes)


class Wavlm(nn.Module):
    """WavLM with its x-vector head."""

    def __init__(self, sizes: WavlmConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.layer_weights = nn.Parameter(torch.ones(sizes.num_hidden_layers + 1))
        self.wavlm = Body(sizes)
        self.projector = nn.Linear(sizes.hidden_size, sizes.tdnn_dim[0])
        widths = pairwise((sizes.tdnn_dim[0], *sizes.tdnn_dim))
        taps = zip(widths, sizes.tdnn_kernel, sizes.tdnn_dilation, strict=True)
        self.tdnn = nn.ModuleList(XVectorLayer(*width, kernel, dilation) for width, kernel, dilation in taps)
        self.feature_extractor = nn.Linear(2 * sizes.tdnn_dim[-1], sizes.xvector_output_dim)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the embeddings of waves.

        Args:
            features: float32 [B, N, 1], samples at 16 kHz, N at least `WavlmConfig.least_samples`.
            lengths: int64 [B], samples of each wave; default all. As in the published code, waves of unequal lengths do
                not have the embeddings that they have alone: the first norm hears the padding, and the pooling takes
                up to six frames of it.

        Returns:
            float32 [B, D], not normalised.
        """
        body = self.wavlm
        x = body.feature_projection(body.feature_extractor(features[..., 0]).transpose(1, 2))
        counts = None if lengths is None else self._frames(lengths)
        valid = None if counts is None else torch.arange(x.shape[1], device=x.device) < counts[:, None]
        states = torch.stack(body.encoder(x, valid))
        x = self.projector((states * self.layer_weights.softmax(0)[:, None, None, None]).sum(0))
        for layer in self.tdnn:
            x = layer(x)
        embedding: Tensor = self.feature_extractor(self._statistics(x, counts))
        return embedding

    def never_read(self, name: str) -> bool:
        """Return True for tensors of training alone."""
        return training_only(name)

    def _frames(self, n: Tensor) -> Tensor:
        """Frames of waves of n samples."""
        for kernel, stride in zip(self.sizes.conv_kernel, self.sizes.conv_stride, strict=True):
            n = (n - kernel) // stride + 1
        return n

    def _statistics(self, x: Tensor, counts: Tensor | None) -> Tensor:
        """Mean and unbiased deviation over time, [B, 2 C]; `counts` are frames before the x-vector's layers."""
        if counts is None:
            return torch.cat([x.mean(1), x.std(1)], dim=1)
        pooled = []
        for row, count in zip(x, counts - sum(kernel - 1 for kernel in self.sizes.tdnn_kernel), strict=True):
            pooled.append(torch.cat([row[:count].mean(0), row[:count].std(0)]))
        return torch.stack(pooled)


def training_only(name: str) -> bool:
    """Return True for a published tensor that inference does not use."""
    return name.startswith(_UNUSED)


def distance_buckets(sizes: WavlmConfig, n_frames: int) -> NDArray[np.int64]:
    """Bucket of each distance from -(n_frames - 1) to n_frames - 1, key minus query: int64 [2 n_frames - 1].

    Half of the buckets are for each sign; half of those hold one distance, the others equal ratios up to the largest.
    """
    distance = np.arange(1 - n_frames, n_frames)
    each = sizes.num_buckets // 2
    exact = each // 2
    far = np.abs(distance)
    ratio = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact))
    steps = ratio / np.float32(math.log(sizes.max_bucket_distance / exact)) * np.float32(each - exact)
    large = np.minimum(exact + steps.astype(np.int64), each - 1)
    buckets: NDArray[np.int64] = np.where(far < exact, far, large) + each * (distance > 0)
    return buckets
