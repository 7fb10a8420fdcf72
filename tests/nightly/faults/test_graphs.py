"""Graph files that change between start, load and reload."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from heartvoice.client import Client
from heartvoice.errors import EngineError, ModelUnavailableError
from heartvoice.runtime.repository import GRAPH, Repository
from heartvoice.server.options import ServerOptions
from heartvoice.server.server import EmbeddedServer, free_port
from tests.support.faults.jobs import recovery_s, song
from tests.support.faults.recorder import Recorder
from tests.support.raw import OF_SONGS
from tests.support.waiting import wait_until

DECODER = "heartcodec_decoder"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda graph: os.truncate(graph, graph.stat().st_size // 2), "expected .* bytes, got"),
    "missing": (lambda graph: graph.unlink(), "is missing"),
    "of another network": (
        lambda graph: shutil.copy2(graph.parents[2] / "svc_flow" / GRAPH, graph),
        "expected .* bytes, got",
    ),
    "with other weights": (lambda graph: flip_last_byte(graph), "expected sha256 .* of its manifest"),
}


def flip_last_byte(graph: Path) -> None:
    """The same name, shapes and size."""
    data = bytearray(graph.read_bytes())
    at = len(data) // 2
    data[at] ^= 1
    graph.write_bytes(data)


@pytest.fixture
def root(repository: Repository, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository.root, tmp_path / "damaged"))


@pytest.mark.parametrize(
    "damage",
    list(DAMAGES),
)
@pytest.mark.parametrize("model", [DECODER, "heartcodec_flow"])
def test_a_graph_that_is_not_the_exported_one_is_not_loaded(
    root: Path, record: Recorder, damage: str, model: str
) -> None:
    change, message = DAMAGES[damage]
    change(root / model / GRAPH)
    server = EmbeddedServer(ServerOptions(root, free_port(), free_port(), models=OF_SONGS))
    began = time.monotonic()
    with pytest.raises(EngineError, match=f"{model}: .*{message}") as saw:
        server.start()
    assert server._run is None, "the run's folder is still there"
    record(f"{model}: graph {damage} at the start", saw=saw.value, after_s=time.monotonic() - began)


@pytest.mark.timeout(120)
def test_a_graph_that_was_damaged_while_it_ran_is_named_until_it_is_whole_again(
    root: Path, new_server: Callable[..., EmbeddedServer], record: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    server = new_server(root, models=OF_SONGS)
    graph = root / DECODER / GRAPH
    whole = graph.read_bytes()
    with Client(server.url, retries=0) as client:
        expected = song(client, duration_s=4.0, min_duration_s=4.0)
        os.truncate(graph, len(whole) // 2)
        assert (song(client, duration_s=4.0, min_duration_s=4.0) == expected).all(), "what is loaded goes on"
        os.kill(server.stub_pids()[DECODER], signal.SIGKILL)
        fell = time.monotonic()
        wait_until(lambda: "expected" in caplog.text, 60.0, "nothing was logged")
        with pytest.raises(ModelUnavailableError, match=DECODER) as saw:
            song(client)
        after_s = time.monotonic() - fell
        time.sleep(3.0)
        n_tries = caplog.text.count("trying again in")
        assert 1 <= n_tries <= 4, "it tries without pause"
        graph.write_bytes(whole)
        mended = time.monotonic()
        recovered = recovery_s(lambda: song(client, duration_s=1.0, min_duration_s=1.0), mended)
        assert (song(client, duration_s=4.0, min_duration_s=4.0) == expected).all()
    record(
        f"{DECODER}: graph truncated while it runs, then kill -9 (recovery: after the file was put back)",
        saw=saw.value, after_s=after_s, recovery_s=recovered,
    )  # fmt: skip
