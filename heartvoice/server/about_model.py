"""Lays out the model `heartvoice` for a run, and unloads it when a stop begins."""

from __future__ import annotations

import json
from pathlib import Path

import heartvoice
from heartvoice.contracts.about import ABOUT, ASK, FACTS
from heartvoice.contracts.constants import CONTRACT
from heartvoice.runtime.repository import Repository

_ADAPTER = "from heartvoice.serving.about import AboutModel as TritonPythonModel  # noqa: F401\n"


def facts(repository: Repository) -> dict[str, str]:
    """Return what the server is, as text by name."""
    return {
        "version": heartvoice.__version__,
        "preset": str(repository.index["preset"]),
        "contract": str(CONTRACT),
        "weights": str(repository.index["weights"]),
        "random_weights": "true" if repository.random_weights else "false",
    }


def lay_out(repository: Repository, models: tuple[str, ...], folder: Path) -> Path:
    """Write a model repository with the model alone; return `folder`.

    Args:
        repository: what the server serves.
        models: the other models that are loaded, whose restarts it shows.
        folder: does not exist yet.
    """
    parameters = {**facts(repository), "models": json.dumps(models)}
    lines = [
        f'name: "{ABOUT}"',
        'backend: "python"',
        f'input {{ name: "{ASK}" data_type: TYPE_BOOL dims: [ 1 ] }}',
        f'output {{ name: "{FACTS}" data_type: TYPE_STRING dims: [ 1 ] }}',
        "instance_group { count: 1 kind: KIND_CPU }",
        *(
            f'parameters {{ key: "{name}" value: {{ string_value: {json.dumps(value)} }} }}'
            for name, value in parameters.items()
        ),
    ]
    model = folder / ABOUT
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (model / "1" / "model.py").write_text(_ADAPTER, encoding="utf-8")
    return folder
