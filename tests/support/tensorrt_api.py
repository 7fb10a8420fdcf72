"""The signatures of TensorRT's Python bindings, read out of NVIDIA's wheels into `assets/tensorrt_api.json`.

    pip download --no-deps --dest DIR tensorrt-cu13-bindings==10.13.2.6
    python -m tests.support.tensorrt_api DIR/*.whl

The wheels hold the bindings alone; the libraries behind them are gigabytes and need a GPU. A few C functions that do
nothing stand in for those, which is enough to import the bindings and read what they say of themselves. Needs gcc and
the Python that the wheels are for. Nothing of the wheels is committed but names and signatures.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

ASSET = Path(__file__).parents[1] / "assets" / "tensorrt_api.json"
CLASSES = (
    "Builder", "BuilderFlag", "DataType", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "IHostMemory",
    "ILogger", "INetworkDefinition", "IOptimizationProfile", "IProgressMonitor", "ITensor", "ITimingCache", "Logger",
    "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser", "ParserError", "Runtime", "TensorIOMode",
)  # fmt: skip
"""What the code uses."""
_LIBRARIES = ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin")
_STUBS = """
void *createInferBuilder_INTERNAL(void) { return 0; }
void *createInferRefitter_INTERNAL(void) { return 0; }
void *createInferRuntime_INTERNAL(void) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void) { return 0; }
void *createNvOnnxParser_INTERNAL(void) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void) { return 1; }
static void *nothing(void) { return 0; }
static void *table[64];
static struct { void **methods; } registry = { table };
__attribute__((constructor)) static void fill(void) { for (int i = 0; i < 64; i++) table[i] = (void *)nothing; }
void *getBuilderPluginRegistry(void) { return &registry; }
void *getPluginRegistry(void) { return &registry; }
"""


def _load(wheel: Path, folder: Path) -> tuple[str, Any]:
    """Import a wheel's bindings over libraries that do nothing; version and module."""
    with ZipFile(wheel) as archive:
        archive.extract("tensorrt_bindings/tensorrt.so", folder)
        text = archive.read("tensorrt_bindings/__init__.py").decode()
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    assert found is not None
    version, major = found[1], found[1].partition(".")[0]
    source = folder / "stubs.c"
    source.write_text(_STUBS)
    for name in _LIBRARIES:
        path = folder / f"{name}.so.{major}"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path), str(source)], check=True
        )
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    spec = importlib.util.spec_from_file_location("tensorrt", folder / "tensorrt_bindings" / "tensorrt.so")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return version, module


def signatures(module: Any) -> dict[str, dict[str, str]]:
    """Members of each class: the signature of a method, `property`, or `value` of an enumeration."""
    return {name: _members(getattr(module, name)) for name in CLASSES}


def _members(kind: Any) -> dict[str, str]:
    found = {}
    for name in sorted(set(dir(kind)) - set(dir(object)) | {"__init__"}):
        if name.startswith("_") and name != "__init__":
            continue
        member = getattr(kind, name)
        lines = [line.strip() for line in (member.__doc__ or "").splitlines()]
        overloads = [re.sub(r"^\d+\. ", "", line) for line in lines if re.match(rf"(\d+\. )?{name}\(self", line)]
        if isinstance(member, property):
            found[name] = "property"
        elif isinstance(member, kind) or not callable(member):
            found[name] = "value"
        elif overloads:
            found[name] = " | ".join(overloads)
    return found


def main() -> None:
    """Write the asset from the wheels of the command line, one process for each: a process imports one version."""
    if sys.argv[1] == "--one":
        with TemporaryDirectory() as folder:
            version, module = _load(Path(sys.argv[2]), Path(folder))
            print(json.dumps({version: signatures(module)}))
        return
    api: dict[str, Any] = {}
    for wheel in sys.argv[1:]:
        out = subprocess.run(
            [sys.executable, "-m", "tests.support.tensorrt_api", "--one", wheel],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        api |= json.loads(out.splitlines()[-1])
    ASSET.write_text(json.dumps(api, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
