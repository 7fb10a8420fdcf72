"""A client that does not read delays only itself, and what waits for it is counted."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartvoice.client import AsyncClient, AudioChunk, Client
from heartvoice.contracts.constants import MAX_UNREAD_MB, SAMPLE_RATE_HZ
from heartvoice.contracts.models import SONG
from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from heartvoice.server.workarounds import abandoned_responses
from heartvoice.serving.workarounds import unread_responses
from heartvoice.serving.workarounds.unread_responses import private_bytes
from tests.fakes.networks import text
from tests.support.gateways import running
from tests.support.raw import OF_SONGS, Metrics, Raw, outputs
from tests.support.servers import running_server
from tests.support.waiting import wait_until

SECONDS = 120.0  # 46 MB
LONG = {
    "lyrics": text("la la la"),
    "duration_s": np.array([SECONDS], np.float32),
    "min_duration_s": np.array([SECONDS], np.float32),
    "codec_window": np.array([93]),
    "codec_steps": np.array([1]),
}
NO_LEAST = {"min_duration_s": np.array([0.0], np.float32)}
LIMIT_MB = 35
WHOLE: dict[str, Any] = {name: value.item() for name, value in LONG.items() if name != "lyrics"} | {
    "lyrics": "la la la"
}
SHORT: dict[str, object] = {"lyrics": "la la", "duration_s": 3.0, "min_duration_s": 3.0, "codec_steps": 2}


def with_limit(repository: Repository, root: Path, limit_mb: int) -> Path:
    """A copy of a repository whose `song` refuses earlier."""
    shutil.copytree(repository.root, root)
    config = root / SONG.name / "config.pbtxt"
    written = config.read_text()
    assert f'"{MAX_UNREAD_MB}"' in written
    config.write_text(written.replace(f'"{MAX_UNREAD_MB}"', f'"{limit_mb}"'))
    return root


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is started anew for what is unread, however long a busy machine takes."""
    monkeypatch.setattr(abandoned_responses, "UNREAD_S", 3600.0)


@pytest.fixture(scope="module")
def limited(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    root = with_limit(repository, tmp_path_factory.mktemp("limited") / "repository", LIMIT_MB)
    with running_server(root, models=OF_SONGS) as server:
        yield server


def test_one_stalled_client_among_eight_delays_nobody_and_is_counted(limited: EmbeddedServer, client: Client) -> None:
    alone = [client.song(**SHORT, seed=seed).audio for seed in range(7)]  # type: ignore[arg-type]
    server, metrics = limited, Metrics(limited.metrics_url)
    made: dict[int, np.ndarray] = {}

    def sing(seed: int) -> None:
        with Client(server.url) as own:
            made[seed] = own.song(**SHORT, seed=seed).audio  # type: ignore[arg-type]

    with Raw(server.url) as unread, Raw(server.url) as raw:
        stalled = unread.call("song", LONG, timeout=300.0)
        first = outputs(next(stalled).infer_response)["AUDIO"]
        threads = [threading.Thread(target=sing, args=(seed,)) for seed in range(7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for seed in range(7):
            np.testing.assert_array_equal(made[seed], alone[seed])
        wait_until(lambda: metrics.value("heartvoice_jobs_live") == 0, 110.0, "the unread song is not finished")
        refused = list(raw.stream("song", LONG))
        assert [set(answer) for answer in refused] == [{"error"}]
        assert refused[0]["error"].startswith("UNAVAILABLE: song: the server holds ")
        assert f"the limit is {LIMIT_MB} MB" in refused[0]["error"]
        rest = [outputs(response.infer_response) for response in stalled]
        n_samples = first.shape[1] + sum(answer["AUDIO"].shape[1] for answer in rest if "AUDIO" in answer)
        assert n_samples == SECONDS * SAMPLE_RATE_HZ
        wait_until(lambda: takes_songs(limited), 60.0, "what was read still counts")


def left(url: str, stall: Callable[[], None]) -> None:
    """Begin a song, do something else, and leave."""
    with Client(url) as own, closing(own.stream(**WHOLE)) as messages:
        assert isinstance(next(messages), AudioChunk)
        stall()


def left_async(url: str, stall: Callable[[], None]) -> None:
    async def run() -> None:
        async with AsyncClient(url) as own, aclosing(own.stream(**WHOLE)) as messages:
            assert isinstance(await anext(messages), AudioChunk)
            await asyncio.to_thread(stall)

    asyncio.run(run())


def takes_songs(server: EmbeddedServer) -> bool:
    with Raw(server.url) as raw:
        return "error" not in next(raw.stream("song", LONG | {"duration_s": np.array([1.0], np.float32)} | NO_LEAST))


@pytest.mark.parametrize("leave", [left, left_async])
def test_a_client_of_ours_that_stalls_and_leaves_leaves_nothing_behind(
    limited: EmbeddedServer, leave: Callable[[str, Callable[[], None]], None]
) -> None:
    metrics = Metrics(limited.metrics_url)

    def stall() -> None:
        wait_until(lambda: metrics.value("heartvoice_jobs_live") == 0, 110.0, "the unread song is not finished")
        assert not takes_songs(limited), "nothing is unread: the test shows nothing"

    leave(limited.url, stall)
    wait_until(lambda: takes_songs(limited), 60.0, "what was not read is still there")


def test_a_stalled_client_that_leaves_through_the_gateway_leaves_nothing_behind(limited: EmbeddedServer) -> None:
    metrics = Metrics(limited.metrics_url)
    with running(limited.url) as gateway:
        with Raw(gateway.url) as unread:
            stalled = unread.call("song", LONG, timeout=300.0)
            next(stalled)
            wait_until(lambda: metrics.value("heartvoice_jobs_live") == 0, 110.0, "the unread song is not finished")
            assert not takes_songs(limited), "nothing is unread: the test shows nothing"
            stalled.cancel()
        wait_until(lambda: takes_songs(limited), 60.0, "what was not read is still there")


def test_a_server_that_unread_answers_keep_from_work_is_started_anew(
    limited: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A record of a refused job, and a false measurement, stand in for answers that Triton keeps."""
    run, pid = limited._run, limited.pid
    assert run is not None
    monkeypatch.setattr(abandoned_responses, "UNREAD_S", 2.0)
    monkeypatch.setattr(abandoned_responses, "private_bytes", lambda pid: 10**9)
    (run / unread_responses.FULL).write_text(str(LIMIT_MB * 10**6))
    wait_until(lambda: limited.pid != pid, 60.0, "not started anew")
    monkeypatch.undo()
    assert limited.poll() is None
    wait_until(lambda: ready(limited), 60.0, "not ready")
    assert takes_songs(limited)
    assert "answers that nobody reads kept the server from taking jobs; starting it anew" in caplog.text


def ready(server: EmbeddedServer) -> bool:
    with Client(server.url, retries=0) as own:
        return own.server_ready()


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert private_bytes(2**22 + 1) == 0
