"""The examples of docs/how-to/integrate.md, run as they stand against the session's server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from heartvoice.errors import HeartvoiceError
from heartvoice.loadtest.perf import perf_analyzer
from heartvoice.server.server import EmbeddedServer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "how-to" / "integrate.md").read_text()
URL = "127.0.0.1:8001"


def snippet(name: str, server: EmbeddedServer) -> str:
    match = re.search(rf"<!-- snippet: {name} -->\n```\w+\n(.*?)```", TEXT, re.DOTALL)
    assert match
    assert URL in match[1]
    return match[1].replace(URL, server.url)


def python(name: str, server: EmbeddedServer, folder: Path) -> str:
    code = snippet(name, server)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shell(code: str, folder: Path, **variables: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", code], capture_output=True, text=True, cwd=folder, timeout=110,
        env={**os.environ, "PATH": path} | variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_client_example_runs(server: EmbeddedServer, tmp_path: Path) -> None:
    printed = python("client", server, tmp_path)
    assert "(2, 192000) 1" in printed
    assert "streamed 192000" in printed
    assert soundfile.info(tmp_path / "song.flac").frames == 192_000


def test_tritonclient_example_runs(server: EmbeddedServer, tmp_path: Path) -> None:
    assert "(2, 192000) 0 1" in python("tritonclient", server, tmp_path)
    assert soundfile.info(tmp_path / "rendered.flac").frames == 192_000


def test_raw_example_runs(server: EmbeddedServer, tmp_path: Path) -> None:
    python("raw", server, tmp_path)


def test_health_example_runs(server: EmbeddedServer, tmp_path: Path) -> None:
    assert shell(snippet("health", server), tmp_path) == "ready\n"


def test_node_example_runs(server: EmbeddedServer, tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs Node.js and npm")
    shutil.copytree(
        ROOT / "examples" / "node", tmp_path / "examples" / "node", ignore=shutil.ignore_patterns("node_modules")
    )
    code = snippet("node", server)
    installed = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--prefix", "examples/node"],
        capture_output=True, text=True, cwd=tmp_path, timeout=110,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"needs the npm registry: {installed.stderr.strip().splitlines()[-1:]}")
    printed = shell(code, tmp_path)
    assert "song.wav: 192000 samples, seed 0, contract 1" in printed
    assert soundfile.info(tmp_path / "song.wav").frames == 192_000
    wrong = code.replace('"La la la" 4', '"La la la" 0')
    with pytest.raises(AssertionError, match="INVALID_ARG: duration_s: expected 1 to 240 s"):
        shell(wrong.replace("npm install --prefix examples/node\n", ""), tmp_path)


def test_perf_analyzer_example_runs(server: EmbeddedServer, tmp_path: Path) -> None:
    code = snippet("perf_analyzer", server)
    try:
        with perf_analyzer() as tool:
            path = f"{tool.program.parent}:{os.environ['PATH']}"
            libraries = tool.environment.get("LD_LIBRARY_PATH", "")
            printed = shell(f"export PATH={path}\n{code}", tmp_path, LD_LIBRARY_PATH=libraries)
    except HeartvoiceError as error:
        pytest.skip(f"needs perf_analyzer out of a wheel: {error}")
    assert re.search(r"Concurrency: 1, throughput: [\d.]+ infer/sec", printed), printed
