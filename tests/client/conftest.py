"""A fake server for each test, and both clients behind one face."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from heartvoice.client import AsyncClient, Client, Message, Report, Song
from tests.client.fake_server import FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A listening fake server."""
    fake = FakeServer().start()
    yield fake
    fake.stop()


def listing(folder: Path) -> list[str]:
    """The names of all files in `folder`, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


class Caller(Protocol):
    """One client call, whichever client makes it."""

    def song(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> Song: ...

    def messages(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> list[Message]: ...

    def render(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> tuple[bytes, Report]: ...

    def ready(self, url: str, model: str | None = None) -> bool: ...


class SyncCaller:
    """By `Client`."""

    def song(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> Song:
        with Client(url, **client or {}) as made:
            return made.song(**arguments)

    def messages(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> list[Message]:
        with Client(url, **client or {}) as made:
            return list(made.stream(**arguments))

    def render(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> tuple[bytes, Report]:
        with Client(url, **client or {}) as made:
            return made.render(**arguments)

    def ready(self, url: str, model: str | None = None) -> bool:
        with Client(url, retries=0) as made:
            return made.server_ready() if model is None else made.model_ready(model)


class AsyncCaller:
    """By `AsyncClient`, each call in an event loop of its own."""

    def song(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> Song:
        async def call() -> Song:
            async with AsyncClient(url, **client or {}) as made:
                return await made.song(**arguments)

        return asyncio.run(call())

    def messages(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> list[Message]:
        async def call() -> list[Message]:
            async with AsyncClient(url, **client or {}) as made, aclosing(made.stream(**arguments)) as stream:
                return [message async for message in stream]

        return asyncio.run(call())

    def render(self, url: str, client: dict[str, Any] | None = None, **arguments: Any) -> tuple[bytes, Report]:
        async def call() -> tuple[bytes, Report]:
            async with AsyncClient(url, **client or {}) as made:
                return await made.render(**arguments)

        return asyncio.run(call())

    def ready(self, url: str, model: str | None = None) -> bool:
        async def call() -> bool:
            async with AsyncClient(url, retries=0) as made:
                return await (made.server_ready() if model is None else made.model_ready(model))

        return asyncio.run(call())


@pytest.fixture(params=[SyncCaller(), AsyncCaller()], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Caller:
    """Both clients in turn."""
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


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made by the openssl command."""
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
    names = ("root.pem", "server.key", "server.pem", "client.key", "client.pem", "other_root.pem")
    return Certificates(*(folder / name for name in names))
