"""Checks for packages of optional extras."""

from __future__ import annotations

import importlib.util
import platform

from heartvoice.errors import ModelUnavailableError


def require(extra: str, *modules: str) -> None:
    """Check that modules can be imported, without importing them.

    Raises:
        ModelUnavailableError: names the missing packages and the extra that brings them.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing == ["demucs"] and platform.machine() == "aarch64":
        raise ModelUnavailableError(
            "demucs not installed: it needs sphn, which has no wheel for aarch64: make the repository on x86-64 "
            "and copy it here; TensorRT plans are built here, without demucs"
        )
    if missing:
        raise ModelUnavailableError(
            f"{', '.join(missing)} not installed: this needs the extra {extra!r}: pip install 'heartvoice[{extra}]'"
        )
