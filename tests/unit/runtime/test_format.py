"""A repository's format number changes with what its exported files say of the models' tensors."""

from __future__ import annotations

from hashlib import sha256

from heartvoice.contracts.adapters import ADAPTERS
from heartvoice.contracts.models import MODELS
from heartvoice.runtime.repository import FORMAT

FORMATS = {3: "17b931ed47fe59df"}
"""What each format number stands for."""


def _agreed() -> str:
    """Return the hash of what an export writes into configurations and adapters."""
    lines = [
        f"{model.name} {kind} {tensor.name} {tensor.dtype} {tensor.dims} {tensor.optional}"
        for model in MODELS.values()
        for kind, tensors in (
            ("in", (*model.inputs, *(setting.spec for setting in model.settings))),
            ("out", model.outputs),
        )
        for tensor in tensors
    ]
    lines += [f"{name} {adapter}" for name, adapter in sorted(ADAPTERS.items())]
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def test_an_export_of_other_tensors_has_another_format_number() -> None:
    """After a change, raise `FORMAT` and replace the entry here; older exports are then refused with what to do."""
    assert FORMATS[FORMAT] == _agreed(), "tensors or adapters changed: raise heartvoice.runtime.repository.FORMAT"
