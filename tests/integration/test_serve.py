"""Starting and stopping the server: what is checked first, what is said, what is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from heartvoice import keyed_random, shm_regions
from heartvoice.client import Client
from heartvoice.errors import EngineError, HeartvoiceError, SetupError
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.server import cleanup, triton_wheel
from heartvoice.server.options import ServerOptions
from heartvoice.server.ports import check_socket
from heartvoice.server.server import EmbeddedServer, free_port
from tests.support.raw import HEARTVOICE, OF_SONGS, Raw, start_cli
from tests.support.servers import running_server
from tests.support.waiting import wait_until

ONE = ("heartcodec_decoder",)
"""A single model, for tests of the server alone."""


def native_server(folder: Path) -> Path:
    """The wheel's server laid out as the official container's is."""
    files = triton_wheel.find_wheel()
    binary = folder / "tritonserver" / "bin" / "tritonserver"
    binary.parent.mkdir(parents=True)
    libraries = f"{triton_wheel.shared_libpython()}:{files.libraries}"
    binary.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {files.binary} "$@"\n')
    binary.chmod(0o755)
    triton_wheel.backend_directory(files, folder / "tritonserver" / "backends")
    return binary


@pytest.mark.parametrize(
    ("number", "models", "native"), [(signal.SIGINT, OF_SONGS, False), (signal.SIGTERM, ONE, True)],
    ids=["Ctrl-C, the wheel's server", "SIGTERM, a native server"],
)  # fmt: skip
def test_serve_says_when_it_is_ready_and_stops_on_a_signal(
    repository: Repository, tmp_path: Path, number: signal.Signals, models: tuple[str, ...], native: bool
) -> None:
    options = ("--server", str(native_server(tmp_path))) if native else ()
    process, ready = start_cli(repository.root, *options, models=models)
    assert ready["preset"] == "tiny"
    assert str(ready["weights"]).startswith("random")
    if native:  # it brings its own backends
        latents = np.zeros((1, repository.preset.codec.latent_hidden_dim, 10), np.float32)
        with Raw(str(ready["grpc"])) as raw:
            assert raw.infer(ONE[0], {"latents": latents})["audio"].ndim == 3
    pid = int(str(ready["pid"]))
    owner = shm_regions.process_identity(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z (INFO|WARNING) ", line) for line in said.splitlines()), said
    assert f"INFO loaded {models[0]}, " in said
    assert not Path(f"/proc/{pid}").exists()
    assert not list(shm_regions.SHM.glob(f"{shm_regions.shm_prefix(owner)}*"))
    assert not [f for f in Path(tempfile.gettempdir()).glob("heartvoice-run-*") if (f / "owner").read_text() == owner]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_before_it_is_ready_leaves_nothing(repository: Repository, number: signal.Signals) -> None:
    command = [*HEARTVOICE, "serve", "--repository", str(repository.root)]
    command += ["--grpc-port", str(free_port()), "--metrics-port", str(free_port())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    owner = shm_regions.process_identity(process.pid)

    def runs() -> list[Path]:
        folders = Path(tempfile.gettempdir()).glob("heartvoice-run-*")
        return [f for f in folders if (f / "owner").is_file() and (f / "owner").read_text() == owner]

    wait_until(lambda: bool(runs()), 60.0, "it did not start")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not runs()
    wait_until(lambda: not _remains(owner), 60.0, "shared memory is left")


def test_a_start_that_is_interrupted_leaves_nothing(repository: Repository) -> None:
    server = EmbeddedServer(ServerOptions(repository.root, free_port(), free_port(), models=ONE))
    with pytest.raises(KeyboardInterrupt):
        server.start(lambda: True)
    assert not server.ready
    assert server.poll() is not None, "the process lives on"
    assert server._run is None


def test_a_killed_serve_takes_its_server_along(repository: Repository) -> None:
    process, ready = start_cli(repository.root, models=ONE)
    owner = shm_regions.process_identity(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: not shm_regions.process_identity(int(str(ready["pid"]))), 60.0, "the server lives on")
    wait_until(lambda: cleanup.remove_stale() >= 0 and not _remains(owner), 60.0, "something is left")


def _remains(owner: str) -> list[Path]:
    return list(shm_regions.SHM.glob(f"{shm_regions.shm_prefix(owner)}*"))


@pytest.fixture(scope="module")
def on_openvino(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    log = tmp_path_factory.mktemp("openvino") / "server.log"
    with running_server(repository.root, config_name="cpu", models=ONE, log_path=log) as running:
        yield running


def test_only_loopback_listens(on_openvino: EmbeddedServer) -> None:
    server = on_openvino
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            if state == "0A":
                host, port = address.split(":")
                listening.add((host, int(port, 16)))
    ports = {server.options.grpc_port, server.options.metrics_port}
    ours = {(host, port) for host, port in listening if port in ports}
    assert {port for _, port in ours} == ports
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, and the same as an IPv6 address
    assert {host for host, _ in ours} <= loopback


def test_numpy_2_is_refused(repository: Repository, tmp_path: Path) -> None:
    # What the metadata of the environment says: the server's own process would find out only by its zeros.
    metadata = tmp_path / "numpy-2.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.1.0\n")
    result = subprocess.run(
        [*HEARTVOICE, "serve", "--repository", str(repository.root)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 3
    assert result.stderr.startswith(
        "error: numpy 2.1.0 is installed; the embedded Triton server silently returns zeros"
    )
    assert "pip install 'numpy<2'" in result.stderr


def test_missing_wheel_and_stub_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"--server: .* is not an executable tritonserver"):
        triton_wheel.find_installed(tmp_path)
    monkeypatch.setattr(triton_wheel, "python_version", lambda: "3.99")
    with pytest.raises(SetupError, match=r"no stub for Python 3\.99"):
        triton_wheel.find_wheel()
    with pytest.raises(SetupError, match=r"libpython3\.99"):
        triton_wheel.shared_libpython()
    monkeypatch.setattr(triton_wheel, "DISTRIBUTION", "no-such-wheel")
    with pytest.raises(SetupError, match=r"heartvoice\[serve\]"):
        triton_wheel.find_wheel()


def test_cpu_configs_run_native_graphs_on_openvino(repository: Repository, on_openvino: EmbeddedServer) -> None:
    server = on_openvino
    latents = keyed_random.normal(0, "test", 0, (2, repository.preset.codec.latent_hidden_dim, 60))
    expected = LocalNetworks(repository).run("heartcodec_decoder", {"latents": latents})["audio"].astype(np.float32)
    with Raw(server.url) as raw:
        audio = raw.infer("heartcodec_decoder", {"latents": latents})["audio"]
    np.testing.assert_allclose(audio, expected, atol=1e-4)
    assert server.options.log_path is not None
    assert "loaded heartcodec_decoder on OpenVinoEngine" in server.options.log_path.read_text()


def test_a_taken_port_is_named(repository: Repository) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"--grpc-port: port {port} is not free"):
            EmbeddedServer(ServerOptions(repository.root, port, free_port())).start()


def copied(repository: Repository, folder: Path) -> Path:
    shutil.copytree(repository.root, folder)
    return folder


def broken_index(root: Path) -> None:
    (root / "repository.json").unlink()


def other_preset(root: Path) -> None:
    manifest = root / "heartcodec_flow" / "1" / "model.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"preset": "mid"}))


def truncated_graph(root: Path) -> None:
    graph = root / "heartmula_step" / "1" / "model.onnx"
    os.truncate(graph, graph.stat().st_size // 2)


def missing_graph(root: Path) -> None:
    (root / "heartcodec_decoder" / "1" / "model.onnx").unlink()


def missing_tokenizer(root: Path) -> None:
    (root / "heartmula" / "1" / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("damage", "model", "message"),
    [
        (broken_index, "heartcodec", "repository.json is missing: not an exported repository"),
        (other_preset, "heartcodec", "heartcodec_flow: exported for preset 'mid', but .* says 'tiny'"),
        (truncated_graph, "heartmula", "heartmula_step"),
        (missing_graph, "heartcodec_decoder", "heartcodec_decoder"),
        (missing_tokenizer, "heartmula", "tokenizer"),
    ],
)
def test_a_damaged_repository_is_refused_with_the_reason(
    repository: Repository, tmp_path: Path, damage: Callable[[Path], None], model: str, message: str
) -> None:
    root = copied(repository, tmp_path / "damaged")
    damage(root)
    server = EmbeddedServer(ServerOptions(root, free_port(), free_port(), models=(model,)))
    with pytest.raises(HeartvoiceError, match=message):
        server.start()
    assert server._run is None, "the run's folder is still there"


def test_on_a_unix_socket_it_serves_its_own_user(new_server: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    """Who cannot enter the socket's folder cannot use the keys that the process list shows."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    server = new_server(models=OF_SONGS, address=f"unix:{folder}/grpc", shared_memory=True)
    assert server.url == f"unix:{folder}/grpc:{server.options.grpc_port}"
    with Client(server.url) as client:
        assert client.song("la la", "pop", duration_s=1.0, seed=1).audio.size
    server.reload("song")
    assert server.live_jobs() == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.options.grpc_port)) != 0, "it listens on TCP, too"
    with pytest.raises(SetupError, match="another server listens on"):
        check_socket(server.options.address, server.options.grpc_port)
    server.stop()
    assert not list(folder.iterdir())


def test_doctor_finds_what_is_there(repository: Repository) -> None:
    command = [*HEARTVOICE, "doctor", "--json", "--repository", str(repository.root)]
    command += ["--grpc-port", str(free_port()), "--metrics-port", str(free_port())]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)}
    assert findings["Triton server"]["ok"]
    assert "preset tiny" in findings["repository"]["detail"]


def test_doctor_says_what_is_missing(tmp_path: Path) -> None:
    command = [*HEARTVOICE, "doctor", "--repository", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "MISSING  repository:" in result.stdout
    assert "heartvoice export" in result.stdout


def test_serve_refuses_in_one_line(tmp_path: Path) -> None:
    result = subprocess.run(
        [*HEARTVOICE, "serve", "--repository", str(tmp_path / "none")], capture_output=True, text=True
    )
    assert result.returncode != 0
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert "heartvoice export" in result.stderr


def test_unfinished_export_error_type(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"not an exported repository|missing"):
        EmbeddedServer(ServerOptions(tmp_path, free_port(), free_port())).start()
