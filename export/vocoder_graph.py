"""Builds the vocoder's ONNX graph.

Contract: `contracts.VOCODER`; the PyTorch twin is `heartvoice.models.bigvgan`. Source: seed_vc spec, section 11.

Activations take most of the time: they double the rate, apply the nonlinearity and halve the rate. Samples at the
double rate are not interleaved: even and odd samples are two rows, made by one depthwise convolution and read by
another. Factors per channel are folded into these convolutions: the first two give a u and b u, so only sine, square
and sum remain between them and the last one, which divides by b. All tensors have a row axis, because runtimes have
their fast blocked layouts for images only. `benchmarks.vocoder` measures other forms.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from heartvoice.checkpoints.bigvgan import BETA_FLOOR, POST_KERNEL, PRE_KERNEL, TAPS, check_sizes
from heartvoice.config.svc import BigvganConfig
from heartvoice.contracts.graphs import VOCODER, vocoder_axes
from heartvoice.export.graph_builder import Array, Graph, GraphBuilder, pinned
from heartvoice.export.layout import BATCH, Precision
from heartvoice.models.load import TensorSource

REACH = TAPS // 4
"""Context of a phased filter on each side, in samples at the single rate."""
_LAST = np.iinfo(np.int64).max


def build_vocoder(sizes: BigvganConfig, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.VOCODER`: mel [B, M, T] to audio [B, 1, T * hop] in [-1, 1].

    Args:
        sizes: they determine the network.
        source: the weights, with weight norm or folded. The filters are read now.
        precision: of the learnt convolutions; filters, sines and sums stay float32.

    Raises:
        CheckpointError: the sizes do not fit one another, or the filters cannot be read.
    """
    check_sizes(sizes, VOCODER.name)
    return _Vocoder(sizes, source, precision).build()


def phases(taps: Array) -> Array:
    """Split a filter at the double rate into two at the single rate.

    Args:
        taps: [12]; a sample reads those from 5 before to 6 after twice its position.

    Returns:
        Its taps for even and for odd samples, from 3 before its position to 3 after: [2, 7].
    """
    found = np.zeros((2, 2 * REACH + 1), taps.dtype)
    found[0, 1:], found[1, :-1] = taps[1::2], taps[0::2]
    return found


class _Vocoder:
    def __init__(self, sizes: BigvganConfig, source: TensorSource, precision: Precision) -> None:
        self.sizes, self.source = sizes, source
        self.b = GraphBuilder(VOCODER.name, precision)

    def build(self) -> Graph:
        b, sizes, axes = self.b, self.sizes, vocoder_axes(self.sizes)
        mel = b.input(pinned(VOCODER.inputs[0], axes), batch=BATCH)
        output = b.output(pinned(VOCODER.outputs[0], axes), batch=BATCH)
        channels = sizes.upsample_initial_channel
        x = b.op("Unsqueeze", mel, b.constant([2]))  # [B, M, 1, T]
        x = self._conv(x, "conv_pre", (channels, sizes.num_mels, PRE_KERNEL))
        n_blocks = len(sizes.resblock_kernel_sizes)
        for stage, (rate, kernel) in enumerate(zip(sizes.upsample_rates, sizes.upsample_kernel_sizes, strict=True)):
            x = self._upsample(x, f"ups.{stage}.0", channels, kernel, rate)
            channels //= 2
            blocks = [self._block(x, stage * n_blocks + index, channels, index) for index in range(n_blocks)]
            x = blocks[0]
            for block in blocks[1:]:
                x = b.op("Add", x, block)
            x = b.op("Mul", x, b.constant(1 / n_blocks, np.float32))
        x = add_activation(b, self.source, x, "activation_post", channels)
        x = self._conv(x, "conv_post", (1, channels, POST_KERNEL), bias=False)
        x = b.op("Squeeze", x, b.constant([2]))
        b.op("Clip", x, b.constant(-1, np.float32), b.constant(1, np.float32), out=output)
        return b.graph

    # ------------------------------------------------------------------------------------------------- convolutions

    def _conv(self, x: str, name: str, shape: tuple[int, int, int], *, dilation: int = 1, bias: bool = True) -> str:
        """Add a convolution that keeps the length."""
        side = dilation * (shape[2] - 1) // 2
        return self._learnt(
            x, name, shape, shape[0] if bias else 0, "Conv", pads=[0, side, 0, side], dilations=[1, dilation]
        )

    def _upsample(self, x: str, name: str, channels: int, kernel: int, rate: int) -> str:
        """Add a transposed convolution, [B, C, 1, T] to [B, C / 2, 1, T * rate]."""
        side, half = (kernel - rate) // 2, channels // 2
        shape = (channels, half, kernel)
        return self._learnt(x, name, shape, half, "ConvTranspose", pads=[0, side, 0, side], strides=[1, rate])

    def _learnt(self, x: str, name: str, shape: tuple[int, int, int], n_bias: int, kind: str, **attributes: Any) -> str:
        b = self.b
        high = (shape[0], shape[1], 1, shape[2])
        weight = b.weight(f"{name}.weight", high, lambda: self.source.array(f"{name}.weight").reshape(high), half=True)
        attributes["kernel_shape"] = [1, shape[2]]
        if n_bias and b.graph.precision == "fp32":
            bias = b.weight(f"{name}.bias", (n_bias,), lambda: self.source.array(f"{name}.bias"))
            return b.conv(x, weight, bias, kind=kind, **attributes)
        y = b.conv(x, weight, None, kind=kind, **attributes)
        if not n_bias:
            return y
        spread = (n_bias, 1, 1)  # added in single precision
        bias = b.weight(f"{name}.bias", spread, lambda: self.source.array(f"{name}.bias").reshape(spread))
        return b.op("Add", y, bias)

    def _block(self, x: str, index: int, channels: int, parallel: int) -> str:
        """Add residual pairs of convolutions, with an activation before each."""
        kernel, name = self.sizes.resblock_kernel_sizes[parallel], f"resblocks.{index}"
        shape = (channels, channels, kernel)
        for pair, dilation in enumerate(self.sizes.resblock_dilation_sizes[parallel]):
            branch = add_activation(self.b, self.source, x, f"{name}.activations.{2 * pair}", channels)
            branch = self._conv(branch, f"{name}.convs1.{pair}", shape, dilation=dilation)
            branch = add_activation(self.b, self.source, branch, f"{name}.activations.{2 * pair + 1}", channels)
            x = self.b.add_residual(self._conv(branch, f"{name}.convs2.{pair}", shape), x)
        return x


# ---------------------------------------------------------------------------------------------------------- activations


def add_activation(b: GraphBuilder, source: TensorSource, x: str, name: str, channels: int) -> str:
    """Upsample, apply x + sin(a x)^2 / b, downsample.

    Args:
        b: takes the nodes.
        source: the weights; the two filters are read now.
        x: float32 [B, C, 1, T].
        name: the checkpoint's.
        channels: C.

    Returns:
        float32 [B, C, 1, T].
    """
    up = 2 * source.array(f"{name}.upsample.filter").reshape(-1)
    down = source.array(f"{name}.downsample.lowpass.filter").reshape(-1)

    def depthwise(x: str, role: str, taps: Array, **attributes: Any) -> str:
        shape = (channels, 1, *taps.shape)
        weight = b.weight(f"{name}.{role}", shape, lambda: _heights(source, name, role) * taps.astype(np.float64))
        with b.fp32_region("filter"):
            return b.op("Conv", x, weight, group=channels, kernel_shape=list(taps.shape), **attributes)

    # The taps from an input to its outputs, reversed, are the taps from an output to its inputs. Rows are in reverse
    # order: with a row of zeros above and below, the kernel's lower row makes the upper row of the result.
    kernel = phases(up)[::-1, ::-1]
    padded = b.op("Pad", x, b.constant([0, 0, 0, REACH, 0, 0, 0, REACH]), mode="edge")
    angle = depthwise(padded, "up_alpha", kernel, pads=[1, 0, 1, 0])
    with b.fp32_region("snake"):
        turned = b.op("Sin", angle)
    straight = depthwise(padded, "up_beta", kernel, pads=[1, 0, 1, 0])
    with b.fp32_region("snake"):
        bent = b.op("Add", b.op("Mul", turned, turned), straight)  # [B, C, 2, T], times b
    # The edges of the double rate are repeated: its first sample is even, its last is odd.
    axes, beside = b.constant([2, 3]), b.constant([1, 1, 2, REACH])
    first = b.op("Slice", bent, b.constant([0, 0]), b.constant([1, 1]), axes)
    last = b.op("Slice", bent, b.constant([1, -1]), b.constant([2, _LAST]), axes)
    longer = b.op("Concat", b.op("Expand", first, beside), bent, b.op("Expand", last, beside), axis=3)
    return depthwise(longer, "down", phases(down))


def _heights(source: TensorSource, name: str, role: str) -> Array:
    """Read the filter's factor per channel, float64 [C, 1, 1, 1]: a or b before the sine, 1 / b after it."""
    kind = "alpha" if role == "up_alpha" else "beta"
    values: Array = np.exp(source.array(f"{name}.act.{kind}").astype(np.float64)).reshape(-1, 1, 1, 1)
    if kind == "beta":
        values = values + BETA_FLOOR
    return 1 / values if role == "down" else values
