"""The contract of HeartMuLa's graph in the `ort` dialect (design decision 12)."""

from __future__ import annotations

from dataclasses import replace

from heartvoice.contracts.models import heartmula_step
from heartvoice.contracts.types import Axis, ModelSpec, TensorSpec


def heartmula_step_ort(num_layers: int) -> ModelSpec:
    """`contracts.heartmula_step` for onnxruntime's own operations: the cache comes back with the new positions in it.

    Where `k_present_*` and `k_past_*` are bound to the same memory, new positions are written in place and nothing is
    copied. Prompts (T > 1) begin at position 0, except that a single row may begin anywhere.
    """
    standard = heartmula_step(num_layers)
    present = Axis("present_position", 1, 512, 3584)
    codes, logits, *new = standard.outputs
    return replace(
        standard,
        name="heartmula_step_ort",
        inputs=tuple(_with_positions(tensor) for tensor in standard.inputs),
        outputs=(codes, logits, *(_present(tensor, present) for tensor in new)),
    )


def _with_positions(tensor: TensorSpec) -> TensorSpec:
    if "_past_" not in tensor.name:
        return tensor
    return replace(tensor, doc="Cache; row r is read below `position[r]` only.")


def _present(tensor: TensorSpec, axis: Axis) -> TensorSpec:
    rows, heads, _, width = tensor.shape
    name = tensor.name.replace("_new_", "_present_")
    return TensorSpec(name, tensor.dtype, (rows, heads, axis, width), "The cache with the new positions.")
