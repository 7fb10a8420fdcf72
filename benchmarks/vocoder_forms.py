"""Forms of the vocoder's activation as graphs: the exported one, and the rejected ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from heartvoice.checkpoints.bigvgan import BETA_FLOOR, TAPS
from heartvoice.contracts.types import Axis, TensorSpec
from heartvoice.export.graph_builder import Array, GraphBuilder
from heartvoice.export.layout import BATCH
from heartvoice.export.vocoder_graph import REACH, add_activation, phases
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.models.bigvgan import DOWN_PADS, UP_CROP, UP_PAD
from heartvoice.models.load import TensorSource

Form = Literal["transposed", "sums", "groups", "rows"]
FORMS: tuple[Form, ...] = get_args(Form)
"""The literal form (a transposed and a strided convolution); then the phases of the doubled rate as weighted sums of
slices, as two channels per group, and as two rows, which is the exported form."""
_LAST = np.iinfo(np.int64).max


def write_form(form: Form, source: TensorSource, name: str, channels: int, folder: Path) -> Path:
    """Write one activation as a graph from `x` [B, C, T] to `y` of the same shape."""
    b = GraphBuilder(form)
    shape = (channels, Axis("length"))
    x, y = b.input(TensorSpec("x", "FP32", shape), batch=BATCH), b.output(TensorSpec("y", "FP32", shape), batch=BATCH)
    if form == "rows":
        high = add_activation(b, source, b.op("Unsqueeze", x, b.constant([2])), name, channels)
        b.op("Squeeze", high, b.constant([2]), out=y)
    else:
        made = {"transposed": _transposed, "sums": _sums, "groups": _groups}[form](b, source, x, name, channels)
        b.op("Identity", made, out=y)
    folder.mkdir(parents=True, exist_ok=True)
    write_graph(b.graph, folder)
    return folder / GRAPH_FILE


def _filters(source: TensorSource, name: str) -> tuple[Array, Array]:
    up, down = (source.array(f"{name}.{place}.filter").reshape(-1) for place in ("upsample", "downsample.lowpass"))
    return 2 * up, down


def _snake(b: GraphBuilder, source: TensorSource, x: str, name: str, *, repeats: int = 1) -> str:
    """Compute x + sin(a x)^2 / b; `repeats` channels of x share each constant a and b."""
    alpha, beta = (np.exp(source.array(f"{name}.act.{kind}").astype(np.float64)) for kind in ("alpha", "beta"))
    a = b.constant(np.repeat(alpha, repeats)[:, None], np.float32)
    inverse = b.constant(np.repeat(1 / (beta + BETA_FLOOR), repeats)[:, None], np.float32)
    turned = b.op("Sin", b.op("Mul", x, a))
    return b.op("Add", x, b.op("Mul", b.op("Mul", turned, turned), inverse))


def _edge(b: GraphBuilder, x: str, before: int, behind: int) -> str:
    return b.op("Pad", x, b.constant([0, 0, before, 0, 0, behind]), mode="edge")


def _transposed(b: GraphBuilder, source: TensorSource, x: str, name: str, channels: int) -> str:
    up, down = (b.constant(np.tile(taps, (channels, 1, 1)), np.float32) for taps in _filters(source, name))
    shared: dict[str, Any] = {"group": channels, "strides": [2], "kernel_shape": [TAPS]}
    doubled = b.op("ConvTranspose", _edge(b, x, UP_PAD, UP_PAD), up, pads=[UP_CROP, UP_CROP], **shared)
    return b.op("Conv", _edge(b, _snake(b, source, doubled, name), *DOWN_PADS), down, **shared)


def _longer(b: GraphBuilder, even: str, odd: str) -> tuple[str, str]:
    """Pad the even phase by its first sample, the odd phase by its last sample."""
    padding_shape = b.constant([1, 1, REACH])
    before = b.op("Expand", b.slice(even, 0, 1, 2), padding_shape)
    behind = b.op("Expand", b.slice(odd, -1, None, 2), padding_shape)
    first, second = (b.op("Concat", before, part, behind, axis=2) for part in (even, odd))
    return first, second


def _sums(b: GraphBuilder, source: TensorSource, x: str, name: str, channels: int) -> str:
    del channels
    up, down = _filters(source, name)
    length = b.size(x, 2)

    def parts(padded: str) -> list[str]:
        return [b.slice(padded, at, b.op("Add", length, b.constant([at])), 2) for at in range(2 * REACH + 1)]

    def weighted(slices: list[str], taps: Array) -> str:
        terms = [b.op("Mul", part, b.constant(tap, np.float32)) for part, tap in zip(slices, taps, strict=True) if tap]
        total = terms[0]
        for term in terms[1:]:
            total = b.op("Add", total, term)
        return total

    slices = parts(_edge(b, x, REACH, REACH))
    even, odd = (_snake(b, source, weighted(slices, taps[::-1]), name) for taps in phases(up))
    halves = [weighted(parts(part), taps) for part, taps in zip(_longer(b, even, odd), phases(down), strict=True)]
    return b.op("Add", *halves)


def _groups(b: GraphBuilder, source: TensorSource, x: str, name: str, channels: int) -> str:
    up, down = _filters(source, name)
    spread = b.constant(np.tile(phases(up)[:, None, ::-1], (channels, 1, 1)), np.float32)
    doubled = b.op("Conv", _edge(b, x, REACH, REACH), spread, group=channels, kernel_shape=[2 * REACH + 1])
    bent = _snake(b, source, doubled, name, repeats=2)  # [B, 2 C, T]
    pair = b.op("Reshape", bent, b.op("Concat", b.constant([-1, 2]), b.size(x, 2), axis=0))
    even, odd = (b.slice(pair, phase, phase + 1, 1) for phase in range(2))
    joined = b.op("Concat", *_longer(b, even, odd), axis=1)
    length = b.op("Add", b.size(x, 2), b.constant([2 * REACH]))
    whole = b.op("Reshape", joined, b.op("Concat", b.constant([-1, 2 * channels]), length, axis=0))
    gathered = b.constant(np.tile(phases(down)[None], (channels, 1, 1)), np.float32)
    return b.op("Conv", whole, gathered, group=channels, kernel_shape=[2 * REACH + 1])
