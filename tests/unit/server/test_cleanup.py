from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heartvoice import shm_regions
from heartvoice.server import cleanup
from heartvoice.server.workarounds import environment_folders
from heartvoice.server.workarounds.environment_folders import EnvironmentFolders
from heartvoice.server.workarounds.orphaned_regions import remove_unused
from heartvoice.server.workarounds.region_permissions import restrict_permissions


@contextmanager
def like_a_stub(owner: str, folder: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process whose command line names shared memory of `owner`, as a stub's does."""
    region = f"{shm_regions.shm_prefix(owner, folder)}x"
    command = [sys.executable, "-c", "print('here', flush=True); import time; time.sleep(60)"]
    process = subprocess.Popen([*command, region], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def a_dead_owner() -> str:
    process = subprocess.Popen(["sleep", "60"])
    owner = shm_regions.process_identity(process.pid)
    process.kill()
    process.wait()
    return owner


def test_a_stub_that_was_only_just_started_ends_with_its_dead_owner() -> None:
    with like_a_stub(a_dead_owner()) as orphan, like_a_stub(shm_regions.process_identity(os.getpid())) as ours:
        cleanup.remove_stale()
        assert orphan.wait(timeout=60) == -signal.SIGKILL
        assert ours.poll() is None, "a living owner's stub is left alone"


def test_a_stop_ends_the_stubs_of_its_own_run_alone() -> None:
    owner = shm_regions.process_identity(os.getpid())
    folder, others = cleanup.new_run_folder(), cleanup.new_run_folder()
    with like_a_stub(owner, folder) as ours, like_a_stub(owner, others) as other:
        cleanup.remove_run(folder, owner)
        assert ours.wait(timeout=60) == -signal.SIGKILL
        assert other.poll() is None
    assert not folder.exists()
    cleanup.remove_run(others, owner)


def test_shared_memory_of_a_living_run_s_killed_stubs_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shm_regions, "SHM", tmp_path)
    owner, folder = shm_regions.process_identity(os.getpid()), cleanup.new_run_folder()
    prefix = shm_regions.shm_prefix(owner, folder)
    for name in (f"{prefix}x", f"{prefix}y", f"{prefix}key_8001", f"{shm_regions.shm_prefix(owner)}another_run"):
        (tmp_path / name).touch()
    with like_a_stub(owner, folder):
        assert remove_unused(folder, owner) == 1
    kept = {f"{prefix}x", f"{prefix}key_8001", f"{shm_regions.shm_prefix(owner)}another_run"}
    assert {path.name for path in tmp_path.iterdir()} == kept, "the key to shared memory is no stub's"
    cleanup.remove_run(folder, owner)


def test_a_runs_shared_memory_is_closed_to_others_and_no_other_runs() -> None:
    owner = shm_regions.process_identity(os.getpid())
    folder, others = cleanup.new_run_folder(), cleanup.new_run_folder()
    regions = [shm_regions.SHM / f"{shm_regions.shm_prefix(owner, run)}x" for run in (folder, others)]
    try:
        for region in regions:
            region.touch()
            region.chmod(0o644)
        restrict_permissions(owner, folder)
        assert [region.stat().st_mode & 0o777 for region in regions] == [0o600, 0o644]
    finally:
        cleanup.remove_run(folder, owner)
        cleanup.remove_run(others, owner)
    assert not any(region.exists() for region in regions)


def test_a_folder_that_is_in_use_stays(tmp_path: Path) -> None:
    folders = [Path(f"/tmp/python_env_{secrets.token_hex(3)}") for _ in range(3)]
    for folder in folders:
        folder.mkdir()
    ours, used, others = folders
    (used / "python").touch()
    code = "import ctypes, sys, time; kept = [ctypes.create_string_buffer(n.encode(), 2000) for n in sys.argv[1:]]; "
    command = [sys.executable, "-c", f"{code}print('here', flush=True); time.sleep(60)", str(ours), str(used)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        names = EnvironmentFolders(tmp_path)
        names.remember(process.pid)
        process.kill()
    names.remember(process.pid)  # has ended: what was recorded stays
    environment_folders.remove(tmp_path)
    assert [folder.exists() for folder in folders] == [False, True, True]
    (used / "python").unlink()
    for folder in (used, others):
        folder.rmdir()
