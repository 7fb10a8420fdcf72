"""`doctor --target`, on machines that nvidia-smi, /proc and packages make up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heartvoice.errors import SetupError
from heartvoice.runtime.repository import Repository
from heartvoice.runtime.tensorrt_plans import ACTIVE, SIDECAR_SUFFIX, graph_hashes
from heartvoice.server import triton_wheel
from heartvoice.server.command_line import flag_names
from heartvoice.server.doctor import Finding
from heartvoice.server.doctor_target import Machine, examine_target, nvidia_smi
from heartvoice.server.options import ServerOptions
from heartvoice.server.profiles import GB10
from heartvoice.server.triton_wheel import ServerFiles
from tests.support.callers import heartvoice

TABLE = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.95.05              Driver Version: 580.95.05      CUDA Version: {cuda}     |
|   0  NVIDIA GB10                    On  |   0000000F:01:00.0 Off |                  N/A |
| N/A   40C    P8              4W /  N/A  | Not Supported          |      0%      Default |
+-----------------------------------------------------------------------------------------+
"""
MEMINFO = (
    "MemTotal:       125513200 kB\nMemFree:        {free} kB\nMemAvailable:   {available} kB\nCached: {cached} kB\n"
)
GB = 10**9 // 1024


FLAGS = (
    *flag_names(
        ServerOptions(Path("r"), files=ServerFiles(Path("s")), config_name="x", profile=GB10), ServerFiles(Path("s"))
    ),
    "--help",
)


def native(path: Path, flags: Sequence[str]) -> None:
    """A tritonserver that lists its flags as the real one does."""
    lines = "".join(f"  {flag} <string>\n\tWhat it does.\n" for flag in flags)
    path.write_text(f"#!/bin/sh\ncat <<'END'\nUsage: tritonserver [options]\n{lines}END\n")
    path.chmod(0o755)


def smi(query: str = "NVIDIA GB10, 580.95.05, 12.1\n", cuda: str = "13.0") -> Any:
    def run(arguments: Sequence[str]) -> str:
        return query if arguments else TABLE.format(cuda=cuda)

    return run


@pytest.fixture
def spark(tmp_path: Path, gpu_packages: SimpleNamespace) -> Any:
    """A machine as it should be, but for what a test says."""

    def make(available: int = 110 * GB, free: int = 100 * GB, cached: int = 8 * GB, **other: Any) -> Machine:
        server = tmp_path / "tritonserver"
        native(server, FLAGS)
        (tmp_path / "meminfo").write_text(MEMINFO.format(available=available, free=free, cached=cached))
        return Machine(**{
            "smi": smi(), "meminfo": tmp_path / "meminfo", "shm": tmp_path, "architecture": "aarch64", "server": server,
            "package": lambda name: imported(vars(gpu_packages), name),
        } | other)  # fmt: skip

    return make


@pytest.fixture
def gpu_packages() -> SimpleNamespace:
    """onnxruntime and torch as their GPU builds answer."""
    ort = SimpleNamespace(__version__="1.31.1", get_available_providers=lambda: ["CUDAExecutionProvider"])
    cuda = SimpleNamespace(get_arch_list=lambda: ["sm_80", "sm_90", "sm_120", "compute_120"])
    torch = SimpleNamespace(__version__="2.13.0+cu130", version=SimpleNamespace(cuda="13.0"), cuda=cuda)
    return SimpleNamespace(onnxruntime=ort, torch=torch)


def imported(packages: dict[str, Any], name: str) -> Any:
    if name not in packages:
        raise ImportError(name)
    return packages[name]


def findings(machine: Machine, repository: Path | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine_target(GB10, repository, {}, machine)}


def test_machine_as_it_should_be_has_nothing_to_mend(spark: Any) -> None:
    found = findings(spark())
    assert [finding for finding in found.values() if not finding.ok] == []
    assert found["GPU"].detail == "NVIDIA GB10"
    assert found["compute capability"].detail == "12.1"
    assert found["CUDA"].detail == "13.0"
    assert "110.0 GB available" in found["unified memory"].detail


@pytest.mark.parametrize(
    ("what", "name", "advice"),
    [
        ({"smi": smi("NVIDIA GB10, 570.86.10, 12.1\n")}, "driver", "580 or later needed"),
        ({"smi": smi("NVIDIA H100 80GB HBM3, 580.95.05, 9.0\n")}, "compute capability", "expected 12.1, got 9.0"),
        ({"smi": smi(cuda="12.8")}, "CUDA", "supports 12.8, 13.0 or later is needed"),
        ({"smi": smi("No devices were found\n")}, "GPU", "No devices were found"),
        ({"architecture": "x86_64"}, "architecture", "expected aarch64, got x86_64"),
        ({"available": 9 * GB}, "unified memory", "lower max_jobs"),
        ({"server": Path("/nowhere/tritonserver")}, "Triton server", "not an executable tritonserver"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(spark: Any, what: dict[str, Any], name: str, advice: str) -> None:
    found = findings(spark(**what))
    assert not found[name].ok
    assert advice in found[name].detail
    assert [other.name for other in found.values() if not other.ok] == [name]


def test_newer_smi_names_cuda_otherwise(spark: Any) -> None:
    def newer(arguments: Sequence[str]) -> str:
        return str(smi()(arguments)).replace("CUDA Version", "CUDA UMD Version")

    assert findings(spark(smi=newer))["CUDA"].ok


def test_page_cache_counts_as_available_but_is_named(spark: Any) -> None:
    found = findings(spark(available=100 * GB, free=10 * GB, cached=90 * GB))["unified memory"]
    assert found.ok
    assert "90.0 GB of it hold the page cache" in found.detail
    assert "drop_caches" in found.detail


def test_server_that_lacks_a_flag_is_named(spark: Any, tmp_path: Path) -> None:
    native(tmp_path / "older", [flag for flag in FLAGS if flag != "--model-config-name"])
    found = findings(spark(server=tmp_path / "older"))["Triton server"]
    assert not found.ok
    assert "does not know --model-config-name" in found.detail
    (tmp_path / "other").write_text("#!/bin/sh\n")
    (tmp_path / "other").chmod(0o755)
    assert "lists no flags" in findings(spark(server=tmp_path / "other"))["Triton server"].detail


def test_wheels_own_server_knows_every_flag(spark: Any, tmp_path: Path) -> None:
    files = triton_wheel.find_wheel()
    script = tmp_path / "wheel"
    libraries = f"{triton_wheel.shared_libpython()}:{files.libraries}"
    script.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {files.binary} "$@"\n')
    script.chmod(0o755)
    found = findings(spark(server=script))["Triton server"]
    assert found.ok, found.detail


def test_small_shared_memory_is_named(spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=64 * 2**20))
    found = findings(spark())["shared memory"]
    assert not found.ok
    assert "64 MB free" in found.detail
    assert f"{GB10.shm_bytes >> 20} MB needed" in found.detail


def test_memory_needed_is_that_of_the_repository(spark: Any, exported: Path) -> None:
    found = findings(spark(available=9 * GB, free=9 * GB), exported)
    assert found["unified memory"].ok
    assert "derived for tiny, 4 songs at once" in found["unified memory"].detail
    assert found["repository"].ok


def test_builds_for_cpus_are_named(spark: Any, gpu_packages: SimpleNamespace) -> None:
    gpu_packages.onnxruntime.get_available_providers = lambda: ["CPUExecutionProvider"]
    gpu_packages.torch.version.cuda = None
    found = findings(spark())
    assert "is the build for CPUs: pip uninstall onnxruntime" in found["onnxruntime"].detail
    assert "whl/cu130" in found["PyTorch"].detail


def test_torch_without_kernels_of_the_gpu_is_named(spark: Any, gpu_packages: SimpleNamespace) -> None:
    gpu_packages.torch.cuda.get_arch_list = lambda: ["sm_80", "sm_90"]
    assert "no kernels of compute capability 12.x" in findings(spark())["PyTorch"].detail


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'NVIDIA-SMI has failed'; exit 9", "nvidia-smi: NVIDIA-SMI has failed"),
        ("exit 6", "nvidia-smi: exit status 6"),
    ],
)
def test_failing_nvidia_smi_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SetupError, match=message):
        nvidia_smi([])


def test_absent_nvidia_smi_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="nvidia-smi not found: install NVIDIA's driver"):
        nvidia_smi([])


def test_command_ends_with_1_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA H100, 550.54, 9.0'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    result = heartvoice("doctor", "--target", "gb10", "--json")
    assert result.exit_code == 1
    found = {finding["name"]: finding for finding in json.loads(result.stdout)}
    assert not found["driver"]["ok"]
    assert found["GPU"]["detail"] == "NVIDIA H100"


def test_unknown_target_is_an_error() -> None:
    result = heartvoice("doctor", "--target", "gb100")
    assert result.exit_code != 0
    assert "--target: expected one of gb10, got 'gb100'" in result.stderr


@pytest.fixture
def planned(exported: Path, tmp_path: Path) -> Any:
    """A copy of one graph's folder with a plan and the sidecar that an export writes."""

    def make(gpu: str, tensorrt: str) -> Path:
        root = tmp_path / "planned"
        shutil.copytree(exported / "vocoder", root / "vocoder")
        shutil.copy(exported / "repository.json", root)
        (root / "vocoder" / ACTIVE).write_bytes(b"a plan")
        about = {
            "model": "vocoder", "precision": "bf16", "gpu": gpu, "compute_capability": "12.1", "tensorrt": tensorrt,
            "onnx": graph_hashes(Repository(root), "vocoder"), "plan": {"sha256": "", "bytes": 6},
        }  # fmt: skip
        (root / f"vocoder/{ACTIVE}{SIDECAR_SUFFIX}").write_text(json.dumps(about))
        return root

    return make


def test_plan_of_this_machine_is_well_by_the_images_tensorrt(spark: Any, planned: Any) -> None:
    machine = spark(tensorrt="10.13.3.9+cuda13.0")
    found = findings(machine, planned("NVIDIA GB10", "10.13.3.9"))["plan vocoder"]
    assert found.ok
    assert found.detail == "bf16, NVIDIA GB10 (compute capability 12.1), TensorRT 10.13.3.9"


def test_plan_of_another_version_or_gpu_is_told_with_the_command(spark: Any, planned: Any, gpu_packages: Any) -> None:
    gpu_packages.tensorrt = SimpleNamespace(__version__="11.4.0.106")  # the bindings know better than the image
    found = findings(spark(tensorrt="10.13.3.9"), planned("NVIDIA GB10", "10.13.3.9"))["plan vocoder"]
    assert not found.ok
    assert "built by TensorRT 10.13.3.9, this is 11.4.0.106" in found.detail
    assert "heartvoice export plans" in found.detail


def test_plan_is_not_well_where_the_gpu_or_tensorrt_is_unknown(spark: Any, planned: Any) -> None:
    found = findings(spark(tensorrt=""), planned("NVIDIA GB10", "10.13.3.9"))["plan vocoder"]
    assert not found.ok
