"""A file that cannot be written for want of room is named."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from heartvoice.export.atomic_repository import staged
from heartvoice.export.plan_export import _replace
from heartvoice.export.repository import _write
from heartvoice.export.writer import DATA_FILE, GRAPH_FILE, write_graph
from heartvoice.file_errors import naming
from heartvoice.runtime.repository import INDEX
from heartvoice.weights.lock import LOCK, Lock
from tests.unit.export.test_writer import small_graph


def full(path: Path) -> Path:
    """Put a file there that takes no byte, and return its path."""
    path.symlink_to("/dev/full")
    return path


def check_named(path: Path, work: Callable[[], object]) -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        work()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))


@pytest.mark.parametrize(("file", "limit"), [(GRAPH_FILE, 2**20), (DATA_FILE, 0)])
def test_files_of_a_graph_are_named(tmp_path: Path, file: str, limit: int) -> None:
    path = full(tmp_path / file)
    check_named(path, lambda: write_graph(small_graph(), tmp_path, external_bytes=limit))


def test_small_files_of_a_model_are_named(tmp_path: Path) -> None:
    path = full(tmp_path / "config.pbtxt")
    check_named(path, lambda: _write(tmp_path, {"config.pbtxt": b"x"}))


def test_the_index_is_named(tmp_path: Path) -> None:
    with staged(tmp_path / "repository") as staging:
        path = full(staging.root / INDEX)
        check_named(path, lambda: staging.commit("{}"))


def test_a_plan_is_named(tmp_path: Path) -> None:
    path = full(tmp_path / "model.plan.new")
    check_named(path, lambda: _replace(tmp_path / "model.plan", b"plan"))


def test_the_lock_of_weights_is_named(tmp_path: Path) -> None:
    path = full(tmp_path / f".{LOCK}.new")
    check_named(path, Lock(tmp_path / LOCK).write)


def test_an_error_that_names_a_file_keeps_it(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError) as caught, naming(tmp_path):
        missing.read_bytes()
    assert caught.value.filename == str(missing)
