"""Settings of the whole suite."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from heartvoice.runtime.repository import Repository
    from heartvoice.server.server import EmbeddedServer

# Tiny networks on a busy machine: a second thread costs more than it gives, and spinning starves the other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A test process has servers and calls of gRPC under way when it forks.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# No keys: commands neither sign with those of whoever runs the tests nor trust them.
os.environ["HEARTVOICE_KEYS"] = "/nonexistent/heartvoice-keys"

LONGEST = (
    "integration/test_voices.py", "integration/test_covers.py", "integration/test_serve.py",
    "integration/stages/lm/test_engines.py", "integration/export/test_htdemucs_graph.py",
    "integration/export/test_weights.py", "integration/export/test_repository.py",
    "integration/stages/svc/test_live.py",
)  # fmt: skip
"""What takes longest, with what shares its server, longest first: none of these may be left alone at the end."""
SERVED = ("tests/integration/test_", "tests/integration/hostile/")
ALONE = (
    "test_covers.py", "test_serve.py", "test_lm_engines.py", "test_inner_streams.py", "test_examples.py",
    "test_site.py", "test_packaging.py", "test_licences.py",
)  # fmt: skip
"""Files of these folders that do not use the session's server."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, the files that share a server go to one worker: a second one would start it again."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByServer(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.startswith("tests/nightly/faults/"):
                return "faults"
            served = file.startswith(SERVED) and not file.endswith(ALONE)
            return "served" if served else file

    return ByServer(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {Path(__file__).parent / name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_collection_finish() -> None:
    """Keep what collection has made out of the garbage collector's later rounds: torch alone is a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny preset, exported with random weights, the separator's too: a quick one. Not to be changed by a test."""
    from heartvoice.config.presets import PRESETS, with_separator
    from heartvoice.export.repository import export_repository
    from heartvoice.export.weights import random_weights
    from heartvoice.runtime.repository import INDEX

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of this run: one worker exports for all
    root = shared / "exported" / "tiny"
    root.parent.mkdir(exist_ok=True)
    with (shared / "exported" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / INDEX).exists():  # the last file of an export
            export_repository(random_weights(with_separator(PRESETS["tiny"], "htdemucs"), 0), root)
    return root


@pytest.fixture(scope="session")
def repository(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A copy for servers: their Python leaves bytecode beside the models."""
    from heartvoice.runtime.repository import Repository

    return Repository(Path(shutil.copytree(exported, tmp_path_factory.mktemp("served") / "tiny")))


@pytest.fixture
def new_server(repository: Repository, tmp_path: Path) -> Iterator[Callable[..., EmbeddedServer]]:
    """Makes a server of the test's own, to be treated badly."""
    from heartvoice.server.options import ServerOptions
    from heartvoice.server.server import EmbeddedServer, free_port
    from tests.support.servers import end

    servers: list[EmbeddedServer] = []

    def make(root: Path | None = None, **options: object) -> EmbeddedServer:
        chosen = {"log_path": tmp_path / f"server{len(servers)}.log", "drain_s": 20.0} | options
        servers.append(EmbeddedServer(ServerOptions(root or repository.root, free_port(), free_port(), **chosen)))  # type: ignore[arg-type]
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        end(server)


@pytest.fixture(scope="session")
def server(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One real server of all models, for the whole session. Not to be hurt by a test."""
    from tests.support.servers import running_server

    with running_server(repository.root, log_path=tmp_path_factory.mktemp("server") / "server.log") as running:
        yield running
