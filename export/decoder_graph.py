"""Builds the ONNX graph of HeartCodec's scalar decoder.

Contract: `contracts.HEARTCODEC_DECODER`; the PyTorch twin is `heartvoice.models.heartcodec.scalar`. Source: heartcodec
spec, section 6. The network is bound by memory traffic, so the graph avoids passes over long activations: padding is an
attribute of each convolution, weight norm is folded, and a PReLU with one weight is a LeakyRelu, which runtimes fuse
into the convolution before it.
"""

from __future__ import annotations

import numpy as np

from heartvoice.config.presets import HeartCodecConfig
from heartvoice.contracts.models import HEARTCODEC_DECODER
from heartvoice.export.graph_builder import Array, Graph, GraphBuilder, pinned
from heartvoice.export.layout import BATCH, Precision, codec_axes
from heartvoice.models.heartcodec.scalar import DILATIONS, LEVELS
from heartvoice.models.load import TensorSource

_DECODER = "scalar_model.decoder"


def build_heartcodec_decoder(sizes: HeartCodecConfig, source: TensorSource, precision: Precision = "fp32") -> Graph:
    """Build the graph of `contracts.HEARTCODEC_DECODER`: latents [B, Lh, T] to audio [B, bands, T * latent_hop]."""
    return _Decoder(sizes, source, precision).build()


class _Decoder:
    def __init__(self, sizes: HeartCodecConfig, source: TensorSource, precision: Precision) -> None:
        self.sizes, self.source = sizes, source
        self.b = GraphBuilder(HEARTCODEC_DECODER.name, precision)

    def build(self) -> Graph:
        b, sizes, axes = self.b, self.sizes, codec_axes(self.sizes)
        latents = b.input(pinned(HEARTCODEC_DECODER.inputs[0], axes), batch=BATCH)
        output = b.output(pinned(HEARTCODEC_DECODER.outputs[0], axes), batch=BATCH)
        levels = b.constant(float(LEVELS), np.float32)
        with b.fp32_region("levels"):
            x = b.op("Div", b.op("Round", b.op("Mul", latents, levels)), levels)  # Round rounds halves to even
        channels = sizes.init_channel * 2 ** len(sizes.upsample_factors)
        x = self._conv(x, f"{_DECODER}.0", sizes.latent_hidden_dim, channels, sizes.delay_kernel_size, causal=False)
        index = 1
        for factor, kernel in zip(sizes.upsample_factors, sizes.upsample_kernel_sizes, strict=True):
            x = self._upsample(x, f"{_DECODER}.{index}.up_conv.layer", channels, kernel, factor)
            channels //= 2
            for unit, dilation in enumerate(DILATIONS):
                x = self._residual_unit(x, f"{_DECODER}.{index}.convs.{unit}", channels, dilation)
            index += 1
        self._finish(x, index, channels, output)
        return b.graph

    def _conv(
        self, x: str, name: str, width_in: int, width_out: int, kernel: int, *, causal: bool, dilation: int = 1
    ) -> str:
        """Add a convolution that keeps the length."""
        shape = (width_out, width_in, kernel)
        weight = self.b.weight(f"{name}.weight", shape, lambda: self.source.array(f"{name}.weight"), half=True)
        bias = self._bias(name, width_out)
        pads = list(_pads(kernel, dilation, causal))
        return self.b.conv(x, weight, bias, pads=pads, dilations=[dilation], kernel_shape=[kernel])

    def _bias(self, name: str, width: int) -> str:
        return self.b.weight(f"{name}.bias", (width,), lambda: self.source.array(f"{name}.bias"))

    def _prelu(self, x: str, name: str) -> str:
        """Add a PReLU with one weight. The slope is an attribute, so it is read now."""
        return self.b.op("LeakyRelu", x, alpha=float(self.source.array(f"{name}.weight").reshape(())))

    def _upsample(self, x: str, name: str, channels: int, kernel: int, factor: int) -> str:
        """Add a transposed convolution, [B, C, T] to [B, C / 2, T * factor].

        A causal one drops its tail by its padding.
        """
        shape = (channels, channels // 2, kernel)
        weight = self.b.weight(f"{name}.weight", shape, lambda: self.source.array(f"{name}.weight"), half=True)
        side = (kernel - factor) // 2
        pads = [0, factor] if self.sizes.causal else [side, side]
        return self.b.conv(
            x,
            weight,
            self._bias(name, channels // 2),
            kind="ConvTranspose",
            kernel_shape=[kernel],
            pads=pads,
            strides=[factor],
        )

    def _residual_unit(self, x: str, name: str, channels: int, dilation: int) -> str:
        """Add x + act2(conv2(act1(conv1 x)))."""
        kernel, causal = self.sizes.res_kernel_size, self.sizes.causal
        branch = self._conv(x, f"{name}.conv1", channels, channels, kernel, causal=causal, dilation=dilation)
        branch = self._prelu(branch, f"{name}.activation1")
        branch = self._conv(branch, f"{name}.conv2", channels, channels, 1, causal=causal)
        return self.b.add_residual(x, self._prelu(branch, f"{name}.activation2"))

    def _finish(self, x: str, index: int, channels: int, output: str) -> None:
        """Repeat samples, convolve, activate, convolve to the bands; the result is named `output`.

        Samples are not repeated in memory. One convolution makes all phases of a sample as channels, the next one
        reads them, and only the finished bands are interleaved.
        """
        b, sizes, phases = self.b, self.sizes, self.sizes.num_samples
        bands = sizes.num_bands
        if phases > 1:
            name = f"{_DECODER}.{index}"
            x = self._phased(x, f"{name}.conv", channels, channels, repeated=True)
            x = self._prelu(x, f"{name}.activation")
            index += 1
        x = self._phased(x, f"{_DECODER}.{index}", channels, bands, repeated=False)
        apart = b.reshape(x, [0, phases, bands, -1])
        b.reshape(b.transpose(apart, 0, 2, 3, 1), [0, bands, -1], out=output)

    def _phased(self, x: str, name: str, width_in: int, width_out: int, *, repeated: bool) -> str:
        """Add a convolution at `num_samples` times the rate of its input's last axis, phases as channels.

        Args:
            x: [B, C, T] whose samples count `num_samples` times each if `repeated`, else [B, phases * C, T].
            name: the checkpoint's.
            width_in: C.
            width_out: channels of one phase of the result.
            repeated: as above.
        """
        b, sizes, phases = self.b, self.sizes, self.sizes.num_samples
        kernel = sizes.default_kernel_size
        before, _ = _pads(kernel, 1, sizes.causal)
        taps = [[(phase + tap - before) for tap in range(kernel)] for phase in range(phases)]
        first, last = taps[0][0] // phases, taps[-1][-1] // phases
        columns = width_in if repeated else width_in * phases
        shape = (phases * width_out, columns, last - first + 1)

        def make() -> Array:
            weight = self.source.array(f"{name}.weight")  # [out, C, kernel]
            phased = np.zeros((phases, width_out, columns // width_in, width_in, shape[2]), dtype=np.float32)
            for phase in range(phases):
                for tap, at in enumerate(taps[phase]):
                    phased[phase, :, 0 if repeated else at % phases, :, at // phases - first] += weight[:, :, tap]
            return phased.reshape(shape)

        weight = b.weight(f"{name}.phases", shape, make, half=True)
        bias = b.weight(
            f"{name}.phases_bias", (phases * width_out,), lambda: np.tile(self.source.array(f"{name}.bias"), phases)
        )
        return b.conv(x, weight, bias, kernel_shape=[shape[2]], pads=[-first, last])


def _pads(kernel: int, dilation: int, causal: bool) -> tuple[int, int]:
    """Return the zero padding before and after a convolution that keeps the length."""
    reach = dilation * (kernel - 1)
    return (reach, 0) if causal else (reach // 2, reach // 2)
