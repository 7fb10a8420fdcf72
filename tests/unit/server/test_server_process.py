"""What a server's process leaves behind when its start fails."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from heartvoice.errors import EngineError
from heartvoice.server.command_line import Launch
from heartvoice.server.loss_log import LossLog
from heartvoice.server.options import ServerOptions
from heartvoice.server.server_process import ServerProcess
from heartvoice.server.triton_wheel import ServerFiles
from heartvoice.server.workarounds import environment_folders, stalled_start
from heartvoice.shm_regions import process_identity

LIKE_TRITON = """
import ctypes, os, secrets, time
folder = "/tmp/python_env_" + secrets.token_hex(3)
os.mkdir(folder)
kept = ctypes.create_string_buffer(folder.encode(), 2000)
print(folder, flush=True)
time.sleep({lives_s})
os.abort()
"""


@dataclass(frozen=True)
class FakeLaunch(Launch):
    """Starts a process that makes its folder as Triton does, and is never ready."""

    lives_s: float = 60.0

    def start(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        code = LIKE_TRITON.format(lives_s=self.lives_s)
        return subprocess.Popen([sys.executable, "-c", code], stdout=log, start_new_session=True)


@pytest.mark.parametrize(("lives_s", "stall_s"), [(60.0, 0.5), (0.5, 60.0)], ids=["stands still", "crashes"])
def test_a_start_that_is_given_up_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives_s: float, stall_s: float
) -> None:
    monkeypatch.setattr(stalled_start, "STALL_S", stall_s)
    files = ServerFiles(tmp_path, tmp_path)
    options = ServerOptions(tmp_path, 1, 1, start_timeout_s=30.0)
    launch = FakeLaunch(options, files, ("song",), tmp_path, (tmp_path,), run=tmp_path, lives_s=lives_s)
    path = tmp_path / "server.log"
    with path.open("ab") as log:
        server = ServerProcess(launch, log, LossLog(tmp_path, log), process_identity(1))
        with pytest.raises(EngineError):
            server.start(lambda: False)
        server.kill()
        assert server.process is not None
        server.process.wait()
    folders = [Path(line) for line in path.read_text().splitlines()]
    assert len(folders) == 2, "it is started once more"
    assert all(folder.is_dir() for folder in folders), "nothing was left: the test shows nothing"
    assert sorted(environment_folders.recorded(tmp_path)) == sorted(map(str, folders))
    environment_folders.remove(tmp_path)
    assert not any(folder.exists() for folder in folders)
