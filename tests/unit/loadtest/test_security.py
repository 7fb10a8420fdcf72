"""A server under load that is reached by TLS, with a token."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from heartvoice.cli.main import app
from heartvoice.errors import InvalidRequestError, ModelMissingError
from heartvoice.loadtest.target import Security, Target
from tests.fakes.server import FakeServer
from tests.support.callers import Certificates, certificates  # noqa: F401
from tests.support.raw import request


def test_requests_and_clients_go_by_tls_with_the_token(
    certificates: Certificates,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text("secret-token")
    pair = (certificates.server_key.read_bytes(), certificates.server.read_bytes())
    server = FakeServer().start(grpc.ssl_server_credentials([pair], certificates.root.read_bytes(), True))
    security: Security = {
        "root_certificates": certificates.root, "private_key": certificates.client_key,
        "certificate_chain": certificates.client, "token_file": tmp_path / "token",
    }  # fmt: skip
    target = Target(server.url, None, None, exposed=False, security=security)
    try:
        assert target.ask(request("song", {"lyrics": np.array([b"la"], object)}), streamed=True) > 0
        assert ("authorization", "Bearer secret-token") in [tuple(pair) for pair in server.metadata]
        with target.client() as client:
            assert client.song(lyrics="la").duration_s == 1.6
        other = Target(server.url, None, None, security={"root_certificates": certificates.other_root})
        with pytest.raises(ModelMissingError, match="CERTIFICATE_VERIFY"):
            other.ask(request("song", {"lyrics": np.array([b"la"], object)}), streamed=True)
    finally:
        server.stop()
    with pytest.raises(InvalidRequestError, match="--expose-headers"):
        target.perf_headers(shared=False)
    assert target.perf_security() == [
        "--ssl-grpc-use-ssl", "--ssl-grpc-root-certifications-file", str(certificates.root),
        "--ssl-grpc-private-key-file", str(certificates.client_key),
        "--ssl-grpc-certificate-chain-file", str(certificates.client),
    ]  # fmt: skip
    assert Target("127.0.0.1:1", None, None).perf_security() == []


def test_tls_options_are_for_a_running_server() -> None:
    result = CliRunner().invoke(app, ["bench", "--tls"])
    assert result.exit_code == 2
    assert "--tls and --token-file: expected --url" in result.output
