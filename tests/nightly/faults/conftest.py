"""The suite of faults: a short form among the tests of the real server, a long one by `make faults`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from heartvoice.client import Client
from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from tests.support.faults.jobs import HANG_S, JOBS
from tests.support.faults.recorder import Recorder
from tests.support.servers import running_server


@pytest.fixture(scope="session")
def record() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.report()


@pytest.fixture(scope="session")
def server(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server with all models for every fault that it is meant to survive."""
    log = tmp_path_factory.mktemp("faults") / "server.log"
    with running_server(repository.root, log_path=log, hang_s=HANG_S) as running:
        yield running


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.url, retries=0, stall_timeout_s=5.0) as made:
        yield made


@pytest.fixture(scope="session")
def alone(server: EmbeddedServer) -> Callable[[str], np.ndarray]:
    """What a job gives when nothing else happens."""

    @cache
    def make(kind: str) -> np.ndarray:
        with Client(server.url) as client:
            return JOBS[kind](client, 0)

    return make


@pytest.fixture(scope="session")
def mounting() -> Callable[..., list[str]]:
    """Makes the beginning of a command that runs in a mount namespace of its own, with small disks in it.

    Skips where neither root nor user namespaces may mount.
    """
    for command in (["unshare", "-m"], ["unshare", "-rm"]):
        probe = [*command, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
        if os.path.isdir("/mnt") and subprocess.run(probe, capture_output=True).returncode == 0:  # noqa: PTH112
            break
    else:
        pytest.skip("no mount namespace: neither root nor user namespaces")

    def inside(**sizes: tuple[Path, str]) -> list[str]:
        mounts = [f"mount -t tmpfs -o size={size},mode=1777 tmpfs {folder}" for folder, size in sizes.values()]
        return [*command, "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh"]

    return inside
