"""Builds modules on torch's meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

_OF_INITIAL_VALUES: set[Callable[..., Any]] = {
    init.normal_, init.uniform_, init.trunc_normal_, init.kaiming_uniform_, torch.Tensor.div_,
}  # fmt: skip
"""Functions that set or scale initial values and return their first argument."""


class _WithoutInitialValues(TorchFunctionMode):
    """Leaves out the computation of initial values, which a tensor without memory cannot hold."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _OF_INITIAL_VALUES:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def on_meta_device() -> Iterator[None]:
    """Let modules be built as names and shapes, without memory and without initial values.

    Torch computes these functions on the meta device in Python, and their first use imports its compiler: 1.6 s and
    60 MB in each process.
    """
    with torch.device("meta"), _WithoutInitialValues():
        yield
