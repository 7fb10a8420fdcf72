"""Separation in bf16 through OpenVINO, chosen by a configuration of the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from heartvoice.client import Client
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.server.server import EmbeddedServer
from tests.support import music

OF_SEPARATION = ("demucs", "htdemucs")


def test_separation_in_bf16_by_choice(new_server: Callable[..., EmbeddedServer], client: Client) -> None:
    mix = (music.song(6.0)[0], STEM_RATE_HZ)
    exact = client.separate(mix)
    server = new_server(config_name="cpu_bf16", models=OF_SEPARATION)
    with Client(server.url) as coarse:
        stems = coarse.separate(mix)
    assert tuple(stems) == tuple(exact)
    assert all(np.isfinite(stem).all() for stem in stems.values())
    assert any(not np.array_equal(stems[name], exact[name]) for name in exact), "another engine was at work"
    assert server.options.log_path is not None
    assert "OpenVINO in bf16" in Path(server.options.log_path).read_text(errors="replace")
