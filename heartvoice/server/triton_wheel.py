"""Find the Triton server inside the nvidia-pytriton wheel, without importing pytriton."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from heartvoice.errors import SetupError

DISTRIBUTION = "nvidia-pytriton"
NEEDS = "pip install 'heartvoice[serve]'"


@dataclass(frozen=True)
class ServerFiles:
    """Paths of the wheel's server, or of a native installation."""

    binary: Path
    libraries: Path | None = None
    python_backend: Path | None = None
    stub: Path | None = None
    """These three are set for the wheel only."""

    @property
    def native(self) -> bool:
        """True if this is a native installation, for example the official container's."""
        return self.stub is None


def python_version() -> str:
    """Return X.Y of this interpreter, which also runs the models."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def find_wheel() -> ServerFiles:
    """Return the server of the installed wheel.

    Raises:
        SetupError: no wheel, or none of its stubs fits this Python.
    """
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise SetupError(f"the Triton server is not installed: {NEEDS} (Linux, x86-64 or aarch64)") from None
    binary = next((Path(str(f.locate())) for f in files if f.name == "tritonserver" and "bin" in f.parts), None)
    if binary is None or not binary.is_file():
        raise SetupError(f"{DISTRIBUTION} holds no server for {platform.machine()}: {NEEDS}")
    root = binary.parent.parent
    stub = root / "python_backend_stubs" / python_version() / "triton_python_backend_stub"
    if not stub.is_file():
        raise SetupError(f"{DISTRIBUTION} has no stub for Python {python_version()}; use Python 3.10 to 3.12")
    return ServerFiles(binary, root.parent.parent / "nvidia_pytriton.libs", root / "backends" / "python", stub)


def find_installed(binary: Path) -> ServerFiles:
    """Return a native server, for example /opt/tritonserver/bin/tritonserver of the official container.

    Raises:
        SetupError: the path is no executable.
    """
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise SetupError(f"--server: {binary} is not an executable tritonserver")
    return ServerFiles(binary)


def shared_libpython() -> Path:
    """Return the folder of libpython, which the stub embeds.

    Raises:
        SetupError: this Python was built without the shared library; names the Debian package.
    """
    name = f"libpython{python_version()}.so.1.0"
    library_folder = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    for folder in (library_folder, library_folder / multiarch, Path("/usr/lib") / multiarch):
        if (folder / name).is_file():
            return folder
    raise SetupError(
        f"{name} not found: {sys.executable} has no shared library. On Debian or Ubuntu: "
        f"apt-get install libpython{python_version()}; with pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared"
    )


def backend_directory(files: ServerFiles, folder: Path) -> Path:
    """Return the folder of the server's backends.

    A native server has its own. For the wheel's, one is laid out in `folder`: the wheel's Python backend, this Python's
    stub (an unzipped wheel may have lost its mode bits), and our onnxruntime backend, which the wheel lacks.
    """
    if files.python_backend is None or files.stub is None:
        return files.binary.parent.parent / "backends"
    python = folder / "python"
    shutil.copytree(files.python_backend, python)
    shutil.copy2(files.stub, python / files.stub.name)
    (python / files.stub.name).chmod(0o755)
    onnx = folder / "onnxruntime"
    onnx.mkdir()
    source = "from heartvoice.serving.onnx_backend import OnnxModel as TritonPythonModel  # noqa: F401\n"
    (onnx / "model.py").write_text(source)
    return folder


def environment(files: ServerFiles) -> dict[str, str]:
    """Return the server's environment: this interpreter and its libpython come first."""
    env = dict(os.environ)
    if files.libraries is not None:
        paths = [str(shared_libpython()), str(files.libraries), env.get("LD_LIBRARY_PATH", "")]
        env["LD_LIBRARY_PATH"] = ":".join(filter(None, paths))
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', '')}"
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return env
