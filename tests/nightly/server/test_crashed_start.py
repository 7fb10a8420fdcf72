"""A Triton that crashes while it loads the models is started once more, and only once."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from heartvoice import shm_regions
from heartvoice.errors import EngineError
from heartvoice.runtime.repository import Repository
from heartvoice.server import triton_wheel
from heartvoice.server.options import ServerOptions
from heartvoice.server.server import EmbeddedServer, free_port
from tests.support.servers import end


def crashing(folder: Path, times: int, signal: str = "ABRT") -> triton_wheel.ServerFiles:
    """The wheel's server, which kills itself the first times."""
    files, calls, script = triton_wheel.find_wheel(), folder / "calls", folder / "tritonserver"
    calls.write_text("")
    script.write_text(
        f"#!/bin/sh\necho x >> {calls}\n"
        f'[ "$(wc -l < {calls})" -gt {times} ] || kill -{signal} $$\n'
        f'exec {shlex.quote(str(files.binary))} "$@"\n'
    )
    script.chmod(0o755)
    return replace(files, binary=script)


def server(repository: Repository, files: triton_wheel.ServerFiles) -> EmbeddedServer:
    return EmbeddedServer(
        ServerOptions(repository.root, free_port(), free_port(), files=files, models=("heartcodec_decoder",))
    )


def regions(started: EmbeddedServer) -> set[Path]:
    """Shared memory of this process's servers."""
    return set(shm_regions.SHM.glob(f"{shm_regions.shm_prefix(started._owner)}*"))


def test_it_is_started_once_more(repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started = server(repository, crashing(tmp_path, 1))
    started.start()
    try:
        assert started.ready
        assert list(started.stub_pids()) == ["heartcodec_decoder"]
        assert "Triton crashed, gave up or stood still while it loaded the models; starting it once more" in caplog.text
    finally:
        end(started)


@pytest.mark.parametrize(("times", "signal", "calls"), [(2, "ABRT", 2), (1, "KILL", 1)])
def test_it_is_given_up_the_second_time_or_if_somebody_killed_it(
    repository: Repository, tmp_path: Path, times: int, signal: str, calls: int
) -> None:
    started = server(repository, crashing(tmp_path, times, signal))
    before = regions(started)
    with pytest.raises(EngineError, match="the server did not start: it logged nothing"):
        started.start()
    assert len((tmp_path / "calls").read_text().split()) == calls
    assert regions(started) == before
