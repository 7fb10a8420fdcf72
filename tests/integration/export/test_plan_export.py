"""Typed graphs and plans in a repository, over a fake TensorRT."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner, Result

from heartvoice.cli.main import app
from heartvoice.errors import EngineError, ExportError
from heartvoice.export.check import repository_drift
from heartvoice.export.graph_builder import FP32_REGIONS, Fp32Region
from heartvoice.export.plan_export import Made, PlanJob, export_plans, export_typed
from heartvoice.export.repository import export_repository
from heartvoice.export.weights import Weights
from heartvoice.runtime.repository import Repository
from heartvoice.runtime.tensorrt_plans import ACTIVE, Device, Plan, Target, open_plan
from tests.fakes.tensorrt import VERSIONS, fake_tensorrt, plan_head

TARGET = Target(Device("NVIDIA GB10", "12.1"), VERSIONS[0])
NAME = f"tiny.bf16.nvidia-gb10-sm121.trt{VERSIONS[0]}.plan"


class Heard:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def typing(self, model: str) -> None:
        self.events.append(f"typing {model}")

    def measuring(self, model: str) -> None:
        self.events.append(f"measuring {model}")

    def building(self, model: str) -> None:
        self.events.append(f"building {model}")

    def phase(self, name: str, n_steps: int) -> None: ...

    def step(self, name: str, step: int) -> None: ...

    def phase_done(self, name: str) -> None: ...

    def done(self, made: Made) -> None:
        self.events.append(f"done {made.model}")


def job(root: Path, *only: str, **changes: Any) -> PlanJob:
    return PlanJob(root, changes.pop("precision", "bf16"), only, **changes)


def build(wanted: PlanJob, **changes: Any) -> list[Made]:
    trt = changes.pop("trt", fake_tensorrt(changes.get("target", TARGET).tensorrt))
    return export_plans(wanted, trt, changes.pop("target", TARGET), changes.pop("reporter", Heard()), **changes)


def files_of(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_plans_lie_beside_their_graph_with_a_sidecar_and_are_linked_for_triton(
    repository: Path, tmp_path: Path
) -> None:
    before, heard, cache = files_of(repository), Heard(), tmp_path / "cache" / "timing"
    (made,) = build(job(repository, "vocoder"), reporter=heard, timing_cache=cache)
    path = repository / "vocoder" / "plans" / NAME
    assert heard.events == ["typing vocoder", "measuring vocoder", "building vocoder", "done vocoder"]
    assert made.path == path
    assert files_of(repository) - before == {
        "precision.json", "vocoder/1/model.plan", "vocoder/1/model.plan.json",
        f"vocoder/plans/{NAME}", f"vocoder/plans/{NAME}.json",
    }  # fmt: skip
    assert (repository / "vocoder" / ACTIVE).samefile(path)
    plan = open_plan(Repository(repository), "vocoder", TARGET)
    assert plan.content() == path.read_bytes()
    assert plan.about["fp32_regions"] == sorted(FP32_REGIONS)
    assert plan.about["typed"]["model.onnx"]["sha256"]
    assert plan.about["error"]["errors"]["audio"]["snr_db"] > 30
    assert cache.read_bytes() == f"timings of {VERSIONS[0]}".encode()
    graph = onnx.load_from_string(path.read_bytes().partition(b"\n")[2]).graph
    assert onnx.TensorProto.BFLOAT16 in {tensor.data_type for tensor in graph.initializer}
    assert not (repository.parent / ".tiny.export").exists()


def test_plans_that_are_up_to_date_are_left_alone(repository: Path) -> None:
    wanted = job(repository, "vocoder", report=False)
    (first,) = build(wanted)
    before = first.path.stat().st_mtime_ns
    (second,) = build(wanted)
    assert (first.written, second.written) == (True, False)
    assert second.path.stat().st_mtime_ns == before
    first.path.write_bytes(first.path.read_bytes() + b"!")
    assert build(wanted)[0].written


def test_another_target_gets_a_plan_of_its_own_and_the_link(repository: Path) -> None:
    wanted = job(repository, "vocoder", report=False)
    build(wanted)
    other = Target(Device("NVIDIA H200", "9.0"), VERSIONS[1])
    build(wanted, target=other)
    assert len(list((repository / "vocoder" / "plans").glob("*.plan"))) == 2
    open_plan(Repository(repository), "vocoder", other)
    with pytest.raises(EngineError, match="built on NVIDIA H200"):
        open_plan(Repository(repository), "vocoder", TARGET)
    assert not build(wanted)[0].written  # linked back, not built anew
    open_plan(Repository(repository), "vocoder", TARGET)


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("tf32", True)])
def test_single_precision_plans_are_made_of_the_graph_itself(repository: Path, precision: str, tf32: bool) -> None:
    (made,) = build(job(repository, "vocoder", precision=precision))
    assert plan_head(made.path)["tf32"] is tf32
    body = made.path.read_bytes().partition(b"\n")[2]
    assert onnx.load_from_string(body) == onnx.load(repository / "vocoder" / "1" / "model.onnx")
    assert Plan.read(made.path).about["fp32_regions"] == []


def test_every_graph_but_the_language_model_gets_a_plan(exported: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(exported, root)
    made = build(job(root, report=False))
    assert {entry.model for entry in made} == {
        "heartcodec_condition", "heartcodec_flow", "heartcodec_decoder", "htdemucs", "speaker_network", "f0_network",
        "content_encoder", "svc_regulator", "svc_flow", "svc_style", "vocoder",
    }  # fmt: skip
    assert repository_drift(root) == []


def test_language_model_is_refused_with_the_reason(exported: Path) -> None:
    with pytest.raises(ExportError, match="PyTorch with CUDA graphs"):
        build(job(exported, "heartmula_step"))
    with pytest.raises(ExportError, match="no graph vocodr; there are"):
        build(job(exported, "vocodr"))


@pytest.mark.parametrize("reason", ["parser", "cancelled"])
def test_nothing_is_left_of_a_build_that_failed(repository: Path, reason: str) -> None:
    before = files_of(repository)
    with pytest.raises(ExportError, match=reason):
        build(
            job(repository, "vocoder", report=False),
            trt=fake_tensorrt(refused=("Conv",) if reason == "parser" else ()),
            cancelled=lambda: reason == "cancelled",
        )
    assert files_of(repository) == before
    assert not (repository.parent / ".tiny.export").exists()


def test_graph_that_tensorrt_lacks_is_refused_before_anything_is_built(repository: Path) -> None:
    path = repository / "vocoder" / "1" / "model.onnx"
    model = onnx.load(path)
    model.graph.node[0].op_type = "Det"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=r"not for TensorRT: Det: .* does not have it \(unsupported\); Add: the type"):
        build(job(repository, "vocoder"))


def test_half_repository_is_refused(repository: Path) -> None:
    manifest = repository / "vocoder" / "1" / "model.json"
    manifest.write_text(manifest.read_text().replace('"precision": "fp32"', '"precision": "fp16"'))
    with pytest.raises(ExportError, match="export it with --precision fp32 first"):
        build(job(repository, "vocoder"))


def test_new_graph_drops_its_plans_and_new_configs_keep_them(repository: Path, tiny_weights: Weights) -> None:
    build(job(repository, "vocoder", "svc_style", report=False))
    for name in ("vocoder", "svc_style"):
        (repository / name / "config.pbtxt").write_text("stale")
    manifest = repository / "svc_style" / "1" / "model.json"
    manifest.write_text(manifest.read_text().replace('"preset": "tiny"', '"preset": "old"'))
    export_repository(tiny_weights, repository)
    assert (repository / "vocoder" / ACTIVE).samefile(repository / "vocoder" / "plans" / NAME)
    assert not (repository / "svc_style" / ACTIVE).exists()
    assert not (repository / "svc_style" / "plans").exists()
    assert repository_drift(repository) == []


def test_drift_names_a_plan_of_another_graph(repository: Path) -> None:
    build(job(repository, "vocoder", report=False))
    for path in (repository / "vocoder" / "1" / "model.plan.json", repository / "vocoder" / "plans" / f"{NAME}.json"):
        about = json.loads(path.read_text())
        path.unlink()
        path.write_text(json.dumps(about | {"onnx": {"model.onnx": "0"}}))
    assert any("built from another graph" in line for line in repository_drift(repository))


def test_report_keeps_other_graphs_and_precisions(repository: Path) -> None:
    for precision in ("bf16", "fp16"):
        export_typed(job(repository, "svc_style", precision=precision), Heard())
    export_typed(job(repository, "svc_flow"), Heard())
    report = json.loads((repository / "precision.json").read_text())
    assert set(report) == {"bf16", "fp16"}
    assert set(report["bf16"]["graphs"]) == {"svc_style", "svc_flow"}
    assert report["bf16"]["weights"] == "random seed=0"
    half, single = (report[name]["graphs"]["svc_style"]["errors"]["embedding"]["snr_db"] for name in ("bf16", "fp16"))
    assert 10 < single - half < 25  # three more bits: 18 dB


def test_recorded_inputs_are_what_the_report_is_made_of(repository: Path, tmp_path: Path) -> None:
    import numpy as np

    features = np.linspace(-1, 1, 2 * 90 * 80, dtype=np.float32).reshape(2, 90, 80)
    np.savez(tmp_path / "svc_style.npz", features=features)
    (made,) = export_typed(job(repository, "svc_style", inputs=tmp_path), Heard())
    assert made.error["inputs"] == "recorded"
    (tmp_path / "svc_style.npz").write_bytes(b"nothing")
    with pytest.raises(ExportError, match="not a file of arrays"):
        export_typed(job(repository, "svc_style", inputs=tmp_path), Heard())


def test_typed_command_writes_graphs_and_prints_what_trtexec_takes(repository: Path) -> None:
    arguments = ["export", "typed", "--repository", str(repository), "--only", "svc_style"]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    assert "trtexec --onnx=" in run.output
    assert "--maxShapes=features:2x2498x80" in run.output
    typed = json.loads((repository / "svc_style" / "typed" / "bf16" / "typed.json").read_text())
    assert typed["nodes"]["casts"] > 0
    assert CliRunner().invoke(app, arguments).exit_code == 0  # again, over itself


def test_command_refuses_what_does_not_go_together(repository: Path) -> None:
    for arguments, says in (
        (["typed", "--repository", str(repository), "--precision", "fp32"], "fp32"),
        (["typed", "--repository", str(repository), "--random-weights", "0"], "--random-weights"),
        (["--repository", str(repository), "--precision", "bf16", "--random-weights", "0"], "bf16"),
        (["plans", "--repository", str(repository)], "TensorRT is not installed"),
    ):
        run = CliRunner().invoke(app, ["export", *arguments])
        assert run.exit_code != 0
        assert says in f"{run.output} {run.exception}", arguments


def build_of_style(repository: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Run the command for one graph, on a machine with a GPU."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt())
    monkeypatch.setattr("heartvoice.runtime.tensorrt_engine.find_device", lambda: TARGET.device)
    monkeypatch.setenv("HEARTVOICE_CACHE", str(cache))
    arguments = ["export", "plans", "--repository", str(repository), "--only", "svc_style", "--no-report"]
    return CliRunner().invoke(app, arguments)


def test_command_builds_for_the_gpu_it_finds(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = build_of_style(repository, tmp_path, monkeypatch)
    assert run.exit_code == 0, run.output
    assert "have not been run on a GPU yet" in run.output
    assert (repository / "svc_style" / ACTIVE).is_file()
    assert list((tmp_path / "tensorrt").glob("nvidia-gb10-sm121.trt*.timing"))


def test_ctrl_c_ends_a_build_at_its_next_step_and_leaves_nothing(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, before, steps = signal.getsignal(signal.SIGINT), files_of(repository), list[int]()

    def interrupted(self: object, name: str, step: int) -> None:
        steps.append(step)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)  # the main thread hears of it

    monkeypatch.setattr("heartvoice.cli.export_plans._PlanBars.step", interrupted)
    run = build_of_style(repository, tmp_path, monkeypatch)
    assert run.exit_code != 0
    assert "cancelled" in f"{run.output} {run.exception}"
    assert steps == [0]
    assert files_of(repository) == before
    assert signal.getsignal(signal.SIGINT) is handler


def test_jobs_of_other_islands_are_other_plans(repository: Path) -> None:
    wanted = job(repository, "svc_style", report=False)
    build(wanted)
    fp32_regions: tuple[Fp32Region, ...] = ("norm",)
    assert build(replace(wanted, fp32_regions=fp32_regions))[0].written
