"""Builds the separator's ONNX graph: htdemucs between its STFT and its inverse STFT.

Contract: `contracts.HTDEMUCS`; the PyTorch twin is `heartvoice.models.demucs_module`. Differences from a trace:

- Statistics over long audio are sums of sums: onnxruntime sums in float32, which costs 50 dB over a million values.
- The second norm of a DConv branch is never computed on its 2 C channels. Its input is linear in the C / 8 channels
  before it, so mean and variance follow from theirs. The rest of the norm is two more input channels of the
  convolution, and LayerScale is part of its weights.
- Gates are two convolutions and not the halves of one: nothing is copied, and runtimes fuse the sigmoid.
- Convolutions of one tap have bins and frames as one axis, and the time branch is [B, C, T]: onnxruntime parallelizes
  convolutions over two axes along the first axis.

Source: demucs 4.1.0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from heartvoice.config.presets import SeparatorConfig
from heartvoice.contracts.models import HTDEMUCS
from heartvoice.export.graph_builder import Array, Graph, GraphBuilder, pinned
from heartvoice.export.htdemucs_transformer import Transformer, channel_mean
from heartvoice.export.layout import BATCH, Precision, separator_axes
from heartvoice.models.demucs import check_sizes
from heartvoice.models.load import TensorSource

INPUT_EPS = 1e-5
"""Added to the input's standard deviation."""
NORM_EPS = 1e-5
_ROW = 512
"""Number of values in one partial sum."""
_GATED = (0, 1)


def build_htdemucs(sizes: SeparatorConfig, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.HTDEMUCS`.

    It maps mix [B, 2, L] and spectrum [B, 4, F, T] to spectra [B, S, 4, F, T] and waves [B, S, 2, L]. In a bag of
    models, network i makes source i alone.

    Raises:
        CheckpointError: the graph does not cover networks of these sizes.
    """
    check_sizes(sizes)
    b, axes = GraphBuilder(HTDEMUCS.name, precision), separator_axes(sizes)
    mix, spectrum = (b.input(pinned(tensor, axes), batch=BATCH) for tensor in HTDEMUCS.inputs)
    spectra_out, waves_out = (b.output(pinned(tensor, axes), batch=BATCH) for tensor in HTDEMUCS.outputs)
    with b.fp32_region("norm"):
        spectrum_norm = _standardize(b, spectrum, 4, 4 * axes["spectrum_bin"], axes["spectrum_frame"])
        wave_norm = _standardize(b, b.reshape(mix, [0, 2, 1, -1]), 2, 2, axes["segment_sample"])
    parts = []
    for index in range(sizes.n_models):
        only = None if sizes.n_models == 1 else index
        network = _Network(b, sizes, source, f"models.{index}", only)
        spectra, waves = network.run(spectrum_norm.values, b.reshape(wave_norm.values, [0, 2, -1]))
        waves = b.reshape(waves, [0, -1, 1, axes["segment_sample"]])
        parts.append((spectrum_norm.undo(b, spectra), wave_norm.undo(b, waves)))
    spectra, waves = (_join(b, list(part)) for part in zip(*parts, strict=True))
    b.reshape(spectra, [0, -1, 4, axes["spectrum_bin"], axes["spectrum_frame"]], out=spectra_out)
    b.reshape(waves, [0, -1, 2, axes["segment_sample"]], out=waves_out)
    return b.graph


def _join(b: GraphBuilder, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=1)


# ---------------------------------------------------------------------------------------------------------- statistics


def row_means(b: GraphBuilder, x: str, width: int, length: int, *, squares: bool = False) -> str:
    """Means of [B, C, F, T] over T: [B, C, F, 1], by rows of `_ROW` where T is long (then F must be 1); C = `width`."""
    kind = "ReduceSumSquare" if squares else "ReduceSum"
    if length <= 4 * _ROW:
        return _scaled(b, b.op(kind, x, b.constant([3]), keepdims=1), 1 / length)
    missing, n_rows = -length % _ROW, math.ceil(length / _ROW)
    if missing:
        x = b.op("Pad", x, b.constant([0, 0, 0, 0, 0, 0, 0, missing]))
    rows = b.op(kind, b.reshape(x, [0, 0, -1, _ROW]), b.constant([3]), keepdims=1)
    # Each sum is scaled by itself: OpenVINO makes one sum of two that follow each other.
    rows = b.reshape(_scaled(b, rows, n_rows / length), [-1, n_rows, 1])
    return b.reshape(channel_mean(b, rows, n_rows, n_axes=1), [-1, width, 1, 1])


def _scaled(b: GraphBuilder, x: str, factor: float) -> str:
    return b.op("Mul", x, b.constant(factor, np.float32))


@dataclass(frozen=True)
class _Standardized:
    """Values of mean 0 and deviation 1, and the inverse mapping."""

    values: str
    mean: str
    deviation: str

    def undo(self, b: GraphBuilder, x: str) -> str:
        with b.fp32_region("norm"):
            return b.op("Add", b.op("Mul", x, self.deviation), self.mean)


def _standardize(b: GraphBuilder, x: str, n_channels: int, n_rows: int, length: int) -> _Standardized:
    """Mean and unbiased deviation of [B, C, F, T] over all but B; C = `n_channels`, C F = `n_rows`, T = `length`."""

    def mean_of(values: str, *, squares: bool = False) -> str:
        bins = b.op("ReduceSum", row_means(b, values, n_channels, length, squares=squares), b.constant([2]), keepdims=1)
        return channel_mean(b, _scaled(b, bins, n_channels / n_rows), n_channels, n_axes=2)

    count = n_rows * length
    mean = mean_of(x)
    centred = b.op("Sub", x, mean)
    deviation = b.op("Sqrt", _scaled(b, mean_of(centred, squares=True), count / (count - 1)))
    scale = b.op("Add", deviation, b.constant(INPUT_EPS, np.float32))
    return _Standardized(b.op("Div", centred, scale), mean, deviation)


# ------------------------------------------------------------------------------------------------------------- network


@dataclass(frozen=True)
class _Branch:
    """Names and geometry of the spectral or the time branch."""

    encoder: str
    decoder: str
    spectral: bool

    def strided(self, size: int) -> list[int]:
        """Return kernel or stride of the strided axis."""
        return [size, 1] if self.spectral else [size]

    def padded(self, before: int, after: int) -> list[int]:
        """Return the padding of the strided axis."""
        return [before, 0, after, 0] if self.spectral else [before, after]


_SPECTRAL, _TIME = _Branch("encoder", "decoder", True), _Branch("tencoder", "tdecoder", False)


class _Network:
    """One htdemucs network; `only` keeps a single source of its outputs."""

    def __init__(
        self, b: GraphBuilder, sizes: SeparatorConfig, source: TensorSource, prefix: str, only: int | None
    ) -> None:
        self.b, self.sizes, self.source, self.prefix, self.only = b, sizes, source, prefix, only
        axes = separator_axes(sizes)
        self.n_frames = axes["spectrum_frame"]
        self.bins = [axes["spectrum_bin"] // sizes.stride**level for level in range(sizes.depth + 1)]
        self.lengths = [axes["segment_sample"]]
        for _ in range(sizes.depth):
            self.lengths.append(math.ceil(self.lengths[-1] / sizes.stride))
        self.widths = [int(sizes.channels * sizes.growth**level) for level in range(sizes.depth)]

    def run(self, x: str, xt: str) -> tuple[str, str]:
        """Map standardized spectrum and mix to standardized spectra [B, S * 4, F, T] and waves [B, S * 2, L]."""
        skips, skips_t = [], []
        for level in range(self.sizes.depth):
            x, xt = self._encode(x, level, _SPECTRAL), self._encode(xt, level, _TIME)
            if level == 0 and self.sizes.freq_emb:
                x = self.b.op("Add", x, self._frequency_embedding())
            skips.append(x)
            skips_t.append(xt)
        x, xt = self._transformer().run(x, xt)
        for index in range(self.sizes.depth):
            x = self._decode(x, skips.pop(), index, _SPECTRAL)
            xt = self._decode(xt, skips_t.pop(), index, _TIME)
        return x, xt

    def _transformer(self) -> Transformer:
        frames, length = self.n_frames, self.lengths[-1]
        return Transformer(self.b, self.sizes, self.source, self.prefix, (self.bins[-1], frames), length)

    def _tensor(self, name: str) -> Array:
        return self.source.array(f"{self.prefix}.{name}")

    def _frequency_embedding(self) -> str:
        sizes = self.sizes
        shape = (self.widths[0], self.bins[1], 1)
        factor = np.float32(sizes.freq_emb * sizes.emb_scale)

        def make() -> Array:
            return (self._tensor("freq_emb.embedding.weight").T * factor)[..., None]

        return self.b.weight(f"{self.prefix}.freq_emb", shape, make)

    # -------------------------------------------------------------------------------------------------------- layers

    def _encode(self, x: str, level: int, branch: _Branch) -> str:
        sizes, name = self.sizes, f"{branch.encoder}.{level}"
        width = self.widths[level]
        width_in = self.widths[level - 1] if level else (4 if branch.spectral else 2)
        pad = sizes.kernel_size // 4
        missing = 0 if branch.spectral else -self.lengths[level] % sizes.stride
        shape = (width, width_in, *branch.strided(sizes.kernel_size))
        pads, strides = branch.padded(pad, pad + missing), branch.strided(sizes.stride)
        x = self.b.op("Gelu", self._conv(x, f"{name}.conv", shape, pads=pads, strides=strides))
        if sizes.dconv_mode & 1:
            x = self._dconv(x, f"{name}.dconv", level, branch)
        return self._rewrite(x, f"{name}.rewrite", width, sizes.context_enc, branch)

    def _decode(self, x: str, skip: str, index: int, branch: _Branch) -> str:
        sizes, level = self.sizes, self.sizes.depth - 1 - index
        name, width = f"{branch.decoder}.{index}", self.widths[level]
        x = self.b.op("Add", x, skip)
        x = self._rewrite(x, f"{name}.rewrite", width, sizes.context, branch)
        if sizes.dconv_mode & 2:
            x = self._dconv(x, f"{name}.dconv", level, branch)
        x = self._upsample(x, f"{name}.conv_tr", level, branch)
        return x if level == 0 else self.b.op("Gelu", x)

    def _rewrite(self, x: str, name: str, width: int, context: int, branch: _Branch) -> str:
        """Add a convolution and its gate."""
        size = 1 + 2 * context
        n_axes = 2 if branch.spectral else 1
        kernel, pads = [size] * n_axes, [context] * 2 * n_axes
        value, gate = (
            self._conv(x, name, (width, width, *kernel), pads=pads, part=(half, half * width)) for half in _GATED
        )
        return self.b.op("Mul", value, self.b.op("Sigmoid", gate))

    def _upsample(self, x: str, name: str, level: int, branch: _Branch) -> str:
        """Add a transposed convolution, cut to the length of its encoder's input."""
        sizes, pad = self.sizes, self.sizes.kernel_size // 4
        kernel, strides = branch.strided(sizes.kernel_size), branch.strided(sizes.stride)
        whole = self.widths[level - 1] if level else (4 if branch.spectral else 2) * len(sizes.sources)
        first, width = 0, whole
        if level == 0 and self.only is not None:
            width = whole // len(sizes.sources)
            first = self.only * width
        length_in = self.bins[level + 1] if branch.spectral else self.lengths[level + 1]
        length = self.bins[level] if branch.spectral else self.lengths[level]
        end = (length_in - 1) * sizes.stride + sizes.kernel_size - pad - length
        pads = branch.padded(pad, end)
        rows = slice(first, first + width)
        shape = (self.widths[level], width, *kernel)
        weight = self.b.weight(
            f"{self.prefix}.{name}.weight", shape, lambda: self._tensor(f"{name}.weight")[:, rows], half=True
        )
        bias = self.b.weight(f"{self.prefix}.{name}.bias", (width,), lambda: self._tensor(f"{name}.bias")[rows])
        return conv(self.b, x, weight, bias, kind="ConvTranspose", kernel_shape=kernel, pads=pads, strides=strides)

    def _conv(
        self, x: str, name: str, shape: tuple[int, ...], *, part: tuple[int, int] | None = None, **attributes: Any
    ) -> str:
        """Add a convolution of the checkpoint; `part` is the number and the start of a slice of its outputs."""
        label, first = ("", 0) if part is None else (f".{part[0]}", part[1])
        rows, kernel = slice(first, first + shape[0]), list(shape[2:])
        weight = self.b.weight(
            f"{self.prefix}.{name}.weight{label}",
            shape,
            lambda: self._tensor(f"{name}.weight").reshape(-1, *shape[1:])[rows],
            half=True,
        )
        bias = self.b.weight(f"{self.prefix}.{name}.bias{label}", shape[:1], lambda: self._tensor(f"{name}.bias")[rows])
        return conv(self.b, x, weight, bias, kernel_shape=kernel, **attributes)

    # --------------------------------------------------------------------------------------------------------- dconv

    def _dconv(self, x: str, name: str, level: int, branch: _Branch) -> str:
        grid = (self.bins[level + 1], self.n_frames) if branch.spectral else (1, self.lengths[level + 1])
        for index in range(self.sizes.dconv_depth):
            x = _DConvLayer(self, f"{name}.layers.{index}", self.widths[level], grid, branch).run(x, 2**index)
        return x


class _DConvLayer:
    """One residual branch: narrow dilated convolution, norm, GELU, wide convolution, norm, gate, LayerScale.

    The narrow channels are [B, h, F, T], with F = 1 in the time branch. A norm has statistics for each bin.
    """

    def __init__(self, network: _Network, name: str, width: int, grid: tuple[int, int], branch: _Branch) -> None:
        self.network, self.name, self.width, self.branch = network, name, width, branch
        self.hidden = int(width / network.sizes.dconv_comp)
        self.n_bins, self.length = grid
        self.b = network.b

    def run(self, x: str, dilation: int) -> str:
        """Return the sum of x and the branch's output."""
        b = self.b
        if self.branch.spectral:
            kernel, pads, dilations = [1, 3], [0, dilation, 0, dilation], [1, dilation]
        else:
            kernel, pads, dilations = [3], [dilation, dilation], [dilation]
        h = self.network._conv(
            x, f"{self.name}.0", (self.hidden, self.width, *kernel), pads=pads, dilations=dilations
        )  # fmt: skip
        h = h if self.branch.spectral else b.op("Unsqueeze", h, b.constant([2]))
        with b.fp32_region("norm"):
            normed = self._narrow_norm(h)
        h = b.op("Gelu", normed)
        with b.fp32_region("norm"):
            mean, scale = self._wide_statistics(h)
            scaled = b.op("Mul", h, scale)
            per_bin = b.op("Concat", scale, b.op("Mul", mean, scale), axis=1)  # [B, 2, F, 1]
        joined = b.op("Concat", scaled, b.op("Expand", per_bin, b.constant([1, 1, 1, self.length])), axis=1)
        joined = b.reshape(joined, [0, self.hidden + 2, -1])
        value, gate = (self._wide(joined, half) for half in _GATED)
        flat = b.reshape(x, [0, self.width, -1]) if self.branch.spectral else x
        added = b.add_residual(flat, b.op("Mul", value, b.op("Sigmoid", gate)))
        return b.reshape(added, [0, self.width, self.n_bins, self.length]) if self.branch.spectral else added

    def _reciprocal_deviation(self, variance: str) -> str:
        return self.b.op(
            "Reciprocal", self.b.op("Sqrt", self.b.op("Add", variance, self.b.constant(NORM_EPS, np.float32)))
        )

    def _narrow_norm(self, h: str) -> str:
        """Add the norm of [B, h, F, T] over channels and T."""
        b = self.b
        centred = b.op("Sub", h, channel_mean(b, row_means(b, h, self.hidden, self.length), self.hidden, n_axes=2))
        squares = row_means(b, centred, self.hidden, self.length, squares=True)
        scale = self._reciprocal_deviation(channel_mean(b, squares, self.hidden, n_axes=2))
        gain, shift = (self._column(f"{self.name}.1.{kind}") for kind in ("weight", "bias"))
        return b.op("Add", b.op("Mul", centred, b.op("Mul", scale, gain)), shift)

    def _column(self, name: str) -> str:
        """Declare a vector of the checkpoint with one value for each channel, [h, 1, 1]."""
        return self.b.weight(
            f"{self.network.prefix}.{name}", (self.hidden, 1, 1), lambda: self.network._tensor(name).reshape(-1, 1, 1)
        )

    def _matrix(self) -> tuple[Array, Array]:
        """Read weight [2 C, h] and bias [2 C] of the wide convolution, float64."""
        tensor = self.network._tensor
        weight = tensor(f"{self.name}.3.weight").reshape(2 * self.width, self.hidden)
        return weight.astype(np.float64), tensor(f"{self.name}.3.bias").astype(np.float64)

    def _wide_statistics(self, h: str) -> tuple[str, str]:
        """Add mean and reciprocal deviation of W h + b over 2 C channels and T, [B, 1, F, 1], from h alone.

        The mean of h over T is subtracted first. The variance is then a quadratic form of the rest plus the variance,
        over channels, of W times the mean: two sums of squares, so there is no cancellation.
        """
        b, prefix, hidden = self.b, self.network.prefix, self.hidden
        mean = row_means(b, h, self.hidden, self.length)
        centred = b.op("Sub", h, mean)

        def root() -> Array:  # R with R^T R = W^T W / 2 C; the diagonal's signs are arbitrary, so they are fixed
            _, upper = np.linalg.qr(self._matrix()[0] / math.sqrt(2 * self.width))
            signed: Array = upper * np.where(np.diag(upper) < 0, -1, 1)[:, None]
            return signed.reshape(hidden, hidden, 1, 1)

        rooted = b.weight(f"{prefix}.{self.name}.3.root", (hidden, hidden, 1, 1), root)
        image_of_rest = b.op("Conv", centred, rooted, kernel_shape=[1, 1])
        spread = row_means(b, image_of_rest, self.hidden, self.length, squares=True)
        inner = _scaled(b, channel_mean(b, spread, hidden, n_axes=2), hidden)
        shape = (2 * self.width, hidden, 1, 1)
        weight = b.weight(f"{prefix}.{self.name}.3.weight", shape, lambda: self._matrix()[0].reshape(shape))
        bias = b.weight(f"{prefix}.{self.name}.3.bias", (2 * self.width,), lambda: self._matrix()[1])
        image = b.op("Conv", mean, weight, bias, kernel_shape=[1, 1])  # [B, 2 C, F, 1]
        wide_mean = channel_mean(b, image, 2 * self.width, n_axes=2)
        apart = b.op("Sub", image, wide_mean)
        outer = channel_mean(b, b.op("Mul", apart, apart), 2 * self.width, n_axes=2)
        return wide_mean, self._reciprocal_deviation(b.op("Add", inner, outer))

    def _wide(self, joined: str, half: int) -> str:
        """Add value or gate. Weights include norm, gain and LayerScale; inputs are h / s, 1 / s and mean / s."""
        b, prefix, width = self.b, self.network.prefix, self.width
        rows = slice(half * width, (half + 1) * width)

        def scale() -> Array:
            if half:
                return np.ones(width)
            return self.network._tensor(f"{self.name}.6.scale").astype(np.float64)

        def make() -> Array:
            weight, bias = self._matrix()
            columns = np.concatenate([weight, bias[:, None], -np.ones((2 * width, 1))], axis=1)
            gain = self.network._tensor(f"{self.name}.4.weight")[rows] * scale()
            scaled: Array = (columns[rows] * gain[:, None])[..., None]
            return scaled

        def make_bias() -> Array:
            scaled: Array = self.network._tensor(f"{self.name}.4.bias")[rows] * scale()
            return scaled

        shape = (width, self.hidden + 2, 1)
        weight = b.weight(f"{prefix}.{self.name}.4.weight.{half}", shape, make, half=True)
        bias = b.weight(f"{prefix}.{self.name}.4.bias.{half}", (width,), make_bias)
        return conv(b, joined, weight, bias, kernel_shape=[1])


def conv(b: GraphBuilder, x: str, weight: str, bias: str, *, kind: str = "Conv", **attributes: list[int]) -> str:
    """Add a convolution over one or two axes; in half precision its bias is added afterwards in float32."""
    if b.graph.precision == "fp32":
        return b.conv(x, weight, bias, kind=kind, **attributes)
    y = b.conv(x, weight, None, kind=kind, **attributes)
    axes = list(range(1, 1 + len(attributes["kernel_shape"])))
    return b.op("Add", y, b.op("Unsqueeze", bias, b.constant(axes)))
