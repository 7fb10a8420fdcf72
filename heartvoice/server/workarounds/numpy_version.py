"""Refuses numpy 2.

Fault (Triton 2.51): with numpy 2 every output of a Python model is empty or zero, silently.
Does: refuses to start with numpy 2.
Test: `test_numpy_2_is_refused`
Delete when: the wheel carries a Triton whose Python backend is built for numpy 2.
"""

from __future__ import annotations

import importlib.metadata

from heartvoice.errors import SetupError
from heartvoice.server.triton_wheel import NEEDS


def check_numpy() -> str:
    """Return the version of numpy that the models will import.

    Raises:
        SetupError: it is missing, or 2 or later.
    """
    try:
        version = importlib.metadata.version("numpy")
    except importlib.metadata.PackageNotFoundError:
        raise SetupError(f"numpy is not installed: {NEEDS}") from None
    if int(version.partition(".")[0]) >= 2:
        raise SetupError(
            f"numpy {version} is installed; the embedded Triton server silently returns zeros with numpy 2: "
            "pip install 'numpy<2'"
        )
    return version
