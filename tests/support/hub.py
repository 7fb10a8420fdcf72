"""Fixtures: a fake hub for each test, an empty folder, and retries without delay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fakes.hub import HubServer, serving


def alone_with_the_hub(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Hide the user's settings and cache; make the output wide and plain."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("HF_HOME", str(home))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A fake hub; the client neither buffers nor pauses between attempts."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 64)
    for module in (file_download, _http):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda _: None, time=module.time.time))
    with serving() as server:
        yield server


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder that does not exist yet, and wide plain output."""
    alone_with_the_hub(monkeypatch, tmp_path / "home")
    return tmp_path / "weights"
