"""A fake hub with its storage network and a plain file server, for huggingface_hub 2.4.0."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS = (".safetensors", ".pth", ".pt", ".bin", ".th")
"""The storage network serves files of these types; the hub serves the others."""


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Repository:
    """Commits by hash, and a branch `main`."""

    licence: str = "apache-2.0"
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    main: str = ""

    def commit(self, files: dict[str, bytes]) -> str:
        self.main = hashlib.sha1(repr((self.main, sorted(files.items()))).encode()).hexdigest()
        self.commits[self.main] = dict(files)
        return self.main


@dataclass
class Request:
    method: str
    path: str
    host: str
    start: int | None
    """Start of the requested range."""
    authorized: bool


class HubServer:
    """A server on a free local port, until closed."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.plain: dict[str, bytes] = {}
        """Files below `/plain/`, by name."""
        self.requests: list[Request] = []
        self.cuts: dict[str, list[int]] = {}
        """Bytes that each next response of a file sends before its connection breaks."""
        self.sent_instead: dict[str, bytes] = {}
        """Content to send instead of a file; the announced size and hash stay."""
        self.ranges = True
        self.status: int | None = None
        """HTTP status of all responses, if set."""
        self.announced_commit: str | None = None
        """False commit that the hub reports for a revision, if set."""
        self.bytes_per_s: float | None = None
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def publish(self, repository: str, files: dict[str, bytes], licence: str = "apache-2.0") -> str:
        return self.repositories.setdefault(repository, Repository(licence)).commit(files)

    def downloads(self, name: str) -> list[Request]:
        """Return the requests for a file's bytes, without redirects."""
        return [each for each in self.requests if each.method == "GET" and _is_content(each.path, name)]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _is_content(path: str, name: str) -> bool:
    return path.endswith(f"/{name}") and (not name.endswith(LFS) or path.startswith(("/storage/", "/plain/")))


@contextmanager
def serving() -> Iterator[HubServer]:
    server = HubServer()
    try:
        yield server
    finally:
        server.close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else None
        authorized = "authorization" in self.headers
        self.hub.requests.append(Request(self.command, path, self.headers["Host"], start, authorized))
        if self.hub.status is not None:
            self.reply(self.hub.status)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self.info(match[1], match[2] or "main", blobs="blobs=" in self.path)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(*match.groups())
        elif match := re.fullmatch(r"/storage/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path):
            self.content(match[3], self.hub.repositories[match[1]].commits[match[2]][match[3]], start)
        elif (name := path.removeprefix("/plain/")) in self.hub.plain:
            self.content(name, self.hub.plain[name], start)
        else:
            self.reply(404)

    def info(self, name: str, revision: str, *, blobs: bool) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            self.reply(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."})
            return
        commit = repository.main if revision == "main" else revision
        if commit not in repository.commits:
            self.reply(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"})
            return
        files = repository.commits[commit].items()
        value = {
            "id": name, "modelId": name, "sha": self.hub.announced_commit or commit, "private": False, "gated": False,
            "tags": ["pytorch", f"license:{repository.licence}"], "cardData": {"license": repository.licence},
            "siblings": [_sibling(file, content) if blobs else {"rfilename": file} for file, content in files],
        }  # fmt: skip
        self.reply(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def resolve(self, name: str, revision: str, file: str) -> None:
        repository = self.hub.repositories[name]
        commit = repository.main if revision == "main" else revision
        content = repository.commits.get(commit, {}).get(file)
        if repository.gated and "authorization" not in self.headers:
            self.reply(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        elif content is None:
            self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        elif file.endswith(LFS):
            # By another host name, as the storage network has.
            location = f"http://localhost:{self.hub.port}/storage/{name}/{commit}/{file}"
            headers = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{sha256(content)}"'}
            self.reply(302, {**headers, "X-Repo-Commit": commit, "Location": location, "ETag": '"of the pointer"'})
        else:
            self.content(file, content, None, {"X-Repo-Commit": commit, "ETag": f'"{git_blob(content)}"'})

    def content(self, name: str, content: bytes, start: int | None, headers: dict[str, str] | None = None) -> None:
        content, headers = self.hub.sent_instead.get(name, content), headers or {}
        if start is not None and self.hub.ranges:
            span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            self.reply(206, {**headers, **span}, content[start:], name)
        else:
            self.reply(200, headers, content, name)

    def reply(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", name: str | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cuts = self.hub.cuts.get(name or "", [])
        if cuts:
            self.wfile.write(body[: cuts.pop(0)])
            self.close_connection = True
        elif self.hub.bytes_per_s is not None and name is not None:
            self.trickle(body, self.hub.bytes_per_s)
        else:
            self.wfile.write(body)

    def trickle(self, body: bytes, bytes_per_s: float) -> None:
        part = 1 << 20
        for start in range(0, len(body), part):
            try:
                self.wfile.write(body[start : start + part])
            except OSError:  # the client has left
                self.close_connection = True
                return
            time.sleep(part / bytes_per_s)


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    stated: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git_blob(content)}
    if name.endswith(LFS):
        stated["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 135}
    return stated
