"""Finds the gate's songs: they and their true sound are in a checkout's `train/demo`, not in the package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import heartvoice
from heartvoice.errors import SetupError

if TYPE_CHECKING:
    from heartvoice.evaluation.gate.world import World

PROVIDER = "train.demo.gate"
BASELINE = Path("train/demo/gate.json")
"""The committed numbers, below the checkout."""


def checkout() -> Path:
    """Return the folder of the checkout that this package is in.

    Raises:
        SetupError: the package is installed, without a checkout around it.
    """
    root = Path(heartvoice.__file__).resolve().parents[1]
    if not (root / f"{PROVIDER.replace('.', '/')}.py").is_file():
        raise SetupError(
            f"gate: expected a checkout, got the package in {root}: the gate's songs, and the renderer that knows their"
            " true sound, are in train/demo, which no wheel has; run it in a clone of the repository"
        )
    return root


def open_world() -> World:
    """Open the list of songs and covers.

    By name, at run time: the package must not need what is not in it.

    Raises:
        SetupError: as `checkout`.
    """
    root = str(checkout())
    if root not in sys.path:  # a console script's path has no checkout
        sys.path.insert(0, root)
    world: World = importlib.import_module(PROVIDER).DemoWorld()
    return world
