"""ModelSpec into the text of a Triton config.pbtxt."""

from __future__ import annotations

from typing import Literal

from heartvoice.contracts.types import ModelSpec, TensorSpec

_TRITON_DTYPE = {"BYTES": "TYPE_STRING"}
Variant = Literal["", "cpu", "cpu_bf16", "tensorrt"]
_HEADER = "# Generated from heartvoice/contracts by `heartvoice export`; do not edit.\n"

_OPENVINO = """\
optimization {
  execution_accelerators {
    cpu_execution_accelerator: [ { name: "openvino"%s } ]
  }
}
"""
_BF16 = ' parameters { key: "precision" value: "bf16" }'


def variants(model: ModelSpec) -> tuple[Variant, ...]:
    """The configs that a model has: the default, and for native graphs the CPU and TensorRT ones."""
    if model.backend != "onnxruntime":
        return ("",)
    found: tuple[Variant, ...] = ("", "cpu", "cpu_bf16") if model.bf16 else ("", "cpu")
    return (*found, "tensorrt") if model.plan else found


def config_path(model: ModelSpec, variant: Variant = "") -> str:
    """Where the config lies in a repository, relative to its root."""
    return f"{model.name}/configs/{variant}.pbtxt" if variant else f"{model.name}/config.pbtxt"


def to_config_text(model: ModelSpec, variant: Variant = "") -> str:
    """The config's text: complete, so that the server needs no auto-completion."""
    lines = [_HEADER, f'name: "{model.name}"\n']
    if variant == "tensorrt":
        lines.append('backend: "tensorrt"\ndefault_model_filename: "model.plan"\n')
    elif model.backend == "onnxruntime":
        lines.append('backend: "onnxruntime"\ndefault_model_filename: "model.onnx"\n')
    else:
        lines.append('backend: "python"\n')
    rows = model.plan_rows[1] if variant == "tensorrt" and model.max_batch_size else model.max_batch_size
    lines.append(f"max_batch_size: {rows}\n")
    lines += [_tensor("input", spec) for spec in model.all_inputs]
    lines += [_tensor("output", spec) for spec in model.outputs]
    kind = {"cpu": "KIND_CPU", "cpu_bf16": "KIND_CPU", "tensorrt": "KIND_GPU"}.get(variant, model.kind)
    lines.append(f"instance_group: [ {{ count: 1, kind: {kind} }} ]\n")
    if model.max_batch_size:
        lines.append("dynamic_batching { }\n")
    if model.decoupled:
        lines.append("model_transaction_policy { decoupled: true }\n")
    if variant in ("cpu", "cpu_bf16"):
        lines.append(_OPENVINO % (_BF16 if variant == "cpu_bf16" else ""))
    for key, value in sorted(model.parameters.items()):
        lines.append(f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}\n')
    return "".join(lines)


def _tensor(section: str, spec: TensorSpec) -> str:
    dtype = _TRITON_DTYPE.get(spec.dtype, f"TYPE_{spec.dtype}")
    dims = ", ".join(str(size) for size in spec.dims)
    optional = ", optional: true" if spec.optional else ""
    return f'{section} [ {{ name: "{spec.name}", data_type: {dtype}, dims: [ {dims} ]{optional} }} ]\n'
