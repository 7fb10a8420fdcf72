"""What this machine and environment have and lack for serving, in plain words."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from heartvoice.embedded import wheel
from heartvoice.embedded.leftovers import SHM
from heartvoice.embedded.server import check_port
from heartvoice.errors import EngineError, HeartvoiceError
from heartvoice.plans import ACTIVE, Target, find_device, plan_findings
from heartvoice.repository import Repository

MIN_SHM_BYTES = 256 * 2**20
"""Six models, each up to four times its largest tensor (a window's 12 MB) in flight."""
MIN_DISK_BYTES = 1 * 2**30


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is well, what was found, and what to do."""

    name: str
    ok: bool
    detail: str


def examine(repository: Path | None, ports: dict[str, int]) -> Iterator[Finding]:
    """Look at everything that serving needs."""
    yield _attempt("Python", _python)
    yield _attempt("libpython", lambda: str(wheel.shared_libpython()))
    yield _attempt("numpy", wheel.check_numpy)
    yield _attempt("Triton server", lambda: str(wheel.find_wheel().binary))
    for module, extra in (("onnxruntime", "serve"), ("tokenizers", "serve")):
        yield _module(module, extra)
    yield _space("shared memory", SHM, MIN_SHM_BYTES, "raise it, for docker with --shm-size=1g")
    yield _space("temporary space", Path(os.environ.get("TMPDIR", "/tmp")), MIN_DISK_BYTES, "free some")
    for option, port in ports.items():
        yield _attempt(f"port {port}", lambda o=option, p=port: _port(o, p))  # type: ignore[misc]
    if repository is not None:
        yield _attempt("repository", lambda: _repository(repository))
        yield from _plans(repository)


def _attempt(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except HeartvoiceError as error:
        return Finding(name, False, str(error))


def _python() -> str:
    version = sys.version_info[:2]
    if not (3, 10) <= version <= (3, 12):
        raise wheel.SetupError(f"{platform.python_version()}: the embedded server needs Python 3.10 to 3.12")
    if platform.system() != "Linux":
        raise wheel.SetupError(f"{platform.system()}: the Triton server runs on Linux; the client runs anywhere")
    return f"{platform.python_version()} on {platform.machine()}"


def _module(name: str, extra: str) -> Finding:
    found = importlib.util.find_spec(name) is not None
    return Finding(name, found, "installed" if found else f"missing: pip install 'heartvoice[{extra}]'")


def _space(name: str, folder: Path, minimum: int, advice: str) -> Finding:
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    text = f"{free / 2**20:.0f} MB free in {folder}"
    if free < minimum:
        return Finding(name, False, f"{text}, {minimum / 2**20:.0f} MB needed: {advice}")
    return Finding(name, True, text)


def _port(option: str, port: int) -> str:
    check_port(option, port)
    return "free"


def _plans(root: Path) -> Iterator[Finding]:
    """TensorRT plans, if there are any: whether this machine may load them."""
    repository = Repository(root)
    names = tuple(path.parent.parent.name for path in sorted(root.glob(f"*/{ACTIVE}")))
    if not names:
        return
    try:
        import tensorrt

        target: Target | None = Target(find_device(), tensorrt.__version__)
    except (EngineError, ImportError):
        target = None
    for name, ok, detail in plan_findings(repository, names, target):
        yield Finding(f"plan {name}", ok, detail)


def _repository(root: Path) -> str:
    repository = Repository(root)
    for model in ("heartmula_step", "heartcodec_condition", "heartcodec_flow", "heartcodec_decoder"):
        repository.graph(model)
    return f"{root}: preset {repository.index['preset']}, weights {repository.index['weights']}"
