"""The saved state of a training: whole, or that of before."""

from __future__ import annotations

import fcntl
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heartvoice.audio.encode import replacing
from train.frame.errors import TrainingError

FILE = "state.pt"
LOG = "log.jsonl"
LOCK = ".lock"
_VERSION = 1


@dataclass
class State:
    """All that a training needs to go on as if nothing had happened.

    Random numbers need no place of their own: those of a step follow from seed, step and rank.
    """

    recipe: Mapping[str, Any]
    """The task's, with its name, seed and number of processes."""
    step: int
    """Steps that are done."""
    total: int
    seconds: float
    """Spent so far, all sittings together."""
    log_bytes: int
    """Length of the log; what stands behind it came after this state and is cut off."""
    network: Mapping[str, Any]
    optimisers: list[dict[str, Any]]


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Make a state's folder if there is none, and keep other trainings out of it.

    Raises:
        TrainingError: another training runs in it.
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(f"--state: another training runs in {folder}; wait for it, or use another") from error
        for unfinished in folder.glob(f".{FILE}.*.part"):  # of a process that was killed while it saved
            unfinished.unlink()
        yield


def save_state(folder: Path, state: State) -> None:
    """Replace the folder's state; whoever is killed within leaves the old one.

    Raises:
        OSError: naming the file, for example on a full disk.
    """
    fields = {name: getattr(state, name) for name in State.__dataclass_fields__}
    with replacing(folder / FILE) as file:
        torch.save({"version": _VERSION, **fields}, file)


def load_state(folder: Path) -> State | None:
    """Read the folder's state; None if there is none.

    Raises:
        TrainingError: the file is damaged, or of another version.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise TrainingError(f"{path}: not a training state ({error}); delete it to start anew") from error
    if not isinstance(values, dict) or values.pop("version", None) != _VERSION:
        raise TrainingError(f"{path}: a training state of another version; use another --state")
    return State(**values)


def check_recipe(state: State, recipe: Mapping[str, Any], folder: Path) -> None:
    """Refuse a state of another recipe.

    Raises:
        TrainingError: naming what differs.
    """
    for key in sorted({*state.recipe, *recipe}):
        old, new = state.recipe.get(key), recipe.get(key)
        if old != new:
            raise TrainingError(
                f"{folder / FILE}: {key} is {_short(old)} in the state and {_short(new)} now; "
                "use another --state, or delete this one to start anew"
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
