"""Reads dataclasses of sizes from configuration files and from an export's index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

_T = TypeVar("_T")
_C = TypeVar("_C", bound="FromConfig")


def from_mapping(cls: type[_T], values: Mapping[str, Any]) -> _T:
    """Fill a dataclass from a mapping; unknown keys (training-only settings) are ignored."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: _frozen(value) for name, value in values.items() if name in known})


def _frozen(value: Any) -> Any:
    """Convert lists to tuples at any depth."""
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list) else value


class FromConfig:
    """A dataclass whose fields have the names of a configuration file's keys."""

    @classmethod
    def from_config(cls: type[_C], config: Mapping[str, Any]) -> _C:
        """Read a configuration; missing keys keep their defaults."""
        return from_mapping(cls, config)
