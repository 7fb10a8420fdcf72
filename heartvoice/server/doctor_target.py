"""Checks a machine against a profile and a preset's memory needs; each finding names a remedy."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from heartvoice.config.presets import PRESETS, Preset
from heartvoice.contracts.models import HEARTMULA
from heartvoice.contracts.triton_config import config_path
from heartvoice.errors import SetupError
from heartvoice.runtime.repository import Repository
from heartvoice.runtime.tensorrt_plans import Device, Target
from heartvoice.server import triton_wheel
from heartvoice.server.command_line import flag_names
from heartvoice.server.doctor import Finding, attempt, module, plans, port, python, repository_line, space
from heartvoice.server.options import ServerOptions
from heartvoice.server.profiles import Profile
from heartvoice.server.workarounds import numpy_version
from heartvoice.shm_regions import SHM

OFFICIAL = "oss-3b"
NATIVE_SERVER = Path("/opt/tritonserver/bin/tritonserver")
_SMI_TIMEOUT_S = 20.0
_FIELDS = "name,driver_version,compute_cap"
_DROP = "sync; echo 3 | sudo tee /proc/sys/vm/drop_caches"


def nvidia_smi(arguments: Sequence[str]) -> str:
    """Run nvidia-smi and return its output.

    Raises:
        SetupError: it is missing, fails, or does not answer.
    """
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments],  # noqa: S607 (the driver installs it on PATH)
            capture_output=True,
            text=True,
            timeout=_SMI_TIMEOUT_S,
            check=True,
        )
    except FileNotFoundError:
        raise SetupError(
            "nvidia-smi not found: install NVIDIA's driver; in a container, start it with --gpus all "
            "(docker needs the NVIDIA Container Toolkit)"
        ) from None
    except subprocess.TimeoutExpired:
        raise SetupError(f"nvidia-smi does not answer within {_SMI_TIMEOUT_S:g} s: see `dmesg`, restart") from None
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).strip().splitlines()
        raise SetupError(f"nvidia-smi: {said[0] if said else f'exit status {error.returncode}'}") from None
    return done.stdout


@dataclass(frozen=True)
class Machine:
    """Paths and commands of the examined machine."""

    smi: Callable[[Sequence[str]], str] = nvidia_smi
    meminfo: Path = Path("/proc/meminfo")
    shm: Path = SHM
    architecture: str = platform.machine()
    server: Path = NATIVE_SERVER
    package: Callable[[str], ModuleType] = importlib.import_module
    tensorrt: str = os.environ.get("TRT_VERSION", "")
    """TensorRT version of NVIDIA's images, such as 10.13.3.9+cuda13.0."""

    def memory(self) -> dict[str, int]:
        """Return the values of /proc/meminfo in bytes by name.

        Raises:
            SetupError: it has no MemAvailable.
        """
        lines = re.findall(r"^(\w+):\s+(\d+) kB$", self.meminfo.read_text(), re.MULTILINE)
        found = {name: 1024 * int(value) for name, value in lines}
        if "MemAvailable" not in found:
            raise SetupError(f"{self.meminfo}: no MemAvailable; a Linux kernel of 3.14 or later has it")
        return found


@dataclass(frozen=True)
class Gpu:
    """nvidia-smi's description of the first GPU."""

    name: str
    driver: str
    compute_capability: tuple[int, int]

    @classmethod
    def read(cls, smi: Callable[[Sequence[str]], str]) -> Gpu:
        """Ask nvidia-smi.

        Raises:
            SetupError: there is no GPU, or the driver is too old for the query.
        """
        text = smi([f"--query-gpu={_FIELDS}", "--format=csv,noheader"])
        fields = [field.strip() for field in (text.strip().splitlines() or [""])[0].split(",")]
        match = re.fullmatch(r"(\d+)\.(\d+)", fields[-1])
        if len(fields) != 3 or match is None:
            raise SetupError(f"nvidia-smi: expected {_FIELDS}, got {text.strip()!r}")
        return cls(fields[0], fields[1], (int(match[1]), int(match[2])))


def examine_target(
    profile: Profile, repository: Path | None, ports: dict[str, int], machine: Machine | None = None
) -> Iterator[Finding]:
    """Check everything that serving on such a machine needs.

    Args:
        profile: the expected machine.
        repository: exported repository; None checks the memory for the official preset.
        ports: ports by their options.
        machine: the machine to examine; default is this one.
    """
    machine = machine or Machine()
    yield attempt("Python", python)
    yield attempt("numpy", numpy_version.check_numpy)
    yield attempt("architecture", lambda: _architecture(machine))
    yield from _gpu(profile, machine)
    yield attempt("unified memory", lambda: _memory(profile, repository, machine))
    yield space("shared memory", machine.shm, profile.shm_bytes, "raise it, for docker with --shm-size or in compose")
    yield attempt("Triton server", lambda: _server(profile, machine))
    for package in ("tokenizers", "jellyfish"):
        yield module(package, "gpu")
    yield attempt("onnxruntime", lambda: _onnxruntime(profile, machine))
    yield attempt("PyTorch", lambda: _pytorch(profile, machine))
    for option, number in ports.items():
        yield attempt(f"port {number}", lambda o=option, p=number: port(o, p))  # type: ignore[misc]
    if repository is not None:
        yield attempt("repository", lambda: repository_line(repository))
        yield from plans(repository, lambda: _plan_target(machine))


def _server(profile: Profile, machine: Machine) -> str:
    """Check that the native server knows every flag that `serve` passes; this needs no GPU."""
    files = triton_wheel.find_installed(machine.server)
    done = subprocess.run([files.binary, "--help"], capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=False)
    known = set(re.findall(r"^\s+(--[a-z0-9-]+)", done.stdout + done.stderr, re.MULTILINE))
    if not known:
        raise SetupError(f"{files.binary}: `--help` lists no flags (status {done.returncode}): is it a tritonserver?")
    options = ServerOptions(Path("repository"), files=files, config_name="tensorrt", profile=profile)
    unknown = [flag for flag in flag_names(options, files) if flag not in known]
    if unknown:
        raise SetupError(f"{files.binary}: does not know {', '.join(unknown)}: take a release of 24.10 or later")
    return f"{files.binary}, which knows every flag that it is given"


def _architecture(machine: Machine) -> str:
    if machine.architecture != "aarch64":
        raise SetupError(f"expected aarch64, got {machine.architecture}: this is another machine, or an emulator")
    return machine.architecture


def _gpu(profile: Profile, machine: Machine) -> Iterator[Finding]:
    try:
        gpu = Gpu.read(machine.smi)
    except SetupError as error:
        yield Finding("GPU", False, str(error))
        return
    yield Finding("GPU", True, gpu.name)
    major = int(gpu.driver.partition(".")[0])
    advice = "" if major >= profile.min_driver else f", {profile.min_driver} or later needed: sudo apt full-upgrade"
    yield Finding("driver", not advice, gpu.driver + advice)
    yield attempt("CUDA", lambda: _cuda(profile, machine))
    wanted, got = (".".join(map(str, pair)) for pair in (profile.compute_capability, gpu.compute_capability))
    same = gpu.compute_capability == profile.compute_capability
    other = f"expected {wanted}, got {got}: plans and numbers of the {profile.name} do not hold here"
    yield Finding("compute capability", same, got if same else other)


def _cuda(profile: Profile, machine: Machine) -> str:
    match = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+)\.(\d+)", machine.smi([]))
    needed = ".".join(map(str, profile.min_cuda))
    if match is None:
        raise SetupError(f"nvidia-smi names no CUDA version; {needed} or later is needed: update the driver")
    if (int(match[1]), int(match[2])) < profile.min_cuda:
        raise SetupError(f"the driver supports {match[1]}.{match[2]}, {needed} or later is needed: update the driver")
    return f"{match[1]}.{match[2]}"


def _memory(profile: Profile, root: Path | None, machine: Machine) -> str:
    """Check MemAvailable: NVML reports nothing here, and cudaMemGetInfo counts the page cache as used."""
    preset, songs = (PRESETS[OFFICIAL], None) if root is None else _served(root)
    songs = songs or int(HEARTMULA.parameters["max_jobs"])
    needed = _needed(preset, songs, profile)
    memory = machine.memory()
    available, cached = memory["MemAvailable"], memory.get("Cached", 0)
    text = (
        f"{available / 1e9:.1f} GB available, {needed / 1e9:.1f} GB derived for {preset.name}, "
        f"{songs} song{'s' if songs > 1 else ''} at once"
    )
    if available < needed:
        raise SetupError(
            f"{text}: stop other programs, or lower max_jobs in heartmula/config.pbtxt; "
            f"see docs/how-to/gpu.md for what takes how much"
        )
    if memory.get("MemFree", available) < needed:
        text += f"; {cached / 1e9:.1f} GB of it hold the page cache: if CUDA runs out of memory, `{_DROP}`"
    return text


def _plan_target(machine: Machine) -> Target | None:
    """Return the target of plans: GPU, and TensorRT version of bindings or image; None if unknown."""
    try:
        gpu = Gpu.read(machine.smi)
    except SetupError:
        return None
    try:
        version = str(machine.package("tensorrt").__version__)
    except ImportError:
        version = re.split(r"[+-]", machine.tensorrt)[0]
    return Target(Device(gpu.name, ".".join(map(str, gpu.compute_capability))), version) if version else None


def _needed(preset: Preset, songs: int, profile: Profile) -> int:
    try:
        from heartvoice.server.memory_estimate import footprint, total_bytes
    except ImportError as error:
        raise SetupError(f"cannot be derived without PyTorch ({error}): pip install 'heartvoice[gpu]'") from error
    return total_bytes(footprint(preset, songs=songs, codec="fp32", pool_bytes=profile.pool_bytes))


def _served(root: Path) -> tuple[Preset, int | None]:
    """Return a repository's preset and its language model's configured number of concurrent songs."""
    preset, songs = Repository(root).preset, None
    with contextlib.suppress(OSError, text_format.ParseError, KeyError):  # the finding `repository` reports it
        text = (root / config_path(HEARTMULA)).read_text(encoding="utf-8")
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        songs = int(config.parameters["max_jobs"].string_value)
    return preset, songs


def _onnxruntime(profile: Profile, machine: Machine) -> str:
    try:
        ort = machine.package("onnxruntime")
    except ImportError:
        raise SetupError("missing: pip install 'heartvoice[gpu]'") from None
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise SetupError(
            f"{ort.__version__} is the build for CPUs: pip uninstall onnxruntime, then pip install 'heartvoice[gpu]'"
        )
    return f"{ort.__version__}, with CUDA; whether it has kernels of the {profile.name} shows at the first start"


def _pytorch(profile: Profile, machine: Machine) -> str:
    try:
        torch = machine.package("torch")
    except ImportError:
        raise SetupError("missing: pip install 'heartvoice[gpu]' with CUDA's index, see docs/how-to/gpu.md") from None
    if torch.version.cuda is None:
        raise SetupError(
            f"{torch.__version__} is the build for CPUs: "
            "pip install torch --index-url https://download.pytorch.org/whl/cu130"
        )
    major = profile.compute_capability[0]
    if not any(re.fullmatch(rf"(sm|compute)_{major}\d[af]?", name) for name in torch.cuda.get_arch_list()):
        raise SetupError(f"{torch.__version__} has no kernels of compute capability {major}.x: a newer one has")
    return f"{torch.__version__}, CUDA {torch.version.cuda}"
