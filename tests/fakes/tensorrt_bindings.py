"""Holds a fake of TensorRT to the signatures of its Python bindings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, ClassVar

_PYTHON: dict[str, Any] = {
    "int": int, "typing.SupportsInt": int, "str": str, "bool": bool, "float": float, "tuple": tuple, "list": list,
    "buffer": (bytes, bytearray, memoryview), "typing_extensions.Buffer": (bytes, bytearray, memoryview),
    "tensorrt.Dims": (tuple, list), "tensorrt.ILogger.Severity": int, "object": object,
}  # fmt: skip


class Fake:
    """Base class: allows only the members and arguments of the bindings."""

    _members: ClassVar[Mapping[str, str]]
    _module: ClassVar[Any]
    _called: ClassVar[str]

    def __new__(cls, *args: Any, _inside: bool = False, **keywords: Any) -> Any:
        if not _inside:
            if "__init__" not in cls._members:
                raise TypeError(f"{cls._called}: No constructor defined!")
            if not args and not keywords and cls._members["__init__"].endswith("(self) -> None"):
                return object.__new__(cls)
            _check(f"{cls._called}.__init__", cls._members["__init__"], cls._module, args, keywords)
        return object.__new__(cls)

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name) if name.startswith("_") else None
        if value is not None or name.startswith("_"):
            return value
        text = type(self)._members.get(name)
        if text is None:
            raise AttributeError(f"TensorRT {self._called} has no {name}")
        value = object.__getattribute__(self, name)
        if text in ("property", "value"):
            return value

        def checked(*args: Any, **keywords: Any) -> Any:
            _check(f"{self._called}.{name}", text, self._module, args, keywords)
            return value(*args, **keywords)

        return checked

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and self._members.get(name) != "property":
            raise AttributeError(f"TensorRT {self._called} has no property {name}")
        object.__setattr__(self, name, value)


def _check(what: str, overloads: str, module: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """Check arguments against the signatures of the bindings."""
    problems = []
    for overload in overloads.split(" | "):
        inside = re.search(r"\(self: [\w.]+(?:, )?(.*)\) -> ", overload)
        assert inside is not None, overload
        named = [part.partition(": ") for part in re.split(r", (?=\w+: )", inside[1]) if part]
        parameters = [
            inspect.Parameter(
                name, inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=None if " = " in kind else inspect.Parameter.empty,
            )
            for name, _, kind in named
        ]  # fmt: skip
        try:
            bound = inspect.Signature(parameters).bind(*args, **keywords).arguments
        except TypeError as error:
            problems.append(str(error))
            continue
        kinds = {name: kind.partition(" = ")[0] for name, _, kind in named}
        wrong = [
            f"{name}: {kinds[name]}, got {value!r}"
            for name, value in bound.items()
            if not _is(value, kinds[name], module)
        ]
        if not wrong:
            return
        problems += wrong
    raise TypeError(f"TensorRT {what}: incompatible arguments: {'; '.join(problems)}")


def _is(value: Any, kind: str, module: Any) -> bool:
    if kind in _PYTHON:
        return isinstance(value, _PYTHON[kind])
    known = getattr(module, kind.removeprefix("tensorrt."), None)
    return known is None or isinstance(value, known)
