"""Weight-only quantisation in blocks of 32 input columns, in the format of onnxruntime's MatMulNBits.

A weight [in, out] becomes unsigned integers with a scale (and, with 4 bits, an offset) for every 32 inputs of each
output. Activations are rounded to 8 bits in the same blocks while the product is computed (accuracy level 4): without
that, 8-bit weights are many times slower. With blocks larger than 32, a row's result depends on the number of rows in
the product (benchmarks/DIARY.md), and a song must not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from heartvoice.errors import InvalidRequestError
from heartvoice.export.graph_builder import Array, GraphBuilder, Shape, Weight

Part = Literal["backbone", "depth", "heads"]
PARTS: tuple[Part, ...] = get_args(Part)
BLOCK = 32
"""Inputs that share a scale."""
BITS = (8, 4)
MakeWeight = Callable[[], Array]
_ACTIVATIONS_IN_INT8 = 4
"""MatMulNBits' `accuracy_level`."""
_PREFIXES: dict[str, Part] = {
    "backbone.layers.": "backbone",
    "decoder.layers.": "depth",
    "projection.": "depth",
    "codebook0_head.": "heads",
    "audio_head.": "heads",
}
"""Embedding tables are read row by row and stay in float32."""


# ------------------------------------------------------------------------------------------------------------- choice


@dataclass(frozen=True)
class Quantization:
    """Bits of each part's weights; other parts stay in float32."""

    bits: Mapping[Part, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Quantization:
        """Parse `none`, `int8`, `int4`, or parts: `depth-int8`, `depth-int8,backbone-int4`.

        Raises:
            InvalidRequestError: the text has another form, or names a part twice.
        """
        if text == "none":
            return NOTHING
        bits: dict[Part, int] = {}
        for item in text.split(","):
            part, _, width = item.rpartition("-")
            named = [known for known in PARTS if part in ("", known) and known not in bits]
            if not named or width not in _WIDTHS:
                raise InvalidRequestError(
                    f"quantize: expected none, or int8 or int4 for all or for parts ({', '.join(PARTS)}) as in "
                    f"depth-int8,backbone-int4, got {text!r}"
                )
            bits |= dict.fromkeys(named, _WIDTHS[width])
        return cls({part: bits[part] for part in PARTS if part in bits})

    def __str__(self) -> str:
        """Return the canonical text that `parse` reads."""
        widths = set(self.bits.values())
        if len(widths) == 1 and len(self.bits) == len(PARTS):
            return f"int{widths.pop()}"
        return ",".join(f"{part}-int{bits}" for part, bits in self.bits.items()) or "none"

    def bits_of(self, weight: str) -> int | None:
        """Return the bits of a weight by its name in the graph; None if it stays in float32."""
        part = next((part for prefix, part in _PREFIXES.items() if weight.startswith(prefix)), None)
        return self.bits.get(part) if part else None


_WIDTHS = {f"int{bits}": bits for bits in BITS}
NOTHING = Quantization()


# -------------------------------------------------------------------------------------------------------------- blocks


@dataclass(frozen=True)
class Blocks:
    """A quantised weight [in, out]: value = scale * (code - offset)."""

    codes: npt.NDArray[np.uint8]
    """[out, blocks, BLOCK * bits / 8]; of two 4-bit codes in a byte, the lower half is first."""
    scales: npt.NDArray[np.float32]
    """[out, blocks]."""
    offsets: npt.NDArray[np.uint8] | None
    """[out, ceil(blocks * bits / 8)], packed like the codes; None is the middle of the range."""


def stored_bytes(bits: int) -> float:
    """Return the bytes of one weight, with its share of scale and offset."""
    return bits / 8 + (4 + (bits / 8 if bits < 8 else 0)) / BLOCK


def n_blocks(inputs: int) -> int:
    """Return the number of blocks for this number of inputs; the last block is padded with zeros."""
    return -(-inputs // BLOCK)


def quantize(weight: npt.NDArray[np.float32], bits: int) -> Blocks:
    """Round a weight [in, out] block by block, each value to the nearest code.

    8 bits are symmetric. 4 bits use all 16 codes for the range from the smallest to the largest value of the block.
    Both represent zero exactly.
    """
    # Imported here because it takes seconds and most exports quantise nothing.
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=bits == 8, bits=bits)
    # Contiguous because the quantiser ignores strides.
    codes, scales, offsets = DefaultWeightOnlyQuantizer(config).qbits_block_quant(np.ascontiguousarray(weight))
    return Blocks(codes, scales, offsets if bits < 8 else None)


# -------------------------------------------------------------------------------------------------------------- graphs


class QuantizedBuilder(GraphBuilder):
    """A builder that quantises chosen weights and multiplies with the quantised values."""

    def __init__(self, name: str, quantization: Quantization) -> None:
        """Start an empty float32 graph."""
        super().__init__(name)
        self._quantization = quantization
        self._quantized: dict[str, _Quantized] = {}

    def weight(self, name: str, shape: Shape, make: MakeWeight, *, half: bool = False) -> str:
        """Declare a weight; a weight that may be in half precision may also be quantised."""
        bits = self._quantization.bits_of(name) if half else None
        if bits is None:
            return super().weight(name, shape, make, half=half)
        if name not in self._quantized:
            self._quantized[name] = quantized = _Quantized(name, shape, bits, make)
            self.graph.weights += quantized.weights
        return name

    def matmul(self, x: str, y: str, *, out: str = "") -> str:
        """Add a matrix product."""
        quantized = self._quantized.get(y)
        if quantized is None:
            return super().matmul(x, y, out=out)
        inputs, outputs = quantized.shape
        return self.op(
            "MatMulNBits",
            *(x, *(weight.name for weight in quantized.weights)),
            out=out,
            domain="com.microsoft",
            K=inputs,
            N=outputs,
            accuracy_level=_ACTIVATIONS_IN_INT8,
            bits=quantized.bits,
            block_size=BLOCK,
        )


class _Quantized:
    """The tensors of one quantised weight. They are written in order, so the first computes them all."""

    def __init__(self, name: str, shape: Shape, bits: int, make: MakeWeight) -> None:
        self.shape, self.bits, self._make = shape, bits, make
        self._rest: list[Array] = []
        count, outputs = n_blocks(shape[0]), shape[1]
        self.weights = [
            Weight(f"{name}.codes", (outputs, count, BLOCK * bits // 8), np.uint8, self._first),
            Weight(f"{name}.scales", (outputs, count), np.float32, self._next),
        ]
        if bits < 8:
            self.weights.append(Weight(f"{name}.offsets", (outputs, -(-count * bits // 8)), np.uint8, self._next))

    def _first(self) -> Array:
        blocks = quantize(self._make().astype(np.float32), self.bits)
        self._rest = [array for array in (blocks.scales, blocks.offsets) if array is not None]
        return blocks.codes

    def _next(self) -> Array:
        return self._rest.pop(0)
