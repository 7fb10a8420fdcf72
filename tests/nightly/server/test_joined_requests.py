"""Requests that the graphs' backend computes together, where a repository allows it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from heartvoice.client import Client
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from tests.support import music

OF_SEPARATION = ("demucs", "htdemucs")


def test_requests_may_be_joined_where_bits_do_not_matter(
    new_server: Callable[..., EmbeddedServer], repository: Repository, tmp_path: Path, client: Client
) -> None:
    root = Path(shutil.copytree(repository.root, tmp_path / "joining"))
    config = root / "htdemucs" / "config.pbtxt"
    config.write_text(config.read_text() + 'parameters { key: "join_requests" value: { string_value: "true" } }\n')
    mix = (music.song(9.0)[0], STEM_RATE_HZ)
    alone = client.separate(mix, sources=["vocals"])["vocals"]
    together: list[np.ndarray] = []
    with Client(new_server(root, models=OF_SEPARATION).url) as joining:
        threads = [
            threading.Thread(target=lambda: together.append(joining.separate(mix, sources=["vocals"])["vocals"]))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(together) == 4
    for stem in together:
        assert float(np.linalg.norm(stem - alone) / np.linalg.norm(alone)) <= 1e-4
