"""What deploy/ has: clean by the linters of its formats, and in step with the code."""

from __future__ import annotations

import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from tests.unit.deploy.test_deploy import DEPLOY, ROOT, copied, run


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm, which brings dclint")
def test_compose_is_clean_by_dclint() -> None:
    lint = re.search(r"--package=(dclint@\S+)", (ROOT / "Makefile").read_text())
    assert lint
    command = ["npm", "exec", "--yes", f"--package={lint[1]}", "--", "dclint", "--max-warnings", "0"]
    run(*command, "-c", DEPLOY / ".dclintrc.yaml", DEPLOY / "compose.yaml")


def test_wheel_builds_from_the_build_context_alone(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, context / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "results")
            )
        else:
            shutil.copy(source, context)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "wheels", context)
    names = zipfile.ZipFile(next((tmp_path / "wheels").glob("heartvoice-*.whl"))).namelist()
    assert "heartvoice/serving/song.py" in names
    assert "heartvoice/server/profiles.py" in names
    assert not [name for name in names if name.endswith((".onnx", ".plan", ".safetensors"))]
