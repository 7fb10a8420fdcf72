"""The wheel holds everything, links point where the mapping does, the client stays thin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def test_every_package_folder_is_listed() -> None:
    mapped = {value: key for key, value in SETUPTOOLS["package-dir"].items()}
    found = set()
    for top, package in mapped.items():
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / top).parts
            if not any((ROOT / top).joinpath(*parts[: n + 1]).is_symlink() for n in range(len(parts))):
                found.add(".".join([package, *parts]))
    assert found == set(SETUPTOOLS["packages"])


def test_links_resolve_to_the_mapped_folders() -> None:
    for package, folder in SETUPTOOLS["package-dir"].items():
        if package != "heartvoice":
            link = ROOT / "heartvoice" / package.removeprefix("heartvoice.")
            assert link.is_symlink()
            assert link.resolve() == (ROOT / folder).resolve()


def test_base_install_is_thin() -> None:
    names = {dependency.split(">")[0].split("[")[0] for dependency in PROJECT["project"]["dependencies"]}
    assert names == {"numpy", "tritonclient", "grpcio", "protobuf", "soundfile", "typer", "rich", "typing-extensions"}


@pytest.mark.parametrize(
    "module", ["heartvoice.client", "heartvoice.cli.main", "heartvoice.cli.serve", "heartvoice.cli.export"]
)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}; print(*[m for m in ('torch', 'onnx', 'onnxruntime', 'tokenizers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
