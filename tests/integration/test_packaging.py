"""The wheel holds everything, links point where the mapping does, the client stays thin."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.unit.test_packaging import PROJECT, ROOT, SETUPTOOLS


def folder_of(package: str) -> Path:
    mapped = SETUPTOOLS["package-dir"]
    for parent in (package, package.rpartition(".")[0], "heartvoice"):
        if parent in mapped:
            return ROOT / str(mapped[parent]) / Path(*package.removeprefix(parent).split("."))
    raise AssertionError(package)


def test_wheel_holds_the_code_and_no_generated_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    for package in SETUPTOOLS["packages"]:
        for file in folder_of(package).glob("*.py"):
            assert f"{package.replace('.', '/')}/{file.name}" in names
    assert not [name for name in names if name.endswith((".pbtxt", "/1/model.py"))]
    assert "heartvoice/export/operators.json" in names
    assert {f"heartvoice/examples/{name}" for name in ("voice.flac", "recording.flac", "NOTICE")} <= names
    assert not [name for name in names if name.startswith(("tests/", "build/"))]


def aarch64_platforms() -> list[str]:
    """Tags of wheels that Ubuntu 24.04, whose glibc is 2.39, takes on aarch64."""
    return [f"manylinux_2_{minor}_aarch64" for minor in range(39, 16, -1)] + ["manylinux2014_aarch64"]


@pytest.mark.timeout(900)
@pytest.mark.skipif("HEARTVOICE_RESOLVE" not in os.environ, reason="asks PyPI for minutes: make lint-deploy")
@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_dependencies_of_every_extra_have_wheels_for_aarch64(tmp_path: Path, version: str) -> None:
    # pip's own resolver, by the platforms' tags. pip evaluates markers for the machine that it runs on, so those of
    # aarch64 are evaluated here.
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    wheel = next(tmp_path.glob("*.whl"))
    for extra in ("", *sorted(set(PROJECT["project"]["optional-dependencies"]) - {"dev"})):
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--only-binary=:all:", "--python-version", version, "--implementation", "cp"]
        command += [f"--platform={platform}" for platform in aarch64_platforms()]
        command += ["--target", str(tmp_path / "unused"), "--constraint", str(ROOT / "constraints.txt")]
        done = subprocess.run([*command, *requirements(wheel, extra)], capture_output=True, text=True)
        assert done.returncode == 0, f"[{extra}]\n{done.stderr[-2000:]}"


def requirements(wheel: Path, extra: str) -> list[str]:
    """What a wheel requires with an extra, other extras of its own included, as pip reads it on aarch64."""
    metadata = zipfile.ZipFile(wheel).read(
        next(n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("/METADATA"))
    )
    found: list[str] = []
    for line in metadata.decode().splitlines():
        if not line.startswith("Requires-Dist: "):
            continue
        requirement = Requirement(line.removeprefix("Requires-Dist: "))
        environment = {"platform_machine": "aarch64", "extra": extra}
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        if requirement.name == PROJECT["project"]["name"]:
            for other in requirement.extras:
                found += requirements(wheel, other)
        else:
            requirement.marker = None
            found.append(str(requirement))
    return sorted(set(found))
