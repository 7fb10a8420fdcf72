"""No Python object is freed while another thread runs Python: the stubs under the allocator's own checks.

Without `workarounds/deferred_release.py`, the process of `song` dies here at the end of the first song in a voice.
"""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from heartvoice.client import AudioChunk, Client
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.runtime.repository import Repository
from heartvoice.server.options import ServerOptions
from heartvoice.server.server import EmbeddedServer, free_port
from tests.support import music

LIBRARY = "debug_hooks.so"
SONG: dict[str, Any] = {"lyrics": "la la", "duration_s": 8.0, "min_duration_s": 8.0, "codec_steps": 2, "seed": 1}
SUNG: dict[str, Any] = {
    "voice": (music.singer(4.0, STEM_RATE_HZ, seed=3), STEM_RATE_HZ),
    "consent": "nobody: this is noise",
    "no_vocals": "convert",
    "svc_steps": 2,
}
RECORDING = (music.singer(6.0, STEM_RATE_HZ, seed=8), STEM_RATE_HZ)


@pytest.fixture(scope="module")
def checked(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server whose Python backends check their memory."""
    root = tmp_path_factory.mktemp("checked")
    source, library = Path(__file__).with_name("debug_hooks.c"), root / LIBRARY
    compiler = sysconfig.get_config_var("CC").split()[0]
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    server = EmbeddedServer(
        ServerOptions(repository.root, free_port(), free_port(), log_path=root / "server.log", hang_s=120.0)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        server.start()
    yield server
    server.stop()


def test_songs_and_covers_leave_the_allocator_intact(checked: EmbeddedServer) -> None:
    pids = checked.stub_pids()
    for name, pid in pids.items():
        assert LIBRARY in Path(f"/proc/{pid}/maps").read_text(), f"{name} checks nothing"

    def job(index: int) -> None:
        live = bool(index % 2)
        with Client(checked.url, retries=0) as client:
            if index % 4 == 0:
                client.song(**SONG)
            elif index % 4 == 3:
                for _ in client.stream_cover(RECORDING, SUNG["voice"], consent=SUNG["consent"],
                                             no_vocals="convert", svc_steps=2, live=live):  # fmt: skip
                    pass
            else:
                client.song(**SONG, **SUNG, live=live)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(job, range(4)))
    with Client(checked.url, retries=0) as client, closing(client.stream(**SONG, **SUNG, live=True)) as left:
        next(message for message in left if isinstance(message, AudioChunk))
    job(1)  # sees what the one that left in the middle has damaged
    assert checked.stub_pids() == pids
    assert checked.restarts == {}
