"""The wheel holds everything, links point where the mapping does, the client stays thin."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def folder_of(package: str) -> Path:
    mapped = SETUPTOOLS["package-dir"]
    for parent in (package, package.rpartition(".")[0], "heartvoice"):
        if parent in mapped:
            return ROOT / str(mapped[parent]) / Path(*package.removeprefix(parent).split("."))
    raise AssertionError(package)


def test_every_package_folder_is_listed() -> None:
    mapped = {value: key for key, value in SETUPTOOLS["package-dir"].items()}
    found = set()
    for top, package in mapped.items():
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / top).parts
            if not any((ROOT / top).joinpath(*parts[: n + 1]).is_symlink() for n in range(len(parts))):
                found.add(".".join([package, *parts]))
    assert found == set(SETUPTOOLS["packages"]) - {"heartvoice.model_repository"}


def test_links_resolve_to_the_mapped_folders() -> None:
    for package, folder in SETUPTOOLS["package-dir"].items():
        if package != "heartvoice":
            link = ROOT / "heartvoice" / package.removeprefix("heartvoice.")
            assert link.is_symlink()
            assert link.resolve() == (ROOT / folder).resolve()


def test_base_install_is_thin() -> None:
    names = {dependency.split(">")[0].split("[")[0] for dependency in PROJECT["project"]["dependencies"]}
    assert names == {"numpy", "tritonclient", "soundfile", "typer", "rich"}


@pytest.mark.parametrize(
    "module", ["heartvoice.client", "heartvoice.client.cli", "heartvoice.embedded.cli", "heartvoice.export.cli"]
)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}; print(*[m for m in ('torch', 'onnx', 'onnxruntime', 'tokenizers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.mark.slow
def test_wheel_holds_code_adapters_and_configs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    for package in SETUPTOOLS["packages"]:
        for file in folder_of(package).glob("*.py"):
            assert f"{package.replace('.', '/')}/{file.name}" in names
    for path in (ROOT / "model_repository").rglob("*"):
        if path.suffix in (".py", ".pbtxt"):
            assert f"heartvoice/model_repository/{path.relative_to(ROOT / 'model_repository')}" in names
    assert "heartvoice/export/operators.json" in names
    assert not [name for name in names if name.startswith(("tests/", "build/"))]
