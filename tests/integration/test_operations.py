"""What an operator sees of a running server, and what is started anew."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from typer.testing import CliRunner

import heartvoice
from heartvoice.cli.main import app
from heartvoice.contracts.about import ABOUT, NAMES
from heartvoice.contracts.constants import CONTRACT
from heartvoice.server.repository_api import LOAD, UNLOAD
from heartvoice.server.server import EmbeddedServer
from tests.fakes.networks import text
from tests.support.gateways import NOT_SERVING, SERVING, running, watching
from tests.support.raw import Metrics, Raw, request
from tests.support.waiting import wait_until

SHORT = {"lyrics": text("the kettle hums"), "duration_s": np.array([1.0], np.float32), "codec_steps": np.array([1])}


def job_lines(server: EmbeddedServer) -> dict[str, Any]:
    assert server.options.log_path is not None
    lines = server.options.log_path.read_text().splitlines()
    return {found["id"]: found for found in map(json.loads, (line for line in lines if line.startswith("{")))}


def test_each_job_has_a_line_and_none_of_its_contents(server: EmbeddedServer, metrics: Metrics) -> None:
    before = metrics.value("heartvoice_job_seconds_count", model="song")
    with Raw(server.url) as raw:
        for name, inputs in (("line-1", SHORT), ("line-2", SHORT | {"codec_steps": np.array([0])})):
            message = request("song", inputs)
            message.id = name
            list(raw.stub.ModelStreamInfer(iter([message]), timeout=120))
    wait_until(lambda: {"line-1", "line-2"} <= set(job_lines(server)), 60.0, "no line")
    good, bad = (job_lines(server)[name] for name in ("line-1", "line-2"))
    assert (good["model"], good["outcome"], bad["outcome"]) == ("song", "ok", "INVALID_ARG")
    assert good["seconds"] >= good["first_audio"] > good["queue"] >= 0
    assert {"lm_s", "codec_s"} <= set(good["stages"])
    assert good["audio"] > 0
    assert "kettle" not in server.options.log_path.read_text()  # type: ignore[union-attr]
    assert metrics.value("heartvoice_job_seconds_count", model="song") == before + 1
    assert metrics.value("heartvoice_job_rtf_count", model="song") >= 1
    assert metrics.value("heartvoice_job_first_audio_seconds_sum", model="song") > 0


def test_a_server_says_what_it_is(server: EmbeddedServer) -> None:
    with Raw(server.url) as raw:
        assert raw.stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=60).name == ABOUT
        parameters = raw.stub.ModelConfig(service_pb2.ModelConfigRequest(name=ABOUT), timeout=60).config.parameters
    facts = {name: parameters[name].string_value for name in NAMES}
    assert facts == {
        "version": heartvoice.__version__, "preset": "tiny", "contract": str(CONTRACT), "weights": "random seed=0",
        "random_weights": "true",
    }  # fmt: skip


@pytest.mark.parametrize(("options", "said"), [((), "ready"), (("--live",), "live"), (("--model", "svc"), "ready")])
def test_health_of_a_server(server: EmbeddedServer, options: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(app, ["health", "--url", server.url, *options])
    assert (result.exit_code, result.stdout) == (0, f"{said}\n"), result.output


def test_processes_that_end_or_hang_are_started_anew_and_counted(new_server: Callable[..., EmbeddedServer]) -> None:
    server = new_server(models=("f0_network",), hang_s=4.0)

    def health(*options: str) -> int:
        return CliRunner().invoke(app, ["health", "--url", server.url, *options]).exit_code

    def shown(name: str) -> float:
        try:
            with urllib.request.urlopen(server.metrics_url, timeout=10) as page:
                lines = page.read().decode().splitlines()
        except OSError:  # it is being started
            return -1.0
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    with (
        running(server.url, models=("f0_network",)) as gateway,
        watching(gateway.url) as whole, watching(gateway.url, "f0_network") as model,
    ):  # fmt: skip
        assert next(whole) == next(model) == SERVING
        with server._reloading:  # the process is dead, and not replaced yet
            os.kill(server.stub_pids()["f0_network"], signal.SIGKILL)
            server._api.call(UNLOAD, "f0_network", 60.0)
            assert [health(), health("--model", "f0_network"), health("--live")] == [0, 3, 0]
            assert next(model) == NOT_SERVING
        assert next(model) == SERVING
        wait_until(lambda: shown("heartvoice_restarts_total") == 1, 60.0, "the new process is not counted")
        server._withdraw()
        assert next(whole) == next(model) == NOT_SERVING, "it is being drained"
        server._api.call(LOAD, ABOUT, 60.0)
        assert next(whole) == next(model) == SERVING
    os.kill(server.pid, signal.SIGSTOP)
    first = server.pid
    wait_until(lambda: server.pid != first, 100.0, "it hangs on")
    assert server.poll() is None
    wait_until(lambda: shown("heartvoice_server_restarts_total") == 1, 100.0, "the new server is not counted")
    assert shown("heartvoice_restarts_total") == 1, "counts outlast the server"
    server._withdraw()
    assert [health(), health("--model", "f0_network"), health("--live")] == [3, 3, 0], "it is being stopped"
    os.kill(server.pid, signal.SIGKILL)  # an operator's
    wait_until(lambda: server.poll() == -signal.SIGKILL, 60.0, "an operator's kill is no hang")
