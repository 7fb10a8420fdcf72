"""TensorRT plans of an exported repository: names, origin, target, and whether they may be loaded.

A plan runs only on the GPU model and TensorRT version that it was built with. Plans are in `MODEL/plans/`, each with a
sidecar file of checksums. `MODEL/1/model.plan` links to the latest plan, which Triton's TensorRT backend loads
(`serve --config-name tensorrt`). This module imports neither TensorRT nor torch.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from heartvoice.errors import EngineError
from heartvoice.runtime.repository import MANIFEST, Repository

PlanPrecision = Literal["bf16", "fp16", "fp32", "tf32"]
PLAN_PRECISIONS: tuple[PlanPrecision, ...] = get_args(PlanPrecision)
PLANS = "plans"
REPORT = "precision.json"
"""Error of half precision per precision and graph, at the root of a repository."""
ACTIVE = "1/model.plan"
SIDECAR_SUFFIX = ".json"
_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader")
Ask = Callable[[tuple[str, ...]], str]
"""Runs a command and returns its output; raises OSError or CalledProcessError on failure."""


@dataclass(frozen=True)
class Device:
    """A GPU model."""

    name: str
    compute_capability: str
    """For example `12.1`."""

    def __str__(self) -> str:
        """For example `NVIDIA GB10 (compute capability 12.1)`."""
        return f"{self.name} (compute capability {self.compute_capability})"

    @property
    def slug(self) -> str:
        """For file names, for example `nvidia-gb10-sm121`."""
        name = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        return f"{name}-sm{self.compute_capability.replace('.', '')}"


def _ask(command: tuple[str, ...]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def find_device(ask: Ask = _ask) -> Device:
    """Return the driver's first GPU.

    Raises:
        EngineError: there is no GPU or no driver.
    """
    try:
        lines = ask(_QUERY).strip().splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(
            f"TensorRT needs an NVIDIA GPU and its driver; `{' '.join(_QUERY)}` failed: {error}"
        ) from error
    name, comma, capability = lines[0].rpartition(",") if lines else ("", "", "")
    if not comma or not re.fullmatch(r"\d+\.\d+", capability.strip()):
        raise EngineError(f"`{' '.join(_QUERY)}`: expected name and compute capability, got {lines[:1]}")
    return Device(name.strip(), capability.strip())


@dataclass(frozen=True)
class Target:
    """GPU and TensorRT version that a plan is built for."""

    device: Device
    tensorrt: str
    """Full version, for example `10.13.2.6`; plans are tied to a patch release."""


@dataclass(frozen=True)
class Plan:
    """A plan on disk, as described by its sidecar file."""

    path: Path
    about: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read the sidecar file of a plan.

        Raises:
            EngineError: plan or sidecar file is missing or damaged.
        """
        sidecar = path.with_name(path.name + SIDECAR_SUFFIX)
        try:
            about = json.loads(sidecar.read_text(encoding="utf-8"))
            plan = cls(path, about)
            _ = plan.made_for, plan.about["plan"]["bytes"], plan.about["onnx"], plan.rebuild
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(f"{sidecar}: missing or damaged ({error}); {_rebuild(path.parent.parent)}") from error
        if not path.is_file():
            raise EngineError(f"{path}: missing, though its sidecar is there; {plan.rebuild}")
        return plan

    @property
    def made_for(self) -> Target:
        """GPU and TensorRT version of the build."""
        return Target(Device(self.about["gpu"], self.about["compute_capability"]), self.about["tensorrt"])

    @property
    def precision(self) -> str:
        """Precision outside the float32 regions."""
        return str(self.about["precision"])

    @property
    def rebuild(self) -> str:
        """Instruction for rebuilding the plan."""
        return _rebuild(self.path.parent.parent, str(self.about["model"]), str(self.about["precision"]))

    def check(self, target: Target, graph_files: Mapping[str, str]) -> None:
        """Check that the plan fits GPU, TensorRT version and graph.

        Args:
            target: GPU and version that will run it.
            graph_files: sha256 of each file of the model's ONNX graph, from its manifest.

        Raises:
            EngineError: the message gives the difference and the command that rebuilds the plan.
        """
        made = self.made_for
        if made.device != target.device:
            raise EngineError(f"{self.path}: built on {made.device}, this is {target.device}; {self.rebuild}")
        if made.tensorrt != target.tensorrt:
            raise EngineError(
                f"{self.path}: built by TensorRT {made.tensorrt}, this is {target.tensorrt}; {self.rebuild}"
            )
        if dict(self.about["onnx"]) != dict(graph_files):
            raise EngineError(f"{self.path}: built from another graph than {self.about['model']} has; {self.rebuild}")
        size = self.path.stat().st_size
        if size != self.about["plan"]["bytes"]:
            raise EngineError(
                f"{self.path}: {size} bytes, its sidecar says {self.about['plan']['bytes']}; {self.rebuild}"
            )

    def content(self) -> bytes:
        """Read the plan.

        Raises:
            EngineError: its sha256 differs from the sidecar file's.
        """
        data = self.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.about["plan"]["sha256"]:
            raise EngineError(f"{self.path}: its sha256 is not its sidecar's; {self.rebuild}")
        return data


def _rebuild(model_folder: Path, model: str | None = None, precision: str | None = None) -> str:
    root = model_folder.parent
    chosen = f" --precision {precision}" if precision else ""
    name = model or model_folder.name
    return f"build it with `heartvoice export plans --repository {root} --only {name}{chosen}`"


def plan_name(preset: str, precision: PlanPrecision, target: Target) -> str:
    """Build the file name of a plan from preset, precision, GPU and TensorRT version."""
    return f"{preset}.{precision}.{target.device.slug}.trt{target.tensorrt}.plan"


def graph_hashes(repository: Repository, model: str) -> dict[str, str]:
    """Return the sha256 of each file of a model's graph, from its manifest.

    Raises:
        EngineError: the graph or its manifest is missing or damaged.
    """
    manifest = repository.graph(model).parent.parent / MANIFEST
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return {name: str(entry["sha256"]) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{manifest}: unreadable: {error}") from error


def active_plan(repository: Repository, model: str) -> Plan | None:
    """Return the plan that Triton would load for a model, or None."""
    path = repository.root / model / ACTIVE
    return Plan.read(path) if path.is_file() else None


def open_plan(repository: Repository, model: str, target: Target) -> Plan:
    """Return the plan of a model that this machine may load.

    Raises:
        EngineError: no plan fits this GPU, TensorRT and graph; the message gives the command that builds one.
    """
    plan = active_plan(repository, model)
    if plan is None:
        folder = repository.root / model
        raise EngineError(f"{model}: {folder / ACTIVE} is missing; {_rebuild(folder)}")
    plan.check(target, graph_hashes(repository, model))
    return plan


def plan_files(model_folder: Path) -> list[str]:
    """Return a model's plan files, relative to its folder; they survive a change of its configs."""
    active = [ACTIVE, ACTIVE + SIDECAR_SUFFIX]
    inside = [f"{PLANS}/{path.name}" for path in sorted((model_folder / PLANS).glob("*")) if path.is_file()]
    return [name for name in (*active, *inside) if (model_folder / name).is_file()]


def plan_findings(
    repository: Repository, models: tuple[str, ...], target: Target | None
) -> list[tuple[str, bool, str]]:
    """Check all plans; return model, whether its plan may be loaded, and an explanation.

    Args:
        repository: exported repository.
        models: names of the models to check.
        target: this machine; None if it has no GPU or no TensorRT, and then no plan fits.
    """
    found = []
    for model in models:
        try:
            plan = active_plan(repository, model)
            if plan is None:
                continue
            made = plan.made_for
            if target is not None:
                plan.check(target, graph_hashes(repository, model))
            text = f"{plan.precision}, {made.device}, TensorRT {made.tensorrt}"
            found.append((model, target is not None, text if target else f"{text}; there is no such GPU here"))
        except EngineError as error:
            found.append((model, False, str(error)))
    return found
