"""What a run's folder says of its processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from heartvoice.serving import process_registry
from heartvoice.serving.workarounds.heartbeat import Heartbeat, beats


def test_beats_are_read_by_others_and_start_anew_with_a_new_process(tmp_path: Path) -> None:
    (tmp_path / "beats").mkdir()
    assert beats("svc", tmp_path) is None
    beat = Heartbeat("svc", tmp_path)
    assert beats("svc", tmp_path) == 0
    beat()
    beat()
    assert beats("svc", tmp_path) == 2
    Heartbeat("svc", tmp_path)
    assert beats("svc", tmp_path) == 0


def test_what_a_killed_process_left_goes_when_its_model_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(process_registry.VARIABLE, str(tmp_path))
    with process_registry.scratch("render") as folder:
        assert Path(folder).is_relative_to(tmp_path)
    assert not Path(folder).exists()
    (tmp_path / "scratch" / "render" / "left").mkdir()
    (tmp_path / "scratch" / "svc" / "used").mkdir(parents=True)
    process_registry.register("render")
    assert not (tmp_path / "scratch" / "render").exists()
    assert (tmp_path / "scratch" / "svc" / "used").exists()
    assert process_registry.serving_pid("render") == os.getpid()


def test_without_a_run_folder_jobs_use_the_system_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(process_registry.VARIABLE, raising=False)
    with process_registry.scratch("render") as folder:
        assert Path(folder).name.startswith("heartvoice-render-")


def test_a_parent_is_known_and_a_dead_process_has_none() -> None:
    assert process_registry.parent(os.getpid()) == os.getppid()
    assert process_registry.parent(2**22 + 1) is None


def test_asyncio_is_imported_before_a_model_runs() -> None:
    """See `heartvoice.serving.workarounds.early_asyncio`."""
    code = "import sys, heartvoice.serving.process_registry; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
