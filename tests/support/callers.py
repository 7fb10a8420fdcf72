"""Fixtures: a fake server for each test, and both clients behind one interface."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from typer.testing import CliRunner, Result

from heartvoice.cli import main as cli
from heartvoice.client import AsyncClient, Client, Message, Report, Song
from heartvoice.provenance.key_folder import FOLDER_VARIABLE
from tests.fakes.server import FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A listening fake server."""
    fake = FakeServer().start()
    yield fake
    fake.stop()


def listing(folder: Path) -> list[str]:
    """The names of all files in `folder`, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, with plain wide output, and without the keys that the user may have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "no keys"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("HEARTVOICE_URL", raising=False)
    return tmp_path


INPUTS = ("song.mp3", "voice.flac")


@pytest.fixture
def inputs(folder: Path) -> Path:
    """Run in a folder with two files that nobody decodes."""
    for name in INPUTS:
        (folder / name).write_bytes(name.encode())
    return folder


def made() -> list[str]:
    """List what a command has left beside `INPUTS`."""
    return [name for name in listing(Path()) if name not in INPUTS]


def peak_bytes(*arguments: str, cwd: Path) -> int:
    """Run a command of heartvoice in a process of its own; return the most memory that it took."""
    line = [sys.executable, "-m", "heartvoice.cli.main", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    # By way of a small process: a child's peak counts what its parent had when it forked.
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", measure, *line], cwd=cwd, env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout) * 1024


def heartvoice(*arguments: str, **options: Any) -> Result:
    """Run the command in this process."""
    runner: Any = CliRunner
    try:
        runner = runner(mix_stderr=False)
    except TypeError:  # click 8.2 and later never mix
        runner = runner()
    result: Result = runner.invoke(cli.app, arguments, **options)
    return result


class Caller(Protocol):
    """Calls of a client, synchronous or asynchronous."""

    def call(self, method: str, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> Any: ...

    def items(self, method: str, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> list[Any]: ...

    def song(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> Song: ...

    def messages(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> list[Message]: ...

    def render(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> tuple[bytes, Report]: ...

    def ready(self, url: str, model: str | None = None) -> bool: ...


class AnyCaller:
    """Calls of both clients, implemented by `call` and `items`."""

    def call(self, method: str, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> Any:
        """Return the result of a method."""
        raise NotImplementedError

    def items(self, method: str, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> list[Any]:
        """Return the items that a method yields."""
        raise NotImplementedError

    def song(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> Song:
        made: Song = self.call("song", url, client, **arguments)
        return made

    def messages(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> list[Message]:
        return self.items("stream", url, client, **arguments)

    def render(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> tuple[bytes, Report]:
        made: tuple[bytes, Report] = self.call("render", url, client, **arguments)
        return made

    def ready(self, url: str, model: str | None = None) -> bool:
        method, arguments = ("server_ready", {}) if model is None else ("model_ready", {"name": model})
        return bool(self.call(method, url, {"retries": 0}, **arguments))


class SyncCaller(AnyCaller):
    """Calls by `Client`."""

    def call(self, method: str, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> Any:
        with Client(url, **client or {}) as made:
            return getattr(made, method)(**arguments)

    def items(self, method: str, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> list[Any]:
        with Client(url, **client or {}) as made:
            return list(getattr(made, method)(**arguments))


class AsyncCaller(AnyCaller):
    """Calls by `AsyncClient`, each in a new event loop."""

    def call(self, method: str, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> Any:
        async def work() -> Any:
            async with AsyncClient(url, **client or {}) as made:
                return await getattr(made, method)(**arguments)

        return asyncio.run(work())

    def items(self, method: str, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> list[Any]:
        async def work() -> list[Any]:
            async with (
                AsyncClient(url, **client or {}) as made,
                aclosing(getattr(made, method)(**arguments)) as stream,
            ):
                return [message async for message in stream]

        return asyncio.run(work())


@pytest.fixture(params=[SyncCaller(), AsyncCaller()], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Caller:
    """Parametrise a test over both clients."""
    chosen: Caller = request.param
    return chosen


@dataclass(frozen=True)
class Certificates:
    """Paths of one authority's root, and of a server's and a client's key and certificate."""

    root: Path
    server_key: Path
    server: Path
    client_key: Path
    client: Path
    other_root: Path
    client_elsewhere: Path
    """A certificate for another host, of the client's key."""
    server_expired: Path
    """One of the server's key that was valid until yesterday."""


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make certificates by the openssl command."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")
    (folder / "san.cnf").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for root in ("root", "other_root"):
        openssl(*new, "-x509", "-subj", f"/CN={root}", "-keyout", f"{root}.key", "-out", f"{root}.pem")
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial",
            "-days", "30", "-extfile", "san.cnf", "-out", f"{name}.pem",
        )  # fmt: skip
    (folder / "elsewhere.cnf").write_text("subjectAltName=DNS:elsewhere.example\n")
    openssl(
        "x509", "-req", "-in", "client.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial",
        "-days", "30", "-extfile", "elsewhere.cnf", "-out", "elsewhere.pem",
    )  # fmt: skip
    openssl(
        "x509", "-req", "-in", "server.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial",
        "-days", "-1", "-extfile", "san.cnf", "-out", "expired.pem",
    )  # fmt: skip
    names = (
        "root.pem", "server.key", "server.pem", "client.key", "client.pem", "other_root.pem", "elsewhere.pem",
        "expired.pem",
    )  # fmt: skip
    return Certificates(*(folder / name for name in names))
