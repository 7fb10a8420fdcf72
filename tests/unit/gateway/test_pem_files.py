"""Keys and certificates that cannot be used are told by name, before anything is done with them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from heartvoice.errors import InvalidRequestError
from heartvoice.pem_files import check_pair, why_invalid_now
from tests.fakes.server import FakeServer
from tests.support.callers import Certificates
from tests.support.gateways import running


@pytest.fixture(scope="module")
def files(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pem")
    (folder / "damaged").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", str(certificates.server_key)]
    subprocess.run([*command, "-out", str(folder / "locked")], check=True, capture_output=True)
    return {"damaged": folder / "damaged", "locked": folder / "locked"} | vars(certificates)


FAULTS = {
    "of another pair": ("client_key", "server", "private.key: '.*client.key' does not belong to '.*server.pem'"),
    "damaged": ("server_key", "damaged", "private.key: '.*server.key' with '.*damaged' cannot be read"),
    "with a password": ("locked", "server", "private.key: '.*locked' with '.*server.pem' has a password"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_pair_that_cannot_be_used_is_refused(files: dict[str, Path], fault: str) -> None:
    key, chain, message = FAULTS[fault]
    with pytest.raises(InvalidRequestError, match=f"^{message}"):
        check_pair("private_key", files[key], files[chain])


def test_a_certificate_that_is_not_valid_now_is_told(certificates: Certificates) -> None:
    check_pair("private_key", certificates.server_key, certificates.server)
    assert why_invalid_now(certificates.server_key, certificates.server) == ""
    assert why_invalid_now(certificates.server_key, certificates.server_expired) == "has expired"


@pytest.mark.parametrize("fault", [*FAULTS, "swapped", "no roots"])
def test_a_gateway_names_the_file_and_not_its_port(files: dict[str, Path], fault: str) -> None:
    more = {
        "swapped": ("server", "server_key", "private-key: expected a PEM of a private key, .* may be swapped"),
        "no roots": ("server_key", "server", "client-roots: expected a PEM of a certificate, got '.*server.key'"),
    }
    key, chain, message = {**FAULTS, **more}[fault]
    options: dict[str, Any] = {"private_key": files[key], "certificate": files[chain]}
    if fault == "no roots":
        options["client_roots"] = files["server_key"]
    with pytest.raises(InvalidRequestError, match=f"^--{message}"), running("127.0.0.1:1", **options):
        pass


def test_a_gateway_tells_of_an_expired_certificate(files: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer().start()
    try:
        with running(server.url, private_key=files["server_key"], certificate=files["server_expired"]):
            assert "the certificate has expired: callers will refuse it" in caplog.text
    finally:
        server.stop()
