"""TLS, with and without a client certificate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from heartvoice.errors import ModelMissingError, ModelUnavailableError
from tests.fakes.server import FakeServer
from tests.support.callers import Caller, Certificates


@contextmanager
def serving(certificates: Certificates, *, mutual: bool) -> Iterator[FakeServer]:
    """A server with the test certificate, which with `mutual` wants one of its callers."""
    pair = (certificates.server_key.read_bytes(), certificates.server.read_bytes())
    root = certificates.root.read_bytes() if mutual else None
    server = FakeServer().start(grpc.ssl_server_credentials([pair], root, mutual))
    try:
        yield server
    finally:
        server.stop()


def test_tls_with_the_right_root_works(certificates: Certificates, caller: Caller) -> None:
    with serving(certificates, mutual=False) as server:
        song = caller.song(server.url, client={"root_certificates": certificates.root}, tags="pop")
    assert song.duration_s == 1.6


def test_mutual_tls_works_from_bytes_and_paths(certificates: Certificates, caller: Caller) -> None:
    options = {
        "root_certificates": certificates.root.read_bytes(),
        "private_key": str(certificates.client_key),
        "certificate_chain": certificates.client,
    }
    with serving(certificates, mutual=True) as server:
        assert caller.song(server.url, client=options, tags="pop").duration_s == 1.6


def test_mutual_tls_refuses_callers_without_certificate(certificates: Certificates, caller: Caller) -> None:
    with serving(certificates, mutual=True) as server, pytest.raises(ModelUnavailableError):
        caller.song(server.url, client={"root_certificates": certificates.root, "retries": 0}, tags="pop")
    assert not server.requests


@pytest.mark.parametrize("options", [{"tls": True}, {"root_certificates": "other"}])
def test_an_untrusted_server_is_refused_without_retries(
    certificates: Certificates, caller: Caller, options: dict[str, object]
) -> None:
    if "root_certificates" in options:
        options = {"root_certificates": certificates.other_root}
    with serving(certificates, mutual=False) as server, pytest.raises(ModelMissingError, match="not trusted here"):
        caller.song(server.url, client=options, tags="pop")


def test_plain_text_to_a_tls_server_is_unavailable(certificates: Certificates, caller: Caller) -> None:
    with serving(certificates, mutual=False) as server, pytest.raises(ModelUnavailableError):
        caller.song(server.url, client={"retries": 0}, tags="pop", timeout_s=5)
