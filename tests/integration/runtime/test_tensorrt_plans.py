"""Plans on disk: names, sidecars, and which of them may be loaded where."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heartvoice.errors import EngineError
from heartvoice.runtime.repository import Repository
from heartvoice.runtime.tensorrt_plans import (
    ACTIVE,
    Device,
    Plan,
    Target,
    active_plan,
    find_device,
    graph_hashes,
    open_plan,
    plan_findings,
    plan_name,
)

GB10 = Target(Device("NVIDIA GB10", "12.1"), "10.13.2.6")


@pytest.fixture
def planned(exported: Path, tmp_path: Path) -> Callable[..., Repository]:
    """A repository of one graph with a plan."""

    def make(**changes: Any) -> Repository:
        import shutil

        root = tmp_path / "tiny"
        (root / "vocoder").mkdir(parents=True)
        shutil.copytree(exported / "vocoder" / "1", root / "vocoder" / "1")
        shutil.copy(exported / "repository.json", root)
        repository = Repository(root)
        content = b"a plan"
        path = root / "vocoder" / ACTIVE
        path.write_bytes(content)
        about = {
            "model": "vocoder", "precision": "bf16", "gpu": GB10.device.name,
            "compute_capability": GB10.device.compute_capability, "tensorrt": GB10.tensorrt,
            "onnx": graph_hashes(repository, "vocoder"),
            "plan": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)},
        } | changes  # fmt: skip
        path.with_name("model.plan.json").write_text(json.dumps(about))
        return repository

    return make


def test_plan_names_say_preset_precision_gpu_and_version() -> None:
    assert plan_name("oss-3b", "bf16", GB10) == "oss-3b.bf16.nvidia-gb10-sm121.trt10.13.2.6.plan"


@pytest.mark.parametrize(
    ("printed", "device"),
    [
        ("NVIDIA GB10, 12.1\n", GB10.device),
        ("NVIDIA H100 80GB HBM3, 9.0\nNVIDIA H100 80GB HBM3, 9.0\n", Device("NVIDIA H100 80GB HBM3", "9.0")),
    ],
)
def test_device_is_what_the_driver_names_first(printed: str, device: Device) -> None:
    assert find_device(lambda command: printed) == device


@pytest.mark.parametrize("printed", ["", "No devices were found\n", "GPU, [N/A]\n"])
def test_device_that_is_not_named_is_an_error(printed: str) -> None:
    with pytest.raises(EngineError, match="expected name and compute capability"):
        find_device(lambda command: printed)


def test_missing_driver_is_an_error() -> None:
    def ask(command: tuple[str, ...]) -> str:
        raise FileNotFoundError(command[0])

    with pytest.raises(EngineError, match="NVIDIA GPU and its driver"):
        find_device(ask)

    def fail(command: tuple[str, ...]) -> str:
        raise subprocess.CalledProcessError(9, command)

    with pytest.raises(EngineError, match="nvidia-smi"):
        find_device(fail)


def test_plan_of_this_machine_is_opened(planned: Callable[..., Repository]) -> None:
    plan = open_plan(planned(), "vocoder", GB10)
    assert plan.content() == b"a plan"
    assert plan.made_for == GB10


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (replace(GB10, device=Device("NVIDIA H200", "9.0")), "built on NVIDIA GB10 .*, this is NVIDIA H200"),
        (replace(GB10, device=Device("NVIDIA GB10", "12.0")), "compute capability 12.1"),
        (replace(GB10, tensorrt="10.13.3.9"), "built by TensorRT 10.13.2.6, this is 10.13.3.9"),
    ],
)
def test_plan_of_another_machine_is_refused_with_the_command(
    planned: Callable[..., Repository], target: Target, says: str
) -> None:
    repository = planned()
    with pytest.raises(EngineError, match=says) as refused:
        open_plan(repository, "vocoder", target)
    command = f"heartvoice export plans --repository {repository.root} --only vocoder --precision bf16"
    assert command in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"onnx": {"model.onnx": "0" * 64}}, "built from another graph"),
        ({"plan": {"sha256": "0" * 64, "bytes": 7}}, "6 bytes, its sidecar says 7"),
        ({"tensorrt": None}, "built by TensorRT None"),
        ({"plan": {}}, "missing or damaged"),
    ],
)
def test_plan_that_does_not_fit_its_sidecar_is_refused(
    planned: Callable[..., Repository], changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(EngineError, match=says):
        open_plan(planned(**changes), "vocoder", GB10)


def test_changed_plan_is_refused_by_its_hash(planned: Callable[..., Repository]) -> None:
    repository = planned()
    (repository.root / "vocoder" / ACTIVE).write_bytes(b"a plot")
    with pytest.raises(EngineError, match="sha256"):
        open_plan(repository, "vocoder", GB10).content()


def test_missing_plan_or_sidecar_names_the_command(planned: Callable[..., Repository]) -> None:
    repository = planned()
    (repository.root / "vocoder" / "1" / "model.plan.json").unlink()
    with pytest.raises(EngineError, match=r"model\.plan\.json: missing or damaged.*--only vocoder"):
        Plan.read(repository.root / "vocoder" / ACTIVE)
    (repository.root / "vocoder" / ACTIVE).unlink()
    assert active_plan(repository, "vocoder") is None
    with pytest.raises(EngineError, match=r"model\.plan is missing; build it with `heartvoice export"):
        open_plan(repository, "vocoder", GB10)


def test_findings_say_of_every_plan_whether_it_may_be_loaded(planned: Callable[..., Repository]) -> None:
    repository = planned()
    assert plan_findings(repository, ("vocoder", "svc_flow"), GB10) == [
        ("vocoder", True, "bf16, NVIDIA GB10 (compute capability 12.1), TensorRT 10.13.2.6")
    ]
    ((_, ok, text),) = plan_findings(repository, ("vocoder",), None)
    assert not ok
    assert "no such GPU here" in text


def test_doctor_names_plans_that_this_machine_cannot_load(planned: Callable[..., Repository]) -> None:
    from heartvoice.server.doctor import examine

    findings = {finding.name: finding for finding in examine(planned().root, {})}
    assert not findings["plan vocoder"].ok
    assert "NVIDIA GB10" in findings["plan vocoder"].detail
