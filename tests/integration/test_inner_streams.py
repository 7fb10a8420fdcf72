"""Many quick streams inside the server at once: every response arrives, in order, and no process is lost."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from heartvoice.contracts.models import COVER, HEARTMULA
from heartvoice.runtime.repository import Repository
from tests.support.raw import Raw
from tests.support.servers import running_server

CHATTER = Path(__file__).with_name("chatter.py")
INPUTS = {
    "audio": np.zeros((1, 144_000), np.float32), "sample_rate": np.array([48_000]),
    "voice_audio": np.zeros((1, 144_000), np.float32), "voice_sample_rate": np.array([48_000]),
    "voice_consent": np.array([b"nobody's"], object),
}  # fmt: skip
N_JOBS = 6


def test_streams_inside_the_server_do_not_stop_each_other(repository: Repository, tmp_path: Path) -> None:
    models = (HEARTMULA.name, COVER.name)
    root = Path(shutil.copytree(repository.root, tmp_path / "repository"))
    for model in models:
        shutil.copyfile(CHATTER, root / model / "1" / "model.py")

    def job(_: int) -> list[str]:
        with Raw(server.url) as raw:
            answers = list(raw.stream(COVER.name, INPUTS, timeout=100.0))
            return [str(answer.get("error", name)) for answer in answers for name in answer]

    with running_server(root, models=models, hang_s=30.0) as server:
        pids = server.stub_pids()
        with ThreadPoolExecutor(N_JOBS) as pool:
            assert list(pool.map(job, range(N_JOBS))) == [["REPORT"]] * N_JOBS
        assert server.stub_pids() == pids
